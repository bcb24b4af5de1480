"""Convert checkpoints by each packing, load what was written in mlx-lm and here, and compare the logits; and back.

    uv run --with mlx-lm==0.32.2 python scripts/roundtrip_mlx_lm.py

The checkpoints are random, one of each architecture, by the configurations of the tests' goldens. Both compute in
fp32. What mlx-lm converts is read back here the same way. Exits with 1 if logits of order 5 differ by more than 1e-3.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx_lm

from mlx_core import convert_model, load_model, save_model
from mlx_core.models import find_architecture
from mlx_core.testing import byte_tokenizer, randomize

sys.path.insert(0, str(Path(__file__).parent / "record_golden"))
import families

PACKINGS: dict[str, Any] = {
    "bf16": None,
    **{f"{bits} bits": {"bits": bits, "group_size": 32} for bits in (8, 6, 5, 4, 3, 2)},
    "mxfp4": {"mode": "mxfp4"},
    "mxfp8": {"mode": "mxfp8"},
    "nvfp4": {"mode": "nvfp4"},
    "mixed_3_6": {"recipe": "mixed_3_6", "group_size": 32},
    "mixed_4_6": {"recipe": "mixed_4_6", "group_size": 32},
}
WIDTHS = {"hidden_size": 128, "intermediate_size": 128, "moe_intermediate_size": 64, "head_dim": 32}
# mlx-lm rounds the square root by which Gemma's embeddings are multiplied to bfloat16; that of 64 needs no rounding.
WIDTHS_OF = {"gemma3_text": {**WIDTHS, "hidden_size": 64}}
TOLERANCE = 1e-3


def configurations() -> dict[str, Path]:
    """For each model type that the families have mlx-lm convert, the folder of its first case with transformers.

    Language models inside larger ones are left out: saved, they stand alone.
    """
    found: dict[str, Path] = {}
    for name in families.names():
        family = families.find(name)
        converted = {conversion.model_type for conversion in family.CONVERSIONS.values()}
        for case, settings in family.CASES.items():
            if settings.model_type in converted and not family.MODEL_TYPES[settings.model_type].prefix:
                folder = families.goldens_folder(name) / "transformers" / case
                found.setdefault(settings.model_type, folder)
    return found


CASES = configurations()


class Fp32Embedding(nn.Module):
    """An embedding whose rows are fp32: packed by the mx modes, MLX's own gives bfloat16 whatever the rest is."""

    def __init__(self, embedding: nn.Module) -> None:
        super().__init__()
        self.embedding = embedding
        self.as_linear = embedding.as_linear

    def __call__(self, tokens: mx.array) -> mx.array:
        return self.embedding(tokens).astype(mx.float32)


def theirs(folder: Path, tokens: mx.array) -> mx.array:
    """mlx-lm's logits, in fp32."""
    model, _ = mlx_lm.utils.load_model(folder)
    model.set_dtype(mx.float32)
    model.model.embed_tokens = Fp32Embedding(model.model.embed_tokens)
    return model(tokens)


def arguments(quantize: Any) -> dict[str, Any]:
    """The same packing for `mlx_lm.convert`."""
    if quantize is None:
        return {}
    names = {"bits": "q_bits", "group_size": "q_group_size", "mode": "q_mode", "recipe": "quant_predicate"}
    return {"quantize": True, **{names[key]: value for key, value in quantize.items()}}


def distance(a: mx.array, b: mx.array) -> float:
    """The largest difference."""
    return float(mx.abs(a - b).max().item())  # type: ignore[arg-type]


def source(case: str, layout: str, folder: Path) -> Path:
    """A random checkpoint, wide enough to be packed, by one of the goldens' configurations; with a tokenizer."""
    config = json.loads((CASES[case] / f"config.{layout}.json").read_text())
    config |= {name: width for name, width in WIDTHS_OF.get(case, WIDTHS).items() if name in config}
    if layout == "hub":
        config.setdefault("rope_scaling", None)  # as released; mlx-lm's glm4_moe insists on it
    architecture = find_architecture(config["model_type"])
    model = randomize(architecture.Model(architecture.ModelConfig.from_dict(config)), seed=len(case))
    save_model(folder, model, config)
    (folder / "config.json").write_text(json.dumps(config))
    byte_tokenizer().save(folder)
    return folder


def main() -> int:
    """Print the largest difference for each case."""
    parser = argparse.ArgumentParser(description="Round trips between this workspace and mlx-lm.")
    parser.add_argument("--case", choices=sorted(CASES), action="append", help="only this architecture")
    worst = 0.0
    for case in parser.parse_args().case or CASES:
        for packing, quantize in PACKINGS.items():
            for layout in ("hub", "v5"):
                with tempfile.TemporaryDirectory() as name:
                    folder = source(case, layout, Path(name) / "source")
                    config = json.loads((folder / "config.json").read_text())
                    tokens = mx.random.randint(0, config["vocab_size"], (2, 12), key=mx.random.key(0))
                    ours = Path(name) / "ours"
                    convert_model(folder, ours, quantize=quantize, dtype="bfloat16")
                    here = load_model(ours, dtype="float32", keep_packed=True)(tokens)
                    there = distance(theirs(ours, tokens), here)
                    back = 0.0
                    if layout == "hub":  # mlx-lm reads no other
                        with contextlib.redirect_stdout(io.StringIO()):
                            mlx_lm.convert(
                                str(folder), str(Path(name) / "back"), dtype="bfloat16", **arguments(quantize)
                            )
                        read = load_model(Path(name) / "back", dtype="float32", keep_packed=True)(tokens)
                        back = distance(theirs(Path(name) / "back", tokens), read)
                    print(f"{case:10} {packing:10} {layout:4} there {there:.1e} back {back:.1e}", flush=True)
                    worst = max(worst, there, back)
    print(f"worst {worst:.1e}")
    return int(worst > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
