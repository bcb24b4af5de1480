"""model_type -> the package that serves it.

A package registers its model types under the entry-point group `mlx_core.models`; each names a module with `Model` and
`ModelConfig`.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any, Protocol, cast

from ..config import DecoderConfig
from ..errors import ConfigError
from .layers import CausalLM

GROUP = "mlx_core.models"

# What to install for a model type that no installed package serves; the workspace's tests compare it with the members'
# entry points.
_PACKAGES = {
    "llama": "qwen3-mlx",
    "qwen2": "qwen3-mlx",
    "qwen3": "qwen3-mlx",
    "qwen3_moe": "qwen3-mlx",
    "glm4": "glm4-mlx",
    "glm4_moe": "glm4-moe-mlx",
    "mixtral": "mixtral-mlx",
    "olmo2": "olmo2-mlx",
    "gemma3_text": "gemma3-mlx",
    "gemma3": "gemma3-mlx",
}


class Architecture(Protocol):
    """A module that defines an architecture."""

    ModelConfig: type[DecoderConfig]
    Model: Callable[[Any], CausalLM]


def installed_model_types() -> list[str]:
    """The model types that installed packages serve."""
    return sorted({entry.name for entry in entry_points(group=GROUP)})


def find_architecture(model_type: object) -> Architecture:
    """The module that serves a checkpoint's `model_type`; ConfigError says which package to install where there is
    none.
    """
    if not isinstance(model_type, str) or not model_type:
        raise ConfigError(f"config.json's 'model_type' must name an architecture; found {model_type!r}.")
    for entry in entry_points(group=GROUP, name=model_type):
        return cast(Architecture, entry.load())
    if package := _PACKAGES.get(model_type):
        raise ConfigError(f"this is a `{model_type}` checkpoint; install {package} (`uv add {package}`).")
    raise ConfigError(
        f"no package serves model_type {model_type!r}. Installed ones serve: {', '.join(installed_model_types()) or 'none'}; "
        f"others exist for {', '.join(sorted(_PACKAGES.keys() - set(installed_model_types()))) or 'no other type'}."
    )
