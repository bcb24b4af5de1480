"""The default cache: every token, in buffers that grow by steps and are written in place."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx

from ..ops import Mask, MaybePacked, causal_mask
from .buffered import BufferedCache, check_count, parse_counts
from .protocol import check_trim
from .storage import alias, grown, window, write


class KVCache(BufferedCache):
    """Keeps every token; the buffers grow by `step` tokens at a time, so most updates copy only what is new."""

    step = 256

    def __init__(self, step: int = 256) -> None:
        check_count("step", step, 1)
        self.step = step
        self.reset()

    def reset(self) -> None:
        self._planes = None
        self._offset = 0

    @property
    def offset(self) -> int:
        return self._offset

    @property
    def max_size(self) -> None:
        return None

    @property
    def is_empty(self) -> bool:
        return self._offset == 0

    @property
    def is_trimmable(self) -> bool:
        return True

    @property
    def state(self) -> tuple[mx.array, ...]:
        return () if self._planes is None or self._offset == 0 else window(self._planes, 0, self._offset)

    def _restore(self, state: Sequence[mx.array], meta_state: tuple[str, ...]) -> None:
        parse_counts(type(self).__name__, (), meta_state)
        self.reset()
        if state:
            self._planes = alias(self._check_state(state))
            self._offset = state[0].shape[2]

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[MaybePacked, MaybePacked]:
        new = self._pack(keys, values)
        stop = self._offset + keys.shape[2]
        self._planes = write(grown(self._planes, new, self._offset, stop, self.step), new, self._offset)
        self._offset = stop
        return self._storage.unpack(window(self._planes, 0, stop))

    def make_mask(self, n: int, window_size: int | None = None, return_array: bool = False) -> Mask:
        return causal_mask(n, self._offset, window_size, return_array)

    def trim(self, n: int) -> int:
        check_trim(n)
        n = min(n, self._offset)
        self._offset -= n  # what lies beyond the offset is never returned, and overwritten by the next update
        return n
