"""Checkpoints that load, and every way in which one may not."""

import json
import os
import random
import struct
import threading

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlx_core import backend
from mlx_core.checkpoints import hub
from mlx_core.errors import ConfigError, HubError, MissingCheckpointError, MLXCoreError, WeightsError
from mlx_core.models import convert_model, registry, split_parameters
from qwen3_mlx import load, load_model, save_model

TOKENS = mx.array([[1, 2, 3, 4]])


def edit(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    config.update(changes)
    (folder / "config.json").write_text(json.dumps({key: value for key, value in config.items() if value is not ...}))


def rewrite(folder, change):
    """Save the weights again, changed."""
    weights = dict(mx.load(str(folder / "model.safetensors")))
    change(weights)
    mx.eval(weights)
    mx.save_safetensors(str(folder / "model.safetensors"), weights)


def test_load_gives_model_tokenizer_and_config(checkpoint):
    model, tokenizer, config = load(checkpoint)
    assert config["model_type"] == "qwen3"
    assert tokenizer.decode(tokenizer.encode("hey")) == "hey"
    assert model(TOKENS).shape == (1, 4, 259)
    assert "qkv_proj" in model.layers[0].self_attn
    assert model.load_report.parameters == sum(value.size for value in split_parameters(model).values())


def test_loading_is_deterministic_and_leaves_the_random_state_alone(checkpoint):
    mx.random.seed(4)
    before = [key.tolist() for key in mx.random.state]
    first = load_model(checkpoint)(TOKENS)
    edit(checkpoint, hidden_size=...)
    with pytest.raises(ConfigError):
        load_model(checkpoint)
    assert [key.tolist() for key in mx.random.state] == before
    edit(checkpoint, hidden_size=64)
    assert mx.array_equal(load_model(checkpoint)(TOKENS), first)


def test_lazy_loading_reads_nothing_and_computes_the_same(checkpoint):
    eager = load_model(checkpoint)(TOKENS)
    assert mx.array_equal(load_model(checkpoint, lazy=True)(TOKENS), eager)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", mx.bfloat16, "torch.float16"])
def test_dtypes(checkpoint, dtype):
    wanted = dtype if isinstance(dtype, mx.Dtype) else getattr(mx, dtype.removeprefix("torch."))
    assert load_model(checkpoint, dtype=dtype)(TOKENS).dtype == wanted


def test_the_backend_decides_the_dtype_unless_told(checkpoint, monkeypatch):
    rewrite(
        checkpoint, lambda weights: weights.update({name: value.astype(mx.bfloat16) for name, value in weights.items()})
    )
    wanted = backend.current().compute_dtype or mx.bfloat16
    assert load_model(checkpoint)(TOKENS).dtype == wanted
    with backend.override(compute_dtype="checkpoint"):
        assert load_model(checkpoint)(TOKENS).dtype == mx.bfloat16
    monkeypatch.setenv("MLX_CORE_DTYPE", "float16")
    assert load_model(checkpoint)(TOKENS).dtype == mx.float16
    monkeypatch.setenv("MLX_CORE_DTYPE", "float8")
    with pytest.raises(MLXCoreError, match="MLX_CORE_DTYPE"):
        load_model(checkpoint)


@pytest.mark.parametrize(
    "quantize",
    [8, {"bits": 4, "group_size": 32}, {"mode": "mxfp4"}, {"bits": 6, "model.layers.0.mlp.down_proj": False}],
)
def test_quantising_at_load(checkpoint, quantize, tmp_path):
    plain = load_model(checkpoint, dtype="float32")
    model = load_model(checkpoint, dtype="float32", quantize=quantize)
    assert model.load_report.nbytes < 0.6 * plain.load_report.nbytes
    assert model.load_report.parameters == plain.load_report.parameters
    assert 0 < mx.abs(model(TOKENS) - plain(TOKENS)).max().item() < 3
    save_model(tmp_path / "saved", model, json.loads((checkpoint / "config.json").read_text()))
    again = load_model(tmp_path / "saved", dtype="float32", keep_packed=True)
    assert mx.array_equal(again(TOKENS), model(TOKENS))
    dequantised = load_model(tmp_path / "saved", dtype="float32", keep_packed=False)
    assert mx.allclose(dequantised(TOKENS), model(TOKENS), atol=1e-4)
    assert "dequantised" in str(dequantised.load_report)


def test_packed_weights_stay_packed_where_memory_is_short(checkpoint, tmp_path):
    model = load_model(checkpoint, quantize=4)
    save_model(tmp_path / "saved", model, json.loads((checkpoint / "config.json").read_text()))
    with backend.override(keep_packed=False, dequantize_limit_bytes=100_000):
        loaded = load_model(tmp_path / "saved")
    assert "stay packed" in str(loaded.load_report)
    assert any(hasattr(module, "bits") for module in loaded.modules())


def test_shards_need_no_index(checkpoint):
    weights = dict(mx.load(str(checkpoint / "model.safetensors")))
    mx.eval(weights)
    wanted = load_model(checkpoint)(TOKENS)
    names = sorted(weights)
    for number, part in enumerate((names[:5], names[5:]), 1):
        mx.save_safetensors(
            str(checkpoint / f"model-0000{number}-of-00002.safetensors"), {name: weights[name] for name in part}
        )
    (checkpoint / "model.safetensors").unlink()
    assert mx.array_equal(load_model(checkpoint)(TOKENS), wanted)
    (checkpoint / "model-00001-of-00002.safetensors").unlink()
    with pytest.raises(MissingCheckpointError, match="lacks shard 1 of 2"):
        load_model(checkpoint)


def test_an_index_must_tell_the_truth(checkpoint):
    index, shard = checkpoint / "model.safetensors.index.json", "model-00001-of-00001.safetensors"
    (checkpoint / "model.safetensors").rename(checkpoint / shard)
    names = list(mx.load(str(checkpoint / shard)))
    cases = [
        ({"weight_map": {**dict.fromkeys(names, shard), "ghost": shard}}, "ghost"),
        ({"weight_map": dict.fromkeys(names, "other.safetensors")}, "other.safetensors"),
        ({"weight_map": dict.fromkeys(names, "../model.safetensors")}, "own folder"),
        ({"weight_map": dict.fromkeys(names, "é" * 125 + ".safetensors")}, "own folder"),
        ({"weight_map": 7}, "weight_map"),
        ({}, "weight_map"),
    ]
    for content, message in cases:
        index.write_text(json.dumps(content))
        with pytest.raises(WeightsError, match=message):
            load_model(checkpoint)


def test_a_tensor_in_two_files_is_refused(checkpoint):
    (checkpoint / "model.safetensors").rename(checkpoint / "weights.00.safetensors")
    mx.save_safetensors(str(checkpoint / "weights.01.safetensors"), {"model.norm.weight": mx.ones(64)})
    with pytest.raises(WeightsError, match=r"model\.norm\.weight"):
        load_model(checkpoint)


def test_shapes_that_do_not_fit_are_named(checkpoint):
    edit(checkpoint, intermediate_size=100)
    with pytest.raises(WeightsError) as raised:
        load_model(checkpoint)
    assert "(96, 64)" in str(raised.value) or "(64, 96)" in str(raised.value)
    assert "100" in str(raised.value)


def test_missing_and_unexpected_tensors_are_named(checkpoint):
    rewrite(checkpoint, lambda weights: weights.pop("model.layers.1.self_attn.q_norm.weight"))
    with pytest.raises(WeightsError, match=r"missing: model\.layers\.1\.self_attn\.q_norm\.weight"):
        load_model(checkpoint)
    rewrite(
        checkpoint,
        lambda weights: weights.update({"model.layers.1.self_attn.q_norm.weight": mx.ones(16), "extra": mx.ones(1)}),
    )
    with pytest.raises(WeightsError, match="no place in the model: extra"):
        load_model(checkpoint)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"model_type": "gpt17"}, ConfigError, "gpt17"),
        ({"model_type": ...}, ConfigError, "model_type"),
        ({"model_type": ["qwen3"]}, ConfigError, "model_type"),
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, WeightsError, "awq"),
        ({"quantization_config": {"quant_method": "fp8"}}, ConfigError, "fp8"),
        ({"quantization": {"bits": 7, "group_size": 64}}, ConfigError, "7 bits"),
        ({"quantization": {"bits": 4, "group_size": 48}}, ConfigError, "groups of 48"),
        ({"quantization": {"bits": 4, "mode": "ternary"}}, ConfigError, "ternary"),
        ({"quantization": "yes"}, ConfigError, "quantization"),
        ({"num_hidden_layers": 10**9}, ConfigError, "num_hidden_layers"),
        ({"vocab_size": 10**12}, ConfigError, "vocab_size"),
        ({"head_dim": 2**30, "num_attention_heads": 2**12}, ConfigError, "head_dim"),
        ({"head_dim": 2**16, "num_attention_heads": 2**20}, ConfigError, "no model that can be built"),
        ({"rope_theta": 10**400}, ConfigError, "rope_theta"),
        (
            {"rope_scaling": {"rope_type": "linear", "factor": 2.0, "original_max_position_embeddings": "x"}},
            ConfigError,
            "original",
        ),
        ({"partial_rotary_factor": 2.0}, ConfigError, "partial_rotary_factor"),
        ({"num_key_value_heads": 0}, ConfigError, "num_key_value_heads"),
        ({"use_sliding_window": True, "sliding_window": 0}, ConfigError, "sliding_window"),
        ({"layer_types": ["full", "full"]}, ConfigError, "layer_types"),
        ({"quantization": {"bits": 4, "mode": [1]}}, ConfigError, "mode"),
        ({"model_type": "qwen3_moe", "moe_intermediate_size": 0}, MLXCoreError, "built|missing"),
        ({"model_type": "qwen3_moe", "num_experts": 2**31}, MLXCoreError, "built|missing"),
    ],
)
def test_configurations_that_cannot_be_served(checkpoint, changes, error, message):
    edit(checkpoint, **changes)
    with pytest.raises(error, match=message):
        load_model(checkpoint)


