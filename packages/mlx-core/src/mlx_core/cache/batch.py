"""A cache of many sequences at once, aligned at their latest token.

    columns     0 1 2 3 4 5        the sequences of a batch differ in length: the shorter ones begin with blanks,
    row 0       . . a b c d        which no token sees
    row 1       e f g h i j

How far a row's tokens are apart is how far their columns are, as long as none between them was dropped.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import ClassVar, Self

import mlx.core as mx

from ..errors import CacheError
from ..ops import Mask, MaybePacked, check_window
from .buffered import BufferedCache, check_count, parse_counts
from .protocol import KeyValueCache, check_trim
from .rotating import RotatingKVCache
from .step import KVCache
from .storage import Planes, alias, grown, join, window, write


class BatchKVCache(BufferedCache):
    """Rows that left, joined and grow together. Row i begins with `left_padding[i]` blank columns, filled or yet to
    come: of what is appended, those columns are ignored.

    With `max_size` a row sees what a `RotatingKVCache(max_size, keep)` would: its first `keep` tokens and the latest
    others. What no row sees any more is dropped from time to time.
    """

    _STEP = 256
    _single_kind: ClassVar[type[KVCache]] = KVCache
    _rotating_kind: ClassVar[type[RotatingKVCache]] = RotatingKVCache

    def __init__(self, left_padding: Sequence[int], max_size: int | None = None, keep: int = 0) -> None:
        if not left_padding:
            raise CacheError("a batch has at least one row; got no left_padding.")
        for blanks in left_padding:
            check_count("left_padding", blanks, 0)
        if max_size is None and keep:
            raise CacheError(f"keep={keep} has no meaning without max_size: every token is kept.")
        if max_size is not None:
            RotatingKVCache(max_size, keep)  # what it refuses
        self._max_size = max_size
        self.keep = keep
        self._padding = list(left_padding)
        self._offsets = [-blanks for blanks in left_padding]
        self._columns = 0

    batched = KeyValueCache.batched  # rows of rows there are none

    def reset(self) -> None:
        """Forget every token; the rows stay, without padding."""
        self._planes = None
        self._padding = [0] * self.batch_size
        self._offsets = [0] * self.batch_size
        self._columns = 0

    @property
    def batch_size(self) -> int:
        """The number of rows."""
        return len(self._padding)

    @property
    def left_padding(self) -> tuple[int, ...]:
        """The blank columns that each row begins with."""
        return tuple(self._padding)

    @property
    def lengths(self) -> tuple[int, ...]:
        """The tokens that each row holds."""
        return tuple(max(self._columns - blanks, 0) for blanks in self._padding)

    @property
    def offset(self) -> mx.array:
        """`[B]` int32: the position of each row's next token, below 0 while blanks are to come."""
        return mx.array(self._offsets, dtype=mx.int32)

    @property
    def max_size(self) -> int | None:
        return self._max_size

    @property
    def mask_key(self) -> Hashable:
        return self._max_size, self.keep, self._columns, tuple(self._offsets), tuple(self._padding)

    @property
    def is_empty(self) -> bool:
        return self._columns == 0

    @property
    def is_trimmable(self) -> bool:
        return all(
            offset == self._columns - blanks for offset, blanks in zip(self._offsets, self._padding, strict=True)
        )

    @property
    def state(self) -> tuple[mx.array, ...]:
        return () if self._planes is None or self._columns == 0 else window(self._planes, 0, self._columns)

    def _meta(self) -> tuple[str, ...]:
        """`left_padding` and `offsets` with commas, `max_size` (0 for none), `keep`."""
        rows = (",".join(map(str, values)) for values in (self._padding, self._offsets))
        return *rows, str(self._max_size or 0), str(self.keep)

    def _restore(self, state: Sequence[mx.array], meta_state: tuple[str, ...]) -> None:
        kind = type(self).__name__
        names = ("left_padding", "offsets", "max_size", "keep")
        max_size, keep = parse_counts(kind, names[2:], meta_state[2:])
        rows = [value.split(",") for value in meta_state[:2]]
        padding, offsets = (
            parse_counts(kind, [f"{name} of a row"] * len(rows[0]), row) for name, row in zip(names, rows, strict=False)
        )
        BatchKVCache.__init__(self, padding, max_size or None, keep)
        columns = 0
        if state:
            planes = self._check_state(state)
            batch, _, columns, _ = state[0].shape
            if batch != len(padding):
                raise CacheError(f"the meta state of this {kind} is of {len(padding)} rows; its arrays have {batch}.")
            self._planes, self._columns = alias(planes), columns
        for offset, blanks in zip(offsets, padding, strict=True):
            held = columns - blanks
            dropped = offset - held
            if dropped < 0 or (dropped and (max_size == 0 or held < max_size)):
                raise CacheError(
                    f"a row of a {kind} that saw {offset} tokens can't hold {held}: {columns} columns, {blanks} of them blank."
                )
        self._offsets = offsets

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[MaybePacked, MaybePacked]:
        """Append n columns to every row, blank or not: `[B, Hk, n, D]`."""
        new = self._pack(keys, values)
        if keys.shape[0] != self.batch_size:
            raise CacheError(
                f"this cache has {self.batch_size} rows; got keys of shape {tuple(keys.shape)}. Use filter and extend to "
                "change the rows."
            )
        n = keys.shape[2]
        columns, padding, planes = self._compacted(n)
        self._planes = write(grown(planes, new, columns, columns + n, self._STEP), new, columns)
        self._columns, self._padding = columns + n, padding
        self._offsets = [offset + n for offset in self._offsets]
        return self._storage.unpack(window(self._planes, 0, self._columns))

    def _compacted(self, n: int) -> tuple[int, list[int], Planes | None]:
        """Columns, padding and planes before an update of n tokens: shortened where many columns are seen no more."""
        if self._max_size is None or self._planes is None or self._columns + n <= self._max_size + self._STEP:
            return self._columns, self._padding, self._planes
        size = min(self._max_size - 1, self._columns)  # what the first new token sees beside itself
        start = self._columns - size
        padding = [max(blanks - start, 0) for blanks in self._padding]
        if self.keep == 0 or size == self._columns:
            return size, padding, window(self._planes, start, self._columns)
        rows = []
        for row, blanks in enumerate(self._padding):
            planes = tuple(plane[row : row + 1] for plane in self._planes)
            if blanks >= start:
                rows.append(window(planes, start, self._columns))
            else:
                kept = window(planes, blanks, blanks + self.keep)
                rows.append(join(kept, window(planes, start + self.keep, self._columns)))
        return size, padding, _stack(rows)

    def make_mask(self, n: int, window_size: int | None = None, return_array: bool = False) -> Mask:
        """As a boolean array it is `[B, 1, n, columns]`. Blanks see themselves, so that nothing becomes NaN."""
        check_window(window_size)
        columns, padding, _ = self._compacted(n)
        total = columns + n
        limits = [size for size in (window_size, self._max_size) if size is not None]
        # kept tokens stand nearer to the latest than they are, once others between them are dropped
        moved = self.keep > 0 and any(o != columns - blanks for o, blanks in zip(self._offsets, padding, strict=True))
        if not (return_array or moved or any(padding) or any(total > limit for limit in limits)):
            return None if n == 1 else "causal"
        column = mx.arange(total)[None, None]  # [1, 1, S]
        first = mx.array(padding)[:, None, None]  # [B, 1, 1]
        offset = self.offset[:, None, None]
        kept = column < first + self.keep
        key = mx.where(kept, column - first, column + (offset - columns))  # positions, [B, 1, S]
        query = offset + mx.arange(n)[:, None]  # [B, n, 1]
        visible = (column >= first) & (key <= query)
        if self._max_size is not None:
            visible = visible & (kept | (key > query - (self._max_size - self.keep)))
        if window_size is not None:
            visible = visible & (key > query - window_size)
        itself = column == mx.arange(columns, total)[:, None]
        return (visible | itself)[:, None]

    def trim(self, n: int) -> int:
        """Take back the latest n tokens of every row, at most as many as the shortest row holds."""
        check_trim(n)
        if not self.is_trimmable:
            return 0
        n = min(n, *self.lengths)
        self._columns -= n
        self._offsets = [offset - n for offset in self._offsets]
        return n

    def pad(self, blanks: Sequence[int]) -> None:
        """Have the next `blanks[i]` columns of row i ignored. Raises CacheError once there are tokens."""
        if self._columns:
            raise CacheError("blanks can only stand before a row's first token; this cache holds some already.")
        if len(blanks) != self.batch_size:
            raise CacheError(f"this cache has {self.batch_size} rows; got blanks for {len(blanks)}.")
        for count in blanks:
            check_count("blanks", count, 0)
        self._padding = [have + more for have, more in zip(self._padding, blanks, strict=True)]
        self._offsets = [have - more for have, more in zip(self._offsets, blanks, strict=True)]

    def filter(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order, and drop the columns that are blank in all of them."""
        for row in rows:
            self._check_row(row)
        if not rows:
            raise CacheError("a batch has at least one row; filter got none to keep.")
        padding = [self._padding[row] for row in rows]
        blank = min([*padding, self._columns])
        if self._planes is not None:
            index = mx.array(list(rows))
            self._planes = tuple(plane[index] for plane in window(self._planes, blank, self._columns))
        self._columns -= blank
        self._padding = [blanks - blank for blanks in padding]
        self._offsets = [self._offsets[row] for row in rows]

    def extend(self, other: BatchKVCache) -> None:
        """Append the rows of another batch, which stays as it is."""
        self._check_alike(other)
        self._take([self, other])

    def _take(self, parts: Sequence[BatchKVCache]) -> None:
        """Hold the rows of all parts. Raises CacheError where heads or head_dims differ."""
        columns = max(part._columns for part in parts)
        filled = [part for part in parts if part.state]
        if len({_widths(part) for part in filled}) > 1:
            raise CacheError(
                "the rows of a batch are of one model; these differ in heads or head_dim: "
                + ", ".join(str(_widths(part)) for part in filled)
            )
        planes = None
        if filled:
            like = filled[0].state
            planes = _stack([_aligned(part.state, like, part.batch_size, columns) for part in parts])
        padding = [blanks + columns - part._columns for part in parts for blanks in part._padding]
        self._offsets = [offset for part in parts for offset in part._offsets]
        self._planes, self._columns, self._padding = planes, columns, padding

    def extract(self, row: int) -> KeyValueCache:
        """A row as a cache of its own."""
        self._check_row(row)
        blanks = min(self._padding[row], self._columns)
        planes = tuple(plane[row : row + 1, :, blanks:] for plane in self.state)
        if not planes or planes[0].shape[2] == 0:
            planes = ()
        offset = max(self._offsets[row], 0)
        if self._max_size is None:
            return self._single_kind.from_state(planes, self._storage.meta)
        meta = (*self._storage.meta, str(self.keep), str(self._max_size), str(offset))
        return self._rotating_kind.from_state(planes, meta)

    @classmethod
    def merge(cls, caches: Sequence[KeyValueCache]) -> Self:
        """One row for each of the given caches, which are of one kind and stay as they are."""
        rows = [cls._of_one(cache) for cache in caches]
        if not rows:
            raise CacheError("a batch has at least one row; merge got no caches.")
        for row in rows[1:]:
            rows[0]._check_alike(row)
        rows[0]._take(rows)
        return rows[0]

    @classmethod
    def _of_one(cls, cache: KeyValueCache) -> Self:
        """A batch of one row."""
        if type(cache) is not cls._single_kind and type(cache) is not cls._rotating_kind:
            raise CacheError(
                f"{cls.__name__} merges {cls._single_kind.__name__} and {cls._rotating_kind.__name__}; got a "
                f"{type(cache).__name__}."
            )
        keep = cache.keep if isinstance(cache, RotatingKVCache) else 0
        storage = cache.meta_state[: len(cache.meta_state) - (3 if cache.max_size else 0)]
        return cls.from_state(cache.state, (*storage, "0", str(cache.offset), str(cache.max_size or 0), str(keep)))

    def _check_alike(self, other: BatchKVCache) -> None:
        """Raise CacheError unless the other's rows are kept as these are."""
        if not isinstance(other, BatchKVCache):
            raise CacheError(f"a batch is extended by another batch; got a {type(other).__name__}. See merge.")
        ours, theirs = (
            (type(cache).__name__, *cache._storage.meta, cache.max_size, cache.keep) for cache in (self, other)
        )
        if ours != theirs:
            raise CacheError(
                f"the rows of a batch are kept alike, in kind, packing, max_size and keep; got {ours} and {theirs}."
            )

    def _check_row(self, row: int) -> None:
        if isinstance(row, bool) or not isinstance(row, int) or not 0 <= row < self.batch_size:
            raise CacheError(f"there is no row {row!r} in a batch of {self.batch_size}.")


KVCache._batch_kind = RotatingKVCache._batch_kind = BatchKVCache


def _widths(cache: BatchKVCache) -> tuple[int, ...]:
    """Heads and head_dims."""
    return tuple(size for shape in cache._storage.shapes(cache.state) for size in (shape[1], shape[3]))


def _stack(rows: Sequence[Planes]) -> Planes:
    """The rows of each part, one below the other."""
    return tuple(mx.concatenate(list(planes), axis=0) for planes in zip(*rows, strict=True))


def _aligned(planes: Planes, like: Planes, batch: int, columns: int) -> Planes:
    """`batch` rows with blanks before them, up to `columns`; all blank where there are no planes."""
    held = planes[0].shape[2] if planes else 0
    blanks = tuple(mx.zeros((batch, plane.shape[1], columns - held, plane.shape[3]), plane.dtype) for plane in like)
    return join(blanks, planes) if planes else blanks
