"""Sound files, resampling and spectrograms against libsndfile, soxr, librosa and torchaudio.

`goldens/audio/README.md` says how the recordings were made.
"""

import json
import math
import os
import struct
import subprocess
import sys
import tracemalloc
import wave
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from mlx_core import AudioError
from mlx_core.audio import (
    AudioConfig,
    compute_mel_spectrogram,
    load_audio,
    load_audio_for_hubert,
    load_wav,
    mel,
    resample,
    resampling,
    save_wav,
    wav,
)

FOLDER = Path(__file__).parent / "goldens" / "audio"
GOLDENS = load_file(FOLDER / "audio.safetensors")
RECORDED = json.loads((FOLDER / "audio.json").read_text())
WAVS = {path.name.removesuffix(".wav"): path for path in sorted((FOLDER / "wav").glob("*.wav"))}

# As vocoders have their spectrograms: magnitudes, mirrored at both ends by (n_fft - hop_length) // 2.
LINEAR = AudioConfig(
    sample_rate=32000,
    n_fft=2048,
    hop_length=640,
    n_mels=1025,
    mel_scale="linear",
    power=1.0,
    offset=1e-8,
    padding=704,
    center=False,
    pad_mode="reflect",
)
MIRRORED = replace(
    LINEAR, sample_rate=24000, n_fft=1024, hop_length=256, n_mels=100, mel_scale="slaney", padding=384, log="ln"
)

in_a_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def chunk(kind, data, size=None):
    """A RIFF chunk; `size` is what it claims to hold."""
    data = bytes(data)
    return kind + struct.pack("<I", len(data) if size is None else size) + data + b"\0" * (len(data) % 2)


def form(tag=1, channels=1, rate=16000, bits=16, frame_bytes=None):
    frame_bytes = channels * bits // 8 if frame_bytes is None else frame_bytes
    return chunk(b"fmt ", struct.pack("<HHIIHH", tag, channels, rate, rate * frame_bytes, frame_bytes, bits))


def riff(*chunks):
    return b"RIFF" + struct.pack("<I", 4 + sum(map(len, chunks))) + b"WAVE" + b"".join(chunks)


def pcm(values):
    return np.array(values, "<i2").tobytes()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "sound.wav"

    def write(data):
        path.write_bytes(data)
        return path

    return write


def reason(function, *arguments, **options):
    with pytest.raises(AudioError) as caught:
        function(*arguments, **options)
    return str(caught.value)


# WAV files


@pytest.mark.parametrize("name", WAVS)
def test_wav_files_are_read_as_libsndfile_reads_them(name):
    expected = GOLDENS[f"wav/{name}"]
    samples, rate = load_wav(WAVS[name], mono=False)
    assert samples.dtype == np.float32
    assert rate == 11025 * expected.shape[1]
    np.testing.assert_array_equal(samples, expected)
    mixed, _ = load_wav(str(WAVS[name]))
    assert mixed.dtype == np.float32
    np.testing.assert_allclose(mixed, expected.astype(np.float64).mean(axis=1), atol=1e-7)


def test_every_recorded_file_is_there():
    assert {f"wav/{name}" for name in WAVS} == {name for name in GOLDENS if name.startswith("wav/")}


@pytest.mark.parametrize("name", ["s24.six", "s16", "f64"])
def test_blocks_don_t_show(name, monkeypatch):
    expected = load_wav(WAVS[name])[0]
    monkeypatch.setattr(wav, "_BLOCK_BYTES", 50)
    np.testing.assert_allclose(load_wav(WAVS[name])[0], expected, atol=1e-7)


def test_twenty_bits_in_three_bytes_and_twelve_in_two(file):
    samples = np.array([[0, 0, 0x80], [0, 0, 0x40], [0xF0, 0xFF, 0x7F]], np.uint8)
    loaded, _ = load_wav(file(riff(form(bits=20, frame_bytes=3), chunk(b"data", samples.tobytes()))))
    np.testing.assert_allclose(loaded, [-1, 0.5, 1 - 2**-19], atol=1e-7)
    loaded, _ = load_wav(file(riff(form(bits=12, frame_bytes=2), chunk(b"data", pcm([-32768, 16384])))))
    assert loaded.tolist() == [-1, 0.5]


