"""Whole sentences of semantic tokens with a guard: a sentence that is stuck or cut short is drawn again.

GPT-SoVITS's first complaint is swallowed and repeated words. Both show in the tokens: a loop that goes on for seconds,
no end within the limit, or a number of tokens that no speaker would need for so many phones.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mlx_core.errors import InputError

from ..networks.t2s import T2S, Sentence
from .decoding import Sampling, decode

TOKENS_PER_S = 25
Verdict = Literal["ok", "stuck", "endless", "short", "long"]


@dataclass(frozen=True, kw_only=True)
class Guard:
    """The signs of a failed sentence, and how often it is tried again.

    - `retries`: further attempts, each with the next seed; the best attempt is kept.
    - `loop_tokens`: "stuck" after so many tokens that repeat a pattern of at most `longest_pattern` tokens.
    - `min_per_phone`, `max_per_phone`: tokens for each phone of the text, beyond which it is "short" or "long";
      `slack_tokens` more are allowed for pauses. Speech has 2 to 3.
    - "endless": `max_tokens` without an end.
    """

    retries: int = 3
    loop_tokens: int = 3 * TOKENS_PER_S
    longest_pattern: int = TOKENS_PER_S
    min_per_phone: float = 0.8
    max_per_phone: float = 10.0
    slack_tokens: int = 2 * TOKENS_PER_S

    def __post_init__(self) -> None:
        counts = (self.retries, self.loop_tokens - 1, self.longest_pattern - 1, self.slack_tokens)
        if min(counts) < 0 or not 0 <= self.min_per_phone < self.max_per_phone:
            raise InputError(f"a guard needs counts of 0 or more, and min_per_phone < max_per_phone; found {self}.")

    def verdict(self, tokens: Sequence[int], phones: int, *, ended: bool, stuck: bool) -> Verdict:
        """The verdict on the tokens of a sentence of so many phones."""
        if stuck:
            return "stuck"
        if not ended:
            return "endless"
        if len(tokens) < self.min_per_phone * phones:
            return "short"
        return "long" if len(tokens) > self.max_per_phone * phones + self.slack_tokens else "ok"


class LoopDetector:
    """A detector of tokens that repeat one pattern: each token equal to the one `period` before it."""

    def __init__(self, loop_tokens: int, longest_pattern: int) -> None:
        self._loop_tokens = loop_tokens
        self._tokens: list[int] = []
        self._runs = [0] * longest_pattern

    def add(self, token: int) -> bool:
        """Whether the pattern has now gone on for `loop_tokens` tokens after its first time."""
        for i in range(min(len(self._runs), len(self._tokens))):
            self._runs[i] = self._runs[i] + 1 if self._tokens[-1 - i] == token else 0
        self._tokens.append(token)
        return max(self._runs, default=0) >= self._loop_tokens


@dataclass(frozen=True)
class Attempt:
    """One try at a sentence."""

    seed: int
    tokens: tuple[int, ...]
    verdict: Verdict


@dataclass(frozen=True)
class Semantics:
    """A sentence's semantic tokens, and every attempt at it in order; `chosen` is the one that they are of."""

    attempts: tuple[Attempt, ...]
    chosen: Attempt

    @property
    def tokens(self) -> tuple[int, ...]:
        return self.chosen.tokens

    @property
    def seed(self) -> int:
        """The seed that gives the same tokens again, without retries."""
        return self.chosen.seed

    @property
    def verdict(self) -> Verdict:
        """The failure that remains after the last retry, "ok" for none."""
        return self.chosen.verdict


def generate(
    model: T2S,
    sentences: Sequence[Sentence],
    sampling: Sampling | None = None,
    *,
    seed: int | Sequence[int] | None = None,
    guard: Guard | None = None,
) -> list[Semantics]:
    """The semantic tokens of sentences, drawn together.

    seed: one for all or one each; a sentence's tokens depend on its own alone. None takes a fresh one. guard: None to
    take what comes, as the official code does; then the verdict is "ok" or "endless".
    """
    sampling = sampling or Sampling()
    seeds = _seeds(seed, len(sentences))
    attempts: list[list[Attempt]] = [[] for _ in sentences]
    rows = list(range(len(sentences)))
    greedy = sampling.top_k == 1  # a retry would say the same
    for retry in range(1 + (0 if guard is None or greedy else guard.retries)):
        tried = [(seeds[row] + retry) % 2**63 for row in rows]
        for row, attempt in zip(
            rows, _attempts(model, [sentences[row] for row in rows], sampling, tried, guard), strict=True
        ):
            attempts[row].append(attempt)
        rows = [row for row in rows if attempts[row][-1].verdict != "ok"]
        if not rows:
            break
    return [Semantics(tuple(tries), min(tries, key=_badness)) for tries in attempts]


