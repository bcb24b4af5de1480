"""Engines: who executes a model, the plans that they execute, and the protocol of language models."""

import lazy_loader  # MLX itself, which runs most models, needs no plans

from .. import backend as backend  # first: without MLX it says what to install

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
