"""FSMN: feedforward sequential memory network, the acoustic model of FSMN-VAD.

Linear layers with memories between: a memory adds to every frame a weighted sum, channel by channel, of the frames
before it (and after it). The output is the probability of each class of sounds; the first is silence.

Paper: https://arxiv.org/abs/1803.05030. Reference: FunASR 1.4.16, `models/fsmn_vad_streaming/encoder.py`.
`B` batch, `T` frames, `F` features, `D` width of the memory, `K` taps.
"""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn

from mlx_core.config import BaseConfig
from mlx_core.errors import ConfigError
from mlx_core.models import check_sizes
from mlx_core.ops import conv1d

FSMNCache = list[mx.array]
"""For each layer the frames `[B, (lorder - 1) lstride, D]` that the next chunk still sees."""


@dataclass(frozen=True, kw_only=True)
class FSMNConfig(BaseConfig):
    """The `encoder_conf` of a config.yaml."""

    input_dim: int
    input_affine_dim: int
    fsmn_layers: int
    linear_dim: int
    proj_dim: int
    lorder: int
    rorder: int
    lstride: int
    rstride: int
    output_affine_dim: int
    output_dim: int
    use_softmax: bool = True

    def __post_init__(self) -> None:
        check_sizes(self, ("input_dim", "input_affine_dim", "linear_dim", "proj_dim", "output_affine_dim"))
        check_sizes(self, ("output_dim", "lorder", "lstride"))
        check_sizes(self, ("fsmn_layers",), 4096)
        if not 0 <= self.rorder <= 2**20 or (self.rorder and not 1 <= self.rstride <= 2**20):
            raise ConfigError(
                f"encoder_conf: rorder must be 0 or more and then rstride at least 1; found {self.rorder} and "
                f"{self.rstride}."
            )
        if not self.use_softmax:
            raise ConfigError("encoder_conf: use_softmax must be true: segments are made from probabilities.")


class FSMN(nn.Module):
    """Features `[B, T, F]` -> probabilities `[B, T, classes]`."""

    def __init__(self, config: FSMNConfig) -> None:
        super().__init__()
        self.in_linear1 = Linear(config.input_dim, config.input_affine_dim)
        self.in_linear2 = Linear(config.input_affine_dim, config.linear_dim)
        self.fsmn = [Block(config) for _ in range(config.fsmn_layers)]
        self.out_linear1 = Linear(config.linear_dim, config.output_affine_dim)
        self.out_linear2 = Linear(config.output_affine_dim, config.output_dim)

    def make_cache(self, batch: int = 1) -> FSMNCache:
        """The cache of a recording's first chunk: zeros before it."""
        return [mx.zeros((batch, *block.fsmn_block.context)) for block in self.fsmn]

    def __call__(self, x: mx.array, cache: FSMNCache) -> mx.array:
        x = nn.relu(self.in_linear2(self.in_linear1(x)))
        for i, block in enumerate(self.fsmn):
            x, cache[i] = block(x, cache[i])
        return mx.softmax(self.out_linear2(self.out_linear1(x)), axis=-1)


class Block(nn.Module):
    """A narrow memory between two linear layers."""

    def __init__(self, config: FSMNConfig) -> None:
        super().__init__()
        self.linear = Linear(config.linear_dim, config.proj_dim, bias=False)
        self.fsmn_block = Memory(config)
        self.affine = Linear(config.proj_dim, config.linear_dim)

    def __call__(self, x: mx.array, before: mx.array) -> tuple[mx.array, mx.array]:
        x, before = self.fsmn_block(self.linear(x), before)
        return nn.relu(self.affine(x)), before


class Linear(nn.Module):
    """A linear layer under the checkpoint's name."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias)

    def __call__(self, x: mx.array) -> mx.array:
        return self.linear(x)


class DepthwiseConv(nn.Module):
    """A depthwise convolution over time: `[B, T + (K - 1) stride, D] -> [B, T, D]`."""

    checkpoint_axes = (0, 2, 1, 3)  # [D, 1, K, 1] -> [D, K, 1, 1]

    def __init__(self, width: int, taps: int, stride: int) -> None:
        super().__init__()
        self.weight = mx.zeros((width, taps, 1, 1))
        self._stride = stride

    def __call__(self, x: mx.array) -> mx.array:
        return conv1d(x, self.weight.squeeze(-1), dilation=self._stride, groups=x.shape[-1])


class Memory(nn.Module):
    """x plus weighted sums of the frames before it, and of those after it within a chunk."""

    def __init__(self, config: FSMNConfig) -> None:
        super().__init__()
        self.conv_left = DepthwiseConv(config.proj_dim, config.lorder, config.lstride)
        if config.rorder:
            self.conv_right = DepthwiseConv(config.proj_dim, config.rorder, config.rstride)
        self.context = ((config.lorder - 1) * config.lstride, config.proj_dim)
        """Frames before a chunk that the memory sees, and their width."""
        self._ahead = config.rorder * config.rstride
        self._rstride = config.rstride

    def __call__(self, x: mx.array, before: mx.array) -> tuple[mx.array, mx.array]:
        """`[B, T, D]` and the frames before it -> `[B, T, D]` and the frames before the next chunk."""
        if x.size == 0:
            return x, before
        seen = mx.concatenate([before, x], axis=1)
        y = x + self.conv_left(seen)
        if self._ahead:
            y = y + self.conv_right(mx.pad(x, [(0, 0), (0, self._ahead), (0, 0)])[:, self._rstride :])
        return y, seen[:, seen.shape[1] - before.shape[1] :]
