"""config.json: fields of a model's configuration, both RoPE layouts, quantisation tables, dtypes."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from .backend import DTYPES  # first: without MLX it says what to install

# isort: split
import mlx.core as mx
import mlx.nn as nn

from .errors import ConfigError, MissingCheckpointError
from .ops import ACTIVATIONS, RoPE, initialize_rope

# The largest config.json of a released model is some 100 kB; anything near this is not a configuration.
_MAX_JSON_BYTES = 64 * 2**20

# Dimensions of arrays are 32-bit. Layers are built one by one, so an absurd number of them would use up memory.
_MAX_SIZE, _MAX_LAYERS, _MAX_HEAD_DIM = 2**31 - 1, 4096, 2**16


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises ConfigError for anything else, MissingCheckpointError where there is no
    file.
    """
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise ConfigError(f"{path} has {path.stat().st_size:,} bytes; expected at most {_MAX_JSON_BYTES:,}.")
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MissingCheckpointError(f"{path} does not exist. Is {path.parent} a model's folder?") from error
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error}.") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid JSON: {error}. Download it again.") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path} holds a JSON {type(value).__name__}; expected an object.")
    return value


@dataclass(frozen=True, kw_only=True)
class BaseConfig:
    """A configuration whose fields are the checkpoint's own keys. `from_dict` ignores keys that have no field."""

    model_type: str = ""

    @classmethod
    def canonical(cls, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """config.json in the layout that this class reads and that is saved; families with several override it.

        Raises ConfigError.
        """
        return config

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> Self:
        """The configuration in `config`, types checked; ConfigError names a key that is missing or of the wrong type.

        A null counts as absent where the field doesn't take None, since exporters write nulls for defaults.
        """
        config = cls.canonical(config)
        values: dict[str, Any] = {}
        this: Any = cls  # mypy takes a dataclass's class, which the cache asks for, for unhashable
        hints = _field_types(this)
        for spec in dataclasses.fields(cls):
            if spec.name in config and (config[spec.name] is not None or type(None) in hints[spec.name]):
                values[spec.name] = _checked(spec.name, config[spec.name], hints[spec.name])
            elif spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING:
                raise ConfigError(
                    f"config.json of a {config.get('model_type', cls.__name__)!r} model lacks {spec.name!r}."
                )
        return cls(**values)


@functools.cache
def _field_types(cls: type[BaseConfig]) -> dict[str, tuple[type, ...]]:
    """The plain types that each field takes: `int | None` becomes (int, NoneType), `list[int]` (list,)."""
    result = {}
    for name, hint in typing.get_type_hints(cls).items():
        options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        result[name] = tuple(typing.get_origin(option) or option for option in options)
    return result


def _checked(name: str, value: Any, accepted: tuple[type, ...]) -> Any:
    if float in accepted and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < 2**1000 else math.inf  # refused below
    if int in accepted and float not in accepted and isinstance(value, float) and value.is_integer():
        value = int(value)
    wrong_bool = isinstance(value, bool) and bool not in accepted
    if Any not in accepted and (wrong_bool or not isinstance(value, accepted)):
        expected = " or ".join("null" if kind is type(None) else kind.__name__ for kind in accepted)
        raise ConfigError(f"config.json's {name!r} must be {expected}; found {value!r}.")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"config.json's {name!r} must be finite; found {value!r}.")
    return value


