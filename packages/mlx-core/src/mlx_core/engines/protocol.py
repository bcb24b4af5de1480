"""The protocols of language models and of the engines that execute them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import mlx.core as mx

from ..cache import KeyValueCache


@runtime_checkable
class LanguageModel(Protocol):
    """A model as generation sees it; the blocks' `CausalLM` is one, and so is what an engine makes of it."""

    @property
    def vocab_size(self) -> int | None:
        """The number of tokens that the model knows; None where only its logits tell."""
        ...

    @property
    def context_length(self) -> int | None:
        """The most tokens that the positions are made for, None for any number."""
        ...

    @property
    def requires_full_prefill(self) -> bool:
        """Whether a prompt has to be computed in one pass, because its RoPE depends on how long it is."""
        ...

    def __call__(self, tokens: mx.array, cache: Sequence[KeyValueCache] | None = None) -> mx.array:
        """Tokens `[B, L]` -> logits `[B, L, V]`, appending to the cache."""
        ...

    def make_cache(self) -> list[KeyValueCache]:
        """One empty cache per layer."""
        ...
