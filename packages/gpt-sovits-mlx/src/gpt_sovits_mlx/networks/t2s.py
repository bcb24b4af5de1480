"""Text to semantic tokens (T2S): from phones and the reference's tokens to 25 tokens of speech a second.

A post-norm decoder of text and audio in one sequence. Text attends to all text and no audio; audio attends to all text,
and to audio up to itself. Positions of both start at 0, as interleaved sines and cosines times a learnt weight.

Reference: GPT-SoVITS, `AR/models/t2s_model.py`. `B` batch, `T` phones, `P` prompt tokens, `L` = T + P, `D` width,
`V` = 1025 semantic tokens, the last of which ends the sentence.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlx_core import BatchKVCache, KeyValueCache, KVCache, scaled_dot_product_attention
from mlx_core.cache import Mask
from mlx_core.config import BaseConfig
from mlx_core.errors import ConfigError, InputError
from mlx_core.models import Array, check_sizes, sizes
from mlx_core.ops import merge_heads, split_heads

from .module import CheckpointModule, ids

BERT_WIDTH = 1024


@dataclass(frozen=True, kw_only=True)
class T2SConfig(BaseConfig):
    """The `model` table of a released `.ckpt`; the defaults are v2's sizes."""

    vocab_size: int = 1025
    phoneme_vocab_size: int = 732
    embedding_dim: int = 512
    hidden_dim: int = 512
    head: int = 16
    linear_units: int = 2048
    n_layer: int = 24
    EOS: int = 1024

    def __post_init__(self) -> None:
        check_sizes(self, ("n_layer",), 1000)
        check_sizes(self, ("vocab_size", "phoneme_vocab_size", "embedding_dim", "hidden_dim", "head", "linear_units"))
        if self.embedding_dim != self.hidden_dim or self.hidden_dim % (2 * self.head):
            raise ConfigError(
                f"embedding_dim {self.embedding_dim} and hidden_dim {self.hidden_dim} must be equal, and an even multiple of "
                f"{self.head} heads."
            )
        if self.vocab_size - 1 != self.EOS:
            raise ConfigError(f"EOS must be the last of {self.vocab_size} tokens; found {self.EOS}.")


@dataclass(frozen=True, eq=False)
class Sentence:
    """The input of a sentence.

    phones: ids of the prompt's text and of the text, `[T]`. bert: features `[T, 1024]`, None for zeros (languages
    other than Chinese). prompt: the reference's semantic tokens `[P]`, none for reference-free speech. target_phones:
    how many of the phones are the text's, None for all; the repetition guard judges lengths by it.
    """

    phones: Sequence[int] | Array
    bert: Array | None = None
    prompt: Sequence[int] | Array = ()
    target_phones: int | None = None


class T2S(CheckpointModule):
    """The text-to-semantic network."""

    model_type = "gpt-sovits-t2s"
    packable = re.compile(r"\.layers?\.")

    def __init__(self, config: T2SConfig) -> None:
        super().__init__()
        self.config = config
        self.bert_proj = nn.Linear(BERT_WIDTH, config.embedding_dim)
        self.ar_text_embedding = TokenEmbedding(config.phoneme_vocab_size, config.embedding_dim)
        self.ar_text_position = Position()
        self.ar_audio_embedding = TokenEmbedding(config.vocab_size, config.embedding_dim)
        self.ar_audio_position = Position()
        self.h = Decoder(config)
        self.ar_predict_layer = nn.Linear(config.hidden_dim, config.vocab_size, bias=False)

    @classmethod
    def build(cls, config: Mapping[str, Any], weights: Mapping[str, mx.array]) -> Self:
        return cls(T2SConfig.from_dict(sizes(config, "model")))

    def sanitize(self, weights: dict[str, mx.array]) -> dict[str, mx.array]:
        """Names without `model.`, `in_proj_weight` as a layer's."""
        renamed = {name.removeprefix("model."): value for name, value in weights.items()}
        return {name.replace(".in_proj_", ".in_proj."): value for name, value in renamed.items()}

    def make_cache(self, left_padding: Sequence[int] | None = None) -> list[KeyValueCache]:
        """One cache for each layer; of a batch where `left_padding` gives the padding before each row."""
        if left_padding is None:
            return [KVCache() for _ in self.h.layers]
        return [BatchKVCache(left_padding) for _ in self.h.layers]

    def embed(self, sentence: Sentence) -> tuple[mx.array, int, mx.array]:
        """A sentence's phones and prompt as `[L, D]`, how many of them are text, and the prompt `[P]` int32.

        Raises InputError for ids that aren't the model's, no phones, or features of another shape.
        """
        phones = ids("phones", sentence.phones, self.config.phoneme_vocab_size)
        prompt = ids("prompt", sentence.prompt, self.config.EOS)
        T = phones.size
        if T == 0:
            raise InputError("a sentence needs at least one phone; got none.")
        bert = mx.zeros((T, BERT_WIDTH)) if sentence.bert is None else mx.array(sentence.bert)
        if bert.shape != (T, BERT_WIDTH):
            raise InputError(f"bert must be [{T}, {BERT_WIDTH}], a row for each phone; found {tuple(bert.shape)}.")
        text = self.ar_text_embedding(phones)
        text = text + self.bert_proj(bert.astype(text.dtype))
        parts = [self.ar_text_position(text, mx.arange(T))]
        if prompt.size:
            parts.append(self.embed_tokens(prompt, mx.arange(prompt.size)))
        return mx.concatenate(parts), T, prompt

    def embed_tokens(self, tokens: mx.array, positions: mx.array) -> mx.array:
        """Semantic tokens `[...]` at their positions in the audio `[...]` -> `[..., D]`."""
        return self.ar_audio_position(self.ar_audio_embedding(tokens), positions)

    def __call__(self, x: mx.array, cache: Sequence[KeyValueCache] | None = None, mask: Mask = None) -> mx.array:
        """Embedded tokens `[B, L, D]` -> hidden states `[B, L, D]`; `predict` makes logits of them."""
        return self.h(x, cache, mask)

    def predict(self, hidden: mx.array) -> mx.array:
        """Hidden states `[..., D]` -> logits `[..., V]` float32."""
        return self.ar_predict_layer(hidden).astype(mx.float32)

    def prefill(self, sentences: Sequence[Sentence]) -> tuple[mx.array, list[KeyValueCache], list[mx.array]]:
        """The logits after each sentence's last token `[B, V]`, the caches, and the prompts `[P]` int32.

        Rows of a batch are aligned at their ends.
        """
        embedded = [self.embed(sentence) for sentence in sentences]
        longest = max(x.shape[0] for x, _, _ in embedded)
        blanks = [longest - x.shape[0] for x, _, _ in embedded]
        cache = self.make_cache(blanks if len(embedded) > 1 else None)
        column = mx.arange(longest)
        first = mx.array(blanks)[:, None, None]
        text_end = mx.array([blank + T for blank, (_, T, _) in zip(blanks, embedded, strict=True)])[:, None, None]
        # a row's text sees all of its text, its audio what came before; what blanks see doesn't matter
        mask = (column >= first) & (column < mx.maximum(column[:, None] + 1, text_end))  # [B, L, L]
        x = mx.stack([mx.pad(x, [(blank, 0), (0, 0)]) for blank, (x, _, _) in zip(blanks, embedded, strict=True)])
        hidden = self(x, cache, mask[:, None])
        return self.predict(hidden[:, -1]), cache, [prompt for _, _, prompt in embedded]


