"""Record transformers' rotary position embeddings for every kind of scaling.

Run first in an environment with transformers 5.23.0, which writes `rope.json` and `rope.safetensors`, then in one with
4.57.6, which writes what it does otherwise to `rope.v4.json` and `rope.v4.safetensors`:

    python scripts/record_golden/rope.py --out packages/mlx-core/tests/goldens/rope

`README.md` in the output folder describes the files.
"""

from __future__ import annotations

import argparse
import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers
from safetensors.numpy import load_file, save_file
from transformers.models.glm4.modeling_glm4 import apply_rotary_pos_emb as rotate_pairs
from transformers.models.glm4_moe.modeling_glm4_moe import Glm4MoeRotaryEmbedding
from transformers.models.glm4_moe.modeling_glm4_moe import apply_rotary_pos_emb as rotate_halves

SEED = 4
AGREEMENT = 1e-6  # relative; v4 is recorded where it differs by more

Config = dict[str, Any]
Tensors = dict[str, npt.NDArray[Any]]

LLAMA3: Config = {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
# 32 frequencies: as many as head_dim 64 has.
LONGROPE: Config = {
    "rope_type": "longrope",
    "short_factor": [round(1 + i / 40, 4) for i in range(32)],
    "long_factor": [round(1 + i * i / 30, 4) for i in range(32)],
}


def yarn(**entries: Any) -> Config:
    """A yarn rope_scaling of factor 4."""
    return {"rope_type": "yarn", "factor": 4.0, **entries}


@dataclass(frozen=True)
class Case:
    """A RoPE configuration as the top-level entries of a config.json, and the length of the sequence it is asked
    for.
    """

    length: int
    scaling: Config | None = None
    theta: float = 10000.0
    limit: int = 4096  # max_position_embeddings
    head_dim: int = 64
    partial: float | None = None
    original: int | None = None  # original_max_position_embeddings beside rope_scaling, as Phi-3 has it

    def config(self) -> Config:
        """Entries of a config.json before transformers 5."""
        entries = {
            "head_dim": self.head_dim,
            "max_position_embeddings": self.limit,
            "original_max_position_embeddings": self.original,
            "partial_rotary_factor": self.partial,
            "rope_scaling": self.scaling,
            "rope_theta": self.theta,
        }
        return copy.deepcopy({key: value for key, value in entries.items() if value is not None})


CASES: dict[str, Case] = {
    "default": Case(2048),
    "default_theta_1e6": Case(2048, theta=1e6),
    "default_head_dim_80": Case(2048, head_dim=80),
    "partial_half": Case(2048, partial=0.5),
    "partial_quarter": Case(2048, partial=0.25, theta=500.0),
    "linear": Case(2048, {"rope_type": "linear", "factor": 8.0}),
    "linear_type": Case(2048, {"type": "linear", "factor": 2.5}),
    "linear_partial": Case(2048, {"rope_type": "linear", "factor": 4.0}, partial=0.5),
    "dynamic_below": Case(64, {"rope_type": "dynamic", "factor": 2.0}, limit=64),
    "dynamic_above": Case(200, {"rope_type": "dynamic", "factor": 2.0}, limit=64),
    "dynamic_above_partial": Case(200, {"rope_type": "dynamic", "factor": 3.0}, limit=64, partial=0.5),
    "llama3": Case(
        2048, {**LLAMA3, "factor": 8.0, "original_max_position_embeddings": 8192}, theta=500000.0, limit=131072
    ),
    "llama3_short": Case(256, {**LLAMA3, "factor": 4.0, "original_max_position_embeddings": 64}, limit=256),
    "yarn": Case(2048, yarn(original_max_position_embeddings=32768), theta=1e6, limit=131072),
    "yarn_type": Case(
        2048, {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}, theta=1e6, limit=32768
    ),
    "yarn_no_original": Case(2048, yarn(), limit=512),
    "yarn_factor_not_ratio": Case(2048, yarn(factor=2.0, original_max_position_embeddings=512)),
    "yarn_factor_1": Case(2048, yarn(factor=1.0, original_max_position_embeddings=512)),
    "yarn_factor_null": Case(2048, yarn(factor=None, original_max_position_embeddings=512)),
    "yarn_attention_factor": Case(2048, yarn(attention_factor=0.75, original_max_position_embeddings=512)),
    "yarn_mscale": Case(2048, yarn(mscale=0.707, mscale_all_dim=1.0, original_max_position_embeddings=512)),
    "yarn_mscale_equal": Case(2048, yarn(mscale=1.0, mscale_all_dim=1.0, original_max_position_embeddings=512)),
    "yarn_mscale_alone": Case(2048, yarn(mscale=0.5, original_max_position_embeddings=512)),
    "yarn_mscale_all_dim_0": Case(2048, yarn(mscale=0.5, mscale_all_dim=0.0, original_max_position_embeddings=512)),
    "yarn_attention_factor_and_mscale": Case(
        2048, yarn(attention_factor=1.5, mscale=0.5, mscale_all_dim=1.0, original_max_position_embeddings=512)
    ),
    "yarn_not_truncated": Case(
        2048,
        yarn(factor=32.0, beta_fast=32.0, beta_slow=1.0, truncate=False, original_max_position_embeddings=4096),
        theta=150000.0,
        limit=131072,
    ),
    "yarn_betas": Case(2048, yarn(beta_fast=8.0, beta_slow=2.0, original_max_position_embeddings=512)),
    "yarn_betas_equal": Case(2048, yarn(beta_fast=4.0, beta_slow=4.0, original_max_position_embeddings=512)),
    "yarn_partial": Case(2048, yarn(original_max_position_embeddings=512), partial=0.5),
    "yarn_top": Case(2048, yarn(), original=512),
    "longrope_short": Case(64, {**LONGROPE, "factor": 3.0, "original_max_position_embeddings": 64}, limit=256),
    "longrope_long": Case(200, {**LONGROPE, "factor": 3.0, "original_max_position_embeddings": 64}, limit=256),
    "longrope_no_factor": Case(200, {**LONGROPE, "original_max_position_embeddings": 64}, limit=256),
    "longrope_top_short": Case(64, LONGROPE, limit=256, original=64),
    "longrope_top_long": Case(65, LONGROPE, limit=256, original=64),
    "longrope_top_factor": Case(200, {**LONGROPE, "factor": 3.0}, limit=256, original=64),
    "longrope_factor_1": Case(200, {**LONGROPE, "factor": 1.0}, limit=256, original=64),
    "longrope_attention_factor": Case(200, {**LONGROPE, "attention_factor": 1.25}, limit=256, original=64),
}


def input_vectors(head_dim: int) -> npt.NDArray[np.float32]:
    """One head's vectors at eight positions: [8, head_dim]."""
    return np.random.default_rng([SEED, head_dim]).standard_normal((8, head_dim), dtype=np.float32)


def positions_of(case: Case) -> npt.NDArray[np.int32]:
    """Eight positions, the last being the last of the sequence."""
    last = case.length - 1
    return np.array([0, 1, 2, last // 16, last // 5, last // 3, last - 1, last], dtype=np.int32)


def compute(case: Case) -> tuple[Tensors, float, Config]:
    """The reference's tensors, its factor on cos and sin, and its own form of the configuration."""
    config = transformers.LlamaConfig(**case.config())
    rope = Glm4MoeRotaryEmbedding(config)  # the one that knows partial_rotary_factor for the default type too
    positions = positions_of(case)
    x = torch.from_numpy(input_vectors(case.head_dim))[None, None]  # [1, 1, 8, head_dim]
    cos, sin = rope(x, torch.from_numpy(positions.astype(np.int64))[None])  # [1, 8, dims], halves repeated
    dims = cos.shape[-1]
    tensors = {
        "positions": positions,
        "inv_freq": rope.inv_freq.numpy(),
        "cos": cos[0, :, : dims // 2].numpy(),
        "sin": sin[0, :, : dims // 2].numpy(),
        "rotated_halves": rotate_halves(x, x, cos, sin)[0][0, 0].numpy(),
        "rotated_pairs": rotate_pairs(x, x, cos, sin)[0][0, 0].numpy(),
    }
    standard = {key: value for key, value in config.to_dict().items() if key in {*case.config(), "rope_parameters"}}
    return {key: np.ascontiguousarray(value) for key, value in tensors.items()}, float(rope.attention_scaling), standard


def record_v5(out: Path) -> None:
    """Every case."""
    rows: Config = {}
    tensors: Tensors = {f"x.{head_dim}": input_vectors(head_dim) for head_dim in {c.head_dim for c in CASES.values()}}
    for name, case in CASES.items():
        values, scaling, standard = compute(case)
        tensors |= {f"{name}.{key}": value for key, value in values.items()}
        rows[name] = {
            "config": case.config(),
            "config_v5": standard,
            "sequence_length": case.length,
            "dims": 2 * values["inv_freq"].size,
            "attention_scaling": scaling,
        }
    save_file(tensors, out / "rope.safetensors", {"transformers": transformers.__version__})
    (out / "rope.json").write_text(
        json.dumps({"transformers": transformers.__version__, "cases": rows}, indent=1) + "\n"
    )


def record_v4(out: Path) -> None:
    """The cases that come out otherwise, or not at all."""
    known, rows = load_file(out / "rope.safetensors"), json.loads((out / "rope.json").read_text())["cases"]
    different: Config = {}
    tensors: Tensors = {}
    for name, case in CASES.items():
        try:
            values, scaling, _ = compute(case)
        except TypeError as error:
            different[name] = {"error": f"{type(error).__name__}: {error}"}
            continue
        expected = known[f"{name}.inv_freq"]
        same_scaling = abs(scaling - rows[name]["attention_scaling"]) <= AGREEMENT * scaling
        if np.allclose(values["inv_freq"], expected, rtol=AGREEMENT, atol=0) and same_scaling:
            continue
        different[name] = {"attention_scaling": scaling}
        tensors |= {f"{name}.{key}": value for key, value in values.items()}
    save_file(tensors, out / "rope.v4.safetensors", {"transformers": transformers.__version__})
    report = {"transformers": transformers.__version__, "cases": different}
    (out / "rope.v4.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


def main() -> None:
    """Record with whichever version is installed."""
    parser = argparse.ArgumentParser(description="Record transformers' rotary position embeddings.")
    parser.add_argument("--out", type=Path, required=True, help="the goldens' folder")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    if transformers.__version__.startswith("4."):
        record_v4(out)
    else:
        record_v5(out)
    for path in out.glob("*.safetensors"):
        path.chmod(0o644)  # safetensors writes files that only their owner can read


if __name__ == "__main__":
    main()
