"""Speculative decoding: a draft proposes several tokens, the model verifies them in one pass.

At every position the model draws its own token, from its own distribution and with the random key that plain generation
would use there; the proposals count up to the first one that differs. So the answer never depends on the draft, no
correction of the distribution is needed, and all sampling parameters work as they do without a draft. A draft model draws
with the same keys, and thus the same Gumbel noise: similar distributions give the same tokens (Daliri et al. 2025,
https://arxiv.org/abs/2408.07978; speculative decoding: Leviathan et al. 2023, https://arxiv.org/abs/2211.17192).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import mlx.core as mx

from ..cache import KeyValueCache
from ..engines import LanguageModel
from ..errors import CacheError, InputError
from .prefill import check_count, prefill
from .request import GenerationState
from .sampler import LazyLogprobs, RequestSampler

_PREFILL_STEP = 2048


class Proposer(Protocol):
    """The draft of one answer."""

    def propose(self, history: Sequence[int], limit: int, sampler: RequestSampler) -> mx.array:
        """Propose the tokens after `history`, which is the prompt and the answer so far: ids `[n]` int32, 0 <= n <= `limit`.

        limit: 1 or more. sampler: a copy of the model's sampler in its state at the first of them, to be used freely.
        """
        ...


class Draft(Protocol):
    """Makes a proposer for each answer. A language model is accepted in its place: see `DraftModel`."""

    def start(self, vocab_size: int) -> Proposer:
        """A proposer for a target with a vocabulary of this size."""
        ...


@dataclass(frozen=True)
class PromptLookup:
    """Proposes the tokens that followed the latest n-gram at its last occurrence, in the prompt or in the answer.

    ngram: its length; if it hasn't occurred, shorter ones down to 2 are tried. num_tokens: the most tokens to propose.
    It costs almost nothing, and is right where text repeats: edited code, summaries, quotes.
    """

    ngram: int = 3
    num_tokens: int = 8

    def __post_init__(self) -> None:
        check_count("ngram", self.ngram)
        check_count("num_tokens", self.num_tokens)

    def start(self, vocab_size: int) -> Proposer:
        return _Lookup(self.ngram, self.num_tokens)


class _Lookup:
    def __init__(self, ngram: int, num_tokens: int) -> None:
        self._lengths = range(ngram, min(ngram, 2) - 1, -1)
        self._num_tokens = num_tokens
        self._after: dict[tuple[int, ...], int] = {}  # n-gram -> where its latest occurrence ends
        self._seen = 0

    def propose(self, history: Sequence[int], limit: int, sampler: RequestSampler) -> mx.array:
        # the latest n-gram is indexed only when a token follows it, else it would find itself
        for end in range(self._seen, len(history)):
            for n in self._lengths:
                if end >= n:
                    self._after[tuple(history[end - n : end])] = end
        self._seen = len(history)
        for n in self._lengths:
            at = self._after.get(tuple(history[len(history) - n :])) if len(history) >= n else None
            if at is not None:
                return mx.array(list(history[at : at + min(limit, self._num_tokens)]), dtype=mx.int32)
        return mx.zeros((0,), dtype=mx.int32)


@dataclass(frozen=True)
class DraftModel:
    """A smaller model with the target's vocabulary proposes `num_tokens` at a time."""

    model: LanguageModel
    num_tokens: int = 4

    def __post_init__(self) -> None:
        check_count("num_tokens", self.num_tokens)

    def start(self, vocab_size: int) -> Proposer:
        return _ModelProposer(self.model, self.num_tokens, vocab_size)


