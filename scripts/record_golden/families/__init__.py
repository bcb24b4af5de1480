"""The families that the recorders record: one module for each package, which `scripts/new_package.py` begins.

A module holds four tables: `MODEL_TYPES`, `CASES` (run through transformers), `CONVERSIONS` (converted and run by
mlx-lm) and `RELEASED` (sizes of released models). It needs NumPy alone, so that it can be imported in the environment
of each reference; a recorder finds it by the package's name.
"""

from __future__ import annotations

import copy
import importlib
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).parents[3]

Config = dict[str, Any]
Floats = npt.NDArray[np.float32]
Tensors = dict[str, npt.NDArray[Any]]
Shapes = dict[str, tuple[int, ...]]

# Entries are those of published config.json files: rope_theta and rope_scaling at the top, no layer_types.
BASE: Config = {
    "hidden_act": "silu",
    "hidden_size": 32,
    "intermediate_size": 48,
    "max_position_embeddings": 128,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000.0,
    "tie_word_embeddings": False,
    "vocab_size": 64,
}
# Wide enough for groups of 64 and 128 weights, which mlx-lm packs together.
CONVERTED: Config = {
    "hidden_act": "silu",
    "hidden_size": 128,
    "intermediate_size": 128,
    "max_position_embeddings": 512,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 1,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "vocab_size": 128,
}
YARN: Config = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
LLAMA3: Config = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
NO_SCALING: Config = {"rope_scaling": None}
TIED: Config = {"tie_word_embeddings": True}
FOUR_BITS: Config = {"quantize": True, "q_bits": 4}
MXFP4: Config = {"quantize": True, "q_mode": "mxfp4"}

GATED = ("gate_proj", "up_proj", "down_proj")


def gated_shapes(prefix: str, width: int, hidden: int, names: tuple[str, str, str] = GATED) -> Shapes:
    """A gated MLP: gate and up are `[width, hidden]`, down is `[hidden, width]`."""
    gate, up, down = (f"{prefix}.{name}.weight" for name in names)
    return {gate: (width, hidden), up: (width, hidden), down: (hidden, width)}


def expert_shapes(block: str, count: int, width: int, hidden: int, names: tuple[str, str, str] = GATED) -> Shapes:
    """A router and `count` gated MLPs under `block`."""
    shapes: Shapes = {f"{block}.gate.weight": (count, hidden)}
    for expert in range(count):
        shapes |= gated_shapes(f"{block}.experts.{expert}", width, hidden, names)
    return shapes


def dense_mlp(layer: str, index: int, config: Config) -> Shapes:
    """The MLP of a dense family: `mlp.gate_proj`, `mlp.up_proj`, `mlp.down_proj`."""
    return gated_shapes(f"{layer}.mlp", config["intermediate_size"], config["hidden_size"])


