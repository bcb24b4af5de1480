"""Sampling: parameters, filters against a float64 oracle and transformers' processors, draws, and a request's state."""

from __future__ import annotations

import copy
import dataclasses
import math
import os
import pickle
import random
from fractions import Fraction
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from mlx_core import backend
from mlx_core.errors import InputError
from mlx_core.generation.sampler import (
    DefaultSampler,
    RequestSampler,
    SamplingParams,
    TokenLogprob,
    apply_logit_bias,
    apply_min_p,
    apply_presence_frequency,
    apply_repetition_penalty,
    apply_temperature,
    apply_top_k,
    apply_top_p,
    apply_typical,
    apply_xtc,
)

GOLDENS = Path(__file__).parent / "goldens" / "sampler" / "filters.safetensors"
INF = math.inf
SLACK = 1e-5  # float32 probabilities against float64 ones
KEY = mx.random.key(7)
FLOAT: Any = 2.0  # where the types ask for something else
LIST: Any = [1.0]


@pytest.fixture(autouse=True)
def _global_random_state_is_left_alone():
    def states():
        kind, keys, *rest = np.random.get_state()  # noqa: NPY002 - the legacy state is what must not move
        return [mx.random.state[0].tolist(), random.getstate(), kind, keys.tolist(), rest]

    before = states()
    yield
    assert states() == before


def array(row, dtype=mx.float32):
    return mx.array(np.array(row, dtype=np.float32)).astype(dtype)


def host(logits):
    return np.array(logits.astype(mx.float32)).astype(np.float64)


def kept(logits):
    """Ids that a filter left, per row."""
    return [set(np.flatnonzero(row > -INF).tolist()) for row in host(logits)]


def probabilities(row):
    weights = np.exp(row - row.max())
    return weights / weights.sum()


def ranked(scores):
    """Ids by score, best first, equal ones by id."""
    return sorted(range(len(scores)), key=lambda i: (-scores[i], i))


def check_values(before, after):
    """A filter keeps a logit as it is, in float32, or makes it -inf; and leaves something."""
    assert after.dtype == mx.float32
    assert after.shape == before.shape
    before, after = host(before), host(after)
    assert np.all((after == before) | (after == -INF))
    assert np.all((after > -INF).any(axis=-1))


# Few different values, so that rows are full of ties; and removed tokens.
VALUES = st.sampled_from([-INF, -8.0, -1.5, -1.0, -0.0, 0.0, 0.5, 1.0, 2.0, 2.015625, 6.0])
ROWS = st.integers(1, 24).flatmap(
    lambda v: st.lists(
        st.lists(VALUES, min_size=v, max_size=v).filter(lambda row: max(row) > -INF), min_size=1, max_size=3
    )
)
DTYPES = st.sampled_from([mx.float32, mx.bfloat16, mx.float16])
SMOOTH = st.integers(0, 2**32 - 1).map(lambda s: (np.random.default_rng(s).normal(size=(2, 40)) * 3).tolist())
LOGITS = st.builds(array, ROWS | SMOOTH, DTYPES)
SHARES = st.floats(0.01, 1.0, allow_subnormal=False)


# ---- filters against the oracle


@given(LOGITS, st.integers(0, 30))
def test_top_k_keeps_the_k_best(logits, k):
    filtered = apply_top_k(logits, k)
    check_values(logits, filtered)
    for row, found in zip(host(logits), kept(filtered), strict=True):
        assert found == {i for i in ranked(row)[: k or None] if row[i] > -INF}


def check_mass(row, order, found, share, slack=SLACK):
    """`found` are the first of `order`, as few as reach `share` of the mass."""
    probs = probabilities(row)
    assert found == set(order[: len(found)])
    mass = probs[order[: len(found)]].sum()
    assert mass >= share - slack
    assert len(found) == 1 or mass - probs[order[len(found) - 1]] < share + slack


@given(LOGITS, SHARES)
def test_top_p_keeps_the_smallest_set_that_reaches_p(logits, p):
    filtered = apply_top_p(logits, p)
    check_values(logits, filtered)
    for row, found in zip(host(logits), kept(filtered), strict=True):
        check_mass(row, ranked(row), found, p)


@given(LOGITS, SHARES)
def test_typical_keeps_what_is_nearest_to_the_entropy(logits, share):
    filtered = apply_typical(logits, share)
    check_values(logits, filtered)
    for row, found in zip(host(logits), kept(filtered), strict=True):
        probs = probabilities(row)
        with np.errstate(divide="ignore", invalid="ignore"):
            surprise = -np.log(probs)
            entropy = np.where(probs > 0, probs * surprise, 0).sum()
        distance = np.round(np.abs(surprise - entropy), 5)  # equal ones stay equal
        order = sorted(range(len(row)), key=lambda i: (distance[i], i))
        gaps = np.diff(np.unique(distance[distance < INF]))
        assume(share == 1 or not np.any((gaps > 0) & (gaps < 3e-5)))  # ties on one side of float32 only
        check_mass(row, order, found, share)


