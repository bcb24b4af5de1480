"""Mixed text cut into stretches of one language.

By script: kana is Japanese, hangul Korean, Latin letters English, and Chinese characters are Chinese unless kana
stands in the same clause. Marks, digits and spaces go with what is before them, or with what follows if nothing is.

A language may be asked for: "zh", "ja", "ko" and "yue" (and "all_zh" ..., which differ in the exact mode only) take
everything that isn't English; "en" takes everything; "auto" decides, and so does "auto_yue", for which Chinese is
Cantonese.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from mlx_core.errors import InputError

LANGUAGES = (
    "auto", "auto_yue", "zh", "en", "ja", "ko", "yue", "all_zh", "all_ja", "all_ko", "all_yue",
)  # fmt: skip

KANA = r"\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f"
HAN = r"\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
LATIN = r"A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\uff21-\uff3a\uff41-\uff5a"
HANGUL = r"\u1100-\u11ff\u3130-\u318f\uac00-\ud7af"

_SCRIPTS = re.compile(rf"(?P<cjk>[{HAN}{KANA}]+)|(?P<ko>[{HANGUL}]+)|(?P<en>[{LATIN}]+)")
_KANA = re.compile(f"[{KANA}]")
_CLAUSE = re.compile(r"[^。！？!?，\n]*[。！？!?，\n]*")


class Span(NamedTuple):
    """A stretch of one language: zh, en, ja, ko or yue."""

    language: str
    text: str


def check_language(language: str) -> None:
    """Raises InputError if there is no such language."""
    if language not in LANGUAGES:
        raise InputError(f"there is no language {language!r}; there are {', '.join(LANGUAGES)}")


def segment(text: str, language: str = "auto", *, exact: bool = False) -> list[Span]:
    """The stretches of a text, which together are the text, runs of spaces made one (in the exact mode, what the
    official code leaves of it).

    Raises:
        InputError: there is no such language.
    """
    check_language(language)
    text = re.sub(" {2,}", " ", text)
    if language == "en":
        return [Span("en", text)] if text else []
    if exact:
        from .segmentation_official import segment as segment_officially

        return segment_officially(text, language)
    spans = join(span for clause in _CLAUSE.findall(text) for span in _by_script(clause))
    return join(Span(_asked_for(span.language, language), span.text) for span in spans)


def join(spans: Iterable[Span]) -> list[Span]:
    """Neighbours of one language made one; those of no language ("") go with the one before, or with the next."""
    result: list[Span] = []
    for span in spans:
        if result and (span.language == result[-1].language or not span.language or not result[-1].language):
            result[-1] = Span(result[-1].language or span.language, result[-1].text + span.text)
        elif span.text:
            result.append(span)
    return result


def _by_script(clause: str) -> Iterator[Span]:
    chinese = "ja" if _KANA.search(clause) else "zh"
    end = 0
    for match in _SCRIPTS.finditer(clause):
        yield Span("", clause[end : match.start()])
        yield Span(chinese if match.lastgroup == "cjk" else str(match.lastgroup), match[0])
        end = match.end()
    yield Span("", clause[end:])


def _asked_for(found: str, language: str) -> str:
    if language in ("auto", "auto_yue"):
        found = found or "zh"
        return "yue" if found == "zh" and language == "auto_yue" else found
    return "en" if found == "en" else language.removeprefix("all_")
