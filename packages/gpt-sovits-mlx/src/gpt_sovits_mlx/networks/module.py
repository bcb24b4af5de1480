"""The base of the networks: `mlx_core.models.CheckpointModule`, filled from GPT-SoVITS's released files too."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import mlx.core as mx
import numpy as np

from mlx_core import models
from mlx_core.errors import InputError, MissingCheckpointError

from ..checkpoints import read_released, resolve_network


class CheckpointModule(models.CheckpointModule):
    """A network that a folder fills, or a released `.ckpt` or `.pth` file."""

    @classmethod
    def load(cls, path: str | Path, *, dtype: mx.Dtype | str | None = None, keep_packed: bool | None = None) -> Self:
        """The network in a folder, in a released file, or in the hub's folder of an id.

        The arguments are those of `from_state_dict`. Raises MissingCheckpointError, HubError, and its errors.
        """
        config, weights = cls.read(resolve_network(path))
        return cls.from_state_dict(config, weights, dtype=dtype, keep_packed=keep_packed, consume=True)

    @classmethod
    def read(cls, path: Path) -> tuple[dict[str, Any], dict[str, mx.array]]:
        """Configuration and tensors of a folder or a released file, as they are there."""
        if path.is_dir():
            return super().read(path)
        if not path.exists():
            raise MissingCheckpointError(f"{path} does not exist. Give a folder, or a released .ckpt or .pth file.")
        released = read_released(path)
        return released.config, released.weights


def ids(name: str, values: Any, size: int) -> mx.array:
    """`[n]` int32 of a sequence or array of n ids (or one row of them). Raises InputError for ids outside [0, size)."""
    found = np.asarray(values)
    if found.size == 0:
        return mx.zeros((0,), dtype=mx.int32)
    if found.ndim > 1 and found.size == found.shape[-1]:
        found = found.reshape(-1)
    if found.ndim != 1 or not np.issubdtype(found.dtype, np.integer):
        raise InputError(f"{name} must be a sequence of whole numbers; found {found.dtype} of shape {found.shape}.")
    if found.min() < 0 or found.max() >= size:
        raise InputError(
            f"{name} must be in [0, {size}); found {found.min()} to {found.max()}. Are they of this model?"
        )
    return mx.array(found.astype(np.int32))
