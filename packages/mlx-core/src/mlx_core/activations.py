"""GELU, also where MLX's own is slow."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from . import backend

# Phi(x) = 1 / 2 + x p(x^2) / q(x^2) where |x| < 5.6, fitted to 3e-8 of gelu's; beyond, it is 0 or 1.
_BORDER = 5.6
_P = (0.39894190099, 0.035847223302, 0.0048054250014, 1.9015575033e-4, 6.5905826786e-6, 2.1710560621e-8)
_Q = (1.0, 0.25651840771, 0.029803982689, 0.0020033572222, 8.1011143296e-5, 1.1851530558e-6)
_BLOCK = 2**16  # numbers whose intermediate results stay in a core's cache


def gelu(x: mx.array) -> mx.array:
    """The Gaussian error linear unit x Phi(x), exact within 2e-6 (Hendrycks & Gimpel 2016).

    On Linux CPUs, whose erf is scalar code, as a ratio of polynomials, which the compiler turned into vectors; block by
    block, since memory would be slower than the processor.
    """
    if not backend.current().fast_gelu or x.dtype != mx.float32 or x.size == 0:
        return nn.gelu(x)
    flat = x.reshape(-1)
    parts = [_ratio(flat[start : start + _BLOCK]) for start in range(0, flat.size, _BLOCK)]
    return (mx.concatenate(parts) if len(parts) > 1 else parts[0]).reshape(x.shape)


def _ratio(x: mx.array) -> mx.array:
    near = mx.minimum(mx.abs(x), _BORDER)
    square = near * near
    # relu(x) less what |x| has of it: so no error grows with x
    return mx.maximum(x, 0) - near * (0.5 - near * (_polynomial(_P, square) / _polynomial(_Q, square)))


def _polynomial(coefficients: tuple[float, ...], x: mx.array) -> mx.array:
    value = x * coefficients[-1] + coefficients[-2]
    for coefficient in coefficients[-3::-1]:
        value = value * x + coefficient
    return value
