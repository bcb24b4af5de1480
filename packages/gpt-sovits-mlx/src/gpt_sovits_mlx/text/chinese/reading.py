"""Mandarin: text to the phones of the networks, one or two for each character.

The exact mode does what the official front end does without its g2pW model: jieba's words, pypinyin's readings, tone
changes. In version 1 the readings are looked up word by word and 儿 is a syllable of its own; later versions look up
whole clauses, so that phrases are found across jieba's words, and let 儿 take the tone before it. The default mode
does that for every version, and knows more: `polyphones`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ..splits import squeeze_marks
from . import official, pinyin, tones
from . import polyphones as own_readings
from .characters import GREEK, NUMBERED, half_width, simplify
from .g2pw import Polyphones
from .normalization import say_numbers
from .words import words

_MARKS = {
    "：": ",", "；": ",", "，": ",", "。": ".", "！": "!", "？": "?", "\n": ".", "·": ",", "、": ",", "...": "…", "$": ".",
    "/": ",", "—": "-", "~": "…", "～": "…",
}  # fmt: skip
_MARK = re.compile("|".join(map(re.escape, _MARKS)))
_UNREADABLE = re.compile(r"[^\u4e00-\u9fa5!?…,.\-]+")
_CLAUSE = re.compile(r"[^!?…,.\-]*[!?…,.\-]|[^!?…,.\-]+")

# In the default mode brackets, dashes and colons are pauses; quotation marks are nothing.
_PAUSES = str.maketrans(
    NUMBERED
    | GREEK
    | dict.fromkeys("：；，、:;·（）()[]【】〔〕—–-/|_~～\t", ",")
    | {"。": ".", "！": "!", "？": "?", "\n": "."}
)
_KEPT = re.compile("[^\u4e00-\u9fa5!?…,.\U000f0000-\U000ffffd]+")
_RUN = re.compile(r"[!?…,.]{2,}")
_WEAKEST_FIRST = ",….!?"

# What stands for a special silence in the official code, which turns every pause of the text into it.
_SPECIAL = {"￥": "SP2", "^": "SP3"}


def normalize(text: str, *, exact: bool = False) -> str:
    """Text as it is read: simplified characters and the marks `!?…,.-`, nothing else.

    `exact` is the official way. Otherwise characters of the private area from U+F0000 on are kept too: the front end
    marks chosen readings with them.
    """
    if exact:
        text = _MARK.sub(lambda match: _MARKS[match[0]], _hum(official.normalize(text)))
        text = squeeze_marks(_UNREADABLE.sub("", text))
    else:
        text = _hum(half_width(simplify(say_numbers(text, "zh")))).replace("...", "…").translate(_PAUSES)
        text = _RUN.sub(lambda match: max(match[0], key=_WEAKEST_FIRST.index), _KEPT.sub("", text)).lstrip(",")
    return "".join(c for c in text if not "\u4e00" <= c <= "\u9fa5" or pinyin.is_readable(c))


def _hum(text: str) -> str:
    return text.replace("嗯", "恩").replace("呣", "母")


def pronounce(
    text: str,
    *,
    exact: bool = False,
    version: str = "v2",
    chosen: Mapping[int, pinyin.Reading] | None = None,
    polyphones: Polyphones | None = None,
) -> tuple[list[str], list[int]]:
    """The phones of a normalised text, and how many each of its characters has (their sum is the number of phones).

    Args:
        text: what `normalize` returned.
        exact: read as the official front end does; otherwise our own phrases and rules come first.
        version: in the exact mode "v1" reads word by word.
        chosen: readings that are given, by the character's index in `text`; tone changes leave them alone.
        polyphones: a model for characters with several readings; version 1 never had one in the exact mode.
    """
    phones: list[str] = []
    word2ph: list[int] = []
    for clause in _CLAUSE.finditer(text):
        given = {index - clause.start(): reading for index, reading in (chosen or {}).items()} if chosen else {}
        by_word = version == "v1"
        read = _read_officially(clause[0], by_word, polyphones) if exact else _read(clause[0], given, polyphones)
        for reading in read:
            names = pinyin.phones(reading)
            phones += names
            word2ph.append(len(names))
    return phones, word2ph


def pronounce_officially(
    text: str, version: str, polyphones: Polyphones | None = None
) -> tuple[str, list[str], list[int]]:
    """The normalised text of a segment, its phones and their number for each character, as the official
    `clean_text`.
    """
    special = next((sign for sign in _SPECIAL if sign in text), None)
    normalized = normalize(text.replace(special, ",") if special else text, exact=True)
    phones, word2ph = pronounce(normalized, exact=True, version=version, polyphones=polyphones)
    return normalized, [_SPECIAL[special] if special and phone == "," else phone for phone in phones], word2ph


def _read_officially(clause: str, by_word: bool, polyphones: Polyphones | None) -> list[pinyin.Reading]:
    cut = tones.merge(words(clause), _dictionary_tones)
    if by_word:
        found = [reading for word, _ in cut for reading in pinyin.readings(word)]
    else:
        found = polyphones.readings(clause) if polyphones else pinyin.readings(clause)
    result: list[pinyin.Reading] = []
    for word, tag in cut:
        result += _spoken(word, tag, found[len(result) : len(result) + len(word)], er_coloured=not by_word)
    return result


def _read(clause: str, given: Mapping[int, pinyin.Reading], polyphones: Polyphones | None) -> list[pinyin.Reading]:
    cut = words(clause)
    found = polyphones.readings(clause) if polyphones else own_readings.by_dictionary(clause, cut)
    sure = own_readings.readings(clause, cut)
    found = [given.get(index, sure.get(index, reading)) for index, reading in enumerate(found)]
    result: list[pinyin.Reading] = []
    for word, tag in tones.merge(cut, lambda word, start: [tone for _, tone in found[start : start + len(word)]]):
        result += _spoken(word, tag, found[len(result) : len(result) + len(word)], er_coloured=True)
    for index, reading in sure.items():
        if (reading[1], result[index][1]) != ("3", "2"):  # of what was sure, only a third tone gives way
            result[index] = reading
    return [given.get(index, reading) for index, reading in enumerate(result)]


def _spoken(word: str, tag: str, readings: Sequence[pinyin.Reading], *, er_coloured: bool) -> list[pinyin.Reading]:
    changed = tones.change(word, tag, [tone for _, tone in readings])
    spoken = [(syllable, tone) for (syllable, _), tone in zip(readings, changed, strict=True)]
    if er_coloured and word[-1] == "儿" and spoken[-1][0] == "er":
        if spoken[-1][1] == "1":
            spoken[-1] = ("er", "2")
        if len(word) > 1 and spoken[-1][1] in {"2", "5"} and tones.er_colours(word, tag):
            spoken[-1] = ("er", spoken[-2][1])
    return spoken


def _dictionary_tones(word: str, _: int) -> list[str]:
    return [tone for _, tone in pinyin.readings(word)]