@dataclass(frozen=True, kw_only=True)
class DecoderConfig(BaseConfig):
    """The keys that the decoder-only language models share, with the defaults that transformers gives absent ones."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    hidden_act: str = "silu"
    max_position_embeddings: int = 32768
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = False
    rope_theta: float | None = None
    rope_scaling: dict[str, Any] | None = None
    rope_parameters: dict[str, Any] | None = None
    partial_rotary_factor: float | None = None
    original_max_position_embeddings: int | None = None
    layer_types: list[str] | None = None
    sliding_window: int | None = None

    # What transformers assumes where a checkpoint names no theta.
    default_rope_theta: typing.ClassVar[float] = 10_000.0

    def __post_init__(self) -> None:
        for name in (
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "max_position_embeddings",
        ):
            if not 1 <= getattr(self, name) <= _MAX_SIZE:
                raise ConfigError(
                    f"config.json's {name!r} must be between 1 and {_MAX_SIZE}; found {getattr(self, name)}."
                )
        if self.num_hidden_layers > _MAX_LAYERS:
            raise ConfigError(
                f"config.json's 'num_hidden_layers' is {self.num_hidden_layers}; no model has over {_MAX_LAYERS}."
            )
        if self.num_key_value_heads is None:
            object.__setattr__(self, "num_key_value_heads", self.num_attention_heads)
        if (self.num_key_value_heads or 0) < 1 or self.num_attention_heads % self.kv_heads:
            raise ConfigError(
                "num_key_value_heads must divide num_attention_heads; "
                f"found {self.num_key_value_heads} and {self.num_attention_heads}."
            )
        if self.head_dim is None:
            if self.hidden_size % self.num_attention_heads:
                raise ConfigError(
                    f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}, "
                    "and config.json gives no head_dim."
                )
            object.__setattr__(self, "head_dim", self.hidden_size // self.num_attention_heads)
        if not 1 <= self.dim_per_head <= _MAX_HEAD_DIM:
            raise ConfigError(f"config.json's 'head_dim' must be between 1 and {_MAX_HEAD_DIM}; found {self.head_dim}.")
        if self.sliding_window is not None and self.sliding_window < 1:
            raise ConfigError(f"config.json's 'sliding_window' must be positive or null; found {self.sliding_window}.")
        if self.hidden_act not in ACTIVATIONS:
            raise ConfigError(f"hidden_act {self.hidden_act!r} is not supported; known are {', '.join(ACTIVATIONS)}.")
        if unknown := set(map(str, self.layer_types or ())) - {"full_attention", "sliding_attention"}:
            raise ConfigError(f"layer_types may hold full_attention and sliding_attention; found {sorted(unknown)}.")
        if self.layer_types is not None and len(self.layer_types) != self.num_hidden_layers:
            raise ConfigError(
                f"layer_types names {len(self.layer_types)} layers; num_hidden_layers is {self.num_hidden_layers}."
            )

    @property
    def kv_heads(self) -> int:
        """Key and value heads, which queries share in groups."""
        return self.num_key_value_heads or self.num_attention_heads

    @property
    def dim_per_head(self) -> int:
        return self.head_dim or 0

    def norm(self, dims: int) -> nn.Module:
        """A new norm over `dims` numbers: RMSNorm, unless a family says otherwise."""
        return nn.RMSNorm(dims, eps=self.rms_norm_eps)

    def rope(self, layer_type: str | None = None, *, traditional: bool = False) -> RoPE:
        """The RoPE of this configuration, or of its layers of one type, read from whichever layout it uses."""
        parameters = self.rope_settings(layer_type)
        dims = int(self.dim_per_head * parameters["partial_rotary_factor"])
        return initialize_rope(dims, parameters["rope_theta"], traditional, parameters, self.max_position_embeddings)

    @property
    def context_length(self) -> int:
        """The most tokens that the positions are made for: what RoPE scaling stretches the trained context to.

        Some checkpoints state the stretched length as `max_position_embeddings`, others the one before; where they tell
        that one too, the difference shows. Linear scaling has no use for it: what is stated (Gemma 3's 131072, not
        eight times that) is taken for the stretched length.
        """
        parameters = self.rope_settings("full_attention")
        kind = parameters.get("rope_type", parameters.get("type", "default"))
        stated = "original_max_position_embeddings" in parameters
        if kind in ("default", "mrope") or (kind == "linear" and not stated):
            return self.max_position_embeddings
        original = parameters.get("original_max_position_embeddings", self.max_position_embeddings)
        return max(self.max_position_embeddings, int(original * parameters.get("factor", 1)))

    def rope_settings(self, layer_type: str | None = None) -> dict[str, Any]:
        """The RoPE settings, as `rope_parameters` gives them, of all layers or of those of one type."""
        return rope_parameters(dataclasses.asdict(self), self.default_rope_theta, layer_type)

    def window(self, layer: int, otherwise: bool = False) -> int | None:
        """The window of a layer by `layer_types`, or where there are none by `otherwise`; None for full attention."""
        if self.sliding_window is None:
            return None
        if self.layer_types is not None:
            otherwise = self.layer_types[layer] == "sliding_attention"
        return self.sliding_window if otherwise else None


def rope_parameters(
    config: Mapping[str, Any], default_theta: float = 10_000.0, layer_type: str | None = None
) -> dict[str, Any]:
    """RoPE settings as transformers 5 writes them: one dict with rope_theta, rope_type, partial_rotary_factor and the
    type's own.

    Reads `rope_parameters` (transformers 5) as well as `rope_theta`, `rope_scaling` and `partial_rotary_factor` at
    the top level (transformers 4). Where settings differ by layer type, those of `layer_type`. Raises ConfigError where
    they differ and it names none of them.
    """
    nested = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(nested, Mapping):
        raise ConfigError(f"rope_parameters must be an object; found {nested!r}.")
    parameters = {key: value for key, value in nested.items() if value is not None}
    by_layer_type = {key: value for key, value in parameters.items() if isinstance(value, Mapping)}
    if by_layer_type:
        settings = [dict(value) for value in by_layer_type.values()]
        if len(by_layer_type) < len(parameters):
            raise ConfigError(f"rope_parameters are of all layers, or of each layer type; found {sorted(parameters)}.")
        if layer_type in by_layer_type:
            settings = [dict(by_layer_type[layer_type])]
        elif layer_type is not None:
            raise ConfigError(f"rope_parameters has no settings for {layer_type!r} layers; found {sorted(parameters)}.")
        if any(other != settings[0] for other in settings):
            raise ConfigError(
                f"these layers share one RoPE; config.json has settings that differ by layer type: {sorted(parameters)}."
            )
        parameters = settings[0]
    for name, default in (("rope_theta", default_theta), ("partial_rotary_factor", 1.0)):
        value = parameters.get(name, config.get(name))
        parameters[name] = _positive(name, default if value is None else value)
    if parameters["partial_rotary_factor"] > 1:
        raise ConfigError(f"partial_rotary_factor must be at most 1; found {parameters['partial_rotary_factor']}.")
    if config.get("original_max_position_embeddings") is not None:
        parameters["original_max_position_embeddings"] = config["original_max_position_embeddings"]
    for name in ("original_max_position_embeddings", "factor"):
        if parameters.get(name) is not None:
            _positive(name, parameters[name])
    return parameters


def _positive(name: str, value: Any) -> float:
    """A number that positions can be computed with."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e30:
        raise ConfigError(f"config.json's {name!r} must be a positive number; found {value!r:.80}.")
    return float(value)


