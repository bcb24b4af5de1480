"""Plans say what the blocks do; engines are chosen for reasons that the load report gives."""

import dataclasses

import mlx.core as mx
import mlx.nn as nn
import pytest

from mlx_core import ConfigError, EngineError, load_model, save_model
from mlx_core.config import DecoderConfig
from mlx_core.engines import (
    ENGINE_VARIABLE,
    DecoderPlan,
    Engine,
    LayerPlan,
    MLXEngine,
    describe,
    selection,
)
from mlx_core.models import (
    Attention,
    CausalLM,
    DecoderLayer,
    GatedMLP,
    Norms,
    SoftmaxMoE,
    ZeroCenteredRMSNorm,
    fuse_projections,
    quantize_model,
)
from mlx_core.models.layers import DecoderStack
from mlx_core.ops import RoPE
from mlx_core.testing import check_model, check_plan, randomize, tiny_model

SIZES = {
    "model_type": "tiny",
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ZeroCenteredConfig(DecoderConfig):
    def norm(self, dims):
        return ZeroCenteredRMSNorm(dims, self.rms_norm_eps)


def make(config=None, *, kind=DecoderConfig, norms=None, mlp=None, model=None, **attention):
    settings = kind.from_dict({**SIZES, **(config or {})})
    rope = settings.rope()
    return CausalLM(
        settings,
        [
            DecoderLayer(
                settings,
                Attention(settings, rope, **attention),
                mlp() if mlp else GatedMLP(32, 48, activation=settings.hidden_act),
                norms=norms or Norms(),
            )
            for _ in range(settings.num_hidden_layers)
        ],
        **(model or {}),
    )


OPTIONS = {
    "plain": {},
    "biases": {"qkv_bias": True, "output_bias": True},
    "norms of heads": {"qk_norm": "head"},
    "norms of projections": {"qk_norm": "projection"},
    "scale": {"scale": 0.11},
    "softcap": {"softcap": 2.0},
    "softcap and window": {"softcap": 2.0, "window": 5},
    "window": {"window": 5},
    "norms after": {"norms": Norms(None, "post_attention_layernorm", None, "post_feedforward_layernorm")},
    "norms everywhere": {"norms": Norms("a", "b", "c", "d")},
    "zero-centered norms": {"kind": ZeroCenteredConfig, "qk_norm": "projection"},
    "scaled embeddings": {"model": {"embedding_scale": 5.5}},
    "capped logits": {"model": {"logits_softcap": 3.0}},
    "tied": {"config": {"tie_word_embeddings": True}},
    "experts": {"mlp": lambda: SoftmaxMoE(6, 32, 16, top_k=2, normalize=False, activation="gelu")},
    "some of the experts": {
        "mlp": lambda: SoftmaxMoE(6, 32, 16, top_k=3, normalize=True, local_experts=range(2, 5)),
    },
    **{f"{name} MLP": {"config": {"hidden_act": name}} for name in ("gelu", "gelu_pytorch_tanh", "relu")},
    **{
        f"{settings['rope_type']} RoPE": {"config": {"rope_scaling": settings, "max_position_embeddings": 16}}
        for settings in (
            {"rope_type": "linear", "factor": 3.0},
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
        )
    },
}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_keeps_the_laws_and_is_in_the_plan(name):
    check_model(lambda: make(**OPTIONS[name]))


@pytest.mark.parametrize(
    "settings",
    [
        {"rope_type": "dynamic", "factor": 2.0},
        {
            "rope_type": "longrope",
            "short_factor": [1.0, 1.1, 1.2, 1.3],
            "long_factor": [2.0, 3.0, 4.0, 5.0],
            "original_max_position_embeddings": 16,
            "factor": 4.0,
        },
    ],
    ids=lambda settings: settings["rope_type"],
)
@pytest.mark.parametrize("length", [9, 24])
def test_plans_of_rope_that_depends_on_the_length(settings, length):
    model = randomize(make({"rope_scaling": settings, "max_position_embeddings": 16}))
    tokens = mx.arange(length)[None]
    check_plan(model, tokens, model(tokens))


@pytest.mark.parametrize(
    "quantize", [{"bits": 4, "group_size": 32}, {"bits": 8, "group_size": 32}, {"bits": 4, "mode": "mxfp4"}]
)
@pytest.mark.parametrize("experts", [False, True])
def test_plans_of_packed_weights(quantize, experts):
    mlp = (lambda: SoftmaxMoE(4, 32, 32, top_k=2, normalize=True)) if experts else lambda: GatedMLP(32, 64)
    model = randomize(make({"head_dim": 32}, mlp=mlp))
    quantize_model(model, quantize)
    tokens = mx.arange(12)[None]
    for _ in range(2):
        check_plan(model, tokens, model(tokens), tolerance=1e-3)
        fuse_projections(model)


def test_options_change_the_logits():
    """An option that does nothing would pass every other test."""
    tokens = mx.arange(20)[None]
    seen = {}
    for name, options in OPTIONS.items():
        logits = randomize(make(**options))(tokens)
        for other, earlier in seen.items():
            assert mx.abs(logits - earlier).max().item() > 1e-4, f"{name} is {other}"
        seen[name] = logits


def test_blocks_that_cannot_describe_themselves_say_so():
    class Louder(GatedMLP):
        def __call__(self, x):
            return 2 * super().__call__(x)

    with pytest.raises(EngineError, match=r"model\.layers\.0\.mlp: Louder overrides __call__"):
        describe(make(mlp=lambda: Louder(32, 48)), "", DecoderPlan)

    class Named(GatedMLP):
        def __init__(self):
            super().__init__(32, 48)

    assert describe(make(mlp=Named), "", DecoderPlan)  # made otherwise, but the same computation

    with pytest.raises(EngineError, match="a Sequential doesn't describe itself"):
        describe(make(mlp=lambda: nn.Sequential(nn.Linear(32, 32))), "", DecoderPlan)
    with pytest.raises(EngineError, match="describes itself as a LayerPlan"):
        describe(make(mlp=lambda: make().layers[0]), "", DecoderPlan)

    class Twice:
        def __call__(self, x):
            return 2 * super().__call__(x)

    with pytest.raises(EngineError, match="Twice overrides __call__"):
        describe(make(mlp=lambda: type("Mixed", (Twice, GatedMLP), {})(32, 48)), "", DecoderPlan)

    class Backwards(RoPE):
        def __call__(self, x, offset=0):
            return super().__call__(x, 0)

    turned = make()
    turned.layers[0].self_attn.rope = Backwards(8, 10000.0, False)
    with pytest.raises(EngineError, match="Backwards overrides __call__"):
        describe(turned, "", DecoderPlan)

    class Narrow(DecoderLayer):
        @property
        def window(self):
            return 3

    narrow = make()
    narrow.model.layers[0] = Narrow(narrow.config, narrow.layers[0].self_attn, GatedMLP(32, 48))
    with pytest.raises(EngineError, match="Narrow overrides window"):
        describe(narrow, "", DecoderPlan)
    other = make()
    other.model = type("Stack", (DecoderStack,), {})(other.config, other.layers)
    with pytest.raises(EngineError, match="a Stack isn't described"):
        describe(other, "", DecoderPlan)
    adapted = make()
    adapted.layers[1].self_attn.o_proj = nn.Bilinear(2, 2, 2)
    with pytest.raises(EngineError, match=r"layers\.1\.self_attn\.o_proj: a Bilinear"):
        describe(adapted, "", DecoderPlan)
    assert isinstance(describe(make().layers[0], "here", LayerPlan), LayerPlan)


def test_shards_keep_heads_together():
    plan = describe(tiny_model(), "", DecoderPlan)
    attention, mlp = plan.layers[0].attention, plan.layers[0].mlp
    for part in (attention.q, attention.k, attention.v):
        assert (part.shard.by, part.shard.unit) == ("outputs", attention.head_dim)
        assert part.outputs % part.shard.unit == 0
    assert (attention.output.shard.by, attention.output.shard.unit) == ("inputs", attention.head_dim)
    assert (mlp.gate.shard.by, mlp.up.shard.by, mlp.down.shard.by) == ("outputs", "outputs", "inputs")
    normed = describe(make(qk_norm="projection"), "", DecoderPlan).layers[0].attention
    assert (normed.q_norm.shard, normed.k_norm.shard) == (normed.q.shard, normed.k.shard)
    assert describe(make(qk_norm="head"), "", DecoderPlan).layers[0].attention.q_norm.shard is None


def test_shards_keep_packed_groups_together():
    model = make({"head_dim": 32}, mlp=lambda: GatedMLP(32, 128))
    quantize_model(model, {"bits": 4, "group_size": 64})
    plan = describe(model, "", DecoderPlan).layers[0]
    assert plan.attention.output.packing.group_size == 64
    assert (plan.attention.output.shard.unit, plan.attention.q.shard.unit, plan.attention.k.shard.unit) == (64, 64, 32)
    assert (plan.mlp.down.shard.unit, plan.mlp.gate.shard.unit, plan.mlp.up.shard.unit) == (64, 64, 64)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (lambda: make(qk_norm="heads"), "qk_norm is 'head', 'projection' or None"),
        (lambda: GatedMLP(8, 8, activation="gelu_tanh"), "activation 'gelu_tanh' isn't known"),
        (lambda: SoftmaxMoE(2, 8, 8, top_k=1, normalize=True, activation="no"), "activation 'no' isn't known"),
    ],
)
def test_options_are_checked_when_blocks_are_made(block, message):
    with pytest.raises(ConfigError, match=message):
        block()


