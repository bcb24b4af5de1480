"""Continuous integrate-and-fire (CIF): the number of tokens, and an acoustic embedding of each.

Each frame has a weight, alpha. They are added up; where the sum passes a whole number a token fires, made of the frames
since the last one, the frame at the border shared by both. As a product, with S the sum up to and with frame t:

    E = w @ hidden, w[j, t] = max(0, min(S[t], j + 1) - max(S[t - 1], j))

Paper: https://arxiv.org/abs/1905.11235. Reference: FunASR 1.4.16, `CifPredictorV2` and `CifPredictorV3`. `B` batch, `T`
frames, `N` tokens, `D` width, `U` times upsampled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import numpy.typing as npt

from mlx_core.config import BaseConfig
from mlx_core.errors import ConfigError
from mlx_core.models import Conv1d, ConvTranspose1d, check_sizes
from mlx_core.ops import multi_head

from .lstm import LSTM
from .sanm import LAYER_NORM_EPS, FeedForward

_Floats = npt.NDArray[np.float32]
_Ints = npt.NDArray[np.int32]
_Bools = npt.NDArray[np.bool_]

# Where the timestamps' sum fires: just below one, so that rounding loses no token.
_TIMESTAMP_THRESHOLD = float(np.float32(1 - 1e-4))

_UPSAMPLE_HEADS = 4


@dataclass(frozen=True, kw_only=True)
class PredictorConfig(BaseConfig):
    """The `predictor_conf` of a config.yaml; FunASR's defaults."""

    idim: int
    l_order: int
    r_order: int
    threshold: float = 1.0
    """Of V3; V2 fires at 1 whatever this says, as in FunASR."""
    smooth_factor: float = 1.0
    noise_threshold: float = 0.0
    tail_threshold: float = 0.0
    """The weight of a frame of nothing after the last one, for a token that isn't quite complete."""
    smooth_factor2: float = 1.0
    noise_threshold2: float = 0.0
    upsample_times: int = 5
    upsample_type: str = "cnn"
    use_cif1_cnn: bool = True

    def __post_init__(self) -> None:
        check_sizes(self, ("idim", "upsample_times"))
        if not (0 <= self.l_order < 2**16 and 0 <= self.r_order < 2**16):
            raise ConfigError(
                f"predictor_conf: l_order and r_order must be from 0 to 65535; found {self.l_order}, {self.r_order}."
            )
        if self.upsample_type not in ("cnn", "cnn_blstm", "cnn_attn"):
            raise ConfigError(
                f"predictor_conf: upsample_type must be 'cnn', 'cnn_blstm' or 'cnn_attn'; found {self.upsample_type!r}."
            )


@dataclass(frozen=True)
class CifOutput:
    """The acoustic embeddings of a batch, and the weights and peaks that they were made by."""

    acoustic_embeds: mx.array
    """`[B, N, D]`, zero beyond a row's tokens."""
    token_num: npt.NDArray[np.int32]
    """`[B]`."""
    alphas: mx.array
    """`[B, T + 1]`, or `[B, T]` without a tail."""
    peaks: mx.array
    """The sum since the last token, 1 or more where one fires; as long as alphas."""


class CifPredictor(nn.Module):
    """`CifPredictorV2`."""

    catch_up: ClassVar[bool] = False
    """Whether a frame of more than a whole token makes the next one fire too."""

    def __init__(self, config: PredictorConfig) -> None:
        super().__init__()
        self.config = config
        self.cif_conv1d = Conv1d(config.idim, config.idim, config.l_order + config.r_order + 1)
        self.cif_output = nn.Linear(config.idim, 1)

    def __call__(self, hidden: mx.array, mask: mx.array | None, lengths: npt.NDArray[np.integer]) -> CifOutput:
        """The speech `[B, T, D]`, zero in the padding, with its mask `[B, T]` and lengths `[B]`.

        In float32 whatever the weights are: the tokens are counted by it.
        """
        dtype, hidden = hidden.dtype, hidden.astype(mx.float32)
        alphas = np.array(self.alphas(hidden, mask))
        tail = self.config.tail_threshold > 0
        if tail:
            alphas = np.pad(alphas, [(0, 0), (0, 1)])
            alphas[np.arange(len(alphas)), lengths] += np.float32(self.config.tail_threshold)
            hidden = mx.pad(hidden, [(0, 0), (0, 1), (0, 0)])
        weights, token_num, peaks = integrate_and_fire(alphas, self.catch_up, tail)
        embeds = mx.array(weights) @ hidden
        return CifOutput(embeds.astype(dtype), token_num, mx.array(alphas), mx.array(peaks))

    def alphas(self, hidden: mx.array, mask: mx.array | None) -> mx.array:
        """The weight of each frame, `[B, T, D] -> [B, T]`; differentiable."""
        if 0 in hidden.shape:
            return mx.zeros(hidden.shape[:2])
        return _frame_weights(
            self.cif_output(self.convolve(hidden)), self.config.smooth_factor, self.config.noise_threshold, mask
        )

    def convolve(self, hidden: mx.array) -> mx.array:
        """Frames and their neighbours, `[B, T, D] -> [B, T, D]`."""
        padded = mx.pad(hidden, [(0, 0), (self.config.l_order, self.config.r_order), (0, 0)])
        return nn.relu(self.cif_conv1d(padded))