# Bits and group sizes that mx.quantize takes, by mode.
QUANTIZATION_MODES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "affine": ((2, 3, 4, 5, 6, 8), (32, 64, 128)),
    "mxfp4": ((4,), (32,)),
    "mxfp8": ((8,), (32,)),
    "nvfp4": ((4,), (16,)),
}


@dataclass(frozen=True)
class LayerQuantization:
    """The packing of one layer's weight."""

    group_size: int
    bits: int
    mode: str = "affine"

    def __post_init__(self) -> None:
        if self.mode not in QUANTIZATION_MODES:
            raise ConfigError(f"unknown quantisation mode {self.mode!r}; known are {', '.join(QUANTIZATION_MODES)}.")
        bits, group_sizes = QUANTIZATION_MODES[self.mode]
        if self.bits not in bits or self.group_size not in group_sizes:
            raise ConfigError(
                f"{self.mode} quantisation takes {_or(bits)} bits in groups of {_or(group_sizes)}; "
                f"found {self.bits} bits in groups of {self.group_size}."
            )

    def to_dict(self) -> dict[str, Any]:
        return {"group_size": self.group_size, "bits": self.bits, "mode": self.mode}


@dataclass(frozen=True)
class QuantizationConfig:
    """The `quantization` table of a checkpoint: a default, and overrides by module path (None: not quantised)."""

    default: LayerQuantization
    overrides: Mapping[str, LayerQuantization | None] = field(default_factory=dict)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self | None:
        """MLX's table in config.json, None where the checkpoint isn't quantised.

        Raises ConfigError for another tool's, naming what to do instead.
        """
        table = quantization_entry(config)
        if table is None:
            return None
        method = quantization_method(table)
        if method is not None:
            raise ConfigError(
                f"weights quantised by {method!r} can't be read; those by {', '.join(LEGACY_METHODS)} can. Take the model's bf16 "
                "checkpoint, or an MLX-quantised one (mlx-community)."
            )
        return cls.from_dict(table)

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> Self:
        default = _layer_quantization(table, "quantization")
        overrides: dict[str, LayerQuantization | None] = {}
        for path, entry in table.items():
            if entry is False:
                overrides[path] = None
            elif isinstance(entry, Mapping):
                overrides[path] = _layer_quantization(entry, path)
            elif entry is True:
                overrides[path] = default
        return cls(default, overrides)

    def for_path(self, path: str) -> LayerQuantization | None:
        """The packing of the module at `path`, if it is packed; None where the table says that it isn't.

        A language model inside a larger one is `language_model` in its table.
        """
        return self.overrides.get(path, self.overrides.get(f"language_model.{path}", self.default))

    def to_dict(self) -> dict[str, Any]:
        """The table as config.json holds it."""
        overrides = {path: entry.to_dict() if entry else False for path, entry in self.overrides.items()}
        return {**self.default.to_dict(), **overrides}


