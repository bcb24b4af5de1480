"""Every kind of cache against a list of tokens.

Each token's key carries a number of its own, so what a query sees can be read off the keys that an update returns and
the mask that was made for it.
"""

import tempfile
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_core import backend
from mlx_core.cache import (
    ConcatKeyValueCache,
    HadamardPacked,
    KeyValueCache,
    KVCache,
    Packed,
    QuantizedKVCache,
    QuantizedRotatingKVCache,
    RotatingKVCache,
    load_prompt_cache,
    quantize_cache,
    save_prompt_cache,
)
from mlx_core.errors import CacheError, InputError
from mlx_core.ops import create_attention_mask, hadamard_transform, scaled_dot_product_attention

MAX_SIZE, KEEP = 7, 2
KINDS = {
    "concat": ConcatKeyValueCache,
    "step": lambda: KVCache(step=4),
    "rotating": lambda: RotatingKVCache(MAX_SIZE),
    "rotating-keep": lambda: RotatingKVCache(MAX_SIZE, keep=KEEP),
    "quantized": lambda: QuantizedKVCache(4, 32, step=4),
    "quantized-rotating": lambda: QuantizedRotatingKVCache(MAX_SIZE, KEEP, bits=8, group_size=32),
}


def numbered(numbers):
    """Keys whose entries are the numbers, values their negatives: [1, 2, n, 32] and [1, 2, n, 64].

    A group of equal numbers is packed without loss.
    """
    column = mx.array(numbers, mx.float32).reshape(1, 1, -1, 1)
    return mx.broadcast_to(column, (1, 2, len(numbers), 32)), mx.broadcast_to(-column, (1, 2, len(numbers), 64))


