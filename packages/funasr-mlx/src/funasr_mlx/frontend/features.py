"""Features: Kaldi's filter bank, several frames side by side (low frame rate, LFR), normalised (CMVN).

    samples -> fbank [frames, n_mels] -> low frame rate [ceil(frames / n), n_mels m] -> (x + shift) scale

Reference: FunASR 1.4.16, `frontends/wav_frontend.py`, with its dither always 0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from mlx_core.audio import FbankConfig, compute_fbank
from mlx_core.audio.samples import AnySamples, as_samples
from mlx_core.config import BaseConfig
from mlx_core.errors import AudioError, ConfigError, InputError, WeightsError

from .samples import check_amplitude

_Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class FrontendConfig(BaseConfig):
    """The `frontend_conf` of a config.yaml."""

    fs: int = 16000
    window: str = "hamming"
    n_mels: int = 80
    frame_length: int | float = 25
    frame_shift: int | float = 10
    lfr_m: int = 1
    lfr_n: int = 1
    upsacle_samples: bool = True
    snip_edges: bool = True

    def __post_init__(self) -> None:
        for name in ("fs", "n_mels", "lfr_m", "lfr_n"):
            if getattr(self, name) < 1:
                raise ConfigError(f"frontend_conf: {name} must be at least 1; found {getattr(self, name)}.")
        if not self.snip_edges:
            raise ConfigError("frontend_conf: snip_edges must be true, as in every released model; found false.")
        try:
            self.fbank()
        except AudioError as error:
            raise ConfigError(f"frontend_conf: {error}") from error

    def fbank(self) -> FbankConfig:
        """The filter bank."""
        return FbankConfig(
            sample_rate=self.fs,
            n_mels=self.n_mels,
            frame_length_ms=self.frame_length,
            frame_shift_ms=self.frame_shift,
            window=self.window,  # type: ignore[arg-type] # checked there
            scale=32768.0 if self.upsacle_samples else 1.0,
        )

    @property
    def width(self) -> int:
        """Numbers in a row of features."""
        return self.n_mels * self.lfr_m

    @property
    def row_ms(self) -> float:
        """Milliseconds from one row of features to the next."""
        return self.frame_shift * self.lfr_n


@dataclass(frozen=True)
class Frontend:
    """Samples -> features: `frontend(samples)`; `OnlineFrontend` calls the parts piece by piece."""

    config: FrontendConfig
    shift: mx.array | None = None
    """`[width]`, added; None for a model without normalisation."""
    scale: mx.array | None = None

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return self.config.fs

    def __call__(self, samples: AnySamples) -> mx.array:
        """Samples `[S]` in [-1, 1] at the config's rate, mono -> features `[T, n_mels lfr_m]`; T is 0 for samples that
        are too few for a frame. Raises AudioError for NaN, infinity, or samples too large for a spectrum.
        """
        return self.normalize(self.stack(self.fbank(samples)))

    def fbank(self, samples: AnySamples) -> mx.array:
        """Samples -> `[frames, n_mels]`."""
        return compute_fbank(check_amplitude(as_samples(samples)), self.config.fbank())

    def stack(self, frames: mx.array) -> mx.array:
        """`[frames, n_mels] -> [ceil(frames / n), n_mels m]`: row i is the m frames around frame i n, the first and
        last frames repeated beyond the ends.
        """
        m, n = self.config.lfr_m, self.config.lfr_n
        count = frames.shape[0]
        if count == 0:
            return mx.zeros((0, self.config.width))
        if m == n == 1:
            return frames
        first = np.arange(0, count, n)[:, None] - (m - 1) // 2
        at = np.clip(first + np.arange(m), 0, count - 1)
        return frames[mx.array(at)].reshape(at.shape[0], -1)

    def normalize(self, rows: mx.array) -> mx.array:
        """`[T, width] -> [T, width]`."""
        if self.shift is None or self.scale is None:
            return rows
        return (rows + self.shift) * self.scale


def as_features(features: npt.ArrayLike | mx.array, width: int) -> mx.array:
    """Features `[B, T, F]`, MLX's, NumPy's or lists, as MLX's. Raises InputError for another shape than `width` has."""
    found = features if isinstance(features, mx.array) else mx.array(np.asarray(features, np.float32))
    if found.ndim != 3 or found.shape[2] != width:
        raise InputError(f"features must be [B, T, {width}]; found shape {tuple(found.shape)}.")
    return found


def make_frontend(config: Mapping[str, Any], mvn: Path | None) -> Frontend:
    """The front end that config.yaml's `frontend_conf` and a file am.mvn describe.

    Raises ConfigError and WeightsError.
    """
    settings = FrontendConfig.from_dict(dict(config))
    if mvn is None:
        return Frontend(settings)
    shift, scale = read_mvn(mvn)
    if len(shift) != settings.width:
        raise WeightsError(
            f"{mvn} normalises {len(shift)} numbers; the configuration makes {settings.width} (n_mels lfr_m). "
            "They are of different models."
        )
    return Frontend(settings, mx.array(shift), mx.array(scale))


_VECTOR = re.compile(r"<LearnRateCoef>\s+\S+\s+\[([^\]]*)\]")


def read_mvn(path: Path) -> tuple[_Floats, _Floats]:
    """Shift and scale out of Kaldi's text am.mvn: the vectors after `<AddShift>` and `<Rescale>`. WeightsError."""
    try:
        text = path.read_text(encoding="utf-8")
        shift, scale = (np.array([float(x) for x in found.split()], np.float32) for found in _VECTOR.findall(text))
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"{path} isn't a normalisation that Kaldi writes: expected two vectors in brackets after <LearnRateCoef>; "
            f"{error}."
        ) from error
    if shift.shape != scale.shape or not (np.isfinite(shift).all() and np.isfinite(scale).all()):
        raise WeightsError(f"{path}: its vectors have {len(shift)} and {len(scale)} numbers, or NaN among them.")
    return shift, scale
