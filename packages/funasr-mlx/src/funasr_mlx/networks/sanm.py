"""SAN-M: self-attention with a memory, the encoder of every recognizer here and of the punctuation.

A layer attends, and adds an FSMN memory: a depthwise convolution over the values, so a weighted sum of neighbours. The
first layer may change the width; it has no residual then.

    x sqrt(D) + positions -> encoders0 -> encoders ... -> after_norm [-> tp_encoders ... -> tp_norm]

Paper: https://arxiv.org/abs/2006.01713. Reference: FunASR 1.4.16, `models/sanm`, `models/sense_voice`.
`B` batch, `T` frames, `D` width, `H` heads, `K` taps of the memory. A mask is `[B, T]`, true for the frames that there
are, or None where no row is padded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import numpy.typing as npt

from mlx_core.config import BaseConfig
from mlx_core.errors import ConfigError, InputError
from mlx_core.models import Conv1d, check_sizes
from mlx_core.ops import multi_head

LAYER_NORM_EPS = 1e-12
"""FunASR's own LayerNorm; SenseVoice's is torch's, 1e-5."""


@dataclass(frozen=True, kw_only=True)
class SANMConfig(BaseConfig):
    """The `encoder_conf` of a config.yaml; FunASR's defaults."""

    output_size: int = 256
    attention_heads: int = 4
    linear_units: int = 2048
    num_blocks: int = 6
    tp_blocks: int = 0
    """Blocks after `after_norm`, which have a norm of their own: SenseVoice's."""
    kernel_size: int = 11
    sanm_shfit: int = 0
    """Frames by which the memory looks further back than ahead. FunASR's spelling."""
    input_layer: str | None = "pe"
    normalize_before: bool = True
    concat_after: bool = False
    positionwise_layer_type: str = "linear"
    selfattention_layer_type: str = "sanm"

    def __post_init__(self) -> None:
        check_sizes(self, ("output_size", "attention_heads", "linear_units", "kernel_size"))
        check_sizes(self, ("num_blocks",), 4096)
        if not 0 <= self.tp_blocks <= 4096:
            raise ConfigError(f"encoder_conf: tp_blocks must be from 0 to 4096; found {self.tp_blocks}.")
        if self.output_size % self.attention_heads:
            raise ConfigError(
                f"encoder_conf: output_size {self.output_size} must be a multiple of {self.attention_heads} heads."
            )
        expected: dict[str, tuple[Any, ...]] = {
            "input_layer": ("pe", "pe_online"),
            "normalize_before": (True,),
            "concat_after": (False,),
            "positionwise_layer_type": ("linear",),
            "selfattention_layer_type": ("sanm",),
        }
        for name, known in expected.items():
            if getattr(self, name) not in known:
                raise ConfigError(
                    f"encoder_conf: {name} must be {' or '.join(map(repr, known))}, as in every released model; found "
                    f"{getattr(self, name)!r}."
                )


def padding_mask(lengths: npt.ArrayLike | mx.array, batch: int, frames: int) -> mx.array | None:
    """Lengths `[B]` -> mask `[B, T]`, None where every row is full. Raises InputError for lengths that don't fit."""
    found = np.asarray(lengths)
    if found.shape != (batch,) or (batch and found.dtype.kind not in "iu"):
        raise InputError(f"lengths must be {batch} whole numbers, one for each row; found {found!r:.100}.")
    if found.size and (found.min() < 0 or found.max() > frames):
        raise InputError(f"lengths must be from 0 to {frames}, the frames that there are; found {found!r:.100}.")
    if (found == frames).all():
        return None
    return mx.array(np.arange(frames) < found[:, None])


def position_encoding(first: int, count: int, width: int) -> mx.array:
    """Sines, then cosines of the positions from `first` on, which start at 1: `[count, width]`."""
    half = width / 2
    step = np.log(np.float32(10000)) / np.float32(half - 1)
    inverse = np.exp(np.arange(half, dtype=np.float32) * -step)
    angles = np.arange(first, first + count, dtype=np.float32)[:, None] * inverse
    return mx.array(np.concatenate([np.sin(angles), np.cos(angles)], axis=1))


class Memory(Conv1d):
    """The FSMN: x plus a depthwise convolution of it, `[B, T, D] -> [B, T, D]`."""

    def __init__(self, width: int, kernel: int, shift: int = 0) -> None:
        super().__init__(width, width, kernel, groups=width, bias=False)
        self._before = (kernel - 1) // 2 + max(0, shift)

    def __call__(self, x: mx.array, mask: mx.array | None = None, before: mx.array | None = None) -> mx.array:
        """`before` `[B, K - 1, D]` are the frames before x, of a stream; without it there are zeros on both sides."""
        if x.size == 0:
            return x
        kept = None if mask is None else mask[..., None].astype(x.dtype)
        x = x if kept is None else x * kept
        y = super().__call__(self.with_context(x, before)) + x
        return y if kept is None else y * kept

    def with_context(self, x: mx.array, before: mx.array | None = None) -> mx.array:
        """X with the frames around it, `[B, T + K - 1, D]`; the last K - 1 are `before` of the frames that follow."""
        if before is not None:
            return mx.concatenate([before, x], axis=1)
        T, kernel = x.shape[1], self.weight.shape[1]
        after = max(0, kernel - 1 - self._before)  # below zero the last frames are out of sight
        return mx.pad(x, [(0, 0), (self._before, after), (0, 0)])[:, : T + kernel - 1]


