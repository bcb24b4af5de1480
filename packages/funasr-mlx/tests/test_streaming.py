"""Streaming Paraformer: FunASR's recordings, pieces of any size, and what a session keeps."""

import importlib.util
import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from funasr_mlx.frontend import make_frontend
from funasr_mlx.networks import ChunkOutput, ParaformerStreaming, find_recognizer
from funasr_mlx.recognizer import ParaformerRecognizer
from funasr_mlx.streaming import StreamingSession
from funasr_mlx.text import Vocabulary
from mlx_core.errors import AudioError, ConfigError, InputError, MissingCheckpointError

GOLDENS = Path(__file__).parent / "goldens" / "streaming"
RECORD = json.loads((GOLDENS / "cases.json").read_text(encoding="utf-8"))
CASES = RECORD["cases"]
TOKENS = RECORD["tokens"]


def seeded_weights():
    path = GOLDENS.parent / "asr" / "seeded_weights.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.seeded_weights


def recording(count):
    loud = np.sin(np.arange(count) / 1500) ** 2
    return (0.1 * loud * np.random.default_rng(count).standard_normal(count)).astype(np.float32)


@pytest.fixture(scope="module")
def recognizer():
    known, weights = {}, seeded_weights()

    def read(name):
        if name not in known:
            case = CASES[name]
            config = case["config"]
            network = ParaformerStreaming.from_state_dict(
                config, weights(case["shapes"], 1.0, case["adjusted"]), dtype="float32"
            )
            frontend = make_frontend(config["frontend_conf"], None)
            known[name] = ParaformerRecognizer(network, frontend, Vocabulary(TOKENS), [0, 1, 2])
        return known[name]

    return read


def session(recognizer, name, **changes):
    before, size, after, encoder, decoder = CASES[name]["chunks"]
    options = {"encoder_chunk_look_back": encoder, "decoder_chunk_look_back": decoder} | changes
    return StreamingSession(recognizer(name), chunk_size=(before, size, after), **options)


def pieces(samples, step):
    return [(samples[at : at + step], at + step >= len(samples)) for at in range(0, len(samples), step)]


def close(found, expected, tolerance):
    assert tuple(found.shape) == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("name", CASES)
def test_what_funasr_computes(recognizer, monkeypatch, name):
    stream, outputs = session(recognizer, name), []
    chunk = stream._network.chunk

    def listened(*arguments):
        output, state = chunk(*arguments)
        outputs.append(output)
        return output, state

    monkeypatch.setattr(stream._network, "chunk", listened)
    texts = []
    io = {
        k.removeprefix(f"{name}."): v
        for k, v in load_file(GOLDENS / "chunks.safetensors").items()
        if k.startswith(name)
    }
    for i, (piece, final) in enumerate(pieces(recording(CASES[name]["samples"]), stream.chunk_samples)):
        texts.append(stream.feed(piece, final))
        output = outputs[
            -1
        ]  # a last piece that is a whole chunk is followed by one of nothing, which is recorded alone
        close(output.encoder_out, io[f"{i}.encoder_out"], 2e-5)
        if f"{i}.logp" in io:
            if len(outputs) == i + 1:
                close(output.acoustic_embeds, io[f"{i}.acoustic_embeds"], 1e-4)
            logits = output.logits
            close(logits - mx.logsumexp(logits, axis=-1, keepdims=True), io[f"{i}.logp"], 1e-4)
        else:
            assert output.logits.shape[1] == 0
    assert texts == CASES[name]["texts"]


@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_pieces_of_any_size(recognizer, data):
    name = data.draw(st.sampled_from(["seldom", "nothing_after"]))
    samples = recording(CASES[name]["samples"])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(samples)), max_size=12)))
    stream = session(recognizer, name)
    parts = np.split(samples, cuts)
    said = [stream.feed(part, final=i == len(parts) - 1) for i, part in enumerate(parts)]
    assert "".join(said) == "".join(CASES[name]["texts"])


