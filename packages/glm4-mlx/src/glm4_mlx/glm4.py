"""GLM-4 (0414): norms on both sides of attention and MLP, and RoPE that rotates neighbours in half of each head.

RoPE rotates the first `head_dim * partial_rotary_factor` dimensions in pairs (0, 1), (2, 3) ...; queries, keys and
values have biases if `attention_bias` says so, the output never has; gate and up are one matrix in checkpoints.

Paper: https://arxiv.org/abs/2406.12793. Reference: transformers 4.57.6 and 5.23.0, `models/glm4`.
"""

from __future__ import annotations

from dataclasses import dataclass

from mlx_core.config import DecoderConfig
from mlx_core.models import Attention, CausalLM, DecoderLayer, JoinedMLP, Norms


@dataclass(frozen=True, kw_only=True)
class ModelConfig(DecoderConfig):
    """config.json of a GLM-4 checkpoint."""

    num_key_value_heads: int | None = 2
    head_dim: int | None = 128
    max_position_embeddings: int = 131072
    rms_norm_eps: float = 1.5625e-7
    partial_rotary_factor: float | None = 0.5
    attention_bias: bool = True


class Model(CausalLM):
    """GLM-4 for causal language modelling."""

    def __init__(self, config: ModelConfig) -> None:
        rope = config.rope(traditional=True)
        super().__init__(
            config,
            [
                DecoderLayer(
                    config,
                    Attention(config, rope, qkv_bias=config.attention_bias),
                    JoinedMLP(config.hidden_size, config.intermediate_size, activation=config.hidden_act),
                    norms=Norms(after_attention="post_self_attn_layernorm", after_mlp="post_mlp_layernorm"),
                )
                for _ in range(config.num_hidden_layers)
            ],
        )
