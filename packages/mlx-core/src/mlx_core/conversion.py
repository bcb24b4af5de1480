"""Models written to disk, in the layout that mlx-lm reads too."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from .config import LayerQuantization
from .errors import ConversionError
from .layers import CausalLM
from .projections import FusedProjections, split_parameters
from .weights import INDEX_NAME

# What fits comfortably on every file system and download: the size that the hub's own tools split at.
MAX_SHARD_BYTES = 5 * 2**30


def save_model(
    folder: str | Path, model: CausalLM, config: Mapping[str, Any], *, max_shard_bytes: int = MAX_SHARD_BYTES
) -> None:
    """Write config.json and safetensors: one file, or shards with an index.

    config: the checkpoint's config.json; its quantisation table is replaced by what the model really holds.
    Projections that were fused for speed are split again. The folder appears whole or not at all; it must not exist,
    or be empty. Raises ConversionError.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConversionError(f"{folder} exists and isn't an empty folder. Choose another name, or delete it first.")
    with _whole_folder(folder) as target:
        _write_weights(target, split_parameters(model), max_shard_bytes)
        (target / "config.json").write_text(
            json.dumps(saved_config(model, config), indent=2, ensure_ascii=False) + "\n"
        )


def saved_config(model: CausalLM, config: Mapping[str, Any]) -> dict[str, Any]:
    """config.json for a model as it is now: its tying and its quantisation."""
    result = {key: value for key, value in config.items() if key not in ("quantization", "quantization_config")}
    result["tie_word_embeddings"] = model.tied
    if table := quantization_table(model):
        result["quantization"] = result["quantization_config"] = table
    return result


def quantization_table(model: nn.Module) -> dict[str, Any]:
    """The `quantization` entry that describes a model's packed layers; empty where there are none."""
    layers: dict[str, dict[str, Any]] = {}
    for path, module in model.named_modules():
        if not all(hasattr(module, name) for name in ("group_size", "bits", "mode")):
            continue
        packing = LayerQuantization(module.group_size, module.bits, module.mode).to_dict()
        for name in _saved_paths(model, path):
            layers[name] = packing
    if not layers:
        return {}
    packings = list(layers.values())
    default = max(packings, key=packings.count)
    return {**default, **{path: packing for path, packing in layers.items() if packing != default}}


def _saved_paths(model: nn.Module, path: str) -> list[str]:
    """The paths under which the layer at `path` is saved: those of its parts if it is fused."""
    parent_path, _, name = path.rpartition(".")
    parent: Any = model
    for key in filter(None, parent_path.split(".")):
        parent = parent[int(key)] if isinstance(parent, list) else parent[key]
    if isinstance(parent, FusedProjections) and name == parent.fused_name:
        return [f"{parent_path}.{part}" for part in parent.part_names]
    return [path]


@contextlib.contextmanager
def _whole_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder` that takes its name when everything in it has been written."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
    except OSError as error:
        raise ConversionError(f"{folder} can't be written: {error}.") from error
    try:
        yield temporary
        temporary.chmod(0o755)  # mkdtemp's folders are private
        if folder.exists():
            folder.rmdir()
        temporary.rename(folder)
    except (OSError, RuntimeError) as error:  # MLX raises RuntimeError for a full disk
        raise ConversionError(f"{folder} can't be written: {error}.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_weights(folder: Path, weights: dict[str, mx.array], max_shard_bytes: int) -> None:
    shards: list[dict[str, mx.array]] = [{}]
    size = 0
    for name, value in weights.items():
        if size + value.nbytes > max_shard_bytes and shards[-1]:
            shards.append({})
            size = 0
        shards[-1][name] = value
        size += value.nbytes
    weight_map = {}
    total = sum(value.nbytes for value in weights.values())
    for number, shard in enumerate(shards, 1):
        single = len(shards) == 1
        file = "model.safetensors" if single else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        mx.save_safetensors(str(folder / file), shard, metadata={"format": "mlx"})
        weight_map.update(dict.fromkeys(shard, file))
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / INDEX_NAME).write_text(json.dumps(index, indent=2) + "\n")
