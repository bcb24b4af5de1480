"""Transcripts: the text, words, times and sentences of a recording."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from .detokenize import Times


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
    """The speech of a recording as text; everything is empty where nothing was said."""

    text: str = ""
    tokens: list[str] = field(default_factory=list)
    timestamps: list[Times] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    duration_ms: int = 0
    """Of the recording."""
    raw_text: str = ""
    """As the recognizer gave it: without punctuation that was restored, with SenseVoice's tags."""
    language: str | None = None
    """SenseVoice's: "zh", "en", "yue", "ja", "ko" or "nospeech"."""
    emotion: str | None = None
    """SenseVoice's, such as "HAPPY" or "NEUTRAL"."""
    events: list[str] = field(default_factory=list)
    """SenseVoice's, such as "Speech", "BGM", "Laughter"."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)