@dataclass(frozen=True)
class ModelType:
    """A `model_type` as the recorders need it: what its config.json and its checkpoints hold.

    `config` and `converted` are the entries that every tiny configuration has, for transformers and for mlx-lm. The
    others describe checkpoints: `norms` of a layer, `qk_norm` ("head": one weight per dimension of a head, "projection":
    one for each row of the projection; None: none, unless `use_qk_norm` says so), `qkv_bias` (always; else as
    `attention_bias` says), `mlp` (tensors between a layer's second norm and its end), `norm_offset` (added to a norm's
    weight before it multiplies), `drawn_as` (parts of names in checkpoints -> those under which tensors are drawn),
    `publish` (puts the entries where config.json has them), `prefix` (of all names, in what mlx-lm converts).
    """

    architecture: str
    config: Config = field(default_factory=dict)
    converted: Config = field(default_factory=dict)
    norms: tuple[str, ...] = ("input_layernorm", "post_attention_layernorm")
    qk_norm: Literal["head", "projection"] | None = None
    qkv_bias: bool = False
    mlp: Callable[[str, int, Config], Shapes] = dense_mlp
    router: Literal["softmax", "sigmoid"] | None = None
    norm_offset: float = 0.0
    drawn_as: Mapping[str, str] = field(default_factory=dict)
    publish: Callable[[Config], Config] = dict
    prefix: str = ""

    def drawn_name(self, name: str) -> str:
        """The name under which a checkpoint's tensor is drawn."""
        for theirs, ours in self.drawn_as.items():
            name = name.replace(theirs, ours)
        return name

    def shapes(self, config: Config) -> Shapes:
        """Name and shape of every tensor in the Hugging Face checkpoint of a configuration."""
        hidden, heads, kv_heads = (config[key] for key in ("hidden_size", "num_attention_heads", "num_key_value_heads"))
        head_dim = config.get("head_dim", hidden // heads)
        qk_norm = self.qk_norm or ("head" if config.get("use_qk_norm") else None)
        shapes: Shapes = {
            "model.embed_tokens.weight": (config["vocab_size"], hidden),
            "model.norm.weight": (hidden,),
        }
        if not config["tie_word_embeddings"]:
            shapes["lm_head.weight"] = (config["vocab_size"], hidden)
        for index in range(config["num_hidden_layers"]):
            layer = f"model.layers.{index}"
            shapes |= {f"{layer}.{name}.weight": (hidden,) for name in self.norms}
            for name, count in (("q", heads), ("k", kv_heads), ("v", kv_heads)):
                shapes[f"{layer}.self_attn.{name}_proj.weight"] = (count * head_dim, hidden)
                if self.qkv_bias or config.get("attention_bias", False):
                    shapes[f"{layer}.self_attn.{name}_proj.bias"] = (count * head_dim,)
                if qk_norm and name != "v":
                    width = head_dim if qk_norm == "head" else count * head_dim
                    shapes[f"{layer}.self_attn.{name}_norm.weight"] = (width,)
            shapes[f"{layer}.self_attn.o_proj.weight"] = (hidden, heads * head_dim)
            shapes |= self.mlp(layer, index, config)
        return {self.prefix + name: shape for name, shape in shapes.items()}


@dataclass(frozen=True)
class Case:
    """A configuration that transformers runs, and configurations that must not give the same logits (`unlike`)."""

    model_type: str
    config: Config
    note: str
    batch: int = 1
    length: int = 24
    prompt: int = 6
    unlike: tuple[Config, ...] = ()
    max_shard_size: str = "5GB"
    fused_experts: bool = False
    by_length: bool = False  # frequencies depend on the length of the whole sequence
    extra_tensors: Callable[[Config], Tensors] | None = None  # that published files hold and the reference leaves out


@dataclass(frozen=True)
class Conversion:
    """A configuration whose checkpoint mlx-lm converts, and the arguments of `mlx_lm.convert`."""

    model_type: str
    convert: Config = field(default_factory=dict)
    config: Config = field(default_factory=dict)


class Family(Protocol):
    """A module of this package."""

    MODEL_TYPES: dict[str, ModelType]
    CASES: dict[str, Case]
    CONVERSIONS: dict[str, Conversion]
    RELEASED: dict[str, Config]


def names() -> list[str]:
    """The families that have a module here: "glm4_moe" for the package glm4-moe-mlx."""
    return sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))


def find(name: str) -> Family:
    """The module of a family, by its name or its package's."""
    stem = name.removesuffix("-mlx").replace("-", "_")
    if stem not in names():
        raise SystemExit(f"no family {name!r} in scripts/record_golden/families; there are: {', '.join(names())}")
    module: Any = importlib.import_module(f"families.{stem}")
    return module


def goldens_folder(name: str) -> Path:
    """Where a family's package keeps its goldens."""
    return ROOT / "packages" / f"{name.removesuffix('-mlx').replace('_', '-')}-mlx" / "tests" / "goldens"


def published(model_type: str, spec: ModelType, entries: Config, dtype: str) -> Config:
    """The config.json of a published checkpoint that has these entries."""
    named = {"architectures": [spec.architecture], "model_type": model_type, "torch_dtype": dtype}
    return copy.deepcopy(spec.publish({**named, **entries}))


SEED = 2


def draw(name: str, shape: tuple[int, ...], spec: ModelType | None = None) -> Floats:
    """The tensor that every checkpoint of transformers' cases holds under `name`, if it has this shape."""
    spec = spec or ModelType("")
    name = spec.drawn_name(name)
    rng = np.random.default_rng([SEED, zlib.crc32(name.encode())])
    if name.endswith(("q_norm.weight", "k_norm.weight")):
        return (rng.uniform(1.0, 2.0, shape) - spec.norm_offset).astype(np.float32)
    if name.endswith("norm.weight"):
        return (rng.uniform(0.6, 1.4, shape) - spec.norm_offset).astype(np.float32)
    scale = 0.3 if name.endswith("bias") else 1.4 / shape[-1] ** 0.5
    if name in ("model.embed_tokens.weight", "lm_head.weight"):
        scale = 0.23  # gives logits of order 5
    return rng.standard_normal(shape, dtype=np.float32) * np.float32(scale)
