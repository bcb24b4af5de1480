"""Fused kernels against float64, in all their forms.

What the default device runs is tested through the public functions: the portable form on a CPU, the CUDA kernel where
there is a GPU. The texts for Metal and CUDA are tested anywhere: compiled for the CPU with the words of kernel_shim/,
and run thread by thread.
"""

import importlib.util
import math
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_core.errors import InputError
from mlx_core.kernels import dialect, fused_modulate, fused_swiglu, modulate, swiglu

DTYPES = (mx.float32, mx.float16, mx.bfloat16)
HALF_ULP = {mx.float32: 2.0**-24, mx.float16: 2.0**-11, mx.bfloat16: 2.0**-8}

on_the_portable_form = pytest.mark.skipif(
    dialect.language() is not None, reason="MLX has neither forward mode nor vmap for kernels of one's own"
)

spec = importlib.util.spec_from_file_location("kernel_shim_texts", Path(__file__).parent / "kernel_shim" / "texts.py")
assert spec is not None
assert spec.loader is not None
texts = importlib.util.module_from_spec(spec)
spec.loader.exec_module(texts)


NOT_MLX: Any = np.zeros(3)


def exact(array):
    return np.array(array.astype(mx.float32)).astype(np.float64)


def draw(seed, shape, dtype=mx.float32, scale=1.0, mean=0.0):
    values = np.random.default_rng(seed).uniform(-2, 2, shape) * scale + mean
    return mx.array(values.astype(np.float32)).astype(dtype)


def silu(g):
    return g / (1 + np.exp(np.minimum(-g, 700)))


def swiglu_64(x, gate):
    return exact(x) * silu(exact(gate))


def modulate_64(x, shift, scale, eps=1e-6):
    """The result, and the size of the terms that it is a sum of, to which errors are relative."""
    x = exact(x)
    between = (1,) * max(x.ndim - 2, 0)
    shift, scale = (
        a.reshape(-1, *between, a.shape[-1]) if x.ndim > 1 else a.reshape(-1) for a in (exact(shift), exact(scale))
    )
    d = x - x.mean(-1, keepdims=True)
    scaled = (1 + scale) * d / np.sqrt((d * d).mean(-1, keepdims=True) + eps)
    return scaled + shift, np.abs(scaled) + np.abs(shift) + np.abs(scaled).mean(-1, keepdims=True)


def assert_rounded(found, expected, dtype, terms=None, slack=1e-6):
    """Found is expected, computed in float32 and rounded to dtype; `slack` is float32's error relative to the terms."""
    terms = np.abs(expected) if terms is None else terms
    tolerance = HALF_ULP[dtype] * np.abs(expected) * 1.01 + slack * terms + 1e-7  # 1e-7: float16's subnormals
    assert found.shape == expected.shape
    error = np.abs(found - expected)
    assert np.all(error <= tolerance), f"error {np.max(error / tolerance):.3g} times what is allowed"


def slack_of(columns):
    """float32's error in a norm; MLX's CPU sums row elements one after another, so theirs grows with the row."""
    return 2e-6 + 1e-9 * columns


# --- what the default device runs ---

shapes = st.lists(st.integers(1, 5), max_size=3)
columns = st.sampled_from([1, 3, 8, 31, 64, 100, 257, 768, 1002, 1025, 4104, 8200, 9001])
dtypes = st.sampled_from(DTYPES)
seeds = st.integers(0, 2**32)


@settings(max_examples=60, deadline=None)
@given(shapes, columns, dtypes, dtypes, st.sampled_from([1.0, 30.0, 5e3]), seeds)
def test_swiglu_is_exact_to_rounding(leading, last, x_dtype, gate_dtype, scale, seed):
    x, gate = draw(seed, (*leading, last), x_dtype), draw(seed + 1, (*leading, last), gate_dtype, scale)
    out = fused_swiglu(x, gate)
    assert out.dtype == x_dtype
    assert_rounded(exact(out), swiglu_64(x, gate), x_dtype, slack=1e-6 * max(1.0, scale / 10))


