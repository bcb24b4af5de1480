"""Which device runs, what it wants, and what to install when there is none.

This is the one place that decides by device: the dtype to compute in, whether quantised weights stay packed, and the
memory limits. Everything else asks `current()`. Importing this module changes no limit and no default of the process.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
import platform
import sys
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ..errors import BackendError, MissingBackendError

try:
    import mlx.core as mx
except ImportError as error:  # the `mlx` wheel for Linux holds no libmlx.so: a second wheel brings it
    raise MissingBackendError(
        f"MLX has no backend here ({error}). On Linux install one of the extras: `mlx-core[cpu]`, or `mlx-core[cuda13]` "
        "for NVIDIA GPUs (model packages forward both: `qwen3-mlx[cpu]`); in a checkout of the workspace, `uv sync`. "
        "On macOS reinstall `mlx` on an Apple Silicon Python."
    ) from error

from . import blas  # after MLX is known to be there

BackendName = Literal["metal", "cuda", "cpu"]

# The dtypes that models compute in.
DTYPES: dict[str, mx.Dtype] = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}


@dataclass(frozen=True)
class Backend:
    """The settings that suit a device.

    `compute_dtype` is the dtype that floating-point weights are cast to at load, None for the checkpoint's own.
    `keep_packed` says whether quantised weights stay packed, or are dequantised at load to be multiplied at full
    width. `memory_bytes` is what the device can hold, 0 when unknown; weights are dequantised only if they then take
    no more than `dequantize_limit_bytes`. `attend_packed`: whether one token attends to a quantised cache by products
    with packed keys and values, or to a dequantised copy. The others are parts that make Linux CPUs fast, and mean
    nothing elsewhere: `fast_blas` (OpenBLAS under libmlx), `one_row` (products of one row through its gemv),
    `fast_convolutions` (through matrix products), `fast_elementwise` (exponentials, GELU and the like, vectorised).
    `repair_scheduler`: whether MLX's count of tasks is put back after failed evaluations.
    """

    name: BackendName
    device_name: str
    compute_dtype: mx.Dtype | None
    keep_packed: bool
    memory_bytes: int
    dequantize_limit_bytes: int = 0
    attend_packed: bool = False
    fast_blas: bool = False
    one_row: bool = False
    fast_convolutions: bool = False
    fast_elementwise: bool = False
    repair_scheduler: bool = False


class BackendWarning(RuntimeWarning):
    """Something that would make this backend fast had to be turned off."""


# Of the memory that a device can hold, what dequantised weights may take: caches and activations need the rest.
_DEQUANTIZE_SHARE = 0.6

_override: Backend | None = None


@functools.cache
def _detect(on_gpu: bool) -> Backend:
    """The settings for the default device. Remembered: convolutions ask each time."""
    if on_gpu and mx.metal.is_available():
        name: BackendName = "metal"
    elif on_gpu and mx.cuda.is_available():
        name = "cuda"
    else:
        name = "cpu"
    info = mx.device_info(mx.default_device())
    device_name = str(info.get("device_name", platform.processor() or platform.machine()))
    memory = _host_memory()
    if name != "cpu":
        memory = int(info.get("max_recommended_working_set_size", info.get("memory_size", info.get("total_memory", 0))))
    limit = int(_DEQUANTIZE_SHARE * memory) if memory else sys.maxsize
    if name == "cpu":
        # MLX's bf16 and packed matmuls are scalar code on Linux CPUs, several times slower than fp32 through a BLAS;
        # macOS multiplies fp32 through Accelerate and gains as much.
        linux = sys.platform == "linux"
        return Backend(
            name,
            device_name,
            mx.float32,
            keep_packed=False,
            memory_bytes=memory,
            dequantize_limit_bytes=limit,
            fast_blas=linux,
            one_row=linux,
            fast_convolutions=linux,
            fast_elementwise=linux,
            repair_scheduler=linux,
        )
    return Backend(
        name,
        device_name,
        None,
        keep_packed=True,
        memory_bytes=memory,
        dequantize_limit_bytes=limit,
        attend_packed=name == "metal",
    )


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
    """The backend in force: what the default device wants, with what was overridden."""
    return _override or _from_environment(_detect(mx.default_device().type == mx.DeviceType.gpu))


# Environment variables that override one thing each; the arguments of `override` have the fields' names.
SWITCHES = {
    "MLX_CORE_PACKED": "keep_packed",
    "MLX_CORE_ATTEND_PACKED": "attend_packed",
    "MLX_CORE_BLAS": "fast_blas",
    "MLX_CORE_ONE_ROW": "one_row",
    "MLX_CORE_CONVOLUTIONS": "fast_convolutions",
    "MLX_CORE_ELEMENTWISE": "fast_elementwise",
    "MLX_CORE_REPAIR_SCHEDULER": "repair_scheduler",
}


def switches_set() -> dict[str, str]:
    """The environment variables that are set and change something here."""
    others = ["MLX_CORE_DTYPE", "MLX_CORE_DEQUANTIZE_LIMIT", "OPENBLAS_NUM_THREADS", "OPENBLAS_CORETYPE"]
    names = [*SWITCHES, *others]
    return {name: os.environ[name] for name in names if os.environ.get(name)}


def instruction_sets() -> list[str]:
    """The vector instructions of this processor that matter for matrix products, where the system tells."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return []
    known = ["avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16"]  # x86_64
    known += ["asimd", "asimddp", "i8mm", "bf16", "sve"]  # aarch64
    flags = {flag for line in text.splitlines() if line.startswith(("flags", "Features")) for flag in line.split()}
    return [name for name in known if name in flags]


