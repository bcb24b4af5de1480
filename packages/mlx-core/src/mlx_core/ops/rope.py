"""Rotary position embeddings: every variant that the models use, computed as transformers 4.57 and 5.23 do.

RoPE rotates pairs of a head's dimensions by position x inverse frequency. The variants differ in the frequencies, some
also scale what was rotated (`attention_factor`), and two of them depend on how long the sequence has become.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import mlx.core as mx

from ..errors import ConfigError

Offset = int | mx.array


@dataclass(frozen=True)
class LongerFrequencies:
    """Frequencies once the sequence is longer than `positions`: `inverse_frequencies`, or those of a base that grows.

    With n positions reached, the base is base * (factor * n / positions - (factor - 1)) ** (dims / (dims - 2)).
    """

    positions: int
    inverse_frequencies: tuple[float, ...] | None = None
    base: float = 0.0
    factor: float = 0.0


@dataclass(frozen=True)
class RoPEPlan:
    """The first `dims` numbers of each head, rotated in pairs by position * inverse frequency, then scaled.

    `traditional`: pairs are (0, 1), (2, 3) ...; otherwise i and i + dims / 2. `attention_factor` multiplies what was
    rotated. `longer`: where the frequencies depend on the length that a step reaches.
    """

    dims: int
    traditional: bool
    inverse_frequencies: tuple[float, ...]
    attention_factor: float = 1.0
    longer: LongerFrequencies | None = None


class RoPE:
    """Rotates the first `dims` dimensions of each head; the others pass through.

    `traditional` pairs neighbours (0, 1), (2, 3) ...; otherwise i is paired with i + dims / 2. `inverse_frequencies` is
    `[dims / 2]`; None for the plain `base ** (-2i / dims)`, which MLX computes itself.
    """

    depends_on_length = False
    """Whether a token's rotation depends on how long the sequence is when it is computed, not on its position alone."""

    def __init__(
        self,
        dims: int,
        base: float,
        traditional: bool,
        *,
        scale: float = 1.0,
        inverse_frequencies: list[float] | None = None,
        attention_factor: float = 1.0,
    ) -> None:
        self.dims = dims
        self.base = base
        self.traditional = traditional
        self.scale = scale
        self.attention_factor = attention_factor
        self._inverse_frequencies = inverse_frequencies
        # mx.fast.rope divides positions by what it calls frequencies.
        self._wavelengths = None if inverse_frequencies is None else mx.array([1.0 / f for f in inverse_frequencies])

    def __call__(self, x: mx.array, offset: Offset = 0) -> mx.array:
        """x: `[B, H, L, D]`; offset: the position of the first token, an int or one `[B]`. Returns `[B, H, L, D]`."""
        wavelengths = self._wavelengths_for(offset, x.shape[-2])
        rotated = mx.fast.rope(
            x,
            self.dims,
            traditional=self.traditional,
            base=self.base if wavelengths is None else None,
            scale=self.scale,
            offset=offset,
            freqs=wavelengths,
        )
        if self.attention_factor == 1.0:
            return rotated
        if self.dims == x.shape[-1]:
            return rotated * self.attention_factor
        return mx.concatenate([rotated[..., : self.dims] * self.attention_factor, rotated[..., self.dims :]], axis=-1)

    def _wavelengths_for(self, offset: Offset, n: int) -> mx.array | None:
        return self._wavelengths

    def plan(self, path: str = "") -> RoPEPlan:
        """The RoPE as data; it has no parameters, so `path`, its place in the model, is of no use."""
        frequencies = self._inverse_frequencies or _inverse_frequencies(self.dims, self.base)
        scaled = tuple(self.scale * frequency for frequency in frequencies)
        return RoPEPlan(self.dims, self.traditional, scaled, self.attention_factor)


