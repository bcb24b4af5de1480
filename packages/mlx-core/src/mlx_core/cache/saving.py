"""Caches on disk, in safetensors files that mlx-lm reads and writes too.

mlx-lm has two formats, which name arrays and metadata by paths into nested lists: array `0.1` is the second entry of
the first layer's state. Up to 0.31 a layer's numbers are metadata (`0.{layer}.{i}`), before the user's metadata
(`1.{key}`) and the layers' classes (`2.{layer}`). From 0.32 on numbers are arrays among the others, and the metadata
are the user's (`0.{key}`), the classes (`1.{layer}`) and which arrays are numbers, strings or nothing (`2.{i}.0` the
path, `2.{i}.1` which; `2.0` is empty). The newer one is written. A kind of cache that mlx-lm doesn't have is written
as its state and meta state, under a name that mlx-lm refuses.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
from safetensors import SafetensorError, safe_open

from .. import backend
from ..errors import CacheError
from ..files import atomic_file
from .batch import BatchKVCache
from .concat import ConcatKeyValueCache
from .protocol import KeyValueCache
from .quantized import QuantizedBatchKVCache, QuantizedKVCache, QuantizedRotatingKVCache
from .rotating import RotatingKVCache
from .step import KVCache
from .storage import Planes, join, window

# mlx-lm's classes, and the entries of a layer's state in the newer format. In the older one those that aren't arrays
# are metadata, in the order of _OLD_META.
_FIELDS: dict[str, tuple[str, ...]] = {
    "ConcatenateKVCache": ("keys", "values"),
    "KVCache": ("keys", "values", "offset"),
    "QuantizedKVCache": ("keys", "values", "offset", "group_size", "bits"),
    "RotatingKVCache": ("keys", "values", "offset", "keep", "max_size", "idx"),
    "BatchKVCache": ("keys", "values", "offsets", "left_padding", "idx"),
    "BatchRotatingKVCache": ("keys", "values", "offsets", "left_padding", "max_size", "offset", "idx", "rotated"),
}
_OLD_META = {
    "QuantizedKVCache": ("offset", "group_size", "bits"),
    "RotatingKVCache": ("keep", "max_size", "offset", "idx"),
    "BatchRotatingKVCache": ("max_size", "offset", "idx", "rotated"),
}
_OWN_KINDS = (BatchKVCache, QuantizedKVCache, QuantizedBatchKVCache, QuantizedRotatingKVCache)
_OWN = {f"mlx_core.{kind.__name__}": kind for kind in _OWN_KINDS}
_PATH = re.compile(r"(\d{1,6})\.(\d{1,2})(?:\.(\d))?", re.ASCII)
_MAX_NUMBER = 2**31 - 1
_MAX_STRING = 2**16

Fields = dict[str, Any]


def save_prompt_cache(
    path: str | Path, cache: Sequence[KeyValueCache], metadata: Mapping[str, str] | None = None
) -> None:
    """Write the layers' caches, empty ones too, and strings of your own, to a safetensors file.

    The file appears whole or not at all. mlx-lm 0.32 loads it if it has the kinds of cache. Raises CacheError.
    """
    own = dict(metadata or {})
    if not all(isinstance(text, str) for entry in own.items() for text in entry):
        raise CacheError(f"metadata maps strings to strings; got {metadata!r:.200}.")
    if not cache:
        raise CacheError("there is no cache to save: it has no layers.")
    arrays: dict[str, mx.array] = {}
    info = {f"0.{key}": value for key, value in own.items()} | {"2.0": ""}
    special = 0
    for index, layer in enumerate(cache):
        name, entries = _entries(layer)
        info[f"1.{index}"] = name
        for position, entry in enumerate(entries):
            at = f"{index}.{position}"
            if isinstance(entry, tuple):
                arrays.update({f"{at}.{i}": part for i, part in enumerate(entry)})
            elif isinstance(entry, mx.array):
                arrays[at] = entry
            else:
                special += 1
                kind = "none" if entry is None else "string" if isinstance(entry, str) else "scalar"
                info |= {f"2.{special}.0": at, f"2.{special}.1": kind}
                arrays[at] = mx.array(
                    list(map(ord, entry)) if isinstance(entry, str) else [] if entry is None else entry
                )
    _write(Path(path).expanduser(), arrays, info)


def _entries(layer: KeyValueCache) -> tuple[str, list[Any]]:
    """The name of the layer's kind, and its state as mlx-lm has it: arrays, triples of them, numbers, strings, None."""
    if not isinstance(layer, KeyValueCache):
        raise CacheError(f"a {type(layer).__name__} is no cache, and can't be saved.")
    planes: Sequence[Any] = layer.state or (None, None)
    if type(layer) is ConcatKeyValueCache and layer.state:
        return "ConcatenateKVCache", list(planes)
    if type(layer) in (KVCache, ConcatKeyValueCache):  # mlx-lm has no way to write a ConcatenateKVCache that is empty
        return "KVCache", [*planes, layer.offset]
    if type(layer) is QuantizedKVCache and not layer.hadamard:
        held = (tuple(planes[:3]), tuple(planes[3:])) if layer.state else planes
        return "QuantizedKVCache", [*held, layer.offset, layer.group_size, layer.bits]
    if type(layer) is RotatingKVCache:
        idx = layer.state[0].shape[2] if layer.state else 0
        return "RotatingKVCache", [*planes, layer.offset, layer.keep, layer.max_size, idx]
    if type(layer) is BatchKVCache and layer.max_size is None:
        columns = layer.state[0].shape[2] if layer.state else 0
        return "BatchKVCache", [*planes, layer.offset, mx.array(layer.left_padding), columns]
    name = f"mlx_core.{type(layer).__name__}"
    if name not in _OWN:
        raise CacheError(f"a {type(layer).__name__} can't be saved; known are {_names()}.")
    return name, [*layer.state, *layer.meta_state]


