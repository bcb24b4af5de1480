"""SoVITS's voice encoder: from a reference's spectrogram to one vector, `ge`.

Reference: GPT-SoVITS, `module/modules.py` (`MelStyleEncoder`), after https://arxiv.org/abs/2106.03153.
"""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from mlx_core.models import Conv1d
from mlx_core.ops import multi_head

WIDTH = 128
_KERNEL = 5
_HEADS = 2


class Projection(nn.Module):
    """A linear layer that the checkpoint calls `fc`, one level down."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.fc = nn.Linear(inputs, outputs)

    def __call__(self, x: mx.array) -> mx.array:
        return self.fc(x)


class GatedConv(nn.Module):
    """x + a * sigmoid(b), a and b by one convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Module()
        self.conv1.conv = Conv1d(WIDTH, 2 * WIDTH, _KERNEL, padding=_KERNEL // 2)

    def __call__(self, x: mx.array) -> mx.array:
        a, b = mx.split(self.conv1.conv(x), 2, axis=-1)
        return x + a * mx.sigmoid(b)


class SelfAttention(nn.Module):
    """Self-attention whose scores are scaled by the square root of the whole width, not of a head's."""

    def __init__(self) -> None:
        super().__init__()
        for name in ("w_qs", "w_ks", "w_vs", "fc"):
            self[name] = nn.Linear(WIDTH, WIDTH)

    def __call__(self, x: mx.array) -> mx.array:
        q, k, v = (project(x) for project in (self.w_qs, self.w_ks, self.w_vs))
        return x + self.fc(multi_head(q, k, v, _HEADS, scale=WIDTH**-0.5))


class ReferenceEncoder(nn.Module):
    """`ref_enc`."""

    def __init__(self, bins: int, outputs: int) -> None:
        super().__init__()
        self.bins = bins
        dropout = nn.Identity()
        self.spectral = [Projection(bins, WIDTH), nn.Identity(), dropout, Projection(WIDTH, WIDTH)]
        self.temporal = [GatedConv(), GatedConv()]
        self.slf_attn = SelfAttention()
        self.fc = Projection(WIDTH, outputs)

    def __call__(self, spectrogram: mx.array) -> mx.array:
        """`[B, T, bins or more] -> ge [B, 1, gin]`; bins beyond the encoder's are left out."""
        x = spectrogram[..., : self.bins]
        for layer in (self.spectral[0], self.spectral[3]):
            x = nn.mish(layer(x))
        for convolution in self.temporal:
            x = convolution(x)
        return mx.mean(self.fc(self.slf_attn(x)), axis=1, keepdims=True)
