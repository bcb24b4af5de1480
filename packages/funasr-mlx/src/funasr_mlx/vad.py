"""FSMN-VAD: where somebody speaks.

Frames pass linear layers of which each remembers: an FSMN adds to every frame a weighted sum, channel by channel, of
those before it (and after it). What comes out is the probability of each class of sounds; the first is silence.
`vad_detector` makes segments of that.

Paper: https://arxiv.org/abs/1803.05030. Reference: FunASR 1.4.16, `models/fsmn_vad_streaming`.
`B` batch, `T` frames, `D` width of the memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import numpy.typing as npt

from mlx_core import backend
from mlx_core.audio import resample
from mlx_core.audio.samples import AnySamples, Samples, as_samples
from mlx_core.config import BaseConfig
from mlx_core.errors import AudioError, ConfigError, InputError
from mlx_core.models import CheckpointModule, check_sizes
from mlx_core.ops import conv1d

from .folder import open_folder, table
from .frontend import Frontend, as_features, make_frontend
from .online import OnlineFrontend
from .vad_detector import Detector, VADOptions

Cache = list[mx.array]
"""For each layer the frames `[B, (lorder - 1) lstride, D]` that the next chunk still sees."""

Schedule = Sequence[tuple[float, float]]

SILENCE_SCHEDULE: Schedule = (
    (10_000, 2000),
    (20_000, 1000),
    (30_000, 800),
    (40_000, 600),
    (50_000, 400),
    (60_000, 200),
    (float("inf"), 100),
)
"""Dynamic end silence, in ms: after so much speech without a pause, so much silence ends a segment."""

_DYNAMIC_MARGIN = 0.5  # the reference's speech_noise_thres wherever the end silence is dynamic
_FILE_CHUNK_MS = 60_000
_WHOLE_SEGMENTS_MS = 15_000  # chunks from this length on tell of whole segments alone
_DECIBEL_FLOOR = 1e-6
_FEW_FRAMES = 256  # of a stream: few operations are faster than few products


@dataclass(frozen=True, kw_only=True)
class FSMNConfig(BaseConfig):
    """The `encoder_conf` of a config.yaml."""

    input_dim: int
    input_affine_dim: int
    fsmn_layers: int
    linear_dim: int
    proj_dim: int
    lorder: int
    rorder: int
    lstride: int
    rstride: int
    output_affine_dim: int
    output_dim: int
    use_softmax: bool = True

    def __post_init__(self) -> None:
        check_sizes(self, ("input_dim", "input_affine_dim", "linear_dim", "proj_dim", "output_affine_dim"))
        check_sizes(self, ("output_dim", "lorder", "lstride"))
        check_sizes(self, ("fsmn_layers",), 4096)
        if not 0 <= self.rorder <= 2**20 or (self.rorder and not 1 <= self.rstride <= 2**20):
            raise ConfigError(
                f"encoder_conf: rorder must be 0 or more and then rstride at least 1; found {self.rorder} and "
                f"{self.rstride}."
            )
        if not self.use_softmax:
            raise ConfigError("encoder_conf: use_softmax must be true: segments are made from probabilities.")


class VAD(CheckpointModule):
    """FSMN-VAD. `load_vad` makes one of a folder."""

    model_type = "fsmn-vad"

    def __init__(self, config: FSMNConfig, options: VADOptions, frontend: Frontend) -> None:
        super().__init__()
        self.config = config
        self.options = options
        self.frontend = frontend
        """Samples `[S]` -> features `[T, F]`."""
        self.encoder = FSMN(config)

    @classmethod
    def build(cls, config: Mapping[str, Any], weights: Mapping[str, mx.array]) -> Self:
        sizes = FSMNConfig.from_dict(table(config, "encoder_conf"))
        options = VADOptions.from_dict(table(config, "model_conf"))
        frontend = make_frontend(table(config, "frontend_conf"), None)
        if max(options.sil_pdf_ids) >= sizes.output_dim:
            raise ConfigError(f"sil_pdf_ids {options.sil_pdf_ids} must be among {sizes.output_dim} classes.")
        if frontend.config.width != sizes.input_dim:
            raise ConfigError(
                f"input_dim must be n_mels lfr_m, {frontend.config.width}, what the front end makes; found "
                f"{sizes.input_dim}."
            )
        _check_times(options, frontend)
        return cls(sizes, options, frontend)

    def __call__(self, features: npt.ArrayLike | mx.array, cache: Cache | None = None) -> mx.array:
        """Features `[B, T, F]` -> probabilities `[B, T, classes]`.

        cache: of `make_cache`, for one chunk after the other; it's changed. Raises InputError for other shapes.
        """
        features = as_features(features, self.config.input_dim)
        return self.encoder(features, self.make_cache(features.shape[0]) if cache is None else cache)

    def make_cache(self, batch: int = 1) -> Cache:
        """What a recording's first chunk is given: silence before it."""
        shape = (batch, (self.config.lorder - 1) * self.config.lstride, self.config.proj_dim)
        return [mx.zeros(shape) for _ in self.encoder.fsmn]

    def segment(
        self,
        samples: AnySamples,
        *,
        sample_rate: int | None = None,
        dynamic_silence: bool | None = None,
        silence_schedule: Schedule = SILENCE_SCHEDULE,
        **thresholds: Any,
    ) -> list[tuple[int, int]]:
        """Where a recording `[S]`, floats in [-1, 1], has speech: first and last ms of each segment.

        sample_rate: in Hz, None for the model's. thresholds: any of `VADOptions`, None for the model's own. Without
        `max_end_silence_time` the end silence is dynamic, as in `silence_schedule`, and `speech_noise_thres` is 0.5,
        whatever is said of it, unless `dynamic_silence` is False.

        Memory is bounded by a minute's features. Raises AudioError for NaN, infinity or several channels, InputError
        for thresholds.
        """
        rate = self.frontend.sample_rate
        array = _mono(samples)
        if sample_rate is not None and sample_rate != rate:
            array = resample(array, sample_rate, rate)
        stream = self.stream(
            chunk_size=_FILE_CHUNK_MS, dynamic_silence=dynamic_silence, silence_schedule=silence_schedule, **thresholds
        )
        return [(start, end) for start, end in stream.feed(array, final=True)]

    def stream(
        self,
        *,
        chunk_size: float = 200,
        dynamic_silence: bool | None = None,
        silence_schedule: Schedule = SILENCE_SCHEDULE,
        **thresholds: Any,
    ) -> VADStream:
        """For a recording that goes on. chunk_size: ms that are looked at together; the rest is as in `segment`."""
        if dynamic_silence is None:
            dynamic_silence = thresholds.get("max_end_silence_time") is None
        options = self.options.replaced(thresholds)
        if options.sil_pdf_ids != self.options.sil_pdf_ids and max(options.sil_pdf_ids) >= self.config.output_dim:
            raise InputError(f"sil_pdf_ids {options.sil_pdf_ids} must be among {self.config.output_dim} classes.")
        try:
            _check_times(options, self.frontend)
        except ConfigError as error:
            raise InputError(str(error)) from error
        return VADStream(self, options, chunk_size, silence_schedule if dynamic_silence else None)