def test_a_package_that_is_not_installed_is_named(checkpoint, monkeypatch):
    monkeypatch.setattr(registry, "entry_points", lambda **_: ())
    edit(checkpoint, model_type="glm4_moe")
    with pytest.raises(ConfigError, match="install glm4-moe-mlx"):
        load_model(checkpoint)


@pytest.mark.parametrize("dtype", [mx.uint8, mx.int32, mx.bool_])
def test_tensors_that_are_no_weights_are_named(checkpoint, dtype):
    """fp8 checkpoints, which MLX reads as bytes, must not load as if they were numbers."""
    rewrite(checkpoint, lambda weights: weights.update({"model.norm.weight": mx.zeros(64, dtype)}))
    with pytest.raises(WeightsError, match=r"model\.norm\.weight.*floating"):
        load_model(checkpoint)


@pytest.mark.parametrize("quantize", ["4", 4.0, [4], True])
def test_quantize_takes_bits_or_a_table(checkpoint, quantize):
    with pytest.raises(ConfigError, match="quantize"):
        load_model(checkpoint, quantize=quantize)


def test_lazy_weights_are_not_read_yet(checkpoint):
    """A lazy model's file may be swapped before it is used; an eager one's not."""
    eager, lazy = load_model(checkpoint), load_model(checkpoint, lazy=True)
    wanted = eager(TOKENS)
    size = (checkpoint / "model.safetensors").stat().st_size
    os.truncate(checkpoint / "model.safetensors", size // 2)
    assert mx.array_equal(eager(TOKENS), wanted)
    with pytest.raises(RuntimeError), backend.repaired_scheduler():
        mx.eval(lazy(TOKENS))


@pytest.mark.parametrize(
    "options", [{}, {"dtype": "float16"}, {"quantize": 4}, {"keep_packed": False}, {"keep_packed": True}], ids=str
)
@pytest.mark.parametrize("biases", [True, False])
def test_weights_are_read_by_the_worker_alone(checkpoint, tmp_path, monkeypatch, options, biases):
    """Reading can fail, and on the main thread MLX may hang after that."""
    if "keep_packed" in options:
        config = json.loads((checkpoint / "config.json").read_text())
        save_model(tmp_path / "packed", load_model(checkpoint, quantize=4), config)
        checkpoint = tmp_path / "packed"
    if biases:  # of zeros, which GPTQ's packers write
        rewrite(checkpoint, lambda weights: weights.update({"model.layers.0.mlp.up_proj.bias": mx.zeros(96)}))
    threads, evaluate = [], mx.eval

    def recording(*arrays):
        evaluate(*arrays)
        threads.append(threading.current_thread().name)

    monkeypatch.setattr(mx, "eval", recording)
    model = load_model(checkpoint, **options)
    convert_model(checkpoint, tmp_path / "converted")
    monkeypatch.undo()
    assert set(threads) == {"mlx-core-worker"}
    assert model(TOKENS).shape == (1, 4, 259)


def test_inverse_frequencies_of_old_checkpoints_are_dropped(checkpoint):
    wanted = load_model(checkpoint)(TOKENS)
    rewrite(checkpoint, lambda weights: weights.update({"model.layers.0.self_attn.rotary_emb.inv_freq": mx.ones(8)}))
    assert mx.array_equal(load_model(checkpoint)(TOKENS), wanted)


def test_routers_are_packed_at_eight_bits():
    from mlx_core.models import quantize_model
    from qwen3_mlx import qwen3_moe

    config = {"model_type": "qwen3_moe", "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64}
    sizes = {
        "vocab_size": 9,
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    model = qwen3_moe.Model(qwen3_moe.ModelConfig.from_dict({**config, **sizes}))
    quantize_model(model, {"bits": 4, "group_size": 32})
    mlp = model.layers[0].mlp
    assert (mlp.gate.bits, mlp.gate.group_size) == (8, 64)
    assert (mlp.switch_mlp.up_proj.bits, mlp.switch_mlp.up_proj.group_size) == (4, 32)


def test_packed_weights_are_dequantised_beyond_the_limit_if_that_was_asked_for(checkpoint, tmp_path):
    save_model(
        tmp_path / "saved", load_model(checkpoint, quantize=4), json.loads((checkpoint / "config.json").read_text())
    )
    with backend.override(dequantize_limit_bytes=1):
        loaded = load_model(tmp_path / "saved", keep_packed=False)
    assert not any(hasattr(module, "bits") for module in loaded.modules())


def test_embeddings_packed_in_an_mx_mode_compute_in_the_dtype_asked_for(checkpoint):
    model = load_model(checkpoint, dtype="float16", quantize={"mode": "mxfp4"})
    assert model(TOKENS).dtype == mx.float16


def test_packed_weights_must_fit_their_table(checkpoint, tmp_path):
    config = json.loads((checkpoint / "config.json").read_text())
    save_model(tmp_path / "saved", load_model(checkpoint, quantize=4), config)
    for table, message in (
        (..., "no 'quantization'"),
        ({"bits": 8, "group_size": 64}, "shape|packed"),
        ({"bits": 4, "group_size": 128}, "shape|packed|groups"),
        ({"bits": 4, "group_size": 64, "model.layers.0.mlp.up_proj": False}, "isn't quantised"),
    ):
        edit(tmp_path / "saved", quantization=table, quantization_config=...)
        for keep_packed in (True, False):
            with pytest.raises(MLXCoreError, match=message):
                load_model(tmp_path / "saved", keep_packed=keep_packed)


def test_paths_that_hold_no_checkpoint(tmp_path, checkpoint):
    with pytest.raises(MissingCheckpointError, match="does not exist"):
        load_model(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingCheckpointError, match=r"config\.json"):
        load_model(tmp_path / "empty")
    (checkpoint / "model.safetensors").rename(checkpoint / "model.pt")
    with pytest.raises(MissingCheckpointError, match=r"model\.pt"):
        load_model(checkpoint)
    (checkpoint / "model.pt").rename(checkpoint / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"pytorch_model\.bin isn't a torch checkpoint"):
        load_model(checkpoint)
    with pytest.raises(FileNotFoundError):
        load_model("./nowhere")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"a": NaN', "[" * 100_000])
def test_config_json_that_is_not_an_object(checkpoint, text):
    (checkpoint / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=r"config\.json"):
        load_model(checkpoint)


def test_the_hub_offline_is_an_honest_error(monkeypatch, tmp_path):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match=r"some/model.*HF_HUB_OFFLINE.*cached in"):
        hub.resolve("some/model")
    with pytest.raises(MissingCheckpointError):
        hub.resolve(tmp_path / "some" / "model")
    assert hub.resolve(tmp_path) == tmp_path


def header_and_data(file):
    content = file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def with_header(header, data):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def test_hostile_safetensors_headers(checkpoint):
    file = checkpoint / "model.safetensors"
    header, data = header_and_data(file)
    name = "model.norm.weight"
    start, end = header[name]["data_offsets"]

    def entry(**changes):
        return {**header, name: {**header[name], **changes}}

    for content in (
        b"",
        b"\x00" * 7,
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 100) + b"{}",
        with_header(b"not json", data),
        with_header(b"[" * 5000, data),
        with_header(entry(data_offsets=[start, len(data) + 400]), data),
        with_header(entry(data_offsets=[end, start]), data),
        with_header(entry(data_offsets=[-4, 0]), data),
        with_header(entry(shape=[2**62, 2**62]), data),
        with_header(entry(shape=[-1]), data),
        with_header(entry(shape=[63]), data),
        with_header(entry(dtype="F7"), data),
        with_header(header, data[:-1]),
        with_header(header, b""),
    ):
        file.write_bytes(content)
        with pytest.raises(WeightsError):
            load_model(checkpoint)


@pytest.fixture(scope="module")
def damaged(shared_checkpoint):
    folder = shared_checkpoint
    return folder, (folder / "model.safetensors").read_bytes(), (folder / "config.json").read_text()


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_damaged_checkpoints_raise_errors_of_the_tree(damaged, seed):
    """Flipped, cut, doubled and overwritten bytes in the weights' header and in config.json: an error, or a model."""
    folder, weights, config = damaged
    rng = random.Random(seed)

    def damage(content, reach):
        content = bytearray(content)
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(min(reach, len(content)))
            match rng.randrange(4):
                case 0:
                    content[at] ^= 1 << rng.randrange(8)
                case 1:
                    del content[at:]
                case 2:
                    content[at:at] = content[at : at + rng.randint(1, 40)]
                case 3:
                    content[at : at + 8] = rng.randbytes(8)
            if not content:
                break
        return bytes(content)

    (folder / "model.safetensors").write_bytes(damage(weights, 4000) if rng.random() < 0.7 else weights)
    (folder / "config.json").write_bytes(damage(config.encode(), 10_000) if rng.random() < 0.5 else config.encode())
    try:
        model = load_model(folder)
    except MLXCoreError:
        return
    assert np.array(model(TOKENS)).shape[:2] == (1, 4)
