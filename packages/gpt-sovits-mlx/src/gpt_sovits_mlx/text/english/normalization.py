"""English normalisation for the better mode: numbers, dates, times, prices, units and signs into words.

Steps run over the whole text, those that need the most context first. Every pattern starts at the edge of a run or
has a bounded length, so that time is linear in the length of the text.
"""

from __future__ import annotations

import re
import unicodedata
from re import Match

from ..resources import word_list
from .numbers import cardinal, digits, fraction, ordinal, ordinal_of, plural, roman, year
from .words import abbreviations, addresses, capitals

_INT = r"(?<![\d.,])(?:\d{1,3}(?:,\d{3})++(?!\d)|\d++)"
_NUM = rf"(?:{_INT}(?:\.\d++)?|(?<![\w.])\.\d++)"
_MONTHS = word_list("January February March April May June July August September October November December")
_MONTH_NUMBER = {name[:3].lower(): i for i, name in enumerate(_MONTHS)}
_MONTH = r"(Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?|Oct(?:ober)?|"
_MONTH += r"Nov(?:ember)?|Dec(?:ember)?)\b\.?"
_MAGNITUDES = {
    "k": "thousand", "K": "thousand", "M": "million", "m": "million", "mn": "million", "B": "billion", "b": "billion",
    "bn": "billion", "T": "trillion", "tn": "trillion",
}  # fmt: skip
_MAGNITUDE = r"(?:\s?(?:hundred|thousand|million|billion|trillion)\b|(?:k|K|M|m|mn|B|b|bn|T|tn)\b)"
_MONEY = {
    "$": ("dollar", "dollars", "cent", "cents"),
    "US$": ("U S dollar", "U S dollars", "cent", "cents"),
    "£": ("pound", "pounds", "penny", "pence"),
    "€": ("euro", "euros", "cent", "cents"),
    "¥": ("yen", "yen", "", ""),
    "₹": ("rupee", "rupees", "paisa", "paise"),
    "₩": ("won", "won", "", ""),
    "₽": ("ruble", "rubles", "kopek", "kopeks"),
    "USD": ("dollar", "dollars", "cent", "cents"),
    "EUR": ("euro", "euros", "cent", "cents"),
    "GBP": ("pound", "pounds", "penny", "pence"),
    "JPY": ("yen", "yen", "", ""),
    "CNY": ("yuan", "yuan", "", ""),
    "RMB": ("yuan", "yuan", "", ""),
}
_SIGN = r"(US\$|[$£€¥₹₩₽])"
_CODE = "(USD|EUR|GBP|JPY|CNY|RMB)"
# Units: sign -> one, many. Those of one letter and "in" follow a number without a space, but for metres and the like.
_UNITS = {
    "km": "kilometer", "m": "meter", "cm": "centimeter", "mm": "millimeter", "μm": "micrometer",
    "μg": "microgram", "μs": "microsecond", "nm": "nanometer",
    "mi": "mile", "yd": "yard", "ft": "foot/feet", "in": "inch/inches", "kg": "kilogram", "g": "gram",
    "mg": "milligram", "lb": "pound", "lbs": "pound", "oz": "ounce", "L": "liter", "l": "liter", "ml": "milliliter",
    "mL": "milliliter", "gal": "gallon", "tbsp": "tablespoon", "tsp": "teaspoon", "h": "hour", "hr": "hour",
    "hrs": "hour", "min": "minute", "mins": "minute", "s": "second", "sec": "second", "secs": "second",
    "ms": "millisecond", "°C": "degree Celsius/degrees Celsius", "°F": "degree Fahrenheit/degrees Fahrenheit",
    "°": "degree", "Hz": "hertz/hertz", "kHz": "kilohertz/kilohertz", "MHz": "megahertz/megahertz",
    "GHz": "gigahertz/gigahertz", "KB": "kilobyte", "kB": "kilobyte", "MB": "megabyte", "GB": "gigabyte",
    "TB": "terabyte", "Kbps": "kilobits per second/kilobits per second", "Mbps": "megabits per second/megabits per second",
    "Gbps": "gigabits per second/gigabits per second", "W": "watt", "kW": "kilowatt", "MW": "megawatt",
    "kWh": "kilowatt hour", "V": "volt", "mAh": "milliamp hour", "mph": "mile per hour/miles per hour",
    "kph": "kilometer per hour/kilometers per hour", "dB": "decibel", "cal": "calorie", "kcal": "kilocalorie",
    "ha": "hectare", "px": "pixel", "fps": "frame per second/frames per second", "rpm": "revolution per minute/"
    "revolutions per minute", "Pa": "pascal", "kPa": "kilopascal", "psi": "P S I/P S I",
}  # fmt: skip
_CLOSE_UNITS = frozenset(("in", "m", "g", "h", "s", "l", "L", "V", "W", "min", "ms", "ha", "cal"))
_UNIT_NAMES = "|".join(sorted(map(re.escape, _UNITS), key=len, reverse=True))
_UNIT = re.compile(
    rf"(?<![A-Za-z\d])(?<!\d[.,])((?<![\w.)])-)?({_NUM})([\s-]?)(sq\.?\s)?({_UNIT_NAMES})(\^[23])?(?:/(h|hr|s|sec|min|day|kg|km|m|L|l))?"
    r"(?![A-Za-z\d^])(?:(?<=[a-z])\.(?!\s*$|\s+[\"'(]?[A-Z]))?"
)
_PER = {"h": "hour", "hr": "hour", "s": "second", "sec": "second", "min": "minute", "day": "day", "kg": "kilogram",
        "km": "kilometer", "m": "meter", "L": "liter", "l": "liter"}  # fmt: skip
