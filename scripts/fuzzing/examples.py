"""Sound examples of each kind of input, as file sets: names and contents of a folder. Tiny, and the same every time."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_core import load_tokenizer
from mlx_core.models import find_architecture, installed_model_types, quantize_model, split_parameters
from mlx_core.testing import byte_tokenizer, randomize

from . import formats

Files = dict[str, bytes]


GOLDENS = Path(__file__).parents[2] / "packages" / "mlx-core" / "tests" / "goldens"


_SIZES = {
    "vocab_size": 48,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}


_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}


_CONFIGS: list[dict[str, Any]] = [
    {
        "model_type": "llama",
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
    },
    {
        "model_type": "qwen2",
        "use_sliding_window": True,
        "sliding_window": 4,
        "max_window_layers": 1,
        "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
    },
    {"model_type": "qwen3", "rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e6, "factor": 2.0}},
    {
        "model_type": "qwen3",
        "rope_scaling": {
            "rope_type": "longrope",
            "short_factor": [1.0] * 4,
            "long_factor": [2.0] * 4,
            "factor": 2.0,
            "original_max_position_embeddings": 8,
        },
    },
    {"model_type": "qwen3_moe", "norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": [0], **_EXPERTS},
    {"model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 8},
    {"model_type": "glm4", "partial_rotary_factor": 0.5, "attention_bias": True},
    {
        "model_type": "glm4_moe",
        "partial_rotary_factor": 0.5,
        "first_k_dense_replace": 1,
        "n_routed_experts": 4,
        "n_shared_experts": 1,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "n_group": 2,
        "topk_group": 1,
        "routed_scaling_factor": 1.5,
        "norm_topk_prob": True,
        "use_qk_norm": True,
    },
]


def _model(config: Mapping[str, Any]) -> Any:
    architecture = find_architecture(config["model_type"])
    return randomize(architecture.Model(architecture.ModelConfig.from_dict(config)))


def _saved(arrays: Mapping[str, mx.array]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        mx.save_safetensors(str(path), dict(arrays))
        return path.read_bytes()


def _checkpoint(config: dict[str, Any], arrays: Mapping[str, mx.array], n_shards: int = 1) -> Files:
    files = {"config.json": json.dumps(config).encode()}
    if n_shards == 1:
        return files | {"model.safetensors": _saved(arrays)}
    names = sorted(arrays)
    weight_map: dict[str, str] = {}
    for i in range(n_shards):
        shard = f"model-{i + 1:05}-of-{n_shards:05}.safetensors"
        files[shard] = _saved({name: arrays[name] for name in names[i::n_shards]})
        weight_map |= dict.fromkeys(names[i::n_shards], shard)
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    return files | {"model.safetensors.index.json": json.dumps(index).encode()}


def _configs() -> Iterator[dict[str, Any]]:
    served = installed_model_types()
    return (_SIZES | config for config in _CONFIGS if config["model_type"] in served)


def _sound_checkpoints() -> list[Files]:
    return [_checkpoint(config, split_parameters(_model(config))) for config in _configs()]


def _packed_checkpoint(config: dict[str, Any], **table: Any) -> Files:
    model = _model(config)
    quantize_model(model, table)
    mx.eval(model.parameters())
    return _checkpoint({**config, "quantization": table}, split_parameters(model))


def safetensors() -> list[Files]:
    plain, moe = _SIZES | _CONFIGS[2], _SIZES | _CONFIGS[4]
    halves = {name: value.astype(mx.bfloat16) for name, value in split_parameters(_model(plain)).items()}
    return [
        _checkpoint(plain, halves),
        _checkpoint(plain, split_parameters(_model(plain)), n_shards=3),
        _checkpoint(moe, split_parameters(_model(moe)), n_shards=2),
        _packed_checkpoint(plain, group_size=32, bits=4),
        _packed_checkpoint(plain, group_size=32, bits=4, mode="mxfp4"),
    ]


def configs() -> list[Files]:
    plain = _SIZES | _CONFIGS[2]
    return [*_sound_checkpoints(), _packed_checkpoint(plain, group_size=32, bits=4), *legacy()[:2]]


def legacy() -> list[Files]:
    rng = np.random.default_rng(0)
    config = _SIZES | _CONFIGS[2]
    parameters = split_parameters(_model(config))
    widths = {
        name.removesuffix(".weight"): value.shape
        for name, value in parameters.items()
        if "_proj." in name and value.ndim == 2
    }

    def words(*shape: int) -> mx.array:
        return mx.array(rng.integers(-(2**31), 2**31, shape, dtype=np.int64).astype(np.int32))

    def scales(*shape: int) -> mx.array:
        return mx.array(rng.normal(0, 0.01, shape).astype(np.float16))

    tables: dict[str, tuple[dict[str, Any], Callable[[int, int], dict[str, mx.array]]]] = {
        "awq": (
            {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm", "zero_point": True},
            lambda o, i: {"qweight": words(i, o // 8), "qzeros": words(i // 32, o // 8), "scales": scales(i // 32, o)},
        ),
        "gptq": (
            {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False, "sym": True, "dynamic": {}},
            lambda o, i: {
                "qweight": words(i // 8, o),
                "qzeros": words(i // 32, o // 8),
                "scales": scales(i // 32, o),
                "g_idx": mx.arange(i, dtype=mx.int32) // 32,
            },
        ),
        "gptq-3": (
            {"quant_method": "gptq", "bits": 3, "group_size": 16, "desc_act": True, "checkpoint_format": "gptq_v2"},
            lambda o, i: {
                "qweight": words(i * 3 // 32, o),
                "qzeros": words(i // 16, -(-o * 3 // 32)),
                "scales": scales(i // 16, o),
                "g_idx": mx.arange(i, dtype=mx.int32) % (i // 16),
            },
        ),
        "mxfp4": (
            {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]},
            lambda o, i: {
                "weight_blocks": words(o, i // 32, 4).view(mx.uint8),
                "weight_scales": mx.full((o, i // 32), 120, mx.uint8),
            },
        ),
    }
    seeds = []
    for table, packed in tables.values():
        arrays = {name: value for name, value in parameters.items() if name.removesuffix(".weight") not in widths}
        for path, (outputs, inputs) in widths.items():
            arrays |= {f"{path}.{name}": value for name, value in packed(outputs, inputs).items()}
        seeds.append(_checkpoint({**config, "quantization_config": table}, arrays))
    return seeds


def _gguf_vocabulary(model: str, size: int) -> dict[str, Any]:
    if model == "llama":
        tokens = ["<unk>", "<s>", "</s>", "\u2581", "a", "b", "ab", "\u2581a"]
        tokens += [f"t{i}" for i in range(size - len(tokens))]
        more = {"scores": [float(-i) for i in range(size)], "token_type": [2, 3, 3, *[1] * (size - 3)]}
    else:
        tokens = ["a", "b", "ab", "\u0120", "\u0120a", *(f"t{i}" for i in range(size - 5))]
        more = {"merges": ["a b", "\u0120 a"], "pre": "qwen2", "token_type": [1] * (size - 1) + [3]}
    entries = {"model": model, "tokens": tokens, "bos_token_id": 1, "eos_token_id": 2, **more}
    return {f"tokenizer.ggml.{key}": value for key, value in entries.items()}


_GGUF_NAMES: dict[str, tuple[int, ...]] = {
    "attn_q": (32, 32),
    "attn_k": (16, 32),
    "attn_v": (16, 32),
    "attn_output": (32, 32),
    "ffn_gate": (32, 32),
}


_GGUF_NAMES |= {"ffn_up": (32, 32), "ffn_down": (32, 32), "attn_norm": (32,), "ffn_norm": (32,)}


_BLOCKS = {0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 8: (32, 34), 30: (1, 2)}  # weights, bytes


def _gguf_parts() -> list[formats.GGUF]:
    rng = np.random.default_rng(0)

    def tensor(kind: int, shape: tuple[int, ...]) -> tuple[int, tuple[int, ...], bytes]:
        kind = 0 if len(shape) == 1 else kind
        weights, nbytes = _BLOCKS[kind]
        count = int(np.prod(shape)) // weights
        if kind == 0:
            return kind, shape, rng.normal(0, 0.1, count).astype("<f4").tobytes()
        data = np.zeros((count, nbytes), np.uint8) + rng.integers(0, 64, (count, nbytes), dtype=np.uint8)
        return kind, shape, (data & 0x3B).tobytes()  # small numbers, whatever the kind

    seeds: list[formats.GGUF] = []
    for arch, kind, vocabulary in (
        *(
            ("llama", 0, "llama"),
            ("qwen3", 2, "gpt2"),
            ("qwen2", 8, "gpt2"),
            ("qwen3moe", 3, "gpt2"),
            ("llama", 1, "llama"),
        ),
        *(("qwen3", 6, "gpt2"), ("qwen2", 30, "gpt2")),
    ):
        metadata = {"general.architecture": arch} | {
            f"{arch}.{key}": value
            for key, value in {
                "block_count": 2,
                "context_length": 64,
                "embedding_length": 32,
                "feed_forward_length": 32,
                "attention.head_count": 4,
                "attention.head_count_kv": 2,
                "attention.key_length": 8,
                "attention.layer_norm_rms_epsilon": 1e-6,
                "rope.freq_base": 1e5,
                "rope.scaling.type": "yarn",
                "rope.scaling.factor": 2.0,
                "rope.scaling.original_context_length": 32,
            }.items()
            if arch == "qwen2" or "scaling" not in key
        }
        metadata |= _gguf_vocabulary(vocabulary, 48)
        metadata["tokenizer.chat_template"] = _CHAT
        shapes = {"token_embd": (48, 32), "output": (48, 32), "output_norm": (32,)}
        for layer in range(2):
            shapes |= {f"blk.{layer}.{name}": shape for name, shape in _GGUF_NAMES.items()}
            if arch.startswith("qwen3"):
                shapes |= {f"blk.{layer}.attn_{name}_norm": (8,) for name in "qk"}
            if arch == "qwen3moe":
                for name in ("gate", "up", "down"):
                    del shapes[f"blk.{layer}.ffn_{name}"]
                    shapes[f"blk.{layer}.ffn_{name}_exps"] = (4, 32, 32)
                shapes[f"blk.{layer}.ffn_gate_inp"] = (4, 32)
        tensors = {f"{name}.weight": tensor(kind, shape) for name, shape in shapes.items()}
        if arch == "qwen2":
            tensors |= {
                f"blk.{layer}.attn_{name}.bias": tensor(0, (size,))
                for layer in (0, 1)
                for name, size in zip("qkv", (32, 16, 16), strict=True)
            }
        if arch == "qwen3moe":
            metadata |= {
                f"{arch}.expert_count": 4,
                f"{arch}.expert_used_count": 2,
                f"{arch}.expert_feed_forward_length": 32,
            }
        seeds.append((metadata, tensors))
    return seeds


GGUF_PARTS: dict[bytes, formats.GGUF] = {}
"""The parts of each file of `gguf`, by its bytes."""


def gguf() -> list[Files]:
    seeds = list(_gguf_parts())
    whole = [{"model.gguf": _gguf_file(seed)} for seed in seeds]
    return [*whole, {f"model-0000{n}-of-00002.gguf": _gguf_file(part) for n, part in enumerate(_split(seeds[0]), 1)}]


def _gguf_file(seed: formats.GGUF) -> bytes:
    data = formats.write_gguf(seed)
    GGUF_PARTS[data] = seed
    return data


def _split(seed: formats.GGUF) -> list[formats.GGUF]:
    """A model in two files, all metadata in the first."""
    metadata, tensors = seed
    said = [{"split.no": number, "split.count": 2, "split.tensors.count": len(tensors)} for number in range(2)]
    items = list(tensors.items())
    return [(metadata | said[0], dict(items[::2])), (said[1], dict(items[1::2]))]


def pickles() -> list[Files]:
    files = [
        path for path in sorted((GOLDENS / "torch").glob("*.pt")) if not path.name.startswith(("refused", "hparams"))
    ]
    shards = {path.name: path.read_bytes() for path in sorted((GOLDENS / "torch" / "sharded").iterdir())}
    whole = [
        {"pytorch_model.bin": (GOLDENS / "torch" / name).read_bytes()} for name in ("module.pt", "module.legacy.pt")
    ]
    return [shards, *whole, *({"checkpoint.pt": path.read_bytes()} for path in files)]


_CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def _byte_files(chat_template: str = _CHAT) -> Files:
    with tempfile.TemporaryDirectory() as folder:
        byte_tokenizer(("<|im_end|>", "<|im_start|>"), chat_template=chat_template).save(folder)
        return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def tokenizers() -> list[Files]:
    seeds = [_byte_files()]
    for name in ("llama.model", "unigram.model", "small.tiktoken"):
        with tempfile.TemporaryDirectory() as folder:
            for file, content in _vocabulary_files(name).items():
                (Path(folder) / file).write_bytes(content)
            load_tokenizer(folder).save(Path(folder) / "saved")
            saved = {path.name: path.read_bytes() for path in sorted((Path(folder) / "saved").iterdir())}
        seeds.append(saved | {"special_tokens_map.json": b'{"eos_token": {"content": "</s>", "special": true}}'})
    seeds[-1] |= {"generation_config.json": b'{"eos_token_id": [1, 2]}', "config.json": b'{"eos_token_id": 2}'}
    return seeds


def _vocabulary_files(name: str) -> Files:
    data = (GOLDENS / "tokenizer_files" / name).read_bytes()
    config = {"chat_template": _CHAT, "legacy": name != "unigram.model", "added_tokens_decoder": {}}
    if name.endswith(".tiktoken"):
        return {
            "qwen.tiktoken": data,
            "tokenizer_config.json": json.dumps(config | {"tokenizer_class": "QWenTokenizer"}).encode(),
        }
    return {"tokenizer.model": data, "tokenizer_config.json": json.dumps(config).encode()}


def sentencepiece() -> list[Files]:
    names = ("llama", "unigram", "mapped", "symbols", "unescaped", "bare", "unigram_unknown")
    return [_vocabulary_files(f"{name}.model") for name in names]


def ranks() -> list[Files]:
    files = _vocabulary_files("small.tiktoken")
    glm4 = {
        "tokenizer.model": files["qwen.tiktoken"],
        "tokenizer_config.json": b'{"tokenizer_class": "ChatGLM4Tokenizer"}',
    }
    return [files, glm4]


def templates() -> list[Files]:
    files = _byte_files()
    paths = [
        *(GOLDENS / "tokenizer" / "templates").glob("*.jinja"),
        *(GOLDENS / "tokenizer_files" / "templates").glob("*.jinja"),
    ]
    return [files | {"chat_template.jinja": text.encode()} for text in (_CHAT, "{{ messages }}")] + [
        files | {"chat_template.jinja": path.read_bytes()} for path in sorted(paths)
    ]


def caches() -> list[Files]:
    paths = sorted((GOLDENS / "prompt_caches").rglob("*.safetensors"))
    return [{"cache.safetensors": path.read_bytes()} for path in paths if path.stat().st_size < 30_000]
