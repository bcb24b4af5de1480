"""The front end piece by piece, for streams.

Its rows of features, put together, equal those that `Frontend` makes of the whole. Reference: FunASR 1.4.16,
`WavFrontendOnline`.
"""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from .features import Frontend

_Floats = npt.NDArray[np.float32]


class OnlineFrontend:
    """One recording's front end: `rows(frames(piece)[0], final)` for each piece."""

    def __init__(self, frontend: Frontend) -> None:
        self._frontend = frontend
        self._fbank = frontend.config.fbank()
        self._samples: _Floats = np.zeros(0, np.float32)  # not in a frame yet, or in later ones too
        self._frames: mx.array | None = None  # not in a row yet, or in later ones too

    def frames(self, samples: _Floats) -> tuple[mx.array, _Floats]:
        """The next samples `[S]` -> the frames that they complete, `[frames, n_mels]`, and the samples of those."""
        shift = self._fbank.shift_samples
        if self._samples.size:
            samples = np.concatenate([self._samples, samples])
        count = self._fbank.frames(samples.size)
        self._samples = samples[count * shift :].copy()
        span = samples[: (count - 1) * shift + self._fbank.frame_samples] if count else samples[:0]
        return self._frontend.fbank(span), span

    def rows(self, frames: mx.array, final: bool = False) -> mx.array:
        """The next frames `[F, n_mels]` -> the rows that they complete, normalised, `[T, n_mels m]`.

        final: the last frame is repeated until every frame has had its row.
        """
        m, n = self._frontend.config.lfr_m, self._frontend.config.lfr_n
        before = (m - 1) // 2
        if self._frames is None and frames.shape[0]:
            self._frames = mx.repeat(frames[:1], before, axis=0)
        if self._frames is None:
            return mx.zeros((0, m * frames.shape[1]))
        known = mx.concatenate([self._frames, frames])
        total = known.shape[0]
        if final:
            count = max(0, -((before - total) // n))
        elif frames.shape[0]:
            count = max(0, (total - m) // n + 1)
        else:
            count = 0
        at = np.arange(0, count * n, n)[:, None] + np.arange(m)
        rows = (
            known[mx.array(np.minimum(at, total - 1))].reshape(count, -1)
            if count
            else mx.zeros((0, m * frames.shape[1]))
        )
        # The reference keeps a frame even where all have been used up, as they are where rows don't overlap (n >= m).
        used = count * n if m == n == 1 else min(total - 1, count * n)
        self._frames = known[used:] if count else known
        return self._frontend.normalize(rows)
