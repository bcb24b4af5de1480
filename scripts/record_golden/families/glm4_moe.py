"""GLM-4.5 and later: `python scripts/record_golden/transformers_models.py glm4_moe`, other recorders likewise."""

from __future__ import annotations

from families import (
    FOUR_BITS,
    MXFP4,
    NO_SCALING,
    YARN,
    Case,
    Config,
    Conversion,
    ModelType,
    Shapes,
    Tensors,
    dense_mlp,
    draw,
    expert_shapes,
    gated_shapes,
)

GROUPS: Config = {"n_group": 3, "n_routed_experts": 9, "num_experts_per_tok": 3, "topk_group": 2}


def prediction_layer(config: Config) -> Tensors:
    """Some of the tensors of the layer for multi-token prediction, under the names that GLM-4.5's files use."""
    layer, hidden = f"model.layers.{config['num_hidden_layers']}", config["hidden_size"]
    shapes = {
        "eh_proj.weight": (hidden, 2 * hidden),
        "enorm.weight": (hidden,),
        "shared_head.norm.weight": (hidden,),
        "mlp.gate.weight": (config["n_routed_experts"], hidden),
        "mlp.experts.0.up_proj.weight": (config["moe_intermediate_size"], hidden),
        "self_attn.k_proj.weight": (8, hidden),
    }
    return {f"{layer}.{name}": draw(f"{layer}.{name}", shape) for name, shape in shapes.items()}


def mlp(layer: str, index: int, config: Config) -> Shapes:
    """Dense layers, then experts of which some are shared, with a bias of the router."""
    if index < config["first_k_dense_replace"]:
        return dense_mlp(layer, index, config)
    block, width, hidden = f"{layer}.mlp", config["moe_intermediate_size"], config["hidden_size"]
    return {
        **gated_shapes(f"{block}.shared_experts", width * config["n_shared_experts"], hidden),
        **expert_shapes(block, config["n_routed_experts"], width, hidden),
        f"{block}.gate.e_score_correction_bias": (config["n_routed_experts"],),
    }


MODEL_TYPES: dict[str, ModelType] = {
    "glm4_moe": ModelType(
        "Glm4MoeForCausalLM",
        config={
            "first_k_dense_replace": 1,
            "hidden_size": 24,
            "intermediate_size": 24,
            "moe_intermediate_size": 8,
            "n_group": 1,
            "n_routed_experts": 6,
            "n_shared_experts": 1,
            "norm_topk_prob": True,
            "num_experts_per_tok": 2,
            "num_nextn_predict_layers": 1,
            "partial_rotary_factor": 0.5,
            "rope_scaling": None,
            "routed_scaling_factor": 1.0,
            "topk_group": 1,
            "use_qk_norm": False,
            "attention_bias": False,
            "eos_token_id": [63],
            "pad_token_id": 0,
        },
        converted={
            "attention_bias": True,
            "first_k_dense_replace": 1,
            "head_dim": 32,
            "hidden_size": 64,
            "intermediate_size": 64,
            "moe_intermediate_size": 64,
            "n_group": 1,
            "n_routed_experts": 4,
            "n_shared_experts": 1,
            "norm_topk_prob": True,
            "num_attention_heads": 2,
            "num_experts_per_tok": 2,
            "partial_rotary_factor": 0.5,
            "rope_scaling": None,
            "routed_scaling_factor": 2.5,
            "topk_group": 1,
            "use_qk_norm": True,
        },
        mlp=mlp,
        router="sigmoid",
    ),
}

CASES: dict[str, Case] = {
    "glm4_moe_air": Case(
        "glm4_moe",
        {"attention_bias": True, "head_dim": 8, "num_hidden_layers": 2},
        "like GLM-4.5-Air: biases, no q/k norm, no groups; a layer for multi-token prediction in the file",
        batch=2,
        unlike=({"norm_topk_prob": False}, {"partial_rotary_factor": 1.0}, {"first_k_dense_replace": 0}),
        extra_tensors=prediction_layer,
    ),
    "glm4_moe_full": Case(
        "glm4_moe",
        {
            "attention_bias": True,
            "first_k_dense_replace": 2,
            "head_dim": 16,
            "num_hidden_layers": 3,
            "num_key_value_heads": 1,
            "routed_scaling_factor": 2.5,
            "use_qk_norm": True,
        },
        "like GLM-4.5: biases, q/k norm, two dense layers, weights times 2.5",
        unlike=({"routed_scaling_factor": 1.0}, {"use_qk_norm": False}, {"n_shared_experts": 2}),
    ),
    "glm4_moe_groups": Case(
        "glm4_moe",
        {
            **GROUPS,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "use_qk_norm": True,
            "partial_rotary_factor": None,
        },
        "2 of 3 groups of 3 experts; head_dim is hidden_size / heads, half of it is rotated by default; fused experts",
        batch=2,
        unlike=({"topk_group": 3}, {"topk_group": 1}, {"partial_rotary_factor": 1.0}),
        fused_experts=True,
    ),
    "glm4_moe_raw": Case(
        "glm4_moe",
        {**GROUPS, "topk_group": 1, "first_k_dense_replace": 0, "head_dim": 8, "norm_topk_prob": False},
        "all experts of 1 of 3 groups, some with negative scores, to which 4.57.6 prefers masked ones; not normalised; "
        "no dense layer",
        unlike=({"topk_group": 2}, {"norm_topk_prob": True}),
    ),
    "glm4_moe_shared": Case(
        "glm4_moe",
        {"n_shared_experts": 2, "tie_word_embeddings": True, "head_dim": 16, "rope_scaling": YARN},
        "two shared experts; head is the embedding; yarn, longer than the original context",
        length=48,
        prompt=30,
        unlike=(NO_SCALING,),
    ),
}


CONVERSIONS: dict[str, Conversion] = {
    "glm4_moe_bf16": Conversion("glm4_moe", config={"intermediate_size": 32, "moe_intermediate_size": 32}),
    "glm4_moe_4bit": Conversion("glm4_moe", FOUR_BITS),
    "glm4_moe_mxfp4": Conversion("glm4_moe", MXFP4),
}

GLM4_MOE: Config = {
    "model_type": "glm4_moe",
    "attention_bias": True,
    "head_dim": 128,
    "hidden_act": "silu",
    "max_position_embeddings": 131072,
    "n_group": 1,
    "n_shared_experts": 1,
    "norm_topk_prob": True,
    "num_attention_heads": 96,
    "num_experts_per_tok": 8,
    "num_key_value_heads": 8,
    "num_nextn_predict_layers": 1,
    "partial_rotary_factor": 0.5,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "tie_word_embeddings": False,
    "topk_group": 1,
    "vocab_size": 151552,
}
GLM45: Config = {
    **GLM4_MOE,
    "first_k_dense_replace": 3,
    "hidden_size": 5120,
    "intermediate_size": 12288,
    "moe_intermediate_size": 1536,
    "n_routed_experts": 160,
    "num_hidden_layers": 92,
    "routed_scaling_factor": 2.5,
    "use_qk_norm": True,
}

RELEASED: dict[str, Config] = {
    "GLM-4.5-Air": {
        **GLM4_MOE,
        "first_k_dense_replace": 1,
        "hidden_size": 4096,
        "intermediate_size": 10944,
        "moe_intermediate_size": 1408,
        "n_routed_experts": 128,
        "num_hidden_layers": 46,
        "routed_scaling_factor": 1.0,
        "use_qk_norm": False,
    },
    "GLM-4.5": GLM45,
    "GLM-4.6": {**GLM45, "max_position_embeddings": 202752},
}
