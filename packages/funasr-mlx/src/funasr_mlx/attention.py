"""Attention of many frames; on Linux CPUs with an exponential of its own.

MLX's exponential there is scalar code and takes three quarters of attention's time. 2^x is simple operations, which the
compiler turned into vectors: the whole part of x goes to a float's exponent, the rest through a polynomial.
"""

from __future__ import annotations

import math
from typing import cast

import mlx.core as mx

from mlx_core import backend, scaled_dot_product_attention

# 2^f where |f| <= 1/2, within 8e-8.
_POWER = (1.0000000717, 0.6931469670, 0.2402211973, 0.0555071332, 0.0096755412, 0.0013276457)
_ROUNDING = 1.5 * 2**23  # added to a float32, it leaves a whole number in the lowest bits
_LEAST = -125.0  # 2^x of less isn't a normal float32, and of no weight

# Scores that are worked on at once: what is made of them stays in a core's cache, and memory that is freed is used
# again.
_BLOCK = 2**18

# Added to the score of what isn't there, all else is rounded off; finite, so that a row without keys makes no NaN.
_HIDDEN = -1e30


def attend(q: mx.array, k: mx.array, v: mx.array, heads: int, mask: mx.array | None = None) -> mx.array:
    """softmax(q k^T / sqrt(D / H)) v for each head.

    q `[B, T, D]`, k and v `[B, S, D]`, mask `[B, S]`, true for the keys that there are -> `[B, T, D]`. A row without
    keys gives finite numbers of no meaning.
    """
    B, T, D = q.shape
    scale = (D // heads) ** -0.5
    q, k, v = (_split(x, heads) for x in (q, k, v))
    seen = None if mask is None else mask[:, None, None]  # [B, 1, 1, S]
    if backend.current().fast_elementwise and q.dtype == mx.float32:
        out = _in_blocks(q * (scale * math.log2(math.e)), k, v, None if seen is None else mx.where(seen, 0, _HIDDEN))
    else:
        out = scaled_dot_product_attention(q, k, v, scale=scale, mask=seen)
    return out.transpose(0, 2, 1, 3).reshape(B, T, D)


def _in_blocks(q: mx.array, k: mx.array, v: mx.array, hidden: mx.array | None) -> mx.array:
    """`[B, H, T, d]`, `[B, H, S, d]`, what is added to scores `[B, 1, 1, S]` -> `[B, H, T, d]`: a few rows, or heads of
    a row, or queries of a head at a time.
    """
    B, H, T, _ = q.shape
    at_once = max(1, _BLOCK // (T * k.shape[2]))  # heads
    rows, heads = max(1, at_once // H), min(H, at_once)
    queries = T if T * k.shape[2] <= _BLOCK else max(1, _BLOCK // k.shape[2])

    def block(b: int, h: int, t: int) -> mx.array:
        own = slice(b, b + rows), slice(h, h + heads)
        scores = q[(*own, slice(t, t + queries))] @ k[own].swapaxes(-1, -2)
        if hidden is not None:
            scores = scores + hidden[b : b + rows]
        weights = exp2(scores - mx.stop_gradient(scores.max(axis=-1, keepdims=True)))
        return (weights @ v[own]) / weights.sum(axis=-1, keepdims=True)

    def joined(parts: list[mx.array], axis: int) -> mx.array:
        return mx.concatenate(parts, axis=axis) if len(parts) > 1 else parts[0]

    return joined(
        [
            joined([joined([block(b, h, t) for t in range(0, T, queries)], 2) for h in range(0, H, heads)], 1)
            for b in range(0, B, rows)
        ],
        0,
    )


def attention_weights(q: mx.array, k: mx.array, heads: int) -> mx.array:
    """softmax(q k^T / sqrt(D / H)): `[B, T, D]`, `[B, S, D] -> [B, H, T, S]`."""
    scale = (q.shape[-1] // heads) ** -0.5
    return mx.softmax((_split(q, heads) * scale) @ _split(k, heads).swapaxes(-1, -2), axis=-1)


def exp2(x: mx.array) -> mx.array:
    """2^x of float32 up to 1, within 3e-7 of it; what is below 2^-125 is that."""
    return cast(mx.array, _custom(x))


def _exp2(x: mx.array) -> mx.array:
    x = mx.maximum(x, _LEAST)
    rounded = x + _ROUNDING
    rest = x - (rounded - _ROUNDING)
    power = rest * _POWER[-1] + _POWER[-2]
    for coefficient in _POWER[-3::-1]:
        power = power * rest + coefficient
    return (power.view(mx.int32) + (rounded.view(mx.int32) << 23)).view(mx.float32)


def _exp2_vjp(primals: mx.array, cotangent: mx.array, output: mx.array) -> mx.array:
    return cotangent * output * math.log(2)


_custom = mx.custom_function(_exp2)
_custom.vjp(_exp2_vjp)  # it is differentiable, what it is made of isn't


def _split(x: mx.array, heads: int) -> mx.array:
    """`[B, T, D] -> [B, H, T, D / H]`."""
    B, T, D = x.shape
    return x.reshape(B, T, heads, D // heads).transpose(0, 2, 1, 3)
