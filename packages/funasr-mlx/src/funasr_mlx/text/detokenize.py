"""Detokenization: the tokens of a recognizer -> words and text.

Paraformer's tokens are Chinese characters, English words, and pieces of words that end in `@@` where they go on.
Text is joined as FunASR 1.4.16 joins it (`utils/postprocess_utils.py`), Chinese without spaces.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from .vocabulary import UNKNOWN

Times = tuple[int, int]
"""Start and end in milliseconds."""

_SILENT = frozenset(["<s>", "</s>", UNKNOWN, "<OOV>"])
_CONTINUES = "@@"


class DetokenizedText(NamedTuple):
    """A text, its words, and the time of each word (empty where none is known)."""

    text: str
    words: list[str]
    times: list[Times]


def join_tokens(tokens: Iterable[str], times: Sequence[Times] | None = None) -> DetokenizedText:
    """Words out of tokens: pieces joined, letters that follow each other made an abbreviation.

    times: of each token. A token that is neither Chinese nor alphabetic (`w35`, which no released vocabulary has) gets
    no time, and a piece that nothing goes on with is joined to the next word, as FunASR has it.
    """
    said = [token for token in tokens if token not in _SILENT]
    if said and all(_is_chinese(token) for token in said):
        return DetokenizedText("".join(said), said, list(times or [])[: len(said)])
    builder = _Builder(list(times or []))
    for at, token in enumerate(said):
        builder.add(at, token)
    return builder.build()


class _Builder:
    """Words, with a blank after each alphabetic one until a Chinese character takes it back."""

    def __init__(self, times: list[Times]) -> None:
        self._times, self._timed = times, bool(times)
        self._items: list[str] = []
        self._of_words: list[Times] = []
        self._word, self._open, self._blank = "", False, False
        self._start = self._end = -1

    def add(self, at: int, token: str) -> None:
        time = self._times[min(at, len(self._times) - 1)] if self._timed else (-1, -1)
        if not self._open:
            self._start, self._end = time
        if all(map(_is_chinese, token)) and token:
            if self._blank:
                self._items.pop()
            self._items.append(token)
            self._close()
            self._blank = False
        elif _CONTINUES in token:
            self._word += token.replace(_CONTINUES, "")
            self._open, self._end = True, time[1]
            self._blank = False
        elif token and all(map(_is_letter, token)):
            self._items += [self._word + token, " "]
            self._word, self._end = "", time[1]
            self._close()
            self._blank = True
        else:
            self._items.append(token)

    def _close(self) -> None:
        self._of_words.append((self._start, self._end))
        self._start, self._open = self._end, False

    def build(self) -> DetokenizedText:
        """The text of the tokens that were added, abbreviations joined: `["a", " ", "b", " "]` is one word."""
        items: list[str] = []
        times: list[Times] = []
        word = at = 0
        while at < len(self._items):
            item = self._items[at]
            if item == " ":
                items.append(item)
                at += 1
                continue
            letters = 1
            while _is_single(item) and _is_single("".join(self._items[at + 2 * letters : at + 2 * letters + 1])):
                if self._items[at + 2 * letters - 1] != " ":
                    break
                letters += 1
            spoken = self._of_words[word : word + letters]
            if letters > 1:
                item = "".join(self._items[at : at + 2 * letters : 2]).upper()
            items.append(item)
            if self._timed and spoken:
                times.append((spoken[0][0], spoken[-1][1]))
            at += 2 * letters - 1
            word += letters
        return DetokenizedText("".join(items).strip(), [item for item in items if item != " "], times)


def _is_chinese(text: str) -> bool:
    """Whether a character is Chinese; a token is judged by its place among strings, as in the reference."""
    return "一" <= text <= "\u9fff" or "0" <= text <= "9" or text == "@"


def _is_letter(character: str) -> bool:
    return character == "'" or (character.isalpha() and not _is_chinese(character))


def _is_single(word: str) -> bool:
    return len(word) == 1 and word.isascii() and word.isalpha()


def join_words(words: Sequence[str]) -> str:
    """Words as text: a space wherever a letter stands at the border, so none between Chinese characters."""
    text = ""
    for word in words:
        if text and word and (_is_latin(text[-1]) or _is_latin(word[0])):
            text += " "
        text += word
    return text


def join_texts(texts: Iterable[str]) -> str:
    """Texts of neighbouring stretches, with a blank between unless both sides are Chinese."""
    joined = ""
    for text in texts:
        if joined and text and not ("\u3400" <= joined[-1] <= "\u9fff" and "\u3400" <= text[0] <= "\u9fff"):
            joined += " "
        joined += text
    return joined


def _is_latin(character: str) -> bool:
    return "a" <= character <= "z" or "A" <= character <= "Z"