_YEAR_WORDS = (
    "in|since|by|from|until|till|before|after|during|around|circa|year|of|early|late|mid|spring|summer|fall|winter"
)
_GREEK = re.compile(r"μ(?![mgs]\b)|[α-λν-ωΑ-Ωϑϕ]")
_FROM_LATIN = str.maketrans(
    {"ø": "o", "Ø": "O", "ß": "ss", "æ": "ae", "Æ": "Ae", "œ": "oe", "Œ": "Oe", "ł": "l", "Ł": "L", "đ": "d", "Đ": "D",
     "ð": "d", "Ð": "D", "þ": "th", "Þ": "Th", "ı": "i"}
)  # fmt: skip
_PLAIN = str.maketrans(
    {"’": "'", "‘": "'", "ʼ": "'", "`": "'", "´": "'", "′": "'", "″": '"', "“": '"', "”": '"', "„": '"', "«": '"',
     "»": '"', "—": " — ", "–": "–", "−": "-", "‐": "-", "‑": "-", "。": ". ", "、": ", ", "，": ", ", "！": "! ",
     "？": "? ", "；": "; ", "：": ": ", "…": "... ", "～": "~", "￥": "¥", "㎡": "m^2", "²": "^2", "³": "^3", "µ": "μ",
     "℃": "°C", "℉": "°F", "⁄": "/", "×": " × ", "\u00ad": None, "\u200b": None, "\ufeff": None}
)  # fmt: skip
_VULGAR = re.compile("[¼-¾⅐-⅞]")
_SIGNS = {
    "%": " percent ", "‰": " per mille ", "&": " and ", "@": " at ", "+": " plus ", "=": " equals ", "×": " times ",
    "÷": " divided by ", "±": " plus or minus ", "<": " less than ", ">": " greater than ", "≤": " at most ",
    "≥": " at least ", "≈": " about ", "≠": " is not equal to ", "°": " degrees ", "→": " to ", "√": " root ",
    "∞": " infinity ", "$": " dollars ", "£": " pounds ", "€": " euros ", "¥": " yen ", "₹": " rupees ", "¢": " cents ",
    ";": ",", ":": ",", "—": ",", "(": ",", ")": ",", "[": ",", "]": ",", "{": ",", "}": ",", "\n": ".",
}  # fmt: skip
_SIGNS_RE = re.compile("[" + re.escape("".join(_SIGNS)) + "]")
_KINGS = (
    "Henry Louis George Charles Elizabeth Edward William James Richard Philip Napoleon Catherine Francis Leo Nicholas "
    "Alexander Benedict Pius Paul Frederick Gregory Innocent Clement Urban Ramses Ferdinand Victoria"
).replace(" ", "|")
_PARTS = (
    "Chapter Part Act Scene Volume Vol Book Phase Type Class Level Section Article Episode War Bowl Wars Fantasy Rocky "
    "Title Appendix Stage Grade Model Mark Apollo Saturn chapter part act scene volume book phase type class level section "
    "article episode stage"
).replace(" ", "|")

