"""The GGUF container: a file's metadata and tensors.

The format is that of ggml's `docs/gguf.md`, versions 2 and 3, little-endian; split models are those of llama.cpp's
`llama-gguf-split`. A file is mapped, not read: opening costs the metadata, and each tensor is converted when asked for.
Nothing that a file says is believed before it is checked against the bytes that are there, so a truncated or hostile
file is a WeightsError, soon and within bounded memory. MLX is imported only where arrays are made, since tokenizers are
read from metadata without it.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ...errors import MissingCheckpointError, MLXCoreError, WeightsError
from ..layout import parse_shard
from . import blocks

if TYPE_CHECKING:
    import mlx.core as mx

_DTYPES = {
    0: "u1",
    1: "i1",
    2: "<u2",
    3: "<i2",
    4: "<u4",
    5: "<i4",
    6: "<f4",
    7: "u1",  # bool
    10: "<u8",
    11: "<i8",
    12: "<f8",
}
_BOOL, _STRING, _ARRAY = 7, 8, 9
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")

# Python's objects are larger than their bytes in the file, so the header is limited in values too. The largest
# known vocabularies (262k tokens) need 17 MB and 1.3 million values; the most tensors are a few thousand.
_MAX_HEADER_BYTES = 2**27
_MAX_VALUES = 2**23
_MAX_ENTRIES = 2**17
_MAX_NESTING = 3
_MAX_DIMS = 4  # GGML_MAX_DIMS


class GGUFTensor(NamedTuple):
    """The place of a tensor: `shape` is numpy's (outermost first), `offset` counts from the start of the file, in bytes;
    `part` is the file of a split model, the first 0.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int
    part: int = 0


class PackedTensor(NamedTuple):
    """A tensor in MLX's affine layout: `scales * code + biases`, codes packed from the low bits of a word on."""

    weight: npt.NDArray[np.uint32]  # [..., out, in * bits / 32]
    scales: npt.NDArray[np.float32]  # [..., out, in / group_size]
    biases: npt.NDArray[np.float32]  # [..., out, in / group_size]
    bits: int
    group_size: int


