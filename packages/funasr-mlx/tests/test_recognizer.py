"""From a folder and samples to a transcript, with the networks of the recordings; conversion; the command."""

import json
import shutil
import struct

import mlx.core as mx
import numpy as np
import pytest
from safetensors.numpy import save_file

from funasr_mlx import cli, streaming
from funasr_mlx.conversion import convert
from funasr_mlx.pipeline import Pipeline
from funasr_mlx.recognizer import load_model, padded
from funasr_mlx.text import join_tokens
from mlx_core.audio import save_wav
from mlx_core.errors import (
    AudioError,
    ConfigError,
    ConversionError,
    InputError,
    MissingCheckpointError,
    MLXCoreError,
    TokenizerError,
    WeightsError,
)

RATE = 16000
TOKENS = [
    "<blank>",
    "<s>",
    "</s>",
    *"今天气怎么样欢迎大家来说话听写",
    "hello",
    "wor@@",
    "ld",
    "the",
    "a",
    "b",
    "c",
    "x@@",
    *"日月水",
    "<unk>",
]
TAGS = ["<|zh|>", "<|HAPPY|>", "<|Speech|>", "<|woitn|>"]
PARAFORMERS = ["paraformer", "bicif", "seaco", "contextual"]
FRONTEND = {"fs": RATE, "n_mels": 8, "lfr_m": 3, "lfr_n": 6}


def noise(seconds, seed=0):
    samples = 0.1 * np.random.default_rng(seed).standard_normal(int(seconds * RATE))
    envelope = 1 + np.sin(2 * np.pi * 3 * np.arange(len(samples)) / RATE)
    return (samples * envelope).astype(np.float32)


def pieces_file(pieces):
    """SentencePiece's protobuf: pieces with scores and types, and a BPE trainer."""

    def field(number, data):
        return bytes([number << 3 | 2, len(data)]) + data

    data = b""
    for at, piece in enumerate(pieces):
        kind = 2 if piece == "<unk>" else 3 if piece in ("<s>", "</s>") else 4 if piece in TAGS else 1
        entry = field(1, piece.encode()) + b"\x15" + struct.pack("<f", -at) + bytes([3 << 3, kind])
        data += field(1, entry)
    return data + field(2, bytes([3 << 3, 2]))


@pytest.fixture(scope="module")
def folder(asr_case, tmp_path_factory):
    """A recording's network as FunASR's folder, but for its weights, which are safetensors."""
    made = {}

    def make(name):
        if name in made:
            return made[name]
        case, path = asr_case(name), tmp_path_factory.mktemp(name)
        config = {**case.config, "frontend_conf": FRONTEND}
        (path / "config.json").write_text(json.dumps(config))
        save_file(case.weights, path / "model.safetensors")
        numbers = " ".join(["-8"] * 24), " ".join(["0.3"] * 24)
        (path / "am.mvn").write_text(
            "<AddShift> 24 24\n<LearnRateCoef> 0 [ {} ]\n<Rescale> 24 24\n<LearnRateCoef> 0 [ {} ]\n".format(*numbers)
        )
        if name == "sensevoice":
            size = case.network.ctc.ctc_lo.weight.shape[0]
            words = [
                "<unk>",
                "<s>",
                "</s>",
                *TAGS,
                "▁hello",
                "▁wor",
                "ld",
                *"今天气怎么样欢迎大家来说话听写呢吗的日月水火",
            ]
            (path / "bpe.model").write_bytes(pieces_file(words[:size]))
            assert len(words) >= size
        else:
            (path / "tokens.json").write_text(json.dumps(TOKENS[:30]), encoding="utf-8")
        made[name] = path
        return path

    return make


