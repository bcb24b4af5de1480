"""Every architecture on tiny configurations, and the configurations that are refused."""

from concurrent.futures import ThreadPoolExecutor

import mlx.core as mx
import numpy as np
import pytest

from mlx_core.cache import KVCache, RotatingKVCache
from mlx_core.errors import CacheError, ConfigError, InputError, WeightsError
from mlx_core.models import ModelInput, stack_experts
from mlx_core.testing import check_model, randomize
from qwen3_mlx import generate, qwen2, qwen3, qwen3_moe

TINY = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
WINDOW = {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}
MOE = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 16}

CASES = {
    "llama": (qwen2, {"model_type": "llama"}),
    "llama-bias": (qwen2, {"model_type": "llama", "attention_bias": True}),
    "qwen2": (qwen2, {"model_type": "qwen2"}),
    "qwen2-tied": (qwen2, {"model_type": "qwen2", "tie_word_embeddings": True}),
    "qwen2-window": (qwen2, {"model_type": "qwen2", **WINDOW}),
    "qwen2-one-head": (qwen2, {"model_type": "qwen2", "num_attention_heads": 1, "num_key_value_heads": 1}),
    "qwen3": (qwen3, {"model_type": "qwen3", "head_dim": 16}),
    "qwen3-bias": (qwen3, {"model_type": "qwen3", "head_dim": 16, "attention_bias": True}),
    "qwen3-partial": (qwen3, {"model_type": "qwen3", "head_dim": 16, "partial_rotary_factor": 0.5}),
    "qwen3-window": (
        qwen3,
        {
            "model_type": "qwen3",
            "head_dim": 8,
            **WINDOW,
            "layer_types": ["sliding_attention", "full_attention", "full_attention"],
        },
    ),
    "qwen3-moe": (qwen3_moe, {"model_type": "qwen3_moe", **MOE, "norm_topk_prob": True, "mlp_only_layers": [0]}),
    "qwen3-moe-step": (qwen3_moe, {"model_type": "qwen3_moe", **MOE, "decoder_sparse_step": 2}),
    "qwen3-moe-window": (qwen3_moe, {"model_type": "qwen3_moe", **MOE, **WINDOW}),
    "qwen3-moe-all": (qwen3_moe, {"model_type": "qwen3_moe", **MOE, "num_experts_per_tok": 6}),
}


def make(name, **changes):
    module, config = CASES[name]
    return module.Model(module.ModelConfig.from_dict({**TINY, **config, **changes}))


@pytest.mark.parametrize("name", CASES)
def test_runner(name):
    check_model(lambda: make(name))


def test_windows_stand_where_the_configuration_says():
    assert [layer.window for layer in make("qwen2-window").layers] == [None, 5, 5]
    assert [layer.window for layer in make("qwen3-window").layers] == [5, None, None]
    assert [layer.window for layer in make("qwen3-moe-window").layers] == [5, 5, 5]
    assert [layer.window for layer in make("qwen2-window", use_sliding_window=False).layers] == [None] * 3
    kinds = [type(cache) for cache in make("qwen2-window").make_cache()]
    assert kinds == [KVCache, RotatingKVCache, RotatingKVCache]
    assert make("qwen2-window").make_cache()[1].max_size == 5


def test_sparse_layers_stand_where_the_configuration_says():
    def sparse(**config):
        model = make("qwen3-moe", mlp_only_layers=[], **config)
        return [isinstance(layer.mlp, qwen3_moe.SoftmaxMoE) for layer in model.layers]

    assert sparse() == [True, True, True]
    assert sparse(decoder_sparse_step=2) == [False, True, False]
    assert sparse(decoder_sparse_step=3) == [False, False, True]
    alias = {key: value for key, value in {**TINY, **CASES["qwen3-moe"][1]}.items() if key != "num_experts"}
    assert qwen3_moe.ModelConfig.from_dict({**alias, "num_local_experts": 6}).num_experts == 6


def test_a_checkpoint_decides_tying():
    weights = randomize(make("qwen2")).parameters()
    head, embedding = weights["lm_head"]["weight"], weights["model"]["embed_tokens"]["weight"]
    model = make("qwen2")
    assert model.sanitize({"model.embed_tokens.weight": embedding}).keys() == {"model.embed_tokens.weight"}
    assert model.tied  # no head in the checkpoint
    model = make("qwen2-tied")
    kept = model.sanitize({"model.embed_tokens.weight": embedding, "lm_head.weight": embedding + 0})
    assert kept.keys() == {"model.embed_tokens.weight"}
    assert model.tied
    kept = model.sanitize({"model.embed_tokens.weight": embedding, "lm_head.weight": head})
    assert "lm_head.weight" in kept
    assert not model.tied


