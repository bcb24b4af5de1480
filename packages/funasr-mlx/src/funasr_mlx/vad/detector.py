"""The detector of FSMN-VAD: probabilities of silence and energies of frames -> segments of speech.

A frame is speech or not by its posteriors and its loudness. Of the last `window_size_ms` so many must be speech for
speech to begin, and so few for it to end. A segment begins some frames before speech does and ends after a silence of
`max_end_silence_time`, or when it's as long as `max_single_segment_time`.

Reference: FunASR 1.4.16, `models/fsmn_vad_streaming/model.py`, which goes from frame to frame; this one jumps from one
change to the next. Frames are counted from the recording's beginning.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from mlx_core.config import BaseConfig
from mlx_core.errors import ConfigError, InputError

_Bools = npt.NDArray[np.bool_]
_Doubles = npt.NDArray[np.float64]
_Ints = npt.NDArray[np.int64]

SINGLE_UTTERANCE = 0
"""`detect_mode`: only the first segment is found, and none after a silence of `max_start_silence_time`."""

_NO_NOISE_YET = -100.0  # decibels


@dataclass(frozen=True, kw_only=True)
class VADOptions(BaseConfig):
    """The `model_conf` of a config.yaml; FunASR's defaults. Milliseconds, and decibels of a frame's energy.

    Entries of FunASR's that change nothing there have no field here.
    """

    sample_rate: int = 16000
    detect_mode: int = 1
    max_end_silence_time: int | float = 800
    max_start_silence_time: int | float = 3000
    window_size_ms: int | float = 200
    sil_to_speech_time_thres: int | float = 150
    speech_to_sil_time_thres: int | float = 150
    speech_2_noise_ratio: float = 1.0
    do_extend: int | bool = 1
    lookback_time_start_point: int | float = 200
    lookahead_time_end_point: int | float = 100
    max_single_segment_time: int | float = 60000
    snr_thres: float = -100.0
    noise_frame_num_used_for_snr: int = 100
    decibel_thres: float = -100.0
    speech_noise_thres: float = 0.6
    fe_prior_thres: float = 1e-4
    silence_pdf_num: int = 1
    sil_pdf_ids: list[int] = field(default_factory=lambda: [0])
    frame_in_ms: int = 10
    frame_length_ms: int | float = 25

    def __post_init__(self) -> None:
        for name in ("sample_rate", "frame_in_ms", "noise_frame_num_used_for_snr"):
            if getattr(self, name) < 1:
                raise ConfigError(f"model_conf: {name} must be at least 1; found {getattr(self, name)}.")
        for name in (
            "max_end_silence_time",
            "max_start_silence_time",
            "lookback_time_start_point",
            "lookahead_time_end_point",
            "max_single_segment_time",
        ):
            if getattr(self, name) < 0:
                raise ConfigError(f"model_conf: {name} must be 0 ms or more; found {getattr(self, name)}.")
        if self.detect_mode not in (SINGLE_UTTERANCE, 1):
            raise ConfigError(f"model_conf: detect_mode must be 0 or 1 (many segments); found {self.detect_mode}.")
        if self.window_frames < 1:
            raise ConfigError(
                f"model_conf: window_size_ms must be a frame of {self.frame_in_ms} ms or more; found "
                f"{self.window_size_ms}."
            )
        ids = self.sil_pdf_ids
        if not ids or len(ids) != self.silence_pdf_num or not all(type(i) is int and i >= 0 for i in ids):
            raise ConfigError(
                f"model_conf: sil_pdf_ids must be as many classes as silence_pdf_num says, {self.silence_pdf_num}, one "
                f"or more; found {ids!r:.100}."
            )

    @classmethod
    def names(cls) -> set[str]:
        """The names that `replaced` takes."""
        return {spec.name for spec in dataclasses.fields(cls)} - {"model_type"}

    def replaced(self, changes: Mapping[str, Any]) -> Self:
        """These options with others for some; None stands for no change. Raises InputError."""
        given = {name: value for name, value in changes.items() if value is not None}
        if unknown := given.keys() - self.names():
            raise InputError(
                f"{', '.join(sorted(unknown))}: no such threshold. There are {', '.join(sorted(self.names()))}."
            )
        if not given:
            return self
        if "sil_pdf_ids" in given:
            given["sil_pdf_ids"] = list(given["sil_pdf_ids"])
            given.setdefault("silence_pdf_num", len(given["sil_pdf_ids"]))
        try:
            return self.from_dict({spec.name: getattr(self, spec.name) for spec in dataclasses.fields(self)} | given)
        except ConfigError as error:
            raise InputError(str(error)) from error

    def frames(self, milliseconds: float) -> int:
        """Whole frames in a time."""
        return int(milliseconds / self.frame_in_ms)

    @property
    def window_frames(self) -> int:
        return self.frames(self.window_size_ms)

    @property
    def latency_frames(self) -> int:
        """Frames from the beginning of a segment to the frame at which its speech is found."""
        return self.window_frames + (self.frames(self.lookback_time_start_point) if self.do_extend else 0)


class FrameClassifier:
    """Frames -> whether each is speech. Keeps the running average of the noise's energy."""

    def __init__(self, options: VADOptions) -> None:
        self._options = options
        self._noise = _NO_NOISE_YET

    def __call__(self, silence: _Doubles, decibels: _Doubles, margin: float) -> _Bools:
        """The network's probabilities of silence `[T]`, decibels `[T]` -> `[T]`.

        margin: by how much speech must be more probable than noise.
        """
        options = self._options
        audible = decibels >= options.decibel_thres
        likely = 1 - silence >= np.maximum(silence, 0) ** options.speech_2_noise_ratio + margin
        noise = audible & ~likely
        # The average of the noise before each frame, one after the other as in the reference.
        averages = np.array(list(itertools.accumulate(decibels[noise].tolist(), self._averaged, initial=self._noise)))
        self._noise = float(averages[-1])
        snr = decibels - averages[np.cumsum(noise) - noise]
        speech: _Bools = audible & likely & (snr >= options.snr_thres)
        return speech if options.fe_prior_thres < 1 else np.zeros_like(speech)

    def _averaged(self, average: float, decibel: float) -> float:
        count = self._options.noise_frame_num_used_for_snr
        return decibel if average < -99.9 else (decibel + average * (count - 1)) / count


