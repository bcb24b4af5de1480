"""Recordings as samples: files or arrays, mixed to one channel, at the model's rate."""

from __future__ import annotations

import os
from typing import TypeAlias

import numpy as np

from mlx_core.audio import load_audio, resample
from mlx_core.audio.samples import AnySamples, Samples, as_samples
from mlx_core.errors import AudioError

Audio: TypeAlias = str | os.PathLike[str] | AnySamples
"""A sound file's path, or samples `[S]` or `[S, channels]` in [-1, 1]."""

_MAX_AMPLITUDE = 1e9  # beyond it the power of a spectrum overflows float32


def read_samples(audio: Audio, rate: int, sample_rate: int | None = None) -> Samples:
    """A file, or samples `[S]` or `[S, channels]` at `sample_rate`, as `[S]` at `rate` Hz. Raises AudioError."""
    if isinstance(audio, (str, os.PathLike)):
        return check_amplitude(load_audio(audio, rate), str(audio))
    samples = check_amplitude(as_samples(audio))
    if samples.ndim == 2:
        samples = samples.mean(axis=1)
    if samples.ndim != 1:
        raise AudioError(f"samples must be [S] or [S, channels]; found shape {tuple(samples.shape)}.")
    if sample_rate is None or sample_rate == rate or samples.size == 0:
        return samples
    return resample(samples, sample_rate, rate)


def mono_samples(samples: AnySamples) -> Samples:
    """Samples `[S]` as float32. Raises AudioError for NaN, infinity or several channels."""
    array = as_samples(samples)
    if array.ndim != 1:
        raise AudioError(f"samples must be [samples], found {list(array.shape)}. Mix channels, or take one.")
    return array


def check_amplitude(samples: Samples, name: str = "samples") -> Samples:
    """The samples, which messages call `name`. Raises AudioError for those whose spectrum would overflow."""
    largest = float(np.abs(samples).max(initial=0))
    if not largest <= _MAX_AMPLITUDE:
        raise AudioError(
            f"{name}: samples must lie between -1 and 1; found {largest:.3g}. This is no recording, or damaged."
        )
    return samples