@given(LOGITS, st.floats(0, 1, allow_subnormal=False))
def test_min_p_is_relative_to_the_best(logits, p):
    filtered = apply_min_p(logits, p)
    check_values(logits, filtered)
    for row, found in zip(host(logits), kept(filtered), strict=True):
        ratio = np.exp(row - row.max())
        assert {i for i in range(len(row)) if ratio[i] > p * (1 + SLACK)} <= found
        assert found <= {i for i in range(len(row)) if ratio[i] >= p * (1 - SLACK)}


@given(LOGITS, st.floats(0, 1, allow_subnormal=False))
def test_xtc_leaves_the_least_likely_of_the_top_choices(logits, threshold):
    assert np.array_equal(host(apply_xtc(logits, 0.0, threshold, KEY)), host(logits))
    filtered = apply_xtc(logits, 1.0, threshold, KEY)
    check_values(logits, filtered)
    for row, found in zip(host(logits), kept(filtered), strict=True):
        probs = probabilities(row)
        assume(not np.any((probs != threshold) & (np.abs(probs - threshold) < SLACK)))
        top = [i for i in ranked(row) if row[i] > -INF and probs[i] >= threshold - SLACK]
        assert found == {i for i in range(len(row)) if row[i] > -INF} - set(top[:-1])


def test_xtc_throws_a_coin_for_each_row():
    logits = mx.broadcast_to(array([3.0, 3.0, 0.0]), (4000, 3))
    changed = sum(1 for row in kept(apply_xtc(logits, 0.3, 0.1, KEY)) if len(row) == 2)
    assert abs(changed / 4000 - 0.3) < 0.03


@settings(max_examples=300)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=12), st.integers(1, 12))
def test_limits_fall_where_they_do_on_paper(weights, n):
    """Every limit is met exactly, as 0.5 + 0.3 meets 0.8, although float32 may round either side."""
    order, logits = ranked(weights), array([[math.log(w) for w in weights]])
    total, last = sum(weights), order[min(n, len(order)) - 1]
    assert kept(apply_top_p(logits, Fraction(sum(weights[i] for i in order[:n]), total))) == [set(order[:n])]
    good = [i for i in order if weights[i] >= weights[last]]
    assert kept(apply_min_p(logits, Fraction(weights[last], weights[order[0]]))) == [set(good)]
    assert kept(apply_xtc(logits, 1, Fraction(weights[last], total), KEY)) == [set(order) - set(good[:-1])]


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("scale", [0, 1, 3, 6])
def test_top_p_is_exact_over_a_large_vocabulary(p, scale):
    row = np.random.default_rng(0).normal(size=151_936).astype(np.float32) * scale
    found = kept(apply_top_p(array([row]), p))[0]
    check_mass(row.astype(np.float64), np.argsort(-row, kind="stable").tolist(), found, p, slack=3e-6)


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16, mx.float16])
def test_filters_take_extremes(dtype):
    biggest = 6e4
    rows = array([[biggest, -biggest, 0, -INF], [-INF, -INF, -INF, -biggest], [biggest] * 4], dtype)
    for made in (
        lambda x: apply_top_k(x, 2),
        lambda x: apply_top_p(x, 1e-30),
        lambda x: apply_top_p(x, 1 - 1e-12),
        lambda x: apply_min_p(x, 1e-300),
        lambda x: apply_typical(x, 0.5),
        lambda x: apply_xtc(x, 1.0, 0.0, KEY),
    ):
        check_values(rows, made(rows))
    for p in (1e-300, 1e-30):
        assert kept(apply_top_p(rows, p)) == kept(apply_top_k(rows, 1)) == [{0}, {3}, {0}]
    one = array([[-3.0]], dtype)
    for made in (
        lambda x: apply_top_k(x, 1),
        lambda x: apply_top_k(x, 2),
        lambda x: apply_top_k(x, 10**12),
        lambda x: apply_top_p(x, 0.01),
        lambda x: apply_min_p(x, 1.0),
        lambda x: apply_typical(x, 0.01),
        lambda x: apply_xtc(x, 1.0, 0.0, KEY),
    ):
        assert host(made(one)).tolist() == [[-3.0]]
    nothing = array([[-INF, -INF]], dtype)
    assert host(apply_typical(apply_min_p(apply_top_p(nothing, 0.5), 0.1), 0.5)).tolist() == [[-INF, -INF]]
    assert host(apply_temperature(nothing, 0.5)).tolist() == [[-INF, -INF]]


