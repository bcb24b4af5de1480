"""Sampling: the parameters, the filters of logits, and the state of one request's sampling.

The steps from logits to the next token, in their order:

    logit bias -> repetition, presence, frequency penalties -> no end before min_tokens
    -> thinking closed when its budget is spent                                              RequestSampler
    -> temperature -> top-k -> top-p -> min-p -> typical -> XTC -> draw                       DefaultSampler

At temperature 0, RequestSampler's steps are followed by an argmax. The filters are plain functions: floating logits
[..., V] to float32 logits [..., V], with -inf for the tokens that they remove. Each works on the renormalised
distribution of the tokens that are left, and none removes a row's last token.

Tokens are ranked by logit, ties by id, lowest first, as in argmax. So top-k keeps exactly k tokens, top-p the smallest
set and XTC a single one, also with ties (frequent in bfloat16), and the same ones on every device.

Only `LazyLogprobs.read` reads an array's values on the host, and nothing touches the global random state, MLX's or
Python's. `B` batch, `V` vocabulary.
"""

from __future__ import annotations

import copy
import math
import secrets
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any, Protocol, Self

import mlx.core as mx

from ..errors import InputError

_FLOAT32_MAX, _FLOAT32_TINY = (2 - 2**-23) * 2.0**127, 2.0**-126  # the largest, and the least normal one
_TOLERANCE = 1e-6  # rounding of float32 probabilities that should be equal, such as 0.5 + 0.3 and 0.8
_MIN_POSITIVE = math.ulp(0.0)  # the smallest float above 0
_TOKEN = (0, 2**31 - 1, "token ids, integers in [0, 2**31)")
# Minimum, maximum, and the range as an error message states it. Those of the last four keep logits finite in float32.
_RANGES: dict[str, tuple[float, float, str]] = {
    "temperature": (0, _FLOAT32_MAX, "a finite number >= 0; 0 is greedy"),
    "top_p": (_MIN_POSITIVE, 1, "a number in (0, 1]; 1 turns it off, temperature 0 is greedy"),
    "top_k": (0, math.inf, "an integer >= 0; 0 turns it off"),
    "min_p": (0, 1, "a number in [0, 1]; 0 turns it off"),
    "typical_p": (_MIN_POSITIVE, 1, "a number in (0, 1]; 1 turns it off"),
    "xtc_probability": (0, 1, "a number in [0, 1]; 0 turns it off"),
    "xtc_threshold": (0, 1, "a number in [0, 1]"),
    "seed": (0, 2**64 - 1, "an integer in [0, 2**64), or None for a fresh one"),
    "stop_token_ids": _TOKEN,
    "end_token_ids": _TOKEN,
    "prompt_tokens": _TOKEN,
    "vocab_size": (1, 2**31 - 1, "an integer >= 1"),
    "max_tokens": (0, math.inf, "an integer >= 0"),
    "min_tokens": (0, math.inf, "an integer >= 0"),
    "thinking_budget": (0, math.inf, "an integer >= 0, the most tokens of thinking, or None for no limit"),
    "logprobs": (0, math.inf, "an integer >= 0, how many of the top tokens to list, or None for no logprobs"),
    "logit_bias token": _TOKEN,
    "logit_bias value": (-1e30, 1e30, "a number in [-1e30, 1e30]; -1e9 bans a token"),
    "repetition_penalty": (1e-6, 1e6, "a number in [1e-6, 1e6]; 1 turns it off"),
    "presence_penalty": (-1e30, 1e30, "a number in [-1e30, 1e30]; 0 turns it off"),
    "frequency_penalty": (-1e30, 1e30, "a number in [-1e30, 1e30]; 0 turns it off"),
}


def _refusal(name: str, expected: str, value: object) -> InputError:
    return InputError(f"{name} must be {expected}; found {value!r} of type {type(value).__name__}")


def _number(name: str, value: Any, kind: Any = Real, convert: Any = float) -> Any:
    """`value` as a float in the range of `name`. NumPy's numbers are accepted, a bool isn't."""
    low, high, expected = _RANGES[name]
    found = None
    if isinstance(value, kind) and not isinstance(value, bool):
        with suppress(OverflowError):  # an int beyond every float
            found = convert(value)
    if found is None or not low <= found <= high:  # which NaN isn't
        raise _refusal(name, expected, value)
    return found


