"""Timing by rounds, and with it the prefill and decode speed of a language model, alone or against a peer.

Machines drift, so contestants alternate, one round warms up and isn't counted, and figures are medians of the others.
Language models are timed from outside by one clock: prefill until the first token is on the host, decode from there to
the last.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import mlx.core as mx
import numpy as np

from . import backend
from .errors import BackendError, InputError
from .generation import stream_generate
from .models import CausalLM, save_model

T = TypeVar("T")

OnRound = Callable[[int, int], None]
"""Called after each round with its number, 0 for the one that warms up, and the number of rounds that count."""

Contestant = Callable[[list[int], int], Iterable[Any]]
"""(prompt, tokens to generate) -> an iterator that yields once per token."""


@dataclass(frozen=True)
class Times:
    """Seconds that a call takes, over all rounds that count."""

    median_s: float
    fastest_s: float


def measure_rounds(
    contestants: Mapping[str, Callable[[int], T]], rounds: int, on_round: OnRound | None = None
) -> dict[str, list[T]]:
    """The results of each contestant, by round; in every round they are called one after the other with its number.

    Round 0 warms up (kernels are compiled, files read) and isn't among the results. Raises InputError for less than
    one round.
    """
    if rounds < 1:
        raise InputError(f"rounds must be at least 1; got {rounds}.")
    results: dict[str, list[T]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name, contestant in contestants.items():
            result = contestant(number)
            if number:
                results[name].append(result)
        if on_round is not None:
            on_round(number, rounds)
    return results


def time_rounds(run: Callable[[], object], rounds: int) -> Times:
    """Time `run`, which must evaluate what it computes; one call more comes first. Raises InputError for no rounds."""

    def timed(_: int) -> float:
        start = time.perf_counter()
        run()
        return time.perf_counter() - start

    (seconds,) = measure_rounds({"run": timed}, rounds).values()
    return Times(statistics.median(seconds), min(seconds))


@dataclass(frozen=True)
class Speeds:
    """Medians and extremes of one contestant over all rounds, in tokens per second."""

    prefill: float
    decode: float
    prefill_range: tuple[float, float]
    decode_range: tuple[float, float]


@dataclass(frozen=True)
class BenchResult:
    """Speeds by contestant. `ratios` are ours over the peer's, round by round, as medians."""

    prompt_tokens: int
    generated_tokens: int
    rounds: int
    backend: str
    device: str
    peak_memory_bytes: int
    speeds: Mapping[str, Speeds]
    ratios: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def bench(
    model: CausalLM,
    *,
    prompt_tokens: int = 512,
    generate_tokens: int = 128,
    rounds: int = 5,
    peers: Mapping[str, Contestant] | None = None,
    on_round: OnRound | None = None,
) -> BenchResult:
    """Time `model`, and `peers` in turn with it, on the same random prompts. Raises InputError for too few tokens or
    rounds.
    """
    for name, value in (("prompt_tokens", prompt_tokens), ("generate_tokens", generate_tokens)):
        if value < 2:
            raise InputError(f"{name} must be at least 2; got {value}.")
    rng = np.random.default_rng(0)
    prompts = [rng.integers(0, model.vocab_size, prompt_tokens).tolist() for _ in range(rounds + 1)]

    def timed(contestant: Contestant, number: int) -> tuple[float, float]:
        prefill_s, decode_s = _time(contestant(prompts[number], generate_tokens), generate_tokens)
        mx.clear_cache()  # so that none finds the other's buffers
        return prompt_tokens / prefill_s, (generate_tokens - 1) / decode_s

    contestants = {
        name: partial(timed, contestant) for name, contestant in {"ours": ours(model), **(peers or {})}.items()
    }
    samples = measure_rounds(contestants, rounds, on_round)
    ratios = {}
    for name in contestants.keys() - {"ours"}:
        for i, what in enumerate(("prefill", "decode")):
            pairs = zip(samples["ours"], samples[name], strict=True)
            ratios[f"{what} / {name}"] = statistics.median(mine[i] / theirs[i] for mine, theirs in pairs)
    device = backend.current()
    return BenchResult(
        prompt_tokens,
        generate_tokens,
        rounds,
        device.name,
        device.device_name,
        backend.peak_memory_bytes(),
        {name: _summary(values) for name, values in samples.items()},
        ratios,
    )


def ours(model: CausalLM) -> Contestant:
    """Our own generation."""
    return lambda prompt, n: stream_generate(model, None, prompt, max_tokens=n)


def mlx_lm(model: CausalLM, config: Mapping[str, Any]) -> Contestant:
    """mlx-lm's generation on the same weights, which it loads from a folder written for it. Raises BackendError
    without it.
    """
    try:
        from mlx_lm.generate import generate_step
        from mlx_lm.utils import load_model as load_peer
    except ImportError as error:
        raise BackendError(
            f"mlx-lm can't be imported ({error}). Add it to the run: `uv run --with mlx-lm ...`."
        ) from error
    with tempfile.TemporaryDirectory() as folder:
        save_model(Path(folder) / "model", model, config)
        peer, _ = load_peer(Path(folder) / "model")  # which reads all weights before it returns

    def contestant(prompt: list[int], n: int) -> Iterator[Any]:
        return iter(generate_step(mx.array(prompt), peer, max_tokens=n))

    return contestant


PEERS: dict[str, Callable[[CausalLM, Mapping[str, Any]], Contestant]] = {"mlx-lm": mlx_lm}


def _time(tokens: Iterable[Any], expected: int) -> tuple[float, float]:
    iterator = iter(tokens)
    start = time.perf_counter()
    next(iterator)
    first = time.perf_counter()
    count = 1 + sum(1 for _ in iterator)
    last = time.perf_counter()
    if count != expected:
        raise InputError(f"a contestant gave {count} tokens of {expected}; its timing means nothing.")
    return first - start, last - first


def _summary(values: list[tuple[float, float]]) -> Speeds:
    prefill, decode = [value[0] for value in values], [value[1] for value in values]
    return Speeds(
        statistics.median(prefill), statistics.median(decode), (min(prefill), max(prefill)), (min(decode), max(decode))
    )
