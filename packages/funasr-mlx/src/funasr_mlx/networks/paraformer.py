"""Paraformer: the encoder, integrate-and-fire, and a decoder of all tokens at once; BiCif adds timestamps.

Papers: https://arxiv.org/abs/2206.08317, https://arxiv.org/abs/2301.12343 (BiCif). Reference: FunASR 1.4.16,
`models/paraformer`, `models/bicif_paraformer`. `B` batch, `T` frames, `F` features, `D` width, `N` tokens, `V`
vocabulary.

Where FunASR's padded batches differ from its single recordings (the predictor's convolution and LSTM see the padding),
rows here are as if they were alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from mlx_core.errors import ConfigError, WeightsError
from mlx_core.models import CheckpointModule

from ..config import section, table
from ..frontend import as_features
from .cif import CifOutput, TimestampPredictor, make_predictor
from .decoder import DecoderConfig, ParaformerDecoder
from .hotwords import HotwordIds
from .sanm import SANMConfig, SANMEncoder, padding_mask

_ENCODERS = ("SANMEncoder", "SANMEncoderChunkOpt")


@dataclass(frozen=True)
class ParaformerOutput:
    """The output for a batch. Beyond a row's length or tokens nothing has a meaning."""

    encoder_out: mx.array
    """`[B, T, D]`."""
    token_num: mx.array
    """`[B]` int32."""
    acoustic_embeds: mx.array
    """`[B, N, D]`."""
    logits: mx.array
    """`[B, N, V]`; with SeACo's hotwords log probabilities."""
    cif_alphas: mx.array
    """`[B, T + 1]`: each frame's share in tokens."""
    cif_peaks: mx.array
    """`[B, T + 1]`: their sum since the last token; a token fires at 1."""
    us_alphas: mx.array | None = None
    """`[B, T U]`: the timestamp predictor's, of frames upsampled U times, where there is one."""
    us_peaks: mx.array | None = None
    """`[B, T U]`; they fire at 1 - 1e-4."""

    @property
    def alphas(self) -> mx.array:
        """The weights that timestamps are made of."""
        return self.cif_alphas if self.us_alphas is None else self.us_alphas

    @property
    def peaks(self) -> mx.array:
        """The peaks that timestamps are made of."""
        return self.cif_peaks if self.us_peaks is None else self.us_peaks


@dataclass(frozen=True)
class EncodedSpeech:
    """A batch as far as its acoustic embeddings."""

    encoder_out: mx.array
    """`[B, T, D]`."""
    speech: mx.array
    """`[B, T, D]`: encoder_out, zero in the padding."""
    lengths: npt.NDArray[np.integer]
    """`[B]`."""
    mask: mx.array | None
    """`[B, T]`, of the frames."""
    cif: CifOutput
    token_mask: mx.array | None
    """`[B, N]`."""


