"""GGUF files: headers, metadata and blocks, and what they mean as a checkpoint."""

import lazy_loader  # metadata is read without MLX

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
