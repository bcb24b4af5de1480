"""Mixtral: every layer routes each token to a few of its experts; a window, where there is one, in every layer.

The router takes the best `num_experts_per_tok` logits, and the softmax over these. Checkpoints call the block
`block_sparse_moe` and its projections w1 (gate), w2 (down) and w3 (up); transformers 5 also writes
`mlp.experts.gate_up_proj`.

Paper: https://arxiv.org/abs/2401.04088. Reference: transformers 4.57.6 and 5.23.0, `models/mixtral`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import mlx.core as mx

from mlx_core.config import DecoderConfig
from mlx_core.errors import ConfigError
from mlx_core.models import Attention, CausalLM, DecoderLayer, SoftmaxMoE, stack_experts

_BLOCK = "block_sparse_moe"
_PART_NAMES = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}


@dataclass(frozen=True, kw_only=True)
class ModelConfig(DecoderConfig):
    """config.json of a Mixtral checkpoint."""

    default_rope_theta: ClassVar[float] = 1e6

    num_key_value_heads: int | None = 8
    max_position_embeddings: int = 131072
    rms_norm_eps: float = 1e-5
    num_experts_per_tok: int = 2
    num_local_experts: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.num_experts_per_tok <= self.num_local_experts:
            raise ConfigError(
                "num_experts_per_tok must be between 1 and num_local_experts; "
                f"found {self.num_experts_per_tok} of {self.num_local_experts}."
            )


class Model(CausalLM):
    """Mixtral for causal language modelling."""

    config: ModelConfig

    def __init__(self, config: ModelConfig) -> None:
        rope = config.rope()
        super().__init__(
            config,
            [
                DecoderLayer(
                    config,
                    Attention(config, rope, window=config.sliding_window),
                    SoftmaxMoE(
                        config.num_local_experts,
                        config.hidden_size,
                        config.intermediate_size,
                        top_k=config.num_experts_per_tok,
                        normalize=True,
                        activation=config.hidden_act,
                    ),
                    mlp_name=_BLOCK,
                )
                for _ in range(config.num_hidden_layers)
            ],
        )

    def sanitize(self, weights: dict[str, mx.array]) -> dict[str, mx.array]:
        """As in CausalLM, under the block's one name, and with experts stacked per projection."""
        renamed = {name.replace(".mlp.", f".{_BLOCK}.", 1): value for name, value in weights.items()}
        return super().sanitize(stack_experts(renamed, self.config.num_local_experts, _PART_NAMES))
