"""The block formats of GGUF tensors: bytes to float32, and bytes to MLX's affine packing without loss.

A quantised row is a sequence of blocks, and a block is a few groups of 16 or 32 weights. All formats read here mean
`weight = scale * code + bias`, with an unsigned code of 4 to 8 bits per weight and a scale and a bias per group; they
differ in layout. So a format is one function from bytes to `Codes`; dequantising and repacking are common to all.

In float32 the product is exact (at most 18 bits of scale by 6 of code, or 11 by 8) and the sum is rounded once, so the
weights are bit for bit those of ggml's `dequantize_row_*`; the layouts are those of ggml-common.h and ggml-quants.c.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

# Weights per slice: its codes and scales, about 2 bytes a weight, fit the processor's cache.
_SLICE_WEIGHTS = 2**17


class Codes(NamedTuple):
    """The weights of n blocks: `weight = scales * codes + biases`, the last two broadcast over their group."""

    codes: Bytes  # [n, groups, group_size]
    scales: Floats  # [n, groups]
    biases: Floats  # [n, groups]


class Kind(NamedTuple):
    """A tensor kind of the container: its name, and the weights and bytes of one block."""

    name: str
    weights: int
    nbytes: int


class BlockFormat(NamedTuple):
    """The format of one quantised kind: bits of a code, weights that share a scale, the function from bytes to `Codes`."""

    bits: int
    group_size: int
    unpack: Callable[[Bytes], Codes]  # [n, bytes of a block] -> Codes


def _half(block: Bytes, start: int) -> Floats:
    """The little-endian float16 at byte `start` of each block: [n, 1] float32."""
    return np.ascontiguousarray(block[:, start : start + 2]).view("<f2").astype(np.float32)


def _nibbles(packed: Bytes, run: int) -> Bytes:
    """[n, bytes] -> [n, 2 * bytes]: of each `run` bytes, the low halves and then the high halves."""
    packed = packed.reshape(len(packed), -1, run)
    out = np.empty((len(packed), packed.shape[1], 2, run), np.uint8)
    np.bitwise_and(packed, 15, out=out[:, :, 0])
    np.right_shift(packed, 4, out=out[:, :, 1])
    return out.reshape(len(packed), -1)


def _fifth_bits(packed: Bytes) -> Bytes:
    """[n, 4] -> [n, 32]: bit i of the block's 32-bit word, moved to the place of 16."""
    return np.unpackbits(np.ascontiguousarray(packed), axis=1, bitorder="little") << np.uint8(4)


def _legacy(bits: int, offset: int | None) -> Callable[[Bytes], Codes]:
    """The 32-weight formats: a half `d`, then a half `m` if codes aren't centred on `offset`, fifth bits, codes."""

    def unpack(block: Bytes) -> Codes:
        d, at = _half(block, 0), 2
        if offset is None:
            bias, at = _half(block, at), at + 2
        else:
            bias = d * np.float32(-offset)
        if bits == 8:  # the only kind with signed codes: flipping the top bit adds 128
            codes = block[:, at:] ^ np.uint8(128)
        elif bits == 5:
            codes = _nibbles(block[:, at + 4 :], 16) | _fifth_bits(block[:, at : at + 4])
        else:
            codes = _nibbles(block[:, at:], 16)
        return Codes(codes[:, None], d, bias)

    return unpack


def _six_bit_scales(packed: Bytes) -> tuple[Floats, Floats]:
    """The eight scales and eight minima, 6 bits each, in the 12 bytes of a Q4_K or Q5_K block: [n, 8] twice.

    Bytes 0-3 and 4-7 hold the first four scales and minima in their low 6 bits; bytes 8-11 hold the low halves of the
    last four of both, whose two top bits are those of bytes 0-7.
    """
    first, low = packed[:, :8], packed[:, 8:]
    high = (first >> 2) & 0x30
    scales = np.concatenate([first[:, :4] & 63, low & 15 | high[:, :4]], axis=1)
    minima = np.concatenate([first[:, 4:] & 63, low >> 4 | high[:, 4:]], axis=1)
    return scales.astype(np.float32), minima.astype(np.float32)


def _q4_k(block: Bytes) -> Codes:
    scales, minima = _six_bit_scales(block[:, 4:16])
    codes = _nibbles(block[:, 16:], 32).reshape(-1, 8, 32)
    return Codes(codes, _half(block, 0) * scales, -_half(block, 2) * minima)


def _q5_k(block: Bytes) -> Codes:
    scales, minima = _six_bit_scales(block[:, 4:16])
    shifts = np.arange(8, dtype=np.uint8)[:, None]  # bit g of byte l is the fifth bit of weight l of group g
    high = (block[:, None, 16:48] >> shifts & np.uint8(1)) << np.uint8(4)
    codes = _nibbles(block[:, 48:], 32).reshape(-1, 8, 32) | high
    return Codes(codes, _half(block, 0) * scales, -_half(block, 2) * minima)


def _q6_k(block: Bytes) -> Codes:
    shifts = np.array([0, 2, 4, 6], np.uint8)[:, None]
    high = (block[:, 128:192].reshape(-1, 2, 1, 32) >> shifts & np.uint8(3)) << np.uint8(4)  # [n, 2, 4, 32]
    codes = _nibbles(block[:, :128], 64).reshape(-1, 2, 4, 32) | high
    scales = _half(block, 208) * block[:, 192:208].view(np.int8).astype(np.float32)
    return Codes(codes.reshape(-1, 16, 16), scales, scales * np.float32(-32))


