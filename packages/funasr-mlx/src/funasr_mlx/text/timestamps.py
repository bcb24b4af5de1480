"""Timestamps of tokens, from the places where the predictor fires.

Reference: FunASR 1.4.16, `utils/timestamp_tools.py` (`ts_prediction_lfr6_standard`): a token lasts from one fire to the
next, and at most 240 ms; what is left over is silence.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .detokenize import Times

_FIRED = 1.0 - 1e-4
_SHIFT = -1.5  # steps by which fires come late
_EDGE_STEPS = 5  # a shorter silence at the ends belongs to the token beside it
_MAX_STEPS = 12

Floats = npt.NDArray[np.float32]


def token_times(alphas: Floats, peaks: Floats, count: int, step_ms: float) -> list[Times]:
    """Start and end of `count` tokens in whole milliseconds, from weights and peaks `[T]` of steps of `step_ms`.

    Where the peaks aren't one more than the tokens, they are made anew from the weights, scaled so that they are.
    """
    if count == 0 or not len(peaks):
        return []
    fires = np.flatnonzero(peaks >= _FIRED)
    if len(fires) != count + 1:
        peaks = _integrated(alphas / (alphas.sum() / (count + 1)))
        fires = np.flatnonzero(peaks >= _FIRED)
    if not len(fires):
        return []
    places = fires + _SHIFT
    step_s = step_ms / 1000
    spans = [[places[i] * step_s, places[i + 1] * step_s] for i in range(min(count, len(places) - 1))]
    cut = [places[i + 1] - places[i] > _MAX_STEPS for i in range(len(spans))]
    for i, long in enumerate(cut):
        if long:
            spans[i][1] = (places[i] + _MAX_STEPS) * step_s
    length, last = len(peaks), places[-1]
    if spans and not cut[-1]:  # after a cut the silence takes what is left
        spans[-1][1] = (length + last) * 0.5 * step_s if length - last > _EDGE_STEPS else length * step_s
    return [(int(start * 1000), int(end * 1000)) for start, end in spans]


def _integrated(alphas: Floats) -> Floats:
    """The running sum, which loses a whole where it reaches one; in float32, as the reference, since fires lie near
    the edge.
    """
    total, result = np.float32(0), []
    whole = np.float32(_FIRED)
    for alpha in alphas.astype(np.float32):
        total = np.float32(total + alpha)
        result.append(total)
        if total >= whole:
            total = np.float32(total - whole)
    return np.array(result, np.float32)
