"""Sampling semantic tokens: the official order, exactly, for one sentence or a batch.

    no end in the first 11 steps -> repetition penalty over prompt and answer -> top-p -> / temperature -> top-k
    -> softmax -> argmax(p / e), e ~ Exp(1)

A sentence ends when the drawn token is EOS, or when EOS has the best penalised logit. `B` rows, `V` tokens.
Reference: GPT-SoVITS, `AR/models/utils.py` (`sample`) and `t2s_model.py` (`infer_panel`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from mlx_core import KeyValueCache
from mlx_core.cache import BatchCache
from mlx_core.errors import InputError

from ..networks.t2s import T2S, Sentence

MAX_TOKENS = 1500
_NO_END_STEPS = 11
_MIN_TEMPERATURE = 1e-5


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Settings of drawing tokens. `top_k` 1 takes the best, `top_p` 1 and `repetition_penalty` 1 are off.

    Raises InputError for values out of range.
    """

    top_k: int = 15
    top_p: float = 1.0
    temperature: float = 1.0
    repetition_penalty: float = 1.35
    max_tokens: int = MAX_TOKENS

    def __post_init__(self) -> None:
        check_number("top_k", self.top_k, 1, 2**31, whole=True)
        check_number("top_p", self.top_p, 0, 1)
        check_number("temperature", self.temperature, 0, 1e6)
        check_number("repetition_penalty", self.repetition_penalty, 1e-6, 1e6)
        check_number("max_tokens", self.max_tokens, 1, 2**20, whole=True)


def check_number(name: str, value: Any, smallest: float, largest: float, *, whole: bool = False) -> None:
    """Raise InputError unless the value is a number, or a whole one, in the range."""
    numeric = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if not numeric or not smallest <= value <= largest:
        kind = "a whole number" if whole else "a number"
        raise InputError(f"{name} must be {kind} from {smallest:g} to {largest:g}; found {value!r}.")


def penalise(logits: mx.array, seen: mx.array, penalty: float) -> mx.array:
    """Logits `[B, V]` with those of the tokens in `seen` `[B, V]` bool divided by `penalty`, negative ones
    multiplied.
    """
    if penalty == 1:
        return logits
    return mx.where(seen, mx.where(logits < 0, logits * penalty, logits / penalty), logits)


def probabilities(logits: mx.array, sampling: Sampling) -> mx.array:
    """Penalised logits `[B, V]` float32 -> the probabilities that tokens are drawn by, `[B, V]`.

    Unlike in `mlx_core`, top-p drops the token that crosses the threshold (but the best stays), and tokens that
    tie at top-k's border all stay.
    """
    if sampling.top_p < 1:
        order = mx.argsort(-logits, axis=-1)
        ranked = mx.take_along_axis(logits, order, axis=-1)
        dropped = mx.cumsum(mx.softmax(ranked, axis=-1), axis=-1) > sampling.top_p
        dropped[..., 0] = False
        logits = mx.put_along_axis(logits, order, mx.where(dropped, -mx.inf, ranked), axis=-1)
    logits = logits / max(sampling.temperature, _MIN_TEMPERATURE)
    if sampling.top_k < logits.shape[-1]:
        border = mx.min(mx.topk(logits, sampling.top_k, axis=-1), axis=-1, keepdims=True)
        logits = mx.where(logits < border, -mx.inf, logits)
    return mx.softmax(logits, axis=-1, precise=True)


def draw(probs: mx.array, exponential: mx.array) -> mx.array:
    """A token for each row, `[B]` int32: argmax(p / e) draws from p where e ~ Exp(1), `[B, V]`."""
    return mx.argmax(probs / exponential, axis=-1).astype(mx.int32)


@dataclass(frozen=True)
class Step:
    """The result of one step of a batch: a token for each row that hadn't ended, and the rows that ended by EOS, which isn't
    among the tokens. Rows are numbered as the sentences were given.
    """

    tokens: dict[int, int]
    ended: frozenset[int]


