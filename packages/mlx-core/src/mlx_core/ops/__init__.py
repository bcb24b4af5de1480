"""Operations on arrays that models share: attention, RoPE, activations, convolutions, packed arrays."""

from .. import backend as backend  # first: without MLX it says what to install

# isort: split
from .activations import ACTIVATIONS, gelu, gelu_tanh, mish
from .attention import (
    Mask,
    bidirectional_attention,
    causal_mask,
    check_window,
    create_attention_mask,
    merge_heads,
    multi_head,
    scaled_dot_product_attention,
    softcapped,
    split_heads,
)
from .convolution import conv1d, conv2d, conv_transpose1d, conv_transpose2d
from .packed import HadamardPacked, MaybePacked, Packed, hadamard_transform, has_hadamard
from .rope import LongerFrequencies, RoPE, RoPEPlan, initialize_rope

__all__ = [
    "ACTIVATIONS",
    "HadamardPacked",
    "LongerFrequencies",
    "Mask",
    "MaybePacked",
    "Packed",
    "RoPE",
    "RoPEPlan",
    "bidirectional_attention",
    "causal_mask",
    "check_window",
    "conv1d",
    "conv2d",
    "conv_transpose1d",
    "conv_transpose2d",
    "create_attention_mask",
    "gelu",
    "gelu_tanh",
    "hadamard_transform",
    "has_hadamard",
    "initialize_rope",
    "merge_heads",
    "mish",
    "multi_head",
    "scaled_dot_product_attention",
    "softcapped",
    "split_heads",
]
