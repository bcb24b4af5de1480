"""Recordings of the recognition networks, and the networks that they are of."""

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file

from funasr_mlx.architectures import recogniser

ASR = Path(__file__).parent / "goldens" / "asr"


def _module(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _read(name):
    record = json.loads((ASR / f"{name}.json").read_text())
    weights = _module(ASR / "seeded_weights.py").seeded_weights(record["shapes"], record["gain"], record["adjusted"])
    features = [
        np.random.default_rng(row).standard_normal((frames, record["features"])).astype(np.float32)
        for row, frames in enumerate(record["rows"])
    ]
    return SimpleNamespace(
        config=record["config"],
        weights=weights,
        features=features,
        io=load_file(ASR / f"{name}.safetensors"),
        network=recogniser(record["config"]["model"]).from_state_dict(record["config"], weights),
    )


@pytest.fixture(scope="session")
def asr_case():
    """Configuration, weights, features by row, recorded arrays and the network of a recording, by its name."""
    known = {}

    def read(name):
        if name not in known:
            known[name] = _read(name)
        return known[name]

    return read
