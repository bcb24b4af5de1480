"""FSMN-VAD against FunASR 1.4.16 and its ONNX file; goldens: scripts/record_golden/funasr_vad.py."""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from funasr_mlx.demo import demo_recordings, demo_vad
from funasr_mlx.vad import VAD, Detector, VADOptions, load_vad, merge_segments
from mlx_core.audio import load_wav
from mlx_core.errors import AudioError, ConfigError, InputError, MissingCheckpointError

GOLDENS = Path(__file__).parent / "goldens" / "vad"
RATE = 16000
SEED, WIDTH, FRAMES, CHUNK = 6, 16, 23, 7
BASE = {
    "fsmn_layers": 2,
    "linear_dim": 12,
    "proj_dim": 6,
    "input_affine_dim": 10,
    "output_affine_dim": 8,
    "output_dim": 5,
}
SIZES = {
    "causal": {"lorder": 4, "rorder": 0, "lstride": 1, "rstride": 0},
    "ahead": {"lorder": 3, "rorder": 2, "lstride": 2, "rstride": 3},
}
CASES = json.loads((GOLDENS / "segments.json").read_text())
FRONTEND = {"n_mels": 8, "lfr_m": 2}


def config(**changes):
    tables = {"model": "FsmnVADStreaming", "model_conf": {}, "frontend_conf": FRONTEND}
    return tables | {"encoder_conf": {"input_dim": WIDTH, **BASE, **SIZES["causal"]}} | changes


def random_vad(sizes="causal", **changes):
    """A network with the golden's weights, and the random numbers that come after them."""
    made = config(encoder_conf={"input_dim": WIDTH, **BASE, **SIZES[sizes]}, **changes)
    shapes = {name: value.shape for name, value in VAD.build(made, {}).state_dict().items()}
    rng = np.random.default_rng(SEED)
    weights = {name: rng.standard_normal(shapes[name], np.float32) * 0.5 for name in sorted(shapes)}
    return VAD.from_state_dict(made, weights), rng


@pytest.fixture(scope="module")
def vad():
    return load_vad(demo_vad())


@pytest.fixture(scope="module")
def recordings():
    return {path.name: load_wav(path)[0] for path in demo_recordings()}


@pytest.mark.parametrize("sizes", SIZES)
def test_random_networks(sizes):
    golden = load_file(GOLDENS / "random.safetensors")
    vad, rng = random_vad(sizes)
    features = rng.standard_normal((2, FRAMES, WIDTH), np.float32)
    whole = np.array(vad(mx.array(features)))
    np.testing.assert_allclose(whole, golden[f"{sizes}.whole"], atol=1e-5)
    cache = vad.make_cache(2)
    chunks = [np.array(vad(mx.array(part), cache)) for part in np.split(features, range(CHUNK, FRAMES, CHUNK), axis=1)]
    np.testing.assert_allclose(np.concatenate(chunks, axis=1), golden[f"{sizes}.chunks"], atol=1e-5)


def test_the_released_model(vad, recordings):
    golden = load_file(GOLDENS / "posteriors.safetensors")
    posteriors = np.array(vad(vad.frontend(recordings["vad_example.wav"])[None]))[0]
    assert posteriors.shape == (golden["silence"].size, 248)
    # The filter bank's rounding is the only difference.
    np.testing.assert_allclose(posteriors[:, 0], golden["silence"], atol=1e-4)
    np.testing.assert_allclose(posteriors[::200], golden["classes"], atol=1e-4)


def describe(case):
    return f"{case['file'][:3]}-{case['seconds']}-{case.get('chunk')}-{json.dumps(case['thresholds'])}"


@pytest.mark.parametrize("case", [case for case in CASES if "chunk" not in case], ids=describe)
def test_segments(case, vad, recordings):
    samples = recordings[case["file"]][: case["seconds"] and case["seconds"] * RATE]
    assert [list(found) for found in vad.segment(samples, **case["thresholds"])] == case["value"]