@settings(max_examples=60, deadline=None)
@given(shapes, columns, st.tuples(dtypes, dtypes, dtypes), st.data())
def test_modulate_is_exact_to_rounding(leading, last, kinds, data):
    shape = (*leading, last)
    batch, between = (shape[0], (1,) * (len(shape) - 2)) if leading else (1, ())
    rows = st.sampled_from([(last,), (1, last), (batch, last), (batch, *between, last)] if leading else [(last,)])
    seed, mean = data.draw(seeds), data.draw(st.sampled_from([0.0, 3.0, -100.0]))
    x = draw(seed, shape, kinds[0], data.draw(st.sampled_from([1e-3, 1.0, 100.0])), mean)
    shift, scale = (draw(seed + i, data.draw(rows), kinds[i]) for i in (1, 2))
    eps = data.draw(st.sampled_from([1e-6, 1e-5]))
    out = fused_modulate(x, shift, scale, eps)
    assert out.dtype == kinds[0]
    expected, terms = modulate_64(x, shift, scale, eps)
    assert_rounded(exact(out), expected, kinds[0], terms, slack=slack_of(last))


@pytest.mark.parametrize("dtype", DTYPES)
def test_large_gates_give_their_limits(dtype):
    gate = mx.array([1e4, -1e4, 100.0, -100.0, 0.0, -0.0, 3e38 if dtype != mx.float16 else 6e4, -6e4]).astype(dtype)
    out = exact(fused_swiglu(mx.full(gate.shape, 0.5, dtype=dtype), gate))
    assert np.array_equal(out, np.where(exact(gate) > 0, 0.5 * exact(gate), 0) + 0.0)


@pytest.mark.parametrize("last", [257, 1024, 9000])
def test_a_large_mean_costs_no_accuracy(last):
    x = draw(0, (4, 3, last), mean=1e4)
    shift, scale = mx.zeros((last,)), mx.zeros((last,))
    expected, terms = modulate_64(x, shift, scale)
    assert_rounded(exact(fused_modulate(x, shift, scale)), expected, mx.float32, terms, slack=slack_of(last))


def test_rows_of_one_value_become_the_shift():
    out = fused_modulate(mx.full((2, 3, 100), 1e4), mx.full((100,), 0.25), mx.ones((2, 100)))
    assert np.allclose(exact(out), 0.25, atol=1e-6)


def rearranged(array, how):
    """The same values, lying otherwise in memory."""
    if how == "columns of a wider array":
        return mx.concatenate([array, array + 1], axis=-1)[..., : array.shape[-1]]
    if how == "every other column":
        return mx.stack([array, array + 1], axis=-1)[..., 0]
    if how == "backwards":
        return mx.contiguous(array[..., ::-1])[..., ::-1]
    if how == "transposed":
        return mx.contiguous(array.swapaxes(0, -1)).swapaxes(0, -1)
    assert how == "unaligned"
    return mx.concatenate([mx.zeros((1,), array.dtype), array.flatten()])[1:].reshape(array.shape)


@pytest.mark.parametrize(
    "how", ["columns of a wider array", "every other column", "backwards", "transposed", "unaligned"]
)
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_inputs_may_lie_in_memory_in_any_order(how, dtype):
    x, gate = draw(0, (3, 5, 64), dtype), draw(1, (3, 5, 64), dtype)
    shift, scale = draw(2, (3, 64), dtype), draw(3, (3, 64), dtype)
    a, b, c, d = (rearranged(array, how) for array in (x, gate, shift, scale))
    assert mx.array_equal(fused_swiglu(a, b), fused_swiglu(x, gate))
    assert mx.array_equal(fused_modulate(a, c, d), fused_modulate(x, shift, scale))


def test_empty_arrays_give_empty_arrays():
    for shape in [(0,), (0, 8), (2, 0, 8), (2, 3, 0)]:
        x = mx.zeros(shape, mx.float16)
        assert fused_swiglu(x, x).shape == shape
        out = fused_modulate(x, mx.zeros(shape[-1:]), mx.zeros(shape[-1:]))
        assert (out.shape, out.dtype) == (shape, mx.float16)


