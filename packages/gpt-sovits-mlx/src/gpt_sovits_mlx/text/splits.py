"""A text cut into the sentences that are spoken one at a time.

The methods are the official ones, by their names: `cut0` doesn't cut, `cut1` puts four clauses together, `cut2` about
fifty characters, `cut3` cuts at 。, `cut4` at a full stop and `cut5` at every punctuation mark.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from mlx_core.errors import InputError

# BERT has 512 places, of which two mark the ends.
MAX_CHARACTERS = 510

ENDS = frozenset("，。？！,.?!~:：—…")
"""Marks that end a sentence, as the official code has them."""
_CLAUSE = re.compile("[^{0}]*[{0}]|[^{0}]+".format("".join(sorted(ENDS))))
_CLAUSE_OR_END = re.compile("[{0}]|[^{0}]+".format("".join(sorted(ENDS))))
_MARKS = frozenset("!?…,.- ")
_SHORT = 5


def sentences(text: str, method: str = "cut5", language: str = "auto") -> list[str]:
    """The sentences of a text, as the official `pre_seg_text` gives them.

    An opening of under four characters gets a full stop before it, pieces of under five characters join the one
    before, what has no letter, digit or character in it is dropped, a last mark is added, and what is longer than
    BERT reads (510 characters) is cut at punctuation, or without any if there is none.

    Args:
        text: what is to be spoken.
        method: one of `METHODS`.
        language: only "en" differs, in the full stop that is added.

    Raises:
        InputError: there is no such method.
    """
    check_method(method)
    full_stop = "." if language == "en" else "。"
    text = text.strip("\n")
    if not text:
        return []
    if text[0] not in ENDS and len(_first_clause(text)) < 4:
        text = full_stop + text
    pieces = [piece for piece in METHODS[method](text).split("\n") if piece not in ("", " ")]
    result = []
    for piece in _join_short(pieces):
        if not re.search(r"\w", piece):
            continue
        piece = piece if piece[-1] in ENDS else piece + full_stop
        result.extend([piece] if len(piece) <= MAX_CHARACTERS else _fold(_CLAUSE_OR_END.findall(piece), MAX_CHARACTERS))
    return result


def check_method(method: str) -> None:
    """Raise InputError if there is no such cut method."""
    if method not in METHODS:
        raise InputError(f"there is no cut method {method!r}; there are {', '.join(METHODS)}")


def squeeze_marks(text: str) -> str:
    """Of punctuation marks that follow each other (`!?…,.-`), the first."""
    return re.sub(r"([!?…,.\-])[!?…,.\-]+", r"\1", text)


def _first_clause(text: str) -> str:
    end = next((index for index, character in enumerate(text) if character in ENDS), len(text))
    return text[:end].strip()


def _join_short(pieces: list[str]) -> list[str]:
    result: list[str] = []
    pending = ""
    for piece in pieces:
        pending += piece
        if len(pending) >= _SHORT:
            result.append(pending)
            pending = ""
    if pending and result:
        result[-1] += pending
    elif pending:
        result.append(pending)
    return result


def _fold(pieces: list[str], size: int) -> list[str]:
    """Pieces joined up to `size` characters; one that is longer by itself is cut."""
    result = [""]
    for piece in pieces:
        if len(result[-1]) + len(piece) > size:
            result.append("")
        for start in range(0, len(piece), size):
            part = piece[start : start + size]
            if start:
                result.append(part)
            else:
                result[-1] += part
    return [piece for piece in result if piece]


def _fold_lines(text: str) -> str:
    """Lines of at most 510 characters."""
    lines = (
        line[start : start + MAX_CHARACTERS]
        for line in text.split("\n")
        for start in range(0, len(line), MAX_CHARACTERS)
    )
    return "\n".join(lines).strip("\n")


def _ended_clauses(text: str) -> list[str]:
    text = text.replace("……", "。").replace("——", "，")
    return _CLAUSE.findall(text if text.endswith(tuple(ENDS)) else text + "。")


def _cut0(text: str) -> str:
    return _lines([text], _MARKS)


def _cut1(text: str) -> str:
    # The last group takes in what is left: up to eight clauses are one group.
    text = _fold_lines(text)
    clauses = _ended_clauses(text)
    if len(clauses) <= 4:
        return _lines([text], _MARKS)
    starts = range(0, len(clauses) - 4, 4)
    groups = ["".join(clauses[start : None if start == starts[-1] else start + 4]) for start in starts]
    return _lines(groups, _MARKS)


def _cut2(text: str) -> str:
    text = _fold_lines(text)
    clauses = _ended_clauses(text)
    if len(clauses) < 2:
        return text
    groups = [""]
    for clause in clauses:
        groups[-1] += clause
        if len(groups[-1]) > 50:
            groups.append("")
    groups = [group for group in groups if group]
    if len(groups) > 1 and len(groups[-1]) < 50:
        groups[-2:] = [groups[-2] + groups[-1]]
    return _lines(groups, _MARKS)


def _cut3(text: str) -> str:
    return _lines(_fold_lines(text).strip("。").split("。"), _MARKS)


def _cut4(text: str) -> str:
    return _lines(re.split(r"(?<!\d)\.(?!\d)", _fold_lines(text).strip(".")), _MARKS)


def _cut5(text: str) -> str:
    # A full stop between digits is a decimal point.
    return _lines(
        re.split(r"(?<=[,.;?!、，。？！：…])(?<!\d\.(?=\d))", _fold_lines(text)), frozenset(",.;?!、，。？！：…")
    )


def _lines(pieces: list[str], marks: frozenset[str]) -> str:
    """One line for each piece that has more than marks in it."""
    return "\n".join(piece for piece in pieces if not marks.issuperset(piece))


METHODS: dict[str, Callable[[str], str]] = {
    "cut0": _cut0,
    "cut1": _cut1,
    "cut2": _cut2,
    "cut3": _cut3,
    "cut4": _cut4,
    "cut5": _cut5,
}
