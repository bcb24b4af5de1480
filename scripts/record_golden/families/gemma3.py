"""Gemma 3: `python scripts/record_golden/transformers_models.py gemma3`, other recorders likewise."""

from __future__ import annotations

from dataclasses import replace

from families import FOUR_BITS, MXFP4, Case, Config, Conversion, ModelType

LINEAR: Config = {"rope_type": "linear", "factor": 8.0}
# As small as SigLIP goes: four patches, of which the projector makes one token.
VISION: Config = {
    "hidden_size": 16,
    "image_size": 8,
    "intermediate_size": 16,
    "model_type": "siglip_vision_model",
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "patch_size": 4,
}


def multimodal(flat: Config) -> Config:
    """The language model's entries under `text_config`, as in the checkpoints that also see."""
    outer = ("architectures", "model_type", "torch_dtype", "eos_token_id")
    return {
        **{key: flat[key] for key in outer if key in flat},
        "vocab_size": flat["vocab_size"],  # where mlx-lm looks for it
        "image_token_index": 62,
        "boi_token_index": 60,
        "eoi_token_index": 61,
        "mm_tokens_per_image": 1,
        "text_config": {
            **{key: value for key, value in flat.items() if key not in outer},
            "model_type": "gemma3_text",
        },
        "vision_config": VISION,
    }


TEXT = ModelType(
    "Gemma3ForCausalLM",
    config={
        "eos_token_id": 63,
        "head_dim": 16,
        "hidden_act": None,
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": 24,
        "query_pre_attn_scalar": 32,
        "rope_local_base_freq": 100.0,
        "sliding_window": 8,
        "tie_word_embeddings": True,
    },
    # mlx-lm rounds the square root of hidden_size to bfloat16; that of 64 needs no rounding.
    converted={
        "head_dim": 32,
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_attention_heads": 2,
        "num_hidden_layers": 3,
        "query_pre_attn_scalar": 64,
        "rope_local_base_freq": 1000.0,
        "sliding_window": 8,
        "sliding_window_pattern": 2,
        "tie_word_embeddings": True,
    },
    norms=(
        "input_layernorm",
        "post_attention_layernorm",
        "pre_feedforward_layernorm",
        "post_feedforward_layernorm",
    ),
    qk_norm="head",
    norm_offset=1.0,
)
MODEL_TYPES: dict[str, ModelType] = {
    "gemma3_text": TEXT,
    "gemma3": replace(
        TEXT,
        architecture="Gemma3ForConditionalGeneration",
        # The same tensors as in `gemma3_text`, whatever the checkpoint and both versions call them.
        drawn_as={
            "model.language_model.": "model.",
            "language_model.model.": "model.",
            "vision_tower.vision_model.": "vision_tower.",
        },
        publish=multimodal,
        prefix="language_model.",
    ),
}

