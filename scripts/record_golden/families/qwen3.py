"""Llama, Qwen2, Qwen3, Qwen3-MoE: `python scripts/record_golden/transformers_models.py qwen3`, other recorders likewise."""

from __future__ import annotations

from families import (
    FOUR_BITS,
    LLAMA3,
    MXFP4,
    NO_SCALING,
    TIED,
    YARN,
    Case,
    Config,
    Conversion,
    ModelType,
    Shapes,
    dense_mlp,
    expert_shapes,
)

# Scaled RoPE wants more than four frequencies to tell its parts from one another.
WIDE_HEADS: Config = {"num_attention_heads": 2, "num_key_value_heads": 1}
WIDE_HEADS_3: Config = {**WIDE_HEADS, "head_dim": 16}
YARN_BY_LIMIT: Config = {"rope_type": "yarn", "factor": 2.0, "beta_fast": 2.0, "beta_slow": 0.25}
LONGROPE: Config = {
    "rope_type": "longrope",
    "short_factor": [1.0, 1.05, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6],
    "long_factor": [1.0, 1.3, 1.7, 2.2, 2.8, 3.4, 3.8, 4.0],
}
LONGROPE_NESTED: Config = {**LONGROPE, "factor": 3.0, "original_max_position_embeddings": 32}


def mlp(layer: str, index: int, config: Config) -> Shapes:
    """Experts, but in the layers that `mlp_only_layers` names."""
    if index in config["mlp_only_layers"]:
        return dense_mlp(layer, index, config)
    return expert_shapes(f"{layer}.mlp", config["num_experts"], config["moe_intermediate_size"], config["hidden_size"])


MODEL_TYPES: dict[str, ModelType] = {
    "llama": ModelType("LlamaForCausalLM"),
    "qwen2": ModelType("Qwen2ForCausalLM", qkv_bias=True),
    "qwen3": ModelType("Qwen3ForCausalLM", converted={"head_dim": 32, "num_attention_heads": 2}, qk_norm="head"),
    "qwen3_moe": ModelType(
        "Qwen3MoeForCausalLM",
        config={
            "decoder_sparse_step": 1,
            "head_dim": 16,
            "mlp_only_layers": [],
            "moe_intermediate_size": 16,
            "norm_topk_prob": True,
            "num_experts": 8,
            "num_experts_per_tok": 2,
        },
        converted={
            "decoder_sparse_step": 1,
            "head_dim": 32,
            "mlp_only_layers": [0],
            "moe_intermediate_size": 64,
            "norm_topk_prob": True,
            "num_attention_heads": 2,
            "num_experts": 4,
            "num_experts_per_tok": 2,
        },
        qk_norm="head",
        mlp=mlp,
        router="softmax",
    ),
}