def test_a_scalar_has_a_swiglu():
    assert fused_swiglu(mx.array(2.0), mx.array(0.0)).shape == ()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda x: fused_swiglu(x, x[:1]), r"gate must have x's shape \(2, 3, 4\); got \(1, 3, 4\)"),
        (lambda x: fused_swiglu(x, x.astype(mx.int32)), r"gate must be .*float32.*got mlx.core.int32"),
        (lambda x: fused_swiglu(NOT_MLX, x), r"x must be .*got ndarray"),
        (lambda x: fused_modulate(x, x, x[0, 0]), r"shift must have one of the shapes .*got \(2, 3, 4\)"),
        (lambda x: fused_modulate(x, x[0, 0], x[0]), r"scale must have .*\(2, 1, 4\).*got \(3, 4\)"),
        (lambda x: fused_modulate(x, x[0, 0], x[0, 0, :1]), r"scale must have .*got \(1,\)"),
        (lambda x: fused_modulate(x[0, 0], x[:, 0], x[0, 0]), r"shift must have .*got \(2, 4\)"),
        (lambda x: fused_modulate(x.astype(mx.int32), x[0, 0], x[0, 0]), r"x must be .*got mlx.core.int32"),
        (lambda x: fused_modulate(x[0, 0, 0], x[0, 0], x[0, 0]), "got a scalar"),
        (lambda x: fused_modulate(x, x[0, 0], x[0, 0], eps=-1.0), r"eps must be finite and not negative; got -1.0"),
        (lambda x: fused_modulate(x, x[0, 0], x[0, 0], eps=math.nan), "got nan"),
    ],
)
def test_other_arguments_are_refused(call, says):
    with pytest.raises(InputError, match=says):
        call(mx.ones((2, 3, 4)))


# --- derivatives ---


def plain_swiglu(x, gate):
    return gate * mx.sigmoid(gate) * x


def plain_modulate(x, shift, scale):
    shift, scale = (a if a.ndim in (1, x.ndim) else mx.expand_dims(a, 1) for a in (shift, scale))
    d = x - x.mean(-1, keepdims=True)
    return (1 + scale) * d * mx.rsqrt(d.square().mean(-1, keepdims=True) + 1e-6) + shift


CASES = {
    "swiglu": (fused_swiglu, plain_swiglu, [(2, 3, 9), (2, 3, 9)]),
    "modulate, shared": (fused_modulate, plain_modulate, [(2, 3, 9), (9,), (1, 9)]),
    "modulate, per batch": (fused_modulate, plain_modulate, [(2, 3, 9), (2, 9), (2, 1, 9)]),
    "modulate, rows": (fused_modulate, plain_modulate, [(4, 9), (4, 9), (9,)]),
}


def of_case(name):
    fused, plain, arrays = CASES[name]
    return fused, plain, [draw(i, shape) for i, shape in enumerate(arrays)]