@dataclass(frozen=True)
class GGUFFile:
    """An open GGUF file: its metadata, the places of its tensors, and the tensors themselves on demand.

    `metadata` holds strings, ints, floats, bools and lists of them, under GGUF's own keys.
    """

    path: Path
    version: int
    metadata: dict[str, Any]
    tensors: dict[str, GGUFTensor]
    _parts: tuple[mmap.mmap, ...] = field(repr=False)

    @classmethod
    def open(cls, path: str | Path) -> GGUFFile:
        """Map the file and read its header; of a split model (`X-00001-of-00003.gguf`) all parts, given the first.

        Raises MissingCheckpointError when there is no such file, or a part of it is missing; WeightsError when it can't
        be read, isn't GGUF, is of a version or byte order that isn't supported, is cut short, or contradicts itself.
        """
        path = Path(path)
        data = _map(path)
        version, metadata, tensors = _Reader(path, data).header()
        names = _part_names(path, metadata)
        parts = [data]
        for number, name in enumerate(names[1:], 1):
            part = path.with_name(name)
            parts.append(_map(part))
            _, said, more = _Reader(part, parts[-1]).header()
            if said.get("split.no") != number or said.get("split.count") != len(names):
                raise WeightsError(
                    f"{part}: expected part {number + 1} of {len(names)}; it says split.no {said.get('split.no')!r} and "
                    f"split.count {said.get('split.count')!r}. Fetch all parts of one model again."
                )
            if twice := sorted(tensors.keys() & more.keys()):
                raise WeightsError(f"{part}: the tensor {twice[0]!r} is in an earlier part too. Fetch all parts again.")
            tensors |= {name: tensor._replace(part=number) for name, tensor in more.items()}
        if len(names) > 1 and metadata.get("split.tensors.count", len(tensors)) != len(tensors):
            raise WeightsError(
                f"{path}: the {len(names)} parts hold {len(tensors)} tensors, and the first says "
                f"{metadata['split.tensors.count']!r}. Fetch all parts again."
            )
        return cls(path, version, metadata, tensors, tuple(parts))

    def read(self, name: str) -> npt.NDArray[np.float32]:
        """The tensor as a new float32 array of its shape: exactly the values that ggml computes.

        WeightsError if there is no such tensor, or if its kind isn't one of `blocks.READABLE`.
        """
        tensor = self.tensor(name)
        if tensor.kind not in blocks.READABLE:
            readable = ", ".join(blocks.READABLE)
            raise WeightsError(
                f"{self.path}: the tensor {name} is stored as {tensor.kind}; what can be read is {readable}. Fetch a "
                "file of the model in one of these, or requantise it with llama.cpp's llama-quantize."
            )
        return blocks.dequantize(tensor.kind, self._bytes(tensor)).reshape(tensor.shape)

    def packed(self, name: str) -> PackedTensor | None:
        """The tensor repacked for MLX's quantised matmul without dequantising; None where MLX has no such layout.

        Exact for Q4_0, Q4_1 (4 bits), Q5_0, Q5_1 (5 bits), Q8_0 (8 bits), Q4_K and Q5_K (4 and 5 bits), all of group
        size 32, if they have two dimensions or more. Q6_K scales groups of 16, which MLX can't.

        Scales and biases are float32, and `mx.dequantize` then gives what `read` gives, bit for bit. Cast to float16,
        those of Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0 keep their values (unless a bias of Q4_0, Q5_0 or Q8_0, which is 8, 16
        or 128 scales, overflows), but those of Q4_K and Q5_K are products that need up to 17 bits and are rounded; and
        in both cases MLX rounds the weights themselves to the scales' dtype.

        WeightsError if there is no such tensor.
        """
        tensor = self.tensor(name)
        if len(tensor.shape) < 2 or not blocks.is_packable(tensor.kind):
            return None
        form = blocks.FORMATS[tensor.kind]
        rows = tensor.shape[:-1]
        weight, scales, biases = blocks.repack(tensor.kind, self._bytes(tensor))
        return PackedTensor(
            weight.reshape(*rows, -1), scales.reshape(*rows, -1), biases.reshape(*rows, -1), form.bits, form.group_size
        )

    def array(self, name: str) -> mx.array:
        """The tensor for MLX: F16 and BF16 in their own dtype, everything else as float32. Raises as `read` does."""
        import mlx.core as mx

        tensor = self.tensor(name)
        if tensor.kind == "F16":
            return mx.array(self._bytes(tensor).view("<f2").reshape(tensor.shape))
        if tensor.kind == "BF16":
            return mx.array(self._bytes(tensor).view("<u2").reshape(tensor.shape)).view(mx.bfloat16)
        return mx.array(self.read(name))

    def tensor(self, name: str) -> GGUFTensor:
        """The place of a tensor. Raises WeightsError if there is none of this name."""
        if name not in self.tensors:
            raise WeightsError(f"{self.path}: there is no tensor {name} among the file's {len(self.tensors)}.")
        return self.tensors[name]

    def _bytes(self, tensor: GGUFTensor) -> blocks.Bytes:
        return np.frombuffer(self._parts[tensor.part], np.uint8, tensor.nbytes, tensor.offset)


def _map(path: Path) -> mmap.mmap:
    try:
        if not path.exists():
            raise MissingCheckpointError(f"{path}: there is no such file. Check the path.")
        if not path.is_file() or not path.stat().st_size:
            raise WeightsError(f"{path}: expected a GGUF file, found an empty file or a folder. Check the path.")
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except MLXCoreError:
        raise
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: the file can't be read: {error}. Check its permissions.") from error