class SelfAttention(nn.Module):
    """Attention among the frames, plus their memory: `[B, T, inputs] -> [B, T, D]`."""

    def __init__(self, inputs: int, config: SANMConfig) -> None:
        super().__init__()
        self._heads = config.attention_heads
        width = config.output_size
        self.linear_q_k_v = nn.Linear(inputs, 3 * width)
        self.linear_out = nn.Linear(width, width)
        self.fsmn_block = Memory(width, config.kernel_size, config.sanm_shfit)

    def __call__(self, x: mx.array, mask: mx.array | None = None) -> mx.array:
        q, k, v = self.project(x)
        return self.attend(q, k, v, mask) + self.fsmn_block(v, mask)

    def project(self, x: mx.array) -> tuple[mx.array, mx.array, mx.array]:
        """Queries, keys and values, each `[B, T, D]`."""
        q, k, v = mx.split(self.linear_q_k_v(x), 3, axis=-1)
        return q, k, v

    def attend(self, q: mx.array, k: mx.array, v: mx.array, mask: mx.array | None = None) -> mx.array:
        """Attention of queries `[B, T, D]` to keys and values `[B, S, D]`, whose mask is `[B, S]` -> `[B, T, D]`."""
        return self.linear_out(multi_head(q, k, v, self._heads, mask=mask))


class FeedForward(nn.Module):
    """Two linear layers with a ReLU between: `[B, T, D] -> [B, T, D]`."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w_1 = nn.Linear(width, hidden)
        self.w_2 = nn.Linear(hidden, width)

    def __call__(self, x: mx.array) -> mx.array:
        return self.w_2(nn.relu(self.w_1(x)))


class SANMLayer(nn.Module):
    """A layer of the encoder; `finish` is its part after attention, so that a stream may attend in its own way."""

    def __init__(self, inputs: int, config: SANMConfig, eps: float) -> None:
        super().__init__()
        self.self_attn = SelfAttention(inputs, config)
        self.feed_forward = FeedForward(config.output_size, config.linear_units)
        self.norm1 = nn.LayerNorm(inputs, eps)
        self.norm2 = nn.LayerNorm(config.output_size, eps)

    def __call__(self, x: mx.array, mask: mx.array | None = None) -> mx.array:
        """`[B, T, inputs] -> [B, T, D]`."""
        return self.finish(x, self.self_attn(self.norm1(x), mask))

    def finish(self, x: mx.array, attended: mx.array) -> mx.array:
        """The layer's input and the output of its attention -> the layer's output."""
        if x.shape[-1] == attended.shape[-1]:
            attended = x + attended
        return attended + self.feed_forward(self.norm2(attended))


class SANMEncoder(nn.Module):
    """The encoder: features `[B, T, inputs]` -> `[B, T, D]`."""

    def __init__(self, config: SANMConfig, inputs: int, *, eps: float = LAYER_NORM_EPS, tp: bool = False) -> None:
        """tp: whether the second stack and its norm are there, if only with no blocks."""
        super().__init__()
        if inputs < 4 or inputs % 2:
            raise ConfigError(f"an encoder's input must be an even number of at least 4 wide; found {inputs}.")
        width = config.output_size
        self._scale = width**0.5
        self.encoders0 = [SANMLayer(inputs, config, eps)]
        self.encoders = [SANMLayer(width, config, eps) for _ in range(config.num_blocks - 1)]
        self.after_norm = nn.LayerNorm(width, eps)
        if tp:
            self.tp_encoders = [SANMLayer(width, config, eps) for _ in range(config.tp_blocks)]
            self.tp_norm = nn.LayerNorm(width, eps)

    def __call__(self, x: mx.array, mask: mx.array | None = None) -> mx.array:
        """Frames with their mask `[B, T]`; the output has no meaning in the padding."""
        if x.size == 0:
            weight = self.after_norm.weight
            return mx.zeros((*x.shape[:2], weight.size), dtype=weight.dtype)
        x = self.embed(x)
        for layer in self.layers:
            x = layer(x, mask)
        x = self.after_norm(x)
        if "tp_norm" not in self:
            return x
        for layer in self.tp_encoders:
            x = layer(x, mask)
        return self.tp_norm(x)

    @property
    def layers(self) -> list[SANMLayer]:
        """Those before `after_norm`."""
        return [*self.encoders0, *self.encoders]

    def embed(self, x: mx.array, first: int = 1) -> mx.array:
        """The input, scaled, with its positions from `first` on; in float32, then in the weights' dtype."""
        placed = x.astype(mx.float32) * self._scale + position_encoding(first, x.shape[1], x.shape[2])
        return placed.astype(self.after_norm.weight.dtype)
