"""Torch files (`.bin`, `.pt`, `.pth`), read without torch by an unpickler that runs no code."""

from .checkpoint import load_pytorch_checkpoint, open_pytorch_checkpoint, state_dict_of
from .tensors import TorchTensor

__all__ = ["TorchTensor", "load_pytorch_checkpoint", "open_pytorch_checkpoint", "state_dict_of"]
