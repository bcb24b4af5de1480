"""Samples as the functions of this folder take them, and checks of them."""

from __future__ import annotations

from typing import TypeAlias

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from ..errors import AudioError

Samples: TypeAlias = npt.NDArray[np.float32]
AnySamples: TypeAlias = npt.ArrayLike | mx.array

MAX_RATE = 2**24
"""Hz: beyond what any converter does, and low enough for every product of two rates to be small."""


def as_samples(samples: AnySamples) -> Samples:
    """Floats of any precision, NumPy's, MLX's or lists, as float32, not copied where they are that already; AudioError
    for integers (whose full scale nobody could know), NaN and infinity.
    """
    if isinstance(samples, mx.array):
        samples = np.asarray(samples.astype(mx.float32) if mx.issubdtype(samples.dtype, mx.floating) else samples)
    try:
        array = np.asarray(samples)
    except ValueError as error:
        raise AudioError(f"samples must be an array of floats: {error}.") from error
    if array.dtype.kind != "f":
        raise AudioError(
            f"samples must be floats between -1 and 1, found {array.dtype}. Divide integers by their full scale: "
            "32768 for 16 bits."
        )
    with np.errstate(over="ignore"):
        array = array.astype(np.float32, copy=False)
    check_finite(array)
    return array


def to_mono(frames: Samples) -> Samples:
    """`[samples, channels]` -> `[samples]`, the mean of the channels."""
    channels = frames.shape[1]
    mono: Samples = frames @ np.full(
        channels, 1 / channels, np.float32
    )  # many times as fast as a mean over a short axis
    return mono


def check_finite(samples: Samples, name: str = "samples") -> None:
    """AudioError if there is NaN or infinity; `name` is what the message calls the samples."""
    bad = samples.size - np.count_nonzero(np.isfinite(samples))
    if bad:
        raise AudioError(f"{name}: {bad} of {samples.size} samples are NaN or infinite. They must be finite numbers.")


def check_rate(rate: int, name: str = "the sample rate") -> None:
    """AudioError unless `rate` is a number of Hz that makes sense."""
    if isinstance(rate, bool) or not isinstance(rate, (int, np.integer)) or not 0 < rate <= MAX_RATE:
        raise AudioError(f"{name} must be a whole number of Hz from 1 to {MAX_RATE}, found {rate!r}.")


def quietest_place(samples: Samples, window: int) -> int:
    """Where samples `[S]` are best cut: the middle of the `window` samples in a row, 1 to S, with the least energy."""
    sums = np.concatenate([[0.0], np.cumsum(np.square(samples.astype(np.float64)))])
    return int(np.argmin(sums[window:] - sums[:-window])) + window // 2
