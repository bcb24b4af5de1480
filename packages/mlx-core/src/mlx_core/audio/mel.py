"""Spectrograms, linear and mel, as librosa and torch define them.

`B` batch, `F` frequency bins. A spectrogram is (|S|^2 + offset)^(power / 2) with S the short-time Fourier transform
through a periodic Hann window; filters sum its bins; a logarithm may follow.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Literal

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from ..errors import AudioError
from .samples import AnySamples, as_samples, check_rate

_GATHER_SAMPLES = 2**21

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class AudioConfig:
    """The settings of a spectrogram; the defaults are those of `librosa.feature.melspectrogram`.

    torchaudio's mel spectrograms have `mel_scale="htk"`, `norm=None` and `pad_mode="reflect"`. AudioError for values
    that contradict each other.
    """

    sample_rate: int = 22050
    """Hz, of the samples."""
    n_fft: int = 2048
    """Samples per frame."""
    hop_length: int = 512
    """Samples from one frame to the next."""
    win_length: int | None = None
    """Samples under the window, in the middle of the frame; None: all."""
    n_mels: int = 128
    """Bands; with `mel_scale="linear"` the bins that are kept, from 0 Hz up."""
    fmin: float = 0.0
    """Hz, where the lowest band begins."""
    fmax: float | None = None
    """Hz, where the highest band ends; None: half the sample rate."""
    mel_scale: Literal["slaney", "htk", "linear"] = "slaney"
    """Where bands lie: linear below 1 kHz and logarithmic above (Slaney's Auditory Toolbox), 2595 log10(1 + f / 700)
    (HTK), or no bands at all."""
    norm: Literal["slaney"] | None = "slaney"
    """Divide a band by half its width in Hz, or leave its peak at 1."""
    power: float = 2.0
    """1: magnitudes, 2: energies."""
    offset: float = 0.0
    """Added to |S|^2."""
    padding: int = 0
    """Samples added at each end."""
    center: bool = True
    """Add n_fft // 2 samples more at each end, so that frame i is centred on sample i * hop_length."""
    pad_mode: Literal["constant", "reflect"] = "constant"
    """Zeros, or the samples mirrored at the first and last one."""
    log: Literal["ln", "log10"] | None = None
    """The logarithm of max(x, `log_floor`), or none."""
    log_floor: float = 1e-5

    def __post_init__(self) -> None:
        check_rate(self.sample_rate)
        for name in ("n_fft", "hop_length", "n_mels"):
            if getattr(self, name) < 1:
                raise AudioError(f"{name} must be at least 1, found {getattr(self, name)}.")
        if not 0 < self.window_samples <= self.n_fft:
            raise AudioError(f"win_length must be from 1 to n_fft = {self.n_fft}, found {self.win_length}.")
        if self.padding < 0:
            raise AudioError(f"padding must not be negative, found {self.padding}.")
        if not (self.power > 0 and self.offset >= 0 and self.log_floor > 0):
            raise AudioError(
                "power and log_floor must be positive and offset not negative, found "
                f"{self.power}, {self.log_floor} and {self.offset}."
            )
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise AudioError(f"{name} must be one of {', '.join(map(repr, known))}, found {getattr(self, name)!r}.")
        if self.mel_scale == "linear":
            if self.n_mels > self.n_fft // 2 + 1:
                raise AudioError(
                    f"n_fft = {self.n_fft} has {self.n_fft // 2 + 1} bins, fewer than n_mels = {self.n_mels}."
                )
        elif not 0 <= self.fmin < self.upper_frequency <= self.sample_rate / 2:
            raise AudioError(
                f"fmin = {self.fmin} and fmax = {self.fmax} must be from 0 to half the sample rate, "
                f"{self.sample_rate / 2} Hz, and in this order."
            )

    @property
    def window_samples(self) -> int:
        """`win_length` without None."""
        return self.n_fft if self.win_length is None else self.win_length

    @property
    def upper_frequency(self) -> float:
        """`fmax` without None, in Hz."""
        return self.sample_rate / 2 if self.fmax is None else self.fmax

    @property
    def edge_samples(self) -> int:
        """Samples added at each end, in all."""
        return self.padding + (self.n_fft // 2 if self.center else 0)


_CHOICES: dict[str, tuple[str | None, ...]] = {
    "mel_scale": ("slaney", "htk", "linear"),
    "norm": ("slaney", None),
    "pad_mode": ("constant", "reflect"),
    "log": ("ln", "log10", None),
}


def compute_mel_spectrogram(samples: AnySamples, config: AudioConfig) -> mx.array:
    """Samples `[samples]` or `[B, samples]`, floats at the config's rate -> float32 `[n_mels, frames]` or with B
    before.

    There are 1 + (samples + 2 edge_samples - n_fft) // hop_length frames. AudioError if there isn't one, if there are
    fewer samples than are to be mirrored, and for NaN or infinity.
    """
    array = as_samples(samples)
    if array.ndim not in (1, 2):
        raise AudioError(f"samples must be [samples] or [batch, samples], found {list(array.shape)}.")
    length, edge = array.shape[-1], config.edge_samples
    if config.pad_mode == "reflect" and length <= edge:
        raise AudioError(
            f"{length} samples are too few: {edge} at each end are to be mirrored, which takes {edge + 1}."
        )
    if length + 2 * edge < config.n_fft:
        raise AudioError(f"{length} samples are too few for a frame: expected {config.n_fft - 2 * edge} or more.")
    rows = array.reshape(-1, length)
    padded = mx.array(np.pad(rows, [(0, 0), (edge, edge)], mode=config.pad_mode) if edge else rows)
    spectrogram = _filtered(padded, config)
    if config.log is not None:
        logarithm = mx.log if config.log == "ln" else mx.log10
        spectrogram = logarithm(mx.maximum(spectrogram, config.log_floor))
    return spectrogram[0] if array.ndim == 1 else spectrogram


def _filtered(samples: mx.array, config: AudioConfig) -> mx.array:
    """`[B, samples]` -> `[B, n_mels, frames]`, some frames at a time: they overlap, and take more room than samples."""
    batch, length = samples.shape
    frames = 1 + (length - config.n_fft) // config.hop_length
    window = mx.array(_window(config.window_samples, config.n_fft))
    filters = None if config.mel_scale == "linear" else mx.array(mel_filters(config)).T  # [F, n_mels]
    step = max(1, _GATHER_SAMPLES // (max(1, batch) * config.n_fft))
    parts = []
    for first in range(0, frames, step):
        shape = (batch, min(step, frames - first), config.n_fft)
        seen = mx.as_strided(samples, shape, (length, config.hop_length, 1), first * config.hop_length)
        spectrum = mx.fft.rfft(seen * window)  # [B, frames, F]
        spectrum = mx.square(spectrum.real) + mx.square(spectrum.imag) + config.offset
        if config.power != 2:
            spectrum = mx.sqrt(spectrum) if config.power == 1 else mx.power(spectrum, config.power / 2)
        parts.append(spectrum[..., : config.n_mels] if filters is None else spectrum @ filters)
        mx.eval(parts[-1])  # or else the frames of an hour would all be there at once
    return mx.concatenate(parts, axis=1).transpose(0, 2, 1)


@functools.lru_cache(maxsize=16)
def _window(length: int, n_fft: int) -> npt.NDArray[np.float32]:
    """Hann's, periodic, in the middle of `n_fft` samples."""
    left = (n_fft - length) // 2
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
    return np.pad(window, (left, n_fft - length - left)).astype(np.float32)


@functools.lru_cache(maxsize=16)
def mel_filters(config: AudioConfig) -> npt.NDArray[np.float32]:
    """The triangles `[n_mels, n_fft // 2 + 1]` that sum a spectrum's bins, as `librosa.filters.mel` has them."""
    to_mel, to_hz = _SCALES[config.mel_scale]
    edges = to_hz(np.linspace(to_mel(config.fmin), to_mel(config.upper_frequency), config.n_mels + 2))
    bins = np.arange(config.n_fft // 2 + 1) * (config.sample_rate / config.n_fft)
    lower, middle, upper = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    filters = np.maximum(0, np.minimum((bins - lower) / (middle - lower), (upper - bins) / (upper - middle)))
    if config.norm == "slaney":
        filters *= 2 / (upper - lower)
    return filters.astype(np.float32)


def _slaney_mel(hz: float) -> float:
    """15 mel per kHz up to 1 kHz, then 27 per factor of 6.4 (Auditory Toolbox, 1998)."""
    return 0.015 * hz if hz < 1000 else 15 + 27 * math.log(hz / 1000) / math.log(6.4)


def _slaney_hz(mel: _Floats) -> _Floats:
    return np.where(mel < 15, mel / 0.015, 1000 * 6.4 ** ((np.maximum(mel, 15) - 15) / 27))


def _htk_mel(hz: float) -> float:
    return 2595 * math.log10(1 + hz / 700)


def _htk_hz(mel: _Floats) -> _Floats:
    return 700 * (10 ** (mel / 2595) - 1)


_SCALES = {"slaney": (_slaney_mel, _slaney_hz), "htk": (_htk_mel, _htk_hz)}