_LABELS = "Room|Flight|Highway|Route|Interstate|Boeing|Airbus|Suite|Apartment|Bus|Area|room|flight|route"


def number(text: str) -> str:
    """A number without a sign: "1,234.50" -> "one thousand two hundred thirty-four point five zero"."""
    whole, point, decimals = text.replace(",", "").partition(".")
    said = digits(whole) if len(whole) > 1 and whole[0] == "0" else cardinal(whole) if whole else ""
    return f"{said} point {digits(decimals)}".strip() if point else said


def expand(text: str) -> str:
    """English text -> words of ASCII letters, with spaces, apostrophes and the marks `!?,.`."""
    text = _simplified(text.strip())
    text = addresses(text)
    text = abbreviations(text)
    text = _dates(text)
    text = _clock(text)
    text = _telephones(text)
    text = _money(text)
    text = _measures(text)
    text = _arithmetic(text)
    text = re.sub(r"(?<=\d)(%?)\s?[-–~]\s?(?=\d{1,15}(?:[.,]\d|\b|[a-zA-Z°%]))", r"\1 to ", text)
    text = _UNIT.sub(_unit, text)
    text = _numbers(text)
    text = capitals(_signs(text))
    text = re.sub(r"[^A-Za-z'.,!? ]", " ", text)
    # Quotes are no apostrophes.
    text = re.sub(r"(?<![A-Za-z])'(?!(?:cause|em|til|tis|twas|bout|round|n)\b)|'(?![A-Za-z])", " ", text, flags=re.I)
    text = re.sub(r"(?<=[A-Za-z])\.(?=[A-Za-z])", " ", text)
    return _marks(text)


def _marks(text: str) -> str:
    """One mark where several meet (the strongest: ? ! . then ,), none at the start, one space after each."""

    def strongest(match: Match[str]) -> str:
        found = match[0]
        return next(mark for mark in "?!.," if mark in found) + " "

    text = re.sub(r" ?[,.!?][ ,.!?]*+", strongest, re.sub(r"\s++", " ", text))
    return text.strip().removeprefix(",").strip()


def _simplified(text: str) -> str:
    text = _VULGAR.sub(lambda m: f" {unicodedata.normalize('NFKC', m[0]).replace(chr(0x2044), '/')}", text)
    text = unicodedata.normalize("NFKC", text.translate(_PLAIN)).translate(_PLAIN)
    text = "".join(c for c in unicodedata.normalize("NFD", text) if not unicodedata.combining(c))
    text = _GREEK.sub(lambda m: f" {unicodedata.name(m[0]).split()[3].lower()} ", text)
    text = re.sub(r"\r\n?|[\n\u2028\u2029]++", "\n", text.translate(_FROM_LATIN))
    return re.sub(r"[^\S\n]++", " ", text)


# --- dates and times ---


def _full_year(text: str) -> int:
    n = int(text)
    return n if len(text) == 4 else n + (2000 if n < 50 else 1900)


def _dates(text: str) -> str:
    text = re.sub(r"(?<![\d./-])(\d{4})([-/.])(\d{1,2})\2(\d{1,2})(?![\d/-]|\.\d)", _iso_date, text)
    text = re.sub(r"(?<![\d./-])(\d{1,2})([-/])(\d{1,2})\2(\d{4}|\d{2})(?![\d/-]|\.\d)", _slash_date, text)
    text = re.sub(
        rf"\b{_MONTH}\s(\d{{1,2}})(?:st|nd|rd|th)?(?:\s?[-–]\s?(\d{{1,2}})(?:st|nd|rd|th)?)?(?:,?\s(\d{{4}}))?(?![\d:%]|\.\d|,\d)",
        _month_day,
        text,
    )
    text = re.sub(
        rf"(?<![\d.,:/-])([Tt]he\s)?(\d{{1,2}})(?:st|nd|rd|th)?\s(?:of\s)?{_MONTH}(?:,?\s(\d{{4}}))?(?![\d:]|\.\d)",
        _day_month,
        text,
    )
    text = re.sub(rf"\b{_MONTH}\s(\d{{4}})\b(?!\.\d)", lambda m: f"{_month(m[1])} {year(int(m[2]))}", text)
    text = re.sub(
        r"\b(Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)\.(\s*$|\s+[\"'(]?[A-Z])?",
        lambda m: _month(m[1]) + (f".{m[2]}" if m[2] is not None else ""),
        text,
    )
    # Decades: 1990s, '90s, 90s.
    text = re.sub(r"(?<![\d.,$£€])(\d{3})0'?s\b", lambda m: plural(year(int(m[1] + "0"))), text)
    return re.sub(r"(?<![\d.,$£€\w])'?([2-9])0'?s\b", lambda m: plural(cardinal(m[1] + "0")), text)


