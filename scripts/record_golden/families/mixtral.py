"""Mixtral: `python scripts/record_golden/transformers_models.py mixtral`, other recorders likewise."""

from __future__ import annotations

from families import MXFP4, NO_SCALING, TIED, YARN, Case, Config, Conversion, ModelType, Shapes, expert_shapes


def mlp(layer: str, index: int, config: Config) -> Shapes:
    """Experts in every layer, whose matrices have names of their own."""
    block, names = f"{layer}.block_sparse_moe", ("w1", "w3", "w2")
    return expert_shapes(block, config["num_local_experts"], config["intermediate_size"], config["hidden_size"], names)


MODEL_TYPES: dict[str, ModelType] = {
    "mixtral": ModelType(
        "MixtralForCausalLM",
        config={
            "hidden_size": 24,
            "intermediate_size": 16,
            "num_experts_per_tok": 2,
            "num_local_experts": 4,
            "sliding_window": None,
        },
        converted={
            "hidden_size": 64,
            "intermediate_size": 64,
            "num_attention_heads": 2,
            "num_experts_per_tok": 2,
            "num_local_experts": 4,
        },
        mlp=mlp,
        router="softmax",
        # What checkpoints say, and transformers 5 in memory.
        drawn_as={".block_sparse_moe.": ".mlp.", ".w1.": ".gate_proj.", ".w2.": ".down_proj.", ".w3.": ".up_proj."},
    ),
}

CASES: dict[str, Case] = {
    "mixtral_untied": Case(
        "mixtral",
        {"num_local_experts": 5, "num_experts_per_tok": 3},
        "3 of 5 experts; 144 routed indices",
        batch=2,
        unlike=({"num_experts_per_tok": 2}, {"rope_theta": None}),
    ),
    "mixtral_tied": Case(
        "mixtral",
        {"tie_word_embeddings": True, "num_experts_per_tok": 1, "rope_theta": None},
        "head is the embedding; one expert per token; theta left at its default, a million",
        unlike=({"num_experts_per_tok": 2}, {"rope_theta": 10000.0}),
    ),
    "mixtral_window": Case(
        "mixtral",
        {"head_dim": 16, "sliding_window": 7},
        "window of 7 keys in every layer; head_dim isn't hidden_size / heads; fused experts",
        length=40,
        prompt=20,
        unlike=({"sliding_window": 6}, {"sliding_window": 8}, {"sliding_window": None}),
        fused_experts=True,
    ),
    "mixtral_yarn": Case(
        "mixtral",
        {
            "head_dim": 16,  # the reference needs one for this scaling
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "rope_scaling": YARN,
            "tie_word_embeddings": True,
        },
        "yarn, longer than the original context; head is the embedding",
        length=48,
        prompt=30,
        unlike=(NO_SCALING, {"rope_scaling": {**YARN, "factor": 2.0}}),
    ),
    "mixtral_sharded": Case(
        "mixtral",
        {"num_key_value_heads": 4, "num_experts_per_tok": 4},
        "every expert for every token; no grouping of heads; several shards",
        max_shard_size="24KB",
    ),
}


CONVERSIONS: dict[str, Conversion] = {
    "mixtral_bf16": Conversion("mixtral", config={**TIED, "intermediate_size": 32, "num_hidden_layers": 1}),
    # Here the router has as many bits as everything else.
    "mixtral_5bit": Conversion("mixtral", {"quantize": True, "q_bits": 5}),
    "mixtral_mxfp4": Conversion("mixtral", MXFP4, TIED),
}

MIXTRAL: Config = {
    "model_type": "mixtral",
    "hidden_act": "silu",
    "num_experts_per_tok": 2,
    "num_key_value_heads": 8,
    "num_local_experts": 8,
    "rms_norm_eps": 1e-05,
    "rope_theta": 1000000.0,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "vocab_size": 32000,
}

RELEASED: dict[str, Config] = {
    "Mixtral-8x7B-v0.1": {
        **MIXTRAL,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "max_position_embeddings": 32768,
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
    },
    "Mixtral-8x22B-v0.1": {
        **MIXTRAL,
        "hidden_size": 6144,
        "intermediate_size": 16384,
        "max_position_embeddings": 65536,
        "num_attention_heads": 48,
        "num_hidden_layers": 56,
    },
}
