"""Released files: heads, HParams, versions, what is refused; conversion and the command."""

import json
import pickle

import mlx.core as mx
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from gpt_sovits_mlx import (
    T2S,
    ChineseRoberta,
    CNHubert,
    ERes2NetV2,
    Released,
    Sampling,
    Sentence,
    SoVITS,
    convert,
    generate,
    read_released,
    reference_spectrogram,
    sovits_version,
)
from gpt_sovits_mlx.checkpoints.released import HEADS, HParams, plain
from gpt_sovits_mlx.cli import main
from mlx_core.errors import ConfigError, ConversionError, MissingCheckpointError, WeightsError

VERSIONS = ("v1", "v2", "v2Pro", "v2ProPlus")


@pytest.fixture(scope="module")
def sovits(golden, weights):
    """A small SoVITS as a released file has it: fp16, without what only training needs."""

    def make(version):
        name = f"sovits_{version}"
        return golden(name)[0]["hps"], {key: value.astype(np.float16) for key, value in weights(name).items()}

    return make


def as_file(tmp_path, data, name="model.pth"):
    path = tmp_path / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("version", VERSIONS)
def test_samples_of_the_released_layout(goldens, version):
    released = read_released(goldens / f"sovits_{version}/format_sample.pth")
    assert released.config["model"]["version"] == version
    assert released.config["data"]["filter_length"] == 2048
    assert released.info == "8epoch_100iteration"
    assert released.weights["enc_p.ssl_proj.bias"].shape == (192,)
    assert released.head == (version if "Pro" in version else None)


@pytest.mark.parametrize("head", [b"PK", *HEADS])
def test_every_head(goldens, tmp_path, head):
    data = (goldens / "sovits_v2/format_sample.pth").read_bytes()
    path = as_file(tmp_path, head + data[2:])
    released, whole = read_released(path), read_released(goldens / "sovits_v2/format_sample.pth")
    assert released.head == HEADS.get(head)
    assert released.config == whole.config
    assert released.weights.keys() == whole.weights.keys()
    for name, value in whole.weights.items():
        assert mx.array_equal(released.weights[name], value)
    assert path.read_bytes()[:2] == head  # mended in memory only


@pytest.mark.parametrize(("version", "hparams"), [("v1", False), ("v2", True), ("v2Pro", True), ("v2ProPlus", False)])
def test_a_whole_file_loads(sovits, torch_file, tmp_path, version, hparams, golden):
    config, weights = sovits(version)
    head = {"v2Pro": b"05", "v2ProPlus": b"06"}.get(version, b"PK")
    path = as_file(tmp_path, torch_file(weights, config, head=head, hparams=hparams))
    assert sovits_version(path) == version
    model = SoVITS.load(path)
    assert model.version == version
    io = golden(f"sovits_{version}")[1]
    speakers = [io["sv_emb_in"][0]] if "Pro" in version else None
    voice = model.voice([reference_spectrogram(io["refer_wav32k"])], speakers)
    samples = model.decode(io["codes"][0, 0], io["phones"][0], voice, noise=io["noise"][0].T)
    assert np.abs(np.array(samples)[::4] - io["audio"][0, 0]).max() < 0.02  # fp16 weights


def test_versions_without_a_head():
    def version(weights, nbytes=0, config=None):
        return Released(config or {}, weights, "", None, nbytes).sovits_version

    assert version({"enc_p.text_embedding.weight": mx.zeros((322, 2))}, 2**30) == "v1"
    assert version({"enc_p.text_embedding.weight": mx.zeros((732, 2))}, 1) == "v2"
    assert version({"sv_emb.weight": mx.zeros(1)}) == "v2Pro"
    assert version({"sv_emb.weight": mx.zeros(1)}, config={"model": {"version": "v2ProPlus"}}) == "v2ProPlus"
    assert version({"cfm.x": mx.zeros(1)}, config={"model": {"version": "v4"}}) == "v4"
    sizes = [82978 * 1024 - 1, 82978 * 1024, 700 * 2**20 - 1, 700 * 2**20]
    assert [version({}, nbytes) for nbytes in sizes] == ["v1", "v2", "v2", "v3"]


class Evil:
    def __reduce__(self):
        return (eval, ("1 + 1",))


def test_hostile_pickles_are_refused_by_name(torch_file, tmp_path):
    data = torch_file({"a": np.zeros(2, np.float32)}, {"model": {"x": Evil()}})
    for head in (b"PK", b"05"):
        with pytest.raises(WeightsError, match="eval"):
            read_released(as_file(tmp_path, head + data[2:]))
    with pytest.raises(WeightsError, match=r"(os|posix)\.system"):
        read_released(as_file(tmp_path, pickle.dumps(__import__("os").system)))


