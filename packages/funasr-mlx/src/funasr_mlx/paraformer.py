"""Paraformer: the encoder, integrate-and-fire, and a decoder of all tokens at once; BiCif adds timestamps.

Papers: https://arxiv.org/abs/2206.08317, https://arxiv.org/abs/2301.12343 (BiCif). Reference: FunASR 1.4.16,
`models/paraformer`, `models/bicif_paraformer`. `B` batch, `T` frames, `F` features, `D` width, `N` tokens, `V`
vocabulary.

Where FunASR's padded batches differ from its single recordings (the predictor's convolution and LSTM see the padding),
rows here are as if they were alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from mlx_core.errors import ConfigError, WeightsError
from mlx_core.models import CheckpointModule

from .cif import Fired, TimestampPredictor, make_predictor
from .decoder import DecoderConfig, ParaformerDecoder
from .folder import table
from .frontend import as_features
from .sanm import SANMConfig, SANMEncoder, padding_mask

Hotwords = Sequence[Sequence[int]]

_ENCODERS = ("SANMEncoder", "SANMEncoderChunkOpt")


@dataclass(frozen=True)
class ParaformerOutput:
    """What a recogniser makes of a batch. Beyond a row's length or tokens nothing has a meaning."""

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
    """`[B, T + 1]`: what they add up to since the last token; it fires at 1."""
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
class Heard:
    """A batch as far as its acoustic embeddings."""

    encoder_out: mx.array
    speech: mx.array
    """`[B, T, D]`: encoder_out, zero in the padding."""
    lengths: npt.NDArray[np.integer]
    """`[B]`."""
    mask: mx.array | None
    """`[B, T]`, of the frames."""
    fired: Fired
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
        self, features: npt.ArrayLike | mx.array, lengths: npt.ArrayLike | mx.array, hotwords: Hotwords | None = None
    ) -> ParaformerOutput:
        """Features `[B, T, F]` of which row b has `lengths[b]`. Hotwords are of no influence here.

        Raises InputError.
        """
        heard = self.hear(features, lengths)
        return self.output(heard, self.logits(heard, self.decode(heard)))

    def encode(
        self, features: npt.ArrayLike | mx.array, lengths: npt.ArrayLike | mx.array
    ) -> tuple[mx.array, mx.array | None]:
        """Features `[B, T, F]` -> the speech `[B, T, D]`, and its mask `[B, T]` where it is padded."""
        width = self.encoder.encoders0[0].norm1.weight.shape[0]
        features = as_features(features, width)
        mask = padding_mask(lengths, features.shape[0], features.shape[1])
        return self.encoder(features, mask), mask

    def hear(self, features: npt.ArrayLike | mx.array, lengths: npt.ArrayLike | mx.array) -> Heard:
        """As far as the acoustic embeddings."""
        encoder_out, mask = self.encode(features, lengths)
        speech = encoder_out if mask is None else mx.where(mask[..., None], encoder_out, 0)
        counts = np.asarray(lengths).astype(np.int64)
        fired = self.predictor(speech, mask, counts)
        B, N, _ = fired.acoustic_embeds.shape
        return Heard(encoder_out, speech, counts, mask, fired, padding_mask(fired.token_num, B, N))

    def decode(self, heard: Heard) -> mx.array:
        """The decoder's hidden states `[B, N, D]`."""
        embeds = heard.fired.acoustic_embeds
        if 0 in embeds.shape:
            return embeds
        return self.decoder(embeds, heard.encoder_out, heard.token_mask, heard.mask)

    def logits(self, heard: Heard, hidden: mx.array) -> mx.array:
        """`[B, N, D] -> [B, N, V]`."""
        if 0 in hidden.shape:
            return mx.zeros((*hidden.shape[:2], self.vocabulary))
        return self.decoder.output_layer(hidden)

    def output(self, heard: Heard, logits: mx.array) -> ParaformerOutput:
        """All that there is of a batch."""
        fired = heard.fired
        return ParaformerOutput(
            heard.encoder_out, mx.array(fired.token_num), fired.acoustic_embeds, logits, fired.alphas, fired.peaks
        )


class BiCifParaformer(Paraformer):
    """`BiCifParaformer` of a config.yaml: a second weight of the frames, at a finer grain, for timestamps."""

    model_type = "bicif-paraformer"
    needs_timestamps: ClassVar[bool] = True

    def __init__(self, config: Mapping[str, Any], features: int, vocabulary: int) -> None:
        super().__init__(config, features, vocabulary)
        if self.needs_timestamps and not isinstance(self.predictor, TimestampPredictor):
            raise ConfigError(f"a {self.model_type} needs predictor CifPredictorV3; found {config.get('predictor')!r}.")

    def output(self, heard: Heard, logits: mx.array) -> ParaformerOutput:
        """All that there is of a batch, timestamps with it where the predictor has them."""
        known = super().output(heard, logits)
        if not isinstance(self.predictor, TimestampPredictor):
            return known
        alphas, peaks = self.predictor.timestamps(heard.speech, heard.mask, heard.lengths, heard.fired.token_num)
        return replace(known, us_alphas=alphas, us_peaks=peaks)


def decoder_config(config: Mapping[str, Any], name: str, kind: str) -> DecoderConfig:
    """The decoder `name` of a config.yaml, which must be of the kind. Raises ConfigError."""
    return DecoderConfig.from_dict(section(config, name, (kind,)))


def section(config: Mapping[str, Any], name: str, kinds: Sequence[str]) -> dict[str, Any]:
    """The table `{name}_conf`, of a part that must be of one of the kinds. Raises ConfigError."""
    if config.get(name) not in kinds:
        raise ConfigError(f"the configuration's {name!r} must be {' or '.join(kinds)}; found {config.get(name)!r}.")
    return table(config, f"{name}_conf")


def setting(config: Mapping[str, Any], name: str, default: Any) -> Any:
    """What `model_conf` says, or the configuration itself, which FunASR lets overrule it."""
    return config.get(name, table(config, "model_conf").get(name, default))


def first_size(weights: Mapping[str, mx.array], name: str) -> int:
    """The first dimension of a tensor that must be there. Raises WeightsError."""
    if name not in weights or weights[name].ndim == 0:
        raise WeightsError(f"the checkpoint has no {name}: it isn't of this kind of model, or incomplete.")
    return int(weights[name].shape[0])
