"""What a recording says: text, words, times, sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from .wording import Times


@dataclass(frozen=True)
class Segment:
    """A sentence, or a stretch of speech between silences."""

    start_ms: int
    end_ms: int
    text: str
    tokens: list[str] = field(default_factory=list)
    """Words: a Chinese character is one."""
    timestamps: list[Times] = field(default_factory=list)
    """Start and end of each token in milliseconds; fewer, or none, where the model doesn't tell."""


@dataclass(frozen=True)
class Transcript:
    """What was said in a recording; everything empty where nothing was."""

    text: str = ""
    tokens: list[str] = field(default_factory=list)
    timestamps: list[Times] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    duration_ms: int = 0
    """Of the recording."""
    raw_text: str = ""
    """As the recogniser gave it: without punctuation that was restored, with SenseVoice's tags."""
    language: str | None = None
    """SenseVoice's: "zh", "en", "yue", "ja", "ko" or "nospeech"."""
    emotion: str | None = None
    """SenseVoice's, such as "HAPPY" or "NEUTRAL"."""
    events: list[str] = field(default_factory=list)
    """SenseVoice's, such as "Speech", "BGM", "Laughter"."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def join_words(words: Sequence[str]) -> str:
    """Words as text: a space wherever a letter stands at the border, so none between Chinese characters."""
    text = ""
    for word in words:
        if text and word and (_is_latin(text[-1]) or _is_latin(word[0])):
            text += " "
        text += word
    return text


def _is_latin(character: str) -> bool:
    return "a" <= character <= "z" or "A" <= character <= "Z"
