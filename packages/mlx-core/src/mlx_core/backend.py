"""Which device runs, what it wants, and what to install when there is none.

This is the one place that decides by device: the dtype to compute in, whether quantised weights stay packed, and the
memory limits. Everything else asks `current()`. Importing this module changes no limit and no default of the process.
"""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from .errors import BackendError, MissingBackendError

try:
    import mlx.core as mx
except ImportError as error:  # the `mlx` wheel for Linux holds no libmlx.so: a second wheel brings it
    raise MissingBackendError(
        f"MLX has no backend here ({error}). On Linux install one of the extras: `mlx-core[cpu]`, or `mlx-core[cuda13]` "
        "for NVIDIA GPUs (model packages forward both: `qwen3-mlx[cpu]`); in a checkout of the workspace, `uv sync`. "
        "On macOS reinstall `mlx` on an Apple Silicon Python."
    ) from error

BackendName = Literal["metal", "cuda", "cpu"]

_DTYPES = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}


@dataclass(frozen=True)
class Backend:
    """What a device wants.

    `compute_dtype` is the dtype that floating-point weights are cast to at load, None for the checkpoint's own.
    `keep_packed` says whether quantised weights stay packed, or are dequantised at load to be multiplied at full width.
    `memory_bytes` is what the device can hold, 0 when unknown.
    """

    name: BackendName
    device_name: str
    compute_dtype: mx.Dtype | None
    keep_packed: bool
    memory_bytes: int


_override: Backend | None = None


def _detect() -> Backend:
    on_gpu = mx.default_device().type == mx.DeviceType.gpu
    if on_gpu and mx.metal.is_available():
        name: BackendName = "metal"
    elif on_gpu and mx.cuda.is_available():
        name = "cuda"
    else:
        name = "cpu"
    info = mx.device_info(mx.default_device())
    device_name = str(info.get("device_name", platform.processor() or platform.machine()))
    if name == "cpu":
        # MLX's bf16 and packed matmuls are scalar code on Linux CPUs, several times slower than fp32 through a BLAS;
        # macOS multiplies fp32 through Accelerate and gains as much.
        return Backend(name, device_name, mx.float32, keep_packed=False, memory_bytes=_host_memory())
    memory = int(info.get("max_recommended_working_set_size", info.get("memory_size", info.get("total_memory", 0))))
    return Backend(name, device_name, None, keep_packed=True, memory_bytes=memory)


def _host_memory() -> int:
    """Physical memory in bytes, or the container's limit where that is lower."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 0
    with contextlib.suppress(OSError, ValueError), open("/sys/fs/cgroup/memory.max") as limit:  # noqa: PTH123
        total = min(total, int(limit.read()))  # "max" isn't a number: no limit
    return total


def current() -> Backend:
    """The backend in force: what was configured, or what the default device wants."""
    return _override or _from_environment(_detect())


def _from_environment(backend: Backend) -> Backend:
    """`MLX_CORE_DTYPE` and `MLX_CORE_PACKED` override what the device wants."""
    if dtype := os.environ.get("MLX_CORE_DTYPE"):
        if dtype != "checkpoint" and dtype not in _DTYPES:
            raise BackendError(
                f"MLX_CORE_DTYPE is {dtype!r}; expected one of {', '.join(_DTYPES)}, or 'checkpoint' for the checkpoint's."
            )
        backend = replace(backend, compute_dtype=_DTYPES.get(dtype))
    if packed := os.environ.get("MLX_CORE_PACKED"):
        if packed not in ("0", "1"):
            raise BackendError(f"MLX_CORE_PACKED is {packed!r}; expected 1 (keep weights packed) or 0 (dequantise).")
        backend = replace(backend, keep_packed=packed == "1")
    return backend


@contextlib.contextmanager
def override(
    *, compute_dtype: mx.Dtype | Literal["checkpoint"] | None = None, keep_packed: bool | None = None
) -> Iterator[Backend]:
    """Within the block, the device wants what is given here; None leaves a setting as it was."""
    global _override
    previous, backend = _override, current()
    if compute_dtype is not None:
        backend = replace(backend, compute_dtype=None if compute_dtype == "checkpoint" else compute_dtype)
    if keep_packed is not None:
        backend = replace(backend, keep_packed=keep_packed)
    _override = backend
    try:
        yield backend
    finally:
        _override = previous


@contextlib.contextmanager
def wired(nbytes: int) -> Iterator[None]:
    """Keep a model of `nbytes` resident in GPU memory within the block (Metal only; elsewhere nothing happens).

    macOS otherwise pages weights out between tokens. The limit is restored on leaving, after the device is idle.
    """
    if current().name != "metal":
        yield
        return
    limit = current().memory_bytes
    previous = mx.set_wired_limit(limit if nbytes < limit else 0)
    try:
        yield
    finally:
        mx.synchronize()
        mx.set_wired_limit(previous)


def peak_memory_bytes() -> int:
    """The most memory that was in use: MLX's allocator on GPUs, the whole process on CPUs."""
    if current().name != "cpu":
        return mx.get_peak_memory()
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024  # macOS counts bytes, Linux KiB
