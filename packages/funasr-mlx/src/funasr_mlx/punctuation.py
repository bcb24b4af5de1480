"""CT-Transformer: punctuation for text that has none.

Words pass a SAN-M encoder, and after each stands the likeliest of a few marks. Long texts go through in windows, which
begin after the last sentence that is certain; so a mark is decided by the words before and after it.

Paper: https://arxiv.org/abs/2003.01309. Reference: FunASR 1.4.16, `models/ct_transformer` and
`models/ct_transformer_streaming`. `B` batch, `L` words, `P` marks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import numpy.typing as npt

from mlx_core import backend, scaled_dot_product_attention
from mlx_core.config import BaseConfig
from mlx_core.errors import ConfigError, InputError, TokenizerError, WeightsError
from mlx_core.models import CheckpointModule, check_sizes

from .folder import open_folder, table
from .sanm import SANMConfig, SANMEncoder, SANMLayer
from .words import Splitter, is_ascii, jieba_splitter, split_characters

_NO_MARK, _COMMA, _STOP, _QUESTION, _LIST_COMMA = "_", "，", "。", "？", "、"
_NO_MARK_ID = 1  # of the characters before a word's last, whatever the model's own is: the reference's
_ENDS = (_STOP, _QUESTION)
_ASCII_MARKS = {_COMMA: ",", _STOP: ".", _QUESTION: "?"}
_LONG = 200  # words without an end, after which a comma ends a sentence
_UNKNOWN = "<unk>"


@dataclass(frozen=True, kw_only=True)
class PunctuationConfig(BaseConfig):
    """The `model_conf` of a config.yaml."""

    punc_list: list[str]
    embed_unit: int = 128
    att_unit: int = 256
    sentence_end_id: int = 3

    def __post_init__(self) -> None:
        check_sizes(self, ("embed_unit", "att_unit"))
        if not self.punc_list or not all(isinstance(mark, str) and mark for mark in self.punc_list):
            raise ConfigError(f"model_conf: punc_list must be a list of marks; found {self.punc_list!r:.100}.")
        if not 0 <= self.sentence_end_id < len(self.punc_list):
            raise ConfigError(
                f"model_conf: sentence_end_id must be of one of {len(self.punc_list)} marks; found "
                f"{self.sentence_end_id}."
            )


@dataclass(frozen=True)
class Punctuated:
    """A text with its marks."""

    text: str
    words: list[str]
    """What the text was taken for, without marks."""
    marks: list[int]
    """Places in `punc_list`: of what stands after each word; where words are jieba's, after each character of a
    Chinese one.
    """


class Punctuation(CheckpointModule):
    """CT-Transformer. `load_punctuation` makes one of a folder: `punctuation(text)`."""

    model_type = "ct-transformer"
    packable = re.compile(r"^encoder\.")
    kind = "CTTransformer"
    encoder_kind = "SANMEncoder"

    def __init__(self, config: PunctuationConfig, encoder: SANMConfig, vocabulary: int) -> None:
        super().__init__()
        self.config = config
        self.encoder_config = encoder
        self.embed = nn.Embedding(vocabulary, config.embed_unit)
        self.encoder = SANMEncoder(encoder, config.embed_unit)
        self.decoder = nn.Linear(config.att_unit, len(config.punc_list))
        self._ids: dict[str, int] | None = None
        self._split: Splitter = split_characters
        self._by_character = False

    @classmethod
    def build(cls, config: Mapping[str, Any], weights: Mapping[str, mx.array]) -> Self:
        found = config.get("model", cls.kind), config.get("encoder", cls.encoder_kind)
        if found != (cls.kind, cls.encoder_kind):
            raise ConfigError(
                f"a {found[0]!r} with a {found[1]!r} isn't known here; expected {cls.kind!r} with {cls.encoder_kind!r}."
            )
        sizes = PunctuationConfig.from_dict(table(config, "model_conf"))
        encoder = SANMConfig.from_dict(table(config, "encoder_conf"))
        if encoder.output_size != sizes.att_unit:
            raise ConfigError(f"att_unit must be output_size, {encoder.output_size}; found {sizes.att_unit}.")
        embed = weights.get("embed.weight")
        if embed is None:
            raise WeightsError("the checkpoint has no embed.weight. It's of another model, or incomplete.")
        return cls(sizes, encoder, embed.shape[0])

    def use_tokens(self, tokens: Sequence[str], splitter: Splitter | None = None, unknown: str = _UNKNOWN) -> None:
        """The words by their ids, and how a text is split into words: characters and runs of ASCII by default.

        Raises TokenizerError for tokens that don't fit.
        """
        if len(tokens) != self.embed.weight.shape[0]:
            raise TokenizerError(
                f"there are {len(tokens)} tokens, but embeddings for {self.embed.weight.shape[0]}. They are of "
                "different models."
            )
        ids = {token: i for i, token in enumerate(tokens)}
        if unknown not in ids:
            raise TokenizerError(f"the tokens lack {unknown!r}, which unknown words become.")
        self._ids, self._unknown = ids, ids[unknown]
        self._split, self._by_character = splitter or split_characters, splitter is not None

    def logits(self, ids: npt.ArrayLike | mx.array, seen: int = 0) -> mx.array:
        """Words' ids `[L]` or `[B, L]` -> `[L, P]` or `[B, L, P]`: what may stand after each.

        seen: how many came with earlier pieces of the text; only a streaming model takes note. InputError for other
        shapes.
        """
        words = mx.array(ids) if isinstance(ids, mx.array) else mx.array(np.asarray(ids, np.int32))
        if words.ndim not in (1, 2):
            raise InputError(f"ids must be [L] or [B, L]; found {list(words.shape)}.")
        if words.ndim == 1:
            return self.logits(words[None], seen)[0]
        if not words.size:
            return mx.zeros((*words.shape, len(self.config.punc_list)))
        return self.decoder(self._encode(self.embed(words), seen))

    def __call__(self, text: str, split_size: int = 20) -> str:
        """The text with marks. split_size: how many words are taken in at a time, 2 or more. Raises InputError."""
        return self.restore(text, split_size).text

    def restore(self, text: str, split_size: int = 20) -> Punctuated:
        """As `punctuation(text)`, with words and marks. Chinese and English words have marks of their own."""
        words, marks, written = self.words(text), list[int](), ""
        if not words:
            return Punctuated("", [], [])
        for part, found in self._windows(words, split_size):
            marks += found
            written += self._written(part, found)
        written, ended = _ended(written)
        if ended:
            marks[-1] = self.config.sentence_end_id
        if self._by_character:
            marks = [mark for word, last in zip(words, marks, strict=True) for mark in _spread(word, last)]
        return Punctuated(written, words, marks)

    def words(self, text: str) -> list[str]:
        """What a text is taken for. Raises InputError."""
        if not isinstance(text, str):
            raise InputError(f"text must be a string; found {type(text).__name__}.")
        return self._split(text)

    def _windows(self, words: list[str], size: int, seen: int = 0) -> Iterator[tuple[list[str], list[int]]]:
        """The words in parts, with what stands after each: a window's sentences that are certain, then the rest."""
        if isinstance(size, bool) or not isinstance(size, int) or size < 2:
            raise InputError(f"split_size must be 2 words or more; found {size!r}.")
        if self._ids is None:
            raise TokenizerError("the model has no tokens. Load its folder with load_punctuation, or give use_tokens.")
        ids = [self._ids.get(word, self._unknown) for word in words]
        first = 0
        for end in range(size, len(words) + size, size):
            marks: list[int] = np.asarray(mx.argmax(self.logits(ids[first:end], seen), axis=-1)).tolist()
            certain = self._certain(marks) if end < len(words) else len(marks)
            yield words[first : first + certain], marks[:certain]
            first += certain

    def _encode(self, x: mx.array, seen: int) -> mx.array:
        return self.encoder(x)

    def _certain(self, marks: list[int]) -> int:
        """How many words the sentences have that won't change; a comma becomes the end of one that is too long."""
        names = [self.config.punc_list[mark] for mark in marks]
        for i in range(len(marks) - 2, 1, -1):
            if names[i] in _ENDS:
                return i + 1
        if len(marks) > _LONG:
            for i in range(len(marks) - 2, 1, -1):
                if names[i] == _COMMA:
                    marks[i] = self.config.sentence_end_id
                    return i + 1
        return 0

    def _written(self, words: list[str], marks: list[int]) -> str:
        """Words and marks as text: a space before an English word after another and before one that begins the part,
        sentences with a capital.
        """
        names = [self.config.punc_list[mark] for mark in marks]
        text = []
        for i, (word, name) in enumerate(zip(words, names, strict=True)):
            english = is_ascii(word[0])
            if english and (i == 0 or names[i - 1] in _ENDS):
                word = word.capitalize()
            if english and (i == 0 or is_ascii(words[i - 1][0])):
                word = " " + word
            text += [word, "" if name == _NO_MARK else _ASCII_MARKS.get(name, name) if english else name]
        return "".join(text)


