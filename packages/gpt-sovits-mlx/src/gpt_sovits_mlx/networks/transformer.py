"""What the two encoders of the front, HuBERT and BERT, share."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from mlx_core.ops import bidirectional_attention


class SelfAttention(nn.Module):
    """Every token sees every other; `names` are the checkpoint's for query, key, value and, where it stands in the same
    module, output.
    """

    def __init__(self, width: int, heads: int, names: tuple[str, ...]) -> None:
        super().__init__()
        self._heads, self._names = heads, names
        for name in names:
            self[name] = nn.Linear(width, width)

    def __call__(self, x: mx.array) -> mx.array:
        """`[B, L, D] -> [B, L, D]`."""
        B, L, D = x.shape
        q, k, v = (
            self[name](x).reshape(B, L, self._heads, -1).transpose(0, 2, 1, 3)  # [B, H, L, D / H]
            for name in self._names[:3]
        )
        out = bidirectional_attention(q, k, v, scale=(D // self._heads) ** -0.5)
        out = out.transpose(0, 2, 1, 3).reshape(B, L, D)
        return self[self._names[3]](out) if len(self._names) > 3 else out
