"""Models: the blocks that decoders are made of, modules that checkpoints fill, loading and conversion."""

import lazy_loader  # language models need no NumPy

from .. import backend as backend  # first: without MLX it says what to install

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
