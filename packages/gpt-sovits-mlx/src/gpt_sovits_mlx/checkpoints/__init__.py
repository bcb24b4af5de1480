"""The files that GPT-SoVITS releases: where they lie, what is in them, LoRAs."""

from .locations import NAMES, PRETRAINED, Locations, find, resolve_network
from .lora import base_name, is_lora, merge_lora
from .released import HEADS, Released, read_released

__all__ = [
    "HEADS",
    "NAMES",
    "PRETRAINED",
    "Locations",
    "Released",
    "base_name",
    "find",
    "is_lora",
    "merge_lora",
    "read_released",
    "resolve_network",
]
