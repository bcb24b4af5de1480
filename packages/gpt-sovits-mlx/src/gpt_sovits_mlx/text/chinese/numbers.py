"""Arabic numerals in Chinese words."""

from __future__ import annotations

DIGITS = "零一二三四五六七八九"

# The powers of ten that have a word of their own; the largest below the number's length splits it in two.
_UNITS = ((8, "亿"), (4, "万"), (3, "千"), (2, "百"), (1, "十"))


def spell(digits: str, one: str = "一") -> str:
    """Digit by digit: 2024 is 二零二四. `one` is 幺 in telephone and room numbers."""
    return "".join(one if digit == "1" else DIGITS[int(digit)] for digit in digits)


def cardinal(digits: str) -> str:
    """A whole number: 1024 is 一千零二十四, 12 is 十二, nothing at all is nothing."""
    if not digits:
        return ""
    words = _split(digits.lstrip("0")) or DIGITS[0]
    return words[1:] if words.startswith("一十") else words


def _split(digits: str) -> str:
    significant = digits.lstrip("0")
    if len(significant) < 2:
        zero = DIGITS[0] if significant and len(significant) < len(digits) else ""
        return zero + "".join(DIGITS[int(digit)] for digit in significant)
    power, word = next((power, word) for power, word in _UNITS if power < len(significant))
    return _split(digits[:-power]) + word + _split(digits[-power:])


def number(text: str) -> str:
    """A number with or without a decimal point: 3.14 is 三点一四, .5 is 零点五, 2.50 is 二点五零, 7.0 is 七点零."""
    whole, _, decimals = text.partition(".")
    words = cardinal(whole)
    if decimals:
        # One closing zero is read, however many there are.
        decimals = decimals.rstrip("0") + ("0" if decimals.endswith("0") else "")
        words = (words or DIGITS[0]) + "点" + spell(decimals)
    return words
