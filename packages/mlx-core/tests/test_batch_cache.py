"""Batches of sequences against one list of tokens per row, through every kind of batch cache."""

import tempfile
from pathlib import Path
from unittest import mock

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_core.cache import (
    BatchKVCache,
    KVCache,
    Packed,
    QuantizedBatchKVCache,
    QuantizedKVCache,
    QuantizedRotatingKVCache,
    RotatingKVCache,
    load_prompt_cache,
    quantize_cache,
    save_prompt_cache,
)
from mlx_core.errors import CacheError

BLANK = -999
WIDTH = 32
LIMITS = {"all": (None, 0), "bounded": (7, 0), "bounded-keep": (7, 2)}


def columns(rows):
    """Keys whose entries are the numbers of each row, and their negatives: [B, 1, n, 32] each."""
    numbers = mx.broadcast_to(mx.array(rows, mx.float32)[:, None, :, None], (len(rows), 1, len(rows[0]), WIDTH))
    return numbers, -numbers


def plain(held):
    if isinstance(held, mx.array):
        return held
    group_size = WIDTH // held.scales.shape[-1]
    return mx.dequantize(*held, group_size=group_size, bits=held.weight.shape[-1] * 32 // WIDTH)


def visible(tokens, n, window, max_size, keep):
    """The tokens that each of the last n tokens of a row sees, by the definition."""
    return [
        {
            tokens[j]
            for j in range(position + 1)
            if (max_size is None or j < keep or j > position - (max_size - keep))
            and (window is None or j > position - window)
        }
        for position in range(len(tokens) - n, len(tokens))
    ]


class Oracle:
    """Rows as lists of tokens, beside the cache that should behave like them."""

    def __init__(self, quantized, limits):
        self.quantized, (self.max_size, self.keep) = quantized, limits
        self.kind = QuantizedBatchKVCache if quantized else BatchKVCache
        self.options = {"bits": 8, "group_size": 32} if quantized else {}
        self.counter = 0

    def number(self):
        self.counter += 1
        return self.counter

    def start(self, padding):
        self.cache = self.kind(padding, self.max_size, self.keep, **self.options)
        self.rows, self.coming = [[] for _ in padding], list(padding)

    def single(self, length):
        """A cache of one sequence with that many tokens, and the tokens."""
        if self.max_size is None:
            cache = QuantizedKVCache(8, 32) if self.quantized else KVCache(step=4)
        elif self.quantized:
            cache = QuantizedRotatingKVCache(self.max_size, self.keep, 8, 32)
        else:
            cache = RotatingKVCache(self.max_size, self.keep)
        tokens = [self.number() for _ in range(length)]
        for start in range(0, length, 3):
            cache.update_and_fetch(*columns([tokens[start : start + 3]]))
        for _ in range(length % 2 and length):  # and a ring, where there is one
            tokens.append(self.number())
            cache.update_and_fetch(*columns([tokens[-1:]]))
        return cache, tokens

    def update(self, n, window):
        new, counts = [], []
        for row, coming in enumerate(self.coming):
            blanks = min(coming, n)
            self.coming[row] -= blanks
            numbers = [self.number() for _ in range(n - blanks)]
            self.rows[row] += numbers
            counts.append(len(numbers))
            new.append([BLANK] * blanks + numbers)
        mask = self.cache.make_mask(n, window)
        as_array = self.cache.make_mask(n, window, return_array=True)
        keys, values = self.cache.update_and_fetch(*columns(new))
        keys, values = plain(keys), plain(values)
        held = np.array(keys)[:, 0, :, 0].round().astype(int)
        assert np.array_equal(np.array(values)[:, 0, :, 0].round().astype(int), -held)
        assert as_array.shape == (len(self.rows), 1, n, held.shape[1])
        assert np.array(as_array).any(axis=-1).all()  # a softmax over nothing is NaN
        if mask is None or isinstance(mask, str):
            assert n == 1 or mask == "causal"
            mask = mx.broadcast_to(mx.tril(mx.ones((n, held.shape[1])), held.shape[1] - n) > 0, as_array.shape)
        for array in (mask, as_array):
            for row, tokens in enumerate(self.rows):
                seen = [set(held[row][np.array(array)[row, 0, i]].tolist()) for i in range(n - counts[row], n)]
                assert seen == visible(tokens, counts[row], window, self.max_size, self.keep)

    def check(self):
        offsets = [len(tokens) - coming for tokens, coming in zip(self.rows, self.coming, strict=True)]
        assert self.cache.offset.tolist() == offsets
        assert self.cache.batch_size == len(self.rows)
        for row, tokens in enumerate(self.rows):
            single = self.cache.extract(row)
            assert single.offset == len(tokens)
            held = [] if single.is_empty else plain(tuple_or_array(single.state))[0, 0, :, 0].tolist()
            held = [round(number) for number in held]
            assert held == tokens or (
                self.max_size is not None
                and len(held) >= self.max_size - 1
                and held == tokens[: self.keep] + tokens[len(tokens) - len(held) + self.keep :]
            )


def tuple_or_array(state):
    return state[0] if len(state) == 2 else Packed(*state[:3])


def contents(cache):
    return [array.tolist() for array in cache.state], cache.meta_state


def failing(cache):
    """Calls that must raise and change nothing."""
    rows = [[1, 2]] * cache.batch_size
    keys, values = columns(rows)
    return [
        lambda: cache.update_and_fetch(keys, values[:, :, :1]),
        lambda: cache.update_and_fetch(*columns([*rows, [1, 2]])),
        lambda: cache.filter([cache.batch_size]),
        lambda: cache.filter([]),
        lambda: cache.extend(BatchKVCache([0], 99)),
        lambda: cache.trim(-1),
    ]


operations = st.lists(
    st.one_of(
        st.tuples(st.just("update"), st.sampled_from([1, 1, 1, 2, 5, 9]), st.sampled_from([None, 1, 4, 20])),
        st.tuples(st.just("trim"), st.integers(0, 4), st.none()),
        st.tuples(st.just("filter"), st.lists(st.integers(0, 5), min_size=1, max_size=3, unique=True), st.none()),
        st.tuples(st.just("extend"), st.lists(st.integers(0, 11), min_size=1, max_size=2), st.none()),
        st.tuples(st.just("copy"), st.booleans(), st.none()),
        st.tuples(st.just("save"), st.none(), st.none()),
        st.tuples(st.just("reset"), st.none(), st.none()),
        st.tuples(st.just("fail"), st.integers(0, 5), st.none()),
    ),
    max_size=14,
)


@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("quantized", [False, True], ids=["plain", "quantized"])
@given(padding=st.lists(st.integers(0, 4), min_size=1, max_size=3), operations=operations)
@settings(max_examples=50)
def test_a_batch_is_its_rows(quantized, limits, padding, operations):
    oracle = Oracle(quantized, LIMITS[limits])
    oracle.start(padding)
    shelved = None
    with mock.patch.object(BatchKVCache, "_STEP", 4):
        for operation, amount, window in operations:
            cache = oracle.cache
            if operation == "update":
                oracle.update(amount, window)
            elif operation == "trim":
                lengths = cache.lengths
                removed = cache.trim(amount)
                assert removed == (min(amount, *lengths) if cache.is_trimmable else 0)
                oracle.rows = [tokens[: len(tokens) - removed] for tokens in oracle.rows]
            elif operation == "filter":
                kept = [row for row in amount if row < len(oracle.rows)]
                if kept:
                    cache.filter(kept)
                    oracle.rows = [oracle.rows[row] for row in kept]
                    oracle.coming = [oracle.coming[row] for row in kept]
            elif operation == "extend" and not any(oracle.coming):
                singles = [oracle.single(length) for length in amount]
                before = [contents(single) for single, _ in singles]
                cache.extend(type(cache).merge([single for single, _ in singles]))
                assert [contents(single) for single, _ in singles] == before
                oracle.rows += [tokens for _, tokens in singles]
                oracle.coming += [0] * len(singles)
            elif operation == "copy":
                other = cache.copy()
                shelved = (cache, contents(cache)) if amount else (other, contents(other))
                oracle.cache = other if amount else cache
            elif operation == "save":
                with tempfile.TemporaryDirectory() as folder:
                    save_prompt_cache(Path(folder) / "cache.safetensors", [cache])
                    (oracle.cache,), _ = load_prompt_cache(Path(folder) / "cache.safetensors")
                assert contents(oracle.cache) == contents(cache)
                assert type(oracle.cache) is type(cache)
            elif operation == "reset":
                cache.reset()
                oracle.rows, oracle.coming = [[] for _ in oracle.rows], [0 for _ in oracle.rows]
            elif operation == "fail":
                before = contents(cache)
                with pytest.raises(CacheError):
                    failing(cache)[amount]()
                assert contents(cache) == before
            oracle.check()
    if shelved is not None:
        assert contents(shelved[0]) == shelved[1]


def test_merge_refuses_what_does_not_belong_together():
    one, wide, rotating = KVCache(), KVCache(), RotatingKVCache(7)
    one.update_and_fetch(*columns([[1, 2]]))
    wide.update_and_fetch(mx.zeros((1, 1, 1, 64)), mx.zeros((1, 1, 1, 64)))
    for caches in ([one, wide], [one, rotating], [rotating, RotatingKVCache(8)], [], [QuantizedKVCache()], [one, None]):
        with pytest.raises(CacheError):
            BatchKVCache.merge(caches)
    with pytest.raises(CacheError):
        QuantizedBatchKVCache.merge([QuantizedKVCache(8, 32), QuantizedKVCache(4, 32)])
    assert BatchKVCache.merge([one, KVCache()]).left_padding == (0, 2)


@pytest.mark.parametrize(
    "make",
    [
        lambda: BatchKVCache([]),
        lambda: BatchKVCache([-1]),
        lambda: BatchKVCache([0], 4, 4),
        lambda: BatchKVCache([0], None, 2),
        lambda: BatchKVCache([0]).pad([1, 2]),
        lambda: BatchKVCache([0]).pad([-1]),
        lambda: BatchKVCache([0]).extract(1),
        lambda: BatchKVCache.from_state(columns([[1]]), ("0,0", "1,1", "0", "0")),
        lambda: BatchKVCache.from_state(columns([[1]]), ("0", "2", "0", "0")),
        lambda: BatchKVCache.from_state(columns([[1]]), ("0", "0", "0", "0")),
        lambda: BatchKVCache.from_state(columns([[1]]), ("0", "5", "4", "0")),
        lambda: BatchKVCache.from_state(columns([[1]]), ("0", "1,1", "0", "0")),
        lambda: BatchKVCache.from_state(columns([[1]]), ("0", "1", "0")),
        lambda: BatchKVCache.from_state((), ("x", "1", "0", "0")),
    ],
)
def test_bad_arguments_and_states_are_refused(make):
    with pytest.raises(CacheError):
        make()


def test_a_running_batch_can_be_quantized():
    cache = BatchKVCache([1, 0])
    cache.update_and_fetch(*columns([[BLANK, 1], [2, 3]]))
    (packed,) = quantize_cache([cache], bits=4, group_size=32, hadamard=False)
    assert isinstance(packed, QuantizedBatchKVCache)
    assert packed.left_padding == (1, 0)
    keys, _ = packed.update_and_fetch(*columns([[4], [5]]))
    assert plain(keys)[:, 0, :, 0].tolist() == [[BLANK, 1, 4], [2, 3, 5]]


def test_blanks_stand_before_the_first_token_only():
    cache = BatchKVCache.merge([KVCache(), KVCache()])
    cache.pad([2, 0])
    assert cache.offset.tolist() == [-2, 0]
    cache.update_and_fetch(*columns([[BLANK, BLANK, 1], [2, 3, 4]]))
    assert cache.offset.tolist() == [1, 3]
    with pytest.raises(CacheError, match="first token"):
        cache.pad([1, 1])


@pytest.mark.parametrize("keep", [0, 2])
def test_a_bounded_batch_stays_bounded_and_sees_what_a_row_alone_sees(keep):
    """Single tokens, far past the size, through every step at which columns are dropped."""
    window, size = 20, 7
    batch, alone = BatchKVCache([0, 0], size, keep), RotatingKVCache(size, keep)
    most = 0
    for number in range(1, 600):
        tokens = [[number], [number]]
        masks = [cache.make_mask(1, window) for cache in (batch, alone)]
        keys, _ = batch.update_and_fetch(*columns(tokens))
        single, _ = alone.update_and_fetch(*columns(tokens[:1]))
        seen = [
            set(
                np.array(held)[0, 0, :, 0]
                .astype(int)[slice(None) if mask is None else np.array(mask).reshape(-1, held.shape[2])[0]]
                .tolist()
            )
            for held, mask in ((keys, masks[0]), (single, masks[1]))
        ]
        assert seen[0] == seen[1], number
        most = max(most, keys.shape[2])
    assert most <= size + 256
    assert batch.nbytes <= 2 * 2 * 4 * WIDTH * (size + 2 * 256)


def test_a_batch_is_extended_by_batches():
    for other in (KVCache(), None):
        with pytest.raises(CacheError):
            BatchKVCache([0]).extend(other)
