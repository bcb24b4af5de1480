"""Recordings of the recognition networks, and the networks that they are of."""

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file

from funasr_mlx.networks import find_recognizer

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
        network=find_recognizer(record["config"]["model"]).from_state_dict(record["config"], weights),
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


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hugging Face cache, offline: `hub.add(folder, "org/name")` puts a folder's files in it; `hub.root` is its path."""
    root = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(root))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "modelscope"))

    def add(folder, repo):
        repository, commit = root / f"models--{repo.replace('/', '--')}", "0" * 40
        snapshot = repository / "snapshots" / commit
        for path in (snapshot, repository / "blobs", repository / "refs"):
            path.mkdir(parents=True)
        (repository / "refs" / "main").write_text(commit)
        for file in folder.iterdir():
            (repository / "blobs" / file.name).write_bytes(file.read_bytes())
            (snapshot / file.name).symlink_to(Path("../../blobs") / file.name)
        return repo

    return SimpleNamespace(root=root, add=add)
