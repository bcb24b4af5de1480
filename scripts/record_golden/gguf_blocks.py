# /// script
# requires-python = ">=3.11"
# dependencies = ["gguf==0.19.0", "numpy>=2"]
# ///
"""Record what the `gguf` package writes and reads, for packages/mlx-core/tests/test_gguf.py.

    uv run scripts/record_golden/gguf_blocks.py

Writes into packages/mlx-core/tests/goldens/gguf/: `tiny.gguf`, a file by gguf's own writer with every type of
metadata and two rows of random blocks of every kind that `mlx_core.checkpoints.gguf.blocks` reads; `split-*.gguf`, the
same in three parts; `weights.npz`, those rows as gguf dequantises them; and `facts.json`: the metadata, the sizes of
all kinds of tensors, and the name of each tensor of an architecture.
"""

from __future__ import annotations

import json
from pathlib import Path

import gguf  # type: ignore[import-not-found]  # only in the reference's environment
import numpy as np
import numpy.typing as npt

OUT = Path(__file__).parents[2] / "packages/mlx-core/tests/goldens/gguf"
SEED = 0
# Where in a block of each kind its float16 scales lie: random bits would make some of them inf or NaN.
HALVES = {
    "Q4_0": [0],
    "Q4_1": [0, 2],
    "Q5_0": [0],
    "Q5_1": [0, 2],
    "Q8_0": [0],
    "Q4_K": [0, 2],
    "Q5_K": [0, 2],
    "Q6_K": [208],
}
SHAPE = (2, 512)
METADATA = {
    "test.uint8": (200, gguf.GGUFValueType.UINT8),
    "test.int8": (-100, gguf.GGUFValueType.INT8),
    "test.uint16": (60000, gguf.GGUFValueType.UINT16),
    "test.int16": (-30000, gguf.GGUFValueType.INT16),
    "test.uint32": (4000000000, gguf.GGUFValueType.UINT32),
    "test.int32": (-2000000000, gguf.GGUFValueType.INT32),
    "test.float32": (0.25, gguf.GGUFValueType.FLOAT32),
    "test.bool": (True, gguf.GGUFValueType.BOOL),
    "test.string": ("h\u00e9llo \U0001f600", gguf.GGUFValueType.STRING),
    "test.uint64": (2**63 + 1, gguf.GGUFValueType.UINT64),
    "test.int64": (-(2**62), gguf.GGUFValueType.INT64),
    "test.float64": (0.1, gguf.GGUFValueType.FLOAT64),
    "test.strings": (["", "a", "\u0120t"], gguf.GGUFValueType.ARRAY),
    "test.ints": ([1, -2, 3], gguf.GGUFValueType.ARRAY),
    "test.floats": ([0.5, -1.5], gguf.GGUFValueType.ARRAY),
    "test.bools": ([True, False], gguf.GGUFValueType.ARRAY),
}
LAYER = [
    *(f"self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm")),
    *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
    *(f"mlp.experts.{name}_proj" for name in ("gate", "up", "down")),
    *("input_layernorm", "post_attention_layernorm", "mlp.gate", "block_sparse_moe.gate"),
]
MODULES = ["model.embed_tokens", "model.norm", "lm_head", *(f"model.layers.1.{name}" for name in LAYER)]


def rows(kind: str, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Two rows of the kind's blocks with random codes: uint8 [2, bytes]."""
    weights, nbytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    values = rng.standard_normal(SHAPE).astype(np.float32)
    if kind == "F32":
        return values.view(np.uint8)
    if kind == "F16":
        return values.astype(np.float16).view(np.uint8)
    if kind == "BF16":  # the upper half of a float32
        return values.view("<u2")[:, 1::2].copy().view(np.uint8)
    blocks = rng.integers(0, 256, (SHAPE[0] * SHAPE[1] // weights, nbytes), dtype=np.uint8)
    for start in HALVES[kind]:
        halves = (rng.standard_normal(len(blocks)) * 10.0 ** rng.integers(-6, 2, len(blocks))).astype("<f2")
        blocks[:, start : start + 2] = halves.view(np.uint8).reshape(-1, 2)
    return blocks.reshape(SHAPE[0], -1)


def main() -> None:
    """Record everything."""
    OUT.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(SEED)
    raws = {kind: rows(kind, rng) for kind in ("F32", "F16", "BF16", *HALVES)}
    weights = {
        kind: gguf.dequantize(raw, gguf.GGMLQuantizationType[kind]).astype(np.float32) for kind, raw in raws.items()
    }
    for name, max_tensors in (("tiny.gguf", 0), ("split.gguf", 4)):
        writer = gguf.GGUFWriter(OUT / name, "test", split_max_tensors=max_tensors)
        for key, (value, type_) in METADATA.items():
            writer.add_key_value(key, value, type_)
        for kind, raw in raws.items():
            writer.add_tensor(kind.lower(), raw, raw_dtype=gguf.GGMLQuantizationType[kind])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    np.savez_compressed(OUT / "weights.npz", **weights)
    arches = {"llama": "LLAMA", "qwen2": "QWEN2", "qwen3": "QWEN3", "qwen3moe": "QWEN3MOE"}
    names = {}
    for arch, member in arches.items():
        known = gguf.get_tensor_name_map(gguf.MODEL_ARCH[member], 2)
        names[arch] = {name: module for module in MODULES if (name := known.get_name(module))}
    facts = {
        "metadata": {key: value for key, (value, _) in METADATA.items()},
        "kinds": {int(kind): [kind.name, *sizes] for kind, sizes in gguf.GGML_QUANT_SIZES.items()},
        "names": names,
    }
    (OUT / "facts.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
