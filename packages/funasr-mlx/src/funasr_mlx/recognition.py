"""The types that a pipeline and recognizers share: options, results, and the recognizer's interface."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import mlx.core as mx

from .frontend import Audio, Frontend, Samples
from .text import Times

Hotwords: TypeAlias = str | Sequence[str] | Sequence[Sequence[int]] | None
"""Words with blanks between, a list of words, or of their token ids."""


@dataclass(frozen=True)
class Recognition:
    """The text of one stretch of speech; times count from its start."""

    text: str = ""
    tokens: list[str] = field(default_factory=list)
    timestamps: list[Times] = field(default_factory=list)
    raw_text: str = ""
    """With SenseVoice's tags; else words with blanks between where the model tells times, as FunASR has it."""
    language: str | None = None
    emotion: str | None = None
    events: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class RecognitionOptions:
    """The options of a recognition, as `Recognizer.transcribe` names them."""

    hotwords: Hotwords = None
    language: str = "auto"
    itn: bool = True


DEFAULT_OPTIONS = RecognitionOptions()


class SpeechRecognizer(Protocol):
    """The part of a `Recognizer` that a `Pipeline` needs."""

    @property
    def sample_rate(self) -> int:
        """The rate of the samples that the model takes, in Hz."""
        ...

    @property
    def frontend(self) -> Frontend:
        """The front end: samples `[S]` at `sample_rate` -> features `[T, F]`."""
        ...

    def samples(self, audio: Audio, sample_rate: int | None = None) -> Samples:
        """A recording as `[S]` at the model's rate. Raises AudioError."""
        ...

    def recognize(
        self, features: Sequence[mx.array], options: RecognitionOptions = DEFAULT_OPTIONS
    ) -> list[Recognition]:
        """Recognize features `[T, F]`, one array per stretch, as one batch. Raises InputError."""
        ...
