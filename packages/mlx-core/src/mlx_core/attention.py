"""Attention masks and scaled dot-product attention.

A mask is one of three things: None (every key is visible), "causal" (the fused kernels' own, aligned at the last
key), or a boolean array that is true where a key is visible.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import mlx.core as mx

from .errors import InputError

if TYPE_CHECKING:
    from .cache.protocol import KeyValueCache, Mask


def causal_mask(
    n: int, offset: int = 0, window_size: int | None = None, return_array: bool = False
) -> mx.array | Literal["causal"] | None:
    """The mask of n new tokens over `offset` earlier ones and themselves, keys in the order of their positions.

    Token p sees the keys p - window_size + 1 to p: exactly `window_size` of them, itself included. Returns None for
    one token that sees everything, "causal" for several, else (or with `return_array`) a boolean `[n, offset + n]`.
    """
    if window_size is not None and window_size < 1:
        raise InputError(f"a window holds at least one key, the token's own; got window_size={window_size}.")
    hides = window_size is not None and offset + n > window_size
    if not (hides or return_array):
        return None if n == 1 else "causal"
    keys = mx.arange(offset + n)[None, :]
    queries = mx.arange(offset, offset + n)[:, None]
    mask = keys <= queries
    return mask & (keys > queries - window_size) if window_size is not None else mask


def create_attention_mask(
    h: mx.array, cache: KeyValueCache | None = None, *, window_size: int | None = None, return_array: bool = False
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
    keys: mx.array,
    values: mx.array,
    *,
    cache: KeyValueCache | None = None,
    scale: float,
    mask: Mask = None,
    sinks: mx.array | None = None,
) -> mx.array:
    """softmax(scale * queries @ keys^T + mask) @ values, the softmax in fp32.

    queries `[B, H, L, D]`; keys `[B, H_kv, S, D]` and values `[B, H_kv, S, D_v]`, as `cache.update_and_fetch` returns
    them; H_kv divides H. `sinks` `[H]` are logits that take part in the softmax and have no value. Returns `[B, H, L,
    D_v]`.
    """
    return mx.fast.scaled_dot_product_attention(queries, keys, values, scale=scale, mask=mask, sinks=sinks)