def test_chunks_that_mean_nothing_are_passed_over(file):
    chunks = (
        chunk(b"LIST", b"odd"),
        chunk(b"fact", b"\0" * 4),
        form(),
        chunk(b"junk", b""),
        chunk(b"data", pcm([1, 2, 3])),
    )
    samples, rate = load_wav(file(riff(*chunks, chunk(b"data", pcm([9])))))
    assert (samples * 32768).tolist() == [1, 2, 3]
    assert rate == 16000


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0xFFFFFFFE, 7])
def test_a_header_that_promises_more_gives_what_is_there_in_little_memory(file, size):
    path = file(riff(form(), chunk(b"data", pcm([1, 2, 3]), size)))
    tracemalloc.start()
    samples, _ = load_wav(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (samples * 32768).tolist() == [1, 2, 3]
    assert peak < 2**22


def test_rf64_has_its_length_elsewhere(file):
    sizes = chunk(b"ds64", struct.pack("<QQQI", 100, 4, 2, 0))
    body = riff(sizes, form(), chunk(b"data", pcm([1, 2]), 0xFFFFFFFF), chunk(b"LIST", b"not samples"))
    samples, _ = load_wav(file(b"RF64" + body[4:]))
    assert (samples * 32768).tolist() == [1, 2]


@pytest.mark.parametrize("name", ["s16.stereo", "f32.stereo", "u8"])
def test_a_file_that_is_cut_off_gives_a_beginning_or_an_error(name, file):
    whole, expected = WAVS[name].read_bytes(), GOLDENS[f"wav/{name}"]
    lengths = []
    for end in range(len(whole)):
        try:
            samples, _ = load_wav(file(whole[:end]), mono=False)
        except AudioError:
            lengths.append(0)
        else:
            np.testing.assert_array_equal(samples, expected[: len(samples)])
            lengths.append(len(samples))
    assert lengths == sorted(lengths)
    assert set(lengths) == set(range(len(expected) + 1))


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(sorted(WAVS)),
    changes=st.lists(st.tuples(st.integers(0, 110), st.integers(0, 255)), min_size=1, max_size=6),
    end=st.integers(-300, -1) | st.none(),
)
def test_damaged_files_give_finite_samples_or_an_audio_error(file, name, changes, end):
    data = bytearray(WAVS[name].read_bytes())
    for place, value in changes:
        data[place] = value
    path = file(bytes(data[:end]))
    try:
        samples, rate = load_wav(path, mono=False)
    except AudioError as error:
        message = str(error)
    else:
        message = str(path)
        assert np.isfinite(samples).all()
        assert 1 <= samples.size <= 10000
        assert 0 < rate <= 2**24
    assert str(path) in message


@in_a_folder
@given(st.binary(max_size=80))
def test_nothing_else_is_audio(file, data):
    assert str(reason(load_wav, file(data)))
    reason(load_wav, file(b"RIFF\x24\0\0\0WAVE" + data[:30]))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"RIFF", "damaged"),
        (riff(), "no `data` chunk"),
        (riff(form()), "no `data` chunk"),
        (riff(chunk(b"data", pcm([1]))), "before their format"),
        (riff(form(), chunk(b"data", b"")), "holds no samples"),
        (riff(form(), chunk(b"data", b"\0")), "holds no samples"),
        (riff(chunk(b"fmt ", b"\1\0\1\0"), chunk(b"data", pcm([1]))), "16 bytes or more, found 4"),
        (riff(form(tag=0xFFFE), chunk(b"data", pcm([1]))), "40 bytes, found 16"),
        (riff(form(channels=0), chunk(b"data", pcm([1]))), "of 0 channels"),
        (riff(form(rate=0), chunk(b"data", pcm([1]))), "from 1 to 16777216, found 0"),
        (riff(form(rate=2**32 - 1, frame_bytes=1), chunk(b"data", pcm([1]))), "found 4294967295"),
        (riff(form(bits=0), chunk(b"data", pcm([1]))), "0 bits per sample"),
        (riff(form(bits=64), chunk(b"data", pcm([1] * 4))), "64 bits per sample"),
        (riff(form(tag=3, bits=16), chunk(b"data", pcm([1]))), "16 bits per sample"),
        (riff(form(tag=3, bits=16, frame_bytes=4), chunk(b"data", pcm([1] * 2))), "16 bits per sample"),
        (riff(form(bits=24, frame_bytes=2), chunk(b"data", pcm([1]))), "2 bytes per frame"),
        (riff(form(channels=2, frame_bytes=3), chunk(b"data", pcm([1] * 3))), "3 bytes per frame of 2 channels"),
        (riff(*[chunk(b"junk", b"")] * 5000, form(), chunk(b"data", pcm([1]))), "no `data` chunk"),
        (riff(form(tag=3, bits=32), chunk(b"data", np.array([0, np.nan], "<f4").tobytes())), "1 of 2 samples are NaN"),
        (riff(form(tag=3, bits=64), chunk(b"data", np.array([1e300, 0], "<f8").tobytes())), "1 of 2 samples are NaN"),
    ],
)
def test_broken_files_are_refused_with_the_reason(file, data, message):
    path = file(data)
    text = reason(load_wav, path)
    assert message in text
    assert str(path) in text