def test_tables_by_layer_are_refused_once_layers_are_fused():
    model = make()
    fuse_projections(model)
    with pytest.raises(ConfigError, match="projections are fused"):
        quantize_model(model, "mixed_4_6")
    quantize_model(model, {"bits": 4, "group_size": 32})  # names no layer


class Watched:
    """An engine that runs the blocks, and counts."""

    def __init__(self, name="watched", automatic=True, refusal=None):
        self.name, self.automatic, self.refusal = name, automatic, refusal
        self.calls = 0

    def refuses(self, plan, weights):
        assert plan.embedding.path + ".weight" in weights
        return self.refusal

    def decoder(self, model, plan):
        outer = self

        class Runner:
            def __getattr__(self, name):
                return getattr(model, name)

            def __call__(self, tokens, cache=None):
                outer.calls += 1
                return model(tokens, cache)

        return Runner()

    def linear(self, layer):
        return layer


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    """A checkpoint of a family that only this test has installed."""
    family = dataclasses.make_dataclass("Family", ["ModelConfig", "Model"])(DecoderConfig, lambda _: make())
    monkeypatch.setattr("mlx_core.models.loading.find_architecture", lambda model_type: family)
    save_model(tmp_path / "model", randomize(make()), SIZES)
    return tmp_path / "model"


