"""Qwen3: per-head RMSNorm of queries and keys before RoPE, a head_dim of its own, no biases by default.

Windows as in Qwen2. Paper: https://arxiv.org/abs/2505.09388. Reference: transformers 4.57.6 and 5.23.0, `models/qwen3`.
"""

from __future__ import annotations

from dataclasses import dataclass

from mlx_core.config import DecoderConfig
from mlx_core.models import Attention, CausalLM, DecoderLayer, GatedMLP
from mlx_core.ops import RoPE


@dataclass(frozen=True, kw_only=True)
class ModelConfig(DecoderConfig):
    """config.json of a Qwen3 checkpoint."""

    head_dim: int | None = 128
    attention_bias: bool = False
    use_sliding_window: bool = False
    sliding_window: int | None = 4096
    max_window_layers: int = 28

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.use_sliding_window:
            object.__setattr__(self, "sliding_window", None)


def attention(config: ModelConfig, rope: RoPE, window: int | None) -> Attention:
    """A Qwen3 layer's attention."""
    bias = config.attention_bias
    return Attention(config, rope, window=window, qkv_bias=bias, output_bias=bias, qk_norm="head")


class Model(CausalLM):
    """Qwen3 for causal language modelling."""

    def __init__(self, config: ModelConfig) -> None:
        rope = config.rope()
        super().__init__(
            config,
            [
                DecoderLayer(
                    config,
                    attention(config, rope, config.window(i, otherwise=i >= config.max_window_layers)),
                    GatedMLP(config.hidden_size, config.intermediate_size, activation=config.hidden_act),
                )
                for i in range(config.num_hidden_layers)
            ],
        )