@pytest.mark.parametrize("case", [case for case in CASES if "chunk" in case], ids=describe)
def test_streams(case, vad, recordings):
    samples = recordings[case["file"]][: case["seconds"] and case["seconds"] * RATE]
    step = int(case["piece"] * RATE / 1000)
    stream = vad.stream(chunk_size=case["chunk"], **case["thresholds"])
    starts = range(0, len(samples), step)
    assert [stream.feed(samples[i : i + step], final=i == starts[-1]) for i in starts] == case["value"]


def test_goldens_have_every_kind_of_event():
    assert any(len(case["value"]) > 5 for case in CASES if "chunk" not in case)
    events = [event for case in CASES if "chunk" in case for found in case["value"] for event in found]
    assert {(start < 0, end < 0) for start, end in events} == {(False, True), (True, False), (False, False)}


@given(pieces=st.lists(st.integers(0, 9000), max_size=8))
@settings(max_examples=15, deadline=None)
def test_pieces_of_any_length_are_one_recording(pieces):
    vad, rng = random_vad(model_conf={"speech_noise_thres": 0.0, "window_size_ms": 30, "sil_to_speech_time_thres": 20})
    samples = rng.standard_normal(30000).astype(np.float32) * np.repeat(rng.random(60), 500).astype(np.float32)
    options = {"chunk_size": 100, "max_end_silence_time": 170}
    expected = vad.stream(**options).feed(samples, final=True)
    assert expected
    stream = vad.stream(**options)
    for _ in range(2):  # after the final piece another recording begins
        found, start = [], 0
        for piece in pieces:
            found += stream.feed(samples[start : start + piece])
            start += piece
        assert found + stream.feed(samples[start:], final=True) == expected


def test_an_end_without_samples_ends_what_is_open(vad, recordings):
    samples = recordings["asr_example.wav"]
    whole = vad.stream().feed(samples, final=True)
    stream = vad.stream()
    assert stream.feed(samples) + stream.feed(np.zeros(0, np.float32), final=True) == whole
    assert whole[-1][1] > 0


@given(data=st.data())
@settings(deadline=None)
def test_chunks_do_not_change_what_a_detector_finds(data):
    count = data.draw(st.integers(1, 300))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    silence = np.repeat(rng.random(count), rng.integers(1, 40, count))[:count] ** 0.5
    decibels = rng.uniform(-40, 20, count)
    options = VADOptions(
        window_size_ms=data.draw(st.sampled_from([10, 50, 200])),
        sil_to_speech_time_thres=10,
        speech_to_sil_time_thres=data.draw(st.sampled_from([0, 40])),
        max_single_segment_time=data.draw(st.sampled_from([300, 60000])),
        detect_mode=data.draw(st.sampled_from([0, 1])),
        snr_thres=data.draw(st.sampled_from([-100.0, 3.0])),
    )
    given_to = {"end_silence_ms": 100, "margin": 0.1}
    whole, parts = Detector(options), Detector(options)
    whole.feed(silence, decibels, final=True, **given_to)
    for frame in range(count):
        part = slice(frame, frame + 1)
        parts.feed(silence[part], decibels[part], final=frame == count - 1, **given_to)
    assert (parts.segments, parts.open, parts.frames) == (whole.segments, whole.open, count)


@pytest.mark.parametrize("samples", [np.zeros(0), np.zeros(1), np.zeros(399), np.zeros(RATE), np.full(RATE, 0.5)])
def test_nothing_is_no_speech(vad, samples):
    assert vad.segment(samples.astype(np.float32)) == []
    assert vad.stream().feed(samples.astype(np.float32), final=True) == []


def test_a_tone_is_no_speech(vad):
    assert vad.segment(0.3 * np.sin(np.arange(3 * RATE) * 0.3).astype(np.float32), max_end_silence_time=800) == []


def test_other_rates_are_resampled(vad, recordings):
    samples = recordings["asr_example.wav"]
    ((start, end),) = vad.segment(np.repeat(samples, 2), sample_rate=2 * RATE)
    ((expected_start, expected_end),) = vad.segment(samples)
    np.testing.assert_allclose([start, end], [expected_start, expected_end], atol=50)


