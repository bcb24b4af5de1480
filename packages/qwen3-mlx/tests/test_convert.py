"""`convert_model` and the command: what is written is what mlx-lm writes, and gives the logits of what was read."""

import json
import zlib
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mlx_core import ConversionError, Rule, WeightMapping, convert_model, load, load_model
from mlx_core.config import parse_dtype
from mlx_core.errors import ConfigError
from mlx_core.models import split_parameters
from mlx_core.models.quantization import recipe_table
from mlx_core.testing import tiny_model
from qwen3_mlx.cli import main

GOLDENS = Path(__file__).parent / "goldens"
MLX_LM = json.loads((GOLDENS / "mlx_lm" / "cases.json").read_text())["cases"]
TOKENS = mx.array([[5, 6, 7, 8, 9]])


def drawn(name, shape):
    """The checkpoint that scripts/record_golden/mlx_lm_checkpoints.py had mlx-lm convert under this name."""
    rng = np.random.default_rng([3, zlib.crc32(name.encode())])
    if name.endswith(("q_norm.weight", "k_norm.weight")):
        values = rng.uniform(1.0, 2.0, shape)
    elif name.endswith("norm.weight"):
        values = rng.uniform(0.6, 1.4, shape)
    elif name in ("model.embed_tokens.weight", "lm_head.weight"):
        values = 0.11 * rng.standard_normal(shape)
    else:
        values = rng.standard_normal(shape) * (0.3 if name.endswith("bias") else 1.4 / shape[-1] ** 0.5)
    return mx.array(values.astype(np.float32)).astype(mx.bfloat16)


@pytest.mark.parametrize("case", [name for name, row in MLX_LM.items() if row["model_type"] != "qwen3_moe"])
def test_what_is_written_is_what_mlx_lm_writes(case, tmp_path):
    written = mx.load(str(GOLDENS / "mlx_lm" / case / "model.safetensors"))
    config = json.loads((GOLDENS / "mlx_lm" / case / "config.json").read_text())
    table = config.pop("quantization", {})
    config.pop("quantization_config", None)
    source = {}
    for name, value in written.items():
        if name.endswith((".scales", ".biases")):
            continue
        path, shape = name.removesuffix(".weight"), list(value.shape)
        if f"{path}.scales" in written:
            shape[-1] = shape[-1] * 32 // table.get(path, table)["bits"]
        source[name] = drawn(name, tuple(shape))
    folder = tmp_path / "source"
    folder.mkdir()
    mx.save_safetensors(str(folder / "model.safetensors"), source)
    (folder / "config.json").write_text(json.dumps(config))
    convert = MLX_LM[case]["convert"]
    names = {"q_bits": "bits", "q_group_size": "group_size", "q_mode": "mode", "quant_predicate": "recipe"}
    quantize = {names[key]: value for key, value in convert.items() if key in names}
    convert_model(folder, tmp_path / "ours", quantize=quantize or None)
    ours = mx.load(str(tmp_path / "ours" / "model.safetensors"))
    assert ours.keys() == written.keys()
    for name, value in written.items():
        assert ours[name].dtype == value.dtype, name
        assert mx.array_equal(ours[name], value), name


PACKINGS = [({"bits": bits, "group_size": 32}, bits + 1.0) for bits in (2, 3, 4, 5, 6, 8)] + [
    ({"mode": "mxfp4"}, 4.25),
    ({"mode": "mxfp8"}, 8.25),
    ({"mode": "nvfp4"}, 4.5),
    ("mixed_3_6", None),
    (4, None),
]


@pytest.mark.parametrize(("quantize", "bits"), PACKINGS, ids=lambda value: str(value))
def test_a_packed_checkpoint_gives_the_logits_of_packing_at_load(checkpoint, tmp_path, quantize, bits):
    report = convert_model(checkpoint, tmp_path / "packed", quantize=quantize, dtype="float16")
    model, tokenizer, config = load(tmp_path / "packed", keep_packed=True, dtype="float32")
    assert tokenizer.encode("hi") == [71, 72]
    assert config["quantization"] == config["quantization_config"]
    halved = convert_model(checkpoint, tmp_path / "plain", dtype="float16")
    wanted = load_model(tmp_path / "plain", dtype="float16", quantize=quantize)
    found = model(TOKENS)
    plain = load_model(tmp_path / "plain", dtype="float32")(TOKENS)
    low = quantize == {"bits": 2, "group_size": 32}
    assert 1e-4 < mx.abs(found - plain).max().item() < (20 if low else 3)
    at_load = wanted(TOKENS)
    assert mx.abs(found - at_load.astype(mx.float32)).max().item() < 0.05
    if bits is not None:
        assert report.bits_per_weight == pytest.approx(bits, abs=0.5)
    assert halved.bits_per_weight == 16


@pytest.mark.parametrize("source", ["safetensors", "shards"])
@pytest.mark.parametrize("dtype", [None, "float32", "bfloat16"])
def test_every_source_and_dtype(checkpoint, tmp_path, source, dtype):
    if source == "shards":
        convert_model(checkpoint, tmp_path / "shards", max_shard_bytes=30_000)
        assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 3
        checkpoint = tmp_path / "shards"
    wanted = load_model(checkpoint, dtype="float32")(TOKENS)
    calls = []
    convert_model(checkpoint, tmp_path / "out", dtype=dtype, on_progress=lambda *call: calls.append(call))
    weights = mx.load(str(tmp_path / "out" / "model.safetensors"))
    assert {value.dtype for value in weights.values()} == {parse_dtype(dtype) or mx.float32}
    assert calls[-1][0] == calls[-1][1] == sum(value.nbytes for value in weights.values())
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    found = load_model(tmp_path / "out", dtype="float32")(TOKENS)
    assert mx.abs(found - wanted).max().item() < (1e-5 if dtype != "bfloat16" else 0.1)


