"""GGUF checkpoints as Hugging Face's: config.json from the metadata, tensors under Hugging Face's names.

    file = GGUFFile.open("model.gguf")
    config = hf_config(file)                                # config.json's entries
    weights, quantization = hf_weights(file, packed=True)   # {"model.embed_tokens.weight": mx.array, ...}

Keys and names are those of llama.cpp's gguf package (0.19.0, `constants.py` and `tensor_mapping.py`).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import Any

import mlx.core as mx
import numpy as np

from ... import backend
from ...errors import ConfigError, WeightsError
from .file import GGUFFile, GGUFTensor, PackedTensor

__all__ = ["GGUFFile", "GGUFTensor", "PackedTensor", "hf_config", "hf_weights"]

# llama.cpp's name of an architecture, and Hugging Face's model_type.
_MODEL_TYPES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "qwen3moe": "qwen3_moe"}
_CLASSES = {
    "llama": "LlamaForCausalLM",
    "mixtral": "MixtralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
}
# Entries without a counterpart in these architectures, and the value that has no effect.
_NEUTRAL: dict[str, float] = {
    "attention.sliding_window": 0,
    "expert_shared_count": 0,
    "expert_weights_scale": 1,
    "expert_gating_func": 1,  # softmax
    "rope.scaling.yarn_ext_factor": 1,
    "rope.scaling.yarn_attn_factor": 1,
    "rope.scaling.yarn_log_multiplier": 0,
}


class _Fields:
    """Typed access to the metadata of one architecture; a missing or absurd entry is a ConfigError."""

    def __init__(self, file: GGUFFile) -> None:
        self.file = file
        self.arch = str(file.metadata.get("general.architecture"))
        if self.arch not in _MODEL_TYPES:
            known = ", ".join(_MODEL_TYPES)
            raise ConfigError(f"{file.path}: the architecture is {self.arch!r}; those supported are {known}.")

    def get(self, key: str, default: Any = None) -> Any:
        return self.file.metadata.get(f"{self.arch}.{key}", default)

    def integer(self, key: str, default: int | None = None) -> int:
        value = self.get(key, default)
        if type(value) is not int or value < 1:
            raise self.fail(key, value, "a positive integer")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A positive number; a float32 becomes the shortest decimal that rounds to it (1e-06, not 9.99999997e-07)."""
        value = self.get(key, default)
        if type(value) not in (int, float) or not 1e-30 < value < 1e30:
            raise self.fail(key, value, "a positive number")
        return float(str(np.float32(value)))

    def fail(self, key: str, found: object, expected: str) -> ConfigError:
        return ConfigError(
            f"{self.file.path}: {self.arch}.{key} is {found!r}, expected {expected}. This file can't be run here: fetch "
            "another one of the model."
        )


