"""Projections of one input as one matrix product.

At decode every matrix product costs a dispatch and reads one row, so q/k/v and gate/up are joined after loading.
Parameters keep the checkpoint's names outside: `split_parameters` gives them back.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, ClassVar, TypeVar, cast

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from .. import engines
from ..config import LayerQuantization
from ..errors import EngineError

_T = TypeVar("_T", bound=nn.Module)


class FusedProjections(nn.Module):
    """A module whose `part_names` are layers of the same input, which `fuse` replaces by one layer, `fused_name`."""

    fused_name: ClassVar[str]
    part_names: ClassVar[tuple[str, ...]]
    _part_sizes: tuple[int, ...]

    @property
    def fused(self) -> bool:
        return self.fused_name in self

    @property
    def joined(self) -> bool:
        """Whether several layers have become one."""
        return self.fused and len(self.part_names) > 1

    @property
    def parts(self) -> list[nn.Module]:
        """The separate layers, while they are separate."""
        return [self[name] for name in self.part_names]

    def fuse(self) -> None:
        """Join the layers where their kind, quantisation, biases and dtypes agree; else leave them. Lazy."""
        if self.fused or any(_kind(part) != _kind(self.parts[0]) for part in self.parts):
            return
        parts = self.parts
        self._part_sizes = tuple(part["weight"].shape[-2] for part in parts)
        fused = parts[0]  # its shape-free attributes (group size, mode ...) are those of all
        for key in _array_names(fused):
            fused[key] = mx.concatenate([part[key] for part in parts], axis=_output_axis(key))
        for name in self.part_names:
            delattr(self, name)
        self[self.fused_name] = fused

    def part_plans(self, path: str, shard: engines.Shard | None) -> list[engines.LinearPlan]:
        """The parts as data, fused or not, under their own names; `path` is this module's."""
        layers = [self[self.fused_name]] * len(self.part_names) if self.joined else self.parts
        sizes = self._part_sizes if self.joined else [layer["weight"].shape[-2] for layer in layers]
        return [
            replace(linear_plan(layer, f"{path}.{name}", shard), outputs=size)
            for layer, name, size in zip(layers, self.part_names, sizes, strict=True)
        ]

    def split(self, parameters: dict[str, mx.array]) -> dict[str, mx.array]:
        """Parameters of the fused layer -> those of its parts: `weight` -> `q_proj.weight` and so on."""
        ends = [sum(self._part_sizes[: i + 1]) for i in range(len(self.part_names) - 1)]
        result: dict[str, mx.array] = {}
        for key, value in parameters.items():
            pieces = mx.split(value, ends, axis=_output_axis(key))
            result.update({f"{name}.{key}": piece for name, piece in zip(self.part_names, pieces, strict=True)})
        return result


def linear_plan(layer: nn.Module, path: str, shard: engines.Shard | None = None) -> engines.LinearPlan:
    """A linear, embedding or expert layer as data. Raises EngineError for a layer of another class, such as an adapter."""
    if type(layer) not in _PLANNED:
        raise EngineError(f"{path}: a {type(layer).__name__} doesn't describe itself as a plan, so only MLX runs it.")
    weight, bits = layer["weight"], getattr(layer, "bits", None)
    *_, outputs, inputs = weight.shape
    if bits and shard is not None and shard.by == "inputs":
        shard = replace(shard, unit=math.lcm(shard.unit, layer.group_size))
    return engines.LinearPlan(
        path,
        inputs * 32 // bits if bits else inputs,
        outputs,
        bias="bias" in layer,
        packing=LayerQuantization(layer.group_size, bits, layer.mode) if bits else None,
        shard=shard,
    )


_PLANNED: set[type[nn.Module]] = {nn.Linear, nn.QuantizedLinear, nn.Embedding, nn.QuantizedEmbedding}


def planned(layer: type[_T]) -> type[_T]:
    """Class decorator: a layer whose weight is as `LinearPlan` says."""
    _PLANNED.add(layer)
    return layer


def fuse_projections(model: nn.Module) -> None:
    """Fuse what can be fused in the whole model. Lazy: nothing is computed here."""
    for module in model.modules():
        if isinstance(module, FusedProjections):
            module.fuse()


def named_parameters(model: nn.Module) -> dict[str, mx.array]:
    """All parameters by their paths in the module."""
    return cast(dict[str, mx.array], tree_flatten(model.parameters(), destination={}))


def split_parameters(model: nn.Module) -> dict[str, mx.array]:
    """All parameters under the names of the unfused model, in its order of modules."""
    fused = {
        path: module for path, module in model.named_modules() if isinstance(module, FusedProjections) and module.fused
    }
    result: dict[str, mx.array] = {}
    for name, value in named_parameters(model).items():
        layer_path, _, key = name.rpartition(".")
        path, _, layer = layer_path.rpartition(".")
        module = fused.get(path)
        if module is not None and layer == module.fused_name:
            result.update({f"{path}.{part}": piece for part, piece in module.split({key: value}).items()})
        else:
            result[name] = value
    return result


def _array_names(layer: nn.Module) -> list[str]:
    return sorted(name for name, value in layer.items() if isinstance(value, mx.array))


def _output_axis(key: str) -> int:
    """The output dimension: the last of a `bias`, the last but one of weights and scales (experts stand before it)."""
    return -1 if key == "bias" else -2


def _kind(layer: nn.Module) -> tuple[Any, ...]:
    packing = [getattr(layer, name, None) for name in ("group_size", "bits", "mode")]
    return type(layer), packing, [(name, layer[name].dtype) for name in _array_names(layer)]
