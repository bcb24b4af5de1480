"""WAV files of plain samples, read and written without any other library.

This reader is the only one for them, also where soundfile is installed (which reads all other formats), so that a file
gives the same samples or the same error in every installation. libsndfile reads the same samples, but it accepts
headers that contradict themselves (3 bytes for a frame of 2 channels), refuses files with two `data` chunks, and
answers broken headers with "Internal error : SF_INFO struct incomplete"; the errors here name the entry and its value.

Layout: Microsoft's and IBM's Multimedia Programming Interface 1.0 (RIFF, `fmt `, `data`), WAVE_FORMAT_EXTENSIBLE, and
EBU Tech 3306 (RF64) for more than 4 GiB.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..errors import AudioError
from ..files import atomic_file
from .samples import AnySamples, Samples, as_samples, check_finite, check_rate, to_mono

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_GUID_TAIL = bytes.fromhex("000000001000800000aa00389b71")  # of the subformats that are a plain format tag
_UNKNOWN_SIZE = 0xFFFFFFFF  # written by recorders that can't seek back, and by RF64
_HEADER_BYTES = 44
_MAX_CHUNKS = 4096
_BLOCK_BYTES = 2**20


class OtherFormatError(AudioError):
    """A file that isn't a WAV file of plain samples; another library may read it."""


@dataclass(frozen=True)
class Wav:
    """The format of a file's samples, and their place in it."""

    sample_rate: int
    channels: int
    width: int  # bytes per sample
    is_float: bool
    start: int = 0
    frames: int = 0

    @property
    def frame_bytes(self) -> int:
        """One sample of each channel."""
        return self.channels * self.width


