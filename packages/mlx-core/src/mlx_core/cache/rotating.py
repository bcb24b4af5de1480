"""A cache of bounded size: the first `keep` tokens and the latest ones."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import mlx.core as mx

from ..errors import CacheError
from ..ops import Mask, MaybePacked
from .buffered import BufferedCache, check_count, parse_counts
from .protocol import check_trim
from .step import KVCache
from .storage import Planes, alias, grown, join, window, write


class RotatingKVCache(BufferedCache):
    """Keeps the first `keep` tokens (attention sinks) and, of the others, the latest `max_size - keep`.

    A token attends to exactly those, itself included, whether it comes alone or in a chunk. While single tokens
    arrive the buffer is a ring beyond the kept tokens; a chunk lays it out in order again and makes it longer than
    `max_size` until the next update, because the chunk's first tokens still attend to what its last ones no longer
    see. A layer's own window, given to `make_mask`, hides kept tokens too: it is part of the architecture, and `keep`
    only bounds memory.
    """

    _STEP = 256

    def __init__(self, max_size: int, keep: int = 0) -> None:
        check_count("max_size", max_size, 1)
        check_count("keep", keep, 0)
        if keep >= max_size:
            raise CacheError(f"keep must leave room for new tokens: keep={keep} of max_size={max_size}.")
        self._max_size = max_size
        self.keep = keep
        self.reset()

    def reset(self) -> None:
        self._planes = None
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
    def is_empty(self) -> bool:
        return self._offset == 0

    @property
    def is_trimmable(self) -> bool:
        return self._held == self._offset  # nothing has been dropped yet

    @property
    def spare(self) -> int:
        """The tokens beyond `max_size` that the latest chunk left in the buffer: so many can be taken back."""
        return max(self._held - self._max_size, 0)

    @property
    def state(self) -> tuple[mx.array, ...]:
        """The planes in the order of the tokens' positions."""
        return () if self._planes is None or self._held == 0 else self._ordered(self._planes)

    def _meta(self) -> tuple[str, ...]:
        """`keep`, `max_size` and `offset`."""
        return str(self.keep), str(self._max_size), str(self._offset)

    def _restore(self, state: Sequence[mx.array], meta_state: tuple[str, ...]) -> None:
        kind = type(self).__name__
        keep, max_size, offset = parse_counts(kind, ("keep", "max_size", "offset"), meta_state)
        RotatingKVCache.__init__(self, max_size, keep)
        if state:
            planes = self._check_state(state)
            held = state[0].shape[2]
            if not held <= offset or (held < offset and held < max_size):
                raise CacheError(f"a {kind} of size {max_size} that saw {offset} tokens can't hold {held}.")
            self._planes, self._offset, self._held = alias(planes), offset, held
        elif offset:
            raise CacheError(f"a {kind} that saw {offset} tokens must hold some; its state is empty.")

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[MaybePacked, MaybePacked]:
        new = self._pack(keys, values)
        n = keys.shape[2]
        if n == 1 and self._held <= self._max_size:
            return self._append_one(new)
        planes = new if self._planes is None else join(self._latest(self._planes), new)
        self._planes, self._held, self._oldest = planes, planes[0].shape[2], self.keep
        self._offset += n
        return self._storage.unpack(alias(planes))

    def _append_one(self, new: Planes) -> tuple[MaybePacked, MaybePacked]:
        full = self._held == self._max_size
        slot = self._oldest if full else self._held
        held = self._held if full else self._held + 1
        step = min(self._STEP, self._max_size - slot)
        self._planes = write(grown(self._planes, new, self._held, held, step), new, slot)
        if full:
            self._oldest = self.keep if slot + 1 == self._max_size else slot + 1
        self._held = held
        self._offset += 1
        return self._storage.unpack(window(self._planes, 0, held))

    def _ordered(self, planes: Planes) -> Planes:
        """The tokens in the order of their positions."""
        if self._oldest == self.keep:
            return window(planes, 0, self._held)
        kept, newer = window(planes, 0, self.keep), window(planes, self.keep, self._oldest)
        return join(kept, window(planes, self._oldest, self._held), newer)

    def _latest(self, planes: Planes) -> Planes:
        """The kept tokens and the latest others that the first token of a chunk attends to, in order."""
        surplus = self._held - (self._max_size - 1)
        ordered = self._ordered(planes)
        if surplus <= 0:
            return ordered
        return join(window(ordered, 0, self.keep), window(ordered, self.keep + surplus, self._held))

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

    def can_trim(self, n: int) -> bool:
        return n <= self.spare or self.is_trimmable

    @property
    def mask_key(self) -> Hashable:
        return self._max_size, self.keep, self._offset, self._held, self._oldest

    def unbounded(self) -> KVCache:
        return KVCache()

    def trim(self, n: int) -> int:
        """As far as nothing older is missing then: any number while nothing has been dropped, else up to `spare`."""
        check_trim(n)
        if not self.can_trim(n):
            return 0
        n = min(n, self._offset)
        if n:
            self._offset -= n
            self._held -= n
            self._oldest = self.keep
        return n
