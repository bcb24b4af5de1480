"""Checkpoints quantised by AWQ, GPTQ and mxfp4, converted to MLX's packing.

`B` bits, `I` inputs, `O` outputs, `G` groups of inputs that share a scale and a zero. The layouts:

    AWQ    X.qweight int32 [I, O/8], X.qzeros int32 [G, O/8], X.scales [G, O]
           4 bits, eight outputs to a word in the order 0 2 4 6 1 3 5 7 (version "gemm")
    GPTQ   X.qweight int32 [I B/32, O], X.qzeros int32 [G, O B/32], X.scales [G, O], X.g_idx int32 [I]
           2, 3, 4 or 8 bits, one stream of bits down each column; zeros less one, but in the format "gptq_v2"
    mxfp4  X.weight_blocks or X_blocks uint8 [..., O, G, 16], X.weight_scales or X_scales uint8 [..., O, G]
           fp4 (e2m1), low nibble first, groups of 32, scales 2^(s - 127); X may be `experts.gate_up_proj` (the
           gate's rows first) or `experts.down_proj` with the experts as first dimension

Of AWQ and GPTQ the weights are `(code - zero) * scale`, hence in MLX's terms `scale * code + bias` with `bias = -zero
* scale`. That is exact in fp32, as are the weights. In half precision the bias is rounded once (by at most 2^-11 of
itself in fp16, 2^-8 in bf16); GPTQ's symmetric zeros are powers of two and lose nothing.

Definitions: AutoAWQ 0.2.9 (`WQLinear_GEMM`, `dequantize_gemm`), AutoGPTQ 0.7.1 (`qlinear_cuda`), GPTQModel 7.7.0
(`convert_gptq_v1_to_v2_format_module`), transformers 4.57.6 (`integrations/mxfp4.py`).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from .. import backend
from ..config import LayerQuantization, QuantizationConfig, quantization_method
from ..errors import ConfigError, WeightsError

_WORDS, _BYTES, _INDICES = (mx.int32, mx.uint32), (mx.uint8,), (mx.int32, mx.int64)
_FLOATS = (mx.float16, mx.bfloat16, mx.float32)

_LAYOUT_NAMES = ("version", "format", "checkpoint_format")  # the tools' names for the same entry
_GPTQ_BITS = (2, 3, 4, 8)
_GROUP_SIZES = (128, 64, 32)  # MLX's, the cheapest first
_NATURAL_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)  # where AWQ keeps each of eight outputs
_EXPERT = re.compile(r"\.experts\.\d+\.")
_BLOCKS = re.compile(r"(?P<path>.+?)(?P<prefix>\.weight_|_)blocks")


@dataclass(frozen=True)
class Repacked:
    """A checkpoint's tensors, the packed ones in MLX's packing (lazy), with the quantisation table for them, the dtype to
    compute in (that of the scales; None where the tensors have it), and notes for the load report.
    """

    weights: dict[str, mx.array]
    quantization: QuantizationConfig | None
    dtype: mx.Dtype | None = None
    notes: tuple[str, ...] = ()


def repack(weights: Mapping[str, mx.array], table: Mapping[str, Any]) -> Repacked:
    """Tensors of an AWQ, GPTQ or mxfp4 checkpoint -> MLX's `X.weight` (uint32), `X.scales` and `X.biases`.

    table: config.json's `quantization_config`. Which modules are quantised is read off the tensors, not off lists of
    modules. Groups of a size that MLX doesn't have are split into smaller ones with equal scales. A GPTQ layer whose
    groups aren't contiguous (`desc_act`) becomes a plain fp32 `X.weight`, and a note says so. Raises ConfigError for a
    layout that isn't supported, WeightsError naming a tensor that is missing or of the wrong dtype or shape.
    """
    method = quantization_method(table)
    if method == "mxfp4":
        return _repack_mxfp4(dict(weights))
    return _repack_affine(dict(weights), _Format.from_table(str(method), table))


@dataclass(frozen=True)
class _Format:
    """The entries of `quantization_config` for AWQ and GPTQ. group_size None: one group per output."""

    method: str
    bits: int
    group_size: int | None
    zeros_less_one: bool = False
    desc_act: bool = False
    dynamic: bool = False  # layers may differ in bits and group size

    @classmethod
    def from_table(cls, method: str, table: Mapping[str, Any]) -> _Format:
        bits, group_size = table.get("bits", 4), table.get("group_size", 128)
        for name, value in (("bits", bits), ("group_size", group_size)):
            if isinstance(value, bool) or not isinstance(value, int):
                raise ConfigError(f"quantization_config's {name!r} must be an integer; found {value!r}.")
        layouts = ("gemm",) if method == "awq" else ("gptq", "gptq_v2")
        named = {str(table[name]).lower() for name in _LAYOUT_NAMES if table.get(name) is not None}
        if table.get("is_marlin_format"):
            named.add("marlin")
        if table.get("backend") == "llm-awq":
            named.add("llm-awq")
        if unknown := sorted(named - set(layouts)):
            raise _unsupported(f"the {unknown[0]!r} layout of {method} checkpoints", " or ".join(layouts))
        allowed = (4,) if method == "awq" else _GPTQ_BITS
        if bits not in allowed:
            raise _unsupported(f"{method} with {bits} bits", f"{', '.join(map(str, allowed))} bits")
        for name in ("activation", "rotation"):
            if table.get(name):
                raise _unsupported(f"{method} with {name!r}", "weights that stand for themselves")
        if not 1 <= group_size < 2**31 and group_size != -1:
            raise ConfigError(f"quantization_config's 'group_size' must be positive, or -1; found {group_size}.")
        return cls(
            method,
            bits,
            group_size if group_size > 0 else None,
            zeros_less_one="gptq_v2" not in named,
            desc_act=bool(table.get("desc_act")),
            dynamic=bool(table.get("dynamic")),
        )


def _unsupported(what: str, expected: str) -> ConfigError:
    return ConfigError(
        f"{what} can't be read; expected {expected}. Take the model's bf16 checkpoint, or an MLX-quantised one "
        "(mlx-community)."
    )


@dataclass(frozen=True)
class _Layer:
    """One matrix: `weight[o, i] = (code[o, i] - zeros[group[i], o]) * scales[group[i], o]`."""

    codes: mx.array  # [O, I B/32] uint32, as MLX packs them
    bits: int
    scales: mx.array  # [G, O]
    zeros: mx.array  # [G, O] integers
    group: npt.NDArray[np.int64] = field(repr=False)  # [I]

    def group_size(self) -> int | None:
        """The largest of MLX's group sizes that the groups can be split into; None where there is none."""
        for size in _GROUP_SIZES:
            if len(self.group) % size == 0:
                runs = self.group.reshape(-1, size)
                if (runs == runs[:, :1]).all():
                    return size
        return None

    def affine(self, group_size: int) -> dict[str, mx.array]:
        """MLX's packing. The biases are fp32, in which they are exact."""
        order = mx.array(self.group[::group_size])
        biases = -(self.scales.astype(mx.float32) * self.zeros)
        return {
            "weight": self.codes,
            "scales": mx.contiguous(self.scales[order].T),
            "biases": mx.contiguous(biases[order].T),
        }

    def dequantized(self) -> dict[str, mx.array]:
        """The matrix `[O, I]` itself, in fp32."""
        order, groups = mx.array(self.group), (self.codes.shape[0], len(self.group) // 32)
        codes = mx.dequantize(self.codes, mx.ones(groups), mx.zeros(groups), group_size=32, bits=self.bits)
        scales = self.scales.astype(mx.float32)
        return {"weight": (codes - self.zeros[order].T) * scales[order].T}


def _repack_affine(weights: dict[str, mx.array], form: _Format) -> Repacked:
    paths = [name.removesuffix(".qweight") for name in weights if name.endswith(".qweight")]
    if not paths:
        raise WeightsError(
            f"config.json says that the weights are quantised by {form.method}, but the checkpoint holds no .qweight. "
            "Config and weights are of different models."
        )
    if embeddings := [path for path in paths if path.endswith("embed_tokens")]:
        raise WeightsError(
            f"{embeddings[0]} is quantised by {form.method}, which is not supported: tools pack an embedding along its words. "
            "Take a checkpoint whose embedding isn't quantised."
        )
    read = _awq_layer if form.method == "awq" else _gptq_layer
    layers = {path: read(weights, path, form) for path in paths}
    packings = _packings(layers)
    counts = Counter(packing for packing in packings.values() if packing is not None)
    default = counts.most_common(1)[0][0] if counts else None
    overrides: dict[str, LayerQuantization | None] = {}
    n_dequantized = 0
    for path, layer in layers.items():
        packing = packings[path]
        if packing != default and _EXPERT.search(path):
            packing = None  # experts are stacked under another path, which no entry of the table would reach
        if packing is None:
            n_dequantized += 1
            parts = layer.dequantized()
        else:
            parts = layer.affine(packing.group_size)
            if packing != default:
                overrides[path] = packing
        _put(weights, path, parts)
    note = f"{n_dequantized} of {len(layers)} {form.method} layers dequantised, since MLX's packing can't express their groups"
    quantization = QuantizationConfig(default, overrides) if default else None
    return Repacked(weights, quantization, layers[paths[0]].scales.dtype, (note,) if n_dequantized else ())


def _packings(layers: dict[str, _Layer]) -> dict[str, LayerQuantization | None]:
    """MLX's packing of each layer, None where it has none; the same for all experts of one projection."""
    projections: dict[str, list[str]] = {}
    for path in layers:
        projections.setdefault(_EXPERT.sub(".experts.*.", path), []).append(path)
    result: dict[str, LayerQuantization | None] = {}
    for paths in projections.values():
        sizes = [layers[path].group_size() for path in paths]
        bits = {layers[path].bits for path in paths}
        size = min((size for size in sizes if size is not None), default=None)
        common = LayerQuantization(size, min(bits)) if size and None not in sizes and len(bits) == 1 else None
        result |= dict.fromkeys(paths, common)
    return result


def _awq_layer(weights: dict[str, mx.array], path: str, form: _Format) -> _Layer:
    words = _pop(weights, f"{path}.qweight", _WORDS, None, None)
    width, outputs = words.shape[0], 8 * words.shape[1]
    _check_width(path, width)
    group = np.arange(width) // (form.group_size or width)
    scales = _pop(weights, f"{path}.scales", _FLOATS, int(group[-1]) + 1, outputs)
    zeros = _pop(weights, f"{path}.qzeros", _WORDS, scales.shape[0], words.shape[1])
    zeros = _unpack(zeros.view(mx.uint32), 4, outputs).reshape(-1, outputs // 8, 8)[..., mx.array(_NATURAL_ORDER)]
    return _Layer(_awq_transposed(words), 4, scales, zeros.reshape(-1, outputs), group)


def _gptq_layer(weights: dict[str, mx.array], path: str, form: _Format) -> _Layer:
    words = _pop(weights, f"{path}.qweight", _WORDS, None, None)
    rows, outputs = words.shape
    bits, indices = form.bits, weights.pop(f"{path}.g_idx", None)
    if form.dynamic and indices is not None and 32 * rows in [b * indices.size for b in _GPTQ_BITS]:
        bits = 32 * rows // indices.size
    width = 32 * rows // bits
    if 32 * rows % bits:
        raise _wrong(f"{path}.qweight", words, f"rows that hold whole codes of {bits} bits")
    _check_width(path, width)
    scales = _pop(weights, f"{path}.scales", _FLOATS, None, outputs)
    n_groups = scales.shape[0]
    zeros = _pop(weights, f"{path}.qzeros", _WORDS, n_groups, math.ceil(outputs * bits / 32))
    if indices is None and form.desc_act:
        raise WeightsError(f"{path}.g_idx is missing, without which 'desc_act' can't be read. Download it again.")
    group = np.arange(width) // (form.group_size or width)
    if indices is not None:
        _check(f"{path}.g_idx", indices, _INDICES, width)
        given = np.array(backend.materialize(indices)).astype(np.int64)
        # zeros throughout, with several groups, say that there is no order to keep: so the exllamav2 kernels read them
        if given.any() or n_groups == 1:
            group = given
        else:
            indices = None
    if indices is None:
        _check(f"{path}.scales", scales, _FLOATS, int(group[-1]) + 1, outputs)
    if group.min() < 0 or group.max() >= n_groups:
        raise WeightsError(
            f"{path}.g_idx names groups {group.min()} to {group.max()}; there are {n_groups}. The file is damaged."
        )
    return _Layer(mx.contiguous(words.T).view(mx.uint32), bits, scales, _gptq_zeros(zeros, bits, outputs, form), group)


def _gptq_zeros(words: mx.array, bits: int, outputs: int, form: _Format) -> mx.array:
    """Zeros `[G, O]`. "gptq" stores them less one: word by word, as GPTQModel adds it again, or code by code for 3
    bits, where codes cross words.
    """
    words = words.view(mx.uint32)
    if not form.zeros_less_one:
        return _unpack(words, bits, outputs)
    if bits == 3:
        return (_unpack(words, bits, outputs) + 1) & 7
    ones = sum(1 << start for start in range(0, 32, bits))
    return _unpack(words + mx.array(ones, mx.uint32), bits, outputs)


def _check_width(path: str, width: int) -> None:
    if width % 32:
        raise WeightsError(f"{path}.qweight has {width} inputs; expected a multiple of 32. The file is damaged.")


def _unpack(words: mx.array, bits: int, n: int) -> mx.array:
    """uint32 `[..., W]` as one stream of bits, the lowest first -> its first n codes, int32 `[..., n]`."""
    stream = (words.view(mx.uint8)[..., None] >> mx.arange(8, dtype=mx.uint8)) & 1
    stream = stream.reshape(*words.shape[:-1], -1)[..., : n * bits].reshape(*words.shape[:-1], n, bits)
    return (stream.astype(mx.int32) << mx.arange(bits)).sum(axis=-1)


def _awq_transposed(words: mx.array) -> mx.array:
    """AWQ's `[I, O/8]` -> MLX's `[O, I/8]`."""
    octets = words.view(mx.uint8)  # [I, O/2]
    even, odd = octets[0::2], octets[1::2]
    low, high = (even & 15) | (odd << 4), (even >> 4) | (odd & 240)  # [I/2, O/2]: two inputs of one output in a byte
    # octet 2b + a of a word holds its outputs 4a + b (low half) and 4a + 2 + b (high half)
    pairs = mx.stack([low, high], axis=-1).reshape(low.shape[0], -1, 2, 2, 2)  # [I/2, O/8, b, a, half]
    return pairs.transpose(1, 3, 4, 2, 0).reshape(8 * words.shape[1], -1).view(mx.uint32)


def _repack_mxfp4(weights: dict[str, mx.array]) -> Repacked:
    found = [match for name in weights if (match := _BLOCKS.fullmatch(name))]
    if not found:
        raise WeightsError(
            "config.json says that the weights are quantised by mxfp4, but the checkpoint holds no ..._blocks. Config and "
            "weights are of different models."
        )
    for match in found:
        blocks = weights.pop(match[0])
        _check(match[0], blocks, _BYTES, *[None] * (blocks.ndim - 1), 16)
        if blocks.ndim < 3:
            raise _wrong(match[0], blocks, "[..., out, in / 32, 16]")
        scales = _pop(weights, f"{match['path']}{match['prefix']}scales", _BYTES, *blocks.shape[:-1])
        words = blocks.reshape(*blocks.shape[:-2], -1).view(mx.uint32)
        _put(weights, match["path"], {"weight": words, "scales": scales})
    return Repacked(weights, QuantizationConfig(LayerQuantization(32, 4, "mxfp4")))


def _pop(weights: dict[str, mx.array], name: str, dtypes: tuple[mx.Dtype, ...], *shape: int | None) -> mx.array:
    value = weights.pop(name, None)
    if value is None:
        raise WeightsError(f"{name} is missing, which the layer's other tensors need. Download the checkpoint again.")
    _check(name, value, dtypes, *shape)
    return value


def _put(weights: dict[str, mx.array], path: str, parts: dict[str, mx.array]) -> None:
    for key, value in parts.items():
        if f"{path}.{key}" in weights:
            raise WeightsError(f"the checkpoint has {path} twice: quantised, and as {path}.{key}.")
        weights[f"{path}.{key}"] = value


def _check(name: str, value: mx.array, dtypes: tuple[mx.Dtype, ...], *shape: int | None) -> None:
    """Raise WeightsError unless a tensor has one of the dtypes and the shape, of which None may be any size."""
    fits = value.ndim == len(shape) and all(want in (None, size) for size, want in zip(value.shape, shape, strict=True))
    if value.dtype not in dtypes or not fits or not value.size:
        kinds = " or ".join(str(dtype).removeprefix("mlx.core.") for dtype in dtypes)
        raise _wrong(name, value, f"{kinds} of shape [{', '.join('any' if n is None else str(n) for n in shape)}]")


def _wrong(name: str, value: mx.array, expected: str) -> WeightsError:
    dtype = str(value.dtype).removeprefix("mlx.core.")
    return WeightsError(
        f"{name} is {dtype} of shape {list(value.shape)}; expected {expected}. quantization_config and weights are of "
        "different models, or the file is damaged."
    )