class VADStream:
    """One recording after the other, in pieces of any length."""

    def __init__(self, vad: VAD, options: VADOptions, chunk_ms: float, schedule: Schedule | None) -> None:
        self._vad, self._options, self._chunk_ms, self._schedule = vad, options, chunk_ms, schedule
        self._chunk_samples = int(chunk_ms * vad.frontend.sample_rate / 1000)
        if self._chunk_samples < 1:
            raise InputError(f"chunk_size must be a sample or more, in ms; found {chunk_ms!r}.")
        self.reset()

    def reset(self) -> None:
        """Begin another recording."""
        self._online = OnlineFrontend(self._vad.frontend)
        self._cache = self._vad.make_cache()
        self._detector = Detector(self._options)
        self._samples: Samples = np.zeros(0, np.float32)  # less than a chunk
        self._decibels: npt.NDArray[np.float64] = np.zeros(0)  # of frames that have no row yet
        self._end_silence_ms = self._options.max_end_silence_time - self._options.speech_to_sil_time_thres
        self._margin = self._options.speech_noise_thres
        self._told = False  # of the open segment's beginning
        self._speech_ms: float = 0  # without a pause, for the dynamic end silence
        self._in_speech = False

    def feed(self, samples: AnySamples, final: bool = False) -> list[list[int]]:
        """The next samples `[S]`, at the model's rate -> what has been found, in ms: `[start, end]`, `[start, -1]` for
        a segment that goes on, `[-1, end]` for its end.

        With chunks of 15 s or more: whole segments alone. final: the recording ends here; the next piece begins
        another. Raises AudioError for NaN, infinity or several channels.
        """
        array = _mono(samples)
        if self._samples.size:
            array = np.concatenate([self._samples, array])
        size = self._chunk_samples
        events = []
        # A recording that ends with a full chunk has an empty one after it.
        end = array.size + 1 if final else array.size - size + 1
        starts = range(0, end, size)
        for start in starts:
            events += self._chunk(array[start : start + size], final and start == starts[-1])
        self._samples = array[len(starts) * size :].copy()
        if final:
            self.reset()
        return events

    def _chunk(self, samples: Samples, final: bool) -> list[list[int]]:
        self._schedule_silence()
        rows, decibels = self._features(samples, final)
        if not rows.shape[0]:
            return []
        posteriors = np.asarray(self._vad(rows[None], self._cache)[0].astype(mx.float32))
        mx.eval(self._cache)
        silence = posteriors[:, self._options.sil_pdf_ids].astype(np.float64).sum(axis=1)
        self._detector.feed(silence, decibels, end_silence_ms=self._end_silence_ms, margin=self._margin, final=final)
        events = self._events(final)
        if events:
            self._speech_ms, self._in_speech = 0, False
        return events

    def _schedule_silence(self) -> None:
        """Dynamic end silence: the longer somebody has spoken by the chunk, the shorter."""
        if self._schedule is None:
            return
        if self._in_speech or self._detector.open is not None:
            self._speech_ms += self._chunk_ms
            self._in_speech = True
        for most_ms, silence_ms in self._schedule:
            if self._speech_ms <= most_ms:
                self._end_silence_ms = max(silence_ms - self._options.speech_to_sil_time_thres, 0)
                self._margin = _DYNAMIC_MARGIN
                break

    def _features(self, samples: Samples, final: bool) -> tuple[mx.array, npt.NDArray[np.float64]]:
        """Samples -> rows of features `[T, F]` and the decibels `[T]` of the frames that they begin at."""
        frames, span = self._online.frames(samples)
        fbank = self._vad.frontend.config.fbank()
        loud = _decibels(span, fbank.frame_samples, fbank.shift_samples)
        known = np.concatenate([self._decibels, loud])
        rows = self._online.rows(frames, final)
        step = self._vad.frontend.config.lfr_n
        used = known[: rows.shape[0] * step : step]
        self._decibels = known[rows.shape[0] * step :]
        return rows, np.pad(used, (0, rows.shape[0] - used.size), constant_values=-np.inf)

    def _events(self, final: bool) -> list[list[int]]:
        """What this chunk has to tell."""
        detector, shift = self._detector, self._options.frame_in_ms
        closed = [[start * shift, end * shift] for start, end in detector.segments]
        detector.segments.clear()
        if self._chunk_ms >= _WHOLE_SEGMENTS_MS:
            if final and detector.open is not None:
                closed.append([detector.open * shift, detector.frames * shift])
            return closed
        if closed and self._told:
            closed[0][0], self._told = -1, False
        if detector.open is not None and not self._told:
            closed.append([detector.open * shift, -1])
            self._told = True
        return closed


