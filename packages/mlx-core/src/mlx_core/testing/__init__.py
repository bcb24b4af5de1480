"""Shared by the tests of families: recorded results, the runner for every architecture, tiny models."""

from .. import backend as backend  # first: without MLX it says what to install

# isort: split
from ..models import randomize
from .goldens import CACHES, LAYOUTS, Goldens
from .interpreter import interpret
from .models import ScriptedModel, byte_tokenizer, check_model, check_plan, tiny_model

__all__ = [
    "CACHES",
    "LAYOUTS",
    "Goldens",
    "ScriptedModel",
    "byte_tokenizer",
    "check_model",
    "check_plan",
    "interpret",
    "randomize",
    "tiny_model",
]