@pytest.fixture(autouse=True)
def engines(monkeypatch):
    monkeypatch.delenv(ENGINE_VARIABLE, raising=False)
    monkeypatch.setattr(selection, "_engines", {})


def test_mlx_runs_what_nobody_else_does(checkpoint):
    report = load_model(checkpoint).load_report
    assert (report.engine, report.engine_reason) == ("mlx", "")
    assert "engine" not in str(report)
    assert "engine mlx (asked for)" in str(load_model(checkpoint, engine="mlx").load_report)


def test_an_engine_is_taken_where_it_is_automatic_and_does_not_refuse(checkpoint, monkeypatch):
    slow, picky, watched = Watched("slow", automatic=False), Watched("picky", refusal="it has 2 layers"), Watched()
    for engine in (slow, watched, picky):
        selection.register_engine(engine)
    model = load_model(checkpoint)
    assert (model.load_report.engine, watched.calls) == ("watched", 0)
    assert "picky: it has 2 layers" in str(model.load_report)
    tokens = mx.arange(5)[None]
    assert mx.array_equal(model(tokens), load_model(checkpoint, engine="mlx")(tokens))
    assert watched.calls == 1
    assert load_model(checkpoint, engine="slow").load_report.engine == "slow"
    monkeypatch.setenv(ENGINE_VARIABLE, "mlx")
    assert load_model(checkpoint).load_report.engine == "mlx"
    assert load_model(checkpoint, engine="watched").load_report.engine == "watched"  # who asks gets it
    with pytest.raises(EngineError, match="'picky' can't run this model: it has 2 layers"):
        load_model(checkpoint, engine="picky")
    monkeypatch.setenv(ENGINE_VARIABLE, "nobody")
    with pytest.raises(
        ConfigError, match=f"'nobody' .from {ENGINE_VARIABLE}.; known are auto, picky, watched, slow, mlx"
    ):
        load_model(checkpoint)
    (checkpoint / "model.safetensors").unlink()  # refused before anything is read
    with pytest.raises(ConfigError, match="no engine 'nobody'"):
        load_model(checkpoint, engine="nobody")
    with pytest.raises(ConfigError, match="'watched' already"):
        selection.register_engine(Watched())


def test_a_model_without_a_plan_is_run_by_mlx():
    selection.register_engine(Watched())

    class Louder(GatedMLP):
        def __call__(self, x):
            return 2 * super().__call__(x)

    model = make(mlp=lambda: Louder(32, 48))
    chosen = selection.select_engine("auto", lambda: describe(model, "", DecoderPlan), dict)
    assert chosen.engine.name == "mlx"
    assert "Louder overrides __call__" in chosen.reason


def test_the_mlx_engine_is_an_engine():
    layer = nn.Linear(4, 4)
    assert isinstance(MLXEngine(), Engine)
    assert isinstance(Watched(), Engine)
    assert MLXEngine().linear(layer) is layer
    model = tiny_model()
    assert MLXEngine().decoder(model, describe(model, "", DecoderPlan)) is model
