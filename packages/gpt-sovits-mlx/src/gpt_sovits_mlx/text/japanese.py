"""Japanese (the extra `ja`): phones and pitch marks by pyopenjtalk-plus.

Full-context labels of Open JTalk give the phones and, by the rules of Kurihara et al.
(https://doi.org/10.1587/transinf.2020EDP7104), where the pitch rises (`[`) and falls (`]`). The border of an accent
phrase is UNK, for which the networks learnt a short break. Version 1 has no pitch marks: there they are UNK too.
"""

from __future__ import annotations

import io
import re
import threading
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import redirect_stdout
from functools import cache
from itertools import pairwise
from re import Match
from typing import Any

from .extras import missing
from .phones import UNKNOWN, is_known

_SPOKEN = r"A-Za-z\d\u3005\u3040-\u30ff\u4e00-\u9fff\uff11-\uff19\uff21-\uff3a\uff41-\uff5a\uff66-\uff9d"
_STRETCH = re.compile(f"([{_SPOKEN}]+)|([^{_SPOKEN}])")
_REPEATED = re.compile(r"([!?…,.\-])[!?…,.\-]+")
_MARKS = {"：": ",", "；": ",", "，": ",", "。": ".", "！": "!", "？": "?", "\n": ".", "·": ",", "、": ","}
_LABEL = re.compile(
    r"-(?P<phone>.*?)\+.*?/A:(?P<fall>-?\d+|xx)\+(?P<mora>\d+|xx)\+(?P<left>\d+|xx)/.*?/F:(?P<size>\d+|xx)_"
)
_LONGEST = 400  # characters that Open JTalk is given at once

# --- the better mode ---
_PAUSES = str.maketrans(
    dict.fromkeys("：；;:（）()[]【】〔〕『』《》〈〉{}—―–/|_\t\u3000", "、")
    | dict.fromkeys("「」“”\"'‘’*#^`♪☆★♡♥", "")
    | {"～": "ー", "〜": "ー", "〇": "ゼロ"}
)
_NUM = r"\d[\d,]*(?:\.\d+)?"
_UNITS = {
    "km/h": "キロメートル毎時", "km": "キロメートル", "cm": "センチメートル", "mm": "ミリメートル", "m": "メートル",
    "kg": "キログラム", "mg": "ミリグラム", "g": "グラム", "ml": "ミリリットル", "mL": "ミリリットル", "L": "リットル",
    "GB": "ギガバイト", "MB": "メガバイト", "TB": "テラバイト", "KB": "キロバイト", "Hz": "ヘルツ", "kHz": "キロヘルツ",
    "%": "パーセント", "°C": "度", "°": "度", "W": "ワット", "V": "ボルト", "kW": "キロワット",
}  # fmt: skip
_UNIT_NAMES = "|".join(sorted(map(re.escape, _UNITS), key=len, reverse=True))
_MONEY = {"¥": "円", "$": "ドル", "€": "ユーロ", "£": "ポンド", "₩": "ウォン", "元": "元"}
_DIGITS = dict(
    zip("0123456789", ["ゼロ", "イチ", "ニー", "サン", "ヨン", "ゴー", "ロク", "ナナ", "ハチ", "キュー"], strict=True)
)


def normalize(text: str, *, exact: bool = False) -> str:
    """Text as it is read.

    `exact` only makes one of several marks, as the official code does. The default also writes out what Open JTalk
    can't read in pieces: decimals, negative numbers, times, dates, fractions, money, units, telephone numbers.
    """
    if exact:
        return _REPEATED.sub(r"\1", text)
    text = unicodedata.normalize("NFKC", text.replace("...", "…").replace("…", "\u0000").replace("～", "〜"))
    text = re.sub("何(?=[だでとの])", "なん", text)
    text = _numbers(text.replace("\u0000", "…").replace("・・・", "…"))
    text = re.sub(r"[、,]{2,}", "、", text.translate(_PAUSES))
    text = _REPEATED.sub(
        r"\1", text.replace("&", "アンド").replace("+", "プラス").replace("=", "イコール").replace("@", "アット")
    )
    kept = "".join(m[0] for m in _STRETCH.finditer(text) if m[1] or m[0] in "!?…,. " or m[0] in _MARKS)
    return re.sub(r"^[、,]+", "", kept)


def pronounce(text: str, *, exact: bool = False) -> tuple[list[str], None]:
    """The phones of a normalised text; Japanese has no word2ph.

    Raises:
        MissingExtraError: pyopenjtalk-plus isn't installed.
    """
    text = text.replace("％", "パーセント").lower()
    phones: list[str] = []
    for match in _STRETCH.finditer(text):
        if match[1]:
            phones += _spoken(match[1])
        elif match[0] != " ":
            phones.append(_MARKS.get(match[0], match[0]))
    return [phone if is_known(phone) else UNKNOWN for phone in phones], None


