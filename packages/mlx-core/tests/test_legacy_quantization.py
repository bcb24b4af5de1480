"""AWQ, GPTQ and mxfp4 tensors in MLX's packing: exactly the weights that the definitions give, or an error that names
what is wrong. The checkpoints that the tools themselves packed are among qwen3-mlx's goldens.
"""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_core.checkpoints import repack
from mlx_core.config import LayerQuantization, QuantizationConfig
from mlx_core.errors import ConfigError, MLXCoreError, WeightsError

AWQ = {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm"}
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False}
MXFP4 = {"quant_method": "mxfp4"}
FP4 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)


def stream(codes, bits):
    """Codes `[n, k]` -> words `[n, k bits / 32]`, each row one stream of bits, the lowest first."""
    each = (codes[..., None] >> np.arange(bits)) & 1
    return np.packbits(each.reshape(len(codes), -1).astype(np.uint8), axis=-1, bitorder="little").view(np.uint32)


def interleaved(codes):
    """AWQ's words of codes `[n, k]`: the i-th nibble holds the code order[i]."""
    order = [0, 2, 4, 6, 1, 3, 5, 7]
    words = np.zeros((len(codes), codes.shape[1] // 8), np.uint32)
    for i, position in enumerate(order):
        words |= codes[:, position::8].astype(np.uint32) << np.uint32(4 * i)
    return words


def numbers(seed, bits, width, outputs, n_groups):
    """Random codes `[I, O]`, zeros `[G, O]` and fp16 scales `[G, O]`."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 2**bits, (width, outputs))
    zeros = rng.integers(0, 2**bits, (n_groups, outputs))
    return codes, zeros, rng.uniform(0.001, 0.1, (n_groups, outputs)).astype(np.float16)


def words(array):
    return mx.array(np.ascontiguousarray(array).view(np.int32))


def awq_layer(path, codes, zeros, scales):
    parts = {"qweight": words(interleaved(codes)), "qzeros": words(interleaved(zeros)), "scales": mx.array(scales)}
    return {f"{path}.{key}": value for key, value in parts.items()}


def gptq_layer(path, bits, codes, zeros, scales, order=None, v2=False):
    if v2:
        packed = stream(zeros, bits)
    elif bits == 3:  # code by code, since codes cross words
        packed = stream((zeros - 1) & 7, bits)
    else:  # word by word, where a zero of 0 borrows from its neighbour
        packed = stream(zeros, bits) - np.uint32(sum(1 << start for start in range(0, 32, bits)))
    parts = {"qweight": words(stream(codes.T, bits).T), "qzeros": words(packed), "scales": mx.array(scales)}
    if order is not None:
        parts["g_idx"] = mx.array(order.astype(np.int32))
    return {f"{path}.{key}": value for key, value in parts.items()}


def weight_of(repacked, path):
    """A layer's weights `[O, I]` in fp32."""
    if f"{path}.scales" not in repacked.weights:
        return np.array(repacked.weights[f"{path}.weight"])
    packing = repacked.quantization.for_path(path)
    parts = [repacked.weights.get(f"{path}.{key}") for key in ("weight", "scales", "biases")]
    if packing.mode == "affine":
        parts[1] = parts[1].astype(mx.float32)
    return np.array(
        mx.dequantize(*parts, packing.group_size, packing.bits, packing.mode, dtype=mx.float32), dtype=np.float32
    )


def meaning(codes, zeros, scales, group):
    return ((codes - zeros[group]) * scales.astype(np.float32)[group]).T.astype(np.float32)


@given(
    seed=st.integers(0, 2**32),
    n_runs=st.integers(1, 6),
    outputs=st.sampled_from([8, 32, 40]),
    group_size=st.sampled_from([-1, 16, 32, 64, 128]),
)
@settings(max_examples=40)
def test_awq_means_what_it_meant(seed, n_runs, outputs, group_size):
    width = 32 * n_runs
    group = np.arange(width) // (group_size if group_size > 0 else width)
    codes, zeros, scales = numbers(seed, 4, width, outputs, group[-1] + 1)
    repacked = repack(awq_layer("a.b", codes, zeros, scales), {**AWQ, "group_size": group_size})
    assert np.array_equal(weight_of(repacked, "a.b"), meaning(codes, zeros, scales, group))
    assert bool(repacked.notes) == (group_size == 16)
    assert repacked.dtype == mx.float16


@given(
    seed=st.integers(0, 2**32),
    bits=st.sampled_from([2, 3, 4, 8]),
    n_runs=st.integers(1, 6),
    group_size=st.sampled_from([-1, 32, 64, 128]),
    kind=st.sampled_from(["absent", "sequential", "unused", "runs", "any"]),
    v2=st.booleans(),
)
@settings(max_examples=80)
def test_gptq_means_what_it_meant(seed, bits, n_runs, group_size, kind, v2):
    width, rng = 32 * n_runs, np.random.default_rng(seed)
    group = np.arange(width) // (group_size if group_size > 0 else width)
    if kind == "runs":
        group = group.reshape(-1, 32)[rng.permutation(n_runs)].reshape(-1)
    elif kind == "any":
        group = rng.permutation(group)
    codes, zeros, scales = numbers(seed, bits, width, 32, group.max() + 1)
    order = {"absent": None, "unused": np.zeros(width)}.get(kind, group)
    table = {**GPTQ, "bits": bits, "group_size": group_size, "checkpoint_format": "gptq_v2" if v2 else "gptq"}
    repacked = repack(gptq_layer("x", bits, codes, zeros, scales, order, v2), table)
    assert np.array_equal(weight_of(repacked, "x"), meaning(codes, zeros, scales, group))
    in_runs = (group.reshape(-1, 32) == group[::32, None]).all()
    assert ("x.scales" in repacked.weights) == in_runs
    assert repacked.notes == (() if in_runs else (repacked.notes[0],))


def test_groups_as_large_as_they_can_be():
    for width, group_size, expected in ((256, -1, 128), (256, 128, 128), (192, 128, 64), (96, -1, 32), (128, 32, 32)):
        group = np.arange(width) // (group_size if group_size > 0 else width)
        layer = awq_layer("x", *numbers(0, 4, width, 8, group[-1] + 1))
        quantization = repack(layer, {**AWQ, "group_size": group_size}).quantization
        assert quantization.for_path("x") == LayerQuantization(expected, 4)


def test_biases_of_symmetric_zeros_are_exact_in_half_precision():
    codes, zeros, scales = numbers(0, 4, 64, 32, 2)
    for zero, exact in ((8, True), (7, False)):
        repacked = repack(gptq_layer("x", 4, codes, np.full_like(zeros, zero), scales), GPTQ)
        biases = repacked.weights["x.biases"]
        assert biases.dtype == mx.float32
        rounded = biases.astype(mx.float16).astype(mx.float32)
        assert mx.array_equal(rounded, biases).item() == exact
        assert mx.abs(rounded / biases - 1).max().item() <= 2**-11


def test_other_tensors_stay_and_the_commonest_packing_is_the_default():
    weights = {"norm.weight": mx.ones(3), "a.bias": mx.ones(32)}
    for path, bits, width in (("a", 4, 64), ("b", 4, 64), ("c", 8, 64), ("d", 4, 32)):
        order = np.arange(width) // 32 * (width > 32)
        weights |= gptq_layer(path, bits, *numbers(1, bits, width, 32, width // 32), order)
    repacked = repack(weights, {**GPTQ, "dynamic": {"c": {"bits": 8}}})
    assert set(repacked.weights) == {"norm.weight", "a.bias"} | {
        f"{path}.{key}" for path in "abcd" for key in ("weight", "scales", "biases")
    }
    assert repacked.quantization == QuantizationConfig(LayerQuantization(32, 4), {"c": LayerQuantization(32, 8)})


@pytest.mark.parametrize("odd", ["order", "bits"])
def test_experts_of_one_projection_are_packed_alike_or_not_at_all(odd):
    weights, order = {}, np.arange(64) // 32
    for expert in range(3):
        for part in ("up_proj", "down_proj"):
            different = part == "up_proj" and expert == 1
            bits = 8 if different and odd == "bits" else 4
            group = order[::-1][np.argsort(np.arange(64) % 2)] if different and odd == "order" else order
            weights |= gptq_layer(f"m.experts.{expert}.{part}", bits, *numbers(2, bits, 64, 32, 2), group)
    repacked = repack(weights, {**GPTQ, "dynamic": {"+:.*": {}}})
    packed = {name.split(".")[3] for name in repacked.weights if name.endswith(".scales")}
    assert packed == {"down_proj"}
    assert "3 of 6" in repacked.notes[0]
    assert repacked.quantization.overrides == {}


def test_experts_of_one_projection_share_the_smallest_group_size():
    weights = {}
    for expert in range(3):
        group = np.arange(128) // 64
        if expert == 1:
            group = np.array([0, 1, 1, 0]).repeat(32)
        weights |= gptq_layer(f"m.experts.{expert}.up_proj", 4, *numbers(5, 4, 128, 32, 2), group)
    repacked = repack(weights, {**GPTQ, "group_size": 64})
    assert repacked.quantization == QuantizationConfig(LayerQuantization(32, 4))
    assert repacked.weights["m.experts.0.up_proj.scales"].shape == (32, 4)


def test_experts_packed_unlike_the_rest_are_dequantised():
    """Experts are stacked under another path, so the table can't say what is different about them."""
    weights = {}
    for path, width in (("a", 128), ("b", 128), ("c", 128), ("m.experts.0.up_proj", 96), ("m.experts.1.up_proj", 96)):
        weights |= awq_layer(path, *numbers(3, 4, width, 8, 1))
    repacked = repack(weights, {**AWQ, "group_size": -1})
    assert repacked.quantization == QuantizationConfig(LayerQuantization(128, 4))
    assert "m.experts.1.up_proj.scales" not in repacked.weights
    wanted = meaning(*numbers(3, 4, 96, 8, 1), np.zeros(96, int))
    assert np.array_equal(weight_of(repacked, "m.experts.1.up_proj"), wanted)


@given(
    seed=st.integers(0, 2**32),
    shape=st.sampled_from([(1, 1), (8, 3), (2, 4, 2)]),
    names=st.sampled_from([("x.weight_blocks", "x.weight_scales"), ("x_blocks", "x_scales")]),
)
def test_mxfp4_means_what_it_meant(seed, shape, names):
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (*shape, 16), dtype=np.uint8)
    scales = rng.integers(1, 250, shape, dtype=np.uint8)
    codes = np.stack([blocks & 15, blocks >> 4], axis=-1).reshape(*shape, 32)
    wanted = np.ldexp(FP4[codes], scales[..., None].astype(np.int32) - 127).reshape(*shape[:-1], -1)
    repacked = repack(dict(zip(names, map(mx.array, (blocks, scales)), strict=True)), MXFP4)
    assert set(repacked.weights) == {"x.weight", "x.scales"}
    assert repacked.quantization == QuantizationConfig(LayerQuantization(32, 4, "mxfp4"))
    assert np.array_equal(weight_of(repacked, "x"), wanted)


def gptq_tensors():
    return gptq_layer("a.q_proj", 4, *numbers(4, 4, 64, 32, 2), np.arange(64) // 32)


def awq_tensors():
    return awq_layer("a.q_proj", *numbers(4, 4, 64, 32, 2))


def mxfp4_tensors():
    return {
        "a.q_proj.weight_blocks": mx.zeros((4, 2, 16), mx.uint8),
        "a.q_proj.weight_scales": mx.ones((4, 2), mx.uint8),
    }


KINDS = {"awq": (awq_tensors, AWQ), "gptq": (gptq_tensors, GPTQ), "mxfp4": (mxfp4_tensors, MXFP4)}


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("awq", "qzeros", None),
        ("awq", "scales", None),
        ("awq", "scales", mx.ones((2, 40))),
        ("awq", "scales", mx.ones((4, 32))),
        ("awq", "scales", mx.ones((2, 32), mx.int32)),
        ("awq", "qzeros", mx.zeros((1, 4), mx.int32)),
        ("awq", "qweight", mx.zeros((64, 4), mx.int16)),
        ("awq", "qweight", mx.zeros((64,), mx.int32)),
        ("awq", "qweight", mx.zeros((40, 4), mx.int32)),
        ("awq", "qweight", mx.zeros((0, 4), mx.int32)),
        ("awq", "weight", mx.zeros((32, 64))),
        ("gptq", "qzeros", None),
        ("gptq", "scales", None),
        ("gptq", "scales", mx.ones((3, 3, 3))),
        ("gptq", "qzeros", mx.zeros((2, 8), mx.int32)),
        ("gptq", "qzeros", mx.zeros((2, 4))),
        ("gptq", "g_idx", mx.zeros(32, mx.int32)),
        ("gptq", "g_idx", mx.zeros(64)),
        ("gptq", "g_idx", mx.full((64,), 2, mx.int32)),
        ("gptq", "g_idx", mx.full((64,), -1, mx.int32)),
        ("gptq", "qweight", mx.zeros((4, 32), mx.int32)),
        ("gptq", "qweight", mx.zeros((9, 32), mx.int32)),
        ("gptq", "weight", mx.zeros((32, 64))),
        ("mxfp4", "weight_scales", None),
        ("mxfp4", "weight_scales", mx.ones((4, 3), mx.uint8)),
        ("mxfp4", "weight_scales", mx.ones((4, 2))),
        ("mxfp4", "weight_blocks", mx.zeros((4, 2, 8), mx.uint8)),
        ("mxfp4", "weight_blocks", mx.zeros((2, 16), mx.uint8)),
        ("mxfp4", "weight_blocks", mx.zeros((), mx.uint8)),
        ("mxfp4", "weight_blocks", mx.zeros((4, 2, 16), mx.int8)),
        ("mxfp4", "weight", mx.zeros((4, 64))),
    ],
)
def test_tensors_that_do_not_fit_are_named(kind, name, value):
    make, table = KINDS[kind]
    weights = make()
    if value is None:
        del weights[f"a.q_proj.{name}"]
    else:
        weights[f"a.q_proj.{name}"] = value
    with pytest.raises(WeightsError, match=r"a\.q_proj"):
        repack(weights, table)


def test_widths_that_no_group_divides_are_named():
    weights = {**gptq_tensors(), "a.q_proj.qweight": mx.zeros((9, 32), mx.int32)}
    del weights["a.q_proj.g_idx"]
    with pytest.raises(WeightsError, match=r"a\.q_proj\.qweight has 72 inputs"):
        repack(weights, {**GPTQ, "group_size": 36})
    weights = {"x_blocks": mx.zeros((2, 16), mx.uint8), "x_scales": mx.zeros((2,), mx.uint8)}
    with pytest.raises(WeightsError, match="x_blocks"):
        repack(weights, MXFP4)


@pytest.mark.parametrize(
    ("kind", "changes", "error", "message"),
    [
        ("awq", {"bits": 3}, ConfigError, "3 bits"),
        ("awq", {"bits": "4"}, ConfigError, "'bits'"),
        ("awq", {"bits": True}, ConfigError, "'bits'"),
        ("awq", {"group_size": 0}, ConfigError, "group_size"),
        ("awq", {"group_size": None}, ConfigError, "group_size"),
        ("awq", {"group_size": 2**64}, ConfigError, "group_size"),
        ("gptq", {"group_size": 10**400}, ConfigError, "group_size"),
        ("awq", {"group_size": 64}, WeightsError, r"a\.q_proj\.scales"),
        ("awq", {"version": "gemv"}, ConfigError, "gemv"),
        ("awq", {"version": "GEMV_fast"}, ConfigError, "gemv_fast"),
        ("awq", {"version": "marlin"}, ConfigError, "marlin"),
        ("awq", {"version": None, "format": "gemv"}, ConfigError, "gemv"),
        ("awq", {"backend": "llm-awq"}, ConfigError, "llm-awq"),
        ("gptq", {"bits": 5}, ConfigError, "5 bits"),
        ("gptq", {"bits": 8}, WeightsError, r"a\.q_proj"),
        ("gptq", {"bits": 3}, WeightsError, r"a\.q_proj\.qweight"),
        ("gptq", {"checkpoint_format": "marlin"}, ConfigError, "marlin"),
        ("gptq", {"checkpoint_format": ["gptq"]}, ConfigError, "gptq"),
        ("gptq", {"format": "gptq_p"}, ConfigError, "gptq_p"),
        ("gptq", {"is_marlin_format": True}, ConfigError, "marlin"),
        ("gptq", {"activation": {"mode": "w4afp8"}}, ConfigError, "activation"),
        ("gptq", {"rotation": "hadamard"}, ConfigError, "rotation"),
    ],
)
def test_tables_that_cannot_be_served(kind, changes, error, message):
    make, table = KINDS[kind]
    with pytest.raises(error, match=message):
        repack(make(), {**table, **changes})


def test_an_order_that_is_missing_matters_only_where_there_is_one():
    weights = gptq_tensors()
    del weights["a.q_proj.g_idx"]
    with pytest.raises(WeightsError, match=r"a\.q_proj\.g_idx"):
        repack(weights, {**GPTQ, "desc_act": True})
    with pytest.raises(WeightsError, match=r"a\.q_proj\.scales"):
        repack(weights, {**GPTQ, "group_size": 64})
    assert "a.q_proj.biases" in repack(weights, GPTQ).weights


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_without_quantised_tensors(kind):
    with pytest.raises(WeightsError, match=kind):
        repack({"norm.weight": mx.ones(4)}, KINDS[kind][1])


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(max_examples=60)
def test_damaged_tensors_raise_what_they_should_or_work(kind, data):
    make, table = KINDS[kind]
    weights = make()
    for name in data.draw(st.lists(st.sampled_from(sorted(weights)), min_size=1, max_size=2)):
        shape = data.draw(st.lists(st.sampled_from([0, 1, 2, 3, 4, 8, 16, 24, 32, 64]), max_size=4))
        dtype = data.draw(st.sampled_from([mx.int32, mx.uint32, mx.int64, mx.uint8, mx.float16, mx.float32]))
        weights[name] = mx.ones(shape, dtype)
    changes = {"bits": st.sampled_from([2, 3, 4, 8]), "group_size": st.sampled_from([-1, 1, 24, 32, 2**30])}
    if kind != "mxfp4":
        table = {**table, **data.draw(st.fixed_dictionaries({}, optional={**changes, "dynamic": st.just({"x": {}})}))}
    try:
        repacked = repack(weights, table)
    except MLXCoreError:
        return
    mx.eval(repacked.weights)
    assert np.isfinite(weight_of(repacked, "a.q_proj")).all()
