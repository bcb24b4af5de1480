"""The text part of punctuation: words and marks -> text and sentences.

Reference: FunASR 1.4.16, `models/ct_transformer/model.py`, `utils/timestamp_tools.py`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from .detokenize import Times, join_words
from .segmentation import is_ascii
from .transcript import Segment

NO_MARK = "_"
_COMMA, _STOP, _QUESTION, _LIST_COMMA = "，", "。", "？", "、"
ENDS = (_STOP, _QUESTION)
"""The marks that end a sentence."""

_ASCII_MARKS = {_COMMA: ",", _STOP: ".", _QUESTION: "?"}
_NO_MARK_ID = 1  # of the characters before a word's last, whatever the model's own is: the reference's
_MAX_SENTENCE_WORDS = 200  # without an end, after which a comma ends a sentence
_MARKS, _ENGLISH_MARKS = "，。？、", ",.?,"  # FunASR's, by number from 2


class PunctuationMarks:
    """A model's marks by id, and the rules by which they are put into text."""

    def __init__(self, names: Sequence[str], sentence_end_id: int) -> None:
        self.names = list(names)
        self.sentence_end_id = sentence_end_id

    def of(self, ids: Sequence[int]) -> list[str]:
        """The marks of ids."""
        return [self.names[number] for number in ids]

    def settle(self, ids: list[int]) -> int:
        """The number of words in the sentences of a window that later words won't change.

        ids: of the mark after each word. A comma becomes the end of a sentence that is too long: its id is changed.
        """
        names = self.of(ids)
        for i in range(len(ids) - 2, 1, -1):
            if names[i] in ENDS:
                return i + 1
        if len(ids) > _MAX_SENTENCE_WORDS:
            for i in range(len(ids) - 2, 1, -1):
                if names[i] == _COMMA:
                    ids[i] = self.sentence_end_id
                    return i + 1
        return 0

    def write(self, words: Sequence[str], ids: Sequence[int]) -> str:
        """Words and marks as text: a space before an English word after another and before one that begins the part,
        sentences with a capital.
        """
        names = self.of(ids)
        text = []
        for i, (word, name) in enumerate(zip(words, names, strict=True)):
            english = is_ascii(word[0])
            if english and (i == 0 or names[i - 1] in ENDS):
                word = word.capitalize()
            if english and (i == 0 or is_ascii(words[i - 1][0])):
                word = " " + word
            text += [word, "" if name == NO_MARK else _ASCII_MARKS.get(name, name) if english else name]
        return "".join(text)


def end_sentence(text: str) -> tuple[str, bool]:
    """The text with an end of its last sentence, and whether it had none."""
    last = text[-1]
    if last in (_COMMA, _LIST_COMMA):
        return text[:-1] + _STOP, True
    if last == ",":
        return text[:-1] + ".", True
    if is_ascii(last):
        return (text, False) if last in ".?" else (text + ".", True)
    return (text, False) if last in ENDS else (text + _STOP, True)


def spread_mark(word: str, mark: int) -> list[int]:
    """A word's mark for each of its characters, where those have none between them."""
    characters = len(word) if "\u0e00" <= word[0] <= "\u9fa5" else 1
    return [_NO_MARK_ID] * (characters - 1) + [mark]


def sentences(marks: Sequence[int], timestamps: Sequence[Times], words: Sequence[str]) -> list[Segment]:
    """Segments that end at punctuation: marks by number as FunASR has them (1: none, 2: comma, 3: full stop, 4:
    question mark, 5: enumeration comma), with a time each.

    Reference: FunASR 1.4.16, `timestamp_sentence`. Marks are Chinese unless no word is.
    """
    signs = _ENGLISH_MARKS if not any(ord(character) > 0x2E7F for word in words for character in word) else _MARKS
    result: list[Segment] = []
    said: list[str] = []
    times: list[Times] = []
    for mark, time, word in itertools.zip_longest(marks, timestamps, words):
        if word is not None:
            said.append(word)
        if time is not None:
            times.append(time)
        if mark is not None and mark > 1:
            # words that have no time of their own stand where the sentence before them ended
            start, end = (times[0][0], times[-1][1]) if times else (result[-1].end_ms,) * 2 if result else (0, 0)
            result.append(Segment(start, end, join_words(said) + signs[mark - 2], said, times))
            said, times = [], []
    if said:
        start, end = (times[0][0], times[-1][1]) if times else (result[-1].end_ms,) * 2 if result else (0, 0)
        result.append(Segment(start, end, join_words(said), said, times))
    return result
