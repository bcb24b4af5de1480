"""Routed experts against a loop over experts."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from mlx_core.experts import SORT_FROM, RoutedExperts, stack_experts


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


@pytest.mark.parametrize("mode", [{"bits": bits, "group_size": 32} for bits in (3, 4, 6, 8)] + [{"mode": "mxfp4"}])
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
