"""An interpreter for the pickles in torch's checkpoints that can do nothing but build plain data.

Python's own unpicklers aren't safe on untrusted files even when `find_class` is restricted: the C one allocates memory
for any memo index that the file names, both hash any object that is used as a key (a deeply nested tuple overflows the
C stack), and both pass `BUILD` on to the objects. Here

- names are looked up in a table only; nothing is imported, and a name that isn't in the table is refused by name;
- only entries of the table can be called, each checks its arguments, and only objects that they made can be built;
- keys are text, bytes, None or integers, and integers are too few for their collisions to take long;
- each step and each copy counts against an allowance of memory (`ALLOWANCE_BYTES`).

Opcodes are those that protocol 2 and later write for data, Python 2's too; extension codes, protocol 0's textual forms
and out-of-band buffers are refused.
"""

from __future__ import annotations

import pickle  # for the opcodes' names only: nothing of it is called
import pickletools
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ...errors import MLXCoreError, WeightsError

# The memory that the objects of a pickle may take. 20,000 tensors by name need a sixth of it.
ALLOWANCE_BYTES = 2**30
_STEP_BYTES = 256  # the largest object that one opcode can make (an empty set), with its places on stack and memo
_KEY_BYTES = 2**13  # a key that isn't text, which someone may have made to collide, and an item that a call copies
_MAX_INT_BYTES = 255
_MAX_NAME = 512


@dataclass(frozen=True, eq=False)
class Global:
    """The meaning of a name in a pickle. `call` makes an object from the pickle's arguments; `build` gives it the state
    that may follow, and where it is None there can be no state.
    """

    name: str
    call: Callable[..., Any]
    build: Callable[[Any, Any], None] | None = None


@dataclass(frozen=True)
class Refusal:
    """A known name that is refused, with the reason and what to do instead."""

    reason: str


