"""Voices, made of a reference once, and a library that keeps them.

A voice depends on the models that it was made with: the semantic tokens of the prompt on CNHubert and SoVITS, the
timbre on SoVITS. A fingerprint of both says later whether it still fits.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_core import backend
from mlx_core.checkpoints import load_safetensors, new_folder
from mlx_core.errors import InputError, MissingCheckpointError, WeightsError

from .models import Models
from .networks.sovits_v3 import Prompt

_NAME = re.compile(r"[\w][\w .-]{0,99}")
_FORMAT = 1


@dataclass(frozen=True, eq=False)
class Voice:
    """A reference, as the networks take it."""

    timbre: mx.array
    """SoVITS's view of it, `[1, 1, gin]`; the mean where there were several."""
    tokens: mx.array
    """Its semantic tokens `[P]` int32; none where speech is to be reference-free."""
    phones: tuple[int, ...]
    """Of what it says; none as above."""
    bert: mx.array | None
    """Features `[phones, 1024]` of what it says, None for zeros."""
    prompt: Prompt | None
    """The reference as v3 and v4 go on from it."""
    text: str | None
    language: str | None
    version: str
    fingerprint: tuple[float, ...]
    """Of the models."""

    def check(self, models: Models) -> None:
        """Raise InputError unless the voice was made with these models."""
        theirs = fingerprint(models)
        # half precision is no other model
        same = len(self.fingerprint) == len(theirs) and np.allclose(self.fingerprint, theirs, rtol=1e-2, atol=1e-4)
        if self.version != models.version or not same:
            raise InputError(
                f"the voice was made with other models ({self.version}) than these ({models.version}). Make it again from its "
                "recording."
            )


def fingerprint(models: Models) -> tuple[float, ...]:
    """Some weights of the models, by which those whose voices differ are told apart."""
    rows = (
        models.sovits.quantizer.embed[0, :8],
        models.sovits.enc_p.text_embedding.weight[1, :8],
        models.hubert.feature_projection.projection.weight[0, :8],
    )
    return tuple(float(x) for row in rows for x in np.array(row.astype(mx.float32)))


class VoiceLibrary:
    """A folder of voices: `NAME/voice.json` and `NAME/voice.safetensors`."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def add(self, name: str, voice: Voice) -> Path:
        """Store a voice; returns its folder. Raises InputError for a name that is taken or that no file can have."""
        target = self._path(name)
        if target.exists():
            raise InputError(f"there is a voice {name!r} already. Remove it first, or choose another name.")
        arrays = {"timbre": voice.timbre, "tokens": voice.tokens}
        if voice.bert is not None:
            arrays["bert"] = voice.bert
        if voice.prompt is not None:
            arrays |= {"prompt.features": voice.prompt.features, "prompt.mel": voice.prompt.mel}
        table = {
            "format": _FORMAT,
            "version": voice.version,
            "fingerprint": list(voice.fingerprint),
            "text": voice.text,
            "language": voice.language,
            "phones": list(voice.phones),
        }
        with new_folder(target) as temporary:
            mx.save_safetensors(str(temporary / "voice.safetensors"), arrays)
            text = json.dumps(table, ensure_ascii=False, indent=2)
            (temporary / "voice.json").write_text(text + "\n", encoding="utf-8")
        return target

    def load(self, name: str) -> Voice:
        """A voice by its name. Raises MissingCheckpointError, WeightsError."""
        path = self._path(name)
        table = self._table(path)
        with backend.worker_streams():
            arrays = backend.materialize(load_safetensors(path))
        try:
            if table["format"] != _FORMAT:
                raise WeightsError(f"{path} is of format {table['format']}; this package reads {_FORMAT}.")
            prompt = None
            if "prompt.mel" in arrays:
                prompt = Prompt(arrays["prompt.features"], arrays["prompt.mel"])
            return Voice(
                arrays["timbre"],
                arrays["tokens"],
                tuple(int(phone) for phone in table["phones"]),
                arrays.get("bert"),
                prompt,
                table["text"],
                table["language"],
                str(table["version"]),
                tuple(float(x) for x in table["fingerprint"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise WeightsError(f"{path} is damaged: {error!r}. Remove the voice and add it again.") from error

    def remove(self, name: str) -> None:
        """Delete a voice. Raises MissingCheckpointError where there is none."""
        path = self._path(name)
        self._table(path)  # nothing else is deleted
        shutil.rmtree(path)

    def names(self) -> list[str]:
        """The voices' names, in order."""
        found = (path.parent.name for path in self.folder.glob("*/voice.json"))
        return sorted(name for name in found if _NAME.fullmatch(name))  # not one that was being written

    def describe(self) -> Iterator[dict[str, Any]]:
        """Name, version, language and text of each voice."""
        for name in self.names():
            table = self._table(self._path(name))
            yield {"name": name, **{key: table.get(key) for key in ("version", "language", "text")}}

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise InputError(
                f"a voice's name must be of letters, digits, blanks, points, underscores and hyphens; found {name!r}."
            )
        return self.folder / name

    def _table(self, path: Path) -> dict[str, Any]:
        try:
            table = json.loads((path / "voice.json").read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            known = ", ".join(self.names()) or "none"
            raise MissingCheckpointError(
                f"there is no voice {path.name!r} in {self.folder}; there are: {known}."
            ) from error
        except (OSError, ValueError) as error:
            raise WeightsError(f"{path / 'voice.json'} can't be read: {error}.") from error
        if not isinstance(table, dict):
            raise WeightsError(f"{path / 'voice.json'} must hold an object.")
        return table
