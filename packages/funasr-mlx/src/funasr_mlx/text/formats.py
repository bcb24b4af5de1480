"""Transcripts as text, JSON, TSV and subtitles (SRT, WebVTT)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

from .detokenize import join_words
from .transcript import Segment, Transcript

# Two lines, and the time that broadcasters give them: as much as a viewer reads at a glance.
_MAX_CUE_MS = 7000
_MAX_CUE_WIDTH = 84


def to_text(transcript: Transcript) -> str:
    """The text and a line feed."""
    return transcript.text + "\n"


def to_json(transcript: Transcript) -> str:
    """All fields, as an object."""
    return json.dumps(transcript.to_dict(), ensure_ascii=False, indent=2) + "\n"


def to_tsv(transcript: Transcript) -> str:
    """`start`, `end` (milliseconds) and `text`, a segment a line, tabs and line feeds inside a text made blanks."""
    rows = (f"{cue.start_ms}\t{cue.end_ms}\t{_flat(cue.text)}" for cue in transcript.segments)
    return "\n".join(["start\tend\ttext", *rows]) + "\n"


def to_srt(transcript: Transcript) -> str:
    """SubRip's subtitles."""
    cues = (
        f"{number}\n{_clock(cue.start_ms, ',')} --> {_clock(cue.end_ms, ',')}\n{_flat(cue.text)}\n"
        for number, cue in enumerate(cues_of(transcript), 1)
    )
    return "\n".join(cues)


def to_vtt(transcript: Transcript) -> str:
    """WebVTT's subtitles."""
    cues = (
        f"{_clock(cue.start_ms, '.')} --> {_clock(cue.end_ms, '.')}\n{_escaped(_flat(cue.text))}\n"
        for cue in cues_of(transcript)
    )
    return "\n".join(["WEBVTT\n", *cues])


FORMATS: dict[str, Callable[[Transcript], str]] = {
    "text": to_text,
    "json": to_json,
    "srt": to_srt,
    "vtt": to_vtt,
    "tsv": to_tsv,
}


def cues_of(transcript: Transcript) -> Iterator[Segment]:
    """The segments, those split that are too long to be read, where their words' times are known."""
    for segment in transcript.segments:
        if not segment.text:
            continue
        long = segment.end_ms - segment.start_ms > _MAX_CUE_MS or len(segment.text) > _MAX_CUE_WIDTH
        if not long or len(segment.tokens) != len(segment.timestamps):
            yield segment
            continue
        first = 0
        for at in range(1, len(segment.tokens) + 1):
            whole = at == len(segment.tokens)
            words = segment.tokens[first : at + 1]
            if not whole and (
                segment.timestamps[at][1] - segment.timestamps[first][0] <= _MAX_CUE_MS
                and len(join_words(words)) <= _MAX_CUE_WIDTH
            ):
                continue
            times = segment.timestamps[first:at]
            tokens = segment.tokens[first:at]
            yield Segment(times[0][0], times[-1][1], join_words(tokens), tokens, times)
            first = at


def _clock(ms: int, point: str) -> str:
    seconds, ms = divmod(max(0, ms), 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{point}{ms:03}"


def _flat(text: str) -> str:
    return " ".join(text.split())


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
