"""OLMo-2 on tiny configurations, and what its configuration refuses."""

import mlx.core as mx
import pytest

import olmo2_mlx
from mlx_core.errors import ConfigError
from mlx_core.models import split_parameters
from mlx_core.testing import check_model, randomize
from olmo2_mlx import olmo2
from olmo2_mlx.cli import main

TINY = {
    "model_type": "olmo2",
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def make(**changes):
    return olmo2.Model(olmo2.ModelConfig.from_dict({**TINY, **changes}))


@pytest.mark.parametrize(
    "changes", [{}, {"tie_word_embeddings": True}, {"num_key_value_heads": None}, {"attention_bias": True}]
)
def test_runner(changes):
    check_model(lambda: make(**changes))


def test_defaults_are_those_of_the_reference():
    config = olmo2.ModelConfig.from_dict({key: value for key, value in TINY.items() if key != "num_key_value_heads"})
    assert (config.kv_heads, config.max_position_embeddings, config.rms_norm_eps) == (4, 2048, 1e-5)
    assert (config.attention_bias, config.tie_word_embeddings) == (False, False)


def test_norms_stand_after_attention_and_mlp_alone():
    model = randomize(make(num_hidden_layers=1))
    layer, x = model.layers[0], mx.random.normal((1, 3, 32), key=mx.random.key(0))
    assert {name for name in split_parameters(model) if "layers.0" in name and "layernorm" in name} == {
        f"model.layers.0.{name}.weight" for name in ("post_attention_layernorm", "post_feedforward_layernorm")
    }
    h = x + layer.post_attention_layernorm(layer.self_attn(x))
    assert mx.allclose(layer(x), h + layer.post_feedforward_layernorm(layer.mlp(h)), atol=1e-5)


def test_queries_and_keys_are_normed_over_all_heads_at_once():
    """So that one head's size changes the others."""
    attention = randomize(make(num_hidden_layers=1)).layers[0].self_attn
    assert (attention.q_norm.weight.shape, attention.k_norm.weight.shape) == ((32,), (16,))
    x = mx.random.normal((1, 3, 32), key=mx.random.key(0))
    first, rest = attention.q_proj.weight[:8], attention.q_proj.weight[8:]
    attention.o_proj.weight = mx.concatenate([mx.zeros((32, 8)), attention.o_proj.weight[:, 8:]], axis=1)
    before = attention(x)  # of all heads but the first
    attention.q_proj.weight = mx.concatenate([9 * first, rest])
    assert not mx.allclose(attention(x), before, atol=1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_key_value_heads": 3}, "num_key_value_heads"),
        ({"hidden_act": "sin"}, "hidden_act"),
        ({"attention_bias": 1.5}, "attention_bias"),
    ],
)
def test_bad_configurations_are_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        make(**changes)


def test_without_a_model_the_command_says_what_to_give(capsys):
    assert main(["generate", "hello"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "olmo2-mlx has no demonstration model" in captured.err
    assert "--model" in captured.err


def test_the_public_names():
    contract = {"load_model", "load_tokenizer", "load", "generate", "stream_generate", "Generate", "KVCache"}
    assert contract <= set(olmo2_mlx.__all__)
    assert all(hasattr(olmo2_mlx, name) for name in olmo2_mlx.__all__)
