"""A model's folder: FunASR's own (config.yaml, model.pt) or ours (config.json, safetensors), and its companions.

am.mvn, the tokens, seg_dict, bpe.model and jieba_usr_dict have the same names in both.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import yaml

from mlx_core.checkpoints import load_pytorch_checkpoint, load_weights, resolve, state_dict_of
from mlx_core.config import read_json
from mlx_core.errors import ConfigError, MissingCheckpointError, TokenizerError

from .config import table
from .frontend import Frontend, make_frontend
from .text import Pieces

COMPANIONS = ("am.mvn", "tokens.json", "tokens.txt", "seg_dict", "bpe.model", "jieba_usr_dict")
"""Files beside the weights, copied as they are from FunASR's folder to ours; bpe.model may have a longer name there."""

HUB_PATTERNS = ("*.yaml", "model*.pt", "*.mvn", "seg_dict*", "jieba_usr_dict*")
"""The files of FunASR's that a hub's repository is asked for beside those of language models."""


@dataclass(frozen=True)
class Folder:
    """Configuration and companions of a model; the weights are read when they are asked for."""

    path: Path
    config: dict[str, Any]

    @property
    def kind(self) -> str:
        """FunASR's name of the architecture: `Paraformer`, `FsmnVADStreaming` ..."""
        return str(self.config["model"])

    def weights(self) -> dict[str, mx.array]:
        """The tensors under the checkpoint's names. Raises MissingCheckpointError, WeightsError."""
        if (self.path / "model.pt").is_file() and not any(self.path.glob("*.safetensors")):
            file = self.path / "model.pt"
            tensors = state_dict_of(load_pytorch_checkpoint(file), str(file))
            # of a model that was wrapped for several GPUs when it was saved
            return {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
        return load_weights(self.path)

    def table(self, name: str) -> dict[str, Any]:
        """The table `name` of the configuration; empty where there is none."""
        return table(self.config, name)

    def file(self, name: str) -> Path | None:
        """A companion's path, None where there is none. Raises ConfigError for several vocabularies of pieces.

        SenseVoice's bpe.model is released with a prefix, as chn_jpn_yue_eng_ko_spectok.bpe.model.
        """
        path = self.path / name
        if path.is_file():
            return path
        if name != "bpe.model":
            return None
        found = sorted(self.path.glob("*.bpe.model"))
        if len(found) > 1:
            raise ConfigError(
                f"{self.path} has {len(found)} files *.bpe.model: {', '.join(file.name for file in found)}. Call the "
                "model's bpe.model."
            )
        return found[0] if found else None

    def pieces(self) -> Pieces:
        """SenseVoice's vocabulary, bpe.model. Raises MissingCheckpointError, TokenizerError."""
        path = self.file("bpe.model")
        if path is None:
            raise MissingCheckpointError(f"{self.path} has no bpe.model. The folder is incomplete.")
        return Pieces(path)

    def frontend(self) -> Frontend:
        """The front end. Raises ConfigError, WeightsError."""
        return make_frontend(self.table("frontend_conf"), self.file("am.mvn"))

    def tokens(self) -> list[str]:
        """tokens.json, or tokens.txt: one token a line. Raises MissingCheckpointError, TokenizerError."""
        if path := self.file("tokens.json"):
            try:
                found = json.loads(path.read_text(encoding="utf-8"))
            except ValueError as error:
                raise TokenizerError(f"{path} isn't JSON: {error}.") from error
            if not isinstance(found, list) or not all(isinstance(token, str) for token in found):
                raise TokenizerError(f"{path} must hold a list of strings.")
            return found
        if path := self.file("tokens.txt"):
            try:
                lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
            except UnicodeDecodeError as error:
                raise TokenizerError(f"{path} isn't UTF-8: {error}.") from error
            return [line.rstrip() for line in lines]
        raise MissingCheckpointError(f"{self.path} has neither tokens.json nor tokens.txt. The folder is incomplete.")


def open_folder(path: str | Path) -> Folder:
    """The folder of a model, by its path or hub id (org/name).

    Raises MissingCheckpointError where there is none, HubError where the hub can't give it, ConfigError for a bad one.
    """
    path = resolve(path, patterns=HUB_PATTERNS)
    if not path.is_dir():
        raise MissingCheckpointError(
            f"{path} is no folder. Give one that holds config.yaml or config.json and weights, or a hub id (org/name)."
        )
    if (path / "config.json").is_file():
        config = read_json(path / "config.json")
    elif (path / "config.yaml").is_file():
        config = read_yaml(path / "config.yaml")
    else:
        raise MissingCheckpointError(f"{path} has neither config.yaml nor config.json. It holds no model of FunASR's.")
    if not isinstance(config.get("model"), str):
        raise ConfigError(f"{path}: the configuration must name its `model`; found {config.get('model')!r}.")
    return Folder(path, config)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file's table. Raises ConfigError."""
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} can't be read as YAML: {error}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path} must hold a table; found {type(found).__name__}.")
    return found
