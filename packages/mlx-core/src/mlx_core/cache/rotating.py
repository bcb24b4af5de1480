"""A cache of bounded size: the first `keep` tokens and the latest ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import mlx.core as mx

from ..errors import CacheError
from .protocol import Mask, alias, check_state, check_trim, check_update
from .step import grown


class RotatingKVCache:
    """Keeps the first `keep` tokens (attention sinks) and, of the others, the latest `max_size - keep`.

    A token attends to exactly those, itself included, whether it comes alone or in a chunk. While single tokens
    arrive the buffer is a ring beyond the kept tokens; a chunk lays it out in order again and makes it longer than
    `max_size` until the next update, because the chunk's first tokens still attend to what its last ones no longer
    see. A layer's own window, given to `make_mask`, hides kept tokens too: it is part of the architecture, and `keep`
    only bounds memory.
    """

    _STEP = 256

    def __init__(self, max_size: int, keep: int = 0) -> None:
        for name, value, least in (("max_size", max_size, 1), ("keep", keep, 0)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise CacheError(f"{name} is a number of tokens, {least} or more; got {value!r}.")
        if keep >= max_size:
            raise CacheError(f"keep must leave room for new tokens: keep={keep} of max_size={max_size}.")
        self._max_size = max_size
        self.keep = keep
        self.reset()

    def reset(self) -> None:
        self._keys: mx.array | None = None
        self._values: mx.array | None = None
        self._offset = 0
        self._held = 0  # tokens in the buffer
        self._oldest = self.keep  # the slot that the next single token overwrites once the buffer is full

    @property
    def offset(self) -> int:
        return self._offset

    @property
    def max_size(self) -> int:
        return self._max_size

    @property
    def nbytes(self) -> int:
        return 0 if self._keys is None or self._values is None else self._keys.nbytes + self._values.nbytes

    @property
    def is_empty(self) -> bool:
        return self._offset == 0

    @property
    def is_trimmable(self) -> bool:
        return self._held == self._offset  # nothing has been dropped yet

    @property
    def state(self) -> tuple[mx.array, ...]:
        """Keys and values in the order of their positions."""
        if self._keys is None or self._values is None or self._held == 0:
            return ()
        return self._ordered(self._keys), self._ordered(self._values)

    @property
    def meta_state(self) -> tuple[str, ...]:
        """`keep`, `max_size` and `offset`."""
        return str(self.keep), str(self._max_size), str(self._offset)

    @classmethod
    def from_state(cls, state: Sequence[mx.array], meta_state: Sequence[str]) -> Self:
        try:
            keep, max_size, offset = (int(value) for value in meta_state)
        except ValueError as error:
            raise CacheError(
                f"the meta state of a {cls.__name__} is keep, max_size, offset; got {tuple(meta_state)}."
            ) from error
        cache = cls(max_size, keep)
        if state:
            keys, values = check_state(cls.__name__, state)
            held = keys.shape[2]
            if not held <= offset or (held < offset and held < max_size):
                raise CacheError(f"a {cls.__name__} of size {max_size} that saw {offset} tokens can't hold {held}.")
            cache._keys, cache._values, cache._offset, cache._held = alias(keys), alias(values), offset, held
        elif offset:
            raise CacheError(f"a {cls.__name__} that saw {offset} tokens must hold some; its state is empty.")
        return cache

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        check_update(keys, values, self._keys, self._values)
        n = keys.shape[2]
        if n == 1 and self._held <= self._max_size:
            return self._append_one(keys, values)
        if self._keys is not None and self._values is not None:
            keys = mx.concatenate([self._latest(self._keys), keys], axis=2)
            values = mx.concatenate([self._latest(self._values), values], axis=2)
        self._keys, self._values = keys, values
        self._held, self._oldest = keys.shape[2], self.keep
        self._offset += n
        return alias(keys), alias(values)

    def _append_one(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        full = self._held == self._max_size
        slot = self._oldest if full else self._held
        held = self._held if full else self._held + 1
        step = min(self._STEP, self._max_size - slot)
        held_keys = grown(self._keys, keys, self._held, held, step)
        held_values = grown(self._values, values, self._held, held, step)
        held_keys[:, :, slot : slot + 1] = keys
        held_values[:, :, slot : slot + 1] = values
        if full:
            self._oldest = self.keep if slot + 1 == self._max_size else slot + 1
        self._keys, self._values, self._held = held_keys, held_values, held
        self._offset += 1
        return held_keys[:, :, :held], held_values[:, :, :held]

    def _ordered(self, buffer: mx.array) -> mx.array:
        """The buffer's tokens in the order of their positions."""
        if self._oldest == self.keep:
            return buffer[:, :, : self._held]
        kept, newer = buffer[:, :, : self.keep], buffer[:, :, self.keep : self._oldest]
        return mx.concatenate([kept, buffer[:, :, self._oldest : self._held], newer], axis=2)

    def _latest(self, buffer: mx.array) -> mx.array:
        """The kept tokens and the latest others that the first token of a chunk attends to, in order."""
        surplus = self._held - (self._max_size - 1)
        ordered = self._ordered(buffer)
        if surplus <= 0:
            return ordered
        return mx.concatenate([ordered[:, :, : self.keep], ordered[:, :, self.keep + surplus :]], axis=2)

    def make_mask(self, n: int, window_size: int | None = None, return_array: bool = False) -> Mask:
        """See `create_attention_mask`; keys are those that the next update of n tokens returns."""
        total = self._offset + n
        everything = (
            total <= self._max_size and self._held == self._offset and (window_size is None or total <= window_size)
        )
        if not return_array:
            if n == 1:
                held = min(self._held + 1, self._max_size)
                if everything or window_size is None or (self.keep == 0 and held <= window_size):
                    return None
            elif everything:
                return "causal"
        key_positions = self._positions_after(n)[None, :]
        positions = mx.arange(self._offset, total)[:, None]
        reach = self._max_size - self.keep
        visible = (key_positions < self.keep) | (key_positions > positions - reach)
        if window_size is not None:
            visible = visible & (key_positions > positions - window_size)
        return visible & (key_positions <= positions)

    def _positions_after(self, n: int) -> mx.array:
        """The position of each key that an update of n tokens returns."""
        if n == 1 and self._held == self._max_size:  # a ring: the new token replaces the oldest
            ring = self._max_size - self.keep
            age = (self._oldest - self.keep - mx.arange(ring)) % ring  # of each slot, 0 for the new one
            return mx.concatenate([mx.arange(self.keep), self._offset - age])
        held = min(self._held, self._max_size - 1) + n
        kept = min(self.keep, held)
        total = self._offset + n
        return mx.concatenate([mx.arange(kept), mx.arange(total - (held - kept), total)])

    def trim(self, n: int) -> int:
        check_trim(n)
        if not self.is_trimmable:
            return 0
        n = min(n, self._offset)
        if n:
            self._offset -= n
            self._held -= n
            self._oldest = self.keep
        return n

    def copy(self) -> Self:
        other = type(self)(self._max_size, self.keep)
        if self._keys is not None and self._values is not None:
            other._keys, other._values = alias(self._keys), alias(self._values)
        other._offset, other._held, other._oldest = self._offset, self._held, self._oldest
        return other

    def materialize(self) -> None:
        if self._keys is not None:
            mx.eval(self._keys, self._values)
