"""Utterances out of clips: put one behind another with gaps, varied, with noise; and batches of them.

All this is done on mel energies, which add up as the sounds do but for the cross terms, so that no sound passes the filter bank
twice: a filter bank of 3 s costs more than all the rest here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from funasr_mlx.frontend import FrontendConfig
from mlx_core.audio import compute_fbank

from .voices import FRONTEND, LEVEL, SAMPLE_RATE, Clip, Floats, Voice

CONFIG = FrontendConfig.from_dict(FRONTEND)
MELS = CONFIG.n_mels
FLOOR = np.float32(np.log(1.1920929e-07))
"""The front end's value for digital silence."""

_T = TypeVar("_T")

_FLUENT = 0.35
_CHINESE = 0.2
_MIXED = 0.1
_STRANGE = 0.1  # of words that another speaker says
_SILENT = 0.25  # of utterances without noise
_NOISE_S = 20


@dataclass(frozen=True)
class Utterance:
    frames: Floats
    """`[frames, 80]`, logarithms."""
    tokens: list[int]
    ends: list[int]
    """The ends of the clips, in frames, somewhere in the silence that follows; the last one's is the end."""
    counts: list[int]
    """Tokens of each clip."""


@dataclass(frozen=True)
class Batch:
    """`B` utterances, `T` rows of features, `N` tokens, `S` clips, zero beyond what there is."""

    features: Floats
    """`[B, T, 560]`, not yet normalised."""
    lengths: npt.NDArray[np.int32]
    tokens: npt.NDArray[np.int32]
    """`[B, N]`."""
    clips: Floats
    """`[B, S, T]`: 1 where a row is of a clip."""
    counts: Floats
    """`[B, S]`: tokens of a clip."""


def coloured_noise(rng: np.random.Generator, samples: int, slope: float) -> Floats:
    """Noise of `LEVEL` whose power falls with the frequency to the `slope`: 0 white, 1 pink, 2 brown."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    spectrum *= np.maximum(np.arange(len(spectrum)), samples * 50 / SAMPLE_RATE) ** (-slope / 2)
    noise = np.fft.irfft(spectrum, samples)
    result: Floats = (noise * (LEVEL / np.sqrt(np.mean(noise**2)))).astype(np.float32)
    return result


class Mixer:
    """Makes utterances out of voices; what comes depends on `rng` and `hardness` alone."""

    hardness = 1.0
    """From 0 to 1: with it grow the words of an utterance and the noise. All at once is learnt many times slower."""

    def __init__(self, voices: list[Voice], rng: np.random.Generator) -> None:
        self._voices, self._rng = voices, rng
        samples = _NOISE_S * SAMPLE_RATE
        noises = [coloured_noise(rng, samples, slope) for slope in (0, 0.5, 1, 1.5, 2)]
        self._noises = [np.exp(np.array(compute_fbank(noise, CONFIG.fbank()))) for noise in noises]
        self._noises += [self._babble(len(self._noises[0]), talkers) for talkers in (4, 8)]

    def _babble(self, count: int, talkers: int) -> Floats:
        total = np.zeros((count, MELS), np.float32)
        for _ in range(talkers):
            voice = self._any(self._voices)
            said = np.concatenate([self._any(voice.fluent).frames for _ in range(40)])
            total += np.exp(np.resize(said, total.shape)) / talkers
        return total

    def _any(self, items: list[_T]) -> _T:
        return items[self._rng.integers(len(items))]

    def utterance(self) -> Utterance:
        """One of one to six words, or less at first."""
        rng = self._rng
        clips = self._clips(1 + int(5 * self.hardness))
        warp, stretch = rng.uniform(0.93, 1.07), rng.uniform(0.8, 1.1)
        parts = [np.full((self._silence(), MELS), FLOOR)]
        at, ends = len(parts[0]), []
        for clip in clips:
            frames = _resized(clip.frames, warp, stretch * rng.uniform(0.93, 1.07)) + np.float32(rng.normal(0, 0.4))
            gap = self._silence()
            parts += [frames, np.full((gap, MELS), FLOOR)]
            ends.append(at + len(frames) + min(gap // 2, 8))
            at += len(frames) + gap
        parts.append(np.full((4 + self._silence(), MELS), FLOOR))
        frames = np.concatenate(parts).astype(np.float32)
        ends[-1] = len(frames)
        return Utterance(
            self._masked(self._noisy(frames)),
            [token for clip in clips for token in clip.tokens],
            ends,
            [len(clip.tokens) for clip in clips],
        )

    def _silence(self) -> int:
        """Frames: mostly few, up to 0.6 s."""
        return int(60 * self._rng.random() ** 3)

    def _clips(self, most: int) -> list[Clip]:
        rng = self._rng
        voice = self._any(self._voices)
        if most > 1 and rng.random() < _FLUENT:
            return [self._any(voice.fluent)]
        kind = rng.random()
        clips = []
        for _ in range(rng.integers(1, most + 1)):
            who = self._any(self._voices) if rng.random() < _STRANGE else voice
            chinese = rng.random() < 0.4 if kind < _MIXED else kind < _MIXED + _CHINESE
            clips.append(self._any(who.chinese if chinese else who.english))
        return clips

    def _noisy(self, frames: Floats) -> Floats:
        """Another loudness, a microphone's colour, and noise from 6 to 45 dB below the speech."""
        rng = self._rng
        tilt = np.linspace(-1, 1, MELS) * rng.normal(0, 0.4) + np.cos(np.linspace(0, np.pi, MELS)) * rng.normal(0, 0.4)
        gain = 2 * np.log(10) / 20 * rng.uniform(-16, 6)
        power = np.exp(frames + tilt.astype(np.float32))
        if rng.random() >= _SILENT:
            noise = self._any(self._noises)
            first = rng.integers(len(noise) - 1)
            rows = np.take(noise, np.arange(first, first + len(frames)), axis=0, mode="wrap")
            power += rows * np.float32(10 ** (-rng.uniform(30 - 24 * self.hardness, 45) / 10))
        return np.maximum(np.log(power) + np.float32(gain), FLOOR)

    def _masked(self, frames: Floats) -> Floats:
        """Now and then with a band flattened, as SpecAugment does."""
        rng = self._rng
        if rng.random() < 0.3:
            width = rng.integers(1, 9)
            low = rng.integers(0, MELS - width)
            frames[:, low : low + width] = frames[:, low : low + width].mean()
        return frames

    def batches(self, size: int, pool: int = 8) -> Iterator[Batch]:
        """Batches without end, of utterances of nearly the same length: `pool` of them are made and sorted at once."""
        while True:
            made = sorted((self.utterance() for _ in range(size * pool)), key=lambda utterance: len(utterance.frames))
            for i in self._rng.permutation(pool):
                yield collate(made[i * size : (i + 1) * size])


