"""Subtitles and tables, read back by pysubs2 and the standard library."""

import csv
import io
import json

import pysubs2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from funasr_mlx.text import FORMATS, Segment, Transcript, cues_of

SEGMENTS = [
    Segment(0, 1230, "今天天气怎么样？"),
    Segment(1230, 2000, "a < b & c\n--> d"),
    Segment(3_725_250, 3_727_000, "An hour later."),
]
TRANSCRIPT = Transcript("今天天气怎么样？", ["今", "天"], [(0, 100), (100, 230)], SEGMENTS, 4_000_000)


@pytest.mark.parametrize("name", ["srt", "vtt"])
def test_subtitles_are_read_back(name):
    read = pysubs2.SSAFile.from_string(FORMATS[name](TRANSCRIPT), format_=name)
    assert [(cue.start, cue.end) for cue in read] == [(s.start_ms, s.end_ms) for s in SEGMENTS]
    texts = [cue.plaintext for cue in read]
    assert texts[0] == SEGMENTS[0].text
    assert texts[2] == "An hour later."
    assert "\n" not in texts[1]


def test_json_is_read_back():
    read = json.loads(FORMATS["json"](TRANSCRIPT))
    assert read["text"] == TRANSCRIPT.text
    assert read["timestamps"] == [[0, 100], [100, 230]]
    assert read["segments"][2]["start_ms"] == 3_725_250


def test_a_table_is_read_back():
    rows = list(csv.reader(io.StringIO(FORMATS["tsv"](TRANSCRIPT)), delimiter="\t", quoting=csv.QUOTE_NONE))
    assert rows[0] == ["start", "end", "text"]
    assert rows[1] == ["0", "1230", "今天天气怎么样？"]
    assert len(rows) == 4


@pytest.mark.parametrize("name", list(FORMATS))
def test_nothing_was_said(name):
    text = FORMATS[name](Transcript())
    assert text == {"text": "\n", "srt": "", "vtt": "WEBVTT\n", "tsv": "start\tend\ttext\n"}.get(name, text)


@given(
    st.lists(
        st.tuples(st.integers(0, 3000), st.sampled_from(["今", "天", "hello", "transcription"])),
        min_size=1,
        max_size=80,
    )
)
def test_long_segments_are_split_between_words(steps):
    words = [word for _, word in steps]
    times, at = [], 0
    for length, _ in steps:
        times.append((at, at + length))
        at += length
    whole = Segment(0, at, " ".join(words), words, times)
    cues = list(cues_of(Transcript("", words, times, [whole])))
    if len(cues) > 1:
        assert [word for cue in cues for word in cue.tokens] == words
        assert [time for cue in cues for time in cue.timestamps] == times
    for cue in cues:
        assert len(cue.tokens) == 1 or cue.end_ms - cue.start_ms <= 7000
        assert len(cue.tokens) == 1 or len(cue.text) <= 84
