"""Kaldi's filter banks, against kaldi-native-fbank's (goldens/audio/README.md)."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from mlx_core.audio import FbankConfig, compute_fbank
from mlx_core.errors import AudioError

with safe_open(Path(__file__).parent / "goldens" / "audio" / "fbank.safetensors", "numpy") as file:
    SETTINGS = json.loads(file.metadata()["settings"])
    GOLDEN = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 # no mapping


@pytest.mark.parametrize("name", SETTINGS)
def test_the_reference_s_filter_banks(name):
    window, rate, bands, frame, shift, low, high, scale = SETTINGS[name]
    config = FbankConfig(
        sample_rate=rate,
        n_mels=bands,
        frame_length_ms=frame,
        frame_shift_ms=shift,
        window=window,
        fmin=low,
        fmax=high or None,
        scale=scale,
    )
    found = np.array(compute_fbank(GOLDEN["samples"], config))
    assert found.shape == GOLDEN[name].shape
    np.testing.assert_allclose(found, GOLDEN[name], atol=5e-4)  # logarithms of energies down to 1e-7


def test_long_recordings_are_made_in_steps(monkeypatch):
    whole = np.array(compute_fbank(GOLDEN["samples"], FbankConfig()))
    monkeypatch.setattr("mlx_core.audio.kaldi._STEP", 7)
    np.testing.assert_allclose(np.array(compute_fbank(GOLDEN["samples"], FbankConfig())), whole, atol=1e-4)


@pytest.mark.parametrize(("samples", "frames"), [(0, 0), (1, 0), (399, 0), (400, 1), (559, 1), (560, 2)])
def test_only_frames_that_fit_are_made(samples, frames):
    assert compute_fbank(np.zeros(samples, np.float32), FbankConfig()).shape == (frames, 80)


def test_silence_is_the_floor():
    found = np.array(compute_fbank(np.zeros(800, np.float32), FbankConfig()))
    np.testing.assert_allclose(found, np.log(np.finfo(np.float32).eps))


@pytest.mark.parametrize(
    "samples", [np.array([0.0, np.nan], np.float32), np.zeros((2, 800), np.float32), np.zeros(800, np.int16)]
)
def test_samples_that_are_none_are_refused(samples):
    with pytest.raises(AudioError):
        compute_fbank(samples, FbankConfig())


@pytest.mark.parametrize(
    "settings",
    [
        {"n_mels": 0},
        {"window": "hann"},
        {"frame_length_ms": 0},
        {"frame_shift_ms": 0},
        {"fmin": 9000.0},
        {"fmax": 9000.0},
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings):
    with pytest.raises(AudioError):
        FbankConfig(**settings)