class TokenEmbedding(nn.Module):
    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(rows, width)

    def __call__(self, tokens: mx.array) -> mx.array:
        return self.word_embeddings(tokens)


class Position(nn.Module):
    """x + alpha * pe, pe[p] = sin, cos, sin, cos ... of p / 10000^(2i / D) (Vaswani et al. 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.alpha = mx.ones((1,))

    def __call__(self, x: mx.array, positions: mx.array) -> mx.array:
        """`x` `[..., D]`, positions `[...]` int."""
        width = x.shape[-1]
        frequencies = mx.array(np.exp(np.arange(0, width, 2, dtype=np.float32) * -(math.log(10000.0) / width)))
        angles = positions[..., None].astype(mx.float32) * frequencies
        table = mx.stack([mx.sin(angles), mx.cos(angles)], axis=-1).reshape(*positions.shape, width)
        return x + self.alpha * table.astype(x.dtype)


class SelfAttention(nn.Module):
    def __init__(self, config: T2SConfig) -> None:
        super().__init__()
        self._heads = config.head
        self.in_proj = nn.Linear(config.hidden_dim, 3 * config.hidden_dim)
        self.out_proj = nn.Linear(config.hidden_dim, config.hidden_dim)

    def __call__(self, x: mx.array, cache: KeyValueCache | None, mask: Mask) -> mx.array:
        q, k, v = (split_heads(y, self._heads) for y in mx.split(self.in_proj(x), 3, axis=-1))  # [B, H, L, D / H]
        attend = scaled_dot_product_attention if cache is None else cache.attend
        return self.out_proj(merge_heads(attend(q, k, v, scale=q.shape[-1] ** -0.5, mask=mask)))


class DecoderLayer(nn.Module):
    def __init__(self, config: T2SConfig) -> None:
        super().__init__()
        self.self_attn = SelfAttention(config)
        self.linear1 = nn.Linear(config.hidden_dim, config.linear_units)
        self.linear2 = nn.Linear(config.linear_units, config.hidden_dim)
        self.norm1 = nn.LayerNorm(config.hidden_dim)
        self.norm2 = nn.LayerNorm(config.hidden_dim)

    def __call__(self, x: mx.array, cache: KeyValueCache | None, mask: Mask) -> mx.array:
        x = self.norm1(x + self.self_attn(x, cache, mask))
        return self.norm2(x + self.linear2(nn.relu(self.linear1(x))))


class Decoder(nn.Module):
    def __init__(self, config: T2SConfig) -> None:
        super().__init__()
        self.layers = [DecoderLayer(config) for _ in range(config.n_layer)]

    def __call__(self, x: mx.array, cache: Sequence[KeyValueCache] | None, mask: Mask) -> mx.array:
        caches: Sequence[KeyValueCache | None] = cache or [None] * len(self.layers)
        for layer, own in zip(self.layers, caches, strict=True):
            x = layer(x, own, mask)
        return x
