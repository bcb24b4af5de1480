"""Connectionist temporal classification: labels out of frames, and where in the frames labels are.

Paper: Graves et al. 2006. `T` frames, `L` labels, `V` vocabulary.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mlx_core.errors import InputError


def collapse(best: npt.NDArray[np.integer], blank: int = 0) -> list[int]:
    """The labels that frames `[T]` spell: repeats, then blanks removed."""
    if best.size == 0:
        return []
    kept = best[np.concatenate([[True], best[1:] != best[:-1]])]
    return [int(label) for label in kept if label != blank]


def align(scores: npt.NDArray[np.floating], labels: npt.ArrayLike, blank: int = 0) -> npt.NDArray[np.int64]:
    """The label of each frame, or blank, on the likeliest path that spells `labels`: log probabilities `[T, V]`,
    `[L]` -> `[T]`.

    Viterbi's algorithm over blank, label, blank, label ..., blank. Raises InputError for labels outside the vocabulary,
    and for more than the frames have room for.
    """
    wanted = np.asarray(labels, dtype=np.int64).reshape(-1)
    frames, vocabulary = scores.shape
    if wanted.size and (wanted.min() < 0 or wanted.max() >= vocabulary or (wanted == blank).any()):
        raise InputError(
            f"labels must be from 0 to {vocabulary - 1}, and not the blank {blank}; found {labels!r:.100}."
        )
    repeats = int((wanted[1:] == wanted[:-1]).sum())
    if wanted.size + repeats > frames:
        raise InputError(
            f"{wanted.size} labels, {repeats} of them repeated, need {wanted.size + repeats} frames; found {frames}."
        )
    if frames == 0:
        return np.zeros(0, np.int64)
    states = np.full(2 * wanted.size + 1, blank)
    states[1::2] = wanted
    leaps = np.zeros(states.size, bool)  # over the blank between two labels that differ
    leaps[3::2] = wanted[1:] != wanted[:-1]
    emitted = scores[:, states]  # [T, 2 L + 1]
    best = np.full(states.size + 2, -np.inf, scores.dtype)  # two states before the first, that nothing comes from
    best[2 : 2 + min(2, states.size)] = emitted[0, :2]
    steps = np.zeros((frames, states.size), np.int64)
    for t in range(1, frames):
        came = np.stack([best[2:], best[1:-1], np.where(leaps, best[:-2], -np.inf)])
        steps[t] = came.argmax(axis=0)
        best[2:] = emitted[t] + came.max(axis=0)
    state = states.size - 1
    if wanted.size and best[-2] >= best[-1]:
        state -= 1
    path = np.empty(frames, np.int64)
    for t in range(frames - 1, -1, -1):
        path[t] = state
        state -= steps[t, state]
    return states[path]
