"""The files that GPT-SoVITS releases: `.ckpt` and `.pth` with weights, configuration and a line about their making.

They are torch's zip files, of which some have two bytes of their own where the zip has `PK`; the configuration may be
pickled as the class `utils.HParams`. Nothing in them is run (see `mlx_core.checkpoints.torch.checkpoint`).
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlx_core.checkpoints import load_pytorch_checkpoint, state_dict_of
from mlx_core.errors import ConfigError, MissingCheckpointError, WeightsError

from .lora import is_lora

HEADS = {
    b"00": "v1",
    b"01": "v2",
    b"02": "v3",
    b"03": "v3-lora",
    b"04": "v4-lora",
    b"05": "v2Pro",
    b"06": "v2ProPlus",
}
"""The versions by the first two bytes, where these aren't `PK`."""

_MAX_DEPTH = 16
_V1_BYTES, _V2_BYTES = 82978 * 2**10, 700 * 2**20  # below these a SoVITS file is v1's, v2's; else v3's
_V1_SYMBOLS = 322
_FLOW_VERSIONS = ("v3", "v4")
# s2Gv4.pth is told from s2Gv3.pth by the MD5 of its beginning (`process_ckpt.py`), or by its info
_START_BYTES, _V4_START, _V4_INFO = 8192, "4f26b9476d0c5033e04162c486074374", "pretrained_s2G_v4"


class HParams:
    """`utils.HParams` of the official code: a table whose entries are attributes."""


@dataclass(frozen=True)
class Released:
    """A released file. `config` and `info` are empty where it holds nothing but tensors; `head` is the version that its
    first two bytes name, None for `PK`.
    """

    config: dict[str, Any]
    weights: dict[str, mx.array]
    info: str
    head: str | None
    nbytes: int
    pretrained: str | None = None
    """Which of the pretrained files it is, where they don't say so themselves."""

    @property
    def sovits_version(self) -> str:
        """Which SoVITS the file holds: as its head says, else its tensors, else its size."""
        if self.head is not None:
            return self.head
        if any(name.startswith("cfm.") for name in self.weights):
            version = self._flow_version
            return f"{version}-lora" if is_lora(self.weights) else version
        if "sv_emb.weight" in self.weights:
            return str(_table(self.config, "model").get("version", "v2Pro"))
        embedding = self.weights.get("enc_p.text_embedding.weight")
        if embedding is not None:
            return "v1" if embedding.shape[0] == _V1_SYMBOLS else "v2"
        return "v1" if self.nbytes < _V1_BYTES else "v2" if self.nbytes < _V2_BYTES else "v3"

    @property
    def _flow_version(self) -> str:
        """v3 or v4, whose tensors have the same names and shapes."""
        if self.head is not None and self.head.startswith(_FLOW_VERSIONS):
            return self.head.removesuffix("-lora")
        stated = _table(self.config, "model").get("version", self.config.get("version"))
        if self.pretrained == "v4" or self.info == _V4_INFO:
            return "v4"
        return str(stated) if stated in _FLOW_VERSIONS else "v3"

    @property
    def full_config(self) -> dict[str, Any]:
        """The configuration; for v3 and v4 with the version that the rest of the file tells."""
        if not any(name.startswith("cfm.") for name in self.weights):
            return self.config
        return {**self.config, "model": {**_table(self.config, "model"), "version": self._flow_version}}


def read_released(path: str | Path) -> Released:
    """Read a released `.ckpt` or `.pth`: `{weight, config, info}`, or a plain dict of tensors.

    Raises MissingCheckpointError where there is none, WeightsError and ConfigError for a file that is damaged or holds
    something else; a pickle that names anything unknown is refused with that name.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingCheckpointError(f"{path} is no file. Give a released .ckpt or .pth file.")
    source: Path | mmap.mmap = path
    try:
        nbytes = path.stat().st_size
        with path.open("rb") as file:
            beginning = file.read(_START_BYTES)
            start = beginning[:2]
            if start in HEADS:
                source = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)  # mended in memory, not in the file
                source[:2] = b"PK"
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: the file can't be read: {error}. Check its permissions.") from error
    head, name = HEADS.get(start), str(path)
    known = "v4" if hashlib.md5(beginning, usedforsecurity=False).hexdigest() == _V4_START else None
    content = load_pytorch_checkpoint(source, classes={"utils.HParams": HParams})
    if isinstance(content, dict) and isinstance(content.get("generator"), dict):
        content = content["generator"]  # BigVGAN's
    if not isinstance(content, dict) or "weight" not in content:
        return Released({}, state_dict_of(content, name), "", head, nbytes)
    config = plain(content.get("config", {}))
    if not isinstance(config, dict):
        raise ConfigError(f"{path}: its config is a {type(config).__name__}; expected a table.")
    weights = state_dict_of(content["weight"], f"{name}, its 'weight',")
    return Released(config, weights, str(content.get("info", "")), head, nbytes, known)


def plain(value: Any, depth: int = 0) -> Any:
    """A configuration with dicts in place of HParams. Raises ConfigError where it is nested without end."""
    if depth > _MAX_DEPTH:
        raise ConfigError("the checkpoint's config is nested without end. The file is damaged or hostile.")
    if isinstance(value, HParams):
        value = vars(value)
    if isinstance(value, Mapping):
        return {str(key): plain(entry, depth + 1) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry, depth + 1) for entry in value]
    return value


def _table(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    table = config.get(name)
    return table if isinstance(table, Mapping) else {}
