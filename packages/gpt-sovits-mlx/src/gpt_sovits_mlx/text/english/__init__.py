"""English: text to words, words to ARPAbet phones with stress."""

from .reading import normalize, pronounce

__all__ = ["normalize", "pronounce"]
