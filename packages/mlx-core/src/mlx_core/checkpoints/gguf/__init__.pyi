from .checkpoint import hf_config, hf_weights
from .file import GGUFFile

__all__ = ["GGUFFile", "hf_config", "hf_weights"]