class Window:
    """The changes between silence and speech: enough of the last frames are speech, or few enough.

    Frames before the last reset count as silence.
    """

    def __init__(self, options: VADOptions) -> None:
        self._width = options.window_frames
        self._enough = options.frames(options.sil_to_speech_time_thres)
        self._few = options.frames(options.speech_to_sil_time_thres)
        self._states: _Ints = np.zeros(self._width, np.int64)  # the last ones, then those that `append` gave
        self._reset = 0
        self.first = self.end = 0
        """Of the frames that `append` gave, the first and the one after the last."""

    def append(self, speech: _Bools) -> None:
        """The next frames `[T]`, of which `change` tells from now on."""
        known = self._states[-self._width :].copy()
        known[: max(0, self._reset - (self.end - self._width))] = 0
        self._states = np.concatenate([known, speech])
        self.first, self.end = self.end, self.end + speech.size
        self._sums = np.concatenate([[0], np.cumsum(self._states)])
        counts = self._sums[self._width + 1 :] - self._sums[1 : -self._width]  # [T], had there been no reset
        self._loud, self._quiet = np.flatnonzero(counts >= self._enough), np.flatnonzero(counts <= self._few)

    def reset(self, frame: int) -> None:
        """Forget the frames before this one."""
        self._reset = frame

    def change(self, frame: int, *, speaking: bool) -> int:
        """The first frame from this one on that ends the state; `end` where there is none yet."""
        start, width = frame - self.first, self._width
        whole = max(start, min(self._reset - self.first + width, self.end - self.first))  # from here on counts hold
        at = np.arange(start, whole)
        counts = self._sums[width + at + 1] - self._sums[np.maximum(at + 1, width + self._reset - self.first)]
        found = np.flatnonzero(counts <= self._few if speaking else counts >= self._enough)
        if found.size:
            return frame + int(found[0])
        candidates = self._quiet if speaking else self._loud
        place = np.searchsorted(candidates, whole)
        return self.first + int(candidates[place]) if place < candidates.size else self.end


