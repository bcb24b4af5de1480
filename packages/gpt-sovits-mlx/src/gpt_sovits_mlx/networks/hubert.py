"""CNHubert: features of speech, one each 20 ms; SoVITS makes its semantic tokens of them.

HuBERT base: seven convolutions, a convolution for positions, a post-norm transformer. The first convolution's output is
normalised per channel over time; the others aren't.

Paper: https://arxiv.org/abs/2106.07447. Reference: transformers 4.57.6, `models/hubert` (`feat_extract_norm` "group",
no stable layer norm); checkpoint `chinese-hubert-base`. `B` batch, `S` samples, `T` frames, `C` channels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import mlx.core as mx
import mlx.nn as nn

from mlx_core.config import BaseConfig
from mlx_core.errors import ConfigError, InputError
from mlx_core.models import Conv1d, check_sizes
from mlx_core.ops import gelu

from .module import CheckpointModule
from .transformer import SelfAttention


@dataclass(frozen=True, kw_only=True)
class CNHubertConfig(BaseConfig):
    """config.json of `chinese-hubert-base`; the defaults are its sizes."""

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    layer_norm_eps: float = 1e-5
    feat_extract_norm: str = "group"
    do_stable_layer_norm: bool = False
    conv_bias: bool = False
    conv_dim: list[int] = field(default_factory=lambda: [512] * 7)
    conv_kernel: list[int] = field(default_factory=lambda: [10, 3, 3, 3, 3, 2, 2])
    conv_stride: list[int] = field(default_factory=lambda: [5, 2, 2, 2, 2, 2, 2])
    num_conv_pos_embeddings: int = 128
    num_conv_pos_embedding_groups: int = 16
    feat_proj_layer_norm: bool = True

    def __post_init__(self) -> None:
        check_sizes(self, ("num_hidden_layers",), 1000)
        check_sizes(self, ("hidden_size", "num_attention_heads", "intermediate_size", "conv_dim", "conv_kernel"))
        check_sizes(self, ("conv_stride", "num_conv_pos_embeddings", "num_conv_pos_embedding_groups"))
        if not 1 <= len(self.conv_dim) == len(self.conv_kernel) == len(self.conv_stride):
            raise ConfigError("conv_dim, conv_kernel and conv_stride must be of one length, 1 or more.")
        if self.hidden_size % self.num_attention_heads or self.hidden_size % self.num_conv_pos_embedding_groups:
            raise ConfigError(
                f"hidden_size {self.hidden_size} must be a multiple of {self.num_attention_heads} heads and of "
                f"{self.num_conv_pos_embedding_groups} groups."
            )
        if (
            self.feat_extract_norm != "group"
            or self.do_stable_layer_norm
            or not self.feat_proj_layer_norm
            or self.conv_bias
        ):
            raise ConfigError(
                "only HuBERT with a group norm, no biases of convolutions, a normalised projection and post-norm layers is "
                "supported: CNHubert is of that kind."
            )


class CNHubert(CheckpointModule):
    """HuBERT base."""

    model_type = "hubert"
    unused = re.compile(r"(hubert\.)?masked_spec_embed$")

    def __init__(self, config: CNHubertConfig) -> None:
        super().__init__()
        self.config = config
        self.feature_extractor = FeatureExtractor(config)
        self.feature_projection = FeatureProjection(config)
        self.encoder = Encoder(config)

    @classmethod
    def build(cls, config: Mapping[str, Any], weights: Mapping[str, mx.array]) -> Self:
        return cls(CNHubertConfig.from_dict(config))

    def sanitize(self, weights: dict[str, mx.array]) -> dict[str, mx.array]:
        return {name.removeprefix("hubert."): value for name, value in weights.items()}

    def __call__(self, samples: mx.array) -> mx.array:
        """Samples `[B, S]` or `[S]` in [-1, 1], 16 kHz mono, as recorded -> features `[B, T, C]`, 50 frames a second.

        Raises InputError for fewer samples than the convolutions need (400).
        """
        samples = samples[None] if samples.ndim == 1 else samples
        if samples.ndim != 2 or samples.shape[1] < self.min_samples:
            raise InputError(
                f"samples must be [B, S] with S >= {self.min_samples}, 16 kHz; found shape {tuple(samples.shape)}."
            )
        features = self.feature_extractor(samples[..., None].astype(self.feature_projection.projection.weight.dtype))
        return self.encoder(self.feature_projection(features))

    @property
    def min_samples(self) -> int:
        """The samples of one frame."""
        count = 1
        for kernel, stride in zip(reversed(self.config.conv_kernel), reversed(self.config.conv_stride), strict=True):
            count = (count - 1) * stride + kernel
        return count


class ConvLayer(nn.Module):
    """A convolution and GELU, between them in the first layer the norm of each channel over time."""

    def __init__(self, config: CNHubertConfig, i: int) -> None:
        super().__init__()
        inputs, outputs = (config.conv_dim[i - 1] if i else 1), config.conv_dim[i]
        self.conv = Conv1d(inputs, outputs, config.conv_kernel[i], stride=config.conv_stride[i], bias=False)
        if i == 0:
            self.layer_norm = ChannelNorm(outputs)

    def __call__(self, x: mx.array) -> mx.array:
        return gelu(self.layer_norm(x, self.conv) if "layer_norm" in self else self.conv(x))


class ChannelNorm(nn.Module):
    """A convolution of one channel, each of its outputs then with mean 0 and variance 1 over time.

    The outputs' mean and variance follow from those of the windows that the kernel meets, so the norm becomes another
    kernel, and nothing as large as the outputs is read twice.
    """

    eps: ClassVar[float] = 1e-5

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = mx.ones((channels,)), mx.zeros((channels,))

    def __call__(self, x: mx.array, conv: Conv1d) -> mx.array:
        """`[B, S, 1] -> [B, T, C]`."""
        kernel = conv.weight[..., 0].astype(mx.float32)  # [C, K]
        windows = conv.windows(x.astype(mx.float32))  # [B, T, K]
        T = windows.shape[1]
        mean = mx.ones((1, T)) @ windows / T  # [B, 1, K]; products add up more exactly than MLX's CPU sums
        centred = windows - mean
        covariance = centred.swapaxes(1, 2) @ centred / T  # [B, K, K]
        variance = mx.sum((kernel @ covariance) * kernel, axis=-1)  # [B, C]
        scale = self.weight * mx.rsqrt(variance + self.eps)
        return (centred @ (kernel * scale[..., None]).swapaxes(1, 2) + self.bias).astype(x.dtype)


class FeatureExtractor(nn.Module):
    def __init__(self, config: CNHubertConfig) -> None:
        super().__init__()
        self.conv_layers = [ConvLayer(config, i) for i in range(len(config.conv_dim))]

    def __call__(self, x: mx.array) -> mx.array:
        for layer in self.conv_layers:
            x = layer(x)
        return x  # [B, T, C]


class FeatureProjection(nn.Module):
    def __init__(self, config: CNHubertConfig) -> None:
        super().__init__()
        self.layer_norm = nn.LayerNorm(config.conv_dim[-1], config.layer_norm_eps)
        self.projection = nn.Linear(config.conv_dim[-1], config.hidden_size)

    def __call__(self, x: mx.array) -> mx.array:
        return self.projection(self.layer_norm(x))


class PositionalConv(nn.Module):
    """Relative positions: a convolution over the frames around each."""

    def __init__(self, config: CNHubertConfig) -> None:
        super().__init__()
        kernel = config.num_conv_pos_embeddings
        self._surplus = 1 - kernel % 2  # an even kernel, padded on both sides, makes a frame too many
        self.conv = Conv1d(
            config.hidden_size,
            config.hidden_size,
            kernel,
            padding=kernel // 2,
            groups=config.num_conv_pos_embedding_groups,
        )

    def __call__(self, x: mx.array) -> mx.array:
        return gelu(self.conv(x)[:, : x.shape[1]])


class FeedForward(nn.Module):
    def __init__(self, config: CNHubertConfig) -> None:
        super().__init__()
        self.intermediate_dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.output_dense = nn.Linear(config.intermediate_size, config.hidden_size)

    def __call__(self, x: mx.array) -> mx.array:
        return self.output_dense(gelu(self.intermediate_dense(x)))


class EncoderLayer(nn.Module):
    def __init__(self, config: CNHubertConfig) -> None:
        super().__init__()
        names = ("q_proj", "k_proj", "v_proj", "out_proj")
        self.attention = SelfAttention(config.hidden_size, config.num_attention_heads, names)
        self.layer_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.feed_forward = FeedForward(config)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def __call__(self, x: mx.array) -> mx.array:
        x = self.layer_norm(x + self.attention(x))
        return self.final_layer_norm(x + self.feed_forward(x))


class Encoder(nn.Module):
    def __init__(self, config: CNHubertConfig) -> None:
        super().__init__()
        self.pos_conv_embed = PositionalConv(config)
        self.layer_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.layers = [EncoderLayer(config) for _ in range(config.num_hidden_layers)]

    def __call__(self, x: mx.array) -> mx.array:
        x = self.layer_norm(x + self.pos_conv_embed(x))
        for layer in self.layers:
            x = layer(x)
        return x
