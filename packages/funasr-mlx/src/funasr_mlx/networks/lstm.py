"""A long short-term memory, in NumPy: its steps wait for one another, and are too small for MLX's graph.

Parameters have torch's names and gates' order (i, f, g, o). Paper: Hochreiter & Schmidhuber 1997. Reference: torch
2.13, `nn.LSTM`. `B` batch, `T` steps, `D` width of the input, `H` of the state.
"""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import numpy.typing as npt

_FEW_ROWS = 6

_Floats = npt.NDArray[np.float32]


class LSTM(nn.Module):
    """`[B, T, D] -> [B, T, H]`, or `[B, T, 2 H]` in both directions. Not differentiable."""

    def __init__(self, inputs: int, hidden: int, *, layers: int = 1, bidirectional: bool = False) -> None:
        super().__init__()
        directions = ("", "_reverse") if bidirectional else ("",)
        self._layers = [[f"_l{layer}{direction}" for direction in directions] for layer in range(layers)]
        for suffixes in self._layers:
            for suffix in suffixes:
                self["weight_ih" + suffix] = mx.zeros((4 * hidden, inputs))
                self["weight_hh" + suffix] = mx.zeros((4 * hidden, hidden))
                self["bias_ih" + suffix] = mx.zeros((4 * hidden,))
                self["bias_hh" + suffix] = mx.zeros((4 * hidden,))
            inputs = hidden * len(directions)

    def __call__(self, x: mx.array, lengths: npt.NDArray[np.integer]) -> mx.array:
        """Row b has `lengths[b]` steps; steps beyond them have no influence, and no meaning in the output."""
        if 0 in x.shape:
            hidden = self["weight_hh" + self._layers[0][0]].shape[1]
            return mx.zeros((*x.shape[:2], hidden * len(self._layers[0])), dtype=x.dtype)
        dtype, order = x.dtype, _reversal(x.shape[1], lengths)
        for suffixes in self._layers:
            x = self._layer(x, suffixes, order)
        return x.astype(dtype)

    def _layer(self, x: mx.array, suffixes: list[str], order: npt.NDArray[np.intp]) -> mx.array:
        states = []
        for suffix in suffixes:
            projected = x @ self["weight_ih" + suffix].T + (self["bias_ih" + suffix] + self["bias_hh" + suffix])
            inputs = np.array(projected.astype(mx.float32))  # [B, T, 4 H]
            weights = np.array(self["weight_hh" + suffix].astype(mx.float32)).T
            if suffix.endswith("_reverse"):
                there = _run(np.take_along_axis(inputs, order[..., None], axis=1), weights)
                states.append(np.take_along_axis(there, order[..., None], axis=1))
            else:
                states.append(_run(inputs, weights))
        return mx.array(np.concatenate(states, axis=-1))


def _reversal(steps: int, lengths: npt.NDArray[np.integer]) -> npt.NDArray[np.intp]:
    """For each row the places of its steps from last to first, those beyond its length as they are: `[B, T]`."""
    place = np.arange(steps)
    return np.where(place < lengths[:, None], lengths[:, None] - 1 - place, place).astype(np.intp)


def _run(inputs: _Floats, weights: _Floats) -> _Floats:
    """Inputs `[B, T, 4 H]`, weights `[H, 4 H]` -> states `[B, T, H]`."""
    B, T, gates = inputs.shape
    H = gates // 4
    # sigmoid(x) = (1 + tanh(x / 2)) / 2: so one tanh serves all the gates
    scale = np.full(gates, 0.5, np.float32)
    scale[2 * H : 3 * H] = 1
    steps = np.ascontiguousarray(inputs.transpose(1, 0, 2)) * scale  # [T, B, 4 H]
    weights = np.ascontiguousarray(weights * scale)
    h = np.zeros((B, H), np.float32)
    c = np.zeros_like(h)
    gate = np.empty((B, gates), np.float32)
    i, f, g, o = (gate[:, n * H : (n + 1) * H] for n in range(4))
    states = np.empty((T, B, H), np.float32)
    # BLAS packs the whole matrix for a product of a few rows: row by row is faster then, though each reads it all
    rows = range(B) if B < _FEW_ROWS else [slice(None)]
    for step, state in zip(steps, states, strict=True):
        for row in rows:
            np.dot(h[row], weights, out=gate[row])
        gate += step
        np.tanh(gate, out=gate)
        c = 0.5 * ((f + 1) * c + (i + 1) * g)
        np.multiply(0.5 * (o + 1), np.tanh(c), out=state)
        h = state
    return states.transpose(1, 0, 2)
