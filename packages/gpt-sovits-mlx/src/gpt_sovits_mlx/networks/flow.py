"""SoVITS's flow, from the prior's latents to the vocoder's: coupling layers of mean only, run in reverse.

Papers: https://arxiv.org/abs/1605.08803 (coupling), https://arxiv.org/abs/1811.00002 (WaveNet as its network).
Reference: GPT-SoVITS, `module/models.py` (`ResidualCouplingBlock`) and `module/modules.py` (`WN`).
"""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from mlx_core.models import Conv1d

_KERNEL = 5
_LAYERS = 4
_COUPLINGS = 4


class WaveNet(nn.Module):
    """Gated convolutions with skip connections, each conditioned on the voice."""

    def __init__(self, channels: int, gin: int, layers: int = _LAYERS, kernel: int = _KERNEL) -> None:
        super().__init__()
        self.in_layers = [Conv1d(channels, 2 * channels, kernel, padding=kernel // 2) for _ in range(layers)]
        self.res_skip_layers = [Conv1d(channels, (2 if i + 1 < layers else 1) * channels, 1) for i in range(layers)]
        self.cond_layer = Conv1d(gin, 2 * channels * layers, 1)

    def __call__(self, x: mx.array, ge: mx.array) -> mx.array:
        """`[B, T, C]`, voice `[B, 1, gin] -> [B, T, C]`."""
        C, out = x.shape[-1], mx.zeros_like(x)
        conditions = mx.split(self.cond_layer(ge), len(self.in_layers), axis=-1)
        for layer, res_skip, condition in zip(self.in_layers, self.res_skip_layers, conditions, strict=True):
            a, b = mx.split(layer(x) + condition, 2, axis=-1)
            y = res_skip(mx.tanh(a) * mx.sigmoid(b))
            if y.shape[-1] > C:
                x = x + y[..., :C]
            out = out + y[..., -C:]
        return out


class Coupling(nn.Module):
    """A coupling layer: one half of the channels shifts the other."""

    def __init__(self, channels: int, hidden: int, gin: int) -> None:
        super().__init__()
        self.pre = Conv1d(channels // 2, hidden, 1)
        self.enc = WaveNet(hidden, gin)
        self.post = Conv1d(hidden, channels // 2, 1)

    def reverse(self, x: mx.array, ge: mx.array) -> mx.array:
        x0, x1 = mx.split(x, 2, axis=-1)
        return mx.concatenate([x0, x1 - self.post(self.enc(self.pre(x0), ge))], axis=-1)


class Flow(nn.Module):
    """`flow`. In the checkpoint each coupling is followed by a flip of the channels, which has no weights."""

    def __init__(self, channels: int, hidden: int, gin: int) -> None:
        super().__init__()
        self.flows = [Coupling(channels, hidden, gin) if i % 2 == 0 else nn.Identity() for i in range(2 * _COUPLINGS)]

    def reverse(self, x: mx.array, ge: mx.array) -> mx.array:
        """Latents `[B, T, C]`, voice `[B, 1, gin] -> [B, T, C]`."""
        for coupling in reversed(self.flows[::2]):
            x = coupling.reverse(x[..., ::-1], ge)
        return x