def _month(name: str) -> str:
    return _MONTHS[_MONTH_NUMBER[name[:3].lower()]]


def _date(month: int, day: int, said_year: str) -> str:
    return f"{_MONTHS[month - 1]} {ordinal(str(day))}{said_year}"


def _iso_date(match: Match[str]) -> str:
    month, day = int(match[3]), int(match[4])
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return match[0]
    return _date(month, day, f", {year(int(match[1]))}")


def _slash_date(match: Match[str]) -> str:
    month, day = int(match[1]), int(match[3])
    if month > 12:
        month, day = day, month
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return match[0]
    return _date(month, day, f", {year(_full_year(match[4]))}")


def _month_day(match: Match[str]) -> str:
    if not 1 <= int(match[2]) <= 31:
        return match[0]
    until = f" to {ordinal(match[3])}" if match[3] else ""
    return f"{_month(match[1])} {ordinal(match[2])}{until}" + (f", {year(int(match[4]))}" if match[4] else "")


def _day_month(match: Match[str]) -> str:
    if not 1 <= int(match[2]) <= 31:
        return match[0]
    said_year = f", {year(int(match[4]))}" if match[4] else ""
    return f"{match[1] or 'the '}{ordinal(match[2])} of {_month(match[3])}{said_year}"


_HALF = r"\s?(?:([ap])\.\s?m\.(?=(\s*$|\s+[\"'(]?[A-Z])?)|([apAP])[mM]\b)"


def _clock(text: str) -> str:
    text = re.sub(rf"(?<![\d:.])([01]?\d|2[0-3]):([0-5]\d){_HALF}", _half_day, text)
    text = re.sub(rf"(?<![\d:.,])([1-9]|1[0-2])(){_HALF}", _half_day, text)
    text = re.sub(
        r"\b((?:at|by|until|till|from|since|before|after)\s)(\d{1,2}:[0-5]\d):([0-5]\d)(?![\d:])",
        lambda m: f"{m[1]}{m[2]} and {cardinal(m[3])} seconds",
        text,
        flags=re.IGNORECASE,
    )
    text = re.sub(r"(?<![\d:.])(\d{1,2}):([0-5]\d):([0-5]\d)(?![\d:])", _long_clock, text)
    text = re.sub(r"(?<![\d:.])([01]?\d|2[0-4]):([0-5]\d)(?![\d:])", _day_clock, text)
    return re.sub(r"(?<=\d)\s?:\s?(?=\d)", " to ", text)


def _minutes(text: str) -> str:
    if not int(text):
        return ""
    return f" oh {cardinal(text)}" if text[0] == "0" else f" {cardinal(text)}"


def _half_day(match: Match[str]) -> str:
    half = (match[3] or match[5]).upper()
    hour = int(match[1])
    said = cardinal(str(hour - 12 if hour > 12 else hour))
    stop = "." if match[4] is not None else ""
    return f"{said}{_minutes(match[2]) if match[2] else ''} {half} M{stop}"


def _long_clock(match: Match[str]) -> str:
    units = [(match[1], "hour"), (match[2], "minute"), (match[3], "second")]
    said = [f"{cardinal(n)} {unit}{'' if int(n) == 1 else 's'}" for n, unit in units if int(n)]
    return " ".join(said) or "zero seconds"


