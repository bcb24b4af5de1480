"""GPT-SoVITS on Apple's MLX."""

from .bert import ChineseRoberta
from .bigvgan import BigVGAN
from .cloning import Speech, SpeechChunk, SpeechSegment, VoiceCloner
from .conversion import convert
from .decoding import Sampling
from .features import reference_spectrogram, speaker_fbank
from .generation import Attempt, Guard, Semantics, generate, stream
from .hubert import CNHubert
from .models import Models, load_models
from .network import CheckpointModule
from .overlap import decode_together
from .released import Released, read_released
from .sovits import SoVITS, sovits_version
from .sovits_v3 import Prompt, SoVITSV3
from .speaker import ERes2NetV2
from .t2s import T2S, Sentence
from .vocoder import HiFiGAN, MelVocoder
from .voices import Voice, VoiceLibrary

__all__ = [
    "T2S",
    "Attempt",
    "BigVGAN",
    "CNHubert",
    "CheckpointModule",
    "ChineseRoberta",
    "ERes2NetV2",
    "Guard",
    "HiFiGAN",
    "MelVocoder",
    "Models",
    "Prompt",
    "Released",
    "Sampling",
    "Semantics",
    "Sentence",
    "SoVITS",
    "SoVITSV3",
    "Speech",
    "SpeechChunk",
    "SpeechSegment",
    "Voice",
    "VoiceCloner",
    "VoiceLibrary",
    "convert",
    "decode_together",
    "generate",
    "load_models",
    "read_released",
    "reference_spectrogram",
    "sovits_version",
    "speaker_fbank",
    "stream",
]
