"""Random weights that keep activations of order 1."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlx_core.models import Conv1d, RoutedExperts, named_parameters, randomize


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(256, 64)
        self.norm = nn.LayerNorm(512)
        self.conv = Conv1d(64, 32, 9)
        self.experts = RoutedExperts(4, 128, 96)
        self.gamma = mx.zeros((512,))


def test_scales():
    found = {name: np.array(value) for name, value in named_parameters(randomize(Network())).items()}
    for name, inputs in (
        ("linear.weight", 256),
        ("conv.weight", 64 * 9),
        ("experts.gate_proj.weight", 128),
        ("experts.down_proj.weight", 96),
    ):
        assert abs(found[name].std() * inputs**0.5 - 1) < 0.05, name
        assert abs(found[name].mean()) * inputs**0.5 < 0.05, name
    for name, mean in (("norm.weight", 1), ("norm.bias", 0), ("gamma", 1), ("linear.bias", 0)):
        assert abs(found[name].mean() - mean) < 0.05, name
        assert 0.07 < found[name].std() < 0.13, name


def test_a_seed_gives_the_same_weights_and_leaves_the_global_state():
    mx.random.seed(7)
    expected = mx.random.normal((4,))
    layer = nn.Linear(8, 8)
    first, second, other = (randomize(nn.Linear(8, 8), seed).weight for seed in (1, 1, 2))
    assert mx.array_equal(first, second)
    assert not mx.array_equal(first, other)
    mx.random.seed(7)
    randomize(layer)
    assert mx.array_equal(mx.random.normal((4,)), expected)
