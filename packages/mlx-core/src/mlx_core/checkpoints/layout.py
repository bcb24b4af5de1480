"""The files of a checkpoint folder by their names: which hold the weights, and which belong together.

Names only: no file is opened and MLX isn't imported, so that the hub can ask about files that aren't here yet and the
text layer about a folder. Names are relative to the folder, with `/` between folders.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.(?:safetensors|bin|gguf))")

# Training leftovers and second copies that some repositories keep beside the weights.
_NO_WEIGHTS = re.compile(r"(consolidated.*|adapters?|adapter_model|optimizer.*|.*\.tmp)\.safetensors")

# GGUF files that llama.cpp loads beside a model: vision projectors, importance matrices, draft heads.
_NO_MODELS = ("mmproj", "imatrix", "mtp-", "eagle3-")


@dataclass(frozen=True)
class WeightsLayout:
    """The names of weights in one format: `stem + suffix` alone, or shards, with or without an index."""

    stem: str
    suffix: str
    pattern: str
    """A wildcard for the names of all files that may hold weights in this format."""

    @property
    def single(self) -> str:
        """The file that holds all weights."""
        return self.stem + self.suffix

    @property
    def index(self) -> str:
        """The file that says which shard holds which tensor."""
        return f"{self.single}.index.json"

    def files(self, names: Iterable[str]) -> list[str]:
        """Those of `names` that hold the weights of a folder without an index, as transformers chooses: the single
        file, else its shards; and where there is neither, every file of the format but known leftovers.
        """
        here = (name for name in names if "/" not in name and fnmatch.fnmatchcase(name, self.pattern))
        found = sorted(name for name in here if not _NO_WEIGHTS.fullmatch(name))
        if self.single in found:
            return [self.single]
        return [name for name in found if (shard := parse_shard(name)) and shard.stem == self.stem] or found


SAFETENSORS = WeightsLayout("model", ".safetensors", "*.safetensors")
PYTORCH = WeightsLayout("pytorch_model", ".bin", "pytorch_model*.bin")


class Shard(NamedTuple):
    """One of `total` files that are one: `model-00001-of-00003.safetensors` is number 1 of 3."""

    stem: str
    number: int
    total: int
    suffix: str

    def name(self, number: int) -> str:
        """The name of another shard of the same."""
        return f"{self.stem}-{number:05d}-of-{self.total:05d}{self.suffix}"


def parse_shard(name: str) -> Shard | None:
    """The parts of a shard's name; None for another name."""
    match = _SHARD.fullmatch(name)
    if match is None or not 1 <= int(match["number"]) <= int(match["count"]):
        return None
    return Shard(match["stem"], int(match["number"]), int(match["count"]), match["suffix"])


def missing_shard(names: Iterable[str]) -> Shard | None:
    """The first shard that others among `names` announce and that isn't among them; None if all are."""
    present = set(names)
    for announced in sorted({shard._replace(number=1) for name in present if (shard := parse_shard(name))}):
        for number in range(1, announced.total + 1):
            if announced.name(number) not in present:
                return announced._replace(number=number)
    return None


def gguf_models(names: Iterable[str]) -> list[str]:
    """The GGUF models among `names`: of a split one the first part, and nothing that accompanies a model."""
    models = []
    for name in sorted(names):
        base, shard = PurePosixPath(name).name, parse_shard(name)
        accompanies = any(word in base.lower() for word in _NO_MODELS)
        if base.endswith(".gguf") and not accompanies and (shard is None or shard.number == 1):
            models.append(name)
    return models


def gguf_parts(model: str) -> list[str]:
    """The files of the GGUF model whose only or first file is `model`."""
    shard = parse_shard(model)
    return [model] if shard is None else [shard.name(number) for number in range(1, shard.total + 1)]


def matching_gguf(names: Iterable[str], quantization: str) -> list[str]:
    """The GGUF models among `names` that `quantization` names, whatever the case: by the path of the file, or by the
    end of its name (`Q4_K_M` for `Qwen3-8B-Q4_K_M.gguf` and for `qwen3-8b.q4_k_m-00001-of-00002.gguf`).
    """
    wanted = quantization.lower()
    exact, ending = [], []
    for model in gguf_models(names):
        shard = parse_shard(model)
        stem = (model.removesuffix(".gguf") if shard is None else shard.stem).lower()
        if wanted in (model.lower(), stem, PurePosixPath(model).name.lower(), PurePosixPath(stem).name):
            exact.append(model)
        elif re.search(rf"[^a-z0-9]{re.escape(wanted)}$", stem):
            ending.append(model)
    return exact or ending


def gguf_in_folder(folder: Path) -> list[Path]:
    """The GGUF models that lie directly in a folder."""
    return [folder / name for name in gguf_models(file.name for file in folder.glob("*.gguf"))]
