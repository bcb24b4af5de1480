"""Generation for one prompt: chunked prefill, then one token at a time, computed while the one before is shown."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from types import TracebackType
from typing import Any, Self, cast, overload

import mlx.core as mx

from .. import backend
from ..cache import KeyValueCache
from ..engines import LanguageModel
from ..errors import CacheError, InputError
from ..text import Tokenizer
from .batching import generate_batch, is_batch
from .prefill import OnProgress, check_count, prefill
from .request import (
    GenerationChunk,
    GenerationResult,
    GenerationState,
    GenerationStats,
    Prompt,
    Response,
    encode_prompt,
    sampling_params,
)
from .sampler import LazyLogprobs, Sampler, SamplingParams
from .speculative import Draft, Speculation


class Generate:
    """An iterator over the chunks of an answer, and a context manager that ends it.

    prompt: text, which the tokenizer encodes with its special tokens, or token ids. cache: from `model.make_cache()`,
    possibly with earlier tokens, which the prompt continues. sampler: used instead of the parameters' filters and draw.
    on_progress: called with (tokens done, tokens in all) after each chunk of `prefill_step_size` prompt tokens. draft: a
    model or a `PromptLookup` that proposes tokens for the model to verify; see `SpeculativeGenerate`.
    shown_special_tokens: special tokens that are part of the text, such as delimiters of tool calls (`ReplyFormat`);
    others aren't shown.

    However it ends (the last chunk, `close`, an exception, Ctrl-C), the cache then holds the earlier tokens, the prompt
    and the generated tokens except the last one, with which the next prompt has to begin; `cache[0].offset` is their
    number. A cache that has dropped tokens can't remove the last one and keeps it; a cache that can't remove tokens that
    were being computed when it was interrupted is emptied.
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
        tokens = encode_prompt(tokenizer, prompt, vocab_size=model.vocab_size)
        self._cache = list(model.make_cache() if cache is None else cache)
        self._state = GenerationState(
            model,
            tokenizer,
            tokens,
            self.params,
            cached_tokens=_common_offset(self._cache),
            sampler=sampler,
            shown_special_tokens=shown_special_tokens,
        )
        self._speculation = None if draft is None else Speculation(model, self._cache, draft, self._state)
        self._step_size = prefill_step_size
        self._on_progress = on_progress
        self._chunks = self._run()

    @staticmethod
    def builder() -> GenerateBuilder:
        """A builder for a generation."""
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
        """The rest of the answer, as text and token ids."""
        chunks = list(self)
        return Response("".join(chunk.text for chunk in chunks), [chunk.token for chunk in chunks])

    def result(self) -> GenerationResult:
        """The rest of the answer, with its finish reason and statistics."""
        return self._state.result(list(self))

    @property
    def cache(self) -> list[KeyValueCache]:
        return self._cache

    @property
    def tokens(self) -> list[int]:
        """The tokens generated so far."""
        return list(self._state.tokens)

    @property
    def stats(self) -> GenerationStats:
        return self._state.stats

    def _run(self) -> Generator[GenerationChunk, None, None]:
        state = self._state
        with backend.wired(), backend.repaired_scheduler():
            try:
                state.start()
                done = 0 if self._model.requires_full_prefill and state.limit else len(state.prompt) - 1
                self._prefill(done)
                if state.limit == 0:
                    return
                rest = state.prompt[done:]
                decode = self._decode(rest) if self._speculation is None else self._speculation.decode(rest)
                for token, logprobs in decode:
                    chunk = state.add(token, logprobs)
                    yield chunk
                    if chunk.finish_reason is not None:
                        return
            finally:
                self._reconcile_caches()

    def _prefill(self, count: int) -> None:
        """Compute the prompt's first `count` tokens: usually all but the last, whose logits give the first token."""
        prompt = self._state.prompt
        prefill(
            self._model, mx.array(prompt[:count])[None], self._cache, self._step_size, len(prompt), self._on_progress
        )
        self._state.prefilled()

    def _decode(self, tokens: list[int]) -> Iterator[tuple[int, LazyLogprobs | None]]:
        """One token after the other. The next is queued before this one is read, so the device never waits for the host."""
        drawn = self._step(mx.array(tokens))
        while True:
            following = self._step(drawn[0]) if len(self._state.tokens) + 1 < self._state.limit else None
            yield cast(int, drawn[0].item()), drawn[1]
            if following is None:
                return
            drawn = following

    def _step(self, tokens: mx.array) -> tuple[mx.array, LazyLogprobs | None]:
        """Tokens `[n]` -> the next one `[1]`, being computed."""
        logits = self._model(tokens[None], self._cache)
        drawn, logprobs = self._state.sampler(logits[:, -1])
        mx.async_eval(drawn, *(logprobs.arrays if logprobs is not None else ()))
        return drawn, logprobs

    def _reconcile_caches(self) -> None:
        """Remove tokens that were computed ahead, and give all layers the same length after an exception."""
        state = self._state
        offsets = [_offset(layer) for layer in self._cache]
        known = state.cached_tokens + len(state.prompt) + len(state.tokens)
        for wanted in (known - 1, known):  # a cache that has dropped tokens may be unable to remove the last one
            surplus = [offset - min([wanted, *offsets]) for offset in offsets]
            if all(layer.can_trim(n) for layer, n in zip(self._cache, surplus, strict=True)):
                for layer, n in zip(self._cache, surplus, strict=True):
                    layer.trim(n)
                return
        for layer in self._cache:
            layer.reset()


