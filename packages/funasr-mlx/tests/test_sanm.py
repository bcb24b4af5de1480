"""The encoder's parts."""

import math

import mlx.core as mx
import numpy as np
import pytest

from funasr_mlx.networks.sanm import Memory, SANMConfig, SANMEncoder, padding_mask, position_encoding
from mlx_core import backend
from mlx_core.errors import ConfigError, InputError

RNG = np.random.default_rng(3)


def normal(*shape):
    return mx.array(RNG.standard_normal(shape).astype(np.float32))


@pytest.mark.parametrize(("kernel", "shift"), [(5, 0), (5, 1), (5, 4), (4, 0), (1, 0)])
@pytest.mark.parametrize("lengths", [None, [7, 4]])
def test_the_memory_is_a_depthwise_convolution(kernel, shift, lengths):
    memory = Memory(3, kernel, shift)
    memory.weight = normal(3, kernel, 1)
    x = normal(2, 7, 3)
    mask = None if lengths is None else padding_mask(lengths, 2, 7)
    kept = np.array(x) * (1 if mask is None else np.array(mask)[..., None])
    before = (kernel - 1) // 2 + shift
    expected = kept.copy()
    for t in range(7):
        for k in range(kernel):
            if 0 <= t + k - before < 7:
                expected[:, t] += np.array(memory.weight)[:, k, 0] * kept[:, t + k - before]
    if mask is not None:
        expected *= np.array(mask)[..., None]
    np.testing.assert_allclose(memory(x, mask), expected, atol=1e-5)


def test_a_memory_goes_on_from_the_frames_before():
    memory = Memory(3, 5, 2)  # looks back only
    memory.weight = normal(3, 5, 1)
    x = normal(1, 9, 3)
    parts = [memory(x[:, :4], before=mx.zeros((1, 4, 3))), memory(x[:, 4:], before=x[:, :4])]
    np.testing.assert_allclose(mx.concatenate(parts, axis=1), memory(x), atol=1e-6)


def test_memories_are_the_same_on_every_backend():
    memory = Memory(3, 5)
    memory.weight = normal(3, 5, 1)
    x = normal(4, 11, 3)
    found = []
    for fast in (True, False):
        with backend.override(fast_convolutions=fast):
            found.append(np.array(memory(x)))
    np.testing.assert_allclose(*found, atol=1e-5)


@pytest.mark.parametrize("shape", [(0, 5, 3), (2, 0, 3)])
def test_a_memory_of_nothing_is_nothing(shape):
    assert Memory(3, 5)(mx.zeros(shape)).shape == shape


def test_positions_start_at_one():
    found = np.array(position_encoding(1, 2, 6))
    inverse = [1, 100**-1, 10000**-1]
    np.testing.assert_allclose(found[1], [math.sin(2 * i) for i in inverse] + [math.cos(2 * i) for i in inverse], 1e-5)
    np.testing.assert_array_equal(position_encoding(2, 1, 6), found[1:])


def test_a_row_of_nothing_is_finite():
    encoder = SANMEncoder(SANMConfig(output_size=8, attention_heads=2, linear_units=8, num_blocks=2), 12)
    found = encoder(normal(2, 5, 12), padding_mask([5, 0], 2, 5))
    assert mx.isfinite(found).all().item()


@pytest.mark.parametrize("lengths", [[3], [3, -1], [3, 6], [3.0, 2.0], [[3, 3]]])
def test_lengths_that_dont_fit_are_refused(lengths):
    with pytest.raises(InputError, match="lengths must be"):
        padding_mask(lengths, 2, 5)


def test_full_rows_need_no_mask():
    assert padding_mask([5, 5], 2, 5) is None
    assert np.array(padding_mask(mx.array([5, 2]), 2, 5)).sum(axis=1).tolist() == [5, 2]


@pytest.mark.parametrize(
    "change",
    [
        {"output_size": 9},
        {"input_layer": "conv2d"},
        {"normalize_before": False},
        {"concat_after": True},
        {"selfattention_layer_type": "selfattn"},
        {"num_blocks": 0},
        {"tp_blocks": -1},
        {"kernel_size": "11"},
    ],
)
def test_encoders_that_arent_known_are_refused(change):
    with pytest.raises(ConfigError, match=next(iter(change))):
        SANMConfig.from_dict(change)