def _part_names(path: Path, metadata: dict[str, Any]) -> list[str]:
    """The names of all parts of the model whose first part is at `path`."""
    count, number = metadata.get("split.count"), metadata.get("split.no", 0)
    if count in (None, 0, 1):
        return [path.name]
    shard = parse_shard(path.name)
    if (
        type(count) is not int
        or type(number) is not int
        or shard is None
        or (shard.number - 1, shard.total) != (number, count)
    ):
        raise WeightsError(
            f"{path}: one part of a split model: it says split.no {number!r} and split.count {count!r}, and its name must "
            "say the same, as X-00001-of-00003.gguf does for 0 and 3. Give it the name that it was published by."
        )
    if number:
        raise WeightsError(f"{path}: part {number + 1} of {count} of a split model. Give the first: {shard.name(1)}.")
    names = [shard.name(part) for part in range(1, count + 1)]
    if missing := [name for name in names if not path.with_name(name).is_file()]:
        raise MissingCheckpointError(
            f"{path}: one of {count} parts, of which {missing[0]} isn't beside it ({len(missing)} are missing). The "
            "download is incomplete."
        )
    return names


class _Reader:
    """A cursor over the mapped file that checks each length before it is used."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path, self.data, self.size = path, data, len(data)
        self.end = min(self.size, _MAX_HEADER_BYTES)  # of the header, at most
        self.pos, self.n_values = 0, 0

    def fail(self, message: str) -> WeightsError:
        return WeightsError(f"{self.path}: {message}")

    def skip(self, nbytes: int, what: str) -> int:
        """Claim the next bytes; returns where they start."""
        start = self.pos
        if nbytes > self.end - start:
            raise self.fail(
                f"{what} needs {nbytes} bytes at byte {start}; the file has {self.size}, and a header at most "
                f"{_MAX_HEADER_BYTES}. It is cut short or damaged: fetch it again."
            )
        self.pos = start + nbytes
        return start

    def u32(self, what: str) -> int:
        return int(_U32.unpack_from(self.data, self.skip(4, what))[0])

    def u64(self, what: str) -> int:
        return int(_U64.unpack_from(self.data, self.skip(8, what))[0])

    def strings(self, count: int, what: str) -> list[str]:
        """`count` strings, each a length and UTF-8, as the format demands."""
        data, end, pos, out = self.data, self.end, self.pos, []
        try:
            for _ in range(count):
                start = pos + 8
                pos = start + _U64.unpack_from(data, pos)[0]
                if pos > end:
                    break
                out.append(data[start:pos].decode())
        except struct.error:
            pos = end + 1
        except UnicodeDecodeError as error:
            raise self.fail(
                f"{what} holds text that isn't UTF-8 ({error.reason} at byte {start + error.start})."
            ) from error
        self.skip(pos - self.pos, what)
        return out

    def value(self, type_: int, count: int | None, what: str, depth: int = 0) -> Any:
        """One value of the type, or with a count the list of as many."""
        n = 1 if count is None else count
        self.n_values += n
        if self.n_values > _MAX_VALUES:
            raise self.fail(f"{what}: the metadata holds more than {_MAX_VALUES} values. The file is damaged.")
        if type_ == _STRING:
            values: list[Any] = self.strings(n, what)
        elif type_ == _ARRAY:
            if depth == _MAX_NESTING:
                raise self.fail(f"{what} nests arrays more than {_MAX_NESTING} deep. The file is damaged.")
            values = [self.value(self.u32(what), self.u64(what), what, depth + 1) for _ in range(n)]
        elif type_ in _DTYPES:
            dtype = np.dtype(_DTYPES[type_])
            array = np.frombuffer(self.data, dtype, n, self.skip(n * dtype.itemsize, what)) if n else np.empty(0, dtype)
            if type_ == _BOOL:
                if (array > 1).any():
                    raise self.fail(f"{what} is a bool that is neither 0 nor 1. The file is damaged.")
                array = array.astype(bool)
            values = array.tolist()
        else:
            raise self.fail(f"{what} is of type {type_}; GGUF's types are 0 to 12. The file is damaged.")
        return values[0] if count is None else values

    def header(self) -> tuple[int, dict[str, Any], dict[str, GGUFTensor]]:
        """Version, metadata and tensors."""
        magic = self.data[self.skip(4, "the magic number") : self.pos]
        if magic != b"GGUF":
            raise self.fail(f"not a GGUF file: it starts with {magic!r}, expected b'GGUF'.")
        version = self.u32("the version")
        if version and not version & 0xFFFF:
            raise self.fail("a big-endian GGUF file; only little-endian ones are supported. Fetch or convert to one.")
        if version not in (2, 3):
            raise self.fail(f"GGUF version {version}; versions 2 and 3 are supported. Convert the model again.")
        n_tensors, n_keys = self.u64("the tensor count"), self.u64("the key count")
        metadata = self.metadata(n_keys)
        alignment = metadata.get("general.alignment", 32)
        if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
            raise self.fail(f"general.alignment is {alignment!r}, expected a power of two. The file is damaged.")
        tensors = self.tensors(n_tensors)
        data_start = -(-self.pos // alignment) * alignment
        return version, metadata, self.placed(tensors, data_start, alignment)

    def metadata(self, count: int) -> dict[str, Any]:
        metadata: dict[str, Any] = {}
        for i in range(self.plausible(count, 13, "keys")):
            (key,) = self.strings(1, f"key {i}")
            if key in metadata:
                raise self.fail(f"the key {key!r} occurs twice. The file is damaged.")
            metadata[key] = self.value(self.u32(key), None, key)
        return metadata

    def tensors(self, count: int) -> list[GGUFTensor]:
        """The tensors' table; offsets are still counted from the start of the data."""
        tensors = []
        for i in range(self.plausible(count, 32, "tensors")):
            (name,) = self.strings(1, f"the name of tensor {i}")
            if not 1 <= (n_dims := self.u32(name)) <= _MAX_DIMS:
                raise self.fail(f"tensor {name!r} has {n_dims} dimensions, expected 1 to {_MAX_DIMS}.")
            shape = tuple(self.u64(name) for _ in range(n_dims))[::-1]
            number, offset = self.u32(name), self.u64(name)
            if number not in blocks.KINDS:
                raise self.fail(f"tensor {name!r} is of an unknown kind, number {number}. Fetch the model in another.")
            kind = blocks.KINDS[number]
            if not all(0 < dim < 2**31 for dim in shape) or shape[-1] % kind.weights:
                raise self.fail(
                    f"tensor {name!r}: the shape {shape} has an impossible size, or rows that aren't whole {kind.name} "
                    f"blocks of {kind.weights}. The file is damaged."
                )
            tensors.append(GGUFTensor(name, kind.name, shape, offset, math.prod(shape) // kind.weights * kind.nbytes))
        return tensors

    def plausible(self, count: int, min_bytes: int, what: str) -> int:
        """`count`, if as many entries of at least `min_bytes` fit into the rest of the header."""
        if count > min((self.end - self.pos) // min_bytes, _MAX_ENTRIES):
            raise self.fail(
                f"{count} {what} in a file of {self.size} bytes, where at most {_MAX_ENTRIES} are supported: it is cut "
                "short or damaged. Fetch it again."
            )
        return count

    def placed(self, tensors: list[GGUFTensor], data_start: int, alignment: int) -> dict[str, GGUFTensor]:
        """The tensors by name, at absolute offsets: aligned, inside the file, apart from each other."""
        placed: dict[str, GGUFTensor] = {}
        end, before = data_start, ""
        for tensor in sorted(tensors, key=lambda tensor: tensor.offset):
            start = data_start + tensor.offset
            if start < end:
                raise self.fail(f"tensors {before!r} and {tensor.name!r} overlap. The file is damaged.")
            if tensor.offset % alignment:
                raise self.fail(f"tensor {tensor.name!r} isn't aligned to {alignment} bytes. The file is damaged.")
            end, before = start + tensor.nbytes, tensor.name
            if end > self.size:
                raise self.fail(
                    f"tensor {before!r} ends at byte {end}, and the file at {self.size}: it is cut short. Fetch it again."
                )
            placed[before] = tensor._replace(offset=start)
        if len(placed) < len(tensors):
            twice = [name for name, n in Counter(tensor.name for tensor in tensors).items() if n > 1]
            raise self.fail(f"the tensors {twice[:3]} occur twice. The file is damaged.")
        return {tensor.name: placed[tensor.name] for tensor in tensors}
