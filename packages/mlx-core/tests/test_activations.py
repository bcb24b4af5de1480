"""Activations by their definitions, as polynomials and as MLX computes them."""

import math
import os

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_core import backend
from mlx_core.ops import activations, attention, bidirectional_attention
from mlx_core.ops.activations import exp2, gelu, gelu_tanh, mish

FUNCTIONS = (exp2, gelu, gelu_tanh, mish)


@pytest.fixture(params=[True, False], ids=["polynomials", "mlx"])
def either(request):
    with backend.override(fast_elementwise=request.param):
        yield


def true_gelu(x):
    return x * 0.5 * (1 + math.erf(x / math.sqrt(2)))


@settings(max_examples=20)
@given(st.lists(st.floats(-1000, 1000, width=32), min_size=1, max_size=50))
def test_gelu_of_any_numbers(values):
    with backend.override(fast_elementwise=True):
        found = np.array(gelu(mx.array(values)))
    np.testing.assert_allclose(found, [true_gelu(x) for x in values], rtol=1e-6, atol=2e-6)


def test_functions_by_their_definitions(either):
    x = np.concatenate([np.linspace(-30, 30, 4001), np.linspace(-1000, 1000, 2001), [0.0, -1e4]]).astype(np.float32)
    exact, given = x.astype(np.float64), mx.array(x)
    below = np.minimum(exact, 80)
    np.testing.assert_allclose(np.array(exp2(mx.array(below.astype(np.float32)))), 2**below, rtol=2e-5, atol=1e-37)
    np.testing.assert_allclose(np.array(gelu(given)), [true_gelu(v) for v in exact], rtol=1e-6, atol=2e-6)
    with np.errstate(over="ignore"):
        softplus = np.where(exact > 30, exact, np.log1p(np.exp(np.minimum(exact, 30))))
    np.testing.assert_allclose(np.array(mish(given)), exact * np.tanh(softplus), rtol=2e-6, atol=2e-6)
    cube = np.sqrt(2 / np.pi) * (exact + 0.044715 * exact**3)
    np.testing.assert_allclose(np.array(gelu_tanh(given)), exact / 2 * (1 + np.tanh(cube)), rtol=2e-6, atol=2e-6)


def test_gelu_near_zero():
    x = np.linspace(-7, 7, 20_001, dtype=np.float32)
    with backend.override(fast_elementwise=True):
        found = np.array(gelu(mx.array(x)))
    np.testing.assert_allclose(found, [true_gelu(float(v)) for v in x], rtol=0, atol=2e-6)


def test_powers_of_two_are_exact_at_whole_numbers_and_differentiable():
    with backend.override(fast_elementwise=True):
        assert exp2(mx.array([-126.0, -1.0, 0.0, 3.0, 127.0])).tolist() == [2.0**-126, 0.5, 1.0, 8.0, 2.0**127]
        assert 0 < exp2(mx.array([-1e30])).item() < 1.2e-38
        found = mx.grad(lambda v: exp2(v).sum())(mx.array([-1.5, 0.25]))
    np.testing.assert_allclose(found, np.log(2) * np.exp2([-1.5, 0.25]), rtol=1e-6)


def test_blocks_are_the_whole(monkeypatch):
    x = mx.random.normal((3, 50, 7), key=mx.random.key(0))
    with backend.override(fast_elementwise=True):
        whole = [function(x) for function in FUNCTIONS]
        monkeypatch.setattr(activations, "CACHE_BLOCK", 64)
        for function, expected in zip(FUNCTIONS, whole, strict=True):
            # GELU of many numbers is made in another way
            np.testing.assert_allclose(function(x), expected, atol=3e-6 if function is gelu else 0)


def test_gelu_of_many_numbers(monkeypatch):
    x = mx.concatenate([mx.linspace(-12, 12, 5001), mx.array([mx.inf, -40.0, 1e30])])
    exact = [0.5 * v * math.erfc(-v / math.sqrt(2)) for v in x.tolist()]
    monkeypatch.setattr(activations, "CACHE_BLOCK", 64)
    with backend.override(fast_elementwise=True):
        np.testing.assert_allclose(gelu(x), exact, atol=2e-6, rtol=1e-6)
        np.testing.assert_allclose(mx.compile(gelu)(x), exact, atol=2e-6, rtol=1e-6)
        near = mx.linspace(-4, 4, 1001)
        found = mx.grad(lambda v: gelu(v).sum())(near)
        pushed = mx.jvp(gelu, [near], [mx.ones_like(near)])[1][0]
    with backend.override(fast_elementwise=False):
        wanted = mx.grad(lambda v: gelu(v).sum())(near)
    assert mx.abs(wanted).max().item() > 1
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    np.testing.assert_allclose(pushed, wanted, atol=1e-4)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_shapes_and_dtypes_stay(either, function):
    assert function(mx.zeros((2, 0))).shape == (2, 0)
    half = function(mx.array([[0.5], [-1.0]], mx.float16))
    assert half.dtype == mx.float16
    assert half.shape == (2, 1)


def test_without_the_switch_they_are_mlx_s_own():
    x = mx.random.normal((1000,), key=mx.random.key(0))
    with backend.override(fast_elementwise=False):
        for function, own in ((gelu, nn.gelu), (gelu_tanh, nn.gelu_approx), (mish, nn.mish)):
            assert mx.array_equal(function(x), own(x))


@pytest.mark.parametrize("at_once", [2**18, 2500, 700])  # all heads, some heads, some queries of one
@pytest.mark.parametrize("scale", [1.0, 40.0])
def test_attention_of_weak_and_strong_scores(either, monkeypatch, scale, at_once):
    monkeypatch.setattr(attention, "_SCORES", at_once)
    monkeypatch.setattr(attention, "_FEWEST_SCORES", 0)
    q = np.random.default_rng(0).standard_normal((2, 3, 20, 8))
    k, v = np.random.default_rng(1).standard_normal((2, 2, 3, 50, 8))
    scores = scale * q @ k.swapaxes(-1, -2)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    expected = weights / weights.sum(axis=-1, keepdims=True) @ v
    found = bidirectional_attention(*(mx.array(x.astype(np.float32)) for x in (q, k, v)), scale=scale)
    np.testing.assert_allclose(np.array(found), expected, atol=2e-5 * scale)


def test_gelu_of_weights_that_cannot_be_read_is_an_error(either, tmp_path):
    """MLX fills an array whose file ends early with anything, and says so once."""
    np.save(tmp_path / "x.npy", np.ones(2 * activations.CACHE_BLOCK, np.float32))
    x = mx.load(str(tmp_path / "x.npy"))
    os.truncate(tmp_path / "x.npy", 500)
    with pytest.raises(RuntimeError, match="read"), backend.repaired_scheduler():
        mx.eval(gelu(x))
