"""The Jinja environment that chat templates run in.

A template arrives with a checkpoint, so it is an untrusted program. Jinja's immutable sandbox keeps it away from
Python's internals and from changing what it is given, but limits neither time nor memory. A deadline and a limit on the
output aren't enough, since a single operation can take both without end: `'a' * 10**11`, `9 ** 9 ** 9`. So:

- The time and memory of an operation are proportional to the size of its operands. Where they may be more, `_COSTS`
  computes a bound before the operation; filters and methods of this kind that no chat template needs are removed.
- The result of an operation is measured before anything else can use it. A container counts all that is in it, as often as
  it is in it: a list that holds another twice, which holds another twice, is small until it is written, compared or
  hashed. The sum of all results is limited too, because a template may keep them.
- Each operation and each step of a loop looks at the clock. That takes no signals and no second thread, so it works in
  any thread and on any platform.

Jinja has hooks for calls, operators, filters, tests and output; `_Meter` puts checks where it has none.

The rest is what templates of the Hugging Face hub expect: `raise_exception`, `strftime_now`, their kind of `tojson`,
loop controls, `{% generation %}` blocks and trimmed blocks.

This module imports jinja2; `chat_template` imports it when the first template is rendered.
"""

from __future__ import annotations

import functools
import json
import re
import time
from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, Mapping, Sequence, ValuesView
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from types import GeneratorType
from typing import Any, NoReturn

from jinja2 import Environment, Template, TemplateError, nodes, pass_context, pass_environment
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.filters import make_attrgetter
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

MAX_SECONDS = 10.0  # a chat of a thousand messages takes some hundredths of one
MAX_PROMPT_BYTES = 2**23  # twice a context of a million tokens; encoding one takes some 200 bytes for each token
MAX_CHARACTERS = 2**24  # of a single value
MAX_MADE = 2**28  # characters of all values together, of up to four bytes each
_ITEM = 16  # characters that an item of a container counts for, beside its own
_NUMBER = 512  # characters that a formatted number may have
_MAX_DEPTH = 100  # of nested containers; hashing very deep ones would exhaust the C stack
_MAX_BITS = 256  # of an integer
_MAX_WIDTH = 100  # columns of an indentation, digits of a rounded number
_SEARCH_SPEED = 64  # pairs of characters that are compared in the time of making one, at least

# They make long texts of short ones or take quadratic time, and no chat template needs them; |random would use Python's
# global random state.
_REMOVED_FILTERS = ("batch", "center", "pprint", "random", "slice", "striptags", "urlize", "wordwrap", "xmlattr")
_REMOVED_METHODS = ("center", "encode", "expandtabs", "ljust", "rjust", "striptags", "to_bytes", "translate", "zfill")
_CONTAINERS = (dict, list, tuple, KeysView, ValuesView, ItemsView)

# Widths and precisions that are computed or have three digits, and nested parentheses and braces that could hide them.
_WIDE_PERCENT = re.compile(r"%(\([^()]*\))?[-+ #.\d]*(\*|\d{3})|%\([^)]*\(")
_WIDE_BRACES = re.compile(r"\{[^{}]*(\{|\d{3})")


class RefusedMessages(TemplateError):
    """The template called raise_exception."""


def compile_template(source: str) -> Template:
    """The compiled template; raises what Jinja and Python raise for a bad one."""
    return _environment().from_string(source)


def render(template: Template, variables: Mapping[str, Any]) -> str:
    """The template's text; raises what Jinja and Python raise, and SecurityError when it exceeds a limit."""
    token = _rendering.set(_Rendering(time.monotonic() + MAX_SECONDS, MAX_MADE))
    try:
        pieces, size = [], 0
        for piece in template.generate(**variables):
            size += len(piece.encode("utf-8", "surrogatepass"))
            if size > MAX_PROMPT_BYTES:
                _refuse(f"makes a prompt of more than {MAX_PROMPT_BYTES:,} bytes")
            _check()
            pieces.append(piece)
        return "".join(pieces)
    finally:
        _rendering.reset(token)


