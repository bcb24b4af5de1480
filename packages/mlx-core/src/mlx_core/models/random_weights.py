"""Random weights for tests, benchmarks and demonstrations at released sizes."""

from __future__ import annotations

import math
from typing import TypeVar

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_map_with_path

from .experts import ExpertLinear

_M = TypeVar("_M", bound=nn.Module)

# Names of vectors that scale: of layer norms, MLX's and transformers', and of activations.
_SCALES = ("weight", "gamma", "alpha")


def randomize(module: _M, seed: int = 0) -> _M:
    """The module with all its parameters drawn anew, at a scale that keeps activations of order 1.

    Matrices and kernels have a standard deviation of 1 / sqrt(inputs), vectors of 0.1, around 1 where they scale and
    around 0 elsewhere. The parameters are computed when this returns; MLX's global random state isn't touched.
    """
    stacked = {f"{path}.weight" for path, part in module.named_modules() if isinstance(part, ExpertLinear)}
    count = len(tree_flatten(module.parameters()))
    keys = iter(mx.random.split(mx.random.key(seed), count + 1))  # one more, since none can't be split off

    def draw(path: str, value: mx.array) -> mx.array:
        noise = mx.random.normal(value.shape, key=next(keys))
        if value.ndim < 2:
            return 0.1 * noise + (1.0 if path.rsplit(".")[-1] in _SCALES else 0.0)
        inputs = value.shape[-1] if path in stacked else math.prod(value.shape[1:])
        return noise * inputs**-0.5

    module.update(tree_map_with_path(draw, module.parameters()))
    mx.eval(module.parameters())
    return module
