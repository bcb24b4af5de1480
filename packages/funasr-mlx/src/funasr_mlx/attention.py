"""Attention of many frames, in heads."""

from __future__ import annotations

import mlx.core as mx

from mlx_core.ops import bidirectional_attention


def attend(q: mx.array, k: mx.array, v: mx.array, heads: int, mask: mx.array | None = None) -> mx.array:
    """softmax(q k^T / sqrt(D / H)) v for each head.

    q `[B, T, D]`, k and v `[B, S, D]`, mask `[B, S]`, true for the keys that there are -> `[B, T, D]`. A row without
    keys gives finite numbers of no meaning.
    """
    B, T, D = q.shape
    scale = (D // heads) ** -0.5
    out = bidirectional_attention(*(_split(x, heads) for x in (q, k, v)), scale=scale, mask=mask)
    return out.transpose(0, 2, 1, 3).reshape(B, T, D)


def attention_weights(q: mx.array, k: mx.array, heads: int) -> mx.array:
    """softmax(q k^T / sqrt(D / H)): `[B, T, D]`, `[B, S, D] -> [B, H, T, S]`."""
    scale = (q.shape[-1] // heads) ** -0.5
    return mx.softmax((_split(q, heads) * scale) @ _split(k, heads).swapaxes(-1, -2), axis=-1)


def _split(x: mx.array, heads: int) -> mx.array:
    """`[B, T, D] -> [B, H, T, D / H]`."""
    B, T, D = x.shape
    return x.reshape(B, T, heads, D // heads).transpose(0, 2, 1, 3)
