"""Routed expert layers: each token's few experts, gathered out of one stacked weight per projection.

Shapes: `T` tokens, `K` experts per token, `E` experts, weights `[E, out, in]`.
"""

from __future__ import annotations

import re
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from .. import engines
from ..errors import ConfigError, WeightsError
from .layers import gated, known_activation
from .projections import FusedProjections, linear_plan, planned

# From this many routed rows on, sorting them by expert pays: each expert's weight is then read once.
SORT_FROM = 64


@planned
class ExpertLinear(nn.Module):
    """One linear layer per expert, without bias."""

    def __init__(self, num_experts: int, input_dims: int, output_dims: int) -> None:
        super().__init__()
        bound = input_dims**-0.5
        self.weight = mx.random.uniform(-bound, bound, (num_experts, output_dims, input_dims))

    def __call__(self, x: mx.array, experts: mx.array, sorted_indices: bool = False) -> mx.array:
        """x: `[..., 1, in]` whose leading dimensions broadcast against `experts` `[...]`; returns `[..., 1, out]`."""
        return mx.gather_mm(x, self.weight.swapaxes(-1, -2), rhs_indices=experts, sorted_indices=sorted_indices)

    def to_quantized(
        self, group_size: int | None = None, bits: int | None = None, mode: str = "affine", **_: Any
    ) -> QuantizedExpertLinear:
        return QuantizedExpertLinear(self.weight, group_size, bits, mode)


@planned
class QuantizedExpertLinear(nn.Module):
    """An ExpertLinear whose weights are packed."""

    def __init__(self, weight: mx.array, group_size: int | None, bits: int | None, mode: str) -> None:
        super().__init__()
        self.group_size, self.bits, self.mode = group_size, bits, mode
        self.weight, self.scales, *biases = mx.quantize(weight, group_size, bits, mode=mode)
        if biases:
            self.biases = biases[0]
        self.freeze()

    def __call__(self, x: mx.array, experts: mx.array, sorted_indices: bool = False) -> mx.array:
        return mx.gather_qmm(
            x,
            self.weight,
            self.scales,
            self.get("biases"),
            rhs_indices=experts,
            transpose=True,
            group_size=self.group_size,
            bits=self.bits,
            mode=self.mode,
            sorted_indices=sorted_indices,
        )


