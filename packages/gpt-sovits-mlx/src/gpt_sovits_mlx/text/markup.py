r"""Marks that a text may carry: pauses and chosen pronunciations.

    <break time="500ms"/>        a pause, here of half a second; "1.5s" is one and a half, 60 s are the most
    行{hang2}                    pinyin for the Chinese character before it, the tone as a digit, 5 for neutral
    银行{yin2 hang2}             as many syllables as there are characters to be read so
    tomato{T AH0 M EY1 T OW2}    ARPAbet for the English word before it, stress as a digit on the vowels
    \{  \}  \<  \\               the character itself

Chosen readings are final: no tone changes after them. In the exact mode there is no markup.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mlx_core.errors import InputError

from .chinese import pinyin

_LONGEST_BREAK_S = 60.0
_ESCAPED = "{}<\\"
_REACH = 64  # how far back a mark looks
_PLAIN = re.compile(r"[^{}<\\]+")
_BREAK_BEGINS = re.compile(r"<break\b")
_BREAK = re.compile(r"""<break\s+time\s*=\s*(["'])\s*([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*(ms|s)\s*\1\s*/?>""")
_HAN_AT_END = re.compile("[\u4e00-\u9fa5]*$")
_WORD_AT_END = re.compile(r"(?:[A-Za-z]+(?:['’][A-Za-z]+)*)$")

# Chosen readings travel with the text, as characters of a private area, each after what it is about.
_FIRST_MARK, _LAST_MARK = 0xF0000, 0xFFFFD
MARKS = "\U000f0000-\U000ffffd"
MARK = re.compile(f"[{MARKS}]")
_PRIVATE = re.compile("[\ud800-\udfff\ue000-\uf8ff\U000f0000-\U0010ffff]")  # and half characters

_ARPABET_CONSONANTS = [
    "B",
    "CH",
    "D",
    "DH",
    "F",
    "G",
    "HH",
    "JH",
    "K",
    "L",
    "M",
    "N",
    "NG",
    "P",
    "R",
    "S",
    "SH",
    "T",
    "TH",
    "V",
    "W",
    "Y",
    "Z",
    "ZH",
]
_ARPABET_VOWELS = ["AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW"]
ARPABET = frozenset(_ARPABET_CONSONANTS) | {vowel + stress for vowel in _ARPABET_VOWELS for stress in "012"}


class MarkupError(InputError):
    """A mark that can't be read, with its place in the text.

    Attributes:
        position: the index of the character where the mark begins, from 0.
    """

    def __init__(self, position: int, message: str) -> None:
        super().__init__(f"at character {position}: {message}")
        self.position = position


@dataclass(frozen=True)
class Chosen:
    """A chosen pronunciation, and where in the text its mark begins: one syllable of pinyin, or the phones of a
    word.
    """

    position: int
    pinyin: pinyin.Reading | None = None
    phones: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """Text up to a pause.

    Attributes:
        text: the text without its marks; after each chosen character or word stands `chr(0xF0000 + n)`.
        readings: the chosen reading n.
        pause_s: the pause after it, in seconds.
    """

    text: str
    readings: tuple[Chosen, ...] = ()
    pause_s: float = 0.0


def index(mark: str) -> int:
    """Which chosen reading a mark stands for."""
    return ord(mark) - _FIRST_MARK


def without_marks(text: str) -> str:
    """Text without private characters, some of which stand for marks here, and without halves of characters."""
    return _PRIVATE.sub("", text)


def parse(text: str) -> list[Part]:
    """The parts of a text between its pauses.

    Raises:
        MarkupError: a mark is open, stands where it has nothing to be about, or isn't one.
    """
    parts: list[Part] = []
    pieces: list[str] = []
    readings: list[Chosen] = []
    position = 0
    while position < len(text):
        plain = _PLAIN.match(text, position)
        if plain:
            pieces.append(without_marks(plain[0]))
            position = plain.end()
        elif text[position] == "\\" and text[position + 1 : position + 2] in tuple(_ESCAPED):
            pieces.append(text[position + 1])
            position += 2
        elif text[position] == "{":
            end = text.find("}", position)
            if end < 0 or "{" in text[position + 1 : end]:
                raise MarkupError(
                    position, "a brace is opened and never closed; close it with }, or write \\{ for a brace itself"
                )
            _attach(text[position + 1 : end], pieces, readings, position)
            position = end + 1
        elif text[position] == "}":
            raise MarkupError(position, "a brace is closed that was never opened; write \\} for a brace itself")
        elif _BREAK_BEGINS.match(text, position):
            match = _BREAK.match(text, position)
            parts.append(Part("".join(pieces), tuple(readings), _seconds(match, position)))
            pieces, readings = [], []
            position = match.end() if match else len(text)
        else:
            pieces.append(text[position])
            position += 1
    return [*parts, Part("".join(pieces), tuple(readings))] if pieces or not parts else parts


def _seconds(match: re.Match[str] | None, position: int) -> float:
    if match is None:
        raise MarkupError(position, 'a break is written <break time="500ms"/> or <break time="1.5s"/>')
    seconds = float(match[2]) / (1000 if match[3] == "ms" else 1)
    if not 0 < seconds <= _LONGEST_BREAK_S:
        raise MarkupError(
            position, f"a break lasts {match[2]}{match[3]}; it may last up to {_LONGEST_BREAK_S:g} s, and more than 0"
        )
    return seconds


def _attach(content: str, pieces: list[str], readings: list[Chosen], position: int) -> None:
    """Put the marks for `content` after what it is about, which is the end of the last piece."""
    names = content.split()
    if not names:
        raise MarkupError(position, "there is nothing in the braces; pinyin (hang2) or ARPAbet (T AH0) is expected")
    before = pieces[-1] if pieces else ""
    end = before[-_REACH:]
    if len(readings) + len(names) > _LAST_MARK - _FIRST_MARK:
        raise MarkupError(position, f"more than {_LAST_MARK - _FIRST_MARK} chosen readings before a pause")
    if _WORD_AT_END.search(end):
        _check_arpabet(names, position)
        pieces[-1] += chr(_FIRST_MARK + len(readings))
        readings.append(Chosen(position, phones=tuple(names)))
        return
    characters = _HAN_AT_END.search(end)
    found = len(characters[0]) if characters else 0
    if not found:
        raise MarkupError(
            position, "braces stand right after a Chinese character (行{hang2}) or an English word (tomato{T AH0 ...})"
        )
    chosen = [_pinyin(name, position) for name in names]
    if len(chosen) > found:
        raise MarkupError(
            position, f"there are {len(chosen)} syllables for {found} Chinese character{'s' * (found > 1)} before them"
        )
    head, tail = before[: -len(chosen)], before[-len(chosen) :]
    pieces[-1] = head + "".join(
        character + chr(_FIRST_MARK + len(readings) + index) for index, character in enumerate(tail)
    )
    readings.extend(Chosen(position, pinyin=reading) for reading in chosen)


def _pinyin(name: str, position: int) -> pinyin.Reading:
    reading = pinyin.parse(name.lower()) if name[-1:] in "12345" else None
    if reading is None:
        raise MarkupError(
            position, f"{name!r} isn't pinyin with a tone: a syllable and a digit from 1 to 5 (hang2, lv4, de5)"
        )
    return reading


def _check_arpabet(names: Sequence[str], position: int) -> None:
    unknown = [name for name in names if name not in ARPABET]
    if unknown:
        raise MarkupError(
            position,
            f"{unknown[0]!r} isn't ARPAbet: the vowels {' '.join(_ARPABET_VOWELS)} each with 0, 1 or 2, "
            f"and {' '.join(_ARPABET_CONSONANTS)}",
        )
