"""Functions that MLX computes number by number on Linux CPUs, there as polynomials, which the compiler turned into
vectors: several times as fast. Elsewhere they are MLX's own.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn

from .. import backend

CACHE_BLOCK = 2**16  # numbers whose intermediate results stay in a core's cache, and are worth an operation's start

_EXP2 = tuple(math.log(2) ** i / math.factorial(i) for i in range(7))  # 2^f, |f| <= 1/2, within 2e-7
# Phi(x) = 1 / 2 + x p(x^2) / q(x^2) where |x| < 5.6, fitted to 3e-8 of gelu's; beyond, it is 0 or 1.
_BORDER = 5.6
_P = (0.39894190099, 0.035847223302, 0.0048054250014, 1.9015575033e-4, 6.5905826786e-6, 2.1710560621e-8)
_Q = (1.0, 0.25651840771, 0.029803982689, 0.0020033572222, 8.1011143296e-5, 1.1851530558e-6)
# The same as tanh(x r(x^2)): r is atanh(erf(x / sqrt 2)) / x, fitted to 6e-7 of gelu's where x^2 < 25; beyond, as
# there.
_R = (0.797872933, 0.0363649121, -5.73524290e-5, -4.73988774e-5, 2.81255596e-6, -5.71116462e-8)
_R_BORDER = 25.0


def as_polynomials(x: mx.array) -> bool:
    """Whether x is where, and of the dtype for which, polynomials are faster."""
    return backend.current().fast_elementwise and x.dtype == mx.float32 and x.size > 0


def polynomial(coefficients: tuple[float, ...], x: mx.array) -> mx.array:
    """c[0] + c[1] x + c[2] x^2 ..., of two coefficients or more."""
    value = x * coefficients[-1] + coefficients[-2]
    for coefficient in coefficients[-3::-1]:
        value = value * x + coefficient
    return value


def rounded(x: mx.array) -> mx.array:
    """The nearest whole number to x, |x| < 2^22: beyond 2^23 float32 has no others."""
    return (x + 1.5 * 2**23) - 1.5 * 2**23


def _in_blocks(function: Callable[[mx.array], mx.array]) -> Callable[[mx.array], mx.array]:
    """The function, block by block: memory would be slower than the processor."""

    @functools.wraps(function)
    def blockwise(x: mx.array) -> mx.array:
        if x.size <= CACHE_BLOCK or not as_polynomials(x):
            return function(x)
        flat = x.reshape(-1)
        parts = [function(flat[start : start + CACHE_BLOCK]) for start in range(0, flat.size, CACHE_BLOCK)]
        return mx.concatenate(parts).reshape(x.shape)

    return blockwise


def _power(x: mx.array) -> mx.array:
    x = mx.maximum(x, -126.0)
    whole = rounded(x)
    exponent = ((whole + 127) * 2**23).astype(mx.int32).view(mx.float32)  # where float32 keeps it
    return polynomial(_EXP2, x - whole) * exponent


def _power_vjp(primals: mx.array, cotangent: mx.array, output: mx.array) -> mx.array:
    return cotangent * output * math.log(2)


_differentiable_power = mx.custom_function(_power)
_differentiable_power.vjp(_power_vjp)  # 2^x is differentiable, what it is made of isn't


def power_of_two(x: mx.array) -> mx.array:
    """2^x for float32 x <= 127 as a polynomial, within 2e-7 of it where |x| < 1 and 2e-7 |x| beyond; 2^-126 for all
    below.
    """
    return cast(mx.array, _differentiable_power(x))


@_in_blocks
def exp2(x: mx.array) -> mx.array:
    """2^x."""
    return power_of_two(x) if as_polynomials(x) else mx.exp(x * math.log(2))


def gelu(x: mx.array) -> mx.array:
    """The Gaussian error linear unit x Phi(x), exact within 2e-6 (Hendrycks & Gimpel 2016).

    On Linux CPUs many numbers go through NumPy, whose tanh is vectorised: Phi(x) = (1 + tanh(x r(x^2))) / 2.
    """
    if not as_polynomials(x):
        return nn.gelu(x)
    return cast(mx.array, _fast_gelu(x))


def _gelu(x: mx.array) -> mx.array:
    near = mx.minimum(mx.abs(x), _BORDER)
    square = near * near
    # relu(x) less what |x| has of it: so no error grows with x
    return mx.maximum(x, 0) - near * (0.5 - near * (polynomial(_P, square) / polynomial(_Q, square)))


def _gelu_of_many(x: mx.array) -> mx.array:
    try:
        with backend.repaired_scheduler():
            mx.eval(x)
    except (ValueError, RuntimeError) as error:
        if not str(error).startswith("[eval]"):  # a file that can't be read: MLX's second answer would be garbage
            raise
        return _gelu(x)  # an array that a compilation stands for has no numbers yet
    return mx.array(_gelu_of_numbers(x))


@mx.custom_function
def _fast_gelu(x: mx.array) -> mx.array:
    return _gelu(x) if x.size < CACHE_BLOCK else _gelu_of_many(x)


@_fast_gelu.vjp
def _fast_gelu_vjp(x: mx.array, cotangent: mx.array, output: mx.array) -> mx.array:
    return mx.vjp(nn.gelu, [x], [cotangent])[1][0]


@_fast_gelu.jvp
def _fast_gelu_jvp(x: mx.array, tangent: mx.array) -> mx.array:
    return mx.jvp(nn.gelu, [x], [tangent])[1][0]


def _gelu_of_numbers(x: mx.array) -> Any:
    """The same in NumPy, in place and block by block: `[...] -> [...]`."""
    import numpy as np

    numbers = np.asarray(x).reshape(-1)
    result = np.empty_like(numbers)
    spare = np.empty(min(CACHE_BLOCK, numbers.size), np.float32)
    for start in range(0, numbers.size, CACHE_BLOCK):
        part = numbers[start : start + CACHE_BLOCK]
        y, square = result[start : start + CACHE_BLOCK], spare[: part.size]
        with np.errstate(over="ignore"):
            np.square(part, out=square)
        np.minimum(square, _R_BORDER, out=square)
        np.multiply(square, _R[-1], out=y)
        y += _R[-2]
        for coefficient in _R[-3::-1]:
            y *= square
            y += coefficient
        y *= part
        np.tanh(y, out=y)
        y += 1
        y *= part
        y *= 0.5
    return result.reshape(x.shape)


@_in_blocks
def gelu_tanh(x: mx.array) -> mx.array:
    """GELU as tanh approximates it (https://arxiv.org/abs/1606.08415)."""
    if not as_polynomials(x):
        return nn.gelu_approx(x)
    # (1 + tanh u) / 2 = 1 / (1 + e^-2u)
    argument = x * (0.044715 * (x * x) + 1) * (-2 * math.sqrt(2 / math.pi) / math.log(2))
    return x / (1 + power_of_two(mx.minimum(argument, 126.0)))


@_in_blocks
def mish(x: mx.array) -> mx.array:
    """`x tanh(log(1 + e^x))` (https://arxiv.org/abs/1908.08681)."""
    if not as_polynomials(x):
        return nn.mish(x)
    e = power_of_two(mx.minimum(x, 20.0) * (1 / math.log(2)))  # beyond, it is x
    share = e * (e + 2)
    return x * (share / (share + 2))


ACTIVATIONS: dict[str, Callable[[mx.array], mx.array]] = {
    "gelu": gelu,
    "gelu_new": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "relu": nn.relu,
    "silu": nn.silu,
    "swish": nn.silu,
}
"""Activations by the names that configurations have for them (`hidden_act`)."""
