"""Chinese words and their parts of speech, by jieba.

jieba's own module-level tokenizer is left alone, and so are its log and the cache file that it would keep in the
temporary directory: the dictionary is read once a process, on first use (about a second).
"""

from __future__ import annotations

import threading
import warnings
from functools import cache, lru_cache
from typing import Any

Word = tuple[str, str]  # the word and jieba's tag: n noun, v verb, m number, x mark ...

_LOCK = threading.Lock()


@lru_cache(maxsize=1 << 12)
def words(text: str) -> tuple[Word, ...]:
    """The words of a text, with their tags."""
    return tuple((pair.word, pair.flag) for pair in _jieba()[1].cut(text))


@lru_cache(maxsize=1 << 15)
def halves(word: str) -> tuple[str, str]:
    """A word in two, at its shortest known part: 纸老虎 is 纸 and 老虎. The second half of a single character is empty."""
    parts = sorted(_jieba()[0].cut_for_search(word), key=len)
    shortest = parts[0] if parts else word
    if word.startswith(shortest):
        return shortest, word[len(shortest) :]
    return word[: -len(shortest)], shortest


def _jieba() -> tuple[Any, Any]:
    with _LOCK:
        return _load()


@cache
def _load() -> tuple[Any, Any]:
    with warnings.catch_warnings():
        # jieba 0.42.1 has escape sequences, and an import, that newer Pythons warn about.
        warnings.simplefilter("ignore")
        import jieba
        import jieba.posseg
    tokenizer = jieba.Tokenizer()
    # What initialize() does, without its cache file and its messages.
    tokenizer.FREQ, tokenizer.total = tokenizer.gen_pfdict(tokenizer.get_dict_file())
    tokenizer.initialized = True
    return tokenizer, jieba.posseg.POSTokenizer(tokenizer)