def hf_config(file: GGUFFile) -> dict[str, Any]:
    """Hugging Face's config.json for the model in the file, in the layout of transformers 4 (top-level `rope_theta`).

    `model_type` is llama, mixtral (a llama with experts), qwen2, qwen3 or qwen3_moe. ConfigError for another
    architecture, and for an entry that is missing, absurd or has no counterpart; WeightsError without an embedding.
    """
    fields = _Fields(file)
    n_experts = fields.get("expert_count", 0)
    model_type = "mixtral" if fields.arch == "llama" and n_experts else _MODEL_TYPES[fields.arch]
    n_heads, hidden_size = fields.integer("attention.head_count"), fields.integer("embedding_length")
    head_dim = fields.integer("attention.key_length", hidden_size // n_heads)
    if (n_layers := fields.integer("block_count")) > len(file.tensors):
        raise fields.fail("block_count", n_layers, f"fewer layers than the file's {len(file.tensors)} tensors")
    for key in ("attention.value_length", "rope.dimension_count"):
        if fields.get(key, head_dim) != head_dim:
            raise fields.fail(key, fields.get(key), f"the size of a head, {head_dim}")
    for key, neutral in _NEUTRAL.items():
        if fields.get(key, neutral) != neutral:
            raise fields.fail(key, fields.get(key), f"{neutral}, or no such entry")
    config: dict[str, Any] = {
        "architectures": [_CLASSES[model_type]],
        "model_type": model_type,
        "vocab_size": file.tensor("token_embd.weight").shape[0],
        "hidden_size": hidden_size,
        "intermediate_size": fields.integer("feed_forward_length"),
        "num_hidden_layers": n_layers,
        "num_attention_heads": n_heads,
        "num_key_value_heads": fields.integer("attention.head_count_kv", n_heads),
        "head_dim": head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": fields.number("attention.layer_norm_rms_epsilon"),
        "rope_theta": fields.number("rope.freq_base", 10000.0),
        "rope_scaling": _rope_scaling(fields, head_dim),
        "max_position_embeddings": fields.integer("context_length"),
        "tie_word_embeddings": "output.weight" not in file.tensors,
    }
    if model_type == "llama":
        config["attention_bias"] = "blk.0.attn_q.bias" in file.tensors
        config["mlp_bias"] = "blk.0.ffn_up.bias" in file.tensors
    if model_type == "mixtral":
        config["num_local_experts"] = fields.integer("expert_count")
        config["num_experts_per_tok"] = fields.integer("expert_used_count")
    if model_type == "qwen3_moe":
        config["num_experts"] = fields.integer("expert_count")
        config["num_experts_per_tok"] = fields.integer("expert_used_count")
        config["moe_intermediate_size"] = fields.integer("expert_feed_forward_length")
        config["norm_topk_prob"] = bool(fields.get("expert_weights_norm", True))  # as llama.cpp does for this kind
        config["decoder_sparse_step"] = 1
        routed = [f"blk.{i}.ffn_gate_inp.weight" in file.tensors for i in range(n_layers)]
        config["mlp_only_layers"] = [i for i, is_routed in enumerate(routed) if not is_routed]
    return config | _special_tokens(file)


def _special_tokens(file: GGUFFile) -> dict[str, Any]:
    """`bos_token_id`, `pad_token_id` and `eos_token_id`: a list if the file names several ends (of turn, of
    message).
    """
    found: dict[str, list[int]] = {"bos_token_id": [], "pad_token_id": [], "eos_token_id": []}
    for name, entry in (("bos", "bos"), ("padding", "pad"), ("eos", "eos"), ("eot", "eos"), ("eom", "eos")):
        token = file.metadata.get(key := f"tokenizer.ggml.{name}_token_id")
        if token is None:
            continue
        if type(token) is not int or token < 0:
            raise ConfigError(f"{file.path}: {key} is {token!r}, expected a token's number. The file is damaged.")
        if token not in found[f"{entry}_token_id"]:
            found[f"{entry}_token_id"].append(token)
    return {key: tokens[0] if len(tokens) == 1 else tokens for key, tokens in found.items() if tokens}


_ORIGINAL = "rope.scaling.original_context_length"


def _rope_scaling(fields: _Fields, head_dim: int) -> dict[str, Any] | None:
    """The `rope_scaling` entry, from the metadata or from Llama 3's tensor of frequency divisors."""
    kind = fields.get("rope.scaling.type", "linear")
    factor = 1.0
    for key in ("rope.scale_linear", "rope.scaling.factor"):
        if fields.get(key):  # 0 stands for unset
            factor = fields.number(key)
    original = fields.integer(_ORIGINAL) if fields.get(_ORIGINAL) else None
    scaling: dict[str, Any] | None = None
    if kind == "yarn":
        scaling = {"rope_type": "yarn", "factor": factor}
        if original is not None:
            scaling["original_max_position_embeddings"] = original
        for key in ("beta_fast", "beta_slow"):
            if fields.get(f"rope.scaling.yarn_{key}") is not None:
                scaling[key] = fields.number(f"rope.scaling.yarn_{key}")
        # llama.cpp multiplies YaRN's own factor, which is Hugging Face's default, by this one.
        if (extra := fields.number("rope.scaling.attn_factor", 1.0)) != 1:
            scaling["attention_factor"] = extra * (0.1 * math.log(max(factor, 1)) + 1)
    elif kind not in ("none", "linear"):
        raise fields.fail("rope.scaling.type", kind, "none, linear or yarn")
    elif kind == "linear" and factor != 1:
        scaling = {"rope_type": "linear", "factor": factor}
    if "rope_freqs.weight" in fields.file.tensors:
        if scaling is not None:
            raise fields.fail("rope.scaling.type", kind, "none, since the tensor rope_freqs.weight scales as well")
        return _llama3_scaling(fields, head_dim, original or 8192)
    return scaling


def _llama3_scaling(fields: _Fields, head_dim: int, original: int) -> dict[str, Any] | None:
    """The settings of Llama 3's scaling that give the divisors in `rope_freqs.weight`.

    A frequency with c periods in the original context is divided by 1 / (s + (1 - s) / factor), where
    s = (c - low) / (high - low), clipped to 0 and 1. Strictly between, s is linear in c, and two such points give low
    and high. Both are in periods per `original`, so any choice of it gives the same frequencies.
    """
    divisors = fields.file.read("rope_freqs.weight").astype(np.float64)
    theta = fields.number("rope.freq_base", 10000.0)
    if divisors.ndim == 1 and 2 * divisors.size == head_dim and ((divisors > 0.999) & (divisors < np.inf)).all():
        factor = float(divisors.max())
        if (divisors == factor).all():
            return None if factor == 1 else {"rope_type": "linear", "factor": factor}
        turns = original / (2 * np.pi) * theta ** -(np.arange(0, head_dim, 2) / head_dim)
        s = (1 / divisors - 1 / factor) / (1 - 1 / factor)
        between = np.flatnonzero((s > 1e-6) & (s < 1 - 1e-6))
        if len(between) > 1:
            first, last = between[0], between[-1]
            with np.errstate(all="ignore"):  # nonsense becomes NaN, and is refused below
                per_turn = (s[last] - s[first]) / (turns[last] - turns[first])
                low, high = (round(float(turns[first] + (x - s[first]) / per_turn), 3) for x in (0, 1))
                s = np.clip((turns - low) / np.float64(high - low), 0, 1)
            if np.allclose(s + (1 - s) / factor, 1 / divisors, rtol=1e-4, atol=0):
                return {
                    "rope_type": "llama3",
                    "factor": factor,
                    "low_freq_factor": low,
                    "high_freq_factor": high,
                    "original_max_position_embeddings": original,
                }
    raise ConfigError(
        f"{fields.file.path}: the tensor rope_freqs.weight scales RoPE in a way that isn't Llama 3's, the one supported. "
        "Fetch the model's safetensors instead."
    )


_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_LAYER = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_ROUTED = {
    "ffn_gate_inp": "gate",
    "ffn_gate_exps": "switch_mlp.gate_proj",
    "ffn_up_exps": "switch_mlp.up_proj",
    "ffn_down_exps": "switch_mlp.down_proj",
}
_ROUTED_BLOCK = {"mixtral": "block_sparse_moe", "qwen3_moe": "mlp"}
# The first Mixtral files hold each expert by itself, under Mixtral's own names.
_EXPERT = {"ffn_gate": "w1", "ffn_down": "w2", "ffn_up": "w3"}
_NAME = re.compile(r"(?:blk\.(?P<layer>[0-9]+)\.)?(?P<module>\w+)(?:\.(?P<expert>[0-9]+))?\.(?P<leaf>weight|bias)")


def hf_weights(file: GGUFFile, *, packed: bool) -> tuple[dict[str, mx.array], dict[str, Any]]:
    """The tensors under Hugging Face's names, and how they are quantised.

    Tensors are float32, but F16 and BF16 keep their dtype. With `packed`, those that `GGUFFile.packed` can repack are
    `X.weight` (uint32), `X.scales` and `X.biases` instead, and the second value is config.json's `quantization` entry:
    the commonest group size, bits and mode, and per module other ones, or `False`; without packed tensors it is empty.

    Rows of q and k are put back into Hugging Face's order where the file has them in another. Experts are stacked,
    `[E, out, in]`, under `switch_mlp`. `rope_freqs.weight` is left out, since `hf_config` has its settings. One tensor
    at a time is converted, so that the peak is the result and one tensor more.

    Raises WeightsError for a tensor without a counterpart, of a kind that can't be read, or of a shape that contradicts
    the metadata; ConfigError as `hf_config` does.
    """
    config = hf_config(file)
    weights: dict[str, mx.array] = {}
    forms: dict[str, tuple[int, int] | None] = {}  # of every matrix: group size and bits, or None where it isn't packed
    for name, tensor in file.tensors.items():
        if name == "rope_freqs.weight":
            continue
        module, leaf = _hf_name(file, name, config["model_type"])
        whole = file.packed(name) if packed and leaf == "weight" else None
        if whole is None:
            parts = {leaf: file.array(name)}
        else:
            parts = {part: mx.array(getattr(whole, part)) for part in ("weight", "scales", "biases")}
        if leaf == "weight" and len(tensor.shape) > 1:
            forms[module] = whole and (whole.group_size, whole.bits)
        if (order := _row_order(file, tensor, config)) is not None:
            parts = {part: array[order] for part, array in parts.items()}
        backend.materialize(parts)  # now, so that a reordered tensor's first copy goes before the next tensor comes
        weights |= {f"{module}.{part}": array for part, array in parts.items()}
    return weights, _quantization(forms)


def _hf_name(file: GGUFFile, name: str, model_type: str) -> tuple[str, str]:
    """Hugging Face's module, and `weight` or `bias`."""
    if match := _NAME.fullmatch(name):
        layer, module, expert, leaf = match.groups()
        path = None
        if layer is None:
            path = _TOP.get(module) if expert is None else None
        elif expert is not None:
            if model_type == "mixtral" and module in _EXPERT:
                path = f"model.layers.{layer}.block_sparse_moe.experts.{expert}.{_EXPERT[module]}"
        elif module in _LAYER:
            path = f"model.layers.{layer}.{_LAYER[module]}"
        elif module in _ROUTED and model_type in _ROUTED_BLOCK:
            path = f"model.layers.{layer}.{_ROUTED_BLOCK[model_type]}.{_ROUTED[module]}"
        if path is not None:
            return path, leaf
    raise WeightsError(
        f"{file.path}: the tensor {name!r} has no counterpart in a {model_type} model. The file is of an architecture or a "
        "converter that isn't supported: fetch the model's safetensors instead."
    )


def _row_order(file: GGUFFile, tensor: GGUFTensor, config: dict[str, Any]) -> mx.array | None:
    """The order of rows that turns q and k into Hugging Face's; None where they have it.

    Hugging Face's RoPE rotates dimension i of a head with i + D/2, llama.cpp's with its neighbour, so its converter
    reorders the rows of `llama` files: row (i, half) of a head is Hugging Face's row (half, i).
    """
    match = re.fullmatch(r"blk\.[0-9]+\.attn_([qk])\.(weight|bias)", tensor.name)
    if match is None or config["model_type"] not in ("llama", "mixtral"):
        return None
    n_heads = config["num_attention_heads" if match[1] == "q" else "num_key_value_heads"]
    head_dim = config["head_dim"]
    if head_dim % 2 or tensor.shape[0] != n_heads * head_dim:
        raise WeightsError(
            f"{file.path}: {tensor.name} has {tensor.shape[0]} rows, expected {n_heads} heads of {head_dim} (an even number). "
            "The file is damaged."
        )
    order = np.arange(tensor.shape[0]).reshape(n_heads, head_dim // 2, 2)
    return mx.array(order.swapaxes(1, 2).reshape(-1))


def _quantization(forms: dict[str, tuple[int, int] | None]) -> dict[str, Any]:
    """config.json's `quantization` entry: the commonest form, and the modules of another."""
    counts = Counter(form for form in forms.values() if form is not None)
    if not counts:
        return {}
    commonest = counts.most_common(1)[0][0]
    table: dict[str, Any] = {"group_size": commonest[0], "bits": commonest[1], "mode": "affine"}
    for module, form in forms.items():
        if form != commonest:
            table[module] = {"group_size": form[0], "bits": form[1]} if form is not None else False
    return table
