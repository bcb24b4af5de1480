"""The morphemes of a Korean text, by MeCab with its Korean dictionary (the extra `ko`)."""

from __future__ import annotations

from functools import cache
from typing import Any

from ..extras import missing


def morphemes(text: str) -> list[tuple[str, str]]:
    """The morphemes of a text in order, each with its part of speech in the tags of mecab-ko-dic.

    Tags of what was contracted are joined by "+". Spaces are left out.

    Raises:
        MissingExtraError: the analyser isn't installed.
    """
    return [(str(form), str(tag)) for form, tag in _mecab().pos(text)]


@cache
def _mecab() -> Any:
    try:
        import mecab
    except ImportError as error:
        raise missing("Korean", "ko", error) from error
    return mecab.MeCab()
