"""Which class a model's `model` in config.yaml is."""

from __future__ import annotations

from mlx_core.errors import ConfigError
from mlx_core.models import CheckpointModule

from .contextual import ContextualParaformer
from .paraformer import BiCifParaformer, Paraformer
from .paraformer_streaming import ParaformerStreaming
from .seaco import SeacoParaformer
from .sensevoice import SenseVoiceSmall

RECOGNISERS: dict[str, type[CheckpointModule]] = {
    "Paraformer": Paraformer,
    "BiCifParaformer": BiCifParaformer,
    "SeacoParaformer": SeacoParaformer,
    "ContextualParaformer": ContextualParaformer,
    "ParaformerStreaming": ParaformerStreaming,
    "SenseVoiceSmall": SenseVoiceSmall,
}
"""Recognition networks by FunASR's names."""


def recogniser(kind: str) -> type[CheckpointModule]:
    """The class of a recogniser. Raises ConfigError for a kind that isn't known."""
    if kind not in RECOGNISERS:
        raise ConfigError(f"the model {kind!r} is no recogniser that is known: {', '.join(RECOGNISERS)}.")
    return RECOGNISERS[kind]
