"""Record what libsndfile, soxr, librosa and torchaudio make of sound.

Run in an environment with soundfile, soxr, librosa, torch and torchaudio:

    python scripts/record_golden/audio.py --out packages/mlx-core/tests/goldens/audio

`README.md` in the output folder describes the files.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import numpy.typing as npt
import soundfile
import soxr
import torch
import torchaudio
from safetensors.numpy import save_file

SEED = 6
RATE = 16000
WAV_FRAMES = 37  # odd, so that 8 and 24-bit chunks are padded

Tensors = dict[str, npt.NDArray[Any]]

# name: container, subtype, channels
WAVS = {
    "u8": ("WAV", "PCM_U8", 1),
    "u8.stereo": ("WAV", "PCM_U8", 2),
    "s16": ("WAV", "PCM_16", 1),
    "s16.stereo": ("WAV", "PCM_16", 2),
    "s24": ("WAV", "PCM_24", 1),
    "s24.six": ("WAVEX", "PCM_24", 6),
    "s32": ("WAV", "PCM_32", 1),
    "s32.extensible": ("WAVEX", "PCM_32", 2),
    "f32": ("WAV", "FLOAT", 1),
    "f32.stereo": ("WAVEX", "FLOAT", 2),
    "f64": ("WAV", "DOUBLE", 3),
    "s16.rf64": ("RF64", "PCM_16", 2),
}

RATES = [(44100, 16000), (48000, 24000), (8000, 16000), (22050, 32000), (16000, 11025)]
WHITE_RATES = [(44100, 16000), (24000, 16000), (12000, 32000)]

# Settings of AudioConfig, of which librosa and torchaudio are told the same.
LIBROSA: dict[str, dict[str, Any]] = {
    "defaults": {},
    "whisper": {"sample_rate": 16000, "n_fft": 400, "hop_length": 160, "n_mels": 80, "pad_mode": "reflect"},
    "short_window": {"sample_rate": 16000, "n_fft": 512, "hop_length": 200, "win_length": 301, "n_mels": 40},
    "magnitudes": {"sample_rate": 16000, "n_fft": 512, "hop_length": 128, "n_mels": 40, "power": 1.0},
    "band": {"sample_rate": 16000, "n_fft": 1024, "hop_length": 256, "n_mels": 20, "fmin": 80.0, "fmax": 7600.0},
    "not_centred": {"sample_rate": 16000, "n_fft": 512, "hop_length": 160, "n_mels": 40, "center": False},
    "gaps": {"sample_rate": 16000, "n_fft": 256, "hop_length": 700, "n_mels": 20},
    "odd_n_fft": {"sample_rate": 16000, "n_fft": 401, "hop_length": 160, "n_mels": 40, "norm": None},
    "htk": {"sample_rate": 16000, "n_fft": 400, "hop_length": 160, "n_mels": 40, "mel_scale": "htk"},
}
TORCHAUDIO: dict[str, dict[str, Any]] = {
    "defaults": {"sample_rate": 16000, "n_fft": 400, "hop_length": 200, "n_mels": 64},
    "slaney": {
        "sample_rate": 16000,
        "n_fft": 640,
        "hop_length": 160,
        "n_mels": 64,
        "mel_scale": "slaney",
        "norm": "slaney",
    },
}


def speech_like() -> npt.NDArray[np.float32]:
    """0.4 s at 16 kHz: a gliding voice of 30 harmonics that comes and goes, over a little noise."""
    rng = np.random.default_rng(SEED)
    t = np.arange(int(0.4 * RATE)) / RATE
    phase = 2 * np.pi * np.cumsum(120 + 40 * np.sin(2 * np.pi * 3 * t)) / RATE
    voice = sum(np.sin(k * phase) / k for k in range(1, 31))
    loudness = np.clip(np.sin(2 * np.pi * 4 * t) + 0.3, 0, 1)
    return (0.2 * voice * loudness + 1e-3 * rng.standard_normal(t.size)).astype(np.float32)


def record_wavs(folder: Path) -> Tensors:
    """Files of each kind, some with text beside the samples, and what libsndfile reads from them."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(SEED)
    expected = {}
    for name, (container, subtype, channels) in WAVS.items():
        samples = rng.uniform(-1, 1, (WAV_FRAMES, channels))
        samples[0], samples[1] = -1, 1
        path = folder / f"{name}.wav"
        options = {"format": container, "subtype": subtype, "channels": channels}
        with soundfile.SoundFile(path, "w", samplerate=11025 * channels, **options) as file:
            file.title = name
            file.write(samples)
            file.comment = "after the samples"
        expected[f"wav/{name}"] = soundfile.read(path, dtype="float32", always_2d=True)[0]
    return expected


