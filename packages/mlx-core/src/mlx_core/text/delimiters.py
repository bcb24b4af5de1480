"""Finding marks (stop strings, tags) in text that comes in pieces, wherever the pieces break."""

from __future__ import annotations

import functools
import re


def find_delimiter(text: str, marks: tuple[str, ...], start: int = 0, *, final: bool = False) -> tuple[int, str | None]:
    """Where in `text`, from `start` on, the first of `marks` begins, and which it is: the longest of those that begin
    there.

    Without one: where that begins which more text may turn into one, or else the length of `text`; up to there the
    text can be shown. A mark is given only when no further text can make an earlier or a longer one; with `final`
    there is no further text.
    """
    if not marks:
        return len(text), None
    pattern, longest = _compiled(marks)
    found = pattern.search(text, start)
    if found is not None and (final or found.start() + longest <= len(text)):
        return found.start(), found[0]
    held = len(text) if final else len(text) - max(overlap(text, mark, start) for mark in marks)
    if found is not None and found.start() < held:
        return found.start(), found[0]
    return held, None


def overlap(text: str, mark: str, start: int = 0) -> int:
    """The length of the longest end of `text`, from `start` on, that `mark` begins with, the whole mark excepted."""
    longest = min(len(text) - start, len(mark) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(mark[:n])), 0)


@functools.lru_cache(maxsize=256)
def _compiled(marks: tuple[str, ...]) -> tuple[re.Pattern[str], int]:
    longest_first = sorted(marks, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first))), len(longest_first[0])