def test_what_stacks_experts_names_a_missing_one():
    expert = {
        f"model.layers.1.mlp.experts.{e}.{part}_proj.weight": mx.zeros((4, 4))
        for e in (0, 1, 3)
        for part in ("gate", "up", "down")
    }
    with pytest.raises(WeightsError, match="expert 2 is missing"):
        make("qwen3-moe").sanitize(expert)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "cube"}, "known are gelu"),
        ({"num_key_value_heads": 3}, "num_key_value_heads"),
        ({"hidden_size": 33}, "head_dim"),
        ({"vocab_size": 0}, "vocab_size"),
        ({"vocab_size": "many"}, "'vocab_size' must be int"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings"),
        ({"layer_types": ["full_attention"]}, "layer_types"),
        ({"rope_scaling": {"rope_type": "spiral"}}, "spiral"),
        ({"rope_scaling": []}, "rope_scaling"),
        ({"mlp_bias": True}, "mlp_bias"),
    ],
)
def test_bad_configurations_are_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        make("qwen2", **changes)


def test_a_missing_key_is_named():
    with pytest.raises(ConfigError, match="hidden_size"):
        qwen2.ModelConfig.from_dict({key: value for key, value in TINY.items() if key != "hidden_size"})
    with pytest.raises(ConfigError, match="num_experts_per_tok"):
        make("qwen3-moe", num_experts_per_tok=7)


@pytest.mark.parametrize(
    "tokens", [mx.zeros((1, 3)), mx.zeros((3,), mx.int32), mx.zeros((1, 0), mx.int32), [[1, 2]], 3]
)
def test_bad_tokens_are_refused(tokens):
    with pytest.raises(InputError):
        make("qwen2")(tokens)


def test_bad_model_inputs_are_refused():
    with pytest.raises(InputError):
        ModelInput()
    with pytest.raises(InputError):
        make("qwen2")(ModelInput(embeddings=mx.zeros((1, 2, 31))))
    with pytest.raises(CacheError, match="3 layers"):
        make("qwen2")(mx.zeros((1, 2), mx.int32), [KVCache()])


def test_layers_whose_caches_differ_have_masks_of_their_own():
    model = randomize(make("qwen3"))
    tokens = mx.random.randint(0, 50, (1, 20), key=mx.random.key(0))

    def caches():
        return [RotatingKVCache(8), RotatingKVCache(8, keep=4), RotatingKVCache(12)]

    one, many = caches(), caches()
    singly = mx.concatenate([model(tokens[:, i : i + 1], one) for i in range(20)], axis=1)
    chunked = mx.concatenate([model(tokens[:, :9], many), model(tokens[:, 9:], many)], axis=1)
    assert mx.allclose(singly, chunked, atol=1e-4)


@pytest.mark.parametrize(
    "scaling",
    [
        {"rope_type": "dynamic", "factor": 2.0},
        {
            "rope_type": "longrope",
            "factor": 2.0,
            "original_max_position_embeddings": 16,
            "short_factor": [1.0] * 4,
            "long_factor": [2.0] * 4,
        },
    ],
)
def test_a_prompt_whose_rope_depends_on_its_length_is_computed_in_one_pass(scaling):
    model = randomize(make("qwen3", head_dim=8, max_position_embeddings=32, rope_scaling=scaling))
    for length in (17, 30, model.context_length):
        prompt = mx.random.randint(0, 50, (length,), key=mx.random.key(length)).tolist()
        wanted = mx.argmax(model(mx.array([prompt]))[0, -1]).item()
        for step in (5, 2048):
            result = generate(model, None, prompt, max_tokens=1, prefill_step_size=step, logprobs=0)
            assert result.tokens == [wanted]
            full = model(mx.array([prompt]))[0, -1].astype(mx.float32)
            assert result.logprobs[0].logprob == pytest.approx((full.max() - mx.logsumexp(full)).item(), abs=1e-4)


def test_a_model_serves_several_threads():
    """Dynamic RoPE keeps what it computed last, which threads must not trip over."""
    model = randomize(make("qwen3", max_position_embeddings=16, rope_scaling={"rope_type": "dynamic", "factor": 2.0}))
    prompts = [[1 + i] * (10 + 3 * i) for i in range(4)]
    wanted = [np.array(model(mx.array([prompt]))) for prompt in prompts]

    def work(i):
        with mx.stream(mx.new_stream(mx.default_device())):
            return np.abs(np.array(model(mx.array([prompts[i % 4]]))) - wanted[i % 4]).max()

    with ThreadPoolExecutor(4) as pool:
        assert max(pool.map(work, range(24))) < 1e-4


def test_experts_that_contradict_each_other_are_named():
    one = {f"l.mlp.experts.{e}.gate_proj.weight": mx.zeros((4, 4 + e)) for e in range(2)}
    with pytest.raises(WeightsError, match="different shapes"):
        stack_experts(one, 2)
    with pytest.raises(WeightsError, match="expected"):
        stack_experts({"l.mlp.experts.gate_up_proj": mx.zeros((2, 5, 4))}, 2)
    both = {f"l.mlp.experts.{e}.down_proj.weight": mx.zeros((4, 4)) for e in range(2)}
    with pytest.raises(WeightsError, match="twice"):
        stack_experts({**both, "l.mlp.experts.down_proj": mx.zeros((2, 4, 4))}, 2)


@pytest.mark.parametrize("dtype", [mx.int32, mx.uint32, mx.int64, mx.uint16])
def test_tokens_of_any_integer_dtype(dtype):
    model = randomize(make("qwen2"))
    assert mx.array_equal(model(mx.array([[1, 2, 3]], dtype)), model(mx.array([[1, 2, 3]])))