def weighted(function, seed=9):
    """A number made of all that the function returns."""
    return lambda *arrays: (out := function(*arrays), (out * draw(seed, out.shape)).sum())[1]


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_the_plain_compositions(name):
    fused, plain, arrays = of_case(name)
    every = list(range(len(arrays)))
    found = mx.grad(weighted(fused), every)(*arrays)
    expected = mx.grad(weighted(plain), every)(*arrays)
    for f, e, array in zip(found, expected, arrays, strict=True):
        assert f.shape == array.shape
        assert np.allclose(exact(f), exact(e), rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_finite_differences(name):
    fused, _, arrays = of_case(name)
    reference = swiglu_64 if name == "swiglu" else lambda *a: modulate_64(*a)[0]
    weights = exact(draw(9, arrays[0].shape))
    for i, array in enumerate(arrays):
        grad = exact(mx.grad(weighted(fused), i)(*arrays))
        for index in np.ndindex(*array.shape):
            step = np.zeros(array.shape, np.float32)
            step[index] = 2.0**-7
            ends = [array - mx.array(step), array + mx.array(step)]
            ends = [(reference(*arrays[:i], end, *arrays[i + 1 :]) * weights).sum() for end in ends]
            assert abs((ends[1] - ends[0]) / 2**-6 - grad[index]) < 2e-3


@on_the_portable_form
@pytest.mark.parametrize("name", CASES)
def test_forward_and_backward_derivatives_agree(name):
    fused, plain, arrays = of_case(name)
    directions = [draw(20 + i, array.shape) for i, array in enumerate(arrays)]
    along = mx.jvp(fused, arrays, directions)[1][0]
    assert np.allclose(exact(along), exact(mx.jvp(plain, arrays, directions)[1][0]), rtol=1e-5, atol=2e-5)
    one = mx.jvp(lambda x: fused(x, *arrays[1:]), arrays[:1], directions[:1])[1][0]  # the others don't change
    assert np.allclose(
        exact(one), exact(mx.jvp(lambda x: plain(x, *arrays[1:]), arrays[:1], directions[:1])[1][0]), atol=2e-5
    )


@pytest.mark.parametrize("name", CASES)
def test_gradients_have_gradients(name):
    fused, plain, arrays = of_case(name)

    def of_gradient(function):
        return lambda x: mx.grad(weighted(function))(x, *arrays[1:]).square().sum()

    found, expected = (mx.grad(of_gradient(function))(arrays[0]) for function in (fused, plain))
    assert np.allclose(exact(found), exact(expected), rtol=1e-4, atol=1e-4 * np.abs(exact(expected)).max())


def test_gradients_have_the_dtypes_of_what_they_are_by():
    x, gate, shift = draw(0, (2, 3, 8), mx.bfloat16), draw(1, (2, 3, 8), mx.float16), draw(2, (8,))
    assert [g.dtype for g in mx.grad(weighted(fused_swiglu), [0, 1])(x, gate)] == [mx.bfloat16, mx.float16]
    grads = mx.grad(weighted(fused_modulate), [0, 1, 2])(x, shift, shift.astype(mx.float16))
    assert [g.dtype for g in grads] == [mx.bfloat16, mx.float32, mx.float16]


@pytest.mark.parametrize("gate", [-1e4, -100.0, -20.0, 0.0, 20.0, 1e4])
def test_gradients_of_large_gates_are_finite(gate):
    by_x, by_gate = mx.grad(lambda *a: fused_swiglu(*a).sum(), [0, 1])(mx.array([2.0]), mx.array([gate]))
    s = 1 / (1 + math.exp(min(-gate, 700)))
    assert by_x.item() == pytest.approx(gate * s, abs=1e-6)
    assert by_gate.item() == pytest.approx(2 * s * (1 + gate * (1 - s)), abs=1e-6)


@on_the_portable_form
@pytest.mark.parametrize("gate", [-1e4, -100.0, 100.0, 1e4])
def test_forward_derivatives_of_large_gates_are_finite(gate):
    one, zero = mx.array([1.0]), mx.array([0.0])
    for dx, dgate, expected in ((one, zero, max(gate, 0)), (zero, one, 2.0 * (gate > 0))):
        (along,) = mx.jvp(fused_swiglu, [mx.array([2.0]), mx.array([gate])], [dx, dgate])[1]
        assert along.item() == pytest.approx(expected, abs=1e-6)


# --- under MLX's transformations ---


@pytest.mark.parametrize("name", CASES)
def test_compiled_is_the_same(name):
    fused, _, arrays = of_case(name)
    assert mx.array_equal(mx.compile(fused)(*arrays), fused(*arrays))
    found, expected = (f(mx.grad(weighted(fused)))(*arrays) for f in (mx.compile, lambda f: f))
    assert mx.allclose(found, expected, atol=1e-6)


@on_the_portable_form
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("axes", ["first", "last", "only x", "only the others"])
def test_vmap_is_a_loop(name, axes):
    fused, _, arrays = of_case(name)
    n = 3
    mapped = [axes in ("first", "last") or (i == 0) == (axes == "only x") for i in range(len(arrays))]
    many = [mx.stack([a * (k + 1) for k in range(n)]) if m else a for a, m in zip(arrays, mapped, strict=True)]
    expected = mx.stack([fused(*(a[k] if m else a for a, m in zip(many, mapped, strict=True))) for k in range(n)])
    if axes == "last":
        many = [mx.moveaxis(a, 0, -1) for a in many]
    in_axes = tuple((-1 if axes == "last" else 0) if m else None for m in mapped)
    assert mx.allclose(mx.vmap(fused, in_axes=in_axes)(*many), expected, atol=1e-6)


# --- the texts for Metal and CUDA ---


@dataclass(frozen=True)
class Case:
    """The inputs of a kernel's source. x is `[rows, D]` for swiglu, `[B, L, D]` for modulate; `lies` is a layout in
    `laid_out`.
    """

    shape: tuple[int, ...]
    dtypes: tuple[mx.Dtype, ...]
    lies: str = "contiguous"

    def __str__(self):
        return f"{self.name} {self.shape} {self.lies} {' '.join(str(d).removeprefix('mlx.core.') for d in self.dtypes)}"

    @property
    def name(self):
        return "swiglu" if len(self.shape) == 2 else "modulate"

    def arrays(self):
        shapes = [self.shape] * 2 if self.name == "swiglu" else [self.shape, *[(self.shape[0], self.shape[-1])] * 2]
        scales = (1.0, 10.0) if self.name == "swiglu" else (1.0, 1.0, 1.0)
        mean = 1e6 if self.dtypes[0] == mx.float32 and self.name == "modulate" else 0.5
        return [
            draw(i, *given, mean * (i == 0)) for i, given in enumerate(zip(shapes, self.dtypes, scales, strict=True))
        ]


LAYOUTS = ("contiguous", "apart", "every other", "backwards", "unaligned", "one")


TEXT_CASES = [
    *(Case((7, d), (t,) * 2) for d in (1, 3, 64, 1030) for t in DTYPES),
    *(Case((2, 3, d), (t,) * 3) for d in (1, 33, 72, 520, 1025, 2056) for t in DTYPES),
    Case((600, 3), (mx.float32, mx.bfloat16)),  # several groups
    Case((3, 7, 40), (mx.bfloat16, mx.float32, mx.float16)),  # rows that don't fill the last group
    Case((1, 2, 8200), (mx.float32,) * 3),  # a row too long to keep
    Case((1, 2, 8184), (mx.bfloat16,) * 3),  # one that is just kept, and not by all threads
    *(Case((5, 48), (mx.bfloat16, mx.float32), lies) for lies in LAYOUTS[1:]),
    *(Case((2, 3, 48), (mx.float16,) * 3, lies) for lies in LAYOUTS[1:]),
]


def laid_out(array, lies):
    """The same values, lying otherwise in memory; outside them lies what would show in a result."""
    if lies == "contiguous":
        return np.ascontiguousarray(array)
    if lies == "one":  # the first row for all
        return np.broadcast_to(array[:1], array.shape)
    wide = np.full((*array.shape[:-1], 2 * array.shape[-1] + 16), 0x7FFF, np.uint16).astype(array.dtype)
    if lies == "unaligned":
        flat = wide.reshape(-1)[1 : array.size + 1].reshape(array.shape)
        flat[...] = array
        return flat
    n = array.shape[-1]
    view = {"apart": wide[..., :n], "every other": wide[..., : 2 * n : 2], "backwards": wide[..., n - 1 :: -1]}[lies]
    view[...] = array
    return view


def stored(array):
    """As numpy; bfloat16 as its bits."""
    return np.array(array.view(mx.uint16) if array.dtype == mx.bfloat16 else array)


def read(array, dtype):
    return exact(mx.array(array).view(mx.bfloat16) if dtype == mx.bfloat16 else mx.array(array))


def launches(language, folder):
    """One for each of TEXT_CASES."""
    runs = []
    for case in TEXT_CASES:
        run, options = (swiglu.run, ()) if case.name == "swiglu" else (modulate.run, (1e-6,))
        runs.append(partial(run, language, *case.arrays(), *options))
    return texts.launches_of(language, runs, folder)


@pytest.fixture(scope="module", params=["metal", "cuda"])
def library(request, tmp_path_factory):
    """TEXT_CASES for the CPU."""
    if sys.platform != "linux":
        pytest.skip("the shim's coroutines are Linux's; with Metal, the tests above run the kernels themselves")
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler (g++ or clang++) to compile the kernels' texts for the CPU")
    folder = tmp_path_factory.mktemp(request.param)
    return texts.Library(launches(request.param, folder), request.param, compiler, folder)


@pytest.mark.parametrize("case", TEXT_CASES, ids=str)
def test_texts_are_exact_to_rounding(library, case, capfd):
    arrays = case.arrays()
    first = LAYOUTS.index(case.lies)
    layouts = [LAYOUTS[(first + i * bool(first)) % len(LAYOUTS)] for i in range(len(arrays))]
    views = [laid_out(stored(array), lies) for array, lies in zip(arrays, layouts, strict=True)]
    names = (swiglu.KERNEL if case.name == "swiglu" else modulate._kernel(1e-6)).inputs
    margin = 64
    out = np.full(math.prod(case.shape) + 2 * margin, 77, views[0].dtype)
    inputs = dict(zip(names, views, strict=True))
    assert library.run(TEXT_CASES.index(case), inputs, out.ctypes.data + margin * out.itemsize), "a barrier not reached"
    assert "runtime error" not in capfd.readouterr().err  # the sanitizer's words
    assert np.all(out[:margin] == 77)
    assert np.all(out[-margin:] == 77)
    result = read(out[margin:-margin].reshape(case.shape), case.dtypes[0])
    # a layout may repeat a row, so what counts is what the views hold
    values = [mx.array(read(view.copy(), t).astype(np.float32)) for view, t in zip(views, case.dtypes, strict=True)]
    expected, terms = (swiglu_64(*values), None) if case.name == "swiglu" else modulate_64(*values)
    assert_rounded(result, expected, case.dtypes[0], terms, slack=3e-6)


def test_cuda_texts_compile(tmp_path):
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("no nvcc to compile the kernels' texts for CUDA")
    source = "#include <cstdint>\n#include <cuda_bf16.h>\n#include <cuda_fp16.h>\n"
    for name, kind in (("Shape", "int32_t"), ("Strides", "int64_t")):
        source += f"struct {name} {{ {kind} of[10]; __device__ {kind} operator[](int i) const {{ return of[i]; }} }};\n"
    some = launches("cuda", tmp_path)[10:30:4]
    source += dialect.HEADERS["cuda"] + "".join(launch.text for launch in some)
    (tmp_path / "kernels.cu").write_text(source)
    command = [nvcc, "-arch=sm_90", "-ptx", "-Werror", "all-warnings", str(tmp_path / "kernels.cu"), "-o", os.devnull]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("shape", [(), (5,), (4, 5), (2, 3, 5), (2, 3, 4, 5)])
def test_kernels_get_canonical_shapes(monkeypatch, shape):
    """The lines between the public functions and a kernel, which would else only run on a GPU."""
    plain = {"swiglu": plain_swiglu, "modulate": plain_modulate}
    seen = []

    def build(kernel, _):
        return lambda inputs, **_: (seen.append([a.shape for a in inputs]), [plain[kernel.name](*inputs)])[1]

    monkeypatch.setattr(dialect, "_built", build)
    for module in (swiglu, modulate):
        monkeypatch.setattr(module, "language", lambda: "cuda")
    x, gate = draw(0, shape), draw(1, shape)
    assert mx.allclose(fused_swiglu(x, gate), plain_swiglu(x, gate), atol=1e-6)
    assert [len(a) for a in seen.pop()] == [2, 2]
    if shape:
        shift, scale = draw(2, shape[-1:]), draw(3, (*shape[:1], *(1,) * (len(shape) - 2), *shape[-1:])[-len(shape) :])
        expected, terms = modulate_64(x, shift, scale)
        assert_rounded(exact(fused_modulate(x, shift, scale)), expected, mx.float32, terms, slack=3e-6)
        assert [len(a) for a in seen.pop()] == [3, 2, 2]


def test_different_texts_have_different_names(monkeypatch):
    names = []
    monkeypatch.setattr(mx.fast, "metal_kernel", lambda name, **_: names.append(name))
    dialect._built.__wrapped__(modulate._kernel(1e-6), "metal")
    dialect._built.__wrapped__(modulate._kernel(1e-5), "metal")
    assert len(set(names)) == 2