def test_damaged_files(goldens, tmp_path):
    data = (goldens / "sovits_v2Pro/format_sample.pth").read_bytes()
    for cut in (0, 1, 2, 100, len(data) // 2, len(data) - 1):
        with pytest.raises(WeightsError):
            read_released(as_file(tmp_path, data[:cut]))
    with pytest.raises(WeightsError):
        read_released(as_file(tmp_path, b"07" + data[2:]))
    for path in (tmp_path / "none.pth", tmp_path):
        with pytest.raises(MissingCheckpointError):
            read_released(path)
    with pytest.raises(MissingCheckpointError):
        SoVITS.load(tmp_path / "none.pth")


def test_a_config_that_contains_itself():
    table = HParams()
    table.__dict__["again"] = table
    with pytest.raises(ConfigError, match="nested"):
        plain(table)


def test_files_of_other_things(torch_file, tmp_path):
    with pytest.raises(ConfigError, match="config is a list"):
        read_released(as_file(tmp_path, torch_file({"a": np.zeros(2, np.float32)}, [1])))
    with pytest.raises(WeightsError, match="missing"):
        T2S.load(as_file(tmp_path, torch_file({"a": np.zeros(2, np.float32)}, {"model": {"n_layer": 1}})))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ConfigError, match=r"'bert'.*'hubert'"):
        CNHubert.load(tmp_path / "folder")


