"""Convolutions as matrix products, for Linux CPUs, where MLX's own run at a hundredth of the processor's speed.

The functions have the arguments of `mx.conv1d` and its siblings, the same results within rounding, and are
differentiable. On other backends (`Backend.fast_convolutions` is off: Metal, CUDA, macOS, or switched off) they are
`mx.conv1d` and its siblings.

A convolution gathers the inputs of each output (shifted slices, side by side) and multiplies them by the kernel; a
transposed one multiplies first and adds up where outputs overlap. A depthwise one (as many groups as input and output
channels) multiplies windows by one number per channel and adds up. `N` batch, `C` input and `O` output channels, `G`
groups; channels come last.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import cast

import mlx.core as mx

from .. import backend

# Gathered inputs are made for as many outputs at a time as fit here: they are several times as large as the input.
_GATHER_BYTES = 16 * 2**20

# Numbers in a block of a depthwise convolution's windows, which stays in a core's cache.
_WINDOW_BLOCK = 2**16

# How wide a product of one group's channels by a few places of the kernel should be at least.
_GROUP_WIDTH = 256

# From how many channels on a stride's places side by side are wide enough for a product.
_STRIDED_CHANNELS = 32

Pair = int | tuple[int, int]


def conv1d(
    input: mx.array, weight: mx.array, stride: int = 1, padding: int = 0, dilation: int = 1, groups: int = 1
) -> mx.array:
    """Input `[N, L, C]`, weight `[O, K, C / groups]` -> `[N, L_out, O]`; see `mx.conv1d`."""
    if not _suits(input, (padding,)):
        return mx.conv1d(input, weight, stride, padding, dilation, groups)
    return _convolve(input, weight, (stride,), (padding,), (dilation,), groups)


def conv2d(
    input: mx.array, weight: mx.array, stride: Pair = 1, padding: Pair = 0, dilation: Pair = 1, groups: int = 1
) -> mx.array:
    """Input `[N, H, W, C]`, weight `[O, KH, KW, C / groups]` -> `[N, H_out, W_out, O]`; see `mx.conv2d`."""
    if not _suits(input, _pair(padding)):
        return mx.conv2d(input, weight, stride, padding, dilation, groups)
    return _convolve(input, weight, _pair(stride), _pair(padding), _pair(dilation), groups)


def conv_transpose1d(
    input: mx.array,
    weight: mx.array,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    output_padding: int = 0,
    groups: int = 1,
) -> mx.array:
    """Input `[N, L, C]`, weight `[O, K, C / groups]` -> `[N, L_out, O]`; see `mx.conv_transpose1d`."""
    if not _suits(input, (padding,)):
        return mx.conv_transpose1d(input, weight, stride, padding, dilation, output_padding, groups)
    return _convolve_transposed(input, weight, (stride,), (padding,), (dilation,), (output_padding,), groups)


def conv_transpose2d(
    input: mx.array,
    weight: mx.array,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    output_padding: Pair = 0,
    groups: int = 1,
) -> mx.array:
    """Input `[N, H, W, C]`, weight `[O, KH, KW, C / groups]` -> `[N, H_out, W_out, O]`; see `mx.conv_transpose2d`."""
    if not _suits(input, _pair(padding)):
        return mx.conv_transpose2d(input, weight, stride, padding, dilation, output_padding, groups)
    return _convolve_transposed(
        input, weight, _pair(stride), _pair(padding), _pair(dilation), _pair(output_padding), groups
    )


def _suits(x: mx.array, padding: Sequence[int]) -> bool:
    """Whether to compute by products; MLX's own functions handle the rest."""
    wanted = backend.current().fast_convolutions
    return wanted and x.size > 0 and min(padding) >= 0 and mx.issubdtype(x.dtype, mx.floating)


def _pair(value: Pair) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def _check(input: mx.array, weight: mx.array, stride: Sequence[int], dilation: Sequence[int], groups: int) -> None:
    """ValueError, as MLX's own convolutions raise, unless the shapes fit."""
    ndim = len(stride) + 2
    if input.ndim != ndim or weight.ndim != ndim:
        raise ValueError(f"input and weight must have {ndim} dimensions; found {input.shape} and {weight.shape}.")
    if groups < 1 or input.shape[-1] != weight.shape[-1] * groups or weight.shape[0] % groups:
        raise ValueError(
            f"{groups} groups don't fit an input of {input.shape[-1]} channels and a weight {weight.shape}: expected "
            "[O, ..., C / groups], O a multiple of groups."
        )
    if min(*stride, *dilation) < 1:
        raise ValueError(f"stride and dilation must be positive; found {tuple(stride)} and {tuple(dilation)}.")


