"""Recordings as the networks take them: references, linear and mel spectrograms, Kaldi's filter bank.

Reference: GPT-SoVITS, `module/mel_processing.py` and `TTS_infer_pack/TTS.py`.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import NamedTuple

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from mlx_core.audio import (
    HUBERT_RATE,
    AudioConfig,
    FbankConfig,
    compute_fbank,
    compute_mel_spectrogram,
    load_audio,
    load_wav,
    quietest_place,
    resample,
)
from mlx_core.errors import AudioError
from mlx_core.models import Array

Samples = npt.NDArray[np.float32]

MIN_REFERENCE_S, MAX_REFERENCE_S = 3.0, 10.0
_WINDOW_MS = 100  # in which a cut is quiet

HUBERT_SILENCE_SAMPLES = 9600
"""Zeros after a reference: the official code takes 0.3 s at 32 kHz and appends them at 16 kHz."""

SOVITS_SPECTROGRAM = AudioConfig(
    sample_rate=32000,
    n_fft=2048,
    hop_length=640,
    n_mels=1025,
    mel_scale="linear",
    power=1.0,
    offset=1e-8,
    padding=704,  # (n_fft - hop_length) // 2, as HiFi-GAN has it
    center=False,
    pad_mode="reflect",
)
"""The magnitudes that a voice is read from: all 1025 bins, of which v2 and later use the first 704."""

_MEL = replace(SOVITS_SPECTROGRAM, n_mels=100, mel_scale="slaney", log="ln", log_floor=1e-5)
SOVITS_V3_MEL = replace(_MEL, sample_rate=24000, n_fft=1024, hop_length=256, padding=384)
SOVITS_V4_MEL = replace(_MEL, n_fft=1280, hop_length=320, padding=480)

BINS = SOVITS_SPECTROGRAM.n_mels
MEL_BINS = 80
_SPEAKER_FBANK = FbankConfig(n_mels=MEL_BINS)


class Recording(NamedTuple):
    """Samples `[S]` float32, one channel, and their rate in Hz."""

    samples: Samples
    sample_rate: int

    def at(self, sample_rate: int) -> Samples:
        """The samples at another rate."""
        if sample_rate == self.sample_rate:
            return self.samples
        return resample(self.samples, self.sample_rate, sample_rate)


def load_reference(path: str | os.PathLike[str], *, trim: bool = False, has_text: bool = False) -> Recording:
    """The recording of a voice in a sound file. Raises AudioError unless it lasts 3 to 10 s.

    trim: cut a longer one at its quietest place between 7 and 10 s; not with `has_text`, since the text of the whole
    recording wouldn't be that of what is left.
    """
    samples, rate = load_wav(path)
    seconds = len(samples) / rate
    if seconds < MIN_REFERENCE_S:
        raise AudioError(
            f"{path} lasts {seconds:.1f} s; a reference must last {MIN_REFERENCE_S:g} to {MAX_REFERENCE_S:g} s, since a voice "
            "can't be told from less. Give a longer recording."
        )
    if seconds <= MAX_REFERENCE_S:
        return Recording(samples, rate)
    if not trim or has_text:
        why = (
            "what is left of it would no longer say prompt_text" if trim else "the models have never heard longer ones"
        )
        raise AudioError(
            f"{path} lasts {seconds:.1f} s; a reference must last {MIN_REFERENCE_S:g} to {MAX_REFERENCE_S:g} s: {why}. Cut it"
            + ("." if trim else ", or ask for it to be trimmed (trim=True, --trim).")
        )
    window = max(1, rate * _WINDOW_MS // 1000)
    first, last = int(0.7 * MAX_REFERENCE_S * rate), int(MAX_REFERENCE_S * rate)
    return Recording(samples[: first + quietest_place(samples[first:last], window)], rate)


def hubert_samples(recording: Recording) -> mx.array:
    """A recording as CNHubert takes it: `[S]` float32 at 16 kHz, with the official silence after it."""
    return mx.array(np.pad(recording.at(HUBERT_RATE), (0, HUBERT_SILENCE_SAMPLES)))


def reference_spectrogram(samples: Array) -> mx.array:
    """Samples `[S]` in [-1, 1], 32 kHz mono -> magnitudes `[T, 1025]`, 50 frames a second.

    Louder samples are divided by their peak, but at most by 2. Raises AudioError for too few samples, or some that
    aren't finite.
    """
    x = _mono(samples, SOVITS_SPECTROGRAM.edge_samples + 1)
    return compute_mel_spectrogram(_peak_limited(x), SOVITS_SPECTROGRAM).T


def load_reference_mel(
    path: str | os.PathLike[str], config: AudioConfig = SOVITS_SPECTROGRAM, *, limit_peak: bool = True
) -> mx.array:
    """The spectrogram of a sound file, `[n_mels, frames]` float32, one channel, resampled to the config's rate.

    With `limit_peak`, samples whose peak p is above 1 are divided by min(2, p) first; the official code does so for
    `SOVITS_SPECTROGRAM`, and not for `SOVITS_V3_MEL` and `SOVITS_V4_MEL`. Raises AudioError as `load_wav`, and for
    files too short to be mirrored at their ends.
    """
    samples = load_audio(path, config.sample_rate)
    return compute_mel_spectrogram(_peak_limited(samples) if limit_peak else samples, config)


def speaker_fbank(samples: Array) -> mx.array:
    """Samples `[S]` in [-1, 1], 16 kHz mono -> logarithms of 80 mel energies `[T, 80]`, 100 frames a second.

    Raises AudioError as `reference_spectrogram`.
    """
    return compute_fbank(_mono(samples, _SPEAKER_FBANK.frame_samples), _SPEAKER_FBANK)


def _mono(samples: Array, min_samples: int) -> Samples:
    x = np.asarray(samples, dtype=np.float32)
    if x.ndim != 1 or x.size < min_samples:
        raise AudioError(f"samples must be [S] with S >= {min_samples}; found shape {x.shape}.")
    if not np.isfinite(x).all():
        raise AudioError("samples must be finite; found NaN or infinity. Check the recording.")
    return x


def _peak_limited(samples: Samples) -> Samples:
    peak = float(np.abs(samples).max())
    return samples / np.float32(min(2.0, peak)) if peak > 1 else samples
