"""Spectrograms, as GPT-SoVITS's own code computes them, and recordings as references."""

import inspect

import numpy as np
import pytest
import soundfile
from safetensors.numpy import load_file

from gpt_sovits_mlx.audio import (
    HUBERT_SILENCE_SAMPLES,
    SOVITS_SPECTROGRAM,
    SOVITS_V3_MEL,
    SOVITS_V4_MEL,
    load_reference_mel,
    reference_spectrogram,
)
from mlx_core.audio import compute_mel_spectrogram, load_audio, load_audio_for_hubert, save_wav
from mlx_core.errors import AudioError


@pytest.fixture(scope="module")
def recorded(goldens):
    return load_file(goldens / "audio.safetensors")


def test_spectrograms_are_gpt_sovits_s(recorded):
    out = np.array(compute_mel_spectrogram(recorded["v2.samples"], SOVITS_SPECTROGRAM))
    assert out.shape == (1025, 30)
    np.testing.assert_allclose(out[::8], recorded["v2.spectrogram"], atol=1e-4, rtol=1e-5)
    for version, config in (("v3", SOVITS_V3_MEL), ("v4", SOVITS_V4_MEL)):
        out = np.array(compute_mel_spectrogram(recorded["samples"], config))
        np.testing.assert_allclose(out, recorded[f"{version}.mel"], atol=1e-4)


@pytest.mark.parametrize(("gain", "divisor"), [(0.5, 1.0), (1.5, 1.5), (4.0, 2.0)])
def test_a_reference_s_peak_is_limited_as_gpt_sovits_does_it(recorded, tmp_path, gain, divisor):
    x = recorded["v2.samples"]
    x = x / np.abs(x).max() * np.float32(gain)
    soundfile.write(str(tmp_path / "a.wav"), x, 32000, subtype="FLOAT")
    out = load_reference_mel(tmp_path / "a.wav")
    assert out.shape == (1025, 30)
    np.testing.assert_allclose(out, compute_mel_spectrogram(x / divisor, SOVITS_SPECTROGRAM), rtol=1e-4, atol=1e-4)
    plain = load_reference_mel(tmp_path / "a.wav", limit_peak=False)
    np.testing.assert_allclose(plain, compute_mel_spectrogram(x, SOVITS_SPECTROGRAM), rtol=1e-4, atol=1e-4)


def test_a_reference_is_brought_to_the_rate_of_its_spectrogram(recorded, tmp_path):
    save_wav(tmp_path / "a.wav", recorded["v2.samples"], 32000)
    samples = load_audio(tmp_path / "a.wav", 24000)
    out = load_reference_mel(tmp_path / "a.wav", SOVITS_V3_MEL)
    np.testing.assert_allclose(out, compute_mel_spectrogram(samples, SOVITS_V3_MEL), atol=1e-5)
    save_wav(tmp_path / "short.wav", np.zeros(100), 32000)
    with pytest.raises(AudioError, match="too few"):
        load_reference_mel(tmp_path / "short.wav")


def test_samples_and_files_make_the_same_spectrogram(recorded, tmp_path):
    x = recorded["v2.samples"] * np.float32(1.5 / np.abs(recorded["v2.samples"]).max())
    soundfile.write(str(tmp_path / "a.wav"), x, 32000, subtype="FLOAT")
    np.testing.assert_array_equal(reference_spectrogram(x).T, load_reference_mel(tmp_path / "a.wav"))


def test_the_core_adds_the_same_silence():
    parameter = inspect.signature(load_audio_for_hubert).parameters["silence_samples"]
    assert parameter.default == HUBERT_SILENCE_SAMPLES
