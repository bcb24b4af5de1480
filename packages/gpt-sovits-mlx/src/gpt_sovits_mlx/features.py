"""What SoVITS and the speaker net hear of a recording: a linear spectrogram, and Kaldi's filter bank."""

from __future__ import annotations

import mlx.core as mx
import numpy as np

from mlx_core.audio import SOVITS_SPECTROGRAM, FbankConfig, compute_fbank, compute_mel_spectrogram
from mlx_core.errors import AudioError

from .network import Array

BINS = SOVITS_SPECTROGRAM.n_mels
MEL_BINS = 80
_SPEAKER_FBANK = FbankConfig(n_mels=MEL_BINS)


def reference_spectrogram(samples: Array) -> mx.array:
    """Samples `[S]` in [-1, 1], 32 kHz mono -> magnitudes `[T, 1025]`, 50 frames a second.

    Louder samples are divided by their peak, but at most by 2. Raises AudioError for too few samples, or some that
    aren't finite.
    """
    x = _mono(samples, SOVITS_SPECTROGRAM.edge_samples + 1)
    peak = float(np.abs(x).max())
    if peak > 1:
        x = x / np.float32(min(2.0, peak))
    return compute_mel_spectrogram(x, SOVITS_SPECTROGRAM).T


def speaker_fbank(samples: Array) -> mx.array:
    """Samples `[S]` in [-1, 1], 16 kHz mono -> logarithms of 80 mel energies `[T, 80]`, 100 frames a second.

    Raises AudioError as `reference_spectrogram`.
    """
    return compute_fbank(_mono(samples, _SPEAKER_FBANK.frame_samples), _SPEAKER_FBANK)


def _mono(samples: Array, least: int) -> np.ndarray:
    x = np.asarray(samples, dtype=np.float32)
    if x.ndim != 1 or x.size < least:
        raise AudioError(f"samples must be [S] with S >= {least}; found shape {x.shape}.")
    if not np.isfinite(x).all():
        raise AudioError("samples must be finite; found NaN or infinity. Check the recording.")
    return x
