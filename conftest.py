"""Set-up for all tests."""

import os

from hypothesis import HealthCheck, settings

# Before MLX is imported: NVIDIA GPUs otherwise multiply fp32 in TF32, whose 10 bits of mantissa would make every comparison
# meaningless.
os.environ.setdefault("MLX_ENABLE_TF32", "0")

# No test depends on time: a busy machine must not fail one.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")
