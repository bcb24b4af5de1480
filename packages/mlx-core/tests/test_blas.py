"""The BLAS under libmlx: the same products, and nothing worse than slow when something is wrong."""

import ctypes
import importlib.util
import itertools
import mmap
import multiprocessing
import os
import platform
import subprocess
import sys
import textwrap
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from shutil import which

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_core import backend
from mlx_core.backend import blas, trampoline

AVAILABLE = sys.platform == "linux" and importlib.util.find_spec("scipy_openblas32") is not None
pytestmark = pytest.mark.skipif(not AVAILABLE, reason="the fast BLAS is for Linux, with the extra `cpu`")

SOURCES = Path(trampoline.__file__).parent


@pytest.fixture
def libmlx():
    """Tests may redirect libmlx as they like; afterwards it is as the backend wants it."""
    yield
    wants = backend.current()
    blas.apply(wants.fast_blas, wants.one_row)


@pytest.fixture
def fresh(monkeypatch, libmlx):
    """No redirection has been tried yet, and libmlx calls its own BLAS."""
    blas.apply(False)
    monkeypatch.setattr(blas, "_redirection", None)
    monkeypatch.setattr(blas, "_unavailable", None)
    with mx.stream(mx.cpu):
        yield


def draw(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def matmul(a, b):
    with mx.stream(mx.cpu):
        return np.array(mx.array(a) @ mx.array(b))


def works():
    a, b = draw(5, 40), draw(40, 9)
    return np.allclose(matmul(a, b), a @ b, atol=1e-4) and np.allclose(matmul(a[:1], b), a[:1] @ b, atol=1e-4)


MODES = [{"fast_blas": False}, {"fast_blas": True, "one_row": False}, {"fast_blas": True, "one_row": True}]


@pytest.mark.parametrize("mode", MODES, ids=["off", "gemm", "gemv"])
@settings(max_examples=60)
@given(
    batch=st.sampled_from([(), (2,), (2, 3)]),
    m=st.sampled_from([1, 1, 1, 2, 7, 33]),
    k=st.sampled_from([1, 2, 5, 31, 200]),
    n=st.sampled_from([1, 2, 3, 30, 257]),
    transposes=st.tuples(st.booleans(), st.booleans()),
    offsets=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    step=st.integers(1, 2),
)
def test_products_are_numpy_s(mode, batch, m, k, n, transposes, offsets, step):
    """Every layout that MLX may hand to BLAS: transposed, with rows apart, with columns apart, broadcast."""

    def laid_out(array, transposed, offset):
        rows, columns = array.shape[-2:]
        if transposed:
            return mx.contiguous(mx.array(array).swapaxes(-1, -2)).swapaxes(-1, -2)
        wide = np.full((*array.shape[:-2], rows, columns * step + offset + 1), np.nan, np.float32)
        wide[..., offset : offset + columns * step : step] = array
        return mx.array(wide)[..., offset : offset + columns * step : step]

    a, b = draw(*batch, m, k), draw(k, n)
    with backend.override(**mode), mx.stream(mx.cpu):
        found = np.array(laid_out(a, transposes[0], offsets[0]) @ laid_out(b, transposes[1], offsets[1]))
    np.testing.assert_allclose(found, a @ b, atol=1e-4)


@pytest.mark.parametrize("mode", MODES, ids=["off", "gemm", "gemv"])
def test_one_row_with_what_is_added(mode):
    """Addmm hands over a beta, and an output that holds something."""
    for m, k, n in itertools.product((1, 3), (1, 50), (1, 40)):
        c, a, b = draw(m, n), draw(m, k), draw(k, n)
        with backend.override(**mode), mx.stream(mx.cpu):
            found = np.array(mx.addmm(mx.array(c), mx.array(a), mx.array(b), alpha=0.5, beta=2.0))
        np.testing.assert_allclose(found, 2 * c + 0.5 * (a @ b), atol=1e-4)


def test_an_output_that_holds_nan_is_overwritten():
    """MLX hands over memory as it finds it, with beta 0."""
    redirection = blas.Redirection(blas.library_path())
    integer, number, pointer = ctypes.c_int, ctypes.c_float, ctypes.c_void_p
    operand = [pointer, integer]
    sgemm = ctypes.CFUNCTYPE(None, *[integer] * 6, number, *operand, *operand, number, *operand)(redirection._one_row)
    for (m, k, n), (ta, tb) in itertools.product(
        [(1, 70, 300), (1, 0, 5), (4, 3, 2)], itertools.product((111, 112), repeat=2)
    ):
        a, b = draw(m, k) if ta == 111 else draw(k, m), draw(k, n) if tb == 111 else draw(n, k)
        c = np.full((m, n), np.nan, np.float32)
        sgemm(
            101,
            ta,
            tb,
            m,
            n,
            k,
            1.0,
            a.ctypes.data,
            max(a.shape[1], 1),
            b.ctypes.data,
            max(b.shape[1], 1),
            0.0,
            c.ctypes.data,
            n,
        )
        wanted = (a if ta == 111 else a.T) @ (b if tb == 111 else b.T)
        np.testing.assert_allclose(c, wanted, atol=1e-4)


@pytest.mark.parametrize("mode", MODES[::2], ids=["off", "on"])
def test_linear_algebra(mode):
    a = draw(12, 12)
    spd = a @ a.T + 12 * np.eye(12, dtype=np.float32)
    with backend.override(**mode), mx.stream(mx.cpu):
        u, s, vt = mx.linalg.svd(mx.array(a))
        np.testing.assert_allclose(np.array(u * s @ vt), a, atol=1e-4)
        q, r = mx.linalg.qr(mx.array(a))
        np.testing.assert_allclose(np.array(q @ r), a, atol=1e-4)
        np.testing.assert_allclose(np.array(mx.linalg.inv(mx.array(spd))), np.linalg.inv(spd), atol=1e-4)
        np.testing.assert_allclose(np.array(mx.linalg.cholesky(mx.array(spd))), np.linalg.cholesky(spd), atol=1e-4)
        np.testing.assert_allclose(np.array(mx.linalg.eigvalsh(mx.array(spd))), np.linalg.eigvalsh(spd), rtol=1e-4)
        np.testing.assert_allclose(
            np.sort(np.abs(np.array(mx.linalg.eigvals(mx.array(a))))), np.sort(np.abs(np.linalg.eigvals(a))), rtol=1e-3
        )


def test_it_is_on_by_default_here():
    if (
        any(os.environ.get(name) == "0" for name in ("MLX_CORE_BLAS", "MLX_CORE_ONE_ROW"))
        or backend.current().name != "cpu"
    ):
        pytest.skip("switched off, or another backend")
    status = backend.blas_status()
    assert status.active
    assert status.one_row
    assert status.name.startswith("OpenBLAS 0.")
    assert 1 <= status.threads <= 64
    assert status.reason is None


def test_switching_off_and_on_again():
    with backend.override(fast_blas=False):
        assert not backend.blas_status().active
        assert backend.blas_status().reason == "switched off"
        assert works()
        with backend.override(fast_blas=True, one_row=False):
            assert backend.blas_status().active
            assert not backend.blas_status().one_row
            assert works()
        assert not backend.blas_status().active
    with backend.override(fast_blas=True, one_row=True):
        assert backend.blas_status().one_row
        assert works()


def getpid_address():
    """A function that touches none of its arguments, so products come out as whatever was in memory."""
    return ctypes.cast(ctypes.CDLL(None).getpid, ctypes.c_void_p).value


def test_a_wrong_result_turns_it_off(fresh, monkeypatch):
    real = blas._address
    monkeypatch.setattr(
        blas, "_address", lambda library, name: getpid_address() if "gemm" in name else real(library, name)
    )
    monkeypatch.setattr(blas, "one_row_gemm", lambda gemm, gemv: gemm)
    status = blas.apply(True, one_row=True)
    assert not status.active
    assert "self-test" in status.reason
    assert works()  # libmlx calls its own BLAS again


def test_a_wrong_result_for_one_row_turns_only_that_off(fresh, monkeypatch):
    real = blas._address
    monkeypatch.setattr(
        blas, "_address", lambda library, name: getpid_address() if "gemv" in name else real(library, name)
    )
    status = blas.apply(True, one_row=True)
    assert status.active
    assert not status.one_row
    assert "self-test" in status.reason
    assert works()


@pytest.mark.parametrize(
    ("target", "replacement", "reason"),
    [
        ((blas, "_PREFIX"), "no_such_", "no_such_"),
        ((blas, "function_slots"), lambda library: iter(()), "slot"),
        ((importlib.util, "find_spec"), lambda name: None, "isn't installed"),
        ((blas, "library_path"), lambda: Path(__file__), "test_blas.py"),
        (
            (blas, "_loaded"),
            lambda name: (_ for _ in ()).throw(blas.Unavailable("libmlx.so isn't loaded")),
            "libmlx.so",
        ),
        ((platform, "libc_ver"), lambda: ("musl", "1.2"), "glibc"),
        ((platform, "machine"), lambda: "riscv64", "riscv64"),
        ((sys, "platform"), "darwin", "system's BLAS"),
    ],
    ids=["symbol", "slot", "library", "damaged library", "another libmlx", "musl", "machine", "macOS"],
)
def test_what_is_missing_turns_it_off(fresh, monkeypatch, target, replacement, reason):
    monkeypatch.setattr(*target, replacement)
    status = blas.apply(True)
    assert not status.active
    assert reason in status.reason
    assert blas.apply(True) == status  # it isn't tried again
    monkeypatch.undo()
    assert works()


def test_without_executable_memory_rows_go_through_gemm(fresh, monkeypatch):
    def refuse(gemm, gemv):
        raise OSError("the system refuses to make a page executable")

    monkeypatch.setattr(blas, "one_row_gemm", refuse)
    status = blas.apply(True)
    assert status.active
    assert not status.one_row
    assert "refuses" in status.reason
    assert works()


def test_a_table_that_is_read_only_is_written_and_read_only_again():
    page = mmap.mmap(-1, mmap.PAGESIZE)
    value = ctypes.c_uint64.from_buffer(page)
    address = ctypes.addressof(value)
    libc = ctypes.CDLL(None)
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    assert libc.mprotect(address, mmap.PAGESIZE, mmap.PROT_READ) == 0
    with blas._writable([address]):
        value.value = 17
    assert value.value == 17
    line = next(line for line in Path("/proc/self/maps").read_text().splitlines() if line.startswith(f"{address:x}-"))
    assert line.split()[1].startswith("r--")


def test_one_warning_says_what_is_off():
    program = """
        import warnings
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            import importlib.util
            real = importlib.util.find_spec
            importlib.util.find_spec = lambda name, *rest: None if name == "scipy_openblas32" else real(name, *rest)
            import mlx_core, mlx_core.generation
            import mlx.core as mx
            mx.eval(mx.ones((3, 3)) @ mx.ones((3, 3)))
        print(*[f"{warning.category.__name__}: {warning.message}" for warning in caught], sep="\\n")
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLX_CORE_")}
    command = [sys.executable, "-c", textwrap.dedent(program)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    if backend.current().name == "cpu":
        assert result.stdout.count("BackendWarning") == 1
        assert "scipy-openblas32 isn't installed" in result.stdout
    off = subprocess.run(command, capture_output=True, text=True, check=True, env={**environment, "MLX_CORE_BLAS": "0"})
    assert off.stdout.strip() == ""


def test_several_threads_at_once():
    a, b = draw(64, 300), draw(300, 80)
    wanted = a @ b

    def work(number):
        with mx.stream(mx.new_stream(mx.cpu)):
            rows = slice(None) if number % 2 else slice(0, 1)
            return np.abs(np.array(mx.array(a[rows]) @ mx.array(b)) - wanted[rows]).max()

    with backend.override(fast_blas=True), ThreadPoolExecutor(8) as pool:
        assert max(pool.map(work, range(64))) < 1e-4


def test_spawned_processes():
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        status = pool.submit(blas.status).result(timeout=120)
    wants = backend.current()
    assert status.active == (wants.name == "cpu" and wants.fast_blas)


@pytest.mark.parametrize(
    ("machine", "assembler"),
    [("x86_64", "as" if platform.machine() == "x86_64" else "x86_64-linux-gnu-as"),
     ("aarch64", "as" if platform.machine() == "aarch64" else "aarch64-linux-gnu-as")],
)  # fmt: skip
def test_the_code_is_what_its_source_assembles_to(machine, assembler, tmp_path):
    objcopy = assembler.removesuffix("as") + "objcopy"
    if which(assembler) is None or which(objcopy) is None:
        pytest.skip(f"{assembler} isn't installed")
    subprocess.run([assembler, SOURCES / f"one_row.{machine}.S", "-o", tmp_path / "code.o"], check=True)
    subprocess.run([objcopy, "-O", "binary", "-j", ".text", tmp_path / "code.o", tmp_path / "code"], check=True)
    assert (tmp_path / "code").read_bytes() == trampoline._CODE[machine] + bytes(16)


def test_the_report_says_what_is_active():
    text = subprocess.run([sys.executable, "-m", "mlx_core"], capture_output=True, text=True, check=True).stdout
    status = backend.blas_status()
    for word in ("device", "memory", "mlx", "dtype", "packed weights"):
        assert word in text
    if backend.current().name == "cpu":
        assert status.name in text
        assert "through gemv" in text or not status.one_row
    off = subprocess.run(
        [sys.executable, "-m", "mlx_core"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "MLX_CORE_BLAS": "0"},
    ).stdout
    if backend.current().name == "cpu":
        assert "turned off      switched off" in off
        assert "MLX_CORE_BLAS=0" in off
