"""The parts of every SoVITS: semantic tokens out of HuBERT's features, a voice out of spectrograms, and the prior
encoder, which combines tokens, phones and voice.

Reference: GPT-SoVITS, `module/models.py` (`SynthesizerTrn`, `SynthesizerTrnV3`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import mlx.core as mx
import mlx.nn as nn

from mlx_core.config import BaseConfig
from mlx_core.errors import ConfigError, InputError
from mlx_core.models import Array, Conv1d, check_sizes, sizes

from ..audio import BINS
from .module import CheckpointModule, ids
from .prior_encoder import SSL_WIDTH, PriorEncoder
from .reference_encoder import ReferenceEncoder

CODES = 1024
FRAMES_PER_CODE = 2
SPEEDS = 0.1, 10
NEW_BINS = 704
_OLD_SYMBOLS, _NEW_SYMBOLS = 322, 732
_C = TypeVar("_C", bound="EncoderConfig")


@dataclass(frozen=True, kw_only=True)
class EncoderConfig(BaseConfig):
    """The `model` table of a released `.pth`, as far as all versions have it."""

    inter_channels: int = 192
    hidden_channels: int = 192
    filter_channels: int = 768
    n_heads: int = 2
    n_layers: int = 6
    kernel_size: int = 3
    gin_channels: int = 512
    semantic_frame_rate: str = "25hz"
    version: str = "v2"

    def __post_init__(self) -> None:
        check_sizes(self, ("n_layers",), 1000)
        check_sizes(self, ("inter_channels", "hidden_channels", "filter_channels", "n_heads", "kernel_size"))
        check_sizes(self, ("gin_channels",))
        if self.semantic_frame_rate != "25hz":
            raise ConfigError(f"semantic_frame_rate must be '25hz'; found {self.semantic_frame_rate!r}.")
        if self.hidden_channels % self.n_heads or self.inter_channels % 2:
            raise ConfigError(
                f"hidden_channels {self.hidden_channels} must be a multiple of n_heads {self.n_heads}, inter_channels "
                f"{self.inter_channels} even."
            )


def model_table(kind: type[_C], config: Mapping[str, Any], weights: Mapping[str, mx.array]) -> tuple[_C, int]:
    """The checked `model` table, and the number of symbols, which only the weights tell."""
    embedding = weights.get("enc_p.text_embedding.weight")
    symbols = _NEW_SYMBOLS if embedding is None else embedding.shape[0]  # without it, what is missing is told later
    return kind.from_dict(sizes(config, "model")), symbols


class Quantizer(nn.Module):
    """The codebook, under the checkpoint's long name."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = mx.zeros((CODES, SSL_WIDTH))

    def nearest(self, x: mx.array) -> mx.array:
        """`[T, 768]` -> the rows that lie nearest, `[T]` int32."""
        x, rows = x.astype(mx.float32), self.embed.astype(mx.float32)
        distance = mx.sum(rows * rows, axis=1) - 2 * (x @ rows.T)
        return mx.argmin(distance, axis=-1).astype(mx.int32)


class BaseSoVITS(CheckpointModule):
    """`enc_p`, `ref_enc`, `ssl_proj` and `quantizer`."""

    unused = re.compile(r"enc_q\.|.*_codebook\.(inited|cluster_size|embed_avg)$")

    def __init__(self, config: EncoderConfig, symbols: int) -> None:
        super().__init__()
        self.enc_p = PriorEncoder(
            symbols,
            config.hidden_channels,
            config.filter_channels,
            config.n_heads,
            config.n_layers,
            config.kernel_size,
            config.inter_channels,
        )
        self.ref_enc = ReferenceEncoder(NEW_BINS if symbols > _OLD_SYMBOLS else BINS, config.gin_channels)
        self.ssl_proj = Conv1d(SSL_WIDTH, SSL_WIDTH, 2, stride=2)
        self.quantizer = Quantizer()

    def sanitize(self, weights: dict[str, mx.array]) -> dict[str, mx.array]:
        return {name.replace("vq.layers.0._codebook.", ""): value for name, value in weights.items()}

    def encode(self, features: mx.array) -> mx.array:
        """CNHubert's features `[1, T, 768]` -> semantic tokens `[T // 2]` int32."""
        return self.quantizer.nearest(self.ssl_proj(features)[0])

    def latent(self, codes: Any, phones: Any, voice: mx.array) -> mx.array:
        """The latent of a sentence, before speed and noise: `[1, 2 N, C]`.

        codes: semantic tokens `[N]`. phones: `[S]`. Raises InputError for ids that aren't the model's, or none.
        """
        codes, phones = ids("codes", codes, CODES), ids("phones", phones, self.enc_p.text_embedding.weight.shape[0])
        if codes.size == 0 or phones.size == 0:
            raise InputError(f"a sentence needs tokens and phones; got {codes.size} and {phones.size}.")
        quantized = mx.repeat(self.quantizer.embed[codes], FRAMES_PER_CODE, axis=0)
        return self.enc_p.latent(quantized[None], self.enc_p.text(phones[None]), self._prior_voice(voice))

    def _prior_voice(self, voice: mx.array) -> mx.array:
        """The voice as the prior encoder takes it, `[1, 1, 512]`."""
        return voice

    def _references(self, spectrograms: Sequence[Array]) -> list[mx.array]:
        """`ref_enc` of each reference `[T, 1025]`, `[1, 1, gin]`. Raises InputError for another shape."""
        given = [mx.array(spectrogram) for spectrogram in spectrograms]
        for spectrogram in given:
            if spectrogram.ndim != 2 or spectrogram.shape[0] == 0 or spectrogram.shape[1] < self.ref_enc.bins:
                raise InputError(f"a reference's spectrogram must be [T, {BINS}]; found {tuple(spectrogram.shape)}.")
        dtype = self.ssl_proj.weight.dtype
        return [self.ref_enc(spectrogram[None].astype(dtype)) for spectrogram in given]


def check_speed(speed: float) -> None:
    """Raise InputError for a speed out of range."""
    slowest, fastest = SPEEDS
    if not slowest <= speed <= fastest:
        raise InputError(f"speed must be from {slowest} to {fastest}; found {speed!r}.")
