"""The base of the kinds that write tokens into buffers."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Self

import mlx.core as mx

from ..errors import CacheError
from .protocol import BatchCache, KeyValueCache, check_update
from .storage import PLAIN, Planes, Storage, alias


class BufferedCache(KeyValueCache):
    """Planes of tokens in a storage; which token stands where is the business of the kinds."""

    _storage: Storage = PLAIN
    _planes: Planes | None = None
    _batch_kind: ClassVar[type[BatchCache]]
    """The batches of this kind; set by their module, which knows the kinds of single rows."""

    @property
    def nbytes(self) -> int:
        return sum(plane.nbytes for plane in self._planes or ())

    def batched(self, left_padding: Sequence[int]) -> BatchCache:
        empty = self.copy()
        empty.reset()
        batch = self._batch_kind.merge([empty] * len(left_padding))
        batch.pad(left_padding)
        return batch

    def copy(self) -> Self:
        other = copy.copy(self)
        if self._planes is not None:
            other._planes = alias(self._planes)
        return other

    def materialize(self) -> None:
        mx.eval(self._planes or ())

    @property
    def meta_state(self) -> tuple[str, ...]:
        """The storage's, then that of the kind."""
        return (*self._storage.meta, *self._meta())

    def _meta(self) -> tuple[str, ...]:
        return ()

    @classmethod
    def from_state(cls, state: Sequence[mx.array], meta_state: Sequence[str]) -> Self:
        cache = cls.__new__(cls)
        cache._restore(state, cache._restore_storage(tuple(meta_state)))
        return cache

    def _restore_storage(self, meta_state: tuple[str, ...]) -> tuple[str, ...]:
        """Take the storage's part of `meta_state`; returns the rest."""
        return meta_state

    @abstractmethod
    def _restore(self, state: Sequence[mx.array], meta_state: tuple[str, ...]) -> None:
        """Become the cache that `state` and `meta_state` came from. Raises CacheError where they don't fit."""

    def _pack(self, keys: mx.array, values: mx.array) -> Planes:
        """New tokens as planes. Raises CacheError unless they fit those that are held."""
        held = (None, None) if self._planes is None else self._storage.shapes(self._planes)
        check_update(keys, values, *held)
        return self._storage.pack(keys, values)

    def _check_state(self, state: Sequence[mx.array]) -> Planes:
        return self._storage.check(type(self).__name__, state)


def parse_counts(kind: str, names: Sequence[str], meta_state: Sequence[str]) -> list[int]:
    """The numbers in a meta state, in the range of int32. Raises CacheError unless there is one for each name."""
    try:
        counts = [int(value) for _, value in zip(names, meta_state, strict=True)]
        if any(not -(2**31) < count < 2**31 for count in counts):
            raise ValueError("out of range")
        return counts
    except ValueError as error:
        expected = ", ".join(names) or "empty"
        raise CacheError(f"the meta state of a {kind} is {expected}; got {tuple(meta_state)!r:.200}.") from error


def check_count(name: str, value: object, least: int) -> None:
    """Raise CacheError unless a setting is a number of tokens."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise CacheError(f"{name} is a number of tokens, {least} or more; got {value!r}.")