def stream(
    model: T2S,
    sentence: Sentence,
    sampling: Sampling | None = None,
    *,
    seed: int | None = None,
    chunk_tokens: int = 24,
    quietness: Sequence[float] | None = None,
) -> Iterator[tuple[int, ...]]:
    """The same tokens as they are drawn, in chunks of `chunk_tokens`, the last of them shorter.

    quietness: for each token how near it is to silence, above 0 where a cut may be; chunks then end at the quietest
    pair of tokens after `chunk_tokens` - 1. Every token comes once.
    """
    if chunk_tokens < 1:
        raise InputError(f"chunk_tokens must be at least 1; found {chunk_tokens!r}.")
    pending: list[int] = []
    (first_seed,) = _seeds(seed, 1)
    for step in decode(model, [sentence], sampling or Sampling(), [first_seed]):
        pending += step.tokens.values()
        cut = _cut(pending, chunk_tokens, quietness)
        if cut:
            yield tuple(pending[:cut])
            pending = pending[cut:]
    if pending:
        yield tuple(pending)


def _cut(pending: list[int], chunk_tokens: int, quietness: Sequence[float] | None) -> int:
    """How many of the tokens to send, 0 to wait."""
    if quietness is None:
        return chunk_tokens if len(pending) >= chunk_tokens else 0
    if len(pending) < chunk_tokens + 2:
        return 0
    scores = [quietness[token] if quietness[token] >= 0 else -1.0 for token in pending]
    pairs = [score + after for score, after in zip(scores, [*scores[1:], 0.0], strict=True)]
    best = max(range(len(pairs)), key=pairs.__getitem__)
    return best + 1 if pairs[best] >= 0 and best + 1 >= chunk_tokens else 0


def _attempts(
    model: T2S, sentences: Sequence[Sentence], sampling: Sampling, seeds: Sequence[int], guard: Guard | None
) -> list[Attempt]:
    detectors = [LoopDetector(guard.loop_tokens, guard.longest_pattern) for _ in sentences] if guard else []
    stuck: set[int] = set()
    ended: set[int] = set()
    tokens: list[list[int]] = [[] for _ in sentences]

    def give_up(row: int, token: int) -> bool:
        if guard is not None and detectors[row].add(token):
            stuck.add(row)
        return row in stuck

    for step in decode(model, sentences, sampling, seeds, give_up):
        ended |= step.ended
        for row, token in step.tokens.items():
            tokens[row].append(token)
    result = []
    for row, sentence in enumerate(sentences):
        verdict: Verdict = "ok" if row in ended else "endless"
        if guard is not None:
            phones = np.asarray(sentence.phones).size if sentence.target_phones is None else sentence.target_phones
            verdict = guard.verdict(tokens[row], phones, ended=row in ended, stuck=row in stuck)
        result.append(Attempt(seeds[row], tuple(tokens[row]), verdict))
    return result


def _badness(attempt: Attempt) -> int:
    """The order of verdicts: a sentence that ended is better than one that didn't."""
    return ("ok", "long", "short", "endless", "stuck").index(attempt.verdict)


def _seeds(seed: int | Sequence[int] | None, count: int) -> list[int]:
    if count == 0:
        raise InputError("there is nothing to speak: no sentence was given.")
    seeds = list(seed) if isinstance(seed, Sequence) else [seed] * count
    if len(seeds) != count:
        raise InputError(f"seed must be one number, or one for each of {count} sentences; found {len(seeds)}.")
    found = [secrets.randbits(63) if value is None else value for value in seeds]
    for value in found:
        check_seed(value)
    return found


def check_seed(seed: int) -> None:
    """Raise InputError for what can't seed a sentence."""
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise InputError(f"seed must be an integer in [0, 2**63), or None for a fresh one; found {seed!r}.")