@pytest.mark.parametrize("name", PARAFORMERS)
def test_a_transcript_is_what_the_network_says(folder, asr_case, name):
    model, samples = load_model(folder(name)), noise(1.5)
    features = model.frontend(samples)
    assert features.shape == (25, 24)
    output = model(features[None], [25])
    ids = np.array(mx.argmax(output.logits[0], axis=-1))[: int(output.token_num[0])]
    wording = join_tokens(TOKENS[i] for i in ids if i not in (0, 1, 2))
    transcript = model.transcribe(samples)
    assert transcript.text == wording.text
    assert transcript.tokens == wording.words
    assert transcript.duration_ms == 1500
    assert len(transcript.segments) == 1
    assert transcript.segments[0].timestamps == transcript.timestamps
    assert "".join(transcript.tokens)


@pytest.mark.parametrize("name", [*PARAFORMERS, "sensevoice"])
def test_a_batch_is_one_by_one(folder, name):
    model = load_model(folder(name))
    clips = [noise(seconds, at) for at, seconds in enumerate((1.5, 0.4, 2.2, 0.01, 0.0))]
    alone = [model.transcribe(clip) for clip in clips]
    together = list(Pipeline(model, batch_seconds=1000).transcribe_many(clips))
    assert together == alone
    assert alone[3].text == alone[4].text == ""


def test_hotwords(folder):
    model, samples = load_model(folder("seaco")), noise(2)
    assert model.takes_hotwords
    assert model.hotword_ids("今天 hello") == [[3, 4], [18], [1]]
    assert model.hotword_ids(["今天", [18]]) == [[3, 4], [18], [1]]
    assert model.hotword_ids("") is None
    features = model.frontend(samples)[None]
    plain, biased = model(features, [features.shape[1]]), model(features, [features.shape[1]], "今天 hello 说话")
    assert not np.allclose(np.array(plain.logits), np.array(biased.logits))
    assert model.transcribe(samples, hotwords="今天 hello 说话").duration_ms == 2000
    for hotwords in ([3, 4], 5):
        with pytest.raises(InputError, match="each as text or as a list of ids"):
            model.transcribe(samples, hotwords=hotwords)
    with pytest.raises(InputError, match="zzz"):
        model.transcribe(samples, hotwords="zzz")
    with pytest.raises(InputError, match="no hotwords"):
        load_model(folder("paraformer")).transcribe(samples, hotwords="今天")
    with pytest.raises(InputError, match="no hotwords"):
        load_model(folder("sensevoice")).transcribe(samples, hotwords="今天")


def test_sensevoice(folder):
    model, samples = load_model(folder("sensevoice")), noise(2)
    transcript = model.transcribe(samples, language="zh", itn=False)
    assert transcript.raw_text
    assert len(transcript.tokens) == len(transcript.timestamps)
    assert all(0 <= start < end <= 2000 for start, end in transcript.timestamps)
    features = model.frontend(samples)
    output = model(features[None], [len(features)], language="zh")
    path = np.array(mx.argmax(output.logits[0], axis=-1))
    kept = [int(a) for a, b in zip(path, [-1, *path[:-1]], strict=True) if a != b and a != 0]
    assert transcript.raw_text == model.pieces.text(kept)
    with pytest.raises(InputError, match="language"):
        model.transcribe(samples, language="xx")


@pytest.mark.parametrize("samples", [[], [0.1], np.zeros(399, np.float32), np.zeros(RATE, np.float32)])
def test_next_to_nothing(folder, samples):
    for name in [*PARAFORMERS, "sensevoice"]:
        transcript = load_model(folder(name)).transcribe(np.array(samples, np.float32))
        assert transcript.duration_ms == len(samples) * 1000 // RATE


def test_what_is_no_sound_is_refused(folder, tmp_path):
    model = load_model(folder("paraformer"))
    with pytest.raises(AudioError, match="NaN"):
        model.transcribe(np.full(800, np.nan, np.float32))
    (tmp_path / "a.wav").write_bytes(b"not a sound")
    for path in (tmp_path / "a.wav", tmp_path / "none.wav", tmp_path):
        with pytest.raises(AudioError):
            model.transcribe(path)


