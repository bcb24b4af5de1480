"""From the tokens of a recogniser to words and text, and from hotwords to tokens.

Paraformer's tokens are Chinese characters, English words, and pieces of words that end in `@@` where they go on.
Text is joined as FunASR 1.4.16 joins it (`utils/postprocess_utils.py`), Chinese without spaces.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mlx_core.errors import InputError, TokenizerError

Times = tuple[int, int]
"""Start and end in milliseconds."""

UNKNOWN = "<unk>"
_NOT_SAID = frozenset(["<s>", "</s>", UNKNOWN, "<OOV>"])
_CONTINUES = "@@"


class Wording(NamedTuple):
    """What was said: the text, its words, and when each was said (empty where nothing tells)."""

    text: str
    words: list[str]
    times: list[Times]


def join_tokens(tokens: Iterable[str], times: Sequence[Times] | None = None) -> Wording:
    """Words out of tokens: pieces joined, letters that follow each other made an abbreviation.

    times: of each token. A token that is neither Chinese nor alphabetic (`w35`, which no released vocabulary has) gets
    no time, and a piece that nothing goes on with is joined to the next word, as FunASR has it.
    """
    said = [token for token in tokens if token not in _NOT_SAID]
    if said and all(_is_chinese(token) for token in said):
        return Wording("".join(said), said, list(times or [])[: len(said)])
    builder = _Builder(list(times or []))
    for at, token in enumerate(said):
        builder.add(at, token)
    return builder.wording()


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

    def wording(self) -> Wording:
        """What was added, abbreviations joined: `["a", " ", "b", " "]` is one word."""
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
        return Wording("".join(items).strip(), [item for item in items if item != " "], times)


def _is_chinese(text: str) -> bool:
    """Of a character; of a token by its place among strings, which is how the reference asks."""
    return "一" <= text <= "\u9fff" or "0" <= text <= "9" or text == "@"


def _is_letter(character: str) -> bool:
    return character == "'" or (character.isalpha() and not _is_chinese(character))


def _is_single(word: str) -> bool:
    return len(word) == 1 and word.isascii() and word.isalpha()


_CHINESE_WORD = re.compile(r"[一-龥0-9]+")


class Vocabulary:
    """A recogniser's tokens by id, and how a word is spelled with them.

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
