"""Batched generation: left-padded prompts, each with its own parameters, seed and end."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self, cast

import mlx.core as mx

from .. import backend
from ..cache import (
    KeyValueCache,
)
from ..engines import LanguageModel
from ..errors import InputError
from ..text import Tokenizer
from .prefill import OnProgress, check_count, prefill
from .request import (
    GenerationChunk,
    GenerationResult,
    GenerationState,
    Prompt,
    encode_prompt,
    sampling_params,
)
from .sampler import LazyLogprobs, SamplingParams, draw_rows

MakeCache = Callable[[], Sequence[KeyValueCache]]


@dataclass(frozen=True)
class BatchChunk:
    """A chunk of the answer to the prompt at `index`."""

    index: int
    chunk: GenerationChunk


class BatchGenerate:
    """An iterator over the chunks of the answers to several prompts, and a context manager that ends it.

    Prompts are computed in groups of up to `batch_size`, sorted by length. Each step computes one token for every row of
    a group, and rows that have ended are removed. Each answer is that of `Generate`, unless the rounding of a batch's
    matrix products changes the choice of a token; each row has its own seed and parameters.

    params: one for all prompts, or one for each. make_cache: makes the cache of one sequence instead of
    `model.make_cache`, for example a quantised one. on_progress: called with (prompt tokens done, prompt tokens in all),
    padding included.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer | None,
        prompts: Sequence[Prompt],
        *,
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        batch_size: int = 32,
        make_cache: MakeCache | None = None,
        prefill_step_size: int = 2048,
        on_progress: OnProgress | None = None,
    ) -> None:
        check_count("prefill_step_size", prefill_step_size)
        check_count("batch_size", batch_size)
        if params is None or isinstance(params, SamplingParams):
            params = [params or SamplingParams()] * len(prompts)
        if len(params) != len(prompts):
            raise InputError(f"params are one for all prompts, or one for each: got {len(params)} for {len(prompts)}.")
        self._model = model
        vocab_size = model.vocab_size
        self._states: list[GenerationState] = []
        for index, (prompt, chosen) in enumerate(zip(prompts, params, strict=True)):
            try:
                tokens = encode_prompt(tokenizer, prompt, vocab_size=vocab_size)
                self._states.append(GenerationState(model, tokenizer, tokens, chosen))
            except InputError as error:
                raise InputError(f"prompt {index}: {error}") from error
        self._make_cache = make_cache or model.make_cache
        self._step_size = prefill_step_size
        self._on_progress = on_progress
        # A RoPE that depends on the sequence's length can't serve rows of different lengths.
        self._groups = self._grouped(1 if model.requires_full_prefill else batch_size)
        self._widths = [max(len(self._states[i].prompt) for i in group) * len(group) for group in self._groups]
        self._chunks = self._run()

    def _grouped(self, size: int) -> list[list[int]]:
        """The prompts' indices in groups of similar length, the longest first, so that running out of memory shows early."""
        wanted = [i for i, state in enumerate(self._states) if state.limit]
        order = sorted(wanted, key=lambda i: -len(self._states[i].prompt))
        return [order[start : start + size] for start in range(0, len(order), size)]

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> BatchChunk:
        return next(self._chunks)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all answers here."""
        self._chunks.close()

    def results(self) -> list[GenerationResult]:
        """The rest of the answers, in the prompts' order."""
        chunks: list[list[GenerationChunk]] = [[] for _ in self._states]
        for entry in self:
            chunks[entry.index].append(entry.chunk)
        return [state.result(parts) for state, parts in zip(self._states, chunks, strict=True)]

    def _run(self) -> Generator[BatchChunk, None, None]:
        with backend.wired(), backend.repaired_scheduler():
            for number, group in enumerate(self._groups):
                yield from self._run_group(group, sum(self._widths[:number]))

    def _run_group(self, rows: list[int], done: int) -> Iterator[BatchChunk]:
        """The chunks of the answers at these indices; `done`: prompt tokens that were reported before."""
        for i in rows:
            self._states[i].start()
        prompts = [self._states[i].prompt for i in rows]
        length = max(map(len, prompts))
        blanks = [length - len(prompt) for prompt in prompts]
        tokens = mx.array([[0] * count + prompt for count, prompt in zip(blanks, prompts, strict=True)])
        layers = self._make_cache()
        if not all(layer.is_empty for layer in layers):
            raise InputError("make_cache gives an empty cache for each call; this one holds tokens.")
        cache = [layer.batched(blanks) for layer in layers]
        first = 0 if self._model.requires_full_prefill else length - 1
        prefill(self._model, tokens[:, :first], cache, self._step_size, length, self._progress(done, len(rows)))
        for i in rows:
            self._states[i].prefilled()
        drawn = self._step(rows, tokens[:, first:], cache)
        while rows:
            more = any(len(self._states[i].tokens) + 1 < self._states[i].limit for i in rows)
            following = self._step(rows, drawn[0][:, None], cache) if more else None
            left = []
            for row, (i, token) in enumerate(zip(rows, cast(list[int], drawn[0].tolist()), strict=True)):
                chunk = self._states[i].add(token, drawn[1][row])
                yield BatchChunk(i, chunk)
                if chunk.finish_reason is None:
                    left.append(row)
            if following is None:
                return
            if 0 < len(left) < len(rows):
                for layer in cache:
                    layer.filter(left)
                following = following[0][mx.array(left)], [following[1][row] for row in left]
            rows, drawn = [rows[row] for row in left], following

    def _step(
        self, rows: list[int], tokens: mx.array, cache: Sequence[KeyValueCache]
    ) -> tuple[mx.array, list[LazyLogprobs | None]]:
        """Tokens `[B, n]` -> each row's next one `[B]`, being computed."""
        logits = self._model(tokens, cache)
        drawn, logprobs = draw_rows([self._states[i].sampler for i in rows], logits[:, -1])
        mx.async_eval(drawn, *(array for entry in logprobs if entry is not None for array in entry.arrays))
        return drawn, logprobs

    def _progress(self, done: int, rows: int) -> OnProgress | None:
        report = self._on_progress
        if report is None:
            return None
        return lambda columns, _: report(done + columns * rows, sum(self._widths))


def is_batch(prompt: object) -> bool:
    """Whether these are several prompts: a list of strings, or of sequences of tokens."""
    return (
        isinstance(prompt, Sequence)
        and not isinstance(prompt, str | bytes)
        and any(
            isinstance(entry, str | mx.array) or (isinstance(entry, Sequence) and not isinstance(entry, bytes))
            for entry in prompt
        )
    )


def generate_batch(
    model: LanguageModel,
    tokenizer: Tokenizer | None,
    prompts: Sequence[Prompt],
    *,
    params: SamplingParams | Sequence[SamplingParams] | None = None,
    batch_size: int = 32,
    make_cache: MakeCache | None = None,
    prefill_step_size: int = 2048,
    on_progress: OnProgress | None = None,
    **settings: Any,
) -> list[GenerationResult]:
    """The answers to several prompts, in their order, with the arguments of `BatchGenerate`; fields of `SamplingParams`
    can be given as keywords, for all prompts.
    """
    if params is None or isinstance(params, SamplingParams):
        params = sampling_params(params, settings)
    else:
        params = [sampling_params(entry, settings) for entry in params]
    with BatchGenerate(
        model,
        tokenizer,
        prompts,
        params=params,
        batch_size=batch_size,
        make_cache=make_cache,
        prefill_step_size=prefill_step_size,
        on_progress=on_progress,
    ) as generation:
        return generation.results()
