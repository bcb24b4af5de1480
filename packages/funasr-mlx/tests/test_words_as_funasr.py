"""Words, times and sentences as FunASR 1.4.16 makes them (recorded by scripts/record_golden/funasr_words.py)."""

import json
from pathlib import Path

import numpy as np
import pytest

from funasr_mlx.text import join_tokens, rich_text, sentences, token_times

RECORD = json.loads((Path(__file__).parent / "goldens" / "words.json").read_text(encoding="utf-8"))


def test_times_of_tokens():
    assert len(RECORD["times"]) > 30
    for case in RECORD["times"]:
        alphas, peaks = np.array(case["alphas"], np.float32), np.array(case["peaks"], np.float32)
        found = token_times(alphas, peaks, case["count"], case["step_ms"])
        assert [list(time) for time in found] == case["times"]


def test_words_and_text():
    for case in RECORD["words"]:
        wording = join_tokens(case["tokens"])
        assert (wording.text, wording.words) == (case["text"], case["words"])


def test_times_of_words():
    timed = [case for case in RECORD["words"] if case["times"] is not None and case["tokens"]]
    assert len(timed) > 100
    for case in timed:
        times = [(100 * at, 100 * at + 80) for at in range(len(case["tokens"]))]
        assert [list(time) for time in join_tokens(case["tokens"], times).times] == case["times"], case


def test_text_with_signs():
    for tagged, expected in RECORD["rich"]:
        assert rich_text(tagged) == expected


@pytest.mark.parametrize("case", RECORD["sentences"], ids=lambda case: " ".join(case["words"]))
def test_sentences(case):
    times = [(100 * at, 100 * at + 80) for at in range(len(case["words"]))]
    found = sentences(case["marks"], times, case["words"])
    expected = case["sentences"]
    assert [(s.start_ms, s.end_ms) for s in found] == [(s["start"], s["end"]) for s in expected]
    assert [[list(time) for time in s.timestamps] for s in found] == [s["timestamp"] for s in expected]
    if any("一" <= word <= "龥" for word in case["words"]):
        assert [s.text for s in found] == [s["text"].strip() for s in expected]
