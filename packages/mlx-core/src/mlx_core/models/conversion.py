"""Models written to disk, in the layout that mlx-lm reads too, and checkpoints converted to it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx

from .. import backend
from ..checkpoints import MAX_SHARD_BYTES, OnBytes, WeightMapping, hub, new_folder, write_config, write_weights
from ..checkpoints.weights import gguf_file
from ..errors import ConversionError
from ..text import load_tokenizer
from .filling import LoadReport
from .layers import CausalLM
from .loading import Adapt, open_model
from .projections import split_parameters
from .quantization import Quantize, quantization_table, quantize_model


def save_model(
    folder: str | Path, model: CausalLM, config: Mapping[str, Any], *, max_shard_bytes: int = MAX_SHARD_BYTES
) -> None:
    """Write config.json and safetensors: one file, or shards with an index.

    config: the checkpoint's config.json; its quantisation table is replaced by what the model really holds.
    Projections that were fused for speed are split again. The folder appears whole or not at all; it must not exist,
    or be empty. Raises ConversionError.
    """
    with new_folder(Path(folder)) as target:
        write_config(target, saved_config(model, config))
        write_weights(target, split_parameters(model), max_shard_bytes)


def convert_model(
    source: str | Path,
    folder: str | Path,
    *,
    quantize: Quantize | None = None,
    dtype: mx.Dtype | str | None = None,
    dequantize: bool = False,
    mapping: WeightMapping | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    on_progress: OnBytes | None = None,
) -> LoadReport:
    """Convert a checkpoint (a folder of safetensors or torch files, a .gguf file, a hub id) to what this package, and
    mlx-lm, loads: config.json, safetensors, and the tokenizer's files.

    quantize: bits, a table such as `{"bits": 4, "group_size": 64, "mode": "affine"}`, the name of a recipe such as
    "mixed_4_6", or a table with a `recipe`; None leaves the weights as they are. dtype: what floating-point weights are
    cast to; None for the checkpoint's own. dequantize: unpack what the checkpoint has packed, which must come before
    packing it otherwise. mapping: the checkpoint's names -> the family's, where they are others. on_progress: called
    with (bytes written, bytes in all) after each tensor.

    Holds a shard in memory, and the sources of one tensor. The folder appears whole or not at all; it must not exist,
    or be empty. Raises ConversionError, and what loading raises.
    """
    with new_folder(Path(folder)) as target, backend.worker_streams():
        path = hub.resolve(source)
        adapt = None if mapping is None else _mapped(mapping)
        model, checkpoint = open_model(path, dtype=dtype, keep_packed=not dequantize, adapt=adapt)
        report: LoadReport = model.load_report
        if quantize is not None:
            if quantization_table(model):
                raise ConversionError(
                    f"{path} is quantised already; packing it again would lose twice. Convert it as it is, or dequantise it "
                    "first (dequantize=True, --dequantize)."
                )
            quantize_model(model, quantize)
            report.measure(model)
        weights, config = split_parameters(model), saved_config(model, checkpoint.config)
        del model, checkpoint  # what has been written can go
        write_config(target, config)
        write_weights(target, weights, max_shard_bytes, on_progress)
        _copy_tokenizer(path, target)
    return report


def _mapped(mapping: WeightMapping) -> Adapt:
    return lambda checkpoint: replace(checkpoint, weights=mapping(checkpoint.weights))


def saved_config(model: CausalLM, config: Mapping[str, Any]) -> dict[str, Any]:
    """config.json for a model as it is now: its dtype, its tying and its quantisation; and what transformers 5 has
    put elsewhere also where it was before, since mlx-lm looks for it there.
    """
    config = model.config.canonical(config)
    result = {key: value for key, value in config.items() if key not in ("quantization", "quantization_config")}
    nested = config.get("rope_parameters")
    if isinstance(nested, Mapping) and "rope_theta" in nested:
        for name in ("rope_theta", "partial_rotary_factor"):
            if name in nested:
                result.setdefault(name, nested[name])
        if nested.get("rope_type", "default") != "default":
            result.setdefault("rope_scaling", {**nested, "type": nested["rope_type"]})
    result.setdefault("rope_scaling", None)
    if "num_local_experts" in config and hasattr(model.config, "num_experts"):
        result.setdefault("num_experts", model.config.num_experts)
    for name in result.keys() & {"dtype", "torch_dtype"}:
        result[name] = str(model.model.norm.weight.dtype).removeprefix("mlx.core.")
    result["tie_word_embeddings"] = model.tied
    if table := quantization_table(model):
        result["quantization"] = result["quantization_config"] = table
    return result


# What a checkpoint holds beside weights and config.json that a tokenizer, or generation, reads.
_TOKENIZER_FILES: tuple[str, ...] = (
    *("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "spiece.model"),
    *("*.tiktoken", "chat_template*", "generation_config.json"),
)


def _copy_tokenizer(source: Path, folder: Path) -> None:
    """The tokenizer's files as they are; out of a GGUF file they are made."""
    if gguf_file(source) is not None:
        tokenizer = load_tokenizer(source)
        tokenizer.save(folder)
        ends = json.dumps({"eos_token_id": list(tokenizer.eos_token_ids)}, indent=2)
        (folder / "generation_config.json").write_text(ends + "\n")
        return
    for pattern in _TOKENIZER_FILES:
        for file in source.glob(pattern):
            if file.is_file() and file.suffix not in (".py", ".safetensors", ".bin"):
                shutil.copyfile(file, folder / file.name)
            elif file.is_dir() and file.name == "chat_templates":
                shutil.copytree(file, folder / file.name)