def _resized(frames: Floats, warp: float, stretch: float) -> Floats:
    """Frames with the mel axis `warp` and the time `stretch` times as long, as another throat and speed would be."""
    count = max(4, round(len(frames) * stretch))
    times = np.linspace(0, len(frames) - 1, count)
    mels = np.clip(np.arange(MELS) / warp, 0, MELS - 1)
    for axis, at in enumerate((times, mels)):
        low = np.minimum(at.astype(np.int64), frames.shape[axis] - 2)
        part = (at - low).astype(np.float32)
        part = part[:, None] if axis == 0 else part
        frames = np.take(frames, low, axis) * (1 - part) + np.take(frames, low + 1, axis) * part
    return frames


def stacked(frames: Floats) -> Floats:
    """`[frames, 80] -> [ceil(frames / 6), 560]`: what `Frontend.stack` does, on the host."""
    first = np.arange(0, len(frames), CONFIG.lfr_n)[:, None] - (CONFIG.lfr_m - 1) // 2
    at = np.clip(first + np.arange(CONFIG.lfr_m), 0, len(frames) - 1)
    return frames[at].reshape(len(at), -1)


def collate(utterances: list[Utterance], multiple: int = 8) -> Batch:
    """A batch whose length is a multiple."""
    rows = [stacked(utterance.frames) for utterance in utterances]
    longest = -(-max(map(len, rows)) // multiple) * multiple
    size, most = len(rows), max(len(utterance.tokens) for utterance in utterances)
    features = np.zeros((size, longest, CONFIG.width), np.float32)
    tokens = np.zeros((size, most), np.int32)
    clips = np.zeros((size, max(len(utterance.ends) for utterance in utterances), longest), np.float32)
    counts = np.zeros(clips.shape[:2], np.float32)
    for i, (row, utterance) in enumerate(zip(rows, utterances, strict=True)):
        features[i, : len(row)] = row
        tokens[i, : len(utterance.tokens)] = utterance.tokens
        counts[i, : len(utterance.counts)] = utterance.counts
        clip = np.searchsorted(utterance.ends, np.arange(len(row)) * CONFIG.lfr_n, side="right")
        clips[i, np.minimum(clip, len(utterance.ends) - 1), np.arange(len(row))] = 1
    return Batch(features, np.array([len(row) for row in rows], np.int32), tokens, clips, counts)
