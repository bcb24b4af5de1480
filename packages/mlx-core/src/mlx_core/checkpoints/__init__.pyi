from .hub import resolve
from .legacy_quantization import repack
from .torch import load_pytorch_checkpoint, open_pytorch_checkpoint, state_dict_of
from .weight_mapping import Rule, WeightMapping
from .weights import Checkpoint, load_pytorch_weights, load_safetensors, load_weights, open_checkpoint
from .writing import MAX_SHARD_BYTES, OnBytes, new_folder, write_config, write_weights

__all__ = [
    "MAX_SHARD_BYTES",
    "Checkpoint",
    "OnBytes",
    "Rule",
    "WeightMapping",
    "load_pytorch_checkpoint",
    "load_pytorch_weights",
    "load_safetensors",
    "load_weights",
    "new_folder",
    "open_checkpoint",
    "open_pytorch_checkpoint",
    "repack",
    "resolve",
    "state_dict_of",
    "write_config",
    "write_weights",
]
