"""Convolutions through matrix products against MLX's own."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_core import backend, conv1d, conv2d, conv_transpose1d, conv_transpose2d
from mlx_core.ops import convolution as module


def draw(shape, seed):
    return mx.array(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def both(function, own, *arguments, **options):
    with backend.override(fast_convolutions=True):
        fast = function(*arguments, **options)
    with backend.override(fast_convolutions=False):
        plain = function(*arguments, **options)
    assert mx.array_equal(plain, own(*arguments, **options))
    return np.array(fast), np.array(plain)


def same(fast, plain, size):
    assert fast.shape == plain.shape
    np.testing.assert_allclose(fast, plain, atol=1e-5 * max(1.0, size**0.5), rtol=1e-5)


dims = st.integers(1, 3)
groupings = st.sampled_from([(1, 3, 5), (2, 2, 4), (4, 1, 1), (3, 1, 2), (1, 1, 1)])  # groups, C / G, O / G


@settings(max_examples=80)
@given(
    n=dims,
    length=st.integers(8, 30),
    kernel=st.integers(1, 5),
    stride=dims,
    padding=st.integers(0, 4),
    dilation=dims,
    grouping=groupings,
)
def test_conv1d(n, length, kernel, stride, padding, dilation, grouping):
    if length + 2 * padding < dilation * (kernel - 1) + 1:
        return
    groups, per_in, per_out = grouping
    x, w = draw((n, length, groups * per_in), 0), draw((groups * per_out, kernel, per_in), 1)
    same(*both(conv1d, mx.conv1d, x, w, stride, padding, dilation, groups), kernel * per_in)


@settings(max_examples=80)
@given(
    n=dims,
    length=st.integers(1, 40),
    kernel=st.integers(1, 7),
    stride=dims,
    padding=st.integers(0, 3),
    dilation=dims,
    block=st.integers(1, 200),
)
def test_depthwise(n, length, kernel, stride, padding, dilation, block):
    """In blocks of any size, whose borders fall anywhere in a batch's rows."""
    if length + 2 * padding < dilation * (kernel - 1) + 1:
        return
    x, w = draw((n, length, 6), 0), draw((6, kernel, 1), 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_WINDOW_BLOCK", block)
        same(*both(conv1d, mx.conv1d, x, w, stride, padding, dilation, 6), kernel)


def test_depthwise_reads_no_neighbouring_row():
    x, w = draw((3, 11, 4), 0), draw((4, 5, 1), 1)
    with backend.override(fast_convolutions=True):
        together = conv1d(x, w, stride=2, padding=2, groups=4)
        for row in range(3):
            alone = conv1d(x[row : row + 1], w, stride=2, padding=2, groups=4)
            assert mx.array_equal(together[row : row + 1], alone)


@settings(max_examples=40)
@given(n=dims, length=st.integers(8, 40), kernel=st.integers(1, 7), stride=st.integers(2, 5))
def test_strides_over_many_channels(n, length, kernel, stride):
    x, w = draw((n, length, 32), 0), draw((6, kernel, 32), 1)
    same(*both(conv1d, mx.conv1d, x, w, stride, 1), kernel * 32)


@settings(max_examples=60)
@given(
    n=dims,
    sizes=st.tuples(st.integers(6, 12), st.integers(6, 12)),
    kernel=st.tuples(dims, dims),
    stride=st.one_of(dims, st.tuples(dims, dims)),
    padding=st.one_of(st.integers(0, 2), st.tuples(st.integers(0, 2), st.integers(0, 2))),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    grouping=groupings,
)
def test_conv2d(n, sizes, kernel, stride, padding, dilation, grouping):
    groups, per_in, per_out = grouping
    x, w = draw((n, *sizes, groups * per_in), 0), draw((groups * per_out, *kernel, per_in), 1)
    same(*both(conv2d, mx.conv2d, x, w, stride, padding, dilation, groups), kernel[0] * kernel[1] * per_in)


@settings(max_examples=80)
@given(
    n=dims,
    length=st.integers(1, 12),
    kernel=st.integers(1, 9),
    stride=st.integers(1, 5),
    padding=st.integers(0, 3),
    dilation=dims,
    output_padding=st.integers(0, 2),
    grouping=groupings,
)
def test_conv_transpose1d(n, length, kernel, stride, padding, dilation, output_padding, grouping):
    groups, per_in, per_out = grouping
    if (length - 1) * stride - 2 * padding + dilation * (kernel - 1) + 1 < 1 or output_padding >= max(stride, dilation):
        return
    x, w = draw((n, length, groups * per_in), 0), draw((groups * per_out, kernel, per_in), 1)
    if padding > dilation * (kernel - 1):  # MLX's own reads outside its input there
        wanted = reference_transposed(x, w, stride, padding, dilation, output_padding, groups)
        with backend.override(fast_convolutions=True):
            same(
                np.array(conv_transpose1d(x, w, stride, padding, dilation, output_padding, groups)),
                wanted,
                per_in * kernel,
            )
        return
    same(
        *both(conv_transpose1d, mx.conv_transpose1d, x, w, stride, padding, dilation, output_padding, groups),
        per_in * kernel,
    )


def reference_transposed(x, w, stride, padding, dilation, output_padding, groups):
    """The definition, one product at a time."""
    x, w = np.array(x).astype(np.float64), np.array(w).astype(np.float64)
    (n, length, c), (o, kernel, _) = x.shape, w.shape
    total = (length - 1) * stride + dilation * (kernel - 1) + 1 + output_padding
    out = np.zeros((n, total, o))
    for i in range(length):
        for k in range(kernel):
            for g in range(groups):
                cin, cout = slice(g * c // groups, (g + 1) * c // groups), slice(g * o // groups, (g + 1) * o // groups)
                out[:, i * stride + k * dilation, cout] += x[:, i, cin] @ w[cout, k].T
    return out[:, padding : total - padding].astype(np.float32)


@settings(max_examples=40)
@given(
    n=dims,
    sizes=st.tuples(st.integers(2, 6), st.integers(2, 6)),
    kernel=st.tuples(st.integers(2, 4), st.integers(2, 4)),
    stride=st.tuples(dims, dims),
    padding=st.tuples(st.integers(0, 1), st.integers(0, 1)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    grouping=groupings,
)
def test_conv_transpose2d(n, sizes, kernel, stride, padding, dilation, grouping):
    groups, per_in, per_out = grouping
    x, w = draw((n, *sizes, groups * per_in), 0), draw((groups * per_out, *kernel, per_in), 1)
    size = kernel[0] * kernel[1] * per_in
    same(*both(conv_transpose2d, mx.conv_transpose2d, x, w, stride, padding, dilation, 0, groups), size)


def test_long_inputs_are_gathered_in_parts(monkeypatch):
    x, w = draw((2, 300, 6), 0), draw((4, 5, 6), 1)
    monkeypatch.setattr(module, "_GATHER_BYTES", 20_000)
    same(*both(conv1d, mx.conv1d, x, w, 2, 3, 2), 30)
    x, w = draw((1, 40, 30, 4), 0), draw((4, 3, 3, 2), 1)
    same(*both(conv2d, mx.conv2d, x, w, (2, 1), 1, 1, 2), 18)


@pytest.mark.parametrize("function", [conv1d, conv_transpose1d])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_gradients(function, groups):
    x, w = draw((2, 11, 4), 0), draw((4, 3, 4 // groups), 1)

    def loss(x, w):
        return (function(x, w, stride=2, padding=1, groups=groups) ** 2).sum()

    with backend.override(fast_convolutions=True):
        fast = mx.grad(loss, argnums=(0, 1))(x, w)
        mx.eval(fast)
    eps = 1e-2
    for argument, gradient in zip((x, w), fast, strict=True):
        for seed in range(3):
            direction = draw(argument.shape, 10 + seed)
            shifted = [[a + sign * eps * direction if a is argument else a for a in (x, w)] for sign in (1, -1)]
            slope = (loss(*shifted[0]) - loss(*shifted[1])).item() / (2 * eps)
            assert (gradient * direction).sum().item() == pytest.approx(slope, rel=2e-2, abs=1e-2)


@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (1, 3), (2, 1), (3, 2)])
@pytest.mark.parametrize("n", [1, 3])
def test_depthwise_gradients(n, stride, dilation, monkeypatch):
    """Against those of shifted slices, which MLX derives by itself."""
    monkeypatch.setattr(module, "_WINDOW_BLOCK", 40)
    x, w, cotangent = draw((n, 17, 4), 0), draw((4, 3, 1), 1), draw((n, 100, 4), 2)

    def slices(x, w):
        padded = mx.pad(x, [(0, 0), (1, 1), (0, 0)])
        count = (padded.shape[1] - 2 * dilation - 1) // stride + 1
        cuts = [padded[:, k * dilation : k * dilation + (count - 1) * stride + 1 : stride] for k in range(3)]
        return sum(cut * w[:, k, 0] for k, cut in enumerate(cuts))

    def loss(function):
        def value(x, w):
            y = function(x, w)
            return (y * cotangent[:, : y.shape[1]]).sum()

        return value

    with backend.override(fast_convolutions=True):
        ours = loss(lambda x, w: conv1d(x, w, stride, 1, dilation, 4))
        found = mx.grad(ours, argnums=(0, 1))(x, w)
        mx.eval(found)
    for gradient, wanted in zip(found, mx.grad(loss(slices), argnums=(0, 1))(x, w), strict=True):
        np.testing.assert_allclose(np.array(gradient), np.array(wanted), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_half_precision_comes_back_as_it_went_in(dtype):
    x, w = draw((1, 12, 4), 0).astype(dtype), draw((6, 3, 4), 1).astype(dtype)
    with backend.override(fast_convolutions=True):
        out = conv1d(x, w, padding=1)
    assert out.dtype == dtype
    wanted = mx.conv1d(x.astype(mx.float32), w.astype(mx.float32), padding=1)
    assert mx.allclose(out.astype(mx.float32), wanted, rtol=1e-2, atol=1e-2)


def test_other_inputs_go_to_mlx():
    w = draw((4, 3, 4), 1)
    for x, padding in ((draw((0, 12, 4), 0), 0), (draw((1, 12, 4), 0), -1)):
        fast, plain = both(conv1d, mx.conv1d, x, w, 1, padding)
        assert fast.shape == plain.shape
        np.testing.assert_array_equal(fast, plain)


@pytest.mark.parametrize(
    ("x", "w", "options"),
    [
        ((1, 8), (4, 3, 2), {}),
        ((1, 8, 3), (4, 3, 2), {}),
        ((1, 8, 4), (3, 3, 2), {"groups": 2}),
        ((1, 8, 4), (4, 3, 4), {"stride": 0}),
        ((1, 2, 4), (4, 3, 4), {}),
    ],
)
def test_shapes_that_do_not_fit_raise_as_mlx_does(x, w, options):
    for fast in (True, False):
        with backend.override(fast_convolutions=fast), pytest.raises(ValueError):  # noqa: PT011
            mx.eval(conv1d(mx.zeros(x), mx.zeros(w), **options))
