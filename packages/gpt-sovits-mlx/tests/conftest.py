"""Goldens, weights drawn again, and torch files made without torch."""

import functools
import importlib.util
import io
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

# Before MLX is imported: products are small here, and OpenBLAS's threads spin while they wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

GOLDENS = Path(__file__).parent / "goldens"


def _seeded_weights():
    spec = importlib.util.spec_from_file_location("seeded_weights", GOLDENS / "seeded_weights.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.seeded_weights


@functools.cache
def _golden(name):
    config = json.loads((GOLDENS / name / "config.json").read_text())
    shared = load_file(GOLDENS / "sovits_inputs.safetensors") if name.startswith("sovits") else {}
    return config, shared | load_file(GOLDENS / name / "io.safetensors")


@functools.cache
def _weights(name, part):
    config, rest = _golden(name)[0], GOLDENS / name / f"{part}.safetensors"
    drawn = _seeded_weights()(config[part], config[f"{part}_seed"], config.get("weights_gain", 1.0))
    return drawn | load_file(rest) if rest.exists() else drawn


@pytest.fixture(scope="session")
def golden():
    """Configuration and recorded arrays by the golden's name; `shapes` in the configuration are those of arrays of
    which only some numbers were kept.
    """
    return _golden


@pytest.fixture(scope="session")
def goldens():
    return GOLDENS


@pytest.fixture(scope="session")
def weights():
    """A golden's weights by its name: those of its network, or of another `part`."""
    return lambda name, part="weights": dict(_weights(name, part))


@pytest.fixture(scope="session")
def torch_file():
    """The bytes of `torch.save({"weight": weights, "config": config, "info": ...})` writes, with a head in place of PK."""

    def make(weights, config, *, head=b"PK", hparams=False):
        code = b"\x80\x02}(" + _text("weight") + b"}("
        storages = {}
        for key, (name, array) in enumerate(weights.items()):
            storages[str(key)] = np.ascontiguousarray(array).tobytes()
            code += _text(name) + _tensor(str(key), array)
        code += b"u" + _text("config") + _plain(config, hparams) + _text("info") + _text("8epoch") + b"u."
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr("archive/data.pkl", code)
            for key, data in storages.items():
                archive.writestr(f"archive/data/{key}", data)
        return head + file.getvalue()[2:]

    return make


def _text(value):
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def _plain(value, hparams):
    """A configuration, its tables as dicts or as objects of `utils.HParams`."""
    if not isinstance(value, dict):
        return pickle.dumps(value, protocol=2)[2:-1]
    entries = b"}(" + b"".join(_text(key) + _plain(entry, hparams) for key, entry in value.items()) + b"u"
    return b"cutils\nHParams\n)\x81" + entries + b"b" if hparams else entries


def _tensor(key, array):
    kind = {"float16": b"Half", "float32": b"Float"}[array.dtype.name]
    storage = b"(" + _text("storage") + b"ctorch\n" + kind + b"Storage\n" + _text(key) + _text("cpu")
    storage += _number(array.size) + b"tQ"
    strides = [stride // array.itemsize for stride in np.ascontiguousarray(array).strides]
    sizes = [b"(" + b"".join(map(_number, numbers)) + b"t" for numbers in (array.shape, strides)]
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + _number(0) + b"".join(sizes) + b"\x89}tR"


def _number(value):
    return b"J" + struct.pack("<i", value)
