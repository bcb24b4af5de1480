"""Record what torch saves, for packages/mlx-core/tests/test_torch_checkpoint.py.

Run in an environment with torch 2.13.0, numpy 2 and safetensors:

    python scripts/record_golden/torch_checkpoints.py --out packages/mlx-core/tests/goldens/torch

`README.md` in the output folder describes the files.
"""

from __future__ import annotations

import argparse
import collections
import io
import json
import pathlib
import pickle
import sys
import types
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

SEED = 7


def tensors() -> dict[str, Any]:
    """Tensors of every dtype and layout that can be read."""
    torch.manual_seed(SEED)
    floats = torch.randn(3, 4)
    base = torch.arange(24, dtype=torch.int32).reshape(2, 3, 4)
    special = torch.tensor([0.0, -0.0, float("inf"), -float("inf"), float("nan"), 1e-40, 3.4e38])
    integers = [
        torch.int8,
        torch.int16,
        torch.int32,
        torch.int64,
        torch.uint8,
        torch.uint16,
        torch.uint32,
        torch.uint64,
    ]
    return {
        "floats": {
            "float32": floats,
            "float16": floats.half(),
            "bfloat16": floats.bfloat16(),
            "float64": floats.double() / 3,
            "complex64": torch.complex(floats, floats.flip(0)),
            "special": special,
            "special_bfloat16": special.bfloat16(),
            "special_float16": special.half(),
            "float8_e4m3fn": floats.to(torch.float8_e4m3fn),
            "float8_e5m2": floats.to(torch.float8_e5m2),
        },
        "integers": [torch.tensor([0, 1, 2, 100], dtype=dtype) for dtype in integers],
        "limits": [torch.tensor([torch.iinfo(t).min, torch.iinfo(t).max], dtype=t) for t in integers],
        "bool": torch.tensor([[True, False, True]]),
        "scalars": (torch.tensor(1.5), torch.tensor(-3), torch.tensor(True), torch.tensor(2.5, dtype=torch.bfloat16)),
        "empty": [torch.empty(0), torch.empty(0, 5, dtype=torch.bfloat16), torch.empty(2, 0, 3, dtype=torch.int64)],
        "views": {
            "base": base,
            "slice": base[:, 1:, ::2],
            "row": base[1, 2],
            "element": base[1, 1, 1],
            "transposed": base.transpose(0, 2),
            "permuted": base.permute(1, 2, 0),
            "same": base.view(2, 3, 4),
            "flat": base.view(-1),
            "expanded": torch.arange(3.0).expand(4, 3),
            "expanded_column": torch.arange(3.0).bfloat16()[:, None].expand(3, 5),
            "overlapping": torch.arange(6.0).unfold(0, 3, 1),
            "one": base[:1, :1, :1].transpose(0, 2),
        },
        "parameter": torch.nn.Parameter(floats + 1),
        "frozen": torch.nn.Parameter(floats - 1, requires_grad=False),
    }


def module() -> torch.nn.Module:
    """A model whose state dict has `_metadata`, a buffer and tied weights."""
    torch.manual_seed(SEED)
    model = torch.nn.Sequential(
        torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(4, 3), torch.nn.LSTM(3, 2)
    )
    model[2].weight = model[0].weight
    return model


def training() -> dict[str, Any]:
    """A training checkpoint: a model's state, an optimizer's after a step, a scheduler's, and settings."""
    model = module()[:2]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 5, 5])
    model(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    scheduler.step()
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "epoch": 3,
        "args": argparse.Namespace(lr=1e-3, name="größe", betas=(0.9, 0.98)),
        "ema": None,
    }


def plain() -> dict[str, Any]:
    """Plain data beside tensors."""
    return {
        "ints": [0, 255, 256, 65536, -1, -(2**31), 2**31, 2**63, -(2**70)],
        "floats": [0.0, -1.5, 1e300, float("inf")],
        "texts": ["", "a", "größe \U0001f600", "x" * 300],
        "bytes": [b"", b"abc\x00\xff", bytearray(b"abc")],
        "flags": (True, False, None),
        "complex": 1 - 2j,
        "sets": [{1, 2, 3}, frozenset({"a"}), set()],
        "nested": {1: {"a": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)]}},
        "ordered": collections.OrderedDict([("b", 1), ("a", 2)]),
        "counter": collections.Counter("aab"),
        "default": collections.defaultdict(list, {"a": [1]}),
        "size": torch.Size([2, 3]),
        "devices": [torch.device("cpu"), torch.device("cuda", 1)],
        "dtypes": [torch.float32, torch.bfloat16, torch.int64],
        "layout": torch.strided,
        "path": pathlib.PosixPath("a/b.wav"),
        "numpy": {
            "scalars": [np.float64(0.1), np.float32(0.5), np.int64(-7), np.bool_(True), np.str_("né")],
            "array": np.arange(6, dtype=np.float32).reshape(2, 3),
            "fortran": np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)),
            "big": np.arange(3, dtype=">i4"),
            "long": np.arange(500.0),
            "none": np.zeros((0, 3), np.uint8),
            "texts": np.array(["a", "bcd"]),
            "dtype": np.dtype("<f2"),
        },
    }


