"""The plainest cache: every update concatenates. Exact, and slow beyond short texts; the others are tested against
it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import mlx.core as mx

from ..errors import CacheError
from ..ops import Mask, causal_mask
from .protocol import KeyValueCache, check_trim, check_update
from .storage import PLAIN


class ConcatKeyValueCache(KeyValueCache):
    """Keeps every token in an array of exactly the right length."""

    def __init__(self) -> None:
        self._keys: mx.array | None = None
        self._values: mx.array | None = None

    @property
    def offset(self) -> int:
        return 0 if self._keys is None else self._keys.shape[2]

    @property
    def max_size(self) -> None:
        return None

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.state)

    @property
    def is_empty(self) -> bool:
        return self._keys is None

    @property
    def is_trimmable(self) -> bool:
        return True

    @property
    def state(self) -> tuple[mx.array, ...]:
        return () if self._keys is None or self._values is None else (self._keys, self._values)

    @property
    def meta_state(self) -> tuple[str, ...]:
        return ()

    @classmethod
    def from_state(cls, state: Sequence[mx.array], meta_state: Sequence[str]) -> Self:
        if meta_state:
            raise CacheError(f"a {cls.__name__} has no meta state; got {tuple(meta_state)}.")
        cache = cls()
        if state:
            cache._keys, cache._values = PLAIN.check(cls.__name__, state)
        return cache

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        check_update(keys, values, *(array.shape for array in self.state))
        if self._keys is not None and self._values is not None:
            keys = mx.concatenate([self._keys, keys], axis=2)
            values = mx.concatenate([self._values, values], axis=2)
        self._keys, self._values = keys, values
        return keys, values

    def make_mask(self, n: int, window_size: int | None = None, return_array: bool = False) -> Mask:
        return causal_mask(n, self.offset, window_size, return_array)

    def trim(self, n: int) -> int:
        check_trim(n)
        n = min(n, self.offset)
        if n and self._keys is not None and self._values is not None:
            length = self.offset - n
            if length == 0:
                self.reset()
            else:
                self._keys, self._values = self._keys[:, :, :length], self._values[:, :, :length]
        return n

    def copy(self) -> Self:
        other = type(self)()
        other._keys, other._values = self._keys, self._values  # never written in place: safe to share
        return other

    def reset(self) -> None:
        self._keys = self._values = None

    def materialize(self) -> None:
        mx.eval(self.state)
