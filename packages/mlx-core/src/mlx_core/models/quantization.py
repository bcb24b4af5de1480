"""Packing a model's weights: uniformly, layer by layer, or by recipe."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import mlx.nn as nn

from ..config import LayerQuantization, QuantizationConfig
from ..errors import ConfigError
from .layers import CausalLM
from .projections import FusedProjections

Quantize = int | str | Mapping[str, Any] | QuantizationConfig

RECIPES: dict[str, tuple[int, int]] = {
    "mixed_2_6": (2, 6),
    "mixed_3_4": (3, 4),
    "mixed_3_6": (3, 6),
    "mixed_4_6": (4, 6),
}
"""Bits of most layers, and of those that matter most, as in mlx-lm: the head, and v_proj and down_proj in the first and
last eighth of the layers and in every third of the others.
"""

_PRECIOUS = re.compile(r"model\.layers\.(?P<layer>\d+)\..*\b(v_proj|down_proj)")


def quantize_model(model: CausalLM, quantize: Quantize) -> None:
    """Pack a model's linear and embedding weights in place. Lazy. Raises ConfigError.

    quantize: bits; a table such as `{"bits": 4, "group_size": 64, "mode": "affine"}`, perhaps with entries for single
    modules by their paths (a table, or false to leave one as it is); the name of one of RECIPES; or a table with a
    `recipe` and a `group_size`. Routers are packed at 8 bits unless a table says otherwise. Layers that are packed
    already, and those whose input width the groups don't divide, stay as they are.
    """
    table = _table(model, quantize)
    if table.overrides and any(isinstance(part, FusedProjections) and part.joined for part in model.modules()):
        raise ConfigError(
            "this model's projections are fused, so the layers that a recipe or a table names aren't there any more. Quantise "
            "at load: load_model(..., quantize=...)."
        )

    def packing(path: str, module: nn.Module) -> bool | dict[str, Any]:
        chosen = table.for_path(path)
        if not hasattr(module, "to_quantized") or chosen is None:
            return False
        if path.endswith(".gate") and path not in table.overrides:
            # a router's few weights decide everything after it
            chosen = LayerQuantization(64, 8)
        return module["weight"].shape[-1] % chosen.group_size == 0 and chosen.to_dict()

    nn.quantize(model, class_predicate=packing)


def _table(model: CausalLM, quantize: Quantize) -> QuantizationConfig:
    if isinstance(quantize, QuantizationConfig):
        return quantize
    if isinstance(quantize, int) and not isinstance(quantize, bool):
        return QuantizationConfig.from_dict({"bits": quantize})
    if isinstance(quantize, str):
        quantize = {"recipe": quantize}
    if not isinstance(quantize, Mapping):
        raise ConfigError(
            f"quantize takes bits, a table such as {{'bits': 4, 'group_size': 64}}, or the name of a recipe; got {quantize!r}."
        )
    if "recipe" not in quantize:
        return QuantizationConfig.from_dict(quantize)
    if unknown := sorted(quantize.keys() - {"recipe", "group_size"}):
        raise ConfigError(
            f"a recipe chooses bits and mode itself; beside it goes group_size alone, not {unknown[0]!r}."
        )
    paths = (path for path, module in model.named_modules() if hasattr(module, "to_quantized"))
    return recipe_table(quantize["recipe"], paths, len(model.layers), quantize.get("group_size") or 64)


def recipe_table(recipe: object, paths: Iterable[str], n_layers: int, group_size: int = 64) -> QuantizationConfig:
    """The table by which one of RECIPES packs the modules at `paths`. Raises ConfigError for an unknown recipe."""
    if not isinstance(recipe, str) or recipe not in RECIPES:
        raise ConfigError(f"quantize: there is no recipe {recipe!r}; known are {', '.join(RECIPES)}.")
    low, high = (LayerQuantization(group_size, bits) for bits in RECIPES[recipe])
    eighth = n_layers // 8
    overrides: dict[str, LayerQuantization | None] = {}
    for path in paths:
        match = _PRECIOUS.match(path)
        layer = int(match["layer"]) if match else 0
        if path == "lm_head" or (match and (layer < eighth or layer >= 7 * n_layers // 8 or (layer - eighth) % 3 == 2)):
            overrides[path] = high
    return QuantizationConfig(low, overrides)


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
