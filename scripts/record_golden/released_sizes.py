"""Record the names and shapes that transformers' classes have at the sizes of released models.

Run once in an environment with transformers 4.57.6, then once in one with 5.23.0 (each with torch for the CPU):

    python scripts/record_golden/released_sizes.py glm4

The classes are built on torch's meta device, so no weight takes memory. The configurations (`RELEASED` in `families/`) are
what the models' config.json files on the hub say about their sizes, written down from memory, since a hub can't be
assumed. The defaults of transformers' configuration classes are the sizes of GLM-4-9B, GLM-4.5-Air and Mixtral 8x7B,
and agree. A head that is the embedding is one tensor, as it is in a checkpoint.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

import families
import torch
import transformers
from families import Config


def state_shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of the reference's class; one that two names share stands under the first."""
    settings = {key: value for key, value in config.items() if key != "model_type"}
    parsed = transformers.AutoConfig.for_model(config["model_type"], **settings)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(parsed)
    model.tie_weights()
    shapes, seen = {}, set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            shapes[name] = tuple(tensor.shape)
        seen.add(id(tensor))
    return shapes


def compact(shapes: dict[str, tuple[int, ...]]) -> dict[str, list[list[int]]]:
    """Numbers in names as stars: pattern -> the shape, then for each star the first number and the one after the last.

    Raises ValueError where the names aren't all the combinations of these numbers, of one shape.
    """
    groups: dict[str, dict[tuple[int, ...], tuple[int, ...]]] = {}
    for name, shape in shapes.items():
        numbers = tuple(int(number) for number in re.findall(r"(?<=\.)\d+(?=\.)", name))
        groups.setdefault(re.sub(r"(?<=\.)\d+(?=\.)", "*", name), {})[numbers] = shape
    result = {}
    for pattern, members in sorted(groups.items()):
        ranges = [[min(column), max(column) + 1] for column in zip(*members, strict=True)]
        count = 1
        for first, end in ranges:
            count *= end - first
        if count != len(members) or len(set(members.values())) != 1:
            raise ValueError(f"{pattern} can't be written as ranges")
        result[pattern] = [list(next(iter(members.values()))), *ranges]
    return result


def main() -> None:
    """Record the released models of a family."""
    parser = argparse.ArgumentParser(description="Record the names and shapes of released models.")
    parser.add_argument("family", help=f"one of {', '.join(families.names())}")
    parser.add_argument("--out", type=Path, help="the goldens' folder; the package's by default")
    arguments = parser.parse_args()
    path = (arguments.out or families.goldens_folder(arguments.family)) / "released.json"
    rows: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    for name, config in families.find(arguments.family).RELEASED.items():
        shapes = state_shapes(config)
        row = rows.setdefault(name, {"config": config, "tensors": {}})
        row["parameters"] = sum(torch.Size(shape).numel() for shape in shapes.values())
        row["tensors"][transformers.__version__] = compact(shapes)
        print(name, f"{row['parameters']:,} parameters in {len(shapes):,} tensors")
    text = json.dumps(rows, indent=1)
    text = re.sub(r"(?<=[\d\[\],])\s+(?=[\d\[\]])", "", text)  # a tensor's numbers on one line
    path.write_text(text + "\n")


if __name__ == "__main__":
    main()
