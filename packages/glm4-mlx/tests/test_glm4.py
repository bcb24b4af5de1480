"""The architecture on tiny configurations, and the configurations that are refused."""

import mlx.core as mx
import pytest

import glm4_mlx
from glm4_mlx import glm4
from glm4_mlx.cli import main
from mlx_core.errors import ConfigError
from mlx_core.models import split_parameters
from mlx_core.testing import check_model, randomize

TINY = {
    "model_type": "glm4",
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
}


def make(**changes):
    return glm4.Model(glm4.ModelConfig.from_dict({**TINY, **changes}))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"attention_bias": False},
        {"tie_word_embeddings": True},
        {"partial_rotary_factor": 1.0, "num_key_value_heads": 4},
        {"head_dim": None},
    ],
)
def test_runner(changes):
    check_model(lambda: make(**changes))


def test_defaults_are_those_of_the_reference():
    config = glm4.ModelConfig.from_dict({key: value for key, value in TINY.items() if key != "head_dim"})
    assert (config.head_dim, config.attention_bias, config.max_position_embeddings) == (128, True, 131072)
    assert config.rope(traditional=True).dims == 64
    assert glm4.ModelConfig.from_dict({**TINY, "head_dim": None}).head_dim == 8


def test_biases_stand_on_queries_keys_and_values_alone():
    biases = {name for name in split_parameters(make()) if name.endswith(".bias")}
    assert biases == {f"model.layers.{i}.self_attn.{part}_proj.bias" for i in range(3) for part in "qkv"}
    assert not any(name.endswith(".bias") for name in split_parameters(make(attention_bias=False)))


def test_the_rope_turns_neighbours_in_half_of_a_head():
    rope = make().layers[0].self_attn.rope
    assert (rope.dims, rope.traditional) == (8, True)
    x = mx.ones((1, 1, 1, 16))
    assert [mx.array_equal(rope(x, 3)[..., i], x[..., i]) for i in (0, 1, 6, 8, 15)] == [False] * 3 + [True] * 2


def test_gate_and_up_stay_one_matrix_whose_first_half_is_the_gate():
    mlp = randomize(make()).layers[0].mlp
    assert {name for name in split_parameters(make()) if ".layers.0.mlp." in name} == {
        f"model.layers.0.mlp.{name}.weight" for name in ("gate_up_proj", "down_proj")
    }
    x = mx.random.normal((1, 2, 32), key=mx.random.key(0))
    gate, up = (x @ half.T for half in mx.split(mlp.gate_up_proj.weight, 2))
    assert mx.allclose(mlp(x), (gate * mx.sigmoid(gate) * up) @ mlp.down_proj.weight.T, atol=1e-5)


@pytest.mark.parametrize("name", ["post_self_attn_layernorm", "post_mlp_layernorm"])
def test_what_a_block_gives_is_normed_before_it_is_added(name):
    """A norm whose weight is zero shuts its block off."""
    model = randomize(make(num_hidden_layers=1))
    layer, x = model.layers[0], mx.random.normal((1, 3, 32), key=mx.random.key(1))
    layer[name].weight = mx.zeros(32)
    if name == "post_mlp_layernorm":
        wanted = x + layer.post_self_attn_layernorm(layer.self_attn(layer.input_layernorm(x)))
    else:
        wanted = x + layer.post_mlp_layernorm(layer.mlp(layer.post_attention_layernorm(x)))
    assert mx.allclose(layer(x), wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"attention_bias": "yes"}, "attention_bias"), ({"partial_rotary_factor": 0}, "partial_rotary_factor")],
)
def test_bad_configurations_are_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        make(**changes)


def test_without_a_model_the_command_says_what_to_give(capsys):
    assert main(["generate", "hello"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "glm4-mlx has no demonstration model" in captured.err
    assert "--model" in captured.err


def test_the_public_names():
    contract = {"load_model", "load_tokenizer", "load", "generate", "stream_generate", "Generate", "KVCache"}
    assert contract <= set(glm4_mlx.__all__)
    assert all(hasattr(glm4_mlx, name) for name in glm4_mlx.__all__)
