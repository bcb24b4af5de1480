"""Modules other than decoders that checkpoints fill, under the checkpoint's own names and in its own layouts.

A `CheckpointModule` is an `mlx.nn.Module` whose paths are the checkpoint's names. Between the two lie a few rules, applied once,
at load: weight norm is folded, convolutions get MLX's channels-last layout, training's leftovers are dropped. What
`state_dict` gives keeps the checkpoint's layouts, so there is one way in for released files, our folders and state
dicts.
"""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import numpy.typing as npt

from .. import backend
from ..checkpoints import load_weights, new_folder, write_config, write_weights
from ..config import QuantizationConfig, parse_dtype, read_json
from ..errors import ConfigError, ConversionError, MissingCheckpointError, WeightsError
from .filling import FASTER, LoadReport, build, fill, inverse, layouts, materialize
from .projections import named_parameters
from .quantization import quantization_table

Array = mx.array | npt.NDArray[Any]

# The two spellings of weight norm: gain and direction.
_WEIGHT_NORM = (("weight_g", "weight_v"), ("parametrizations.weight.original0", "parametrizations.weight.original1"))


class CheckpointModule(nn.Module):
    """A network that a checkpoint fills.

    A subclass names its `model_type` (in the config.json of our folders), the checkpoint's tensors that it has no use
    for, builds itself in `build`, and maps names to its own in `sanitize`.
    """

    model_type: ClassVar[str]
    unused: ClassVar[re.Pattern[str]] = re.compile(r"(?!)")
    packable: ClassVar[re.Pattern[str] | None] = None
    """Which linear layers, by path, `quantize` packs; None: it packs none."""
    checkpoint_config: dict[str, Any]
    """The configuration as the checkpoint has it."""
    load_report: LoadReport

    @classmethod
    def build(cls, config: Mapping[str, Any], weights: Mapping[str, mx.array]) -> Self:
        """The network for a checkpoint's configuration, unfilled; `weights` tell what some configurations don't."""
        raise NotImplementedError(f"{cls.__name__} doesn't say how it is built.")

    def sanitize(self, weights: dict[str, mx.array]) -> dict[str, mx.array]:
        """The checkpoint's names -> the module's. Names that are the module's already stay."""
        return weights

    @classmethod
    def from_state_dict(
        cls,
        config: Mapping[str, Any] | None,
        weights: Mapping[str, Array],
        *,
        dtype: mx.Dtype | str | None = None,
        keep_packed: bool | None = None,
        lazy: bool = False,
        consume: bool = False,
    ) -> Self:
        """The network that a checkpoint describes.

        config: the checkpoint's own, or None for the released sizes where a checkpoint has none. weights: by the
        checkpoint's names, in its layouts. dtype: what to compute in; None for what the backend wants, else the
        weights' own. keep_packed: whether packed weights stay so; None for what the backend wants. lazy: leave the
        weights uncomputed. consume: empty `weights`, a dict, so that the source of each tensor is freed when the
        network's is computed. Raises ConfigError for a configuration that describes no network, WeightsError for tensors
        that are missing, unknown or of another shape.
        """
        wants = backend.current()
        arrays = {name: _array(name, value) for name, value in weights.items()}
        arrays = fold_weight_norm({name: value for name, value in arrays.items() if not cls.unused.match(name)})
        checked = {} if config is None else dict(config)
        network = build(lambda: cls.build(checked, arrays), f"the {cls.model_type} configuration")
        network.checkpoint_config = checked
        network.load_report = LoadReport(f"the {cls.model_type} checkpoint")
        fill(
            network,
            network.sanitize(dict(arrays)),
            network.load_report,
            quantization=QuantizationConfig.from_config(checked),
            dtype=parse_dtype(dtype) or wants.compute_dtype,
            keep_packed=wants.keep_packed if keep_packed is None else keep_packed,
            dequantize_limit_bytes=math.inf if keep_packed is False else wants.dequantize_limit_bytes,
            dequantize_reason="" if keep_packed is False else FASTER,
        )
        if consume:
            cast(dict[str, Array], weights).clear()
        arrays.clear()
        if not lazy:
            materialize(network, network.load_report)
        return network

    @classmethod
    def load(cls, path: str | Path, *, dtype: mx.Dtype | str | None = None, keep_packed: bool | None = None) -> Self:
        """The network in a folder (config.json beside safetensors or pytorch_model.bin), or in whatever else `read`
        knows; the arguments are those of `from_state_dict`.

        Raises MissingCheckpointError where there is none, ConfigError and WeightsError for one that doesn't fit.
        """
        with backend.worker_streams():
            config, weights = cls.read(Path(path))
            return cls.from_state_dict(config, weights, dtype=dtype, keep_packed=keep_packed, consume=True)

    @classmethod
    def read(cls, path: Path) -> tuple[dict[str, Any], dict[str, mx.array]]:
        """Configuration and tensors of a folder, as they are there. A subclass may read other files too."""
        if path.is_dir():
            config = read_json(path / "config.json")
            found = config.get("model_type", cls.model_type)
            if found != cls.model_type:
                raise ConfigError(f"{path} holds a {found!r} model; expected {cls.model_type!r}. Give another folder.")
            return config, load_weights(path)
        raise MissingCheckpointError(f"{path} is no folder. Give one that holds config.json and weights.")

    def state_dict(self) -> dict[str, mx.array]:
        """The weights by name in the checkpoint's layouts, weight norm folded; `from_state_dict` takes them."""
        axes = layouts(self)
        return {
            name: value.transpose(inverse(axes[name])) if name in axes else value
            for name, value in named_parameters(self).items()
        }

    def quantize(self, bits: int, group_size: int = 64) -> None:
        """Pack the linear layers that `packable` names into 8 or 4 bits, in groups of 32, 64 or 128 along the input.

        Layers whose width isn't a multiple of the group stay as they are. Raises ConversionError for a network of
        which none may be packed, and for other numbers.
        """
        pattern = self.packable
        if pattern is None:
            raise ConversionError(f"a {self.model_type} can't be quantised: it would lose too much. Leave bits out.")
        if bits not in (4, 8) or group_size not in (32, 64, 128):
            raise ConversionError(f"bits must be 4 or 8, groups of 32, 64 or 128; found {bits!r} and {group_size!r}.")
        nn.quantize(
            self,
            class_predicate=lambda path, module: (
                isinstance(module, nn.Linear)
                and pattern.search(path) is not None
                and module.weight.shape[-1] % group_size == 0
                and {"bits": bits, "group_size": group_size}
            ),
        )

    def save(self, folder: str | Path, *, files: Mapping[str, Path] | None = None) -> None:
        """Write config.json, safetensors, and copies of `files` under the names that they are given.

        The folder appears whole or not at all; it must not exist, or be empty. Raises ConversionError.
        """
        config = {k: v for k, v in self.checkpoint_config.items() if k not in ("quantization", "quantization_config")}
        config["model_type"] = self.model_type
        if table := quantization_table(self):
            config["quantization"] = table
        with new_folder(Path(folder)) as target:
            write_config(target, config)
            write_weights(target, self.state_dict())
            for name, source in (files or {}).items():
                shutil.copyfile(source, target / name)


