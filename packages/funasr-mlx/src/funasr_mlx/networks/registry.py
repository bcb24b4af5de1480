"""Networks by FunASR's names: the `model` of a config.yaml."""

from __future__ import annotations

from mlx_core.errors import ConfigError
from mlx_core.models import CheckpointModule

from .contextual import ContextualParaformer
from .ct_transformer import CTTransformer, StreamingCTTransformer
from .paraformer import BiCifParaformer, Paraformer
from .paraformer_streaming import ParaformerStreaming
from .seaco import SeacoParaformer
from .sensevoice import SenseVoiceSmall

RECOGNIZERS: dict[str, type[CheckpointModule]] = {
    "Paraformer": Paraformer,
    "BiCifParaformer": BiCifParaformer,
    "SeacoParaformer": SeacoParaformer,
    "ContextualParaformer": ContextualParaformer,
    "ParaformerStreaming": ParaformerStreaming,
    "SenseVoiceSmall": SenseVoiceSmall,
}
"""Networks that recognize speech."""

PUNCTUATION: dict[str, type[CTTransformer]] = {cls.kind: cls for cls in (CTTransformer, StreamingCTTransformer)}
"""Networks that restore punctuation."""


def find_recognizer(name: str) -> type[CheckpointModule]:
    """The class of a recognizer's network. Raises ConfigError for an unknown name."""
    if name not in RECOGNIZERS:
        raise ConfigError(f"the model {name!r} is no recognizer that is known: {', '.join(RECOGNIZERS)}.")
    return RECOGNIZERS[name]
