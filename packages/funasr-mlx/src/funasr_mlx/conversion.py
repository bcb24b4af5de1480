"""Conversion of FunASR's folders to folders of safetensors, which load fast and may be smaller."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx

from mlx_core import backend
from mlx_core.errors import ConversionError
from mlx_core.models import CheckpointModule

from .folder import COMPANIONS, open_folder
from .networks import PUNCTUATION, find_recognizer
from .vad import VAD

# Networks that aren't recognizers, by FunASR's names.
_OTHERS: dict[str, type[CheckpointModule]] = {"FsmnVADStreaming": VAD, **PUNCTUATION}

_DTYPES = {"float16": mx.float16, "float32": mx.float32}


@backend.worker_streams()
def convert(
    source: str | Path, folder: str | Path, *, dtype: str = "float16", bits: int | None = None, group_size: int = 64
) -> CheckpointModule:
    """Write FunASR's folder of a model (config.yaml, model.pt ...) as config.json, safetensors and the files beside
    them; returns the network as it was written.

    source: a folder or a hub id. dtype: "float16" or "float32". bits: 8 or 4 packs the linear layers of encoders and
    decoders, in groups of `group_size`. The folder appears whole or not at all; it must not exist, or be empty. Raises
    ConversionError, and the errors of loading.
    """
    if dtype not in _DTYPES:
        raise ConversionError(f"dtype must be one of {', '.join(_DTYPES)}; found {dtype!r}.")
    opened = open_folder(source)
    kind = _OTHERS.get(opened.kind) or find_recognizer(opened.kind)
    network = kind.from_state_dict(opened.config, opened.weights(), dtype=_DTYPES[dtype], keep_packed=False, lazy=True)
    if bits is not None:
        network.quantize(bits, group_size)
    found = {name: path for name in COMPANIONS if (path := opened.file(name)) is not None}
    network.save(folder, files=found)
    return network
