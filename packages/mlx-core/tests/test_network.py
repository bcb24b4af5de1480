"""Networks filled by checkpoints: what is refused, weight norm, layouts, and packed weights written and read."""

import json
import re
import threading
from dataclasses import dataclass
from typing import ClassVar

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_core import backend
from mlx_core.errors import ConfigError, ConversionError, MissingCheckpointError, WeightsError
from mlx_core.models import (
    CheckpointModule,
    Conv1d,
    Conv2d,
    ConvTranspose1d,
    check_sizes,
    fold_weight_norm,
    sizes,
)

SHAPES = {
    "conv.weight": (6, 2, 5),  # [O, I / groups, K]
    "conv.bias": (6,),
    "up.weight": (6, 3, 4),  # [I, O, K]
    "up.bias": (3,),
    "image.weight": (2, 1, 3, 3),  # [O, I, KH, KW]
    "linear.weight": (8, 64),
    "linear.bias": (8,),
    "narrow.weight": (8, 24),
    "narrow.bias": (8,),
}


class Small(CheckpointModule):
    model_type = "small"
    unused = re.compile(r"training\.")
    packable: ClassVar[re.Pattern[str] | None] = re.compile(r"^(linear|narrow)$")

    def __init__(self, width):
        super().__init__()
        self.conv = Conv1d(4, 6, 5, stride=2, padding=2, groups=2)
        self.up = ConvTranspose1d(6, 3, 4, stride=2, padding=1)
        self.image = Conv2d(1, 2, 3, padding=1, bias=False)
        self.linear = nn.Linear(width, 8)
        self.narrow = nn.Linear(24, 8)

    @classmethod
    def build(cls, config, weights):
        return cls(config.get("width", 64))

    def sanitize(self, weights):
        return {name.removeprefix("model."): value for name, value in weights.items()}


class Unpackable(Small):
    packable: ClassVar[re.Pattern[str] | None] = None


def draw(seed=0, **changes):
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in (SHAPES | changes).items()}


def equal(network, weights):
    found = network.state_dict()
    return found.keys() == weights.keys() and all((np.array(found[name]) == weights[name]).all() for name in weights)


def test_a_state_dict_keeps_the_checkpoint_s_names_and_layouts():
    weights = draw()
    network = Small.from_state_dict({}, weights)
    assert network.conv.weight.shape == (6, 5, 2)
    assert network.up.weight.shape == (3, 4, 6)
    assert network.image.weight.shape == (2, 3, 3, 1)
    assert equal(network, weights)
    assert equal(Small.from_state_dict(None, network.state_dict()), weights)
    named = {f"model.{name}": value for name, value in weights.items()}
    assert equal(Small.from_state_dict({}, {**named, "training.step": np.zeros(1)}), weights)
    assert not network.training


def test_convolutions_by_their_definitions():
    weights = draw()
    network = Small.from_state_dict({}, weights)
    x = np.random.default_rng(1).standard_normal((1, 9, 4)).astype(np.float32)
    padded, expected = np.pad(x[0], [(2, 2), (0, 0)]), np.zeros((5, 6))
    for t in range(5):
        for o in range(6):
            own = slice(0, 2) if o < 3 else slice(2, 4)
            expected[t, o] = (padded[2 * t : 2 * t + 5, own].T * weights["conv.weight"][o]).sum()
    found = network.conv(mx.array(x))
    np.testing.assert_allclose(np.array(found)[0], expected + weights["conv.bias"], atol=1e-4)

    spread, y = np.zeros((2 * 4 + 4, 3)), np.array(found)[0]
    for t in range(5):
        for k in range(4):
            spread[2 * t + k] += y[t] @ weights["up.weight"][:, :, k]
    expected = spread[1:-1] + weights["up.bias"]
    np.testing.assert_allclose(np.array(network.up(found))[0], expected, atol=1e-4)

    image = np.random.default_rng(2).standard_normal((4, 5)).astype(np.float32)
    padded = np.pad(image, 1)
    expected = [
        [(padded[i : i + 3, j : j + 3] * weights["image.weight"][1, 0]).sum() for j in range(5)] for i in range(4)
    ]
    found = network.image(mx.array(image)[None, :, :, None])
    np.testing.assert_allclose(np.array(found)[0, :, :, 1], expected, atol=1e-5)


def test_windows_are_what_a_kernel_meets():
    conv, x = Conv1d(1, 2, 3, stride=2), mx.arange(8.0).reshape(1, 8, 1)
    assert conv.windows(x).tolist() == [[[0, 1, 2], [2, 3, 4], [4, 5, 6]]]


