"""A decoder computed from its plan alone, in NumPy and float64: slow, plain, and independent of the blocks.

What it gives for a model's plan and weights must be the model's logits; otherwise the plan doesn't say what the blocks
do, and no engine could run it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from ..engines import AttentionPlan, DecoderPlan, LinearPlan, MLPPlan, MoEPlan, NormPlan, RouterPlan
from ..ops import RoPEPlan

Array = npt.NDArray[np.float64]

_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": lambda x: x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2))),
    "gelu_new": lambda x: x * 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "gelu_pytorch_tanh": lambda x: _ACTIVATIONS["gelu_new"](x),
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "swish": lambda x: _ACTIVATIONS["silu"](x),
}


def interpret(plan: DecoderPlan, weights: Mapping[str, mx.array], tokens: mx.array) -> Array:
    """The logits `[B, L, vocab]` of tokens `[B, L]`, without a cache.

    weights: by the plan's names, as `split_parameters(model)` gives them.
    """
    interpreter = _Interpreter(weights)
    rows = [interpreter.logits(plan, np.array(row)) for row in tokens]
    return np.stack(rows)


class _Interpreter:
    def __init__(self, weights: Mapping[str, mx.array]) -> None:
        self._weights = weights

    def logits(self, plan: DecoderPlan, tokens: npt.NDArray[Any]) -> Array:
        x = self.weight(plan.embedding)[tokens] * (plan.embedding_scale or 1.0)  # [L, hidden]
        for layer in plan.layers:
            attended = self.attention(layer.attention, self.norm(layer.before_attention, x))
            x = x + self.norm(layer.after_attention, attended)
            y = self.norm(layer.before_mlp, x)
            y = self.mlp(layer.mlp, y) if isinstance(layer.mlp, MLPPlan) else self.moe(layer.mlp, y)
            x = x + self.norm(layer.after_mlp, y)
        return _softcapped(self.linear(plan.head, self.norm(plan.norm, x)), plan.logits_softcap)

    def array(self, name: str) -> Array:
        return np.array(self._weights[name].astype(mx.float32), dtype=np.float64)

    def weight(self, plan: LinearPlan) -> Array:
        """`[outputs, inputs]`, of experts `[n, outputs, inputs]`."""
        if plan.packing is None:
            whole = self.array(f"{plan.path}.weight")
        else:
            weight, scales = (self._weights[f"{plan.path}.{part}"] for part in ("weight", "scales"))
            full = mx.dequantize(weight, scales, self._weights.get(f"{plan.path}.biases"), **plan.packing.to_dict())
            whole = np.array(full.astype(mx.float32), dtype=np.float64)
        assert whole.shape[-1] == plan.inputs
        return whole[..., plan.first_row : plan.first_row + plan.outputs, :]

    def linear(self, plan: LinearPlan, x: Array) -> Array:
        y = x @ self.weight(plan).T
        return y + self.array(f"{plan.path}.bias")[plan.first_row :][: plan.outputs] if plan.bias else y

    def norm(self, plan: NormPlan | None, x: Array) -> Array:
        if plan is None:
            return x
        weight = plan.offset + self.array(f"{plan.path}.weight")
        return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + plan.eps) * weight

    def attention(self, plan: AttentionPlan, x: Array) -> Array:
        q, k, v = (self.linear(part, x) for part in (plan.q, plan.k, plan.v))
        if plan.norms_whole:
            q, k = self.norm(plan.q_norm, q), self.norm(plan.k_norm, k)
        q, k, v = (y.reshape(len(x), -1, plan.head_dim).swapaxes(0, 1) for y in (q, k, v))  # [H or Hk, L, D]
        if not plan.norms_whole:
            q, k = self.norm(plan.q_norm, q), self.norm(plan.k_norm, k)
        q, k = _rotated(plan.rope, q), _rotated(plan.rope, k)
        k, v = (np.repeat(y, plan.n_heads // plan.n_kv_heads, axis=0) for y in (k, v))
        scores = _softcapped(q @ k.swapaxes(1, 2) * plan.scale, plan.softcap)  # [H, L, L]
        distance = np.arange(len(x))[:, None] - np.arange(len(x))
        hidden = (distance < 0) | (distance >= (plan.window or len(x)))
        out = _softmax(np.where(hidden, -np.inf, scores)) @ v
        return self.linear(plan.output, out.swapaxes(0, 1).reshape(len(x), -1))

    def mlp(self, plan: MLPPlan, x: Array) -> Array:
        return self.linear(
            plan.down, _ACTIVATIONS[plan.activation](self.linear(plan.gate, x)) * self.linear(plan.up, x)
        )

    def moe(self, plan: MoEPlan, x: Array) -> Array:
        gate, up, down = (self.weight(part) for part in (plan.experts.gate, plan.experts.up, plan.experts.down))
        activation = _ACTIVATIONS[plan.experts.activation]
        y = np.zeros_like(x) if plan.shared is None else self.mlp(plan.shared, x)
        for token, (experts, shares) in enumerate(zip(*self.route(plan.router, x), strict=True)):
            for expert, share in zip(experts - plan.first_expert, shares, strict=True):
                if 0 <= expert < len(gate):
                    h = activation(gate[expert] @ x[token]) * (up[expert] @ x[token])
                    y[token] += share * (down[expert] @ h)
        return y

    def route(self, plan: RouterPlan, x: Array) -> tuple[npt.NDArray[Any], Array]:
        """The experts of each token and their weights, `[L, K]`."""
        logits = self.linear(plan.gate, x)
        scores = _softmax(logits) if plan.scores == "softmax" else 1 / (1 + np.exp(-logits))
        biased = scores if plan.bias is None else scores + self.array(plan.bias)
        if plan.top_groups < plan.n_groups:
            groups = biased.reshape(len(x), plan.n_groups, -1)
            order = np.argsort(np.sort(groups)[..., -2:].sum(axis=-1))  # [L, groups]
            np.put_along_axis(groups, order[:, : plan.n_groups - plan.top_groups, None], -np.inf, axis=1)
            biased = groups.reshape(biased.shape)
        experts = np.argsort(-biased)[:, : plan.top_k]
        weights = np.take_along_axis(scores, experts, axis=-1)
        if plan.normalize:
            weights = weights / (weights.sum(axis=-1, keepdims=True) + plan.eps)
        return experts, weights * plan.scale


def _rotated(plan: RoPEPlan, x: Array) -> Array:
    """Heads `[H, L, D]` at the positions 0 to L - 1."""
    frequencies, length = np.array(plan.inverse_frequencies), x.shape[1]
    longer = plan.longer
    if longer is not None and length > longer.positions:
        if longer.inverse_frequencies is not None:
            frequencies = np.array(longer.inverse_frequencies)
        else:
            stretch = longer.factor * length / longer.positions - (longer.factor - 1)
            base = longer.base * stretch ** (plan.dims / (plan.dims - 2))
            frequencies = base ** (-np.arange(0, plan.dims, 2) / plan.dims)
    angles = np.arange(length)[:, None] * frequencies  # [L, dims / 2]
    half, step = (1, 2) if plan.traditional else (plan.dims // 2, 1)
    first = slice(0, plan.dims - 1 if plan.traditional else half, step)
    second = slice(half, plan.dims, step)
    a, b, rotated = x[..., first], x[..., second], x.copy()
    rotated[..., first] = (a * np.cos(angles) - b * np.sin(angles)) * plan.attention_factor
    rotated[..., second] = (a * np.sin(angles) + b * np.cos(angles)) * plan.attention_factor
    return rotated


def _softmax(x: Array) -> Array:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


def _softcapped(x: Array, softcap: float | None) -> Array:
    return x if softcap is None else np.tanh(x / softcap) * softcap
