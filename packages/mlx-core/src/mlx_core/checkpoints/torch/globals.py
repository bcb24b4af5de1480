"""Python's and NumPy's names that the pickles in torch's checkpoints may use: types of plain data.

Each entry checks its arguments, which come from the file, and makes nothing larger than they are.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from .unpickler import Global, hashable


def _dict(items: Any = None) -> dict[Any, Any]:
    if items is None:
        return {}
    if isinstance(items, dict):  # a Counter
        return {hashable(key): value for key, value in items.items()}
    return {hashable(key): value for key, value in _list(items)}  # Python 2's OrderedDict


def _default_dict(factory: Any = None) -> dict[Any, Any]:
    return {}


def _list(items: Any) -> list[Any]:
    if not isinstance(items, list):
        raise TypeError(f"{type(items).__name__} where a list is expected")
    return items


def _set(items: Any = None) -> set[Any]:
    return set() if items is None else set(map(hashable, _list(items)))


def _frozenset(items: Any = None) -> frozenset[Any]:
    return frozenset(_set(items))


def _bytes(text: Any = "", encoding: Any = "latin1") -> bytes:
    """Bytes, which protocol 2 writes as text of one character per byte."""
    if isinstance(text, bytes):
        return text
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise TypeError(f"bytes made from {type(text).__name__}, or in another encoding than latin1")
    return text.encode("latin1")


def _bytearray(text: Any = "", encoding: Any = "latin1") -> bytearray:
    return bytearray(_bytes(text, encoding))


def _complex(real: Any, imaginary: Any = 0.0) -> complex:
    if not isinstance(real, float) or not isinstance(imaginary, float):
        raise TypeError("a complex number whose parts aren't floats")
    return complex(real, imaginary)


def _posix_path(*parts: Any) -> str:
    return str(PurePosixPath(*parts))


def _windows_path(*parts: Any) -> str:
    return str(PureWindowsPath(*parts))


def _uncallable(*arguments: Any) -> Any:
    raise TypeError("a call of a class that is only known by its name")


def _ignore(target: Any, state: Any) -> None:
    """Drop the attributes of a dict (`_metadata` of a state dict)."""


def _set_attributes(target: Any, state: Any) -> None:
    if not isinstance(state, dict) or not all(isinstance(name, str) and name[:2] != "__" for name in state):
        raise TypeError(f"a state for {type(target).__name__} that isn't a dict of attributes by name")
    vars(target).update(state)


def _set_state(target: Any, state: Any) -> None:
    """Give an object of a class that the caller allows its state, as pickle does."""
    if hasattr(type(target), "__setstate__"):
        type(target).__setstate__(target, state)
    else:
        _set_attributes(target, state)


def _numpy_kind(text: Any, align: Any = False, copy: Any = True) -> np.dtype[Any]:
    # Only numbers and text of a fixed length, as dtype.__reduce__ spells them: a letter and the size of an item.
    if not isinstance(text, str):
        raise TypeError("a NumPy dtype without a name")
    kind, size = text[:1], text[1:]
    if kind not in tuple("biufcSU") or not size.isdecimal() or not 0 < int(size) < 2**16:
        raise TypeError(f"a NumPy dtype {text!a:.40}; expected numbers or text")
    return np.dtype(text, align=False, copy=True)


def _set_numpy_kind(target: np.dtype[Any], state: Any) -> None:
    """Set the byte order; everything else in the state follows from the kind."""
    if state[1] not in ("<", ">", "|"):
        raise TypeError("a NumPy dtype without a byte order")
    sized = target.kind in "SU"
    size, alignment = (target.itemsize, target.alignment) if sized else (-1, -1)
    cast("Any", target).__setstate__((3, state[1], None, None, None, size, alignment, 8 if sized else 0))


def _numpy_bytes(data: Any, dtype: Any, count: int) -> bytes:
    data = data.encode() if isinstance(data, str) else data  # Python 2's str, taken for text
    if not isinstance(dtype, np.dtype) or not isinstance(data, bytes | bytearray):
        raise TypeError(f"a NumPy value made from {type(dtype).__name__} and {type(data).__name__}")
    if len(data) != count * dtype.itemsize:
        raise ValueError(f"a NumPy value of {count} x {dtype} in {len(data)} bytes")
    return bytes(memoryview(data))  # a copy: NumPy makes it the array's own memory, which may be written


def _numpy_shape(shape: Any) -> tuple[tuple[int, ...], int]:
    if not isinstance(shape, tuple) or len(shape) > 32 or not all(type(n) is int and 0 <= n < 2**40 for n in shape):
        raise ValueError("an impossible shape of a NumPy array")
    return shape, math.prod(shape)


def _numpy_scalar(dtype: Any, data: Any) -> Any:
    return np.frombuffer(_numpy_bytes(data, dtype, 1), dtype)[0]


def _numpy_empty(kind: Any, shape: Any, letter: Any) -> npt.NDArray[Any]:
    return np.ndarray((0,), np.uint8)


def _numpy_array(data: Any, dtype: Any, shape: Any, order: Any = "C") -> npt.NDArray[Any]:
    shape, count = _numpy_shape(shape)
    flat = np.frombuffer(_numpy_bytes(data, dtype, count), dtype)
    return flat.reshape(shape, order="F" if order == "F" else "C")


def _set_numpy_array(target: npt.NDArray[Any], state: Any) -> None:
    _, shape, dtype, fortran, data = state
    shape, count = _numpy_shape(shape)
    cast("Any", target).__setstate__((1, shape, dtype, bool(fortran), _numpy_bytes(data, dtype, count)))


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "_codecs.encode": _bytes,
    "builtins.bytearray": _bytearray,
    "builtins.bytes": _bytes,
    "builtins.complex": _complex,
    "builtins.frozenset": _frozenset,
    "builtins.set": _set,
    "collections.Counter": _dict,
    "collections.defaultdict": _default_dict,
    **{f"builtins.{name}": _uncallable for name in ("bool", "dict", "float", "int", "list", "str", "tuple")},
    **{f"pathlib{part}.{pure}PosixPath": _posix_path for part in ("", "._local") for pure in ("", "Pure")},
    **{f"pathlib{part}.{pure}WindowsPath": _windows_path for part in ("", "._local") for pure in ("", "Pure")},
    **{f"numpy.{core}.multiarray.scalar": _numpy_scalar for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _numpy_array for core in ("core", "_core")},
    "numpy.ndarray": _uncallable,
}
_BUILDERS: dict[str, tuple[Callable[..., Any], Callable[[Any, Any], None]]] = {
    "argparse.Namespace": (argparse.Namespace, _set_attributes),
    "collections.OrderedDict": (_dict, _ignore),
    "numpy.dtype": (_numpy_kind, _set_numpy_kind),
    **{f"numpy.{core}.multiarray._reconstruct": (_numpy_empty, _set_numpy_array) for core in ("core", "_core")},
}

PLAIN: dict[str, Any] = {
    **{name: Global(name, call) for name, call in _FUNCTIONS.items()},
    **{name: Global(name, call, build) for name, (call, build) in _BUILDERS.items()},
}
"""Python's and NumPy's names: containers come back as dict, list, tuple and set, paths as text."""


def allowed(classes: Mapping[str, Callable[..., Any]]) -> dict[str, Global]:
    """Table entries for classes that the caller vouches for."""
    return {name: Global(name, made, _set_state) for name, made in classes.items()}
