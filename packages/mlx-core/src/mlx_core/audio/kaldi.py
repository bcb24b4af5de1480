"""Filter banks as Kaldi makes them, which Chinese speech models were trained with.

Unlike `compute_mel_spectrogram` each frame loses its mean and is pre-emphasised on its own, and only frames that fit
into the samples are made. References: Kaldi's `compute-fbank-feats`, kaldi-native-fbank.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from ..errors import AudioError
from .samples import AnySamples, Samples, as_samples, check_rate

_STEP = 2**13  # frames at a time: an hour's spectra together would take more than a GB
_ENERGY_FLOOR = float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class FbankConfig:
    """The settings of a filter bank; the defaults are Kaldi's at 16 kHz, but for its 23 bands and its dither."""

    sample_rate: int = 16000
    """Hz, of the samples."""
    n_mels: int = 80
    """Bands: triangles in mel, 1127 ln(1 + f / 700), without the last bin of the spectrum."""
    frame_length_ms: float = 25.0
    frame_shift_ms: float = 10.0
    window: Literal["povey", "hamming", "hanning", "rectangular"] = "povey"
    """Symmetric: the first and last samples of a frame weigh the same."""
    fmin: float = 20.0
    """Hz, where the lowest band begins."""
    fmax: float | None = None
    """Hz, where the highest band ends; None: half the sample rate."""
    preemphasis: float = 0.97
    """The share of the sample before it that is taken from each sample; the first is its own predecessor."""
    scale: float = 1.0
    """The factor of samples in [-1, 1]: 32768 for models that heard 16-bit integers."""

    def __post_init__(self) -> None:
        check_rate(self.sample_rate)
        if self.n_mels < 1:
            raise AudioError(f"n_mels must be at least 1, found {self.n_mels}.")
        if self.window not in _WINDOWS:
            raise AudioError(f"window must be one of {', '.join(_WINDOWS)}, found {self.window!r}.")
        if self.frame_samples < 2 or self.shift_samples < 1:
            raise AudioError(
                f"a frame of {self.frame_length_ms} ms every {self.frame_shift_ms} ms has {self.frame_samples} and "
                f"{self.shift_samples} samples at {self.sample_rate} Hz; expected 2 and 1 or more."
            )
        if not 0 <= self.fmin < self.upper_frequency <= self.sample_rate / 2:
            raise AudioError(
                f"fmin = {self.fmin} and fmax = {self.fmax} must be from 0 to half the sample rate, "
                f"{self.sample_rate / 2} Hz, and in this order."
            )

    @property
    def frame_samples(self) -> int:
        """Samples of a frame."""
        return int(self.sample_rate * self.frame_length_ms / 1000)

    @property
    def shift_samples(self) -> int:
        """Samples from one frame to the next."""
        return int(self.sample_rate * self.frame_shift_ms / 1000)

    @property
    def upper_frequency(self) -> float:
        """`fmax` without None, in Hz."""
        return self.sample_rate / 2 if self.fmax is None else self.fmax

    @property
    def n_fft(self) -> int:
        """Samples that are transformed: a frame and zeros up to a power of two."""
        return 1 << (self.frame_samples - 1).bit_length()

    def frames(self, samples: int) -> int:
        """How many frames fit into so many samples."""
        return max(0, 1 + (samples - self.frame_samples) // self.shift_samples)


_WINDOWS = ("povey", "hamming", "hanning", "rectangular")


def compute_fbank(samples: AnySamples, config: FbankConfig) -> mx.array:
    """Samples `[samples]`, floats at the config's rate -> logarithms of energies, float32 `[frames, n_mels]`.

    Samples that are too few for a frame have none. No dither. AudioError for NaN or infinity.
    """
    array = as_samples(samples)
    if array.ndim != 1:
        raise AudioError(f"samples must be [samples], found {list(array.shape)}. Mix channels, or take one.")
    count = config.frames(array.size)
    if count == 0:
        return mx.zeros((0, config.n_mels))
    frames = np.lib.stride_tricks.sliding_window_view(array, config.frame_samples)[:: config.shift_samples]
    return mx.array(np.concatenate([_fbank(frames[i : i + _STEP], config) for i in range(0, count, _STEP)]))


def _fbank(frames: Samples, config: FbankConfig) -> Samples:
    """`[frames, frame_samples] -> [frames, n_mels]`, in the reference's precision."""
    scaled = frames * np.float32(config.scale)
    scaled -= scaled.mean(axis=1, keepdims=True)
    emphasised = scaled.copy()
    emphasised[:, 1:] -= np.float32(config.preemphasis) * scaled[:, :-1]
    emphasised[:, 0] -= np.float32(config.preemphasis) * scaled[:, 0]
    emphasised *= _window(config.window, config.frame_samples)
    spectrum = np.fft.rfft(emphasised, config.n_fft)[:, :-1]
    power = np.square(spectrum.real) + np.square(spectrum.imag)
    # MLX's product: NumPy's would start threads that wait busily, in the way of those that follow
    energies: Samples = np.array(mx.matmul(mx.array(power), mx.array(_filters(config)), stream=mx.cpu))
    return np.log(np.maximum(energies, _ENERGY_FLOOR, out=energies), out=energies)


@functools.lru_cache(maxsize=16)
def _window(name: str, length: int) -> Samples:
    turn = np.cos(2 * np.pi * np.arange(length) / (length - 1))
    shapes: dict[str, npt.NDArray[np.float64]] = {
        "povey": (0.5 - 0.5 * turn) ** 0.85,
        "hamming": 0.54 - 0.46 * turn,
        "hanning": 0.5 - 0.5 * turn,
        "rectangular": np.ones(length),
    }
    return shapes[name].astype(np.float32)


@functools.lru_cache(maxsize=16)
def _filters(config: FbankConfig) -> Samples:
    """`[n_fft // 2, n_mels]`, in float32 throughout: narrow triangles show its rounding, which models learnt with."""

    def mel(hertz: npt.ArrayLike) -> Samples:
        ratio = np.asarray(hertz, np.float32) / np.float32(700)
        result: Samples = np.float32(1127) * np.log(np.float32(1) + ratio)
        return result

    low, high = float(mel(config.fmin)), float(mel(config.upper_frequency))
    edges = (low + np.arange(config.n_mels + 2) * ((high - low) / (config.n_mels + 1))).astype(np.float32)
    left, middle, right = edges[:-2], edges[1:-1], edges[2:]
    at = mel(np.float32(config.sample_rate / config.n_fft) * np.arange(config.n_fft // 2, dtype=np.float32))[:, None]
    rising, falling = (at - left) / (middle - left), (right - at) / (right - middle)
    return np.maximum(np.float32(0), np.minimum(rising, falling))