def _day_clock(match: Match[str]) -> str:
    hour, minutes = int(match[1]) % 24, match[2]
    said = cardinal(str(hour - 12 if hour > 12 else hour or 12))
    half = "" if 0 < hour <= 12 else " A M" if hour == 0 else " P M"
    if not int(minutes):
        return f"{said}{half}" if half else f"{said} o'clock"
    return f"{said}{_minutes(minutes)}{half}"


# --- telephones, money, arithmetic ---

_TELEPHONE = re.compile(
    r"(?<![\d.,+-])(?:\+\d{1,3}[\s.-]?)?(?:1[\s.-])?(?:\(\d{3}\)\s?|\d{3}[\s.-])\d{3}[\s.-]\d{4}(?![\d-]|\.\d)"
    r"|(?<![\d.,+-])\d{3}-\d{4}(?![\d-]|\.\d)|(?<![\w+])\+\d{7,15}(?!\d)|(?<![\d.,+-])1[3-9]\d{9}(?!\d)"
    r"|(?<![\w+])\+\d{1,3}(?:[\s.-]\d{2,4}){2,4}(?!\d)"
)


def _telephones(text: str) -> str:
    """Telephone numbers and others of three groups or more, digit by digit."""
    text = _TELEPHONE.sub(_telephone, text)
    return re.sub(r"(?<![\w.,-])\d{1,12}(?:-\d{1,12}){2,9}(?![\w-])", _telephone, text)


def _telephone(match: Match[str]) -> str:
    said = ", ".join(digits(group) for group in re.findall(r"\d+", match[0]))
    return f" plus {said}" if match[0].startswith("+") else said


def _money(text: str) -> str:
    amount = rf"({_NUM})({_MAGNITUDE})?"
    text = re.sub(rf"(?<![\w-])-\s?{_SIGN}(?=\s?\d)", r"minus \1", text)
    text = re.sub(rf"{_SIGN}\s?-(?=\d)", r"minus \1", text)
    text = re.sub(
        rf"{_SIGN}\s?({_NUM})\s?[-–]\s?\1?\s?{amount}", lambda m: f"{number(m[2])} to {_price(m[1], m[3], m[4])}", text
    )
    text = re.sub(rf"{_SIGN}\s?({_NUM})[\s-](?=(?:bill|note|coin|gift|a)\b)", _price_attribute, text)
    text = re.sub(rf"{_SIGN}\s?{amount}", lambda m: _price(m[1], m[2], m[3]), text)
    text = re.sub(rf"{amount}\s?{_SIGN}", lambda m: _price(m[3], m[1], m[2]), text)
    text = re.sub(rf"\b{_CODE}\s?{amount}", lambda m: _price(m[1], m[2], m[3]), text)
    text = re.sub(rf"{amount}\s?{_CODE}\b", lambda m: _price(m[3], m[1], m[2]), text)
    text = re.sub(
        rf"(?<=[a-z])/({'|'.join(_PER)}|lb|oz|gal|hour|week|month|mo|year|yr|night|person|mile|unit)\b",
        lambda m: f" per {_PER.get(m[1]) or _UNITS.get(m[1], m[1]).replace('yr', 'year')}",
        text,
    )
    text = re.sub(rf"(?<![\w$])({_NUM})([KMB]|bn|mn)\b", _thousands, text)
    return re.sub(rf"({_INT})\s?¢", lambda m: f"{number(m[1])} cent{'' if m[1] == '1' else 's'}", text)


def _thousands(match: Match[str]) -> str:
    if match[2] == "K" and len(match[1]) == 1:
        return match[0]  # 4K and 5K are names
    return f"{number(match[1])} {_MAGNITUDES[match[2]]}"


def _price_attribute(match: Match[str]) -> str:
    return f"{number(match[2])} {_MONEY[match[1]][0]} "


def _price(sign: str, amount: str, magnitude: str | None) -> str:
    one, many, cent, cents = _MONEY[sign]
    if magnitude:
        magnitude = magnitude.strip()
        return f"{number(amount)} {_MAGNITUDES.get(magnitude, magnitude)} {many}"
    whole, point, small = amount.replace(",", "").partition(".")
    if not cent or (point and len(small) != 2):
        return f"{number(amount)} {one if amount == '1' else many}"
    said = []
    if whole.strip("0") or not small.strip("0"):
        said.append(f"{cardinal(whole)} {one if whole == '1' else many}")
    if small.strip("0"):
        said.append(f"{cardinal(small)} {cent if small == '01' else cents}")
    return " and ".join(said)


