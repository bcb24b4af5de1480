"""The English dictionary of the official front end, its names and its homographs, and the splitting of compounds.

`data/LICENSES.md` says where the lists come from. They are read when first asked for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..resources import data_lines

_LONGEST = 24  # letters of a part, as wordsegment has it
_CHUNK = 250  # letters that are split at once
_TOTAL = 1024908267229.0  # words of the corpus behind the counts


def integers(planes: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Whole numbers of three bytes in two's complement, from their planes of bytes (lowest first): [3, ...] ->
    [...].
    """
    low, middle, high = planes.astype(np.int32)
    unsigned = low | middle << 8 | high << 16
    return (unsigned - ((unsigned >> 23) << 24)).astype(np.int32)


def _pronunciations(name: str) -> dict[str, str]:
    return dict(line.split(" ", 1) for line in data_lines(name))


@cache
def words() -> dict[str, str]:
    """Word in lower case -> its phones, set apart by spaces: 126 thousand words."""
    return _pronunciations("english_words.txt.gz")


@cache
def names() -> dict[str, str]:
    """Given names and surnames that `words` lacks, in lower case -> their phones: 20 thousand."""
    return _pronunciations("english_names.txt.gz")


@dataclass(frozen=True)
class Homograph:
    """A word of two pronunciations: `first` where its part of speech is `tag` (or begins with it), else `second`."""

    first: str
    second: str
    tag: str


@cache
def homographs() -> dict[str, Homograph]:
    """The words whose pronunciation hangs on the part of speech."""
    rows = (line.split("|") for line in data_lines("english_homographs.txt"))
    return {word: Homograph(first, second, tag) for word, first, second, tag in rows}


@cache
def _counts() -> tuple[dict[str, float], dict[str, float]]:
    import wordsegment

    wordsegment.load()
    return wordsegment.UNIGRAMS, wordsegment.BIGRAMS


# A split of the rest of a text: its score, then its first part with the split of what follows; () ends it.
_Split = tuple[float, tuple[Any, ...]]


def _best_split(text: str) -> list[str]:
    """The likeliest split of `text` by counts of words and of pairs of words; of equals, the last in the alphabet.

    wordsegment's sums in wordsegment's order, but from the end of the text and without recursion.
    """
    unigrams, bigrams = _counts()
    size = len(text)
    # best[i, n] splits text[i:] after a part of n letters (at the start, n = 0).
    best: dict[tuple[int, int], _Split] = {(size, n): (0.0, ()) for n in range(_LONGEST + 1)}
    for i in range(size - 1, -1, -1):
        parts = [text[i : i + n] for n in range(1, min(_LONGEST, size - i) + 1)]
        rests = [best[i + len(part), len(part)] for part in parts]
        splits = [(_score(part) + rest[0], (part, rest[1])) for part, rest in zip(parts, rests, strict=True)]
        likeliest = max(splits)
        known = [k for k, part in enumerate(parts) if part in unigrams]
        for n in range(1, min(_LONGEST, i) + 1) if i else (0,):
            best[i, n] = likeliest
            previous = text[i - n : i]
            if previous not in unigrams:
                continue
            pairs = {k: bigrams[pair] for k in known if (pair := f"{previous} {parts[k]}") in bigrams}
            if pairs:
                before = unigrams[previous] / _TOTAL
                after = list(splits)
                for k, count in pairs.items():
                    after[k] = (math.log10(count / _TOTAL / before) + rests[k][0], splits[k][1])
                best[i, n] = max(after)
    found = []
    rest = best[0, 0][1] if size else ()
    while rest:
        part, rest = rest
        found.append(part)
    return found


@lru_cache(maxsize=65536)
def _score(part: str) -> float:
    count = _counts()[0].get(part)
    return math.log10(count / _TOTAL if count is not None else 10.0 / (_TOTAL * 10 ** len(part)))


def split_compound(word: str) -> list[str]:
    """A run of letters -> the words that it is most likely made of: "openaifans" -> ["openai", "fans"].

    Anything but ASCII letters and digits is left out. Time is linear: 250 letters are split at once, and the last five
    parts of a chunk are split again with the next one.
    """
    letters = "".join(c for c in word.lower() if c.isascii() and c.isalnum())
    done: list[str] = []
    held = ""
    for start in range(0, len(letters), _CHUNK):
        parts = _best_split(held + letters[start : start + _CHUNK])
        held = "".join(parts[-5:])
        done += parts[:-5]
    return done + _best_split(held)