class FSMN(nn.Module):
    """`[B, T, F] -> [B, T, classes]`."""

    def __init__(self, config: FSMNConfig) -> None:
        super().__init__()
        self.in_linear1 = Linear(config.input_dim, config.input_affine_dim)
        self.in_linear2 = Linear(config.input_affine_dim, config.linear_dim)
        self.fsmn = [Block(config) for _ in range(config.fsmn_layers)]
        self.out_linear1 = Linear(config.linear_dim, config.output_affine_dim)
        self.out_linear2 = Linear(config.output_affine_dim, config.output_dim)

    def __call__(self, x: mx.array, cache: Cache) -> mx.array:
        x = nn.relu(self.in_linear2(self.in_linear1(x)))
        for i, block in enumerate(self.fsmn):
            x, cache[i] = block(x, cache[i])
        return mx.softmax(self.out_linear2(self.out_linear1(x)), axis=-1)


class Block(nn.Module):
    """A narrow memory between two linear layers."""

    def __init__(self, config: FSMNConfig) -> None:
        super().__init__()
        self.linear = Linear(config.linear_dim, config.proj_dim, bias=False)
        self.fsmn_block = Memory(config)
        self.affine = Linear(config.proj_dim, config.linear_dim)

    def __call__(self, x: mx.array, before: mx.array) -> tuple[mx.array, mx.array]:
        x, before = self.fsmn_block(self.linear(x), before)
        return nn.relu(self.affine(x)), before