@pytest.mark.parametrize("temperature", [1e-300, 1e-45, 1e-3, 1.0, 3e38])
def test_no_temperature_makes_nan(temperature):
    scaled = host(apply_temperature(array([[5e4, -5e4, 12.5, -INF]]), temperature))[0]
    assert scaled[0] == 0
    assert scaled[3] == -INF
    assert not np.isnan(scaled).any()


@given(LOGITS, st.floats(0.05, 4), st.data())
def test_penalties_follow_their_formulas(logits, penalty, data):
    rows, vocab = logits.shape
    counts = np.array(data.draw(st.lists(st.integers(0, 3), min_size=rows * vocab, max_size=rows * vocab)))
    counts = counts.reshape(rows, vocab)
    x = host(logits)
    repeated = np.where(counts > 0, np.where(x < 0, x * penalty, x / penalty), x)
    np.testing.assert_allclose(
        host(apply_repetition_penalty(logits, mx.array(counts > 0), penalty)), repeated, rtol=1e-6
    )
    presence, frequency = data.draw(st.floats(-2, 2, width=32)), data.draw(st.floats(-2, 2, width=32))
    np.testing.assert_allclose(
        host(apply_presence_frequency(logits, mx.array(counts), presence, frequency)),
        x - presence * (counts > 0) - frequency * counts,
        atol=1e-5,
    )


def test_logit_bias_is_added():
    logits = array([[1.0, 2.0, -INF], [0.0, 0.0, 0.0]], mx.bfloat16)
    assert host(apply_logit_bias(logits, {0: -1e9, 2: 4.5})).tolist() == [[-1e9, 2.0, -INF], [-1e9, 0.0, 4.5]]
    assert host(apply_logit_bias(logits, {})).tolist() == host(logits).tolist()


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda x: apply_top_k(x, -1), "top_k"),
        (lambda x: apply_top_k(x, FLOAT), "top_k"),
        (lambda x: apply_top_p(x, 0), "top_p"),
        (lambda x: apply_min_p(x, 1.5), "min_p"),
        (lambda x: apply_typical(x, math.nan), "typical_p"),
        (lambda x: apply_xtc(x, 2, 0.1, KEY), "xtc_probability"),
        (lambda x: apply_xtc(x, 0.5, -0.1, KEY), "xtc_threshold"),
        (lambda x: apply_temperature(x, -1), "temperature"),
        (lambda x: apply_repetition_penalty(x, x > 0, 0), "repetition_penalty"),
        (lambda x: apply_presence_frequency(x, x, INF, 0), "presence_penalty"),
        (lambda x: apply_presence_frequency(x, x, 0, math.nan), "frequency_penalty"),
        (lambda x: apply_logit_bias(x, {3: 1.0}), "logit_bias: there is no token 3 in a vocabulary of 3"),
        (lambda x: apply_logit_bias(x, {-1: 1.0}), "logit_bias token"),
        (lambda x: apply_top_k(x.astype(mx.int32), 1), "floating dtype; found mlx.core.int32"),
        (lambda x: apply_top_k(LIST, 1), "found list"),
        (lambda x: apply_top_p(x[:, :0], 0.5), r"\(1, 0\)"),
        (lambda x: apply_top_p(x.sum(), 0.5), r"shape \(\)"),
        (lambda x: DefaultSampler().sample(x, math.nan), "temperature"),
        (lambda x: DefaultSampler().sample(x[:, :0], 0), "at least one token"),
        (lambda x: DefaultSampler(seed=-1), "seed"),
    ],
)
def test_filters_refuse_bad_arguments(call, named):
    with pytest.raises(InputError, match=named):
        call(array([[1.0, 2.0, 3.0]]))


# ---- transformers