def _convolve(
    x: mx.array,
    weight: mx.array,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
) -> mx.array:
    _check(x, weight, stride, dilation, groups)
    dtype = mx.result_type(x, weight)
    x, weight = x.astype(mx.float32), weight.astype(mx.float32)  # half precision has no BLAS here
    if any(padding):
        x = mx.pad(x, [(0, 0), *((p, p) for p in padding), (0, 0)])
    kernel = weight.shape[1:-1]
    sizes = [
        (length - d * (k - 1) - 1) // s + 1
        for length, k, s, d in zip(x.shape[1:-1], kernel, stride, dilation, strict=True)
    ]
    if min(sizes) < 1:
        raise ValueError(
            f"a kernel {kernel} with dilation {dilation} doesn't fit an input of {x.shape[1:-1]} (padded)."
        )
    n, channels, outputs = x.shape[0], x.shape[-1], weight.shape[0]
    depthwise = weight.shape[-1] == 1 and outputs == groups
    if depthwise and len(kernel) == 1:
        return _convolve_depthwise(x, weight, stride[0], dilation[0], sizes[0]).astype(dtype)

    if depthwise:
        taps = weight.reshape(outputs, -1).T
        windows = _windows(x, kernel, stride, dilation, sizes, 0, sizes[0])
        return sum((window * tap for window, tap in zip(windows, taps, strict=True)), start=mx.array(0.0)).astype(dtype)

    if groups > 1 and len(kernel) == 1:
        return _convolve_groups(x, weight, stride[0], dilation[0], groups, sizes[0]).astype(dtype)

    if groups == 1 and len(kernel) == 1 and stride[0] > 1 and dilation[0] == 1 and channels >= _STRIDED_CHANNELS:
        return _convolve_strided(x, weight, stride[0], sizes[0]).astype(dtype)

    row_bytes = n * math.prod(sizes[1:]) * channels * math.prod(kernel) * 4
    rows = max(1, _GATHER_BYTES // row_bytes)
    parts = []
    for start in range(0, sizes[0], rows):
        stop = min(start + rows, sizes[0])
        places = list(_windows(x, kernel, stride, dilation, sizes, start, stop))
        shape = (n, stop - start, *sizes[1:], outputs)
        if groups == 1:
            seen = mx.concatenate(places, axis=-1) if len(places) > 1 else places[0]  # [..., K C]
            parts.append((seen.reshape(-1, seen.shape[-1]) @ weight.reshape(outputs, -1).T).reshape(shape))
        else:
            seen = mx.concatenate([window.reshape(-1, groups, channels // groups) for window in places], axis=-1)
            kernels = weight.reshape(groups, outputs // groups, -1)  # [G, O / G, K C / G]
            out = seen.transpose(1, 0, 2) @ kernels.transpose(0, 2, 1)  # [G, rows, O / G]
            parts.append(out.transpose(1, 0, 2).reshape(shape))
    return (mx.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]).astype(dtype)


def _convolve_depthwise(x: mx.array, weight: mx.array, stride: int, dilation: int, length: int) -> mx.array:
    """A 1-d convolution of padded x `[N, L, C]`, each channel by itself, all rows of the batch as one.

    Rows that lie one after the other make windows that are contiguous; those across a border are dropped.
    """
    n, available, channels = x.shape
    if n > 1 and available % stride:  # each row is to begin where a window does
        x = mx.pad(x, [(0, 0), (0, -available % stride), (0, 0)])
    x = mx.contiguous(x).reshape(-1, channels)
    taps = mx.contiguous(weight.reshape(channels, -1).T)  # [K, C]
    y = _depthwise(stride, dilation)(x, taps)
    if n > 1:
        rows = x.shape[0] // n // stride
        y = mx.pad(y, [(0, n * rows - y.shape[0]), (0, 0)])  # for the last row to be as long as the others
        return y.reshape(n, rows, channels)[:, :length]
    return y[None]


@functools.cache
def _depthwise(stride: int, dilation: int) -> Callable[[mx.array, mx.array], mx.array]:
    """Depthwise convolution of a contiguous `[L, C]` by taps `[K, C]` -> `[L_out, C]`, block by block."""

    @mx.custom_function
    def convolve(x: mx.array, taps: mx.array) -> mx.array:
        kernel, channels = taps.shape
        count = (x.shape[0] - dilation * (kernel - 1) - 1) // stride + 1
        rows, strides = max(1, _WINDOW_BLOCK // taps.size), (stride * channels, dilation * channels, 1)
        parts = []
        for start in range(0, count, rows):
            shape = (min(rows, count - start), kernel, channels)
            windows = mx.as_strided(x, shape, strides, start * stride * channels)
            parts.append((windows * taps).sum(axis=1))
        return mx.concatenate(parts) if len(parts) > 1 else parts[0]

    @convolve.vjp
    def _(primals: tuple[mx.array, mx.array], cotangent: mx.array, output: mx.array) -> tuple[mx.array, mx.array]:
        """MLX's own for strided arrays takes many times as long."""
        x, taps = primals
        (kernel, channels), count = taps.shape, cotangent.shape[0]
        spread = cotangent
        if stride > 1:  # zeros between
            spread = mx.pad(cotangent[:, None], [(0, 0), (0, stride - 1), (0, 0)]).reshape(-1, channels)
            spread = spread[: (count - 1) * stride + 1]
        spare = x.shape[0] - spread.shape[0]
        places = [k * dilation for k in range(kernel)]
        back = [mx.pad(spread * tap, [(at, spare - at), (0, 0)]) for at, tap in zip(places, taps, strict=True)]
        seen = [x[at : at + (count - 1) * stride + 1 : stride] for at in places]
        return sum(back[1:], back[0]), mx.stack([(part * cotangent).sum(axis=0) for part in seen])

    return cast(Callable[[mx.array, mx.array], mx.array], convolve)


def _convolve_strided(x: mx.array, weight: mx.array, stride: int, length: int) -> mx.array:
    """A 1-d convolution of padded x `[N, L, C]` with a stride: as many places of the kernel at a time as the stride is
    long, which lie side by side in x already, so that hardly anything is gathered.
    """
    n, available, channels = x.shape
    outputs, kernel, _ = weight.shape
    x = mx.contiguous(x)
    total = None
    for first in range(0, kernel, stride):
        places = min(stride, kernel - first)
        strides = (available * channels, stride * channels, 1)
        seen = mx.as_strided(x, (n, length, places * channels), strides, first * channels)
        taps = weight[:, first : first + places].reshape(outputs, -1).T
        total = seen @ taps if total is None else mx.addmm(total, seen, taps)
    return cast(mx.array, total)


def _convolve_groups(x: mx.array, weight: mx.array, stride: int, dilation: int, groups: int, length: int) -> mx.array:
    """A 1-d convolution of padded x `[N, L, C]` group by group.

    A few neighbouring places of the kernel are gathered, so that a product is wide enough; the kernel is worked off in
    such steps. Gathering all places at once, as without groups, would copy short runs: several times slower.
    """
    n = x.shape[0]
    outputs, kernel, width = weight.shape
    places = max(1, min(kernel, _GROUP_WIDTH // width))
    steps = -(-kernel // places)
    spare = steps * places - kernel
    x = mx.pad(x, [(0, 0), (0, spare * dilation), (0, 0)])
    x = mx.contiguous(x.reshape(n, -1, groups, width).transpose(2, 0, 1, 3))  # [G, N, L, C / G]
    rows = x.shape[2] - (places - 1) * dilation
    seen = mx.concatenate([x[:, :, i * dilation : i * dilation + rows] for i in range(places)], axis=-1)
    kernels = mx.pad(weight, [(0, 0), (0, spare), (0, 0)]).reshape(groups, 1, outputs // groups, steps, -1)
    total = mx.zeros((), mx.float32)
    for step in range(steps):
        first = step * places * dilation
        part = seen[:, :, first : first + (length - 1) * stride + 1 : stride]  # [G, N, L_out, places C / G]
        total = total + part @ kernels[:, :, :, step].swapaxes(-1, -2)
    return total.transpose(1, 2, 0, 3).reshape(n, length, outputs)


def _windows(
    x: mx.array,
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    sizes: Sequence[int],
    start: int,
    stop: int,
) -> Iterator[mx.array]:
    """For each place in the kernel its inputs at the outputs from `start` to `stop` of the first dimension."""
    ranges = [(start, stop), *((0, size) for size in sizes[1:])]
    for place in product(*(range(k) for k in kernel)):
        cut = [
            slice(first * s + k * d, (last - 1) * s + k * d + 1, s)
            for (first, last), k, s, d in zip(ranges, place, stride, dilation, strict=True)
        ]
        yield x[(slice(None), *cut)]


def _convolve_transposed(
    x: mx.array,
    weight: mx.array,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    output_padding: tuple[int, ...],
    groups: int,
) -> mx.array:
    _check(x, weight, stride, dilation, groups)
    dtype = mx.result_type(x, weight)
    x, weight = x.astype(mx.float32), weight.astype(mx.float32)
    n, *sizes, channels = x.shape
    outputs, *kernel, _ = weight.shape
    kernels = weight.reshape(groups, outputs // groups, -1, channels // groups)  # [G, O / G, K, C / G]
    seen = x.reshape(-1, groups, channels // groups).transpose(1, 0, 2)  # [G, N L, C / G]
    if seen.shape[1] < channels // groups:  # outputs come next to each other by a copy of products or of kernels
        y = seen @ kernels.reshape(groups, -1, channels // groups).transpose(0, 2, 1)
        y = y.reshape(groups, y.shape[1], outputs // groups, -1).transpose(1, 3, 0, 2)  # [N L, K, G, O / G]
    else:
        y = seen @ kernels.transpose(0, 3, 2, 1).reshape(groups, channels // groups, -1)
        y = y.reshape(groups, y.shape[1], -1, outputs // groups).transpose(1, 2, 0, 3)  # [N L, K, G, O / G]
    # one dimension after the other: [N, L, K, rest] -> [N, L_out, rest]
    before = n
    y = y.reshape(n, *sizes, *kernel, outputs)
    for i in range(len(sizes)):
        rest = math.prod(sizes[i + 1 :]) * math.prod(kernel[i + 1 :]) * outputs
        dims = len(sizes) - i
        # [before, L, later L ..., K, later K ..., O] -> [before, L, K, later L ..., later K ..., O]
        y = y.reshape(before, *sizes[i:], *kernel[i:], outputs)
        order = [0, 1, 1 + dims, *range(2, 1 + dims), *range(2 + dims, 2 + 2 * dims)]
        y = y.transpose(order).reshape(before, sizes[i], kernel[i], rest)
        y = _overlap_add(y, stride[i], padding[i], dilation[i], output_padding[i])
        before *= y.shape[1]
    out_sizes = [
        (length - 1) * s - 2 * p + d * (k - 1) + 1 + o
        for length, s, p, d, k, o in zip(sizes, stride, padding, dilation, kernel, output_padding, strict=True)
    ]
    return y.reshape(n, *out_sizes, outputs).astype(dtype)


def _overlap_add(y: mx.array, stride: int, padding: int, dilation: int, output_padding: int) -> mx.array:
    """Y `[A, L, K, B]`, the part of input i in output i * stride + k * dilation - padding -> sums `[A, L_out, B]`."""
    a, length, kernel, b = y.shape
    reach = dilation * (kernel - 1) + 1
    total = (length - 1) * stride - 2 * padding + reach + output_padding
    if total < 1:
        raise ValueError(f"padding {padding} leaves nothing of an output of {total + 2 * padding}.")
    if dilation > 1:
        y = mx.pad(y[:, :, :, None], [(0, 0), (0, 0), (0, 0), (0, dilation - 1), (0, 0)])
        y = y.reshape(a, length, kernel * dilation, b)[:, :, :reach]
    steps = -(-reach // stride)  # inputs that one output gets something from
    y = mx.pad(y, [(0, 0), (0, 0), (0, steps * stride - reach), (0, 0)])
    y = y.reshape(a, length, steps, stride * b)
    blocks = [mx.pad(y[:, :, m], [(0, 0), (m, steps - 1 - m), (0, 0)]) for m in range(steps)]
    out = sum(blocks[1:], start=blocks[0]).reshape(a, (length + steps - 1) * stride, b)
    missing = padding + total - out.shape[1]
    if missing > 0:  # output_padding may reach beyond the last input
        out = mx.pad(out, [(0, 0), (0, missing), (0, 0)])
    return out[:, padding : padding + total]