@dataclass
class _Rendering:
    """The limits of one rendering: its deadline, the characters that it may still make, and for the containers that were
    measured, by id, the container, its size and its depth. They don't change, and are kept so that ids stay unique.
    """

    deadline: float
    left: int
    measured: dict[int, tuple[Any, int, int]] = field(default_factory=dict)


# Not set while a template is compiled: the checks raise LookupError then, and Jinja leaves constants to the rendering.
_rendering: ContextVar[_Rendering] = ContextVar("rendering")


# --- Limits


def _refuse(action: str) -> NoReturn:
    raise SecurityError(f"it {action}")


def _check(size: int = 0) -> None:
    """Raise SecurityError if time is up, or a value of this size is too large."""
    if time.monotonic() > _rendering.get().deadline:
        _refuse(f"takes longer than {MAX_SECONDS:g} s")
    if size > MAX_CHARACTERS:
        _refuse(f"makes a text or list of more than {MAX_CHARACTERS:,} characters")


def _spend(size: int) -> None:
    """Add a value of this size to those made before."""
    _check(size)
    rendering = _rendering.get()
    rendering.left -= size
    if rendering.left < 0:
        _refuse(f"makes texts and lists of more than {MAX_MADE:,} characters in all")


def _measure(value: Any) -> tuple[int, int]:
    """The characters in a value, and how deep its containers are nested."""
    if isinstance(value, str):
        return len(value), 0
    if not isinstance(value, _CONTAINERS) or not value:
        return 0, 0
    measured = _rendering.get().measured
    if id(value) not in measured:
        parts = [*value, *value.values()] if isinstance(value, dict) else value
        _spend(_ITEM * len(parts))
        sizes, depths = zip(*map(_measure, parts), strict=True)
        if max(depths) >= _MAX_DEPTH:
            _refuse(f"makes lists that are nested more than {_MAX_DEPTH} deep")
        measured[id(value)] = value, _ITEM * len(parts) + sum(sizes), 1 + max(depths)
    _, size, depth = measured[id(value)]
    return size, depth


def _size(*values: Any) -> int:
    return sum(_measure(value)[0] for value in values)


def _checked(value: Any) -> Any:
    """The value, unless time is up."""
    _check()
    return value


def _bounded(value: Any) -> Any:
    """The result of an operation, unless it is too large."""
    if isinstance(value, str):
        _spend(len(value))
    elif isinstance(value, int) and value.bit_length() > _MAX_BITS:
        _refuse(f"computes a number of more than {_MAX_BITS} bits")
    elif isinstance(value, GeneratorType):
        return _steps(value)
    else:
        _check(_size(value))
    return value


def _steps(items: Iterable[Any]) -> Iterator[Any]:
    for number, item in enumerate(items, 1):
        _check(_ITEM * number)
        yield item


def _joined(texts: Iterable[str], separator: str = "") -> str:
    parts, size = [], 0
    for text in texts:
        size += len(text) + len(separator)
        _check(size)
        parts.append(text)
    return separator.join(parts)


def _perform(name: str, operation: Callable[[], Any], operands: Sequence[Any], named: Mapping[str, Any]) -> Any:
    """Carry out an operator, a method or a filter, unless it costs too much."""
    _check(_COSTS[name](*operands, **named) if name in _COSTS else 0)
    return _bounded(operation())


# --- Costs: how many characters an operation may make, or could make in the time that it may take


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _power(base: Any, exponent: Any) -> int:
    bits = _number(base).bit_length() * abs(_number(exponent))
    return 0 if bits <= _MAX_BITS else _refuse(f"computes a number of more than {_MAX_BITS} bits")


def _width(width: Any) -> int:
    columns = len(width) if isinstance(width, str) else abs(_number(width))
    return columns if columns <= _MAX_WIDTH else _refuse(f"formats with a width or precision above {_MAX_WIDTH}")