def _arithmetic(text: str) -> str:
    """Signs between numbers: minus, to, times, fractions."""
    text = re.sub(r"(?<=\d)\s?[-−]\s?(?=\d{1,15}(?:\.\d{1,15})?\s?=)", " minus ", text)
    text = re.sub(r"(?<=[\d)])\s[-−]\s(?=[\d(])", " minus ", text)
    text = re.sub(r"(?<=\d)\s?[xX×]\s?(?=\d)", " by " if "=" not in text else " times ", text)
    text = re.sub(r"(?<=\d)[xX]\b", " times", text)
    text = re.sub(r"(?<=\d)\s\*\s?(?=\d)|(?<=\d)\*(?=\d)", " times ", text)
    text = re.sub(r"(?<=\d)\s/\s(?=\d)", " divided by ", text)
    text = re.sub(r"(?<=[A-Za-z\d)])\^2\b", " squared", _keep_unit_powers(text))
    text = re.sub(r"(?<=[A-Za-z\d)])\^3\b", " cubed", text)
    text = text.replace("\x02", "^2").replace("\x03", "^3")
    text = re.sub(r"(?<![\d./])(\d{1,9})\s(\d{1,3})/(\d{1,3})(?![\d/])", _mixed_fraction, text)
    return re.sub(r"(?<![\d./])(\d{1,9})/(\d{1,9})(?![\d/]|\.\d)", _fraction, text)


def _keep_unit_powers(text: str) -> str:
    return re.sub(rf"(?<=[\d\s])({_UNIT_NAMES})\^([23])", lambda m: m[1] + ("\x02" if m[2] == "2" else "\x03"), text)


def _mixed_fraction(match: Match[str]) -> str:
    part = fraction(match[2], match[3], quarter="quarter")
    if match[2] == "1":
        part = f"a {part.removeprefix('one ')}"
    return f"{cardinal(match[1])} and {part}"


def _fraction(match: Match[str]) -> str:
    above, below = match[1], match[2]
    if (above, below) in {("24", "7"), ("9", "11"), ("50", "50"), ("20", "20")}:
        return f"{cardinal(above)} {cardinal(below)}"
    if above == below or (below == "100" and int(above) > 1):
        return f"{cardinal(above)} out of {cardinal(below)}"
    small = int(below)
    if 2 <= small <= 20 or (small in {25, 32, 50, 64, 100} and int(above) < small):
        return fraction(above, below, quarter="quarter")
    return f"{cardinal(above)} over {cardinal(below)}"


# --- units and numbers ---


def _measures(text: str) -> str:
    """Heights in feet and inches, and parts of a unit: "6'2\"", "6 ft 2 in", "1/2 tsp"."""
    text = re.sub(r"(?<![\d.,])(\d{1,2})'\s?(\d{1,2})(?:\"|''|\b)", r"\1 foot \2 ", text)
    text = re.sub(r"(?<=\d)\s?ft\.?\s(\d{1,2})\s?in\b\.?", r" feet \1 inches", text)
    return re.sub(
        rf"(?<![\d./])(\d{{1,9}}\s)?(\d{{1,3}}/\d{{1,3}})\s?({_UNIT_NAMES})(?![A-Za-z\d^/])", _unit_part, text
    )


def _unit_part(match: Match[str]) -> str:
    one, _, many = _UNITS[match[3]].partition("/")
    return f"{match[1] or ''}{match[2]} {(many or one + 's') if match[1] else one}"


def _unit(match: Match[str]) -> str:
    minus, amount, gap, square, unit, power, per = match.groups()
    if (
        gap == " "
        and unit in _CLOSE_UNITS
        and not power
        and not per
        and unit not in {"m", "min", "g", "L", "ms", "V", "W"}
    ):
        return match[0]
    one, _, many = _UNITS[unit].partition("/")
    many = many or f"{one}s"
    single = amount == "1" or gap == "-"
    said = f"{number(amount)} "
    if square or power == "^2":
        said += "square "
    elif power:
        said += "cubic "
    said += one if single else many
    return f"{' minus ' if minus else ''}{said}{f' per {_PER[per]}' if per else ''}"


