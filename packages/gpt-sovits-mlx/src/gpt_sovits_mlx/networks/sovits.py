"""SoVITS v1, v2, v2Pro and v2ProPlus: from semantic tokens and phones to speech in a reference's voice.

    codes -> quantised features -> enc_p (with phones and voice) -> z ~ N(m, s) -> flow, reversed -> vocoder

The versions differ in symbols (v1: 322, later 732), in the bins that the voice encoder looks at (v1: 1025, later 704),
and in v2Pro's second view of the voice, a speaker embedding. Files name all but the first, which the weights show.

Reference: GPT-SoVITS, `module/models.py` (`SynthesizerTrn`), which VITS is the ancestor of:
https://arxiv.org/abs/2106.06103. `B` batch, `T` frames of 20 ms, `N` semantic tokens of 40 ms.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import mlx.core as mx
import mlx.nn as nn

from mlx_core.errors import ConfigError, InputError
from mlx_core.models import Array

from ..audio import BINS
from ..checkpoints.released import read_released
from .base import FRAMES_PER_CODE, BaseSoVITS, EncoderConfig, check_speed, model_table
from .flow import Flow
from .prior_encoder import MRTE_WIDTH
from .vocoder import GeneratorConfig, Vocoder, check_chunk

SAMPLE_RATE = 32000
SPEAKER_WIDTH = 20480
CHUNK_FRAMES = 256  # 5 s of speech at a time keep the vocoder under half a GB, and lose nothing in speed
_NOISE_SCALE = 0.5


@dataclass(frozen=True, kw_only=True)
class SoVITSConfig(EncoderConfig, GeneratorConfig):
    """The `model` table of a released `.pth`; the defaults are v2's sizes."""

    def __post_init__(self) -> None:
        EncoderConfig.__post_init__(self)
        GeneratorConfig.__post_init__(self)


