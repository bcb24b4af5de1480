"""Paraformer's decoder: all tokens at once, each from its acoustic embedding.

    decoders (memory of the neighbours, attention to the speech) -> decoders2 (memory alone) -> decoders3 (neither)
    -> after_norm -> output_layer

A layer feeds forward first; its memory is of the result. Paper: https://arxiv.org/abs/2206.08317. Reference: FunASR
1.4.16, `models/paraformer/decoder.py`. `B` batch, `N` tokens, `S` frames (or hotwords) attended to, `D` width,
`V` vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlx_core.config import BaseConfig
from mlx_core.errors import ConfigError
from mlx_core.models import check_sizes
from mlx_core.ops import multi_head, split_heads

from .sanm import LAYER_NORM_EPS, Memory


@dataclass(frozen=True, kw_only=True)
class DecoderConfig(BaseConfig):
    """The `decoder_conf` of a config.yaml; FunASR's defaults."""

    attention_heads: int = 4
    linear_units: int = 2048
    num_blocks: int = 6
    att_layer_num: int = 6
    """Layers that attend, of which there may be more than `num_blocks`."""
    kernel_size: int = 21
    sanm_shfit: int | None = 0
    """Tokens by which the memory of the layers that attend looks further back than ahead; None: not ahead at all."""
    normalize_before: bool = True
    concat_after: bool = False
    use_output_layer: bool = True

    def __post_init__(self) -> None:
        check_sizes(self, ("attention_heads", "linear_units", "kernel_size"))
        check_sizes(self, ("num_blocks", "att_layer_num"), 4096)
        expected: dict[str, Any] = {"normalize_before": True, "concat_after": False}
        for name, value in expected.items():
            if getattr(self, name) != value:
                raise ConfigError(f"decoder_conf: {name} must be {value}, as in every released model.")

    @property
    def shift(self) -> int:
        """Of the memory of the layers that attend."""
        return (self.kernel_size - 1) // 2 if self.sanm_shfit is None else self.sanm_shfit


class NormedFeedForward(nn.Module):
    """A feed-forward layer with a norm inside."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w_1 = nn.Linear(width, hidden)
        self.w_2 = nn.Linear(hidden, width, bias=False)
        self.norm = nn.LayerNorm(hidden, LAYER_NORM_EPS)

    def __call__(self, x: mx.array) -> mx.array:
        return self.w_2(self.norm(nn.relu(self.w_1(x))))


class TokenMemory(nn.Module):
    """The FSMN over tokens, in the place that self-attention has elsewhere."""

    def __init__(self, width: int, kernel: int, shift: int) -> None:
        super().__init__()
        self.fsmn_block = Memory(width, kernel, shift)

    def __call__(self, x: mx.array, mask: mx.array | None = None, before: mx.array | None = None) -> mx.array:
        return self.fsmn_block(x, mask, before)


class CrossAttention(nn.Module):
    """Attention of tokens to the speech, or to hotwords: `[B, N, D]`, memory `[B, S, D] -> [B, N, D]`."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ConfigError(f"decoder_conf: the width {width} must be a multiple of {heads} attention_heads.")
        self._heads = heads
        self.linear_q = nn.Linear(width, width)
        self.linear_k_v = nn.Linear(width, 2 * width)
        self.linear_out = nn.Linear(width, width)

    def __call__(self, x: mx.array, memory: mx.array, mask: mx.array | None = None) -> mx.array:
        return self.attend(x, *self.project(memory), mask)

    def project(self, memory: mx.array) -> tuple[mx.array, mx.array]:
        """Keys and values `[B, S, D]`."""
        k, v = mx.split(self.linear_k_v(memory), 2, axis=-1)
        return k, v

    def attend(self, x: mx.array, k: mx.array, v: mx.array, mask: mx.array | None = None) -> mx.array:
        """Attention of the tokens to keys and values, whose mask is `[B, S]` -> `[B, N, D]`."""
        return self.linear_out(multi_head(self.linear_q(x), k, v, self._heads, mask=mask))

    def weights(self, x: mx.array, memory: mx.array) -> mx.array:
        """The attention weights of tokens and parts of the memory, `[B, H, N, S]`."""
        q, k = (split_heads(y, self._heads) for y in (self.linear_q(x), self.project(memory)[0]))
        return mx.softmax((q * q.shape[-1] ** -0.5) @ k.swapaxes(-1, -2), axis=-1)