def test_bad_samples(vad):
    with pytest.raises(AudioError, match="NaN"):
        vad.segment(np.array([0.0, np.nan], np.float32))
    with pytest.raises(AudioError, match="Mix channels"):
        vad.segment(np.zeros((2, 800), np.float32))
    stream = vad.stream()
    with pytest.raises(AudioError, match="integers"):
        stream.feed(np.zeros(800, np.int16))


@pytest.mark.parametrize(
    ("thresholds", "message"),
    [
        ({"max_silence": 3}, "max_silence: no such threshold"),
        ({"window_size_ms": 5}, "window_size_ms"),
        ({"detect_mode": 2}, "detect_mode"),
        ({"max_end_silence_time": -1}, "max_end_silence_time"),
        ({"sil_pdf_ids": [500]}, "248 classes"),
        ({"sil_pdf_ids": []}, "sil_pdf_ids"),
        ({"frame_in_ms": 20}, "frame_in_ms"),
        ({"speech_noise_thres": "high"}, "speech_noise_thres"),
    ],
)
def test_bad_thresholds(vad, thresholds, message):
    with pytest.raises(InputError, match=message):
        vad.segment(np.zeros(800, np.float32), **thresholds)
    with pytest.raises(InputError, match="chunk_size"):
        vad.stream(chunk_size=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder_conf": {"input_dim": WIDTH, **BASE}}, "lorder"),
        ({"encoder_conf": {"input_dim": WIDTH, **BASE, **SIZES["ahead"], "rstride": 0}}, "rstride"),
        ({"encoder_conf": {"input_dim": WIDTH, **BASE, **SIZES["causal"], "use_softmax": False}}, "use_softmax"),
        ({"frontend_conf": {"n_mels": 9}}, "input_dim"),
        ({"model_conf": {"sil_pdf_ids": [5]}}, "among 5 classes"),
        ({"model_conf": {"silence_pdf_num": 2}}, "sil_pdf_ids"),
        ({"model_conf": {"sample_rate": 8000}}, "sample_rate"),
    ],
)
def test_bad_configurations(changes, message):
    with pytest.raises(ConfigError, match=message):
        VAD.from_state_dict(config(**changes), {})


def test_features_may_be_numpy_s():
    vad, rng = random_vad()
    features = rng.standard_normal((1, 30, vad.config.input_dim))
    found, expected = vad(features), vad(mx.array(features, mx.float32))
    assert np.array_equal(np.array(found), np.array(expected))


def test_bad_features():
    vad, _ = random_vad()
    with pytest.raises(InputError, match=r"\[B, T, 16\]"):
        vad(mx.zeros((1, 3, 15)))


def test_a_saved_model_is_the_same(vad, recordings, tmp_path):
    vad.save(tmp_path / "vad", files={"am.mvn": demo_vad() / "am.mvn"})
    samples = recordings["asr_example.wav"]
    assert load_vad(tmp_path / "vad").segment(samples) == vad.segment(samples)


def test_folders_without_a_vad(tmp_path):
    with pytest.raises(MissingCheckpointError):
        load_vad(tmp_path / "none")
    (tmp_path / "config.yaml").write_text("model: Paraformer\n")
    with pytest.raises(ConfigError, match="Give the VAD's folder"):
        load_vad(tmp_path)


@pytest.mark.parametrize(
    ("segments", "limits", "expected"),
    [
        ([], (), []),
        ([(500, 900)], (), [(500, 900)]),
        ([(500, 900), (1000, 2000)], (), [(0, 2000)]),
        ([(500, 9000), (9100, 14000), (15000, 16000)], (), [(0, 14000), (14000, 16000)]),
        (
            [(0, 9000), (9100, 14000), (40000, 41000)],
            (5000,),
            [(0, 9000), (9000, 9100), (9100, 14000), (14000, 40000), (40000, 41000)],
        ),
        ([(100, 200), (9100, 14000)], (5000, 300), [(200, 9100), (9100, 14000)]),
    ],
)
def test_merging(segments, limits, expected):
    assert merge_segments(segments, *limits) == expected
