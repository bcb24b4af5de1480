"""What a device wants: the one place in the packages that decides by device.

The dtype to compute in, whether quantised weights stay packed, the memory limits, and on Linux CPUs a fast BLAS and
convolutions. Everything else asks `current()`. Importing this package changes no limit and no default of MLX; on
Linux CPUs it points MLX's matrix products at a fast BLAS, after a self-test.
"""

from .device import (  # first: without MLX's library it says what to install
    DTYPES,
    Backend,
    BackendName,
    BackendWarning,
    activate,
    current,
    instruction_sets,
    mlx_version,
    override,
    peak_memory_bytes,
    switches_set,
    wired,
)

# isort: split
from .blas import BlasStatus, available_cpus
from .blas import status as blas_status

__all__ = [
    "DTYPES",
    "Backend",
    "BackendName",
    "BackendWarning",
    "BlasStatus",
    "activate",
    "available_cpus",
    "blas_status",
    "current",
    "instruction_sets",
    "mlx_version",
    "override",
    "peak_memory_bytes",
    "switches_set",
    "wired",
]

activate()
