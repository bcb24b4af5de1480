"""Stretches of one language, the languages that may be asked for, and the scripts that tell them apart."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from mlx_core.errors import InputError

LANGUAGES = (
    "auto", "auto_yue", "zh", "en", "ja", "ko", "yue", "all_zh", "all_ja", "all_ko", "all_yue",
)  # fmt: skip

# Parts of a regular expression's character class.
KANA = r"\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f"
HAN = r"\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
LATIN = r"A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\uff21-\uff3a\uff41-\uff5a"
HANGUL = r"\u1100-\u11ff\u3130-\u318f\uac00-\ud7af"


class Span(NamedTuple):
    """A stretch of one language: zh, en, ja, ko or yue."""

    language: str
    text: str


def check_language(language: str) -> None:
    """Raise InputError if there is no such language."""
    if language not in LANGUAGES:
        raise InputError(f"there is no language {language!r}; there are {', '.join(LANGUAGES)}")


def single_spaced(text: str) -> str:
    """The text with runs of spaces made one."""
    return re.sub(" {2,}", " ", text)


def join(spans: Iterable[Span]) -> list[Span]:
    """Neighbours of one language made one; those of no language ("") go with the one before, or with the next."""
    result: list[Span] = []
    for span in spans:
        if result and (span.language == result[-1].language or not span.language or not result[-1].language):
            result[-1] = Span(result[-1].language or span.language, result[-1].text + span.text)
        elif span.text:
            result.append(span)
    return result
