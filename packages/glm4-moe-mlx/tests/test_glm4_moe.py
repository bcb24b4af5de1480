"""The architecture on tiny configurations, the choices of its router, and what its configuration
refuses.
"""

import json

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import glm4_moe_mlx
from glm4_moe_mlx import glm4_moe, load_model, save_model
from glm4_moe_mlx.cli import main
from mlx_core.errors import ConfigError, WeightsError
from mlx_core.models import split_parameters
from mlx_core.testing import check_model, randomize

TINY = {
    "model_type": "glm4_moe",
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "moe_intermediate_size": 16,
    "n_routed_experts": 6,
    "num_experts_per_tok": 2,
}
GROUPS = {"n_group": 3, "topk_group": 2}


def configure(**changes):
    return glm4_moe.ModelConfig.from_dict({**TINY, **changes})


def make(**changes):
    return glm4_moe.Model(configure(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        GROUPS,
        {"use_qk_norm": True, "attention_bias": True},
        {"norm_topk_prob": False, "routed_scaling_factor": 2.5, "n_shared_experts": 2},
        {"first_k_dense_replace": 0, "tie_word_embeddings": True},
        {"num_experts_per_tok": 6, "partial_rotary_factor": 1.0},
    ],
)
def test_runner(changes):
    check_model(lambda: make(**changes))


def test_layers_are_dense_up_to_the_first_sparse_one():
    def sparse(**changes):
        return [isinstance(layer.mlp, glm4_moe.SharedAndRoutedMoE) for layer in make(**changes).layers]

    assert sparse() == [False, True, True]
    assert sparse(first_k_dense_replace=0) == [True] * 3
    assert sparse(first_k_dense_replace=3) == [False] * 3


def test_the_rope_turns_half_of_a_head_and_pairs_its_halves():
    rope = make().layers[0].self_attn.rope
    assert (rope.dims, rope.traditional) == (8, False)


def reference(config, weight, bias, x):
    """The router, one token at a time, in float64: experts and their weights as a dictionary; None where rounding may
    decide.
    """
    result = []
    weight, bias, x = (np.array(value.astype(mx.float32)).astype(np.float64) for value in (weight, bias, x))
    for row in x.reshape(-1, x.shape[-1]):
        scores = 1 / (1 + np.exp(-(weight @ row)))
        biased = scores + bias
        size = len(biased) // config.n_group
        best_two = [np.sort(biased[g * size : (g + 1) * size])[-2:].sum() for g in range(config.n_group)]
        groups, sure = largest(dict(enumerate(best_two)), config.topk_group)
        allowed = {e: biased[e] for g in groups for e in range(g * size, (g + 1) * size)}
        chosen, sure_too = largest(allowed, config.num_experts_per_tok)
        total = sum(scores[e] for e in chosen) + 1e-20 if config.norm_topk_prob else 1.0
        weights = {e: scores[e] / total * config.routed_scaling_factor for e in chosen}
        result.append(weights if sure and sure_too else None)
    return result


def largest(values, count):
    """The keys of the largest values, and whether they are so by more than rounding."""
    keys = sorted(values, key=lambda key: -values[key])
    return keys[:count], count == len(keys) or values[keys[count - 1]] - values[keys[count]] > 1e-5


@given(
    groups=st.integers(1, 4),
    size=st.integers(2, 5),
    normalize=st.booleans(),
    shift=st.sampled_from([0.0, -1.0, 1.0]),
    dtype=st.sampled_from([mx.float32, mx.bfloat16]),
    seed=st.integers(0, 2**16),
    data=st.data(),
)
def test_the_router_is_its_definition(groups, size, normalize, shift, dtype, seed, data):
    topk_group = data.draw(st.integers(1, groups))
    config = configure(
        n_group=groups,
        n_routed_experts=groups * size,
        topk_group=topk_group,
        num_experts_per_tok=data.draw(st.integers(1, topk_group * size)),
        norm_topk_prob=normalize,
        routed_scaling_factor=2.5,
    )
    keys = mx.random.split(mx.random.key(seed), 3)
    router = glm4_moe.Router(config)
    router.weight = (mx.random.normal(router.weight.shape, key=keys[0]) * 0.3).astype(dtype)
    router.e_score_correction_bias = mx.random.normal((groups * size,), key=keys[1]) + shift
    x = mx.random.normal((1, 4, 32), key=keys[2]).astype(dtype)
    experts, weights = (np.array(value)[0] for value in router(x))
    for i, wanted in enumerate(reference(config, router.weight, router.e_score_correction_bias, x)):
        if wanted is not None:
            assert set(experts[i].tolist()) == wanted.keys()
            np.testing.assert_allclose(weights[i], [wanted[e] for e in experts[i].tolist()], rtol=1e-4)


