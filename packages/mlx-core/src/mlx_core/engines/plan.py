"""A decoder as data: what engines execute, what sharding divides, what a test can rebuild.

The blocks describe themselves (`CausalLM.plan()`); nobody writes a plan by hand. It names parameters as the model's
`split_parameters` does, so a plan and those arrays are all of the model.

One layer of `DecoderPlan`, x `[B, L, hidden]`; norms that are None are left out:

    x = x + after_attention(attention(before_attention(x)))
    x = x + after_mlp(mlp(before_mlp(x)))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeVar, overload

from ..config import LayerQuantization
from ..errors import EngineError
from ..ops import RoPEPlan


@dataclass(frozen=True)
class Shard:
    """How a weight divides over devices: by its outputs (all-to-sharded, in MLX's terms), by its inputs
    (sharded-to-all), or by experts. `unit` rows, columns or experts stay together: heads, and the groups in which inputs
    are packed.
    """

    by: Literal["outputs", "inputs", "experts"]
    unit: int = 1


@dataclass(frozen=True)
class LinearPlan:
    """x @ weight[first_row : first_row + outputs].T, plus the bias's same rows where there is one.

    `path`: of the layer, whose parameters are `path.weight` and, with `bias`, `path.bias`; with `packing` the weight is as
    `mx.quantize` packs it, beside `path.scales` and (affine) `path.biases`. Experts' weights have one more axis, before
    the others. `shard`: None for what every device has whole.
    """

    path: str
    inputs: int
    outputs: int
    first_row: int = 0
    bias: bool = False
    packing: LayerQuantization | None = None
    shard: Shard | None = None


@dataclass(frozen=True)
class NormPlan:
    """x / sqrt(mean(x^2) + eps) * (offset + weight), over the last axis, in fp32.

    `shard`: of the weight, where what is normed is divided over devices; the mean is over all of them.
    """

    path: str
    eps: float
    offset: float = 0.0
    shard: Shard | None = None


@dataclass(frozen=True)
class AttentionPlan:
    """Grouped-query attention: the options of `models.Attention`.

    `q_norm` and `k_norm` norm each head, or with `norms_whole` all heads of a token at once, before RoPE. `window`: the
    keys that a token sees, itself included. With `softcap` scores become softcap * tanh(scores / softcap).
    """

    n_heads: int
    n_kv_heads: int
    head_dim: int
    scale: float
    q: LinearPlan
    k: LinearPlan
    v: LinearPlan
    output: LinearPlan
    rope: RoPEPlan
    q_norm: NormPlan | None = None
    k_norm: NormPlan | None = None
    norms_whole: bool = False
    window: int | None = None
    softcap: float | None = None


@dataclass(frozen=True)
class MLPPlan:
    """down(activation(gate(x)) * up(x)); `activation` is one of `ops.ACTIVATIONS`."""

    gate: LinearPlan
    up: LinearPlan
    down: LinearPlan
    activation: str


@dataclass(frozen=True)
class RouterPlan:
    """The experts that a token goes through, and their weights, in fp32.

    Scores are the softmax or the sigmoids of `gate(x)`, with `fp32_gate` a product in fp32. The `top_k` with the highest
    score plus `bias` (a parameter's path) are chosen, with `n_groups` among the experts of the `top_groups` groups
    whose two best sum to the most. Their weights are their scores, with `normalize` divided by their sum (plus `eps`),
    times `scale`.
    """

    gate: LinearPlan
    scores: Literal["softmax", "sigmoid"]
    top_k: int
    normalize: bool
    eps: float = 0.0
    scale: float = 1.0
    bias: str | None = None
    n_groups: int = 1
    top_groups: int = 1
    fp32_gate: bool = False


@dataclass(frozen=True)
class MoEPlan:
    """The weighted sum of a token's experts, plus `shared`, through which every token goes.

    `experts`: their weights are `[n, outputs, inputs]`, of the n experts from `first_expert` on that are here; the others
    count as zeros.
    """

    router: RouterPlan
    num_experts: int
    experts: MLPPlan
    first_expert: int = 0
    shared: MLPPlan | None = None


@dataclass(frozen=True)
class LayerPlan:
    """One decoder layer: see the module."""

    attention: AttentionPlan
    mlp: MLPPlan | MoEPlan
    before_attention: NormPlan | None
    after_attention: NormPlan | None
    before_mlp: NormPlan | None
    after_mlp: NormPlan | None


@dataclass(frozen=True)
class DecoderPlan:
    """A decoder-only language model.

    Tokens -> rows of `embedding` (times `embedding_scale`) -> `layers` -> `norm` -> `head`, which is the embedding itself
    where they are tied; with `logits_softcap` logits become softcap * tanh(logits / softcap).
    """

    vocab_size: int
    hidden_size: int
    context_length: int
    embedding: LinearPlan
    layers: tuple[LayerPlan, ...]
    norm: NormPlan
    head: LinearPlan
    embedding_scale: float | None = None
    logits_softcap: float | None = None

    @property
    def tied(self) -> bool:
        """Whether the head is the embedding."""
        return self.head.path == self.embedding.path


# Overriding these changes how a block is made or filled, not what it computes.
_HARMLESS = {"__init__", "sanitize"}

_P = TypeVar("_P")
_Q = TypeVar("_Q")


@overload
def describe(block: object, path: str, kind: type[_P]) -> _P: ...
@overload
def describe(block: object, path: str, kind: type[_P], other: type[_Q]) -> _P | _Q: ...
def describe(block: object, path: str, kind: type[Any], other: type[Any] | None = None) -> Any:
    """The plan, of one of the given kinds, that a block gives of itself.

    Raises EngineError for a block without one, and for one of a class that overrides what it computes without
    describing that.
    """
    plan = getattr(block, "plan", None)
    name = type(block).__name__
    if plan is None:
        raise EngineError(f"{path or 'the model'}: a {name} doesn't describe itself as a plan, so only MLX runs it.")
    classes = type(block).__mro__
    author = next(cls for cls in classes if "plan" in vars(cls))
    for cls in classes[: classes.index(author)]:
        for attribute in sorted(vars(cls).keys() - _HARMLESS):
            if attribute.startswith("__") and attribute != "__call__":  # Python's own
                continue
            inherited = getattr(author, attribute, None)
            if callable(inherited) or isinstance(inherited, property):
                raise EngineError(
                    f"{path or 'the model'}: {cls.__name__} overrides {attribute}, but not the plan that describes it, so only "
                    "MLX runs it. Define plan() there too."
                )
    found = plan(path)
    if not isinstance(found, (kind, other or kind)):
        raise EngineError(f"{path}: a {name} describes itself as a {type(found).__name__}, which can't stand here.")
    return found
