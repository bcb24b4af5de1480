"""Chinese RoBERTa: features of each character of a sentence, which guide how it is spoken.

BERT (`chinese-roberta-wwm-ext-large`), of which the last two layers and the masked-language head aren't needed: the
features are `hidden_states[-3]`, without `[CLS]` and `[SEP]`, each character's repeated for its phones.

Paper: https://arxiv.org/abs/1906.08101. Reference: transformers 4.57.6, `models/bert`. `B` batch, `L` tokens.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import mlx.core as mx
import mlx.nn as nn

from mlx_core.config import BaseConfig
from mlx_core.errors import ConfigError, InputError
from mlx_core.models import check_sizes
from mlx_core.ops import gelu

from .module import CheckpointModule, ids
from .transformer import SelfAttention

_UNUSED_LAYERS = 2
_HEADS = re.compile(r"(cls|pooler)\.|embeddings\.position_ids$")


@dataclass(frozen=True, kw_only=True)
class ChineseRobertaConfig(BaseConfig):
    """config.json of `chinese-roberta-wwm-ext-large`; the defaults are its sizes."""

    vocab_size: int = 21128
    hidden_size: int = 1024
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    intermediate_size: int = 4096
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12

    def __post_init__(self) -> None:
        check_sizes(self, ("num_hidden_layers",), 1000)
        check_sizes(self, ("vocab_size", "hidden_size", "num_attention_heads", "intermediate_size"))
        check_sizes(self, ("max_position_embeddings", "type_vocab_size"))
        if self.num_hidden_layers <= _UNUSED_LAYERS:
            raise ConfigError(f"num_hidden_layers must be above {_UNUSED_LAYERS}; found {self.num_hidden_layers}.")
        if self.hidden_size % self.num_attention_heads:
            raise ConfigError(f"hidden_size {self.hidden_size} must be a multiple of {self.num_attention_heads} heads.")


class ChineseRoberta(CheckpointModule):
    """BERT up to the features that text-to-semantic takes."""

    model_type = "bert"
    packable = re.compile(r"\.layers?\.")

    def __init__(self, config: ChineseRobertaConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)

    @classmethod
    def build(cls, config: Mapping[str, Any], weights: Mapping[str, mx.array]) -> Self:
        return cls(ChineseRobertaConfig.from_dict(config))

    def sanitize(self, weights: dict[str, mx.array]) -> dict[str, mx.array]:
        """Names without `bert.`, the norms' oldest names (`gamma`, `beta`) as today's; no heads, no unused layers."""
        result = {}
        for name, value in weights.items():
            bare = name.removeprefix("bert.")
            bare = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", bare)
            bare = re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", bare)
            layer = re.match(r"encoder\.layer\.(\d+)\.", bare)
            if _HEADS.match(bare) or (layer and int(layer[1]) >= len(self.encoder.layer)):
                continue
            result[bare] = value
        return result

    def __call__(self, input_ids: mx.array) -> mx.array:
        """Tokens `[B, L]` int32, `[CLS]` and `[SEP]` included -> `hidden_states[-3]`, `[B, L, D]`.

        Raises InputError for more tokens than there are positions.
        """
        if input_ids.ndim != 2 or not 1 <= input_ids.shape[1] <= self.config.max_position_embeddings:
            raise InputError(
                f"input_ids must be [B, L] with 1 <= L <= {self.config.max_position_embeddings}; found shape "
                f"{tuple(input_ids.shape)}. Split the text into sentences."
            )
        return self.encoder(self.embeddings(input_ids))

    def phone_features(self, input_ids: Sequence[int], word2ph: Sequence[int]) -> mx.array:
        """Features of a sentence's phones, `[sum(word2ph), D]`.

        input_ids: the sentence's tokens, one for each character, between `[CLS]` and `[SEP]`. word2ph: the phones of
        each character. Raises InputError where they differ in length.
        """
        tokens = ids("input_ids", input_ids, self.config.vocab_size)
        if tokens.size - 2 != len(word2ph) or any(count < 0 for count in word2ph):
            raise InputError(
                f"word2ph must give a count for each of {tokens.size - 2} characters; found {len(word2ph)}."
            )
        characters = self(tokens[None])[0, 1:-1]
        places = [place for place, count in enumerate(word2ph) for _ in range(count)]
        return characters[mx.array(places, dtype=mx.int32)]


class Embeddings(nn.Module):
    def __init__(self, config: ChineseRobertaConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def __call__(self, input_ids: mx.array) -> mx.array:
        places = mx.arange(input_ids.shape[1])
        x = self.word_embeddings(input_ids) + self.position_embeddings(places)
        return self.LayerNorm(x + self.token_type_embeddings(mx.array(0)))  # one sentence: type 0


class AttentionOutput(nn.Module):
    """A projection, added to what it came from, and the norm."""

    def __init__(self, inputs: int, config: ChineseRobertaConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def __call__(self, x: mx.array, residual: mx.array) -> mx.array:
        return self.LayerNorm(self.dense(x) + residual)


class Attention(nn.Module):
    def __init__(self, config: ChineseRobertaConfig) -> None:
        super().__init__()
        self.self = SelfAttention(config.hidden_size, config.num_attention_heads, ("query", "key", "value"))
        self.output = AttentionOutput(config.hidden_size, config)

    def __call__(self, x: mx.array) -> mx.array:
        return self.output(self.self(x), x)


class Intermediate(nn.Module):
    def __init__(self, config: ChineseRobertaConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)


class Layer(nn.Module):
    def __init__(self, config: ChineseRobertaConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.intermediate = Intermediate(config)
        self.output = AttentionOutput(config.intermediate_size, config)

    def __call__(self, x: mx.array) -> mx.array:
        x = self.attention(x)
        return self.output(gelu(self.intermediate.dense(x)), x)


class Encoder(nn.Module):
    """The layers that are run."""

    def __init__(self, config: ChineseRobertaConfig) -> None:
        super().__init__()
        self.layer = [Layer(config) for _ in range(config.num_hidden_layers - _UNUSED_LAYERS)]

    def __call__(self, x: mx.array) -> mx.array:
        for layer in self.layer:
            x = layer(x)
        return x
