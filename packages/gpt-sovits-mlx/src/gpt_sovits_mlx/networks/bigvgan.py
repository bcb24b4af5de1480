"""BigVGAN v2, v3's vocoder: a HiFi-GAN whose activations are periodic, and computed at twice the sample rate, so that
what they add above half of it isn't folded back.

Paper: https://arxiv.org/abs/2206.04658. Reference: NVIDIA/BigVGAN v2, `bigvgan.py`, `activations.py`,
`alias_free_activation/torch`; checkpoint `bigvgan_v2_24khz_100band_256x`. `B` batch, `T` time, `C` channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import mlx.core as mx
import mlx.nn as nn

from mlx_core.config import read_json
from mlx_core.errors import ConfigError
from mlx_core.models import Conv1d, ConvTranspose1d

from ..checkpoints.released import read_released
from .snake import Snake
from .vocoder import EDGE_KERNEL, MelVocoder, MelVocoderConfig, mean_of, stages

WEIGHTS_FILE = "bigvgan_generator.pt"


@dataclass(frozen=True, kw_only=True)
class BigVGANConfig(MelVocoderConfig):
    """BigVGAN's own config.json; the defaults are the released one's sizes, or the code's where it doesn't say."""

    sampling_rate: int = 24000
    upsample_rates: list[int] = field(default_factory=lambda: [4, 4, 2, 2, 2, 2])
    upsample_kernel_sizes: list[int] = field(default_factory=lambda: [8, 8, 4, 4, 4, 4])
    upsample_initial_channel: int = 1536
    activation: str = "snakebeta"
    snake_logscale: bool = True
    use_tanh_at_final: bool = True
    use_bias_at_final: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.activation not in ("snake", "snakebeta"):
            raise ConfigError(f"activation must be 'snake' or 'snakebeta'; found {self.activation!r}.")

    @classmethod
    def resblocks_known(cls) -> tuple[str, ...]:
        return ("1", "2")


class Activation(nn.Module):
    """`Activation1d`: a Snake at twice the rate, between a filter up and one down."""

    def __init__(self, config: BigVGANConfig, channels: int) -> None:
        super().__init__()
        self.act = Snake(channels, beta=config.activation == "snakebeta", logscale=config.snake_logscale)
        self.upsample, self.downsample = nn.Module(), nn.Module()
        self.downsample.lowpass = nn.Module()
        for module in (self.upsample, self.downsample.lowpass):
            module.filter = mx.zeros((1, 1, Snake.TAPS))

    def __call__(self, x: mx.array) -> mx.array:
        """`[B, T, C] -> [B, T, C]`."""
        return self.act(x, self.upsample.filter[0, 0], self.downsample.lowpass.filter[0, 0])


class AMPBlock(nn.Module):
    """Convolutions, each after an activation, added to what they came from: pairs of a dilated and a plain one, or
    (resblock 2) dilated ones alone.
    """

    def __init__(self, config: BigVGANConfig, channels: int, kernel: int, dilations: Sequence[int]) -> None:
        super().__init__()
        dilated, plain = (
            [Conv1d(channels, channels, kernel, padding=d * (kernel - 1) // 2, dilation=d) for d in spacings]
            for spacings in (dilations, [1] * len(dilations))
        )
        if config.resblock == "1":
            self.convs1, self.convs2 = dilated, plain
        else:
            self.convs = dilated
        count = len(dilations) * (2 if config.resblock == "1" else 1)
        self.activations = [Activation(config, channels) for _ in range(count)]

    def __call__(self, x: mx.array) -> mx.array:
        if "convs" in self:
            steps = [[pair] for pair in zip(self.activations, self.convs, strict=True)]
        else:
            first = zip(self.activations[::2], self.convs1, strict=True)
            second = zip(self.activations[1::2], self.convs2, strict=True)
            steps = [list(pairs) for pairs in zip(first, second, strict=True)]
        for pairs in steps:
            y = x
            for activation, convolution in pairs:
                y = convolution(activation(y))
            x = x + y
        return x


class BigVGAN(MelVocoder):
    """v3's vocoder, 24 kHz."""

    model_type = "bigvgan"
    config: BigVGANConfig

    def __init__(self, config: BigVGANConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.upsample_initial_channel
        self.conv_pre = Conv1d(config.num_mels, channels, EDGE_KERNEL, padding=EDGE_KERNEL // 2)
        self.ups, self.resblocks = [], []
        for rate, kernel in config.upsampling:
            up = ConvTranspose1d(channels, channels // 2, kernel, stride=rate, padding=(kernel - rate) // 2)
            self.ups.append([up])
            channels //= 2
            self.resblocks += [AMPBlock(config, channels, k, dilations) for k, dilations in config.blocks]
        self.activation_post = Activation(config, channels)
        self.conv_post = Conv1d(channels, 1, EDGE_KERNEL, padding=EDGE_KERNEL // 2, bias=config.use_bias_at_final)
        self._context_frames = config.context_frames(reach=Snake.REACH)

    @classmethod
    def build(cls, config: Mapping[str, Any], weights: Mapping[str, mx.array]) -> Self:
        return cls(BigVGANConfig.from_dict(config))

    @classmethod
    def read(cls, path: Path) -> tuple[dict[str, Any], dict[str, mx.array]]:
        """A folder as released (config.json beside `bigvgan_generator.pt`), its `.pt`, or what `convert` wrote."""
        file = path / WEIGHTS_FILE if path.is_dir() else path
        if path.is_dir() and not file.exists():
            return super().read(path)
        return read_json(file.parent / "config.json"), read_released(file).weights

    def generate(self, mel: mx.array) -> mx.array:
        """Mel spectrograms `[B, T, mels]` -> samples in [-1, 1] `[B, T * hop]`."""
        x = self.conv_pre(mel)
        for (up,), blocks in zip(self.ups, stages(self), strict=True):
            x = mean_of(blocks, up(x))
        x = self.conv_post(self.activation_post(x))[..., 0]
        return mx.tanh(x) if self.config.use_tanh_at_final else mx.clip(x, -1.0, 1.0)
