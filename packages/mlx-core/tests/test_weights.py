"""Which files of a folder hold its weights, in every arrangement that hubs and tools leave behind."""

from __future__ import annotations

import json

import mlx.core as mx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_core.checkpoints import load_safetensors, load_weights
from mlx_core.checkpoints.layout import (
    PYTORCH,
    SAFETENSORS,
    gguf_models,
    gguf_parts,
    matching_gguf,
    missing_shard,
    parse_shard,
)
from mlx_core.errors import MissingCheckpointError, WeightsError


def save(folder, name, **tensors):
    mx.save_safetensors(str(folder / name), {key: mx.array([value]) for key, value in tensors.items()})


def loaded(folder):
    return {name: value.item() for name, value in load_weights(folder).items()}


def write_index(folder, **weight_map):
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


@pytest.mark.parametrize(
    "stray",
    [
        "consolidated.safetensors",
        "adapter.safetensors",
        "adapter_model.safetensors",
        "model.fp16.safetensors",
        "vision_tower.safetensors",
        "model-00001-of-00002.safetensors",
    ],
)
def test_of_a_folder_with_model_safetensors_only_that_is_read(tmp_path, stray):
    save(tmp_path, "model.safetensors", a=1)
    save(tmp_path, stray, a=2, b=3)
    assert loaded(tmp_path) == {"a": 1}
    (tmp_path / stray).write_bytes(b"not even safetensors")
    assert loaded(tmp_path) == {"a": 1}


def test_of_a_folder_with_an_index_only_its_files_are_read(tmp_path):
    for number, name in enumerate("ab", 1):
        save(tmp_path, f"model-0000{number}-of-00002.safetensors", **{name: number})
    save(tmp_path, "stray.safetensors", a=8, c=9)
    write_index(tmp_path, a="model-00001-of-00002.safetensors", b="model-00002-of-00002.safetensors")
    assert loaded(tmp_path) == {"a": 1, "b": 2}
    save(tmp_path, "model.safetensors", a=7)  # which transformers takes first, whatever an index says
    assert loaded(tmp_path) == {"a": 7}


def test_shards_without_an_index_are_read_without_what_lies_beside_them(tmp_path):
    for number, name in enumerate("ab", 1):
        save(tmp_path, f"model-0000{number}-of-00002.safetensors", **{name: number})
    save(tmp_path, "consolidated-00001-of-00001.safetensors", a=8)
    save(tmp_path, "stray.safetensors", c=9)
    assert loaded(tmp_path) == {"a": 1, "b": 2}
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(MissingCheckpointError, match="lacks shard 2 of 2 of model"):
        load_weights(tmp_path)


def test_files_of_other_names_are_all_read(tmp_path):
    for number, name in enumerate("ab"):
        save(tmp_path, f"weights.{number:02d}.safetensors", **{name: number})
    save(tmp_path, "adapters.safetensors", c=9)
    save(tmp_path, "optimizer_state.safetensors", d=9)
    assert loaded(tmp_path) == {"a": 0, "b": 1}
    save(tmp_path, "weights.02.safetensors", b=1)
    with pytest.raises(WeightsError, match=r"'b' twice: in weights\.01\.safetensors and in weights\.02\.safetensors"):
        load_weights(tmp_path)


def test_only_leftovers_are_no_weights(tmp_path):
    save(tmp_path, "adapters.safetensors", c=9)
    with pytest.raises(MissingCheckpointError, match=r"no \.safetensors files"):
        load_safetensors(tmp_path)


# Names


def test_torch_files_are_chosen_alike():
    shards = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]
    assert PYTORCH.files(["training_args.bin", "pytorch_model.bin", *shards]) == ["pytorch_model.bin"]
    assert PYTORCH.files(["optimizer.bin", *shards]) == shards
    assert PYTORCH.files(["training_args.bin", "sub/pytorch_model.bin"]) == []
    assert SAFETENSORS.files(["sub/model.safetensors", "x.safetensors"]) == ["x.safetensors"]


@given(
    st.sampled_from(["model", "a-b", "x-00001-of-00002"]),
    st.integers(1, 40).flatmap(lambda total: st.tuples(st.integers(1, total), st.just(total))),
)
def test_one_shard_announces_the_others(stem, place):
    number, total = place
    shard = parse_shard(f"{stem}-{number:05d}-of-{total:05d}.safetensors")
    assert shard == (stem, number, total, ".safetensors")
    names = [shard.name(i) for i in range(1, total + 1)]
    assert missing_shard([*names, "model.safetensors"]) is None
    names.remove(shard.name(number))
    lost = missing_shard(names)
    assert lost == (shard if names else None)


def test_names_that_are_no_shards():
    for name in ("model-1-of-2.safetensors", "model-00003-of-00002.gguf", "model-00001-of-00002.txt", "00001-of-00002"):
        assert parse_shard(name) is None


GGUF = [
    "Qwen3-8B-Q4_K_M.gguf",
    "Qwen3-8B-IQ4_K_M.gguf",
    "qwen3-8b.q8_0.gguf",
    "BF16/Qwen3-8B-BF16-00001-of-00002.gguf",
    "BF16/Qwen3-8B-BF16-00002-of-00002.gguf",
    "mmproj-BF16.gguf",
    "Qwen3-8B.imatrix.gguf",
    "README.md",
]


def test_gguf_models_are_named_by_their_quantisation_or_file():
    assert gguf_models(GGUF) == sorted([*GGUF[:3], GGUF[3]])
    for wanted, expected in {
        "Q4_K_M": GGUF[:1],
        "q4_k_m": GGUF[:1],
        "iq4_K_m": GGUF[1:2],
        "Q8_0": GGUF[2:3],
        "bf16": GGUF[3:4],
        "Qwen3-8B-Q4_K_M": GGUF[:1],
        "Qwen3-8B-Q4_K_M.gguf": GGUF[:1],
        "BF16/Qwen3-8B-BF16": GGUF[3:4],
        "K_M": [*GGUF[1:2], *GGUF[:1]],
        "4_K_M": [],
        "Q2_K": [],
        "q.*": [],
    }.items():
        assert matching_gguf(GGUF, wanted) == expected, wanted
    assert gguf_parts(GGUF[3]) == GGUF[3:5]
    assert gguf_parts(GGUF[0]) == GGUF[:1]
