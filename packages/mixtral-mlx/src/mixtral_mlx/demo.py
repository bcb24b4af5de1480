"""The demonstration model as a Mixtral: each layer's MLP becomes several experts, all alike.

The weights of the chosen experts add up to 1, so however the router chooses, the result is the Llama's. Training that
starts from such a model is called sparse upcycling: https://arxiv.org/abs/2212.05055.
"""

from __future__ import annotations

import dataclasses

import mlx.core as mx

from mlx_core.checkpoints import Checkpoint
from mlx_core.config import QuantizationConfig

_EXPERTS, _CHOSEN = 4, 2


def as_mixtral(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint of a Llama as that of a Mixtral with identical experts; lazy, and for `load`'s `adapt`."""
    config = {
        **checkpoint.config,
        "architectures": ["MixtralForCausalLM"],
        "model_type": "mixtral",
        "num_local_experts": _EXPERTS,
        "num_experts_per_tok": _CHOSEN,
    }
    # contiguous, since MLX's CUDA products of gathered matrices misread a dimension of stride 0
    weights = {
        _renamed(name): mx.contiguous(mx.broadcast_to(value, (_EXPERTS, *value.shape))) if ".mlp." in name else value
        for name, value in checkpoint.weights.items()
    }
    for layer in range(config["num_hidden_layers"]):
        router = mx.random.normal((_EXPERTS, config["hidden_size"]), key=mx.random.key(layer))
        weights[f"model.layers.{layer}.block_sparse_moe.gate.weight"] = router
    table = checkpoint.quantization
    if table is not None:
        overrides = {_renamed(path): packing for path, packing in table.overrides.items()}
        table = QuantizationConfig(table.default, overrides)
    note = f"a Llama as a Mixtral: {_EXPERTS} experts, each its MLP, {_CHOSEN} for a token"
    return dataclasses.replace(
        checkpoint, config=config, weights=weights, quantization=table, notes=(*checkpoint.notes, note)
    )


def _renamed(name: str) -> str:
    return name.replace(".mlp.", ".block_sparse_moe.switch_mlp.")