class TimestampPredictor(CifPredictor):
    """`CifPredictorV3`: beside the tokens, weights at a finer grain that say when they were spoken."""

    catch_up = True

    def __init__(self, config: PredictorConfig) -> None:
        super().__init__(config)
        if config.threshold != 1:
            raise ConfigError(
                f"predictor_conf: threshold must be 1, as in every released model; found {config.threshold}."
            )
        width, times = config.idim, config.upsample_times
        self.upsample_cnn = ConvTranspose1d(width, width, times, stride=times, padding=0)
        if config.upsample_type == "cnn_blstm":
            self.blstm = LSTM(width, width, bidirectional=True)
        elif config.upsample_type == "cnn_attn":
            self.self_attn = UpsampledAttention(width)
        self.cif_output2 = nn.Linear(2 * width if config.upsample_type == "cnn_blstm" else width, 1)

    def timestamps(
        self,
        hidden: mx.array,
        mask: mx.array | None,
        lengths: npt.NDArray[np.integer],
        token_num: npt.NDArray[np.integer],
    ) -> tuple[mx.array, mx.array]:
        """Weights and peaks `[B, T U]` of the speech `[B, T, D]`; a row's weights add up to its tokens."""
        times = self.config.upsample_times
        if 0 in hidden.shape:
            nothing = mx.zeros((hidden.shape[0], hidden.shape[1] * times))
            return nothing, nothing
        hidden = hidden.astype(mx.float32)
        x = self.upsample_cnn(self.convolve(hidden) if self.config.use_cif1_cnn else hidden)
        fine = None if mask is None else mx.repeat(mask, times, axis=1)
        if "blstm" in self:
            x = self.blstm(x, lengths * times)
        elif "self_attn" in self:
            x = self.self_attn(x, fine)
        raw = _frame_weights(self.cif_output2(x), self.config.smooth_factor2, self.config.noise_threshold2, fine)
        alphas = np.array(raw)
        total = alphas.sum(axis=1, dtype=np.float64).astype(np.float32)
        share = np.divide(token_num.astype(np.float32), total, out=np.zeros_like(total), where=total > 0)
        alphas = alphas * share[:, None]
        peaks, _ = _fire(alphas, _TIMESTAMP_THRESHOLD)
        return mx.array(alphas), mx.array(peaks)