def _grown(text: str, part: str, *values: Any, each: int = 0) -> int:
    """The length of a text in which every `part` is replaced by all of `values`, and by `each` characters."""
    return len(text) + text.count(part) * (_size(*values) + each)


def _percent(text: Any, /, *values: Any, **named: Any) -> int:
    if _WIDE_PERCENT.search(str(text)):
        _refuse("formats with a width or precision that is computed or has three digits")
    return _grown(str(text), "%", *values, *named.values(), each=_NUMBER)


def _braces(text: str, /, *values: Any, **named: Any) -> int:
    if _WIDE_BRACES.search(text.replace("{{", "")):
        _refuse("formats with a width or precision that is computed or has three digits")
    return _grown(text, "{", *values, *named.values(), each=_NUMBER)


def _search(text: Any, /, *wanted: Any, **named: Any) -> int:
    """Each character may be compared with each that is wanted."""
    return len(str(text)) * _size(*wanted, *named.values()) // _SEARCH_SPEED


def _characters(items: Any, *_: Any, **__: Any) -> int:
    return _ITEM * len(items) if isinstance(items, str) else 0


def _sum(items: Any, attribute: Any = None, start: Any = 0) -> int:
    return 0 if isinstance(start, int | float) else _refuse("makes a list by sum, which copies it for each item")


# Operators by their sign, methods of texts as ".name", filters as "|name".
_COSTS: dict[str, Callable[..., int]] = {
    "*": lambda left, right: max(_size(left) * _number(right), _size(right) * _number(left)),
    "**": _power,
    "%": lambda left, right: _percent(left, right) if isinstance(left, str) else 0,
    "|format": _percent,
    "|indent": lambda text, width=4, *_, **__: len(str(text)) + _width(width) * len(str(text).splitlines()),
    "|round": lambda number, precision=0, *_, **__: _width(precision),
    "|sum": _sum,
    **dict.fromkeys((".format", ".format_map"), _braces),
    **dict.fromkeys((".replace", "|replace"), lambda text, old, new, *_, **__: _grown(str(text), str(old), str(new))),
    **dict.fromkeys(("|groupby", "|list", "|sort"), _characters),
    **dict.fromkeys((".lstrip", ".rfind", ".rindex", ".rpartition", ".rsplit", ".rstrip", ".strip", "|trim"), _search),
}


# --- The environment

# Names of filters that a template can't write, because of the space.
_CHECKED, _BOUNDED, _CONCATENATED = "checked value", "bounded value", "concatenated texts"


