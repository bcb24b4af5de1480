"""Pinyin, and the phones that a syllable has.

A reading is a syllable and a tone: ("zhong", "1"). What has no reading (a punctuation mark) is itself, without a tone.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

from ..resources import data_lines

Reading = tuple[str, str]

# Interjections that have no vowel, as the nearest syllable: 嗯, 呣, 哼.
_VOWELLESS = {"n": "en", "ng": "en", "m": "mu", "hm": "heng", "hng": "heng", "ê": "ei"}
_TONED = re.compile(r"([a-zêü]+)([1-5])")


@cache
def _syllables() -> dict[str, tuple[str, str]]:
    lines = data_lines("syllables.txt")
    table = {syllable: (initial, final) for syllable, initial, final in (line.split() for line in lines)}
    return table | {name: table[nearest] for name, nearest in _VOWELLESS.items()}


def phones(reading: Reading) -> list[str]:
    """The two phones of a syllable, or the mark itself."""
    syllable, tone = reading
    if not tone:
        return [syllable]
    initial, final = _syllables()[syllable]
    return [initial, final + tone]


def parse(text: str) -> Reading | None:
    """A reading from pinyin with a digit (hang2, lv4, lü4; a neutral tone is 5 or no digit), None if it isn't
    pinyin.
    """
    match = _TONED.fullmatch(text if text[-1:].isdigit() else text + "5")
    if match is None:
        return None
    syllable = match[1].replace("ü", "v")
    return (syllable, match[2]) if syllable in _syllables() else None


def readings(text: str) -> list[Reading]:
    """The dictionary's reading of each character, by pypinyin's phrases and, outside them, its commonest reading."""
    return list(_readings(text))


@lru_cache(maxsize=1 << 15)
def _readings(text: str) -> tuple[Reading, ...]:
    return tuple(parse(name) or (character, "") for character, name in zip(text, _pypinyin()(text), strict=True))


@cache
def _pypinyin() -> Callable[[str], list[str]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pypinyin import Style, lazy_pinyin
    # A callable may return a list, one entry for each character without a reading; the types only know strings.
    split: Any = list
    return lambda text: lazy_pinyin(text, style=Style.TONE3, neutral_tone_with_five=True, errors=split)


@cache
def is_readable(character: str) -> bool:
    """Whether the dictionary has a reading for a character."""
    return bool(readings(character)[0][1])