class DynamicRoPE(RoPE):
    """NTK-aware scaling that grows with the sequence: beyond `max_positions` the base grows with the length reached.

    Keys that a cache holds keep the rotation of the step that wrote them, as in transformers.
    """

    depends_on_length = True

    def __init__(self, dims: int, base: float, traditional: bool, *, factor: float, max_positions: int) -> None:
        super().__init__(dims, base, traditional)
        self.factor = factor
        self.max_positions = max_positions
        self._latest: tuple[int, mx.array] | None = None  # layers share a RoPE: one computation per step

    def _wavelengths_for(self, offset: Offset, n: int) -> mx.array | None:
        if isinstance(offset, mx.array):  # lengths that differ by row are known to the device alone
            longest = mx.maximum(mx.max(offset) + n, self.max_positions).astype(mx.float32)
            exponents = mx.arange(0, self.dims, 2, dtype=mx.float32) / self.dims
            return mx.power(self.base * self._stretch(longest), exponents)
        length = offset + n
        if length <= self.max_positions:
            return None
        latest = self._latest  # read once: another thread may be at another length
        if latest is None or latest[0] != length:
            base = self.base * self._stretch(float(length))
            latest = (length, mx.array([base ** (i / self.dims) for i in range(0, self.dims, 2)]))
            self._latest = latest
        return latest[1]

    def plan(self, path: str = "") -> RoPEPlan:
        longer = LongerFrequencies(self.max_positions, base=self.base, factor=self.factor)
        return replace(super().plan(path), longer=longer)

    def _stretch(self, length: Any) -> Any:
        """The factor of the base, for a length in floats or as an array."""
        return (self.factor * length / self.max_positions - (self.factor - 1)) ** (self.dims / (self.dims - 2))


class LongRoPE(RoPE):
    """Two sets of rescaled frequencies: one within the original context, one for sequences that reach beyond it.

    Source: https://arxiv.org/abs/2402.13753.
    """

    depends_on_length = True

    def __init__(
        self,
        dims: int,
        base: float,
        traditional: bool,
        *,
        short_factors: list[float],
        long_factors: list[float],
        original_positions: int,
        attention_factor: float,
    ) -> None:
        plain = _inverse_frequencies(dims, base)
        short = [f / factor for factor, f in zip(short_factors, plain, strict=True)]
        super().__init__(dims, base, traditional, inverse_frequencies=short, attention_factor=attention_factor)
        self.original_positions = original_positions
        self._long_inverse_frequencies = tuple(f / factor for factor, f in zip(long_factors, plain, strict=True))
        self._short = mx.array([factor / f for factor, f in zip(short_factors, plain, strict=True)])
        self._long = mx.array([factor / f for factor, f in zip(long_factors, plain, strict=True)])

    def _wavelengths_for(self, offset: Offset, n: int) -> mx.array:
        if isinstance(offset, int):
            return self._long if offset + n > self.original_positions else self._short
        return mx.where(mx.max(offset) + n > self.original_positions, self._long, self._short)

    def plan(self, path: str = "") -> RoPEPlan:
        longer = LongerFrequencies(self.original_positions, self._long_inverse_frequencies)
        return replace(super().plan(path), longer=longer)


def initialize_rope(
    dims: int,
    base: float,
    traditional: bool,
    scaling_config: Mapping[str, Any] | None = None,
    max_position_embeddings: int | None = None,
) -> RoPE:
    """The RoPE that a checkpoint's settings describe.

    dims: how many dimensions of a head are rotated (`int(head_dim * partial_rotary_factor)`), an even number.
    `scaling_config`: the checkpoint's `rope_scaling` or `rope_parameters`, whose `rope_type` (or `type`) is default,
    linear, dynamic, llama3, yarn, longrope or mrope (which for text alone is the default). Raises ConfigError for
    other types and for missing or absurd entries.
    """
    if dims < 2 or dims % 2:
        raise ConfigError(f"RoPE rotates pairs of dimensions: an even number of them, 2 or more; got {dims}.")
    if not (math.isfinite(base) and base > 0):
        raise ConfigError(f"rope_theta must be positive and finite; got {base}.")
    settings = _Settings(scaling_config or {}, max_position_embeddings)
    match settings.kind:
        case "default" | "mrope":
            return RoPE(dims, base, traditional)
        case "linear":
            return RoPE(dims, base, traditional, scale=1.0 / settings.number("factor"))
        case "dynamic":
            if dims == 2:
                raise ConfigError("dynamic RoPE needs at least 4 dimensions to rotate; got 2.")
            return DynamicRoPE(
                dims, base, traditional, factor=settings.number("factor"), max_positions=settings.max_positions
            )
        case "llama3":
            return RoPE(dims, base, traditional, inverse_frequencies=_llama3(dims, base, settings))
        case "yarn":
            frequencies, factor = _yarn(dims, base, settings)
            return RoPE(dims, base, traditional, inverse_frequencies=frequencies, attention_factor=factor)
        case "longrope" | "su":
            return _longrope(dims, base, traditional, settings)
    raise ConfigError(
        f"unknown rope_type {settings.kind!r}; known are default, linear, dynamic, llama3, yarn, longrope and mrope."
    )


