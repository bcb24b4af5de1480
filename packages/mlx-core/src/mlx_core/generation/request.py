"""The state and the results of one request, shared by single, speculative and batched generation."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from numbers import Integral
from typing import Any, Literal

import mlx.core as mx

from ..engines import LanguageModel
from ..errors import InputError
from ..text import Tokenizer, reply_format
from ..text.delimiters import overlap
from .sampler import LazyLogprobs, RequestSampler, Sampler, SamplingParams, ThinkingTokens, TokenLogprob

FinishReason = Literal["stop", "length"]
Prompt = str | Sequence[int] | mx.array


@dataclass(frozen=True)
class GenerationStats:
    """Counts and times of a generation so far. Times in seconds; rates in tokens per second, 0 before the first token.

    `cached_tokens` were in the cache before, `prompt_tokens` were not. Prefill ends with the first token, which counts
    as part of it. `accepted_tokens` of the `drafted_tokens` were right. In a batch the times are those of the whole batch
    up to the answer's last token.
    """

    prompt_tokens: int
    cached_tokens: int
    generated_tokens: int
    prefill_s: float
    decode_s: float
    seed: int
    drafted_tokens: int = 0
    accepted_tokens: int = 0

    @property
    def prefill_tokens_per_s(self) -> float:
        return self.prompt_tokens / self.prefill_s if self.prefill_s else 0.0

    @property
    def decode_tokens_per_s(self) -> float:
        return (self.generated_tokens - 1) / self.decode_s if self.decode_s else 0.0

    @property
    def acceptance_rate(self) -> float:
        """Accepted of the drafted tokens."""
        return self.accepted_tokens / self.drafted_tokens if self.drafted_tokens else 0.0


@dataclass(frozen=True)
class GenerationChunk:
    """One token, and the text that is final with it (possibly ""). Only the last chunk has a `finish_reason`."""

    text: str
    token: int
    logprobs: TokenLogprob | None
    finish_reason: FinishReason | None
    stats: GenerationStats


@dataclass(frozen=True)
class GenerationResult:
    """A complete answer: `tokens` include the token that ended it, `text` neither that nor a stop string."""

    text: str
    tokens: list[int]
    finish_reason: FinishReason
    stats: GenerationStats
    logprobs: list[TokenLogprob] | None = None


@dataclass(frozen=True)
class Response:
    """A complete answer, as text and as token ids."""

    text: str
    ids: list[int]


class GenerationState:
    """One request while it is generated: `add` turns each token into a chunk, and decides when the answer ends.

    prompt: token ids that aren't in the cache; cached_tokens: the number of those that are. Raises InputError for a
    prompt that the model's context can't hold.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer | None,
        prompt: list[int],
        params: SamplingParams,
        *,
        cached_tokens: int = 0,
        sampler: Sampler | None = None,
        shown_special_tokens: Sequence[str] = (),
    ) -> None:
        if params.stop and tokenizer is None:
            raise InputError("stop strings need a tokenizer to see the text.")
        self.params = params
        self.prompt = prompt
        self.cached_tokens = cached_tokens
        self.limit = min(params.max_tokens, _room(model, cached_tokens, len(prompt)))
        self.tokens: list[int] = []
        self.drafted = self.accepted = 0
        self._end_ids = frozenset((*(tokenizer.eos_token_ids if tokenizer else ()), *params.stop_token_ids))
        self._detokenizer = tokenizer.detokenizer(shown=shown_special_tokens) if tokenizer else None
        self._stops = StopStrings(params.stop)
        self.sampler = RequestSampler(
            params,
            vocab_size=model.vocab_size,
            prompt_tokens=prompt,
            end_token_ids=sorted(self._end_ids),
            thinking=None if params.thinking_budget is None else thinking_tokens(tokenizer),
            sampler=sampler,
        )
        self._started = self._first_token_at = self._latest_at = 0.0

    def start(self) -> None:
        """Start the clock."""
        self._started = self._latest_at = time.perf_counter()

    def prefilled(self) -> None:
        """Note the time: the prompt is in the cache, except for the tokens of the first decoding step."""
        self._latest_at = time.perf_counter()

    def add(self, token: int, logprobs: LazyLogprobs | None) -> GenerationChunk:
        """Record the next token; the chunk's `finish_reason` is set if it is the last."""
        self.tokens.append(token)
        self._latest_at = time.perf_counter()
        self._first_token_at = self._first_token_at or self._latest_at
        ends = token in self._end_ids
        readable = "" if self._detokenizer is None or ends else self._detokenizer.add(token)
        text, stopped = self._stops.feed(readable)
        reason: FinishReason | None = None
        if stopped or ends:
            reason = "stop"
        elif len(self.tokens) >= self.limit:
            reason = "length"
        if reason is not None and not stopped:
            rest, stopped = self._stops.finish(self._detokenizer.flush() if self._detokenizer else "")
            text += rest
            reason = "stop" if stopped else reason
        return GenerationChunk(text, token, logprobs.read() if logprobs is not None else None, reason, self.stats)

    @property
    def stats(self) -> GenerationStats:
        return GenerationStats(
            prompt_tokens=len(self.prompt),
            cached_tokens=self.cached_tokens,
            generated_tokens=len(self.tokens),
            prefill_s=(self._first_token_at or self._latest_at) - self._started,
            decode_s=self._latest_at - self._first_token_at if self._first_token_at else 0.0,
            seed=self.sampler.seed,
            drafted_tokens=self.drafted,
            accepted_tokens=self.accepted,
        )

    def result(self, chunks: Sequence[GenerationChunk]) -> GenerationResult:
        """The complete answer, from its chunks."""
        logprobs = [chunk.logprobs for chunk in chunks if chunk.logprobs] if self.params.logprobs is not None else None
        return GenerationResult(
            text="".join(chunk.text for chunk in chunks),
            tokens=[chunk.token for chunk in chunks],
            finish_reason=(chunks[-1].finish_reason if chunks else None) or "length",
            stats=self.stats,
            logprobs=logprobs,
        )


