"""SenseVoiceSmall: one encoder with CTC gives language, emotion, event and text.

Four embeddings stand before the features: language, emotion, event, and whether numbers are written as digits (inverse
text normalisation). The outputs in their places are tags, the rest is text.

Reference: FunASR 1.4.16, `models/sense_voice/model.py`. `B` batch, `T` frames, `F` features, `D` width, `V` vocabulary.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import numpy.typing as npt

from mlx_core.errors import InputError
from mlx_core.models import CheckpointModule

from ..config import section, setting
from ..frontend import as_features
from .ctc import align, collapse
from .paraformer import first_size
from .sanm import SANMConfig, SANMEncoder, padding_mask

LANGUAGES = {"auto": 0, "zh": 3, "en": 4, "yue": 7, "ja": 11, "ko": 12, "nospeech": 13}
"""Names of languages, and which embedding each is."""

PREFIX = 4
"""The number of embeddings before the features."""

_EMOTION, _EVENT, _WITH_ITN, _WITHOUT_ITN = 1, 2, 14, 15
_QUERIES = 16
_EPS = 1e-5


@dataclass(frozen=True)
class SenseVoiceOutput:
    """The output for a batch."""

    encoder_out: mx.array
    """`[B, T + 4, D]`."""
    logits: mx.array
    """`[B, T + 4, V]`, of CTC."""
    lengths: npt.NDArray[np.integer]
    """`[B]`, the prefix included."""
    blank: int = 0

    def ids(self) -> list[list[int]]:
        """Each row's tokens: the likeliest, repeats and blanks removed; tags are among them."""
        if self.logits.shape[0] == 0:
            return []
        best = np.array(mx.argmax(self.logits, axis=-1))
        return [collapse(row[:length], self.blank) for row, length in zip(best, self.lengths, strict=True)]

    def align(self, row: int, ids: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """The token of each frame after the prefix, `[T_row]`: the id, or blank.

        ids: the text's, without the tags. As the reference does, frames that are likeliest blank are free to be.
        Raises InputError for more tokens than fit.
        """
        logits = self.logits[row, PREFIX : int(self.lengths[row])].astype(mx.float32)
        if logits.size == 0:
            return align(np.zeros(logits.shape), ids, self.blank)
        scores = np.array(logits - mx.logsumexp(logits, axis=-1, keepdims=True))
        scores[scores.argmax(axis=-1) == self.blank, self.blank] = 0
        return align(scores, ids, self.blank)


class SenseVoiceSmall(CheckpointModule):
    """`SenseVoiceSmall` of a config.yaml."""

    model_type = "sensevoice-small"
    unused = re.compile(r"(criterion\w*|specaug|normalize)\.")
    packable = re.compile(r"encoder\..*\.(linear_\w+|w_[12])$|ctc_lo$")

    def __init__(self, config: Mapping[str, Any], features: int, vocabulary: int) -> None:
        super().__init__()
        self.blank = int(setting(config, "blank_id", 0))
        encoder = SANMConfig.from_dict(section(config, "encoder", ("SenseVoiceEncoderSmall",)))
        self.encoder = SANMEncoder(encoder, features, eps=_EPS, tp=True)
        self.embed = nn.Embedding(_QUERIES, features)
        self.ctc = CTC(encoder.output_size, vocabulary)

    @classmethod
    def build(cls, config: Mapping[str, Any], weights: Mapping[str, mx.array]) -> Self:
        """The configuration is config.yaml; that of features and vocabulary is in the weights' shapes."""
        return cls(
            config,
            first_size(weights, "encoder.encoders0.0.norm1.weight"),
            first_size(weights, "ctc.ctc_lo.weight"),
        )

    def __call__(
        self,
        features: npt.ArrayLike | mx.array,
        lengths: npt.ArrayLike | mx.array,
        language: str | int = "auto",
        itn: bool = False,
    ) -> SenseVoiceOutput:
        """Features `[B, T, F]` of which row b has `lengths[b]`.

        language: one of LANGUAGES, or the number of its embedding. itn: numbers as digits, with punctuation.
        Raises InputError.
        """
        width = self.embed.weight.shape[-1]
        features = as_features(features, width)
        B, T, _ = features.shape
        padding_mask(lengths, B, T)  # raises for lengths that don't fit
        counts = np.asarray(lengths).astype(np.int64) + PREFIX
        mask = padding_mask(counts, B, T + PREFIX)
        which = LANGUAGES.get(language, -1) if isinstance(language, str) else language
        if not 0 <= which < _QUERIES:
            raise InputError(f"language must be one of {', '.join(LANGUAGES)}; found {language!r}.")
        queries = self.embed(mx.array([which, _EMOTION, _EVENT, _WITH_ITN if itn else _WITHOUT_ITN]))
        queries = mx.broadcast_to(queries.astype(mx.float32), (B, PREFIX, width))
        x = mx.concatenate([queries, features.astype(mx.float32)], axis=1)
        encoder_out = self.encoder(x, mask)
        return SenseVoiceOutput(encoder_out, self.ctc.ctc_lo(encoder_out), counts, self.blank)


class CTC(nn.Module):
    """The projection to the vocabulary, under the checkpoint's name."""

    def __init__(self, width: int, vocabulary: int) -> None:
        super().__init__()
        self.ctc_lo = nn.Linear(width, vocabulary)
