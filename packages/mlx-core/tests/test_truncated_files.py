"""Files that end early are refused when they are opened, before MLX maps them and before anything is evaluated."""

import json
import os

import mlx.core as mx
import pytest

from mlx_core.cache import KVCache, load_prompt_cache, save_prompt_cache
from mlx_core.checkpoints import layout, load_safetensors
from mlx_core.errors import CacheError, WeightsError


@pytest.fixture
def unmapped(monkeypatch):
    """MLX may neither map a file nor evaluate an array."""

    def refuse(*_, **__):
        raise AssertionError("the file's size must be checked first")

    def forbid():
        for name in ("load", "eval", "async_eval"):
            monkeypatch.setattr(mx, name, refuse)

    return forbid


def test_every_truncation_of_safetensors(tmp_path, unmapped):
    path = tmp_path / "model.safetensors"
    mx.save_safetensors(str(path), {"a": mx.arange(12, dtype=mx.float32), "b": mx.ones((2, 3), mx.float16)})
    content = path.read_bytes()
    unmapped()
    for size in range(len(content)):
        path.write_bytes(content[:size])
        with pytest.raises(WeightsError, match=r"model\.safetensors"):
            load_safetensors(tmp_path)
    path.write_bytes(content + b"\0")  # nor are bytes that belong to no tensor believed
    with pytest.raises(WeightsError):
        load_safetensors(tmp_path)


@pytest.mark.parametrize("indexed", [True, False])
def test_a_shard_that_ends_early(tmp_path, indexed):
    files = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for name, file in zip("ab", files, strict=True):
        mx.save_safetensors(str(tmp_path / file), {name: mx.ones((8, 8))})
    if indexed:
        index = {"weight_map": dict(zip("ab", files, strict=True))}
        (tmp_path / layout.SAFETENSORS.index).write_text(json.dumps(index))
    assert load_safetensors(tmp_path).keys() == {"a", "b"}
    os.truncate(tmp_path / files[1], (tmp_path / files[1]).stat().st_size - 1)
    with pytest.raises(WeightsError, match="model-00002-of-00002"):
        load_safetensors(tmp_path)


def test_every_truncation_of_a_prompt_cache(tmp_path, unmapped):
    cache = KVCache()
    cache.update_and_fetch(mx.ones((1, 1, 3, 4)), mx.ones((1, 1, 3, 4)))
    save_prompt_cache(tmp_path / "cache", [cache])
    content = (tmp_path / "cache").read_bytes()
    unmapped()
    for size in range(len(content)):
        (tmp_path / "cache").write_bytes(content[:size])
        with pytest.raises(CacheError, match="can't be read"):
            load_prompt_cache(tmp_path / "cache")
