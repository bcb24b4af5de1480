"""Timing by rounds, with a clock that is given."""

import itertools

import pytest

from mlx_core import bench
from mlx_core.errors import InputError
from mlx_core.testing import tiny_model


def test_contestants_alternate_and_the_first_round_is_not_counted():
    calls, rounds = [], []

    def contestant(name):
        def run(number):
            calls.append((name, number))
            return number * 10

        return run

    results = bench.measure_rounds(
        {name: contestant(name) for name in "ab"}, 3, lambda number, count: rounds.append((number, count))
    )
    assert calls == [(name, number) for number in range(4) for name in "ab"]
    assert results == {"a": [10, 20, 30], "b": [10, 20, 30]}
    assert rounds == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_times_are_the_median_and_the_fastest_of_the_rounds_that_count(monkeypatch):
    took = [9.0, 3.0, 1.0, 7.0]  # the first warms up
    clock = itertools.accumulate(itertools.chain.from_iterable((0.0, seconds) for seconds in took))
    monkeypatch.setattr(bench.time, "perf_counter", lambda: next(clock))
    assert bench.time_rounds(lambda: None, 3) == bench.Times(median_s=3.0, fastest_s=1.0)


def test_less_than_a_round_is_refused():
    with pytest.raises(InputError, match="rounds must be at least 1; got 0"):
        bench.time_rounds(lambda: None, 0)


def test_ratios_are_medians_round_by_round(monkeypatch):
    speeds = iter([(1.0, 1.0), (1.0, 1.0), (2.0, 8.0), (1.0, 4.0), (6.0, 1.0), (2.0, 1.0)])  # seconds, peer after ours
    monkeypatch.setattr(bench, "_time", lambda tokens, expected: next(speeds))
    result = bench.bench(
        tiny_model(), prompt_tokens=12, generate_tokens=9, rounds=2, peers={"peer": bench.ours(tiny_model())}
    )
    assert result.ratios == {"prefill / peer": pytest.approx((0.5 + 1 / 3) / 2), "decode / peer": pytest.approx(0.75)}
    assert result.speeds["ours"].prefill == pytest.approx((12 / 2 + 12 / 6) / 2)
    assert result.speeds["peer"].decode_range == (pytest.approx(8 / 4), pytest.approx(8 / 1))
    with pytest.raises(InputError, match="generate_tokens must be at least 2"):
        bench.bench(tiny_model(), generate_tokens=1)