class FeedForwardLayer(nn.Module):
    """A layer of decoders3: no memory, no attention, no residual."""

    def __init__(self, width: int, config: DecoderConfig) -> None:
        super().__init__()
        self.feed_forward = NormedFeedForward(width, config.linear_units)
        self.norm1 = nn.LayerNorm(width, LAYER_NORM_EPS)

    def __call__(self, x: mx.array) -> mx.array:
        return self.feed_forward(self.norm1(x))


class MemoryLayer(nn.Module):
    """A layer of decoders2: no attention to the speech."""

    def __init__(self, width: int, config: DecoderConfig, shift: int = 0) -> None:
        super().__init__()
        self.feed_forward = NormedFeedForward(width, config.linear_units)
        self.self_attn = TokenMemory(width, config.kernel_size, shift)
        self.norm1 = nn.LayerNorm(width, LAYER_NORM_EPS)
        self.norm2 = nn.LayerNorm(width, LAYER_NORM_EPS)

    def __call__(self, x: mx.array, mask: mx.array | None = None) -> mx.array:
        return x + self.self_attn(self.inner(x), mask)

    def inner(self, x: mx.array) -> mx.array:
        """The input of the memory."""
        return self.norm2(self.feed_forward(self.norm1(x)))


class DecoderLayer(MemoryLayer):
    """A layer of decoders, which attends to the speech."""

    def __init__(self, width: int, config: DecoderConfig) -> None:
        super().__init__(width, config, config.shift)
        self.src_attn = CrossAttention(width, config.attention_heads)
        self.norm3 = nn.LayerNorm(width, LAYER_NORM_EPS)

    def __call__(
        self,
        x: mx.array,
        mask: mx.array | None = None,
        memory: mx.array | None = None,
        memory_mask: mx.array | None = None,
    ) -> mx.array:
        x = super().__call__(x, mask)
        if memory is None:
            return x
        return x + self.src_attn(self.norm3(x), memory, memory_mask)

    def weights(self, x: mx.array, mask: mx.array | None, memory: mx.array) -> mx.array:
        """The attention weights of tokens and parts of the memory, `[B, H, N, S]`."""
        return self.src_attn.weights(self.norm3(super().__call__(x, mask)), memory)


class ParaformerDecoder(nn.Module):
    """Acoustic embeddings `[B, N, D]` and the speech `[B, S, D]` -> hidden `[B, N, D]`, of which `output_layer` makes
    logits `[B, N, V]`.
    """

    def __init__(self, config: DecoderConfig, width: int, vocabulary: int, *, embed: bool = False) -> None:
        """embed: whether there is an embedding of the vocabulary, which hotwords may use."""
        super().__init__()
        if embed:
            self.embed = [nn.Embedding(vocabulary, width)]
        self.decoders = [DecoderLayer(width, config) for _ in range(self.attending(config))]
        self.decoders2 = [MemoryLayer(width, config) for _ in range(config.num_blocks - config.att_layer_num)]
        self.decoders3 = [FeedForwardLayer(width, config)]
        self.after_norm = nn.LayerNorm(width, LAYER_NORM_EPS)
        if config.use_output_layer:
            self.output_layer = nn.Linear(width, vocabulary)

    @staticmethod
    def attending(config: DecoderConfig) -> int:
        """Layers in `decoders`."""
        return config.att_layer_num

    def __call__(
        self,
        x: mx.array,
        memory: mx.array,
        mask: mx.array | None = None,
        memory_mask: mx.array | None = None,
    ) -> mx.array:
        """Masks: of the tokens `[B, N]` and of the memory `[B, S]`."""
        for layer in self.decoders:
            x = layer(x, mask, memory, memory_mask)
        return self.finish(x, mask)

    def finish(self, x: mx.array, mask: mx.array | None = None) -> mx.array:
        """The layers after those that attend."""
        for layer in self.decoders2:
            x = layer(x, mask)
        for last in self.decoders3:
            x = last(x)
        return self.after_norm(x)