def read_wav(file: BinaryIO, name: str, *, mono: bool) -> tuple[Samples, int]:
    """Samples `[samples]`, or `[samples, channels]` unless `mono`, and their rate in Hz; `name` is for messages.

    A file that is shorter than its header says gives the samples that are there. Raises OtherFormatError if this isn't a
    WAV file of plain samples, AudioError if it is a broken one.
    """
    wav = _read_header(file, name)
    try:
        samples = np.empty(wav.frames if mono else (wav.frames, wav.channels), np.float32)
    except MemoryError as error:
        raise AudioError(f"{name} holds {wav.frames} frames: more than fit in memory.") from error
    step = max(1, _BLOCK_BYTES // wav.frame_bytes)
    file.seek(wav.start)
    for first in range(0, wav.frames, step):
        count = min(step, wav.frames - first)
        raw = file.read(count * wav.frame_bytes)
        if len(raw) < count * wav.frame_bytes:
            raise AudioError(f"{name} became shorter while it was read.")
        block = _decode(raw, wav).reshape(count, wav.channels)
        samples[first : first + count] = to_mono(block) if mono else block
    if wav.is_float:
        check_finite(samples, name)
    return samples, wav.sample_rate


def _read_header(file: BinaryIO, name: str) -> Wav:
    end = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(12)
    if not head:
        raise AudioError(f"{name} is empty.")
    if head[:4] not in (b"RIFF", b"RF64", b"BW64") or head[8:12] not in (b"WAVE", b""):
        raise OtherFormatError(f"{name} isn't a WAV file: it begins with {head!r}")
    wav, long_size, position = None, None, 12
    for _ in range(_MAX_CHUNKS):
        file.seek(position)
        chunk = file.read(8)
        if len(chunk) < 8:
            break
        kind, size = struct.unpack("<4sI", chunk)
        position += 8
        if kind == b"ds64":
            sizes = file.read(16)  # of the whole file and of the samples
            long_size = int.from_bytes(sizes[8:], "little") if len(sizes) == 16 else None
        elif kind == b"fmt ":
            wav = _parse_format(file.read(min(size, 40)), name)
        elif kind == b"data":
            if wav is None:
                raise AudioError(f"{name} is damaged: its samples come before their format (the `fmt ` chunk).")
            if size == _UNKNOWN_SIZE and long_size is not None:
                size = long_size
            frames = min(size, end - position) // wav.frame_bytes
            if not frames:
                raise AudioError(f"{name} holds no samples.")
            return Wav(wav.sample_rate, wav.channels, wav.width, wav.is_float, position, frames)
        position += size + size % 2
    raise AudioError(f"{name} is damaged: a WAV file without samples (no `data` chunk in its {end} bytes).")


def _parse_format(chunk: bytes, name: str) -> Wav:
    if len(chunk) < 16:
        raise AudioError(f"{name} is damaged: its format takes 16 bytes or more, found {len(chunk)}.")
    tag, channels, sample_rate, _, frame_bytes, bits = struct.unpack("<HHIIHH", chunk[:16])
    if tag == _EXTENSIBLE:
        if len(chunk) < 40:
            raise AudioError(f"{name} is damaged: its extensible format takes 40 bytes, found {len(chunk)}.")
        if chunk[26:] != _GUID_TAIL:
            raise OtherFormatError(f"{name} is a WAV file of an unknown subformat")
        tag = int.from_bytes(chunk[24:26], "little")
    if tag not in (_PCM, _FLOAT):
        raise OtherFormatError(f"{name} is a WAV file of compressed samples (format {tag:#06x})")
    check_rate(sample_rate, f"{name}: the sample rate")
    width = frame_bytes // max(1, channels)  # may have room for more bits than are used, at the upper end
    integers, floats = 1 <= width <= 4 and 0 < bits <= 8 * width, width in (4, 8) and bits == 8 * width
    if not channels or width * channels != frame_bytes or not (floats if tag == _FLOAT else integers):
        raise AudioError(
            f"{name}: {bits} bits per sample and {frame_bytes} bytes per frame of {channels} channels. Expected 1 to 32 "
            "bits as integers, or 32 or 64 as floats, in whole bytes for each channel."
        )
    return Wav(sample_rate, channels, width, tag == _FLOAT)


def _decode(raw: bytes, wav: Wav) -> Samples:
    if wav.is_float:
        with np.errstate(over="ignore"):  # found by check_finite
            return np.frombuffer(raw, f"<f{wav.width}").astype(np.float32)
    if wav.width == 1:
        return (np.frombuffer(raw, np.uint8).astype(np.float32) - np.float32(128)) / np.float32(2**7)
    if wav.width == 2:
        return np.frombuffer(raw, "<i2").astype(np.float32) / np.float32(2**15)
    if wav.width == 3:  # as the upper bytes of 32 bits
        padded = np.zeros((len(raw) // 3, 4), np.uint8)
        padded[:, 1:] = np.frombuffer(raw, np.uint8).reshape(-1, 3)
        raw = padded.tobytes()
    return np.frombuffer(raw, "<i4").astype(np.float32) / np.float32(2**31)


def save_wav(path: str | os.PathLike[str], samples: AnySamples, sample_rate: int) -> None:
    """Write `samples`, `[samples]` or `[samples, channels]` floats, as 16-bit PCM; `sample_rate` in Hz.

    A sample x becomes the integer nearest to 32768 x (a half goes to the even one; no dither), and what is outside
    [-1, 32767/32768] is clipped, so that the samples of a 16-bit file are written back exactly. The file is written
    completely or not at all, and replaces one of that name; missing folders are made. AudioError for NaN, infinity,
    no samples at all, or more than a WAV file can hold (4 GiB).
    """
    path = Path(path)
    check_rate(sample_rate)
    array = as_samples(samples)
    if array.ndim not in (1, 2) or not array.size:
        raise AudioError(f"samples to save must be [samples] or [samples, channels], found {list(array.shape)}.")
    frames = array.reshape(len(array), -1)
    size, frame_bytes = 2 * frames.size, 2 * frames.shape[1]
    if max(size + _HEADER_BYTES, frame_bytes * sample_rate) > 0xFFFFFFFF or frame_bytes > 0xFFFF:
        raise AudioError(
            f"samples {list(array.shape)} at {sample_rate} Hz don't fit a WAV file, which holds up to 4 GiB and 32767 "
            "channels. Write them in parts."
        )
    header = struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        *(b"RIFF", size + _HEADER_BYTES - 8, b"WAVE", b"fmt ", 16),
        *(_PCM, frames.shape[1], sample_rate, sample_rate * frame_bytes, frame_bytes, 16),
        *(b"data", size),
    )
    try:
        with atomic_file(path) as temporary, temporary.open("wb") as file:
            file.write(header)
            step = max(1, _BLOCK_BYTES // frame_bytes)
            for first in range(0, len(frames), step):
                scaled = np.rint(frames[first : first + step] * np.float64(32768))
                file.write(np.clip(scaled, -32768, 32767).astype("<i2").tobytes())
    except (OSError, ValueError) as error:
        raise AudioError(f"{path} can't be written: {error}.") from error