def test_what_is_not_a_file_is_refused(tmp_path):
    assert "is a folder" in reason(load_wav, tmp_path)
    assert "no file" in reason(load_wav, tmp_path / "missing.wav")
    os.mkfifo(tmp_path / "pipe")
    assert "no file" in reason(load_wav, tmp_path / "pipe")


# Other formats


@pytest.mark.parametrize(
    ("container", "subtype"),
    [
        ("FLAC", "PCM_16"),
        ("OGG", "VORBIS"),
        ("OGG", "OPUS"),
        ("MP3", "MPEG_LAYER_III"),
        ("AIFF", "PCM_24"),
        ("WAV", "ULAW"),
    ],
)
def test_other_formats_are_read_by_soundfile_whatever_their_name(tmp_path, container, subtype, monkeypatch):
    path = tmp_path / "sound.raw"  # soundfile wants to be told the rate of files of this name
    stereo = np.stack([GOLDENS["speech"], -0.5 * GOLDENS["speech"]], axis=1)
    soundfile.write(str(path), stereo, 16000, format=container, subtype=subtype)
    with path.open("rb") as stream:
        expected, _ = soundfile.read(stream.fileno(), dtype="float32", closefd=False)
    monkeypatch.setattr("mlx_core.audio.loading._BLOCK_FRAMES", 1000)
    samples, rate = load_wav(path, mono=False)
    assert rate == 16000
    np.testing.assert_allclose(samples, expected, atol=1e-6)
    np.testing.assert_allclose(load_wav(path)[0], expected.mean(axis=1), atol=1e-6)
    quiet = np.abs(samples[: len(stereo)] - stereo[: len(samples)]).mean()
    assert quiet < 0.02


def test_without_soundfile_wav_files_are_read_and_others_say_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "soundfile", None)
    np.testing.assert_array_equal(load_wav(WAVS["s16"], mono=False)[0], GOLDENS["wav/s16"])
    path = tmp_path / "sound.mp3"
    path.write_bytes(b"ID3\3" + b"\0" * 100)
    message = reason(load_wav, path)
    assert "mlx-core[audio]" in message
    assert "ID3" in message


def test_an_extensible_format_is_told_by_all_of_its_identifier(file, monkeypatch):
    """Its first two bytes are those of PCM in other formats too: here 16-bit ambisonics."""
    monkeypatch.setitem(sys.modules, "soundfile", None)
    guid = struct.pack("<IHH", 1, 0x0721, 0x11D3) + bytes.fromhex("8644c8c1ca000000")
    extensible = form(tag=0xFFFE)[8:] + struct.pack("<HHI", 22, 16, 0) + guid
    assert "unknown subformat" in reason(load_wav, file(riff(chunk(b"fmt ", extensible), chunk(b"data", pcm([1])))))


def test_text_and_empty_sounds_are_refused(tmp_path):
    path = tmp_path / "notes.flac"
    path.write_text("not a sound")
    assert "can't be read as audio" in reason(load_wav, path)
    sound = tmp_path / "sound.aiff"
    soundfile.write(str(sound), np.zeros((0, 1)), 16000)
    assert "holds no samples" in reason(load_wav, sound)
    soundfile.write(str(sound), np.array([0.0, np.nan]), 16000, subtype="FLOAT")
    assert "NaN" in reason(load_wav, sound)


