"""FSMN-VAD: the segments of a recording that have speech, whole or while it goes on.

    samples -> features -> FSMN: probability of silence -> Detector: segments

Reference: FunASR 1.4.16, `models/fsmn_vad_streaming`. `B` batch, `T` frames, `F` features.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from mlx_core import backend
from mlx_core.audio import resample
from mlx_core.errors import ConfigError, InputError
from mlx_core.models import CheckpointModule

from ..config import table
from ..folder import open_folder
from ..frontend import AnySamples, Frontend, OnlineFrontend, Samples, as_features, make_frontend, mono_samples
from ..networks import FSMN, FSMNCache, FSMNConfig
from .detector import Detector, VADOptions

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
                f"input_dim must be n_mels lfr_m, {frontend.config.width}, the width of the front end; found "
                f"{sizes.input_dim}."
            )
        _check_times(options, frontend)
        return cls(sizes, options, frontend)

    def __call__(self, features: npt.ArrayLike | mx.array, cache: FSMNCache | None = None) -> mx.array:
        """Features `[B, T, F]` -> probabilities `[B, T, classes]`.

        cache: of `make_cache`, for one chunk after the other; it's changed. Raises InputError for other shapes.
        """
        features = as_features(features, self.config.input_dim)
        return self.encoder(features, self.make_cache(features.shape[0]) if cache is None else cache)

    def make_cache(self, batch: int = 1) -> FSMNCache:
        """The cache of a recording's first chunk: zeros before it."""
        return self.encoder.make_cache(batch)

    def segment(
        self,
        samples: AnySamples,
        *,
        sample_rate: int | None = None,
        dynamic_silence: bool | None = None,
        silence_schedule: Schedule = SILENCE_SCHEDULE,
        **thresholds: Any,
    ) -> list[tuple[int, int]]:
        """The segments of a recording `[S]`, floats in [-1, 1], that have speech: first and last ms of each.

        sample_rate: in Hz, None for the model's. thresholds: any of `VADOptions`, None for the model's own. Without
        `max_end_silence_time` the end silence is dynamic, as in `silence_schedule`, and `speech_noise_thres` is 0.5,
        whatever is said of it, unless `dynamic_silence` is False.

        Memory is bounded by a minute's features. Raises AudioError for NaN, infinity or several channels, InputError
        for thresholds.
        """
        rate = self.frontend.sample_rate
        array = mono_samples(samples)
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
        """The next samples `[S]`, at the model's rate -> events, in ms: `[start, end]`, `[start, -1]` for
        a segment that goes on, `[-1, end]` for its end.

        With chunks of 15 s or more: whole segments alone. final: the recording ends here; the next piece begins
        another. Raises AudioError for NaN, infinity or several channels.
        """
        array = mono_samples(samples)
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
        for max_speech_ms, silence_ms in self._schedule:
            if self._speech_ms <= max_speech_ms:
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
        """The events of this chunk."""
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


@backend.worker_streams()
def load_vad(path: str | Path) -> VAD:
    """The VAD of FunASR's folder (config.yaml, model.pt, am.mvn), of a converted one, or of a hub id.

    Raises MissingCheckpointError where there is none, HubError, ConfigError and WeightsError for one that doesn't fit.
    """
    folder = open_folder(path)
    if folder.kind != "FsmnVADStreaming":
        raise ConfigError(
            f"{path} holds a {folder.kind!r}; expected a 'FsmnVADStreaming'. Give the VAD's folder or hub id."
        )
    vad = VAD.from_state_dict(folder.config, folder.weights(), consume=True)
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
    part = int(np.gcd(length, shift))  # frames overlap: shared parts are added up once
    energies = np.square(samples[: samples.size // part * part], dtype=np.float64).reshape(-1, part).sum(axis=1)
    frames = np.lib.stride_tricks.sliding_window_view(energies, length // part)[:: shift // part]
    decibels: npt.NDArray[np.float64] = 10 * np.log10(frames.sum(axis=1) + _DECIBEL_FLOOR)
    return decibels