def load_prompt_cache(path: str | Path) -> tuple[list[KeyValueCache], dict[str, str]]:
    """The caches in a file that `save_prompt_cache` has written, or mlx-lm in either of its formats, and the strings
    saved with them.

    Raises CacheError for a file that is missing or damaged, a kind that isn't known, and states in which no cache of
    their kind could be.
    """
    path = Path(path).expanduser()
    arrays, info = _read(path)
    newer = info.get("2.0") == ""
    names = _listed(info, "1." if newer else "2.")
    own = {key[2:]: value for key, value in info.items() if key.startswith("0." if newer else "1.")}
    if not names:
        raise CacheError(f"{path} names no layers: it is no saved prompt cache.")
    states: list[dict[int, Any]] = [{} for _ in names]
    try:
        special = _special(info) if newer else {}
        for at, value in arrays.items():
            match = _PATH.fullmatch(at)
            if match is None or int(match[1]) >= len(names):
                raise CacheError(f"array {at!r:.80} belongs to none of the {len(names)} layers.")
            entry = _plain(value, special[at]) if at in special else value
            state, position = states[int(match[1])], int(match[2])
            if match[3] is None:
                state[position] = entry
            else:
                state.setdefault(position, {})[int(match[3])] = entry
        layers = []
        for index, (name, state) in enumerate(zip(names, states, strict=True)):
            entries = [_tuple(state[i]) for i in sorted(state)]
            if sorted(state) != list(range(len(state))):
                raise CacheError(f"layer {index}: its state has gaps.")
            layers.append(_layer(index, name, entries, None if newer else _listed(info, f"0.{index}.")))
    except (ValueError, OverflowError, AttributeError, TypeError, LookupError) as error:  # entries of other types
        raise CacheError(f"{path} is no saved prompt cache: {error or type(error).__name__}") from error
    return layers, own


def _layer(index: int, name: str, entries: list[Any], old_meta: list[str] | None) -> KeyValueCache:
    if name in _OWN:
        planes = [entry for entry in entries if isinstance(entry, mx.array)]
        return _OWN[name].from_state(planes, [_string(entry) for entry in entries[len(planes) :]])
    if name not in _FIELDS:
        raise CacheError(f"layer {index} is a {name!r:.80}; known kinds are {_names()}.")
    names = _FIELDS[name]
    if old_meta is not None:
        meta = [
            part == "True" if part in ("True", "False") else _number("meta state", part) for part in old_meta if part
        ]
        names = (
            *[field for field in names if field in ("keys", "values", "offsets", "left_padding")],
            *_OLD_META.get(name, ()),
        )
        entries = [*entries, *meta]
    if len(entries) != len(names):
        raise CacheError(f"layer {index}: a {name} has {', '.join(names)}; found {len(entries)} entries.")
    try:
        return _BUILDERS[name](dict(zip(names, entries, strict=True)))
    except CacheError as error:
        raise CacheError(f"layer {index}: {error}") from error


