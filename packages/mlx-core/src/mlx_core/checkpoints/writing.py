"""Checkpoint folders: config.json and safetensors, written completely or not at all."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx

from .. import backend
from ..errors import ConversionError, MLXCoreError
from ..files import atomic_folder
from .layout import SAFETENSORS

OnBytes = Callable[[int, int], None]

# The size at which huggingface_hub splits, too: every file system takes it, and downloads resume by file.
MAX_SHARD_BYTES = 5 * 2**30


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder`, renamed to it at the end. `folder` must not exist, or be empty. Raises
    ConversionError.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConversionError(f"{folder} exists and isn't an empty folder. Choose another name, or delete it first.")
    try:
        with atomic_folder(folder) as temporary:
            yield temporary
    except MLXCoreError:
        raise
    except (OSError, RuntimeError) as error:  # MLX raises RuntimeError for a full disk
        raise ConversionError(f"{folder} can't be written: {error}.") from error


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write config.json. Raises ConversionError for values that JSON doesn't have."""
    try:
        text = json.dumps(config, indent=2, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConversionError(f"the configuration can't be written as JSON: {error}.") from error
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")


def write_weights(
    folder: Path,
    weights: dict[str, mx.array],
    max_shard_bytes: int = MAX_SHARD_BYTES,
    on_progress: OnBytes | None = None,
) -> None:
    """Write safetensors, one file or shards, with an index. Empties `weights`, so that written tensors can be freed."""
    shards: list[list[str]] = [[]]
    size = done = 0
    for name, value in weights.items():
        if size + value.nbytes > max_shard_bytes and shards[-1]:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += value.nbytes
    weight_map = {}
    total = sum(value.nbytes for value in weights.values())
    for number, names in enumerate(shards, 1):
        single = len(shards) == 1
        file = SAFETENSORS.single if single else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        shard = {}
        for name in names:
            shard[name] = value = weights.pop(name)
            backend.materialize(value)  # one by one: the sources of a shard together may be several times its size
            done += value.nbytes
            if on_progress is not None:
                on_progress(done, total)
        mx.save_safetensors(str(folder / file), shard, metadata={"format": "mlx"})
        del shard, value
        mx.clear_cache()
        weight_map.update(dict.fromkeys(names, file))
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / SAFETENSORS.index).write_text(json.dumps(index, indent=2) + "\n")
