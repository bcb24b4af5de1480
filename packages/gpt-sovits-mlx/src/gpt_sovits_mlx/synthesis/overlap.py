"""Several sentences of v3 or v4 at once, as the official API computes them: one after the other they are cut into windows
that overlap by 12 frames, each of which goes on from the same prompt; so windows are computed together, and no mistake
is handed on. Where two overlap their sounds are shifted until they agree, and cross-faded (SOLA).

Reference: GPT-SoVITS, `TTS_infer_pack/TTS.py` (`using_vocoder_synthesis_batched_infer`, `sola_algorithm`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from mlx_core.errors import InputError
from mlx_core.models import Array

from ..networks.sovits_v3 import Prompt, SoVITSV3, denormalised
from ..networks.vocoder import MelVocoder

OVERLAP_FRAMES = 12
_Samples = npt.NDArray[np.float32]


def decode_together(
    sovits: SoVITSV3,
    sentences: Sequence[tuple[Any, Any]],
    voice: mx.array,
    prompt: Prompt,
    vocoder: MelVocoder,
    *,
    speed: float = 1.0,
    steps: int | None = None,
    guidance: float = 0.0,
    temperature: float = 1.0,
    noise: Array | None = None,
    seed: int = 0,
    batch_size: int = 4,
) -> list[mx.array]:
    """Semantic tokens and phones of each sentence -> samples of each, at the vocoder's rate.

    noise: `[windows, window_frames, M]`, else drawn from `seed`. batch_size: windows that are computed at once, which
    memory grows with. The others, and what is raised, are `SoVITSV3.decode`'s.
    """
    if not sentences or batch_size < 1:
        raise InputError(f"sentences and batch_size must be 1 or more; found {len(sentences)} and {batch_size!r}.")
    features = [sovits.features(codes, phones, voice, speed=speed) for codes, phones in sentences]
    joint, size = (
        mx.pad(mx.concatenate(features, axis=1), [(0, 0), (OVERLAP_FRAMES, 0), (0, 0)]),
        sovits.window_frames(prompt),
    )
    T = joint.shape[1]
    starts = range(0, T, size - OVERLAP_FRAMES)
    spare = starts[-1] + size - T
    joint = mx.pad(joint, [(0, 0), (0, spare), (0, 0)])
    windows = mx.concatenate([joint[:, start : start + size] for start in starts])
    drawn = sovits.noise(len(windows), size, noise, seed)
    mels = [
        sovits.sample(
            windows[i : i + batch_size],
            prompt,
            steps=steps,
            guidance=guidance,
            temperature=temperature,
            noise=drawn[i : i + batch_size],
        )
        for i in range(0, len(windows), batch_size)
    ]
    samples = np.array(vocoder.speak(denormalised(mx.concatenate(mels)).reshape(-1, drawn.shape[-1])))
    hop = vocoder.config.hop_length_samples
    whole = sola(np.split(samples, len(windows)), OVERLAP_FRAMES * hop)[OVERLAP_FRAMES * hop :]
    ends = np.cumsum([part.shape[1] for part in features]) * hop
    return [mx.array(part) for part in np.split(whole[: ends[-1]], ends[:-1])]


def sola(pieces: Sequence[_Samples], overlap: int) -> _Samples:
    """Pieces whose ends and beginnings are the same `overlap` samples -> one, shorter by `overlap` for each border.

    The later piece begins where its overlap correlates best with the earlier's, counted as the official code counts:
    from a lag of minus half the overlap.
    """
    done = [pieces[0]]
    for piece in pieces[1:]:
        before = done[-1]
        ending = np.pad(before[-overlap:], overlap // 2)
        agreement = np.correlate(ending, piece[:overlap], mode="valid")[:-1] if overlap > 1 else np.zeros(1)
        skipped = int(np.argmax(agreement))
        length = overlap - skipped
        rising = (0.5 - 0.5 * np.cos(np.pi * np.arange(length) / length)).astype(np.float32)  # half of Hann's window
        blended = rising * piece[skipped:overlap] + (1 - rising) * before[-length:]
        done[-1] = before[:-length]
        done.append(np.concatenate([blended, piece[overlap:]]))
    return np.concatenate(done)
