"""Word segmentation for punctuation: characters of scripts without spaces, or words that jieba finds; runs of ASCII.

Reference: FunASR 1.4.16, `models/ct_transformer/utils.py`.
"""

from __future__ import annotations

import itertools
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from mlx_core.errors import TokenizerError

Splitter = Callable[[str], list[str]]

_ENGLISH = re.compile(r"[a-zA-Z']+")
_RUNS = re.compile(r"[\x00-\x7f]+|[^\x00-\x7f]")


def is_ascii(character: str) -> bool:
    """Whether a character is ASCII, as letters and digits of words with spaces between them are."""
    return character < "\x80"


def split_characters(text: str) -> list[str]:
    """Runs of ASCII without spaces, and each other character."""
    return [word for part in text.split() for word in _RUNS.findall(part)]


def jieba_splitter(dictionary: Path) -> Splitter:
    """Words as jieba finds them with a dictionary of one's own added: English ones as they are between spaces.

    Raises TokenizerError for a file that jieba can't read.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # jieba 0.42.1 has escapes in its patterns that Python warns of
        import jieba

    # Its own `initialize` would write to stderr and leave a cache in the folder for temporary files.
    tokenizer = jieba.Tokenizer()
    tokenizer.FREQ, tokenizer.total = tokenizer.gen_pfdict(tokenizer.get_dict_file())
    tokenizer.initialized = True
    try:
        with dictionary.open("rb") as file:
            tokenizer.load_userdict(file)
    except (OSError, ValueError) as error:
        raise TokenizerError(f"{dictionary} isn't a dictionary that jieba reads: {error}.") from error

    def split(text: str) -> list[str]:
        return list(_split_by_language(text, lambda run: list(tokenizer.cut(run, HMM=False))))

    return split


def _split_by_language(text: str, split: Splitter) -> Iterator[str]:
    for english, group in itertools.groupby(text.split(), lambda part: _ENGLISH.fullmatch(part) is not None):
        run = list(group)
        yield from run if english else split("".join(run))