# Every kind that ggml numbers: those that can't be dequantised here still have a name and a size.
KINDS = {
    0: Kind("F32", 1, 4),
    1: Kind("F16", 1, 2),
    2: Kind("Q4_0", 32, 18),
    3: Kind("Q4_1", 32, 20),
    6: Kind("Q5_0", 32, 22),
    7: Kind("Q5_1", 32, 24),
    8: Kind("Q8_0", 32, 34),
    9: Kind("Q8_1", 32, 40),
    10: Kind("Q2_K", 256, 84),
    11: Kind("Q3_K", 256, 110),
    12: Kind("Q4_K", 256, 144),
    13: Kind("Q5_K", 256, 176),
    14: Kind("Q6_K", 256, 210),
    15: Kind("Q8_K", 256, 292),
    16: Kind("IQ2_XXS", 256, 66),
    17: Kind("IQ2_XS", 256, 74),
    18: Kind("IQ3_XXS", 256, 98),
    19: Kind("IQ1_S", 256, 50),
    20: Kind("IQ4_NL", 32, 18),
    21: Kind("IQ3_S", 256, 110),
    22: Kind("IQ2_S", 256, 82),
    23: Kind("IQ4_XS", 256, 136),
    24: Kind("I8", 1, 1),
    25: Kind("I16", 1, 2),
    26: Kind("I32", 1, 4),
    27: Kind("I64", 1, 8),
    28: Kind("F64", 1, 8),
    29: Kind("IQ1_M", 256, 56),
    30: Kind("BF16", 1, 2),
    34: Kind("TQ1_0", 256, 54),
    35: Kind("TQ2_0", 256, 66),
    39: Kind("MXFP4", 32, 17),
    40: Kind("NVFP4", 64, 36),
    41: Kind("Q1_0", 128, 18),
}
_SIZES = {kind.name: kind for kind in KINDS.values()}

FORMATS = {
    "Q4_0": BlockFormat(4, 32, _legacy(4, offset=8)),
    "Q4_1": BlockFormat(4, 32, _legacy(4, offset=None)),
    "Q5_0": BlockFormat(5, 32, _legacy(5, offset=16)),
    "Q5_1": BlockFormat(5, 32, _legacy(5, offset=None)),
    "Q8_0": BlockFormat(8, 32, _legacy(8, offset=128)),
    "Q4_K": BlockFormat(4, 32, _q4_k),
    "Q5_K": BlockFormat(5, 32, _q5_k),
    "Q6_K": BlockFormat(6, 16, _q6_k),
}
READABLE = ("F32", "F16", "BF16", *FORMATS)


def is_packable(kind: str) -> bool:
    """Whether MLX's affine mode can represent the kind exactly: its groups are of 32, 64 or 128 weights."""
    return kind in FORMATS and FORMATS[kind].group_size == 32


def _unpacked(kind: str, raw: Bytes) -> Iterator[tuple[int, int, Codes]]:
    """Slices of `raw` as (first weight, end, codes), so that little but the caller's output is allocated."""
    unpack, (_, weights, nbytes) = FORMATS[kind].unpack, _SIZES[kind]
    blocks = raw.reshape(-1, nbytes)
    step = _SLICE_WEIGHTS // weights
    for start in range(0, len(blocks), step):
        with np.errstate(all="ignore"):  # a scale may be inf or NaN; so are its weights then
            codes = unpack(blocks[start : start + step])
        yield start * weights, start * weights + codes.codes.size, codes


def dequantize(kind: str, raw: Bytes) -> Floats:
    """The weights in `raw` (bytes of whole blocks, 1-d) as 1-d float32; `kind` is any of `READABLE`."""
    if kind == "F32":
        return raw.view("<f4").astype(np.float32)
    with np.errstate(all="ignore"):
        if kind == "F16":
            return raw.view("<f2").astype(np.float32)
        if kind == "BF16":
            return np.left_shift(raw.view("<u2"), 16, dtype=np.uint32).view(np.float32)
        out = np.empty(raw.size // _SIZES[kind].nbytes * _SIZES[kind].weights, np.float32)
        for start, end, (codes, scales, biases) in _unpacked(kind, raw):
            part = out[start:end].reshape(codes.shape)
            part[...] = codes
            part *= scales[..., None]
            part += biases[..., None]
    return out


def repack(kind: str, raw: Bytes) -> tuple[npt.NDArray[np.uint32], Floats, Floats]:
    """`raw` (bytes of whole blocks, 1-d) as MLX's words, scales and biases, all 1-d; `kind` must be packable."""
    bits, group_size, _ = FORMATS[kind]
    n_weights = raw.size // _SIZES[kind].nbytes * _SIZES[kind].weights
    stream = np.empty(n_weights * bits // 8, np.uint8)
    scales, biases = np.empty((2, n_weights // group_size), np.float32)
    for start, end, part in _unpacked(kind, raw):
        stream[start * bits // 8 : end * bits // 8] = _pack(part.codes, bits)
        scales[start // group_size : end // group_size] = part.scales.reshape(-1)
        biases[start // group_size : end // group_size] = part.biases.reshape(-1)
    return stream.view("<u4"), scales, biases


def _pack(codes: Bytes, bits: int) -> Bytes:
    """Codes as one stream of `bits` each, from the low bits of the first byte on; 1-d."""
    if bits == 8:
        return codes.reshape(-1)
    if bits == 4:
        pairs = codes.reshape(-1).view("<u2")
        return (pairs | pairs >> 4).astype(np.uint8)
    eights: npt.NDArray[Any] = codes.reshape(-1, 8).view("<u8")[:, 0]  # eight codes make `bits` bytes
    stream = np.zeros_like(eights)
    for i in range(8):
        stream |= (eights >> np.uint64(8 * i) & np.uint64(255)) << np.uint64(bits * i)
    return stream[:, None].view(np.uint8)[:, :bits].reshape(-1)
