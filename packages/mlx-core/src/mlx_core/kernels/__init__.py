"""Fused kernels: Metal, CUDA and portable forms of one definition.

Both functions are for callers with large arrays of their own, diffusion transformers above all. The models here call
neither: on CUDA MLX's compiler leaves nothing to gain over the portable form of swiglu, while a kernel of one's own
costs the host about 15 us at each launch (docs/performance.md), so `mlx_core.models` uses `swiglu.portable` on every
device.
"""

from .. import backend as backend  # first: without MLX it says what to install

# isort: split
from .modulate import fused_modulate
from .swiglu import fused_swiglu

__all__ = ["fused_modulate", "fused_swiglu"]
