"""How a text is to be spoken."""

from __future__ import annotations

from dataclasses import dataclass

from mlx_core.errors import InputError

from .networks.base import check_speed
from .synthesis import Sampling
from .synthesis.generation import check_seed
from .text.spans import check_language
from .text.splits import check_method

PAUSE_S = 0.3
MAX_PAUSE_S = 60.0


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
    pause_s: float = PAUSE_S
    seed: int | None = None
    steps: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_language(self.language)
        check_method(self.split)
        check_speed(self.speed)
        if not 0 <= self.pause_s <= MAX_PAUSE_S:
            raise InputError(f"pause_s must be from 0 to {MAX_PAUSE_S:g} seconds; found {self.pause_s!r}.")
        if self.seed is not None:
            check_seed(self.seed)
        if self.steps is not None and (isinstance(self.steps, bool) or not 1 <= self.steps <= 10000):
            raise InputError(f"steps must be from 1 to 10000, or None; found {self.steps!r}.")