def test_importing_loads_no_library_for_sound():
    program = """
        import sys
        import mlx_core
        assert "numpy" not in sys.modules
        from mlx_core import AudioConfig, compute_mel_spectrogram, load_audio_for_hubert, load_wav, resample, save_wav
        print(*sorted({name.partition(".")[0] for name in sys.modules}))
    """
    program = "\n".join(line.strip() for line in program.splitlines())
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(result.stdout.split())
    assert "numpy" in loaded
    assert not loaded & {"soundfile", "librosa", "soxr", "scipy", "numba"}


# Writing


@in_a_folder
@given(
    values=st.lists(st.integers(-32768, 32767), min_size=1, max_size=40),
    channels=st.integers(1, 4),
    rate=st.integers(1, 200000),
)
def test_what_was_read_from_sixteen_bits_is_written_back_exactly(tmp_path, values, channels, rate):
    samples = np.resize(np.array(values), (len(values), channels)).astype(np.float32) / 32768
    save_wav(tmp_path / "a.wav", samples, rate)
    loaded, loaded_rate = load_wav(tmp_path / "a.wav", mono=False)
    assert loaded_rate == rate
    np.testing.assert_array_equal(loaded, samples)
    with wave.open(str(tmp_path / "a.wav")) as stream:
        shape = stream.getnchannels(), stream.getframerate(), stream.getsampwidth(), stream.getnframes()
        assert shape == (channels, rate, 2, len(values))
    assert soundfile.info(str(tmp_path / "a.wav")).subtype == "PCM_16"


@in_a_folder
@given(st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=40))
def test_samples_are_rounded_to_the_nearest_and_clipped(tmp_path, values):
    save_wav(tmp_path / "a.wav", values, 8000)
    expected = [min(max(round(value * 32768), -32768), 32767) for value in values]  # round: a half to the even one
    assert (load_wav(tmp_path / "a.wav")[0] * 32768).tolist() == expected


@pytest.mark.parametrize(
    "samples",
    [
        [0.5, -0.25],
        np.array([0.5, -0.25]),
        np.array([0.5, -0.25], np.float16),
        np.array([[0.5], [-0.25]]),
        mx.array([0.5, -0.25]),
        mx.array([0.5, -0.25], mx.bfloat16),
    ],
)
def test_floats_of_any_kind_are_samples(tmp_path, samples):
    save_wav(tmp_path / "new" / "a.wav", samples, 8000)
    assert load_wav(tmp_path / "new" / "a.wav")[0].tolist() == [0.5, -0.25]


