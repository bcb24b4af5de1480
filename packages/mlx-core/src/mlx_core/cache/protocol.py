"""The protocol of key-value caches, and the checks that every kind shares.

Shapes: keys and values are `[B, n_kv_heads, L, head_dim]`; the two head_dims may differ.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Protocol, Self, runtime_checkable

import mlx.core as mx

from ..errors import CacheError
from ..ops import Mask, MaybePacked, scaled_dot_product_attention


@runtime_checkable
class KeyValueCache(Protocol):
    """Keys and values of the tokens that a layer has seen.

    Attention, generation and saving ask a cache for what they need, never for its type. A kind of one's own derives from
    this class, whose `attend`, `can_trim`, `mask_key` and `unbounded` do what is right for a cache that keeps every token.

    Every kind is transactional: an update, trim or load that fails leaves the cache as it was. A token that was trimmed
    never comes back, and a copy evolves on its own.
    """

    @property
    def offset(self) -> int | mx.array:
        """Tokens seen so far, which is the position of the next one; `[B]` int32 where the rows of a batch differ."""
        ...

    @property
    def max_size(self) -> int | None:
        """The most tokens that are kept, None for all of them."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes allocated."""
        ...

    @property
    def is_empty(self) -> bool:
        """Whether no token is held."""
        ...

    @property
    def is_trimmable(self) -> bool:
        """Whether the latest tokens can be taken back exactly."""
        ...

    @property
    def state(self) -> tuple[mx.array, ...]:
        """The arrays that, with `meta_state`, make this cache anew; empty for an empty cache."""
        ...

    @property
    def meta_state(self) -> tuple[str, ...]:
        """The strings that `from_state` needs beside the arrays (safetensors metadata)."""
        ...

    @classmethod
    def from_state(cls, state: Sequence[mx.array], meta_state: Sequence[str]) -> Self:
        """The cache that `state` and `meta_state` came from. Raises CacheError where they don't fit."""
        ...

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[MaybePacked, MaybePacked]:
        """Append L tokens; returns the keys and values to attend to, which `make_mask(L)` describes. A quantised cache
        returns them `Packed`.
        """
        ...

    def attend(
        self,
        queries: mx.array,
        keys: mx.array,
        values: mx.array,
        *,
        scale: float,
        mask: Mask = None,
        sinks: mx.array | None = None,
        softcap: float | None = None,
    ) -> mx.array:
        """Append L tokens, and attend to all that are held: queries `[B, H, L, D]` -> `[B, H, L, D_v]`.

        mask: `make_mask(L)`'s, asked before. The other arguments are those of `scaled_dot_product_attention`.
        """
        held_keys, held_values = self.update_and_fetch(keys, values)
        return scaled_dot_product_attention(
            queries, held_keys, held_values, scale=scale, mask=mask, sinks=sinks, softcap=softcap
        )

    @property
    def mask_key(self) -> Hashable:
        """Equal for two caches only if they make the same masks: layers then share them."""
        return type(self).make_mask, self.max_size, self.offset if isinstance(self.offset, int) else id(self)

    def make_mask(self, n: int, window_size: int | None = None, return_array: bool = False) -> Mask:
        """The mask for the next n tokens, asked before they are appended. See `create_attention_mask`."""
        ...

    def trim(self, n: int) -> int:
        """Take back the latest n tokens; returns how many were removed (0 where the cache is not trimmable)."""
        ...

    def can_trim(self, n: int) -> bool:
        """Whether the latest n tokens can be taken back exactly."""
        return n == 0 or self.is_trimmable

    def batched(self, left_padding: Sequence[int]) -> BatchCache:
        """An empty batch whose rows are kept as this cache keeps its tokens, row i after `left_padding[i]` blanks.

        Raises CacheError for a cache that can't be one of several rows.
        """
        raise CacheError(f"a {type(self).__name__} can't be batched. Generate the prompts one by one.")

    def unbounded(self) -> KeyValueCache:
        """An empty cache that keeps tokens as this one does, and all of them."""
        if self.max_size is not None:
            raise CacheError(f"a {type(self).__name__} has no kind that keeps every token.")
        empty = self.copy()
        empty.reset()
        return empty

    def copy(self) -> Self:
        """A cache with the same contents that evolves on its own."""
        ...

    def reset(self) -> None:
        """Forget every token."""
        ...

    def materialize(self) -> None:
        """Compute what is still lazy, so that errors surface here and graphs don't grow."""
        ...


@runtime_checkable
class BatchCache(KeyValueCache, Protocol):
    """Several rows that grow together."""

    @classmethod
    def merge(cls, caches: Sequence[KeyValueCache]) -> Self:
        """One row for each of the given caches, which are of one kind and stay as they are."""
        ...

    @property
    def batch_size(self) -> int:
        """The number of rows."""
        ...

    def pad(self, blanks: Sequence[int]) -> None:
        """Have the next `blanks[i]` columns of row i ignored, before there are any tokens."""
        ...

    def filter(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order."""
        ...

    def extract(self, row: int) -> KeyValueCache:
        """A row as a cache of its own."""
        ...


def check_update(
    keys: mx.array,
    values: mx.array,
    held_keys: tuple[int, ...] | None = None,
    held_values: tuple[int, ...] | None = None,
) -> None:
    """Raise CacheError unless keys and values fit each other and the shapes of those that the cache holds."""
    if keys.ndim != 4 or values.ndim != 4:
        raise CacheError(
            "keys and values must be [B, n_kv_heads, L, head_dim]; got shapes "
            f"{tuple(keys.shape)} and {tuple(values.shape)}."
        )
    if keys.shape[:3] != values.shape[:3]:
        raise CacheError(
            "keys and values must agree in batch, heads and length; got shapes "
            f"{tuple(keys.shape)} and {tuple(values.shape)}."
        )
    if not (mx.issubdtype(keys.dtype, mx.floating) and mx.issubdtype(values.dtype, mx.floating)):
        raise CacheError(f"keys and values must be floating-point; got {keys.dtype} and {values.dtype}.")
    if keys.shape[2] == 0:
        raise CacheError(f"an update needs at least one token; got keys of shape {tuple(keys.shape)}.")
    for name, new, held in (("keys", keys, held_keys), ("values", values, held_values)):
        if held is None:
            continue
        if new.shape[:2] != held[:2] or new.shape[3] != held[3]:
            raise CacheError(
                f"{name} of shape {tuple(new.shape)} don't fit a cache that holds {tuple(held)}: batch, heads and "
                "head_dim must stay the same. Use a new cache for another batch or model."
            )


def check_trim(n: int) -> None:
    """Raise CacheError unless n is a number of tokens."""
    if isinstance(n, bool) or not isinstance(n, int) or n < 0:
        raise CacheError(f"trim takes a number of tokens, 0 or more; got {n!r}.")
