"""The demonstration: every network of v2 at its real size, with random weights, and a real recording.

No released weights are in the Python package registry, so the sound is noise; everything else is as it would be. The
recording is of the wheel `f5-tts`, which belongs to the `demo` dependency group and isn't imported.
"""

from __future__ import annotations

import functools
from pathlib import Path

from mlx_core.demo import demo_file

from .models import Models, Vocabulary
from .networks import T2S, ChineseRoberta, ChineseRobertaConfig, CNHubert, CNHubertConfig, T2SConfig
from .networks.released_sizes import randomised, released_sovits

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
    return demo_file(
        "f5_tts",
        "infer/examples/basic/basic_ref_en.wav",
        requirement="f5-tts==1.1.22",
        missing="no reference was named",
        instead="Give one by --reference",
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
    """A vocabulary of BERT's size; the order of its characters means nothing to random weights."""
    tokens = ["[CLS]", "[SEP]", "[UNK]", *(chr(code) for code in _HAN)]
    return Vocabulary({token: number for number, token in enumerate(tokens)})
