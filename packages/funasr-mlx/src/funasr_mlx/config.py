"""Readers of a config.yaml: its tables, and settings that FunASR lets stand in two places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlx_core.errors import ConfigError


def table(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The table `name` of a configuration; empty where there is none or it is null. Raises ConfigError."""
    found = config.get(name)
    if found is None:
        return {}
    if not isinstance(found, Mapping):
        raise ConfigError(f"the configuration's {name!r} must be a table; found {type(found).__name__}.")
    return dict(found)


def section(config: Mapping[str, Any], name: str, kinds: Sequence[str]) -> dict[str, Any]:
    """The table `{name}_conf`, of a part that must be of one of the kinds. Raises ConfigError."""
    if config.get(name) not in kinds:
        raise ConfigError(f"the configuration's {name!r} must be {' or '.join(kinds)}; found {config.get(name)!r}.")
    return table(config, f"{name}_conf")


def setting(config: Mapping[str, Any], name: str, default: Any) -> Any:
    """A setting of `model_conf`, or of the configuration itself, which FunASR lets overrule it."""
    return config.get(name, table(config, "model_conf").get(name, default))
