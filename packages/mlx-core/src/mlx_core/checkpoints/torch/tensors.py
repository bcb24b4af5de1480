"""Torch's names in the pickles of its checkpoints: storages, tensors over them, parameters, dtypes, devices.

The names and arguments are those of `torch/_utils.py` and `torch/storage.py`, 2.13. Sizes, strides and offsets are
checked against the bytes that are there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import numpy as np

from ...errors import WeightsError
from .unpickler import Global, Refusal

_MAX_TENSORS = 2**17
_MAX_DIMS = 32
_MAX_KEY = 256

# NumPy's type of the stored numbers (it has no bfloat16), and MLX's dtype for them.
_DTYPES: dict[str, tuple[str, mx.Dtype]] = {
    "float64": ("f8", mx.float64),
    "float32": ("f4", mx.float32),
    "float16": ("f2", mx.float16),
    "bfloat16": ("u2", mx.bfloat16),
    "int64": ("i8", mx.int64),
    "int32": ("i4", mx.int32),
    "int16": ("i2", mx.int16),
    "int8": ("i1", mx.int8),
    "uint64": ("u8", mx.uint64),
    "uint32": ("u4", mx.uint32),
    "uint16": ("u2", mx.uint16),
    "uint8": ("u1", mx.uint8),
    "bool": ("u1", mx.bool_),
    "complex64": ("c8", mx.complex64),
    **{f"float8_{kind}": ("u1", mx.uint8) for kind in ("e4m3fn", "e5m2", "e4m3fnuz", "e5m2fnuz", "e8m0fnu")},
}
_OTHER_DTYPES = ("complex128", "complex32", "float4_e2m1fn_x2", "qint8", "qint32", "quint8", "quint4x2", "quint2x4")
_STORAGES = {
    "Double": "float64",
    "Float": "float32",
    "Half": "float16",
    "BFloat16": "bfloat16",
    "Long": "int64",
    "Int": "int32",
    "Short": "int16",
    "Char": "int8",
    "Byte": "uint8",
    "Bool": "bool",
    "ComplexFloat": "complex64",
    "ComplexDouble": "complex128",
    "QInt8": "qint8",
    "QInt32": "qint32",
    "QUInt8": "quint8",
    "QUInt4x2": "quint4x2",
    "QUInt2x4": "quint2x4",
}
RESAVE = "In Python with torch, load the file, {} and save it again."
_REFUSED = {
    "_rebuild_qtensor": "a quantised tensor. " + RESAVE.format("call `dequantize()` on such tensors"),
    "_rebuild_sparse_tensor": "a sparse tensor. " + RESAVE.format("call `to_dense()` on such tensors"),
    "_rebuild_nested_tensor": "a nested tensor. " + RESAVE.format("pad such tensors or `unbind()` them"),
    "_rebuild_meta_tensor_no_storage": "a tensor on the meta device, which has no data. Fetch a file with data.",
    "_rebuild_wrapper_subclass": "a tensor of a subclass. " + RESAVE.format("make plain tensors of such ones"),
}


@dataclass(frozen=True)
class _StorageType:
    dtype: str


@dataclass(frozen=True, eq=False)
class _Storage:
    """A storage in the file: bytes `start` to `end` of `data`, which is None while its place isn't known yet."""

    key: str
    dtype: str
    start: int
    end: int
    data: memoryview | None