class SpeculativeGenerate(Generate):
    """Speculative decoding: `Generate(target, tokenizer, prompt, draft=draft, ...)`.

    `target` verifies several proposed tokens in one pass. draft: a smaller model with the target's vocabulary, or
    `PromptLookup`. The answer is that of `Generate` without a draft, greedy or, for the same seed, sampled; only the speed
    depends on how often the draft is right (`stats.acceptance_rate`).
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
    """Sets up a `Generate`: `Generate.builder().model(m).tokenizer(t).prompt(p).temp(0.7).max_tokens(100).build()`.

    Each method sets one argument of `stream_generate`, which `build` calls; `sampling` sets any of them.
    """

    def __init__(self) -> None:
        self._arguments: dict[str, Any] = {"tokenizer": None}

    def sampling(self, **arguments: Any) -> Self:
        self._arguments.update(arguments)
        return self

    def model(self, model: LanguageModel) -> Self:
        return self.sampling(model=model)

    def tokenizer(self, tokenizer: Tokenizer) -> Self:
        return self.sampling(tokenizer=tokenizer)

    def prompt(self, prompt: Prompt) -> Self:
        return self.sampling(prompt=prompt)

    def params(self, params: SamplingParams) -> Self:
        return self.sampling(params=params)

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
        return self.sampling(sampler=sampler)

    def cache(self, cache: Sequence[KeyValueCache]) -> Self:
        return self.sampling(cache=cache)

    def draft(self, draft: Draft | LanguageModel) -> Self:
        return self.sampling(draft=draft)

    def prefill_step_size(self, tokens: int) -> Self:
        return self.sampling(prefill_step_size=tokens)

    def on_progress(self, on_progress: OnProgress) -> Self:
        return self.sampling(on_progress=on_progress)

    def build(self) -> Generate:
        """Raises InputError where the model or the prompt is missing, or a setting is wrong."""
        if not {"model", "prompt"} <= self._arguments.keys():
            raise InputError("a generation needs at least model(...) and prompt(...).")
        return stream_generate(**self._arguments)


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
    """A `Generate` that also takes the fields of `SamplingParams` as keywords."""
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
    """The complete answer, with the arguments of `stream_generate`.

    A list of prompts gives a list of answers, computed together, with the arguments of `BatchGenerate`; `params` may then
    be a list, one for each prompt.
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
