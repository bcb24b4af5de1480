"""Optional: g2pW, a model that reads Chinese characters of several readings by their context.

The model's folder, as GPT-SoVITS gives it out (`G2PWModel`), holds `g2pW.onnx`, `POLYPHONIC_CHARS.txt`,
`MONOPHONIC_CHARS.txt` and `bopomofo_to_pinyin_wo_tune_dict.json`; a BERT `vocab.txt` (that of
chinese-roberta-wwm-ext-large) goes with it. It runs on onnxruntime, which the extra `gpt-sovits-mlx[g2pw]` installs
and which is loaded with the first text. Paper: Chen et al. 2022, "g2pW: A Conditional Weighted Softmax BERT for
Polyphone Disambiguation in Mandarin".
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mlx_core.errors import InputError, MissingCheckpointError

from . import pinyin
from .pinyin import Reading

_MAX_CHARACTERS = 510

# Characters that the official code doesn't ask the model about: rules do better.
_LEFT_OUT = frozenset("一不和咋嗲剖差攢倒難奔勁拗肖瘙誒泊听噢")


class Polyphones(Protocol):
    """A reader of the characters of a clause."""

    def readings(self, clause: str) -> list[Reading]:
        """The reading of each character of a clause; a mark is itself, without a tone."""
        ...


class G2PW:
    """The g2pW model of a folder.

    Args:
        folder: where the model's files are.
        vocabulary: BERT's `vocab.txt`; by default the one in `folder`.

    Raises:
        MissingCheckpointError: one of the files isn't there.
    """

    def __init__(self, folder: str | Path, vocabulary: str | Path | None = None) -> None:
        self.folder = Path(folder)
        self.vocabulary = Path(vocabulary) if vocabulary else self.folder / "vocab.txt"
        needed = [
            self.folder / name for name in ("g2pW.onnx", "POLYPHONIC_CHARS.txt", "bopomofo_to_pinyin_wo_tune_dict.json")
        ]
        if missing := [str(path) for path in [*needed, self.vocabulary] if not path.is_file()]:
            raise MissingCheckpointError(f"g2pW needs {', '.join(missing)}, which isn't there; give the model's folder")

    def readings(self, clause: str) -> list[Reading]:
        """The reading of each character: the model's where it knows several for it, else the dictionary's."""
        found = pinyin.readings(clause)
        text = self._traditional(clause[:_MAX_CHARACTERS])
        places = [
            index for index, character in enumerate(text) if character in self._choices and character not in _LEFT_OUT
        ]
        for place, bopomofo in zip(places, self._ask(text, places), strict=True):
            name = self._names.get(bopomofo[:-1], "")
            if (reading := pinyin.parse(name + bopomofo[-1:])) is not None:
                found[place] = reading
        return found

    def _ask(self, text: str, places: Sequence[int]) -> list[str]:
        """The bopomofo, with a tone, of the characters at some places."""
        if not places:
            return []
        unknown = self._tokens["[UNK]"]
        tokens = [self._tokens.get(character, unknown) for character in text.lower()]
        ids = np.array([[self._tokens["[CLS]"], *tokens, self._tokens["[SEP]"]]] * len(places), np.int64)
        characters = sorted(self._choices)
        labels = self._labels
        masks = np.array([[label in self._choices[text[place]] for label in labels] for place in places], np.float32)
        probabilities = self._session.run(
            None,
            {
                "input_ids": ids,
                "token_type_ids": np.zeros_like(ids),
                "attention_mask": np.ones_like(ids),
                "phoneme_mask": masks,
                "char_ids": np.array([characters.index(text[place]) for place in places], np.int64),
                "position_ids": np.array([place + 1 for place in places], np.int64),  # after [CLS]
            },
        )[0]
        return [labels[index] for index in np.argmax(np.asarray(probabilities), axis=1)]

    def _traditional(self, text: str) -> str:
        converted = str(self._converter.convert(text))
        return converted if len(converted) == len(text) else text

    @cached_property
    def _converter(self) -> Any:
        try:
            from opencc import OpenCC
        except ImportError as error:
            raise InputError("g2pW needs opencc; install gpt-sovits-mlx[g2pw]") from error
        return OpenCC("s2tw")

    @cached_property
    def _session(self) -> Any:
        try:
            import onnxruntime
        except ImportError as error:
            raise InputError("g2pW runs on onnxruntime; install gpt-sovits-mlx[g2pw]") from error
        return onnxruntime.InferenceSession(str(self.folder / "g2pW.onnx"), providers=["CPUExecutionProvider"])

    @cached_property
    def _choices(self) -> dict[str, list[str]]:
        """The readings of each character that has several, in bopomofo with a tone."""
        choices: dict[str, list[str]] = {}
        for line in (self.folder / "POLYPHONIC_CHARS.txt").read_text(encoding="utf-8").splitlines():
            character, _, bopomofo = line.partition("\t")
            if bopomofo:
                choices.setdefault(character, []).append(bopomofo.strip())
        return choices

    @cached_property
    def _labels(self) -> list[str]:
        return sorted({label for labels in self._choices.values() for label in labels})

    @cached_property
    def _names(self) -> dict[str, str]:
        path = self.folder / "bopomofo_to_pinyin_wo_tune_dict.json"
        return {str(key): str(value) for key, value in json.loads(path.read_text(encoding="utf-8")).items()}

    @cached_property
    def _tokens(self) -> dict[str, int]:
        lines = self.vocabulary.read_text(encoding="utf-8").splitlines()
        return {token: index for index, token in enumerate(lines)}