def goldens():
    with safe_open(GOLDENS, framework="numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118 - no mapping


def golden_filter(name, input_ids):
    field, setting = name.split("/")
    if field == "repetition_penalty":
        seen = np.zeros((4, 257), dtype=bool)
        np.put_along_axis(seen, input_ids, True, axis=1)
        return lambda x: apply_repetition_penalty(x, mx.array(seen), float(setting))
    if field == "top_k":
        return lambda x: apply_top_k(x, int(setting))
    made = {"temperature": apply_temperature, "top_p": apply_top_p, "min_p": apply_min_p, "typical_p": apply_typical}
    return lambda x: made[field](x, float(setting))


def log_softmax(rows):
    rows = rows - rows.max(axis=-1, keepdims=True)
    return rows - np.log(np.exp(rows).sum(axis=-1, keepdims=True))


def test_filters_do_what_those_of_transformers_do():
    recorded, metadata = goldens()
    logits, input_ids = mx.array(recorded.pop("logits")), recorded.pop("input_ids")
    chain = metadata["chain"].split()
    assert metadata["transformers"] == "5.23.0"
    assert len(recorded) == 21
    for name, expected in recorded.items():
        found = logits
        for step in chain if name == "chain" else [name]:
            found = golden_filter(step, input_ids)(found)
        expected = expected.astype(np.float64)
        assert np.array_equal(host(found) > -INF, expected > -INF), name
        # Compared as distributions, since apply_temperature moves the maximum to 0.
        np.testing.assert_allclose(log_softmax(host(found)), log_softmax(expected), atol=2e-5, err_msg=name)


# ---- draws


def chi_square(draws, probs):
    """Pearson's statistic over the expected tokens, and the value that it exceeds once in a thousand times."""
    expected = probs * len(draws)
    observed = np.bincount(draws, minlength=len(probs))
    assert observed[probs == 0].sum() == 0, "a removed token was drawn"
    rare = (expected < 5) & (probs > 0)
    common = expected >= 5
    pools = [np.append(counts[common], counts[rare].sum()) for counts in (observed, expected)]
    o, e = (pool[pools[1] > 0] for pool in pools)
    degrees = max(len(e) - 1, 1)
    # Wilson and Hilferty's approximation of the quantile; 3.09 standard deviations are 0.1 %.
    limit = degrees * (1 - 2 / (9 * degrees) + 3.09 * math.sqrt(2 / (9 * degrees))) ** 3
    return ((o - e) ** 2 / e).sum(), limit


def keep(row, ids):
    return np.where(np.isin(np.arange(len(row)), list(ids)), row, -INF)


def keep_mass(row, order, share):
    reached = np.cumsum(probabilities(row)[order])
    return keep(row, order[: int((reached < share - 1e-6).sum()) + 1])


def oracle(row, p):
    """Distribution of the next token after DefaultSampler's chain, by brute force in float64."""
    row = row / p.temperature
    if p.top_k:
        row = keep(row, ranked(row)[: p.top_k])
    if p.top_p < 1:
        row = keep_mass(row, ranked(row), p.top_p)
    if p.min_p:
        row = np.where(np.exp(row - row.max()) >= p.min_p * (1 - 1e-6), row, -INF)
    if p.typical_p < 1:
        probs = probabilities(row)
        with np.errstate(divide="ignore", invalid="ignore"):
            surprise = -np.log(probs)
            distance = np.abs(surprise - np.where(probs > 0, probs * surprise, 0).sum())
        row = keep_mass(row, ranked(-np.round(distance, 6)), p.typical_p)
    probs = probabilities(row)
    top = [i for i in ranked(row) if row[i] > -INF and probs[i] >= p.xtc_threshold]
    excluded = probabilities(keep(row, set(np.flatnonzero(row > -INF).tolist()) - set(top[:-1])))
    return p.xtc_probability * excluded + (1 - p.xtc_probability) * probs


CHAINS = [
    {},
    {"temperature": 0.5},
    {"temperature": 1.6},
    {"top_k": 9},
    {"top_k": 1},
    {"top_p": 0.8},
    {"min_p": 0.1},
    {"typical_p": 0.6},
    {"xtc_probability": 0.5, "xtc_threshold": 0.1},
    {"top_k": 12, "top_p": 0.9},
    {"top_k": 12, "top_p": 0.9, "min_p": 0.02, "typical_p": 0.9, "xtc_probability": 0.4, "xtc_threshold": 0.08},
    {"top_p": 0.9, "min_p": 0.02, "typical_p": 0.9, "xtc_probability": 0.4, "xtc_threshold": 0.08},
]


@pytest.mark.parametrize("chain", CHAINS, ids=str)
@pytest.mark.parametrize("ties", [False, True], ids=["smooth", "ties"])
def test_draws_have_the_distribution_of_the_chain(chain, ties):
    row = np.random.default_rng(3).normal(size=30) * 2
    if ties:
        row = np.round(row)
        row[::7] = -INF
    params = SamplingParams(**{"temperature": 0.9} | chain)
    logits = mx.broadcast_to(array(row), (20_000, 30))
    tokens = DefaultSampler(params, seed=11).sample(logits, params.temperature)
    assert tokens.dtype == mx.int32
    statistic, limit = chi_square(np.array(tokens), oracle(host(array(row)), params))
    assert statistic < limit


def test_draws_of_a_request_are_independent_of_each_other():
    row = array([0.0, 0.5, 1.0])
    sampler = RequestSampler(SamplingParams(temperature=1.0, seed=5))
    tokens = np.array([sampler(row)[0].item() for _ in range(4000)])
    p = probabilities(host(row))
    pairs = tokens[:-1:2] * 3 + tokens[1::2]
    statistic, limit = chi_square(pairs, np.outer(p, p).ravel())
    assert statistic < limit


def test_coins_and_draws_of_a_request_are_independent():
    params = SamplingParams(temperature=1.0, xtc_probability=0.5, xtc_threshold=0.1, seed=6)
    row, sampler = array([1.0, 0.9, 0.5, -0.5]), RequestSampler(params)
    tokens = np.array([sampler(row)[0].item() for _ in range(6000)])
    statistic, limit = chi_square(tokens, oracle(host(row), params))
    assert statistic < limit


@pytest.mark.parametrize("k", [1, 7, 49])
def test_top_k_draws_keep_to_the_first_ids_of_a_tie(k):
    row = np.random.default_rng(8).integers(0, 3, size=60)
    rows = mx.broadcast_to(array(row), (6000, 60))
    tokens = DefaultSampler(SamplingParams(top_k=k), seed=2).sample(rows, 50.0)
    assert set(tokens.tolist()) == set(ranked(row)[:k]) == kept(apply_top_k(rows[:1], k))[0]


def test_top_k_one_is_greedy():
    rows = mx.array(np.random.default_rng(0).integers(0, 3, size=(200, 50)).astype(np.float32))  # many ties
    best = np.array(DefaultSampler().sample(rows, 0))
    assert np.array_equal(best, host(rows).argmax(axis=-1))
    params = SamplingParams(top_k=1)
    assert np.array_equal(np.array(DefaultSampler(params, seed=1).sample(rows, 2.0)), best)


# ---- seeds


def run(sampler, steps=40, vocab=50, between=lambda: None):
    """Tokens of a request over fixed logits."""
    rows = np.random.default_rng(1).normal(size=(steps, vocab)).astype(np.float32)
    tokens = []
    for row in rows:
        between()
        tokens.append(sampler(mx.array(row))[0].item())
    return tokens


FULL = {
    "temperature": 1.0,
    "top_p": 0.95,
    "min_p": 0.01,
    "typical_p": 0.98,
    "xtc_probability": 0.5,
    "repetition_penalty": 1.2,
    "presence_penalty": 0.1,
    "frequency_penalty": 0.1,
    "logit_bias": {3: 1.0},
    "min_tokens": 4,
    "logprobs": 3,
}


@pytest.mark.parametrize("more", [{}, {"top_k": 20}, {"top_k": 5, "xtc_probability": 0.0}])
def test_a_seed_reproduces_its_tokens(more):
    params = SamplingParams(**FULL | more, seed=2**63 + 5)
    first = run(RequestSampler(params))
    other = RequestSampler(dataclasses.replace(params, seed=8))
    assert run(RequestSampler(params), between=lambda: other(mx.zeros((50,)))) == first
    assert run(other) != first


def test_a_fresh_seed_is_told_and_reproduces():
    params = SamplingParams(temperature=1.0)
    one, two = RequestSampler(params), RequestSampler(params)
    assert one.seed != two.seed
    tokens = run(one)
    assert tokens != run(two)
    assert run(RequestSampler(dataclasses.replace(params, seed=one.seed))) == tokens
    assert RequestSampler(dataclasses.replace(params, seed=0)).seed == 0
    assert DefaultSampler().seed != DefaultSampler().seed


def test_failing_calls_change_nothing():
    params = SamplingParams(**FULL, seed=1)
    expected, sampler = run(RequestSampler(params)), RequestSampler(params)

    def fail():
        for bad in (mx.zeros((2, 50)), mx.zeros((1, 1, 50)), mx.zeros((50,), dtype=mx.int32), mx.array(1.0), None):
            with pytest.raises(InputError, match="logits"):
                sampler(bad)

    assert run(sampler, between=fail) == expected
    with pytest.raises(InputError, match=r"\[1, 50\] or \[50\]; found shape \(51,\)"):
        sampler(mx.zeros((51,)))


# ---- a request's state


@pytest.mark.parametrize(
    ("repetition", "presence", "frequency"), [(1.3, 0.4, 0.15), (1.3, 0, 0), (1, 0.8, 0), (1, 0, 0.3), (0.9, -0.1, 0.2)]
)
def test_penalties_count_the_right_tokens(repetition, presence, frequency):
    """Greedy steps against a NumPy loop: repetition over prompt and answer, presence and frequency over the answer."""
    rng = np.random.default_rng(4)
    rows = rng.normal(size=(60, 12)).astype(np.float32)
    prompt, bias = [1, 1, 5, 11], {2: 0.75, 5: 0.5}
    params = SamplingParams(
        repetition_penalty=repetition, presence_penalty=presence, frequency_penalty=frequency, logit_bias=bias
    )
    sampler = RequestSampler(params, prompt_tokens=prompt)
    seen, counts, differs = np.zeros(12, dtype=bool), np.zeros(12), 0
    seen[prompt] = True
    for row in rows:
        x = row.astype(np.float64)
        for token, value in bias.items():
            x[token] += value
        x = np.where(seen, np.where(x < 0, x * repetition, x / repetition), x)
        x = x - presence * (counts > 0) - frequency * counts
        token = sampler(mx.array(row))[0].item()
        assert token == x.argmax()
        differs += token != row.argmax()
        seen[token], counts[token] = True, counts[token] + 1
    assert differs > 10


@pytest.mark.parametrize(
    "prompt",
    [
        [2, 2],
        (2,),
        range(2, 3),
        np.array([2]),
        mx.array([2, 99, -1, -2]),
        mx.array([[2]], dtype=mx.uint8),
        mx.array([2], dtype=mx.uint32),
        [2, 2**31 - 1],
    ],
    ids=str,
)
def test_prompt_tokens_are_seen(prompt):
    sampler = RequestSampler(SamplingParams(repetition_penalty=2.0), prompt_tokens=prompt)
    assert sampler(array([0.0, 0.0, 1.0, 0.75]))[0].item() == 3
    wide = array(np.linspace(0, 1, 300))
    sampler = RequestSampler(SamplingParams(repetition_penalty=2.0), prompt_tokens=mx.array([44], dtype=mx.uint8))
    assert sampler(wide)[0].item() == 299, "300 doesn't fit the prompt's own dtype"


@pytest.mark.parametrize("prompt", [(), [], mx.array([])[:0].astype(mx.int32)])
def test_an_empty_prompt_will_do(prompt):
    sampler = RequestSampler(SamplingParams(repetition_penalty=2.0), prompt_tokens=prompt)
    assert [sampler(array([1.0, 0.75]))[0].item() for _ in range(2)] == [0, 1]


def test_no_end_token_before_min_tokens():
    logits = array([1.0, 5.0, 4.0, 3.0])
    params = SamplingParams(min_tokens=3, stop_token_ids=[2, 1_000_000])
    sampler = RequestSampler(params, end_token_ids=[1, 1_000_000])
    assert [sampler(logits)[0].item() for _ in range(5)] == [3, 3, 3, 1, 1]
    drawn = RequestSampler(dataclasses.replace(params, temperature=50.0, min_tokens=200, seed=0), end_token_ids=[1])
    assert {drawn(logits)[0].item() for _ in range(200)} == {0, 3}


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16, mx.float16])
@pytest.mark.parametrize("shape", [(6,), (1, 6)])
@pytest.mark.parametrize("settings_", [{}, FULL], ids=["greedy", "full"])
def test_a_token_is_one_int32(dtype, shape, settings_):
    token, _ = RequestSampler(SamplingParams(**settings_))(mx.arange(6).astype(dtype).reshape(shape))
    assert token.shape == (1,)
    assert token.dtype == mx.int32


