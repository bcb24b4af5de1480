"""Snake, x + sin^2(a x) / b with a and b learnt for each channel, at twice the sample rate.

Paper: https://arxiv.org/abs/2006.08195; with the filters: https://arxiv.org/abs/2206.04658. Signals `[B, T, C]` at the
doubled rate are held as their even and odd samples, so that each filter works on slices of whole signals.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import mlx.core as mx
import mlx.nn as nn

from mlx_core.ops import CACHE_BLOCK, as_polynomials, polynomial, rounded

_EPS = 1e-9
# sin(pi r) / r in r^2, |r| <= 1/2, within 2e-9
_SINE = tuple((-1) ** i * math.pi ** (2 * i + 1) / math.factorial(2 * i + 1) for i in range(7))
# pi in parts: the first times a whole number up to 2^14 is exact in float32
_PI_HIGH, _PI_LOW = 3.140625, 9.67653589793e-4


class Snake(nn.Module):
    """The activation; `beta`: the height has its own parameter, else it is the frequency's ("Snake", "SnakeBeta").
    logscale: the parameters are logarithms.
    """

    TAPS: ClassVar[int] = 12
    """Of either filter."""
    REACH: ClassVar[int] = 6
    """Samples on either side that one depends on: three for each filter, at most."""

    def __init__(self, channels: int, *, beta: bool, logscale: bool) -> None:
        super().__init__()
        self._logscale = logscale
        self.alpha = mx.zeros((channels,))
        if beta:
            self.beta = mx.zeros((channels,))

    def __call__(self, x: mx.array, up: mx.array, down: mx.array) -> mx.array:
        """`[B, T, C] -> [B, T, C]`; up, down: the filters' taps `[12]`."""
        alpha, beta = self.alpha, self.beta if "beta" in self else self.alpha
        if self._logscale:
            alpha, beta = mx.exp(alpha), mx.exp(beta)
        height = 1 / (beta + _EPS)
        B, T, C = x.shape
        taps = list(mx.split(2 * up, self.TAPS)), list(mx.split(down, self.TAPS))
        if not as_polynomials(x):
            return _filtered(x, 0, T, alpha, height, *taps)
        step = max(2 * CACHE_BLOCK // (B * C), 2 * self.TAPS)
        parts = [_filtered(x, start, min(start + step, T), alpha, height, *taps) for start in range(0, T, step)]
        return mx.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]


def sine_squared(x: mx.array) -> mx.array:
    """sin^2 x; as a polynomial within 5e-7 while |x| is below 1e4."""
    if not as_polynomials(x):
        return mx.square(mx.sin(x))
    turns = rounded(x * (1 / math.pi))
    r = ((x - turns * _PI_HIGH) - turns * _PI_LOW) * (1 / math.pi)
    return mx.square(polynomial(_SINE, r * r) * r)


def _filtered(
    x: mx.array,
    start: int,
    stop: int,
    alpha: mx.array,
    height: mx.array,
    up: Sequence[mx.array],
    down: Sequence[mx.array],
) -> mx.array:
    """Samples start to stop of the activation of x.

    With u the doubled signal, whose edges repeat x's: u[2 i] = sum_t up[1 + 2 t] x[i + 2 - t] and u[2 i + 1] =
    sum_t up[2 t] x[i + 3 - t]; the output at i is sum_k down[k] v[2 i + k - 5], v the activated u with its own edges
    repeated.
    """
    T, half = x.shape[1], Snake.TAPS // 2
    first, last = max(start - 3, 0), min(stop + 3, T)  # where v is needed
    near = _repeated(x[:, max(first - 3, 0) : min(last + 3, T)], max(3 - first, 0), max(last + 3 - T, 0))
    length = last - first

    even = _weighted(up[1::2], [near[:, 5 - t : 5 - t + length] for t in range(half)])
    odd = _weighted(up[::2], [near[:, 6 - t : 6 - t + length] for t in range(half)])
    even, odd = (signal + height * sine_squared(alpha * signal) for signal in (even, odd))
    # beyond the beginning all are v[0], which is even; beyond the end v[2 T - 1], which is odd
    left, right = max(3 - start, 0), max(stop + 3 - T, 0)
    even, odd = (
        mx.concatenate([mx.repeat(even[:, :1], left, axis=1), signal, mx.repeat(odd[:, -1:], right, axis=1)], axis=1)
        for signal in (even, odd)
    )
    length = stop - start
    signals = [even[:, 1 + t : 1 + t + length] for t in range(half)] + [odd[:, t : t + length] for t in range(half)]
    return _weighted([*down[1::2], *down[::2]], signals)


def _weighted(weights: Sequence[mx.array], signals: Sequence[mx.array]) -> mx.array:
    products = [weight * signal for weight, signal in zip(weights, signals, strict=True)]
    return sum(products[1:], start=products[0])


def _repeated(x: mx.array, left: int, right: int) -> mx.array:
    """`[B, T, C]` with its first and last sample repeated."""
    return mx.pad(x, [(0, 0), (left, right), (0, 0)], mode="edge") if left or right else x
