"""Packed keys and values, as quantised caches hand them to attention."""

from __future__ import annotations

from typing import NamedTuple

import mlx.core as mx


class Packed(NamedTuple):
    """An array `[..., D]` as `mx.quantize` packs it: `weight` `[..., D * bits / 32]` uint32, `scales` and `biases`
    `[..., D / group_size]`.
    """

    weight: mx.array
    scales: mx.array
    biases: mx.array


class HadamardPacked(Packed):
    """Packed vectors after `hadamard_transform`; products with vectors transformed alike are the same."""

    __slots__ = ()


MaybePacked = mx.array | Packed


def hadamard_transform(vectors: mx.array) -> mx.array:
    """Vectors `[..., D]` times the symmetric, orthogonal Hadamard matrix, which undoes itself; D is a power of 2.

    It spreads a few large numbers over all of them, so that a group's scale is no longer made for the largest alone
    (Ashkboos et al. 2024, https://arxiv.org/abs/2404.00456).
    """
    return mx.hadamard_transform(vectors, scale=vectors.shape[-1] ** -0.5)


def has_hadamard(head_dim: int) -> bool:
    """Whether `hadamard_transform` takes this width. MLX has other sizes too, but not symmetric ones."""
    return head_dim & (head_dim - 1) == 0
