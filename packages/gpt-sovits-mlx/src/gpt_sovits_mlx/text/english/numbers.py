"""English words for numbers: cardinals, ordinals, years, digits, fractions, Roman numerals.

Numbers arrive as text, so that leading zeros count and length costs nothing but length.
"""

from __future__ import annotations

from ..resources import word_list

_UNITS = word_list(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
)
_TENS = ("", "", *word_list("twenty thirty forty fifty sixty seventy eighty ninety"))
_SCALES = (
    "",
    *word_list(
        "thousand million billion trillion quadrillion quintillion sextillion septillion octillion nonillion decillion"
    ),
)
_ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}
_ROMAN = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100}
MAX_DIGITS = 3 * len(_SCALES)  # longer numbers have no name here and are read digit by digit


def _below_hundred(n: int) -> str:
    if n < 20:
        return _UNITS[n]
    tens, unit = divmod(n, 10)
    return f"{_TENS[tens]}-{_UNITS[unit]}" if unit else _TENS[tens]


def _below_thousand(n: int, conjunction: str) -> str:
    hundreds, rest = divmod(n, 100)
    if not hundreds:
        return _below_hundred(rest)
    words = f"{_UNITS[hundreds]} hundred"
    return f"{words}{conjunction}{_below_hundred(rest)}" if rest else words


def digits(text: str, zero: str = "zero") -> str:
    """Each digit by its name: "007" -> "zero zero seven"."""
    return " ".join(zero if c == "0" else _UNITS[int(c)] for c in text)


def cardinal(text: str, *, conjunction: str = " ", comma: str = " ") -> str:
    """The words for a whole number: "1234" -> "one thousand two hundred thirty-four".

    `conjunction` stands between hundreds and what follows (" and " in British English), `comma` between groups of
    three digits. Numbers of more than 36 digits are read digit by digit.
    """
    text = text.lstrip("0") or "0"
    if len(text) > MAX_DIGITS:
        return digits(text)
    if text == "0":
        return "zero"
    groups = [int(text[max(0, end - 3) : end]) for end in range(len(text), 0, -3)]
    parts = [
        _below_thousand(group, conjunction) + (f" {_SCALES[i]}" if i else "") for i, group in enumerate(groups) if group
    ][::-1]
    # A last group below a hundred is joined as tens are to hundreds: "one thousand (and) one".
    if len(parts) > 1 and 0 < groups[0] < 100:
        return comma.join(parts[:-1]) + conjunction + parts[-1]
    return comma.join(parts)


def ordinal_of(words: str) -> str:
    """The ordinal of a number in words: "twenty-two" -> "twenty-second"."""
    cut = max(words.rfind(" "), words.rfind("-")) + 1
    last = words[cut:]
    regular = f"{last[:-1]}ieth" if last.endswith("y") else f"{last}th"
    return words[:cut] + _ORDINALS.get(last, regular)


def ordinal(text: str, *, conjunction: str = " ", comma: str = " ") -> str:
    """The ordinal of a whole number: "22" -> "twenty-second"."""
    return ordinal_of(cardinal(text, conjunction=conjunction, comma=comma))


def year(n: int) -> str:
    """A year as it is said: 1905 -> "nineteen oh five", 2005 -> "two thousand five", 2024 -> "twenty twenty-four"."""
    century, rest = divmod(n, 100)
    if n < 1000 or n % 1000 == 0 or 2000 < n < 2010:
        return cardinal(str(n))
    if rest == 0:
        return f"{_below_hundred(century)} hundred"
    return f"{_below_hundred(century)} {'oh ' if rest < 10 else ''}{_below_hundred(rest)}"


def plural(words: str) -> str:
    """The plural of a number in words: "nineteen ninety" -> "nineteen nineties"."""
    if words.endswith("y"):
        return f"{words[:-1]}ies"
    return f"{words}es" if words.endswith("x") else f"{words}s"


def fraction(numerator: str, denominator: str, *, conjunction: str = " ", comma: str = " ", quarter: str = "") -> str:
    """A fraction as it is said: 3/4 is "three fourths", or "three quarters" where `quarter` is given."""
    above = cardinal(numerator, conjunction=conjunction, comma=comma)
    below = denominator.lstrip("0") or "0"
    one = above in ("one", "zero")
    if below == "1":
        return above
    if below == "2":
        return f"{above} {'half' if above == 'one' else 'halves'}"
    part = quarter if below == "4" and quarter else ordinal(below, conjunction=conjunction, comma=comma)
    return f"{above} {part}{'' if one else 's'}"


def roman(text: str) -> int:
    """The value of a Roman numeral made of I, V, X, L and C."""
    values = [_ROMAN[c] for c in text]
    following = [*values[1:], 0]
    return sum(-v if v < after else v for v, after in zip(values, following, strict=True))