class Unpickler:
    """An interpreter of the pickles in `data`, which `load` executes one after the other.

    `table` gives the meaning of names: a Global, a Refusal, or the value itself. `persistent` gives the object of a
    persistent id.
    """

    def __init__(
        self, data: memoryview, table: Mapping[str, Any], persistent: Callable[[Any], Any], *, source: str
    ) -> None:
        self.data, self.table, self.persistent, self.source = data, table, persistent, source
        self.position = 0
        self._allowance = ALLOWANCE_BYTES

    def load(self) -> Any:
        """The object of the pickle at `position`, which then stands behind it. Raises WeightsError, and nothing else."""
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._unbuilt: dict[int, tuple[Any, Callable[[Any, Any], None]]] = {}
        try:
            while True:
                start = self.position
                if start >= len(self.data):
                    raise self._fail("the pickle has no end: the file is cut short or damaged. Fetch it again.")
                opcode = _OPCODES[self.data[start]]
                self.position = start + 1
                if opcode == pickle.STOP:
                    (value,) = self._stack
                    return value
                self._spend(_STEP_BYTES)
                self._execute(opcode)
        except MLXCoreError:
            raise
        except Exception as error:  # a file from elsewhere can make any of these steps fail in any way
            raise self._fail(
                f"the pickle is damaged at byte {start}: {type(error).__name__}: {error!s:.200}. Fetch it again."
            ) from error

    def _fail(self, message: str) -> WeightsError:
        return WeightsError(f"{self.source}: {message}")

    def _spend(self, nbytes: int) -> None:
        self._allowance -= nbytes
        if self._allowance < 0:
            raise self._fail(
                f"the objects beside the tensors would take more than {ALLOWANCE_BYTES >> 20} MiB, which no checkpoint "
                "of weights does. Save the state dict alone."
            )

    def _take(self, nbytes: int) -> memoryview:
        start, end = self.position, self.position + nbytes
        if end > len(self.data):
            raise self._fail(
                f"the pickle needs {nbytes} bytes at byte {start}, and ends at {len(self.data)}: it is cut short or "
                "damaged. Fetch it again."
            )
        self.position = end
        return self.data[start:end]

    def _uint(self, opcode: bytes) -> int:
        return int.from_bytes(self._take(_WIDTHS[opcode]), "little")

    def _counted(self, opcode: bytes) -> memoryview:
        data = self._take(self._uint(opcode))
        self._spend(4 * len(data))  # as text it takes up to four bytes for each
        return data

    def _line(self) -> str:
        """Text up to a newline."""
        start = self.position
        line, newline, _ = bytes(self.data[start : start + _MAX_NAME]).partition(b"\n")
        if not newline:
            raise ValueError(f"a name without an end, or of more than {_MAX_NAME} bytes")
        self.position = start + len(line) + 1
        return line.decode()

    def _marked(self) -> list[Any]:
        """The objects pushed since the last mark, which are taken off the stack."""
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _top(self, kind: type) -> Any:
        if not isinstance(self._stack[-1], kind):
            raise TypeError(f"a {kind.__name__} is to be filled, found {type(self._stack[-1]).__name__}")
        return self._stack[-1]

    def _key(self, value: Any) -> Any:
        if not isinstance(value, str | bytes):
            self._spend(_KEY_BYTES)
        return hashable(value)

    def _execute(self, opcode: bytes) -> None:
        stack, memo = self._stack, self._memo
        match opcode:
            case pickle.BINGET | pickle.LONG_BINGET:
                stack.append(memo[self._uint(opcode)])
            case pickle.BINPUT | pickle.LONG_BINPUT:
                memo[self._uint(opcode)] = stack[-1]
            case pickle.MEMOIZE:
                memo[len(memo)] = stack[-1]
            case pickle.BINUNICODE | pickle.SHORT_BINUNICODE | pickle.BINUNICODE8:
                stack.append(str(self._counted(opcode), "utf-8"))
            case pickle.MARK:
                self._marks.append(len(stack))
            case pickle.EMPTY_TUPLE:
                stack.append(())
            case pickle.TUPLE:
                stack.append(tuple(self._marked()))
            case pickle.TUPLE1 | pickle.TUPLE2 | pickle.TUPLE3:
                stack[-_TUPLES[opcode] :] = [tuple(stack[-_TUPLES[opcode] :])]
            case pickle.BININT1 | pickle.BININT2:
                stack.append(self._uint(opcode))
            case pickle.BININT:
                stack.append(int.from_bytes(self._take(4), "little", signed=True))
            case pickle.INT:  # Python 2's, for what doesn't fit into 32 bits
                stack.append(int(self._line()))
            case pickle.LONG1 | pickle.LONG4:
                data = self._counted(opcode)
                if len(data) > _MAX_INT_BYTES:
                    raise ValueError(f"an integer of {len(data)} bytes")
                stack.append(int.from_bytes(data, "little", signed=True))
            case pickle.BINFLOAT:
                stack.append(struct.unpack(">d", self._take(8))[0])
            case pickle.NONE | pickle.NEWTRUE | pickle.NEWFALSE:
                stack.append(_CONSTANTS[opcode])
            case pickle.EMPTY_LIST:
                stack.append([])
            case pickle.APPEND:
                item = stack.pop()
                self._top(list).append(item)
            case pickle.APPENDS:
                items = self._marked()
                self._top(list).extend(items)
            case pickle.EMPTY_DICT:
                stack.append({})
            case pickle.SETITEM:
                value, key = stack.pop(), stack.pop()
                self._top(dict)[self._key(key)] = value
            case pickle.SETITEMS:
                items = self._marked()
                target = self._top(dict)
                for key, value in zip(items[::2], items[1::2], strict=True):
                    target[self._key(key)] = value
            case pickle.EMPTY_SET:
                stack.append(set())
            case pickle.ADDITEMS:
                items = self._marked()
                self._top(set).update(map(self._key, items))
            case pickle.FROZENSET:
                stack.append(frozenset(map(self._key, self._marked())))
            case pickle.BINBYTES | pickle.SHORT_BINBYTES | pickle.BINBYTES8:
                stack.append(bytes(self._counted(opcode)))
            case pickle.BYTEARRAY8:
                stack.append(bytearray(self._counted(opcode)))
            case pickle.BINSTRING | pickle.SHORT_BINSTRING:  # Python 2's str: text if it can be, as torch reads it
                data = self._counted(opcode)
                try:
                    stack.append(str(data, "utf-8"))
                except UnicodeDecodeError:
                    stack.append(bytes(data))
            case pickle.GLOBAL:
                stack.append(self._find(self._line(), self._line()))
            case pickle.STACK_GLOBAL:
                name, module = stack.pop(), stack.pop()
                stack.append(self._find(module, name))
            case pickle.REDUCE | pickle.NEWOBJ:
                arguments, function = stack.pop(), stack.pop()
                stack.append(self._call(function, arguments))
            case pickle.BUILD:
                state = stack.pop()
                self._build(stack[-1], state)
            case pickle.BINPERSID:
                stack.append(self.persistent(stack.pop()))
            case pickle.PROTO:
                self._take(1)
            case pickle.FRAME:
                self._take(8)
            case _:
                names = {ord(known.code): known.name for known in pickletools.opcodes}
                raise self._fail(
                    f"the pickle has opcode {names.get(opcode[0], opcode[0])} at byte {self.position - 1}, which torch.save "
                    "doesn't write for tensors and plain data. It was not executed. Fetch the file again from a source that "
                    "you trust."
                )

    def _find(self, module: Any, name: Any) -> Any:
        if not isinstance(module, str) or not isinstance(name, str):
            raise TypeError("a global whose name isn't text")
        dotted = f"{'builtins' if module == '__builtin__' else module}.{name}"
        found = self.table.get(dotted)
        if isinstance(found, Refusal):
            raise self._fail(f"the file holds {found.reason}")
        if found is None:
            raise self._fail(
                f"the pickle asks for {dotted!a:.200}, which isn't among the names that checkpoints of tensors and plain data "
                "need. Nothing of it was run. If you trust the file, save its state dict alone, as safetensors or by "
                "torch.save, on a machine with torch; if the name is a class that only holds values, allow it by `classes`."
            )
        return found

    def _call(self, function: Any, arguments: Any) -> Any:
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            raise TypeError(f"a call of {type(function).__name__} with {type(arguments).__name__}")
        self._spend(_copied(arguments))
        made = function.call(*arguments)
        if function.build is not None:
            self._unbuilt[id(made)] = made, function.build
        return made

    def _build(self, target: Any, state: Any) -> None:
        if id(target) not in self._unbuilt:
            raise TypeError(f"a state for {type(target).__name__}, which has none or has it already")
        self._spend(_copied(state if isinstance(state, tuple) else (state,)))
        _, build = self._unbuilt.pop(id(target))
        build(target, state)


