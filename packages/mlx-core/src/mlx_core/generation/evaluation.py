"""Perplexity of a model on a text."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mlx.core as mx

from .. import backend
from ..cache import KeyValueCache
from ..engines import LanguageModel
from ..errors import InputError
from .request import encode_prompt

_BLOCK = 256  # terms of a sum


@dataclass(frozen=True)
class Perplexity:
    """`nll`: mean negative log-likelihood in nats over `tokens` predicted tokens."""

    nll: float
    tokens: int

    @property
    def perplexity(self) -> float:
        return math.exp(self.nll)


@backend.repaired_scheduler()
def perplexity(
    model: LanguageModel,
    tokens: Sequence[int],
    *,
    window: int | None = None,
    make_cache: Callable[[], Sequence[KeyValueCache]] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Perplexity:
    """Perplexity of a text: each token is predicted from those before it in its window.

    Windows have `window` tokens (None: 1024, or the model's context if that is shorter). Each begins with the last token
    of the one before, so that every token of the text except the first is predicted once. make_cache: the caches of a
    window, such as quantised ones; None for no cache. on_progress: called with (tokens done, tokens in all) after each
    window. Raises InputError for fewer than two tokens, for token ids outside the vocabulary and for a bad window.
    """
    if len(tokens) < 2:
        raise InputError(f"perplexity needs at least two tokens: one to predict the other from; got {len(tokens)}.")
    tokens = encode_prompt(None, tokens, vocab_size=model.vocab_size)
    context = model.context_length
    if window is None:
        window = min(1024, context or 1024)
    if window < 1 or (context is not None and window > context):
        raise InputError(f"window is a number of tokens, from 1 to the model's context of {context}; got {window}.")
    total = 0.0
    count = len(tokens) - 1
    for start in range(0, count, window):
        stop = min(start + window, count)
        cache = None if make_cache is None else make_cache()
        logits = model(mx.array(list(tokens[start:stop]))[None], cache)[0].astype(mx.float32)  # [n, V]
        targets = mx.array(list(tokens[start + 1 : stop + 1]))
        chosen = mx.take_along_axis(logits, targets[:, None], axis=-1)[:, 0]
        total += float(mx.sum(_log_normalizer(logits) - chosen).item())  # type: ignore[arg-type]
        if on_progress is not None:
            on_progress(stop, count)
    return Perplexity(total / count, count)


def _log_normalizer(logits: mx.array) -> mx.array:
    """Logsumexp over the last axis of fp32 `[n, V]`, summed in blocks.

    MLX's CPU backend adds one after the other: over a vocabulary that costs 1e-4 nats, always with the same sign.
    """
    largest = mx.max(logits, axis=-1, keepdims=True)
    terms = mx.exp(logits - largest)
    terms = mx.pad(terms, [(0, 0), (0, -terms.shape[-1] % _BLOCK)])
    blocks = mx.sum(terms.reshape(terms.shape[0], -1, _BLOCK), axis=-1)
    return mx.log(mx.sum(blocks, axis=-1)) + largest[:, 0]
