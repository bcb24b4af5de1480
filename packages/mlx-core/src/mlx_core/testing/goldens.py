"""Leaf helpers for tests that compare a package's models with recorded results of reference implementations.

The scripts under `scripts/record_golden` write the recordings: `transformers/<case>` (weights, three layouts of
config.json, logits, a greedy continuation), `mlx_lm/<case>` (a checkpoint that mlx-lm converted, and its logits) and
`released.json` (names and shapes at the sizes of released models). Checks raise AssertionError.
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

from ..cache import ConcatKeyValueCache, KeyValueCache, KVCache, RotatingKVCache
from ..generation import generate
from ..models import CausalLM, find_architecture, load_model, named_parameters, preserved_random_state, save_model

LAYOUTS = ("hub", "v4", "v5")
"""Of config.json: as published checkpoints spell it, as transformers 4.57.6 and as 5.23.0 write it."""

TOLERANCE = 2e-4
"""fp32 on both sides; what is left is the order of summation. Logits are of order 5."""

CACHES: dict[str, Callable[[CausalLM, int], list[KeyValueCache]]] = {
    "model": lambda model, length: model.make_cache(),
    "concat": lambda model, length: [ConcatKeyValueCache() for _ in model.layers],
    "step": lambda model, length: [KVCache(step=16) for _ in model.layers],
    "rotating": lambda model, length: [RotatingKVCache(layer.window or length) for layer in model.layers],
    "rotating-keep": lambda model, length: [RotatingKVCache(length, keep=4) for _ in model.layers],
}
"""Each kind of cache, for a model and a number of tokens."""


class Goldens:
    """A package's folder of recordings, and the checks against them; `folder` arguments are empty folders to work
    in.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.cases: dict[str, Any] = json.loads((root / "transformers" / "cases.json").read_text())
        self.mlx_lm: dict[str, Any] = json.loads((root / "mlx_lm" / "cases.json").read_text())["cases"]
        released = root / "released.json"
        self.released: dict[str, Any] = json.loads(released.read_text()) if released.exists() else {}

    @property
    def position_cases(self) -> list[str]:
        """The cases in which a token's turn depends on its position alone."""
        return [name for name, row in self.cases.items() if not row["by_length"]]

    def checkpoint(self, case: str, layout: str, folder: Path) -> Path:
        """The folder, with the case's weights and the config of one layout in it."""
        source = self.root / "transformers" / case
        for file in source.glob("model*"):
            shutil.copy(file, folder)
        shutil.copy(source / f"config.{layout}.json", folder / "config.json")
        return folder

    def io(self, case: str) -> dict[str, npt.NDArray[Any]]:
        """What was recorded: of transformers 5.23.0 where the versions differ."""
        source = self.root / "transformers" / case
        return load_file(
            next(file for file in (source / "io.safetensors", source / "io.v5.safetensors") if file.exists())
        )

    def check_full_pass(self, case: str, layout: str, folder: Path) -> None:
        io = self.io(case)
        model = load_model(self.checkpoint(case, layout, folder), dtype="float32")
        _close(model(mx.array(io["tokens"])), io["logits"])

    def check_through_cache(self, case: str, kind: str, folder: Path) -> None:
        """Token by token, and in chunks, through one of CACHES."""
        io = self.io(case)
        model = load_model(self.checkpoint(case, "v5", folder), dtype="float32")
        tokens = mx.array(io["tokens"])
        length = tokens.shape[1]
        for chunks in ([1] * length, [length - 3, 1, 2], [5, 1, 1, length - 7]):
            cache = CACHES[kind](model, length)
            parts = mx.split(tokens, list(itertools.accumulate(chunks[:-1])), axis=1)
            _close(mx.concatenate([model(part, cache) for part in parts], axis=1), io["logits"])

    def check_greedy(self, case: str, folder: Path, *, cached: bool = True) -> None:
        """Greedy continuations; not `cached`: one pass over everything for each token, as the reference did."""
        io = self.io(case)
        model = load_model(self.checkpoint(case, "v4", folder), dtype="float32")
        prompt, wanted = io["greedy_prompt"][0].tolist(), io["greedy"][0].tolist()
        found: list[int] = []
        if cached:
            found = generate(model, None, prompt, max_tokens=len(wanted)).tokens
        else:
            for _ in wanted:
                found.append(int(np.array(model(mx.array([prompt + found]))[0, -1]).argmax()))
        assert found == wanted, f"{found} instead of {wanted}"

    def check_fused_experts(self, case: str, folder: Path) -> None:
        """The same from the layout in which transformers 5 holds experts."""
        self.checkpoint(case, "v5", folder)
        shutil.copy(self.root / "transformers" / case / "fused.safetensors", folder / "model.safetensors")
        io = self.io(case)
        _close(load_model(folder, dtype="float32")(mx.array(io["tokens"])), io["logits"])

    def mlx_lm_checkpoint(self, case: str, folder: Path) -> Path:
        """The folder, with what mlx-lm wrote in it."""
        for file in (self.root / "mlx_lm" / case).iterdir():
            if file.name != "io.safetensors":
                shutil.copy(file, folder)
        return folder

    def check_mlx_lm(self, case: str, keep_packed: bool, folder: Path) -> None:
        model = load_model(self.mlx_lm_checkpoint(case, folder), dtype="float32", keep_packed=keep_packed)
        packed = sum(hasattr(module, "bits") for module in model.modules())
        assert bool(packed) == (keep_packed and "bf16" not in case), f"{packed} modules are packed"
        self._check_mlx_lm_logits(case, model)

    def check_saving(self, case: str, folder: Path) -> None:
        """What mlx-lm wrote, loaded and saved again, holds the same tensors, names and quantisation."""
        (folder / "source").mkdir()
        source, saved = self.mlx_lm_checkpoint(case, folder / "source"), folder / "saved"
        model = load_model(source, dtype="bfloat16", keep_packed=True)
        save_model(saved, model, json.loads((source / "config.json").read_text()), max_shard_bytes=30_000)
        assert len(list(saved.glob("*.safetensors"))) > 1
        again: dict[str, Any] = {}
        for file in saved.glob("*.safetensors"):
            again.update(mx.load(str(file)))  # type: ignore[arg-type]  # a dict, for safetensors
        first = dict(mx.load(str(source / "model.safetensors")))  # type: ignore[arg-type]
        assert again.keys() == first.keys(), sorted(again.keys() ^ first.keys())
        for name, value in first.items():
            assert again[name].dtype == value.dtype, name
            assert mx.array_equal(again[name], value), name
        self._check_mlx_lm_logits(case, load_model(saved, dtype="float32", keep_packed=True))

    def _check_mlx_lm_logits(self, case: str, model: CausalLM) -> None:
        io = load_file(self.root / "mlx_lm" / case / "io.safetensors")
        _close(model(mx.array(io["tokens"])), io["logits"])

    def check_released(self, name: str, version: str) -> None:
        """The model of a released configuration, built without computing anything, takes exactly the tensors that the
        reference's class has.
        """
        row = self.released[name]
        with preserved_random_state():
            architecture = find_architecture(row["config"]["model_type"])
            model = architecture.Model(architecture.ModelConfig.from_dict(row["config"]))
            tensors = {name: mx.zeros(shape) for name, shape in expand(row["tensors"][version]).items()}
            found = {name: tuple(value.shape) for name, value in model.sanitize(tensors).items()}
        wanted = {name: tuple(value.shape) for name, value in named_parameters(model).items()}
        assert found.keys() == wanted.keys(), sorted(found.keys() ^ wanted.keys())[:5]
        assert found == wanted, [(name, found[name], wanted[name]) for name in found if found[name] != wanted[name]][:5]
        count = sum(int(np.prod(shape)) for shape in wanted.values())
        assert count == row["parameters"], f"{count:,} parameters instead of {row['parameters']:,}"


def expand(patterns: Mapping[str, Sequence[Sequence[int]]]) -> dict[str, list[int]]:
    """Names with stars, each a shape and a range for each star -> every name and its shape."""
    result = {}
    for pattern, (shape, *ranges) in patterns.items():
        for numbers in itertools.product(*(range(*ends) for ends in ranges)):
            result[pattern.replace("*", "{}").format(*numbers)] = list(shape)
    return result


def _close(logits: mx.array, wanted: npt.NDArray[Any]) -> None:
    error = float(np.abs(np.array(logits.astype(mx.float32)) - wanted).max())
    assert error < TOLERANCE, f"logits differ by {error}"
