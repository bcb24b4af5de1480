"""Fused kernels: Metal, CUDA and portable forms of one definition."""

from .. import backend as backend  # first: without MLX it says what to install

# isort: split
from .modulate import fused_modulate
from .swiglu import fused_swiglu

__all__ = ["fused_modulate", "fused_swiglu"]
