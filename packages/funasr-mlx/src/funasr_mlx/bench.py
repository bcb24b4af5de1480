"""Speed of recognition: seconds of computing per second of audio (RTF), without loading."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_core import backend
from mlx_core.bench import time_rounds
from mlx_core.models import randomize

from .frontend import make_frontend
from .networks import Paraformer
from .recognizer import ParaformerRecognizer, Recognizer
from .text import Vocabulary

# Paraformer-large, as FunASR's configurations of it say.
LARGE: dict[str, Any] = {
    "model": "Paraformer",
    "encoder": "SANMEncoder",
    "encoder_conf": {
        "output_size": 512,
        "attention_heads": 4,
        "linear_units": 2048,
        "num_blocks": 50,
        "input_layer": "pe",
        "kernel_size": 11,
        "sanm_shfit": 0,
        "selfattention_layer_type": "sanm",
        "normalize_before": True,
    },
    "decoder": "ParaformerSANMDecoder",
    "decoder_conf": {
        "attention_heads": 4,
        "linear_units": 2048,
        "num_blocks": 16,
        "att_layer_num": 16,
        "kernel_size": 11,
        "sanm_shfit": 0,
    },
    "predictor": "CifPredictorV2",
    "predictor_conf": {"idim": 512, "threshold": 1.0, "l_order": 1, "r_order": 1, "tail_threshold": 0.45},
    "frontend_conf": {"fs": 16000, "window": "hamming", "n_mels": 80, "lfr_m": 7, "lfr_n": 6},
}
LARGE_FEATURES, LARGE_VOCABULARY = 560, 8404


@dataclass(frozen=True)
class Timing:
    """The time that `batch` recordings of `seconds` each take together."""

    batch: int
    seconds: float
    rtf: float
    """Seconds of computing per second of audio, the median of the rounds."""
    fastest_rtf: float
    peak_memory_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def random_large(seed: int = 0) -> Paraformer:
    """Paraformer-large with random weights, in the dtype that the backend wants; its text is noise."""
    network = randomize(Paraformer(LARGE, LARGE_FEATURES, LARGE_VOCABULARY), seed)
    # so that about four tokens are said a second
    network.predictor.cif_output.bias = mx.full((1,), -0.65)
    dtype = backend.current().compute_dtype
    if dtype is not None:
        network.set_dtype(dtype)
    network.eval()
    mx.eval(network.parameters())
    return network


def random_large_recognizer(seed: int = 0) -> ParaformerRecognizer:
    """Paraformer-large with random weights, and the front end and as many tokens as it has."""
    frontend = make_frontend(LARGE["frontend_conf"], None)
    vocabulary = Vocabulary([f"token{number}" for number in range(LARGE_VOCABULARY)])
    return ParaformerRecognizer(random_large(seed), frontend, vocabulary, (0, 1, 2))


def bench(recognizer: Recognizer, samples: np.ndarray, *, batch: int = 1, rounds: int = 3) -> Timing:
    """RTF of a recording, `batch` times at once: front end, network, text. Raises InputError for no rounds."""
    seconds = len(samples) / recognizer.sample_rate
    mx.reset_peak_memory()
    times = time_rounds(lambda: recognizer.recognize([recognizer.frontend(samples) for _ in range(batch)]), rounds)
    audio_s = batch * seconds
    return Timing(batch, seconds, times.median_s / audio_s, times.fastest_s / audio_s, mx.get_peak_memory())