class Paraformer(CheckpointModule):
    """`Paraformer` of a config.yaml."""

    model_type = "paraformer"
    unused = re.compile(r"(ctc|ctc2|decoder2|criterion\w*|attn_loss|specaug|normalize)\.")
    packable = re.compile(r"coder\.(.*\.(linear_\w+|w_[12])|output_layer)$")

    def __init__(self, config: Mapping[str, Any], features: int, vocabulary: int) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        encoder = SANMConfig.from_dict(section(config, "encoder", _ENCODERS))
        self.encoder = SANMEncoder(encoder, features)
        self.predictor = make_predictor(str(config.get("predictor")), table(config, "predictor_conf"))
        if self.predictor.config.idim != encoder.output_size:
            raise ConfigError(
                f"predictor_conf: idim must be the encoder's output_size, {encoder.output_size}; found "
                f"{self.predictor.config.idim}."
            )
        self.decoder = self.make_decoder(config, encoder.output_size, vocabulary)

    def make_decoder(self, config: Mapping[str, Any], width: int, vocabulary: int) -> ParaformerDecoder:
        """The decoder that a configuration describes."""
        return ParaformerDecoder(decoder_config(config, "decoder", "ParaformerSANMDecoder"), width, vocabulary)

    @classmethod
    def build(cls, config: Mapping[str, Any], weights: Mapping[str, mx.array]) -> Self:
        """The configuration is config.yaml; that of features and vocabulary is in the weights' shapes."""
        return cls(
            config,
            first_size(weights, "encoder.encoders0.0.norm1.weight"),
            first_size(weights, "decoder.output_layer.weight"),
        )

    def sanitize(self, weights: dict[str, mx.array]) -> dict[str, mx.array]:
        """Without the embedding where only training would use it."""
        if "embed" in self.decoder:
            return weights
        return {name: value for name, value in weights.items() if not name.startswith("decoder.embed.")}

    def __call__(
        self, features: npt.ArrayLike | mx.array, lengths: npt.ArrayLike | mx.array, hotwords: HotwordIds | None = None
    ) -> ParaformerOutput:
        """Features `[B, T, F]` of which row b has `lengths[b]`. Hotwords are of no influence here.

        Raises InputError.
        """
        encoded = self.encode(features, lengths)
        return self.output(encoded, self.logits(encoded, self.decode(encoded)))

    def encode(self, features: npt.ArrayLike | mx.array, lengths: npt.ArrayLike | mx.array) -> EncodedSpeech:
        """Encode features `[B, T, F]`, of which row b has `lengths[b]`, and find its tokens. Raises InputError."""
        width = self.encoder.encoders0[0].norm1.weight.shape[0]
        features = as_features(features, width)
        mask = padding_mask(lengths, features.shape[0], features.shape[1])
        encoder_out = self.encoder(features, mask)
        speech = encoder_out if mask is None else mx.where(mask[..., None], encoder_out, 0)
        counts = np.asarray(lengths).astype(np.int64)
        cif = self.predictor(speech, mask, counts)
        B, N, _ = cif.acoustic_embeds.shape
        return EncodedSpeech(encoder_out, speech, counts, mask, cif, padding_mask(cif.token_num, B, N))

    def decode(self, encoded: EncodedSpeech) -> mx.array:
        """The decoder's hidden states `[B, N, D]`."""
        embeds = encoded.cif.acoustic_embeds
        if 0 in embeds.shape:
            return embeds
        return self.decoder(embeds, encoded.encoder_out, encoded.token_mask, encoded.mask)

    def logits(self, encoded: EncodedSpeech, hidden: mx.array) -> mx.array:
        """`[B, N, D] -> [B, N, V]`."""
        if 0 in hidden.shape:
            return mx.zeros((*hidden.shape[:2], self.vocabulary))
        return self.decoder.output_layer(hidden)

    def output(self, encoded: EncodedSpeech, logits: mx.array) -> ParaformerOutput:
        """The output for a batch, from its encoding and its logits."""
        cif = encoded.cif
        return ParaformerOutput(
            encoded.encoder_out, mx.array(cif.token_num), cif.acoustic_embeds, logits, cif.alphas, cif.peaks
        )


class BiCifParaformer(Paraformer):
    """`BiCifParaformer` of a config.yaml: a second weight of the frames, at a finer grain, for timestamps."""

    model_type = "bicif-paraformer"
    needs_timestamps: ClassVar[bool] = True

    def __init__(self, config: Mapping[str, Any], features: int, vocabulary: int) -> None:
        super().__init__(config, features, vocabulary)
        if self.needs_timestamps and not isinstance(self.predictor, TimestampPredictor):
            raise ConfigError(f"a {self.model_type} needs predictor CifPredictorV3; found {config.get('predictor')!r}.")

    def output(self, encoded: EncodedSpeech, logits: mx.array) -> ParaformerOutput:
        """The output for a batch, with timestamps where the predictor has them."""
        known = super().output(encoded, logits)
        if not isinstance(self.predictor, TimestampPredictor):
            return known
        alphas, peaks = self.predictor.timestamps(encoded.speech, encoded.mask, encoded.lengths, encoded.cif.token_num)
        return replace(known, us_alphas=alphas, us_peaks=peaks)


def decoder_config(config: Mapping[str, Any], name: str, kind: str) -> DecoderConfig:
    """The decoder `name` of a config.yaml, which must be of the kind. Raises ConfigError."""
    return DecoderConfig.from_dict(section(config, name, (kind,)))


def first_size(weights: Mapping[str, mx.array], name: str) -> int:
    """The first dimension of a tensor that must be there. Raises WeightsError."""
    if name not in weights or weights[name].ndim == 0:
        raise WeightsError(f"the checkpoint has no {name}: it isn't of this kind of model, or incomplete.")
    return int(weights[name].shape[0])
