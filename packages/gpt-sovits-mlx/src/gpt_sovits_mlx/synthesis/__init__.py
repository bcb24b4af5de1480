"""Speech out of the networks: semantic tokens drawn and watched, and synthesisers that turn them into samples."""

from .decoding import Sampling, decode
from .generation import Attempt, Guard, Semantics, Verdict, generate, stream
from .overlap import decode_together
from .synthesizer import Synthesizer, make_synthesizer

__all__ = [
    "Attempt",
    "Guard",
    "Sampling",
    "Semantics",
    "Synthesizer",
    "Verdict",
    "decode",
    "decode_together",
    "generate",
    "make_synthesizer",
    "stream",
]
