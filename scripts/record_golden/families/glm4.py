"""GLM-4 (0414): `python scripts/record_golden/transformers_models.py glm4`, other recorders likewise."""

from __future__ import annotations

from families import FOUR_BITS, LLAMA3, NO_SCALING, YARN, Case, Config, Conversion, ModelType, Shapes


def mlp(layer: str, index: int, config: Config) -> Shapes:
    """Gate and up are one matrix."""
    hidden, width = config["hidden_size"], config["intermediate_size"]
    return {
        f"{layer}.mlp.gate_up_proj.weight": (2 * width, hidden),
        f"{layer}.mlp.down_proj.weight": (hidden, width),
    }


MODEL_TYPES: dict[str, ModelType] = {
    "glm4": ModelType(
        "Glm4ForCausalLM",
        config={
            "attention_bias": True,
            # The family's own defaults for special tokens lie beyond a small vocabulary.
            "eos_token_id": [63],
            "head_dim": 16,
            "hidden_size": 24,
            "intermediate_size": 32,
            "pad_token_id": 0,
            "partial_rotary_factor": 0.5,
        },
        converted={
            "attention_bias": True,
            "head_dim": 32,
            "hidden_size": 64,
            "intermediate_size": 64,
            "num_attention_heads": 2,
            "partial_rotary_factor": 0.5,
        },
        norms=("input_layernorm", "post_attention_layernorm", "post_self_attn_layernorm", "post_mlp_layernorm"),
        mlp=mlp,
    ),
}

CASES: dict[str, Case] = {
    "glm4_bias": Case(
        "glm4",
        {},
        "biases on q, k and v; head_dim isn't hidden_size / heads",
        batch=2,
        unlike=({"partial_rotary_factor": 1.0}, {"partial_rotary_factor": 0.25}, {"rope_theta": 10000.0}),
    ),
    "glm4_plain": Case(
        "glm4",
        {"attention_bias": False, "head_dim": 8, "rms_norm_eps": 1e-2},
        "no biases; eps 0.01",
        batch=2,
        unlike=({"rms_norm_eps": 1e-6},),
    ),
    "glm4_bias_tied": Case(
        "glm4",
        {"head_dim": 8, "tie_word_embeddings": True, "partial_rotary_factor": None, "rope_theta": None},
        "biases; head is the embedding; half of each head is rotated and theta is 10000, by default",
        unlike=({"partial_rotary_factor": 1.0}, {"rope_theta": 1000.0}),
    ),
    "glm4_plain_tied": Case(
        "glm4",
        {"attention_bias": False, "tie_word_embeddings": True, "partial_rotary_factor": 1.0},
        "no biases; head is the embedding; whole heads are rotated",
        unlike=({"partial_rotary_factor": 0.5},),
    ),
    "glm4_llama3": Case(
        "glm4",
        {"head_dim": 32, "num_attention_heads": 2, "num_key_value_heads": 1, "rope_scaling": LLAMA3},
        "llama3 scaling of the half that is rotated, longer than the original context",
        length=48,
        prompt=30,
        unlike=(NO_SCALING,),
    ),
    "glm4_yarn": Case(
        "glm4",
        {"num_attention_heads": 2, "num_key_value_heads": 1, "rope_scaling": YARN},
        "yarn of the half that is rotated, longer than the original context; several shards",
        length=48,
        prompt=30,
        unlike=(NO_SCALING, {"rope_scaling": {**YARN, "attention_factor": 1.0}}),
        max_shard_size="24KB",
    ),
}


CONVERSIONS: dict[str, Conversion] = {
    "glm4_bf16": Conversion("glm4"),
    "glm4_4bit": Conversion("glm4", FOUR_BITS),
    "glm4_mixed_3_6": Conversion("glm4", {"quantize": True, "quant_predicate": "mixed_3_6"}, {"attention_bias": False}),
}

GLM4: Config = {
    "model_type": "glm4",
    "head_dim": 128,
    "hidden_act": "silu",
    "max_position_embeddings": 32768,
    "num_key_value_heads": 2,
    "partial_rotary_factor": 0.5,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "vocab_size": 151552,
}

RELEASED: dict[str, Config] = {
    "GLM-4-9B-0414": {
        **GLM4,
        "attention_bias": True,
        "hidden_size": 4096,
        "intermediate_size": 13696,
        "num_attention_heads": 32,
        "num_hidden_layers": 40,
    },
    "GLM-4-32B-0414": {
        **GLM4,
        "attention_bias": False,
        "hidden_size": 6144,
        "intermediate_size": 23040,
        "num_attention_heads": 48,
        "num_hidden_layers": 61,
    },
}