def plain(held, width):
    """The keys or values that `update_and_fetch` returns, dequantised."""
    if isinstance(held, mx.array):
        return held
    bits = held.weight.shape[-1] * 32 // width
    return mx.dequantize(*held, group_size=width // held.scales.shape[-1], bits=bits)


def fetched(cache, keys, values):
    """The keys and values that an update returns."""
    keys, values = cache.update_and_fetch(keys, values)
    return plain(keys, 32), plain(values, 64)


def contents(cache):
    """Everything that a cache is, bit by bit."""
    arrays = [(str(array.dtype), array.tolist()) for array in cache.state]
    return arrays, cache.meta_state, np.array(cache.offset).tolist(), cache.is_trimmable


def held_numbers(cache, row=0):
    """The numbers that a cache holds, in order."""
    if not cache.state:
        return []
    keys = cache.state[0] if len(cache.state) == 2 else plain(Packed(*cache.state[:3]), 32)
    return np.array(keys)[row, 0, :, 0].round().astype(int).tolist()


def seen_by(mask, keys, n):
    """The numbers that each of the n queries sees."""
    held = np.array(keys)[0, 0, :, 0].astype(int).tolist()
    if mask is None:
        assert n == 1
        return [set(held)]
    if isinstance(mask, str):
        first = len(held) - n
        return [set(held[: first + i + 1]) for i in range(n)]
    return [{number for number, visible in zip(held, row, strict=True) if visible} for row in mask.tolist()]


def expected(tokens, n, window, max_size, keep):
    """The tokens that each of the last n tokens sees by the definition: positions are indices into `tokens`."""
    result = []
    for position in range(len(tokens) - n, len(tokens)):
        reach = [
            j
            for j in range(position + 1)
            if (max_size is None or j < keep or j > position - (max_size - keep))
            and (window is None or j > position - window)
        ]
        result.append({tokens[j] for j in reach})
    return result


operations = st.lists(
    st.one_of(
        st.tuples(st.just("update"), st.sampled_from([1, 1, 1, 2, 3, 5, 9]), st.sampled_from([None, 1, 3, 6, 20])),
        st.tuples(st.just("trim"), st.integers(0, 6), st.none()),
        st.tuples(st.just("copy"), st.booleans(), st.none()),
        st.tuples(st.just("save"), st.just(0), st.none()),
        st.tuples(st.just("reset"), st.just(0), st.none()),
        st.tuples(st.just("fail"), st.integers(0, 3), st.none()),
    ),
    max_size=25,
)


@pytest.mark.parametrize("kind", KINDS)
@given(operations=operations)
@settings(max_examples=60)
def test_every_kind_keeps_exactly_what_it_says(kind, operations):
    cache = KINDS[kind]()
    max_size, keep = cache.max_size, getattr(cache, "keep", 0)
    tokens, counter, dropped = [], 0, False
    shelved = None  # (cache, tokens) of a copy that must not change
    for operation, amount, window in operations:
        if operation == "update":
            new = list(range(counter + 1, counter + 1 + amount))
            counter += amount
            mask = cache.make_mask(amount, window)
            as_array = cache.make_mask(amount, window, return_array=True)
            keys, values = fetched(cache, *numbered(new))
            tokens = tokens + new
            wanted = expected(tokens, amount, window, max_size, keep)
            assert seen_by(mask, keys, amount) == wanted
            assert seen_by(as_array, keys, amount) == wanted
            assert mx.array_equal(values[..., 0], -keys[..., 0])
            dropped = dropped or keys.shape[2] < len(tokens)
        elif operation == "trim":
            assert cache.is_trimmable == (not dropped)
            exact = not dropped or amount <= cache.spare
            removed = cache.trim(amount)
            assert removed == (min(amount, len(tokens)) if exact else 0)
            tokens = tokens[: len(tokens) - removed]
        elif operation == "copy":
            other = cache.copy()
            shelved = (cache, list(tokens)) if amount else (other, list(tokens))
            cache = other if amount else cache
        elif operation == "save":
            with tempfile.TemporaryDirectory() as folder:
                save_prompt_cache(Path(folder) / "cache.safetensors", [cache], {"note.1": "one"})
                (loaded,), note = load_prompt_cache(Path(folder) / "cache.safetensors")
            assert note == {"note.1": "one"}
            assert type(loaded) is type(cache) or (cache.is_empty and kind == "concat")
            cache = type(cache).from_state(loaded.state, loaded.meta_state)
        elif operation == "reset":
            cache.reset()
            tokens, dropped = [], False
        else:
            before = contents(cache)
            keys, values = numbered([-1, -2])
            bad = [
                (keys[0], values[0]),
                (keys, values[:, :, :1]),
                (keys[:, :, :0], values[:, :, :0]),
                (keys, mx.concatenate([values, values], axis=1)),
            ][amount]
            with pytest.raises(CacheError):
                cache.update_and_fetch(*bad)
            with pytest.raises(CacheError):
                cache.trim(-1)
            assert contents(cache) == before
        assert cache.offset == len(tokens)
        assert cache.is_empty == (not tokens)
    if shelved is not None:
        assert shelved[0].offset == len(shelved[1])
        held = held_numbers(shelved[0])
        assert held == shelved[1] or (max_size is not None and len(held) >= max_size and set(held) < set(shelved[1]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_shape_changes_nothing(kind):
    cache = KINDS[kind]()
    cache.update_and_fetch(*numbered([1, 2]))
    state = [array.tolist() for array in cache.state]
    keys, values = numbered([3])
    for bad in ((keys[:, :1], values[:, :1]), (keys[..., :16], values), (keys, values[..., :32])):
        with pytest.raises(CacheError, match=r"don't fit|packed"):
            cache.update_and_fetch(*bad)
    assert [array.tolist() for array in cache.state] == state
    cache.update_and_fetch(keys, values)
    assert cache.offset == 3


@pytest.mark.parametrize("kind", KINDS)
def test_protocol_and_sizes(kind):
    cache = KINDS[kind]()
    assert isinstance(cache, KeyValueCache)
    assert cache.nbytes == 0
    assert cache.state == ()
    cache.update_and_fetch(*numbered([1, 2, 3]))
    cache.materialize()
    bits = 32 if len(cache.state) == 2 else cache.bits
    assert cache.nbytes >= 3 * 2 * (32 + 64) * bits // 8


def test_single_tokens_write_in_place():
    cache = KVCache(step=8)
    cache.update_and_fetch(*numbered([1]))
    size = cache.nbytes
    for number in range(2, 9):
        cache.update_and_fetch(*numbered([number]))
        assert cache.nbytes == size
    cache.update_and_fetch(*numbered([9]))
    assert cache.nbytes == 2 * size


def test_a_rotating_cache_never_outgrows_its_size():
    cache = RotatingKVCache(MAX_SIZE, keep=KEEP)
    for number in range(1, 40):
        keys, _ = cache.update_and_fetch(*numbered([number]))
        assert keys.shape[2] <= MAX_SIZE
    assert cache.nbytes == MAX_SIZE * 2 * (32 + 64) * 4


def test_what_a_chunk_laid_down_beyond_the_size_can_be_taken_back():
    cache = RotatingKVCache(MAX_SIZE, keep=KEEP)
    for number in range(1, 12):
        cache.update_and_fetch(*numbered([number]))
    assert (cache.is_trimmable, cache.spare, cache.trim(1)) == (False, 0, 0)
    cache.update_and_fetch(*numbered([12, 13, 14, 15]))
    assert (cache.is_trimmable, cache.spare, cache.trim(4)) == (False, 3, 0)
    assert cache.trim(3) == 3
    assert (cache.offset, cache.spare) == (12, 0)
    mask = cache.make_mask(1)
    keys, _ = cache.update_and_fetch(*numbered([16]))
    assert seen_by(mask, keys, 1) == [{1, 2, 9, 10, 11, 12, 16}]


def test_a_wider_dtype_is_kept():
    for make in KINDS.values():
        cache = make()
        keys, values = numbered([1])
        cache.update_and_fetch(keys.astype(mx.bfloat16), values.astype(mx.bfloat16))
        keys, values = fetched(cache, *numbered([1.001]))
        assert keys.dtype == values.dtype == mx.float32
        assert abs(keys[0, 0, -1, 0].item() - 1.001) < 1e-6


@pytest.mark.parametrize(
    "make",
    [
        lambda: KVCache(step=0),
        lambda: RotatingKVCache(0),
        lambda: RotatingKVCache(4, keep=4),
        lambda: RotatingKVCache(4, keep=-1),
        lambda: RotatingKVCache(True),
        lambda: KVCache.from_state(numbered([1])[:1], ()),
        lambda: KVCache.from_state(numbered([1]), ("1",)),
        lambda: ConcatKeyValueCache.from_state((mx.zeros((1, 2)), mx.zeros((1, 2))), ()),
        lambda: RotatingKVCache.from_state(numbered([1]), ("0", "4")),
        lambda: RotatingKVCache.from_state(numbered([1]), ("0", "4", "x")),
        lambda: RotatingKVCache.from_state(numbered([1]), ("0", "4", "3")),
        lambda: RotatingKVCache.from_state((), ("0", "4", "3")),
    ],
)
def test_bad_arguments_and_states_are_refused(make):
    with pytest.raises(CacheError):
        make()


def test_masks_without_a_cache():
    h = mx.zeros((1, 5, 8))
    assert create_attention_mask(h) == "causal"
    assert create_attention_mask(h[:, :1]) is None
    assert create_attention_mask(h, window_size=5) == "causal"
    mask = create_attention_mask(h, window_size=2)
    assert mask.sum(axis=-1).tolist() == [1, 2, 2, 2, 2]
    assert create_attention_mask(h, return_array=True).tolist() == np.tri(5, dtype=bool).tolist()
    with pytest.raises(InputError, match="window"):
        create_attention_mask(h, window_size=0)


def test_attention_is_the_definition():
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=shape).astype(np.float32) for shape in ((2, 4, 3, 8), (2, 2, 6, 8), (2, 2, 6, 8)))
    sinks = rng.normal(size=4).astype(np.float32)
    mask = rng.random((3, 6)) < 0.6
    mask[:, 0] = True
    scores = np.einsum("bhld,bhsd->bhls", q, np.repeat(k, 2, axis=1)).astype(np.float64) * 0.3
    scores = np.where(mask, scores, -np.inf)
    with_sinks = np.concatenate([scores, np.broadcast_to(sinks[None, :, None, None], (2, 4, 3, 1))], axis=-1)
    for logits, given_sinks in ((scores, None), (with_sinks, mx.array(sinks))):
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        weights = (weights / weights.sum(-1, keepdims=True))[..., :6]
        wanted = np.einsum("bhls,bhsd->bhld", weights, np.repeat(v, 2, axis=1))
        out = scaled_dot_product_attention(
            mx.array(q), mx.array(k), mx.array(v), scale=0.3, mask=mx.array(mask), sinks=given_sinks
        )
        np.testing.assert_allclose(np.array(out), wanted, atol=1e-5)


PACKED_PRODUCTS = pytest.param(
    True, marks=pytest.mark.skipif(mx.cuda.is_available(), reason="MLX's CUDA products don't take these shapes")
)


@pytest.mark.parametrize("packed_products", [False, PACKED_PRODUCTS])
@pytest.mark.parametrize(("bits", "group_size"), [(8, 64), (4, 32), (3, 32), (6, 64)])
@pytest.mark.parametrize("hadamard", [False, True])
@pytest.mark.parametrize("n", [1, 5])
def test_attention_over_a_quantised_cache_is_dequantise_then_attend(n, hadamard, bits, group_size, packed_products):
    key = iter(mx.random.split(mx.random.key(bits), 8))
    cache = QuantizedKVCache(bits, group_size, hadamard=hadamard)
    cache.update_and_fetch(
        mx.random.normal((2, 2, 40, 64), key=next(key)), mx.random.normal((2, 2, 40, 128), key=next(key))
    )
    queries = mx.random.normal((2, 6, n, 64), key=next(key))
    sinks = mx.random.normal((6,), key=next(key))
    rows = mx.random.uniform(shape=(2, 1, n, 40 + n), key=next(key)) < 0.7
    keys, values = cache.update_and_fetch(
        mx.random.normal((2, 2, n, 64), key=next(key)), mx.random.normal((2, 2, n, 128), key=next(key))
    )
    assert isinstance(keys, Packed)
    full_keys, full_values = (mx.dequantize(*held, group_size=group_size, bits=bits) for held in (keys, values))
    if hadamard:
        assert isinstance(keys, HadamardPacked)
        assert isinstance(values, HadamardPacked)
        full_keys, full_values = hadamard_transform(full_keys), hadamard_transform(full_values)
    for mask in (None, "causal", rows) if n > 1 else (None, rows):
        for given_sinks in (None, sinks):
            options = {"scale": 64**-0.5, "mask": mask, "sinks": given_sinks}
            wanted = scaled_dot_product_attention(queries, full_keys, full_values, **options)
            with backend.override(attend_packed=packed_products):
                found = scaled_dot_product_attention(queries, keys, values, cache=cache, **options)
            assert mx.abs(found - wanted).max().item() < 1e-5
    with pytest.raises(InputError, match="both"):
        scaled_dot_product_attention(queries, keys, full_values, scale=1)


def test_keys_and_values_are_floating_point():
    for make in KINDS.values():
        cache = make()
        keys, values = numbered([1])
        with pytest.raises(CacheError, match="floating-point"):
            cache.update_and_fetch(keys.astype(mx.int32), values)
        assert cache.is_empty


def test_a_running_cache_can_be_quantised():
    key = iter(mx.random.split(mx.random.key(0), 32))
    caches = [KVCache(), RotatingKVCache(16, keep=2), ConcatKeyValueCache(), KVCache()]
    for n in (10, 1, 9):
        for cache in caches[:3]:
            cache.update_and_fetch(*(mx.random.normal((1, 2, n, 64), key=next(key)) for _ in range(2)))
    before = [contents(cache) for cache in caches]
    packed = quantize_cache(caches, bits=8, group_size=64)
    assert [type(cache) for cache in packed] == [
        QuantizedKVCache,
        QuantizedRotatingKVCache,
        QuantizedKVCache,
        QuantizedKVCache,
    ]
    assert [contents(cache) for cache in caches] == before
    for cache, small in zip(caches[:3], packed, strict=False):
        assert small.offset == cache.offset
        assert small.max_size == cache.max_size
        assert small.nbytes < cache.nbytes / 3
        dequantised = hadamard_transform(mx.dequantize(*small.state[:3], group_size=64, bits=8))
        assert 0 < mx.abs(dequantised - cache.state[0]).max().item() < 0.04
    again = quantize_cache(packed, bits=8, group_size=64)
    assert [contents(cache) for cache in again] == [contents(cache) for cache in packed]
    with pytest.raises(CacheError, match="lose twice"):
        quantize_cache(packed, bits=4, group_size=64)
    with pytest.raises(CacheError, match="lose twice"):
        quantize_cache(packed, bits=8, group_size=64, hadamard=False)
    with pytest.raises(CacheError, match="multiple of group_size"):
        quantize_cache(caches, bits=8, group_size=128)
    for bits, group_size in ((7, 64), (8, 48), ("8", 64)):
        with pytest.raises(CacheError):
            quantize_cache(caches, bits=bits, group_size=group_size)


def test_turning_keeps_products_and_spares_large_numbers():
    key = mx.random.key(3)
    keys = mx.random.normal((1, 1, 50, 128), key=key).at[..., 7].add(300)
    assert mx.allclose(hadamard_transform(hadamard_transform(keys)), keys, atol=1e-3)
    errors = []
    for hadamard in (False, True):
        cache = QuantizedKVCache(8, 64, hadamard=hadamard)
        held, _ = cache.update_and_fetch(keys, keys)
        array = mx.dequantize(*held, group_size=64, bits=8)
        errors.append(mx.abs((hadamard_transform(array) if hadamard else array) - keys).mean().item())
    assert errors[1] < errors[0] / 2
    odd = QuantizedKVCache(8, 32, hadamard=True)  # 96 isn't a power of 2: packed as it is
    held, _ = odd.update_and_fetch(keys[..., :96], keys)
    assert [type(part) for part in (held, _)] == [Packed, HadamardPacked]
