"""The targets of the fuzzer: for each kind of input its sound examples, their mutation, and the calls of a user.

A set of files is written to a folder of its own. `use` makes the calls that users make, and uses their results: a model
gets tokens, a tokenizer text, a cache further keys.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any

import mlx.core as mx

from mlx_core import backend, load_model, load_prompt_cache, load_tokenizer
from mlx_core.checkpoints import load_pytorch_checkpoint, load_safetensors, load_weights
from mlx_core.errors import MLXCoreError
from mlx_core.text import template_sandbox

from . import examples, formats, mutations, programs
from .examples import Files

template_sandbox.MAX_SECONDS = 0.5  # for 10: many inputs run into it, and that it holds is what matters


@dataclass(frozen=True)
class Target:
    """One kind of input. sound: whether the examples are to be read before anything is changed."""

    seeds: Callable[[], list[Files]]
    mutate: Callable[[Files, Random], Files]
    use: Callable[[Path, Random], None]
    needs_models: bool = False
    sound: bool = True


def _change_file(files: Files, rng: Random, suffix: str, mutation: mutations.Mutation) -> Files:
    name = rng.choice([name for name in files if name.endswith(suffix)])
    return files | {name: mutation(files[name], rng)}


def _mutate_checkpoint(files: Files, rng: Random) -> Files:
    if "model.safetensors.index.json" in files and rng.random() < 0.4:
        return _change_file(files, rng, ".index.json", mutations.json_file)
    if rng.random() < 0.03:
        del (files := dict(files))[rng.choice(list(files))]
        return files
    return _change_file(files, rng, ".safetensors", formats.safetensors_file)


def _run(folder: Path, rng: Random) -> None:
    model = load_model(
        folder,
        lazy=rng.random() < 0.5,
        keep_packed=rng.choice((None, True, False)),
        quantize=rng.choice((None, None, 4)),
    )
    cache = model.make_cache()
    for length in (5, 1, 12, 1):
        tokens = mx.arange(length)[None] % model.vocab_size
        with backend.repaired_scheduler():  # a lazy model may meet damaged data
            mx.eval(model(tokens, cache))


def _use_safetensors(folder: Path, rng: Random) -> None:
    if rng.random() < 0.3:
        with backend.worker_streams():
            backend.materialize(load_safetensors(folder))
    else:
        _run(folder, rng)


def _mutate_config(files: Files, rng: Random) -> Files:
    return _change_file(files, rng, "config.json", mutations.json_file)


def _mutate_legacy(files: Files, rng: Random) -> Files:
    if rng.random() < 0.4:
        config = json.loads(files["config.json"])
        config["quantization_config"] = mutations.change(config["quantization_config"], rng)
        files = files | {"config.json": mutations.write_json(config, rng)}
        if rng.random() < 0.7:
            return files
    return _change_file(files, rng, ".safetensors", formats.safetensors_file)


def _mutate_gguf(files: Files, rng: Random) -> Files:
    name = rng.choice(sorted(files))
    sound = examples.GGUF_PARTS[files[name]]
    if rng.random() < 0.15:
        return files | {name: mutations.damage(files[name], rng, near=3000)}
    return files | {name: formats.gguf_file(sound, rng)}


def _use_gguf(folder: Path, rng: Random) -> None:
    path = folder if rng.random() < 0.3 else min(folder.iterdir())
    try:
        _run(path, rng)
    finally:
        _use_tokenizer(path, rng)


def _mutate_pickle(files: Files, rng: Random) -> Files:
    if "pytorch_model.bin.index.json" in files and rng.random() < 0.4:
        return _change_file(files, rng, ".index.json", mutations.json_file)
    return _change_file(
        files, rng, rng.choice([name for name in files if not name.endswith(".json")]), programs.torch_file
    )


def _use_pickle(folder: Path, rng: Random) -> None:
    path = folder / "checkpoint.pt"
    if not path.exists():
        with backend.worker_streams():
            backend.materialize(load_weights(folder))
        return
    _touch(load_pytorch_checkpoint(path.read_bytes() if rng.random() < 0.3 else path))


def _touch(value: Any) -> None:
    """Compute every array in what a pickle gave; without recursion, since it may be nested as deep as it likes."""
    waiting, seen = [value], set()
    while waiting:
        item = waiting.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, mx.array):
            mx.eval(item + item if item.dtype != mx.bool_ else item)
        elif isinstance(item, dict):
            waiting += item.values()
        elif isinstance(item, list | tuple | set | frozenset):
            waiting += item


_MESSAGES = [{"role": "user", "content": "Hello, world"}, {"role": "assistant", "content": "ab 12"}]


_TOOLS = [
    {
        "type": "function",
        "function": {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}},
    }
]


_SAMPLES = (
    "",
    "Hello, world! ab <s>",
    "a" * 40 + "b!",
    " \n\t 12345 \u00e9\u4e2d\U0001f600 <|im_end|>",
    "\x00\x7f" * 3,
)


def _use_tokenizer(folder: Path, rng: Random) -> None:
    tokenizer = load_tokenizer(folder)
    repr(tokenizer)
    for text in _SAMPLES:
        ids = tokenizer.encode(text, add_special_tokens=rng.random() < 0.5)
        tokenizer.decode(ids, skip_special_tokens=rng.random() < 0.5)
        stream = tokenizer.detokenizer()
        for index in [*ids[:64], tokenizer.vocab_size - 1, tokenizer.vocab_size, 3]:
            if index >= 0:
                stream.add(index)
        stream.flush()
    if tokenizer.has_chat_template:
        tokenizer.encode_chat(_MESSAGES, tools=rng.choice((None, _TOOLS)))
    (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.token(0))


def _mutate_tokenizer(files: Files, rng: Random) -> Files:
    if rng.random() < 0.1:
        content = json.loads(files["tokenizer.json"])
        name, stage = _hostile_stage(rng)
        members = {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers", "decoder": "decoders"}[name]
        stages = [stage] * rng.choice((1, 2, 3, 8)) + ([content[name]] if content.get(name) else [])
        content[name] = {"type": "Sequence", members: stages}
        return files | {"tokenizer.json": mutations.write_json(content, rng)}
    suffix = "tokenizer.json" if rng.random() < 0.6 else ".json"
    return _change_file(files, rng, suffix, mutations.json_file)


def _hostile_stage(rng: Random) -> tuple[str, dict[str, object]]:
    """A stage that makes texts longer, or an expression that may take for ever; and where it goes."""
    if rng.random() < 0.5:
        pattern = rng.choice(
            ({"String": rng.choice(("a", " ", "l", "0"))}, {"Regex": rng.choice(("a", "", r"\w", "."))})
        )
        content = rng.choice("ax ") * rng.choice((0, 1, 2, 10, 100, 1000, 5000))
        return rng.choice(("normalizer", "decoder")), {"type": "Replace", "pattern": pattern, "content": content}
    pattern = {"Regex": rng.choice(mutations.EXPRESSIONS)}
    if rng.random() < 0.5:
        return "normalizer", {"type": "Replace", "pattern": pattern, "content": "b"}
    return "pre_tokenizer", {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": rng.random() < 0.5}


def _mutate_vocabulary(mutation: mutations.Mutation) -> Callable[[Files, Random], Files]:
    def mutate(files: Files, rng: Random) -> Files:
        if rng.random() < 0.15:
            return _change_file(files, rng, ".json", mutations.json_file)
        name = next(name for name in files if not name.endswith(".json"))
        return files | {name: mutation(files[name], rng)}

    return mutate


def _mutate_template(files: Files, rng: Random) -> Files:
    text = programs.template(files["chat_template.jinja"].decode(), rng).encode("utf-8", "surrogatepass")
    if rng.random() < 0.3:
        text = programs.template("{{ bos_token }}", rng).encode("utf-8", "surrogatepass")
    return files | {"chat_template.jinja": mutations.damage(text, rng, times=2) if rng.random() < 0.1 else text}


def _mutate_cache(files: Files, rng: Random) -> Files:
    return _change_file(files, rng, ".safetensors", formats.safetensors_file)


def _use_cache(folder: Path, rng: Random) -> None:
    layers, _ = load_prompt_cache(folder / "cache.safetensors")
    for layer in layers:
        mx.eval(list(layer.state or ()))
        planes = list(layer.state or ())
        rows, heads = planes[0].shape[:2] if planes else (1, 1)
        group_size = getattr(layer, "group_size", 1)
        dims = [plane.shape[-1] * group_size for plane in (planes[1::3] if len(planes) == 6 else planes)] or [64, 64]
        mx.eval(layer.update_and_fetch(*(mx.ones((rows, heads, 3, dim)) for dim in dims)))
        layer.make_mask(1)
        layer.trim(2)


def _fault_seeds() -> list[Files]:
    return [{"fault": name.encode()} for name in _FAULTS]


def _allocate() -> None:
    raise MLXCoreError(str(len(b"\1" * 2**30)))


_FAULTS: dict[str, Callable[[], Any]] = {
    "crash": lambda: __import__("ctypes").string_at(0),
    "hang": lambda: time.sleep(10**6),
    "error": lambda: dict[str, str]()["key"],
    "memory": _allocate,
    "code": lambda: exec("pass"),
    "system": lambda: __import__("os").system(f"touch {programs.CANARY}"),
    "write": lambda: Path(programs.CANARY).write_text(""),
    "outside": lambda: Path(__file__).read_text(),
}


def _use_fault(folder: Path, rng: Random) -> None:
    _FAULTS[(folder / "fault").read_text()]()


TARGETS = {
    "safetensors": Target(examples.safetensors, _mutate_checkpoint, _use_safetensors, needs_models=True),
    "config": Target(examples.configs, _mutate_config, _run, needs_models=True),
    "legacy": Target(examples.legacy, _mutate_legacy, _run, needs_models=True),
    "gguf": Target(examples.gguf, _mutate_gguf, _use_gguf, needs_models=True),
    "pickle": Target(examples.pickles, _mutate_pickle, _use_pickle),
    "tokenizer": Target(examples.tokenizers, _mutate_tokenizer, _use_tokenizer),
    "sentencepiece": Target(examples.sentencepiece, _mutate_vocabulary(formats.sentencepiece_file), _use_tokenizer),
    "ranks": Target(examples.ranks, _mutate_vocabulary(formats.rank_file), _use_tokenizer),
    "template": Target(examples.templates, _mutate_template, _use_tokenizer),
    "cache": Target(examples.caches, _mutate_cache, _use_cache),
    "faults": Target(_fault_seeds, lambda files, rng: files, _use_fault, sound=False),
}


def available() -> list[str]:
    """The kinds that can be run: those of checkpoints need the packages that serve them."""
    return [
        name
        for name, target in TARGETS.items()
        if target.sound and not (target.needs_models and find_spec("qwen3_mlx") is None)
    ]
