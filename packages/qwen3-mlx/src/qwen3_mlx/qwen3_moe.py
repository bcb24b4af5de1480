"""Qwen3-MoE: Qwen3's attention, and in the sparse layers a few of many experts per token.

A layer is sparse unless `mlp_only_layers` names it or `decoder_sparse_step` passes over it. The router takes the
softmax over all experts, keeps the best `num_experts_per_tok` and, if `norm_topk_prob`, makes their weights add up to
1. A window, where `use_sliding_window` turns it on, belongs to every layer.

Paper: https://arxiv.org/abs/2505.09388. Reference: transformers 4.57.6 and 5.23.0, `models/qwen3_moe`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import mlx.core as mx

from mlx_core.errors import ConfigError
from mlx_core.models import CausalLM, DecoderLayer, GatedMLP, SoftmaxMoE, stack_experts

from . import qwen3


@dataclass(frozen=True, kw_only=True)
class ModelConfig(qwen3.ModelConfig):
    """config.json of a Qwen3-MoE checkpoint."""

    head_dim: int | None = None
    decoder_sparse_step: int = 1
    moe_intermediate_size: int = 768
    num_experts_per_tok: int = 8
    num_experts: int = 128
    norm_topk_prob: bool = False
    mlp_only_layers: list[int] = field(default_factory=list)

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> Self:
        # transformers 5 saves the number of experts under the name that other families use
        if "num_experts" not in config and "num_local_experts" in config:
            config = {**config, "num_experts": config["num_local_experts"]}
        return super().from_dict(config)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.num_experts_per_tok <= self.num_experts:
            raise ConfigError(
                f"num_experts_per_tok must be between 1 and num_experts; found {self.num_experts_per_tok} of {self.num_experts}."
            )
        if self.decoder_sparse_step < 1:
            raise ConfigError(f"decoder_sparse_step must be positive; found {self.decoder_sparse_step}.")

    def is_sparse(self, layer: int) -> bool:
        """Whether a layer routes to experts."""
        return layer not in self.mlp_only_layers and (layer + 1) % self.decoder_sparse_step == 0


class Model(CausalLM):
    """Qwen3-MoE for causal language modelling."""

    config: ModelConfig

    def __init__(self, config: ModelConfig) -> None:
        rope = config.rope()
        super().__init__(
            config,
            [
                DecoderLayer(
                    config,
                    qwen3.attention(config, rope, config.sliding_window),
                    SoftmaxMoE(
                        config.num_experts,
                        config.hidden_size,
                        config.moe_intermediate_size,
                        top_k=config.num_experts_per_tok,
                        normalize=config.norm_topk_prob,
                        activation=config.hidden_act,
                    )
                    if config.is_sparse(i)
                    else GatedMLP(config.hidden_size, config.intermediate_size, activation=config.hidden_act),
                )
                for i in range(config.num_hidden_layers)
            ],
        )

    def sanitize(self, weights: dict[str, mx.array]) -> dict[str, mx.array]:
        """As in CausalLM, and experts stacked per projection."""
        return super().sanitize(stack_experts(weights, self.config.num_experts))