def hyperparameters() -> dict[str, Any]:
    """A checkpoint whose settings are an object of a class that only its author has."""
    module = types.ModuleType("utils")

    class HParams:
        def __init__(self, **entries: Any) -> None:
            vars(self).update({k: HParams(**v) if isinstance(v, dict) else v for k, v in entries.items()})

    HParams.__module__, HParams.__qualname__ = "utils", "HParams"
    module.HParams = HParams  # type: ignore[attr-defined]
    sys.modules["utils"] = module
    config = HParams(train={"seed": 1234, "lr": 1e-4}, version="v2")
    return {"weight": {"enc.weight": torch.ones(2, 2).half()}, "config": config, "info": "2epoch"}


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors in nested containers, each under the keys that lead to it."""
    if isinstance(value, torch.Tensor):
        yield path, value.detach()
    elif isinstance(value, dict | list | tuple):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(item, f"{path}/{key}")


def expected(value: Any) -> tuple[dict[str, list[Any]], dict[str, torch.Tensor]]:
    """The tensors' kinds, and their bytes."""
    facts, content = {}, {}
    for path, tensor in leaves(value):
        facts[path] = [str(tensor.dtype).removeprefix("torch."), list(tensor.shape)]
        flat = torch.empty(tensor.numel(), dtype=tensor.dtype)
        content[path] = flat.copy_(tensor.reshape(-1)).view(torch.uint8)
    return facts, content


def big_endian(content: bytes) -> bytes:
    """The zip file as a big-endian machine would have written it; only for tensors of four bytes an element."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(out, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            if "/data/" in name:
                data = np.frombuffer(data, "<u4").astype(">u4").tobytes()
            target.writestr(name, b"big" if name.endswith("/byteorder") else data)
    return out.getvalue()


def without_debug(content: bytes) -> bytes:
    """The TorchScript archive without the paths of the machine that wrote it."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(out, "w") as target:
        for entry in source.infolist():
            if not entry.filename.endswith(".debug_pkl"):
                target.writestr(entry.filename, source.read(entry), entry.compress_type)
    return out.getvalue()


def storage_views() -> bytes:
    """The older layout as torch before 0.4 wrote it, where a storage can be a view of another one."""

    class View(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            if isinstance(value, tuple) and value and value[0] == "view":
                return ("storage", torch.FloatStorage, "100", "cpu", 6, value[1])
            return None

    class Rebuilt:
        def __init__(self, view: Any, size: int) -> None:
            self.view, self.size = view, size

        def __reduce__(self) -> Any:
            return torch._utils._rebuild_tensor, (("view", self.view), 0, (self.size,), (1,))

    out = io.BytesIO()
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    for value in (torch.serialization.MAGIC_NUMBER, 1001, system):
        pickle.dump(value, out, 2)
    View(out, 2).dump({"middle": Rebuilt(("101", 2, 3), 3), "end": Rebuilt(("102", 4, 2), 2), "all": Rebuilt(None, 6)})
    pickle.dump(["100"], out, 2)
    out.write((6).to_bytes(8, "little") + np.arange(6, dtype="<f4").tobytes())
    return out.getvalue()


def main() -> None:
    """Record everything."""
    parser = argparse.ArgumentParser(description="Record what torch saves.")
    parser.add_argument("--out", type=Path, required=True, help="the goldens' folder")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = {}
    content: dict[str, torch.Tensor] = {}

    def record(name: str, value: Any) -> None:
        facts[name], found = expected(value)
        content.update({f"{name}{path}": data for path, data in found.items()})

    for name, value in (("tensors", tensors()), ("module", module().state_dict()), ("training", training())):
        torch.save(value, out / f"{name}.pt")
        torch.save(value, out / f"{name}.legacy.pt", _use_new_zipfile_serialization=False)
        record(name, value)
    torch.save(plain(), out / "plain.pt")
    torch.save(plain(), out / "plain.protocol4.pt", pickle_protocol=4)
    torch.save(plain(), out / "plain.legacy.pt", _use_new_zipfile_serialization=False)
    torch.save(hyperparameters(), out / "hparams.pt")
    record("hparams", hyperparameters())
    torch.save({"a": torch.arange(6.0)[1:]}, swapped := io.BytesIO())
    for name, data in (("big_endian", big_endian(swapped.getvalue())), ("storage_views", storage_views())):
        (out / f"{name}.pt").write_bytes(data)
        record(name, torch.load(out / f"{name}.pt"))

    state = {f"layers.{i}.weight": torch.full((2, 3), float(i)).bfloat16() for i in range(4)}
    shards = {f"pytorch_model-0000{i + 1}-of-00002.bin": dict(list(state.items())[2 * i : 2 * i + 2]) for i in range(2)}
    (out / "sharded").mkdir(exist_ok=True)
    for file, part in shards.items():
        torch.save(part, out / "sharded" / file)
    index = {"metadata": {}, "weight_map": {name: file for file, part in shards.items() for name in part}}
    (out / "sharded/pytorch_model.bin.index.json").write_text(json.dumps(index, indent=1) + "\n")
    record("sharded", state)

    refused = {
        "quantised": torch.quantize_per_tensor(torch.ones(2), 0.1, 10, torch.quint8),
        "sparse": torch.eye(2).to_sparse(),
        "conjugated": torch.ones(2, dtype=torch.complex64).conj(),
        "complex128": torch.ones(2, dtype=torch.complex128),
        "meta": torch.ones(2, device="meta"),
        "module": torch.nn.Linear(1, 1),
    }
    for name, value in refused.items():
        torch.save({"x": value}, out / f"refused.{name}.pt")
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), scripted := io.BytesIO())
    (out / "refused.torchscript.pt").write_bytes(without_debug(scripted.getvalue()))

    save_file(content, out / "expected.safetensors")
    (out / "expected.safetensors").chmod(0o644)  # safetensors writes files that only their owner can read
    (out / "expected.json").write_text(
        json.dumps({"torch": torch.__version__, "tensors": facts}, separators=(",", ":")) + "\n"
    )


if __name__ == "__main__":
    main()
