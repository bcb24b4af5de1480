"""From a path or a hub id to a model that is ready to run."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn

from .. import backend
from ..checkpoints import Checkpoint, hub, open_checkpoint
from ..config import LayerQuantization, QuantizationConfig, parse_dtype
from ..errors import ConfigError, MLXCoreError, WeightsError
from ..text import Tokenizer, load_tokenizer
from .layers import CausalLM
from .projections import fuse_projections, named_parameters
from .quantization import Quantize, quantize_model
from .registry import Architecture, find_architecture

_DEQUANTIZED = "{} packed weights dequantised, which is faster on this backend"


Adapt = Callable[[Checkpoint], Checkpoint]


@dataclass
class LoadReport:
    """What loading did: kept as `model.load_report`."""

    path: Path
    parameters: int = 0
    nbytes: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.nbytes / self.parameters if self.parameters else 0.0

    def __str__(self) -> str:
        lines = [
            f"{self.path.name}: {self.parameters / 1e6:,.1f} M parameters, {self.nbytes / 2**20:,.0f} MiB",
            *self.notes,
        ]
        return "; ".join(lines)


def load_model(
    path_or_id: str | Path,
    *,
    lazy: bool = False,
    dtype: mx.Dtype | str | None = None,
    quantize: Quantize | None = None,
    keep_packed: bool | None = None,
) -> CausalLM:
    """Load a model from a folder (config.json and safetensors, with or without an index, or torch files), a .gguf file
    or a hub id.

    lazy: leave the weights unread until they are used. dtype: what floating-point weights are cast to; None for what
    the backend wants (fp32 on CPUs; elsewhere the checkpoint's own, bf16 for GGUF). quantize: bits, or a table such
    as `{"bits": 4, "group_size": 64}`, to pack the weights with at load. keep_packed: whether weights that are packed
    in the checkpoint stay so; None for what the backend wants. Never touches the global random state. Raises
    ConfigError, WeightsError, HubError.
    """
    with contextlib.nullcontext() if lazy else backend.worker_streams():
        model, _ = _load(hub.resolve(path_or_id), lazy, dtype, quantize, keep_packed)
    return model


def load(
    path_or_id: str | Path,
    *,
    lazy: bool = False,
    dtype: mx.Dtype | str | None = None,
    quantize: Quantize | None = None,
    keep_packed: bool | None = None,
    adapt: Adapt | None = None,
) -> tuple[CausalLM, Tokenizer, dict[str, Any]]:
    """A model, its tokenizer and config.json; the arguments are those of `load_model`.

    adapt: what to make of the checkpoint before a model is built for it.
    """
    path = hub.resolve(path_or_id)
    tokenizer = load_tokenizer(path)
    with contextlib.nullcontext() if lazy else backend.worker_streams():
        model, checkpoint = _load(path, lazy, dtype, quantize, keep_packed, adapt)
    return model, tokenizer, checkpoint.config


def _load(
    path: Path,
    lazy: bool,
    dtype: mx.Dtype | str | None,
    quantize: Quantize | None,
    keep_packed: bool | None,
    adapt: Adapt | None = None,
) -> tuple[CausalLM, Checkpoint]:
    wants = backend.current()
    if quantize is not None and keep_packed is None:
        keep_packed = True  # who asks for packed weights gets them
    model, checkpoint = open_model(
        path,
        dtype=dtype or wants.compute_dtype,
        keep_packed=wants.keep_packed if keep_packed is None else keep_packed,
        dequantize_limit_bytes=math.inf if keep_packed is False else wants.dequantize_limit_bytes,
        adapt=adapt,
    )
    if quantize is not None:
        if any(hasattr(module, "bits") for module in model.modules()):
            model.load_report.notes.append("weights that the checkpoint has packed stay as they are")
        quantize_model(model, quantize)
    for part in [*model.layers, model]:
        if not lazy:
            for value in named_parameters(part).values():
                backend.materialize(value)
        fuse_projections(part)
        if not lazy:
            backend.materialize(part.parameters())
    measure(model)
    return model, checkpoint


def open_model(
    path: Path,
    *,
    dtype: mx.Dtype | str | None = None,
    keep_packed: bool = True,
    dequantize_limit_bytes: float = math.inf,
    adapt: Adapt | None = None,
) -> tuple[CausalLM, Checkpoint]:
    """A model whose weights haven't been read yet, and whose projections aren't fused, with the checkpoint, whose
    weights are the model's now.

    dtype None is the checkpoint's own; weights that are packed stay so, or, without `keep_packed`, are dequantised
    unless that would take more than `dequantize_limit_bytes`. Raises ConfigError, WeightsError.
    """
    checkpoint = open_checkpoint(path, keep_packed=keep_packed, dequantize_limit_bytes=dequantize_limit_bytes)
    if adapt is not None:
        checkpoint = adapt(checkpoint)
    target = parse_dtype(dtype) or checkpoint.dtype
    report = LoadReport(checkpoint.path)
    with preserved_random_state():
        architecture = find_architecture(checkpoint.config.get("model_type"))
        model = _build(architecture, checkpoint.config)
        weights = model.sanitize(dict(checkpoint.weights))
        report.notes += filter(None, [*checkpoint.notes, model.load_note])
        if checkpoint.quantization is not None and not keep_packed:
            weights = _dequantize(weights, checkpoint.quantization, target, dequantize_limit_bytes, report)
        if checkpoint.dequantized:
            report.notes.append(_DEQUANTIZED.format(checkpoint.dequantized))
        _pack_modules(model, weights, checkpoint.quantization)
        weights = _without_zero_biases(model, weights)
        exact = fp32_parameters(model)
        weights = {name: _cast(value, mx.float32 if name in exact else target) for name, value in weights.items()}
        _check(model, weights, checkpoint.path)
        model.load_weights(list(weights.items()))
        model.eval()
    checkpoint.weights.clear()  # each tensor's sources are freed as soon as it is computed
    model.load_report = report
    measure(model)
    return model, checkpoint


def measure(model: CausalLM) -> None:
    """Say in the load report how large the model is."""
    model.load_report.parameters = _count(model)
    model.load_report.nbytes = sum(value.nbytes for value in named_parameters(model).values())


def _build(architecture: Architecture, config: Mapping[str, Any]) -> CausalLM:
    checked = architecture.ModelConfig.from_dict(config)
    try:
        return architecture.Model(checked)
    except MLXCoreError:
        raise
    except Exception as error:  # whatever MLX and Python raise for sizes that make no array
        raise ConfigError(
            f"config.json describes no model that can be built: {type(error).__name__}: {error}."
        ) from error


@contextlib.contextmanager
def preserved_random_state() -> Iterator[None]:
    """Leave MLX's global random state as it is: MLX's layers draw initial weights from it, which loading replaces."""
    key = next(iter(cast(Iterable[mx.array], mx.random.state)))
    high, low = cast(list[int], key.tolist())
    try:
        yield
    finally:
        mx.random.seed(high << 32 | low)  # a seed's two halves are the key that it sets


def _pack_modules(model: CausalLM, weights: dict[str, mx.array], table: QuantizationConfig | None) -> None:
    """Give the modules whose weights are packed in the checkpoint their packed form."""
    packed = {name.removesuffix(".scales") for name in weights if name.endswith(".scales")}
    if not packed:
        return
    if table is None:
        raise ConfigError(
            f"the checkpoint holds packed weights ({min(packed)}), but config.json has no 'quantization'."
        )

    def packing(path: str, module: nn.Module) -> bool | dict[str, Any]:
        if path not in packed or not hasattr(module, "to_quantized"):
            return False
        chosen = _packing_of(path, table)
        width = module["weight"].shape[-1]
        if width % chosen.group_size:
            raise WeightsError(
                f"{path} is packed in groups of {chosen.group_size}, which don't divide its width {width}. Config and weights "
                "are of different models."
            )
        return chosen.to_dict()

    nn.quantize(model, class_predicate=packing)


def _packing_of(path: str, table: QuantizationConfig) -> LayerQuantization:
    chosen = table.for_path(path)
    if chosen is None:
        raise ConfigError(f"config.json says that {path} isn't quantised, but the checkpoint holds {path}.scales.")
    return chosen


def _dequantize(
    weights: dict[str, mx.array],
    table: QuantizationConfig,
    dtype: mx.Dtype | None,
    limit: float,
    report: LoadReport,
) -> dict[str, mx.array]:
    """Packed weights at full width, unless they would take more memory than the backend has to give."""
    paths = [name.removesuffix(".scales") for name in weights if name.endswith(".scales")]
    result = dict(weights)
    for path in paths:
        packing = _packing_of(path, table)
        weight, scales = result.pop(f"{path}.weight", None), result.pop(f"{path}.scales")
        biases = result.pop(f"{path}.biases", None)
        if weight is None:
            raise WeightsError(f"the checkpoint has {path}.scales but no {path}.weight.")
        try:
            full = mx.dequantize(
                weight,
                _cast(scales, dtype),
                None if biases is None else _cast(biases, dtype),
                packing.group_size,
                packing.bits,
                packing.mode,
                dtype=dtype,
            )
        except (ValueError, RuntimeError) as error:
            raise WeightsError(f"{path} isn't packed as config.json says ({packing.to_dict()}): {error}") from error
        result[f"{path}.weight"] = full
    if not paths:
        return weights
    nbytes = sum(value.nbytes for value in result.values())
    if nbytes > limit:
        sizes = f"{nbytes / 2**30:.1f} GiB, over the limit of {limit / 2**30:.1f}"
        report.notes.append(f"weights stay packed: dequantised they would take {sizes}")
        return weights
    report.notes.append(_DEQUANTIZED.format(len(paths)))
    return result


def fp32_parameters(model: nn.Module) -> set[str]:
    """The parameters that stay fp32 whatever the others are cast to: those that a module names in its
    `fp32_parameters`.
    """
    modules = ((path, getattr(module, "fp32_parameters", ())) for path, module in model.named_modules())
    return {f"{path}.{name}" for path, names in modules for name in names}


def _cast(value: mx.array, dtype: mx.Dtype | None) -> mx.array:
    return value.astype(dtype) if dtype is not None and mx.issubdtype(value.dtype, mx.floating) else value


def _without_zero_biases(model: CausalLM, weights: dict[str, mx.array]) -> dict[str, mx.array]:
    """Weights without the biases that GPTQ's packers give every layer: zeros, where the model has no place for them."""
    known = named_parameters(model)
    unknown = {name: weights[name].any() for name in weights if name.endswith(".bias") and name not in known}
    spare = {name for name, used in backend.materialize(unknown).items() if not used}
    return {name: value for name, value in weights.items() if name not in spare}


def _check(model: CausalLM, weights: dict[str, mx.array], path: Path) -> None:
    """Raise WeightsError unless names and shapes are exactly the model's, and dtypes of its kind."""
    expected = {name: value.shape for name, value in named_parameters(model).items()}
    expected_dtypes = {name: value.dtype for name, value in named_parameters(model).items()}
    for name, shape in expected.items():
        if name in weights and weights[name].shape != shape:
            raise WeightsError(
                f"{path.name}: tensor {name!r} has shape {tuple(weights[name].shape)}; config.json makes it {tuple(shape)}. "
                "Config and weights are of different models, or the file is damaged."
            )
    for name in sorted(expected.keys() & weights.keys()):
        _check_dtype(name, weights[name].dtype, expected_dtypes[name], path)
    missing, unexpected = sorted(expected.keys() - weights.keys()), sorted(weights.keys() - expected.keys())
    if missing or unexpected:
        raise WeightsError(
            f"{path.name} doesn't fit its config.json: "
            + "; ".join(
                f"{len(names)} tensors {what}: {', '.join(names[:4])}{' ...' if len(names) > 4 else ''}"
                for what, names in (("are missing", missing), ("have no place in the model", unexpected))
                if names
            )
        )


def _check_dtype(name: str, found: mx.Dtype, wanted: mx.Dtype, path: Path) -> None:
    """Raise WeightsError unless a tensor is of the dtype that the model needs, or floating-point like it."""
    if found == wanted or (mx.issubdtype(found, mx.floating) and mx.issubdtype(wanted, mx.floating)):
        return
    expected = "a floating-point dtype" if mx.issubdtype(wanted, mx.floating) else str(wanted)
    hint = " MLX reads fp8 as bytes: take the model's bf16 checkpoint." if found == mx.uint8 else ""
    raise WeightsError(f"{path.name}: tensor {name!r} is {found}; expected {expected}.{hint}")


def _count(model: nn.Module) -> int:
    """Weights before packing."""
    total = 0
    for module in model.modules():
        bits = getattr(module, "bits", None)
        for name, value in module.items():
            if not isinstance(value, mx.array) or name in ("scales", "biases"):
                continue
            total += value.size * 32 // bits if bits and name == "weight" else value.size
    return total
