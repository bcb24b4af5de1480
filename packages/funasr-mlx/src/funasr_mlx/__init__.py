"""FunASR's speech recognition on Apple's MLX."""

from .contextual import ContextualParaformer
from .conversion import convert
from .demo import demo_clip, demo_paraformer, demo_recordings, demo_vad
from .frontend import Frontend, FrontendConfig
from .paraformer import BiCifParaformer, Paraformer, ParaformerOutput
from .paraformer_streaming import ParaformerStreaming
from .pipeline import Pipeline
from .punctuation import Punctuation, load_punctuation
from .recognizer import Recognizer, load_model
from .seaco import SeacoParaformer
from .sensevoice import SenseVoiceOutput, SenseVoiceSmall
from .streaming import StreamingSession
from .transcript import Segment, Transcript
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