@pytest.mark.parametrize(
    ("samples", "rate", "message"),
    [
        (np.array([0.0, np.nan]), 8000, "1 of 2 samples are NaN"),
        (mx.array([0.0, float("inf")]), 8000, "1 of 2 samples are NaN"),
        (np.array([1e300]), 8000, "NaN or infinite"),
        (np.array([1, 2]), 8000, "found int64"),
        (mx.array([1, 2]), 8000, "found int32"),
        (np.array([1j]), 8000, "found complex128"),
        (["a"], 8000, "must be floats"),
        ([[0.0], [0.0, 1.0]], 8000, "array of floats"),
        (np.zeros((2, 2, 2)), 8000, r"found [2, 2, 2]"),
        (np.zeros(0), 8000, "found [0]"),
        (0.5, 8000, "found []"),
        (np.zeros(1), 0, "found 0"),
        (np.zeros(1), -1, "found -1"),
        (np.zeros(1), 8000.0, "found 8000.0"),
        (np.zeros(1), True, "found True"),
        (np.broadcast_to(np.float32(0), (2**31,)), 8000, "4 GiB"),
        (np.zeros((1, 40000)), 8000, "32767 channels"),
        (np.zeros((1, 2000)), 2**24, "don't fit"),
    ],
)
def test_what_can_t_be_written_is_refused_and_leaves_the_old_file(tmp_path, samples, rate, message, monkeypatch):
    path = tmp_path / "a.wav"
    save_wav(path, [0.5], 8000)
    before = path.read_bytes()
    if getattr(samples, "size", 0) == 2**31:
        monkeypatch.setattr(wav, "as_samples", lambda samples: samples)  # looking at them all takes time and memory
    assert message in reason(save_wav, path, samples, rate)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
    path = tmp_path / "a.wav"
    save_wav(path, [0.5], 8000)
    before = path.read_bytes()

    def fail(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr(np, "clip", fail)  # after the header
    assert "can't be written: the disk is full" in reason(save_wav, path, [0.25], 8000)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    assert "can't be written" in reason(save_wav, tmp_path, [0.25], 8000)
    assert list(tmp_path.iterdir()) == [path]


def test_long_sounds_are_written_in_blocks(tmp_path, monkeypatch):
    samples = np.linspace(-1, 1, 1001, dtype=np.float32)
    save_wav(tmp_path / "a.wav", samples, 8000)
    monkeypatch.setattr(wav, "_BLOCK_BYTES", 100)
    save_wav(tmp_path / "b.wav", samples, 8000)
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()


# Resampling


def direct(x, a, b):
    """The sum that `resample` computes, in float64 and one output at a time."""
    ratio = min(1.0, b / a)
    half = resampling._HALF_WIDTH / ratio
    out = np.zeros(-(-len(x) * b // a))
    for n in range(len(out)):
        distance = n * a / b - np.arange(len(x))
        distance = distance[np.abs(distance) < half]
        window = np.i0(resampling._BETA * np.sqrt(1 - (distance / half) ** 2)) / np.i0(resampling._BETA)
        cutoff = resampling._CUTOFF * ratio
        seen = x[np.abs(n * a / b - np.arange(len(x))) < half]
        out[n] = (cutoff * np.sinc(cutoff * distance) * window) @ seen
    return out


@settings(deadline=None, max_examples=40)
@given(
    a=st.integers(1, 60),
    b=st.integers(1, 60),
    n=st.integers(0, 300),
    gather=st.sampled_from([1, 5000, 2**21]),
    group=st.sampled_from([1, 7, 512]),
)
def test_every_output_is_the_weighted_sum_of_the_inputs_around_it(a, b, n, gather, group):
    x = np.random.default_rng(n).normal(size=n).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resampling, "_GATHER_SAMPLES", gather)
        patch.setattr(resampling, "_MAX_GROUP", group)
        resampling._weights.cache_clear()
        y = resample(x, a, b)
    resampling._weights.cache_clear()
    assert y.dtype == np.float32
    assert y.shape == (math.ceil(n * b / a),)
    np.testing.assert_allclose(y, x if a == b else direct(x, a, b), atol=5e-6)


def test_rates_without_a_common_divisor():
    x = np.random.default_rng(1).normal(size=3000).astype(np.float32)
    np.testing.assert_allclose(resample(x, 44101, 44100), direct(x, 44101, 44100), atol=5e-6)


@pytest.mark.parametrize(("a", "b"), RECORDED["rates"])
def test_resampling_agrees_with_soxr_s_best(a, b):
    """Noise within both passbands; soxr's ripple there is 0.007 dB, ours less."""
    x, expected = GOLDENS[f"resampling/{a}"], GOLDENS[f"resampling/{a}.{b}"]
    y = resample(x, a, b)
    assert len(y) == math.ceil(len(x) * b / a)
    n = min(len(y), len(expected))
    assert np.abs(y[:n] - expected[:n]).max() < 1e-3 * np.abs(expected).max()


@pytest.mark.parametrize(("a", "b"), RECORDED["white_rates"])
def test_resampling_agrees_with_librosa_s_default_at_all_frequencies(a, b):
    """Soxr's HQ, whose filter falls off where ours does."""
    y, expected = resample(GOLDENS[f"white/{a}"], a, b), GOLDENS[f"white/{a}.{b}"]
    assert y.shape == expected.shape
    difference = np.square(y - expected).sum() / np.square(expected).sum()
    assert 10 * math.log10(difference) < -50


@settings(deadline=None, max_examples=40)
@given(
    rates=st.sampled_from(
        [(44100, 16000), (48000, 24000), (8000, 16000), (22050, 32000), (48000, 16000), (11025, 16000)]
    ),
    place=st.floats(0.005, 0.905),
    phase=st.floats(0, 6.28),
)
def test_tones_below_91_percent_of_nyquist_pass_unchanged(rates, place, phase):
    a, b = rates
    turns = 2 * np.pi * place * min(a, b) / 2
    y = resample(np.cos(turns * np.arange(a // 4) / a + phase), a, b)
    middle = slice(len(y) // 4, 3 * len(y) // 4)  # away from where the tone begins and ends
    expected = np.cos(turns * np.arange(len(y)) / b + phase)
    assert np.abs(y - expected)[middle].max() < 1e-5


@settings(deadline=None, max_examples=40)
@given(rates=st.sampled_from([(44100, 16000), (48000, 24000), (48000, 16000), (32000, 16000)]), place=st.floats(0, 1))
def test_tones_above_nyquist_vanish(rates, place):
    a, b = rates
    y = resample(np.cos(np.pi * (b + place * (a - b) * 0.99) * np.arange(a // 4) / a), a, b)
    assert np.abs(y[len(y) // 4 : 3 * len(y) // 4]).max() < 1e-5  # -100 dB; float32 sums hundreds of samples


def test_time_may_lie_along_any_axis():
    x = np.random.default_rng(0).normal(size=(2, 3, 100)).astype(np.float32)
    y = resample(x, 3, 2)
    assert y.shape == (2, 3, 67)
    for i in range(2):
        for j in range(3):
            np.testing.assert_allclose(y[i, j], resample(x[i, j], 3, 2), atol=1e-6)
    np.testing.assert_array_equal(resample(x.transpose(2, 0, 1), 3, 2, axis=0), y.transpose(2, 0, 1))
    np.testing.assert_array_equal(resample(mx.array(x), 3, 2), y)
    assert resample(x[:0], 3, 2).shape == (0, 3, 67)
    same = resample(x, 5, 5)
    np.testing.assert_array_equal(same, x)
    assert not np.shares_memory(same, x)


def test_rates_far_apart_take_little_memory():
    tracemalloc.start()
    y = resample(np.ones(200000, np.float32), 1000, 1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert y.shape == (200,)
    assert peak < 2**27


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros(4), 0, 8000), "from_rate must be a whole number"),
        ((np.zeros(4), 8000, -8000), "to_rate must be a whole number"),
        ((np.zeros(4), 8000, 1.5), "found 1.5"),
        ((np.zeros(4), 8000, 2**25), "found 33554432"),
        ((np.zeros(4), 1, 2000), "at most 1024"),
        ((np.zeros(4, int), 8000, 16000), "must be floats"),
        ((np.array([np.inf]), 8000, 16000), "NaN or infinite"),
        ((0.5, 8000, 16000), "a single number"),
    ],
)
def test_what_can_t_be_resampled_is_refused(arguments, message):
    assert message in reason(resample, *arguments)


def test_an_axis_that_isn_t_there_is_refused():
    assert "no axis 1" in reason(resample, np.zeros(4), 1, 2, axis=1)


# Spectrograms


def settings_of(library, case):
    return AudioConfig(**RECORDED[library][case])


@pytest.mark.parametrize("case", RECORDED["librosa"])
def test_mel_spectrograms_are_librosa_s(case):
    """Relative to the largest band, 1e-6: both are float32."""
    expected = GOLDENS[f"librosa/{case}"]
    out = np.array(compute_mel_spectrogram(GOLDENS["speech"], settings_of("librosa", case)))
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-6 * expected.max())


@pytest.mark.parametrize("case", RECORDED["torchaudio"])
def test_mel_spectrograms_are_torchaudio_s(case):
    expected = GOLDENS[f"torchaudio/{case}"]
    out = np.array(compute_mel_spectrogram(mx.array(GOLDENS["speech"]), settings_of("torchaudio", case)))
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-6 * expected.max())


@pytest.mark.parametrize("config", [AudioConfig(n_fft=512, hop_length=100), MIRRORED, AudioConfig(log="log10")])
def test_neither_batches_nor_blocks_show(config, monkeypatch):
    x = GOLDENS["speech"]
    rows = np.stack([x, x[::-1], 0 * x])
    single = np.stack([np.array(compute_mel_spectrogram(row, config)) for row in rows])
    np.testing.assert_allclose(compute_mel_spectrogram(rows, config), single, rtol=1e-5, atol=1e-6)
    monkeypatch.setattr(mel, "_GATHER_SAMPLES", 3000)
    np.testing.assert_allclose(compute_mel_spectrogram(x, config), single[0], rtol=1e-5, atol=1e-6)
    assert compute_mel_spectrogram(rows[:0], config).shape == (0, *single.shape[1:])


def test_logarithms_and_powers_have_their_definitions():
    x = GOLDENS["speech"]
    plain = AudioConfig(n_fft=512, n_mels=257, mel_scale="linear")
    energy = np.array(compute_mel_spectrogram(x, plain))
    for options, expected in [
        ({"power": 1.0}, np.sqrt(energy)),
        ({"power": 3.0}, energy**1.5),
        ({"offset": 2.0}, energy + 2),
        ({"log": "ln", "log_floor": 0.5}, np.log(np.maximum(energy, 0.5))),
        ({"log": "log10", "log_floor": 1e-3}, np.log10(np.maximum(energy, 1e-3))),
        ({"n_mels": 10}, energy[:10]),
    ]:
        config = AudioConfig(**{"n_fft": 512, "n_mels": 257, "mel_scale": "linear"} | options)
        np.testing.assert_allclose(compute_mel_spectrogram(x, config), expected, rtol=1e-5, atol=1e-5)


@settings(deadline=None)
@given(
    n=st.integers(1, 300),
    n_fft=st.integers(1, 40),
    hop=st.integers(1, 50),
    padding=st.integers(0, 9),
    center=st.booleans(),
)
def test_how_many_frames_there_are(n, n_fft, hop, padding, center):
    config = AudioConfig(
        n_fft=n_fft, hop_length=hop, n_mels=1, mel_scale="linear", padding=padding, center=center, pad_mode="constant"
    )
    length = n + 2 * padding + (2 * (n_fft // 2) if center else 0)
    if length < n_fft:
        assert "too few for a frame" in reason(compute_mel_spectrogram, np.zeros(n), config)
    else:
        assert compute_mel_spectrogram(np.zeros(n), config).shape == (1, 1 + (length - n_fft) // hop)


def test_samples_that_make_no_spectrogram_are_refused():
    assert "too few: 704 at each end are to be mirrored" in reason(compute_mel_spectrogram, np.zeros(704), LINEAR)
    assert compute_mel_spectrogram(np.zeros(705), LINEAR).shape == (1025, 1)
    assert "found [1, 1, 9]" in reason(compute_mel_spectrogram, np.zeros((1, 1, 9)), AudioConfig())
    assert "NaN" in reason(compute_mel_spectrogram, np.full(9000, np.nan), AudioConfig())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample_rate": 0}, "found 0"),
        ({"n_fft": 0}, "n_fft must be at least 1"),
        ({"hop_length": 0}, "hop_length must be at least 1"),
        ({"n_mels": 0}, "n_mels must be at least 1"),
        ({"win_length": 2049}, "win_length must be from 1 to n_fft = 2048, found 2049"),
        ({"win_length": 0}, "found 0"),
        ({"padding": -1}, "found -1"),
        ({"power": 0.0}, "power and log_floor must be positive"),
        ({"log_floor": 0.0}, "power and log_floor must be positive"),
        ({"offset": float("nan")}, "offset not negative"),
        ({"mel_scale": "bark"}, "mel_scale must be one of 'slaney', 'htk', 'linear', found 'bark'"),
        ({"norm": "htk"}, "norm must be one of"),
        ({"pad_mode": "wrap"}, "pad_mode must be one of"),
        ({"log": "db"}, "log must be one of"),
        ({"mel_scale": "linear", "n_mels": 1026}, "has 1025 bins"),
        ({"fmin": 5000.0, "fmax": 5000.0}, "in this order"),
        ({"fmin": -1.0}, "in this order"),
        ({"fmax": 11026.0}, "half the sample rate, 11025.0 Hz"),
        ({"fmax": float("nan")}, "in this order"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(options, message):
    assert message in reason(AudioConfig, **options)


# References


def test_audio_for_hubert_is_one_channel_at_16_khz_with_silence_after_it(tmp_path):
    stereo = np.stack([np.resize(GOLDENS["speech"], 19200), np.zeros(19200, np.float32)], axis=1)
    soundfile.write(str(tmp_path / "a.wav"), stereo, 32000, subtype="FLOAT")
    out = load_audio_for_hubert(tmp_path / "a.wav")
    assert isinstance(out, mx.array)
    assert out.dtype == mx.float32
    expected = resample(stereo.mean(axis=1), 32000, 16000)
    np.testing.assert_allclose(out, np.concatenate([expected, np.zeros(9600)]), atol=1e-6)
    assert load_audio_for_hubert(tmp_path / "a.wav", silence_samples=0).shape == (9600,)
    np.testing.assert_array_equal(load_audio(tmp_path / "a.wav", 16000), expected)
    assert "found -1" in reason(load_audio_for_hubert, tmp_path / "a.wav", silence_samples=-1)
