"""Hotwords as input of networks: checked ids, and the last state of an LSTM that reads them."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlx_core.errors import InputError

from .lstm import LSTM

HotwordIds = Sequence[Sequence[int]]
"""The token ids of each hotword."""


class HotwordEncoder(LSTM):
    """The LSTM `bias_encoder`."""

    def last(self, embed: nn.Embedding, words: HotwordIds) -> mx.array:
        """The output at the last token of each word, `[M, H]`."""
        lengths = np.array([len(word) for word in words])
        ids = np.zeros((len(words), int(lengths.max())), np.int32)
        for row, word in zip(ids, words, strict=True):
            row[: len(word)] = word
        states = self(embed(mx.array(ids)), lengths)
        return states[mx.arange(len(words)), mx.array(lengths - 1)]


def checked_hotwords(words: HotwordIds | None, vocabulary: int) -> list[list[int]]:
    """The hotwords, none for None. Raises InputError for an empty one, or anything but ids."""
    result = []
    for word in words or ():
        ids = np.asarray(word)
        if ids.ndim != 1 or ids.size == 0 or ids.dtype.kind not in "iu" or ids.min() < 0 or ids.max() >= vocabulary:
            raise InputError(
                f"a hotword must be a sequence of at least one id below {vocabulary}; found {word!r:.100}. Turn text "
                "into ids first."
            )
        result.append([int(token) for token in ids])
    return result
