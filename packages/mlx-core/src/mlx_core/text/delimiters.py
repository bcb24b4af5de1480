"""Finding delimiters (stop strings, tags) in text that arrives in pieces, wherever the pieces are cut."""

from __future__ import annotations

import functools
import re


def find_delimiter(
    text: str, delimiters: tuple[str, ...], start: int = 0, *, final: bool = False
) -> tuple[int, str | None]:
    """The index of the first delimiter in `text` from `start` on, and that delimiter: the longest that begins there.

    A delimiter is returned only when no further text can make an earlier or a longer one; with `final` no text follows.
    Where there is none, the delimiter is None and the index is that of the first character that could still begin one,
    or the length of `text`: what comes before it can be shown.
    """
    if not delimiters:
        return len(text), None
    pattern, longest = _compiled(delimiters)
    found = pattern.search(text, start)
    if found is not None and (final or found.start() + longest <= len(text)):
        return found.start(), found[0]
    held_back = len(text) if final else len(text) - max(overlap(text, delimiter, start) for delimiter in delimiters)
    if found is not None and found.start() < held_back:
        return found.start(), found[0]
    return held_back, None


def overlap(text: str, delimiter: str, start: int = 0) -> int:
    """The length of the longest proper prefix of `delimiter` that `text`, from `start` on, ends with."""
    longest = min(len(text) - start, len(delimiter) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(delimiter[:n])), 0)


@functools.lru_cache(maxsize=256)
def _compiled(delimiters: tuple[str, ...]) -> tuple[re.Pattern[str], int]:
    """An expression that prefers the longest delimiter, and the length of that."""
    longest_first = sorted(delimiters, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first))), len(longest_first[0])
