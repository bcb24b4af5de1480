"""Korean (the extra `ko`): letters as they are said, by the rules of the standard pronunciation.

The phones are 26 letters, diphthongs in two of them; a space is `空` and a sign that the networks don't know `停`.
Version 1 has no Korean.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from re import Match
from typing import TYPE_CHECKING

from ..extras import missing
from ..phones import is_known
from ..resources import word_list
from . import sounds

if TYPE_CHECKING:
    from .morphemes import MorphemeAnalyser

_LETTERS = dict(
    zip(
        "abcdefghijklmnopqrstuvwxyz",
        word_list(
            "에이 비 시 디 이 에프 지 에이치 아이 제이 케이 엘 엠 "
            "엔 오 피 큐 아르 에스 티 유 브이 더블유 엑스 와이 제트"
        ),
        strict=True,
    )
)
_MARKS = {"：": ",", "；": ",", "，": ",", "。": ".", "！": "!", "？": "?", "\n": ".", "·": ",", "、": ",", " ": "空"}
# Units that are counted with Korean numbers, run together as in g2pk2, which looks a unit up in this very text.
_NATIVE = (
    "군데 권 개 그루 닢 대 두 마리 모 모금 뭇 발 발짝 방 번 벌 보루 살 수 술 시 쌈 움큼 정 짝 채 척 첩 축 켤레 톨 통"
)
_COUNTED = re.compile(r"(\d[\d,]*)([ㄱ-힣]+)/B")
_SINO = "영일이삼사오육칠팔구"
_ONES = ["", *word_list("한 두 세 네 다섯 여섯 일곱 여덟 아홉")]
_TENS = ["", *word_list("열 스물 서른 마흔 쉰 예순 일흔 여든 아흔")]
_LONGEST = 2000  # characters that the analyser is given at once

# --- the better mode ---
_COUNTERS = (
    "군데|권|개월|개|그루|마리|모금|번째|번|벌|살|시간|시|켤레|통|명|사람|잔|병|달(?!러)|송이|"
    "장|자루|척|가지|곳|쌍|컵|줄|배|채|대|판|조각|그릇|끼|마디"
)
_UNITS = {
    "km/h": "킬로미터 퍼 아워", "km": "킬로미터", "cm": "센티미터", "mm": "밀리미터", "m": "미터", "kg": "킬로그램",
    "mg": "밀리그램", "g": "그램", "ml": "밀리리터", "mL": "밀리리터", "L": "리터", "GB": "기가바이트", "MB": "메가바이트",
    "TB": "테라바이트", "kHz": "킬로헤르츠", "Hz": "헤르츠", "%p": "퍼센트포인트", "%": "퍼센트", "°C": "도", "°": "도",
    "W": "와트", "V": "볼트",
}  # fmt: skip
_UNIT_NAMES = "|".join(sorted(map(re.escape, _UNITS), key=len, reverse=True))
_MONEY = {"₩": "원", "$": "달러", "€": "유로", "¥": "엔", "£": "파운드"}
_SIGNS = {
    "&": " 앤드 ",
    "+": " 플러스 ",
    "=": " 는 ",
    "@": " 골뱅이 ",
    "\t": " ",
    "\n": ". ",
    "•": ",",
    "#": " ",
    "’": "'",
    "℃": "°C",
}
_SIGNS |= dict.fromkeys("：；;:（）()[]【】{}「」『』《》〈〉—–―/|_·", ",")
_KEPT = re.compile(r"[^가-힣ㄱ-ㅎㅏ-ㅣA-Za-z !?…,.]+")


def normalize(text: str, *, exact: bool = False) -> str:
    """Text as it is read: with `exact` just as it is, as in the official code; otherwise numbers and signs in words."""
    if exact:
        return text
    text = unicodedata.normalize("NFKC", text.replace("...", "…").replace("…", "\u0000")).replace("\u0000", "…")
    text = _numbers(text.replace("~", "〜"))
    text = _KEPT.sub("", "".join(_SIGNS.get(character, character) for character in text))
    text = re.sub(r"\s*([,.!?…])[\s,.!?…]*", _strongest, re.sub(r" {2,}", " ", text))
    return text.strip().lstrip(", ")


def _strongest(match: Match[str]) -> str:
    found = match[0]
    return next(mark for mark in "?!.…," if mark in found) + (" " if " " in found else "")


def pronounce(text: str, *, exact: bool = False) -> tuple[list[str], None]:
    """The phones of a normalised text; Korean has no word2ph.

    Raises:
        MissingExtraError: the extra `ko` isn't installed.
    """
    text = re.sub("[A-Za-z]", lambda m: _LETTERS[m[0].lower()], text)
    text = _digits(_annotated(sounds.idioms(text)))
    said = sounds.letters(sounds.assimilate(sounds.conjoining(text)))
    # A fault of g2pk2's: ㄴ after the particle 을 or 를 stays what it is.
    said = re.sub("([ㅇㄹ]ㅡㄹ) ㄹ", r"\1 ㄴ", said)
    said = re.sub(r"([\u3131-\u3163])$", r"\1.", said)
    marked = (_MARKS.get(character, character) for character in said)
    return [phone if is_known(phone) else "停" for phone in marked], None


@cache
def _analyser() -> MorphemeAnalyser:
    try:
        from .morphemes import MorphemeAnalyser
    except ImportError as error:
        raise missing("Korean", "ko", error) from error
    return MorphemeAnalyser()


def _annotated(text: str) -> str:
    """The text with marks after those syllables whose sound hangs on grammar (see `sounds`)."""
    pieces = []
    while len(text) > _LONGEST:
        cut = text.rfind(" ", 0, _LONGEST) + 1 or _LONGEST
        pieces.append(text[:cut])
        text = text[cut:]
    return "".join(_annotated_piece(piece) for piece in [*pieces, text])


def _annotated_piece(text: str) -> str:
    tokens = _analyser().pos(text)
    if text.replace(" ", "") != "".join(token for token, _ in tokens):
        return text
    # A token's tag goes to its last syllable.
    tags = iter("".join("_" * (len(token) - 1) + _short(tag) for token, tag in tokens))
    return "".join(character if character == " " else character + _mark(character, next(tags)) for character in text)


def _short(tag: str) -> str:
    last = tag.split("+")[-1]
    return "B" if last == "NNBC" else last[0]


def _mark(character: str, tag: str) -> str:
    if tag == "B" or (tag == "J" and character == "의"):
        return f"/{tag}"
    if tag == "E" and sounds.coda(character) == "ᆯ":
        return "/E"
    return "/P" if tag == "V" and sounds.coda(character) in "ᆫᆬᆷᆱᆰᆲᆴ" else ""


def _digits(text: str) -> str:
    """Numbers before a unit as numbers, others digit by digit."""
    text = _COUNTED.sub(lambda m: f"{_as_g2pk2(m[1].replace(',', ''), native=m[2] in _NATIVE)}{m[2]}/B", text)
    return re.sub("[0-9]", lambda m: _SINO[int(m[0])], text)


def _as_g2pk2(number: str, *, native: bool) -> str:
    """A number as g2pk2 says it, who loses ones: 110000 is 십만. Of more than 16 digits, where it fails, digit by
    digit.
    """
    if number == "0" or len(number) > 16:
        return _spelled(number)
    if native and number == "20":
        return "스무"
    said: list[str] = []
    for place, digit in zip(range(len(number) - 1, -1, -1), map(int, number), strict=True):
        name = _SINO[digit] if digit else ""
        if not digit and (place % 4 or not "".join(said[-3:])):
            said.append("")
        elif place < 2 and native:
            said.append((_ONES, _TENS)[place][digit])
        else:
            scale = "십백천만십백천억십백천조십백천"[place - 1] if place else ""
            said.append(scale if name == "일" and 0 < place < 8 else name + scale)
    return "".join(said)


def _spelled(number: str, zero: str = "영") -> str:
    return "".join(zero if digit == "0" else _SINO[int(digit)] for digit in number)


def _sino(number: str) -> str:
    """Sino-Korean: 20000 -> 이만. Of more than 16 digits, or with a zero in front, digit by digit."""
    if len(number) > 16 or number.startswith("0"):
        return _spelled(number)
    said = ""
    for start in range(0, len(number), 4):
        end = len(number) - start
        group = number[max(0, end - 4) : end]
        words = "".join(
            (_SINO[int(digit)] if digit != "1" or not place else "") + ("", "십", "백", "천")[place]
            for place, digit in zip(range(len(group) - 1, -1, -1), group, strict=True)
            if digit != "0"
        )
        scale = ("", "만", "억", "조")[start // 4]
        # 만 stands without a one: 만 오천.
        said = (f"{'' if words == '일' and scale == '만' and end <= 4 else words}{scale}" if words else "") + said
    return said


def _native(number: str) -> str:
    """Korean numbers up to 99, Sino-Korean before that: 21 -> 스물한, 120 -> 백스물."""
    if number.startswith("0") or len(number) > 16:
        return _spelled(number)
    tens, ones = int(number[-2:]) // 10, int(number[-1])
    before = number[:-2]
    tail = "스무" if (tens, ones, before) == (2, 0, "") else _TENS[tens] + _ONES[ones]
    return (_sino(before + "00") if before else "") + tail


def _numbers(text: str) -> str:
    text = re.sub(r"(?<![\d.])(\d{4})[-./]0?(\d{1,2})[-./]0?(\d{1,2})(?![\d/-])", r"\1년 \2월 \3일", text)
    text = re.sub(r"(?<!\d)0?6월(?!\s?말)", "유월", re.sub(r"(?<!\d)10월", "시월", text))
    text = re.sub(r"(?<![\d:])([01]?\d|2[0-4]):([0-5]\d)(?::([0-5]\d))?(?![\d:])", _clock, text)
    text = re.sub(
        r"(?<![\d-])0\d{1,3}(?:-\d{3,4}){1,2}(?![\d-])|(?<!\d)0\d{9,10}(?!\d)",
        lambda m: " ".join(_spelled(group, "공") for group in m[0].split("-")),
        text,
    )
    text = re.sub(r"(?<![\d,])\d{1,3}(?:,\d{3})++(?!\d)", lambda m: m[0].replace(",", ""), text)
    text = re.sub(r"([₩$€¥£])\s?(\d++(?:\.\d++)?)([만억조천백]*)", lambda m: f"{m[2]}{m[3]}{_MONEY[m[1]]}", text)
    text = re.sub(r"(?<![\d/])(\d{1,9})/(\d{1,9})(?![\d/])", lambda m: f"{_sino(m[2])}분의 {_sino(m[1])}", text)
    text = re.sub(r"(?<![\w.])[-−](?=\d++(?:\.\d++)?\s?(?:도|°))", "영하 ", text)
    text = re.sub(r"(?<![\w.])[-−](?=\d)", "마이너스 ", text)
    text = re.sub(r"(?<=[\d가-힣%])\s?〜\s?(?=\d)|(?<=\d)-(?=\d)", "에서 ", text)
    text = re.sub(rf"(?<=\d)\s?({_UNIT_NAMES})(?![A-Za-z])", lambda m: _UNITS[m[1]], text)
    text = re.sub(r"(?<![\d.])(\d++)\.(\d++)(?!\.?\d)", lambda m: f"{_sino(m[1])}점{_spelled(m[2])}", text)
    text = re.sub(rf"(?<!\d)(\d++)(\s?)({_COUNTERS})", _counted, text)
    return re.sub(r"\d++", lambda m: _sino(m[0]), text)


def _clock(match: Match[str]) -> str:
    hour = int(match[1])
    said = f"{_native(str(hour)) if 0 < hour <= 12 else _sino(str(hour))}시"
    minutes = f" {_sino(str(int(match[2])))}분" if match[2] != "00" else ""
    return said + minutes + (f" {_sino(str(int(match[3])))}초" if match[3] else "")


def _counted(match: Match[str]) -> str:
    number, gap, unit = match.groups()
    if unit == "번째" and number == "1":
        return f"첫{gap}번째"
    if unit == "개월" or (unit == "시" and int(number[-4:]) > 12) or len(number) > 4:
        return f"{_sino(number)}{gap}{unit}"
    return f"{_native(number)}{gap}{unit}"