class _ModelProposer:
    def __init__(self, model: LanguageModel, num_tokens: int, vocab_size: int) -> None:
        self._model = model
        self._num_tokens = num_tokens
        self._vocab_size = vocab_size
        self._last_id = (model.vocab_size or vocab_size) - 1
        self._cache = self._make_cache()
        self._cached: list[int] = []  # the tokens in the cache that are certain
        self._guessed: list[mx.array] = []  # those after them

    def _make_cache(self) -> list[KeyValueCache]:
        """The model's caches, but unbounded: one that drops tokens couldn't trim wrong proposals. Masks keep the window."""
        return [layer.unbounded() for layer in self._model.make_cache()]

    def propose(self, history: Sequence[int], limit: int, sampler: RequestSampler) -> mx.array:
        self._rewind(history)
        # tokens beyond the draft's vocabulary are replaced by its last one
        rest = mx.minimum(mx.array(list(history[len(self._cached) :]), dtype=mx.int32), self._last_id)
        prefill(self._model, rest[None, :-1], self._cache, _PREFILL_STEP, rest.size)
        self._cached = list(history)
        token = rest[-1:]
        drawn: list[mx.array] = []
        for _ in range(min(limit, self._num_tokens)):
            logits = self._model(token[None], self._cache)[:, -1]
            token, _ = sampler(_fit(logits, self._vocab_size))
            drawn.append(token)
        self._guessed = drawn[:-1]
        tokens = mx.concatenate(drawn)
        mx.async_eval(tokens)
        return tokens

    def _rewind(self, history: Sequence[int]) -> None:
        """Trim the cache to the prefix that it shares with `history`, whose last token hasn't been fed."""
        held = [*self._cached, *(cast(int, token.item()) for token in self._guessed)]
        limit = min(len(held), len(history) - 1)
        shared = next((i for i in range(len(self._cached), limit) if held[i] != history[i]), limit)
        if all(layer.can_trim(len(held) - shared) for layer in self._cache):
            for layer in self._cache:
                layer.trim(len(held) - shared)
            self._cached = held[:shared]
        else:
            self._cache, self._cached = self._make_cache(), []
        self._guessed = []


def _fit(logits: mx.array, vocab_size: int) -> mx.array:
    """Logits `[1, V]` for the target's vocabulary size: the models of a family pad their vocabularies differently."""
    surplus = logits.shape[-1] - vocab_size
    if surplus > 0:
        return logits[:, :vocab_size]
    return mx.pad(logits, [(0, 0), (0, -surplus)], constant_values=-mx.inf) if surplus else logits


class Speculation:
    """Decodes an answer with `model`, which verifies the proposals of `draft`."""

    def __init__(
        self,
        model: LanguageModel,
        cache: Sequence[KeyValueCache],
        draft: Draft | LanguageModel,
        state: GenerationState,
    ) -> None:
        if model.requires_full_prefill:
            raise InputError(
                "this model's RoPE depends on the length of the sequence: verifying several tokens at once would compute "
                "other logits than one by one. Generate without a draft."
            )
        if not hasattr(draft, "start"):
            if not callable(draft) or not hasattr(draft, "make_cache"):
                raise InputError(
                    f"draft is a language model, a DraftModel or a PromptLookup; got {type(draft).__name__}."
                )
            draft = DraftModel(draft)
        self._model, self._cache, self._state = model, cache, state
        self._draft = cast(Draft, draft)

    def decode(self, tokens: list[int]) -> Iterator[tuple[int, LazyLogprobs | None]]:
        """The tokens of the answer. `tokens`: the end of the prompt, which isn't in the cache yet."""
        state = self._state
        history = list(state.prompt)
        none = mx.zeros((0,), dtype=mx.int32)
        vocab_size = self._model.vocab_size or 0  # else the first logits tell
        proposer = self._draft.start(vocab_size) if vocab_size else None
        while len(state.tokens) < state.limit:
            # each round adds a token of the model's own to those that were accepted
            room = state.limit - len(state.tokens) - 1
            drafted = proposer.propose(history, room, state.sampler.fork()) if proposer and room else none
            n = drafted.size
            if n:  # MLX doesn't check ids against the embedding's size
                drafted = mx.clip(drafted, 0, vocab_size - 1)
            logits = self._model(mx.concatenate([mx.array(tokens, dtype=mx.int32), drafted])[None], self._cache)
            if proposer is None:
                vocab_size = logits.shape[-1]
                proposer = self._draft.start(vocab_size)
            drawn, samplers = [], []
            for i in range(n + 1):
                drawn.append(state.sampler(logits[:, i - n - 1]))
                samplers.append(state.sampler.fork())
            lazy = [array for _, logprobs in drawn if logprobs is not None for array in logprobs.arrays]
            found = mx.concatenate([token for token, _ in drawn])
            mx.eval(found, drafted, *lazy)
            own, guesses = cast(list[int], found.tolist()), cast(list[int], drafted.tolist())
            right = next((i for i in range(n) if own[i] != guesses[i]), n)
            state.sampler = samplers[right]
            if any(layer.trim(n - right) != n - right for layer in self._cache):
                raise CacheError("this cache can't be trimmed, which a draft needs. Generate without a draft.")
            state.drafted += n
            state.accepted += right
            history += own[: right + 1]
            tokens = own[right : right + 1]
            for token, (_, logprobs) in zip(own, drawn[: right + 1], strict=False):
                yield token, logprobs
