"""The network of v3 and v4 that turns noise into mel spectrograms: a diffusion transformer (DiT) that estimates a
flow's velocity, and the solver that follows it.

A sequence is the prompt's frames and, after them, those to be made. Its features (phones and voice) and the prompt's
spectrogram are the same at every step, while the spectrogram in the making goes from noise at time 0 to speech at 1; so
all that depends on them, or on time alone, is computed once. Surprising and the checkpoint's own: RoPE rotates the first
`dim_head` of the queries' and keys' channels before heads are split, thus head 0 alone.

Papers: https://arxiv.org/abs/2212.09748 (DiT), https://arxiv.org/abs/2410.06885 (F5-TTS, whose estimator this is),
https://arxiv.org/abs/2210.02747 (flow matching), https://arxiv.org/abs/2410.12557 (the step's size as a condition).
Reference: GPT-SoVITS, `f5_tts/model/backbones/dit.py`, `f5_tts/model/modules.py`, `module/models.py` (`CFM`). `B`
batch, `T` frames, `P` of them the prompt's, `D` width, `M` mel bands, `S` steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlx_core.config import BaseConfig
from mlx_core.errors import ConfigError
from mlx_core.models import Conv1d, check_sizes
from mlx_core.ops import bidirectional_attention, gelu, gelu_tanh, merge_heads, mish, split_heads

_EPS = 1e-6
_FREQUENCIES = 256
_TIME_SCALE = 1000.0
_POSITIONS = 4096  # text positions beyond it are as the last one
_CONV_GROUPS, _CONV_KERNEL, _TEXT_KERNEL = 16, 31, 7
_PREFIX = "cfm.estimator."


@dataclass(frozen=True, kw_only=True)
class DiTConfig(BaseConfig):
    """The released sizes, which no file states; `of` reads others from the weights."""

    dim: int = 1024
    depth: int = 22
    heads: int = 16
    dim_head: int = 64
    ff_mult: int = 2
    text_dim: int = 512
    conv_layers: int = 4
    mel_dim: int = 100

    def __post_init__(self) -> None:
        check_sizes(self, ("depth",), 1000)
        check_sizes(self, ("dim", "heads", "dim_head", "ff_mult", "text_dim", "mel_dim"))
        if isinstance(self.conv_layers, bool) or not 0 <= self.conv_layers <= 1000:
            raise ConfigError(f"conv_layers must be from 0 to 1000; found {self.conv_layers!r}.")
        if self.dim % _CONV_GROUPS or self.dim_head % 2 or self.text_dim % 2:
            raise ConfigError(
                f"dim {self.dim} must be a multiple of {_CONV_GROUPS}, dim_head {self.dim_head} and text_dim "
                f"{self.text_dim} even."
            )

    @classmethod
    def of(cls, config: Mapping[str, Any], weights: Mapping[str, mx.array]) -> DiTConfig:
        """The sizes that a configuration's `dit` table states, else those of the weights, else the released ones."""
        found: dict[str, Any] = {}

        def size(key: str, name: str, axis: int) -> int | None:
            value = weights.get(_PREFIX + name)
            if value is None or value.ndim != 2:
                return None
            found[key] = value.shape[axis]
            return value.shape[axis]

        dim = size("dim", "proj_out.weight", 1)
        size("mel_dim", "proj_out.weight", 0)
        for key, stack in (("depth", "transformer_blocks."), ("conv_layers", "text_embed.text_blocks.")):
            prefix = _PREFIX + stack
            numbers = {name[len(prefix) :].split(".")[0] for name in weights if name.startswith(prefix)}
            if dim is not None:
                found[key] = len(numbers)
        stated = config.get("dit")
        stated = stated if isinstance(stated, Mapping) else {}
        dim_head = stated.get("dim_head", cls.dim_head)
        inner = size("heads", "transformer_blocks.0.attn.to_q.weight", 0)
        if inner is not None and isinstance(dim_head, int) and dim_head > 0:
            found["heads"] = max(inner // dim_head, 1)
        wide = size("ff_mult", "transformer_blocks.0.ff.ff.0.0.weight", 0)
        if wide is not None and dim:
            found["ff_mult"] = max(wide // dim, 1)
        joint = size("text_dim", "input_embed.proj.weight", 1)
        if joint is not None:
            found["text_dim"] = joint - 2 * found.get("mel_dim", cls.mel_dim)
        return cls.from_dict({**found, **stated})


class TimeEmbedding(nn.Module):
    """Times in [0, 1] `[S]` -> `[S, D]`."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.time_mlp = [nn.Linear(_FREQUENCIES, dim), nn.Identity(), nn.Linear(dim, dim)]

    def __call__(self, times: np.ndarray) -> mx.array:
        half = _FREQUENCIES // 2
        frequencies = np.exp(np.arange(half, dtype=np.float32) * np.float32(-math.log(10000) / (half - 1)))
        angles = np.float32(_TIME_SCALE) * times.astype(np.float32)[:, None] * frequencies
        waves = np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)
        first, _, last = self.time_mlp
        return last(nn.silu(first(mx.array(waves).astype(first.bias.dtype))))


class ConvNeXtBlock(nn.Module):
    """ConvNeXt V2 (https://arxiv.org/abs/2301.00808): with response normalisation over all frames."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv = Conv1d(dim, dim, _TEXT_KERNEL, padding=_TEXT_KERNEL // 2, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=_EPS)
        self.pwconv1 = nn.Linear(dim, 2 * dim)
        self.grn = nn.Module()
        self.grn.gamma, self.grn.beta = mx.zeros((1, 1, 2 * dim)), mx.zeros((1, 1, 2 * dim))
        self.pwconv2 = nn.Linear(2 * dim, dim)

    def __call__(self, x: mx.array) -> mx.array:
        y = gelu(self.pwconv1(self.norm(self.dwconv(x))))
        exact = y.astype(mx.float32)
        norm = mx.sqrt(mx.sum(exact * exact, axis=1, keepdims=True))  # [B, 1, 2 D]
        share = (norm / (mx.mean(norm, axis=-1, keepdims=True) + _EPS)).astype(y.dtype)
        return x + self.pwconv2(self.grn.gamma * (y * share) + self.grn.beta + y)


class TextEmbedding(nn.Module):
    """`[B, T, text] -> [B, T, text]`: positions and ConvNeXt blocks over the condition."""

    def __init__(self, dim: int, layers: int) -> None:
        super().__init__()
        self.text_blocks = [ConvNeXtBlock(dim) for _ in range(layers)]

    def __call__(self, text: mx.array) -> mx.array:
        if not self.text_blocks:
            return text
        T, dim = text.shape[1:]
        places = np.minimum(np.arange(T), _POSITIONS - 1)[:, None]
        angles = places.astype(np.float32) / np.float32(10000.0) ** (np.arange(0, dim, 2, dtype=np.float32) / dim)
        x = text + mx.array(np.concatenate([np.cos(angles), np.sin(angles)], axis=-1)).astype(text.dtype)
        for block in self.text_blocks:
            x = block(x)
        return x


class InputEmbedding(nn.Module):
    """Spectrogram in the making, prompt's spectrogram and text, side by side, to `[B, T, D]`."""

    def __init__(self, mels: int, text: int, dim: int) -> None:
        super().__init__()
        self._mels = mels
        self.proj = nn.Linear(2 * mels + text, dim)
        convolutions = [
            Conv1d(dim, dim, _CONV_KERNEL, padding=_CONV_KERNEL // 2, groups=_CONV_GROUPS) for _ in range(2)
        ]
        self.conv_pos_embed = nn.Module()
        self.conv_pos_embed.conv1d = [convolutions[0], nn.Identity(), convolutions[1]]

    def condition_embedding(self, prompt: mx.array, text: mx.array) -> mx.array:
        """The part that is the same at every step: prompt `[B, P, M]` (zero after it), text `[B, T, text]`."""
        weight, M = self.proj.weight, self._mels
        prompt = mx.pad(prompt @ weight[:, M : 2 * M].T, [(0, 0), (0, text.shape[1] - prompt.shape[1]), (0, 0)])
        return text @ weight[:, 2 * M :].T + prompt + self.proj.bias

    def __call__(self, x: mx.array, condition: mx.array) -> mx.array:
        """The spectrogram in the making `[B, T - P, M]`, the condition's embedding `[B, T, D]`."""
        embedded = x @ self.proj.weight[:, : self._mels].T
        x = condition + mx.pad(embedded, [(0, 0), (condition.shape[1] - x.shape[1], 0), (0, 0)])
        first, _, second = self.conv_pos_embed.conv1d
        return x + mish(second(mish(first(x))))


class Attention(nn.Module):
    """Attention of every frame to every other."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self._heads, inner = config.heads, config.heads * config.dim_head
        for name in ("to_q", "to_k", "to_v"):
            self[name] = nn.Linear(config.dim, inner)
        self.to_out = [nn.Linear(inner, config.dim)]

    def __call__(self, x: mx.array) -> mx.array:
        q, k, v = (split_heads(project(x), self._heads) for project in (self.to_q, self.to_k, self.to_v))
        q, k = (mx.concatenate([_rotated(y[:, :1]), y[:, 1:]], axis=1) for y in (q, k))
        out = bidirectional_attention(q, k, v, scale=q.shape[-1] ** -0.5)
        return self.to_out[0](merge_heads(out))


def _rotated(x: mx.array) -> mx.array:
    """`[B, 1, T, D / H]` with pairs of neighbouring channels rotated by their frame's angles."""
    return mx.fast.rope(x, x.shape[-1], traditional=True, base=10000.0, scale=1.0, offset=0)


class Modulation(nn.Module):
    """Shifts, scales and gates of a layer by time: `[S, D] -> count` arrays `[S, D]`."""

    def __init__(self, dim: int, count: int) -> None:
        super().__init__()
        self._count = count
        self.linear = nn.Linear(dim, count * dim)

    def __call__(self, time: mx.array) -> list[mx.array]:
        return list(mx.split(self.linear(nn.silu(time)), self._count, axis=-1))


def _modulated(x: mx.array, shift: mx.array, scale: mx.array) -> mx.array:
    return mx.fast.layer_norm(x, 1 + scale, shift, _EPS)


class Block(nn.Module):
    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.attn_norm = Modulation(config.dim, 6)
        self.attn = Attention(config)
        wide = config.dim * config.ff_mult
        self.ff = nn.Module()
        self.ff.ff = [[nn.Linear(config.dim, wide)], nn.Identity(), nn.Linear(wide, config.dim)]

    def __call__(self, x: mx.array, modulation: list[mx.array]) -> mx.array:
        """`[B, T, D]`, six arrays `[D] -> [B, T, D]`."""
        shift, scale, gate, ff_shift, ff_scale, ff_gate = modulation
        x = x + gate * self.attn(_modulated(x, shift, scale))
        (first,), _, second = self.ff.ff
        return x + ff_gate * second(gelu_tanh(first(_modulated(x, ff_shift, ff_scale))))


class DiT(nn.Module):
    """`cfm.estimator`."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.time_embed, self.d_embed = TimeEmbedding(config.dim), TimeEmbedding(config.dim)
        self.text_embed = TextEmbedding(config.text_dim, config.conv_layers)
        self.input_embed = InputEmbedding(config.mel_dim, config.text_dim, config.dim)
        self.transformer_blocks = [Block(config) for _ in range(config.depth)]
        self.norm_out = Modulation(config.dim, 2)
        self.proj_out = nn.Linear(config.dim, config.mel_dim)

    def modulations(self, times: np.ndarray, step: float) -> list[list[mx.array]]:
        """The modulations of each block and of the last norm, by times `[S]` and the step's size: arrays `[S, D]`."""
        time = self.time_embed(times) + self.d_embed(np.full(1, step))
        return [block.attn_norm(time) for block in self.transformer_blocks] + [self.norm_out(time)]

    def condition_embedding(self, features: mx.array, prompt: mx.array) -> mx.array:
        """Features `[B, T, text]` and the prompt's spectrogram `[B, P, M] -> [B, T, D]`, the same at every step."""
        return self.input_embed.condition_embedding(prompt, self.text_embed(features))

    def __call__(self, x: mx.array, condition: mx.array, modulations: list[list[mx.array]]) -> mx.array:
        """The spectrogram in the making `[B, T - P, M]` -> its velocity, at one time: modulations are arrays `[D]`."""
        y = self.input_embed(x, condition)
        for block, modulation in zip(self.transformer_blocks, modulations[:-1], strict=True):
            y = block(y, modulation)
        scale, shift = modulations[-1]
        return self.proj_out(_modulated(y[:, -x.shape[1] :], shift, scale))


class FlowMatching(nn.Module):
    """`cfm`: Euler's method from noise to a spectrogram."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.estimator = DiT(config)

    def sample(
        self, features: mx.array, prompt: mx.array, noise: mx.array, *, steps: int, guidance: float = 0.0
    ) -> mx.array:
        """Features `[B, T, text]` and the prompt's spectrogram `[B, P, M]`, T > P, noise `[B, T - P, M]` -> the
        spectrogram that goes on from the prompt `[B, T - P, M]`; spectrograms are normalised.

        guidance: v + guidance (v - u) is followed instead of v, u the velocity without features and prompt
        (https://arxiv.org/abs/2207.12598); it takes twice the time. Each step is computed before the next begins.
        """
        estimator, step = self.estimator, 1 / steps
        guided = guidance > 1e-5  # as the official code has it
        times = np.array([sum([step] * i) for i in range(steps)])
        modulations = estimator.modulations(times, step)
        condition = estimator.condition_embedding(features, prompt)
        if guided:
            nothing = estimator.condition_embedding(mx.zeros_like(features), mx.zeros_like(prompt))
            condition = mx.concatenate([condition, nothing])
        mx.eval(condition, modulations)
        x = noise.astype(mx.float32)
        for i in range(steps):
            now = [[part[i] for part in parts] for parts in modulations]
            state = x.astype(condition.dtype)
            if guided:
                v, without = mx.split(estimator(mx.concatenate([state, state]), condition, now), 2)
                v = v + (v - without) * guidance
            else:
                v = estimator(state, condition, now)
            x = x + step * v.astype(mx.float32)
            mx.eval(x)
        return x
