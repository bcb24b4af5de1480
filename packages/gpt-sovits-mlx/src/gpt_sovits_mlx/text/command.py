"""What `gpt-sovits-mlx phonemes` shows."""

from __future__ import annotations

import json
from typing import Any

from .frontend import Utterance


def as_json(utterances: list[Utterance]) -> str:
    """The sentences as one line of JSON."""
    return json.dumps([_fields(utterance) for utterance in utterances], ensure_ascii=False)


def as_text(utterances: list[Utterance]) -> str:
    """The sentences for people: each segment's language, normalised text, phones and phones per character."""
    return "\n\n".join("\n".join(_lines(utterance)) for utterance in utterances)


def _fields(utterance: Utterance) -> dict[str, Any]:
    return {
        "text": utterance.text,
        "normalized": utterance.normalized,
        "pause_s": utterance.pause_s,
        "ids": list(utterance.ids),
        "segments": [
            {
                "language": part.language,
                "text": part.text,
                "normalized": part.normalized,
                "phones": list(part.phones),
                "word2ph": None if part.word2ph is None else list(part.word2ph),
            }
            for part in utterance.segments
        ],
    }


def _lines(utterance: Utterance) -> list[str]:
    lines = [utterance.text.strip()] if utterance.text else []
    for part in utterance.segments:
        lines += [f"  {part.language:<8}{part.normalized.strip()}", f"  phones  {' '.join(part.phones)}"]
        if part.word2ph is not None:
            lines.append(f"  word2ph {' '.join(map(str, part.word2ph))}")
    return [*lines, f"  pause   {utterance.pause_s:g} s"] if utterance.pause_s else lines
