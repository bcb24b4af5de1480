"""SenseVoice's text: tags for language, emotion and events among the words, and times for its words.

Reference: FunASR 1.4.16, `utils/postprocess_utils.py` (`rich_transcription_postprocess`).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mlx_core.errors import MissingCheckpointError, TokenizerError
from mlx_core.text.sentencepiece import BYTE, CONTROL, UNKNOWN, read_sentencepiece_model

from .detokenize import Times

_SPACE = "\u2581"
_TAG = re.compile(r"<\|([^|]*)\|>")

_LANGUAGES = ("zh", "en", "yue", "ja", "ko", "nospeech")
_EMOTIONS = {
    "HAPPY": "😊",
    "SAD": "😔",
    "ANGRY": "😡",
    "NEUTRAL": "",
    "FEARFUL": "😰",
    "DISGUSTED": "🤢",
    "SURPRISED": "😮",
}
_EVENTS = {
    "BGM": "🎼",
    "Speech": "",
    "Applause": "👏",
    "Laughter": "😀",
    "Cry": "😭",
    "Sneeze": "🤧",
    "Breath": "",
    "Cough": "🤧",
}
_SILENT = ("EMO_UNKNOWN", "Sing", "Speech_Noise", "withitn", "woitn", "GBG", "Event_UNK")
_ALL = (*_LANGUAGES, *_EMOTIONS, *_EVENTS, *_SILENT)
_EMOTION_SIGNS = frozenset("😊😔😡😰🤢😮")
_EVENT_SIGNS = frozenset("🎼👏😀😭🤧😷")


class Tags(NamedTuple):
    """The tags of a text."""

    language: str | None
    emotion: str | None
    events: list[str]


def read_tags(text: str) -> Tags:
    """The first language, the commonest emotion, and the events in their order."""
    found = _TAG.findall(text)
    emotions = [tag for tag in found if tag in _EMOTIONS]
    return Tags(
        next((tag for tag in found if tag in _LANGUAGES), None),
        max(emotions, key=emotions.count) if emotions else None,
        list(dict.fromkeys(tag for tag in found if tag in _EVENTS)),
    )


def rich_text(text: str) -> str:
    """The text without tags, with signs for them: an event's before a stretch of one language, an emotion's after."""
    text = text.replace("<|nospeech|><|Event_UNK|>", "❓")
    stretches = [_signed(part) for part in re.split("|".join(re.escape(f"<|{tag}|>") for tag in _LANGUAGES), text)]
    result = " " + stretches[0]
    event = None
    for stretch in stretches[1:]:
        if stretch and stretch[0] in _EVENT_SIGNS and stretch[0] == event:
            stretch = stretch[1:]
        if not stretch:
            continue
        event = stretch[0] if stretch[0] in _EVENT_SIGNS else None
        if stretch[-1] in _EMOTION_SIGNS and stretch[-1] == result[-1]:
            result = result[:-1]
        result += stretch.strip()
    # SenseVoice's output for next to nothing
    return result.replace("The.", " ").strip()


def _signed(text: str) -> str:
    counts = {tag: text.count(f"<|{tag}|>") for tag in _ALL}
    for tag in _ALL:
        text = text.replace(f"<|{tag}|>", "")
    emotion = "NEUTRAL"
    for tag in _EMOTIONS:
        if counts[tag] > counts[emotion]:
            emotion = tag
    for tag, sign in _EVENTS.items():
        if counts[tag]:
            text = sign + text
    text += _EMOTIONS[emotion]
    for sign in _EMOTION_SIGNS | _EVENT_SIGNS:
        text = text.replace(" " + sign, sign).replace(sign + " ", sign)
    return text.strip()


class Pieces:
    """The pieces of a SentencePiece model by id."""

    def __init__(self, path: Path) -> None:
        try:
            model = read_sentencepiece_model(path.read_bytes())
        except FileNotFoundError as error:
            raise MissingCheckpointError(f"{path} does not exist. The folder is incomplete.") from error
        self.pieces, self._types = list(model.pieces), list(model.types)

    def __len__(self) -> int:
        return len(self.pieces)

    def text(self, ids: Sequence[int]) -> str:
        """As SentencePiece decodes: the blank before the first word falls away, unknown pieces are ` ⁇ `."""
        encoded = b""
        for number in ids:
            kind, piece = self._type(number), self.pieces[number]
            if kind == BYTE:
                encoded += bytes([int(piece[3:5], 16)])
            elif kind == UNKNOWN:
                encoded += " ⁇ ".encode()
            elif kind != CONTROL:
                encoded += piece.replace(_SPACE, " ").encode()
        return encoded.decode(errors="replace").removeprefix(" ")

    def is_tag(self, number: int) -> bool:
        """Whether a piece is none of the text's."""
        return _TAG.fullmatch(self.pieces[number]) is not None or self._type(number) in (UNKNOWN, CONTROL)

    def words(self, path: npt.NDArray[np.integer], step_ms: int, blank: int = 0) -> tuple[list[str], list[Times]]:
        """Words and their times of the piece of each frame, as CTC aligns them: pieces joined up to the next blank,
        but for characters that make words of their own.
        """
        borders = np.flatnonzero(np.diff(path, prepend=-1, append=-1))
        end_of_speech = max(0, len(path) * step_ms - step_ms // 2)
        words: list[str] = []
        times: list[Times] = []
        for start, end in itertools.pairwise(borders):
            number = int(path[start])
            if number == blank or self.is_tag(number):
                continue
            piece = self.pieces[number]
            text = piece.replace(_SPACE, "")
            span = (
                max(0, int(start) * step_ms - step_ms // 2),
                min(int(end) * step_ms - step_ms // 2, end_of_speech),
            )
            follows = words and not piece.startswith(_SPACE) and _joins(words[-1]) and _joins(text)
            if follows or (text and words and not words[-1]):
                words[-1] += text
                times[-1] = (times[-1][0], span[1])
            else:
                words.append(text)
                times.append(span)
        spoken = [at for at, word in enumerate(words) if word]
        return [words[at] for at in spoken], [times[at] for at in spoken]

    def _type(self, number: int) -> int:
        if not 0 <= number < len(self.pieces):
            raise TokenizerError(
                f"the model says piece {number}; bpe.model has {len(self)}. They are of different models."
            )
        return self._types[number]


def _joins(text: str) -> bool:
    return bool(text) and text.isascii() and all(c.isalnum() or c == "'" for c in text)
