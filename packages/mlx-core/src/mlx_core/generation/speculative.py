"""Speculative decoding: a draft proposes several tokens, the model verifies them in one pass.

The model draws its own token at every position, from its own distribution and with the random key that plain
generation would use there, and goes on as long as the draft had guessed it. So whatever the draft says, the answer is
the one without it; nothing needs to be corrected afterwards, and every sampling parameter means what it means
elsewhere. A draft model draws with the same keys, that is from the same Gumbel noise: if the two distributions are
alike, so are the tokens (Daliri et al. 2025, https://arxiv.org/abs/2408.07978; the idea of drafts is that of
Leviathan et al. 2023, https://arxiv.org/abs/2211.17192).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, cast, runtime_checkable

import mlx.core as mx

from ..cache import KeyValueCache
from ..engines import LanguageModel
from ..errors import CacheError, InputError
from .prefill import check_count, prefill
from .request import GenerationState
from .sampler import LazyLogprobs, RequestSampler

_PREFILL_STEP = 2048


class Proposer(Protocol):
    """A draft at work on one answer."""

    def propose(self, history: Sequence[int], limit: int, sampler: RequestSampler) -> mx.array:
        """Guess what follows `history`, which holds the prompt and the answer so far: token ids `[n]` int32, n from 0
        to `limit`, which is 1 or more. `sampler`: as the model's own will be at the first of them; it may be used up.
        """
        ...


@runtime_checkable
class Draft(Protocol):
    """Makes a proposer for each answer. Any language model will do as well: see `DraftModel`."""

    def start(self, vocab_size: int) -> Proposer:
        """For a target whose vocabulary has so many tokens."""
        ...


@dataclass(frozen=True)
class PromptLookup:
    """Proposes what followed the latest tokens when they came up before, in the prompt or in the answer.

    ngram: how many of the latest tokens must have come up; where so many haven't, as few as 2 will do. num_tokens: how
    many to propose at most. Costs next to nothing, and is right where text repeats: edited code, summaries, quotes.
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
        # the latest tokens are indexed once something follows them: they would find themselves
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
        """The model's, but for those that drop tokens, and so couldn't take back guesses: masks keep to windows,
        too.
        """
        return [layer.unbounded() for layer in self._model.make_cache()]

    def propose(self, history: Sequence[int], limit: int, sampler: RequestSampler) -> mx.array:
        self._rewind(history)
        # what only the target's vocabulary has, the draft reads as its own last token
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
        """Cut the cache to what it shares with `history`, whose last token is yet to be fed."""
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
    """Logits `[1, V]` over the target's vocabulary; the members of a family pad theirs differently."""
    surplus = logits.shape[-1] - vocab_size
    if surplus > 0:
        return logits[:, :vocab_size]
    return mx.pad(logits, [(0, 0), (0, -surplus)], constant_values=-mx.inf) if surplus else logits


class Speculation:
    """The tokens of an answer, drawn by `model` and guessed ahead by `draft`."""

    def __init__(
        self,
        model: LanguageModel,
        cache: Sequence[KeyValueCache],
        draft: Draft | LanguageModel,
        answer: GenerationState,
    ) -> None:
        if model.requires_full_prefill:
            raise InputError(
                "this model's RoPE depends on the length of the sequence: verifying several tokens at once would compute "
                "other logits than one by one. Generate without a draft."
            )
        if not isinstance(draft, Draft):
            if not isinstance(draft, LanguageModel):
                raise InputError(
                    f"draft is a language model, a DraftModel or a PromptLookup; got {type(draft).__name__}."
                )
            draft = DraftModel(draft)
        self._model, self._cache, self._answer = model, cache, answer
        self._draft = draft

    def decode(self, tokens: list[int]) -> Iterator[tuple[int, LazyLogprobs | None]]:
        """`tokens`: the end of the prompt, which isn't in the cache yet."""
        answer = self._answer
        history = list(answer.prompt)
        none = mx.zeros((0,), dtype=mx.int32)
        vocab_size = self._model.vocab_size or 0  # else the first logits tell
        proposer = self._draft.start(vocab_size) if vocab_size else None
        while len(answer.tokens) < answer.limit:
            # of a round's tokens one is the model's own: with a draft that is right throughout it is one more
            room = answer.limit - len(answer.tokens) - 1
            drafted = proposer.propose(history, room, answer.sampler.fork()) if proposer and room else none
            n = drafted.size
            if n:  # MLX would read an id beyond the embedding all the same
                drafted = mx.clip(drafted, 0, vocab_size - 1)
            logits = self._model(mx.concatenate([mx.array(tokens, dtype=mx.int32), drafted])[None], self._cache)
            if proposer is None:
                vocab_size = logits.shape[-1]
                proposer = self._draft.start(vocab_size)
            drawn, states = [], []
            for i in range(n + 1):
                drawn.append(answer.sampler(logits[:, i - n - 1]))
                states.append(answer.sampler.fork())
            lazy = [array for _, logprobs in drawn if logprobs is not None for array in logprobs.arrays]
            found = mx.concatenate([token for token, _ in drawn])
            mx.eval(found, drafted, *lazy)
            own, guesses = cast(list[int], found.tolist()), cast(list[int], drafted.tolist())
            right = next((i for i in range(n) if own[i] != guesses[i]), n)
            answer.sampler = states[right]
            if any(layer.trim(n - right) != n - right for layer in self._cache):
                raise CacheError("this cache can't take tokens back, as a draft needs it to. Generate without a draft.")
            answer.drafted += n
            answer.accepted += right
            history += own[: right + 1]
            tokens = own[right : right + 1]
            for token, (_, logprobs) in zip(own, drawn[: right + 1], strict=False):
                yield token, logprobs
