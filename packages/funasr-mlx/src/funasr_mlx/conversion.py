"""FunASR's folders -> folders of safetensors that load fast, smaller if wanted."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx

from mlx_core import backend
from mlx_core.errors import ConversionError
from mlx_core.models import CheckpointModule

from .architectures import recogniser
from .folder import COMPANIONS, open_folder
from .punctuation import Punctuation, StreamingPunctuation
from .vad import VAD

# What else FunASR has than recognisers, by its names.
_OTHERS: dict[str, type[CheckpointModule]] = {
    "FsmnVADStreaming": VAD,
    **{kind.kind: kind for kind in (Punctuation, StreamingPunctuation)},
}

_DTYPES = {"float16": mx.float16, "float32": mx.float32}


@backend.worker_streams()
def convert(
    source: str | Path, folder: str | Path, *, dtype: str = "float16", bits: int | None = None, group_size: int = 64
) -> CheckpointModule:
    """Write FunASR's folder of a model (config.yaml, model.pt ...) as config.json, safetensors and the files beside
    them; returns the network as it was written.

    dtype: "float16" or "float32". bits: 8 or 4 packs the linear layers of encoders and decoders, in groups of
    `group_size`. The folder appears whole or not at all; it must not exist, or be empty. Raises ConversionError, and
    what loading raises.
    """
    if dtype not in _DTYPES:
        raise ConversionError(f"dtype must be one of {', '.join(_DTYPES)}; found {dtype!r}.")
    opened = open_folder(source)
    kind = _OTHERS.get(opened.kind) or recogniser(opened.kind)
    network = kind.from_state_dict(opened.config, opened.weights(), dtype=_DTYPES[dtype], keep_packed=False, lazy=True)
    if bits is not None:
        network.quantize(bits, group_size)
    found = {name: path for name in COMPANIONS if (path := opened.file(name)) is not None}
    network.save(folder, files=found)
    return network
