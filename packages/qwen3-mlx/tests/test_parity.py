"""Logits and greedy continuations against transformers, and checkpoints that mlx-lm wrote. See goldens/README.md."""

import json
import shutil
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from safetensors.numpy import load_file

from qwen3_mlx import ConcatKeyValueCache, KVCache, RotatingKVCache, generate, load_model, save_model

GOLDENS = Path(__file__).parent / "goldens"
TRANSFORMERS = json.loads((GOLDENS / "transformers" / "cases.json").read_text())
MLX_LM = json.loads((GOLDENS / "mlx_lm" / "cases.json").read_text())["cases"]

# fp32 on both sides; what is left is the order of summation. Logits are of order 5.
TOLERANCE = 2e-4


def checkpoint(case, layout, target):
    """A folder with the case's weights and the config of one layout."""
    source = GOLDENS / "transformers" / case
    for file in source.glob("model*"):
        shutil.copy(file, target)
    shutil.copy(source / f"config.{layout}.json", target / "config.json")
    return target


def golden(case, version="v5"):
    source = GOLDENS / "transformers" / case
    files = [source / "io.safetensors", source / f"io.{version}.safetensors"]
    return load_file(next(file for file in files if file.exists()))


def error(logits, wanted):
    return float(np.abs(np.array(logits.astype(mx.float32)) - wanted).max())


@pytest.mark.parametrize("layout", ["hub", "v4", "v5"])
@pytest.mark.parametrize("case", TRANSFORMERS)
def test_a_full_pass(case, layout, tmp_path):
    model = load_model(checkpoint(case, layout, tmp_path), dtype="float32")
    io = golden(case)
    assert error(model(mx.array(io["tokens"])), io["logits"]) < TOLERANCE


@pytest.mark.parametrize("kind", ["model", "concat", "step", "rotating", "rotating-keep"])
@pytest.mark.parametrize("case", [name for name, row in TRANSFORMERS.items() if not row["by_length"]])
def test_token_by_token_and_in_chunks(case, kind, tmp_path):
    model = load_model(checkpoint(case, "v5", tmp_path), dtype="float32")
    io = golden(case)
    tokens = mx.array(io["tokens"])
    length = tokens.shape[1]
    for chunks in ([1] * length, [length - 3, 1, 2], [5, 1, 1, length - 7]):
        cache = {
            "model": model.make_cache,
            "concat": lambda: [ConcatKeyValueCache() for _ in model.layers],
            "step": lambda: [KVCache(step=16) for _ in model.layers],
            "rotating": lambda: [RotatingKVCache(layer.window or length) for layer in model.layers],
            "rotating-keep": lambda: [RotatingKVCache(length, keep=4) for _ in model.layers],
        }[kind]()
        parts, start = [], 0
        for n in chunks:
            parts.append(model(tokens[:, start : start + n], cache))
            start += n
        assert error(mx.concatenate(parts, axis=1), io["logits"]) < TOLERANCE


@pytest.mark.parametrize("case", TRANSFORMERS)
def test_greedy_continuations(case, tmp_path):
    model = load_model(checkpoint(case, "v4", tmp_path), dtype="float32")
    io = golden(case)
    prompt, wanted = io["greedy_prompt"][0].tolist(), io["greedy"][0].tolist()
    if case == "qwen2_dynamic":  # crosses the limit: the reference recomputes everything for each token
        found = []
        for _ in wanted:
            logits = model(mx.array([prompt + found]))
            found.append(mx.argmax(logits[0, -1]).item())
    else:
        found = generate(model, None, prompt, max_tokens=len(wanted)).tokens
    assert found == wanted


def test_experts_fused_by_transformers_5(tmp_path):
    folder = checkpoint("qwen3_moe_window", "v5", tmp_path)
    (folder / "model.safetensors").unlink()
    shutil.copy(GOLDENS / "transformers" / "qwen3_moe_window" / "fused.safetensors", folder / "model.safetensors")
    io = golden("qwen3_moe_window")
    assert error(load_model(folder, dtype="float32")(mx.array(io["tokens"])), io["logits"]) < TOLERANCE


def mlx_lm_checkpoint(case, target):
    for file in (GOLDENS / "mlx_lm" / case).iterdir():
        if file.name != "io.safetensors":
            shutil.copy(file, target)
    return target


@pytest.mark.parametrize("keep_packed", [True, False])
@pytest.mark.parametrize("case", MLX_LM)
def test_checkpoints_that_mlx_lm_wrote(case, keep_packed, tmp_path):
    model = load_model(mlx_lm_checkpoint(case, tmp_path), dtype="float32", keep_packed=keep_packed)
    packed = sum(hasattr(module, "bits") for module in model.modules())
    assert bool(packed) == (keep_packed and "bf16" not in case)
    io = load_file(GOLDENS / "mlx_lm" / case / "io.safetensors")
    assert error(model(mx.array(io["tokens"])), io["logits"]) < TOLERANCE


@pytest.mark.parametrize("case", MLX_LM)
def test_saving_gives_the_checkpoint_back(case, tmp_path):
    """What is loaded and saved again holds the same tensors under the same names, and the same quantisation."""
    (tmp_path / "source").mkdir()
    source = mlx_lm_checkpoint(case, tmp_path / "source")
    model = load_model(source, dtype="bfloat16", keep_packed=True)
    config = json.loads((source / "config.json").read_text())
    save_model(tmp_path / "saved", model, config, max_shard_bytes=60_000)
    assert len(list((tmp_path / "saved").glob("*.safetensors"))) > 1
    again = {}
    for file in (tmp_path / "saved").glob("*.safetensors"):
        again.update(mx.load(str(file)))
    first = mx.load(str(source / "model.safetensors"))
    assert again.keys() == first.keys()
    assert all(mx.array_equal(again[name], first[name]) for name in first)
    restored = load_model(tmp_path / "saved", dtype="float32", keep_packed=True)
    io = load_file(GOLDENS / "mlx_lm" / case / "io.safetensors")
    assert error(restored(mx.array(io["tokens"])), io["logits"]) < TOLERANCE