def record_resampling() -> Tensors:
    """Noise below 0.8 of the lower Nyquist frequency that fades in and out, and what soxr's best makes of it; noise of
    all frequencies, and what librosa's default makes of it.
    """
    rng = np.random.default_rng(SEED)
    tensors = {}
    for a, b in RATES:
        n = a // 20
        spectrum = np.fft.rfft(rng.standard_normal(n))
        spectrum[np.fft.rfftfreq(n, 1 / a) > 0.8 * min(a, b) / 2] = 0
        noise = (0.1 * np.fft.irfft(spectrum, n) * np.hanning(n) ** 2).astype(np.float32)
        tensors[f"resampling/{a}"] = noise
        tensors[f"resampling/{a}.{b}"] = soxr.resample(noise.astype(np.float64), a, b, "VHQ").astype(np.float32)
    for a, b in WHITE_RATES:
        noise = (0.1 * rng.standard_normal(a // 20)).astype(np.float32)
        tensors[f"white/{a}"] = noise
        tensors[f"white/{a}.{b}"] = librosa.resample(noise, orig_sr=a, target_sr=b)
    return tensors


def record_mels(x: npt.NDArray[np.float32]) -> Tensors:
    """Mel spectrograms of librosa and torchaudio."""
    tensors = {}
    names = {"sample_rate": "sr", "mel_scale": "htk"}
    for case, settings in LIBROSA.items():
        options = {
            names.get(key, key): value == "htk" if key == "mel_scale" else value for key, value in settings.items()
        }
        tensors[f"librosa/{case}"] = librosa.feature.melspectrogram(y=x, **options)
    names = {"fmin": "f_min", "fmax": "f_max"}
    for case, settings in TORCHAUDIO.items():
        transform = torchaudio.transforms.MelSpectrogram(**{names.get(k, k): v for k, v in settings.items()})
        tensors[f"torchaudio/{case}"] = transform(torch.from_numpy(x)).numpy()
    return tensors


def main() -> None:
    """Record everything."""
    parser = argparse.ArgumentParser(description="Record what other libraries make of sound.")
    parser.add_argument("--out", type=Path, required=True, help="the goldens' folder")
    arguments = parser.parse_args()
    out: Path = arguments.out
    x = speech_like()
    tensors = {"speech": x, **record_wavs(out / "wav"), **record_resampling(), **record_mels(x)}
    save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, out / "audio.safetensors")
    (out / "audio.safetensors").chmod(0o644)  # safetensors writes files that only their owner can read
    torchaudio_defaults = {"mel_scale": "htk", "norm": None, "pad_mode": "reflect"}
    report = {
        "versions": {module.__name__: module.__version__ for module in (librosa, soundfile, soxr, torch, torchaudio)}
        | {"libsndfile": soundfile.__libsndfile_version__},
        "librosa": LIBROSA,
        "torchaudio": {name: torchaudio_defaults | settings for name, settings in TORCHAUDIO.items()},
        "rates": RATES,
        "white_rates": WHITE_RATES,
    }
    (out / "audio.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