def test_other_rates_and_channels(folder, tmp_path):
    model = load_model(folder("bicif"))
    for rate in (8000, 16000, 48000):
        save_wav(tmp_path / f"{rate}.wav", np.stack([noise(1)] * 2, axis=1)[:: RATE // min(rate, RATE)], rate)
        assert model.transcribe(tmp_path / f"{rate}.wav").duration_ms in (333, 1000)


@pytest.mark.parametrize("bits", [None, 8, 4])
@pytest.mark.parametrize("name", ["seaco", "sensevoice"])
def test_conversion(folder, tmp_path, name, bits):
    source, target = folder(name), tmp_path / "converted"
    if bits is not None:  # widths of 16 and 20 have no groups: nothing is packed, and it is said so in no other way
        network = convert(source, target, bits=bits, group_size=32, dtype="float32")
    else:
        network = convert(source, target, dtype="float32")
    assert network.model_type == json.loads((target / "config.json").read_text())["model_type"]
    samples = noise(1.5)
    assert load_model(target).transcribe(samples) == load_model(source).transcribe(samples)
    with pytest.raises(ConversionError, match="empty"):
        convert(source, target)


def test_half_precision_says_the_same(folder, tmp_path):
    convert(folder("bicif"), tmp_path / "half")
    samples = noise(1.5)
    assert (
        load_model(tmp_path / "half").transcribe(samples).text == load_model(folder("bicif")).transcribe(samples).text
    )
    with pytest.raises(ConversionError, match="dtype"):
        convert(folder("bicif"), tmp_path / "other", dtype="int8")
    assert not (tmp_path / "other").exists()


def test_folders_that_are_none(folder, tmp_path):
    for change, error in (
        ({"model": "Whisper"}, ConfigError),
        ({"model": 3}, ConfigError),
        ({"frontend_conf": {**FRONTEND, "lfr_m": 4}}, WeightsError),
        ({"encoder_conf": None}, MLXCoreError),
    ):
        path = tmp_path / str(len(list(tmp_path.iterdir())))
        path.mkdir()
        for file in folder("paraformer").iterdir():
            (path / file.name).write_bytes(file.read_bytes())
        config = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(error):
            load_model(path)
    (path / "config.json").write_text(json.dumps(config))
    (path / "tokens.json").write_text(json.dumps(TOKENS[:9]))
    with pytest.raises(ConfigError, match="different models"):
        load_model(path)
    (path / "tokens.json").write_text("[")
    with pytest.raises(TokenizerError):
        load_model(path)
    (path / "model.safetensors").unlink()
    with pytest.raises(MissingCheckpointError):
        load_model(path)


def test_pieces_have_a_longer_name_where_they_are_released(folder, hub, tmp_path):
    released = tmp_path / "released"
    shutil.copytree(folder("sensevoice"), released)
    (released / "bpe.model").rename(released / "chn_jpn_yue_eng_ko_spectok.bpe.model")
    samples = noise(2)
    expected = load_model(folder("sensevoice")).transcribe(samples)
    assert load_model(hub.add(released, "someone/SenseVoiceSmall")).transcribe(samples) == expected
    convert(released, tmp_path / "converted", dtype="float32")
    assert (tmp_path / "converted" / "bpe.model").is_file()
    (released / "other.bpe.model").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"2 files \*\.bpe\.model: chn_jpn_yue_eng_ko_spectok.*other"):
        load_model(released)
    for file in released.glob("*.bpe.model"):
        file.unlink()
    with pytest.raises(MissingCheckpointError, match=r"no bpe\.model"):
        load_model(released)


def test_batches_are_padded():
    batch, lengths = padded([mx.ones((2, 3)), mx.ones((0, 3)), mx.ones((4, 3))])
    assert batch.shape == (3, 4, 3)
    assert lengths.tolist() == [2, 0, 4]
    assert np.array(batch).sum(axis=(1, 2)).tolist() == [6, 0, 12]
    with pytest.raises(InputError):
        padded([])


def test_the_command(folder, tmp_path, capsys):
    model = str(folder("bicif"))
    for name in ("a", "b"):
        save_wav(tmp_path / f"{name}.wav", noise(1.5, ord(name)), RATE)
    a, b = str(tmp_path / "a.wav"), str(tmp_path / "b.wav")
    assert cli.main(["transcribe", "--model", model, a]) == 0
    text = capsys.readouterr().out
    assert cli.main(["transcribe", "--model", model, "--format", "json", a]) == 0
    assert json.loads(capsys.readouterr().out)["text"] + "\n" == text

    (tmp_path / "bad.wav").write_text("no sound")
    assert cli.main(["transcribe", "--model", model, a, str(tmp_path / "bad.wav"), b]) == 1
    found = capsys.readouterr()
    assert [line.split("\t")[0] for line in found.out.splitlines()] == [a, b]
    assert "bad.wav" in found.err

    folder_of = str(tmp_path / "out")
    assert cli.main(["transcribe", "--model", model, "--format", "srt", "--output-dir", folder_of, a, b]) == 0
    assert (tmp_path / "out" / "b.srt").read_text(encoding="utf-8").startswith("1\n00:00:0")
    assert cli.main(["transcribe", "--model", model, "--format", "srt", a, b]) == 1
    assert "--output-dir" in capsys.readouterr().err

    (tmp_path / "text").write_text(f"a {text}b x\n", encoding="utf-8")
    assert cli.main(["evaluate", "--model", model, "--json", str(tmp_path / "text"), a]) == 0
    assert json.loads(capsys.readouterr().out)["cer"]["rate"] == 0
    assert cli.main(["evaluate", "--model", model, str(tmp_path / "text"), a, str(tmp_path / "bad.wav")]) == 1
    assert cli.main(["convert", model, str(tmp_path / "converted"), "--dtype", "float32"]) == 0
    assert cli.main(["transcribe", "--model", str(tmp_path / "converted"), a]) == 0
    assert capsys.readouterr().out.endswith(text)
    assert cli.main(["transcribe", "--model", str(tmp_path / "none"), a]) == 1
    assert cli.main(["transcribe", "--model", model, "--output-dir", a, b]) == 1
    assert "is a file" in capsys.readouterr().err
    for option in ("--rounds", "--batch"):
        assert cli.main(["bench", "--model", model, option, "0", a]) == 1
        assert option in capsys.readouterr().err
    assert cli.main(["bench", "--model", model, "--seconds", "0.5", "--rounds", "1", "--json"]) == 0
    assert [timing["batch"] for timing in json.loads(capsys.readouterr().out.splitlines()[-1])] == [1, 4]


def test_the_command_s_stream(folder, tmp_path, capsys, monkeypatch):
    class Session:
        sample_rate, text = RATE, ""

        def __init__(self, model):
            self.recognizer = model

        def feed(self, samples, final=False):
            self.text = "." if final else ""
            return self.text

    monkeypatch.setattr(streaming, "StreamingSession", Session)
    model = str(folder("paraformer"))
    assert cli.main(["transcribe", "--stream", "--model", model, str(tmp_path / "none.wav")]) == 1
    monkeypatch.setattr(cli, "_demo_clip", lambda model: tmp_path / "demo.wav")
    save_wav(tmp_path / "demo.wav", noise(0.5), RATE)
    capsys.readouterr()
    assert cli.main(["transcribe", "--stream", "--model", model]) == 0  # the demo's recording, where no file is named
    assert capsys.readouterr().out == ".\n"
    for options in (["--format", "srt"], ["--hotwords", "a"], ["--vad", "demo"], ["--output-dir", str(tmp_path)]):
        assert cli.main(["transcribe", "--stream", "--model", model, *options]) == 1
        assert "text alone" in capsys.readouterr().err
