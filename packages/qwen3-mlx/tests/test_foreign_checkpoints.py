"""Checkpoints that AutoAWQ, AutoGPTQ and the mxfp4 format hold, loaded as they are. See goldens/README.md."""

import json
import shutil
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from safetensors.numpy import load_file

from mlx_core import backend
from mlx_core.errors import ConfigError, WeightsError
from mlx_core.models import split_parameters
from qwen3_mlx import load_model, save_model

GOLDENS = Path(__file__).parent / "goldens" / "legacy"
CASES = json.loads((GOLDENS / "cases.json").read_text())["cases"]

# fp32 on both sides, and weights that are equal; what is left is the order of summation. Logits are of order 4.
TOLERANCE = 2e-5


def checkpoint(case, folder):
    for name in ("config.json", "model.safetensors"):
        shutil.copy(GOLDENS / case / name, folder)
    return folder


def change(folder, edit):
    """Save the tensors again, changed."""
    weights = dict(mx.load(str(folder / "model.safetensors")))
    edit(weights)
    mx.eval(weights)
    mx.save_safetensors(str(folder / "model.safetensors"), weights)


def describe(folder, entry):
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = entry(config["quantization_config"])
    (folder / "config.json").write_text(json.dumps(config))


def error(model, io):
    return np.abs(np.array(model(mx.array(io["tokens"])).astype(mx.float32)) - io["logits"]).max()


@pytest.mark.parametrize("keep_packed", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_logits(case, keep_packed, tmp_path):
    model = load_model(checkpoint(case, tmp_path), dtype="float32", keep_packed=keep_packed)
    assert error(model, load_file(GOLDENS / case / "io.safetensors")) < TOLERANCE
    assert any(hasattr(module, "bits") for module in model.modules()) == keep_packed


@pytest.mark.parametrize("case", CASES)
def test_dequantised_weights_are_those_of_the_definition(case, tmp_path):
    model = load_model(checkpoint(case, tmp_path), dtype="float32", keep_packed=False)
    name = "model.layers.0.self_attn.k_proj.weight"
    wanted = load_file(GOLDENS / case / "io.safetensors")[name]
    assert np.array_equal(np.array(split_parameters(model)[name]), wanted)


@pytest.mark.parametrize("case", CASES)
def test_what_is_saved_is_mlxs_own_and_loads_again(case, tmp_path):
    (tmp_path / "source").mkdir()
    model = load_model(checkpoint(case, tmp_path / "source"), dtype="float32", keep_packed=True)
    save_model(tmp_path / "saved", model, json.loads((tmp_path / "source" / "config.json").read_text()))
    assert "quant_method" not in json.loads((tmp_path / "saved" / "config.json").read_text())["quantization_config"]
    again = load_model(tmp_path / "saved", dtype="float32", keep_packed=True)
    tokens = mx.array(load_file(GOLDENS / case / "io.safetensors")["tokens"])
    assert mx.array_equal(again(tokens), model(tokens))


def test_the_checkpoints_dtype_is_that_of_its_scales(tmp_path):
    """The biases, which are made here, must not turn a half-precision model into an fp32 one."""
    with backend.override(compute_dtype="checkpoint"):
        model = load_model(checkpoint("gptq_desc_act", tmp_path), keep_packed=True)
    assert {value.dtype for value in split_parameters(model).values()} == {mx.float16, mx.uint32}


def test_what_is_dequantised_is_said(tmp_path):
    assert "7 of 8 gptq layers dequantised" in str(load_model(checkpoint("gptq_desc_act", tmp_path)).load_report)
    assert "gptq" not in str(load_model(checkpoint("gptq", tmp_path), keep_packed=True).load_report)


def test_biases_that_the_model_has_no_place_for_must_be_zeros(tmp_path):
    name = "model.layers.0.mlp.down_proj.bias"
    change(checkpoint("gptq", tmp_path), lambda weights: weights.update({name: mx.zeros(64).at[3].add(1)}))
    with pytest.raises(WeightsError, match=r"no place in the model: model\.layers\.0\.mlp\.down_proj\.bias"):
        load_model(tmp_path)


def test_biases_of_zeros_that_the_model_needs_stay(tmp_path):
    name = "model.layers.0.self_attn.q_proj.bias"
    change(checkpoint("awq", tmp_path), lambda weights: weights.update({name: mx.zeros(64)}))
    assert mx.array_equal(split_parameters(load_model(tmp_path))[name], mx.zeros(64))


@pytest.mark.parametrize(
    "method",
    [
        "bitsandbytes",
        "compressed-tensors",
        "fp8",
        "fbgemm_fp8",
        "hqq",
        "aqlm",
        "eetq",
        "quanto",
        "torchao",
        "gguf",
        "exl3",
    ],
)
def test_other_methods_are_refused_by_name(method, tmp_path):
    describe(checkpoint("awq", tmp_path), lambda _: {"quant_method": method, "bits": 4})
    with pytest.raises(ConfigError, match=rf"'{method}'.*awq, gptq, mxfp4.*mlx-community"):
        load_model(tmp_path)


@pytest.mark.parametrize("entry", [{"load_in_4bit": True}, {"load_in_8bit": True, "llm_int8_threshold": 6.0}])
def test_older_entries_of_bitsandbytes_are_recognised(entry, tmp_path):
    describe(checkpoint("awq", tmp_path), lambda _: entry)
    with pytest.raises(ConfigError, match="bitsandbytes"):
        load_model(tmp_path)


def test_names_in_capitals(tmp_path):
    describe(checkpoint("awq", tmp_path), lambda entry: {**entry, "quant_method": "AWQ", "version": "GEMM"})
    assert load_model(tmp_path, keep_packed=True).layers[0].mlp.down_proj.bits == 4


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("qweight", mx.zeros((64, 32), mx.int32)),  # of a wider model
        ("qzeros", None),
        ("scales", mx.ones((4, 64), mx.float16)),
    ],
)
def test_layers_that_do_not_fit_are_named(name, value, tmp_path):
    def damage(weights):
        weights.pop(f"model.layers.0.mlp.down_proj.{name}")
        if value is not None:
            weights[f"model.layers.0.mlp.down_proj.{name}"] = value

    change(checkpoint("awq", tmp_path), damage)
    with pytest.raises(WeightsError, match=r"model\.layers\.0\.mlp\.down_proj"):
        load_model(tmp_path)


def test_an_embedding_that_is_quantised_along_its_words_is_refused(tmp_path):
    """GPTQModel packs embeddings the other way round."""

    def edit(weights):
        weights.pop("model.embed_tokens.weight")
        weights |= {f"model.embed_tokens.{key}": value for key, value in parts.items()}

    parts = {
        "qweight": mx.zeros((8, 64), mx.int32),
        "qzeros": mx.zeros((1, 8), mx.int32),
        "scales": mx.ones((1, 64), mx.float16),
    }
    change(checkpoint("gptq", tmp_path), edit)
    with pytest.raises(WeightsError, match=r"model\.embed_tokens is quantised"):
        load_model(tmp_path)
