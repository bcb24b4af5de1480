"""The kinds of cache with their tokens quantised: an eighth to a quarter of the memory, for a little accuracy."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import CacheError
from .batch import BatchKVCache
from .buffered import BufferedCache, parse_counts
from .concat import ConcatKeyValueCache
from .protocol import KeyValueCache
from .rotating import RotatingKVCache
from .step import KVCache
from .storage import PackedStorage


class _Quantized(BufferedCache):
    """Mixed into a kind of cache. Each token is packed by itself when it comes, and never again."""

    _storage: PackedStorage

    @property
    def bits(self) -> int:
        return self._storage.bits

    @property
    def group_size(self) -> int:
        return self._storage.group_size

    @property
    def packing(self) -> tuple[str, ...]:
        """Bits, group size and whether Hadamard-transformed, as `meta_state` has them."""
        return self._storage.meta

    @property
    def hadamard(self) -> bool:
        """Whether keys and values go through a Hadamard transform before they are packed; see `quantize_cache`."""
        return self._storage.hadamard

    def _restore_storage(self, meta_state: tuple[str, ...]) -> tuple[str, ...]:
        names = ("bits", "group_size", "hadamard")
        bits, group_size, hadamard = parse_counts(type(self).__name__, names, meta_state[:3])
        self._storage = PackedStorage(bits, group_size, bool(hadamard))
        return meta_state[3:]


class QuantizedKVCache(_Quantized, KVCache):
    """Every token, in `bits` (2, 3, 4, 5, 6 or 8) and groups of 32, 64 or 128 along head_dim, which must be a multiple.

    A token then takes bits / 8 bytes for each of its numbers and two of its dtype's for each group.
    """

    def __init__(self, bits: int = 8, group_size: int = 64, step: int = 256, *, hadamard: bool = False) -> None:
        self._storage = PackedStorage(bits, group_size, hadamard)
        KVCache.__init__(self, step)


class QuantizedRotatingKVCache(_Quantized, RotatingKVCache):
    """A RotatingKVCache whose tokens are quantised."""

    def __init__(
        self, max_size: int, keep: int = 0, bits: int = 8, group_size: int = 64, *, hadamard: bool = False
    ) -> None:
        self._storage = PackedStorage(bits, group_size, hadamard)
        RotatingKVCache.__init__(self, max_size, keep)

    def unbounded(self) -> QuantizedKVCache:
        return QuantizedKVCache(self.bits, self.group_size, hadamard=self.hadamard)


class QuantizedBatchKVCache(_Quantized, BatchKVCache):
    """A BatchKVCache whose tokens are quantised."""

    _single_kind = QuantizedKVCache
    _rotating_kind = QuantizedRotatingKVCache

    def __init__(
        self,
        left_padding: Sequence[int],
        max_size: int | None = None,
        keep: int = 0,
        bits: int = 8,
        group_size: int = 64,
        *,
        hadamard: bool = False,
    ) -> None:
        self._storage = PackedStorage(bits, group_size, hadamard)
        BatchKVCache.__init__(self, left_padding, max_size, keep)


QuantizedKVCache._batch_kind = QuantizedRotatingKVCache._batch_kind = QuantizedBatchKVCache

_KINDS: dict[type[KeyValueCache], type[QuantizedKVCache | QuantizedRotatingKVCache | QuantizedBatchKVCache]] = {
    ConcatKeyValueCache: QuantizedKVCache,
    KVCache: QuantizedKVCache,
    RotatingKVCache: QuantizedRotatingKVCache,
    BatchKVCache: QuantizedBatchKVCache,
}


def quantize_cache(
    cache: Sequence[KeyValueCache], *, bits: int = 8, group_size: int = 64, hadamard: bool = True
) -> list[KeyValueCache]:
    """The layers' caches with their tokens quantised, at any time: before the first token or in a conversation.

    hadamard: keys and values are multiplied by a Hadamard matrix before they are packed, and queries and results at
    attention, which leaves less of the error (some models have a few keys that are hundreds of times the others) for
    little work; mlx-lm doesn't, and reads saved caches only without it. The given caches stay as they are; layers
    that are quantised alike already are copied. Raises CacheError where head_dim is no multiple of `group_size`, or
    for a layer that is quantised otherwise.
    """
    storage = PackedStorage(bits, group_size, hadamard)
    result: list[KeyValueCache] = []
    for layer in cache:
        if isinstance(layer, QuantizedKVCache | QuantizedRotatingKVCache | QuantizedBatchKVCache):
            if layer.packing != storage.meta:
                raise CacheError(
                    f"this cache is quantised already, (bits, group_size, hadamard) = {layer.packing}; packing it again as "
                    f"{storage.meta} would lose twice."
                )
            result.append(layer.copy())
            continue
        kind = _KINDS.get(type(layer))
        if kind is None:
            raise CacheError(f"a {type(layer).__name__} can't be quantised; known are {_names()}.")
        planes = storage.pack(*layer.state) if layer.state else ()
        result.append(kind.from_state(planes, (*storage.meta, *layer.meta_state)))
    return result


def _names() -> str:
    return ", ".join(kind.__name__ for kind in _KINDS)
