"""Sound files of any format to samples: WAV by `wav`, others by soundfile."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..errors import AudioError
from .resampling import resample
from .samples import Samples, check_finite, check_rate, to_mono
from .wav import OtherFormatError, read_wav

_BLOCK_FRAMES = 2**18


def load_wav(path: str | os.PathLike[str], *, mono: bool = True) -> tuple[Samples, int]:
    """The samples of a sound file, NumPy float32, and their rate in Hz.

    `[samples]`, the mean of the channels; `[samples, channels]` with `mono=False`, however many there are. Integers
    are divided by their full scale (2**15 for 16 bits) and lie in [-1, 1]; floats stay as they are.

    WAV files (RIFF, RF64) of 8 to 32-bit integers or 32 and 64-bit floats need nothing else; FLAC, Ogg, Opus, MP3,
    AIFF and compressed WAV are read by soundfile, which `mlx-core[audio]` installs. A file that is cut off gives the
    samples that are there. AudioError if there are none, if it isn't audio, or has NaN or infinity.
    """
    path = Path(path)
    if path.is_dir():
        raise AudioError(f"{path} is a folder. Expected a sound file.")
    if not path.is_file():
        raise AudioError(f"There is no file {path}. Expected a sound file.")
    try:
        with path.open("rb") as file:
            try:
                return read_wav(file, str(path), mono=mono)
            except OtherFormatError as error:
                return _read_by_soundfile(file, path, str(error), mono=mono)
    except OSError as error:
        raise AudioError(f"{path} can't be read: {error}.") from error


def load_audio(path: str | os.PathLike[str], sample_rate: int) -> Samples:
    """The samples of a sound file at `sample_rate` Hz: `[samples]` float32, one channel; see `load_wav`, `resample`."""
    check_rate(sample_rate)
    samples, rate = load_wav(path)
    return samples if rate == sample_rate else resample(samples, rate, sample_rate)


def _read_by_soundfile(file: BinaryIO, path: Path, reason: str, *, mono: bool) -> tuple[Samples, int]:
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: there is no libsndfile for this platform
        raise AudioError(
            f"{reason}. Other formats than WAV with plain samples are read by soundfile ({error}): install "
            "mlx-core[audio], or convert the file to WAV."
        ) from error
    os.lseek(file.fileno(), 0, os.SEEK_SET)
    try:
        with soundfile.SoundFile(file.fileno(), closefd=False) as sound:  # a name would be judged by its ending
            rate = sound.samplerate
            check_rate(rate, f"{path}: the sample rate")
            blocks = []  # a header's number of frames isn't trusted
            while len(block := sound.read(_BLOCK_FRAMES, dtype="float32", always_2d=True)):
                blocks.append(to_mono(block) if mono else block)
    except (soundfile.SoundFileError, RuntimeError, TypeError, ValueError, MemoryError) as error:
        if isinstance(error, AudioError):
            raise
        raise AudioError(f"{path} can't be read as audio: {error} Convert the file to WAV if it is.") from error
    if not blocks:
        raise AudioError(f"{path} holds no samples.")
    samples: Samples = np.concatenate(blocks)
    check_finite(samples, str(path))
    return samples, rate
