"""Storages of tokens: as they come, or packed.

Either way a cache keeps planes, arrays `[B, n_kv_heads, tokens, ...]` whose third axis counts tokens, so that the kinds
of cache slice, join and overwrite tokens without knowing what they look like inside.
"""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx

from ..config import LayerQuantization
from ..errors import CacheError, ConfigError
from ..ops import HadamardPacked, MaybePacked, Packed, hadamard_transform, has_hadamard

Planes = tuple[mx.array, ...]


class Storage:
    """Tokens as they come: the planes are keys and values."""

    names: tuple[str, ...] = ("keys", "values")

    @property
    def meta(self) -> tuple[str, ...]:
        """The storage's settings, as strings."""
        return ()

    def pack(self, keys: mx.array, values: mx.array) -> Planes:
        """`[B, Hk, L, D]` each, to planes."""
        return keys, values

    def unpack(self, planes: Planes) -> tuple[MaybePacked, MaybePacked]:
        """Planes to what `scaled_dot_product_attention` takes."""
        keys, values = planes
        return keys, values

    def shapes(self, planes: Planes) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The shapes of the keys and values that the planes hold."""
        return planes[0].shape, planes[1].shape

    def check(self, kind: str, state: Sequence[mx.array]) -> Planes:
        """The planes of a saved state; CacheError unless they are of one length and shape."""
        if len(state) != len(self.names):
            raise CacheError(
                f"the state of a {kind} is ({', '.join(self.names)}), or () when empty; got {len(state)} arrays."
            )
        for name, array in zip(self.names, state, strict=True):
            if array.ndim != 4 or array.size == 0 or array.shape[:3] != state[0].shape[:3]:
                raise CacheError(
                    f"the {self.names[0]} of a {kind} are [B, n_kv_heads, L, head_dim], and every other array agrees with "
                    f"them in the first three; got {name} of shape {tuple(array.shape)} beside {tuple(state[0].shape)}."
                )
        self._check_contents(kind, state)
        return tuple(state)

    def _check_contents(self, kind: str, state: Sequence[mx.array]) -> None:
        if not all(mx.issubdtype(array.dtype, mx.floating) for array in state):
            raise CacheError(f"a {kind} holds floating-point numbers; got {', '.join(str(a.dtype) for a in state)}.")


class PackedStorage(Storage):
    """Tokens quantised one by one (affine), in `bits` and groups of `group_size` along head_dim.

    `hadamard`: keys and values whose head_dim is a power of 2 are Hadamard-transformed first (see `hadamard_transform`).
    """

    names = tuple(f"{held} {part}" for held in ("keys", "values") for part in ("weight", "scales", "biases"))

    def __init__(self, bits: int, group_size: int, hadamard: bool = False) -> None:
        self.hadamard = hadamard
        try:
            self.packing = LayerQuantization(group_size, bits)
        except ConfigError as error:
            raise CacheError(f"a quantised cache: {error}") from error

    @property
    def meta(self) -> tuple[str, ...]:
        """`bits`, `group_size` and `hadamard`, 0 or 1."""
        return str(self.bits), str(self.group_size), str(int(self.hadamard))

    @property
    def bits(self) -> int:
        return self.packing.bits

    @property
    def group_size(self) -> int:
        return self.packing.group_size

    def pack(self, keys: mx.array, values: mx.array) -> Planes:
        for name, array in (("keys", keys), ("values", values)):
            if array.shape[-1] % self.group_size or not mx.issubdtype(array.dtype, mx.floating):
                raise CacheError(
                    f"{name} of shape {tuple(array.shape)} and dtype {array.dtype} can't be packed: head_dim must be a "
                    f"multiple of group_size, {self.group_size}, and the dtype floating. Use another group_size, or a "
                    "cache that isn't quantised."
                )
        keys, values = (
            hadamard_transform(array) if self._transforms(array.shape[-1]) else array for array in (keys, values)
        )
        return (*mx.quantize(keys, self.group_size, self.bits), *mx.quantize(values, self.group_size, self.bits))

    def _transforms(self, head_dim: int) -> bool:
        return self.hadamard and has_hadamard(head_dim)

    def unpack(self, planes: Planes) -> tuple[MaybePacked, MaybePacked]:
        keys, values = (
            (HadamardPacked if self._transforms(shape[3]) else Packed)(*planes[first : first + 3])
            for first, shape in zip((0, 3), self.shapes(planes), strict=True)
        )
        return keys, values

    def shapes(self, planes: Planes) -> tuple[tuple[int, ...], tuple[int, ...]]:
        keys, values = ((*p.shape[:3], p.shape[3] * 32 // self.bits) for p in (planes[0], planes[3]))
        return keys, values

    def _check_contents(self, kind: str, state: Sequence[mx.array]) -> None:
        planes = tuple(state)
        for shape, weight, scales, biases in zip(
            self.shapes(planes), planes[::3], planes[1::3], planes[2::3], strict=True
        ):
            fits = (
                weight.dtype == mx.uint32
                and mx.issubdtype(scales.dtype, mx.floating)
                and scales.dtype == biases.dtype
                and weight.shape[3] * 32 % self.bits == 0
                and shape[3] == scales.shape[3] * self.group_size == biases.shape[3] * self.group_size
            )
            if not fits:
                raise CacheError(
                    f"the state of a {kind} isn't packed in {self.bits} bits and groups of {self.group_size}: it has "
                    f"weights {weight.dtype} {tuple(weight.shape)}, scales {scales.dtype} {tuple(scales.shape)} and "
                    f"biases {biases.dtype} {tuple(biases.shape)}."
                )


PLAIN = Storage()


def window(planes: Planes, start: int, stop: int) -> Planes:
    """The tokens from `start` to `stop`."""
    return tuple(plane[:, :, start:stop] for plane in planes)


def join(*parts: Planes) -> Planes:
    """The tokens of each part, one after the other."""
    return tuple(mx.concatenate(list(planes), axis=2) for planes in zip(*parts, strict=True))


def alias(planes: Planes) -> Planes:
    """Other handles on the same data: writing to a slice of one doesn't change the other."""
    return tuple(mx.array(plane) for plane in planes)


def grown(held: Planes | None, new: Planes, used: int, needed: int, step: int) -> Planes:
    """Handles on the planes with room for `needed` tokens, grown by a multiple of `step` beyond the `used` ones.

    Handles of their own, so that the cache changes only when it takes the result; MLX still writes into the old
    buffers, once nothing else refers to them.
    """
    if held is None:
        return tuple(_grown(None, plane, used, needed, step) for plane in new)
    return tuple(_grown(old, plane, used, needed, step) for old, plane in zip(held, new, strict=True))


def _grown(held: mx.array | None, new: mx.array, used: int, needed: int, step: int) -> mx.array:
    dtype = new.dtype if held is None else mx.result_type(held, new)
    if held is not None and held.shape[2] >= needed:
        return mx.array(held) if held.dtype == dtype else held.astype(dtype)
    batch, heads, _, width = new.shape
    room = -(-(needed - used) // step) * step
    empty = mx.zeros((batch, heads, room, width), dtype)
    if held is None or used == 0:
        return empty
    return mx.concatenate([held[:, :, :used].astype(dtype), empty], axis=2)


def write(planes: Planes, new: Planes, start: int) -> Planes:
    """`planes`, overwritten in place by the tokens of `new` from `start` on."""
    for plane, tokens in zip(planes, new, strict=True):
        plane[:, :, start : start + tokens.shape[2]] = tokens
    return planes
