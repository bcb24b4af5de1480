"""A recognizer's vocabulary: token ids -> tokens, and hotwords -> token ids."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mlx_core.errors import InputError, TokenizerError

UNKNOWN = "<unk>"
"""The token of everything that has none."""

_CHINESE_WORD = re.compile(r"[一-龥0-9]+")


class Vocabulary:
    """A recognizer's tokens by id, and the tokens of a hotword.

    spellings: of the words in FunASR's `seg_dict`; without one, or for a word that it lacks, a hotword is spelled by
    its characters, and an English word by itself where it is a token.
    """

    def __init__(self, tokens: Sequence[str], spellings: Mapping[str, Sequence[str]] | None = None) -> None:
        self.tokens = list(tokens)
        self._ids = {token: number for number, token in enumerate(self.tokens)}
        self._spellings = spellings

    def __len__(self) -> int:
        return len(self.tokens)

    def decode(self, ids: Iterable[int]) -> list[str]:
        """The tokens of ids. Raises TokenizerError for an id that there is none for."""
        try:
            return [self.tokens[number] for number in ids]
        except IndexError as error:
            raise TokenizerError(
                f"the model says a token beyond the {len(self)} of tokens.json. They are of different models."
            ) from error

    def encode(self, hotword: str) -> list[int]:
        """The ids of a hotword; unknown parts are `<unk>`'s. Raises InputError for one that has nothing known."""
        spelled = [token for part in hotword.split() for token in self._spell(part)]
        unknown = self._ids.get(UNKNOWN, len(self) - 1)
        ids = [self._ids.get(token, unknown) for token in spelled]
        if not ids or all(number == unknown for number in ids):
            raise InputError(f"no part of the hotword {hotword!r} is among the model's tokens. Leave it out.")
        return ids

    def _spell(self, part: str) -> Sequence[str]:
        if self._spellings is not None:
            lowered = part.lower()
            if lowered in self._spellings:
                return self._spellings[lowered]
            if _CHINESE_WORD.fullmatch(lowered):
                return [token for character in lowered for token in self._spellings.get(character, (UNKNOWN,))]
        for spelling in (part, part.lower()):
            if spelling in self._ids:
                return [spelling]
        return [character if character in self._ids else character.lower() for character in part]


def read_spellings(path: Path) -> dict[str, list[str]]:
    """FunASR's `seg_dict`: a word and its tokens a line. Raises TokenizerError."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise TokenizerError(f"{path} isn't UTF-8: {error}.") from error
    return {parts[0]: parts[1:] for parts in map(str.split, lines) if parts}
