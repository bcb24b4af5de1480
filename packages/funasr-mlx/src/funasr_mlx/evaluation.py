"""Error rates: CER by character, WER by word, over all recordings together.

Text is compared in capitals, without anything but letters, digits and Chinese, as FunASR's published figures
are (https://arxiv.org/abs/2206.08317). jiwer counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlx_core.errors import InputError

if TYPE_CHECKING:
    import jiwer

_IGNORED = re.compile(r"[^\w一-鿿]|_")


@dataclass(frozen=True)
class ErrorRate:
    """Errors over all references together."""

    rate: float
    """Errors over the length of the references; above 1 where there are more errors than that."""
    substitutions: int
    deletions: int
    insertions: int
    total: int
    """Characters, or words, of the references."""


def normalize(text: str, *, words: bool = False) -> str:
    """In capitals, nothing but letters, digits and Chinese; with `words` blanks between words stay."""
    if words:
        return " ".join(filter(None, (_IGNORED.sub("", word.upper()) for word in text.split())))
    return _IGNORED.sub("", text.upper())


def character_error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> ErrorRate:
    """CER of hypotheses against references, pair by pair. Raises InputError for different numbers, or nothing at
    all.
    """
    pairs = _pairs(references, hypotheses, words=False)
    found = _jiwer().process_characters(*pairs)
    return _rate(found)


def word_error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> ErrorRate:
    """WER, as `character_error_rate`."""
    pairs = _pairs(references, hypotheses, words=True)
    found = _jiwer().process_words(*pairs)
    return _rate(found)


def read_references(path: str | Path) -> dict[str, str]:
    """Kaldi's `text`: a line is a recording's name, then its text. Raises InputError."""
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(f"{path} can't be read: {error}.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} isn't UTF-8: {error}.") from error
    result: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        name, _, text = line.strip().partition("\t" if "\t" in line else " ")
        if not name:
            continue
        if name in result:
            raise InputError(f"{path}, line {number}: {name} stands there twice.")
        result[name] = text.strip()
    if not result:
        raise InputError(f"{path} is empty: expected lines of a recording's name and its text.")
    return result


def _pairs(references: Sequence[str], hypotheses: Sequence[str], *, words: bool) -> tuple[list[str], list[str]]:
    if len(references) != len(hypotheses):
        raise InputError(f"{len(references)} references but {len(hypotheses)} hypotheses.")
    pairs = [
        (normalize(a, words=words), normalize(b, words=words)) for a, b in zip(references, hypotheses, strict=True)
    ]
    kept = _said(pairs, " " if words else "")
    if not kept:
        raise InputError("no reference says anything.")
    return [a for a, _ in kept], [b for _, b in kept]


def _said(pairs: Iterable[tuple[str, str]], blank: str) -> list[tuple[str, str]]:
    """The pairs whose reference isn't empty, as jiwer wants; hypotheses of the others join their neighbour's."""
    result: list[tuple[str, str]] = []
    spare = ""
    for reference, hypothesis in pairs:
        if reference:
            result.append((reference, hypothesis))
        else:
            spare += blank + hypothesis
    if result and spare:
        result[-1] = (result[-1][0], result[-1][1] + spare)
    return result


def _rate(found: jiwer.WordOutput | jiwer.CharacterOutput) -> ErrorRate:
    total = found.hits + found.substitutions + found.deletions
    errors = found.substitutions + found.deletions + found.insertions
    return ErrorRate(errors / total, found.substitutions, found.deletions, found.insertions, total)


def _jiwer():  # noqa: ANN202 # a module
    try:
        import jiwer
    except ImportError as error:
        raise InputError(
            f'error rates are counted by jiwer, which can\'t be imported ({error}). Install "funasr-mlx[evaluate]".'
        ) from error
    return jiwer