def test_numpy_s_wide_numbers_become_float32():
    weights = {name: value.astype(np.float64) for name, value in draw().items()}
    network = Small.from_state_dict({}, weights, dtype="float16")
    assert network.linear.weight.dtype == mx.float16
    with backend.override(compute_dtype="checkpoint"):
        network = Small.from_state_dict({}, weights)
        assert {value.dtype for value in network.state_dict().values()} == {mx.float32}
        halves = {name: value.astype(np.float16) for name, value in weights.items()}
        assert Small.from_state_dict({}, halves).conv.weight.dtype == mx.float16


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conv.bias": None}, r"1 tensors are missing: conv\.bias"),
        ({"more": np.zeros(2, np.float32)}, r"1 tensors have no place in the model: more"),
        ({"conv.weight": np.zeros((6, 5, 2), np.float32)}, r"'conv.weight' has shape \(6, 5, 2\).*\(6, 2, 5\)"),
        ({"linear.bias": np.zeros(8, np.int32)}, r"'linear.bias' is .*int32; expected a floating-point dtype"),
        ({"linear.bias": [0.0] * 8}, r"linear\.bias is a list"),
        ({"linear.bias": np.array(["x"] * 8)}, r"linear\.bias is a ndarray"),
    ],
)
def test_tensors_that_do_not_fit(change, message):
    weights = {name: value for name, value in {**draw(), **change}.items() if value is not None}
    with pytest.raises(WeightsError, match=message):
        Small.from_state_dict({}, weights)


@pytest.mark.parametrize("width", ["wide", -1, 2.5])
def test_configurations_that_cannot_be_built(width):
    with pytest.raises(ConfigError, match="the small configuration describes no model"):
        Small.from_state_dict({"width": width}, draw())


def test_building_leaves_the_global_random_state():
    mx.random.seed(3)
    expected = mx.random.uniform(shape=(4,)).tolist()
    mx.random.seed(3)
    Small.from_state_dict({}, draw())
    assert mx.random.uniform(shape=(4,)).tolist() == expected


SPELLINGS = [("weight_g", "weight_v"), ("parametrizations.weight.original0", "parametrizations.weight.original1")]


@settings(max_examples=20)
@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    wide=st.integers(0, 3),
    spelling=st.sampled_from(SPELLINGS),
    prefix=st.sampled_from(["", "a.", "a.b."]),
)
def test_weight_norm_is_folded(shape, wide, spelling, prefix):
    """As torch's `weight_norm(dim=wide)`."""
    wide %= len(shape)
    rng = np.random.default_rng(len(shape))
    direction = rng.standard_normal(shape) + 3
    gain = rng.standard_normal([size if axis == wide else 1 for axis, size in enumerate(shape)])
    # where the wide axis holds one, all axes are, and so is the norm over all of them
    axes = tuple(axis for axis, size in enumerate(gain.shape) if size == 1)
    expected = gain * direction / np.sqrt((direction**2).sum(axis=axes, keepdims=True))
    given_weights = dict(zip((prefix + part for part in spelling), (gain, direction), strict=True))
    arrays = {name: mx.array(value.astype(np.float32)) for name, value in given_weights.items()}
    folded = fold_weight_norm({**arrays, f"{prefix}bias": mx.zeros((1,)), "my_weight_g": mx.ones((1,))})
    assert folded.keys() == {f"{prefix}weight", f"{prefix}bias", "my_weight_g"}
    np.testing.assert_allclose(np.array(folded[f"{prefix}weight"]), expected, rtol=1e-5)


@pytest.mark.parametrize(("gain", "direction"), SPELLINGS)
def test_weight_norm_that_is_incomplete(gain, direction):
    weights = draw()
    v, g = weights.pop("conv.weight"), np.ones((6, 1, 1), np.float32)
    named = {f"conv.{gain}": g, f"conv.{direction}": v}
    norm = np.sqrt((v**2).sum(axis=(1, 2), keepdims=True))
    found = Small.from_state_dict({}, {**weights, **named}).state_dict()["conv.weight"]
    np.testing.assert_allclose(np.array(found), v / norm, rtol=1e-5)
    with pytest.raises(WeightsError, match=re.escape(f"conv.{gain} but no conv.{direction}")):
        Small.from_state_dict({}, {**weights, f"conv.{gain}": g})
    with pytest.raises(WeightsError, match="doesn't fit"):
        Small.from_state_dict({}, {**weights, **named, f"conv.{gain}": np.ones((5, 1, 1), np.float32)})
    with pytest.raises(WeightsError, match="no place in the model"):
        Small.from_state_dict({}, {**weights, f"conv.{direction}": v, "conv.weight": v})


