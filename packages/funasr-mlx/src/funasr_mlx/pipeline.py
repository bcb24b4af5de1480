"""Recordings of any length and number, as transcripts: voice activity, batches, sentences.

    recording -> stretches of speech (VAD) -> batches of similar lengths -> words and times -> punctuation -> sentences

Stretches of several recordings share batches. A recording is in memory from its turn until its last stretch is done, as
samples; features are made batch by batch.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_core.audio.samples import quietest_place
from mlx_core.errors import InputError, MLXCoreError

from .frontend import Audio, Samples
from .punctuation import Punctuation
from .recognition import Hotwords, Recognition, RecognitionOptions, SpeechRecognizer
from .text import Segment, Times, Transcript, join_texts, sentences
from .vad import VAD, merge_segments

OnProgress = Callable[[float, float], None]
"""Called with the seconds of audio that are done, and those that are known of so far."""

BATCH_SECONDS = 60.0
MAX_SECONDS = 60.0

_QUIET_MS = 100
_SEARCH_SHARE = 0.25  # of a stretch's end, in which a quiet place is looked for
_POOL_BATCHES = 8  # so many batches' worth of speech is gathered, to find stretches of similar lengths


@dataclass
class _Recording:
    """A recording while its stretches are worked on."""

    samples: Samples
    spans: list[Times]
    done: list[Recognition | None]
    error: MLXCoreError | None = None
    missing: int = field(init=False)

    def __post_init__(self) -> None:
        self.missing = len(self.spans)


class Pipeline:
    """`Pipeline(load_model(...), load_vad(...), load_punctuation(...)).transcribe("talk.mp3")`.

    vad: finds speech; without one recordings are cut at quiet places into stretches of at most a minute. punctuation:
    restores it, and with it sentences. batch_seconds: of audio, padding included, that are recognized at once.
    merge_seconds: neighbouring stretches are joined up to this length, None for not at all. vad_options: arguments of
    `VAD.segment`.
    """

    def __init__(
        self,
        asr: SpeechRecognizer,
        vad: VAD | None = None,
        punctuation: Punctuation | None = None,
        *,
        batch_seconds: float = BATCH_SECONDS,
        merge_seconds: float | None = None,
        vad_options: dict[str, Any] | None = None,
    ) -> None:
        for name, seconds in (("batch_seconds", batch_seconds), ("merge_seconds", merge_seconds)):
            if seconds is not None and not 0 < seconds < float("inf"):
                raise InputError(f"{name} must be positive and finite; found {seconds!r}.")
        self.asr, self.vad, self.punctuation = asr, vad, punctuation
        self._batch_seconds, self._merge_seconds = batch_seconds, merge_seconds
        self._vad_options = dict(vad_options or {})

    def transcribe(
        self,
        audio: Audio,
        *,
        hotwords: Hotwords = None,
        language: str = "auto",
        itn: bool = True,
        sample_rate: int | None = None,
        on_progress: OnProgress | None = None,
    ) -> Transcript:
        """The transcript of a recording: a file's path, or samples `[S]` at `sample_rate` Hz (None: the model's).

        The options are those of `Recognizer.transcribe`. Raises AudioError, InputError.
        """
        (result,) = self.transcribe_many(
            [audio], hotwords=hotwords, language=language, itn=itn, sample_rate=sample_rate, on_progress=on_progress
        )
        if isinstance(result, MLXCoreError):
            raise result
        return result

    def transcribe_many(
        self,
        audios: Iterable[Audio],
        *,
        hotwords: Hotwords = None,
        language: str = "auto",
        itn: bool = True,
        sample_rate: int | None = None,
        on_progress: OnProgress | None = None,
    ) -> Iterator[Transcript | MLXCoreError]:
        """A transcript for each recording, in their order, as soon as it is known; for one that can't be read its
        error.
        """
        options = RecognitionOptions(hotwords, language, itn)
        waiting: list[_Recording] = []
        pool: list[tuple[_Recording, int]] = []
        known = done = 0.0
        for audio in audios:
            recording = self._open(audio, sample_rate)
            waiting.append(recording)
            known += len(recording.samples) / self.asr.sample_rate
            pool += [(recording, at) for at in range(len(recording.spans))]
            if self._seconds(pool) > _POOL_BATCHES * self._batch_seconds:
                # all of it: a short stretch that always waits for its like would keep its recording in memory
                while pool:
                    done += self._recognize(pool, options)
                    if on_progress is not None:
                        on_progress(done, known)
            yield from self._finished(waiting)
        while pool:
            done += self._recognize(pool, options)
            if on_progress is not None:
                on_progress(done, known)
        if on_progress is not None:
            on_progress(known, known)
        yield from self._finished(waiting)

    def _open(self, audio: Audio, sample_rate: int | None) -> _Recording:
        try:
            samples = self.asr.samples(audio, sample_rate)
            spans = self._spans(samples)
        except MLXCoreError as error:
            return _Recording(np.zeros(0, np.float32), [], [], error)
        return _Recording(samples, spans, [None] * len(spans))

    def _spans(self, samples: Samples) -> list[Times]:
        """The stretches of speech, in milliseconds."""
        rate = self.asr.sample_rate
        if self.vad is None:
            cuts = quiet_cuts(samples, rate, MAX_SECONDS)
            return [(a * 1000 // rate, -(-b * 1000 // rate)) for a, b in itertools.pairwise(cuts)]
        spans = self.vad.segment(samples, sample_rate=rate, **self._vad_options)
        if self._merge_seconds is not None:
            spans = merge_segments(spans, int(self._merge_seconds * 1000))
        return [(int(start), int(end)) for start, end in spans]

    def _seconds(self, pool: Sequence[tuple[_Recording, int]]) -> float:
        return sum(end - start for start, end in (recording.spans[at] for recording, at in pool)) / 1000

    def _recognize(self, pool: list[tuple[_Recording, int]], options: RecognitionOptions) -> float:
        """Take the longest stretches from the pool, as many as a batch holds; returns their seconds."""
        pool.sort(key=lambda item: item[0].spans[item[1]][1] - item[0].spans[item[1]][0])
        start, end = pool[-1][0].spans[pool[-1][1]]
        size = max(1, int(self._batch_seconds * 1000 // max(1, end - start)))
        batch = [pool.pop() for _ in range(min(size, len(pool)))]
        rate = self.asr.sample_rate
        features = []
        for recording, at in batch:
            first, last = (ms * rate // 1000 for ms in recording.spans[at])
            features.append(self.asr.frontend(recording.samples[first:last]))
        recognitions = self.asr.recognize(features, options)
        mx.clear_cache()  # batches differ in size: freed buffers would pile up
        for (recording, at), recognition in zip(batch, recognitions, strict=True):
            recording.done[at] = recognition
            recording.missing -= 1
        return self._seconds(batch)

    def _finished(self, waiting: list[_Recording]) -> Iterator[Transcript | MLXCoreError]:
        while waiting and not waiting[0].missing:
            recording = waiting.pop(0)
            yield recording.error or self._transcript(recording)

    def _transcript(self, recording: _Recording) -> Transcript:
        duration = len(recording.samples) * 1000 // self.asr.sample_rate
        spoken = [
            (span, recognition)
            for span, recognition in zip(recording.spans, recording.done, strict=True)
            if recognition is not None and recognition.raw_text
        ]
        if not spoken:
            return Transcript(duration_ms=duration)
        tokens = [token for _, recognition in spoken for token in recognition.tokens]
        shifted = [[(a + span[0], b + span[0]) for a, b in recognition.timestamps] for span, recognition in spoken]
        timestamps = [times for stretch in shifted for times in stretch]
        segments = [
            _stretch(span, recognition, times) for (span, recognition), times in zip(spoken, shifted, strict=True)
        ]
        text = join_texts(recognition.text for _, recognition in spoken)
        raw = " ".join(recognition.raw_text for _, recognition in spoken)
        # SenseVoice writes punctuation itself
        if self.punctuation is not None and not any(recognition.language for _, recognition in spoken):
            restored = self.punctuation.restore(join_texts(recognition.raw_text for _, recognition in spoken))
            text = restored.text
            if len(restored.marks) == len(timestamps):
                words = [word for _, recognition in spoken for word in recognition.raw_text.split()]
                segments = sentences(restored.marks, timestamps, words)
        first = spoken[0][1]
        emotions = [recognition.emotion for _, recognition in spoken if recognition.emotion]
        return Transcript(
            text,
            tokens,
            timestamps,
            segments,
            duration,
            raw,
            first.language,
            max(emotions, key=emotions.count) if emotions else None,
            list(dict.fromkeys(event for _, recognition in spoken for event in recognition.events)),
        )


def quiet_cuts(samples: Samples, rate: int, max_seconds: float) -> list[int]:
    """Places from 0 to the end that cut samples `[S]` into stretches of at most `max_seconds`: where, in the last
    quarter of a stretch, a tenth of a second has the least energy. Nothing for no samples.
    """
    longest = max(1, int(max_seconds * rate))
    window = max(1, min(_QUIET_MS * rate // 1000, int(longest * _SEARCH_SHARE)))
    cuts = [0]
    while len(samples) - cuts[-1] > longest:
        first = cuts[-1] + int(longest * (1 - _SEARCH_SHARE))
        cuts.append(first + quietest_place(samples[first : cuts[-1] + longest], window))
    return [*cuts, len(samples)] if len(samples) else [0]


def _stretch(span: Times, recognition: Recognition, times: list[Times]) -> Segment:
    start, end = (times[0][0], times[-1][1]) if times else span
    return Segment(start, end, recognition.text, recognition.tokens, times)
