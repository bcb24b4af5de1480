"""The English normalisation of the official GPT-SoVITS, step by step, its oddities included.

Facts from its `text/en_normalization/expend.py` and `text/english.py`. It looks wrong, and is theirs: "-5" after a space
loses the space ("isnegative five"), every capital letter but a word's first is set apart ("G P T- So V I T S"), colons
vanish. Where the official code raises (commas in odd places within a price, numbers over 36 digits), this one reads on.

Each pattern starts where a run of its first characters starts, which finds the same matches in linear time.
"""

from __future__ import annotations

import re
import unicodedata
from functools import partial
from re import Match

from .numbers import cardinal, fraction, ordinal, year

_FULL_WIDTH = str.maketrans({"。": ".", "！": "!", "？": "?"})
_SUM = re.compile(r"([\dA-Za-z][⁰¹²³⁴⁵⁶⁷⁸⁹ˣʸⁿ]*+)\s++([+\-×÷=])\s++(?=-?\d|\.\d|[A-Za-z])")
_SIGNS = {"+": " plus ", "-": " minus ", "×": " times ", "÷": " divided by ", "=": " Equals "}
_NEGATIVE = re.compile(r"(?:^|(?<!\s)\s++)-(?=\d)")
_LIST_MARK = re.compile(r"\b([0-9]++)\. ")
_GROUPED = re.compile(r"(?<=[0-9])[0-9,]*(?=[0-9])")
_CLOCK = re.compile(r"\b([01]?[0-9]|2[0-3]):([0-5][0-9])\b")
_MEASURE = re.compile(r"\b([0-9]++(\.[0-9]++)?)(m|km|km/h|ft|L|tbsp|tsp|h|min|s|°C|°F)\b")
_MEASURES = {
    "m": ("meter", "meters"),
    "km": ("kilometer", "kilometers"),
    "km/h": ("kilometer per hour", "kilometers per hour"),
    "ft": ("feet", "feet"),
    "L": ("liter", "liters"),
    "tbsp": ("tablespoon", "tablespoons"),
    "tsp": ("teaspoon", "teaspoons"),
    "h": ("hour", "hours"),
    "min": ("minute", "minutes"),
    "s": ("second", "seconds"),
    "°C": ("degree celsius", "degrees celsius"),
    "°F": ("degree fahrenheit", "degrees fahrenheit"),
}
_AMOUNT = r"[0-9.,]*[0-9]"
_PRICES = [
    (re.compile(rf"£({_AMOUNT})"), ("pound", "pounds", "penny", "pence")),
    (re.compile(rf"(?<![0-9.,])({_AMOUNT})£"), ("pound", "pounds", "penny", "pence")),
    (re.compile(rf"\$({_AMOUNT})"), ("dollar", "dollars", "cent", "cents")),
    (re.compile(rf"(?<![(0-9.,])\(*({_AMOUNT})\$"), ("dollar", "dollars", "cent", "cents")),
]
_DECIMAL = re.compile(r"(?<![0-9])([0-9]++)\.(\s*+[0-9]++)")
_FRACTION = re.compile(r"(?<![0-9])([0-9]++)/([0-9]++)")
_ORDINAL = re.compile(r"(?<![0-9])([0-9]++)(?:st|nd|rd|th)")
_NUMBER = re.compile(r"[0-9]++")
_OTHER = re.compile(r"[^ A-Za-z'.,?!\-]")
_CAPITAL = re.compile(r"(?<!^)(?<!\s)([A-Z])")
_REPEATED = re.compile(r"([!?…,.\-\s])[!?…,.\-]+")


def _ordinal_suffix(text: str) -> str:
    if text[-2:-1] == "1":
        return "th"
    return {"1": "st", "2": "nd", "3": "rd"}.get(text[-1], "th")


def _clock(match: Match[str]) -> str:
    hour, minute = int(match[1]), int(match[2])
    period = "a.m." if hour < 12 else "p.m."
    said = cardinal(str(hour - 12 if hour > 12 else hour))
    return f"{said} {cardinal(str(minute))} {period}" if minute else f"{said} o'clock {period}"


def _measure(match: Match[str]) -> str:
    singular = match[2] is None and match[1].lstrip("0") == "1"
    return f"{match[1]} {_MEASURES[match[3]][0 if singular else 1]}"


def _price(match: Match[str], units: tuple[str, str, str, str]) -> str:
    parts = match[1].replace(",", "").split(".")
    if len(parts) > 2:
        return f"{match[1]} {units[1]}"
    whole = parts[0].lstrip("0")
    small = (parts[1].ljust(2, "0") if len(parts) > 1 and parts[1] else "").lstrip("0")
    said = [f"{n} {units[i + (n != '1')]}" for n, i in ((whole, 0), (small, 2)) if n]
    return " and ".join(said) or f"zero {units[1]}"


def _decimal(match: Match[str]) -> str:
    return f"{match[1]} point {' '.join(match[2])}"


def _number(match: Match[str]) -> str:
    text = match[0].lstrip("0") or "0"
    if len(text) == 4 and 1000 < int(text) < 3000:
        return year(int(text))
    return cardinal(text, comma=", ")


def normalize(text: str) -> str:
    """English text as the official front end writes it: letters, spaces and `'.,?!-` only."""
    text = text.translate(_FULL_WIDTH)
    text = _LIST_MARK.sub(lambda m: f"{m[1]}{_ordinal_suffix(m[1])}, ", text)
    text = _SUM.sub(lambda m: m[1] + _SIGNS[m[2]], text)
    text = _NEGATIVE.sub("negative ", text)
    text = _GROUPED.sub(lambda m: m[0].replace(",", ""), text)
    text = _CLOCK.sub(_clock, text)
    text = _MEASURE.sub(_measure, text)
    for pattern, units in _PRICES:
        text = pattern.sub(partial(_price, units=units), text)
    text = _DECIMAL.sub(_decimal, text)
    text = _FRACTION.sub(lambda m: fraction(m[1], m[2], conjunction=" and ", comma=", "), text)
    text = _ORDINAL.sub(lambda m: ordinal(m[1], conjunction=" and ", comma=", "), text)
    text = _NUMBER.sub(_number, text)
    text = "".join(c for c in unicodedata.normalize("NFD", text) if unicodedata.category(c) != "Mn")
    text = _OTHER.sub("", text.replace("%", " percent"))
    text = re.sub(r"(?i)i\.e\.", "that is", text)
    text = re.sub(r"(?i)e\.g\.", "for example", text)
    text = _CAPITAL.sub(r" \1", text)
    return _REPEATED.sub(r"\1", text)