def _integer(name: str, value: Any) -> Any:
    """`value` as an int in the range of `name`. NumPy's integers are accepted; a bool and 1.0 aren't."""
    return _number(name, value, Integral, int)


def _optional_integer(name: str, value: Any) -> Any:
    return None if value is None else _integer(name, value)


def _token_ids(name: str, ids: Any) -> tuple[int, ...]:
    if not isinstance(ids, Iterable) or isinstance(ids, str | bytes | Mapping | mx.array):
        raise _refusal(name, "a sequence of token ids", ids)
    return tuple(_integer(name, token) for token in ids)


def _strings(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, Iterable) or isinstance(value, bytes | Mapping):
        raise _refusal(name, "a string or a sequence of strings", value)
    strings = (value,) if isinstance(value, str) else tuple(value)
    for string in strings:
        if not isinstance(string, str) or not string:
            raise _refusal(name, "made of strings that aren't empty (an empty one would stop at once)", string)
    return strings


class _FrozenBias(Mapping[int, float], Hashable):
    """An immutable mapping of token id to bias, which unlike MappingProxyType can be hashed, copied and pickled."""

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[int, float]) -> None:
        self._items = dict(items)

    def __getitem__(self, token: int) -> float:
        return self._items[token]

    def __iter__(self) -> Iterator[int]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(frozenset(self._items.items()))

    def __repr__(self) -> str:
        return repr(self._items)


def _optional_bias(name: str, bias: Any) -> _FrozenBias | None:
    if bias is None:
        return None
    if not isinstance(bias, Mapping):
        raise _refusal(name, "a mapping from token ids to numbers, or None", bias)
    return _FrozenBias({_integer(f"{name} token", t): _number(f"{name} value", b) for t, b in bias.items()})


