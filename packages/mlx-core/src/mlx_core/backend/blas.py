"""A fast BLAS under libmlx on Linux CPUs.

MLX's wheels for Linux bundle the reference BLAS, some thirty times slower than OpenBLAS. Here libmlx's references to
BLAS and LAPACK, which the dynamic linker keeps in a table of addresses, are pointed at the OpenBLAS of the wheel
`scipy-openblas32`. That works whether or not MLX has been imported before, needs nothing compiled, serves every user
of MLX in the process, and can be undone. Before it is kept, a self-test compares products with those that MLX's own
BLAS gave for the same operands.

Sources: the ELF specification (dynamic section, relocations), dlinfo(3).
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import mmap
import os
import platform
import re
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx

from .trampoline import one_row_gemm

# Types of relocations whose slot holds the address of a function: JUMP_SLOT and GLOB_DAT.
_FUNCTION_RELOCATIONS = {"x86_64": (7, 6), "aarch64": (1026, 1025)}
_DT_PLTRELSZ, _DT_STRTAB, _DT_SYMTAB, _DT_RELA, _DT_RELASZ, _DT_JMPREL = 2, 5, 6, 7, 8, 23
_RTLD_DI_LINKMAP = 2

# What MLX calls of BLAS and LAPACK is found by these names; Fortran's end in an underscore.
_PREFIX = "scipy_"
_LAPACK = re.compile(r"[sdcz](geev|gesdd|(sy|he)evd|geqrf|getr[fi]|orgqr|ungqr|potrf|trtri)_")


@dataclass(frozen=True)
class BlasStatus:
    """The BLAS that multiplies matrices on the CPU. `reason` says why the fast BLAS, or its part for single rows, is off."""

    active: bool
    name: str
    threads: int | None = None
    one_row: bool = False
    reason: str | None = None


class Unavailable(Exception):
    """The fast BLAS can't be used, for the reason given. Internal: users see `BlasStatus.reason`."""


class Redirection:
    """libmlx's BLAS and LAPACK slots, and what stands in them."""

    def __init__(self, library: Path) -> None:
        _check_platform()
        self._mlx = _loaded("libmlx.so")
        self._slots = {name: slot for name, slot in function_slots(self._mlx) if _is_blas(name)}
        if "cblas_sgemm" not in self._slots:
            raise Unavailable("this libmlx doesn't call cblas_sgemm through a slot that can be pointed elsewhere")
        self._originals = {name: slot.value or 0 for name, slot in self._slots.items()}
        try:
            self._blas = ctypes.CDLL(str(library))
            self._targets = {name: _address(self._blas, _PREFIX + name) for name in self._slots}
            self._gemv = _address(self._blas, _PREFIX + "cblas_sgemv")
        except (OSError, AttributeError) as error:
            raise Unavailable(f"{library.name} can't be used: {error}") from error
        self.one_row_reason: str | None = None
        self._one_row: int | None = None
        try:
            self._one_row = one_row_gemm(self._targets["cblas_sgemm"], self._gemv)
        except OSError as error:
            self.one_row_reason = f"single rows go through gemm: {error}"

    def redirect(self, one_row: bool) -> None:
        """Point libmlx at the fast BLAS, products of one row through gemv if wanted and possible."""
        targets = dict(self._targets)
        if one_row and self._one_row is not None:
            targets["cblas_sgemm"] = self._one_row
        self._write(targets)

    def restore(self) -> None:
        """Point libmlx at its own BLAS again."""
        self._write(self._originals)

    @property
    def has_one_row(self) -> bool:
        return self._one_row is not None

    def drop_one_row(self, reason: str) -> None:
        """Never use the part for single rows again."""
        self._one_row, self.one_row_reason = None, reason

    @property
    def name(self) -> str:
        version, core = (self._text(f"openblas_get_{what}") for what in ("config", "corename"))
        return f"OpenBLAS {version.split()[1] if len(version.split()) > 1 else version} ({core})"

    @property
    def threads(self) -> int:
        return int(self._blas[_PREFIX + "openblas_get_num_threads"]())

    @threads.setter
    def threads(self, count: int) -> None:
        self._blas[_PREFIX + "openblas_set_num_threads"](ctypes.c_int(count))

    def _text(self, function: str) -> str:
        call = self._blas[_PREFIX + function]
        call.restype = ctypes.c_char_p
        return str(call().decode())

    def _write(self, addresses: dict[str, int]) -> None:
        with _writable([ctypes.addressof(slot) for slot in self._slots.values()]):
            for name, slot in self._slots.items():
                slot.value = addresses[name]