class StreamingPunctuation(Punctuation):
    """CT-Transformer for a text that is still being spoken."""

    model_type = "ct-transformer-streaming"
    kind = "CTTransformerStreaming"
    encoder_kind = "SANMVadEncoder"

    def restore(self, text: str, split_size: int = 20) -> Punctuated:
        """A text's only piece, as `stream` gives it: the mark after its last word would come with the next."""
        return self.stream(split_size).restore(text)

    def stream(self, split_size: int = 20) -> PunctuationStream:
        """For a text that comes in pieces."""
        return PunctuationStream(self, split_size)

    def _encode(self, x: mx.array, seen: int) -> mx.array:
        """A word attends to those up to it. In the last layer it attends to all, but those of earlier pieces except
        the last attend to none of this one's.
        """
        count, encoder = x.shape[1], self.encoder
        words = np.arange(count)
        earlier = words[None] <= words[:, None]
        hidden = (words[:, None] < seen - 1) & (words[None] >= seen) & (0 < seen < count)
        x = encoder.embed(x)
        for layer in encoder.layers:
            last = len(encoder.layers) > 1 and layer is encoder.layers[-1]
            x = _attended(layer, x, self.encoder_config.attention_heads, mx.array(~hidden if last else earlier))
        return encoder.after_norm(x)


