"""CT-Transformer: a SAN-M encoder of words, and after each word the logits of the marks that may follow it.

Paper: https://arxiv.org/abs/2003.01309. Reference: FunASR 1.4.16, `models/ct_transformer` and
`models/ct_transformer_streaming`. `B` batch, `L` words, `P` marks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import numpy.typing as npt

from mlx_core.config import BaseConfig
from mlx_core.errors import ConfigError, InputError, WeightsError
from mlx_core.models import CheckpointModule, check_sizes
from mlx_core.ops import merge_heads, scaled_dot_product_attention, split_heads

from ..config import table
from .sanm import SANMConfig, SANMEncoder, SANMLayer


@dataclass(frozen=True, kw_only=True)
class CTTransformerConfig(BaseConfig):
    """The `model_conf` of a config.yaml."""

    punc_list: list[str]
    embed_unit: int = 128
    att_unit: int = 256
    sentence_end_id: int = 3

    def __post_init__(self) -> None:
        check_sizes(self, ("embed_unit", "att_unit"))
        if not self.punc_list or not all(isinstance(mark, str) and mark for mark in self.punc_list):
            raise ConfigError(f"model_conf: punc_list must be a list of marks; found {self.punc_list!r:.100}.")
        if not 0 <= self.sentence_end_id < len(self.punc_list):
            raise ConfigError(
                f"model_conf: sentence_end_id must be of one of {len(self.punc_list)} marks; found "
                f"{self.sentence_end_id}."
            )


class CTTransformer(CheckpointModule):
    """`CTTransformer` of a config.yaml."""

    model_type = "ct-transformer"
    packable = re.compile(r"^encoder\.")
    kind: ClassVar[str] = "CTTransformer"
    encoder_kind: ClassVar[str] = "SANMEncoder"

    def __init__(self, config: CTTransformerConfig, encoder: SANMConfig, vocabulary: int) -> None:
        super().__init__()
        self.config = config
        self.encoder_config = encoder
        self.embed = nn.Embedding(vocabulary, config.embed_unit)
        self.encoder = SANMEncoder(encoder, config.embed_unit)
        self.decoder = nn.Linear(config.att_unit, len(config.punc_list))

    @classmethod
    def build(cls, config: Mapping[str, Any], weights: Mapping[str, mx.array]) -> Self:
        """The configuration is config.yaml; the size of the vocabulary is in the weights' shapes."""
        found = config.get("model", cls.kind), config.get("encoder", cls.encoder_kind)
        if found != (cls.kind, cls.encoder_kind):
            raise ConfigError(
                f"a {found[0]!r} with a {found[1]!r} isn't known here; expected {cls.kind!r} with {cls.encoder_kind!r}."
            )
        sizes = CTTransformerConfig.from_dict(table(config, "model_conf"))
        encoder = SANMConfig.from_dict(table(config, "encoder_conf"))
        if encoder.output_size != sizes.att_unit:
            raise ConfigError(f"att_unit must be output_size, {encoder.output_size}; found {sizes.att_unit}.")
        embed = weights.get("embed.weight")
        if embed is None:
            raise WeightsError("the checkpoint has no embed.weight. It's of another model, or incomplete.")
        return cls(sizes, encoder, embed.shape[0])

    @property
    def vocabulary(self) -> int:
        """The number of words that have an embedding."""
        return int(self.embed.weight.shape[0])

    def __call__(self, ids: npt.ArrayLike | mx.array, seen: int = 0) -> mx.array:
        """Words' ids `[L]` or `[B, L]` -> logits `[L, P]` or `[B, L, P]` of the marks after each.

        seen: how many came with earlier pieces of the text; of influence in a streaming model alone. InputError for
        other shapes.
        """
        words = mx.array(ids) if isinstance(ids, mx.array) else mx.array(np.asarray(ids, np.int32))
        if words.ndim not in (1, 2):
            raise InputError(f"ids must be [L] or [B, L]; found {list(words.shape)}.")
        if words.ndim == 1:
            return self(words[None], seen)[0]
        if not words.size:
            return mx.zeros((*words.shape, len(self.config.punc_list)))
        return self.decoder(self.encode(self.embed(words), seen))

    def encode(self, x: mx.array, seen: int) -> mx.array:
        """Embeddings `[B, L, embed_unit]` -> hidden states `[B, L, att_unit]`."""
        return self.encoder(x)


class StreamingCTTransformer(CTTransformer):
    """`CTTransformerStreaming` of a config.yaml: for a text that is still being spoken."""

    model_type = "ct-transformer-streaming"
    kind = "CTTransformerStreaming"
    encoder_kind = "SANMVadEncoder"

    def encode(self, x: mx.array, seen: int) -> mx.array:
        """As in `CTTransformer`, where a word attends to those up to it.

        In the last layer it attends to all, but those of earlier pieces except the last attend to none of this one's.
        """
        count, encoder = x.shape[1], self.encoder
        words = np.arange(count)
        earlier = words[None] <= words[:, None]
        hidden = (words[:, None] < seen - 1) & (words[None] >= seen) & (0 < seen < count)
        x = encoder.embed(x)
        for layer in encoder.layers:
            last = len(encoder.layers) > 1 and layer is encoder.layers[-1]
            x = _masked_layer(layer, x, self.encoder_config.attention_heads, mx.array(~hidden if last else earlier))
        return encoder.after_norm(x)


def _masked_layer(layer: SANMLayer, x: mx.array, heads: int, mask: mx.array) -> mx.array:
    """A layer of the encoder whose attention sees the keys of the mask `[L, L]`; its memory looks both ways."""
    attention = layer.self_attn
    q, k, v = attention.project(layer.norm1(x))
    queries, keys, values = (split_heads(y, heads) for y in (q, k, v))
    found = scaled_dot_product_attention(queries, keys, values, scale=queries.shape[-1] ** -0.5, mask=mask)
    return layer.finish(x, attention.linear_out(merge_heads(found)) + attention.fsmn_block(v))
