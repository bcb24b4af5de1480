"""The networks of GPT-SoVITS, each filled from a released file or a folder."""

from .base import BaseSoVITS, EncoderConfig
from .bert import ChineseRoberta, ChineseRobertaConfig
from .bigvgan import BigVGAN, BigVGANConfig
from .dit import DiTConfig
from .hubert import CNHubert, CNHubertConfig
from .module import CheckpointModule
from .sovits import SAMPLE_RATE, SoVITS, SoVITSConfig
from .sovits_v3 import Prompt, SoVITSV3
from .speaker import ERes2NetV2, ERes2NetV2Config
from .t2s import T2S, Sentence, T2SConfig
from .vocoder import HiFiGAN, MelVocoder, MelVocoderConfig

__all__ = [
    "SAMPLE_RATE",
    "T2S",
    "BaseSoVITS",
    "BigVGAN",
    "BigVGANConfig",
    "CNHubert",
    "CNHubertConfig",
    "CheckpointModule",
    "ChineseRoberta",
    "ChineseRobertaConfig",
    "DiTConfig",
    "ERes2NetV2",
    "ERes2NetV2Config",
    "EncoderConfig",
    "HiFiGAN",
    "MelVocoder",
    "MelVocoderConfig",
    "Prompt",
    "Sentence",
    "SoVITS",
    "SoVITSConfig",
    "SoVITSV3",
    "T2SConfig",
]
