"""Prompt caches on disk: what mlx-lm wrote, what it reads, and files that no cache could have written."""

import json
import os
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_core.cache import (
    BatchKVCache,
    ConcatKeyValueCache,
    KVCache,
    Packed,
    QuantizedKVCache,
    RotatingKVCache,
    load_prompt_cache,
    quantize_cache,
    save_prompt_cache,
)
from mlx_core.errors import CacheError

GOLDENS = Path(__file__).parent / "goldens" / "prompt_caches"
RECORDED = [
    pytest.param(folder / f"{name}.safetensors", rows, id=f"{folder.name}-{name}")
    for folder in sorted(GOLDENS.iterdir())
    for name, rows in json.loads((folder / "expected.json").read_text()).items()
]
KINDS = {
    "concat": ConcatKeyValueCache,
    "step": KVCache,
    "quantized": QuantizedKVCache,
    "rotating": RotatingKVCache,
    "batch": BatchKVCache,
}


def numbers(cache, row=0):
    """The numbers that the tokens carry, and those of the values; see scripts/record_golden/prompt_caches.py."""
    if not cache.state:
        return []
    keys, values = (
        (cache.state[0], cache.state[1])
        if len(cache.state) == 2
        else (mx.dequantize(*part, group_size=32, bits=4) for part in (cache.state[:3], cache.state[3:]))
    )
    keys, values = (np.array(part)[row, 0, :, 0].round().astype(int).tolist() for part in (keys, values))
    assert values == [-number for number in keys]
    return keys


@pytest.mark.parametrize(("path", "rows"), RECORDED)
def test_what_mlx_lm_saved_loads(path, rows):
    layers, metadata = load_prompt_cache(path)
    assert len(layers) == 2
    if not path.stem.endswith("empty"):
        assert metadata == {"model": "tiny", "a.b": "c"}
    kind = KINDS[path.stem.split("-")[0]]
    for layer in layers:
        assert type(layer) is kind
        singles = [layer.extract(row) for row in range(len(rows))] if kind is BatchKVCache else [layer]
        for single, row in zip(singles, rows, strict=True):
            assert single.offset == len(row)
            held = numbers(single)
            size, keep = single.max_size, getattr(single, "keep", 0)
            if size is None or len(row) <= size:
                assert held == row
            else:
                assert len(held) >= size - 1
                assert held == row[:keep] + row[len(row) - len(held) + keep :]


@pytest.mark.parametrize(("path", "rows"), [entry for entry in RECORDED if "0.32" in str(entry.id)])
def test_what_is_saved_is_what_mlx_lm_writes(path, rows, tmp_path):
    """The same names, metadata and dtypes; of the arrays the part that is in use."""
    layers, metadata = load_prompt_cache(path)
    save_prompt_cache(tmp_path / "ours.safetensors", layers, metadata)
    theirs, their_info = mx.load(str(path), return_metadata=True)
    ours, our_info = mx.load(str(tmp_path / "ours.safetensors"), return_metadata=True)
    if path.stem.startswith("batch-rotating"):  # ours is bounded otherwise, and mlx-lm refuses it by name
        assert our_info["1.0"] == "mlx_core.BatchKVCache"
        return
    assert our_info == their_info
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        assert ours[name].dtype == array.dtype, name
        if array.ndim < 4:
            if not path.stem.startswith("rotating"):  # there idx says where the oldest stands: ours is in order
                assert mx.array_equal(ours[name], array), name
        elif not path.stem.startswith("rotating"):
            assert mx.array_equal(ours[name], array[:, :, : ours[name].shape[2]]), name


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "deep" / "cache.safetensors"
    save_prompt_cache(path, [KVCache()])
    before = path.read_bytes()
    for cache, metadata in (([], None), ([object()], None), ([KVCache()], {"a": 1})):
        with pytest.raises(CacheError):
            save_prompt_cache(path, cache, metadata)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["cache.safetensors"]
    with pytest.raises(CacheError, match="can't be written"):
        save_prompt_cache(path / "below", [KVCache()])
    with pytest.raises(CacheError, match="can't be read"):
        load_prompt_cache(tmp_path / "nowhere")


def filled():
    """The arrays and metadata of a file with a KVCache and a RotatingKVCache."""
    arrays, info = mx.load(str(GOLDENS / "0.32.2" / "rotating-keep.safetensors"), return_metadata=True)
    return dict(arrays), dict(info)


