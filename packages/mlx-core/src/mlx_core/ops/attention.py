"""Attention masks and scaled dot-product attention.

A mask is one of three things: None (every key is visible), "causal" (the fused kernels' own, aligned at the last
key), or a boolean array that is true where a key is visible.
"""

from __future__ import annotations

import math
from typing import Literal, Protocol

import mlx.core as mx

from .. import backend
from ..errors import InputError
from .activations import as_polynomials, power_of_two
from .packed import HadamardPacked, MaybePacked, Packed, hadamard_transform

Mask = mx.array | Literal["causal"] | None


class MakesMask(Protocol):
    """A cache, as far as masks are concerned."""

    def make_mask(self, n: int, window_size: int | None = None, return_array: bool = False) -> Mask: ...


# Where exponentials are polynomials: scores that are worked on at once, which stay in a core's cache, and from how
# many on it is worth the operations' start.
_SCORES, _FEWEST_SCORES = 2**18, 2**15

# Added to the score of what isn't there, all else is rounded off; finite, so that a row without keys makes no NaN.
_HIDDEN = -1e30


def causal_mask(
    n: int, offset: int = 0, window_size: int | None = None, return_array: bool = False
) -> mx.array | Literal["causal"] | None:
    """The mask of n new tokens over `offset` earlier ones and themselves, keys in the order of their positions.

    Token p sees the keys p - window_size + 1 to p: exactly `window_size` of them, itself included. Returns None for
    one token that sees everything, "causal" for several, else (or with `return_array`) a boolean `[n, offset + n]`.
    """
    check_window(window_size)
    hides = window_size is not None and offset + n > window_size
    if not (hides or return_array):
        return None if n == 1 else "causal"
    keys = mx.arange(offset + n)[None, :]
    queries = mx.arange(offset, offset + n)[:, None]
    mask = keys <= queries
    return mask & (keys > queries - window_size) if window_size is not None else mask


def check_window(window_size: int | None) -> None:
    """Raise InputError for a window that holds nothing."""
    if window_size is not None and window_size < 1:
        raise InputError(f"a window holds at least one key, the token's own; got window_size={window_size}.")


def create_attention_mask(
    h: mx.array, cache: MakesMask | None = None, *, window_size: int | None = None, return_array: bool = False
) -> Mask:
    """The mask for the tokens of `h`, asked before their keys are appended to `cache`.

    h: `[B, L, ...]`. Returns None for one token when neither a window nor padding hides a cached key, "causal" where
    the fused kernels can do it, else a boolean array that broadcasts to `[B, 1, L, keys]`. A window of w keeps
    exactly w keys.
    """
    n = h.shape[1]
    if cache is None:
        return causal_mask(n, 0, window_size, return_array)
    return cache.make_mask(n, window_size=window_size, return_array=return_array)


def scaled_dot_product_attention(
    queries: mx.array,
    keys: MaybePacked,
    values: MaybePacked,
    *,
    cache: object = None,
    scale: float,
    mask: Mask = None,
    sinks: mx.array | None = None,
    softcap: float | None = None,
) -> mx.array:
    """softmax(scale * queries @ keys^T + mask) @ values, the softmax in fp32.

    queries `[B, H, L, D]`; keys `[B, H_kv, S, D]` and values `[B, H_kv, S, D_v]`, plain or packed, as
    `cache.update_and_fetch` returns them; H_kv divides H. `cache` isn't read: mlx-lm's callers pass it. `sinks` `[H]`
    are logits that take part in the softmax and have no value; with `softcap` scores become
    softcap * tanh(scores / softcap) before the mask. Returns `[B, H, L, D_v]`.
    """
    if isinstance(keys, mx.array) and isinstance(values, mx.array):
        if softcap is not None:
            return _by_definition(queries, keys, values, scale, mask, sinks, softcap)
        return mx.fast.scaled_dot_product_attention(queries, keys, values, scale=scale, mask=mask, sinks=sinks)
    if isinstance(keys, mx.array) or isinstance(values, mx.array):
        raise InputError("keys and values are both arrays or both packed, as a cache returns them.")
    if isinstance(keys, HadamardPacked):
        queries = hadamard_transform(queries)
    # Of a chunk's scores the fused kernel keeps a tile at a time, where products with packed keys make them all.
    if queries.shape[2] == 1 and backend.current().attend_packed:
        out = _by_definition(queries, keys, values, scale, mask, sinks, softcap)
    else:
        group_size, bits = _packing(keys, queries.shape[-1])
        k, v = (mx.dequantize(*held, group_size=group_size, bits=bits).astype(queries.dtype) for held in (keys, values))
        out = scaled_dot_product_attention(queries, k, v, scale=scale, mask=mask, sinks=sinks, softcap=softcap)
    return hadamard_transform(out) if isinstance(values, HadamardPacked) else out


