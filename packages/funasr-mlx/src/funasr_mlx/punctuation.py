"""Punctuation for text that has none, by a CT-Transformer.

Words pass the network, and after each stands the likeliest of a few marks. Long texts go through in windows, which
begin after the last sentence that later words won't change; so a mark is decided by the words before and after it.
Reference: FunASR 1.4.16, `models/ct_transformer` and `models/ct_transformer_streaming`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np

from mlx_core import backend
from mlx_core.errors import ConfigError, InputError, TokenizerError

from .folder import open_folder
from .networks import PUNCTUATION, CTTransformer, StreamingCTTransformer
from .text import (
    ENDS,
    NO_MARK,
    UNKNOWN,
    PunctuationMarks,
    Splitter,
    end_sentence,
    is_ascii,
    jieba_splitter,
    split_characters,
    spread_mark,
)


@dataclass(frozen=True)
class Punctuated:
    """A text with its marks."""

    text: str
    words: list[str]
    """The words that the text was split into, without marks."""
    marks: list[int]
    """Places in `punc_list`: of the mark after each word; where words are jieba's, after each character of a
    Chinese one.
    """


class Punctuation:
    """A network with its vocabulary: `punctuation(text)`. `load_punctuation` makes one of a folder."""

    def __init__(
        self, network: CTTransformer, tokens: Sequence[str], splitter: Splitter | None = None, unknown: str = UNKNOWN
    ) -> None:
        """tokens: the words by their ids. splitter: how a text is split into words, characters and runs of ASCII by
        default. unknown: the token of other words. Raises TokenizerError for tokens that don't fit.
        """
        if len(tokens) != network.vocabulary:
            raise TokenizerError(
                f"there are {len(tokens)} tokens, but embeddings for {network.vocabulary}. They are of different models."
            )
        ids = {token: i for i, token in enumerate(tokens)}
        if unknown not in ids:
            raise TokenizerError(f"the tokens lack {unknown!r}, the token of unknown words.")
        self.network = network
        self.marks = PunctuationMarks(network.config.punc_list, network.config.sentence_end_id)
        self._ids, self._unknown = ids, ids[unknown]
        self._split, self._by_character = splitter or split_characters, splitter is not None

    def __call__(self, text: str, split_size: int = 20) -> str:
        """The text with marks. split_size: words in a window, 2 or more. Raises InputError."""
        return self.restore(text, split_size).text

    def restore(self, text: str, split_size: int = 20) -> Punctuated:
        """As `punctuation(text)`, with words and marks. Chinese and English words have marks of their own."""
        words, marks, written = self.words(text), list[int](), ""
        if not words:
            return Punctuated("", [], [])
        for part, found in self._windows(words, split_size):
            marks += found
            written += self.marks.write(part, found)
        written, ended = end_sentence(written)
        if ended:
            marks[-1] = self.marks.sentence_end_id
        if self._by_character:
            marks = [mark for word, last in zip(words, marks, strict=True) for mark in spread_mark(word, last)]
        return Punctuated(written, words, marks)

    def words(self, text: str) -> list[str]:
        """The words that a text is split into. Raises InputError."""
        if not isinstance(text, str):
            raise InputError(f"text must be a string; found {type(text).__name__}.")
        return self._split(text)

    def _windows(self, words: list[str], size: int, seen: int = 0) -> Iterator[tuple[list[str], list[int]]]:
        """The words in parts, with the mark after each: a window's sentences that are settled, then the rest."""
        if isinstance(size, bool) or not isinstance(size, int) or size < 2:
            raise InputError(f"split_size must be 2 words or more; found {size!r}.")
        ids = [self._ids.get(word, self._unknown) for word in words]
        first = 0
        for end in range(size, len(words) + size, size):
            marks: list[int] = np.asarray(mx.argmax(self.network(ids[first:end], seen), axis=-1)).tolist()
            settled = self.marks.settle(marks) if end < len(words) else len(marks)
            yield words[first : first + settled], marks[:settled]
            first += settled


class StreamingPunctuation(Punctuation):
    """Punctuation for a text that is still being spoken."""

    network: StreamingCTTransformer

    def restore(self, text: str, split_size: int = 20) -> Punctuated:
        """A text's only piece, as `stream` gives it: the mark after its last word would come with the next."""
        return self.stream(split_size).restore(text)

    def stream(self, split_size: int = 20) -> PunctuationStream:
        """For a text that comes in pieces."""
        return PunctuationStream(self, split_size)


class PunctuationStream:
    """A text that comes in pieces."""

    def __init__(self, punctuation: StreamingPunctuation, split_size: int) -> None:
        self._punctuation, self._split_size = punctuation, split_size
        self._kept: list[str] = []  # the words since the last sentence that is settled, with the spaces before them

    def feed(self, text: str) -> str:
        """The next piece -> it with marks, after the one that belongs after the last piece."""
        return self.restore(text).text

    def restore(self, text: str) -> Punctuated:
        """As `feed`, with the piece's words and marks."""
        model, seen = self._punctuation, len(self._kept)
        words, marks = list[str](), list[int]()
        for part, found in model._windows(model.words("".join(self._kept) + " " + text), self._split_size, seen):
            words, marks = words + part, marks + found
        names = model.marks.of(marks)
        spaced = [
            " " + word if i and is_ascii(word[0]) and is_ascii(words[i - 1][0]) else word
            for i, word in enumerate(words)
        ]
        written = ""
        for i in range(max(0, seen - 1), len(words)):
            written += (spaced[i] if i >= seen else "") + ("" if names[i] == NO_MARK else names[i])
        self._kept = spaced[next((i + 1 for i in range(len(words) - 2, 1, -1) if names[i] in ENDS), 0) :]
        if written and written[-1] in model.marks.names:
            written = written[:-1]
            marks[-1] = model.marks.names.index(NO_MARK)
        return Punctuated(written, words[seen:], marks[seen:])


@backend.worker_streams()
def load_punctuation(path: str | Path) -> Punctuation:
    """The punctuation of FunASR's folder (config.yaml, model.pt, tokens.json, jieba_usr_dict), of a converted one, or
    of a hub id.

    Raises MissingCheckpointError where there is none, HubError; ConfigError, WeightsError and TokenizerError for one
    that doesn't fit.
    """
    folder = open_folder(path)
    if folder.kind not in PUNCTUATION:
        raise ConfigError(
            f"{path} holds a {folder.kind!r}; expected {' or '.join(PUNCTUATION)}. Give punctuation's folder or hub id."
        )
    network = PUNCTUATION[folder.kind].from_state_dict(folder.config, folder.weights(), consume=True)
    tokens, unknown = folder.tokens(), str(folder.table("tokenizer_conf").get("unk_symbol", UNKNOWN))
    if isinstance(network, StreamingCTTransformer):  # which takes no note of jieba's words
        return StreamingPunctuation(network, tokens, unknown=unknown)
    dictionary = folder.file("jieba_usr_dict")
    return Punctuation(network, tokens, jieba_splitter(dictionary) if dictionary else None, unknown)