def _spoken(text: str) -> Iterator[str]:
    pyopenjtalk = _open_jtalk()
    _analyser.warm_up(pyopenjtalk)
    for start in range(0, len(text), _LONGEST):
        # Predicting the reading of 何 needs onnxruntime.
        features = pyopenjtalk.run_frontend(text[start : start + _LONGEST], predict_nani=False)
        if sounding := _sounding(features):
            yield from _with_pitch(pyopenjtalk.make_label(sounding))


def _sounding(features: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Features without the long marks after nothing, and none at all if nothing sounds.

    Open JTalk leaves these out by itself, but complains on stderr.
    """
    kept: list[Mapping[str, Any]] = []
    sounds = after_sound = False
    for feature in features:
        spoken = feature["pron"] if after_sound else feature["pron"].lstrip("ー")
        if spoken:
            kept.append({**feature, "pron": spoken})
            after_sound = spoken != "、"
            sounds |= after_sound
    return kept if sounds else []


class _Analyser(threading.local):
    """The state that pyopenjtalk makes for each thread when it first meets a character of several readings."""

    ready = False

    def warm_up(self, pyopenjtalk: Any) -> None:
        """Make the state now, without the warning of a deprecated call into SudachiPy."""
        if not self.ready:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", r"Dictionary\.create", DeprecationWarning)
                pyopenjtalk.run_frontend("風", predict_nani=False)
            self.ready = True


_analyser = _Analyser()


@cache
def _open_jtalk() -> Any:
    try:
        # Its import prints that onnxruntime is missing, which nothing here needs.
        with redirect_stdout(io.StringIO()):
            import pyopenjtalk
    except ImportError as error:
        raise missing("Japanese", "ja", error) from error
    return pyopenjtalk


def _with_pitch(labels: Iterable[str]) -> Iterator[str]:
    """Phones and pitch marks of full-context labels, without the silence at both ends."""
    found = [match for match in map(_LABEL.search, labels) if match]
    for label, following in pairwise(found):
        phone = label["phone"]
        if phone == "sil":
            continue
        if phone == "pau":
            yield "_"
            continue
        yield phone.lower() if phone in "AEIOU" else phone
        mora, next_mora = _count(label, "mora"), _count(following, "mora")
        if _count(label, "left") == 1 and next_mora == 1 and phone in "aeiouAEIOUNcl":
            yield "#"
        elif _count(label, "fall") == 0 and next_mora == mora + 1 and mora != _count(label, "size"):
            yield "]"
        elif mora == 1 and next_mora == 2:
            yield "["


def _count(label: Match[str], name: str) -> int:
    """A number of a label; -50 where it says xx."""
    return -50 if label[name] == "xx" else int(label[name])


def _numbers(text: str) -> str:
    text = re.sub(r"(?<![\d.])(\d{4})[-/]0?(\d{1,2})[-/]0?(\d{1,2})(?![\d/-])", r"\1年\2月\3日", text)
    text = re.sub(r"(?<![\d:])(\d{1,2}):([0-5]\d)(?::([0-5]\d))?(?![\d:])", _clock, text)
    text = re.sub(r"(?<![\d-])0\d{1,4}(?:-\d{2,4}){1,3}(?![\d-])|(?<!\d)0\d{9,10}(?!\d)", _digits, text)
    text = re.sub(r"(?<![\d,])\d{1,3}(?:,\d{3})++(?!\d)", lambda m: m[0].replace(",", ""), text)
    text = re.sub(rf"([¥$€£₩])\s?(?<!\d)({_NUM})([万億兆千百]*)", lambda m: f"{m[2]}{m[3]}{_MONEY[m[1]]}", text)
    text = re.sub(
        r"(?<![\d/.])(1[0-2]|0?[1-9])/([12]\d|3[01]|0?[1-9])(?=[（(]?[月火水木金土日][)）]|に|から|まで|〜|より)",
        r"\1月\2日",
        text,
    )
    text = re.sub(r"(?<=日〜)(1[0-2]|0?[1-9])/([12]\d|3[01]|0?[1-9])(?![\d/])", r"\1月\2日", text)
    text = re.sub(r"(?<![\d/])(\d{1,9})/(\d{1,9})(?![\d/])", r"\2分の\1", text)
    text = re.sub(rf"(?<=\d)\s?({_UNIT_NAMES})(?![A-Za-z])", lambda m: _UNITS[m[1]], text)
    text = re.sub(r"(?<=\d)\s?[~〜]\s?(?=\d)|(?<=[\d円度月日時分年])\s?[~〜]\s?(?=\d)", "から", text)
    text = re.sub(r"(?<![\dA-Za-z])[-−](?=\d)", "マイナス", text)
    return re.sub(r"(?<![\d.])(\d+)\.(\d+)(?!\.?\d)", lambda m: f"{m[1]}点{''.join(_DIGITS[d] for d in m[2])}", text)


def _clock(match: Match[str]) -> str:
    minutes = "" if match[2] == "00" else f"{int(match[2])}分"
    return f"{int(match[1])}時{minutes}" + (f"{int(match[3])}秒" if match[3] else "")


def _digits(match: Match[str]) -> str:
    return "、".join("".join(_DIGITS[d] for d in group) for group in match[0].split("-"))
