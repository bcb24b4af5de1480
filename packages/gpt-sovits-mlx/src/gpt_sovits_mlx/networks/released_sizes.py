"""Networks at their released sizes, unfilled or with random weights: for benchmarks and demonstrations."""

from __future__ import annotations

from typing import Any, TypeVar

import mlx.core as mx

from mlx_core import backend
from mlx_core.errors import InputError
from mlx_core.models import randomize

from .base import BaseSoVITS, EncoderConfig
from .bigvgan import BigVGAN, BigVGANConfig
from .dit import DiTConfig
from .module import CheckpointModule
from .sovits import SoVITS, SoVITSConfig
from .sovits_v3 import SoVITSV3
from .vocoder import HiFiGAN, MelVocoder, MelVocoderConfig

N = TypeVar("N", bound=CheckpointModule)
SOVITS_CONFIGS: dict[str, dict[str, Any]] = {
    "v1": {"version": "v1"},
    "v2": {"version": "v2"},
    "v2Pro": {"version": "v2Pro", "gin_channels": 1024},
    "v2ProPlus": {
        "version": "v2ProPlus",
        "gin_channels": 1024,
        "upsample_initial_channel": 768,
        "upsample_kernel_sizes": [20, 16, 8, 2, 2],
    },
    "v3": {"version": "v3"},
    "v4": {"version": "v4"},
}
"""The versions' `model` tables, where they differ from v2's sizes."""


def released_sovits(version: str) -> SoVITS | SoVITSV3:
    """A SoVITS of a version's sizes, unfilled. Raises InputError for an unknown version."""
    if version not in SOVITS_CONFIGS:
        raise InputError(f"version must be one of {', '.join(SOVITS_CONFIGS)}; found {version!r}.")
    table = SOVITS_CONFIGS[version]
    if version in ("v3", "v4"):
        return SoVITSV3(EncoderConfig.from_dict(table), DiTConfig(), 732)
    return SoVITS(SoVITSConfig.from_dict(table), 322 if version == "v1" else 732, speaker="Pro" in version)


def released_vocoder(version: str) -> MelVocoder:
    """The vocoder of v3 or v4 at its released sizes, unfilled."""
    if version == "v3":
        return BigVGAN(BigVGANConfig(use_tanh_at_final=False, use_bias_at_final=False))
    return HiFiGAN(MelVocoderConfig())


def randomised(network: N, seed: int = 0) -> N:
    """The network with random weights, in the dtype that the backend wants, else float16; its output is noise."""
    randomize(network, seed)
    if isinstance(network, BaseSoVITS):
        embed = network.quantizer.embed
        network.quantizer.embed = (
            embed * embed.shape[1] ** 0.5
        )  # a codebook's entries are as large as what is looked up
    network.set_dtype(backend.current().compute_dtype or mx.float16)
    mx.eval(network.parameters())
    network.eval()
    return network