def test_packed_checkpoints_stay_packed_are_dequantised_or_refused(checkpoint, tmp_path):
    convert_model(checkpoint, tmp_path / "packed", quantize={"bits": 8, "group_size": 32})
    again = convert_model(tmp_path / "packed", tmp_path / "again")
    assert again.bits_per_weight < 11
    for name, value in mx.load(str(tmp_path / "packed" / "model.safetensors")).items():
        assert mx.array_equal(mx.load(str(tmp_path / "again" / "model.safetensors"))[name], value)
    with pytest.raises(ConversionError, match="dequantize"):
        convert_model(tmp_path / "packed", tmp_path / "twice", quantize=4)
    convert_model(tmp_path / "packed", tmp_path / "full", dequantize=True)
    assert "quantization" not in json.loads((tmp_path / "full" / "config.json").read_text())
    model = load_model(tmp_path / "packed", dtype="float32", keep_packed=True)
    full = load_model(tmp_path / "full", dtype="float32")
    assert mx.abs(model(TOKENS) - full(TOKENS)).max().item() < 1e-4
    convert_model(tmp_path / "packed", tmp_path / "other", dequantize=True, quantize={"mode": "mxfp8"})
    assert json.loads((tmp_path / "other" / "config.json").read_text())["quantization"]["mode"] == "mxfp8"
    assert not (tmp_path / "twice").exists()


def test_names_of_another_checkpoint(checkpoint, tmp_path):
    weights = mx.load(str(checkpoint / "model.safetensors"))
    renamed = {name.replace("model.layers.", "h."): value for name, value in weights.items()}
    renamed["h.0.attn.masked_bias"] = mx.array([1.0])
    mx.save_safetensors(str(checkpoint / "model.safetensors"), renamed)
    mapping = WeightMapping([Rule(r"h\.\d+\.attn\.masked_bias", None), Rule(r"h\.(\d+\..+)", r"model.layers.\1")])
    convert_model(checkpoint, tmp_path / "out", mapping=mapping)
    assert mx.load(str(tmp_path / "out" / "model.safetensors")).keys() == weights.keys()


def test_memory_is_bounded_by_a_shard(tmp_path):
    """64 MB of weights through shards of 4 MB, on a device that has done nothing else."""
    model = tiny_model(vocab_size=128, layers=30, hidden_size=256, intermediate_size=512, num_attention_heads=4)
    weights = split_parameters(model)
    folder = tmp_path / "source"
    folder.mkdir()
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    total = sum(value.nbytes for value in weights.values())
    config = {
        "model_type": "llama",
        "vocab_size": 128,
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 30,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    (folder / "config.json").write_text(json.dumps(config))
    del model, weights
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    convert_model(folder, tmp_path / "out", quantize={"bits": 8}, max_shard_bytes=2**21)
    assert len(list((tmp_path / "out").glob("*.safetensors"))) > 5
    assert mx.get_peak_memory() - before < 2 * 2**21 + 2**22 < total / 5


def test_recipes_pack_what_matters_in_more_bits():
    paths = [f"model.layers.{i}.{name}" for i in range(16) for name in ("self_attn.v_proj", "self_attn.q_proj")]
    table = recipe_table("mixed_4_6", ["lm_head", "model.embed_tokens", *paths], 16)
    assert table.default.bits == 4
    high = [path for path, packing in table.overrides.items() if packing.bits == 6]
    assert high == ["lm_head", *(f"model.layers.{i}.self_attn.v_proj" for i in (0, 1, 4, 7, 10, 13, 14, 15))]
    with pytest.raises(ConfigError, match="mixed_2_6"):
        recipe_table("mixed_9", paths, 16)


@pytest.mark.parametrize(
    ("quantize", "message"),
    [
        (7, "bits"),
        ({"bits": 4, "group_size": 48}, "groups"),
        ({"mode": "int3"}, "mode"),
        ("fast", "recipe"),
        ({"recipe": "mixed_4_6", "bits": 4}, "chooses bits"),
        (4.0, "takes bits"),
    ],
)
def test_bad_packings_leave_nothing(checkpoint, tmp_path, quantize, message):
    with pytest.raises(ConfigError, match=message):
        convert_model(checkpoint, tmp_path / "out", quantize=quantize)
    assert [path for path in tmp_path.iterdir() if path != checkpoint] == []


def test_the_command(checkpoint, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["convert", str(checkpoint), str(out), "--bits", "4", "--group-size", "32", "--dtype", "float16"]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{out}\n"
    assert "bits per weight" in captured.err
    assert main(["generate", "hi", "--model", str(out), "--max-tokens", "3"]) == 0
    assert main(["convert", str(checkpoint), str(out)]) == 1
    assert "empty folder" in capsys.readouterr().err
    assert main(["convert", str(checkpoint), str(tmp_path / "recipe"), "--recipe", "mixed_3_6"]) == 0
    assert main(["convert", str(checkpoint), str(tmp_path / "no"), "--max-shard-gb", "0"]) == 1
    assert not (tmp_path / "no").exists()
