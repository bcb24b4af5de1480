"""Times of tokens out of weights and peaks. Parity with FunASR is in test_recognizer.py."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from funasr_mlx.text import token_times


def peaks_at(length, *places):
    peaks = np.zeros(length, np.float32)
    peaks[list(places)] = 1
    return peaks


def test_a_token_lasts_from_its_fire_to_the_next():
    peaks = peaks_at(31, 2, 7, 12, 28)
    assert token_times(peaks, peaks, 3, 20.0) == [(10, 110), (110, 210), (210, 450)]  # the third: at most 240 ms


def test_the_last_token_reaches_the_end_or_half_of_a_silence():
    peaks = peaks_at(15, 2, 7, 12)
    assert token_times(peaks, peaks, 2, 20.0) == [(10, 110), (110, 300)]
    peaks = peaks_at(20, 2, 7, 12)
    assert token_times(peaks, peaks, 2, 20.0) == [(10, 110), (110, 305)]


def test_too_few_peaks_are_made_anew():
    alphas = np.full(12, 0.25, np.float32)  # scaled so that three fire
    assert token_times(alphas, np.zeros(12, np.float32), 2, 20.0) == [(30, 110), (110, 240)]


def test_nothing():
    empty = np.zeros(0, np.float32)
    assert token_times(empty, empty, 3, 20.0) == []
    assert token_times(np.ones(3, np.float32), np.ones(3, np.float32), 0, 20.0) == []


@given(
    alphas=st.lists(st.floats(0, 2, width=32), min_size=1, max_size=60),
    count=st.integers(1, 12),
)
def test_times_are_in_order_and_inside(alphas, count):
    alphas = np.array(alphas, np.float32) + np.float32(1e-3)
    times = token_times(alphas, alphas, count, 20.0)
    assert len(times) <= count
    flat = [ms for time in times for ms in time]
    assert flat == sorted(flat)
    assert all(-30 <= ms <= 20 * len(alphas) for ms in flat)