class UpsampledAttention(nn.Module):
    """A transformer's layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.self_attn = PlainAttention(width)
        self.feed_forward = FeedForward(width, 2 * width)
        self.norm1 = nn.LayerNorm(width, LAYER_NORM_EPS)
        self.norm2 = nn.LayerNorm(width, LAYER_NORM_EPS)

    def __call__(self, x: mx.array, mask: mx.array | None) -> mx.array:
        x = x + self.self_attn(self.norm1(x), mask)
        return x + self.feed_forward(self.norm2(x))


class PlainAttention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        if width % _UPSAMPLE_HEADS:
            raise ConfigError(f"predictor_conf: idim must be a multiple of {_UPSAMPLE_HEADS} for 'cnn_attn'.")
        self.linear_q = nn.Linear(width, width)
        self.linear_k = nn.Linear(width, width)
        self.linear_v = nn.Linear(width, width)
        self.linear_out = nn.Linear(width, width)

    def __call__(self, x: mx.array, mask: mx.array | None) -> mx.array:
        q, k, v = self.linear_q(x), self.linear_k(x), self.linear_v(x)
        return self.linear_out(multi_head(q, k, v, _UPSAMPLE_HEADS, mask=mask))


def make_predictor(name: str, config: dict[str, Any]) -> CifPredictor:
    """The predictor that a config.yaml names. Raises ConfigError."""
    kinds = {"CifPredictorV2": CifPredictor, "CifPredictorV3": TimestampPredictor}
    if name not in kinds:
        raise ConfigError(f"predictor must be {' or '.join(kinds)}; found {name!r}.")
    return kinds[name](PredictorConfig.from_dict(config))


def _frame_weights(logits: mx.array, smooth: float, noise: float, mask: mx.array | None) -> mx.array:
    """The weight of each frame from its logit: `[B, T, 1] -> [B, T]`."""
    alphas = nn.relu(mx.sigmoid(logits.squeeze(-1)) * smooth - noise)
    return alphas if mask is None else alphas * mask


def cif_weights(alphas: mx.array, count: int) -> mx.array:
    """The share of each frame in each of the first `count` tokens: alphas `[B, T]` -> w `[B, N, T]`, differentiable.

    In float32: for training, where alphas are scaled to add up to the tokens that there are.
    """
    total = mx.cumsum(alphas, axis=1)[:, None]  # [B, 1, T]
    before = total - alphas[:, None]
    token = mx.arange(count, dtype=alphas.dtype)[:, None]
    return mx.maximum(0, mx.minimum(total, token + 1) - mx.maximum(before, token))


def integrate_and_fire(alphas: _Floats, catch_up: bool, tail: bool) -> tuple[_Floats, _Ints, _Floats]:
    """Alphas `[B, T]` -> w `[B, N, T]`, tokens `[B]`, peaks `[B, T]`; N is the largest number of tokens in a row.

    catch_up: see `_fire`. tail: whether the sum has one, and is rounded down; without one it is rounded, though nothing
    of a token that didn't fire is in w. The sums are float64, rounded once: in float32 long recordings would lose or
    gain tokens.
    """
    peaks, fired = _fire(alphas, 1.0) if catch_up else _pass(alphas)
    rest = np.where(fired, peaks - 1, 0)  # the next token's share of the frame
    total = alphas.sum(axis=1, dtype=np.float64).astype(np.float32)
    token_num = (np.floor(total) if tail else np.rint(total)).astype(np.int32)
    fires = fired.sum(axis=1)
    token: npt.NDArray[np.int64] = np.cumsum(fired, axis=1) - fired  # the one that a frame begins in
    count = int(token_num.max(initial=0))
    room = max(count, int(fires.max(initial=0)) + 1)
    weights = np.zeros((alphas.shape[0], room, alphas.shape[1]), np.float32)
    np.put_along_axis(weights, (token + fired).astype(np.int64)[:, None], rest[:, None], axis=1)
    np.put_along_axis(weights, token[:, None], (alphas - rest)[:, None], axis=1)
    whole = np.arange(room) < np.minimum(fires, token_num)[:, None]
    return (weights * whole[..., None])[:, :count], token_num, peaks


def _pass(alphas: _Floats) -> tuple[_Floats, _Bools]:
    """The sum since it last passed a whole number, before it is reduced, and where it does so: `[B, T]` both."""
    total = np.cumsum(alphas, axis=1, dtype=np.float64).astype(np.float32)
    whole = np.floor(total)
    fired = np.diff(whole, axis=1, prepend=np.float32(0)) > 0
    return fired + (total - whole), fired


def _fire(alphas: _Floats, threshold: float) -> tuple[_Floats, _Bools]:
    """The sum since the last firing, before it is reduced, and where it fires: `[B, T]` both.

    A frame fires once at most; the rest is left to the next. With F(t) = floor(S(t) / threshold), the number that have
    fired by frame t is the least of t + 1 and of F(s) + t - s over s <= t.
    """
    total = np.cumsum(alphas, axis=1, dtype=np.float64)
    frame = np.arange(alphas.shape[1])
    # S rounded to float32, as the count of tokens is: the last one fires where it is whole but for rounding
    passed = np.floor(total.astype(np.float32) / np.float32(threshold)).astype(np.int64)
    count = np.minimum(np.minimum.accumulate(passed - frame, axis=1) + frame, frame + 1)
    before = np.concatenate([np.zeros_like(count[:, :1]), count[:, :-1]], axis=1)
    fired = count > before
    peaks = total - before * threshold
    return np.where(fired, np.maximum(peaks, threshold), peaks).astype(np.float32), fired
