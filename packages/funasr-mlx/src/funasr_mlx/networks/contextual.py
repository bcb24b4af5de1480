"""Contextual Paraformer: the decoder's last layer attends to hotwords as well as to the speech.

Paper: https://arxiv.org/abs/2308.03266 (its CLAS baseline). Reference: FunASR 1.4.16, `models/contextual_paraformer`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy.typing as npt

from mlx_core.errors import ConfigError
from mlx_core.models import Conv1d

from ..config import setting
from .decoder import CrossAttention, DecoderConfig, DecoderLayer, ParaformerDecoder
from .hotwords import HotwordEncoder, HotwordIds, checked_hotwords
from .paraformer import Paraformer, ParaformerOutput, decoder_config
from .sanm import LAYER_NORM_EPS

# Stands for "no hotwords".
_NOTHING = [[1]]


class ContextualParaformer(Paraformer):
    """`ContextualParaformer` of a config.yaml."""

    model_type = "contextual-paraformer"
    decoder: ContextualDecoder

    def __init__(self, config: Mapping[str, Any], features: int, vocabulary: int) -> None:
        super().__init__(config, features, vocabulary)
        width = setting(config, "inner_dim", 256)
        if width != self.predictor.config.idim:
            raise ConfigError(f"inner_dim must be the encoder's {self.predictor.config.idim}; found {width!r}.")
        if setting(config, "bias_encoder_type", "lstm") != "lstm":
            raise ConfigError("bias_encoder_type must be 'lstm', as in every released model.")
        self.bias_encoder = HotwordEncoder(width, width)
        self.bias_embed = nn.Embedding(vocabulary, width)

    def make_decoder(self, config: Mapping[str, Any], width: int, vocabulary: int) -> ContextualDecoder:
        """The decoder that a configuration describes."""
        conf = decoder_config(config, "decoder", "ContextualParaformerDecoder")
        embed = bool(setting(config, "use_decoder_embedding", False))
        return ContextualDecoder(conf, width, vocabulary, embed=embed)

    def __call__(
        self,
        features: npt.ArrayLike | mx.array,
        lengths: npt.ArrayLike | mx.array,
        hotwords: HotwordIds | None = None,
        *,
        clas_scale: float = 1.0,
    ) -> ParaformerOutput:
        """Features `[B, T, F]` of which row b has `lengths[b]`; hotwords as ids.

        clas_scale: how much they count. Raises InputError.
        """
        encoded = self.encode(features, lengths)
        words = checked_hotwords(hotwords, self.vocabulary) or _NOTHING
        hidden = encoded.cif.acoustic_embeds
        if hidden.size:
            embed = self.decoder.embed[0] if "embed" in self.decoder else self.bias_embed
            context = self.bias_encoder.last(embed, words)
            context = mx.broadcast_to(context, (hidden.shape[0], *context.shape))
            hidden = self.decoder.decode_with_context(
                hidden, encoded.encoder_out, context, clas_scale, encoded.token_mask, encoded.mask
            )
        return self.output(encoded, self.logits(encoded, hidden))


class BiasDecoder(nn.Module):
    """Attention to the hotwords."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.src_attn = CrossAttention(width, heads)
        self.norm3 = nn.LayerNorm(width, LAYER_NORM_EPS)

    def __call__(self, x: mx.array, context: mx.array) -> mx.array:
        return self.src_attn(self.norm3(x), context)


class ContextualDecoder(ParaformerDecoder):
    """A decoder whose last layer that attends is `last_decoder`, beside which `bias_decoder` attends to hotwords."""

    def __init__(self, config: DecoderConfig, width: int, vocabulary: int, *, embed: bool = False) -> None:
        super().__init__(config, width, vocabulary, embed=embed)
        self.bias_decoder = BiasDecoder(width, config.attention_heads)
        self.bias_output = Conv1d(2 * width, width, 1, bias=False)
        self.last_decoder = DecoderLayer(width, config)

    @staticmethod
    def attending(config: DecoderConfig) -> int:
        """One fewer, for the last one."""
        return config.att_layer_num - 1

    def decode_with_context(
        self,
        x: mx.array,
        memory: mx.array,
        context: mx.array,
        scale: float,
        mask: mx.array | None = None,
        memory_mask: mx.array | None = None,
    ) -> mx.array:
        """As `__call__`, with the hotwords `[B, M, D]` and how much they count."""
        for layer in self.decoders:
            x = layer(x, mask, memory, memory_mask)
        last = self.last_decoder
        x = last(x, mask)  # its memory
        speech = last.src_attn(last.norm3(x), memory, memory_mask)
        words = self.bias_decoder(x, context)
        return self.finish(x + self.bias_output(mx.concatenate([speech, words * scale], axis=-1)), mask)
