"""One kernel source for Metal and CUDA.

A body is written in Metal's language; a header defines Metal's names for CUDA. Both compilers are C++ with its
preprocessor, so the source that runs on an NVIDIA GPU is exactly the one that runs on Apple's. Three macros are added:
`LOAD(to, from, stride)` reads `V` elements, `stride` apart, as floats; `STORE(to, from)` writes `V` adjacent floats as
`out_t`; `DIVIDE(a, b)` may be off by two units in the last place. `V` is a constant of the kernel, a power of two.

Inputs may have any strides: bodies read their shapes and strides (`x_shape`, `x_strides`), so nothing is copied before
a kernel runs.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import mlx.core as mx

from .. import backend
from ..errors import InputError

Language = Literal["metal", "cuda"]

FLOATING = frozenset(backend.DTYPES.values())
VECTOR_BYTES = 16  # the load of one thread
SIMD = 32  # threads that sum without shared memory: Apple's SIMD group, NVIDIA's warp

HEADERS: dict[Language, str] = {
    # Macros, because functions would be needed twice: MLX passes small arrays as `constant`, others as `device`.
    "metal": """
#define LOAD(to, from, stride)                                           \\
  {                                                                      \\
    if ((stride) == 1)                                                   \\
      for (int j = 0; j < V; ++j) (to)[j] = float((from)[j]);            \\
    else                                                                 \\
      for (int j = 0; j < V; ++j) (to)[j] = float((from)[j * (stride)]); \\
  }
#define STORE(to, from) \\
  for (int j = 0; j < V; ++j) (to)[j] = out_t((from)[j]);
#define DIVIDE(a, b) ((a) / (b))
""",
    # A slice may begin anywhere, so only the pointer tells whether a vector is aligned.
    "cuda": """
#define threadgroup __shared__
#define threadgroup_barrier(flags) __syncthreads()
#define threadgroup_position_in_grid blockIdx
#define thread_position_in_threadgroup threadIdx
#define LOAD(to, from, stride) load_vector_of<V>(to, from, stride);
#define STORE(to, from) store_vector_of<V>(to, from);
#define DIVIDE(a, b) __fdividef(a, b)

template <typename T, int V>
struct alignas(sizeof(T) * V) VectorOf {
  T element[V];
};

template <int V, typename T>
__device__ inline void load_vector_of(float* to, const T* from, long long stride) {
  if (stride == 1 && reinterpret_cast<size_t>(from) % sizeof(VectorOf<T, V>) == 0) {
    const VectorOf<T, V> vector = *reinterpret_cast<const VectorOf<T, V>*>(from);
#pragma unroll
    for (int j = 0; j < V; ++j) to[j] = float(vector.element[j]);
  } else {
#pragma unroll
    for (int j = 0; j < V; ++j) to[j] = float(from[j * stride]);
  }
}

// An output is an allocation of its own, which is always aligned.
template <int V, typename T>
__device__ inline void store_vector_of(T* to, const float* from) {
  VectorOf<T, V> vector;
#pragma unroll
  for (int j = 0; j < V; ++j) vector.element[j] = T(from[j]);
  *reinterpret_cast<VectorOf<T, V>*>(to) = vector;
}

__device__ inline float simd_sum(float value) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(0xffffffffu, value, distance);
  return value;
}
""",
}


@dataclass(frozen=True)
class Kernel:
    """A kernel's source, and the names of its inputs. Its output is `out`."""

    name: str
    inputs: tuple[str, ...]
    body: str

    def __call__(
        self,
        language: Language,
        inputs: Sequence[mx.array],
        *,
        like: mx.array,
        threads: int,
        group: int,
        constants: dict[str, int],
    ) -> mx.array:
        """Run it on `threads` threads, `group` of which share memory; the result has the shape and dtype of `like`."""
        dtypes = {f"{name}_t": array.dtype for name, array in zip(self.inputs, inputs, strict=True)}
        return _built(self, language)(
            inputs=list(inputs),
            # All dtypes, since MLX caches binaries by a name that it makes of these.
            template=[*dtypes.items(), ("out_t", like.dtype), *constants.items()],
            grid=(threads, 1, 1),
            threadgroup=(group, 1, 1),
            output_shapes=[like.shape],
            output_dtypes=[like.dtype],
        )[0]


@functools.cache
def _built(kernel: Kernel, language: Language) -> Callable[..., list[mx.array]]:
    header = HEADERS[language]
    # MLX keeps one library per name, for CUDA on disk as well: another source needs another name.
    digest = hashlib.sha256((header + kernel.body).encode()).hexdigest()[:12]
    make: Any = mx.fast.metal_kernel if language == "metal" else mx.fast.cuda_kernel
    return make(
        name=f"{kernel.name}_{digest}",
        input_names=list(kernel.inputs),
        output_names=["out"],
        source=kernel.body,
        header=header,
        ensure_row_contiguous=False,
    )


def language() -> Language | None:
    """The language of kernels on the default device; None on CPUs, which run the portable form."""
    # Not backend.current(), which takes as long as launching a kernel.
    return _gpu_language() if mx.default_device().type == mx.DeviceType.gpu else None


@functools.cache
def _gpu_language() -> Language:
    return "metal" if mx.metal.is_available() else "cuda"


def vector_width(axis: int, dtype: mx.Dtype) -> int:
    """The number of elements that one thread loads at once: a divisor of the last axis that fits VECTOR_BYTES."""
    return math.gcd(axis, VECTOR_BYTES // dtype.size)


def check_floating(function: str, **arrays: mx.array) -> None:
    """Raise InputError for anything but arrays of float32, float16 and bfloat16."""
    for name, array in arrays.items():
        if not isinstance(array, mx.array) or array.dtype not in FLOATING:
            found = array.dtype if isinstance(array, mx.array) else type(array).__name__
            raise InputError(f"{function}: {name} must be an mx.array of {', '.join(backend.DTYPES)}; got {found}.")