class Linear(nn.Module):
    """A linear layer under the checkpoint's name."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias)

    def __call__(self, x: mx.array) -> mx.array:
        return self.linear(x)


class Taps(nn.Module):
    """A depthwise convolution over time: `[B, T + (K - 1) stride, D] -> [B, T, D]`."""

    checkpoint_axes = (0, 2, 1, 3)  # [D, 1, K, 1] -> [D, K, 1, 1]

    def __init__(self, width: int, taps: int, stride: int) -> None:
        super().__init__()
        self.weight = mx.zeros((width, taps, 1, 1))
        self._stride = stride

    def __call__(self, x: mx.array) -> mx.array:
        B, L, D = x.shape
        taps = self.weight.reshape(D, -1)
        count = L - (taps.shape[1] - 1) * self._stride
        if count > _FEW_FRAMES:
            return conv1d(x, taps[..., None], dilation=self._stride, groups=D)
        shape, strides = (B, count, taps.shape[1], D), (L * D, D, self._stride * D, 1)
        return (mx.as_strided(mx.contiguous(x), shape, strides) * taps.T).sum(axis=2)


class Memory(nn.Module):
    """x plus what it remembers of the frames before it, and foresees of those after it within a chunk."""

    def __init__(self, config: FSMNConfig) -> None:
        super().__init__()
        self.conv_left = Taps(config.proj_dim, config.lorder, config.lstride)
        if config.rorder:
            self.conv_right = Taps(config.proj_dim, config.rorder, config.rstride)
        self._ahead = config.rorder * config.rstride
        self._rstride = config.rstride

    def __call__(self, x: mx.array, before: mx.array) -> tuple[mx.array, mx.array]:
        """`[B, T, D]` and the frames before it -> `[B, T, D]` and the frames before the next chunk."""
        seen = mx.concatenate([before, x], axis=1)
        y = x + self.conv_left(seen)
        if self._ahead:
            y = y + self.conv_right(mx.pad(x, [(0, 0), (0, self._ahead), (0, 0)])[:, self._rstride :])
        return y, seen[:, seen.shape[1] - before.shape[1] :]


@backend.worker_streams()
def load_vad(path: str | Path) -> VAD:
    """The VAD of FunASR's folder (config.yaml, model.pt, am.mvn) or of a converted one.

    Raises MissingCheckpointError where there is none, ConfigError and WeightsError for one that doesn't fit.
    """
    folder = open_folder(path)
    if folder.kind != "FsmnVADStreaming":
        raise ConfigError(f"{path} holds a {folder.kind!r}; expected a 'FsmnVADStreaming'. Give the VAD's folder.")
    vad = VAD.from_state_dict(folder.config, folder.weights())
    vad.frontend = folder.frontend()
    return vad


def merge_segments(
    segments: Sequence[Sequence[int]], max_ms: float = 15000, min_ms: float = 0
) -> list[tuple[int, int]]:
    """Segments joined to longer ones of at most `max_ms`, where their edges allow it, and above `min_ms`.

    As FunASR's `merge_vad`: the first begins at 0, and each begins where the one before it ends, so that nothing is
    left out; a single segment stays as it is.
    """
    if len(segments) <= 1:
        return [(start, end) for start, end in segments]
    edges = sorted({edge for segment in segments for edge in segment})
    merged, begin = [], 0
    for edge, following in itertools.pairwise(edges):
        if following - begin >= max_ms:
            if edge - begin > min_ms:
                merged.append((begin, edge))
            begin = edge
    return [*merged, (begin, edges[-1])]


def _mono(samples: AnySamples) -> Samples:
    array = as_samples(samples)
    if array.ndim != 1:
        raise AudioError(f"samples must be [samples], found {list(array.shape)}. Mix channels, or take one.")
    return array


def _check_times(options: VADOptions, frontend: Frontend) -> None:
    """Raise ConfigError unless detector and front end speak of the same frames."""
    config = frontend.config
    found = (options.sample_rate, options.frame_in_ms, options.frame_length_ms)
    expected = (config.fs, config.row_ms, config.frame_length)
    if found != expected:
        raise ConfigError(
            f"model_conf: sample_rate, frame_in_ms and frame_length_ms must be those of frontend_conf, {expected}; "
            f"found {found}."
        )


def _decibels(samples: Samples, length: int, shift: int) -> npt.NDArray[np.float64]:
    """The energy of each frame `[T]`, of samples that end with the last frame."""
    if samples.size < length:
        return np.zeros(0)
    part = int(np.gcd(length, shift))  # frames overlap: add up what they share once
    energies = np.square(samples[: samples.size // part * part], dtype=np.float64).reshape(-1, part).sum(axis=1)
    frames = np.lib.stride_tricks.sliding_window_view(energies, length // part)[:: shift // part]
    decibels: npt.NDArray[np.float64] = 10 * np.log10(frames.sum(axis=1) + _DECIBEL_FLOOR)
    return decibels