def test_a_session_hears_one_recording_after_the_other(recognizer):
    stream, samples = session(recognizer, "released"), recording(CASES["released"]["samples"])
    texts = CASES["released"]["texts"]
    assert [stream.feed(*piece) for piece in pieces(samples, stream.chunk_samples)] == texts
    whole = stream.text
    assert "".join(whole.split()) == "".join(texts)
    assert [stream.feed(*piece) for piece in pieces(samples, stream.chunk_samples)] == texts
    assert stream.text == whole  # of the second alone
    stream.feed(samples[:20000])
    assert stream.text not in ("", whole)
    stream.reset()
    assert stream.text == ""
    assert [stream.feed(*piece) for piece in pieces(samples, stream.chunk_samples)] == texts


def test_text_joins_what_calls_cut(recognizer, monkeypatch):
    stream = session(recognizer, "released")
    spoken = iter([["the", "he@@"], ["ll@@"], ["o", "wor@@"], ["ld", "天"], ["a"], ["b", "wor@@"]])
    monkeypatch.setattr(
        stream,
        "_recognize_chunk",
        lambda online, samples, state, final=False: ([TOKENS.index(t) for t in next(spoken)], state),
    )
    chunk = np.zeros(stream.chunk_samples, np.float32)
    assert [stream.feed(chunk) for _ in range(4)] == ["the", "", "o", "ld天"]
    assert stream.text == "the hello world天"
    assert [stream.feed(chunk) for _ in range(2)] == ["a", "b"]
    assert stream.text == "the hello world天AB"


@pytest.mark.parametrize(
    "bad", [np.array([0.1, np.nan]), np.array([np.inf]), np.zeros((9600, 2)), np.zeros(4, np.int16)], ids=repr
)
def test_a_refused_call_changes_nothing(recognizer, bad):
    stream, samples = session(recognizer, "seldom"), recording(CASES["seldom"]["samples"])
    said = [stream.feed(samples[:7000])]
    with pytest.raises(AudioError):
        stream.feed(bad)
    with pytest.raises(AudioError):
        stream.feed(bad, final=True)
    said.append(stream.feed(samples[7000:], final=True))
    assert "".join(said) == "".join(CASES["seldom"]["texts"])


def test_a_call_that_fails_halfway_changes_nothing(recognizer, monkeypatch):
    stream, samples = session(recognizer, "nothing_after"), recording(CASES["nothing_after"]["samples"])
    recognize, found = stream._recognize_chunk, []

    def failing(*arguments):
        if len(found) == 2:
            raise MemoryError
        found.append(recognize(*arguments))
        return found[-1]

    said = [stream.feed(samples[:5000])]
    with monkeypatch.context() as patch:
        patch.setattr(stream, "_recognize_chunk", failing)
        with pytest.raises(MemoryError):
            stream.feed(samples[5000:])
    assert len(found) == 2
    np.testing.assert_array_equal(stream._online._samples, samples[4480:4800])
    said.append(stream.feed(samples[5000:], final=True))
    assert "".join(said) == "".join(CASES["nothing_after"]["texts"])


def test_samples_may_change_once_they_are_fed(recognizer):
    stream, samples = session(recognizer, "nothing_after"), recording(CASES["nothing_after"]["samples"])
    block, said = np.empty(1000, np.float32), []
    for at in range(0, len(samples), 1000):
        block[:] = samples[at : at + 1000]
        said.append(stream.feed(block, final=at + 1000 >= len(samples)))
    assert "".join(said) == "".join(CASES["nothing_after"]["texts"])


def test_blanks_and_ends_are_not_said(recognizer, monkeypatch):
    stream = session(recognizer, "released")

    def chunk(features, state, final=False):
        return ChunkOutput(features, features, mx.eye(len(TOKENS))[mx.array([[0, 3, 1, 2, 4, len(TOKENS) - 1]])]), state

    monkeypatch.setattr(stream._network, "chunk", chunk)
    assert stream.feed(recording(9600)) == stream.text == "天地"


