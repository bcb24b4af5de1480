"""LoRA: low-rank updates of a few linear layers of v3 or v4, merged into them at load.

Paper: https://arxiv.org/abs/2106.09685. Reference: GPT-SoVITS trains with peft, whose names these are, with a scale
(`lora_alpha / r`) of 1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import mlx.core as mx

from mlx_core.errors import WeightsError

_ADAPTER = re.compile(r"(?P<layer>.+)\.lora_(?P<part>[AB])(\.default)?\.weight$")


def is_lora(weights: Mapping[str, object]) -> bool:
    """Whether some of the tensors are a LoRA's."""
    return any(_ADAPTER.match(name) for name in weights)


def base_name(name: str) -> str:
    """A tensor's name without what peft's wrapping adds to it."""
    return name.replace("cfm.base_model.model.", "cfm.").replace(".base_layer.", ".")


def merge_lora(weights: Mapping[str, mx.array]) -> dict[str, mx.array]:
    """Base and LoRA in one -> W + B A in place of each W, A `[r, in]` and B `[out, r]`, under the base's names.

    Raises WeightsError for a LoRA that is incomplete, or whose base isn't there or of another shape.
    """
    result, adapters = {}, dict[str, dict[str, mx.array]]()
    for name, value in weights.items():
        if found := _ADAPTER.match(name):
            adapters.setdefault(base_name(found["layer"]) + ".weight", {})[found["part"]] = value
        else:
            result[base_name(name)] = value
    for name, parts in adapters.items():
        a, b, base = parts.get("A"), parts.get("B"), result.get(name)
        if a is None or b is None:
            raise WeightsError(
                f"the LoRA of {name} lacks its lora_{'A' if a is None else 'B'}. The file is incomplete."
            )
        if base is None:
            raise WeightsError(f"there is a LoRA of {name}, but no such tensor. Give the base model's file too.")
        if a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1] or tuple(base.shape) != (b.shape[0], a.shape[1]):
            raise WeightsError(f"the LoRA of {name} {tuple(base.shape)} is {tuple(b.shape)} by {tuple(a.shape)}.")
        change = b.astype(mx.float32) @ a.astype(mx.float32)
        result[name] = (base.astype(mx.float32) + change).astype(base.dtype)
    return result
