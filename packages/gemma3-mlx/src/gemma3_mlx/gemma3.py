"""Gemma 3: most layers see a window, every sixth everything, and each kind has a RoPE of its own.

- Norms multiply by 1 + weight, stand on both sides of attention and MLP, and over each head of queries and keys.
- Embeddings are multiplied by the square root of `hidden_size`; the head is the embedding.
- Scores are divided by the square root of `query_pre_attn_scalar`; the MLP is gated by GELU's tanh form.
- RoPE is scaled only in layers that see everything; the others have the base `rope_local_base_freq`.

Checkpoints of models that also see (`gemma3`) hold the same language model inside; what sees is left out.
`attn_logit_softcapping` is in the configuration's class, but no version of the reference applies it.

Paper: https://arxiv.org/abs/2503.19786. Reference: transformers 4.57.6 and 5.23.0, `models/gemma3`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import mlx.core as mx
import mlx.nn as nn

from mlx_core.config import DecoderConfig, rope_parameters
from mlx_core.errors import ConfigError
from mlx_core.models import Attention, CausalLM, DecoderLayer, GatedMLP, Norms, ZeroCenteredRMSNorm

NORMS = Norms("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm")


@dataclass(frozen=True, kw_only=True)
class ModelConfig(DecoderConfig):
    """config.json of a Gemma 3 checkpoint, of text alone or with vision."""

    vocab_size: int = 262208
    hidden_size: int = 2304
    intermediate_size: int = 9216
    num_hidden_layers: int = 26
    num_attention_heads: int = 8
    num_key_value_heads: int | None = 4
    head_dim: int | None = 256
    hidden_act: str = "gelu_pytorch_tanh"
    max_position_embeddings: int = 131072
    tie_word_embeddings: bool = True
    attention_bias: bool = False
    query_pre_attn_scalar: float = 256.0
    sliding_window: int | None = 4096
    sliding_window_pattern: int = 6
    final_logit_softcapping: float | None = None
    rope_local_base_freq: float = 10_000.0
    use_bidirectional_attention: bool = False

    default_rope_theta: ClassVar[float] = 1_000_000.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("query_pre_attn_scalar", "sliding_window_pattern", "final_logit_softcapping"):
            if (value := getattr(self, name)) is not None and value <= 0:
                raise ConfigError(f"config.json's {name!r} must be positive; found {value}.")
        if self.use_bidirectional_attention:
            raise ConfigError("this Gemma 3 attends in both directions: it embeds texts, and generates none.")

    @classmethod
    def canonical(cls, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """The language model's entries at the top, in transformers 4's layout beside 5's, since mlx-lm reads that one."""
        text = config.get("text_config") or {}
        if not isinstance(text, Mapping):
            raise ConfigError(f"config.json's 'text_config' must be an object; found {text!r:.80}.")
        flat = {key: value for key, value in {**config, **text}.items() if key not in ("text_config", "vision_config")}
        if "text_config" in config:
            flat |= {"model_type": "gemma3_text", "architectures": ["Gemma3ForCausalLM"]}
        flat["hidden_act"] = flat.get("hidden_activation") or "gelu_pytorch_tanh"  # the reference reads no other
        nested = flat.get("rope_parameters")
        for name, layer_type in (("rope_theta", "full_attention"), ("rope_local_base_freq", "sliding_attention")):
            settings = nested.get(layer_type) if isinstance(nested, Mapping) else None
            if isinstance(settings, Mapping):
                flat[name] = settings.get("rope_theta", flat.get(name))
                if name == "rope_theta" and settings.get("rope_type", "default") != "default":
                    flat["rope_scaling"] = settings
        types = flat.get("layer_types")
        if isinstance(types, list) and "full_attention" in types:
            flat["sliding_window_pattern"] = types.index("full_attention") + 1
        return flat

    def norm(self, dims: int) -> nn.Module:
        return ZeroCenteredRMSNorm(dims, self.rms_norm_eps)

    def rope_settings(self, layer_type: str | None = None) -> dict[str, Any]:
        if layer_type != "sliding_attention":
            return super().rope_settings(layer_type)
        nested = (self.rope_parameters or {}).get(layer_type)
        return rope_parameters({"rope_theta": self.rope_local_base_freq, "rope_parameters": nested})

    def layer_type(self, layer: int) -> str:
        """By `layer_types`, or where there are none by `sliding_window_pattern`."""
        if self.layer_types is not None:
            return self.layer_types[layer]
        return "sliding_attention" if (layer + 1) % self.sliding_window_pattern else "full_attention"


class Model(CausalLM):
    """Gemma 3 for causal language modelling."""

    def __init__(self, config: ModelConfig) -> None:
        ropes = {layer_type: config.rope(layer_type) for layer_type in ("full_attention", "sliding_attention")}
        super().__init__(
            config,
            [
                DecoderLayer(
                    config,
                    Attention(
                        config,
                        ropes[config.layer_type(i)],
                        window=config.sliding_window if config.layer_type(i) == "sliding_attention" else None,
                        qkv_bias=config.attention_bias,
                        output_bias=config.attention_bias,
                        qk_norm="head",
                        scale=config.query_pre_attn_scalar**-0.5,
                    ),
                    GatedMLP(config.hidden_size, config.intermediate_size, activation=config.hidden_act),
                    norms=NORMS,
                )
                for i in range(config.num_hidden_layers)
            ],
            embedding_scale=config.hidden_size**0.5,
            logits_softcap=config.final_logit_softcapping,
        )

    def sanitize(self, weights: dict[str, mx.array]) -> dict[str, mx.array]:
        """The language model's tensors, by the names that they have where it stands alone."""
        vision = {name for name in weights if re.match(r"(model\.)?(vision_tower|multi_modal_projector)\.", name)}
        if vision:
            self.load_note = f"the vision tower and its projector ({len(vision)} tensors) are left out"
        return super().sanitize(
            {
                re.sub(r"^(language_model\.model|model\.language_model)\.", "model.", name).removeprefix(
                    "language_model."
                ): value
                for name, value in weights.items()
                if name not in vision
            }
        )
