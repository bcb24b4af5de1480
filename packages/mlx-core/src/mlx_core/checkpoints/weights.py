"""Checkpoints as dictionaries of arrays: safetensors and torch's files (single, sharded, with or without an index), and
GGUF.

Of safetensors only headers are read, and checked before MLX maps the tensors; the others are checked as they are read.
An untrusted file can't do more than raise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
from safetensors import SafetensorError, safe_open

from ..config import LEGACY_METHODS, QuantizationConfig, quantization_entry, quantization_method, read_json
from ..errors import MissingCheckpointError, WeightsError
from .layout import PYTORCH, SAFETENSORS, WeightsLayout, gguf_in_folder, missing_shard

_MAX_NAME_BYTES = 255  # of a shard's: where the system allows no more, to look for a longer one is an error already

_Read = Callable[[Path], dict[str, mx.array]]


@dataclass(frozen=True)
class Checkpoint:
    """A model on disk: `config` as config.json has it, `weights` by the checkpoint's own names (lazy, but for torch's
    files), their `quantization` table, the `dtype` to compute in where the weights' own doesn't say it, how many were
    `dequantized` while reading, and `notes` for the load report.
    """

    path: Path
    config: dict[str, Any]
    weights: dict[str, mx.array]
    quantization: QuantizationConfig | None
    dtype: mx.Dtype | None = None
    dequantized: int = 0
    notes: tuple[str, ...] = ()


def open_checkpoint(path: Path, *, keep_packed: bool = True, dequantize_limit_bytes: float = math.inf) -> Checkpoint:
    """Open a folder with config.json and safetensors or, where there are none, pytorch_model.bin; a folder with one
    GGUF file, or a GGUF file.

    `keep_packed` False has GGUF blocks dequantised as they are read, unless they would take more than
    `dequantize_limit_bytes` in fp32; packed safetensors stay as they are, those of AWQ, GPTQ and mxfp4 in MLX's
    packing. Raises MissingCheckpointError where there is none, WeightsError and ConfigError for files that can't be
    used.
    """
    if not path.exists():
        raise MissingCheckpointError(
            f"{path} does not exist. Give a model's folder, a .gguf file or a hub id (org/name)."
        )
    gguf = gguf_file(path)
    if gguf is not None:
        from .gguf import GGUFFile, hf_config, hf_weights

        file = GGUFFile.open(gguf)
        packed = keep_packed or 4 * sum(math.prod(t.shape) for t in file.tensors.values()) > dequantize_limit_bytes
        dequantized = 0 if packed else sum(t.kind not in ("F32", "F16", "BF16") for t in file.tensors.values())
        weights, table = hf_weights(file, packed=packed)
        quantization = QuantizationConfig.from_dict(table) if table else None
        # Scales and norms come as fp32, which would make a GPU compute everything in fp32; of the half precisions
        # bf16 doesn't overflow.
        return Checkpoint(gguf, hf_config(file), weights, quantization, mx.bfloat16, dequantized)
    if not path.is_dir():
        raise WeightsError(f"{path} is not a checkpoint; expected a folder with config.json, or a .gguf file.")
    config = read_json(path / "config.json")
    entry = quantization_entry(config)
    if entry is not None and quantization_method(entry) in LEGACY_METHODS:
        from .legacy_quantization import repack

        repacked = repack(load_weights(path), entry)
        return Checkpoint(path, config, repacked.weights, repacked.quantization, repacked.dtype, notes=repacked.notes)
    return Checkpoint(path, config, load_weights(path), QuantizationConfig.from_config(config))


def gguf_file(path: Path) -> Path | None:
    """The GGUF file that `path` is, or that alone makes up the folder `path`; None where it is something else."""
    if path.is_file():
        return path if path.suffix == ".gguf" else None
    if (path / "config.json").exists() or not path.is_dir():
        return None
    files = gguf_in_folder(path)
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise WeightsError(f"{path} holds several GGUF files; give the path of one: {names}.")
    return files[0] if files else None


def load_weights(folder: Path) -> dict[str, mx.array]:
    """All tensors of a folder: by `load_safetensors`, or where it has none by `load_pytorch_weights`."""
    torch = not _holds(folder, SAFETENSORS) and _holds(folder, PYTORCH)
    return load_pytorch_weights(folder) if torch else load_safetensors(folder)


def load_safetensors(folder: Path) -> dict[str, mx.array]:
    """All tensors of a folder's safetensors, lazily.

    They are in the files that model.safetensors.index.json lists; else in model.safetensors; else in its shards; else
    in all safetensors files but known leftovers (adapters, optimizer states, consolidated copies). What lies beside
    them isn't read. Raises WeightsError for missing, damaged or contradictory files.
    """
    return _load_folder(folder, SAFETENSORS, _read_safetensors)


def load_pytorch_weights(folder: Path) -> dict[str, mx.array]:
    """All tensors of a folder's pytorch_model.bin, or of its shards; no code in them is run (see `load_pytorch_checkpoint`).

    Raises WeightsError for missing, damaged or contradictory files, and for those that hold more than tensors by name.
    """
    return _load_folder(folder, PYTORCH, _read_torch)


def _holds(folder: Path, layout: WeightsLayout) -> bool:
    return bool(_weights_files(folder, layout))  # an index alone belongs to a second copy that wasn't downloaded


def _load_folder(folder: Path, layout: WeightsLayout, read: _Read) -> dict[str, mx.array]:
    index = _index(folder, layout)
    weights: dict[str, mx.array] = {}
    origins: dict[str, str] = {}
    for file in _found_files(folder, layout) if index is None else _indexed_files(index, layout):
        for name, value in read(file).items():
            if name in weights:
                raise WeightsError(f"{folder} has tensor {name!r} twice: in {origins[name]} and in {file.name}.")
            weights[name], origins[name] = value, file.name
    if index is not None:
        listed = read_json(index)["weight_map"]
        lost = sorted(name for name, file in listed.items() if origins.get(name) != file)
        if lost:
            raise WeightsError(
                f"{index.name} places tensor {lost[0]!r} in {listed[lost[0]]}, which doesn't hold it ({len(lost)} such in all). "
                "Download the checkpoint again."
            )
    return weights


def _index(folder: Path, layout: WeightsLayout) -> Path | None:
    """The index to go by: none beside the single file, which transformers takes first, too."""
    index = folder / layout.index
    return index if index.exists() and not (folder / layout.single).is_file() else None


def _indexed_files(index: Path, layout: WeightsLayout) -> list[Path]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
        raise WeightsError(f"{index} has no 'weight_map' from tensor names to files.")
    names = sorted(set(weight_map.values()))
    for name in names:
        too_long = len(name.encode("utf-8", "replace")) > _MAX_NAME_BYTES
        if Path(name).name != name or not name.endswith(layout.suffix) or too_long:
            raise WeightsError(f"{index} names {name!r:.300}; expected {layout.suffix} files of its own folder.")
        if not (index.parent / name).is_file():
            raise MissingCheckpointError(
                f"{index} names {name}, which isn't in {index.parent}. The download is incomplete."
            )
    return [index.parent / name for name in names]


def _weights_files(folder: Path, layout: WeightsLayout) -> list[Path]:
    return [folder / name for name in layout.files(file.name for file in folder.glob(layout.pattern))]


def _found_files(folder: Path, layout: WeightsLayout) -> list[Path]:
    files = _weights_files(folder, layout)
    if not files:
        torch_files = sorted(file.name for pattern in ("*.bin", "*.pt", "*.pth") for file in folder.glob(pattern))
        hint = f" It has {', '.join(torch_files[:3])}: convert it to safetensors first." if torch_files else ""
        raise MissingCheckpointError(f"{folder} holds no {layout.pattern.removeprefix('*')} files.{hint}")
    if (lost := missing_shard(file.name for file in files)) is not None:
        raise MissingCheckpointError(
            f"{folder} lacks shard {lost.number} of {lost.total} of {lost.stem}. The download is incomplete."
        )
    return files


def _read_safetensors(file: Path) -> dict[str, mx.array]:
    # The safetensors library checks the header (extents, overlaps, sizes against shapes) before MLX trusts it.
    try:
        with safe_open(file, framework="numpy") as checked:
            names = set(checked.keys())
        arrays = mx.load(str(file), format="safetensors")
    except (SafetensorError, OSError, RuntimeError, ValueError, MemoryError) as error:
        raise WeightsError(f"{file} can't be read as safetensors: {error}. Download it again.") from error
    if not isinstance(arrays, dict) or arrays.keys() != names:
        raise WeightsError(f"{file} was read differently by safetensors and by MLX. Download it again.")
    return arrays


def _read_torch(file: Path) -> dict[str, mx.array]:
    from .torch import load_pytorch_checkpoint, state_dict_of

    return state_dict_of(load_pytorch_checkpoint(file), str(file))