def mlx_version() -> str:
    return importlib.metadata.version("mlx")


def _from_environment(backend: Backend) -> Backend:
    """The switches, `MLX_CORE_DTYPE` and `MLX_CORE_DEQUANTIZE_LIMIT` override what the device wants."""
    if dtype := os.environ.get("MLX_CORE_DTYPE"):
        if dtype != "checkpoint" and dtype not in DTYPES:
            raise BackendError(
                f"MLX_CORE_DTYPE is {dtype!r}; expected one of {', '.join(DTYPES)}, or 'checkpoint' for the checkpoint's."
            )
        backend = replace(backend, compute_dtype=DTYPES.get(dtype))
    if limit := os.environ.get("MLX_CORE_DEQUANTIZE_LIMIT"):
        if not limit.isascii() or not limit.isdigit():
            raise BackendError(f"MLX_CORE_DEQUANTIZE_LIMIT is {limit!r}; expected a number of bytes.")
        backend = replace(backend, dequantize_limit_bytes=int(limit))
    changes: dict[str, Any] = {}
    for variable, name in SWITCHES.items():
        if value := os.environ.get(variable):
            if value not in ("0", "1"):
                raise BackendError(f"{variable} is {value!r}; expected 1 (on) or 0 (off).")
            changes[name] = value == "1"
    return replace(backend, **changes)


@contextlib.contextmanager
def override(
    *,
    compute_dtype: mx.Dtype | Literal["checkpoint"] | None = None,
    keep_packed: bool | None = None,
    dequantize_limit_bytes: int | None = None,
    attend_packed: bool | None = None,
    fast_blas: bool | None = None,
    one_row: bool | None = None,
    fast_convolutions: bool | None = None,
    fast_elementwise: bool | None = None,
    repair_scheduler: bool | None = None,
) -> Iterator[Backend]:
    """Within the block, the backend wants what is given here; None leaves a setting as it was. For the whole
    process.
    """
    global _override
    changes: dict[str, Any] = {
        "keep_packed": keep_packed,
        "dequantize_limit_bytes": dequantize_limit_bytes,
        "attend_packed": attend_packed,
        "fast_blas": fast_blas,
        "one_row": one_row,
        "fast_convolutions": fast_convolutions,
        "fast_elementwise": fast_elementwise,
        "repair_scheduler": repair_scheduler,
    }
    changes = {name: value for name, value in changes.items() if value is not None}
    if compute_dtype is not None:
        changes["compute_dtype"] = None if compute_dtype == "checkpoint" else compute_dtype
    previous = _override
    _override = replace(current(), **changes)
    blas.apply(_override.fast_blas, _override.one_row)
    try:
        yield _override
    finally:
        _override = previous
        wants = current()
        blas.apply(wants.fast_blas, wants.one_row)


def activate() -> None:
    """Give the process what its backend wants; runs once, at import. Warns once of what should work here and
    doesn't.
    """
    try:
        wants = current()
    except BackendError:  # a switch with a wrong value: whoever needs the backend is told
        return
    if wants.name != "cpu":
        return
    found = blas.apply(wants.fast_blas, wants.one_row)
    if not wants.fast_blas:
        return
    if not found.active or (wants.one_row and not found.one_row):
        warnings.warn(
            f"MLX multiplies matrices slowly here: {found.reason}. `python -m mlx_core` shows what is active; MLX_CORE_BLAS=0 "
            "silences this.",
            BackendWarning,
            stacklevel=2,
        )


_wired_holders = 0
_wired_lock = threading.Lock()


@contextlib.contextmanager
def wired() -> Iterator[None]:
    """Keep models resident in GPU memory within the block (Metal only; elsewhere nothing happens).

    macOS otherwise pages weights out between tokens. Blocks may overlap: the limit goes with the last one.
    """
    global _wired_holders
    if current().name != "metal":
        yield
        return
    with _wired_lock:
        _wired_holders += 1
        if _wired_holders == 1:
            mx.set_wired_limit(current().memory_bytes)
    try:
        yield
    finally:
        mx.synchronize()
        with _wired_lock:
            _wired_holders -= 1
            if _wired_holders == 0:
                mx.set_wired_limit(0)


def peak_memory_bytes() -> int:
    """The most memory that was in use: MLX's allocator on GPUs, the whole process on CPUs."""
    if current().name != "cpu":
        return mx.get_peak_memory()
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024  # macOS counts bytes, Linux KiB
