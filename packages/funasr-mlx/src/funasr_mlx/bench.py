"""How much faster than real time recognition is: seconds of computing per second of audio (RTF), loading not
counted.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_core import backend
from mlx_core.models import named_parameters

from .frontend import make_frontend
from .paraformer import Paraformer
from .recognizer import ParaformerRecognizer, Recognizer
from .wording import Vocabulary

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
    """One way of recognising: so many recordings of so many seconds at once."""

    batch: int
    seconds: float
    rtf: float
    """The best round's."""
    peak_memory_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def random_large(seed: int = 0) -> Paraformer:
    """Paraformer-large with weights drawn so that activations stay of order one; what it says is noise."""
    network = Paraformer(LARGE, LARGE_FEATURES, LARGE_VOCABULARY)
    keys = iter(mx.random.split(mx.random.key(seed), 4096))
    drawn = []
    for name, value in named_parameters(network).items():
        if value.ndim < 2:
            continue  # norms and biases: ones and zeros
        fan = int(np.prod(value.shape[1:]))
        drawn.append((name, mx.random.normal(value.shape, key=next(keys)) / fan**0.5))
    network.load_weights(drawn, strict=False)
    # so that about four tokens are said a second
    network.predictor.cif_output.bias = mx.full((1,), -1.1)
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
    """RTF of a recording, `batch` times at once: front end, network, text."""
    seconds = len(samples) / recognizer.sample_rate
    best = float("inf")
    mx.reset_peak_memory()
    for _ in range(rounds + 1):  # the first one compiles kernels on a GPU, and isn't counted there
        start = time.perf_counter()
        features = [recognizer.frontend(samples) for _ in range(batch)]
        recognizer.recognize(features)
        best = min(best, time.perf_counter() - start)
    return Timing(batch, seconds, best / (batch * seconds), mx.get_peak_memory())
