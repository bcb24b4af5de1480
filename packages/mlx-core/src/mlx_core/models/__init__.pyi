from .checkpoint_module import Array, CheckpointModule, check_sizes, fold_weight_norm, sizes
from .conversion import convert_model, save_model
from .convolutions import Conv1d, Conv2d, ConvTranspose1d
from .experts import RoutedExperts, SoftmaxMoE, SparseMoE, stack_experts, top_k_indices
from .filling import LoadReport, preserved_random_state
from .layers import (
    Attention,
    CausalLM,
    DecoderLayer,
    GatedMLP,
    JoinedMLP,
    ModelInput,
    ModelOutput,
    Norms,
    ZeroCenteredRMSNorm,
)
from .loading import load, load_model
from .projections import fuse_projections, named_parameters, split_parameters
from .quantization import RECIPES, quantize_model
from .random_weights import randomize
from .registry import find_architecture, installed_model_types

__all__ = [
    "RECIPES",
    "Array",
    "Attention",
    "CausalLM",
    "CheckpointModule",
    "Conv1d",
    "Conv2d",
    "ConvTranspose1d",
    "DecoderLayer",
    "GatedMLP",
    "JoinedMLP",
    "LoadReport",
    "ModelInput",
    "ModelOutput",
    "Norms",
    "RoutedExperts",
    "SoftmaxMoE",
    "SparseMoE",
    "ZeroCenteredRMSNorm",
    "check_sizes",
    "convert_model",
    "find_architecture",
    "fold_weight_norm",
    "fuse_projections",
    "installed_model_types",
    "load",
    "load_model",
    "named_parameters",
    "preserved_random_state",
    "quantize_model",
    "randomize",
    "save_model",
    "sizes",
    "split_parameters",
    "stack_experts",
    "top_k_indices",
]
