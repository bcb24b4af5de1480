"""Attention of a long sequence to itself, without a mask, also where MLX's own is slow."""

from __future__ import annotations

import math

import mlx.core as mx

from mlx_core import scaled_dot_product_attention

from .elementwise import as_polynomials, exp2


def attention(q: mx.array, k: mx.array, v: mx.array, *, scale: float) -> mx.array:
    """`[B, H, T, D]`, keys and values `[B, H, S, D] -> [B, H, T, D]`.

    On Linux CPUs, whose exponential is scalar code, head by head: a head's scores stay near the processor.
    """
    if not as_polynomials(q):
        return scaled_dot_product_attention(q, k, v, scale=scale)
    B, H, T, D = q.shape
    q, k, v = (x.reshape(B * H, -1, D) for x in (q * (scale / math.log(2)), k, v))
    v = mx.concatenate([v, mx.ones((*v.shape[:2], 1))], axis=-1)  # a column more sums the weights
    heads = []
    for query, key, value in zip(q, k, v, strict=True):
        scores = query @ key.T
        weighted = exp2(scores - mx.max(scores, axis=-1, keepdims=True)) @ value
        heads.append(weighted[:, :D] / weighted[:, D:])
    return mx.stack(heads).reshape(B, H, T, D)
