"""HiFi-GAN, from latents or mel spectrograms to samples, whole or in chunks with bounded memory: the vocoder inside
SoVITS v1 to v2ProPlus, and the one beside v4.

Paper: https://arxiv.org/abs/2010.05646. Reference: GPT-SoVITS, `module/models.py` (`Generator`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Self

import mlx.core as mx
import mlx.nn as nn

from mlx_core.config import BaseConfig
from mlx_core.errors import ConfigError, InputError
from mlx_core.models import Array, Conv1d, ConvTranspose1d, check_sizes, sizes

from .module import CheckpointModule

MEL_CHUNK_FRAMES = 256
EDGE_KERNEL = 7
_SLOPE, _LAST_SLOPE = 0.1, 0.01


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig(BaseConfig):
    """The sizes of a HiFi-GAN; the defaults are SoVITS v2's."""

    resblock: str = "1"
    resblock_kernel_sizes: list[int] = field(default_factory=lambda: [3, 7, 11])
    resblock_dilation_sizes: list[list[int]] = field(default_factory=lambda: [[1, 3, 5]] * 3)
    upsample_rates: list[int] = field(default_factory=lambda: [10, 8, 2, 2, 2])
    upsample_initial_channel: int = 512
    upsample_kernel_sizes: list[int] = field(default_factory=lambda: [16, 16, 8, 2, 2])

    def __post_init__(self) -> None:
        check_sizes(self, ("resblock_kernel_sizes", "upsample_rates", "upsample_initial_channel"))
        check_sizes(self, ("upsample_kernel_sizes",))
        if self.resblock not in self.resblocks_known():
            raise ConfigError(
                f"resblock must be {' or '.join(map(repr, self.resblocks_known()))}; found {self.resblock!r}."
            )
        if len(self.resblock_kernel_sizes) != len(self.resblock_dilation_sizes):
            raise ConfigError("resblock_kernel_sizes and resblock_dilation_sizes must be of one length.")
        if len(self.upsample_rates) != len(self.upsample_kernel_sizes):
            raise ConfigError("upsample_rates and upsample_kernel_sizes must be of one length.")
        if any(kernel < rate or (kernel - rate) % 2 for rate, kernel in self.upsampling):
            raise ConfigError(
                "upsample_kernel_sizes must be as large as upsample_rates, and larger by even numbers; found "
                f"{self.upsample_kernel_sizes} and {self.upsample_rates}."
            )
        if any(kernel % 2 == 0 for kernel in self.resblock_kernel_sizes):
            raise ConfigError(f"resblock_kernel_sizes must be odd; found {self.resblock_kernel_sizes}.")
        if self.upsample_initial_channel % 2 ** len(self.upsample_rates):
            raise ConfigError(
                f"upsample_initial_channel {self.upsample_initial_channel} can't be halved "
                f"{len(self.upsample_rates)} times."
            )

    @classmethod
    def resblocks_known(cls) -> tuple[str, ...]:
        """The values that `resblock` may have."""
        return ("1",)

    @property
    def upsampling(self) -> list[tuple[int, int]]:
        """Rate and kernel of each stage."""
        return list(zip(self.upsample_rates, self.upsample_kernel_sizes, strict=True))

    @property
    def blocks(self) -> list[tuple[int, list[int]]]:
        """Kernel and dilations of the residual blocks that follow each stage."""
        return list(zip(self.resblock_kernel_sizes, self.resblock_dilation_sizes, strict=True))

    @property
    def hop_length_samples(self) -> int:
        return math.prod(self.upsample_rates)

    def context_frames(self, reach: int = 0) -> int:
        """How many frames on either side a sample depends on: its reach, followed from the output to the input.

        reach: how many samples more each activation sees on either side.
        """
        total = EDGE_KERNEL // 2 + reach
        in_block = max(
            sum((d + 1) * (kernel - 1) // 2 + 2 * reach for d in dilations) for kernel, dilations in self.blocks
        )
        for rate, kernel in reversed(self.upsampling):
            total = -(-(total + in_block + kernel) // rate)
        return total + EDGE_KERNEL // 2


def leaky(x: mx.array, slope: float) -> mx.array:
    return mx.maximum(x, slope * x)


class ResBlock(nn.Module):
    """Pairs of convolutions, the first of each dilated, added to what they came from."""

    def __init__(self, channels: int, kernel: int, dilations: Sequence[int]) -> None:
        super().__init__()
        self.convs1 = [Conv1d(channels, channels, kernel, padding=d * (kernel - 1) // 2, dilation=d) for d in dilations]
        self.convs2 = [Conv1d(channels, channels, kernel, padding=(kernel - 1) // 2) for _ in dilations]

    def __call__(self, x: mx.array) -> mx.array:
        for first, second in zip(self.convs1, self.convs2, strict=True):
            x = x + second(leaky(first(leaky(x, _SLOPE)), _SLOPE))
        return x


class Vocoder(nn.Module):
    """`dec`. gin: the voice's width, None for a vocoder without a voice, whose last layer has a bias."""

    def __init__(self, inputs: int, config: GeneratorConfig, *, gin: int | None = None) -> None:
        super().__init__()
        channels = config.upsample_initial_channel
        self.hop_length_samples = config.hop_length_samples
        self.conv_pre = Conv1d(inputs, channels, EDGE_KERNEL, padding=EDGE_KERNEL // 2)
        if gin is not None:
            self.cond = Conv1d(gin, channels, 1)
        self.ups, self.resblocks = [], []
        for rate, kernel in config.upsampling:
            self.ups.append(ConvTranspose1d(channels, channels // 2, kernel, stride=rate, padding=(kernel - rate) // 2))
            channels //= 2
            self.resblocks += [ResBlock(channels, k, dilations) for k, dilations in config.blocks]
        self.conv_post = Conv1d(channels, 1, EDGE_KERNEL, padding=EDGE_KERNEL // 2, bias=gin is None)
        self._context_frames = config.context_frames()

    def __call__(self, z: mx.array, ge: mx.array | None = None) -> mx.array:
        """Latents `[B, T, C]`, voice `[B, 1, gin]` -> samples `[B, T * hop]` in (-1, 1)."""
        x = self.conv_pre(z)
        if ge is not None:
            x = x + self.cond(ge)
        for up, blocks in zip(self.ups, stages(self), strict=True):
            x = mean_of(blocks, up(leaky(x, _SLOPE)))
        return mx.tanh(self.conv_post(leaky(x, _LAST_SLOPE)))[..., 0]

    def chunks(self, z: mx.array, ge: mx.array, chunk_frames: int) -> Iterator[mx.array]:
        """The same samples, `chunk_frames` at a time `[B, n * hop]`."""
        return in_chunks(lambda part: self(part, ge), [z], chunk_frames, self._context_frames, self.hop_length_samples)


def stages(generator: nn.Module) -> list[list[nn.Module]]:
    """The residual blocks of a generator, stage by stage."""
    blocks, count = generator.resblocks, len(generator.resblocks) // len(generator.ups)
    return [blocks[i : i + count] for i in range(0, len(blocks), count)]


def mean_of(blocks: Sequence[nn.Module], x: mx.array) -> mx.array:
    """The mean of the residual blocks' outputs for one input."""
    return sum((block(x) for block in blocks[1:]), start=blocks[0](x)) / len(blocks)


def in_chunks(
    generate: Callable[[mx.array], mx.array], pieces: Iterable[mx.array], chunk_frames: int, context: int, hop: int
) -> Iterator[mx.array]:
    """The samples of pieces `[B, T, C]` after one another, `chunk_frames` at a time: each chunk is made with all
    that it depends on, as soon as that is there.
    """
    pending: mx.array | None = None
    done = 0  # frames of pending that are made
    for piece in chain(pieces, [None]):  # None: no more is coming
        if piece is not None:
            pending = piece if pending is None else mx.concatenate([pending, piece], axis=1)
        if pending is None:
            return
        T = pending.shape[1]
        while done < T if piece is None else done + chunk_frames + context <= T:
            stop, first = min(done + chunk_frames, T), max(done - context, 0)
            samples = generate(pending[:, first : min(stop + context, T)])
            yield samples[:, (done - first) * hop : (stop - first) * hop]
            done = stop
        spare = max(done - context, 0)
        pending, done = pending[:, spare:], done - spare


def check_chunk(chunk_frames: int | None) -> None:
    """Raise InputError unless it is None or a number of frames."""
    if chunk_frames is not None and chunk_frames < 1:
        raise InputError(f"chunk_frames must be at least 1, or None; found {chunk_frames!r}.")


@dataclass(frozen=True, kw_only=True)
class MelVocoderConfig(GeneratorConfig):
    """The sizes of a vocoder for mel spectrograms; the defaults are those of v4's, whose file has none."""

    num_mels: int = 100
    sampling_rate: int = 48000
    upsample_rates: list[int] = field(default_factory=lambda: [10, 6, 2, 2, 2])
    upsample_kernel_sizes: list[int] = field(default_factory=lambda: [20, 12, 4, 4, 4])

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes(self, ("num_mels", "sampling_rate"))


class MelVocoder(CheckpointModule):
    """The base of v3's and v4's vocoders: a subclass makes `[B, samples]` of `[B, T, mels]`."""

    config: MelVocoderConfig
    _context_frames: int

    @property
    def sample_rate(self) -> int:
        """Hz, of the samples."""
        return self.config.sampling_rate

    def generate(self, mel: mx.array) -> mx.array:
        """Mel spectrograms `[B, T, mels]` -> samples `[B, T * hop]`."""
        raise NotImplementedError(f"{type(self).__name__} doesn't say how it makes samples.")

    def speak(self, mel: Array, *, chunk_frames: int | None = MEL_CHUNK_FRAMES) -> mx.array:
        """The logarithm of a mel spectrogram `[T, mels]` -> samples in [-1, 1] `[T * hop]`.

        chunk_frames: how much is made at a time, None for all at once; the samples are the same. Raises InputError for
        another shape.
        """
        return mx.concatenate(list(self.stream([mel], chunk_frames=chunk_frames)))

    def stream(self, mels: Iterable[Array], *, chunk_frames: int | None = MEL_CHUNK_FRAMES) -> Iterator[mx.array]:
        """The same samples in chunks, of a spectrogram that comes in pieces: each chunk is computed as soon as what it
        depends on is there, and before the next is begun.
        """
        check_chunk(chunk_frames)
        pieces = (self._checked(mel) for mel in mels)
        if chunk_frames is None:
            chunks = iter([self.generate(mx.concatenate(list(pieces), axis=1))])
        else:
            hop = self.config.hop_length_samples
            chunks = in_chunks(self.generate, pieces, chunk_frames, self._context_frames, hop)
        for chunk in chunks:
            samples = chunk[0].astype(mx.float32)
            mx.eval(samples)
            yield samples

    def _checked(self, mel: Array) -> mx.array:
        x = mx.array(mel)
        if x.ndim != 2 or x.shape[0] == 0 or x.shape[1] != self.config.num_mels:
            raise InputError(f"mel must be [T, {self.config.num_mels}]; found {tuple(x.shape)}.")
        return x[None].astype(self.conv_pre.weight.dtype)


class HiFiGAN(Vocoder, MelVocoder):
    """v4's vocoder, 48 kHz. Its `vocoder.pth` holds nothing but tensors: None stands for its configuration."""

    model_type = "gpt-sovits-hifigan"

    def __init__(self, config: MelVocoderConfig) -> None:
        super().__init__(config.num_mels, config)
        self.config = config

    @classmethod
    def build(cls, config: Mapping[str, Any], weights: Mapping[str, mx.array]) -> Self:
        return cls(MelVocoderConfig.from_dict(sizes(config, "model")))

    def generate(self, mel: mx.array) -> mx.array:
        return self(mel)
