"""Prefill and decode speed, alone or against a peer in the same run.

Machines drift, so the contestants alternate, and what counts is the ratio of medians. Both are timed from outside by
the same clock: prefill until the first token is on the host, decode from there to the last.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from . import backend
from .errors import BackendError, InputError
from .generation import stream_generate
from .models import CausalLM, save_model

Contestant = Callable[[list[int], int], Iterable[Any]]
"""(prompt, tokens to generate) -> an iterator that yields once per token."""


@dataclass(frozen=True)
class Speeds:
    """Medians and extremes of one contestant over all rounds, in tokens per second."""

    prefill: float
    decode: float
    prefill_range: tuple[float, float]
    decode_range: tuple[float, float]


@dataclass(frozen=True)
class BenchResult:
    """Measured speeds. `ratios` are ours over the peer's, round by round, as medians."""

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
    on_round: Callable[[int, int], None] | None = None,
) -> BenchResult:
    """Time `model`, and `peers` in turn with it, on the same random prompts. One round more comes first, which
    doesn't count.
    """
    for name, value, least in (
        ("prompt_tokens", prompt_tokens, 2),
        ("generate_tokens", generate_tokens, 2),
        ("rounds", rounds, 1),
    ):
        if value < least:
            raise InputError(f"{name} must be at least {least}; got {value}.")
    contestants: dict[str, Contestant] = {"ours": ours(model), **(peers or {})}
    rng = np.random.default_rng(0)
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        prompt = rng.integers(0, model.vocab_size, prompt_tokens).tolist()
        for name, contestant in contestants.items():
            prefill_s, decode_s = _time(contestant(prompt, generate_tokens), generate_tokens)
            if number:
                samples[name].append((prompt_tokens / prefill_s, (generate_tokens - 1) / decode_s))
            mx.clear_cache()
        if on_round is not None:
            on_round(number, rounds)
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
