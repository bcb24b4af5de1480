"""Gemma 3: a Llama so far. Say here in a line what distinguishes it, and below how.

Paper: (its address). Reference: transformers 4.57.6 and 5.23.0, `models/gemma3`.
"""

from __future__ import annotations

from dataclasses import dataclass

from mlx_core.config import DecoderConfig
from mlx_core.models import Attention, CausalLM, DecoderLayer, GatedMLP


@dataclass(frozen=True, kw_only=True)
class ModelConfig(DecoderConfig):
    """config.json of a Gemma 3 checkpoint."""

    # The keys that DecoderConfig lacks or gives another default, in the checkpoint's order with transformers' defaults.
    # `norm` makes every norm: override it if the family's is no RMSNorm.


class Model(CausalLM):
    """Gemma 3 for causal language modelling."""

    def __init__(self, config: ModelConfig) -> None:
        rope = config.rope()  # traditional=True where it rotates neighbours; rope(layer_type) where layers differ
        super().__init__(
            config,
            [
                DecoderLayer(
                    config,
                    # Biases, norms of queries and keys, a window, another scale: Attention's options.
                    Attention(config, rope),
                    # Experts instead: mlx_core.models.SoftmaxMoE, or a SparseMoE with a router of the family's own.
                    GatedMLP(config.hidden_size, config.intermediate_size, activation=config.hidden_act),
                    # norms=Norms(...) where they stand elsewhere, or checkpoints name them otherwise
                )
                for _ in range(config.num_hidden_layers)
            ],
        )

    # sanitize(weights), where checkpoints name or lay out tensors otherwise than these modules.