def _filter(node: nodes.Expr, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


class _Meter(NodeTransformer):
    """Puts checks where Jinja has no hook for them: at the steps of loops, on the operator ~, on slices, at comparisons
    and look-ups, and where lists, tuples and dictionaries are written out.
    """

    def visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> nodes.Node:
        self.generic_visit(node)
        match node:
            case nodes.For():
                check = _filter(nodes.Const(None, lineno=node.lineno), _CHECKED)
                node.body.insert(0, nodes.ExprStmt(check, lineno=node.lineno))
            case nodes.Concat():
                return _filter(nodes.List(node.nodes, lineno=node.lineno), _CONCATENATED)
            case nodes.List() | nodes.Dict() | nodes.Tuple(ctx="load") | nodes.Getitem(arg=nodes.Slice()):
                return _filter(node, _BOUNDED)
            case nodes.Getitem():
                node.arg = _filter(node.arg, _CHECKED)
            case nodes.Pair():
                node.key = _filter(node.key, _CHECKED)
            case nodes.Operand():
                node.expr = _filter(node.expr, _CHECKED)
        return node


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(ImmutableSandboxedEnvironment.default_binop_table)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        _Meter().visit(tree)
        return tree

    @staticmethod
    def concat(pieces: Iterable[str]) -> Any:  # of what a macro or a block has written
        return _bounded(_joined(pieces))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        operation = functools.partial(super().call_binop, context, operator, left, right)
        return _perform(operator, operation, (left, right), {})

    # The double underscores keep these names free for a template's keyword arguments, as in the base class.
    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        method = getattr(__obj, "__wrapped__", __obj)  # Jinja wraps str.format
        text = getattr(method, "__self__", None)
        if isinstance(text, str) and method.__name__ == "join":
            return _bounded(functools.partial(_joined, separator=text)(*args))
        _check(_size(*args, *kwargs.values()))  # a macro may keep them, as varargs
        operation = functools.partial(super().call, __context, __obj, *args, **kwargs)
        if isinstance(text, str):
            return _perform(f".{method.__name__}", operation, (text, *args), kwargs)
        return _bounded(operation())

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return attr not in _REMOVED_METHODS and super().is_safe_attribute(obj, attr, value)

    def unsafe_undefined(self, obj: Any, attribute: str) -> NoReturn:
        # Jinja's undefined value would be written as "", and fail only when it is used further.
        _refuse(f"reaches for the attribute {attribute!r} of a {type(obj).__name__}")


class _Generation(Extension):
    """`{% generation %}` encloses the assistant's part, for training; here it only groups."""

    tags = {"generation"}  # noqa: RUF012 - as the base class declares it

    def parse(self, parser: Parser) -> nodes.Scope:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


class _Namespace(Namespace):
    """Jinja's namespace() without private names, which Python and Jinja look for on objects."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        for name, value in dict(*args, **kwargs).items():
            self[name] = value

    def __setitem__(self, name: str, value: Any) -> None:
        if isinstance(name, str) and name.startswith("_"):
            _refuse(f"reaches for {name!r}, a private name, in a namespace")
        super().__setitem__(name, value)

    def __repr__(self) -> str:
        return "<Namespace>"  # what it holds isn't measured, and may hold it


def _hooked(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter or a test with its checks."""
    before = int(hasattr(function, "jinja_pass_arg"))  # a context or an environment comes before the operands

    @functools.wraps(function)  # carries Jinja's attributes, such as jinja_pass_arg
    def hooked(*args: Any, **kwargs: Any) -> Any:
        return _perform(name, functools.partial(function, *args, **kwargs), args[before:], kwargs)

    return hooked


@pass_environment
def _join_filter(
    environment: Environment, items: Iterable[Any], d: Any = "", attribute: str | int | None = None
) -> str:
    values = items if attribute is None else map(make_attrgetter(environment, attribute), items)
    return _joined(map(str, values), str(d))


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """JSON as Hugging Face's templates expect it: Jinja's own escapes HTML's characters."""
    _width(indent)
    encoder = json.JSONEncoder(ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    return _joined(encoder.iterencode(value))  # piece by piece, since in depth it may be mostly margins


def _raise_exception(message: str) -> NoReturn:
    raise RefusedMessages(message)


def _strftime_now(format: str) -> str:
    _check(_percent(format))
    return datetime.now().strftime(format)


@pass_context  # else Jinja would call it while it compiles
def _written(context: Context, value: Any) -> Any:
    """A value that becomes text, and in a macro or a block waits for the rest."""
    _spend(_ITEM + _size(value))
    return value


@functools.cache
def _environment() -> _Environment:
    extensions = [_Generation, loopcontrols]
    environment = _Environment(trim_blocks=True, lstrip_blocks=True, extensions=extensions, finalize=_written)
    environment.globals |= {
        "namespace": _Namespace,
        "raise_exception": _raise_exception,
        "strftime_now": _strftime_now,
    }
    del environment.globals["lipsum"]
    filters: dict[str, Any] = environment.filters | {"join": _join_filter, "tojson": _tojson}
    for name in _REMOVED_FILTERS:
        del filters[name]
    environment.filters = {name: _hooked(f"|{name}", function) for name, function in filters.items()}
    environment.filters |= {_CHECKED: _checked, _BOUNDED: _bounded}
    environment.filters[_CONCATENATED] = lambda parts: _bounded(_joined(map(str, parts)))
    tests: dict[str, Any] = environment.tests
    environment.tests = {name: _hooked(f"is {name}", function) for name, function in tests.items()}
    return environment
