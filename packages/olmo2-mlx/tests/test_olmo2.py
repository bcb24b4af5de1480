"""OLMo-2 on tiny configurations, and what its configuration refuses."""

import pytest

import olmo2_mlx
from mlx_core.errors import ConfigError
from mlx_core.testing import check_model
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


@pytest.mark.parametrize("changes", [{}, {"tie_word_embeddings": True}, {"num_key_value_heads": 4}, {"head_dim": 16}])
def test_runner(changes):
    check_model(lambda: make(**changes))


@pytest.mark.parametrize(
    ("changes", "message"), [({"num_key_value_heads": 3}, "num_key_value_heads"), ({"hidden_act": "sin"}, "hidden_act")]
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
