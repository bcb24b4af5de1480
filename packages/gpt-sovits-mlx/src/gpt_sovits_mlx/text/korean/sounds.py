"""The sounds of Korean syllables in company: the rules of the standard pronunciation, as g2pk2 0.0.3 applies
them.

Text is worked on as conjoining jamo (U+1100 to U+11FF), a syllable being an onset, a vowel and maybe a coda. Where a
rule hangs on grammar, the morpheme analyser has left a mark after the syllable: /P after a verb stem, /E after an
ending, /J after the particle 의, /B after a unit.
"""

from __future__ import annotations

import re
from functools import cache

from ..resources import data_lines

_FIRST, _LAST = "가", "힣"
_ONSETS = "ㄱㄲㄴㄷㄸㄹㅁㅂㅃㅅㅆㅇㅈㅉㅊㅋㅌㅍㅎ"
_VOWELS = "ㅏㅐㅑㅒㅓㅔㅕㅖㅗㅘㅙㅚㅛㅜㅝㅞㅟㅠㅡㅢㅣ"
_CODAS = "ㄱㄲㄳㄴㄵㄶㄷㄹㄺㄻㄼㄽㄾㄿㅀㅁㅂㅄㅅㅆㅇㅈㅊㅋㅌㅍㅎ"
_SEPARATE = {chr(0x1100 + i): c for i, c in enumerate(_ONSETS)}
_SEPARATE |= {chr(0x1161 + i): c for i, c in enumerate(_VOWELS)}
_SEPARATE |= {chr(0x11A8 + i): c for i, c in enumerate(_CODAS)}
# Diphthongs are two phones.
_DIPHTHONGS = {
    "ㅘ": "ㅗㅏ", "ㅙ": "ㅗㅐ", "ㅚ": "ㅗㅣ", "ㅝ": "ㅜㅓ", "ㅞ": "ㅜㅔ", "ㅟ": "ㅜㅣ", "ㅢ": "ㅡㅣ", "ㅑ": "ㅣㅏ", "ㅒ": "ㅣㅐ",
    "ㅕ": "ㅣㅓ", "ㅖ": "ㅣㅔ", "ㅛ": "ㅣㅗ", "ㅠ": "ㅣㅜ",
}  # fmt: skip
_TENSE = str.maketrans("ᄀᄃᄇᄉᄌ", "ᄁᄄᄈᄊᄍ")


def _tensed(match: re.Match[str]) -> str:
    return match[1] + match[2].translate(_TENSE)


def conjoining(text: str) -> str:
    """Syllables as conjoining jamo; everything else as it is."""
    return "".join(map(_conjoined, text))


def _conjoined(character: str) -> str:
    if not _FIRST <= character <= _LAST:
        return character
    rest, coda = divmod(ord(character) - ord(_FIRST), 28)
    onset, vowel = divmod(rest, 21)
    return chr(0x1100 + onset) + chr(0x1161 + vowel) + (chr(0x11A7 + coda) if coda else "")


def coda(character: str) -> str:
    """The coda of a syllable as a conjoining jamo, the vowel if it has none; what is no syllable as it is."""
    return _conjoined(character)[-1]


