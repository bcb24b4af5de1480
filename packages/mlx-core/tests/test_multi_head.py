"""Attention in heads, by polynomials and by MLX's kernel."""

import mlx.core as mx
import numpy as np
import pytest

from mlx_core import backend
from mlx_core.ops import merge_heads, multi_head, split_heads

RNG = np.random.default_rng(3)


def normal(*shape):
    return mx.array(RNG.standard_normal(shape).astype(np.float32))


def frames(lengths):
    """A mask `[B, 9]`."""
    return mx.array(np.arange(9) < np.array(lengths)[:, None])


@pytest.fixture
def any_size(monkeypatch):
    """Attention in blocks however few the scores are."""
    monkeypatch.setattr("mlx_core.ops.attention._FEWEST_SCORES", 0)


@pytest.mark.parametrize("lengths", [None, [9, 5]])
def test_attention_is_softmax_however_it_is_computed(any_size, lengths):
    q, k, v = normal(2, 6, 8) * 3, normal(2, 9, 8) * 3, normal(2, 9, 8)
    mask = None if lengths is None else frames(lengths)
    heads = [np.array(x).reshape(2, -1, 2, 4).transpose(0, 2, 1, 3) for x in (q, k, v)]
    scores = heads[0] @ heads[1].transpose(0, 1, 3, 2) / 2
    if mask is not None:
        scores = np.where(np.array(mask)[:, None, None], scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    expected = (weights / weights.sum(-1, keepdims=True) @ heads[2]).transpose(0, 2, 1, 3).reshape(2, 6, 8)
    for fast in (True, False):
        with backend.override(fast_elementwise=fast):
            np.testing.assert_allclose(multi_head(q, k, v, 2, mask=mask), expected, atol=2e-6)


@pytest.mark.parametrize("block", [1, 13, 54, 108, 120, 1000])
def test_attention_is_worked_off_in_blocks(any_size, block, monkeypatch):
    """Queries of a head, heads of a row, rows."""
    q, k, v = normal(3, 6, 8), normal(3, 9, 8), normal(3, 9, 8)
    mask = frames([9, 4, 7])
    with backend.override(fast_elementwise=True):
        whole = multi_head(q, k, v, 2, mask=mask)
        monkeypatch.setattr("mlx_core.ops.attention._SCORES", block)
        np.testing.assert_allclose(multi_head(q, k, v, 2, mask=mask), whole, atol=1e-6)


def test_gradients_through_attention_are_those_of_mlx(any_size):
    q, k, v = normal(1, 5, 4), normal(1, 7, 4), normal(1, 7, 4)
    found = []
    for fast in (True, False):
        with backend.override(fast_elementwise=fast):
            found.append(mx.grad(lambda *x: (multi_head(*x, 2) ** 2).sum(), argnums=(0, 1, 2))(q, k, v))
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_heads_are_neighbouring_numbers():
    x = mx.arange(2 * 3 * 8).reshape(2, 3, 8)
    heads = split_heads(x, 2)
    assert heads.shape == (2, 2, 3, 4)
    assert mx.array_equal(heads[1, 1, 2], x[1, 2, 4:])
    assert mx.array_equal(merge_heads(heads), x)
