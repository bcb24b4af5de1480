"""Gemma 3 on tiny configurations, and what its configuration refuses."""

import json

import mlx.core as mx
import pytest

import gemma3_mlx
from gemma3_mlx import gemma3
from gemma3_mlx.cli import main
from mlx_core.cache import KVCache, RotatingKVCache
from mlx_core.errors import ConfigError
from mlx_core.models import convert_model, load_model, save_model, split_parameters
from mlx_core.testing import byte_tokenizer, check_model, randomize

TINY = {
    "model_type": "gemma3_text",
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "sliding_window": 5,
    "sliding_window_pattern": 2,
}
LINEAR = {"rope_type": "linear", "factor": 8.0}
BY_TYPE = {
    "full_attention": {"rope_theta": 5e5, **LINEAR},
    "sliding_attention": {"rope_theta": 2e4, "rope_type": "default"},
}


def make(**changes):
    return gemma3.Model(gemma3.ModelConfig.from_dict({**TINY, **changes}))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tie_word_embeddings": False, "attention_bias": True},
        {"num_key_value_heads": 4, "sliding_window": None},
        {"layer_types": ["full_attention", "sliding_attention", "sliding_attention"]},
        {"final_logit_softcapping": 2.0, "query_pre_attn_scalar": 8},
        {"rope_parameters": BY_TYPE},
    ],
)
def test_runner(changes):
    check_model(lambda: make(**changes))


def test_defaults_are_those_of_the_reference():
    config = gemma3.ModelConfig.from_dict({"model_type": "gemma3_text"})
    assert (config.num_hidden_layers, config.head_dim, config.sliding_window) == (26, 256, 4096)
    assert (config.query_pre_attn_scalar, config.hidden_act, config.tie_word_embeddings) == (
        256,
        "gelu_pytorch_tanh",
        True,
    )
    full = [i for i in range(26) if config.layer_type(i) == "full_attention"]
    assert full == [5, 11, 17, 23]
    assert config.rope_settings("full_attention")["rope_theta"] == 1e6
    assert config.rope_settings("sliding_attention")["rope_theta"] == 1e4


def test_each_kind_of_layer_has_its_window_its_cache_and_its_rope():
    model = make(rope_theta=5e5, rope_local_base_freq=2e4, rope_scaling=LINEAR)
    assert [layer.window for layer in model.layers] == [5, None, 5]
    assert [type(cache) for cache in model.make_cache()] == [RotatingKVCache, KVCache, RotatingKVCache]
    local, full = model.layers[0].self_attn.rope, model.layers[1].self_attn.rope
    assert local is model.layers[2].self_attn.rope
    nested = make(rope_parameters=BY_TYPE)
    x = mx.random.normal((1, 1, 4, 16), key=mx.random.key(0))
    assert not mx.allclose(local(x, 3), full(x, 3))
    for i, rope in enumerate((local, full)):
        assert mx.array_equal(nested.layers[i].self_attn.rope(x, 3), rope(x, 3))


def test_scaling_does_not_stretch_what_is_stated_to_be_stretched():
    assert make(rope_scaling=LINEAR, max_position_embeddings=131072).context_length == 131072


def test_a_norm_of_zeros_multiplies_by_one():
    model = make()
    assert not model.model.norm.weight.any()
    x = mx.random.normal((1, 2, 32), key=mx.random.key(0))
    assert mx.allclose(model.model.norm(x), x * mx.rsqrt((x * x).mean(-1, keepdims=True) + 1e-6), atol=1e-5)


def test_embeddings_are_scaled_by_the_square_root_of_the_width():
    model = randomize(make())
    tokens = mx.array([[1, 2, 3]])
    assert mx.allclose(model.embed(tokens), model.model.embed_tokens(tokens) * 32**0.5, rtol=1e-6)


def test_logits_are_capped():
    model, free = randomize(make(final_logit_softcapping=3.0)), randomize(make())
    tokens = mx.array([[1, 2, 3]])
    capped, logits = model(tokens), free(tokens)
    assert mx.abs(capped).max() < 3.0 < mx.abs(logits).max()
    assert mx.allclose(capped, mx.tanh(logits / 3.0) * 3.0, atol=1e-5)


def multimodal(text):
    """The configuration of a model that also sees, around `text`."""
    inner = {key: value for key, value in text.items() if key != "model_type"}
    return {"model_type": "gemma3", "text_config": inner, "vision_config": {}, "mm_tokens_per_image": 256}


@pytest.mark.parametrize("prefix", ["language_model.model.", "model.language_model."])
def test_a_checkpoint_with_vision_gives_its_language_model(prefix, tmp_path):
    model = randomize(make())
    weights = {name.replace("model.", prefix, 1): value for name, value in split_parameters(model).items()}
    weights |= {"vision_tower.vision_model.x": mx.ones(2), "multi_modal_projector.mm_soft_emb_norm.weight": mx.ones(2)}
    folder = tmp_path / "source"
    folder.mkdir()
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    (folder / "config.json").write_text(json.dumps(multimodal(TINY)))
    byte_tokenizer().save(folder)
    loaded = load_model(folder, dtype="float32")
    tokens = mx.array([[1, 2, 3, 4, 5, 6, 7, 8]])
    assert mx.allclose(loaded(tokens), model(tokens), atol=1e-5)
    assert any("2 tensors" in note and "vision tower" in note for note in loaded.load_report.notes)
    convert_model(folder, tmp_path / "converted")
    config = json.loads((tmp_path / "converted" / "config.json").read_text())
    assert config["model_type"] == "gemma3_text"
    assert not {"text_config", "vision_config"} & config.keys()
    assert mx.allclose(load_model(tmp_path / "converted", dtype="float32")(tokens), model(tokens), atol=1e-5)


def test_what_is_saved_says_it_in_both_layouts(tmp_path):
    """transformers 4 and mlx-lm read other keys than transformers 5."""
    changes = {"rope_parameters": BY_TYPE, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
    config = {key: value for key, value in TINY.items() if key != "sliding_window_pattern"} | changes
    save_model(tmp_path / "saved", make(**changes), config)
    saved = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert (saved["rope_theta"], saved["rope_local_base_freq"], saved["sliding_window_pattern"]) == (5e5, 2e4, 2)
    assert saved["rope_scaling"]["factor"] == 8.0
    assert saved["rope_parameters"] == BY_TYPE


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_key_value_heads": 3}, "num_key_value_heads"),
        ({"hidden_activation": "sin"}, "hidden_act"),
        ({"query_pre_attn_scalar": 0}, "query_pre_attn_scalar"),
        ({"sliding_window_pattern": 0}, "sliding_window_pattern"),
        ({"final_logit_softcapping": -1.0}, "final_logit_softcapping"),
        ({"rope_local_base_freq": -1.0}, "rope_theta"),
        ({"layer_types": ["full_attention"]}, "layer_types"),
        ({"use_bidirectional_attention": True}, "both directions"),
        ({"text_config": [1]}, "text_config"),
        ({"rope_parameters": {"full_attention": 1, "sliding_attention": {}}}, "rope_parameters"),
    ],
)
def test_bad_configurations_are_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        make(**changes)


def test_without_a_model_the_command_says_what_to_give(capsys):
    assert main(["generate", "hello"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "gemma3-mlx has no demonstration model" in captured.err
    assert "--model" in captured.err


def test_the_public_names():
    contract = {"load_model", "load_tokenizer", "load", "generate", "stream_generate", "Generate", "KVCache"}
    assert contract <= set(gemma3_mlx.__all__)
    assert all(hasattr(gemma3_mlx, name) for name in gemma3_mlx.__all__)