CASES: dict[str, Case] = {
    "llama_untied": Case("llama", {}, "no biases", batch=2, unlike=({"rope_theta": 10000.0},)),
    "llama_tied": Case("llama", {"tie_word_embeddings": True}, "head is the embedding"),
    "llama_bias": Case("llama", {"attention_bias": True}, "biases on q, k, v and o"),
    "llama_llama3": Case(
        "llama",
        {**WIDE_HEADS, "rope_scaling": LLAMA3},
        "llama3 scaling, longer than the original context",
        length=48,
        prompt=30,
        unlike=(NO_SCALING, {"rope_scaling": {**LLAMA3, "high_freq_factor": 2.0}}),
    ),
    "qwen2_untied": Case(
        "qwen2",
        {
            "num_hidden_layers": 3,
            "rms_norm_eps": 1e-2,
            "rope_theta": 500.0,
            "use_sliding_window": False,
            "sliding_window": 4,
            "max_window_layers": 0,
        },
        "biases on q, k and v; a window that is switched off",
        batch=2,
        unlike=({"rms_norm_eps": 1e-6}, {"rope_theta": 10000.0}, {"use_sliding_window": True}),
    ),
    "qwen2_tied": Case("qwen2", {"tie_word_embeddings": True}, "head is the embedding"),
    "qwen2_yarn": Case(
        "qwen2",
        {**WIDE_HEADS, "max_position_embeddings": 32, "rope_scaling": YARN},
        "yarn whose factor isn't max / original positions, longer than the original context",
        batch=2,
        length=48,
        prompt=30,
        unlike=(
            NO_SCALING,
            {"rope_scaling": {**YARN, "factor": 1.0}},
            {"rope_scaling": {**YARN, "attention_factor": 1.0}},
            {"rope_scaling": {**YARN, "original_max_position_embeddings": 128}},
        ),
    ),
    "qwen2_window": Case(
        "qwen2",
        {"num_hidden_layers": 4, "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2},
        "window of 8 keys in layers 2 and 3",
        batch=2,
        length=40,
        unlike=(
            {"sliding_window": 7},
            {"sliding_window": 9},
            {"max_window_layers": 1},
            {"max_window_layers": 3},
            {"use_sliding_window": False},
        ),
    ),
    "qwen2_linear": Case(
        "qwen2",
        {**WIDE_HEADS, "rope_scaling": {"type": "linear", "factor": 3.0}},
        "linear scaling",
        unlike=(NO_SCALING,),
    ),
    "qwen2_dynamic": Case(
        "qwen2",
        {**WIDE_HEADS, "max_position_embeddings": 32, "rope_scaling": {"type": "dynamic", "factor": 2.0}},
        "dynamic scaling beyond max_position_embeddings; the greedy loop crosses it",
        length=48,
        prompt=24,
        unlike=(NO_SCALING,),
        by_length=True,
    ),
    "qwen2_longrope": Case(
        "qwen2",
        {**WIDE_HEADS, "max_position_embeddings": 64, "rope_scaling": LONGROPE_NESTED},
        "original_max_position_embeddings inside rope_scaling, factor given",
        length=48,
        prompt=36,
        unlike=(NO_SCALING,),
        by_length=True,
    ),
    "qwen2_longrope_top": Case(
        "qwen2",
        {**WIDE_HEADS, "max_position_embeddings": 64, "original_max_position_embeddings": 32, "rope_scaling": LONGROPE},
        "original_max_position_embeddings at the top; tokens use the long factors, greedy the short ones",
        length=48,
        prompt=8,
        unlike=(NO_SCALING, {"rope_scaling": {**LONGROPE, "attention_factor": 1.0}}),
        by_length=True,
    ),
    "qwen3_sharded": Case(
        "qwen3",
        {"head_dim": 16, "num_hidden_layers": 3},
        "head_dim isn't hidden_size / heads; several shards",
        batch=2,
        max_shard_size="40KB",
    ),
    "qwen3_tied": Case("qwen3", {"head_dim": 8, "tie_word_embeddings": True}, "head is the embedding"),
    "qwen3_bias": Case("qwen3", {"head_dim": 8, "attention_bias": True}, "biases on q, k, v and o"),
    "qwen3_linear": Case(
        "qwen3",
        {**WIDE_HEADS_3, "rope_scaling": {"rope_type": "linear", "factor": 4.0}},
        "linear scaling",
        unlike=(NO_SCALING,),
    ),
    "qwen3_yarn": Case(
        "qwen3",
        {**WIDE_HEADS_3, "max_position_embeddings": 32, "rope_scaling": YARN_BY_LIMIT},
        "yarn without original_max_position_embeddings, longer than max_position_embeddings",
        length=48,
        prompt=30,
        unlike=(
            NO_SCALING,
            {"rope_scaling": {**YARN_BY_LIMIT, "beta_fast": 32.0}},
            {"rope_scaling": {**YARN_BY_LIMIT, "beta_slow": 1.0}},
            {"rope_scaling": {**YARN_BY_LIMIT, "original_max_position_embeddings": 128}},
        ),
    ),
    "qwen3_llama3": Case(
        "qwen3",
        {**WIDE_HEADS_3, "rope_scaling": LLAMA3},
        "llama3 scaling, longer than the original context",
        length=48,
        prompt=30,
        unlike=(NO_SCALING,),
    ),
    "qwen3_window": Case(
        "qwen3",
        {
            "head_dim": 8,
            "num_hidden_layers": 3,
            "use_sliding_window": True,
            "sliding_window": 6,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
        "window of 6 keys in layers 0 and 2, by layer_types; max_window_layers left at its default",
        batch=2,
        length=40,
        unlike=(
            {"sliding_window": 5},
            {"sliding_window": 7},
            {"layer_types": ["sliding_attention"] * 3},
            {"layer_types": ["full_attention", "sliding_attention", "full_attention"]},
        ),
    ),
    "qwen3_moe_mixed": Case(
        "qwen3_moe",
        {"decoder_sparse_step": 2, "mlp_only_layers": [3], "num_hidden_layers": 4},
        "only layer 1 is sparse; renormalised; 24 routed indices",
        length=12,
        unlike=({"norm_topk_prob": False},),
    ),
    "qwen3_moe_raw": Case(
        "qwen3_moe",
        {
            "decoder_sparse_step": 2,
            "head_dim": 8,
            "mlp_only_layers": [1],
            "norm_topk_prob": False,
            "num_hidden_layers": 4,
        },
        "only layer 3 is sparse; not renormalised; 96 routed indices",
        batch=2,
        unlike=({"norm_topk_prob": True},),
    ),
    "qwen3_moe_wide": Case(
        "qwen3_moe",
        {"head_dim": 8, "mlp_only_layers": [0], "num_experts": 16, "num_experts_per_tok": 4},
        "layer 0 is dense; 4 of 16 experts; 192 routed indices",
        batch=2,
        unlike=({"num_experts_per_tok": 3},),
    ),
    "qwen3_moe_window": Case(
        "qwen3_moe",
        {
            "attention_bias": True,
            "head_dim": 8,
            "max_window_layers": 1,
            "num_experts": 4,
            "sliding_window": 8,
            "use_sliding_window": True,
        },
        "window of 8 keys in every layer, whatever max_window_layers says; biases on q, k, v and o",
        length=40,
        unlike=({"sliding_window": 7}, {"sliding_window": 9}, {"use_sliding_window": False}),
        fused_experts=True,
    ),
    "qwen3_moe_yarn": Case(
        "qwen3_moe",
        {**WIDE_HEADS, "num_experts": 4, "max_position_embeddings": 128, "rope_scaling": YARN},
        "yarn, longer than the original context",
        length=48,
        prompt=30,
        unlike=(NO_SCALING,),
    ),
}


CONVERSIONS: dict[str, Conversion] = {
    "qwen2_bf16": Conversion("qwen2", config={**TIED, "intermediate_size": 64}),
    "qwen2_4bit": Conversion("qwen2", FOUR_BITS),
    # Without q_group_size the recipes write "group_size": null for every module.
    "qwen2_mixed_3_6": Conversion(
        "qwen2", {"quantize": True, "quant_predicate": "mixed_3_6"}, {"num_hidden_layers": 3}
    ),
    # The input of o_proj is 32 wide, which no group of 64 divides: mlx-lm leaves it as it is.
    "qwen3_8bit": Conversion("qwen3", {"quantize": True, "q_bits": 8}, {**TIED, "head_dim": 16}),
    "qwen3_4bit_g32": Conversion("qwen3", {**FOUR_BITS, "q_group_size": 32}),
    "qwen3_mixed_4_6": Conversion("qwen3", {"quantize": True, "quant_predicate": "mixed_4_6", "q_group_size": 32}),
    "qwen3_mxfp4": Conversion("qwen3", MXFP4),
    "qwen3_moe_bf16": Conversion("qwen3_moe", config={"intermediate_size": 64, "moe_intermediate_size": 32}),
    "qwen3_moe_4bit": Conversion("qwen3_moe", FOUR_BITS),
    # The router's entry names no mode: it is affine although everything else is mxfp4.
    "qwen3_moe_mxfp4": Conversion("qwen3_moe", MXFP4),
}

QWEN: Config = {
    "hidden_act": "silu",
    "max_position_embeddings": 40960,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000,
    "tie_word_embeddings": False,
    "vocab_size": 151936,
}
RELEASED: dict[str, Config] = {
    "Llama-3.2-1B": {
        "model_type": "llama",
        "head_dim": 64,
        "hidden_act": "silu",
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "max_position_embeddings": 131072,
        "num_attention_heads": 32,
        "num_hidden_layers": 16,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-05,
        "rope_theta": 500000.0,
        "tie_word_embeddings": True,
        "vocab_size": 128256,
    },
    "Qwen2.5-7B": {
        **QWEN,
        "model_type": "qwen2",
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "max_position_embeddings": 131072,
        "num_attention_heads": 28,
        "num_hidden_layers": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152064,
    },
    "Qwen3-0.6B": {
        **QWEN,
        "model_type": "qwen3",
        "head_dim": 128,
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_attention_heads": 16,
        "num_hidden_layers": 28,
        "num_key_value_heads": 8,
        "tie_word_embeddings": True,
    },
    "Qwen3-30B-A3B": {
        **QWEN,
        "model_type": "qwen3_moe",
        "decoder_sparse_step": 1,
        "head_dim": 128,
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "mlp_only_layers": [],
        "moe_intermediate_size": 768,
        "norm_topk_prob": True,
        "num_attention_heads": 32,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "num_hidden_layers": 48,
        "num_key_value_heads": 4,
    },
}
