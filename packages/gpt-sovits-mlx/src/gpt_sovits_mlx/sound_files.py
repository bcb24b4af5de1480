"""Speech written to a sound file as it is made: the file appears whole or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mlx_core.errors import AudioError, InputError
from mlx_core.files import atomic_file

FORMATS: dict[str, tuple[str, str]] = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "VORBIS"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
}
"""Container and encoding by a file's ending, as libsndfile calls them."""

_MAX_SAMPLES = 2**14
"""Written at once: libsndfile puts what it hands to Vorbis on the stack, which a minute of silence overflows."""

Write = Callable[[npt.NDArray[np.float32]], None]


def check_name(path: str | Path) -> Path:
    """The path. Raises InputError for an ending that isn't known, before anything long is begun."""
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"{path}: a sound file's name must end in {', '.join(FORMATS)}; found {path.suffix!r}.")
    if path.is_dir():
        raise InputError(f"{path} is a folder. Name the file to write.")
    return path


@contextlib.contextmanager
def sound_file(path: str | Path, sample_rate: int) -> Iterator[Write]:
    """A file that takes samples `[S]` in [-1, 1] piece by piece.

    wav, flac, ogg or mp3, as the name's ending says. Raises InputError, AudioError.
    """
    import soundfile

    path = check_name(path)
    container, subtype = FORMATS[path.suffix.lower()]
    try:
        with (
            atomic_file(path) as temporary,
            soundfile.SoundFile(temporary, "w", sample_rate, 1, subtype, format=container) as sound,
        ):

            def write(samples: npt.NDArray[np.float32]) -> None:
                for start in range(0, len(samples), _MAX_SAMPLES):
                    sound.write(samples[start : start + _MAX_SAMPLES])

            yield write
            sound.close()  # before it takes its name
    except soundfile.SoundFileError as error:
        raise AudioError(f"{path} can't be written: {error}") from error
