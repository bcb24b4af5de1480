"""ERes2NetV2: the embedding of a speaker, a vector that v2Pro takes beside the spectrogram.

Residual blocks whose channels are split and built upon one another; in the deeper layers the parts are fused by
attention. Batch norms are folded into the convolutions before them, at load.

Paper: https://arxiv.org/abs/2406.02167. Reference: GPT-SoVITS, `eres2net/ERes2NetV2.py`, `forward3`; checkpoint
`pretrained_eres2netv2w24s4ep4.ckpt`. `B` batch, `F` mel bins, `T` frames, `C` channels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import mlx.core as mx
import mlx.nn as nn

from mlx_core.config import BaseConfig
from mlx_core.errors import InputError, WeightsError
from mlx_core.models import Conv2d, check_sizes

from ..audio import MEL_BINS
from .module import CheckpointModule

_EPS = 1e-5
_REDUCTION = 4
_CEILING = 20.0
# A batch norm's name -> that of its convolution.
_NORMS = (
    (re.compile(r"(|.*\.)bn(\d)$"), r"\1conv\2"),
    (re.compile(r"(.*\.)bns\.(\d+)$"), r"\1convs.\2"),
    (re.compile(r"(.*\.shortcut\.)1$"), r"\g<1>0"),
    (re.compile(r"(.*\.local_att\.)1$"), r"\g<1>0"),
    (re.compile(r"(.*\.local_att\.)4$"), r"\g<1>3"),
)


@dataclass(frozen=True, kw_only=True)
class ERes2NetV2Config(BaseConfig):
    """The sizes of the released checkpoint, which has no configuration of its own."""

    m_channels: int = 64
    num_blocks: list[int] = field(default_factory=lambda: [3, 4, 6, 3])
    baseWidth: int = 24
    scale: int = 4
    expansion: int = 4

    def __post_init__(self) -> None:
        check_sizes(self, ("num_blocks",), 1000)
        check_sizes(self, ("m_channels", "baseWidth", "scale", "expansion"))


class ERes2NetV2(CheckpointModule):
    """The network of speaker embeddings."""

    model_type = "eres2netv2"
    unused = re.compile(r"seg_\d\.|seg_bn|.*num_batches_tracked$")

    def __init__(self, config: ERes2NetV2Config) -> None:
        super().__init__()
        self.config = config
        base = config.m_channels
        self.conv1 = Conv2d(1, base, 3, padding=1)
        inputs = base
        for number, count in enumerate(config.num_blocks, 1):
            planes = base * 2 ** (number - 1)
            blocks = []
            for i in range(count):
                stride = 2 if i == 0 and number > 1 else 1
                blocks.append(Block(config, inputs, planes, stride, fuse=number > 2))
                inputs = planes * config.expansion
            self[f"layer{number}"] = blocks
        self.layer3_ds = Conv2d(inputs // 2, inputs, 3, stride=2, padding=1, bias=False)
        self.fuse34 = Fusion(inputs)

    @classmethod
    def build(cls, config: Mapping[str, Any], weights: Mapping[str, mx.array]) -> Self:
        return cls(ERes2NetV2Config.from_dict(config))

    def sanitize(self, weights: dict[str, mx.array]) -> dict[str, mx.array]:
        return fold_batch_norms(weights)

    def __call__(self, fbank: mx.array) -> mx.array:
        """Filter-bank features `[B, T, 80]` or `[T, 80]`, by `speaker_fbank` -> embeddings `[B, 20480]`."""
        x = fbank[None] if fbank.ndim == 2 else fbank
        if x.ndim != 3 or x.shape[1] == 0 or x.shape[2] != MEL_BINS:
            raise InputError(f"fbank must be [B, T, {MEL_BINS}]; found {tuple(fbank.shape)}.")
        x = x.astype(self.conv1.weight.dtype).transpose(0, 2, 1)[..., None]  # [B, F, T, 1]
        x = nn.relu(self.conv1(x))
        outputs = []
        for name in ("layer1", "layer2", "layer3", "layer4"):
            for block in self[name]:
                x = block(x)
            outputs.append(x)
        fused = self.fuse34(outputs[3], self.layer3_ds(outputs[2]))  # [B, F / 8, T / 8, C]
        return mx.mean(fused, axis=2).transpose(0, 2, 1).reshape(x.shape[0], -1).astype(mx.float32)


class Block(nn.Module):
    """A residual block of `scale` parts, each convolved with the output of the one before it."""

    def __init__(self, config: ERes2NetV2Config, inputs: int, planes: int, stride: int, *, fuse: bool) -> None:
        super().__init__()
        width, outputs = planes * config.baseWidth // 64, planes * config.expansion
        self._parts = config.scale
        self.conv1 = Conv2d(inputs, width * config.scale, 1, stride=stride)
        self.convs = [Conv2d(width, width, 3, padding=1) for _ in range(config.scale)]
        if fuse:
            self.fuse_models = [Fusion(width) for _ in range(config.scale - 1)]
        self.conv3 = Conv2d(width * config.scale, outputs, 1)
        if stride != 1 or inputs != outputs:
            self.shortcut = [Conv2d(inputs, outputs, 1, stride=stride)]

    def __call__(self, x: mx.array) -> mx.array:
        done: list[mx.array] = []
        for i, part in enumerate(mx.split(_clipped(self.conv1(x)), self._parts, axis=-1)):
            if i:
                part = self.fuse_models[i - 1](done[-1], part) if "fuse_models" in self else done[-1] + part
            done.append(_clipped(self.convs[i](part)))
        out = self.conv3(mx.concatenate(done, axis=-1))
        return _clipped(out + (self.shortcut[0](x) if "shortcut" in self else x))


class Fusion(nn.Module):
    """x (1 + t) + y (1 - t), where t is the tanh of a small network of both."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = channels // _REDUCTION
        self.local_att = [Conv2d(2 * channels, inner, 1), nn.Identity(), nn.Identity(), Conv2d(inner, channels, 1)]

    def __call__(self, x: mx.array, y: mx.array) -> mx.array:
        t = mx.tanh(self.local_att[3](nn.silu(self.local_att[0](mx.concatenate([x, y], axis=-1)))))
        return x * (1 + t) + y * (1 - t)


def fold_batch_norms(weights: Mapping[str, mx.array]) -> dict[str, mx.array]:
    """Weights with each batch norm's scale and shift in the convolution before it; in the checkpoint's layouts."""
    result = dict(weights)
    for name in weights:
        norm = name.removesuffix(".running_mean")
        if norm == name:
            continue
        conv = next((pattern.sub(place, norm) for pattern, place in _NORMS if pattern.match(norm)), None)
        parts = [result.pop(f"{norm}.{part}", None) for part in ("weight", "bias", "running_mean", "running_var")]
        kernel = result.get(f"{conv}.weight")
        if kernel is None or any(part is None or part.shape != (kernel.shape[0],) for part in parts):
            raise WeightsError(f"the batch norm {norm} is incomplete, or there is no convolution that it fits.")
        gamma, beta, mean, variance = (part.astype(mx.float32) for part in parts if part is not None)
        scale = gamma * mx.rsqrt(variance + _EPS)
        bias = result.get(f"{conv}.bias", mx.zeros_like(mean)).astype(mx.float32)
        result[f"{conv}.weight"] = (kernel.astype(mx.float32) * scale.reshape(-1, 1, 1, 1)).astype(kernel.dtype)
        result[f"{conv}.bias"] = (beta + (bias - mean) * scale).astype(kernel.dtype)
    return result


def _clipped(x: mx.array) -> mx.array:
    return mx.clip(x, 0.0, _CEILING)
