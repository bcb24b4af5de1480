"""FunASR's speech recognition on Apple's MLX."""

from .conversion import convert
from .demo import demo_clip, demo_paraformer, demo_recordings, demo_vad
from .frontend import Frontend, FrontendConfig
from .networks import (
    BiCifParaformer,
    ContextualParaformer,
    Paraformer,
    ParaformerOutput,
    ParaformerStreaming,
    SeacoParaformer,
    SenseVoiceOutput,
    SenseVoiceSmall,
)
from .pipeline import Pipeline
from .punctuation import Punctuation, load_punctuation
from .recognizer import Recognizer, load_model
from .streaming import StreamingSession
from .text import Segment, Transcript
from .vad import VAD, VADStream, load_vad, merge_segments

__all__ = [
    "VAD",
    "BiCifParaformer",
    "ContextualParaformer",
    "Frontend",
    "FrontendConfig",
    "Paraformer",
    "ParaformerOutput",
    "ParaformerStreaming",
    "Pipeline",
    "Punctuation",
    "Recognizer",
    "SeacoParaformer",
    "Segment",
    "SenseVoiceOutput",
    "SenseVoiceSmall",
    "StreamingSession",
    "Transcript",
    "VADStream",
    "convert",
    "demo_clip",
    "demo_paraformer",
    "demo_recordings",
    "demo_vad",
    "load_model",
    "load_punctuation",
    "load_vad",
    "merge_segments",
]