class RoutedExperts(FusedProjections):
    """The gated MLPs of E experts, each token through its K of them.

    `local_experts`: the experts whose weights are here, all by default. The others give zeros, so what processes that hold
    ranges of the experts give adds up to the whole.
    """

    fused_name = "gate_up_proj"
    part_names = ("gate_proj", "up_proj")

    def __init__(
        self,
        num_experts: int,
        hidden_size: int,
        intermediate_size: int,
        *,
        activation: str = "silu",
        local_experts: range | None = None,
    ) -> None:
        super().__init__()
        self.activation = known_activation(activation)
        self.num_experts = num_experts
        self.local_experts = _local_experts(num_experts, local_experts)
        self.all_local = len(self.local_experts) == num_experts
        self.gate_proj = ExpertLinear(len(self.local_experts), hidden_size, intermediate_size)
        self.up_proj = ExpertLinear(len(self.local_experts), hidden_size, intermediate_size)
        self.down_proj = ExpertLinear(len(self.local_experts), intermediate_size, hidden_size)

    def __call__(self, x: mx.array, experts: mx.array) -> mx.array:
        """x: `[..., hidden]`; experts: indices `[..., K]`. Returns each expert's output, `[..., K, hidden]`."""
        if self.all_local:
            return self._dispatch(x, experts)
        here = (experts >= self.local_experts.start) & (experts < self.local_experts.stop)
        out = self._dispatch(x, mx.where(here, experts - self.local_experts.start, 0))
        return mx.where(here[..., None], out, mx.zeros_like(out))

    def plan(self, path: str) -> engines.MLPPlan:
        """The experts that are here as data; `path` is their place in the model."""
        shard = engines.Shard("experts")
        gate, up = self.part_plans(path, shard)
        return engines.MLPPlan(gate, up, linear_plan(self.down_proj, f"{path}.down_proj", shard), self.activation)

    def _dispatch(self, x: mx.array, experts: mx.array) -> mx.array:
        *leading, hidden = x.shape
        k = experts.shape[-1]
        x, experts = x.reshape(-1, 1, hidden), experts.reshape(-1, k)  # [T, 1, hidden], [T, K]
        if experts.size < SORT_FROM:
            out = self._experts(x[:, None], experts, sorted_indices=False)  # [T, K, 1, hidden]
        else:
            flat = experts.flatten()
            order = mx.argsort(flat)
            out = self._experts(x[order // k], flat[order], sorted_indices=True)  # [T K, 1, hidden]
            out = out[mx.argsort(order)]
        return out.reshape(*leading, k, hidden)

    def _experts(self, x: mx.array, experts: mx.array, sorted_indices: bool) -> mx.array:
        if self.fused:
            gate, up = mx.split(self.gate_up_proj(x, experts, sorted_indices), 2, axis=-1)
        else:
            gate, up = (part(x, experts, sorted_indices) for part in self.parts)
        return self.down_proj(gated(self.activation, gate, up), experts, sorted_indices)


def _local_experts(num_experts: int, local_experts: range | None) -> range:
    """The experts whose weights are here. Raises ConfigError for a range that isn't one of theirs."""
    if local_experts is None:
        return range(num_experts)
    if local_experts.step != 1 or not 0 <= local_experts.start < local_experts.stop <= num_experts:
        raise ConfigError(
            f"local_experts must be a range within the {num_experts} experts, without steps; got {local_experts}."
        )
    return local_experts


class SparseMoE(nn.Module):
    """Each token through its best experts, weighted by the router.

    `gate` gives the chosen experts and their weights, `[..., K]` each; a block whose gate gives something else
    overrides `route`.
    """

    def __init__(self, gate: nn.Module, experts: RoutedExperts) -> None:
        super().__init__()
        self.gate = gate
        self.switch_mlp = experts

    def route(self, x: mx.array) -> tuple[mx.array, mx.array]:
        """x: `[..., hidden]`; returns the experts and their weights (fp32), `[..., K]` each."""
        return self.gate(x)

    def __call__(self, x: mx.array) -> mx.array:
        """x: `[..., hidden]`; returns `[..., hidden]`."""
        experts, weights = self.route(x)
        return (self.switch_mlp(x, experts) * weights[..., None]).sum(axis=-2).astype(x.dtype)

    def plan(self, path: str) -> engines.MoEPlan:
        """The layer as data; `path` is its place in the model. A block that overrides `route` overrides this too."""
        return self._plan(path, engines.describe(self.gate, f"{path}.gate", engines.RouterPlan))

    def _plan(self, path: str, router: engines.RouterPlan) -> engines.MoEPlan:
        experts = self.switch_mlp
        mlps = engines.describe(experts, f"{path}.switch_mlp", engines.MLPPlan)
        return engines.MoEPlan(router, experts.num_experts, mlps, experts.local_experts.start)


class SoftmaxMoE(SparseMoE):
    """A SparseMoE whose gate is a linear layer: the `top_k` best by its logits, weighted by their softmax.

    With `normalize` the softmax is over the chosen, whose weights so add up to 1; else it is over all experts.
    """

    def __init__(
        self,
        num_experts: int,
        hidden_size: int,
        intermediate_size: int,
        *,
        top_k: int,
        normalize: bool,
        activation: str = "silu",
        local_experts: range | None = None,
    ) -> None:
        gate = nn.Linear(hidden_size, num_experts, bias=False)
        experts = RoutedExperts(
            num_experts, hidden_size, intermediate_size, activation=activation, local_experts=local_experts
        )
        super().__init__(gate, experts)
        self.top_k = top_k
        self.normalize = normalize

    def route(self, x: mx.array) -> tuple[mx.array, mx.array]:
        logits = self.gate(x).astype(mx.float32)  # [..., E]
        experts = top_k_indices(logits, self.top_k)
        chosen = mx.take_along_axis(logits, experts, axis=-1)  # [..., K]
        if self.normalize:
            return experts, mx.softmax(chosen, axis=-1)
        return experts, mx.exp(chosen - mx.logsumexp(logits, axis=-1, keepdims=True))

    def plan(self, path: str) -> engines.MoEPlan:
        return self._plan(
            path, engines.RouterPlan(linear_plan(self.gate, f"{path}.gate"), "softmax", self.top_k, self.normalize)
        )


def top_k_indices(scores: mx.array, count: int) -> mx.array:
    """Indices of the `count` largest along the last axis, in no order: `[..., n]` -> `[..., count]`."""
    return mx.argpartition(-scores, kth=count - 1, axis=-1)[..., :count]


_EXPERT = re.compile(r"(?P<block>.+)\.experts\.(?P<expert>\d+)\.(?P<part>\w+)\.(?P<key>weight|scales|biases)")
_FUSED = re.compile(r"(?P<block>.+)\.experts\.(?P<part>gate_up_proj|down_proj)(\.(?P<key>weight|scales|biases))?")


def stack_experts(
    weights: dict[str, mx.array],
    num_experts: int,
    part_names: dict[str, str] | None = None,
    *,
    local_experts: range | None = None,
) -> dict[str, mx.array]:
    """Every layout that checkpoints keep experts in -> `{block}.switch_mlp.{gate,up,down}_proj.{weight,scales,biases}`.

    Reads one tensor per expert (`{block}.experts.E.gate_proj.weight`), transformers 5's fused
    `{block}.experts.gate_up_proj` `[E, 2 I, hidden]` and `down_proj`, and what is stacked already. `part_names`
    translates names of projections (w1 -> gate_proj). Layers may differ: each is taken as it comes. `local_experts`: the experts
    to keep, all by default. Raises WeightsError naming an expert that is missing. Lazy.
    """
    local_experts = _local_experts(num_experts, local_experts)

    def keep(stacked: mx.array) -> mx.array:
        return stacked if len(local_experts) == num_experts else stacked[local_experts.start : local_experts.stop]

    result: dict[str, mx.array] = {}
    parts: dict[str, dict[int, mx.array]] = {}
    for name, value in weights.items():
        if match := _EXPERT.fullmatch(name):
            part = (part_names or {}).get(match["part"], match["part"])
            target = f"{match['block']}.switch_mlp.{part}.{match['key']}"
            parts.setdefault(target, {})[int(match["expert"])] = value
        elif match := _FUSED.fullmatch(name):
            key = match["key"] or "weight"
            prefix = f"{match['block']}.switch_mlp"
            if value.ndim != 3 or (match["part"] == "gate_up_proj" and value.shape[1] % 2):
                raise WeightsError(
                    f"{name} has shape {tuple(value.shape)}; expected [experts, out, in], gate as tall as up."
                )
            if match["part"] == "down_proj":
                result[f"{prefix}.down_proj.{key}"] = keep(value)
            else:
                gate, up = mx.split(keep(value), 2, axis=-2)
                result[f"{prefix}.gate_proj.{key}"], result[f"{prefix}.up_proj.{key}"] = gate, up
        else:
            result[name] = keep(value) if ".switch_mlp." in name else value
    for target, by_expert in parts.items():
        if len(by_expert) != num_experts or max(by_expert) >= num_experts:
            missing = next((expert for expert in range(num_experts) if expert not in by_expert), None)
            raise WeightsError(
                f"{target.replace('.switch_mlp.', '.experts.*.')}: the configuration has {num_experts} experts, the checkpoint "
                f"{len(by_expert)}" + ("." if missing is None else f" (expert {missing} is missing).")
            )
        if target in result:
            raise WeightsError(f"the checkpoint has the experts of {target} twice: one by one, and stacked.")
        if len(shapes := {tuple(value.shape) for value in by_expert.values()}) > 1:
            raise WeightsError(f"the experts of {target} have different shapes: {sorted(shapes)}.")
        result[target] = mx.stack([by_expert[expert] for expert in local_experts])
    return result
