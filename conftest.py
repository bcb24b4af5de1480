"""Set-up for all tests."""

import os

# Before MLX is imported: NVIDIA GPUs otherwise multiply fp32 in TF32, whose 10 bits of mantissa would make every comparison
# meaningless.
os.environ.setdefault("MLX_ENABLE_TF32", "0")
