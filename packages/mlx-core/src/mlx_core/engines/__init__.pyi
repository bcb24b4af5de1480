from .plan import (
    AttentionPlan,
    DecoderPlan,
    LayerPlan,
    LinearPlan,
    MLPPlan,
    MoEPlan,
    NormPlan,
    RouterPlan,
    Shard,
    describe,
)
from .protocol import Engine, LanguageModel
from .selection import ENGINE_VARIABLE, MLXEngine, check_engine, engine_names, register_engine, select_engine

__all__ = [
    "ENGINE_VARIABLE",
    "AttentionPlan",
    "DecoderPlan",
    "Engine",
    "LanguageModel",
    "LayerPlan",
    "LinearPlan",
    "MLPPlan",
    "MLXEngine",
    "MoEPlan",
    "NormPlan",
    "RouterPlan",
    "Shard",
    "check_engine",
    "describe",
    "engine_names",
    "register_engine",
    "select_engine",
]