class StopStrings:
    """Finds stop strings in text that arrives in pieces, and holds back what may be the start of one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._pending = ""

    def feed(self, text: str) -> tuple[str, bool]:
        """The text that can be shown, and whether a stop string was found; the text after it is dropped."""
        self._pending += text
        found = [at for stop in self._stops if (at := self._pending.find(stop)) >= 0]
        if found:
            shown, self._pending = self._pending[: min(found)], ""
            return shown, True
        held = max((overlap(self._pending, stop) for stop in self._stops), default=0)
        keep = len(self._pending) - held
        shown, self._pending = self._pending[:keep], self._pending[keep:]
        return shown, False

    def finish(self, text: str) -> tuple[str, bool]:
        """As `feed`, for the last text, after which nothing is held back."""
        shown, stopped = self.feed(text)
        rest, self._pending = self._pending, ""
        return shown + rest, stopped


def thinking_tokens(tokenizer: Tokenizer | None) -> ThinkingTokens:
    """The tokens that open and close a thinking block. Raises InputError for a tokenizer that has none."""
    delimiters = reply_format(tokenizer).thinking or ("<think>", "</think>")
    ids = [tokenizer.token_id(delimiter) for delimiter in delimiters] if tokenizer is not None else [None, None]
    if ids[0] is None or ids[1] is None:
        raise InputError(f"thinking_budget needs a tokenizer in which {' and '.join(delimiters)} are single tokens.")
    return ThinkingTokens(ids[0], ids[1])


def sampling_params(params: SamplingParams | None, settings: dict[str, Any]) -> SamplingParams:
    """`params` with single settings replaced; InputError names a setting that doesn't exist."""
    known = [field.name for field in fields(SamplingParams)]
    if unknown := sorted(settings.keys() - set(known)):
        raise InputError(f"unknown setting {unknown[0]!r}; sampling settings are {', '.join(known)}.")
    return replace(params, **settings) if params is not None else SamplingParams(**settings)


def encode_prompt(tokenizer: Tokenizer | None, prompt: Prompt, *, vocab_size: int | None = None) -> list[int]:
    """Token ids of a prompt, at least one. Raises InputError for an empty prompt and for ids outside the vocabulary."""
    if isinstance(prompt, str):
        if tokenizer is None:
            raise InputError("a prompt of text needs a tokenizer; give token ids, or a tokenizer.")
        bos = tokenizer.token(tokenizer.bos_token_id) if tokenizer.bos_token_id is not None else None
        # a rendered chat template already begins with it
        tokens = tokenizer.encode(prompt, add_special_tokens=not (bos and prompt.startswith(bos)))
    else:
        ids: Any = (
            prompt.reshape(-1).tolist() if isinstance(prompt, mx.array) and prompt.shape[:-1] in ((), (1,)) else prompt
        )
        if not isinstance(ids, Sequence) or isinstance(ids, bytes) or not all(_is_integer(token) for token in ids):
            raise InputError(
                f"a prompt is text, or a sequence of token ids; got {type(prompt).__name__}: {prompt!r:.80}."
            )
        tokens = [int(token) for token in ids]
    if not tokens:
        raise InputError("the prompt is empty: there is no token to continue from.")
    for token in tokens:
        if token < 0 or (vocab_size is not None and token >= vocab_size):
            raise InputError(
                f"token {token} of the prompt is outside the model's vocabulary of {vocab_size}. Are model and tokenizer a pair?"
            )
    return tokens


def _is_integer(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)  # NumPy's integers too


def _room(model: LanguageModel, cached: int, prompt: int) -> int:
    """The number of tokens that can be generated within the model's context after the prompt."""
    context = model.context_length
    if context is None:
        return 2**62
    if cached + prompt > context:
        raise InputError(
            f"the prompt has {prompt:,} tokens"
            + (f" after {cached:,} in the cache" if cached else "")
            + "; the model's context "
            f"holds {context:,}. Shorten it, or use a model with a longer context."
        )
    return int(context) - cached - prompt + 1  # the last generated token isn't fed to the model
