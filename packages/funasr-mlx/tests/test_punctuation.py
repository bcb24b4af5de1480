"""CT-Transformer against FunASR 1.4.16; goldens: scripts/record_golden/funasr_punc.py."""

import json
import shutil
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from funasr_mlx.conversion import convert
from funasr_mlx.networks import CTTransformer, StreamingCTTransformer
from funasr_mlx.punctuation import Punctuation, load_punctuation
from funasr_mlx.text import jieba_splitter, split_characters
from mlx_core.errors import ConfigError, InputError, MissingCheckpointError, TokenizerError, WeightsError

GOLDENS = Path(__file__).parent / "goldens" / "punctuation"
CASES = json.loads((GOLDENS / "cases.json").read_text(encoding="utf-8"))
LOGITS = load_file(GOLDENS / "logits.safetensors")
SEED = 8
WHOLE = [name for name, case in CASES.items() if not case.get("streaming")]


def seeded_weights(case):
    """The golden's weights, by name."""
    cls = StreamingCTTransformer if case.get("streaming") else CTTransformer
    like = cls.build(case["config"], {"embed.weight": mx.zeros((len(case["tokens"]), 1))}).state_dict()
    rng, weights = np.random.default_rng(SEED), {}
    for name in sorted(like):
        values = rng.standard_normal(like[name].shape, np.float32) / np.sqrt(np.float32(np.prod(like[name].shape[1:])))
        weights[name] = values + (np.array(case["bias"], np.float32) if name == "decoder.bias" else 0)
    return {name: value.astype(np.float32) for name, value in weights.items()}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder with the model of each case, as `convert` would write it."""
    root = tmp_path_factory.mktemp("punctuation")
    for name, case in CASES.items():
        folder = root / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(case["config"]))
        (folder / "tokens.json").write_text(json.dumps(case["tokens"]))
        save_file(seeded_weights(case), folder / "model.safetensors")
        if "words" in case:
            (folder / "jieba_usr_dict").write_text("\n".join(case["words"]), encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def plain(folders):
    return load_punctuation(folders / "plain")


@pytest.mark.parametrize("name", CASES)
def test_logits(name, folders):
    network = load_punctuation(folders / name).network
    ids = np.arange(LOGITS[name].shape[0])
    seen = 4 if CASES[name].get("streaming") else 0
    np.testing.assert_allclose(np.array(network(ids, seen)), LOGITS[name], rtol=1e-5, atol=2e-5)
    batch = np.array(network(mx.array(np.stack([ids, ids[::-1]])), seen))
    np.testing.assert_allclose(batch[0], LOGITS[name], rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("name", WHOLE)
def test_texts(name, folders):
    punctuation = load_punctuation(folders / name)
    for row in CASES[name]["results"]:
        found = punctuation.restore(row["text"], CASES[name]["split_size"])
        assert (found.text, found.words, found.marks) == (row["out"], row["words"], row["marks"])
        assert punctuation(row["text"], split_size=CASES[name]["split_size"]) == row["out"]


def test_goldens_have_every_way_to_end():
    outs = [row["out"] for name in WHOLE for row in CASES[name]["results"]]
    assert {out[-1] for out in outs} >= {"。", "？", "."}
    words = [len(row["words"]) for row in CASES["endless"]["results"]]
    marks = [row["marks"] for row in CASES["endless"]["results"]]
    assert any(count > 200 and 3 in found[:-1] for count, found in zip(words, marks, strict=True))  # cut at a comma
    assert any(len(row["marks"]) > len(row["words"]) for row in CASES["jieba"]["results"])


def test_a_stream(folders):
    case = CASES["streaming"]
    stream = load_punctuation(folders / "streaming").stream(case["split_size"])
    assert [stream.feed(row["text"]) for row in case["results"]] == [row["out"] for row in case["results"]]


def test_one_piece_of_a_stream(folders):
    punctuation = load_punctuation(folders / "streaming")
    row = CASES["streaming"]["results"][0]
    found = punctuation.restore(row["text"], CASES["streaming"]["split_size"])
    assert (found.text, found.words) == (row["out"], list(row["text"]))
    assert punctuation(row["text"], CASES["streaming"]["split_size"]) == row["out"]
    assert punctuation("好") == "好"
    assert punctuation.stream().feed("") == ""


@pytest.mark.parametrize("text", ["", "  \n\u3000"])
def test_nothing(text, plain):
    assert plain(text) == ""
    assert plain.restore(text).marks == []
    assert plain.network([]).shape == (0, 6)


def test_words():
    assert split_characters(" it's ok好的a1。b\u3000é\tz") == ["it's", "ok", "好", "的", "a1", "。", "b", "é", "z"]


def test_jieba_leaves_no_trace(folders, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    split = jieba_splitter(folders / "jieba" / "jieba_usr_dict")
    assert split("it's 识别模型ab 语音") == ["it's", "识别模型", "ab", "语音"]
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")
    import jieba

    assert not jieba.dt.initialized  # nor among what other users of jieba see


def test_a_bad_dictionary(tmp_path):
    (tmp_path / "words").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TokenizerError, match="jieba"):
        jieba_splitter(tmp_path / "words")


@pytest.mark.parametrize("size", [1, 0, -3, True, 2.5])
def test_bad_sizes(size, plain):
    with pytest.raises(InputError, match="split_size"):
        plain("你好", split_size=size)


def test_bad_arguments(plain):
    with pytest.raises(InputError, match="string"):
        plain(b"text")
    with pytest.raises(InputError, match=r"\[B, L\]"):
        plain.network(np.zeros((1, 1, 1), int))


def test_tokens_that_dont_fit_are_refused():
    network = CTTransformer.from_state_dict(CASES["plain"]["config"], seeded_weights(CASES["plain"]))
    with pytest.raises(TokenizerError, match="3 tokens"):
        Punctuation(network, ["a", "b", "<unk>"])
    with pytest.raises(TokenizerError, match="lack '<none>'"):
        Punctuation(network, CASES["plain"]["tokens"], unknown="<none>")


@pytest.mark.parametrize(
    ("table", "changes", "message"),
    [
        ("model_conf", {"att_unit": 32}, "att_unit"),
        ("model_conf", {"punc_list": []}, "punc_list"),
        ("model_conf", {"sentence_end_id": 6}, "sentence_end_id"),
        ("encoder_conf", {"attention_heads": 3}, "heads"),
    ],
)
def test_bad_configurations(table, changes, message):
    config = CASES["plain"]["config"]
    with pytest.raises(ConfigError, match=message):
        CTTransformer.from_state_dict(config | {table: config[table] | changes}, seeded_weights(CASES["plain"]))


def test_other_models(folders, tmp_path):
    with pytest.raises(ConfigError, match="SANMEncoder"):
        CTTransformer.from_state_dict(CASES["streaming"]["config"], {})
    with pytest.raises(WeightsError, match=r"embed\.weight"):
        CTTransformer.from_state_dict(CASES["plain"]["config"], {})
    with pytest.raises(MissingCheckpointError):
        load_punctuation(tmp_path / "none")
    shutil.copytree(folders / "plain", tmp_path / "other")
    (tmp_path / "other" / "config.json").write_text('{"model": "Paraformer"}')
    with pytest.raises(ConfigError, match="Give punctuation's folder"):
        load_punctuation(tmp_path / "other")


def test_a_model_by_its_hub_id(hub, folders):
    punctuation = load_punctuation(hub.add(folders / "jieba", "someone/ct-punc"))
    for row in CASES["jieba"]["results"]:
        assert punctuation(row["text"], CASES["jieba"]["split_size"]) == row["out"]


@pytest.mark.parametrize("name", CASES)
def test_a_converted_model_is_the_same(name, folders, tmp_path):
    convert(folders / name, tmp_path / "converted", dtype="float32")
    for row in CASES[name]["results"][:3]:
        assert load_punctuation(tmp_path / "converted")(row["text"]) == load_punctuation(folders / name)(row["text"])


def test_a_saved_model_is_the_same(plain, folders, tmp_path):
    plain.network.save(tmp_path / "saved", files={"tokens.json": folders / "plain" / "tokens.json"})
    for row in CASES["plain"]["results"]:
        assert load_punctuation(tmp_path / "saved")(row["text"]) == row["out"]