_SPECIAL: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        ("([ᄌᄍᄎ])ᅧ", r"\1ᅥ"),
        ("([ᄀᄁᄂᄃᄄᄅᄆᄇᄈᄉᄊᄌᄍᄎᄏᄐᄑᄒ])ᅴ", r"\1ᅵ"),
        ("/J", ""),
        # Names of letters: 디귿이 is said 디그시. (g2pk2 looks for either part of 그 and 으.)
        ("([\u1100\u1173])ᆮᄋ", r"\1ᄉ"),
        ("([\u110b\u1173])[ᆽᆾᇀᇂ]ᄋ", r"\1ᄉ"),
        ("([\u110b\u1173])ᆿᄋ", r"\1ᄀ"),
        ("([\u110b\u1173])ᇁᄋ", r"\1ᄇ"),
        ("ᆰ/P[ᄀᄁ]", "ᆯᄁ"),
    )
)
# After a verb stem, the onset of an ending is tense.
_STEMS = (re.compile("([ᆲᆴ])/P([ᄀᄃᄉᄌ])"), re.compile("([ᆫᆷ])/P([ᄀᄃᄉᄌ])"))
_STEMS_IN_TWO = (("ᆬ", "ᆫ"), ("ᆱ", "ᆷ"))
_BROAD = (
    (re.compile(f"({conjoining(chr(0xBC14))})ᆲ($|[^ᄋᄒ])"), r"\1ᆸ\2"),
    (re.compile(f"({conjoining(chr(0xB108))})ᆲ([ᄌᄍ]ᅮ|[ᄃᄄ]ᅮ)"), r"\1ᆸ\2"),
    (re.compile("ᆮᄋ([ᅵᅧ])"), r"ᄌ\1"),
    (re.compile("ᇀᄋ([ᅵᅧ])"), r"ᄎ\1"),
    (re.compile("ᆴᄋ([ᅵᅧ])"), r"ᆯᄎ\1"),
    (re.compile("ᆮᄒ(ᅵ)"), r"ᄎ\1"),
)
# After the ending ㄹ: across a space, and in endings that are one word with it.
_AFTER_RIEUL = re.compile("(ᆯ)/E( [ᄀᄃᄇᄉᄌ])")
_RIEUL_ENDINGS = [
    ("ᆯ" + conjoining(plain), "ᆯ" + conjoining(tense))
    for plain, tense in (
        ("걸", "껄"),
        ("밖에", "빠께"),
        ("세라", "쎄라"),
        ("수록", "쑤록"),
        ("지라도", "찌라도"),
        ("지언정", "찌언정"),
        ("진대", "찐대"),
    )
]
_LINKS = (
    *((coda_, onset) for coda_, onset in zip("ᆨᆩᆫᆮᆯᆷᆸᆺᆻᆽᆾᆿᇀᇁ", "ᄀᄁᄂᄃᄅᄆᄇᄉᄊᄌᄎᄏᄐᄑ", strict=True)),
    ("ᆪ", "ᆨᄊ"), ("ᆬ", "ᆫᄌ"), ("ᆰ", "ᆯᄀ"), ("ᆱ", "ᆯᄆ"), ("ᆲ", "ᆯᄇ"), ("ᆳ", "ᆯᄊ"), ("ᆴ", "ᆯᄐ"), ("ᆵ", "ᆯᄑ"), ("ᆹ", "ᆸᄊ"),
    ("ᇂ", "ᄋ"), ("ᆭ", "ᄂ"), ("ᆶ", "ᄅ"),
)  # fmt: skip


@cache
def _table() -> list[tuple[str, re.Pattern[str], str]]:
    """Coda and onset (with a space between or not), or coda and end of word: what they become. In g2pk2's order."""
    rows = []
    for line in data_lines("korean_rules.txt"):
        pair, result = line.split("\t")
        rows.append((pair[0], re.compile(f"{pair[0]}( ?){pair[1]}" if len(pair) > 1 else rf"{pair}(\W|$)"), result))
    return rows


@cache
def _idioms() -> list[tuple[str, str]]:
    lines = data_lines("korean_idioms.txt")
    return [(before, after) for before, after in (line.split("\t") for line in lines)]


def idioms(text: str) -> str:
    """Words that are said in a way that no rule gives: 솜이불 -> 솜니불."""
    for before, after in _idioms():
        text = text.replace(before, after)
    return text


def assimilate(text: str) -> str:
    """Marked conjoining jamo -> jamo as they are said, without marks."""
    for pattern, replacement in _SPECIAL:
        text = pattern.sub(replacement, text)
    for pattern in _STEMS:
        text = pattern.sub(_tensed, text)
    for double, single in _STEMS_IN_TWO:
        text = re.sub(f"{double}/P(?=[ᄀᄃᄉᄌ])", f"{single}\0", text)
    text = re.sub("(\0)([ᄀᄃᄉᄌ])", _tensed, text).replace("\0", "")
    for pattern, replacement in _BROAD:
        text = pattern.sub(replacement, text)
    text = _AFTER_RIEUL.sub(_tensed, text)
    for before, after in _RIEUL_ENDINGS:
        text = text.replace(before, after)
    text = re.sub("/[PJEB]", "", text)
    for last, pattern, replacement in _table():
        if last in text:
            text = pattern.sub(replacement, text)
    for before, after in _LINKS:
        text = text.replace(before + "ᄋ", after)
    return text


def letters(text: str) -> str:
    """Conjoining jamo -> letters as the networks know them, diphthongs in two; a vowel without an onset gets ㅇ."""
    text = re.sub("(^|[^\u1100-\u1112])([\u1161-\u1175])", "\\1\u110b\\2", text)
    separate = (_SEPARATE.get(character, character) for character in text)
    return "".join(_DIPHTHONGS.get(letter, letter) for letter in separate)
