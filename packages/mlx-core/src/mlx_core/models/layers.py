"""The blocks that decoder-only language models are made of.

Families differ in few, nameable ways, and those are these blocks' options: biases, per-head norms of queries and
keys, what a rope turns, windows, dense or routed MLPs. A model file says which it takes; what only one family needs
stays in its file.

Shapes: `B` batch, `L` sequence, `H` heads, `Hk` key and value heads, `D` head_dim, `S` keys attended to, `V`
vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, overload

import mlx.core as mx
import mlx.nn as nn

from .. import backend, kernels
from ..cache import KeyValueCache, KVCache, Mask, RotatingKVCache
from ..config import DecoderConfig
from ..errors import CacheError, InputError
from ..ops import RoPE, create_attention_mask, scaled_dot_product_attention
from .projections import FusedProjections


@dataclass(frozen=True)
class ModelInput:
    """What a language model takes where it is more than tokens: one of `tokens` `[B, L]` and `embeddings` `[B, L,
    hidden]`.
    """

    tokens: mx.array | None = None
    embeddings: mx.array | None = None

    def __post_init__(self) -> None:
        if (self.tokens is None) == (self.embeddings is None):
            raise InputError("ModelInput takes either tokens or embeddings.")


@dataclass(frozen=True)
class ModelOutput:
    """What a language model gives for a ModelInput: `logits` `[B, L, V]`, `hidden_states` `[B, L, hidden]` after the
    last norm.
    """

    logits: mx.array
    hidden_states: mx.array


def swiglu(gate: mx.array, up: mx.array) -> mx.array:
    """silu(gate) * up."""
    return kernels.swiglu.portable(up, gate)


class Attention(FusedProjections):
    """Grouped-query attention with a rope.

    `qkv_bias`, `output_bias`: biases of the projections; `qk_norm`: an RMSNorm over each head of queries and keys
    before the rope; `window`: the number of keys that a token sees, itself included, None for all.
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
        qk_norm: bool = False,
    ) -> None:
        super().__init__()
        self.n_heads, self.n_kv_heads, self.head_dim = config.num_attention_heads, config.kv_heads, config.dim_per_head
        self.scale = self.head_dim**-0.5
        self.window = window
        self.rope = rope
        hidden = config.hidden_size
        self.q_proj = nn.Linear(hidden, self.n_heads * self.head_dim, bias=qkv_bias)
        self.k_proj = nn.Linear(hidden, self.n_kv_heads * self.head_dim, bias=qkv_bias)
        self.v_proj = nn.Linear(hidden, self.n_kv_heads * self.head_dim, bias=qkv_bias)
        self.o_proj = nn.Linear(self.n_heads * self.head_dim, hidden, bias=output_bias)
        if qk_norm:
            self.q_norm = nn.RMSNorm(self.head_dim, eps=config.rms_norm_eps)
            self.k_norm = nn.RMSNorm(self.head_dim, eps=config.rms_norm_eps)

    def __call__(self, x: mx.array, mask: Mask = None, cache: KeyValueCache | None = None) -> mx.array:
        B, L, _ = x.shape
        offset = 0 if cache is None else cache.offset
        n_qk = self.n_heads + self.n_kv_heads

        qkv = self.qkv_proj(x) if self.fused else mx.concatenate([part(x) for part in self.parts], axis=-1)
        qkv = qkv.reshape(B, L, -1, self.head_dim)  # [B, L, H + 2 Hk, D]
        v = qkv[:, :, n_qk:].transpose(0, 2, 1, 3)  # [B, Hk, L, D]
        if "q_norm" in self:
            q = self.q_norm(qkv[:, :, : self.n_heads]).transpose(0, 2, 1, 3)  # [B, H, L, D]
            k = self.k_norm(qkv[:, :, self.n_heads : n_qk]).transpose(0, 2, 1, 3)  # [B, Hk, L, D]
            q, k = self.rope(q, offset), self.rope(k, offset)
        else:  # queries and keys turn alike: one call for both
            qk = self.rope(qkv[:, :, :n_qk].transpose(0, 2, 1, 3), offset)
            q, k = qk[:, : self.n_heads], qk[:, self.n_heads :]

        if cache is not None:
            k, v = cache.update_and_fetch(k, v)  # [B, Hk, S, D]
        out = scaled_dot_product_attention(q, k, v, cache=cache, scale=self.scale, mask=mask)
        return self.o_proj(out.transpose(0, 2, 1, 3).reshape(B, L, -1))


