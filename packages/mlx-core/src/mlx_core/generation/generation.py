"""Text from a model: chunked prefill, then one token at a time, the next one computed while the last is being shown."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from types import TracebackType
from typing import Any, Self, cast, overload

import mlx.core as mx

from .. import backend
from ..cache import KeyValueCache
from ..cache.protocol import can_trim
from ..errors import CacheError, InputError
from ..text import Tokenizer
from .batching import generate_batch, is_batch
from .prefill import OnProgress, check_count, prefill
from .request import (
    GenerationChunk,
    GenerationResult,
    GenerationState,
    GenerationStats,
    LanguageModel,
    Prompt,
    Response,
    encode_prompt,
    sampling_params,
)
from .sampler import LazyLogprobs, Sampler, SamplingParams
from .speculative import Draft, Speculation


class Generate:
    """An iterator over the chunks of an answer, and a context manager that ends it.

    prompt: text, which the tokenizer encodes with its special tokens, or token ids. cache: what `model.make_cache()`
    gives, perhaps with earlier tokens in it, which the prompt continues. sampler: draws in place of the parameters'
    filters. on_progress: called with (tokens done, tokens in all) after each chunk of `prefill_step_size` prompt
    tokens. draft: what proposes tokens that the model only verifies; see `SpeculativeGenerate`.
    shown_special_tokens: special tokens that are text of the answer, such as marks of tool calls (`ReplyFormat`); the
    others are not shown.

    However it ends (the last chunk, `close`, an exception, Ctrl-C), the cache then holds the earlier tokens, the
    prompt and what was generated, all but the last token, which is what a next call has to start with;
    `cache[0].offset` counts them. A cache that has dropped tokens can't give back the last one and holds that as
    well; one that can't give back what was on its way when it was interrupted is emptied.
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
        draft: Draft | LanguageModel | None = None,
        shown_special_tokens: Sequence[str] = (),
    ) -> None:
        check_count("prefill_step_size", prefill_step_size)
        self.params = SamplingParams() if params is None else params
        self._model = model
        tokens = encode_prompt(tokenizer, prompt, vocab_size=getattr(model, "vocab_size", None))
        self._cache = list(model.make_cache() if cache is None else cache)
        self._answer = GenerationState(
            model,
            tokenizer,
            tokens,
            self.params,
            cached_tokens=_common_offset(self._cache),
            sampler=sampler,
            shown_special_tokens=shown_special_tokens,
        )
        self._speculation = None if draft is None else Speculation(model, self._cache, draft, self._answer)
        self._step_size = prefill_step_size
        self._on_progress = on_progress
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

    def result(self) -> GenerationResult:
        """The rest of the answer, with what is known about it."""
        return self._answer.result(list(self))

    @property
    def cache(self) -> list[KeyValueCache]:
        return self._cache

    @property
    def tokens(self) -> list[int]:
        """The tokens generated so far."""
        return list(self._answer.tokens)

    @property
    def stats(self) -> GenerationStats:
        return self._answer.stats

    def _run(self) -> Generator[GenerationChunk, None, None]:
        answer = self._answer
        with backend.wired(), backend.repaired_scheduler():
            try:
                answer.start()
                done = (
                    0
                    if getattr(self._model, "requires_full_prefill", False) and answer.limit
                    else len(answer.prompt) - 1
                )
                self._prefill(done)
                if answer.limit == 0:
                    return
                rest = answer.prompt[done:]
                decode = self._decode(rest) if self._speculation is None else self._speculation.decode(rest)
                for token, logprobs in decode:
                    chunk = answer.add(token, logprobs)
                    yield chunk
                    if chunk.finish_reason is not None:
                        return
            finally:
                self._reconcile_caches()

    def _prefill(self, count: int) -> None:
        """The prompt's first `count` tokens: as a rule all but the last, whose logits are the first wanted."""
        prompt = self._answer.prompt
        prefill(
            self._model, mx.array(prompt[:count])[None], self._cache, self._step_size, len(prompt), self._on_progress
        )
        self._answer.prefilled()

    def _decode(self, tokens: list[int]) -> Iterator[tuple[int, LazyLogprobs | None]]:
        """One token after the other: the next one is queued before this one is read, so the device never waits for the
        host.
        """
        drawn = self._step(mx.array(tokens))
        while True:
            following = self._step(drawn[0]) if len(self._answer.tokens) + 1 < self._answer.limit else None
            yield cast(int, drawn[0].item()), drawn[1]
            if following is None:
                return
            drawn = following

    def _step(self, tokens: mx.array) -> tuple[mx.array, LazyLogprobs | None]:
        """Tokens `[n]` -> the next one `[1]`, on its way."""
        logits = self._model(tokens[None], self._cache)
        drawn, logprobs = self._answer.sampler(logits[:, -1])
        mx.async_eval(drawn, *(logprobs.arrays if logprobs is not None else ()))
        return drawn, logprobs

    def _reconcile_caches(self) -> None:
        """Take back what was queued ahead, and make the layers agree where an exception came between them."""
        answer = self._answer
        offsets = [_offset(layer) for layer in self._cache]
        known = answer.cached_tokens + len(answer.prompt) + len(answer.tokens)
        for wanted in (known - 1, known):  # what has dropped tokens may be unable to give back the last one
            surplus = [offset - min([wanted, *offsets]) for offset in offsets]
            if all(can_trim(layer, n) for layer, n in zip(self._cache, surplus, strict=True)):
                for layer, n in zip(self._cache, surplus, strict=True):
                    layer.trim(n)
                return
        for layer in self._cache:
            layer.reset()


