"""Filling a module from a checkpoint's weights: dequantised or packed, checked, laid out, cast. Lazy throughout.

Decoders and the modules of other kinds (`CheckpointModule`) are filled here alike.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import mlx.core as mx
import mlx.nn as nn

from .. import backend
from ..config import LayerQuantization, QuantizationConfig
from ..errors import ConfigError, MLXCoreError, WeightsError
from .projections import named_parameters

_M = TypeVar("_M", bound=nn.Module)

FASTER = "which is faster on this backend"
"""The reason for dequantising where nobody asked for it."""


@dataclass
class LoadReport:
    """A model's size, and what loading did with its weights; kept as its `load_report`."""

    name: str
    parameters: int = 0
    nbytes: int = 0
    notes: list[str] = field(default_factory=list)
    engine: str = "mlx"
    """The engine that runs the model."""
    engine_reason: str = ""
    """Why that one, or why not another; empty where there is no other for this machine."""

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.nbytes / self.parameters if self.parameters else 0.0

    def measure(self, module: nn.Module) -> None:
        """Count the module's weights and bytes."""
        self.parameters = _count(module)
        self.nbytes = sum(value.nbytes for value in named_parameters(module).values())

    def __str__(self) -> str:
        size = f"{self.name}: {self.parameters / 1e6:,.1f} M parameters, {self.nbytes / 2**20:,.0f} MiB"
        engine = [f"engine {self.engine} ({self.engine_reason})"] if self.engine_reason else []
        return "; ".join([size, *self.notes, *engine])


def build(construct: Callable[[], _M], what: str) -> _M:
    """`construct()`, a module whose weights are to be filled; MLX's global random state stays as it is.

    Raises ConfigError, which names `what`, for sizes of which no module can be made.
    """
    try:
        with preserved_random_state():
            return construct()
    except MLXCoreError:
        raise
    except Exception as error:  # whatever MLX and Python raise for sizes that make no array
        raise ConfigError(f"{what} describes no model that can be built: {type(error).__name__}: {error}.") from error


@contextlib.contextmanager
def preserved_random_state() -> Iterator[None]:
    """Leave MLX's global random state as it is: MLX's layers draw initial weights from it, which loading replaces.

    The state is the process's: what other threads draw from it meanwhile is drawn again.
    """
    key = next(iter(cast(Iterable[mx.array], mx.random.state)))
    high, low = cast(list[int], key.tolist())
    try:
        yield
    finally:
        mx.random.seed(high << 32 | low)  # a seed's two halves are the key that it sets


def fill(
    module: nn.Module,
    weights: Mapping[str, mx.array],
    report: LoadReport,
    *,
    quantization: QuantizationConfig | None = None,
    dtype: mx.Dtype | None = None,
    keep_packed: bool = True,
    dequantize_limit_bytes: float = math.inf,
    dequantize_reason: str = "",
) -> None:
    """Make the weights, by the module's names and in the checkpoint's layouts, the module's. Lazy.

    quantization: the table by which weights with `.scales` are packed. Without `keep_packed` they are dequantised,
    unless that would take more than `dequantize_limit_bytes`; the report gives the reason. dtype: of floating-point
    weights, None for their own; those that a module names in its `fp32_parameters` are float32. Layers with
    `checkpoint_axes` get their weights transposed by these. Raises ConfigError for packings that the table and the
    weights disagree on, WeightsError unless names, shapes and kinds of dtype are exactly the module's.
    """
    weights = dict(weights)
    packings = _packings(weights, quantization)
    if packings and not keep_packed:
        full = _dequantized(weights, packings, dtype)
        nbytes = sum(value.nbytes for value in full.values())
        if nbytes <= dequantize_limit_bytes:
            note_dequantized(report, len(packings), dequantize_reason)
            weights, packings = full, {}
        else:
            sizes = f"{nbytes / 2**30:.1f} GiB, over the limit of {dequantize_limit_bytes / 2**30:.1f}"
            report.notes.append(f"weights stay packed: dequantised they would take {sizes}")
    _pack_modules(module, packings)
    expected = named_parameters(module)
    weights = _without_zero_biases(weights, expected)
    axes = layouts(module)
    _check(weights, expected, axes, report.name)
    exact = fp32_parameters(module)
    filled = []
    for name, value in weights.items():
        if name in axes:
            value = mx.contiguous(value.transpose(axes[name]))
        filled.append((name, _cast(value, mx.float32 if name in exact else dtype)))
    module.load_weights(filled)
    module.eval()
    report.measure(module)


def materialize(module: nn.Module, report: LoadReport) -> None:
    """Compute the module's weights one after the other, so that the source of each can go before the next is read.

    Raises WeightsError for a file that turns out to be unreadable.
    """
    for name, value in named_parameters(module).items():
        try:
            backend.materialize(value)
        except RuntimeError as error:
            if "[read]" not in str(error) and "Unable to read" not in str(error):
                raise
            raise WeightsError(
                f"{report.name}: {name} can't be read: {error}. The file has changed since it was opened, or the disk fails."
            ) from error


def note_dequantized(report: LoadReport, count: int, reason: str = "") -> None:
    """Say that `count` packed weights were dequantised."""
    report.notes.append(f"{count} packed weights dequantised" + (f", {reason}" if reason else ""))


