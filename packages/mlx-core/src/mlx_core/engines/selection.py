"""The choice of an engine, and its reasons."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import mlx.core as mx
import mlx.nn as nn

from ..errors import ConfigError, EngineError
from .protocol import Engine, LanguageModel

if TYPE_CHECKING:
    from .plan import DecoderPlan

ENGINE_VARIABLE = "MLX_CORE_ENGINE"
"""The environment variable that names the engine where the caller leaves it to us."""


@dataclass(frozen=True)
class MLXEngine:
    """MLX itself: the blocks run as they are."""

    name: str = "mlx"
    automatic: bool = True

    def refuses(self, plan: DecoderPlan, weights: Mapping[str, mx.array]) -> str | None:
        return None

    def decoder(self, model: LanguageModel, plan: DecoderPlan) -> LanguageModel:
        return model

    def linear(self, layer: nn.Module) -> nn.Module:
        return layer


_MLX = MLXEngine()
_engines: dict[str, Engine] = {}


def register_engine(engine: Engine) -> None:
    """Offer an engine; the one registered last is asked first. Raises ConfigError for a name that is taken."""
    if engine.name in engine_names() or engine.name == "auto":
        raise ConfigError(
            f"there is an engine {engine.name!r} already; names are {', '.join(engine_names())} and auto."
        )
    _engines[engine.name] = engine


def engine_names() -> list[str]:
    """The engines that there are."""
    return [*reversed(_engines), _MLX.name]


@dataclass(frozen=True)
class Selection:
    """An engine for a model, the plan that it runs (None where the model has none), and the reasons."""

    engine: Engine
    plan: DecoderPlan | None
    reason: str

    def decoder(self, model: LanguageModel) -> LanguageModel:
        """The model as the engine runs it."""
        return model if self.plan is None else self.engine.decoder(model, self.plan)


def check_engine(wanted: str) -> str:
    """The engine that `wanted` comes to: a name, or "auto" where neither it nor `MLX_CORE_ENGINE` names one.

    Raises ConfigError for an unknown name; ask before weights are read.
    """
    name = wanted
    if wanted == "auto":
        name = os.environ.get(ENGINE_VARIABLE) or "auto"
    if name != "auto" and name not in engine_names():
        origin = "" if name == wanted else f" (from {ENGINE_VARIABLE})"
        raise ConfigError(f"there is no engine {name!r}{origin}; known are auto, {', '.join(engine_names())}.")
    return name


def select_engine(
    wanted: str, plan: Callable[[], DecoderPlan], weights: Callable[[], Mapping[str, mx.array]]
) -> Selection:
    """The engine for a model.

    wanted: a name, or "auto", for which `MLX_CORE_ENGINE` may name one; else the first that takes the model of those that
    are automatic here, in the end MLX. plan, weights: asked for only if an engine other than MLX is in question. Raises
    ConfigError for an unknown name, EngineError where the engine that was named can't run the model.
    """
    name = check_engine(wanted)
    if name == _MLX.name:
        return Selection(_MLX, None, "asked for")
    if name != "auto":
        engine = _engines[name]
        described = plan()
        if (reason := engine.refuses(described, weights())) is not None:
            raise EngineError(f"the engine {name!r} can't run this model: {reason}. Take another, or auto.")
        return Selection(engine, described, "asked for")
    candidates = [engine for engine in reversed(_engines.values()) if engine.automatic]
    if not candidates:
        return Selection(_MLX, None, "")
    try:
        described = plan()
    except EngineError as error:
        return Selection(_MLX, None, str(error))
    reasons: list[str] = []
    for engine in candidates:
        if (reason := engine.refuses(described, weights())) is None:
            return Selection(engine, described, "; ".join([*reasons, "fastest here"]))
        reasons.append(f"{engine.name}: {reason}")
    return Selection(_MLX, None, "; ".join(reasons))
