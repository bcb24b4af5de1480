"""How a text is to be spoken."""

from __future__ import annotations

from dataclasses import dataclass

from .networks.base import SPEEDS
from .synthesis import Sampling
from .synthesis.decoding import check_number
from .synthesis.generation import check_seed
from .text.spans import check_language
from .text.splits import check_method


@dataclass(frozen=True, kw_only=True)
class SpeechOptions(Sampling):
    """How a text is cut, read and spoken; how its semantic tokens are drawn is said by the fields of `Sampling`.

    - `language`: "auto", "zh", "en" ..., one of `gpt_sovits_mlx.text.LANGUAGES`.
    - `split`: how sentences are cut, "cut0" to "cut5".
    - `speed`: how much faster than the voice would, 0.1 to 10.
    - `pause_s`: silence between sentences, 0 to 60 s.
    - `seed`: the same one gives the same speech; None for a fresh one.
    - `steps`: of v3's and v4's solver, None for the version's own number.

    Raises InputError for values out of range.
    """

    language: str = "auto"
    split: str = "cut5"
    speed: float = 1.0
    pause_s: float = 0.3
    seed: int | None = None
    steps: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_language(self.language)
        check_method(self.split)
        check_number("speed", self.speed, *SPEEDS)
        check_number("pause_s", self.pause_s, 0, 60)
        if self.seed is not None:
            check_seed(self.seed)
        if self.steps is not None:
            check_number("steps", self.steps, 1, 10000, whole=True)