def quantization_entry(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """config.json's quantisation entry, MLX's own before another tool's; None where there is none. Raises
    ConfigError.
    """
    entry = config.get("quantization")
    if entry is None:
        entry = config.get("quantization_config")
    if entry is None or entry == {}:
        return None
    if not isinstance(entry, Mapping):
        raise ConfigError(f"config.json's quantization must be an object; found {entry!r}.")
    return entry


LEGACY_METHODS = ("awq", "gptq", "mxfp4")
"""The `quant_method`s of other tools that `legacy_quantization` reads."""


def quantization_method(entry: Mapping[str, Any]) -> str | None:
    """The tool or format that a quantisation entry names, in lower case; None for MLX's own."""
    if entry.get("load_in_4bit") or entry.get("load_in_8bit"):
        return "bitsandbytes"  # its older entries don't say so
    return str(entry["quant_method"]).lower() if "quant_method" in entry else None


def _layer_quantization(entry: Mapping[str, Any], where: str) -> LayerQuantization:
    mode = entry.get("mode") or "affine"
    if not isinstance(mode, str) or mode not in QUANTIZATION_MODES:
        raise ConfigError(f"{where}: unknown quantisation mode {mode!r}; known are {', '.join(QUANTIZATION_MODES)}.")
    # An override doesn't inherit from the table, as in MLX: a key that it lacks (or that is null, as in mlx-lm's
    # recipes) has the mode's default.
    fallback = {"group_size": 64, "bits": 4}
    if mode != "affine":
        bits, group_sizes = QUANTIZATION_MODES[mode]
        fallback = {"group_size": group_sizes[0], "bits": bits[0]}
    values = {}
    for name in ("group_size", "bits"):
        value = entry.get(name)
        value = fallback[name] if value is None else value
        if isinstance(value, bool) or not isinstance(value, int):
            raise ConfigError(f"{where}: {name!r} must be an integer; found {value!r}.")
        values[name] = value
    return LayerQuantization(values["group_size"], values["bits"], mode)


def _or(values: tuple[int, ...]) -> str:
    return " or ".join([", ".join(map(str, values[:-1])), str(values[-1])] if len(values) > 1 else [str(values[0])])


def parse_dtype(dtype: mx.Dtype | str | None) -> mx.Dtype | None:
    """A floating-point dtype by itself or by name ("bfloat16", "torch.float16"); None stays None."""
    if dtype is None or (isinstance(dtype, mx.Dtype) and dtype in DTYPES.values()):
        return dtype
    name = str(dtype).removeprefix("torch.").removeprefix("mlx.core.")
    if name not in DTYPES:
        raise ConfigError(f"dtype {name!r} is not one that models compute in; expected one of {', '.join(DTYPES)}.")
    return DTYPES[name]
