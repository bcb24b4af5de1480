"""OLMo-2 on Apple's MLX."""

from mlx_core import (
    ConcatKeyValueCache,
    Generate,
    KVCache,
    RotatingKVCache,
    SamplingParams,
    generate,
    load,
    load_model,
    load_tokenizer,
    save_model,
    stream_generate,
)

__all__ = [
    "ConcatKeyValueCache",
    "Generate",
    "KVCache",
    "RotatingKVCache",
    "SamplingParams",
    "generate",
    "load",
    "load_model",
    "load_tokenizer",
    "save_model",
    "stream_generate",
]