def _concat(fields: Fields) -> KeyValueCache:
    return ConcatKeyValueCache.from_state(_planes(fields), ())


def _step(fields: Fields) -> KeyValueCache:
    planes = _planes(fields)
    offset = fields.get("offset", planes[0].shape[2] if planes else 0)
    return KVCache.from_state(_first(planes, offset), ())


def _quantized(fields: Fields) -> KeyValueCache:
    meta = [*(str(_number(name, fields[name])) for name in ("bits", "group_size")), "0"]
    return QuantizedKVCache.from_state(_first(_planes(fields), fields["offset"]), meta)


def _rotating(fields: Fields) -> KeyValueCache:
    """The tokens in order: once mlx-lm's buffer is full, `idx` is where the next token goes, and the oldest stands."""
    planes = _planes(fields)
    offset, keep, max_size, idx = (_number(name, fields[name]) for name in ("offset", "keep", "max_size", "idx"))
    if planes:
        held = planes[0].shape[2]
        if idx > held or (idx < keep and idx != offset) or (offset < held and idx != offset):
            raise CacheError(f"a RotatingKVCache of {held} tokens, {keep} of them kept, can't go on at {idx}.")
        if offset < held:
            planes = window(planes, 0, offset)
        elif idx < held:
            planes = join(window(planes, 0, keep), window(planes, idx, held), window(planes, keep, idx))
    return RotatingKVCache.from_state(_some(planes), (str(keep), str(max_size), str(offset)))


def _batch(fields: Fields) -> KeyValueCache:
    planes, padding, offsets = _planes(fields), _numbers(fields, "left_padding"), _numbers(fields, "offsets")
    columns = fields.get("idx", planes[0].shape[2] if planes else 0)
    return BatchKVCache.from_state(_first(planes, columns), _batch_meta(padding, offsets, 0))


def _batch_rotating(fields: Fields) -> KeyValueCache:
    planes, padding, offsets = _planes(fields), _numbers(fields, "left_padding"), _numbers(fields, "offsets")
    max_size, idx = (_number(name, fields[name]) for name in ("max_size", "idx"))
    if planes:
        held = planes[0].shape[2]
        if not max_size > 0 or idx > held:
            raise CacheError(f"a BatchRotatingKVCache of size {max_size} with {held} columns can't go on at {idx}.")
        rotated = bool(fields["rotated"])
        planes = join(window(planes, idx, held), window(planes, 0, idx)) if rotated else _first(planes, idx)
    return BatchKVCache.from_state(
        _some(planes), _batch_meta([max(blanks, 0) for blanks in padding], offsets, max_size)
    )


_BUILDERS = {
    "ConcatenateKVCache": _concat,
    "KVCache": _step,
    "QuantizedKVCache": _quantized,
    "RotatingKVCache": _rotating,
    "BatchKVCache": _batch,
    "BatchRotatingKVCache": _batch_rotating,
}


def _names() -> str:
    return ", ".join([*_FIELDS, *_OWN])


def _planes(fields: Fields) -> Planes:
    """Keys and values, each an array or a triple of them; () where the cache is empty."""
    keys, values = fields["keys"], fields["values"]
    if keys is None and values is None:
        return ()
    planes: tuple[Any, ...] = (
        *(keys if isinstance(keys, tuple) else (keys,)),
        *(values if isinstance(values, tuple) else (values,)),
    )
    for plane in planes:
        if not isinstance(plane, mx.array) or plane.ndim != 4 or plane.shape[2] != planes[0].shape[2]:
            raise CacheError("keys and values are [B, n_kv_heads, L, head_dim] and of one length.")
    return planes


