"""Recorded results of reference implementations, and the checks of a package's models against them.

The scripts under `scripts/record_golden` write the recordings: `transformers/<case>` (weights, layouts of config.json,
logits, a greedy continuation), `mlx_lm/<case>` (a checkpoint that mlx-lm converted, and its logits) and `released.json`
(names and shapes at the sizes of released models). A family's test is three lines:

    @pytest.mark.parametrize("check", Goldens(Path(__file__).parent / "goldens").checks(), ids=str)
    def test_parity(check, tmp_path):
        check(tmp_path)

Checks raise AssertionError. `missing` says which recordings there aren't; the workspace's tests demand all of them.
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

from ..cache import ConcatKeyValueCache, KeyValueCache, KVCache, RotatingKVCache
from ..generation import generate
from ..models import CausalLM, find_architecture, load_model, named_parameters, preserved_random_state, save_model

VERSIONS = {"v4": "4.57.6", "v5": "5.23.0"}
"""The versions of transformers that are recorded."""

LAYOUTS = ("hub", *VERSIONS)
"""Of config.json: as published checkpoints spell it, and as each version of transformers writes it."""

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


@dataclass(frozen=True)
class Check:
    """One comparison with a recording; calling it with an empty folder to work in raises AssertionError if it fails."""

    name: str
    run: Callable[[Path], None]

    def __call__(self, folder: Path) -> None:
        self.run(folder)

    def __str__(self) -> str:
        return self.name


class Goldens:
    """A package's folder of recordings, and the checks against them; `folder` arguments are empty folders to work in.

    Takes what has been recorded so far: one version of transformers or both, mlx-lm or not. Raises FileNotFoundError
    where there is no recording of transformers at all.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        index = root / "transformers" / "cases.json"
        if not index.exists():
            raise FileNotFoundError(
                f"{index} does not exist: nothing is recorded yet. Run scripts/record_golden/transformers_models.py in an "
                "environment with transformers (docs/adding-a-model.md)."
            )
        self.cases: dict[str, Any] = json.loads(index.read_text())
        self.mlx_lm: dict[str, Any] = _read(root / "mlx_lm" / "cases.json").get("cases", {})
        self.released: dict[str, Any] = _read(root / "released.json")

    def missing(self) -> list[str]:
        """The recordings that a family should have and this folder lacks, and what records each."""
        lacking = []
        for layout, version in VERSIONS.items():
            if cases := [name for name, row in self.cases.items() if layout not in row]:
                lacking.append(f"transformers {version} of {', '.join(cases)} (transformers_models.py)")
            if names := [name for name, row in self.released.items() if version not in row["tensors"]]:
                lacking.append(f"transformers {version} of {', '.join(names)} (released_sizes.py)")
        if not self.released:
            lacking.append("released.json (released_sizes.py)")
        if not self.mlx_lm:
            lacking.append("mlx_lm/ (mlx_lm_checkpoints.py)")
        return lacking

    def checks(self) -> list[Check]:
        """All comparisons that the recordings allow, each with a name such as `full-pass-glm4_bias-v5`."""
        return list(self._checks())

    def _checks(self) -> Iterator[Check]:
        for case in self.cases:
            for layout in self.layouts(case):
                yield self._check(self.check_full_pass, case, layout)
            yield self._check(self.check_greedy, case)
            if not self.cases[case]["by_length"]:
                for kind in CACHES:
                    yield self._check(self.check_through_cache, case, kind)
            if (self.root / "transformers" / case / "fused.safetensors").exists():
                yield self._check(self.check_fused_experts, case)
        for case in self.mlx_lm:
            yield self._check(self.check_mlx_lm, case, True)
            yield self._check(self.check_mlx_lm, case, False)
            yield self._check(self.check_saving, case)
        for name, row in self.released.items():
            for version in row["tensors"]:
                yield self._check(self.check_released, name, version)

    def _check(self, method: Callable[..., None], *arguments: Any) -> Check:
        words = [method.__name__.removeprefix("check_").replace("_", "-"), *map(str, arguments)]
        return Check("-".join(words), lambda folder: method(*arguments, folder))

    def layouts(self, case: str) -> list[str]:
        """The layouts of config.json that are recorded for a case."""
        folder = self.root / "transformers" / case
        return [layout for layout in LAYOUTS if (folder / f"config.{layout}.json").exists()]

    def checkpoint(self, case: str, layout: str, folder: Path) -> Path:
        """The folder, with the case's weights and the config of one layout in it."""
        source = self.root / "transformers" / case
        for file in source.glob("model*"):
            shutil.copy(file, folder)
        shutil.copy(source / f"config.{layout}.json", folder / "config.json")
        return folder

    def io(self, case: str) -> dict[str, npt.NDArray[Any]]:
        """The tokens and results of a case: those of the newer version where the versions differ."""
        source = self.root / "transformers" / case
        for file in ("io.safetensors", "io.v5.safetensors", "io.v4.safetensors"):
            if (source / file).exists():
                return load_file(source / file)
        raise FileNotFoundError(f"{source} holds no io.safetensors; delete the folder and record {case} again.")

    def check_full_pass(self, case: str, layout: str, folder: Path) -> None:
        """The logits of one pass over the tokens, under one layout of config.json."""
        io = self.io(case)
        model = load_model(self.checkpoint(case, layout, folder), dtype="float32")
        _close(model(mx.array(io["tokens"])), io["logits"])

    def check_through_cache(self, case: str, kind: str, folder: Path) -> None:
        """Token by token, and in chunks, through one of CACHES."""
        io = self.io(case)
        model = load_model(self.checkpoint(case, self.layouts(case)[-1], folder), dtype="float32")
        tokens = mx.array(io["tokens"])
        length = tokens.shape[1]
        for chunks in ([1] * length, [length - 3, 1, 2], [5, 1, 1, length - 7]):
            cache = CACHES[kind](model, length)
            parts = mx.split(tokens, list(itertools.accumulate(chunks[:-1])), axis=1)
            _close(mx.concatenate([model(part, cache) for part in parts], axis=1), io["logits"])

    def check_greedy(self, case: str, folder: Path) -> None:
        """The greedy continuation.

        Through a cache, unless dynamic RoPE makes the cached keys' rotation depend on how much was known when they came:
        then by one pass over everything for each token, as the reference did.
        """
        io = self.io(case)
        model = load_model(self.checkpoint(case, self.layouts(case)[-1], folder), dtype="float32")
        prompt, wanted = io["greedy_prompt"][0].tolist(), io["greedy"][0].tolist()
        found: list[int] = []
        scaling = model.config.rope_scaling or model.config.rope_parameters or {}
        if "dynamic" not in (scaling.get("type"), scaling.get("rope_type")):
            found = generate(model, None, prompt, max_tokens=len(wanted)).tokens
        else:
            for _ in wanted:
                found.append(int(np.array(model(mx.array([prompt + found]))[0, -1]).argmax()))
        assert found == wanted, f"{found} instead of {wanted}"

    def check_fused_experts(self, case: str, folder: Path) -> None:
        """The same from the layout in which transformers 5 holds experts."""
        self.checkpoint(case, self.layouts(case)[-1], folder)
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
        """mlx-lm's logits from the checkpoint that it wrote, whose packed weights stay packed or don't."""
        model = load_model(self.mlx_lm_checkpoint(case, folder), dtype="float32", keep_packed=keep_packed)
        packed = sum(hasattr(module, "bits") for module in model.modules())
        assert bool(packed) == (keep_packed and "bf16" not in case), f"{packed} modules are packed"
        self._check_mlx_lm_logits(case, model)

    def check_saving(self, case: str, folder: Path) -> None:
        """mlx-lm's checkpoint, loaded and saved again, holds the same tensors, names and quantisation.

        A language model that stood inside a larger one stands alone then.
        """
        (folder / "source").mkdir()
        source, saved = self.mlx_lm_checkpoint(case, folder / "source"), folder / "saved"
        model = load_model(source, dtype="bfloat16", keep_packed=True)
        save_model(saved, model, json.loads((source / "config.json").read_text()), max_shard_bytes=30_000)
        assert len(list(saved.glob("*.safetensors"))) > 1
        again: dict[str, Any] = {}
        for file in saved.glob("*.safetensors"):
            again.update(mx.load(str(file)))  # type: ignore[arg-type]  # a dict, for safetensors
        first = dict(mx.load(str(source / "model.safetensors")))  # type: ignore[arg-type]
        first = {name.removeprefix("language_model."): value for name, value in first.items()}
        assert again.keys() == first.keys(), sorted(again.keys() ^ first.keys())
        for name, value in first.items():
            assert again[name].dtype == value.dtype, name
            assert mx.array_equal(again[name], value), name
        self._check_mlx_lm_logits(case, load_model(saved, dtype="float32", keep_packed=True))

    def _check_mlx_lm_logits(self, case: str, model: CausalLM) -> None:
        io = load_file(self.root / "mlx_lm" / case / "io.safetensors")
        _close(model(mx.array(io["tokens"])), io["logits"])

    def check_released(self, name: str, version: str, folder: Path | None = None) -> None:
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


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; an empty one where there is no file."""
    return dict(json.loads(path.read_text())) if path.exists() else {}


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
