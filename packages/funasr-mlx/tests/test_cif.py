"""Integrate-and-fire: its laws, its definition frame by frame, and its differentiable form."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from funasr_mlx.networks.cif import PredictorConfig, cif_weights, integrate_and_fire, make_predictor
from mlx_core.errors import ConfigError

# Eighths: every sum is exact, so that the order of summation decides nothing.
ALPHAS = arrays(np.int64, array_shapes(min_dims=2, max_dims=2, max_side=30), elements=st.integers(0, 7)).map(
    lambda x: (x / 8).astype(np.float32)
)
FAST = arrays(np.int64, array_shapes(min_dims=2, max_dims=2, max_side=30), elements=st.integers(0, 20)).map(
    lambda x: (x / 8).astype(np.float32)
)


def frame_by_frame(alphas):
    """The definition for one row: what each token takes of each frame, and the sums before they are reduced."""
    tokens, peaks, taken, total = [], [], np.zeros(len(alphas)), 0.0
    for t, alpha in enumerate(alphas):
        total += alpha
        peaks.append(total)
        taken[t] = alpha
        if total >= 1:
            total -= 1
            taken[t] = alpha - total
            tokens.append(taken)
            taken = np.zeros(len(alphas))
            taken[t] = total
    return tokens, peaks


@given(ALPHAS | FAST)
def test_what_fires_is_what_fires_frame_by_frame(alphas):
    weights, token_num, peaks = integrate_and_fire(alphas, catch_up=True, tail=True)
    assert weights.shape == (len(alphas), token_num.max(), alphas.shape[1])
    for row, count, sums, frames in zip(weights, token_num, peaks, alphas, strict=True):
        tokens, expected = frame_by_frame(frames)
        np.testing.assert_array_equal(sums, expected)
        assert count == int(frames.sum())
        fired = min(count, len(tokens))
        np.testing.assert_array_equal(row[:fired], np.array(tokens[:fired]).reshape(fired, len(frames)))
        assert not row[fired:].any()


@given(ALPHAS)
def test_both_predictors_agree_where_no_frame_is_a_whole_token(alphas):
    for one, other in zip(
        integrate_and_fire(alphas, catch_up=True, tail=True),
        integrate_and_fire(alphas, catch_up=False, tail=True),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


@given(ALPHAS)
def test_a_token_is_made_of_one_and_a_frame_gives_no_more_than_it_has(alphas):
    weights, token_num, _ = integrate_and_fire(alphas, catch_up=False, tail=True)
    assert (weights >= 0).all()
    for row, count in zip(weights, token_num, strict=True):
        np.testing.assert_array_equal(row[:count].sum(axis=1), 1)
    assert (weights.sum(axis=1) <= alphas).all()


@given(ALPHAS)
def test_the_differentiable_form_is_the_same(alphas):
    weights, token_num, _ = integrate_and_fire(alphas, catch_up=False, tail=True)
    count = weights.shape[1]
    found = np.array(cif_weights(mx.array(alphas), count))
    whole = np.arange(count) < token_num[:, None]
    np.testing.assert_array_equal(found * whole[..., None], weights)


def test_it_can_be_learnt():
    alphas = mx.array([[0.5, 0.25, 0.75, 0.125]])

    def second_frame_of_first_token(a):
        return cif_weights(a, 2)[0, 0, 2]  # 1 - alpha_0 - alpha_1

    np.testing.assert_allclose(mx.grad(second_frame_of_first_token)(alphas), [[-1, -1, 0, 0]])


def test_a_sum_that_is_whole_but_for_rounding_fires():
    alphas = np.array([[0.75, 0.25 - 2e-8]], np.float32)  # 1 in float32, less in float64
    assert alphas.sum(dtype=np.float64) < 1
    for catch_up in (True, False):
        weights, token_num, peaks = integrate_and_fire(alphas, catch_up, tail=True)
        assert token_num.tolist() == [1]
        assert peaks[0, 1] >= 1
        np.testing.assert_array_equal(weights[0], alphas)


def test_without_a_tail_tokens_are_rounded():
    weights, token_num, _ = integrate_and_fire(np.full((1, 5), 0.375, np.float32), catch_up=False, tail=False)
    assert token_num.tolist() == [2]  # of 1.875
    assert weights[0, 0].tolist() == [0.375, 0.375, 0.25, 0, 0]
    assert not weights[0, 1].any()


def test_long_recordings_neither_lose_nor_gain_tokens():
    alphas = np.full((1, 8000), 0.1, np.float32)
    assert np.cumsum(alphas, axis=1)[0, -1] < 799.96
    for catch_up in (True, False):
        _, token_num, peaks = integrate_and_fire(alphas, catch_up, tail=True)
        assert token_num.tolist() == [800]
        assert (peaks >= 1).sum() == 800


@pytest.mark.parametrize("change", [{"upsample_type": "linear"}, {"l_order": -1}, {"idim": 0}])
def test_predictors_that_arent_known_are_refused(change):
    with pytest.raises(ConfigError, match=next(iter(change))):
        PredictorConfig.from_dict({"idim": 4, "l_order": 1, "r_order": 1} | change)


def test_a_threshold_is_v3_s():
    config = {"idim": 4, "l_order": 1, "r_order": 1, "threshold": 0.9}
    make_predictor("CifPredictorV2", config)
    with pytest.raises(ConfigError, match="threshold"):
        make_predictor("CifPredictorV3", config)
