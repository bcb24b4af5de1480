"""Korean (the extra `ko`): numbers and signs in words, and the phones of the standard pronunciation."""

from .reading import normalize, pronounce

__all__ = ["normalize", "pronounce"]
