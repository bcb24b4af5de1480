"""Mixed text cut into stretches of one language, by script.

Kana is Japanese, hangul Korean, Latin letters English, and Chinese characters are Chinese unless kana
stands in the same clause. Marks, digits and spaces go with what is before them, or with what follows if nothing is.

A language may be asked for: "zh", "ja", "ko" and "yue" (and "all_zh" ..., which differ in the exact mode only) take
everything that isn't English; "en" takes everything; "auto" decides, and so does "auto_yue", for which Chinese is
Cantonese.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from .spans import HAN, HANGUL, KANA, LATIN, Span, check_language, join, single_spaced

_SCRIPTS = re.compile(rf"(?P<cjk>[{HAN}{KANA}]+)|(?P<ko>[{HANGUL}]+)|(?P<en>[{LATIN}]+)")
_KANA = re.compile(f"[{KANA}]")
_CLAUSE = re.compile(r"[^。！？!?，\n]*[。！？!?，\n]*")


def segment(text: str, language: str = "auto") -> list[Span]:
    """The stretches of a text, which together are the text, runs of spaces made one.

    Raises:
        InputError: there is no such language.
    """
    check_language(language)
    text = single_spaced(text)
    if language == "en":
        return [Span("en", text)] if text else []
    spans = join(span for clause in _CLAUSE.findall(text) for span in _by_script(clause))
    return join(Span(_asked_for(span.language, language), span.text) for span in spans)


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