def test_a_saved_network_loads_as_it_was(tmp_path):
    weights, extra = draw(), tmp_path / "vocab.txt"
    extra.write_text("a\n")
    network = Small.from_state_dict({"width": 64, "model_type": "else"}, weights)
    network.save(tmp_path / "out", files={"words.txt": extra})
    assert json.loads((tmp_path / "out/config.json").read_text()) == {"width": 64, "model_type": "small"}
    assert (tmp_path / "out/words.txt").read_text() == "a\n"
    assert equal(Small.load(tmp_path / "out"), weights)
    with pytest.raises(ConversionError):
        network.save(tmp_path / "out")
    (tmp_path / "out/config.json").write_text('{"model_type": "other"}')
    with pytest.raises(ConfigError, match=r"'other'.*'small'"):
        Small.load(tmp_path / "out")
    with pytest.raises(MissingCheckpointError, match="no folder"):
        Small.load(tmp_path / "none")


def test_weights_are_read_by_the_worker_alone(tmp_path, monkeypatch):
    Small.from_state_dict({}, draw()).save(tmp_path / "out")
    threads, evaluate = [], mx.eval

    def recording(*arrays):
        evaluate(*arrays)
        threads.append(threading.current_thread().name)

    monkeypatch.setattr(mx, "eval", recording)
    Small.load(tmp_path / "out")
    assert set(threads) == {"mlx-core-worker"}


def test_a_file_that_ends_after_it_was_opened_is_an_error_of_the_tree(tmp_path, monkeypatch):
    Small.from_state_dict({}, draw()).save(tmp_path / "out")
    build = Small.build.__func__

    def truncating(cls, config, weights):
        with (tmp_path / "out/model.safetensors").open("r+b") as file:
            file.truncate(file.seek(0, 2) // 2)
        return build(cls, config, weights)

    monkeypatch.setattr(Small, "build", classmethod(truncating))
    with pytest.raises(WeightsError, match=r"the small checkpoint: .* can't be read"):
        Small.load(tmp_path / "out")


def test_sources_go_as_the_network_is_computed():
    weights = draw()
    network = Small.from_state_dict({}, weights, consume=True)
    assert not weights
    assert mx.isfinite(network.linear.weight).all()


@pytest.mark.parametrize("bits", [4, 8])
def test_packed_weights_are_written_and_read(tmp_path, bits):
    weights = draw()
    network = Small.from_state_dict({}, weights, dtype="float32")
    network.quantize(bits, 32)
    assert network.linear.bits == bits
    assert isinstance(network.narrow, nn.Linear)  # no whole number of groups
    network.save(tmp_path / "out")
    table = json.loads((tmp_path / "out/config.json").read_text())["quantization"]
    assert (table["bits"], table["group_size"]) == (bits, 32)
    x = mx.random.normal((3, 64), key=mx.random.key(0))
    expected = network.linear(x)
    packed, full = (Small.load(tmp_path / "out", dtype="float32", keep_packed=keep) for keep in (True, False))
    assert mx.array_equal(packed.linear(x), expected)
    assert isinstance(full.linear, nn.Linear)
    np.testing.assert_allclose(np.array(full.linear(x)), np.array(expected), atol=1e-4)
    error = np.abs(np.array(full.linear.weight) - weights["linear.weight"]).max()
    assert 0 < error < np.ptp(weights["linear.weight"]) / (2**bits - 1)  # a step
    # what is saved again is said as it is: packed, or not
    full.save(tmp_path / "full")
    assert "quantization" not in json.loads((tmp_path / "full/config.json").read_text())
    packed.save(tmp_path / "again")
    assert mx.array_equal(Small.load(tmp_path / "again", keep_packed=True).linear.scales, packed.linear.scales)
    for config, change, kind in (
        ({"quantization": {"bits": bits, "group_size": 32}}, {"linear.weight": None}, WeightsError),
        ({"quantization": {"bits": bits, "group_size": 64}}, {}, WeightsError),
        ({"quantization": {"bits": bits, "group_size": 32, "linear": False}}, {}, ConfigError),
    ):
        state = {name: value for name, value in {**network.state_dict(), **change}.items() if value is not None}
        with pytest.raises(kind):
            Small.from_state_dict(config, state, keep_packed=False)


def test_what_cannot_be_packed():
    network = Small.from_state_dict({}, draw())
    for bits, group_size in ((3, 64), (4, 48), (16, 32)):
        with pytest.raises(ConversionError, match="bits must be"):
            network.quantize(bits, group_size)
    with pytest.raises(ConversionError, match="can't be quantised"):
        Unpackable.from_state_dict({}, draw()).quantize(8)


@dataclass
class Sizes:
    width: object


def test_sizes_are_whole_numbers():
    assert sizes({"model": {"a": 1}}, "model") == {"a": 1}
    assert sizes({"a": 1}, "model") == {"a": 1}
    with pytest.raises(ConfigError, match="list"):
        sizes({"model": [1]}, "model")
    for good in (1, 7, [1, 7], []):
        check_sizes(Sizes(good), ("width",), 7)
    for bad in (0, 8, True, 1.0, "1", [1, 8], None):
        with pytest.raises(ConfigError, match="width"):
            check_sizes(Sizes(bad), ("width",), 7)
