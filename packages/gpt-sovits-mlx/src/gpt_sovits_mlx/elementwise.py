"""Functions that MLX computes number by number on Linux CPUs, there as polynomials, which the compiler turned into
vectors: several times as fast. Elsewhere they are MLX's own.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn

from mlx_core import backend

BLOCK = 2**16  # numbers whose intermediate results stay in a core's cache, and are worth an operation's start

_EXP2 = tuple(math.log(2) ** i / math.factorial(i) for i in range(7))  # 2^f, |f| <= 1/2, within 2e-7
# sin(pi r) / r in r^2, |r| <= 1/2, within 2e-9
_SINE = tuple((-1) ** i * math.pi ** (2 * i + 1) / math.factorial(2 * i + 1) for i in range(7))
# pi in parts: the first times a whole number up to 2^14 is exact in float32
_PI_HIGH, _PI_LOW = 3.140625, 9.67653589793e-4


def as_polynomials(x: mx.array) -> bool:
    """Whether x is where, and of the dtype for which, polynomials are faster."""
    return backend.current().fast_gelu and x.dtype == mx.float32 and x.size > 0


def _polynomial(coefficients: tuple[float, ...], x: mx.array) -> mx.array:
    value = x * coefficients[-1] + coefficients[-2]
    for coefficient in coefficients[-3::-1]:
        value = value * x + coefficient
    return value


def _in_blocks(function: Callable[[mx.array], mx.array]) -> Callable[[mx.array], mx.array]:
    """The function, block by block: memory would be slower than the processor."""

    @functools.wraps(function)
    def blockwise(x: mx.array) -> mx.array:
        if x.size <= BLOCK or not as_polynomials(x):
            return function(x)
        flat = x.reshape(-1)
        parts = [function(flat[start : start + BLOCK]) for start in range(0, flat.size, BLOCK)]
        return mx.concatenate(parts).reshape(x.shape)

    return blockwise


def _rounded(x: mx.array) -> mx.array:
    """X to the nearest whole number, |x| < 2^22: beyond 2^23 float32 has no others."""
    return (x + 1.5 * 2**23) - 1.5 * 2**23


def _power_of_two(x: mx.array) -> mx.array:
    """2^x for x <= 127, within 2e-7 of it where |x| < 1 and 2e-7 |x| beyond; 2^-126 for all below."""
    x = mx.maximum(x, -126.0)
    whole = _rounded(x)
    exponent = ((whole + 127) * 2**23).astype(mx.int32).view(mx.float32)  # where float32 keeps it
    return _polynomial(_EXP2, x - whole) * exponent


@_in_blocks
def exp2(x: mx.array) -> mx.array:
    """2^x."""
    return _power_of_two(x) if as_polynomials(x) else mx.exp(x * math.log(2))


@_in_blocks
def gelu_tanh(x: mx.array) -> mx.array:
    """GELU as tanh approximates it (https://arxiv.org/abs/1606.08415)."""
    if not as_polynomials(x):
        return nn.gelu_approx(x)
    # (1 + tanh u) / 2 = 1 / (1 + e^-2u)
    argument = x * (0.044715 * (x * x) + 1) * (-2 * math.sqrt(2 / math.pi) / math.log(2))
    return x / (1 + _power_of_two(mx.minimum(argument, 126.0)))


@_in_blocks
def mish(x: mx.array) -> mx.array:
    """X tanh(log(1 + e^x)) (https://arxiv.org/abs/1908.08681)."""
    if not as_polynomials(x):
        return nn.mish(x)
    e = _power_of_two(mx.minimum(x, 20.0) * (1 / math.log(2)))  # beyond, it is x
    share = e * (e + 2)
    return x * (share / (share + 2))


def sine_squared(x: mx.array) -> mx.array:
    """sin^2 x; as a polynomial within 5e-7 while |x| is below 1e4."""
    if not as_polynomials(x):
        return mx.square(mx.sin(x))
    turns = _rounded(x * (1 / math.pi))
    r = ((x - turns * _PI_HIGH) - turns * _PI_LOW) * (1 / math.pi)
    return mx.square(_polynomial(_SINE, r * r) * r)
