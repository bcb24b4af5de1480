"""From a path or a hub id to a model that is ready to run."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import mlx.core as mx

from .. import backend, engines
from ..checkpoints import Checkpoint, hub, open_checkpoint
from ..config import parse_dtype
from ..text import Tokenizer, load_tokenizer
from .filling import FASTER, LoadReport, build, fill, materialize, note_dequantized, preserved_random_state
from .layers import CausalLM
from .projections import fuse_projections, split_parameters
from .quantization import Quantize, quantize_model
from .registry import find_architecture

Adapt = Callable[[Checkpoint], Checkpoint]


def load_model(
    path_or_id: str | Path,
    *,
    lazy: bool = False,
    dtype: mx.Dtype | str | None = None,
    quantize: Quantize | None = None,
    keep_packed: bool | None = None,
    engine: str = "auto",
) -> CausalLM:
    """Load a model from a folder (config.json and safetensors, with or without an index, or torch files), a .gguf file
    or a hub id.

    lazy: leave the weights unread until they are used. dtype: what floating-point weights are cast to; None for what
    the backend wants (fp32 on CPUs; elsewhere the checkpoint's own, bf16 for GGUF). quantize: bits, or a table such
    as `{"bits": 4, "group_size": 64}`, to pack the weights with at load. keep_packed: whether weights that are packed
    in the checkpoint stay so; None for what the backend wants. engine: who runs the model: "mlx", another engine's name,
    or "auto" for the environment variable `MLX_CORE_ENGINE`, else for the fastest that takes it. Never touches the global
    random state. Raises ConfigError, WeightsError, HubError, and EngineError where the engine that was named refuses.
    """
    with contextlib.nullcontext() if lazy else backend.worker_streams():
        model, _ = _load(hub.resolve(path_or_id), lazy, dtype, quantize, keep_packed, engine)
    return model


def load(
    path_or_id: str | Path,
    *,
    lazy: bool = False,
    dtype: mx.Dtype | str | None = None,
    quantize: Quantize | None = None,
    keep_packed: bool | None = None,
    engine: str = "auto",
    adapt: Adapt | None = None,
) -> tuple[CausalLM, Tokenizer, dict[str, Any]]:
    """A model, its tokenizer and config.json; the arguments are those of `load_model`.

    adapt: what to make of the checkpoint before a model is built for it.
    """
    path = hub.resolve(path_or_id)
    tokenizer = load_tokenizer(path)
    with contextlib.nullcontext() if lazy else backend.worker_streams():
        model, checkpoint = _load(path, lazy, dtype, quantize, keep_packed, engine, adapt)
    return model, tokenizer, checkpoint.config


def _load(
    path: Path,
    lazy: bool,
    dtype: mx.Dtype | str | None,
    quantize: Quantize | None,
    keep_packed: bool | None,
    engine: str,
    adapt: Adapt | None = None,
) -> tuple[CausalLM, Checkpoint]:
    engines.check_engine(engine)  # before anything is read
    wants = backend.current()
    if quantize is not None and keep_packed is None:
        keep_packed = True  # who asks for packed weights gets them
    model, checkpoint = open_model(
        path,
        dtype=dtype or wants.compute_dtype,
        keep_packed=wants.keep_packed if keep_packed is None else keep_packed,
        dequantize_limit_bytes=math.inf if keep_packed is False else wants.dequantize_limit_bytes,
        dequantize_reason="" if keep_packed is False else FASTER,
        adapt=adapt,
    )
    if quantize is not None:
        if any(hasattr(module, "bits") for module in model.modules()):
            model.load_report.notes.append("weights that the checkpoint has packed stay as they are")
        quantize_model(model, quantize)
    report: LoadReport = model.load_report
    for part in [*model.layers, model]:
        if not lazy:
            materialize(part, report)
        fuse_projections(part)
        if not lazy:
            materialize(part, report)
    report.measure(model)
    selection = engines.select_engine(
        engine, lambda: engines.describe(model, "", engines.DecoderPlan), lambda: split_parameters(model)
    )
    report.engine, report.engine_reason = selection.engine.name, selection.reason
    if selection.plan is not None:  # what an engine makes of a model has the model's interface
        model = cast(CausalLM, selection.decoder(model))
        model.load_report = report
    return model, checkpoint


def open_model(
    path: Path,
    *,
    dtype: mx.Dtype | str | None = None,
    keep_packed: bool = True,
    dequantize_limit_bytes: float = math.inf,
    dequantize_reason: str = "",
    adapt: Adapt | None = None,
) -> tuple[CausalLM, Checkpoint]:
    """A model whose weights haven't been read yet, and whose projections aren't fused, with the checkpoint, whose
    weights are the model's now.

    dtype None is the checkpoint's own; weights that are packed stay so, or, without `keep_packed`, are dequantised
    unless that would take more than `dequantize_limit_bytes`; the load report gives the reason. Raises ConfigError,
    WeightsError.
    """
    checkpoint = open_checkpoint(path, keep_packed=keep_packed, dequantize_limit_bytes=dequantize_limit_bytes)
    if adapt is not None:
        checkpoint = adapt(checkpoint)
    report = LoadReport(checkpoint.path.name)
    architecture = find_architecture(checkpoint.config.get("model_type"))
    model_config = architecture.ModelConfig.from_dict(checkpoint.config)
    model = build(lambda: architecture.Model(model_config), "config.json")
    with preserved_random_state():  # a head that turns out not to be tied draws its initial weights
        weights = model.sanitize(dict(checkpoint.weights))
    report.notes += filter(None, [*checkpoint.notes, model.load_note])
    if checkpoint.dequantized:
        note_dequantized(report, checkpoint.dequantized, dequantize_reason)
    fill(
        model,
        weights,
        report,
        quantization=checkpoint.quantization,
        dtype=parse_dtype(dtype) or checkpoint.dtype,
        keep_packed=keep_packed,
        dequantize_limit_bytes=dequantize_limit_bytes,
        dequantize_reason=dequantize_reason,
    )
    checkpoint.weights.clear()  # each tensor's sources are freed as soon as it is computed
    model.load_report = report
    return model, checkpoint