def _is_positive(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(cast(float, value)) and cast(float, value) > 0


class _Settings:
    """A checkpoint's RoPE entries, checked as they are read."""

    def __init__(self, entries: Mapping[str, Any], max_position_embeddings: int | None) -> None:
        self.entries = entries
        self.kind = str(entries.get("rope_type") or entries.get("type") or "default")
        self._max_position_embeddings = max_position_embeddings

    def number(self, name: str, default: float | None = None) -> float:
        """A positive number, or the default where the entry is absent or null."""
        value = self.entries.get(name)
        if value is None:
            value = default
        if not _is_positive(value):
            raise ConfigError(f"RoPE of type {self.kind!r} needs a positive number {name!r}; found {value!r}.")
        return float(cast(float, value))

    def numbers(self, name: str, count: int) -> list[float]:
        """A list of `count` positive numbers."""
        values = self.entries.get(name)
        if not isinstance(values, list) or len(values) != count or not all(_is_positive(value) for value in values):
            raise ConfigError(
                f"RoPE of type {self.kind!r} needs {name!r}: a list of {count} positive numbers; found {values!r:.120}."
            )
        return [float(value) for value in values]

    @property
    def max_positions(self) -> int:
        if self._max_position_embeddings is None:
            raise ConfigError(f"RoPE of type {self.kind!r} needs the configuration's max_position_embeddings.")
        return self._max_position_embeddings

    @property
    def original_positions(self) -> float:
        """The context that the model was trained on before it was stretched."""
        if self.entries.get("original_max_position_embeddings") is None:
            return float(self.max_positions)
        return self.number("original_max_position_embeddings")


def _inverse_frequencies(dims: int, base: float) -> list[float]:
    return [base ** (-i / dims) for i in range(0, dims, 2)]


def _blend(weight: float, at_one: float, at_zero: float) -> float:
    """Between two values, by a weight that is clipped to [0, 1]."""
    weight = min(max(weight, 0.0), 1.0)
    return weight * at_one + (1 - weight) * at_zero


def _llama3(dims: int, base: float, settings: _Settings) -> list[float]:
    """Llama 3.1: long wavelengths are stretched by `factor`, short ones kept, those between blended."""
    factor = settings.number("factor")
    low, high = settings.number("low_freq_factor"), settings.number("high_freq_factor")
    if low >= high:
        raise ConfigError(f"llama3 RoPE needs low_freq_factor < high_freq_factor; found {low} and {high}.")
    original = settings.original_positions

    def scaled(frequency: float) -> float:
        rotations = original * frequency / (2 * math.pi)  # within the original context
        return _blend((rotations - low) / (high - low), frequency, frequency / factor)

    return [scaled(frequency) for frequency in _inverse_frequencies(dims, base)]


def _yarn(dims: int, base: float, settings: _Settings) -> tuple[list[float], float]:
    """YaRN (https://arxiv.org/abs/2309.00071): dimensions that rotate slowly are interpolated, fast ones kept."""
    original = settings.original_positions
    factor = settings.number("factor", settings.max_positions / original)

    def dimension_of(rotations: float) -> float:
        return dims * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(base))

    low = dimension_of(settings.number("beta_fast", 32.0))
    high = dimension_of(settings.number("beta_slow", 1.0))
    if settings.entries.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dims - 1)
    span = high - low if high != low else 0.001  # as the reference, to avoid a division by zero
    frequencies = [
        _blend((i - low) / span, frequency / factor, frequency)
        for i, frequency in enumerate(_inverse_frequencies(dims, base))
    ]

    def temperature(mscale: float) -> float:
        return 0.1 * mscale * math.log(factor) + 1.0 if factor > 1 else 1.0

    if settings.entries.get("attention_factor") is not None:
        attention_factor = settings.number("attention_factor")
    elif settings.entries.get("mscale") and settings.entries.get("mscale_all_dim"):
        attention_factor = temperature(settings.number("mscale")) / temperature(settings.number("mscale_all_dim"))
    else:
        attention_factor = temperature(1.0)
    return frequencies, attention_factor


def _longrope(dims: int, base: float, traditional: bool, settings: _Settings) -> LongRoPE:
    original = settings.original_positions
    short, long = (settings.numbers(name, dims // 2) for name in ("short_factor", "long_factor"))
    factor = settings.number("factor", settings.max_positions / original)
    default = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
    return LongRoPE(
        dims,
        base,
        traditional,
        short_factors=short,
        long_factors=long,
        original_positions=int(original),
        attention_factor=settings.number("attention_factor", default),
    )
