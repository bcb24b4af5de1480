"""Released files and folders -> folders of safetensors that load fast, smaller if wanted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlx_core import backend
from mlx_core.checkpoints import load_weights
from mlx_core.config import read_json
from mlx_core.errors import ConversionError

from .checkpoints import Released, is_lora, read_released, resolve_network
from .networks import T2S, BigVGAN, CheckpointModule, ChineseRoberta, CNHubert, ERes2NetV2, HiFiGAN, SoVITS, SoVITSV3
from .networks.bigvgan import WEIGHTS_FILE
from .networks.sovits_v3 import with_base

# A tensor by which each network's checkpoint is known, in any of its spellings.
_MARKS: tuple[tuple[type[CheckpointModule], str], ...] = (
    (T2S, "ar_predict_layer.weight"),
    (SoVITSV3, "cfm.estimator.proj_out.weight"),
    (SoVITS, "enc_p.text_embedding.weight"),
    (CNHubert, "feature_projection.projection.weight"),
    (ChineseRoberta, "embeddings.word_embeddings.weight"),
    (ERes2NetV2, "layer3_ds.weight"),
    (BigVGAN, "activation_post.act.alpha"),
    (HiFiGAN, "conv_post.bias"),
)
_DTYPES = {"float16": mx.float16, "float32": mx.float32}
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt")


def kind_of(weights: Mapping[str, mx.array]) -> type[CheckpointModule]:
    """Which network a checkpoint is of. Raises ConversionError for one that is none of them."""
    if is_lora(weights):
        return SoVITSV3
    names = {name.removeprefix("model.").removeprefix("hubert.").removeprefix("bert.") for name in weights}
    for kind, mark in _MARKS:
        if mark in names:
            return kind
    raise ConversionError(
        f"the checkpoint is of no network of GPT-SoVITS: it has none of {', '.join(mark for _, mark in _MARKS)}."
    )


@backend.worker_streams()
def convert(
    source: str | Path,
    folder: str | Path,
    *,
    base: str | Path | None = None,
    dtype: str = "float16",
    bits: int | None = None,
    group_size: int = 64,
) -> type[CheckpointModule]:
    """Write a released file, or a folder with config.json, as a folder of safetensors; returns which network it was.

    source: a path or a hub id. base: for a LoRA of v3 or v4, the file, folder or hub id of the model that it was trained
    on; both are written, merged. dtype: "float16" or "float32". bits: 8 or 4 packs the linear layers of T2S and BERT in groups of
    `group_size`. The folder appears whole or not at all; it must not exist, or be empty. Raises ConversionError, and
    the errors of loading.
    """
    folder = Path(folder)
    if dtype not in _DTYPES:
        raise ConversionError(f"dtype must be one of {', '.join(_DTYPES)}; found {dtype!r}.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConversionError(f"{folder} exists and isn't an empty folder. Choose another name, or delete it first.")
    source = resolve_network(source)
    config, weights = _read(source)
    kind = kind_of(weights)
    if is_lora(weights):
        weights = with_base(weights, source, base)
    network = kind.from_state_dict(config, weights, dtype=_DTYPES[dtype], keep_packed=False, lazy=True)
    if bits is not None:
        network.quantize(bits, group_size)
    files = {name: source / name for name in _TOKENIZER_FILES if source.is_dir() and (source / name).is_file()}
    network.save(folder, files=files)
    return kind


def _read(source: Path) -> tuple[dict[str, Any], dict[str, mx.array]]:
    """Configuration and tensors of a file or folder of any network."""
    if (source / WEIGHTS_FILE).exists():
        return BigVGAN.read(source)
    if source.is_dir():
        return (read_json(source / "config.json") if (source / "config.json").exists() else {}), load_weights(source)
    released = read_released(source)
    if kind_of(released.weights) is BigVGAN:
        return BigVGAN.read(source)
    return released.full_config, released.weights


def describe(source: str | Path) -> dict[str, Any]:
    """A released file's or folder's network, version (of SoVITS), number of tensors and line about its making."""
    source = resolve_network(source)
    released = read_released(source) if source.is_file() else Released(*_read(source), "", None, 0)
    kind = kind_of(released.weights)
    found: dict[str, Any] = {"network": kind.model_type, "tensors": len(released.weights)}
    if kind in (SoVITS, SoVITSV3):
        found["version"] = released.sovits_version
    return {**found, "info": released.info} if released.info else found