def library_path() -> Path:
    """OpenBLAS in the wheel `scipy-openblas32`, which is found without importing it. Raises Unavailable."""
    spec = importlib.util.find_spec("scipy_openblas32")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (path := Path(folder) / "lib" / "libscipy_openblas.so").is_file():
            return path
    raise Unavailable("scipy-openblas32 isn't installed: install the extra `mlx-core[cpu]`")


def available_cpus() -> int:
    """Processors that this process may use: its affinity, and the container's quota."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        count = min(count, max(1, int(quota) // int(period)))
    except (OSError, ValueError):  # no container, or one without a quota ("max")
        pass
    return count


def check_products() -> list[mx.array]:
    """Products of many shapes, both transposes and odd strides, single rows and columns, batches, with something to
    add them to: for comparison.

    The operands are the same each time and need no random state.
    """
    results = []
    for m, k, n in (
        (1, 1, 1),
        (1, 7, 5),
        (1, 64, 257),
        (3, 1, 4),
        (5, 33, 1),
        (1, 300, 1),
        (17, 19, 23),
        (64, 128, 96),
        (130, 70, 40),
    ):
        a, b = _operand(m, k, 0.37), _operand(k, n, 0.61)
        a_t, b_t = mx.contiguous(a.T), mx.contiguous(b.T)
        results += [mx.matmul(a, b), mx.matmul(a_t.T, b), mx.matmul(a, b_t.T), mx.matmul(a_t.T, b_t.T)]
        wide_a, wide_b = _operand(m, 2 * k + 3, 0.37), _operand(k, n + 5, 0.61)
        results += [mx.matmul(wide_a[:, 3 : 3 + k], wide_b[:, 2 : 2 + n]), mx.matmul(wide_a[:, 1 : 1 + 2 * k : 2], b)]
        results.append(mx.addmm(_operand(m, n, 0.53), a, b, alpha=0.5, beta=2.0))
    results.append(mx.matmul(_operand(6, 20, 0.2).reshape(2, 3, 1, 20), _operand(40, 20, 0.3).reshape(2, 1, 20, 20)))
    mx.eval(results)
    return results


def _operand(rows: int, columns: int, step: float) -> mx.array:
    return mx.sin(mx.arange(rows * columns, dtype=mx.float32) * step + 1).reshape(rows, columns)


def products_agree(found: list[mx.array], wanted: list[mx.array]) -> bool:
    """Whether products are the same but for rounding: operands are at most 1, sums at most 300 of them."""
    errors = [
        mx.max(mx.abs(a - b)) if a.shape == b.shape else mx.array(mx.inf) for a, b in zip(found, wanted, strict=True)
    ]
    worst = mx.max(mx.stack(errors)).item()
    return isinstance(worst, float) and worst < 1e-4  # NaN is not


def _check_platform() -> None:
    if sys.platform != "linux":
        raise Unavailable("MLX uses the system's BLAS here")
    if platform.machine() not in _FUNCTION_RELOCATIONS:
        raise Unavailable(f"{platform.machine()} isn't known")
    if platform.libc_ver()[0] != "glibc":
        raise Unavailable("the C library isn't glibc")


def _loaded(name: str) -> ctypes.CDLL:
    """A handle on a library that is loaded already."""
    for candidate in (name, str(Path(mx.__file__).parent / "lib" / name)):
        try:
            return ctypes.CDLL(candidate, mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
        except OSError:
            continue
    raise Unavailable(f"{name} isn't loaded under that name")


def _is_blas(name: str) -> bool:
    return name.startswith("cblas_") or _LAPACK.fullmatch(name) is not None


def _address(library: ctypes.CDLL, name: str) -> int:
    return ctypes.cast(library[name], ctypes.c_void_p).value or 0


def function_slots(library: ctypes.CDLL) -> Iterator[tuple[str, ctypes.c_void_p]]:
    """(name, slot) of each function that a loaded library calls in others, read from its dynamic section in memory."""
    link_map = ctypes.c_void_p()
    dlinfo = ctypes.CDLL(None).dlinfo
    dlinfo.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]
    if dlinfo(library._handle, _RTLD_DI_LINKMAP, ctypes.byref(link_map)) or link_map.value is None:
        raise Unavailable("the dynamic linker doesn't say where libmlx is")
    base, _, dynamic = struct.unpack("<QQQ", ctypes.string_at(link_map.value, 24))
    entries: dict[int, int] = {}
    while True:
        tag, value = struct.unpack("<qQ", ctypes.string_at(dynamic, 16))
        if tag == 0:
            break
        entries.setdefault(tag, value)
        dynamic += 16

    def pointer(tag: int) -> int:
        value = entries.get(tag, 0)
        return value if value >= base else value + base  # glibc relocates these in place

    kinds = _FUNCTION_RELOCATIONS[platform.machine()]
    for table, size in ((_DT_JMPREL, _DT_PLTRELSZ), (_DT_RELA, _DT_RELASZ)):
        if table not in entries:
            continue
        for offset, info, _ in struct.iter_unpack("<QQq", ctypes.string_at(pointer(table), entries.get(size, 0))):
            if info & 0xFFFFFFFF in kinds:
                (name_offset,) = struct.unpack("<I", ctypes.string_at(pointer(_DT_SYMTAB) + (info >> 32) * 24, 4))
                name = ctypes.string_at(pointer(_DT_STRTAB) + name_offset).decode(errors="replace")
                yield name, ctypes.c_void_p.from_address(base + offset)


@contextlib.contextmanager
def _writable(addresses: list[int]) -> Iterator[None]:
    """Make the pages of `addresses` writable within the block, where they aren't: tables may be read-only after
    relocation.
    """
    page_size = os.sysconf("SC_PAGE_SIZE")
    writable = []
    with open("/proc/self/maps") as maps:  # noqa: PTH123
        for line in maps:
            span, permissions = line.split()[:2]
            if "w" in permissions:
                start, end = span.split("-")
                writable.append(range(int(start, 16), int(end, 16)))
    protected = sorted({address & -page_size for address in addresses if not any(address in span for span in writable)})
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    for page in protected:
        if libc.mprotect(page, page_size, mmap.PROT_READ | mmap.PROT_WRITE):
            raise Unavailable("libmlx's table of functions can't be written")
    try:
        yield
    finally:
        for page in protected:
            libc.mprotect(page, page_size, mmap.PROT_READ)


_redirection: Redirection | None = None
_unavailable: str | None = None  # why there is none, once that is known
_status = BlasStatus(False, "MLX's own", reason="not set up yet")


def status() -> BlasStatus:
    """The BLAS in force."""
    return _status


def apply(wanted: bool, one_row: bool = True) -> BlasStatus:
    """Turn the fast BLAS on or off, and its part for single rows. What fails the self-test stays off."""
    global _redirection, _unavailable, _status
    if not wanted:
        if _redirection is not None:
            _redirection.restore()
        _status = BlasStatus(False, "MLX's own", reason="switched off")
        return _status
    if _redirection is None and _unavailable is None:
        try:
            _redirection = _tested(library_path())
        except Unavailable as error:
            _unavailable = str(error)
    if _redirection is None:
        _status = BlasStatus(False, "MLX's own", reason=_unavailable)
        return _status
    _redirection.redirect(one_row)
    on = one_row and _redirection.has_one_row
    reason = None if on else _redirection.one_row_reason or "single rows go through gemm: switched off"
    _status = BlasStatus(True, _redirection.name, _redirection.threads, on, reason)
    return _status


def _tested(library: Path) -> Redirection:
    """A redirection that gives what MLX's own BLAS gives. Raises Unavailable, with libmlx as it was."""
    redirection = Redirection(library)
    if "OPENBLAS_NUM_THREADS" not in os.environ:
        redirection.threads = available_cpus()
    with mx.stream(mx.cpu):
        wanted = check_products()
        redirection.redirect(one_row=True)
        if not products_agree(check_products(), wanted):
            redirection.drop_one_row("single rows go through gemm: the self-test failed")
            redirection.redirect(one_row=False)
            if not products_agree(check_products(), wanted):
                redirection.restore()
                raise Unavailable("the self-test gave other products than MLX's own BLAS")
    return redirection
