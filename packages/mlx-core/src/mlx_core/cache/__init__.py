"""Key-value caches: one protocol, several kinds."""

from .. import backend as backend  # first: without MLX it says what to install

# isort: split
from ..ops import HadamardPacked, Mask, MaybePacked, Packed
from .batch import BatchKVCache
from .concat import ConcatKeyValueCache
from .protocol import BatchCache, KeyValueCache
from .quantized import QuantizedBatchKVCache, QuantizedKVCache, QuantizedRotatingKVCache, quantize_cache
from .rotating import RotatingKVCache
from .saving import load_prompt_cache, save_prompt_cache
from .step import KVCache

__all__ = [
    "BatchCache",
    "BatchKVCache",
    "ConcatKeyValueCache",
    "HadamardPacked",
    "KVCache",
    "KeyValueCache",
    "Mask",
    "MaybePacked",
    "Packed",
    "QuantizedBatchKVCache",
    "QuantizedKVCache",
    "QuantizedRotatingKVCache",
    "RotatingKVCache",
    "load_prompt_cache",
    "quantize_cache",
    "save_prompt_cache",
]
