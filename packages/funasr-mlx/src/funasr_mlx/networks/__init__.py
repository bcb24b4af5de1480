"""Networks of recognition, voice activity and punctuation: features or words in, logits out."""

from .cif import CifOutput, CifPredictor, PredictorConfig, TimestampPredictor, cif_weights, make_predictor
from .contextual import ContextualParaformer
from .ct_transformer import CTTransformer, CTTransformerConfig, StreamingCTTransformer
from .ctc import align, collapse
from .fsmn import FSMN, FSMNCache, FSMNConfig
from .hotwords import HotwordIds
from .paraformer import BiCifParaformer, EncodedSpeech, Paraformer, ParaformerOutput
from .paraformer_streaming import ChunkConfig, ChunkOutput, ParaformerStreaming, StreamState, make_chunks
from .registry import PUNCTUATION, RECOGNIZERS, find_recognizer
from .sanm import SANMConfig, SANMEncoder, padding_mask
from .seaco import SeacoParaformer
from .sensevoice import LANGUAGES, PREFIX, SenseVoiceOutput, SenseVoiceSmall

__all__ = [
    "FSMN",
    "LANGUAGES",
    "PREFIX",
    "PUNCTUATION",
    "RECOGNIZERS",
    "BiCifParaformer",
    "CTTransformer",
    "CTTransformerConfig",
    "ChunkConfig",
    "ChunkOutput",
    "CifOutput",
    "CifPredictor",
    "ContextualParaformer",
    "EncodedSpeech",
    "FSMNCache",
    "FSMNConfig",
    "HotwordIds",
    "Paraformer",
    "ParaformerOutput",
    "ParaformerStreaming",
    "PredictorConfig",
    "SANMConfig",
    "SANMEncoder",
    "SeacoParaformer",
    "SenseVoiceOutput",
    "SenseVoiceSmall",
    "StreamState",
    "StreamingCTTransformer",
    "TimestampPredictor",
    "align",
    "cif_weights",
    "collapse",
    "find_recognizer",
    "make_chunks",
    "make_predictor",
    "padding_mask",
]
