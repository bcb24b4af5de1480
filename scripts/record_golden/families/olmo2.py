"""OLMo-2: `python scripts/record_golden/transformers_models.py olmo2`, other recorders likewise."""

from __future__ import annotations

from families import FOUR_BITS, NO_SCALING, TIED, Case, Config, Conversion, ModelType

MODEL_TYPES: dict[str, ModelType] = {
    "olmo2": ModelType(
        "Olmo2ForCausalLM",
        # The family's own defaults for special tokens lie beyond a small vocabulary.
        config={"eos_token_id": 63, "pad_token_id": 1},
        converted={"hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 2},
        norms=("post_attention_layernorm", "post_feedforward_layernorm"),
        qk_norm="projection",
    ),
}

CASES: dict[str, Case] = {
    "olmo2_untied": Case(
        "olmo2",
        {"num_hidden_layers": 3, "rms_norm_eps": 1e-2},
        "grouped queries; eps 0.01",
        batch=2,
        unlike=({"rms_norm_eps": 1e-6}, {"rope_theta": 10000.0}),
    ),
    "olmo2_tied": Case(
        "olmo2",
        {**TIED, "num_key_value_heads": None, "rope_theta": None},
        "head is the embedding; as many key and value heads as query heads, and theta 10000, by default",
        unlike=({"num_key_value_heads": 2}, {"rope_theta": 1000.0}),
    ),
    "olmo2_bias": Case(
        "olmo2", {"attention_bias": True}, "biases on q, k, v and o", unlike=({"attention_bias": False},)
    ),
    "olmo2_linear": Case(
        "olmo2",
        {"num_attention_heads": 2, "num_key_value_heads": 1, "rope_scaling": {"type": "linear", "factor": 4.0}},
        "linear scaling; several shards",
        length=48,
        prompt=30,
        unlike=(NO_SCALING, {"rope_scaling": {"type": "linear", "factor": 2.0}}),
        max_shard_size="24KB",
    ),
}

CONVERSIONS: dict[str, Conversion] = {
    "olmo2_bf16": Conversion("olmo2"),
    "olmo2_4bit": Conversion("olmo2", FOUR_BITS, TIED),
    # Not mxfp4: mlx-lm's embedding is then bfloat16 whatever the rest is, and the first projection has no norm before it
    # that would make it float32.
    "olmo2_mixed_3_6": Conversion("olmo2", {"quantize": True, "quant_predicate": "mixed_3_6"}),
}

OLMO2: Config = {
    "model_type": "olmo2",
    "attention_bias": False,
    "hidden_act": "silu",
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 500000,
    "tie_word_embeddings": False,
    "vocab_size": 100352,
}
RELEASED: dict[str, Config] = {
    "OLMo-2-0425-1B": {
        **OLMO2,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_attention_heads": 16,
        "num_hidden_layers": 16,
        "num_key_value_heads": 16,
    },
    "OLMo-2-1124-7B": {
        **OLMO2,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
        "num_key_value_heads": 32,
    },
    "OLMo-2-1124-13B": {
        **OLMO2,
        "hidden_size": 5120,
        "intermediate_size": 13824,
        "num_attention_heads": 40,
        "num_hidden_layers": 40,
        "num_key_value_heads": 40,
    },
    "OLMo-2-0325-32B": {
        **OLMO2,
        "hidden_size": 5120,
        "intermediate_size": 27648,
        "num_attention_heads": 40,
        "num_hidden_layers": 64,
        "num_key_value_heads": 8,
    },
}
