"""The gain from each part of the Linux CPU backend, against the same code with it switched off, alternating in one run.

uv run scripts/bench/cpu_backend.py [--rounds 5] [--json]

The figures in docs/performance.md come from here. Ratios are medians over rounds of (time off) / (time on).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import mlx.core as mx

from mlx_core import backend, conv1d, conv2d, conv_transpose1d, stream_generate
from mlx_core.ops import bidirectional_attention, gelu, mish
from qwen3_mlx import demo_model, load_model

OFF: dict[str, Any] = {"fast_blas": False, "one_row": False, "fast_convolutions": False, "fast_elementwise": False}
PARTS: dict[str, dict[str, Any]] = {
    "all": dict.fromkeys(OFF, True),
    "without one_row": {**dict.fromkeys(OFF, True), "one_row": False},
}


def draw(*shape: int) -> mx.array:
    array = mx.random.normal(shape, key=mx.random.key(0))
    mx.eval(array)
    return array


def timed(work: Callable[[], mx.array]) -> Callable[[], float]:
    def run() -> float:
        start = time.perf_counter()
        mx.eval(work())
        return time.perf_counter() - start

    return run


def language_model(prompt: int, generated: int) -> tuple[Callable[[], float], Callable[[], float]]:
    """Timers of SmolLM2's prefill and decode."""
    model = load_model(demo_model(), dtype="float32")
    tokens = [int(token) for token in mx.random.randint(0, model.vocab_size, (prompt,), key=mx.random.key(0)).tolist()]  # type: ignore[union-attr,arg-type]

    def prefill() -> float:
        start = time.perf_counter()
        for _ in stream_generate(model, None, tokens, max_tokens=1):
            pass
        return time.perf_counter() - start

    def decode() -> float:
        generation = stream_generate(model, None, tokens[:16], max_tokens=generated)
        next(generation)
        start = time.perf_counter()
        for _ in generation:
            pass
        return time.perf_counter() - start

    return prefill, decode


def cases(with_model: bool) -> dict[str, Callable[[], float]]:
    a, w, row = draw(512, 1024), draw(3072, 1024), draw(1, 1024)
    # a vocoder's layers (HiFi-GAN's sizes, some 0.3 s of sound)
    x, up = draw(1, 32, 512), draw(256, 16, 512)
    y, narrow = draw(1, 256, 256), draw(256, 11, 256)
    z, wide = draw(1, 2048, 64), draw(64, 7, 64)
    grouped, depth = draw(256, 7, 16), draw(256, 31, 1)
    image, square = draw(1, 80, 100, 32), draw(32, 3, 3, 32)
    heads, up_projected = draw(1, 12, 500, 64), draw(500, 3072)
    found = {
        "matmul 512 x 1024 x 3072": timed(lambda: a @ w.T),
        "matmul 1 x 1024 x 3072": timed(lambda: row @ w.T),
        "conv1d 256 -> 256, k 11, dilation 5": timed(lambda: conv1d(y, narrow, padding=25, dilation=5)),
        "conv1d 64 -> 64, k 7, dilation 3": timed(lambda: conv1d(z, wide, padding=9, dilation=3)),
        "conv1d 256 -> 256, k 11": timed(lambda: conv1d(y, narrow, padding=5)),
        "conv1d 256 -> 256, k 7, 16 groups": timed(lambda: conv1d(y, grouped, padding=3, groups=16)),
        "conv1d 256, k 31, depthwise": timed(lambda: conv1d(y, depth, padding=15, groups=256)),
        "conv_transpose1d 512 -> 256, k 16, stride 8": timed(lambda: conv_transpose1d(x, up, stride=8, padding=4)),
        "gelu 500 x 3072": timed(lambda: gelu(up_projected)),
        "mish 500 x 3072": timed(lambda: mish(up_projected)),
        "attention 12 x 500 x 64": timed(lambda: bidirectional_attention(heads, heads, heads, scale=0.125)),
        "conv2d 32 -> 32, 3 x 3, 80 x 100": timed(lambda: conv2d(image, square, padding=1)),
    }
    if with_model:
        found["SmolLM2 prefill 512"], found["SmolLM2 decode 32"] = language_model(512, 32)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="Time the CPU backend's parts, on against off.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-model", action="store_true", help="leave the language model out")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if backend.current().name != "cpu":
        print("this measures the CPU backend", file=sys.stderr)
        return 1
    results: dict[str, dict[str, float]] = {}
    for name, run in cases(not args.no_model).items():
        times: dict[str, list[float]] = {"off": [], **{part: [] for part in PARTS}}
        for number in range(args.rounds + 1):
            for part, settings in {"off": OFF, **PARTS}.items():
                with backend.override(**settings):
                    elapsed = run()
                if number:  # the first round warms up
                    times[part].append(elapsed)
        medians = {part: statistics.median(values) for part, values in times.items()}
        ratios = {
            part: statistics.median(off / on for off, on in zip(times["off"], times[part], strict=True))
            for part in PARTS
        }
        results[name] = {"off_s": medians["off"], **{f"{part}_s": medians[part] for part in PARTS}, **ratios}
        if not args.json:
            print(
                f"{name:46} off {medians['off'] * 1e3:9.2f} ms   on {medians['all'] * 1e3:8.2f} ms   "
                f"{ratios['all']:6.1f}x   (without one_row {ratios['without one_row']:.1f}x)",
                flush=True,
            )
    if args.json:
        print(json.dumps(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