def fold_weight_norm(weights: Mapping[str, mx.array]) -> dict[str, mx.array]:
    """Weights with g v / |v| in place of each gain g and direction v; the norm is over the axes where g is 1 wide."""
    result = dict(weights)
    for name in weights:
        for gain, direction in _WEIGHT_NORM:
            prefix = name.removesuffix(gain)
            if prefix == name or (prefix and prefix[-1] != "."):
                continue
            g, v = result.pop(name), result.pop(prefix + direction, None)
            if v is None:
                raise WeightsError(f"the checkpoint has {name} but no {prefix}{direction}. The file is incomplete.")
            if g.ndim != v.ndim or any(wide not in (1, full) for wide, full in zip(g.shape, v.shape, strict=True)):
                raise WeightsError(f"{name} {g.shape} doesn't fit {prefix}{direction} {v.shape}. The file is damaged.")
            axes = [axis for axis, wide in enumerate(g.shape) if wide == 1]
            exact = v.astype(mx.float32)
            norm = mx.sqrt(mx.sum(exact * exact, axis=axes, keepdims=True))
            result[f"{prefix}weight"] = (g.astype(mx.float32) * exact / norm).astype(v.dtype)
    return result


def sizes(config: Mapping[str, Any], section: str) -> dict[str, Any]:
    """The table of sizes in a configuration: the one under `section`, or the configuration itself."""
    table = config.get(section, config)
    if not isinstance(table, Mapping):
        raise ConfigError(f"the configuration's {section!r} is a {type(table).__name__}; expected a table.")
    return dict(table)


def check_sizes(config: Any, names: tuple[str, ...], most: int = 2**20) -> None:
    """Raise ConfigError unless the fields are whole numbers from 1 to `most`, or lists of such."""
    for name in names:
        value = getattr(config, name)
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= most:
                raise ConfigError(f"{name} must be of whole numbers from 1 to {most}; found {value!r:.100}.")


def _array(name: str, value: Array) -> mx.array:
    if isinstance(value, mx.array):
        return value
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiub":
        raise WeightsError(f"{name} is a {type(value).__name__}; expected an mx.array or a NumPy array of numbers.")
    return mx.array(value.astype(np.float32) if value.dtype == np.float64 else value)