def spoilt(change):
    arrays, info = filled()
    change(arrays, info)
    return arrays, info


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda arrays, info: info.update({"1.0": "ArraysCache"}), "known kinds"),
        (lambda arrays, info: info.update({"1.0": "BufferedCache"}), "known kinds"),
        (lambda arrays, info: info.pop("1.0"), "names no layers"),
        (lambda arrays, info: info.pop("1.1"), "belongs to none"),
        (lambda arrays, info: arrays.pop("0.3"), "gaps"),
        (lambda arrays, info: arrays.pop("0.5"), "entries"),
        (lambda arrays, info: arrays.update({"0.2": mx.array(-1)}), "number of tokens"),
        (lambda arrays, info: arrays.update({"0.2": mx.array(5)}), "can't go on"),
        (lambda arrays, info: arrays.update({"0.3": mx.array(6)}), "kept"),
        (lambda arrays, info: arrays.update({"0.4": mx.array(99)}), "can't hold"),
        (lambda arrays, info: arrays.update({"0.5": mx.array(7)}), "can't go on"),
        (lambda arrays, info: arrays.update({"0.0": mx.zeros((1, 6, 32))}), "head_dim"),
        (lambda arrays, info: arrays.update({"0.0": mx.zeros((1, 1, 5, 32))}), "length"),
        (lambda arrays, info: arrays.update({"0.0": mx.zeros((1, 1, 6, 32), mx.int32)}), "floating"),
        (lambda arrays, info: arrays.update({"0.6": mx.array(1)}), "entries"),
        (lambda arrays, info: arrays.update({"x": mx.array(1)}), "belongs to none"),
        (lambda arrays, info: info.update({"2.1.1": "code"}), "called"),
        (lambda arrays, info: info.update({"1.0": "QuantizedKVCache"}), "entries"),
    ],
)
def test_states_that_no_cache_could_be_in_are_refused(change, message, tmp_path):
    arrays, info = spoilt(change)
    path = tmp_path / "cache.safetensors"
    mx.save_safetensors(str(path), arrays, metadata=info)
    with pytest.raises(CacheError, match=message):
        load_prompt_cache(path)


@given(data=st.data(), path=st.sampled_from([entry.values[0] for entry in RECORDED if "step" not in str(entry.id)]))
@settings(max_examples=150)
def test_damaged_files_raise_or_load_as_caches(data, path, tmp_path_factory):
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, min(len(raw), 1500) - 1))
        raw[at] = data.draw(st.integers(0, 255))
    damaged = tmp_path_factory.mktemp("damaged") / "cache.safetensors"
    damaged.write_bytes(bytes(raw[: data.draw(st.sampled_from([len(raw), len(raw) // 2, len(raw) - 1]))]))
    try:
        layers, _ = load_prompt_cache(damaged)
    except CacheError:
        return
    for layer in layers:
        rows = layer.batch_size if isinstance(layer, BatchKVCache) else 1
        keys = mx.ones((rows, 1, 2, 32))
        layer.make_mask(2)
        layer.update_and_fetch(keys, keys)


def test_what_is_loaded_does_not_depend_on_the_file(tmp_path):
    cache = KVCache()
    cache.update_and_fetch(mx.ones((1, 1, 3, 8)), mx.ones((1, 1, 3, 8)))
    path = tmp_path / "cache.safetensors"
    save_prompt_cache(path, [cache])
    (loaded,), _ = load_prompt_cache(path)
    path.write_bytes(b"")
    assert loaded.state[0].sum().item() == 24
    assert isinstance(loaded.update_and_fetch(mx.ones((1, 1, 1, 8)), mx.ones((1, 1, 1, 8)))[0], mx.array)
    assert not isinstance(loaded.state[0], Packed)


def test_permissions_are_those_of_new_files_or_of_the_old_one(tmp_path):
    old = os.umask(0o077)
    try:
        save_prompt_cache(tmp_path / "private", [KVCache()])
        assert (tmp_path / "private").stat().st_mode & 0o777 == 0o600
        os.umask(0o022)
        save_prompt_cache(tmp_path / "private", [KVCache()])
        save_prompt_cache(tmp_path / "public", [KVCache()])
    finally:
        os.umask(old)
    assert (tmp_path / "private").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "public").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("number", [2**31, 10**30, -(10**30)])
@pytest.mark.parametrize("position", range(4))
def test_numbers_beyond_every_context_are_refused(number, position, tmp_path):
    cache = BatchKVCache([0], 7, 2)
    cache.update_and_fetch(mx.ones((1, 1, 3, 32)), mx.ones((1, 1, 3, 32)))
    save_prompt_cache(tmp_path / "cache", [cache])
    arrays, info = mx.load(str(tmp_path / "cache"), return_metadata=True, format="safetensors")
    arrays[f"0.{2 + position}"] = mx.array(list(map(ord, str(number))))
    mx.save_safetensors(str(tmp_path / "spoilt.safetensors"), arrays, metadata=info)
    with pytest.raises(CacheError):
        load_prompt_cache(tmp_path / "spoilt.safetensors")


@pytest.mark.parametrize("hadamard", [True, False])
@pytest.mark.parametrize("make", [KVCache, lambda: RotatingKVCache(6, keep=2), lambda: BatchKVCache([0])])
def test_quantised_caches_come_back_bit_for_bit(make, hadamard, tmp_path):
    for tokens in (0, 3, 9):
        (cache,) = quantize_cache([make()], bits=4, group_size=32, hadamard=hadamard)
        for start in range(0, tokens, 3):
            keys = mx.random.normal((1, 2, 3, 32), key=mx.random.key(start))
            cache.update_and_fetch(keys, -keys)
        save_prompt_cache(tmp_path / "cache", [cache, cache])
        (loaded, _), _ = load_prompt_cache(tmp_path / "cache")
        assert type(loaded) is type(cache)
        assert loaded.meta_state == cache.meta_state
        assert [array.tolist() for array in loaded.state] == [array.tolist() for array in cache.state]