def bidirectional_attention(
    q: mx.array, k: mx.array, v: mx.array, *, scale: float, mask: mx.array | None = None
) -> mx.array:
    """Attention of many tokens to all others, as encoders and diffusion transformers have it.

    `[B, H, T, D]`, keys and values `[B, H, S, D]`, mask `[B, S]`, true for the keys that there are -> `[B, H, T, D]`. A
    row without keys gives finite numbers of no meaning. On Linux CPUs, whose exponential is scalar code, with
    `power_of_two`, some heads or some queries of a head at a time.
    """
    B, H, T, D = q.shape
    if B * H * T * k.shape[2] < _FEWEST_SCORES or not as_polynomials(q):
        seen = None if mask is None else mask[:, None, None]
        return mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, mask=seen)
    q, k, v = (x.reshape(B * H, -1, D) for x in (q * (scale / math.log(2)), k, v))
    v = mx.concatenate([v, mx.ones((*v.shape[:2], 1))], axis=-1)  # a column more sums the weights
    hidden = None if mask is None else mx.repeat(mx.where(mask, 0.0, _HIDDEN), H, axis=0)[:, None]  # [B H, 1, S]
    heads = max(1, _SCORES // (T * k.shape[1]))
    queries = T if heads > 1 else max(1, _SCORES // k.shape[1])
    parts = []
    for head in range(0, B * H, heads):
        own = slice(head, head + heads)
        keys, values = k[own].swapaxes(-1, -2), v[own]
        rows = []
        for first in range(0, T, queries):
            scores = q[own, first : first + queries] @ keys
            if hidden is not None:
                scores = scores + hidden[own]
            largest = mx.stop_gradient(mx.max(scores, axis=-1, keepdims=True))
            weighted = power_of_two(scores - largest) @ values
            rows.append(weighted[..., :D] / weighted[..., D:])
        parts.append(mx.concatenate(rows, axis=1) if len(rows) > 1 else rows[0])
    return (mx.concatenate(parts) if len(parts) > 1 else parts[0]).reshape(B, H, T, D)


def multi_head(
    q: mx.array, k: mx.array, v: mx.array, n_heads: int, *, scale: float | None = None, mask: mx.array | None = None
) -> mx.array:
    """`bidirectional_attention` in heads: q `[B, T, H D]`, k and v `[B, S, H D]`, mask `[B, S]` -> `[B, T, H D]`.

    scale: of the scores, by default 1 / sqrt(D).
    """
    q, k, v = (split_heads(x, n_heads) for x in (q, k, v))
    return merge_heads(bidirectional_attention(q, k, v, scale=scale or q.shape[-1] ** -0.5, mask=mask))


def split_heads(x: mx.array, n_heads: int) -> mx.array:
    """`[B, L, H D] -> [B, H, L, D]`."""
    return x.reshape(*x.shape[:2], n_heads, -1).transpose(0, 2, 1, 3)


def merge_heads(x: mx.array) -> mx.array:
    """`[B, H, L, D] -> [B, L, H D]`."""
    B, _, L, _ = x.shape
    return x.transpose(0, 2, 1, 3).reshape(B, L, -1)


def _packing(keys: Packed, head_dim: int) -> tuple[int, int]:
    """Group size and bits of packed keys."""
    return head_dim // keys[1].shape[-1], keys[0].shape[-1] * 32 // head_dim


def softcapped(x: mx.array, softcap: float) -> mx.array:
    """Softcap * tanh(x / softcap), which keeps x within the cap (Gemma 2, https://arxiv.org/abs/2408.00118)."""
    return mx.tanh(x / softcap) * softcap


def _by_definition(
    queries: mx.array,
    keys: MaybePacked,
    values: MaybePacked,
    scale: float,
    mask: Mask,
    sinks: mx.array | None,
    softcap: float | None,
) -> mx.array:
    """The definition step by step, for what the fused kernels don't have: packed keys and values, softcaps."""
    B, H, L, D = queries.shape
    heads = (keys if isinstance(keys, mx.array) else keys.weight).shape[1]
    packing = (0, 0) if isinstance(keys, mx.array) else _packing(keys, D)
    q = (queries * scale).reshape(B, heads, H // heads, L, D)
    scores = _product(q, keys, packing, transpose=True)  # [B, Hk, H / Hk, L, S]
    if softcap is not None:
        scores = softcapped(scores, softcap)
    if mask == "causal":
        mask = causal_mask(L, scores.shape[-1] - L, return_array=True)
    if isinstance(mask, mx.array):
        rows = mx.broadcast_to(mask, (B, H, L, mask.shape[-1])).reshape(B, heads, H // heads, L, -1)
        scores = mx.where(rows, scores, mx.finfo(scores.dtype).min) if mask.dtype == mx.bool_ else scores + rows
    if sinks is not None:
        sink = mx.broadcast_to(sinks.astype(scores.dtype).reshape(1, heads, -1, 1, 1), (*scores.shape[:-1], 1))
        scores = mx.concatenate([sink, scores], axis=-1)
    weights = mx.softmax(scores, axis=-1, precise=True)
    if sinks is not None:
        weights = weights[..., 1:]
    return _product(weights, values, packing, transpose=False).reshape(B, H, L, -1)


def _product(x: mx.array, y: MaybePacked, packing: tuple[int, int], *, transpose: bool) -> mx.array:
    """x `[B, Hk, G, L, ...]` times keys (transposed) or values `[B, Hk, S, D]`, plain or packed (group size, bits)."""
    if isinstance(y, mx.array):
        y = y[:, :, None]
        return x @ (y.swapaxes(-1, -2) if transpose else y)
    group_size, bits = packing
    weight, scales, biases = (part[:, :, None] for part in y)  # [B, Hk, 1, S, ...]
    return mx.quantized_matmul(x, weight, scales, biases, transpose, group_size, bits)
