"""Cantonese (the extra `yue`): Jyutping by ToJyutping, an initial and a final with its tone for each syllable.

The phones are the networks' own: "Y" and then the initial, "Y" and then the rest of the syllable with its tone. A
syllable without an initial is cut all the same: "aa3" is `Yaa Ya3`, "m4" is `Ym Ym4`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from .chinese import normalize_officially, say_numbers
from .extras import missing
from .phones import PUNCTUATION, UNKNOWN, is_known

# Tried in this order; what a syllable begins with is its first phone.
_INITIALS = (
    "aa", "ai", "au", "ap", "at", "ak", "a", "p", "b", "e", "t", "d", "kw", "k", "gw", "g", "f", "h", "l", "m",
    "ng", "n", "s", "w", "c", "z", "j", "ong", "on", "ou", "oi", "ok", "o", "uk", "ung",
)  # fmt: skip
_MARKS = {
    "：": ",", "；": ",", "，": ",", "。": ".", "！": "!", "？": "?", "\n": ".", "·": ",", "、": ",", "...": "…", "$": ".",
    "—": "-", "～": "-", "~": "-",
}  # fmt: skip
_MARK = re.compile("|".join(map(re.escape, _MARKS)))
_OTHER = re.compile(r"[^\u4e00-\u9fa5!?…,.\-]+")
_PAUSES = str.maketrans(
    dict.fromkeys("：；，、:;·（）()[]【】〔〕「」『』《》〈〉—–-/|_~～\t", ",")
    | {"。": ".", "！": "!", "？": "?", "\n": "."}
)
_RUN = re.compile(r"[!?…,.]{2,}")
_WEAKEST_FIRST = ",….!?"
_SYLLABLE = re.compile(r"([a-z]+)([1-6])")


def normalize(text: str, *, exact: bool = False) -> str:
    """Text as it is read: Chinese characters that have a reading, and the marks `!?…,.-`.

    `exact` is the official way: simplified characters of the basic block only. The default leaves the characters as
    they are written, which tell more readings apart, and keeps those of the other blocks (㗎, 𠵱).

    Raises:
        MissingExtraError: ToJyutping isn't installed.
    """
    if exact:
        text = normalize_officially(text)
        text = _OTHER.sub("", _MARK.sub(lambda match: _MARKS[match[0]], text))
    else:
        text = say_numbers(text, "yue").replace("...", "…").translate(_PAUSES)
    kept = "".join(character for character, syllables in _readings(text) if character in PUNCTUATION or syllables)
    return kept if exact else _RUN.sub(lambda match: max(match[0], key=_WEAKEST_FIRST.index), kept).lstrip(",")


def pronounce(text: str, *, exact: bool = False) -> tuple[list[str], list[int]]:
    """The phones of a normalised text, and how many each of its characters has (their sum is the number of phones).

    Version 1 has no Cantonese. A character of two syllables (卅 is "saa1 aa6") has four phones; in the exact mode its
    second phone is unknown, as in the official front end.

    Raises:
        MissingExtraError: ToJyutping isn't installed.
    """
    phones: list[str] = []
    word2ph: list[int] = []
    for character, syllables in _readings(text):
        names = [character] if character in PUNCTUATION else list(_phones(syllables, exact=exact))
        phones += names
        word2ph.append(len(names))
    return phones, word2ph


def _readings(text: str) -> list[tuple[str, str]]:
    """Each character with its Jyutping, "" if it has none."""
    try:
        import ToJyutping
    except ImportError as error:
        raise missing("Cantonese", "yue", error) from error
    return [(character, found or "") for character, found in ToJyutping.get_jyutping_list(text)]


def _phones(syllables: str, *, exact: bool) -> Iterator[str]:
    if exact and " " in syllables:
        yield "Y" + _initial(syllables)
        yield UNKNOWN
        return
    for body, tone in _SYLLABLE.findall(syllables):
        initial = _initial(body)
        yield from (
            name if is_known(name) else UNKNOWN
            for name in (f"Y{initial}", f"Y{body[len(initial) :] or initial[-1]}{tone}")
        )


def _initial(syllable: str) -> str:
    return next((initial for initial in _INITIALS if syllable.startswith(initial)), "")
