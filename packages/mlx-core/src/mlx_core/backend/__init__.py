"""The needs of the device: the one place in the packages that decides by device.

The dtype to compute in, whether quantised weights stay packed, the memory limits, and on Linux CPUs a fast BLAS and
convolutions: everything else asks `current()`. Arrays whose evaluation can fail are evaluated by a thread of their own
(`materialize`), because MLX may hang after evaluations that failed on the main thread. Importing this package changes
no limit and no default of MLX; on Linux CPUs it points MLX's matrix products at a fast BLAS, after a self-test.
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
from .scheduler import SchedulerStatus, leftover_tasks, repair_scheduler, repaired_scheduler, scheduler_status
from .worker import materialize, worker_streams

__all__ = [
    "DTYPES",
    "Backend",
    "BackendName",
    "BackendWarning",
    "BlasStatus",
    "SchedulerStatus",
    "activate",
    "available_cpus",
    "blas_status",
    "current",
    "instruction_sets",
    "leftover_tasks",
    "materialize",
    "mlx_version",
    "override",
    "peak_memory_bytes",
    "repair_scheduler",
    "repaired_scheduler",
    "scheduler_status",
    "switches_set",
    "wired",
    "worker_streams",
]

activate()