def decode(
    model: T2S,
    sentences: Sequence[Sentence],
    sampling: Sampling,
    seeds: Sequence[int],
    give_up: Callable[[int, int], bool] = lambda row, token: False,
) -> Iterator[Step]:
    """The tokens of sentences together, one step after the other, until all have ended or `max_tokens` are drawn.

    A row's draws depend on its own seed only. `give_up(row, token)` is told each token, and ends the row by True. The
    next step is computed while the last one's tokens are read.
    """
    if len(seeds) != len(sentences) or not sentences:
        raise InputError(f"each sentence has a seed; got {len(sentences)} sentences and {len(seeds)} seeds.")
    logits, cache, prompts = model.prefill(sentences)
    state = _Rows(model, cache, prompts, sampling, seeds)
    pending = state.step(logits)
    for number in range(sampling.max_tokens):
        following = state.step(state.forward(pending[0])) if number + 1 < sampling.max_tokens else None
        tokens: Any = pending[0].tolist()
        ends: Any = pending[1].tolist()
        drawn = {row: token for row, token, end in zip(state.rows, tokens, ends, strict=True) if not end}
        gone_on = {row for row, token in drawn.items() if not give_up(row, token)}
        step = Step(drawn, frozenset(row for row, end in zip(state.rows, ends, strict=True) if end))
        speaking = [place for place, row in enumerate(state.rows) if row in gone_on]
        if following is None or not speaking:
            yield step
            return
        if len(speaking) < len(tokens):
            following = state.keep(speaking, following)
        pending = following
        yield step


class _Rows:
    """The rows that haven't ended: caches, tokens seen, positions and random states."""

    def __init__(
        self,
        model: T2S,
        cache: list[KeyValueCache],
        prompts: Sequence[mx.array],
        sampling: Sampling,
        seeds: Sequence[int],
    ) -> None:
        self.model, self.cache, self.sampling = model, cache, sampling
        self.rows = list(range(len(prompts)))
        self.end = model.config.EOS
        self.column = mx.arange(model.config.vocab_size)
        self.seen = mx.stack([mx.any(prompt[:, None] == self.column, axis=0) for prompt in prompts])  # [B, V]
        self.positions = mx.array([prompt.size for prompt in prompts])  # of the next token in the audio, [B]
        self.keys = [mx.random.key(seed) for seed in seeds]
        self.steps = 0

    def step(self, logits: mx.array) -> tuple[mx.array, mx.array]:
        """Logits `[B, V]` -> tokens `[B]`, and whether each row ends with this one `[B]`. Starts the computation."""
        if self.steps < _NO_END_STEPS:
            logits = mx.where(self.column == self.end, -mx.inf, logits)
        self.steps += 1
        logits = penalise(logits, self.seen, self.sampling.repetition_penalty)
        best = mx.argmax(logits, axis=-1).astype(mx.int32)
        if self.sampling.top_k == 1:
            tokens = best
        else:
            tokens = draw(probabilities(logits, self.sampling), self._exponential(logits.shape[-1]))
        self.seen = self.seen | (tokens[:, None] == self.column)
        ends = (tokens == self.end) | (best == self.end)
        mx.async_eval(tokens, ends)
        return tokens, ends

    def forward(self, tokens: mx.array) -> mx.array:
        """Tokens `[B]` -> the next logits `[B, V]`."""
        x = self.model.embed_tokens(tokens[:, None], self.positions[:, None])
        self.positions = self.positions + 1
        hidden = self.model(x, self.cache, self.cache[0].make_mask(1))
        return self.model.predict(hidden[:, -1])

    def keep(self, places: list[int], pending: tuple[mx.array, mx.array]) -> tuple[mx.array, mx.array]:
        """Drop all rows but these; returns what was computed for them."""
        index = mx.array(places)
        for cache in self.cache:
            if isinstance(cache, BatchCache):
                cache.filter(places)
        self.rows = [self.rows[place] for place in places]
        self.keys = [self.keys[place] for place in places]
        self.seen, self.positions = self.seen[index], self.positions[index]
        return pending[0][index], pending[1][index]

    def _exponential(self, vocab_size: int) -> mx.array:
        """Exp(1) for each row from its own key, `[B, V]`."""
        pairs = [mx.random.split(key) for key in self.keys]
        self.keys = [pair[0] for pair in pairs]
        uniform = mx.stack([mx.random.uniform(shape=(vocab_size,), key=pair[1]) for pair in pairs])
        return -mx.log(uniform)  # above 0, as uniform < 1
