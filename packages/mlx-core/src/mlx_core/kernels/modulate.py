"""(1 + scale) * LayerNorm(x) + shift, the adaptive norm of diffusion transformers."""

from __future__ import annotations

import functools
import math
from typing import cast

import mlx.core as mx

from ..errors import InputError
from .dialect import SIMD, Kernel, Language, check_floating, language, vector_width

MAX_GROUP = 256  # threads, which any GPU can launch, however many registers each takes
THREAD_ELEMENTS = 8  # of a row for one thread, where that leaves no SIMD group idle
MAX_KEPT_ELEMENTS = 16  # that a thread keeps of its row; a longer row is read again for each pass

# Two passes over a row, each of which sums (v - centre) and its square: the first, about 0, gives a mean with a rounding
# error; the second, about that mean, gives the variance and the mean's error. So a mean that is large beside the
# deviation costs no accuracy (the corrected two-pass algorithm: Chan, Golub and LeVeque, 1983).
BODY = """
  const int lane = thread_position_in_threadgroup.x % THREADS;
  const unsigned row = threadgroup_position_in_grid.x * ROWS + thread_position_in_threadgroup.x / THREADS;
  const int64_t b = row / unsigned(x_shape[1]);
  const int64_t l = row % unsigned(x_shape[1]);
  if (b >= x_shape[0]) return;  // whole SIMD groups, and only where ROWS > 1

  auto from = x + b * x_strides[0] + l * x_strides[1];
  threadgroup float partial[4 * SIMDS];
  float held[KEEP ? STEPS * V : V];
  float centre = 0, offset = 0, variance = 0;
  for (int pass = 0; pass < 2; ++pass) {
    centre = offset;
    float sum = 0, squares = 0;
#pragma unroll(UNROLL)
    for (int step = 0; step < STEPS; ++step) {
      const int column = (step * THREADS + lane) * V;
      if (column < COLUMNS) {
        auto v = held + (KEEP ? step * V : 0);
        if (pass == 0 || !KEEP) LOAD(v, from + column * x_strides[2], x_strides[2])
        for (int j = 0; j < V; ++j) {
          const float d = v[j] - centre;
          sum += d;
          squares += d * d;
        }
      }
    }
    sum = simd_sum(sum);
    squares = simd_sum(squares);
    if (SIMDS > 1) {
      auto sums = partial + pass * 2 * SIMDS;
      if (lane % 32 == 0) {
        sums[lane / 32] = sum;
        sums[SIMDS + lane / 32] = squares;
      }
      threadgroup_barrier(mem_flags::mem_threadgroup);
      sum = simd_sum(lane % 32 < SIMDS ? sums[lane % 32] : 0.0f);
      squares = simd_sum(lane % 32 < SIMDS ? sums[SIMDS + lane % 32] : 0.0f);
    }
    offset = sum / COLUMNS;
    variance = squares / COLUMNS - offset * offset;
  }

  const float rate = rsqrt(variance + EPS);
  auto shifts = shift + b * shift_strides[0];
  auto scales = scale + b * scale_strides[0];
  auto to = out + int64_t(row) * COLUMNS;
#pragma unroll(UNROLL)
  for (int step = 0; step < STEPS; ++step) {
    const int column = (step * THREADS + lane) * V;
    if (column < COLUMNS) {
      auto v = held + (KEEP ? step * V : 0);
      float a[V], m[V];
      if (!KEEP) LOAD(v, from + column * x_strides[2], x_strides[2])
      LOAD(a, shifts + column * shift_strides[1], shift_strides[1])
      LOAD(m, scales + column * scale_strides[1], scale_strides[1])
      for (int j = 0; j < V; ++j) m[j] = (1 + m[j]) * ((v[j] - centre - offset) * rate) + a[j];
      STORE(to + column, m)
    }
  }
"""


def fused_modulate(x: mx.array, shift: mx.array, scale: mx.array, eps: float = 1e-6) -> mx.array:
    """(1 + scale) * (x - mean) / sqrt(variance + eps) + shift, mean and population variance over the last axis.

    x: `[..., D]`. shift, scale, each: `[D]` or `[1, D]` for all alike, `[B, D]` per batch, where B is x's first axis;
    or of x's rank with 1 for the axes between, `[B, 1, D]`. All float32, float16 or bfloat16, not necessarily the
    same. Computed in float32; the result has x's shape and dtype. Nothing has to be contiguous. Differentiable in all
    three, and in its gradients; forward mode and vmap work on CPUs only. Raises InputError for other shapes and
    dtypes, and for an eps that isn't a finite number >= 0. Source: Peebles and Xie, Scalable Diffusion Models with
    Transformers, 2023 (adaLN).
    """
    check_floating("fused_modulate", x=x, shift=shift, scale=scale)
    eps = float(eps)
    if not (math.isfinite(eps) and eps >= 0):
        raise InputError(f"fused_modulate: eps must be finite and not negative; got {eps}.")
    if x.ndim < 1:
        raise InputError("fused_modulate: x must be [..., D]; got a scalar.")
    columns, batch = x.shape[-1], x.shape[0] if x.ndim > 1 else 1
    between = (1,) * (x.ndim - 2)
    allowed = {(columns,), *((n, *ones, columns) for n in (1, batch) for ones in ((), between))}
    for name, array in (("shift", shift), ("scale", scale)):
        if array.shape not in allowed:
            raise InputError(
                f"fused_modulate: for x of shape {x.shape}, {name} must have one of the shapes "
                f"{', '.join(map(str, sorted(allowed)))}; got {array.shape}."
            )
    if x.size == 0:
        return mx.zeros_like(x)
    per_batch = (mx.broadcast_to(array.reshape(-1, columns), (batch, columns)) for array in (shift, scale))
    out = cast(mx.array, _modulate(eps)(x.reshape(batch, -1, columns), *per_batch))
    return out.reshape(x.shape)


