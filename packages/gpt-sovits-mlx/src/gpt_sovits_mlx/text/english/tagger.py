"""Parts of speech of English words, by an averaged perceptron.

The tagger is Matthew Honnibal's, as NLTK has it (https://explosion.ai/blog/part-of-speech-pos-tagger-in-python); the
weights are those of textblob-aptagger 0.2.0, in thousandths. Only homographs hang on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from ..resources import data
from .lexicon import integers


class Tagger:
    """Penn Treebank tags for words, one after the other, each from its neighbours and the two tags before it."""

    def __init__(self, raw: bytes) -> None:
        """`raw`: the head's size and the number of weights (4 bytes each, little end first), the head (the tags; the
        words of one tag; a blank line; the features), how many weights each feature has (uint8), each weight's tag
        (uint8), and the weights in three planes of bytes, lowest first, in two's complement.
        """
        head_size, n_weights = (int.from_bytes(raw[i : i + 4], "little") for i in (0, 4))
        tags, *lines = raw[8 : 8 + head_size].decode().split("\n")
        self._tags = tags.split(" ")
        blank = lines.index("")
        self._certain = dict(line.split("\t") for line in lines[:blank])
        features = lines[blank + 1 :]
        body = np.frombuffer(raw, np.uint8, offset=8 + head_size)
        ends = np.cumsum(body[: len(features)], dtype=np.int64).tolist()
        self._spans = dict(zip(features, zip([0, *ends[:-1]], ends, strict=True), strict=True))
        self._labels: list[int] = body[len(features) : len(features) + n_weights].tolist()
        self._weights: list[int] = integers(body[len(features) + n_weights :].reshape(3, n_weights)).tolist()

    def tag(self, words: Sequence[str]) -> list[str]:
        """One tag a word."""
        context = ["-START-", "-START2-", *map(_normal, words), "-END-", "-END2-"]
        before, last = "-START2-", "-START-"
        found = []
        for i, word in enumerate(words):
            tag = self._certain.get(word) or self._predict(i + 2, word, context, last, before)
            found.append(tag)
            before, last = last, tag
        return found

    def _predict(self, i: int, word: str, context: list[str], last: str, before: str) -> str:
        features = (
            "bias",
            f"i suffix {word[-3:]}",
            f"i pref1 {word[:1]}",
            f"i-1 tag {last}",
            f"i-2 tag {before}",
            f"i tag+i-2 tag {last} {before}",
            f"i word {context[i]}",
            f"i-1 tag+i word {last} {context[i]}",
            f"i-1 word {context[i - 1]}",
            f"i-1 suffix {context[i - 1][-3:]}",
            f"i-2 word {context[i - 2]}",
            f"i+1 word {context[i + 1]}",
            f"i+1 suffix {context[i + 1][-3:]}",
            f"i+2 word {context[i + 2]}",
        )
        scores = [0] * len(self._tags)
        for feature in features:
            start, end = self._spans.get(feature, (0, 0))
            for at in range(start, end):
                scores[self._labels[at]] += self._weights[at]
        # Of equals, the last in the alphabet: the tags are in its order.
        return max(zip(scores, self._tags, strict=True))[1]


def _normal(word: str) -> str:
    if "-" in word and word[0] != "-":
        return "!HYPHEN"
    return word.lower()


@cache
def tagger() -> Tagger:
    """The tagger, read when first asked for."""
    return Tagger(data("english_tagger.bin.gz"))
