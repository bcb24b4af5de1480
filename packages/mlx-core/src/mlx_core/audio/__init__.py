"""Sound files, resampling and spectrograms.

Samples are NumPy float32 arrays, on the host, where files, microphones and loudspeakers have them; what is made for a
network is an `mx.array`. Every function takes either.
"""

from .kaldi import FbankConfig, compute_fbank
from .loading import HUBERT_RATE, load_audio, load_audio_for_hubert, load_wav
from .mel import AudioConfig, compute_mel_spectrogram, mel_filters
from .resampling import resample
from .samples import AnySamples, Samples, as_samples, quietest_place
from .wav import save_wav

__all__ = [
    "HUBERT_RATE",
    "AnySamples",
    "AudioConfig",
    "FbankConfig",
    "Samples",
    "as_samples",
    "compute_fbank",
    "compute_mel_spectrogram",
    "load_audio",
    "load_audio_for_hubert",
    "load_wav",
    "mel_filters",
    "quietest_place",
    "resample",
    "save_wav",
]
