"""A function in the place of `cblas_sgemm` that sends products of one row to `cblas_sgemv`.

OpenBLAS multiplies a single row as if it were a matrix, packing the other operand first: several times slower than
its own `sgemv`, and at decode every product has one row. MLX knows no other entry point, so what stands in it has to
choose, and nothing may be compiled at install: hence these few instructions, assembled from `one_row.*.S` beside this
file (a test assembles them again).
"""

from __future__ import annotations

import ctypes
import mmap
import platform

_CODE = {
    "x86_64": bytes.fromhex(
        "f30f1efa83f901755e83ff6575594585c974544c8b542418448b5c2420488b442428488944241848c74424200100000083fe"
        "6f750948c74424100100000083fa6f740dbe6f0000004489c24489c9eb0bbe700000004489ca4489c14d89d04589d9ff2509"
        "000000ff250b000000cccccc"
    ),
    "aarch64": bytes.fromhex(
        "5f2403d57f040071210300541f940171e1020054c5020034ea0340f9eb0b40b9ec0b40f9290080d2ec0300f9e90700f93fbc"
        "01712701871a5fbc0171a0000054e10d8052e203042ae303052a04000014010e8052e203052ae303042ae4030aaae5030b2a"
        "b000005800021fd6b000005800021fd61f2003d5"
    ),
}


def one_row_gemm(gemm: int, gemv: int) -> int:
    """The address of a `cblas_sgemm` that calls the given functions. It stays for the life of the process.

    Raises OSError where the system allows no new code or the architecture isn't known.
    """
    code = _CODE.get(platform.machine())
    if code is None:
        raise OSError(f"there is no code for {platform.machine()}")
    code += gemv.to_bytes(8, "little") + gemm.to_bytes(8, "little")
    page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    page.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    libc = ctypes.CDLL(None, use_errno=True)
    protect = libc.mprotect
    protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    # never writable and executable at once; the kernel brings the instruction cache up to date as it makes a page
    # executable
    if protect(address, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_EXEC):
        raise OSError(ctypes.get_errno(), "the system refuses to make a page executable")
    _pages.append(page)
    return address


_pages: list[mmap.mmap] = []  # what may still be called must never be unmapped