def test_logprobs_are_of_the_raw_logits():
    row = np.array([0.5, 2.0, 2.0, -INF, 1.0], dtype=np.float32)
    expected = log_softmax(row.astype(np.float64))
    params = SamplingParams(logit_bias={0: 100.0}, repetition_penalty=1.5, logprobs=3)
    token, lazy = RequestSampler(params, prompt_tokens=[1])(mx.array(row))
    found = lazy.read()
    assert found.token == token.item() == 0
    assert type(found.token) is int
    assert found.logprob == pytest.approx(expected[0], abs=1e-6)
    assert [i for i, _ in found.top] == [1, 2, 4]
    assert [value for _, value in found.top] == pytest.approx([expected[i] for i in (1, 2, 4)], abs=1e-6)
    assert [a.shape for a in lazy.arrays] == [(1,), (3,), (3,)]

    def read(n):
        return RequestSampler(dataclasses.replace(params, logprobs=n))(mx.array(row)[None])[1]

    assert read(None) is None
    assert read(0).read() == TokenLogprob(0, found.logprob, ())
    assert [i for i, _ in read(99).read().top] == [1, 2, 4, 0, 3]


class Recording:
    """A user's sampler: takes the worst token and keeps what it was given."""

    def __init__(self):
        self.calls = []

    def sample(self, logits, temperature):
        self.calls.append((host(logits).tolist(), temperature))
        return mx.argmin(logits, axis=-1)