class Detector:
    """Finds the segments of one recording; those found so far are `segments` and `open`, in frames."""

    def __init__(self, options: VADOptions) -> None:
        self._options = options
        self._classify = FrameClassifier(options)
        self._window = Window(options)
        self._speaking = False  # says the window
        self._still_since = -1  # the frame before the silence that goes on
        self._free = 0  # no segment may begin before this frame
        self._finished = False  # in the mode of one utterance
        self.open: int | None = None
        """The first frame of the segment that hasn't ended."""
        self.segments: list[tuple[int, int]] = []
        """First frame and the one after the last; whoever reads may take them away."""

    @property
    def frames(self) -> int:
        """The number of frames so far."""
        return self._window.end

    def feed(
        self, silence: _Doubles, decibels: _Doubles, *, end_silence_ms: float, margin: float, final: bool = False
    ) -> None:
        """The network's probabilities of silence of the next frames `[T]`, and their decibels `[T]`.

        end_silence_ms: how long after the window's change to silence a segment ends. margin: by how much speech must be
        more probable than noise. final: the last frame ends an open segment.
        """
        self._window.append(self._classify(silence, decibels, margin))
        frame, end = self._window.first, self._window.end
        while frame < end and not self._finished:
            frame = self._wait(frame) if self.open is None else self._listen(frame, end_silence_ms, final)

    def _wait(self, frame: int) -> int:
        """No segment is open: go on to the frame after speech has been found."""
        options, end = self._options, self._window.end
        found = self._window.change(frame, speaking=False)
        if options.detect_mode == SINGLE_UTTERANCE:
            patience = self._still_since + options.frames(options.max_start_silence_time) + 1
            self._finished = patience < min(found, end)
        if self._finished or found == end:
            return end
        self.open = max(self._free, found - options.latency_frames)
        self._speaking = True
        return found + 1

    def _listen(self, frame: int, end_silence_ms: float, final: bool) -> int:
        """A segment is open: go on to the frame after the next event."""
        assert self.open is not None
        options, window = self._options, self._window
        shift, last = options.frame_in_ms, window.end - 1 if final else window.end
        change = window.change(frame, speaking=self._speaking)
        too_long = max(frame, self.open + options.frames(options.max_single_segment_time))
        if self._speaking:
            event = min(change, too_long, last)
            if event == window.end:
                return event
            self._still_since = event
            if event in (too_long, last):
                self._close(event, event)
            self._speaking = False
            return event + 1
        still = max(frame, self._still_since + max(1, math.ceil(end_silence_ms / shift)))
        event = min(change, still, too_long, last)
        if event == window.end:
            return event
        lookahead = options.frames(options.lookahead_time_end_point)
        told = self._still_since + (min(event - 1 - self._still_since, lookahead) if options.do_extend else 0)
        if event == change:
            if event in (too_long, last):
                self._close(event, event)
            else:
                self._speaking = True
        elif event == still:
            back = options.frames(end_silence_ms)
            if options.do_extend:
                back = max(0, back - lookahead - 1)
            self._close(event - back, event, told)
        else:
            self._close(event, event, told)
        return event + 1

    def _close(self, frame: int, now: int, told: int | None = None) -> None:
        """The segment's last frame is `frame`. told: the last one that had been counted to it, `now - 1` by default.

        A segment that ends before that one keeps the next one off by a frame more, as in the reference.
        """
        assert self.open is not None
        told = now - 1 if told is None else told
        self.segments.append((self.open, frame + 1))
        self._free = frame + 1 if frame > told else told + 2
        self.open, self._speaking, self._still_since = None, False, now
        self._window.reset(now + 1)
        self._finished = self._options.detect_mode == SINGLE_UTTERANCE
