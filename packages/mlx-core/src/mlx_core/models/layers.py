"""The blocks that decoder-only language models are made of.

Families differ in few, nameable ways, and those are these blocks' options: biases, norms of queries and keys, RoPE,
windows, where norms stand, activations, softcaps, dense or routed MLPs. A model file says which it takes; what only one
family needs stays in its file.

Shapes: `B` batch, `L` sequence, `H` heads, `Hk` key and value heads, `D` head_dim, `S` keys attended to, `V`
vocabulary.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from typing import Any, ClassVar, Literal, overload

import mlx.core as mx
import mlx.nn as nn

from .. import backend, engines, kernels
from ..cache import KeyValueCache, KVCache, Mask, RotatingKVCache
from ..config import DecoderConfig
from ..errors import CacheError, ConfigError, EngineError, InputError
from ..ops import (
    ACTIVATIONS,
    RoPE,
    RoPEPlan,
    create_attention_mask,
    merge_heads,
    scaled_dot_product_attention,
    softcapped,
)
from .projections import FusedProjections, linear_plan


@dataclass(frozen=True)
class ModelInput:
    """A language model's input where it is more than tokens: one of `tokens` `[B, L]` and `embeddings` `[B, L,
    hidden]`, as `CausalLM.embed` makes them: scaled where the architecture scales them.
    """

    tokens: mx.array | None = None
    embeddings: mx.array | None = None

    def __post_init__(self) -> None:
        if (self.tokens is None) == (self.embeddings is None):
            raise InputError("ModelInput takes either tokens or embeddings.")


@dataclass(frozen=True)
class ModelOutput:
    """A language model's output for a ModelInput: `logits` `[B, L, V]`, `hidden_states` `[B, L, hidden]` after the
    last norm.
    """

    logits: mx.array
    hidden_states: mx.array


def known_activation(name: str) -> str:
    """The name, if it is one of `ops.ACTIVATIONS`. Raises ConfigError for another."""
    if name not in ACTIVATIONS:
        raise ConfigError(f"activation {name!r} isn't known; known are {', '.join(ACTIVATIONS)}.")
    return name


def gated(activation: str, gate: mx.array, up: mx.array) -> mx.array:
    """activation(gate) * up; `activation` is one of `ops.ACTIVATIONS`."""
    if activation in ("silu", "swish"):
        return kernels.swiglu.portable(up, gate)
    return ACTIVATIONS[activation](gate) * up


class ZeroCenteredRMSNorm(nn.Module):
    """An RMSNorm that multiplies by 1 + weight."""

    def __init__(self, dims: int, eps: float) -> None:
        super().__init__()
        self.weight = mx.zeros((dims,))
        self.eps = eps

    def __call__(self, x: mx.array) -> mx.array:
        # the sum in fp32, as the reference has it: bf16 would round small weights away
        return mx.fast.rms_norm(x, 1.0 + self.weight.astype(mx.float32), self.eps).astype(x.dtype)

    def plan(self, path: str) -> engines.NormPlan:
        return engines.NormPlan(path, self.eps, offset=1.0)


def norm_plan(norm: nn.Module, path: str) -> engines.NormPlan:
    """A norm as data. Raises EngineError for one that can't be described."""
    return (
        engines.NormPlan(path, norm.eps) if type(norm) is nn.RMSNorm else engines.describe(norm, path, engines.NormPlan)
    )


class Attention(FusedProjections):
    """Grouped-query attention with RoPE.

    `window`: the number of keys that a token sees, itself included, None for all; `qkv_bias`, `output_bias`: biases of
    the projections; `qk_norm`: norms of queries and keys before RoPE, over each head or over the whole projection;
    `scale`: of the scores, by default 1 / sqrt(head_dim); `softcap`: scores become softcap * tanh(scores / softcap).
    """

    fused_name = "qkv_proj"
    part_names = ("q_proj", "k_proj", "v_proj")

    def __init__(
        self,
        config: DecoderConfig,
        rope: RoPE,
        *,
        window: int | None = None,
        qkv_bias: bool = False,
        output_bias: bool = False,
        qk_norm: Literal["head", "projection"] | None = None,
        scale: float | None = None,
        softcap: float | None = None,
    ) -> None:
        super().__init__()
        self.n_heads, self.n_kv_heads, self.head_dim = config.num_attention_heads, config.kv_heads, config.dim_per_head
        if qk_norm not in (None, "head", "projection"):
            raise ConfigError(f"qk_norm is 'head', 'projection' or None; got {qk_norm!r}.")
        self.scale = self.head_dim**-0.5 if scale is None else scale
        self.softcap = softcap
        self.qk_norm = qk_norm
        self.window = window
        self.rope = rope
        hidden = config.hidden_size
        self.q_proj = nn.Linear(hidden, self.n_heads * self.head_dim, bias=qkv_bias)
        self.k_proj = nn.Linear(hidden, self.n_kv_heads * self.head_dim, bias=qkv_bias)
        self.v_proj = nn.Linear(hidden, self.n_kv_heads * self.head_dim, bias=qkv_bias)
        self.o_proj = nn.Linear(self.n_heads * self.head_dim, hidden, bias=output_bias)
        if qk_norm is not None:
            whole = qk_norm == "projection"
            self.q_norm = config.norm(self.n_heads * self.head_dim if whole else self.head_dim)
            self.k_norm = config.norm(self.n_kv_heads * self.head_dim if whole else self.head_dim)

    def __call__(self, x: mx.array, mask: Mask = None, cache: KeyValueCache | None = None) -> mx.array:
        B, L, _ = x.shape
        offset = 0 if cache is None else cache.offset
        n_qk = self.n_heads + self.n_kv_heads

        qkv = self.qkv_proj(x) if self.fused else mx.concatenate([part(x) for part in self.parts], axis=-1)
        qkv = qkv.reshape(B, L, -1, self.head_dim)  # [B, L, H + 2 Hk, D]
        v = qkv[:, :, n_qk:].transpose(0, 2, 1, 3)  # [B, Hk, L, D]
        if self.qk_norm is not None:
            q = self._normed(self.q_norm, qkv[:, :, : self.n_heads]).transpose(0, 2, 1, 3)  # [B, H, L, D]
            k = self._normed(self.k_norm, qkv[:, :, self.n_heads : n_qk]).transpose(0, 2, 1, 3)  # [B, Hk, L, D]
            q, k = self.rope(q, offset), self.rope(k, offset)
        else:  # RoPE is the same for queries and keys: one call for both
            qk = self.rope(qkv[:, :, :n_qk].transpose(0, 2, 1, 3), offset)
            q, k = qk[:, : self.n_heads], qk[:, self.n_heads :]

        attend = scaled_dot_product_attention if cache is None else cache.attend
        out = attend(q, k, v, scale=self.scale, mask=mask, softcap=self.softcap)
        return self.o_proj(merge_heads(out))

    def plan(self, path: str) -> engines.AttentionPlan:
        """The attention as data; `path` is its place in the model."""
        heads = engines.Shard("outputs", self.head_dim)
        q, k, v = self.part_plans(path, heads)
        output = linear_plan(self.o_proj, f"{path}.o_proj", engines.Shard("inputs", self.head_dim))
        if output.shard is not None:  # its inputs are the queries' heads
            q = replace(q, shard=replace(heads, unit=output.shard.unit))
        q_norm = norm_plan(self.q_norm, f"{path}.q_norm") if self.qk_norm else None
        k_norm = norm_plan(self.k_norm, f"{path}.k_norm") if self.qk_norm else None
        if self.qk_norm == "projection" and q_norm is not None and k_norm is not None:
            q_norm, k_norm = replace(q_norm, shard=q.shard), replace(k_norm, shard=k.shard)
        return engines.AttentionPlan(
            self.n_heads,
            self.n_kv_heads,
            self.head_dim,
            self.scale,
            q,
            k,
            v,
            output,
            engines.describe(self.rope, f"{path}.rope", RoPEPlan),
            q_norm=q_norm,
            k_norm=k_norm,
            norms_whole=self.qk_norm == "projection",
            window=self.window,
            softcap=self.softcap,
        )

    def _normed(self, norm: nn.Module, heads: mx.array) -> mx.array:
        """`[B, L, H, D]`, normed by head or whole."""
        return norm(heads) if self.qk_norm == "head" else norm(heads.flatten(2)).reshape(heads.shape)


class GatedMLP(FusedProjections):
    """down(activation(gate(x)) * up(x))."""

    fused_name = "gate_up_proj"
    part_names: ClassVar[tuple[str, ...]] = ("gate_proj", "up_proj")

    def __init__(
        self, hidden_size: int, intermediate_size: int, *, bias: bool = False, activation: str = "silu"
    ) -> None:
        super().__init__()
        self.activation = known_activation(activation)
        for name in self.part_names:
            self[name] = nn.Linear(hidden_size, 2 * intermediate_size // len(self.part_names), bias=bias)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias=bias)

    def __call__(self, x: mx.array) -> mx.array:
        gate, up = mx.split(self.gate_up_proj(x), 2, axis=-1) if self.fused else [part(x) for part in self.parts]
        return self.down_proj(gated(self.activation, gate, up))

    def plan(self, path: str) -> engines.MLPPlan:
        """The MLP as data; `path` is its place in the model."""
        down = linear_plan(self.down_proj, f"{path}.down_proj", engines.Shard("inputs"))
        unit = 1 if down.shard is None else down.shard.unit
        gate, *rest = self.part_plans(path, engines.Shard("outputs", unit))
        if rest:
            up = rest[0]
        else:  # one matrix in the checkpoint
            gate = replace(gate, outputs=gate.outputs // 2)
            up = replace(gate, first_row=gate.outputs)
        return engines.MLPPlan(gate, up, down, self.activation)


class JoinedMLP(GatedMLP):
    """A GatedMLP whose gate and up are one matrix, gate first, in checkpoints too."""

    part_names = ("gate_up_proj",)


@dataclass(frozen=True)
class Norms:
    """Where a layer's norms stand, and their names in checkpoints; None where there is none."""

    before_attention: str | None = "input_layernorm"
    after_attention: str | None = None
    before_mlp: str | None = "post_attention_layernorm"
    after_mlp: str | None = None


class DecoderLayer(nn.Module):
    """x + norm(attention(norm(x))), then x + norm(mlp(norm(x))), of the norms those that `norms` names.

    `mlp_name`: the MLP's name in checkpoints.
    """

    def __init__(
        self,
        config: DecoderConfig,
        attention: Attention,
        mlp: nn.Module,
        *,
        norms: Norms = Norms(),
        mlp_name: str = "mlp",
    ) -> None:
        super().__init__()
        self.norms = norms
        self.self_attn = attention
        self.mlp_name = mlp_name
        self[mlp_name] = mlp
        for name in astuple(norms):
            if name is not None:
                self[name] = config.norm(config.hidden_size)

    @property
    def window(self) -> int | None:
        return self.self_attn.window

    def __call__(self, x: mx.array, mask: Mask = None, cache: KeyValueCache | None = None) -> mx.array:
        norms = self.norms
        attended = self.self_attn(self._normed(norms.before_attention, x), mask, cache)
        x = x + self._normed(norms.after_attention, attended)
        return x + self._normed(norms.after_mlp, self[self.mlp_name](self._normed(norms.before_mlp, x)))

    def plan(self, path: str) -> engines.LayerPlan:
        """The layer as data; `path` is its place in the model."""
        return engines.LayerPlan(
            engines.describe(self.self_attn, f"{path}.self_attn", engines.AttentionPlan),
            engines.describe(self[self.mlp_name], f"{path}.{self.mlp_name}", engines.MLPPlan, engines.MoEPlan),
            **{
                place: None if name is None else norm_plan(self[name], f"{path}.{name}")
                for place, name in asdict(self.norms).items()
            },
        )

    def _normed(self, name: str | None, x: mx.array) -> mx.array:
        return x if name is None else self[name](x)


class DecoderStack(nn.Module):
    """Embedding, layers and the last norm."""

    def __init__(self, config: DecoderConfig, layers: Sequence[DecoderLayer]) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = list(layers)
        self.norm = config.norm(config.hidden_size)

    def __call__(self, h: mx.array, cache: Sequence[KeyValueCache | None]) -> mx.array:
        """h: embeddings `[B, L, hidden]`; returns hidden states `[B, L, hidden]`."""
        masks: dict[Hashable, Mask] = {}  # layers of one window share a mask, where their caches are alike
        for layer, layer_cache in zip(self.layers, cache, strict=True):
            key = (layer.window, None if layer_cache is None else layer_cache.mask_key)
            if key not in masks:
                masks[key] = create_attention_mask(h, layer_cache, window_size=layer.window)
            h = layer(h, masks[key], layer_cache)
        return self.norm(h)


class CausalLM(nn.Module):
    """A decoder stack with its head: the base of every family's model, and what generation runs.

    `embedding_scale`: embeddings of tokens are multiplied by it, rounded to their dtype; `logits_softcap`: logits become
    softcap * tanh(logits / softcap).
    """

    lm_head: nn.Linear
    load_report: Any = None
    load_note: str = ""
    """Names what `sanitize` left out of a checkpoint, for the load report."""

    def __init__(
        self,
        config: DecoderConfig,
        layers: Sequence[DecoderLayer],
        *,
        embedding_scale: float | None = None,
        logits_softcap: float | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.embedding_scale = embedding_scale
        self.logits_softcap = logits_softcap
        self.model = DecoderStack(config, layers)
        self.set_tied(config.tie_word_embeddings)

    @property
    def layers(self) -> list[DecoderLayer]:
        return self.model.layers

    @property
    def vocab_size(self) -> int:
        return self.config.vocab_size

    @property
    def context_length(self) -> int:
        """The most tokens that the positions are made for."""
        return self.config.context_length

    @property
    def requires_full_prefill(self) -> bool:
        """Whether a prompt has to be computed in one pass, because its RoPE depends on how long it is."""
        return any(layer.self_attn.rope.depends_on_length for layer in self.layers)

    @property
    def tied(self) -> bool:
        """Whether the head is the embedding."""
        return "lm_head" not in self

    def set_tied(self, tied: bool) -> None:
        """Make the head the embedding, or a matrix of its own."""
        if tied and not self.tied:
            delattr(self, "lm_head")
        elif not tied and self.tied:
            self.lm_head = nn.Linear(self.config.hidden_size, self.config.vocab_size, bias=False)

    @overload
    def __call__(self, tokens: mx.array, cache: Sequence[KeyValueCache] | None = None) -> mx.array: ...
    @overload
    def __call__(self, tokens: ModelInput, cache: Sequence[KeyValueCache] | None = None) -> ModelOutput: ...
    def __call__(
        self, tokens: mx.array | ModelInput, cache: Sequence[KeyValueCache] | None = None
    ) -> mx.array | ModelOutput:
        """Tokens `[B, L]` of any integer dtype -> logits `[B, L, V]`; a ModelInput gives a ModelOutput.

        cache: one KeyValueCache per layer (`make_cache`), which this call appends to; None attends within the tokens
        alone. Masks are made inside. Raises InputError for other shapes and dtypes, CacheError for a cache that
        doesn't fit. Ids must be below `vocab_size`: checking that here would mean to wait for the device; generation
        and perplexity check it.
        """
        if cache is not None and len(cache) != len(self.layers):
            raise CacheError(
                f"the model has {len(self.layers)} layers; the cache has {len(cache)}. Use model.make_cache()."
            )
        hidden = self.model(self._hidden(tokens), [None] * len(self.layers) if cache is None else cache)
        logits = self.model.embed_tokens.as_linear(hidden) if self.tied else self.lm_head(hidden)
        if self.logits_softcap is not None:
            logits = softcapped(logits, self.logits_softcap)
        return ModelOutput(logits, hidden) if isinstance(tokens, ModelInput) else logits

    def _hidden(self, given: mx.array | ModelInput) -> mx.array:
        """The layers' input `[B, L, hidden]`."""
        if not isinstance(given, ModelInput):
            return self.embed(given)
        if given.tokens is not None:
            return self.embed(given.tokens)
        h = given.embeddings
        if h is None or h.ndim != 3 or h.shape[1] < 1 or h.shape[2] != self.config.hidden_size:
            found = None if h is None else tuple(h.shape)
            raise InputError(f"embeddings must be [B, L, {self.config.hidden_size}], L >= 1; got {found}.")
        return h.astype(self.model.norm.weight.dtype)

    def embed(self, ids: mx.array) -> mx.array:
        """Tokens `[B, L]` -> embeddings `[B, L, hidden]`, scaled where the architecture scales them. Raises InputError."""
        if not isinstance(ids, mx.array) or not mx.issubdtype(ids.dtype, mx.integer):
            found = f"{ids.dtype}" if isinstance(ids, mx.array) else type(ids).__name__
            raise InputError(f"tokens must be an mx.array of integers [B, L]; got {found}.")
        if ids.ndim != 2 or ids.size < 1:
            raise InputError(f"tokens must be [B, L] with B, L >= 1; got shape {tuple(ids.shape)}.")
        # packed embeddings of the mx modes come out as bf16, whatever the others compute in
        h = self.model.embed_tokens(ids).astype(self.model.norm.weight.dtype)
        return h if self.embedding_scale is None else h * mx.array(self.embedding_scale, h.dtype)

    def plan(self, path: str = "") -> engines.DecoderPlan:
        """The model as data. Raises EngineError for a block that can't describe itself."""
        if type(self.model) is not DecoderStack:
            raise EngineError(f"model: a {type(self.model).__name__} isn't described by the plan, so only MLX runs it.")
        embedding = linear_plan(self.model.embed_tokens, "model.embed_tokens")
        return engines.DecoderPlan(
            self.vocab_size,
            self.config.hidden_size,
            self.context_length,
            embedding,
            tuple(
                engines.describe(layer, f"model.layers.{i}", engines.LayerPlan) for i, layer in enumerate(self.layers)
            ),
            norm_plan(self.model.norm, "model.norm"),
            embedding if self.tied else linear_plan(self.lm_head, "lm_head", engines.Shard("outputs")),
            self.embedding_scale,
            self.logits_softcap,
        )

    def make_cache(self) -> list[KeyValueCache]:
        """One empty cache per layer: of the window's size where the layer has one, else unbounded."""
        return [KVCache() if layer.window is None else RotatingKVCache(layer.window) for layer in self.layers]

    def sanitize(self, weights: dict[str, mx.array]) -> dict[str, mx.array]:
        """A checkpoint's names and layouts -> this module's; decides tying by what the checkpoint holds.

        A checkpoint without a head is tied whatever its configuration says. One that says it is tied and yet holds a
        head of its own, which differs from the embedding, is not tied (as in transformers 5).
        """
        weights = {name: value for name, value in weights.items() if not name.endswith("rotary_emb.inv_freq")}
        head, embedding = weights.get("lm_head.weight"), weights.get("model.embed_tokens.weight")
        tied = head is None
        if head is not None and self.tied and embedding is not None:
            alike = head.shape == embedding.shape and head.dtype == embedding.dtype
            tied = alike and bool(backend.materialize(mx.array_equal(head, embedding)))
        self.set_tied(tied)
        return {name: value for name, value in weights.items() if not (tied and name.startswith("lm_head."))}
