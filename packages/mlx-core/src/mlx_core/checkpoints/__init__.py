"""Checkpoints: safetensors, torch files, GGUF, other tools' quantisation, model hubs; read lazily, written whole."""

import lazy_loader  # the text layer asks for the hub and for GGUF's metadata, and needs no MLX

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