_CHECKS = {
    "float": _number,
    "int": _integer,
    "int | None": _optional_integer,
    "tuple[int, ...]": _token_ids,
    "tuple[str, ...]": _strings,
    "Mapping[int, float] | None": _optional_bias,
}


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """The sampling settings and the end conditions of one request. Frozen and hashable, for `dataclasses.replace`.

    - `temperature`: divides the logits; 0 is greedy, and the filters are not applied.
    - `top_k`, `top_p`, `min_p`, `typical_p`, `xtc_probability`, `xtc_threshold`: see the functions `apply_*`.
    - `repetition_penalty`: for the tokens of the prompt and of the answer; `presence_penalty` and
      `frequency_penalty`: for those of the answer.
    - `logit_bias`: token id -> a number that is added to its logit.
    - `seed`: the same seed gives the same tokens, alone or in a batch; None draws a fresh one.
    - `stop`: strings that end the answer, or a single string; `stop_token_ids`: further tokens that end it.
    - `max_tokens`, `min_tokens`: of the answer. Before `min_tokens` no end token and no stop token is drawn.
    - `logprobs`: None for none, 0 for the chosen token's, n for those of the n top tokens too.
    - `thinking_budget`: the thinking block is closed after so many tokens, counted from where the prompt or the answer
      opened it; None for no limit.

    Raises `InputError`, which states the field, its range and the value.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    typical_p: float = 1.0
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    max_tokens: int = 256
    min_tokens: int = 0
    logprobs: int | None = None
    thinking_budget: int | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            check: Any = _CHECKS[str(field.type)]  # annotations are strings in this module
            object.__setattr__(self, field.name, check(field.name, getattr(self, field.name)))
        if self.min_tokens > self.max_tokens:
            expected = f"at most max_tokens, {self.max_tokens}: lower it or raise max_tokens"
            raise _refusal("min_tokens", expected, self.min_tokens)


def _checked(logits: mx.array) -> mx.array:
    if not isinstance(logits, mx.array) or not mx.issubdtype(logits.dtype, mx.floating):
        found = logits.dtype if isinstance(logits, mx.array) else type(logits).__name__
        raise InputError(f"logits must be an mx.array of a floating dtype; found {found}")
    if logits.ndim == 0 or logits.shape[-1] == 0:
        raise InputError(f"logits must be [..., V] with at least one token; found shape {logits.shape}")
    return logits


def _float32(logits: mx.array) -> mx.array:
    return _checked(logits).astype(mx.float32)


def _rank_keys(scores: mx.array) -> mx.array:
    """int64 [..., V], different for each token: lower keys for higher scores, with the id in the low 32 bits.

    The bits of floats compare like integers once those of negative numbers are inverted, so that one sort of integers
    ranks the tokens, breaks ties by id and gives the ids.
    """
    bits = (scores + 0.0).view(mx.int32)  # + 0.0 makes -0.0 equal to 0.0
    ascending = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return mx.arange(scores.shape[-1], dtype=mx.int64) - (ascending.astype(mx.int64) << 32)


def _ids(keys: mx.array) -> mx.array:
    return (keys & 0xFFFFFFFF).astype(mx.int32)


def _top_k(keys: mx.array, k: int) -> mx.array:
    """The keys of the k top tokens, in no order; 1 <= k <= V."""
    return mx.partition(keys, k - 1, axis=-1)[..., :k]


def _keep(logits: mx.array, kept: mx.array) -> mx.array:
    return mx.where(kept, logits, -mx.inf)


def _keep_mass(logits: mx.array, probs: mx.array, scores: mx.array, mass: float) -> mx.array:
    """Keep the fewest tokens, by `scores`, whose `probs` add up to `mass` of the total; at least one."""
    keys = _rank_keys(scores)
    ranked = mx.sort(keys, axis=-1)
    # Fixed point, 2**-40: float32 sums over a large vocabulary are off by 3e-4, and depend on their order.
    weights = (mx.take_along_axis(probs, _ids(ranked), axis=-1) * 2.0**40).astype(mx.int64)
    before = mx.cumsum(weights, axis=-1, inclusive=False)
    needed = before < (before[..., -1:] + weights[..., -1:]) * (mass * (1 - _TOLERANCE))
    last = mx.maximum(mx.sum(needed, axis=-1, keepdims=True) - 1, 0)
    return _keep(logits, keys <= mx.take_along_axis(ranked, last, axis=-1))


def apply_temperature(logits: mx.array, temperature: float) -> mx.array:
    """(Logits - the row's maximum) / temperature; subtracting leaves the distribution unchanged. `temperature` > 0."""
    logits, temperature = _float32(logits), _number("temperature", temperature)
    # With a maximum of 0 and a divisor that is a normal float32, no temperature gives inf or NaN.
    largest = mx.max(logits, axis=-1, keepdims=True)
    largest = mx.where(largest == -mx.inf, 0.0, largest)
    return (logits - largest) / max(temperature, _FLOAT32_TINY)


def apply_top_k(logits: mx.array, top_k: int) -> mx.array:
    """Keep the `top_k` most likely tokens (Fan et al. 2018); 0, or V and more, keeps all."""
    logits, top_k = _float32(logits), _integer("top_k", top_k)
    if not 0 < top_k < logits.shape[-1]:
        return logits
    keys = _rank_keys(logits)
    return _keep(logits, keys <= mx.max(_top_k(keys, top_k), axis=-1, keepdims=True))


def apply_top_p(logits: mx.array, top_p: float) -> mx.array:
    """Keep the fewest most likely tokens whose probabilities add up to `top_p` (nucleus; Holtzman et al. 2020)."""
    logits, top_p = _float32(logits), _number("top_p", top_p)
    if top_p == 1:
        return logits
    probs = mx.softmax(logits, axis=-1)
    # Tokens below (1 - p) / V add up to less than 1 - p, so none of them is needed. With equal scores they are sorted
    # already, which makes a CPU's sort of a peaked distribution much faster. (Half of it, because of rounding.)
    negligible = 0.5 * (1 - top_p) / logits.shape[-1]
    return _keep_mass(logits, probs, _keep(logits, probs >= negligible), top_p)


def apply_min_p(logits: mx.array, min_p: float) -> mx.array:
    """Keep the tokens with at least `min_p` times the top token's probability (Nguyen et al. 2024)."""
    logits, min_p = _float32(logits), _number("min_p", min_p)
    if min_p == 0:
        return logits
    return _keep(logits, logits >= mx.max(logits, axis=-1, keepdims=True) + (math.log(min_p) - _TOLERANCE))


def apply_typical(logits: mx.array, typical_p: float) -> mx.array:
    """Keep the fewest tokens whose probabilities add up to `typical_p`, those first whose -log p is nearest the entropy.

    Meister et al. 2022, "Locally Typical Sampling". Ties are ranked by id.
    """
    logits, typical_p = _float32(logits), _number("typical_p", typical_p)
    if typical_p == 1:
        return logits
    logprobs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    probs = mx.exp(logprobs)
    # A removed token adds nothing to the entropy; 0 * inf would be NaN.
    entropy = -mx.sum(mx.where(probs > 0, probs * logprobs, 0.0), axis=-1, keepdims=True)
    return _keep_mass(logits, probs, -mx.abs(logprobs + entropy), typical_p)


def apply_xtc(logits: mx.array, probability: float, threshold: float, key: mx.array) -> mx.array:
    """With `probability`, drawn for each row, remove all tokens of at least `threshold` except the least likely of them.

    "Exclude top choices" (p-e-w 2024). `key`: MLX's random key for the draw.
    """
    logits, probability = _float32(logits), _number("xtc_probability", probability)
    likely = mx.softmax(logits, axis=-1) >= _number("xtc_threshold", threshold) * (1 - _TOLERANCE)
    top = likely & (logits > -mx.inf)
    keys = _rank_keys(logits)
    least_likely = mx.max(mx.where(top, keys, mx.array(-(2**63), dtype=mx.int64)), axis=-1, keepdims=True)
    coin = mx.random.uniform(shape=(*logits.shape[:-1], 1), key=key) < probability
    return _keep(logits, ~(coin & top & (keys < least_likely)))


def apply_repetition_penalty(logits: mx.array, seen: mx.array, penalty: float) -> mx.array:
    """Divide the positive and multiply the negative logits of the tokens in `seen` [..., V] bool by `penalty`.

    Keskar et al. 2019 (CTRL), with the sign rule of transformers. Above 1 it discourages repetition.
    """
    logits, penalty = _float32(logits), _number("repetition_penalty", penalty)
    return mx.where(seen, mx.where(logits < 0, logits * penalty, logits / penalty), logits)


def apply_presence_frequency(logits: mx.array, counts: mx.array, presence: float, frequency: float) -> mx.array:
    """Subtract `presence` from the logits of tokens with `counts` [..., V] > 0, and `frequency` * `counts` (OpenAI)."""
    presence, frequency = _number("presence_penalty", presence), _number("frequency_penalty", frequency)
    return _float32(logits) - presence * (counts > 0) - frequency * counts


def _bias_vector(bias: Mapping[int, float], vocab_size: int) -> mx.array:
    """[V] float32: the bias of each token, 0 for the others."""
    for token in bias:
        if token >= vocab_size:
            raise InputError(f"logit_bias: there is no token {token} in a vocabulary of {vocab_size}; leave it out")
    vector = mx.zeros((vocab_size,), dtype=mx.float32)
    if bias:
        vector[mx.array(list(bias))] = mx.array(list(bias.values()), dtype=mx.float32)
    return vector


def apply_logit_bias(logits: mx.array, bias: Mapping[int, float]) -> mx.array:
    """Add `bias`, token id -> number, to the logits. Raises `InputError` for an id that isn't in the vocabulary."""
    logits = _float32(logits)
    return logits + _bias_vector(_optional_bias("logit_bias", bias) or {}, logits.shape[-1])


class Sampler(Protocol):
    """Draws tokens from logits; a request with one uses it instead of the filters and the draw here."""

    def sample(self, logits: mx.array, temperature: float) -> mx.array:
        """Logits [B, V] of a floating dtype -> tokens [B], int32 or uint32. It should be lazy, like everything here."""
        ...


class DefaultSampler:
    """Temperature 0: argmax. Else the filters of `params` (none by default), then a draw.

    The random keys are made from `seed`, else `params.seed`, else the system's entropy; the attribute `seed` has it.
    """

    def __init__(self, params: SamplingParams | None = None, *, seed: int | None = None) -> None:
        self._params = SamplingParams() if params is None else params
        self.seed = _resolve_seed(self._params.seed if seed is None else seed)
        self._key = mx.random.key(self.seed)

    def sample(self, logits: mx.array, temperature: float) -> mx.array:
        """Logits [B, V] -> tokens [B] int32. Raises `InputError` for a bad temperature, shape or dtype."""
        if _number("temperature", temperature) == 0:
            return mx.argmax(_checked(logits), axis=-1).astype(mx.int32)
        params, scores = self._params, apply_temperature(logits, temperature)
        self._key, coin_key, draw_key = mx.random.split(self._key, 3)
        ids = None
        if 0 < params.top_k < scores.shape[-1]:
            # apply_top_k, but the next filters get k tokens instead of V; in the order of ids, which decides ties.
            ids = mx.sort(_ids(_top_k(_rank_keys(scores), params.top_k)), axis=-1)
            scores = mx.take_along_axis(scores, ids, axis=-1)
        if params.top_p < 1:
            scores = apply_top_p(scores, params.top_p)
        if params.min_p > 0:
            scores = apply_min_p(scores, params.min_p)
        if params.typical_p < 1:
            scores = apply_typical(scores, params.typical_p)
        if params.xtc_probability > 0:
            scores = apply_xtc(scores, params.xtc_probability, params.xtc_threshold, coin_key)
        # Gumbel-max: the noise of a token doesn't depend on the filters, so a draft that draws with the same key from a
        # similar distribution draws the same tokens. (It is also three times as fast as mx.random.categorical.)
        noise = mx.random.gumbel(logits.shape, key=draw_key)
        noise = noise if ids is None else mx.take_along_axis(noise, ids, axis=-1)
        drawn = mx.argmax(scores + noise, axis=-1).astype(mx.int32)
        return drawn if ids is None else mx.take_along_axis(ids, drawn[..., None], axis=-1)[..., 0]


def _resolve_seed(seed: int | None) -> int:
    return secrets.randbits(64) if seed is None else _integer("seed", seed)


@dataclass(frozen=True)
class TokenLogprob:
    """A token's natural log-probability before any filter, and those of the `top` tokens, most likely first."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


@dataclass(frozen=True, eq=False)
class LazyLogprobs:
    """A `TokenLogprob` on the device: `token`, `top_tokens` [n] int32, `logprob` [1], `top_logprobs` [n] float32."""

    token: mx.array
    logprob: mx.array
    top_tokens: mx.array
    top_logprobs: mx.array

    @property
    def arrays(self) -> tuple[mx.array, ...]:
        """The arrays to evaluate together with the token."""
        return (self.logprob, self.top_tokens, self.top_logprobs)

    def read(self) -> TokenLogprob:
        """The values on the host; evaluates the arrays."""
        host: list[Any] = [array.tolist() for array in (self.token, self.logprob, self.top_tokens, self.top_logprobs)]
        (token,), (logprob,), top_tokens, top_logprobs = host
        return TokenLogprob(token, logprob, tuple(zip(top_tokens, top_logprobs, strict=True)))


def _log_probabilities(logits: mx.array, token: mx.array, n: int) -> LazyLogprobs:
    """The log-probabilities of `token` [1] and of the `n` top tokens, or all V, for logits [1, V]."""
    logits = _float32(logits)
    norm = mx.logsumexp(logits, axis=-1)  # [1]
    top = mx.zeros((0,), dtype=mx.int32)
    if n > 0:
        top = _ids(mx.sort(_top_k(_rank_keys(logits[0]), min(n, logits.shape[-1])), axis=-1))
    return LazyLogprobs(token, logits[0, token] - norm, top, logits[0, top] - norm)


def _token_array(tokens: mx.array | Sequence[int]) -> mx.array:
    """Token ids [n] int64, in which no vocabulary size overflows."""
    if not isinstance(tokens, mx.array):
        return mx.array(_token_ids("prompt_tokens", tokens), dtype=mx.int64)
    if not mx.issubdtype(tokens.dtype, mx.integer):
        raise InputError(f"prompt_tokens must be integer token ids; found an mx.array of {tokens.dtype}")
    return tokens.reshape(-1).astype(mx.int64)


@dataclass(frozen=True)
class ThinkingTokens:
    """The tokens that open and close a thinking block."""

    open_id: int
    close_id: int

    def open_after(self, tokens: Sequence[int]) -> bool:
        """Whether a thinking block is open after `tokens`."""
        latest = next((token for token in reversed(tokens) if token in (self.open_id, self.close_id)), None)
        return latest == self.open_id


class RequestSampler:
    """The sampling of one request: its parameters, its seed and the tokens drawn so far.

    - `vocab_size`: V; without it, that of the first logits.
    - `prompt_tokens`: for the repetition penalty and an open thinking block; ids beyond the vocabulary don't count.
    - `end_token_ids`: the model's, which aren't drawn before `params.min_tokens`.
    - `thinking`: needed for `params.thinking_budget`; a block may be open at the end of `prompt_tokens`.
    - `sampler`: draws instead of a `DefaultSampler(params)`; bias, penalties and `min_tokens` are still applied first.

    The attribute `seed` is `params.seed`, or a fresh one from the system's entropy. Raises `InputError` for an argument
    of the wrong type, and for a token of `logit_bias` that isn't in the vocabulary.
    """

    def __init__(
        self,
        params: SamplingParams,
        *,
        vocab_size: int | None = None,
        prompt_tokens: mx.array | Sequence[int] = (),
        end_token_ids: Sequence[int] = (),
        thinking: ThinkingTokens | None = None,
        sampler: Sampler | None = None,
    ) -> None:
        if not isinstance(params, SamplingParams):
            raise _refusal("params", "a SamplingParams", params)
        if sampler is not None and not callable(getattr(sampler, "sample", None)):
            raise _refusal("sampler", "an object with a method sample(logits, temperature)", sampler)
        self.params = params
        self.seed = _resolve_seed(params.seed)
        self._sampler = DefaultSampler(params, seed=self.seed) if sampler is None else sampler
        self._end_ids = (*_token_ids("end_token_ids", end_token_ids), *params.stop_token_ids)
        self._prompt = _token_array(prompt_tokens) if params.repetition_penalty != 1 else None
        self._thinking = None if params.thinking_budget is None else thinking
        if self._thinking is not None:
            ids: Any = prompt_tokens.tolist() if isinstance(prompt_tokens, mx.array) else prompt_tokens
            self._inside = mx.array([self._thinking.open_after(ids)])  # [1] bool: in a thinking block
            self._thought = mx.array([0])  # [1]: tokens drawn in it
        self._drawn = 0
        self._vocab_size: int | None = None
        if vocab_size is not None:
            self._allocate(_integer("vocab_size", vocab_size))

    def _allocate(self, vocab_size: int) -> None:
        """Make the arrays [1, V] that the parameters need, float32 or bool."""
        params = self.params
        self._bias = _bias_vector(params.logit_bias, vocab_size)[None] if params.logit_bias else None
        self._end_bias: mx.array | None = None
        if params.min_tokens > 0:
            ends = {token: -math.inf for token in self._end_ids if token < vocab_size}
            self._end_bias = _bias_vector(ends, vocab_size)[None]
        self._seen: mx.array | None = None  # in prompt and answer
        if self._prompt is not None:
            inside = (self._prompt >= 0) & (self._prompt < vocab_size)
            seen = mx.zeros((vocab_size + 1,), dtype=mx.bool_)
            seen[mx.where(inside, self._prompt, vocab_size)] = True
            self._seen = seen[None, :vocab_size]
        self._counts: mx.array | None = None  # in the answer
        if params.presence_penalty != 0 or params.frequency_penalty != 0:
            self._counts = mx.zeros((1, vocab_size), dtype=mx.float32)
        self._ids = mx.arange(vocab_size, dtype=mx.int32)[None]
        self._vocab_size = vocab_size

    @property
    def is_greedy(self) -> bool:
        """Whether each token is the plain argmax of its logits: no bias, penalties, log-probabilities or budget."""
        params = self.params
        return (
            isinstance(self._sampler, DefaultSampler)
            and params.temperature == 0
            and not params.logit_bias
            and params.logprobs is None
            and params.min_tokens == 0
            and self._thinking is None
            and (params.repetition_penalty, params.presence_penalty, params.frequency_penalty) == (1, 0, 0)
        )

    def fork(self) -> Self:
        """An independent sampler in the same state; a `sampler` that was passed in is shared."""
        other = copy.copy(self)  # its arrays are replaced at each step, never changed
        if isinstance(self._sampler, DefaultSampler):
            other._sampler = copy.copy(self._sampler)
        return other

    def __call__(self, logits: mx.array) -> tuple[mx.array, LazyLogprobs | None]:
        """Floating logits [1, V] or [V] -> the next token, [1] int32, and its log-probabilities if `params` ask for them.

        Both are lazy. Raises `InputError` for logits of another shape or dtype, which leaves the state unchanged.
        """
        rows = logits[None] if isinstance(logits, mx.array) and logits.ndim == 1 else logits
        vocab_size = _checked(rows).shape[-1]
        if rows.shape != (1, vocab_size) or vocab_size != (self._vocab_size or vocab_size):
            expected = self._vocab_size or "V"
            raise InputError(f"logits must be [1, {expected}] or [{expected}]; found shape {logits.shape}")
        if self._vocab_size is None:
            self._allocate(vocab_size)
        token = self._draw(self._adjust(rows))
        if self._seen is not None or self._counts is not None:
            hit = self._ids == token[:, None]
            self._seen = None if self._seen is None else self._seen | hit
            self._counts = None if self._counts is None else self._counts + hit
        if self._thinking is not None:
            closes = token == self._thinking.close_id
            self._thought = self._thought + (self._inside & ~closes)
            self._inside = (self._inside | (token == self._thinking.open_id)) & ~closes
        self._drawn += 1
        wanted = self.params.logprobs
        return token, None if wanted is None else _log_probabilities(rows, token, wanted)

    def _adjust(self, logits: mx.array) -> mx.array:
        params = self.params
        if self._bias is not None:
            logits = logits + self._bias
        if self._seen is not None:
            logits = apply_repetition_penalty(logits, self._seen, params.repetition_penalty)
        if self._counts is not None:
            logits = apply_presence_frequency(logits, self._counts, params.presence_penalty, params.frequency_penalty)
        if self._end_bias is not None and self._drawn < params.min_tokens:
            logits = logits + self._end_bias
        if self._thinking is not None and params.thinking_budget is not None:
            spent = self._inside & (self._thought >= params.thinking_budget)
            close = mx.where(self._ids == self._thinking.close_id, 0.0, -mx.inf)
            logits = mx.where(spent[:, None], close, _float32(logits))
        return logits

    def _draw(self, logits: mx.array) -> mx.array:
        token = self._sampler.sample(logits, self.params.temperature)
        if not isinstance(token, mx.array) or token.size != 1 or not mx.issubdtype(token.dtype, mx.integer):
            found = f"{token.dtype} {token.shape}" if isinstance(token, mx.array) else type(token).__name__
            raise InputError(f"a sampler must return tokens [1] int32 or uint32 for logits [1, V]; found {found}")
        return token.reshape(1).astype(mx.int32)


def draw_rows(samplers: Sequence[RequestSampler], logits: mx.array) -> tuple[mx.array, list[LazyLogprobs | None]]:
    """Logits [B, V], one row for each request -> tokens [B] int32 and their log-probabilities. Lazy."""
    if all(sampler.is_greedy for sampler in samplers):
        return mx.argmax(_checked(logits), axis=-1).astype(mx.int32), [None] * len(samplers)
    drawn = [sampler(logits[row : row + 1]) for row, sampler in enumerate(samplers)]
    return mx.concatenate([token for token, _ in drawn]), [logprobs for _, logprobs in drawn]
