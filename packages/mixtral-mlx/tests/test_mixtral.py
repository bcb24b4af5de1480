"""The architecture on tiny configurations, the memory that loading its experts takes, and what is refused."""

import json

import mlx.core as mx
import numpy as np
import pytest

import mixtral_mlx
from mixtral_mlx import load_model, mixtral, save_model
from mlx_core.cache import RotatingKVCache
from mlx_core.errors import ConfigError, WeightsError
from mlx_core.models import split_parameters
from mlx_core.testing import check_model, randomize

TINY = {
    "model_type": "mixtral",
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_local_experts": 4,
}


def make(**changes):
    return mixtral.Model(mixtral.ModelConfig.from_dict({**TINY, **changes}))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_experts_per_tok": 1, "tie_word_embeddings": True},
        {"num_experts_per_tok": 4, "head_dim": 16},
        {"sliding_window": 5},
        {"num_local_experts": 1, "num_experts_per_tok": 1},
    ],
)
def test_runner(changes):
    check_model(lambda: make(**changes))


def test_a_window_stands_in_every_layer():
    assert [layer.window for layer in make(sliding_window=5).layers] == [5] * 3
    assert [type(cache) for cache in make(sliding_window=5).make_cache()] == [RotatingKVCache] * 3
    assert [layer.window for layer in make().layers] == [None] * 3


def test_theta_is_a_million_where_none_is_named():
    assert make().layers[0].self_attn.rope.base == 1e6
    assert make(rope_parameters={"rope_type": "default", "rope_theta": 500.0}).layers[0].self_attn.rope.base == 500.0


def test_weights_are_the_softmax_over_the_chosen():
    block = randomize(make(num_experts_per_tok=3)).layers[0].block_sparse_moe
    x = mx.random.normal((1, 9, 32), key=mx.random.key(0))
    experts, weights = (np.array(value)[0] for value in block.route(x))
    for row, chosen, found in zip(np.array(block.gate(x))[0], experts, weights, strict=True):
        assert set(chosen) == set(np.argsort(row)[-3:])
        np.testing.assert_allclose(found, np.exp(row[chosen]) / np.exp(row[chosen]).sum(), rtol=1e-5)


def layout(weights, kind):
    """A model's weights as transformers 4 writes them ("single"), transformers 5 holds them ("fused"), or as they
    are.
    """
    result = {}
    for name, value in weights.items():
        block, routed, part = name.partition(".block_sparse_moe.")
        part = part.removeprefix("switch_mlp.").removesuffix("_proj.weight")
        if kind == "fused" and routed:
            block = f"{block}.mlp"
            if part == "gate":
                both = [value, weights[name.replace("gate_proj", "up_proj")]] if "switch_mlp" in name else None
                result[f"{block}.experts.gate_up_proj" if both else f"{block}.gate.weight"] = (
                    mx.concatenate(both, axis=1) if both else value
                )
            elif part == "down":
                result[f"{block}.experts.down_proj"] = value
            elif part == "gate.weight":
                result[f"{block}.gate.weight"] = value
        elif kind == "single" and "switch_mlp" in name:
            w = {"gate": "w1", "down": "w2", "up": "w3"}[part]
            result.update({f"{block}{routed}experts.{e}.{w}.weight": value[e] for e in range(len(value))})
        else:
            result[name] = value
    return result


def write(folder, config, kind):
    folder.mkdir()
    model = randomize(mixtral.Model(mixtral.ModelConfig.from_dict(config)))
    mx.save_safetensors(str(folder / "model.safetensors"), layout(split_parameters(model), kind))
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_every_layout_gives_the_same_model(tmp_path):
    tokens = mx.array([[1, 2, 3, 4]])
    folders = [write(tmp_path / kind, TINY, kind) for kind in ("single", "fused", "stacked")]
    first, *others = [load_model(folder)(tokens) for folder in folders]
    assert all(mx.array_equal(other, first) for other in others)
    save_model(tmp_path / "saved", load_model(folders[0]), TINY)
    names = mx.load(str(tmp_path / "saved" / "model.safetensors")).keys()
    assert "model.layers.0.block_sparse_moe.switch_mlp.gate_proj.weight" in names
    assert "model.layers.0.block_sparse_moe.gate.weight" in names
    assert mx.array_equal(load_model(tmp_path / "saved")(tokens), first)


def test_a_missing_expert_is_named(tmp_path):
    folder = write(tmp_path / "source", TINY, "single")
    weights = dict(mx.load(str(folder / "model.safetensors")))
    mx.eval(weights)
    del weights["model.layers.1.block_sparse_moe.experts.2.w3.weight"]
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    with pytest.raises(WeightsError, match="expert 2 is missing"):
        load_model(folder)


@pytest.mark.parametrize("kind", ["single", "fused", "stacked"])
@pytest.mark.parametrize("quantize", [None, 4])
def test_loading_takes_no_more_than_the_checkpoint_and_one_layer(kind, quantize, tmp_path):
    config = {**TINY, "hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 5, "num_local_experts": 8}
    folder = write(tmp_path / "source", config, kind)
    mx.clear_cache()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    model = load_model(folder, quantize=quantize)
    peak = mx.get_peak_memory() - before
    size = (folder / "model.safetensors").stat().st_size
    layer = sum(value.nbytes for value in split_parameters(make_layer(config)).values())
    assert size > 5 * layer > 5 * 6e6  # large enough for layers to tell
    assert peak < size + layer, f"{(peak - size) / layer:.2f} layers over the checkpoint"
    assert mx.get_active_memory() - before < 1.01 * model.load_report.nbytes


def make_layer(config):
    return mixtral.Model(mixtral.ModelConfig.from_dict({**config, "num_hidden_layers": 1})).layers[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_experts_per_tok": 5}, "num_experts_per_tok"),
        ({"num_experts_per_tok": 0}, "num_experts_per_tok"),
        ({"sliding_window": 0}, "sliding_window"),
        ({"rope_scaling": {"rope_type": "spiral"}}, "spiral"),
    ],
)
def test_bad_configurations_are_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        make(**changes)


def test_the_public_names():
    contract = {"load_model", "load_tokenizer", "load", "generate", "stream_generate", "Generate", "KVCache"}
    assert contract <= set(mixtral_mlx.__all__)
    assert all(hasattr(mixtral_mlx, name) for name in mixtral_mlx.__all__)
