"""GLM-4.5, 4.6 and 4.7: shared experts beside routed ones, chosen by sigmoid scores within the best groups.

The first `first_k_dense_replace` layers are dense. In the others each token goes through the shared experts, which are
one MLP, and through `num_experts_per_tok` of the routed ones. The router computes in fp32: scores are sigmoids; a bias
is added for choosing alone; with several groups of experts only the `topk_group` best take part, a group counting
for the sum of its two best scores; the weights are the scores without the bias. RoPE rotates half of each head;
queries and keys are normed if `use_qk_norm`. Released files also hold a layer that predicts further tokens, which is
left out.

Paper: https://arxiv.org/abs/2508.06471. Reference: transformers 4.57.6 and 5.23.0, `models/glm4_moe` (the former gives
experts outside the best groups a score of 0 rather than none, which differs where biased scores are negative).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import ClassVar

import mlx.core as mx
import mlx.nn as nn

from mlx_core.config import DecoderConfig
from mlx_core.engines import LinearPlan, MLPPlan, MoEPlan, RouterPlan, describe
from mlx_core.errors import ConfigError
from mlx_core.models import (
    Attention,
    CausalLM,
    DecoderLayer,
    GatedMLP,
    RoutedExperts,
    SparseMoE,
    stack_experts,
    top_k_indices,
)


@dataclass(frozen=True, kw_only=True)
class ModelConfig(DecoderConfig):
    """config.json of a GLM-4.5 checkpoint."""

    num_key_value_heads: int | None = 8
    max_position_embeddings: int = 131072
    rms_norm_eps: float = 1e-5
    partial_rotary_factor: float | None = 0.5
    attention_bias: bool = False
    moe_intermediate_size: int = 1408
    num_experts_per_tok: int = 8
    n_shared_experts: int = 1
    n_routed_experts: int = 128
    routed_scaling_factor: float = 1.0
    n_group: int = 1
    topk_group: int = 1
    first_k_dense_replace: int = 1
    norm_topk_prob: bool = True
    use_qk_norm: bool = False
    num_nextn_predict_layers: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("moe_intermediate_size", "num_experts_per_tok", "n_shared_experts", "n_group", "topk_group"):
            if getattr(self, name) < 1:
                raise ConfigError(f"config.json's {name!r} must be positive; found {getattr(self, name)}.")
        if self.n_routed_experts % self.n_group or self.topk_group > self.n_group:
            raise ConfigError(
                f"n_group must divide n_routed_experts, and topk_group be at most n_group; found {self.n_group} groups of "
                f"{self.n_routed_experts} experts, and {self.topk_group}."
            )
        if self.n_group > 1 and self.group_size < 2:
            raise ConfigError(
                f"a group counts for its two best experts; found {self.n_group} groups of {self.n_routed_experts} experts."
            )
        if self.num_experts_per_tok > self.topk_group * self.group_size:
            raise ConfigError(
                f"num_experts_per_tok is {self.num_experts_per_tok}; the {self.topk_group} best groups have "
                f"{self.topk_group * self.group_size} experts."
            )

    @property
    def group_size(self) -> int:
        """Experts per group."""
        return self.n_routed_experts // self.n_group


class Router(nn.Module):
    """Which experts a token goes through, and how much each counts. Never packed."""

    fp32_parameters: ClassVar[tuple[str, ...]] = ("e_score_correction_bias",)

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.weight = mx.zeros((config.n_routed_experts, config.hidden_size))
        self.e_score_correction_bias = mx.zeros((config.n_routed_experts,))

    def __call__(self, x: mx.array) -> tuple[mx.array, mx.array]:
        """x: `[..., hidden]`; returns experts and their weights (fp32), `[..., K]` each."""
        config = self.config
        scores = mx.sigmoid(x.astype(mx.float32) @ self.weight.astype(mx.float32).T)  # [..., E]
        biased = scores + self.e_score_correction_bias
        if config.topk_group < config.n_group:
            groups = biased.reshape(*biased.shape[:-1], config.n_group, config.group_size)
            worst = top_k_indices(-mx.topk(groups, 2, axis=-1).sum(axis=-1), config.n_group - config.topk_group)
            biased = mx.put_along_axis(groups, worst[..., None], mx.array(-mx.inf), axis=-2).reshape(biased.shape)
        experts = top_k_indices(biased, config.num_experts_per_tok)
        weights = mx.take_along_axis(scores, experts, axis=-1)
        if config.norm_topk_prob:
            weights = weights / (weights.sum(axis=-1, keepdims=True) + 1e-20)  # scores may all be zero
        return experts, weights * config.routed_scaling_factor

    def plan(self, path: str) -> RouterPlan:
        """The router as data."""
        config = self.config
        return RouterPlan(
            LinearPlan(path, config.hidden_size, config.n_routed_experts),
            "sigmoid",
            config.num_experts_per_tok,
            config.norm_topk_prob,
            eps=1e-20,
            scale=config.routed_scaling_factor,
            bias=f"{path}.e_score_correction_bias",
            n_groups=config.n_group,
            top_groups=config.topk_group,
            fp32_gate=True,
        )


class SharedAndRoutedMoE(SparseMoE):
    """Routed experts, and the shared ones that every token goes through."""

    def __init__(self, config: ModelConfig) -> None:
        width = config.moe_intermediate_size
        experts = RoutedExperts(config.n_routed_experts, config.hidden_size, width, activation=config.hidden_act)
        super().__init__(Router(config), experts)
        self.shared_experts = GatedMLP(
            config.hidden_size, width * config.n_shared_experts, activation=config.hidden_act
        )

    def __call__(self, x: mx.array) -> mx.array:
        return super().__call__(x) + self.shared_experts(x)

    def plan(self, path: str) -> MoEPlan:
        return replace(super().plan(path), shared=describe(self.shared_experts, f"{path}.shared_experts", MLPPlan))


class Model(CausalLM):
    """GLM-4.5 for causal language modelling."""

    config: ModelConfig

    def __init__(self, config: ModelConfig) -> None:
        rope = config.rope()
        super().__init__(
            config,
            [
                DecoderLayer(
                    config,
                    Attention(
                        config, rope, qkv_bias=config.attention_bias, qk_norm="head" if config.use_qk_norm else None
                    ),
                    GatedMLP(config.hidden_size, config.intermediate_size, activation=config.hidden_act)
                    if i < config.first_k_dense_replace
                    else SharedAndRoutedMoE(config),
                )
                for i in range(config.num_hidden_layers)
            ],
        )

    def sanitize(self, weights: dict[str, mx.array]) -> dict[str, mx.array]:
        """As in CausalLM, without the layers that predict further tokens, and with experts stacked per projection."""
        first = self.config.num_hidden_layers
        extra = range(first, first + max(self.config.num_nextn_predict_layers, 1))
        dropped = {
            name for name in weights if (match := re.match(r"model\.layers\.(\d+)\.", name)) and int(match[1]) in extra
        }
        if dropped:
            self.load_note = (
                f"the layer for multi-token prediction ({len(dropped)} tensors of layer {first}) is left out"
            )
        kept = {name: value for name, value in weights.items() if name not in dropped}
        return super().sanitize(stack_experts(kept, self.config.n_routed_experts))
