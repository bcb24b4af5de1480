"""Text from a model: chunked prefill, then one token at a time, the next one computed while the last is being shown."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, fields, replace
from numbers import Integral
from types import TracebackType
from typing import Any, Literal, Protocol, Self, cast

import mlx.core as mx

from . import backend
from .cache import KeyValueCache
from .errors import CacheError, InputError
from .sampler import LazyLogprobs, RequestSampler, Sampler, SamplingParams, TokenLogprob
from .tokenizer import Tokenizer

FinishReason = Literal["stop", "length"]
Prompt = str | Sequence[int] | mx.array
OnProgress = Callable[[int, int], None]


class LanguageModel(Protocol):
    """What generation needs of a model. Where a model has them, `context_length` and `vocab_size` are checked against,
    and `prefills_whole` has its prompts computed in one pass.
    """

    def __call__(self, tokens: mx.array, cache: Sequence[KeyValueCache] | None = None) -> mx.array:
        """Tokens `[B, L]` -> logits `[B, L, V]`, appending to the cache."""
        ...

    def make_cache(self) -> list[KeyValueCache]:
        """One empty cache per layer."""
        ...


@dataclass(frozen=True)
class GenerationStats:
    """What a generation has done so far. Times in seconds; rates in tokens per second, 0 while there is nothing to
    divide.

    `cached_tokens` were in the cache already; `prompt_tokens` were not. The first token counts as prefill, which ends
    with it.
    """

    prompt_tokens: int
    cached_tokens: int
    generated_tokens: int
    prefill_s: float
    decode_s: float
    seed: int

    @property
    def prefill_tokens_per_s(self) -> float:
        return self.prompt_tokens / self.prefill_s if self.prefill_s else 0.0

    @property
    def decode_tokens_per_s(self) -> float:
        return (self.generated_tokens - 1) / self.decode_s if self.decode_s else 0.0


@dataclass(frozen=True)
class GenerationChunk:
    """One token: `text` is what became readable with it (perhaps nothing yet), and the last chunk says why it was the
    last.
    """

    text: str
    token: int
    logprobs: TokenLogprob | None
    finish_reason: FinishReason | None
    stats: GenerationStats


@dataclass(frozen=True)
class GenerationResult:
    """A whole answer: `tokens` include the one that ended it, `text` neither that nor a stop string."""

    text: str
    tokens: list[int]
    finish_reason: FinishReason
    stats: GenerationStats
    logprobs: list[TokenLogprob] | None = None


@dataclass(frozen=True)
class Response:
    """A whole answer, as text and as token ids."""

    text: str
    ids: list[int]


class Generate:
    """An iterator over the chunks of an answer, and a context manager that ends it.

    prompt: text, which the tokenizer encodes with its special tokens, or token ids. cache: what `model.make_cache()`
    gives, perhaps with earlier tokens in it, which the prompt continues. sampler: draws in place of the parameters'
    filters. on_progress: called with (tokens done, tokens in all) after each chunk of `prefill_step_size` prompt
    tokens.

    However it ends (the last chunk, `close`, an exception, Ctrl-C), the cache then holds the earlier tokens, the
    prompt and what was generated, all but the last token, which is what a next call has to start with;
    `cache[0].offset` counts them. A cache that has dropped tokens can't give back the last one and holds that as
    well.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer | None,
        prompt: Prompt,
        *,
        params: SamplingParams | None = None,
        cache: Sequence[KeyValueCache] | None = None,
        sampler: Sampler | None = None,
        prefill_step_size: int = 2048,
        on_progress: OnProgress | None = None,
    ) -> None:
        if isinstance(prefill_step_size, bool) or not isinstance(prefill_step_size, int) or prefill_step_size < 1:
            raise InputError(f"prefill_step_size is a number of tokens, 1 or more; got {prefill_step_size!r}.")
        self.params = SamplingParams() if params is None else params
        if self.params.stop and tokenizer is None:
            raise InputError("stop strings need a tokenizer to see the text.")
        self._model = model
        self._prompt = encode_prompt(tokenizer, prompt, vocab_size=getattr(model, "vocab_size", None))
        self._cache = list(model.make_cache() if cache is None else cache)
        self._cached_tokens = _common_offset(self._cache)
        self._room = _room(model, self._cached_tokens, len(self._prompt))
        self._end_ids = frozenset((*(tokenizer.eos_token_ids if tokenizer else ()), *self.params.stop_token_ids))
        self._detokenizer = tokenizer.detokenizer() if tokenizer else None
        self._sampler = RequestSampler(
            self.params, prompt_tokens=self._prompt, end_token_ids=sorted(self._end_ids), sampler=sampler
        )
        self._step_size = prefill_step_size
        self._on_progress = on_progress
        self._tokens: list[int] = []
        self._started = self._first_token_at = self._latest_at = 0.0
        self._chunks = self._run()

    @staticmethod
    def builder() -> GenerateBuilder:
        """Set up a generation step by step."""
        return GenerateBuilder()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> GenerationChunk:
        return next(self._chunks)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the answer here; the cache stays usable."""
        self._chunks.close()

    def response(self) -> Response:
        """The rest of the answer, in one piece."""
        chunks = list(self)
        return Response("".join(chunk.text for chunk in chunks), [chunk.token for chunk in chunks])

    @property
    def cache(self) -> list[KeyValueCache]:
        return self._cache

    @property
    def tokens(self) -> list[int]:
        """The tokens generated so far."""
        return list(self._tokens)

    @property
    def stats(self) -> GenerationStats:
        return GenerationStats(
            prompt_tokens=len(self._prompt),
            cached_tokens=self._cached_tokens,
            generated_tokens=len(self._tokens),
            prefill_s=(self._first_token_at or self._latest_at) - self._started,
            decode_s=self._latest_at - self._first_token_at if self._first_token_at else 0.0,
            seed=self._sampler.seed,
        )

    def _run(self) -> Generator[GenerationChunk, None, None]:
        limit = min(self.params.max_tokens, self._room)
        with backend.wired():
            try:
                self._started = self._latest_at = time.perf_counter()
                done = 0 if getattr(self._model, "prefills_whole", False) and limit else len(self._prompt) - 1
                self._prefill(done)
                if limit == 0:
                    return
                stops = StopStrings(self.params.stop)
                drawn = self._step(mx.array(self._prompt[done:]))
                reason: FinishReason | None = None
                while reason is None:
                    # The next token is queued before this one is read, so the device never waits for the host.
                    following = self._step(drawn[0]) if len(self._tokens) + 1 < limit else None
                    token = cast(int, drawn[0].item())
                    self._tokens.append(token)
                    self._latest_at = time.perf_counter()
                    self._first_token_at = self._first_token_at or self._latest_at
                    text = self._readable(token)
                    text, stopped = stops.feed(text)
                    if stopped or token in self._end_ids:
                        reason = "stop"
                    elif following is None:
                        reason = "length"
                    if reason is not None and not stopped:
                        rest, stopped = stops.finish(self._detokenizer.flush() if self._detokenizer else "")
                        text += rest
                        reason = "stop" if stopped else reason
                    logprobs = drawn[1].read() if drawn[1] is not None else None
                    yield GenerationChunk(text, token, logprobs, reason, self.stats)
                    drawn = following or drawn
            finally:
                self._settle()

    def _prefill(self, count: int) -> None:
        """The prompt's first `count` tokens, in chunks: as a rule all but the last, whose logits are the first
        wanted.
        """
        total = len(self._prompt)
        for start in range(0, count, self._step_size):
            stop = min(start + self._step_size, count)
            self._model(mx.array(self._prompt[start:stop])[None], self._cache)
            for layer in reversed(self._cache):  # the last layer's needs all others': one evaluation does the work
                layer.materialize()
            if stop < count:  # chunks grow with what is cached: buffers of the last one don't fit the next
                mx.clear_cache()
            if self._on_progress is not None:
                self._on_progress(stop, total)
        self._latest_at = time.perf_counter()
        if self._on_progress is not None:
            self._on_progress(total, total)

    def _step(self, tokens: mx.array) -> tuple[mx.array, LazyLogprobs | None]:
        """Tokens `[n]` -> the next one `[1]`, on its way."""
        logits = self._model(tokens[None], self._cache)
        drawn, logprobs = self._sampler(logits[:, -1])
        mx.async_eval(drawn, *(logprobs.arrays if logprobs is not None else ()))
        return drawn, logprobs

    def _readable(self, token: int) -> str:
        return "" if self._detokenizer is None or token in self._end_ids else self._detokenizer.add(token)

    def _settle(self) -> None:
        """Take back what was queued ahead, and make the layers agree where an exception came between them."""
        wanted = self._cached_tokens + len(self._prompt) + len(self._tokens) - 1
        offsets = [_offset(layer) for layer in self._cache]
        wanted = min([wanted, *offsets])
        if all(layer.is_trimmable or offset == wanted for layer, offset in zip(self._cache, offsets, strict=True)):
            for layer, offset in zip(self._cache, offsets, strict=True):
                layer.trim(offset - wanted)
        elif len(set(offsets)) > 1:
            for layer in self._cache:
                layer.reset()


class GenerateBuilder:
    """Sets up a `Generate`: `Generate.builder().model(m).tokenizer(t).prompt(p).temp(0.7).max_tokens(100).build()`."""

    def __init__(self) -> None:
        self._model: LanguageModel | None = None
        self._tokenizer: Tokenizer | None = None
        self._prompt: Prompt | None = None
        self._params: SamplingParams | None = None
        self._settings: dict[str, Any] = {}
        self._options: dict[str, Any] = {}

    def model(self, model: LanguageModel) -> Self:
        self._model = model
        return self

    def tokenizer(self, tokenizer: Tokenizer) -> Self:
        self._tokenizer = tokenizer
        return self

    def prompt(self, prompt: Prompt) -> Self:
        self._prompt = prompt
        return self

    def params(self, params: SamplingParams) -> Self:
        """Sampling parameters as a whole; `sampling` and its short forms change single ones."""
        self._params = params
        return self

    def sampling(self, **settings: Any) -> Self:
        """Any field of `SamplingParams`."""
        self._settings.update(settings)
        return self

    def temp(self, temperature: float) -> Self:
        return self.sampling(temperature=temperature)

    def top_p(self, top_p: float) -> Self:
        return self.sampling(top_p=top_p)

    def top_k(self, top_k: int) -> Self:
        return self.sampling(top_k=top_k)

    def min_p(self, min_p: float) -> Self:
        return self.sampling(min_p=min_p)

    def max_tokens(self, max_tokens: int) -> Self:
        return self.sampling(max_tokens=max_tokens)

    def seed(self, seed: int) -> Self:
        return self.sampling(seed=seed)

    def stop(self, stop: str | Sequence[str]) -> Self:
        return self.sampling(stop=stop)

    def sampler(self, sampler: Sampler) -> Self:
        self._options["sampler"] = sampler
        return self

    def cache(self, cache: Sequence[KeyValueCache]) -> Self:
        self._options["cache"] = cache
        return self

    def prefill_step_size(self, tokens: int) -> Self:
        self._options["prefill_step_size"] = tokens
        return self

    def on_progress(self, on_progress: OnProgress) -> Self:
        self._options["on_progress"] = on_progress
        return self

    def build(self) -> Generate:
        """Raises InputError where the model or the prompt is missing, or a setting is wrong."""
        if self._model is None or self._prompt is None:
            raise InputError("a generation needs at least model(...) and prompt(...).")
        params = sampling_params(self._params, self._settings)
        return Generate(self._model, self._tokenizer, self._prompt, params=params, **self._options)


def stream_generate(
    model: LanguageModel,
    tokenizer: Tokenizer | None,
    prompt: Prompt,
    *,
    params: SamplingParams | None = None,
    cache: Sequence[KeyValueCache] | None = None,
    sampler: Sampler | None = None,
    prefill_step_size: int = 2048,
    on_progress: OnProgress | None = None,
    **settings: Any,
) -> Generate:
    """A `Generate` whose sampling settings are given as keywords: any field of `SamplingParams`."""
    return Generate(
        model,
        tokenizer,
        prompt,
        params=sampling_params(params, settings),
        cache=cache,
        sampler=sampler,
        prefill_step_size=prefill_step_size,
        on_progress=on_progress,
    )


def generate(model: LanguageModel, tokenizer: Tokenizer | None, prompt: Prompt, **options: Any) -> GenerationResult:
    """The whole answer. Takes what `stream_generate` takes."""
    with stream_generate(model, tokenizer, prompt, **options) as generation:
        chunks = list(generation)
    return GenerationResult(
        text="".join(chunk.text for chunk in chunks),
        tokens=[chunk.token for chunk in chunks],
        finish_reason=(chunks[-1].finish_reason if chunks else None) or "length",
        stats=generation.stats,
        logprobs=[chunk.logprobs for chunk in chunks if chunk.logprobs]
        if generation.params.logprobs is not None
        else None,
    )


class StopStrings:
    """Finds stop strings in text that comes in pieces, holding back what may be the start of one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._pending = ""

    def feed(self, text: str) -> tuple[str, bool]:
        """The text that is safe to show, and whether a stop string came up; what follows it is dropped."""
        self._pending += text
        found = [at for stop in self._stops if (at := self._pending.find(stop)) >= 0]
        if found:
            shown, self._pending = self._pending[: min(found)], ""
            return shown, True
        held = max((_overlap(self._pending, stop) for stop in self._stops), default=0)
        keep = len(self._pending) - held
        shown, self._pending = self._pending[:keep], self._pending[keep:]
        return shown, False

    def finish(self, text: str) -> tuple[str, bool]:
        """The last text, with nothing held back."""
        shown, stopped = self.feed(text)
        rest, self._pending = self._pending, ""
        return shown + rest, stopped


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of `text` that `stop` begins with."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)


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
        # a rendered chat template begins with it already
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
    """How many tokens still fit the model's context after the prompt."""
    context = getattr(model, "context_length", None)
    if context is None:
        return 2**62
    if cached + prompt > context:
        raise InputError(
            f"the prompt has {prompt:,} tokens"
            + (f" after {cached:,} in the cache" if cached else "")
            + "; the model's context "
            f"holds {context:,}. Shorten it, or use a model with a longer context."
        )
    return int(context) - cached - prompt + 1  # the last token generated needs no place


def _offset(layer: KeyValueCache) -> int:
    if isinstance(layer.offset, mx.array):
        raise CacheError("this cache holds a batch; a single prompt needs a cache of its own. Use model.make_cache().")
    return layer.offset


def _common_offset(cache: Sequence[KeyValueCache]) -> int:
    offsets = {_offset(layer) for layer in cache}
    if len(offsets) > 1:
        raise CacheError(f"the layers of the cache have seen different numbers of tokens: {sorted(offsets)}. Reset it.")
    return offsets.pop() if offsets else 0