CASES: dict[str, Case] = {
    "gemma3_pattern": Case(
        "gemma3_text",
        {"num_hidden_layers": 3, "sliding_window_pattern": 2},
        "a window of 8 keys but in every second layer, by sliding_window_pattern; a RoPE for each kind",
        batch=2,
        length=40,
        unlike=(
            {"sliding_window": 7},
            {"sliding_window": 9},
            {"sliding_window_pattern": 3},
            {"rope_local_base_freq": 1000.0},
            {"rope_theta": 100.0},
            {"query_pre_attn_scalar": 16},
            {"hidden_activation": "silu"},
        ),
    ),
    "gemma3_defaults": Case(
        "gemma3_text",
        {
            "hidden_activation": None,
            "num_hidden_layers": 7,
            "query_pre_attn_scalar": None,
            "rope_local_base_freq": None,
            "rope_theta": None,
            "tie_word_embeddings": None,
        },
        "six layers a period, thetas of a million and 10000, scale 1/16 and a tied head, by default",
        length=40,
        unlike=(
            {"rope_theta": 1000.0},
            {"rope_local_base_freq": 1000.0},
            {"query_pre_attn_scalar": 16},
            {"tie_word_embeddings": False},
            {"sliding_window_pattern": 7},
        ),
    ),
    "gemma3_layer_types": Case(
        "gemma3_text",
        {
            "layer_types": ["full_attention", "sliding_attention", "sliding_attention"],
            "num_hidden_layers": 3,
            "rms_norm_eps": 1e-2,
        },
        "kinds of layers by layer_types; eps 0.01; several shards",
        length=40,
        unlike=(
            {"layer_types": ["full_attention"] * 3},
            {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
            {"rms_norm_eps": 1e-6},
        ),
        max_shard_size="24KB",
    ),
    "gemma3_linear": Case(
        "gemma3_text",
        {"num_attention_heads": 2, "num_key_value_heads": 1, "rope_scaling": LINEAR, "sliding_window_pattern": 2},
        "linear scaling in the global layer alone",
        length=40,
        prompt=20,
        unlike=({"rope_scaling": None}, {"rope_scaling": {**LINEAR, "factor": 4.0}}),
    ),
    "gemma3_softcaps": Case(
        "gemma3_text",
        {
            "attn_logit_softcapping": 0.5,
            "final_logit_softcapping": 5.0,
            "sliding_window_pattern": 2,
            "tie_word_embeddings": False,
        },
        "logits capped at 5, a head of its own; a cap of attention's, which both versions read and neither applies",
        batch=2,
        unlike=({"final_logit_softcapping": None}, {"final_logit_softcapping": 6.0}),
    ),
    "gemma3_untied_bias": Case(
        "gemma3_text",
        {"attention_bias": True, "tie_word_embeddings": False, "sliding_window_pattern": 2},
        "a head of its own; biases on q, k, v and o",
        unlike=({"attention_bias": False}, {"tie_word_embeddings": True}),
    ),
    "gemma3_multimodal": Case(
        "gemma3",
        {"num_hidden_layers": 5, "sliding_window_pattern": 2, "rope_scaling": LINEAR},
        "the checkpoint of a model that also sees: text_config, names, tensors of the vision tower",
        batch=2,
        length=40,
        unlike=({"rope_scaling": None}, {"sliding_window": 7}),
    ),
}

CONVERSIONS: dict[str, Conversion] = {
    "gemma3_bf16": Conversion("gemma3_text"),
    "gemma3_4bit": Conversion("gemma3_text", FOUR_BITS),
    "gemma3_multimodal_mixed_3_6": Conversion(
        "gemma3", {"quantize": True, "quant_predicate": "mixed_3_6"}, {"tie_word_embeddings": False}
    ),
    "gemma3_mxfp4": Conversion("gemma3_text", MXFP4, {"tie_word_embeddings": False}),
}

GEMMA3: Config = {
    "model_type": "gemma3_text",
    "attention_bias": False,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "max_position_embeddings": 131072,
    "query_pre_attn_scalar": 256,
    "rms_norm_eps": 1e-06,
    "rope_local_base_freq": 10000,
    "rope_scaling": LINEAR,
    "rope_theta": 1000000,
    "sliding_window": 1024,
    "sliding_window_pattern": 6,
    "tie_word_embeddings": True,
    "vocab_size": 262208,
}
RELEASED: dict[str, Config] = {
    "gemma-3-270m": {
        **GEMMA3,
        "hidden_size": 640,
        "intermediate_size": 2048,
        "max_position_embeddings": 32768,
        "num_attention_heads": 4,
        "num_hidden_layers": 18,
        "num_key_value_heads": 1,
        "rope_scaling": None,
        "sliding_window": 512,
        "vocab_size": 262144,
    },
    "gemma-3-1b": {
        **GEMMA3,
        "hidden_size": 1152,
        "intermediate_size": 6912,
        "max_position_embeddings": 32768,
        "num_attention_heads": 4,
        "num_hidden_layers": 26,
        "num_key_value_heads": 1,
        "rope_scaling": None,
        "sliding_window": 512,
        "vocab_size": 262144,
    },
    # These see, too: here are their language models.
    "gemma-3-4b": {
        **GEMMA3,
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "num_attention_heads": 8,
        "num_hidden_layers": 34,
        "num_key_value_heads": 4,
    },
    "gemma-3-12b": {
        **GEMMA3,
        "hidden_size": 3840,
        "intermediate_size": 15360,
        "num_attention_heads": 16,
        "num_hidden_layers": 48,
        "num_key_value_heads": 8,
    },
    "gemma-3-27b": {
        **GEMMA3,
        "head_dim": 128,
        "hidden_size": 5376,
        "intermediate_size": 21504,
        "num_attention_heads": 32,
        "num_hidden_layers": 62,
        "num_key_value_heads": 16,
        "query_pre_attn_scalar": 168,
    },
}