def test_a_sampler_of_ones_own_gets_the_adjusted_logits():
    sampler = Recording()
    params = SamplingParams(temperature=0.5, top_k=1, logit_bias={0: 2.0}, presence_penalty=3.0, min_tokens=1, seed=9)
    request = RequestSampler(params, end_token_ids=[2], sampler=sampler)
    tokens = [request(array([1.0, 2.0, 3.0]))[0] for _ in range(2)]
    assert sampler.calls == [([[3.0, 2.0, -INF]], 0.5), ([[3.0, 2.0, 0.0]], 0.5)]
    assert [t.tolist() for t in tokens] == [[2], [2]]
    assert request.seed == 9


@pytest.mark.parametrize(
    "returned",
    [1, None, mx.array([1.0]), mx.array([1, 2]), mx.array([True])],
    ids=["int", "none", "float", "two", "bool"],
)
def test_a_sampler_of_ones_own_must_return_a_token(returned):
    class Bad:
        def sample(self, logits, temperature):
            return returned

    with pytest.raises(InputError, match=r"must return tokens \[1\]"):
        RequestSampler(SamplingParams(), sampler=Bad())(mx.zeros((3,)))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"params": None}, "params"),
        ({"sampler": 1}, "sampler"),
        ({"vocab_size": 0}, "vocab_size"),
        ({"end_token_ids": [-1]}, "end_token_ids"),
        ({"end_token_ids": [None]}, "end_token_ids"),
        ({"end_token_ids": 5}, "end_token_ids"),
        ({"prompt_tokens": [0.5]}, "prompt_tokens"),
        ({"prompt_tokens": [-1]}, "prompt_tokens"),
        ({"prompt_tokens": "abc"}, "prompt_tokens"),
        ({"prompt_tokens": mx.array([0.5])}, "prompt_tokens .*float32"),
        ({"vocab_size": 7}, "no token 7 in a vocabulary of 7"),
    ],
)
def test_a_request_refuses_bad_arguments(arguments, named):
    params = SamplingParams(repetition_penalty=1.1, logit_bias={7: 1.0})
    with pytest.raises(InputError, match=named):
        RequestSampler(**{"params": params} | arguments)


