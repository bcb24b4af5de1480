"""Record what transformers' logits processors do, for mlx-core's tests of its sampling filters.

Run it in an environment with torch and transformers 5.23.0, from the root of the checkout:

    python scripts/record_golden/sampler.py packages/mlx-core/tests/goldens/sampler/filters.safetensors

One safetensors file: `logits` [4, 257] float32 (one row peaked, one half removed), `input_ids` [4, 12], and for each
filter the float32 logits that it returns, under `name/setting`. The file's metadata holds versions and seed.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.numpy import save_file
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

SEED = 20260921
FILTERS = {
    "temperature": (TemperatureLogitsWarper, (0.3, 0.8, 1.7)),
    "top_k": (TopKLogitsWarper, (1, 7, 60, 257, 1000)),
    "top_p": (TopPLogitsWarper, (0.05, 0.5, 0.9, 0.999)),
    "min_p": (MinPLogitsWarper, (0.01, 0.2, 1.0)),
    "typical_p": (TypicalLogitsWarper, (0.1, 0.5, 0.95)),
    "repetition_penalty": (RepetitionPenaltyLogitsProcessor, (0.7, 1.3)),
}
CHAIN = ("repetition_penalty/1.3", "temperature/0.8", "top_k/60", "top_p/0.9", "min_p/0.01", "typical_p/0.95")


def main(path: Path) -> None:
    rng = np.random.default_rng(SEED)
    logits = rng.normal(size=(4, 257)).astype(np.float32) * np.array([[1], [3], [9], [3]], dtype=np.float32)
    logits[3, rng.permutation(257)[:128]] = -np.inf
    input_ids = rng.integers(0, 257, size=(4, 12))
    input_ids[:, 6:9] = input_ids[:, :3]  # some tokens twice
    ids, scores = torch.from_numpy(input_ids), torch.from_numpy(logits)

    recorded = {"logits": logits, "input_ids": input_ids}
    made = {}
    for name, (kind, settings) in FILTERS.items():
        for setting in settings:
            made[f"{name}/{setting}"] = kind(setting)
            recorded[f"{name}/{setting}"] = made[f"{name}/{setting}"](ids, scores.clone()).numpy()
    chain = LogitsProcessorList([made[name] for name in CHAIN])
    recorded["chain"] = chain(ids, scores.clone()).numpy()

    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {
        "script": "scripts/record_golden/sampler.py",
        "transformers": transformers.__version__,
        "torch": torch.__version__,
        "seed": str(SEED),
        "chain": " ".join(CHAIN),
    }
    save_file({name: np.ascontiguousarray(array) for name, array in recorded.items()}, path, metadata)
    print(f"{path}: {len(recorded)} arrays, transformers {transformers.__version__}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