@pytest.mark.parametrize("normalize", [True, False])
def test_scores_that_are_all_zero_give_zero_weights(normalize):
    router = glm4_moe.Router(configure(norm_topk_prob=normalize, **GROUPS))
    router.weight = mx.full(router.weight.shape, -100.0)
    assert mx.array_equal(router(mx.ones((1, 1, 32)))[1], mx.zeros((1, 1, 2)))


def checkpoint(folder, dtype=mx.bfloat16, **changes):
    """A folder with a random model whose router's bias needs fp32."""
    folder.mkdir()
    model = randomize(make(**changes))
    weights = {name: value.astype(dtype) for name, value in split_parameters(model).items()}
    for name in weights:
        if name.endswith("e_score_correction_bias"):
            weights[name] = mx.arange(6).astype(mx.float32) / 1000 + 7
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    (folder / "config.json").write_text(json.dumps({**TINY, **changes}))
    return folder


@pytest.mark.parametrize("quantize", [None, {"bits": 4, "group_size": 32}])
def test_the_routers_bias_keeps_fp32_and_the_router_is_never_packed(quantize, tmp_path):
    model = load_model(checkpoint(tmp_path / "source"), dtype="bfloat16", quantize=quantize)
    gate = model.layers[1].mlp.gate
    assert mx.array_equal(gate.e_score_correction_bias, mx.arange(6).astype(mx.float32) / 1000 + 7)
    assert gate.weight.dtype == mx.bfloat16
    save_model(tmp_path / "saved", model, TINY)
    saved = mx.load(str(tmp_path / "saved" / "model.safetensors"))
    assert saved["model.layers.1.mlp.gate.e_score_correction_bias"].dtype == mx.float32
    assert saved["model.layers.1.mlp.gate.weight"].dtype == mx.bfloat16
    assert ("model.layers.1.mlp.switch_mlp.up_proj.scales" in saved) == (quantize is not None)


def test_the_prediction_layer_is_left_out_and_the_report_says_so(tmp_path):
    folder = checkpoint(tmp_path / "source")
    plain = load_model(folder)
    assert "multi-token prediction" not in str(plain.load_report)
    weights = dict(mx.load(str(folder / "model.safetensors")))
    mx.eval(weights)
    extra = {
        "model.layers.3.eh_proj.weight": mx.ones((4, 4)),
        "model.layers.3.mlp.experts.0.up_proj.weight": mx.ones(4),
    }
    mx.save_safetensors(str(folder / "model.safetensors"), {**weights, **extra})
    model = load_model(folder)
    assert "multi-token prediction (2 tensors of layer 3) is left out" in str(model.load_report)
    tokens = mx.array([[1, 2, 3]])
    assert mx.array_equal(model(tokens), plain(tokens))
    mx.save_safetensors(str(folder / "model.safetensors"), {**weights, "model.layers.30.norm.weight": mx.ones(4)})
    with pytest.raises(WeightsError, match=r"no place in the model: model\.layers\.30\.norm"):
        load_model(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_group": 4}, "n_group"),
        ({"n_group": 0}, "n_group"),
        ({"n_group": 2, "topk_group": 3}, "topk_group"),
        ({"n_group": 6, "topk_group": 3}, "two best"),
        ({"n_group": 3, "topk_group": 1, "num_experts_per_tok": 3}, "num_experts_per_tok"),
        ({"num_experts_per_tok": 7}, "num_experts_per_tok"),
        ({"n_shared_experts": 0}, "n_shared_experts"),
        ({"moe_intermediate_size": 0}, "moe_intermediate_size"),
        ({"n_routed_experts": 0}, "num_experts_per_tok"),
    ],
)
def test_bad_configurations_are_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        make(**changes)


def test_without_a_model_the_command_says_what_to_give(capsys):
    assert main(["generate", "hello"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "glm4-moe-mlx has no demonstration model" in captured.err


def test_the_public_names():
    contract = {"load_model", "load_tokenizer", "load", "generate", "stream_generate", "Generate", "KVCache"}
    assert contract <= set(glm4_moe_mlx.__all__)
    assert all(hasattr(glm4_moe_mlx, name) for name in glm4_moe_mlx.__all__)
