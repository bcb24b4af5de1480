"""Chunked prefill: computes a prompt's tokens into a cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import mlx.core as mx

from ..cache import KeyValueCache
from ..engines import LanguageModel
from ..errors import InputError

OnProgress = Callable[[int, int], None]


def prefill(
    model: LanguageModel,
    tokens: mx.array,
    cache: Sequence[KeyValueCache],
    step_size: int,
    total: int,
    on_progress: OnProgress | None = None,
) -> None:
    """Compute tokens `[B, L]`, L >= 0, into the cache, `step_size` at a time.

    on_progress: called with (columns done, `total`) after each chunk, and with (total, total) at the end.
    """
    count = tokens.shape[1]
    for start in range(0, count, step_size):
        stop = min(start + step_size, count)
        model(tokens[:, start:stop], cache)
        for layer in reversed(cache):  # the last layer's depends on the others': its evaluation computes all
            layer.materialize()
        if stop < count:  # buffers grow with the cache: those of this chunk don't fit the next
            mx.clear_cache()
        if on_progress is not None:
            on_progress(stop, total)
    if on_progress is not None:
        on_progress(total, total)


def check_count(name: str, value: object) -> None:
    """Raise InputError unless a setting is an integer of 1 or more."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{name} is an integer, 1 or more; got {value!r}.")
