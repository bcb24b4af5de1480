"""espeak-ng's voices: speakers, the clips that they say, and a cache of them.

A speaker is an accent, a variant (which changes formants and timbre), a speed and a pitch. Clips are kept as features of
the front end: logarithms of mel energies, `[frames, 80]`, loud as `LEVEL`.
"""

from __future__ import annotations

import hashlib
import shutil
import struct
import subprocess
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from funasr_mlx.frontend import FrontendConfig
from mlx_core.audio import compute_fbank, resample
from mlx_core.errors import AudioError, MissingCheckpointError
from mlx_core.files import atomic_file

from .words import CHINESE, ENGLISH, Word, ids, sentence

Floats = npt.NDArray[np.float32]

SAMPLE_RATE = 16000
LEVEL = 0.05
"""Root mean square of a clip, of samples in [-1, 1]."""

FRONTEND = {
    "fs": SAMPLE_RATE,
    "window": "hamming",
    "n_mels": 80,
    "frame_length": 25,
    "frame_shift": 10,
    "lfr_m": 7,
    "lfr_n": 6,
}

_ACCENTS = ("en-us", "en-gb", "en-gb-x-rp", "en-029", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-gb-scotland")
_VARIANTS = (
    *("m1", "m3", "m4", "m5", "m6", "m8", "f1", "f3", "f5", "adam", "Alex", "Alicia", "Andrea", "Andy", "Annie"),
    *("antonio", "aunty", "belinda", "benjamin", "boris", "caleb", "david", "Denis", "ed", "edward", "Gene", "grandma"),
    *("grandpa", "Henrique", "Hugo", "iven", "Jacky", "john", "klatt2", "klatt3", "Lee", "linda", "marcelo", "Marco"),
    *("Mario", "max", "Michael", "michel", "miguel", "Mike", "norbert", "pablo", "paul", "pedro", "quincy", "rob"),
    *("robert", "sandro", "shelby", "steph", "steph3", "travis", "victor", "zac", "anika"),
)
HELD_OUT_VARIANTS = ("m2", "m7", "f2", "f4")
HELD_OUT_ACCENT = "en-us-nyc"
_MANDARIN = "cmn-latn-pinyin"


@dataclass(frozen=True)
class Speaker:
    """`speed` in words a minute, `pitch` from 0 to 99."""

    accent: str
    variant: str
    speed: int
    pitch: int

    def say(self, words: list[Word], pause: str = " ") -> Floats:
        """Samples `[S]` at 16 kHz, of `LEVEL`, without silence at the ends. Raises AudioError."""
        chinese = words[0] in CHINESE
        voice = f"{_MANDARIN if chinese else self.accent}+{self.variant}"
        command = ["espeak-ng", "-v", voice, "-s", str(self.speed), "-p", str(self.pitch), "--stdout"]
        done = subprocess.run([*command, pause.join(word.spoken for word in words)], capture_output=True, check=False)
        if done.returncode or len(done.stdout) <= 44:
            raise AudioError(f"espeak-ng said nothing as {voice!r}: {done.stderr.decode(errors='replace').strip()!r}.")
        (rate,) = struct.unpack_from("<I", done.stdout, 24)  # of the WAV header; its sizes are those of a stream
        samples = np.frombuffer(done.stdout[44 : len(done.stdout) // 2 * 2], "<i2").astype(np.float32) / 2**15
        return trimmed(resample(samples, rate, SAMPLE_RATE))


def speakers(rng: np.random.Generator, count: int) -> list[Speaker]:
    """Speakers to learn from."""
    variants = [_VARIANTS[i % len(_VARIANTS)] for i in range(count)]
    return [Speaker(_ACCENTS[i % len(_ACCENTS)], variant, *_manner(rng)) for i, variant in enumerate(variants)]


def strangers(rng: np.random.Generator, count: int) -> list[Speaker]:
    """Speakers outside the training set, neither their variants nor their English."""
    variants = [HELD_OUT_VARIANTS[i % len(HELD_OUT_VARIANTS)] for i in range(count)]
    return [Speaker(HELD_OUT_ACCENT, variant, *_manner(rng)) for variant in variants]


def _manner(rng: np.random.Generator) -> tuple[int, int]:
    return int(rng.integers(120, 211)), int(rng.integers(25, 76))


def trimmed(samples: Floats) -> Floats:
    """The samples from the first loud one to the last, made as loud as `LEVEL`. Raises AudioError for silence."""
    loud = np.flatnonzero(np.abs(samples) > 0.02 * np.abs(samples).max(initial=0))
    if not len(loud):
        raise AudioError("espeak-ng said nothing but silence.")
    samples = samples[loud[0] : loud[-1] + 1]
    result: Floats = samples * np.float32(LEVEL / np.sqrt(np.mean(samples**2)))
    return result


@dataclass(frozen=True)
class Clip:
    """A speaker's recording without a known border inside."""

    frames: Floats
    """`[frames, 80]`."""
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Voice:
    """A speaker's clips: single words of each language, and a few words at a time."""

    english: list[Clip]
    chinese: list[Clip]
    fluent: list[Clip]


def check_espeak() -> None:
    """Raise MissingCheckpointError where there is no espeak-ng."""
    if shutil.which("espeak-ng") is None:
        raise MissingCheckpointError(
            "the program espeak-ng, which says what is learnt, isn't installed. Install it: `apt install espeak-ng`, "
            "`brew install espeak-ng`, or see https://github.com/espeak-ng/espeak-ng."
        )


def synthesize(seed: int, count: int, fluent: int, cache: Path, workers: int) -> Iterator[Voice]:
    """`count` speakers' clips, each with `fluent` utterances of several words; from the cache where they are there."""
    chosen = speakers(np.random.default_rng((seed, 0)), count)

    def one(number: int) -> Voice:
        return _voice(chosen[number], np.random.default_rng((seed, 1, number)), fluent, cache)

    with ThreadPoolExecutor(workers) as pool:
        try:
            yield from pool.map(one, range(count))
        finally:
            pool.shutdown(cancel_futures=True)


def _voice(speaker: Speaker, rng: np.random.Generator, fluent: int, cache: Path) -> Voice:
    said = [[word] for word in ENGLISH + CHINESE]
    said += [sentence(rng, CHINESE if i % 3 == 0 else ENGLISH) for i in range(fluent)]
    pauses = [" "] * (len(said) - fluent) + [str(rng.choice([" ", " ", ", "])) for _ in range(fluent)]
    what = repr((speaker, said, pauses, FRONTEND))
    path = cache / f"{hashlib.sha256(what.encode()).hexdigest()[:24]}.npz"
    config = FrontendConfig.from_dict(FRONTEND).fbank()
    try:
        with np.load(path) as file:
            frames, lengths = file["frames"], file["lengths"]
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        spoken = [np.array(compute_fbank(speaker.say(*pair), config)) for pair in zip(said, pauses, strict=True)]
        frames, lengths = np.concatenate(spoken).astype(np.float16), np.array([len(clip) for clip in spoken])
        with atomic_file(path) as temporary:
            np.savez(temporary, frames=frames, lengths=lengths)
    parts = np.split(frames.astype(np.float32), np.cumsum(lengths)[:-1])
    clips = [Clip(part, tuple(ids(words))) for part, words in zip(parts, said, strict=True)]
    chinese = len(ENGLISH) + len(CHINESE)
    return Voice(clips[: len(ENGLISH)], clips[len(ENGLISH) : chinese], clips[chinese:])