def _numbers(text: str) -> str:
    text = re.sub(r"#\s?(\d++)", lambda m: f" number {number(m[1])}", text)
    text = re.sub(r"#(?=[A-Za-z])", " hashtag ", text)
    text = re.sub(r"(?<![\w])~\s?(?=\d|\.)", " about ", text)
    text = re.sub(rf"\b({_KINGS})\s([IVX]{{1,6}})\b(?!')", _king, text)
    text = re.sub(rf"\b({_PARTS})\s([IVXLC]{{1,7}})\b(?!')", lambda m: f"{m[1]} {cardinal(str(roman(m[2])))}", text)
    text = re.sub(rf"\b({_LABELS})\s([1-9]\d\d)(?!\d|[.,]\d)", lambda m: f"{m[1]} {_by_pairs(m[2])}", text)
    text = re.sub(r"\b([A-Z]{2,5})[\s-]([1-9]\d{2,3})(?!\d|[.,]\d)", lambda m: f"{m[1]} {_by_pairs(m[2])}", text)
    text = re.sub(r"\b([Cc]all|[Dd]ial|[Pp]hone)\s(\d{3})(?!\d|[.,]\d)", lambda m: f"{m[1]} {digits(m[2])}", text)
    # Versions and the like: 1.2.3.
    text = re.sub(r"(?<![\d.])v?(\d{1,9}(?:\.\d{1,9}){2,9})(?![\d.]*\d)", _version, text)
    text = re.sub(r"(?<![\w])v(?=\d)", " version ", text)
    text = re.sub(rf"({_INT})(?:st|nd|rd|th)(s?)\b", lambda m: ordinal(m[1].replace(",", "")) + m[2], text, flags=re.I)
    text = re.sub(r"(?<![\w.)])[-–]\s?(?=\.?\d)", " minus ", text)
    text = re.sub(r"(?<=[A-Za-z])-(?=\d)|(?<=\d)-(?=[A-Za-z])", " ", text)
    text = re.sub(
        rf"\b({_YEAR_WORDS})\s(1\d{{3}}|20\d\d)\b(?![.,]\d|\s?%)", _after_year_word, text, flags=re.IGNORECASE
    )
    text = re.sub(rf"({_NUM})\s?%", lambda m: f"{number(m[1])} percent", text)
    text = re.sub(
        r"(?<![\d.,])(1[1-9]\d\d|20[1-9]\d)(?![\d]|[.,]\d)(?!\s[a-z]+s\b)", lambda m: f" {year(int(m[1]))} ", text
    )
    text = re.sub(_NUM, lambda m: f" {number(m[0])} ", text)
    text = re.sub(r"\d++", lambda m: f" {number(m[0])} ", text)
    return text.replace(" 's", "'s")


def _by_pairs(text: str) -> str:
    """A number as rooms, flights and models have it: "404" -> "four oh four", "4090" -> "forty ninety"."""
    first, last = cardinal(text[:-2]), text[-2:]
    if last == "00":
        return f"{first} hundred" if len(text) == 3 or text[-3] != "0" else cardinal(text)
    return f"{first} {'oh ' if last[0] == '0' else ''}{cardinal(last)}"


def _after_year_word(match: Match[str]) -> str:
    return f"{match[1]} {year(int(match[2]))}"


def _king(match: Match[str]) -> str:
    if match[2] == "I":
        return match[0]
    return f"{match[1]} the {ordinal_of(cardinal(str(roman(match[2]))))}"


def _version(match: Match[str]) -> str:
    said = " point ".join(number(part) for part in match[1].split("."))
    return f" version {said}" if match[0].startswith("v") else said


def _signs(text: str) -> str:
    text = re.sub(r"(?<=[A-Za-z])\+\+", " plus plus", text)
    text = re.sub(r"\s[-–]{1,3}\s|–|-{2,3}", " , ", text)
    # A hyphen joins; words stand apart so that the dictionary finds them.
    return _SIGNS_RE.sub(lambda m: _SIGNS[m[0]], text.replace("-", " "))
