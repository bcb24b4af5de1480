"""Qwen2 and Qwen2.5, and Llama, which differs in the biases alone.

Biases on queries, keys and values, none on the output; head_dim is hidden / heads. Windows, where
`use_sliding_window` turns them on, belong to the layers from `max_window_layers` on, or to those that `layer_types`
names. A `llama` checkpoint has its biases, on all four projections, only if `attention_bias` says so.

Papers: https://arxiv.org/abs/2407.10671 (Qwen2), https://arxiv.org/abs/2302.13971 (Llama). Reference: transformers
4.57.6 and 5.23.0, `models/qwen2` and `models/llama`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from mlx_core.config import DecoderConfig
from mlx_core.errors import ConfigError
from mlx_core.models import Attention, CausalLM, DecoderLayer, GatedMLP


@dataclass(frozen=True, kw_only=True)
class ModelConfig(DecoderConfig):
    """config.json of a Qwen2 or Llama checkpoint."""

    use_sliding_window: bool = False
    sliding_window: int | None = 4096
    max_window_layers: int = 28
    attention_bias: bool = False
    mlp_bias: bool = False

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> Self:
        if config.get("model_type") == "llama":
            config = {"max_position_embeddings": 2048, **config}  # the family's default in transformers
        return super().from_dict(config)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mlp_bias:
            raise ConfigError("mlp_bias is not supported: no released checkpoint of these families has it.")
        if not self.use_sliding_window:
            object.__setattr__(self, "sliding_window", None)

    @property
    def is_llama(self) -> bool:
        return self.model_type == "llama"


class Model(CausalLM):
    """Qwen2 for causal language modelling."""

    def __init__(self, config: ModelConfig) -> None:
        rope = config.rope()
        super().__init__(
            config,
            [
                DecoderLayer(
                    config,
                    Attention(
                        config,
                        rope,
                        window=config.window(i, otherwise=i >= config.max_window_layers),
                        qkv_bias=config.attention_bias if config.is_llama else True,
                        output_bias=config.attention_bias and config.is_llama,
                    ),
                    GatedMLP(config.hidden_size, config.intermediate_size, activation=config.hidden_act),
                )
                for i in range(config.num_hidden_layers)
            ],
        )
