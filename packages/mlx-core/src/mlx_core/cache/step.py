"""The default cache: every token, in buffers that grow by steps and are written in place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import mlx.core as mx

from ..attention import causal_mask
from ..errors import CacheError
from .protocol import Mask, alias, check_state, check_trim, check_update


class KVCache:
    """Keeps every token; the buffers grow by `step` tokens at a time, so most updates copy only what is new."""

    def __init__(self, step: int = 256) -> None:
        if isinstance(step, bool) or not isinstance(step, int) or step < 1:
            raise CacheError(f"step is a number of tokens, 1 or more; got {step!r}.")
        self.step = step
        self._offset = 0
        self._keys: mx.array | None = None
        self._values: mx.array | None = None

    @property
    def offset(self) -> int:
        return self._offset

    @property
    def max_size(self) -> None:
        return None

    @property
    def nbytes(self) -> int:
        return 0 if self._keys is None or self._values is None else self._keys.nbytes + self._values.nbytes

    @property
    def is_empty(self) -> bool:
        return self._offset == 0

    @property
    def is_trimmable(self) -> bool:
        return True

    @property
    def state(self) -> tuple[mx.array, ...]:
        if self._keys is None or self._values is None or self._offset == 0:
            return ()
        return self._keys[:, :, : self._offset], self._values[:, :, : self._offset]

    @property
    def meta_state(self) -> tuple[str, ...]:
        return ()

    @classmethod
    def from_state(cls, state: Sequence[mx.array], meta_state: Sequence[str]) -> Self:
        if meta_state:
            raise CacheError(f"a {cls.__name__} has no meta state; got {tuple(meta_state)}.")
        cache = cls()
        if state:
            keys, values = check_state(cls.__name__, state)
            cache._keys, cache._values, cache._offset = alias(keys), alias(values), keys.shape[2]
        return cache

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        check_update(keys, values, self._keys, self._values)
        start, stop = self._offset, self._offset + keys.shape[2]
        held_keys = grown(self._keys, keys, start, stop, self.step)
        held_values = grown(self._values, values, start, stop, self.step)
        held_keys[:, :, start:stop] = keys
        held_values[:, :, start:stop] = values
        self._keys, self._values, self._offset = held_keys, held_values, stop
        return held_keys[:, :, :stop], held_values[:, :, :stop]

    def make_mask(self, n: int, window_size: int | None = None, return_array: bool = False) -> Mask:
        return causal_mask(n, self._offset, window_size, return_array)

    def trim(self, n: int) -> int:
        check_trim(n)
        n = min(n, self._offset)
        self._offset -= n  # what lies beyond the offset is never returned, and overwritten by the next update
        return n

    def copy(self) -> Self:
        other = type(self)(self.step)
        if self._keys is not None and self._values is not None:
            other._keys, other._values, other._offset = alias(self._keys), alias(self._values), self._offset
        return other

    def reset(self) -> None:
        self._keys = self._values = None
        self._offset = 0

    def materialize(self) -> None:
        if self._keys is not None:
            mx.eval(self._keys, self._values)


def grown(held: mx.array | None, new: mx.array, used: int, needed: int, step: int) -> mx.array:
    """A handle on the buffer with room for `needed` tokens, grown by a multiple of `step` beyond the `used` ones.

    A handle of its own, so that the cache changes only when it takes the result; MLX still writes into the old
    buffer, once nothing else refers to it.
    """
    dtype = new.dtype if held is None else mx.result_type(held, new)
    if held is not None and held.shape[2] >= needed:
        return alias(held) if held.dtype == dtype else held.astype(dtype)
    batch, heads, _, head_dim = new.shape
    room = -(-(needed - used) // step) * step
    empty = mx.zeros((batch, heads, room, head_dim), dtype)
    if held is None or used == 0:
        return empty
    return mx.concatenate([held[:, :, :used].astype(dtype), empty], axis=2)
