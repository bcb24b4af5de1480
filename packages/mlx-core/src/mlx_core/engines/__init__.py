"""Engines: who executes a model, and the protocol of language models that generation runs."""

from .. import backend as backend  # first: without MLX it says what to install

# isort: split
from .protocol import LanguageModel

__all__ = ["LanguageModel"]