def test_t2s_converts_and_packs(goldens, golden, tmp_path, capsys):
    source = goldens / "t2s/model.ckpt"
    io = golden("t2s")[1]
    sentence = Sentence(io["phones"][0], io["bert"][0].T, io["prompt"][0])
    expected = T2S.load(source).prefill([sentence])[0]
    sizes = {}
    for name, options, tolerance in (
        ("float32", ["--dtype", "float32"], 1e-6),
        ("float16", [], 0.01),
        ("8bit", ["--bits", "8"], 0.1),
        ("4bit", ["--bits", "4", "--group-size", "32"], 1.5),
    ):
        assert main(["convert", str(source), str(tmp_path / name), *options]) == 0
        for keep_packed in (True, False):
            model = T2S.load(tmp_path / name, dtype="float32", keep_packed=keep_packed)
            logits = model.prefill([sentence])[0]
            assert float(mx.abs(logits - expected).max()) < tolerance
        sizes[name] = sum(file.stat().st_size for file in (tmp_path / name).glob("*.safetensors"))
    assert sizes["float32"] > 1.9 * sizes["float16"]
    assert sizes["float16"] > sizes["8bit"] > sizes["4bit"]
    capsys.readouterr()
    assert main(["info", str(tmp_path / "4bit"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["network"] == "gpt-sovits-t2s"


def test_packed_weights_generate(goldens, tmp_path):
    convert(goldens / "t2s/model.ckpt", tmp_path / "out", bits=8)
    model = T2S.load(tmp_path / "out", keep_packed=True)
    assert model.h.layers[0].linear1.bits == 8
    assert model.load(tmp_path / "out", keep_packed=False).h.layers[0].linear1.weight.shape == (256, 64)
    assert len(generate(model, [Sentence([1, 2, 3])], Sampling(max_tokens=5), seed=0)[0].tokens) == 5


@pytest.mark.parametrize("version", ["v1", "v2ProPlus"])
def test_sovits_converts(sovits, torch_file, tmp_path, version, capsys):
    config, weights = sovits(version)
    path = as_file(tmp_path, torch_file(weights, config, hparams=True))
    assert convert(path, tmp_path / "out", dtype="float32") is SoVITS
    names = load_file(tmp_path / "out/model.safetensors").keys()
    assert not any(name.endswith(("weight_g", "weight_v", "embed_avg")) for name in names)
    again, first = SoVITS.load(tmp_path / "out"), SoVITS.load(path)
    assert again.version == version
    found = again.state_dict()
    assert all(mx.array_equal(found[name], value) for name, value in first.state_dict().items())
    with pytest.raises(ConversionError, match="bits"):
        convert(path, tmp_path / "packed", bits=4)
    assert not (tmp_path / "packed").exists()
    assert main(["info", str(path)]) == 0
    assert f"version: {version}" in capsys.readouterr().out


def test_folders_convert(golden, weights, tmp_path):
    for name, kind in (("hubert", CNHubert), ("bert", ChineseRoberta)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(golden(name)[0]["config"]))
        save_file(weights(name), folder / "model.safetensors")
        (folder / "vocab.txt").write_text("[PAD]\n")
        assert convert(folder, tmp_path / f"{name}-out", dtype="float32") is kind
        assert (tmp_path / f"{name}-out/vocab.txt").exists()
        first, again = kind.load(folder).state_dict(), kind.load(tmp_path / f"{name}-out").state_dict()
        assert all(mx.array_equal(first[key], again[key]) for key in first)


def test_the_speaker_net_converts(weights, tmp_path):
    (tmp_path / "in").mkdir()
    save_file(weights("sovits_v2Pro", "sv_weights"), tmp_path / "in/model.safetensors")
    assert convert(tmp_path / "in", tmp_path / "out") is ERes2NetV2
    assert ERes2NetV2.load(tmp_path / "out").layer3_ds.weight.shape == (2048, 3, 3, 1024)


def test_what_convert_refuses(goldens, torch_file, tmp_path, capsys):
    source = goldens / "t2s/model.ckpt"
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("")
    for options in ({"folder": tmp_path / "full"}, {"dtype": "bfloat16"}, {"bits": 3}, {"bits": 4, "group_size": 7}):
        with pytest.raises(ConversionError):
            convert(source, **{"folder": tmp_path / "out", **options})
    unknown = as_file(tmp_path, torch_file({"a": np.zeros(2, np.float32)}, {}))
    with pytest.raises(ConversionError, match="no network"):
        convert(unknown, tmp_path / "out")
    assert main(["convert", str(tmp_path / "none.ckpt"), str(tmp_path / "out")]) == 1
    assert "none.ckpt" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_released_sizes_take_the_released_shapes():
    D, table = 512, {}
    for i in range(24):
        layer = f"model.h.layers.{i}."
        shapes = {"self_attn.in_proj_weight": (3 * D, D), "self_attn.in_proj_bias": (3 * D,)}
        shapes |= {"self_attn.out_proj.weight": (D, D), "self_attn.out_proj.bias": (D,)}
        shapes |= {
            "linear1.weight": (2048, D),
            "linear1.bias": (2048,),
            "linear2.weight": (D, 2048),
            "linear2.bias": (D,),
        }
        shapes |= {f"norm{n}.{part}": (D,) for n in (1, 2) for part in ("weight", "bias")}
        table |= {layer + name: shape for name, shape in shapes.items()}
    table |= {
        "model.bert_proj.weight": (D, 1024),
        "model.bert_proj.bias": (D,),
        "model.ar_predict_layer.weight": (1025, D),
    }
    table |= {"model.ar_text_embedding.word_embeddings.weight": (732, D), "model.ar_text_position.alpha": (1,)}
    table |= {"model.ar_audio_embedding.word_embeddings.weight": (1025, D), "model.ar_audio_position.alpha": (1,)}
    config = {"vocab_size": 1025, "phoneme_vocab_size": 732, "embedding_dim": D, "hidden_dim": D, "head": 16}
    config |= {"linear_units": 2048, "n_layer": 24, "dropout": 0, "EOS": 1024, "random_bert": 0}
    T2S.from_state_dict({"model": config}, {name: mx.zeros(shape) for name, shape in table.items()}, lazy=True)


@pytest.mark.parametrize(
    ("name", "grown"), [("hubert", {64: 768, 32: 512, 128: 3072}), ("bert", {64: 1024, 128: 4096})]
)
def test_released_encoders_take_the_released_shapes(golden, name, grown):
    """The golden's names with the layers repeated, and its sizes at their released values."""
    kind, layers = {"hubert": (CNHubert, 12), "bert": (ChineseRoberta, 24)}[name]
    weights = {}
    for key, small in golden(name)[0]["weights"].items():
        shape = [{56: 21128}.get(size, grown.get(size, size)) for size in small]
        if "pos_conv_embed" in key:
            shape = {"bias": [768], "original0": [1, 1, 128], "original1": [768, 48, 128]}[key.rsplit(".")[-1]]
        if ".0." in key and "layer" in key and "conv_layers" not in key:
            weights |= {key.replace(".0.", f".{i}.", 1): mx.zeros(shape) for i in range(layers)}
        elif not any(f"layers.{i}." in key or f"layer.{i}." in key for i in (1, 2, 3)) or "conv_layers" in key:
            weights[key] = mx.zeros(shape)
    kind.from_state_dict({}, weights, lazy=True)
