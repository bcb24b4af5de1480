"""Routed experts against a loop over experts."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from mlx_core.errors import ConfigError
from mlx_core.models import named_parameters
from mlx_core.models.experts import SORT_FROM, RoutedExperts, SoftmaxMoE, stack_experts


def reference(layer, x, experts):
    """Each token through its experts, one at a time, in float64."""
    gate, up, down = (np.array(part.weight).astype(np.float64) for part in (*layer.parts, layer.down_proj))
    flat, indices = (
        np.array(x).reshape(-1, x.shape[-1]).astype(np.float64),
        np.array(experts).reshape(-1, experts.shape[-1]),
    )
    out = np.zeros((*indices.shape, x.shape[-1]))
    for t, row in enumerate(indices):
        for k, e in enumerate(row):
            g = gate[e] @ flat[t]
            out[t, k] = down[e] @ (g / (1 + np.exp(-g)) * (up[e] @ flat[t]))
    return out.reshape(*x.shape[:-1], experts.shape[-1], x.shape[-1])


def draw(shape, seed):
    return mx.random.normal(shape, key=mx.random.key(seed))


@pytest.mark.parametrize("fuse", [False, True])
@pytest.mark.parametrize("tokens", [1, 3, SORT_FROM // 2 - 1, SORT_FROM // 2, 50])
def test_is_a_loop_over_experts(tokens, fuse):
    layer = RoutedExperts(5, 32, 64)
    x = draw((1, tokens, 32), 0)
    experts = mx.random.randint(0, 5, (1, tokens, 2), key=mx.random.key(1))
    wanted = reference(layer, x, experts)
    if fuse:
        layer.fuse()
        assert layer.fused
    np.testing.assert_allclose(np.array(layer(x, experts)), wanted, atol=1e-5)


@pytest.mark.parametrize("mode", [{"bits": bits, "group_size": 32} for bits in (3, 4, 5, 6, 8)] + [{"mode": "mxfp4"}])
@pytest.mark.parametrize("tokens", [2, 40])
def test_packed_experts_are_their_dequantised_weights(mode, tokens):
    layer, plain = RoutedExperts(4, 64, 96), RoutedExperts(4, 64, 96)
    nn.quantize(layer, **{"group_size": 32, "bits": 4, **mode})
    for name in ("gate_proj", "up_proj", "down_proj"):
        packed = layer[name]
        plain[name].weight = mx.dequantize(
            packed.weight, packed.scales, packed.get("biases"), packed.group_size, packed.bits, packed.mode
        ).astype(mx.float32)
    x, experts = draw((1, tokens, 64), 0), mx.random.randint(0, 4, (1, tokens, 2), key=mx.random.key(1))
    wanted = reference(plain, x, experts)
    layer.fuse()
    np.testing.assert_allclose(np.array(layer(x, experts)), wanted, atol=2e-4)


PARTS = ("gate_proj", "up_proj", "down_proj")


@pytest.mark.parametrize("mode", [None, {"bits": 4, "group_size": 32}, {"mode": "mxfp4", "bits": 4, "group_size": 32}])
@pytest.mark.parametrize("tokens", [1, 40])
@pytest.mark.parametrize("cuts", [[2], [1, 4], [1, 2, 3, 4, 5]])
def test_what_ranges_of_experts_give_adds_up_to_the_whole(mode, tokens, cuts):
    whole = RoutedExperts(6, 64, 32)
    x, experts = draw((2, tokens, 64), 0), mx.random.randint(0, 6, (2, tokens, 3), key=mx.random.key(1))
    sources = {f"l.mlp.switch_mlp.{name}.weight": whole[name].weight for name in PARTS}
    if mode:
        nn.quantize(whole, **mode)
    total = 0
    for start, stop in zip([0, *cuts], [*cuts, 6], strict=True):
        part = RoutedExperts(6, 64, 32, local_experts=range(start, stop))
        kept = stack_experts(sources, 6, local_experts=range(start, stop))
        part.load_weights([(name.removeprefix("l.mlp.switch_mlp."), value) for name, value in kept.items()])
        if mode:
            nn.quantize(part, **mode)
        part.fuse()
        out = part(x, experts)
        outside = (experts < start) | (experts >= stop)
        assert mx.all(mx.where(outside[..., None], out == 0, True))
        total = total + out
    np.testing.assert_allclose(np.array(total), np.array(whole(x, experts)), atol=1e-5)


@pytest.mark.parametrize("local_experts", [range(0), range(2, 7), range(-1, 3), range(0, 4, 2)])
def test_ranges_that_are_not_the_experts_are_refused(local_experts):
    with pytest.raises(ConfigError, match="within the 6 experts"):
        RoutedExperts(6, 8, 8, local_experts=local_experts)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_the_softmax_router_weighs_what_it_chose(normalize, dtype):
    block = SoftmaxMoE(7, 32, 16, top_k=3, normalize=normalize)
    block.set_dtype(dtype)
    x = draw((1, 30, 32), 2).astype(dtype)
    experts, weights = (np.array(value)[0] for value in block.route(x))
    logits = np.array(block.gate(x).astype(mx.float32))[0].astype(np.float64)
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    chosen = np.take_along_axis(probabilities, experts, -1)
    assert (chosen.min(-1) >= np.sort(probabilities)[:, -3]).all()
    np.testing.assert_allclose(weights, chosen / chosen.sum(-1, keepdims=True) if normalize else chosen, rtol=1e-5)
    assert block(x).dtype == dtype


def test_a_sparse_block_adds_up_its_ranges():
    """Each process holds a range; the router is everywhere."""
    whole = SoftmaxMoE(6, 32, 16, top_k=2, normalize=True)
    total = 0
    for local_experts in (range(4), range(4, 6)):
        part = SoftmaxMoE(6, 32, 16, top_k=2, normalize=True, local_experts=local_experts)
        kept = stack_experts(
            {f"l.{name}": value for name, value in named_parameters(whole).items()}, 6, local_experts=local_experts
        )
        part.load_weights([(name.removeprefix("l."), value) for name, value in kept.items()])
        total = total + part(draw((1, 50, 32), 3))
    np.testing.assert_allclose(np.array(total), np.array(whole(draw((1, 50, 32), 3))), atol=1e-6)


def test_every_source_of_experts_gives_the_same():
    gate, up, down = draw((3, 8, 4), 0), draw((3, 8, 4), 1), draw((3, 4, 8), 2)
    stacked = {f"l.mlp.switch_mlp.{name}_proj.weight": w for name, w in (("gate", gate), ("up", up), ("down", down))}
    single = {
        f"l.mlp.experts.{e}.{name}.weight": weight[e]
        for name, weight in (("w1", gate), ("w3", up), ("w2", down))
        for e in (2, 0, 1)
    }
    fused = {"l.mlp.experts.gate_up_proj": mx.concatenate([gate, up], axis=1), "l.mlp.experts.down_proj": down}
    names = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}
    for source in (stacked, single, fused):
        result = stack_experts({**source, "other": gate}, 3, names)
        assert result.pop("other") is gate
        assert result.keys() == stacked.keys()
        assert all(mx.array_equal(result[name], stacked[name]) for name in stacked)
        some = stack_experts(source, 3, names, local_experts=range(1, 3))
        assert all(mx.array_equal(some[name], stacked[name][1:3]) for name in stacked)
