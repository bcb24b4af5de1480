"""The protocols of language models and of the engines that execute them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import mlx.core as mx
import mlx.nn as nn

from ..cache import KeyValueCache

if TYPE_CHECKING:
    from .plan import DecoderPlan


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


@runtime_checkable
class Engine(Protocol):
    """An executor of plans. It never changes results beyond the dtype that was asked for."""

    @property
    def name(self) -> str:
        """The name by which users ask for it: "mlx", "cpu", "cuda"."""
        ...

    @property
    def automatic(self) -> bool:
        """Whether it is chosen unasked on this machine: only where it was measured to win on machines of its kind."""
        ...

    def refuses(self, plan: DecoderPlan, weights: Mapping[str, mx.array]) -> str | None:
        """The reason why this engine can't run a model, None if it can.

        weights: the model's, by the names that the plan has for them; lazy perhaps, so shapes and dtypes are what counts.
        """
        ...

    def decoder(self, model: LanguageModel, plan: DecoderPlan) -> LanguageModel:
        """The model as this engine runs it. Its caches are core caches.

        It stands for the model: what it doesn't define itself (`config`, `layers`, `plan` ...) is the model's, and
        `load_report` can be set on it.
        """
        ...

    def linear(self, layer: nn.Module) -> nn.Module:
        """A linear layer of a network that is no decoder, as this engine multiplies by it; itself where it has no better."""
        ...
