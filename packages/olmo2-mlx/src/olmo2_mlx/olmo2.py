"""OLMo-2: norms after attention and MLP instead of before them, and over whole queries and keys.

What attention and MLP give is normed before it is added; what they take isn't. Queries and keys are normed over the
whole projection, all heads at once, before RoPE.

Paper: https://arxiv.org/abs/2501.00656. Reference: transformers 4.57.6 and 5.23.0, `models/olmo2`.
"""

from __future__ import annotations

from dataclasses import dataclass

from mlx_core.config import DecoderConfig
from mlx_core.models import Attention, CausalLM, DecoderLayer, GatedMLP, Norms

NORMS = Norms(None, "post_attention_layernorm", None, "post_feedforward_layernorm")


@dataclass(frozen=True, kw_only=True)
class ModelConfig(DecoderConfig):
    """config.json of an OLMo-2 checkpoint."""

    max_position_embeddings: int = 2048
    rms_norm_eps: float = 1e-5
    attention_bias: bool = False


class Model(CausalLM):
    """OLMo-2 for causal language modelling."""

    def __init__(self, config: ModelConfig) -> None:
        rope, bias = config.rope(), config.attention_bias
        super().__init__(
            config,
            [
                DecoderLayer(
                    config,
                    Attention(config, rope, qkv_bias=bias, output_bias=bias, qk_norm="projection"),
                    GatedMLP(config.hidden_size, config.intermediate_size, activation=config.hidden_act),
                    norms=NORMS,
                )
                for _ in range(config.num_hidden_layers)
            ],
        )
