"""GPT-SoVITS on Apple's MLX."""

from .audio import Recording, load_reference, load_reference_mel, reference_spectrogram, speaker_fbank
from .checkpoints import Released, read_released
from .cloning import Speech, SpeechChunk, SpeechSegment, VoiceCloner
from .conversion import convert
from .models import Models, load_models
from .networks import (
    T2S,
    BigVGAN,
    CheckpointModule,
    ChineseRoberta,
    CNHubert,
    ERes2NetV2,
    HiFiGAN,
    MelVocoder,
    Prompt,
    Sentence,
    SoVITS,
    SoVITSV3,
)
from .networks.sovits import sovits_version
from .options import SpeechOptions
from .synthesis import (
    Attempt,
    Guard,
    Sampling,
    Semantics,
    Synthesizer,
    decode_together,
    generate,
    make_synthesizer,
    stream,
)
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
    "Recording",
    "Released",
    "Sampling",
    "Semantics",
    "Sentence",
    "SoVITS",
    "SoVITSV3",
    "Speech",
    "SpeechChunk",
    "SpeechOptions",
    "SpeechSegment",
    "Synthesizer",
    "Voice",
    "VoiceCloner",
    "VoiceLibrary",
    "convert",
    "decode_together",
    "generate",
    "load_models",
    "load_reference",
    "load_reference_mel",
    "make_synthesizer",
    "read_released",
    "reference_spectrogram",
    "sovits_version",
    "speaker_fbank",
    "stream",
]
