"""Self-attention of the two encoders, HuBERT and BERT."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from mlx_core.ops import multi_head


class SelfAttention(nn.Module):
    """Attention of every token to every other.

    names: the checkpoint's for query, key, value and, where it stands in the same module, output.
    """

    def __init__(self, width: int, heads: int, names: tuple[str, ...]) -> None:
        super().__init__()
        self._heads, self._names = heads, names
        for name in names:
            self[name] = nn.Linear(width, width)

    def __call__(self, x: mx.array) -> mx.array:
        """`[B, L, D] -> [B, L, D]`."""
        q, k, v = (self[name](x) for name in self._names[:3])
        out = multi_head(q, k, v, self._heads)
        return self[self._names[3]](out) if len(self._names) > 3 else out