@pytest.mark.parametrize("count", [0, 1, 399, 959])
def test_less_than_a_frame_says_nothing(recognizer, count):
    stream = session(recognizer, "released")
    assert stream.feed(recording(count), final=True) == ""
    assert stream.text == ""


@pytest.mark.parametrize("bias", [-1.0, -30.0], ids=["spoken", "silent"])
def test_what_is_kept_does_not_grow(recognizer, monkeypatch, bias):
    stream, samples = session(recognizer, "released"), recording(9600)
    monkeypatch.setitem(stream._network.predictor.cif_output, "bias", mx.array([bias]))

    def kept():
        return sum(value.nbytes for value in stream._state.arrays()) + stream._samples.nbytes

    for _ in range(6):
        stream.feed(samples)
    size = kept()
    mx.synchronize()
    active = mx.get_active_memory()
    for _ in range(60):
        stream.feed(samples)
    assert kept() == size
    assert (stream.text == "") == (bias == -30)
    mx.synchronize()
    assert mx.get_active_memory() - active < size


def test_keys_of_the_whole_stream_are_kept_only_where_asked(recognizer):
    sizes = []
    for look_back in (0, 1, 2, -1):
        stream = session(recognizer, "released", encoder_chunk_look_back=look_back)
        stream.feed(recording(5 * stream.chunk_samples))
        pair = stream._state.encoder[-1]
        sizes.append(0 if pair is None else pair[0].shape[1])
    assert sizes == [0, 10, 20, 50]


def test_a_chunk_is_of_frames_whatever_the_rate(recognizer):
    known = recognizer("released")
    slow = make_frontend(CASES["released"]["config"]["frontend_conf"] | {"fs": 8000}, None)
    stream = StreamingSession(ParaformerRecognizer(known.network, slow, known.vocabulary, [0, 1, 2]))
    assert (stream.sample_rate, stream.chunk_samples) == (8000, 4800)
    stream.feed(recording(3 * 4800))
    assert stream._state.position == 31


def test_a_folder(recognizer, tmp_path):
    case = recognizer("released")
    case.network.save(tmp_path / "model")
    (tmp_path / "model" / "tokens.json").write_text(json.dumps(TOKENS), encoding="utf-8")
    stream = StreamingSession(tmp_path / "model")
    assert stream.feed(recording(CASES["released"]["samples"]), final=True) == "".join(CASES["released"]["texts"])


def test_a_whole_recording_at_once(recognizer):
    network = recognizer("released").network
    assert find_recognizer("ParaformerStreaming") is ParaformerStreaming
    features = mx.array(np.random.default_rng(0).standard_normal((2, 9, 28)).astype(np.float32))
    both, alone = network(features, [9, 5]), network(features[1:, :5], [5])
    np.testing.assert_allclose(both.encoder_out[1:, :5], alone.encoder_out, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"chunk_size": (0, 10)},
        {"chunk_size": (0, 0, 5)},
        {"chunk_size": (-1, 10, 5)},
        {"chunk_size": (0, 10, 0)},
        {"chunk_size": (0, 9.5, 5)},
        {"chunk_size": (0, True, 5)},
        {"encoder_chunk_look_back": -2},
        {"decoder_chunk_look_back": -2},
        {"decoder_chunk_look_back": None},
    ],
    ids=str,
)
def test_sizes_that_make_no_sense(recognizer, options):
    with pytest.raises(InputError):
        StreamingSession(recognizer("released"), **options)


def test_models_that_do_not_stream(recognizer, tmp_path):
    with pytest.raises(ConfigError, match="ParaformerStreaming"):
        StreamingSession(recognizer("released").network)
    with pytest.raises(MissingCheckpointError):
        StreamingSession(tmp_path / "nowhere")


def test_features_of_another_width(recognizer):
    network = recognizer("released").network
    with pytest.raises(InputError, match="28"):
        network.chunk(mx.zeros((1, 10, 20)), network.start())
