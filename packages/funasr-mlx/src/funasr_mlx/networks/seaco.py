"""SeACo-Paraformer: a second decoder finds hotwords, and overrules the first where it finds one.

Both decoders' view of a token, its acoustic embedding and its hidden state, attends to the hotwords; where the outcome
isn't "no hotword", it counts. Of many hotwords only those with the largest attention weights are kept.

Paper: https://arxiv.org/abs/2308.03266. Reference: FunASR 1.4.16, `models/seaco_paraformer/model.py`. There a batch's
hotwords are chosen by its first recording, padding included; here by each on its own. `M` hotwords.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import numpy.typing as npt

from mlx_core.errors import ConfigError

from ..config import setting
from .decoder import ParaformerDecoder
from .hotwords import HotwordEncoder, HotwordIds, checked_hotwords
from .paraformer import BiCifParaformer, EncodedSpeech, ParaformerOutput, decoder_config

_KEPT = 50
_FILTERING_LAYER = 5


class SeacoParaformer(BiCifParaformer):
    """`SeacoParaformer` of a config.yaml."""

    model_type = "seaco-paraformer"
    needs_timestamps = False

    def __init__(self, config: Mapping[str, Any], features: int, vocabulary: int) -> None:
        super().__init__(config, features, vocabulary)
        width = setting(config, "inner_dim", 256)
        if width != self.predictor.config.idim:
            raise ConfigError(f"inner_dim must be the encoder's {self.predictor.config.idim}; found {width!r}.")
        if setting(config, "bias_encoder_type", "lstm") != "lstm":
            raise ConfigError("bias_encoder_type must be 'lstm', as in every released model.")
        self.no_bias = setting(config, "NO_BIAS", 8377)
        self.sos = setting(config, "sos", 1)
        for name, value in (("NO_BIAS", self.no_bias), ("sos", self.sos)):
            if not isinstance(value, int) or not 0 <= value < vocabulary:
                raise ConfigError(f"{name} must be an id below {vocabulary}; found {value!r}.")
        both = bool(setting(config, "bias_encoder_bid", False))
        self.bias_encoder = HotwordEncoder(width, width, layers=2, bidirectional=both)
        if both:
            self.lstm_proj = nn.Linear(2 * width, width)
        conf = decoder_config(config, "seaco_decoder", "ParaformerSANMDecoder")
        self.seaco_decoder = ParaformerDecoder(conf, width, vocabulary)
        self.hotword_output_layer = nn.Linear(width, vocabulary)

    def make_decoder(self, config: Mapping[str, Any], width: int, vocabulary: int) -> ParaformerDecoder:
        """With the embedding, that of hotwords too."""
        conf = decoder_config(config, "decoder", "ParaformerSANMDecoder")
        return ParaformerDecoder(conf, width, vocabulary, embed=True)

    def __call__(
        self,
        features: npt.ArrayLike | mx.array,
        lengths: npt.ArrayLike | mx.array,
        hotwords: HotwordIds | None = None,
        *,
        nfilter: int = _KEPT,
    ) -> ParaformerOutput:
        """Features `[B, T, F]` of which row b has `lengths[b]`; hotwords as ids. Logits are log probabilities.

        nfilter: of more hotwords than these, those with the largest attention weights are kept; 0 keeps all. Raises
        InputError.
        """
        encoded = self.encode(features, lengths)
        hidden = self.decode(encoded)
        logits = self.logits(encoded, hidden)
        words = checked_hotwords(hotwords, self.vocabulary)
        if words and logits.size:
            logits = self._decode_with_context(encoded, hidden, logits, self.encode_hotwords(words), nfilter)
        return self.output(encoded, logits)

    def encode_hotwords(self, hotwords: HotwordIds) -> mx.array:
        """Ids -> embeddings `[M, D]`, the one of "no hotword", `sos`, at the end."""
        words = [list(word) for word in hotwords]
        if words[-1:] != [[self.sos]]:
            words.append([self.sos])
        last = self.bias_encoder.last(self.decoder.embed[0], words)
        return self.lstm_proj(last) if "lstm_proj" in self else last

    def _decode_with_context(
        self, encoded: EncodedSpeech, hidden: mx.array, logits: mx.array, words: mx.array, nfilter: int
    ) -> mx.array:
        B, mask = hidden.shape[0], encoded.token_mask
        context = mx.broadcast_to(words, (B, *words.shape))
        if 0 < nfilter < words.shape[0]:
            context = self._choose(hidden, mask, context, nfilter)
        embeds = encoded.cif.acoustic_embeds
        attended = self.seaco_decoder(embeds, context, mask) + self.seaco_decoder(hidden, context, mask)
        biased = self.hotword_output_layer(attended)
        none = mx.argmax(biased, axis=-1, keepdims=True) == self.no_bias
        return mx.where(none, _log_softmax(logits), _log_softmax(biased))

    def _choose(self, hidden: mx.array, mask: mx.array | None, context: mx.array, nfilter: int) -> mx.array:
        """Of `[B, M, D]` the `nfilter` that each row attends to most, and the last: `[B, nfilter + 1, D]`."""
        layers = self.seaco_decoder.decoders
        chooser = min(_FILTERING_LAYER, len(layers) - 1)
        x = hidden
        for layer in layers[:chooser]:
            x = layer(x, mask, context)
        weights = layers[chooser].weights(x, mask, context)  # [B, H, N, M]
        if mask is not None:
            weights = weights * mask[:, None, :, None]
        scores = np.array(weights.sum(axis=(1, 2)).astype(mx.float32))
        last = np.full((len(scores), 1), scores.shape[1] - 1)
        # the last may be among those chosen too, and counts twice then
        chosen = np.concatenate([np.argsort(-scores, axis=1, kind="stable")[:, :nfilter], last], axis=1)
        return mx.take_along_axis(context, mx.array(chosen)[..., None], axis=1)


def _log_softmax(x: mx.array) -> mx.array:
    return x - mx.logsumexp(x, axis=-1, keepdims=True)
