"""Files of `torch.save`, read without torch: the zip layout (torch 1.6 and later) and the one before it.

A zip file holds one pickle, `data.pkl`, and a stored entry for each storage; the older layout is a series of pickles
(magic number, protocol, system, object, keys of the storages) and then the storages, each after its length. The file
is mapped, not read. The pickle is executed by `unpickler`, which runs no code; its statements about storages and
tensors are checked against the bytes that are there, so a hostile or damaged file is a WeightsError, within bounded
memory: 1 GiB for the objects beside the tensors, `max_bytes` for the tensors.

The layouts are those of `torch/serialization.py`, 2.13.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx

from ...errors import MissingCheckpointError, MLXCoreError, WeightsError
from .archive import read_archive
from .globals import PLAIN, allowed
from .tensors import RESAVE, TORCH, TensorTable, TorchTensor, item_bytes
from .unpickler import Unpickler

Source = str | os.PathLike[str] | bytes | bytearray | memoryview | mmap.mmap

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_MIN_LIMIT_BYTES = 2**28


def load_pytorch_checkpoint(
    source: Source, *, classes: Mapping[str, Callable[..., Any]] | None = None, max_bytes: int | None = None
) -> Any:
    """The object that `torch.save` wrote, with an mx.array for each tensor; torch isn't needed and nothing is run.

    source: a file's path, or its content: bytes, or a map of the file (with `mmap.ACCESS_COPY` its first bytes can be
    corrected without reading the rest). classes: callables for further names in the pickle, e.g. `{"utils.HParams":
    HParams}`; each is called with the pickle's arguments (usually none), and its object is given the state by
    `__setstate__` if the class has that, else as attributes. Nothing is imported for them. max_bytes: the limit on the
    tensors' memory; None for four times the file, at least 256 MiB.

    dict, list, tuple, set, text, numbers and NumPy's arrays and scalars come back as they are; OrderedDict, Counter and
    defaultdict as dict, Parameters as their arrays, torch.Size as tuple, devices, dtypes and layouts as text
    ("torch.float16"), paths as text, argparse.Namespace as itself; attributes of tensors and of OrderedDicts
    (`_metadata`) are dropped. Two tensors that are the same view of the same storage are one array.

    Tensors keep their dtype and bits. float64 stays float64, which MLX computes on CPUs only: on a GPU cast it first,
    by `astype(mx.float32, stream=mx.cpu)`. float8 comes as uint8, the bits, as MLX has no such dtype. complex128,
    quantised, sparse and nested tensors, subclasses, TorchScript archives and the tar layout of torch's first versions
    are refused by name.

    Raises MissingCheckpointError where there is no file, WeightsError for one that can't be read or isn't allowed.
    """
    return _load(source, classes, max_bytes, TorchTensor.array)


def open_pytorch_checkpoint(
    source: Source, *, classes: Mapping[str, Callable[..., Any]] | None = None, max_bytes: int | None = None
) -> Any:
    """As `load_pytorch_checkpoint`, with a TorchTensor for each tensor, so that they can be read one at a time."""
    return _load(source, classes, max_bytes, lambda tensor: tensor)


def state_dict_of(checkpoint: Any, source: str) -> dict[str, mx.array]:
    """The tensors by name in what `load_pytorch_checkpoint` gave: the dict itself, or the one under its `state_dict`,
    `model_state_dict` or `model`.

    Raises WeightsError, with `source` as the file's name, where there is no such dict or it holds anything else.
    """
    for name in ("state_dict", "model_state_dict", "model"):
        if isinstance(checkpoint, dict) and isinstance(checkpoint.get(name), dict):
            checkpoint = checkpoint[name]  # one inside the other, too
    if not isinstance(checkpoint, dict):
        raise WeightsError(f"{source} holds a {type(checkpoint).__name__}; expected a dict of tensors by name.")
    for name, value in checkpoint.items():
        if not isinstance(name, str) or not isinstance(value, mx.array):
            raise WeightsError(
                f"{source} has a {type(value).__name__} under {name!a:.100}; expected tensors by name. Give the file of the "
                "model's weights."
            )
    return checkpoint


def _load(
    source: Source,
    classes: Mapping[str, Callable[..., Any]] | None,
    max_bytes: int | None,
    made: Callable[[TorchTensor], Any],
) -> Any:
    data, name = _content(source)
    table = {**PLAIN, **TORCH, **allowed(classes or {})}
    limit = max(4 * len(data), _MIN_LIMIT_BYTES) if max_bytes is None else max_bytes
    start = bytes(data[:4])
    if start == b"PK\3\4":
        return _load_zip(data, name, table, limit, made)
    if start[:1] == b"\x80":
        return _load_legacy(data, name, table, limit, made)
    if bytes(data[257:262]) == b"ustar":
        raise WeightsError(
            f"{name} is a tar file, as torch's first versions wrote; only later ones' can be read. "
            + RESAVE.format("with weights_only=False if you trust it,")
        )
    raise WeightsError(
        f"{name} isn't a torch checkpoint: it starts with {start!r}, expected b'PK\\x03\\x04' (zip) or b'\\x80' (pickle). "
        "Check the path, or fetch it again."
    )


def _load_zip(
    data: memoryview, source: str, table: Mapping[str, Any], max_bytes: int, made: Callable[[TorchTensor], Any]
) -> Any:
    entries = read_archive(data, source)
    byte_order = bytes(entries.get("byteorder", b"little")[:8])
    if byte_order not in (b"little", b"big"):
        raise WeightsError(f"{source} has byte order {byte_order!r}; expected little or big. The file is damaged.")

    def locate(key: str, dtype: str) -> memoryview:
        if f"data/{key}" not in entries:
            raise WeightsError(f"{source} lacks the storage {key!a:.40} that a tensor needs. Fetch it again.")
        return entries[f"data/{key}"]

    tensors = TensorTable(source, locate, max_bytes, made, big_endian=byte_order == b"big")
    return Unpickler(entries["data.pkl"], {**table, **tensors.table}, tensors.storage, source=source).load()


def _load_legacy(
    data: memoryview, source: str, table: Mapping[str, Any], max_bytes: int, made: Callable[[TorchTensor], Any]
) -> Any:
    """Read the layout before zip. Its storages lie behind the pickle that gives the size of their elements, so the
    pickle is executed twice.
    """
    position, storages = _legacy_storages(data, source, table, max_bytes)
    tensors = TensorTable(source, lambda key, dtype: storages[key], max_bytes, made)
    machine = Unpickler(data, {**table, **tensors.table}, tensors.storage, source=source)
    machine.position = position
    return machine.load()


def _legacy_storages(
    data: memoryview, source: str, table: Mapping[str, Any], max_bytes: int
) -> tuple[int, dict[str, memoryview]]:
    """The offset of the object's pickle, and the storages by key (little-endian on every machine)."""
    itemsizes: dict[str, int] = {}

    def note(key: str, dtype: str) -> None:
        itemsizes.setdefault(key, item_bytes(dtype))

    tensors = TensorTable(source, note, max_bytes, lambda tensor: tensor)
    machine = Unpickler(data, {**table, **tensors.table}, tensors.storage, source=source)
    magic = machine.load()
    if type(magic) is not int or magic != _MAGIC:
        raise WeightsError(
            f"{source} is a pickle, but not one that torch.save wrote: it has no magic number. Only torch's checkpoints "
            "can be read here."
        )
    protocol, _ = machine.load(), machine.load()
    if type(protocol) is not int or protocol != _PROTOCOL:
        raise WeightsError(f"{source} isn't of torch's protocol {_PROTOCOL}. The file is damaged.")
    position = machine.position
    machine.load()
    keys = machine.load()
    if not isinstance(keys, list) or not all(isinstance(key, str) and key in itemsizes for key in keys):
        raise WeightsError(f"{source} lists other storages than its tensors have. The file is damaged.")
    storages: dict[str, memoryview] = {}
    end = machine.position
    for key in keys:
        begin = end + 8
        end = begin + int.from_bytes(data[end:begin], "little") * itemsizes[key]
        if end > len(data):
            raise WeightsError(
                f"{source}: storage {key!a:.40} ends at byte {end} of {len(data)}: the file is cut short. Fetch it again."
            )
        storages[key] = data[begin:end]
    if storages.keys() != itemsizes.keys() or len(storages) != len(keys):
        raise WeightsError(f"{source} lists a storage twice or not at all. The file is damaged.")
    return position, storages


def _content(source: Source) -> tuple[memoryview, str]:
    """The bytes, and their name for messages."""
    if isinstance(source, bytes | bytearray | memoryview | mmap.mmap):
        return memoryview(source).cast("B"), "the checkpoint"
    path = Path(source)
    try:
        if not path.exists():
            raise MissingCheckpointError(f"{path}: there is no such file. Check the path.")
        if not path.is_file() or not path.stat().st_size:
            raise WeightsError(f"{path}: expected a torch checkpoint, found an empty file or a folder. Check the path.")
        with path.open("rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)), str(path)
    except MLXCoreError:
        raise
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: the file can't be read: {error}. Check its permissions.") from error