class GatedMLP(FusedProjections):
    """down(silu(gate(x)) * up(x))."""

    fused_name = "gate_up_proj"
    part_names: ClassVar[tuple[str, ...]] = ("gate_proj", "up_proj")

    def __init__(self, hidden_size: int, intermediate_size: int, *, bias: bool = False) -> None:
        super().__init__()
        for name in self.part_names:
            self[name] = nn.Linear(hidden_size, 2 * intermediate_size // len(self.part_names), bias=bias)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias=bias)

    def __call__(self, x: mx.array) -> mx.array:
        gate, up = mx.split(self.gate_up_proj(x), 2, axis=-1) if self.fused else [part(x) for part in self.parts]
        return self.down_proj(swiglu(gate, up))


class JoinedMLP(GatedMLP):
    """A GatedMLP whose gate and up are one matrix, gate first, in checkpoints too."""

    part_names = ("gate_up_proj",)


class DecoderLayer(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)).

    `output_norms`: what attention and MLP give is normed before it is added; `mlp_name`: what checkpoints call the MLP.
    """

    def __init__(
        self,
        config: DecoderConfig,
        attention: Attention,
        mlp: nn.Module,
        *,
        output_norms: bool = False,
        mlp_name: str = "mlp",
    ) -> None:
        super().__init__()
        self.self_attn = attention
        self.mlp_name = mlp_name
        self[mlp_name] = mlp
        names = ["input_layernorm", "post_attention_layernorm"]
        if output_norms:
            names += ["post_self_attn_layernorm", "post_mlp_layernorm"]
        for name in names:
            self[name] = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    @property
    def window(self) -> int | None:
        return self.self_attn.window

    def __call__(self, x: mx.array, mask: Mask = None, cache: KeyValueCache | None = None) -> mx.array:
        attended = self.self_attn(self.input_layernorm(x), mask, cache)
        x = x + self._normed("post_self_attn_layernorm", attended)
        return x + self._normed("post_mlp_layernorm", self[self.mlp_name](self.post_attention_layernorm(x)))

    def _normed(self, name: str, x: mx.array) -> mx.array:
        return self[name](x) if name in self else x


class DecoderStack(nn.Module):
    """Embedding, layers and the last norm."""

    def __init__(self, config: DecoderConfig, layers: Sequence[DecoderLayer]) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = list(layers)
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def __call__(self, h: mx.array, cache: Sequence[KeyValueCache | None]) -> mx.array:
        """h: embeddings `[B, L, hidden]`; returns hidden states `[B, L, hidden]`."""
        masks: dict[tuple[Any, ...], Mask] = {}  # layers of one window share a mask, where their caches are alike
        for layer, layer_cache in zip(self.layers, cache, strict=True):
            key = (layer.window, *_geometry(layer_cache))
            if key not in masks:
                masks[key] = create_attention_mask(h, layer_cache, window_size=layer.window)
            h = layer(h, masks[key], layer_cache)
        return self.norm(h)


def _geometry(cache: KeyValueCache | None) -> tuple[Any, ...]:
    """What a cache's masks depend on. Rows of a batch differ alike in all layers."""
    if cache is None:
        return (None,)
    offset = cache.offset if isinstance(cache.offset, int) else None
    return type(cache), cache.max_size, getattr(cache, "keep", 0), offset


class CausalLM(nn.Module):
    """A decoder stack with its head: what every model of a family is, and what generation runs."""

    lm_head: nn.Linear
    load_report: Any = None
    load_note: str = ""
    """What `sanitize` left out of a checkpoint, for the load report."""

    def __init__(self, config: DecoderConfig, layers: Sequence[DecoderLayer]) -> None:
        super().__init__()
        self.config = config
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
        hidden = self.model(self._embed(tokens), [None] * len(self.layers) if cache is None else cache)
        logits = self.model.embed_tokens.as_linear(hidden) if self.tied else self.lm_head(hidden)
        return ModelOutput(logits, hidden) if isinstance(tokens, ModelInput) else logits

    def _embed(self, tokens: mx.array | ModelInput) -> mx.array:
        if isinstance(tokens, ModelInput):
            if tokens.embeddings is not None:
                h = tokens.embeddings
                if h.ndim != 3 or h.shape[1] < 1 or h.shape[2] != self.config.hidden_size:
                    raise InputError(
                        f"embeddings must be [B, L, {self.config.hidden_size}], L >= 1; got {tuple(h.shape)}."
                    )
                return h
            ids: Any = tokens.tokens
        else:
            ids = tokens
        if not isinstance(ids, mx.array) or not mx.issubdtype(ids.dtype, mx.integer):
            found = f"{ids.dtype}" if isinstance(ids, mx.array) else type(ids).__name__
            raise InputError(f"tokens must be an mx.array of integers [B, L]; got {found}.")
        if ids.ndim != 2 or ids.size < 1:
            raise InputError(f"tokens must be [B, L] with B, L >= 1; got shape {tuple(ids.shape)}.")
        # packed embeddings of the mx modes come out as bf16, whatever the others compute in
        return self.model.embed_tokens(ids).astype(self.model.norm.weight.dtype)

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
