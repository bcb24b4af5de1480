"""Key-value caches: one protocol, several kinds."""

from .concat import ConcatKeyValueCache
from .protocol import KeyValueCache, Mask
from .rotating import RotatingKVCache
from .step import KVCache

__all__ = ["ConcatKeyValueCache", "KVCache", "KeyValueCache", "Mask", "RotatingKVCache"]