def test_a_bias_beyond_the_vocabulary_is_told_when_that_is_known():
    sampler = RequestSampler(SamplingParams(logit_bias={7: 1.0}))
    with pytest.raises(InputError, match="no token 7 in a vocabulary of 5"):
        sampler(mx.zeros((5,)))


@pytest.mark.parametrize("settings_", [{}, FULL, FULL | {"top_k": 4}], ids=["greedy", "full", "top_k"])
@pytest.mark.parametrize("prompt", [[1, 2], mx.array([1, 2])], ids=["list", "array"])
def test_nothing_waits_for_the_device(tmp_path, settings_, prompt):
    """Steps are built over logits that can't be evaluated: reading them raises, so nothing may have read them."""
    path = tmp_path / "logits.npy"
    np.save(path, np.zeros((1, 4000), dtype=np.float32))
    with backend.worker_streams():
        logits = mx.load(str(path))
        os.truncate(path, 500)
        sampler = RequestSampler(SamplingParams(**settings_), prompt_tokens=prompt, end_token_ids=[0])
        results = [sampler(logits) for _ in range(6)]
    with pytest.raises(RuntimeError, match="read"):
        backend.materialize([token for token, _ in results])


def test_counts_are_kept_only_for_penalties():
    vocab = 2_000_000
    logits = mx.zeros((1, vocab))
    mx.eval(logits)

    def growth(**settings_):
        before, sampler = mx.get_active_memory(), RequestSampler(SamplingParams(**settings_))
        for _ in range(3):
            mx.eval(sampler(logits)[0])
        return mx.get_active_memory() - before

    assert growth() < vocab
    assert growth(temperature=1.0, top_k=5, seed=1) < vocab
    assert growth(presence_penalty=0.1) > vocab


# ---- parameters


def test_defaults():
    params = SamplingParams()
    assert (params.temperature, params.max_tokens, params.top_p, params.top_k, params.seed) == (0.0, 256, 1.0, 0, None)
    assert dataclasses.asdict(params)["stop"] == ()


def test_parameters_are_normalised():
    params = SamplingParams(
        temperature=np.float32(0.5),
        top_p=Fraction(1, 2),
        min_p=np.float16(0.25),
        top_k=np.int64(4),
        repetition_penalty=2,
        seed=np.uint64(2**64 - 1),
        stop="end",
        stop_token_ids=np.array([3, 4]),
        logit_bias={np.int32(3): np.float64(0.5), 4: 1},
        logprobs=np.int8(0),
    )
    assert params == SamplingParams(
        temperature=0.5,
        top_p=0.5,
        min_p=0.25,
        top_k=4,
        repetition_penalty=2.0,
        seed=2**64 - 1,
        stop=["end"],
        stop_token_ids=(3, 4),
        logit_bias={3: 0.5, 4: 1.0},
        logprobs=0,
    )
    assert type(params.temperature) is type(params.top_p) is type(params.repetition_penalty) is float
    assert type(params.top_k) is type(params.seed) is type(params.stop_token_ids[0]) is int
    assert params.stop == ("end",)
    assert SamplingParams(stop=["a", "b"]).stop == ("a", "b")