@functools.cache
def _modulate(eps: float) -> mx.custom_function:
    """The function of x `[B, L, D]`, shift `[B, D]` and scale `[B, D]`, with its derivatives."""

    @mx.custom_function
    def modulate(x: mx.array, shift: mx.array, scale: mx.array) -> mx.array:
        lang = language()
        return _portable(x, shift, scale, eps) if lang is None else run(lang, x, shift, scale, eps)

    @modulate.vjp
    def vjp(primals: tuple[mx.array, ...], cotangent: mx.array, _: mx.array) -> tuple[mx.array, ...]:
        x, shift, scale = primals
        grads = _gradients(eps, x, shift, scale, cotangent)
        return tuple(grad.astype(primal.dtype) for grad, primal in zip(grads, primals, strict=True))

    return modulate


def run(lang: Language, x: mx.array, shift: mx.array, scale: mx.array, eps: float) -> mx.array:
    """The kernel over x `[B, L, D]`, shift and scale `[B, D]`."""
    columns, rows = x.shape[-1], x.size // x.shape[-1]
    width = vector_width(columns, x.dtype)
    vectors = columns // width
    # a row takes `steps` steps of `threads` threads
    steps = max(math.ceil(vectors / MAX_GROUP), min(THREAD_ELEMENTS // width, math.ceil(vectors / SIMD)))
    threads = math.ceil(vectors / (steps * SIMD)) * SIMD
    rows_per_group = MAX_GROUP // SIMD if threads == SIMD else 1
    keep = steps * width <= MAX_KEPT_ELEMENTS
    constants = {"V": width, "COLUMNS": columns, "STEPS": steps, "THREADS": threads, "SIMDS": threads // SIMD}
    constants |= {"ROWS": rows_per_group, "KEEP": keep, "UNROLL": steps if keep else 1}
    group = rows_per_group * threads
    return _kernel(eps)(
        lang,
        [x, shift, scale],
        like=x,
        threads=math.ceil(rows / rows_per_group) * group,
        group=group,
        constants=constants,
    )


@functools.cache
def _kernel(eps: float) -> Kernel:
    return Kernel("modulate", ("x", "shift", "scale"), f"\n  const float EPS = {eps!r}f;{BODY}")


def _normalised(x: mx.array, eps: float) -> tuple[mx.array, mx.array]:
    """LayerNorm(x) and 1 / sqrt(variance + eps), in float32."""
    d = x.astype(mx.float32)
    d = d - d.mean(-1, keepdims=True)
    d = d - d.mean(-1, keepdims=True)  # the first mean's rounding error
    rate = mx.rsqrt(d.square().mean(-1, keepdims=True) + eps)
    return d * rate, rate


def _through_norm(normalised: mx.array, rate: mx.array, change: mx.array) -> mx.array:
    """The derivative of LayerNorm along `change`; its matrix is symmetric, so this is the gradient as well."""
    along = (change * normalised).mean(-1, keepdims=True)
    return rate * (change - change.mean(-1, keepdims=True) - normalised * along)


def _wide(per_batch: mx.array) -> mx.array:
    return per_batch.astype(mx.float32)[:, None]  # [B, 1, D]


# Not compiled: on CPUs that takes 1.7 times as long, since means aren't fused and the rest becomes scalar code.
def _portable(x: mx.array, shift: mx.array, scale: mx.array, eps: float) -> mx.array:
    return ((1 + _wide(scale)) * _normalised(x, eps)[0] + _wide(shift)).astype(x.dtype)


def _gradients(
    eps: float, x: mx.array, shift: mx.array, scale: mx.array, cotangent: mx.array
) -> tuple[mx.array, mx.array, mx.array]:
    normalised, rate = _normalised(x, eps)
    cotangent = cotangent.astype(mx.float32)
    by_x = _through_norm(normalised, rate, cotangent * (1 + _wide(scale)))
    return by_x, cotangent.sum(1), (cotangent * normalised).sum(1)
