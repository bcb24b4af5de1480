"""Mandarin: text to simplified characters, characters to pinyin, pinyin to phones; numbers in Chinese words."""

from .g2pw import G2PW, Polyphones
from .normalization import say_numbers
from .official import normalize as normalize_officially
from .pinyin import Reading
from .reading import normalize, pronounce, pronounce_officially

__all__ = [
    "G2PW",
    "Polyphones",
    "Reading",
    "normalize",
    "normalize_officially",
    "pronounce",
    "pronounce_officially",
    "say_numbers",
]