def fp32_parameters(module: nn.Module) -> set[str]:
    """The parameters that stay fp32 whatever the others are cast to: those that a module names in its
    `fp32_parameters`.
    """
    modules = ((path, getattr(part, "fp32_parameters", ())) for path, part in module.named_modules())
    return {f"{path}.{name}" for path, names in modules for name in names}


def layouts(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """The axes that take a checkpoint's layout to MLX's, by the names of the weights whose layers have them."""
    return {
        f"{path}.weight": part.checkpoint_axes
        for path, part in module.named_modules()
        if hasattr(part, "checkpoint_axes")
    }


def inverse(axes: tuple[int, ...]) -> tuple[int, ...]:
    """The axes that undo a transposition by `axes`."""
    return tuple(axes.index(i) for i in range(len(axes)))


def _packings(weights: Mapping[str, mx.array], table: QuantizationConfig | None) -> dict[str, LayerQuantization]:
    """The packing of each layer that is packed in the checkpoint."""
    packings = {}
    for path in (name.removesuffix(".scales") for name in weights if name.endswith(".scales")):
        if table is None:
            raise ConfigError(f"the checkpoint holds packed weights ({path}), but config.json has no 'quantization'.")
        packing = table.for_path(path)
        if packing is None:
            raise ConfigError(f"config.json says that {path} isn't quantised, but the checkpoint holds {path}.scales.")
        packings[path] = packing
    return packings


def _dequantized(
    weights: Mapping[str, mx.array], packings: Mapping[str, LayerQuantization], dtype: mx.Dtype | None
) -> dict[str, mx.array]:
    """Weights at full width."""
    result = dict(weights)
    for path, packing in packings.items():
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
    return result


def _pack_modules(module: nn.Module, packings: Mapping[str, LayerQuantization]) -> None:
    """Give the layers whose weights are packed their packed form."""

    def packing(path: str, layer: nn.Module) -> bool | dict[str, Any]:
        if path not in packings or not hasattr(layer, "to_quantized"):
            return False
        chosen = packings[path]
        width = layer["weight"].shape[-1]
        if width % chosen.group_size:
            raise WeightsError(
                f"{path} is packed in groups of {chosen.group_size}, which don't divide its width {width}. Config and weights "
                "are of different models."
            )
        return chosen.to_dict()

    if packings:
        with preserved_random_state():
            nn.quantize(module, class_predicate=packing)


def _cast(value: mx.array, dtype: mx.Dtype | None) -> mx.array:
    return value.astype(dtype) if dtype is not None and mx.issubdtype(value.dtype, mx.floating) else value


def _without_zero_biases(weights: dict[str, mx.array], expected: Mapping[str, mx.array]) -> dict[str, mx.array]:
    """Weights without the biases that GPTQ's packers give every layer: zeros, where the model has no place for them."""
    unknown = {name: weights[name].any() for name in weights if name.endswith(".bias") and name not in expected}
    if not unknown:
        return weights
    zeros = {name for name, used in backend.materialize(unknown).items() if not used}
    return {name: value for name, value in weights.items() if name not in zeros}


def _check(
    weights: Mapping[str, mx.array],
    expected: Mapping[str, mx.array],
    axes: Mapping[str, tuple[int, ...]],
    name_of_all: str,
) -> None:
    """Raise WeightsError unless names and shapes are exactly those expected, and dtypes of their kind."""
    for name in expected.keys() & weights.keys():
        shape = tuple(expected[name].shape)
        if name in axes:
            shape = tuple(shape[i] for i in inverse(axes[name]))
        if tuple(weights[name].shape) != shape:
            raise WeightsError(
                f"{name_of_all}: tensor {name!r} has shape {tuple(weights[name].shape)}; the configuration makes it {shape}. "
                "Config and weights are of different models, or the file is damaged."
            )
    for name in sorted(expected.keys() & weights.keys()):
        _check_dtype(name, weights[name].dtype, expected[name].dtype, name_of_all)
    missing, unexpected = sorted(expected.keys() - weights.keys()), sorted(weights.keys() - expected.keys())
    if missing or unexpected:
        raise WeightsError(
            f"{name_of_all} doesn't fit its configuration: "
            + "; ".join(
                f"{len(names)} tensors {what}: {', '.join(names[:4])}{' ...' if len(names) > 4 else ''}"
                for what, names in (("are missing", missing), ("have no place in the model", unexpected))
                if names
            )
        )


def _check_dtype(name: str, found: mx.Dtype, wanted: mx.Dtype, name_of_all: str) -> None:
    """Raise WeightsError unless a tensor is of the dtype that the model needs, or floating-point like it."""
    if found == wanted or (mx.issubdtype(found, mx.floating) and mx.issubdtype(wanted, mx.floating)):
        return
    expected = "a floating-point dtype" if mx.issubdtype(wanted, mx.floating) else str(wanted)
    hint = " MLX reads fp8 as bytes: take the model's bf16 checkpoint." if found == mx.uint8 else ""
    raise WeightsError(f"{name_of_all}: tensor {name!r} is {found}; expected {expected}.{hint}")


def _count(module: nn.Module) -> int:
    """Weights before packing."""
    total = 0
    for part in module.modules():
        bits = getattr(part, "bits", None)
        for name, value in part.items():
            if not isinstance(value, mx.array) or name.startswith("_") or name in ("scales", "biases"):
                continue
            total += value.size * 32 // bits if bits and name == "weight" else value.size
    return total
