"""Print the table of sizes in docs/models.md: parameters, bytes of the weights by precision, bytes of a cached token.

    uv run python scripts/model_sizes.py

The models are built by their packages at the released sizes; MLX's arrays are lazy, so nothing is allocated. The sizes
of GLM and Mixtral are the recorded ones (`released.json` beside the goldens); the others are what the released
config.json files say, as far as it decides about shapes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlx_core.errors import ConfigError
from mlx_core.models import CausalLM, find_architecture, named_parameters, quantize_model

ROOT = Path(__file__).parents[1]
Config = dict[str, Any]


def _llama(hidden: int, intermediate: int, layers: int, heads: int, kv_heads: int, vocab: int, **others: Any) -> Config:
    return {
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocab,
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": 32768,
        **others,
    }


def _moe(intermediate: int) -> Config:
    return {
        "model_type": "qwen3_moe",
        "moe_intermediate_size": intermediate,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "decoder_sparse_step": 1,
        "norm_topk_prob": True,
        "head_dim": 128,
        "tie_word_embeddings": False,
    }


LLAMA, QWEN2 = {"model_type": "llama"}, {"model_type": "qwen2"}
QWEN3 = {"model_type": "qwen3", "head_dim": 128}
OLMO2, GEMMA3 = {"model_type": "olmo2"}, {"model_type": "gemma3_text", "head_dim": 256}
TIED, UNTIED = {"tie_word_embeddings": True}, {"tie_word_embeddings": False}

SIZES: dict[str, Config] = {
    "Llama-3.2-1B": _llama(2048, 8192, 16, 32, 8, 128256, head_dim=64, **LLAMA, **TIED),
    "Llama-3.2-3B": _llama(3072, 8192, 28, 24, 8, 128256, head_dim=128, **LLAMA, **TIED),
    "Llama-3.1-8B": _llama(4096, 14336, 32, 32, 8, 128256, **LLAMA, **UNTIED),
    "Llama-3.3-70B": _llama(8192, 28672, 80, 64, 8, 128256, **LLAMA, **UNTIED),
    "Qwen2.5-0.5B": _llama(896, 4864, 24, 14, 2, 151936, **QWEN2, **TIED),
    "Qwen2.5-1.5B": _llama(1536, 8960, 28, 12, 2, 151936, **QWEN2, **TIED),
    "Qwen2.5-3B": _llama(2048, 11008, 36, 16, 2, 151936, **QWEN2, **TIED),
    "Qwen2.5-7B": _llama(3584, 18944, 28, 28, 4, 152064, **QWEN2, **UNTIED),
    "Qwen2.5-14B": _llama(5120, 13824, 48, 40, 8, 152064, **QWEN2, **UNTIED),
    "Qwen2.5-32B": _llama(5120, 27648, 64, 40, 8, 152064, **QWEN2, **UNTIED),
    "Qwen2.5-72B": _llama(8192, 29568, 80, 64, 8, 152064, **QWEN2, **UNTIED),
    "Qwen3-0.6B": _llama(1024, 3072, 28, 16, 8, 151936, **QWEN3, **TIED),
    "Qwen3-1.7B": _llama(2048, 6144, 28, 16, 8, 151936, **QWEN3, **TIED),
    "Qwen3-4B": _llama(2560, 9728, 36, 32, 8, 151936, **QWEN3, **TIED),
    "Qwen3-8B": _llama(4096, 12288, 36, 32, 8, 151936, **QWEN3, **UNTIED),
    "Qwen3-14B": _llama(5120, 17408, 40, 40, 8, 151936, **QWEN3, **UNTIED),
    "Qwen3-32B": _llama(5120, 25600, 64, 64, 8, 151936, **QWEN3, **UNTIED),
    "Qwen3-30B-A3B": _llama(2048, 6144, 48, 32, 4, 151936, **_moe(768)),
    "Qwen3-235B-A22B": _llama(4096, 12288, 94, 64, 4, 151936, **_moe(1536)),
    "OLMo-2-0425-1B": _llama(2048, 8192, 16, 16, 16, 100352, **OLMO2, **UNTIED),
    "OLMo-2-1124-7B": _llama(4096, 11008, 32, 32, 32, 100352, **OLMO2, **UNTIED),
    "OLMo-2-1124-13B": _llama(5120, 13824, 40, 40, 40, 100352, **OLMO2, **UNTIED),
    "OLMo-2-0325-32B": _llama(5120, 27648, 64, 40, 8, 100352, **OLMO2, **UNTIED),
    "gemma-3-270m": _llama(640, 2048, 18, 4, 1, 262144, **GEMMA3, **TIED),
    "gemma-3-1b": _llama(1152, 6912, 26, 4, 1, 262144, **GEMMA3, **TIED),
}


def main() -> None:
    """Print a row for each model that an installed package serves."""
    sizes = dict(SIZES)
    for file in sorted((ROOT / "packages").glob("*/tests/goldens/released.json")):
        sizes |= {name: row["config"] for name, row in json.loads(file.read_text(encoding="utf-8")).items()}
    print("| model | parameters | bf16 | 8 bits | 4 bits | cache of 1,000 tokens, 16 bits |")
    print("|---|---|---|---|---|---|")
    for name, config in sizes.items():
        try:
            architecture = find_architecture(config["model_type"])
        except ConfigError:
            continue  # its package isn't installed
        parsed = architecture.ModelConfig.from_dict(config)
        parameters = sum(array.size for array in named_parameters(architecture.Model(parsed)).values())
        sizes_bytes = []
        for bits in (16, 8, 4):
            model = architecture.Model(parsed)
            if bits < 16:
                quantize_model(model, bits)
            sizes_bytes.append(_weight_bytes(model))
        cached = 2 * config["num_hidden_layers"] * config["num_key_value_heads"] * parsed.head_dim * 2 * 1000
        cells = [_number(parameters).replace(" G", "B").replace(" ", "")]
        cells += [f"{_number(size)}B" for size in sizes_bytes] + [f"{cached / 1e6:,.0f} MB"]
        print(f"| {name} | {' | '.join(cells)} |")


def _weight_bytes(model: CausalLM) -> int:
    """Packed weights (uint32) as they are, all others in 16 bits."""
    arrays = named_parameters(model).values()
    return sum(array.nbytes if array.dtype == mx.uint32 else 2 * array.size for array in arrays)


def _number(n: float) -> str:
    return f"{n / 1e9:,.0f} G" if n >= 1e11 else f"{n / 1e9:.3g} G" if n >= 1e9 else f"{n / 1e6:.0f} M"


if __name__ == "__main__":
    main()
