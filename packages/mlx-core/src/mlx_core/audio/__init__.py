"""Sound files, resampling and spectrograms.

Samples are NumPy float32 arrays, on the host, where files, microphones and loudspeakers have them; what is made for a
network is an `mx.array`. Every function takes either.
"""

from .kaldi import FbankConfig, compute_fbank
from .loading import load_audio, load_wav
from .mel import AudioConfig, compute_mel_spectrogram, mel_filters
from .reference import (
    SOVITS_SPECTROGRAM,
    SOVITS_V3_MEL,
    SOVITS_V4_MEL,
    load_audio_for_hubert,
    load_reference_mel,
)
from .resampling import resample
from .wav import save_wav

__all__ = [
    "SOVITS_SPECTROGRAM",
    "SOVITS_V3_MEL",
    "SOVITS_V4_MEL",
    "AudioConfig",
    "FbankConfig",
    "compute_fbank",
    "compute_mel_spectrogram",
    "load_audio",
    "load_audio_for_hubert",
    "load_reference_mel",
    "load_wav",
    "mel_filters",
    "resample",
    "save_wav",
]
