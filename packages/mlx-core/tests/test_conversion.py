"""Files that are written completely or not at all."""

import json

import mlx.core as mx
import pytest

from mlx_core import save_model
from mlx_core.config import DecoderConfig
from mlx_core.errors import ConversionError
from mlx_core.models import (
    Attention,
    CausalLM,
    DecoderLayer,
    GatedMLP,
    fuse_projections,
    quantize_model,
    split_parameters,
)
from mlx_core.testing import randomize

CONFIG = {
    "model_type": "tiny",
    "vocab_size": 32,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


def tiny():
    config = DecoderConfig.from_dict(CONFIG)
    layer = DecoderLayer(config, Attention(config, config.rope(), qkv_bias=True), GatedMLP(64, 96))
    return randomize(CausalLM(config, [layer]))


def test_the_quantisation_table_says_what_the_model_holds(tmp_path):
    model = tiny()
    quantize_model(
        model, {"bits": 4, "group_size": 32, "lm_head": {"bits": 8, "group_size": 64}, "model.embed_tokens": False}
    )
    fuse_projections(model)
    save_model(tmp_path / "model", model, {**CONFIG, "quantization": {"bits": 2, "group_size": 128}})
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["quantization"] == config["quantization_config"]
    assert config["quantization"] == {
        "group_size": 32,
        "bits": 4,
        "mode": "affine",
        "lm_head": {"group_size": 64, "bits": 8, "mode": "affine"},
    }
    names = mx.load(str(tmp_path / "model" / "model.safetensors")).keys()
    assert {"model.layers.0.self_attn.k_proj.scales", "model.layers.0.self_attn.k_proj.bias"} <= names
    assert "model.embed_tokens.scales" not in names
    assert not any("qkv_proj" in name or "gate_up_proj" in name for name in names)


def test_projections_that_disagree_stay_apart():
    model = tiny()
    quantize_model(
        model, {"bits": 4, "group_size": 32, "model.layers.0.self_attn.v_proj": {"bits": 6, "group_size": 32}}
    )
    tokens = mx.array([[1, 2, 3]])
    wanted = model(tokens)
    fuse_projections(model)
    assert not model.layers[0].self_attn.fused
    assert model.layers[0].mlp.fused
    assert mx.allclose(model(tokens), wanted, atol=1e-5)


def test_shards_and_index(tmp_path):
    model = tiny()
    save_model(tmp_path / "model", model, CONFIG, max_shard_bytes=20_000)
    index = json.loads((tmp_path / "model" / "model.safetensors.index.json").read_text())
    parameters = split_parameters(model)
    assert index["metadata"]["total_size"] == sum(value.nbytes for value in parameters.values())
    assert index["weight_map"].keys() == parameters.keys()
    for file in set(index["weight_map"].values()):
        shard = mx.load(str(tmp_path / "model" / file))
        assert {name for name, where in index["weight_map"].items() if where == file} == shard.keys()
        assert all(mx.array_equal(shard[name], parameters[name]) for name in shard)


def test_nothing_is_overwritten_and_nothing_half_written(tmp_path, monkeypatch):
    model = tiny()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("x")
    for target in (tmp_path / "full", tmp_path / "full" / "file"):
        with pytest.raises(ConversionError, match="empty folder"):
            save_model(target, model, CONFIG)

    def fail(*args, **kwargs):
        raise RuntimeError("No space left on device")

    monkeypatch.setattr(mx, "save_safetensors", fail)
    with pytest.raises(ConversionError, match="No space left"):
        save_model(tmp_path / "model", model, CONFIG)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["full"]
    monkeypatch.undo()
    (tmp_path / "model").mkdir()
    save_model(tmp_path / "model", model, CONFIG)
    assert (tmp_path / "model" / "config.json").exists()


def test_others_may_read_what_was_saved(tmp_path):
    save_model(tmp_path / "model", tiny(), CONFIG)
    assert (tmp_path / "model").stat().st_mode & 0o055 == 0o055