class SpeculativeGenerate(Generate):
    """`Generate(target, tokenizer, prompt, draft=draft, ...)`: what `draft` proposes, `target` verifies, several tokens
    in one pass.

    draft: a smaller model with the target's vocabulary, or `PromptLookup`. The answer is the one that `Generate` gives
    without a draft, greedy and, for the same seed, sampled; so a draft costs no quality, and helps as far as it is
    right: `stats.acceptance_rate`.
    """

    def __init__(
        self,
        target: LanguageModel,
        draft: Draft | LanguageModel,
        tokenizer: Tokenizer | None,
        prompt: Prompt,
        **options: Any,
    ) -> None:
        super().__init__(target, tokenizer, prompt, draft=draft, **options)


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

    def draft(self, draft: Draft | LanguageModel) -> Self:
        self._options["draft"] = draft
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
    draft: Draft | LanguageModel | None = None,
    shown_special_tokens: Sequence[str] = (),
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
        draft=draft,
        shown_special_tokens=shown_special_tokens,
    )


@overload
def generate(model: LanguageModel, tokenizer: Tokenizer | None, prompt: Prompt, **options: Any) -> GenerationResult: ...
@overload
def generate(
    model: LanguageModel, tokenizer: Tokenizer | None, prompt: Sequence[Prompt], **options: Any
) -> list[GenerationResult]: ...
def generate(
    model: LanguageModel, tokenizer: Tokenizer | None, prompt: Prompt | Sequence[Prompt], **options: Any
) -> GenerationResult | list[GenerationResult]:
    """The whole answer. Takes what `stream_generate` takes.

    A list of prompts gives a list of answers, computed together: see `BatchGenerate`, whose options these then are;
    `params` may be a list, one for each prompt.
    """
    if is_batch(prompt):
        if single := sorted(options.keys() & {"cache", "sampler", "draft"}):
            raise InputError(f"{single[0]!r} is of a single prompt: a batch takes none. Generate prompt by prompt.")
        return generate_batch(model, tokenizer, cast("Sequence[Prompt]", prompt), **options)
    with stream_generate(model, tokenizer, cast(Prompt, prompt), **options) as generation:
        return generation.result()


def _offset(layer: KeyValueCache) -> int:
    if isinstance(layer.offset, mx.array):
        raise CacheError("this cache holds a batch; a single prompt needs a cache of its own. Use model.make_cache().")
    return layer.offset


def _common_offset(cache: Sequence[KeyValueCache]) -> int:
    offsets = {_offset(layer) for layer in cache}
    if len(offsets) > 1:
        raise CacheError(f"the layers of the cache have seen different numbers of tokens: {sorted(offsets)}. Reset it.")
    return offsets.pop() if offsets else 0