@dataclass(frozen=True, eq=False)
class TorchTensor:
    """A tensor in a file that isn't read yet: `array()` reads it. `dtype` is torch's name for it ("bfloat16")."""

    dtype: str
    shape: tuple[int, ...]
    _strides: tuple[int, ...] = field(repr=False)  # in elements, as is the offset
    _offset: int = field(repr=False)
    _storage: _Storage = field(repr=False)
    _big_endian: bool = field(repr=False)

    @property
    def nbytes(self) -> int:
        """Bytes of the array, which for a view of a storage may be more than the file has."""
        return math.prod(self.shape) * item_bytes(self.dtype)

    def array(self) -> mx.array:
        """The tensor, bit for bit; see `load_pytorch_checkpoint` for dtypes."""
        native, dtype = np.dtype(_DTYPES[self.dtype][0]), _DTYPES[self.dtype][1]
        if self.nbytes and self._storage.data is not None:
            stored = native.newbyteorder(">" if self._big_endian else "<")
            start = self._storage.start + self._offset * native.itemsize
            flat = np.frombuffer(self._storage.data, stored, (self._storage.end - start) // native.itemsize, start)
            strides = [stride * native.itemsize for stride in self._strides]
            view = np.lib.stride_tricks.as_strided(flat, self.shape, strides, writeable=False)
            values = np.ascontiguousarray(view, native).reshape(self.shape)  # it makes one dimension of none
        else:
            values = np.zeros(self.shape, native)
        if dtype == mx.bfloat16:
            return mx.array(values).view(mx.bfloat16)
        return mx.array(values, dtype)  # which makes bools of bytes


class TensorTable:
    """The objects that a pickle asks for: storages by persistent id, tensors by calls. `locate` gives the bytes of a
    storage by key and dtype; `made` turns each TorchTensor into the result.
    """

    def __init__(
        self,
        source: str,
        locate: Callable[[str, str], memoryview | None],
        max_bytes: int,
        made: Callable[[TorchTensor], Any],
        *,
        big_endian: bool = False,
    ) -> None:
        self.source, self.locate, self.made, self.big_endian = source, locate, made, big_endian
        self.max_bytes = self.bytes_left = max_bytes
        self.views: dict[str, Any] = {}
        rebuild = {
            "_rebuild_tensor": self.tensor,
            "_rebuild_tensor_v2": self.tensor,
            "_rebuild_tensor_v3": self.tensor_v3,
        }
        self.rebuild = [Global(f"torch._utils.{name}", call) for name, call in rebuild.items()]
        self.table = {
            **{entry.name: entry for entry in self.rebuild},
            "torch._tensor._rebuild_from_type_v2": Global("_rebuild_from_type_v2", self.tensor_with_attributes),
        }

    def storage(self, identity: Any) -> _Storage:
        """The storage of a persistent id: ("storage", type, key, location, elements) and, in the older layout, None or
        (key, offset, elements) of a view.
        """
        if not isinstance(identity, tuple) or len(identity) not in (5, 6) or identity[0] != "storage":
            raise TypeError(f"a persistent id that isn't a storage's, but a {type(identity).__name__}")
        _, kind, key, _, count, *view = identity
        if not isinstance(kind, _StorageType) or not isinstance(key, str) or len(key) > _MAX_KEY:
            raise TypeError("a storage without a type or a sensible key")
        itemsize = item_bytes(self.known(kind.dtype))
        start, nbytes = 0, _sizes([count])[0] * itemsize
        data = self.locate(key, kind.dtype)
        if data is not None and nbytes > len(data):
            raise WeightsError(
                f"{self.source}: storage {key!a:.40} has {len(data)} bytes, expected {nbytes}: the file is damaged. "
                "Fetch it again."
            )
        end = nbytes
        if view and view[0] is not None:
            _, offset, count = view[0]
            offset, count = _sizes([offset, count])
            start, end = offset * itemsize, (offset + count) * itemsize
            if end > nbytes:
                raise ValueError(f"a view of {count} elements from {offset} on, in a storage of {nbytes} bytes")
        return _Storage(key, kind.dtype, start, end, data)

    def known(self, dtype: str) -> str:
        """The dtype, if MLX has it."""
        if dtype not in _DTYPES:
            raise WeightsError(
                f"{self.source} holds a tensor of dtype {dtype!a:.40}, which MLX lacks. "
                + RESAVE.format("cast such tensors")
            )
        return dtype

    def tensor(self, storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> Any:
        """A tensor of its storage's dtype. `rest`: whether it requires a gradient, hooks, and from torch 2.0 on flags of
        lazy views.
        """
        return self.view(storage, storage.dtype, offset, shape, strides, *rest[2:])

    def tensor_v3(
        self, storage: Any, offset: Any, shape: Any, strides: Any, gradient: Any, hooks: Any, dtype: Any, *rest: Any
    ) -> Any:
        """A tensor of a dtype that has no storage type of its own."""
        if not isinstance(dtype, str):
            raise TypeError("a tensor without a dtype")
        return self.view(storage, dtype.removeprefix("torch."), offset, shape, strides, *rest)

    def tensor_with_attributes(self, rebuild: Any, kind: Any, arguments: Any, state: Any) -> Any:
        """A tensor whose attributes are dropped; subclasses of torch's tensors are refused."""
        if kind not in (_TENSOR, _PARAMETER) or not isinstance(arguments, tuple):
            raise TypeError("a tensor of a class that isn't torch.Tensor")
        if rebuild not in self.rebuild:
            raise TypeError("a tensor that isn't made by one of torch's functions")
        return rebuild.call(*arguments)

    def view(self, storage: Any, dtype: str, offset: Any, shape: Any, strides: Any, flags: Any = None) -> Any:
        """A tensor over a storage, after its sizes are checked."""
        if not isinstance(storage, _Storage):
            raise TypeError(f"a tensor without a storage: {type(storage).__name__}")
        if flags:
            raise WeightsError(
                f"{self.source} holds a tensor that is to be conjugated or negated when it is read. "
                + RESAVE.format("call `resolve_conj().resolve_neg()` on such tensors")
            )
        itemsize = item_bytes(self.known(dtype))
        shape, strides = _sizes(shape), _sizes(strides)
        (offset,) = _sizes([offset])
        if len(shape) != len(strides) or len(shape) > _MAX_DIMS:
            raise ValueError(f"a tensor of {len(shape)} dimensions and {len(strides)} strides")
        if not all(size < 2**31 for size in shape) or math.prod(size or 1 for size in shape) >= 2**48:
            raise ValueError(f"a tensor of an impossible shape, {shape}")
        # torch leaves any stride where it doesn't matter.
        strides = tuple(stride if size > 1 else 0 for size, stride in zip(shape, strides, strict=True))
        last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
        available = (storage.end - storage.start) // itemsize
        if 0 not in shape and last >= available:
            raise WeightsError(
                f"{self.source}: a tensor of shape {shape} reaches element {last} of a storage of {available}: the file is "
                "damaged. Fetch it again."
            )
        tensor = TorchTensor(dtype, shape, strides, offset, storage, self.big_endian)
        # As text, since the hash of a tuple of integers can be foreseen.
        same = repr((storage.key, storage.start, dtype, offset, shape, strides))
        if same not in self.views:
            self.bytes_left -= tensor.nbytes
            if self.bytes_left < 0:
                raise WeightsError(
                    f"{self.source}: the tensors would take more than {self.max_bytes} bytes. If they should be so large, allow "
                    "more by `max_bytes`."
                )
            if len(self.views) == _MAX_TENSORS:
                raise ValueError(f"more than {_MAX_TENSORS} tensors")
            self.views[same] = self.made(tensor)
        return self.views[same]


def item_bytes(dtype: str) -> int:
    return np.dtype(_DTYPES[dtype][0]).itemsize


def _sizes(values: Any) -> tuple[int, ...]:
    if not isinstance(values, tuple | list) or not all(type(value) is int and 0 <= value < 2**62 for value in values):
        raise TypeError("a size, stride or offset that isn't a number from 0 on")
    return tuple(values)


def _parameter(data: Any, *rest: Any) -> Any:
    if not isinstance(data, mx.array | TorchTensor):
        raise TypeError(f"a parameter of {type(data).__name__}")
    return data


def _device(kind: Any, index: Any = None) -> str:
    if not isinstance(kind, str) or not (index is None or type(index) is int):
        raise TypeError("a device that isn't a name and a number")
    return kind if index is None else f"{kind}:{index}"


def _layout(name: Any) -> str:
    if not isinstance(name, str):
        raise TypeError("a layout without a name")
    return name


def _no_tensor(*arguments: Any) -> Any:
    raise TypeError("a tensor without a storage, as torch before 0.2 wrote them")


_TENSOR = Global("torch.Tensor", _no_tensor)
_PARAMETER = Global("torch.nn.parameter.Parameter", _parameter)
TORCH: dict[str, Any] = {
    **{f"torch.{name}": f"torch.{name}" for name in (*_DTYPES, *_OTHER_DTYPES)},
    **{f"torch.{kind}Storage": _StorageType(dtype) for kind, dtype in _STORAGES.items()},
    **{f"torch.cuda.{kind}Storage": _StorageType(dtype) for kind, dtype in _STORAGES.items()},
    "torch.storage.UntypedStorage": _StorageType("uint8"),
    "torch.Tensor": _TENSOR,
    "torch._tensor.Tensor": _TENSOR,
    "torch.nn.parameter.Parameter": _PARAMETER,
    "torch._utils._rebuild_parameter": Global("_rebuild_parameter", _parameter),
    "torch._utils._rebuild_parameter_with_state": Global("_rebuild_parameter_with_state", _parameter),
    "torch.Size": Global("torch.Size", _sizes),
    "torch.device": Global("torch.device", _device),
    "torch.serialization._get_layout": Global("_get_layout", _layout),
    **{f"torch._utils.{name}": Refusal(reason) for name, reason in _REFUSED.items()},
}
