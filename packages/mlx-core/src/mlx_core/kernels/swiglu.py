"""silu(gate) * x, the activation of gated MLPs: a kernel, and the compiled form, which is the one that models use."""

from __future__ import annotations

from functools import partial
from typing import cast

import mlx.core as mx

from ..errors import InputError
from .dialect import Kernel, Language, check_floating, language, vector_width

GROUP = 256  # threads

KERNEL = Kernel(
    "swiglu",
    ("x", "gate"),  # [rows, columns]
    """
  const unsigned index = threadgroup_position_in_grid.x * GROUP + thread_position_in_threadgroup.x;
  const unsigned per_row = x_shape[1] / V;
  const int64_t row = index / per_row;
  const int64_t column = index % per_row * V;
  if (row >= x_shape[0]) return;

  float value[V], g[V];
  LOAD(value, x + row * x_strides[0] + column * x_strides[1], x_strides[1])
  LOAD(g, gate + row * gate_strides[0] + column * gate_strides[1], gate_strides[1])
  for (int j = 0; j < V; ++j) value[j] *= DIVIDE(g[j], 1 + exp(-g[j]));
  STORE(out + int64_t(index) * V, value)
""",
)


def fused_swiglu(x: mx.array, gate: mx.array) -> mx.array:
    """silu(gate) * x, with silu(g) = g / (1 + exp(-g)).

    x, gate: of one shape, any; each float32, float16 or bfloat16. Computed in float32; the result has x's shape and
    dtype. Neither has to be contiguous. Differentiable in both, and in its gradients; forward mode and vmap work on
    CPUs only, since MLX has neither for kernels of one's own. Raises InputError for other dtypes and for shapes that
    differ. Source: Shazeer, GLU Variants Improve Transformer, 2020.
    """
    check_floating("fused_swiglu", x=x, gate=gate)
    if x.shape != gate.shape:
        raise InputError(f"fused_swiglu: gate must have x's shape {x.shape}; got {gate.shape}.")
    if x.size == 0:
        return mx.zeros_like(x)
    return cast(mx.array, _swiglu(x, gate))


@mx.custom_function
def _swiglu(x: mx.array, gate: mx.array) -> mx.array:
    lang = language()
    if lang is None:
        return portable(x, gate)
    columns = x.shape[-1] if x.ndim else 1
    return run(lang, x.reshape(-1, columns), gate.reshape(-1, columns)).reshape(x.shape)


def run(lang: Language, x: mx.array, gate: mx.array) -> mx.array:
    """The kernel over `[rows, columns]`."""
    width = vector_width(x.shape[1], x.dtype)
    constants = {"V": width, "GROUP": GROUP}
    return KERNEL(lang, [x, gate], like=x, threads=x.size // width, group=GROUP, constants=constants)


@partial(mx.compile, shapeless=True)
def portable(x: mx.array, gate: mx.array) -> mx.array:
    """The same in MLX's operations, compiled: the form for CPUs, and for models on any device (see the package)."""
    g = gate.astype(mx.float32)
    return (x.astype(mx.float32) * (g / (1 + mx.exp(-g)))).astype(x.dtype)  # on CPUs faster than mx.sigmoid


@partial(mx.compile, shapeless=True)
def _slopes(x: mx.array, gate: mx.array) -> tuple[mx.array, mx.array]:
    """The derivatives by x and gate, in float32."""
    g = gate.astype(mx.float32)
    s = mx.sigmoid(g)
    return g * s, x.astype(mx.float32) * s * (1 + g * (1 - s))


@_swiglu.vjp
def _vjp(primals: tuple[mx.array, mx.array], cotangent: mx.array, _: mx.array) -> tuple[mx.array, mx.array]:
    by_x, by_gate = _slopes(*primals)
    return (cotangent * by_x).astype(primals[0].dtype), (cotangent * by_gate).astype(primals[1].dtype)


# MLX's own, through `portable`, would be NaN where exp(-gate) overflows.
@_swiglu.jvp
def _jvp(primals: tuple[mx.array, mx.array], tangents: tuple[mx.array | None, mx.array | None]) -> mx.array:
    dx, dgate = (mx.zeros_like(p) if t is None else t for p, t in zip(primals, tangents, strict=True))
    by_x, by_gate = _slopes(*primals)
    return (dx * by_x + dgate * by_gate).astype(primals[0].dtype)