def test_parameters_are_frozen_and_hashable():
    bias = {1: 2.0}
    params = SamplingParams(logit_bias=bias, stop="x")
    bias[1] = 3.0
    assert params.logit_bias == {1: 2.0}
    with pytest.raises(dataclasses.FrozenInstanceError):
        params.temperature = 1.0
    with pytest.raises(TypeError):
        params.logit_bias[1] = 3.0
    assert repr(params.logit_bias) == "{1: 2.0}"
    twin = SamplingParams(logit_bias={1: 2.0}, stop=("x",))
    assert {params, twin} == {twin}
    assert params != SamplingParams(logit_bias={1: 2.5}, stop="x")
    hotter = dataclasses.replace(params, temperature=0.5)
    assert (hotter.temperature, hotter.logit_bias) == (0.5, {1: 2.0})
    with pytest.raises(InputError, match="temperature"):
        dataclasses.replace(params, temperature=-1)
    for other in (pickle.loads(pickle.dumps(params)), copy.deepcopy(params)):
        assert other == params
        assert hash(other) == hash(params)
    assert dataclasses.asdict(params)["logit_bias"] == {1: 2.0}


NOT_NUMBERS = (None, "1", True, [1], math.nan, INF, -INF, 1j, 10**400, np.bool_(True))
NOT_INTEGERS = (True, "1", 1.0, math.nan, -1, np.float32(1), np.bool_(False), [1])
REFUSED = {
    "temperature": (*NOT_NUMBERS, -0.1, 1e39),
    "top_p": (*NOT_NUMBERS, 0, -0.5, 1.0000001),
    "top_k": (*NOT_INTEGERS, None),
    "min_p": (*NOT_NUMBERS, -0.1, 1.1),
    "typical_p": (*NOT_NUMBERS, 0, 1.1),
    "xtc_probability": (*NOT_NUMBERS, -0.1, 1.1),
    "xtc_threshold": (*NOT_NUMBERS, -0.1, 1.1),
    "repetition_penalty": (*NOT_NUMBERS, 0, -1, 1e7),
    "presence_penalty": (*NOT_NUMBERS, 1e31, -1e31),
    "frequency_penalty": (*NOT_NUMBERS, 1e31, -1e31),
    "logit_bias": (
        *(1, "ab", [(1, 2.0)], {"1": 1.0}, {1.0: 1.0}, {True: 1.0}, {-1: 1.0}, {2**31: 1.0}),
        *({1: value} for value in NOT_NUMBERS),
    ),
    "seed": (*NOT_INTEGERS, 2**64),
    "stop": (None, 1, b"a", "", ["a", ""], [1], ("a", None), {"a": 1}),
    "stop_token_ids": (None, 1, "1", b"1", [1.0], [True], [-1], [2**31], {1: 2}, mx.array([1])),
    "max_tokens": (*NOT_INTEGERS, None),
    "min_tokens": (*NOT_INTEGERS, None, 257),
    "logprobs": NOT_INTEGERS,
    "thinking_budget": NOT_INTEGERS,
}


@pytest.mark.parametrize(("field", "value"), [(f, v) for f, values in REFUSED.items() for v in values], ids=str)
def test_parameters_refuse(field, value):
    with pytest.raises(InputError, match=rf"^{field}( value| token)? must be .*; found .* of type ") as caught:
        SamplingParams(**{field: value})
    assert isinstance(caught.value, ValueError)


def test_every_field_is_checked():
    assert REFUSED.keys() == {field.name for field in dataclasses.fields(SamplingParams)}


def test_a_refusal_says_what_was_found_and_what_to_do():
    with pytest.raises(InputError) as caught:
        SamplingParams(top_p=1.5)
    assert "in (0, 1]; 1 turns it off" in str(caught.value)
    assert "found 1.5" in str(caught.value)
    with pytest.raises(InputError, match="at most max_tokens, 5: lower it or raise max_tokens; found 6"):
        SamplingParams(min_tokens=6, max_tokens=5)


@settings(max_examples=25)
@given(ROWS, st.sampled_from([0.0, 1e-300, 0.7, 1e30]), st.integers(0, 2**64 - 1))
def test_extreme_settings_never_draw_a_removed_token(rows, temperature, seed):
    vocab = len(rows[0])
    params = SamplingParams(
        temperature=temperature,
        repetition_penalty=1e6,
        presence_penalty=-1e30,
        frequency_penalty=1e30,
        logit_bias={0: 1e30},
        top_p=1e-300,
        seed=seed,
    )
    sampler = RequestSampler(params, vocab_size=vocab, prompt_tokens=[0])
    removed = {i for i in range(vocab) if rows[0][i] == -INF}
    for _ in range(3):
        assert sampler(array(rows[0]))[0].item() not in removed