class SoVITS(BaseSoVITS):
    """The network of v1 to v2ProPlus, with its vocoder."""

    model_type = "gpt-sovits-sovits"

    def __init__(self, config: SoVITSConfig, symbols: int, *, speaker: bool) -> None:
        super().__init__(config, symbols)
        self.config = config
        self.has_speaker = speaker
        self.dec = Vocoder(config.inter_channels, config, gin=config.gin_channels)
        self.flow = Flow(config.inter_channels, config.hidden_channels, config.gin_channels)
        if speaker:
            self.sv_emb = nn.Linear(SPEAKER_WIDTH, config.gin_channels)
            self.ge_to512 = nn.Linear(config.gin_channels, MRTE_WIDTH)
            self.prelu = nn.PReLU(config.gin_channels)

    @classmethod
    def build(cls, config: Mapping[str, Any], weights: Mapping[str, mx.array]) -> Self:
        if any(name.startswith("cfm.") for name in weights):
            raise ConfigError("this is SoVITS v3 or v4. Load it as SoVITSV3.")
        checked, symbols = model_table(SoVITSConfig, config, weights)
        speaker = "sv_emb.weight" in weights
        if not speaker and checked.gin_channels != MRTE_WIDTH:
            raise ConfigError(
                f"gin_channels must be {MRTE_WIDTH} without a speaker embedding (sv_emb); found {checked.gin_channels}."
            )
        return cls(checked, symbols, speaker=speaker)

    @property
    def version(self) -> str:
        """v1, v2, v2Pro or v2ProPlus."""
        if self.has_speaker:
            return "v2ProPlus" if self.config.version == "v2ProPlus" else "v2Pro"
        return "v1" if self.ref_enc.bins == BINS else "v2"

    def voice(self, spectrograms: Sequence[Array], speakers: Sequence[Array] | None = None) -> mx.array:
        """The voice of one reference or more, `[1, 1, gin]`: the mean of theirs.

        spectrograms: `[T, 1025]` each, by `reference_spectrogram`. speakers: `[20480]` each, by ERes2NetV2, where the
        version has them. Raises InputError for references of another number or shape.
        """
        wanted = len(spectrograms) if self.has_speaker else 0
        if not spectrograms or len(speakers or ()) != wanted:
            raise InputError(
                f"{self.version} takes one reference or more, with {'a' if wanted else 'no'} speaker embedding each; got "
                f"{len(spectrograms)} references and {len(speakers or ())} embeddings."
            )
        voices = self._references(spectrograms)
        if speakers:
            voices = [self._with_speaker(*pair) for pair in zip(voices, speakers, strict=True)]
        return mx.mean(mx.stack(voices), axis=0)

    def _with_speaker(self, ge: mx.array, speaker: Array) -> mx.array:
        if speaker.size != SPEAKER_WIDTH:
            raise InputError(f"a speaker embedding must be [{SPEAKER_WIDTH}]; found {tuple(speaker.shape)}.")
        return self.prelu(ge + self.sv_emb(mx.array(speaker).reshape(1, 1, -1).astype(ge.dtype)))

    def _prior_voice(self, voice: mx.array) -> mx.array:
        return self.ge_to512(voice) if self.has_speaker else voice

    def decode(
        self,
        codes: Any,
        phones: Any,
        voice: mx.array,
        *,
        speed: float = 1.0,
        noise: Array | None = None,
        noise_scale: float = _NOISE_SCALE,
        seed: int = 0,
        chunk_frames: int | None = CHUNK_FRAMES,
    ) -> mx.array:
        """Semantic tokens `[N]` and phones `[S]` of one sentence -> samples in (-1, 1) `[T * 640]`, 32 kHz.

        speed: how much faster than the tokens say. noise: `[T or more, inter_channels]`, else drawn from `seed`.
        chunk_frames: how much the vocoder makes at a time, None for all at once; the samples are the same. Raises
        InputError for ids that aren't the model's and other arguments out of range.
        """
        latent = self.latent(codes, phones, voice)
        return self.speak(
            latent, voice, speed=speed, noise=noise, noise_scale=noise_scale, seed=seed, chunk_frames=chunk_frames
        )

    def decode_next(
        self,
        codes: Any,
        phones: Any,
        voice: mx.array,
        *,
        new: int | None = None,
        overlap: mx.array | None = None,
        speed: float = 1.0,
        noise: Array | None = None,
        noise_scale: float = _NOISE_SCALE,
        seed: int = 0,
    ) -> tuple[mx.array, mx.array]:
        """The next chunk of a sentence whose tokens are still coming: samples `[T * 640]` and its latent `[1, T, C]`.

        codes: all tokens so far. new: how many of them, at the end, to speak, None for all. overlap: the end of the
        last chunk's latent, `[1, 2 tokens, C]`: the new chunk, which begins with the same tokens, is blended into it.
        The others are `decode`'s.
        """
        latent = self.latent(codes, phones, voice)
        if new is not None:
            if not 1 <= new * FRAMES_PER_CODE <= latent.shape[1]:
                raise InputError(f"new must be from 1 to {latent.shape[1] // FRAMES_PER_CODE} tokens; found {new!r}.")
            latent = latent[:, -FRAMES_PER_CODE * new :]
        if overlap is not None:
            frames = overlap.shape[1]
            if overlap.shape != (1, frames, latent.shape[2]) or not 1 <= frames <= latent.shape[1]:
                raise InputError(
                    f"overlap must be [1, 1 to {latent.shape[1]}, {latent.shape[2]}]; found {tuple(overlap.shape)}."
                )
            angle = (mx.arange(frames)[:, None] * (math.pi / 2 / frames)).astype(latent.dtype)  # equal power
            blended = overlap * mx.cos(angle) + latent[:, :frames] * mx.sin(angle)
            latent = mx.concatenate([blended, latent[:, frames:]], axis=1)
        samples = self.speak(latent, voice, speed=speed, noise=noise, noise_scale=noise_scale, seed=seed)
        return samples, latent

    def speak(
        self,
        latent: mx.array,
        voice: mx.array,
        *,
        speed: float = 1.0,
        noise: Array | None = None,
        noise_scale: float = _NOISE_SCALE,
        seed: int = 0,
        chunk_frames: int | None = CHUNK_FRAMES,
    ) -> mx.array:
        """A latent `[1, T, C]` -> samples; the arguments are `decode`'s."""
        options = {"speed": speed, "noise_scale": noise_scale}
        chunks = self.speak_chunks(latent, voice, noise=noise, seed=seed, chunk_frames=chunk_frames, **options)
        return mx.concatenate(list(chunks))

    def speak_chunks(
        self,
        latent: mx.array,
        voice: mx.array,
        *,
        speed: float = 1.0,
        noise: Array | None = None,
        noise_scale: float = _NOISE_SCALE,
        seed: int = 0,
        chunk_frames: int | None = CHUNK_FRAMES,
    ) -> Iterator[mx.array]:
        """The same samples in chunks of `chunk_frames`, each computed before the next is begun."""
        check_speed(speed)
        check_chunk(chunk_frames)
        mean, log_deviation = self.enc_p.statistics(latent, speed)
        T, C = mean.shape[1:]
        drawn = mx.random.normal((T, C), key=mx.random.key(seed)) if noise is None else mx.array(noise)
        if drawn.ndim != 2 or drawn.shape[0] < T or drawn.shape[1] != C:
            raise InputError(f"noise must be [{T} or more, {C}]; found {tuple(drawn.shape)}.")
        z = mean + drawn[:T].astype(mean.dtype) * mx.exp(log_deviation) * noise_scale
        z = self.flow.reverse(z, voice)
        for chunk in [self.dec(z, voice)] if chunk_frames is None else self.dec.chunks(z, voice, chunk_frames):
            samples = chunk[0].astype(mx.float32)
            mx.eval(samples)  # before the next is begun, so that memory stays bounded
            yield samples


def sovits_version(path: str | Path) -> str:
    """Which SoVITS a released file holds: v1, v2, v3, v3-lora, v4-lora, v2Pro or v2ProPlus."""
    return read_released(path).sovits_version