class PunctuationStream:
    """A text that comes in pieces."""

    def __init__(self, punctuation: StreamingPunctuation, split_size: int) -> None:
        self._punctuation, self._split_size = punctuation, split_size
        self._kept: list[str] = []  # the words since the last sentence that is certain, with the spaces before them

    def feed(self, text: str) -> str:
        """The next piece -> it with marks, after the one that belongs after the last piece."""
        return self.restore(text).text

    def restore(self, text: str) -> Punctuated:
        """As `feed`, with the piece's words and marks."""
        model, seen = self._punctuation, len(self._kept)
        words, marks = list[str](), list[int]()
        for part, found in model._windows(model.words("".join(self._kept) + " " + text), self._split_size, seen):
            words, marks = words + part, marks + found
        names = [model.config.punc_list[mark] for mark in marks]
        spaced = [
            " " + word if i and is_ascii(word[0]) and is_ascii(words[i - 1][0]) else word
            for i, word in enumerate(words)
        ]
        written = ""
        for i in range(max(0, seen - 1), len(words)):
            written += (spaced[i] if i >= seen else "") + ("" if names[i] == _NO_MARK else names[i])
        self._kept = spaced[next((i + 1 for i in range(len(words) - 2, 1, -1) if names[i] in _ENDS), 0) :]
        if written and written[-1] in model.config.punc_list:
            written = written[:-1]
            marks[-1] = model.config.punc_list.index(_NO_MARK)
        return Punctuated(written, words[seen:], marks[seen:])


@backend.worker_streams()
def load_punctuation(path: str | Path) -> Punctuation:
    """The punctuation of FunASR's folder (config.yaml, model.pt, tokens.json, jieba_usr_dict) or of a converted one.

    Raises MissingCheckpointError where there is none; ConfigError, WeightsError and TokenizerError for one that doesn't
    fit.
    """
    folder = open_folder(path)
    kinds: dict[str, type[Punctuation]] = {cls.kind: cls for cls in (Punctuation, StreamingPunctuation)}
    if folder.kind not in kinds:
        raise ConfigError(f"{path} holds a {folder.kind!r}; expected {' or '.join(kinds)}. Give punctuation's folder.")
    cls = kinds[folder.kind]
    punctuation = cls.from_state_dict(folder.config, folder.weights())
    # The streaming model takes no note of jieba's words.
    dictionary = None if cls is StreamingPunctuation else folder.file("jieba_usr_dict")
    unknown = folder.table("tokenizer_conf").get("unk_symbol", _UNKNOWN)
    punctuation.use_tokens(folder.tokens(), jieba_splitter(dictionary) if dictionary else None, str(unknown))
    return punctuation


def _attended(layer: SANMLayer, x: mx.array, heads: int, mask: mx.array) -> mx.array:
    """A layer of the encoder whose attention sees what the mask `[L, L]` shows; its memory looks both ways."""
    attention = layer.self_attn
    q, k, v = attention.project(layer.norm1(x))
    B, L, D = q.shape
    split = [y.reshape(B, L, heads, D // heads).transpose(0, 2, 1, 3) for y in (q, k, v)]  # [B, H, L, D / H]
    found = scaled_dot_product_attention(*split, scale=(D // heads) ** -0.5, mask=mask)
    mixed = attention.linear_out(found.transpose(0, 2, 1, 3).reshape(B, L, D))
    return layer.finish(x, mixed + attention.fsmn_block(v))


def _ended(text: str) -> tuple[str, bool]:
    """The text with an end of a sentence, and whether it had none."""
    last = text[-1]
    if last in (_COMMA, _LIST_COMMA):
        return text[:-1] + _STOP, True
    if last == ",":
        return text[:-1] + ".", True
    if is_ascii(last):
        return (text, False) if last in ".?" else (text + ".", True)
    return (text, False) if last in _ENDS else (text + _STOP, True)


def _spread(word: str, mark: int) -> list[int]:
    """A word's mark for each of its characters, where those have none between them."""
    characters = len(word) if "\u0e00" <= word[0] <= "\u9fa5" else 1
    return [_NO_MARK_ID] * (characters - 1) + [mark]