def _first(planes: Planes, count: Any) -> Planes:
    """The first `count` tokens, which are those in use."""
    count = _number("offset", count)
    held = planes[0].shape[2] if planes else 0
    if count > held:
        raise CacheError(f"{count} tokens are said to be held; there are {held}.")
    return _some(window(planes, 0, count))


def _some(planes: Planes) -> Planes:
    return planes if planes and planes[0].shape[2] else ()


def _batch_meta(padding: Sequence[int], offsets: Sequence[int], max_size: int) -> tuple[str, ...]:
    return ",".join(map(str, padding)), ",".join(map(str, offsets)), str(max_size), "0"


def _number(name: str, value: Any) -> int:
    if isinstance(value, str) and re.fullmatch(r"\d{1,10}", value, re.ASCII):
        value = int(value)
    if not isinstance(value, int) or not 0 <= value <= _MAX_NUMBER:
        raise CacheError(f"{name} must be a number of tokens; found {value!r:.80}.")
    return value


def _numbers(fields: Fields, name: str) -> list[int]:
    value = fields[name]
    planes = _planes(fields)
    is_list = isinstance(value, mx.array) and value.ndim == 1 and mx.issubdtype(value.dtype, mx.integer)
    if not is_list or value.size > (planes[0].shape[0] if planes else _MAX_STRING):
        raise CacheError(f"{name} must be integers, one for each row; found {type(value).__name__}.")
    numbers: Any = value.tolist()
    return list(numbers)


def _string(entry: Any) -> str:
    if not isinstance(entry, str):
        raise CacheError(f"a meta state holds strings; found {type(entry).__name__}.")
    return entry


def _tuple(entry: Any) -> Any:
    """A nested entry as a tuple, in order."""
    return tuple(entry[i] for i in range(len(entry))) if isinstance(entry, dict) else entry


def _listed(info: Mapping[str, str], prefix: str) -> list[str]:
    """The strings at `{prefix}0`, `{prefix}1` and so on, up to the first that is missing."""
    found: list[str] = []
    while (key := f"{prefix}{len(found)}") in info:
        found.append(info[key])
    return found


def _special(info: Mapping[str, str]) -> dict[str, str]:
    """Which arrays of the newer format stand for something else, by their path."""
    found, index = {}, 1
    while (at := info.get(f"2.{index}.0")) is not None:
        found[at] = info[f"2.{index}.1"]
        index += 1
    return found


def _plain(array: mx.array, kind: str) -> int | float | bool | str | None:
    """The entry that an array of the newer format stands for."""
    if kind == "none":
        return None
    if kind == "scalar" and array.ndim == 0:
        value: Any = array.item()
        return value if isinstance(value, bool | int) else float(value)
    if kind == "string" and array.ndim == 1 and array.size <= _MAX_STRING:
        codes: Any = array.tolist()
        return "".join(chr(int(code)) for code in codes if 0 <= code < 0x110000)
    raise CacheError(f"an entry is called a {kind!r:.20} and has shape {tuple(array.shape)}.")


def _read(path: Path) -> tuple[dict[str, mx.array], dict[str, str]]:
    # The safetensors library checks the header before MLX trusts it.
    try:
        with safe_open(path, framework="numpy") as checked:
            names, info = set(checked.keys()), dict(checked.metadata() or {})
        with backend.worker_streams():
            arrays = mx.load(str(path), format="safetensors")
        assert isinstance(arrays, dict), "safetensors hold arrays by name"
        backend.materialize(arrays)  # so that nothing depends on the file any more
    except (SafetensorError, OSError, RuntimeError, ValueError, MemoryError) as error:
        raise CacheError(f"{path} can't be read as a saved prompt cache: {error}.") from error
    if arrays.keys() != names:
        raise CacheError(f"{path} was read differently by safetensors and by MLX: it is damaged.")
    return arrays, info


def _write(path: Path, arrays: dict[str, mx.array], info: dict[str, str]) -> None:
    try:
        # a cache that a lazy model filled depends on the model's files
        with backend.repaired_scheduler(), atomic_file(path) as temporary, temporary.open("wb") as file:
            mx.save_safetensors(file, arrays, metadata=info)  # a name would get a suffix
    except (OSError, RuntimeError, ValueError) as error:
        raise CacheError(f"{path} can't be written: {error}.") from error