_OPCODES = [bytes([code]) for code in range(256)]
_WIDTHS = {
    **dict.fromkeys([pickle.BINGET, pickle.BINPUT, pickle.BININT1, pickle.LONG1], 1),
    **dict.fromkeys([pickle.SHORT_BINUNICODE, pickle.SHORT_BINBYTES, pickle.SHORT_BINSTRING], 1),
    pickle.BININT2: 2,
    **dict.fromkeys([pickle.LONG_BINGET, pickle.LONG_BINPUT, pickle.LONG4], 4),
    **dict.fromkeys([pickle.BINUNICODE, pickle.BINBYTES, pickle.BINSTRING], 4),
    **dict.fromkeys([pickle.BINUNICODE8, pickle.BINBYTES8, pickle.BYTEARRAY8], 8),
}
_CONSTANTS = {pickle.NONE: None, pickle.NEWTRUE: True, pickle.NEWFALSE: False}
_TUPLES = {pickle.TUPLE1: 1, pickle.TUPLE2: 2, pickle.TUPLE3: 3}


def hashable(value: Any) -> Any:
    """A key of a dict or an item of a set, if its hash can't recurse and, but for an integer's, can't be foreseen."""
    if value is None or isinstance(value, str | bytes) or (isinstance(value, int) and abs(value) < 2**60):
        return value
    raise TypeError(f"a key of type {type(value).__name__}; expected text, bytes, an integer below 2**60 or None")


def _copied(values: tuple[Any, ...]) -> int:
    """The bytes that a copy of these may take."""
    total = 0
    for value in values:
        if isinstance(value, str | bytes | bytearray):
            total += 4 * len(value)
        elif isinstance(value, list | dict):  # whose items may become keys
            total += _KEY_BYTES * len(value)
        elif isinstance(value, tuple):
            total += _STEP_BYTES * len(value)
    return total
