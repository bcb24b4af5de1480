"""Record checkpoints that mlx-lm converts, and the logits that it computes with them.

Run in an environment with mlx-lm 0.32.2:

    python scripts/record_golden/mlx_lm_checkpoints.py glm4

Tiny random checkpoints of the family's conversions (`families/`) in bfloat16, drawn by numpy from each tensor's name, go
through `mlx_lm.convert`. The logits are mlx-lm's own, from the folder that it wrote, with every floating-point parameter
cast to float32. `README.md` in the package's `tests/goldens` describes the files.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import shutil
import tempfile
import zlib
from pathlib import Path

import families
import mlx.core as mx
import mlx.nn as nn
import mlx_lm
import numpy as np
import numpy.typing as npt
from families import CONVERTED, Config, Conversion, ModelType
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers

SEED = 3
BATCH, LENGTH = 2, 16  # with two experts for each token just enough routed indices for mlx-lm to sort them
MIN_ROUTER_GAP = 1e-4  # between the last expert chosen and the first one left out, in probability
LOGIT_RANGE = (2.0, 8.0)


class GoldenError(RuntimeError):
    """A golden that would not be worth recording."""


def check(condition: bool, message: str) -> None:
    """Raise GoldenError unless the condition holds."""
    if not condition:
        raise GoldenError(message)


def full_config(case: Conversion, spec: ModelType) -> Config:
    """The config.json of the checkpoint that is converted."""
    return families.published(case.model_type, spec, entries(case, spec), "bfloat16")


def entries(case: Conversion, spec: ModelType) -> Config:
    """The configuration's entries, before they stand where config.json has them."""
    return {**CONVERTED, **spec.converted, **case.config}


def draw(name: str, shape: tuple[int, ...], spec: ModelType) -> mx.array:
    """The tensor that every checkpoint holds under `name`, if it has this shape: bfloat16, a router's bias float32."""
    rng = np.random.default_rng([SEED, zlib.crc32(name.encode())])
    values: npt.NDArray[np.float64]
    if name.endswith(("q_norm.weight", "k_norm.weight")):
        values = rng.uniform(1.0, 2.0, shape) - spec.norm_offset
    elif name.endswith("norm.weight"):
        values = rng.uniform(0.6, 1.4, shape) - spec.norm_offset
    elif name in ("model.embed_tokens.weight", "lm_head.weight"):
        values = 0.11 * rng.standard_normal(shape)  # gives logits of order 5
    else:
        values = rng.standard_normal(shape) * (0.3 if name.endswith("bias") else 1.4 / shape[-1] ** 0.5)
    drawn = mx.array(values.astype(np.float32))
    return drawn if name.endswith("e_score_correction_bias") else drawn.astype(mx.bfloat16)


def write_checkpoint(folder: Path, case: Conversion, spec: ModelType) -> None:
    """A Hugging Face checkpoint; `mlx_lm.convert` insists on a tokenizer, here of words w0, w1, ..."""
    folder.mkdir()
    weights = {name: draw(name, shape, spec) for name, shape in spec.shapes(entries(case, spec)).items()}
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "pt"})
    last = entries(case, spec)["vocab_size"] - 1
    tokenizer = Tokenizer(models.WordLevel({f"w{i}": i for i in range(last + 1)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    for name, content in {
        "config.json": full_config(case, spec),
        "generation_config.json": {"eos_token_id": [last - 1, last]},
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": f"w{last}"},
    }.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")


class Spy(nn.Module):
    """A router that remembers the scores by which it chooses."""

    def __init__(self, router: nn.Module) -> None:
        super().__init__()
        self.router = router
        self.seen: list[npt.NDArray[np.float32]] = []

    def __call__(self, x: mx.array) -> mx.array:
        """[..., hidden] -> what the router gives."""
        given = self.router(x)
        if isinstance(given, mx.array):
            scores = mx.softmax(given, axis=-1)
        else:
            scores = mx.sigmoid(x @ self.router.weight.T) + self.router.e_score_correction_bias
        self.seen.append(np.array(scores).reshape(-1, scores.shape[-1]))
        return given


def record(name: str, case: Conversion, spec: ModelType, folder: Path) -> Config:
    """Convert, run, write; return the row of `cases.json`."""
    shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory() as source:
        write_checkpoint(Path(source) / "hf", case, spec)
        mlx_lm.convert(str(Path(source) / "hf"), str(folder), **case.convert)
    (folder / "README.md").unlink(missing_ok=True)  # an empty model card

    model, _ = mlx_lm.utils.load_model(folder)
    model.set_dtype(mx.float32)
    blocks = [layer.get("mlp", layer.get("block_sparse_moe")) for layer in model.layers]
    spies = [block for block in blocks if "gate" in block]
    for mlp in spies:
        mlp.gate = Spy(mlp.gate)
    rng = np.random.default_rng([SEED, zlib.crc32(name.encode())])
    tokens = rng.integers(0, entries(case, spec)["vocab_size"], (BATCH, LENGTH), dtype=np.int32)
    logits = np.array(model(mx.array(tokens)))
    largest = float(np.abs(logits).max())
    check(logits.dtype == np.float32, f"{name}: the logits are {logits.dtype}")
    check(LOGIT_RANGE[0] < largest < LOGIT_RANGE[1], f"{name}: max |logit| is {largest}")
    for mlp in spies:
        best = -np.sort(-np.concatenate(mlp.gate.seen), axis=-1)
        chosen = entries(case, spec)["num_experts_per_tok"]
        gap = (best[:, chosen - 1] - best[:, chosen]).min()
        check(gap >= MIN_ROUTER_GAP, f"{name}: experts are chosen by {gap}; take another seed")
    save_file({"tokens": tokens, "logits": logits}, folder / "io.safetensors", {"mlx_lm": mlx_lm.__version__})
    for path in folder.iterdir():
        path.chmod(0o644)

    widths: dict[str, int] = {}
    for _, module in model.named_modules():
        if "scales" in module:
            kind = f"{module.mode} {module.bits} bits, group {module.group_size}"
            widths[kind] = widths.get(kind, 0) + 1
    return {"model_type": case.model_type, "convert": case.convert, "max_abs_logit": largest, "quantized": widths}


def main() -> None:
    """Record every conversion of a family."""
    parser = argparse.ArgumentParser(description="Record mlx-lm's checkpoints and logits for tiny random models.")
    parser.add_argument("family", help=f"one of {', '.join(families.names())}")
    parser.add_argument("--out", type=Path, help="the goldens' folder; the package's by default")
    arguments = parser.parse_args()
    family = families.find(arguments.family)
    out: Path = (arguments.out or families.goldens_folder(arguments.family)) / "mlx_lm"
    out.mkdir(parents=True, exist_ok=True)
    rows = {}
    for name, case in sorted(family.CONVERSIONS.items()):
        rows[name] = record(name, case, family.MODEL_TYPES[case.model_type], out / name)
        print(name, rows[name])
    versions = {"mlx_lm": mlx_lm.__version__, "mlx": importlib.metadata.version("mlx")}
    (out / "cases.json").write_text(json.dumps({"versions": versions, "cases": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
