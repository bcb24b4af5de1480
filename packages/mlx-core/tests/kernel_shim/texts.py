"""The functions that MLX makes of our kernels' texts, compiled for the CPU with the words of metal.h and cuda.h."""

import contextlib
import ctypes
import math
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import mlx.core as mx
import numpy as np

from mlx_core.kernels import dialect

FOLDER = Path(__file__).parent
CUDA_TYPES = {mx.float32: "float", mx.float16: "__half", mx.bfloat16: "__nv_bfloat16"}
POSITIONS = {
    "thread_position_in_threadgroup": "position",
    "threadgroup_position_in_grid": "group",
}  # Metal's parameters
FLAGS = ["-std=c++17", "-O1", "-shared", "-fPIC", "-Wno-attributes", "-fsanitize=alignment,bounds"]
BEFORE = """
template <typename T>
T argument(void* buffer) {
  if constexpr (std::is_pointer_v<T>) return static_cast<T>(buffer);
  else return *static_cast<T*>(buffer);
}
"""


@dataclass(frozen=True)
class Launch:
    """One launch of a kernel, as Kernel asks MLX for it."""

    text: str  # a function
    function: str  # its name
    parameters: tuple[tuple[str, str], ...]  # their types and names
    grid: int
    group: int

    def caller(self, number: int) -> str:
        """A C function that runs the kernel on buffers, in the order of its parameters."""
        buffers = [name for _, name in self.parameters if name not in POSITIONS]
        arguments = ", ".join(
            POSITIONS.get(name) or f"argument<{kind.replace('__grid_constant__', '')}>(buffers[{buffers.index(name)}])"
            for kind, name in self.parameters
        )
        return (
            f'extern "C" bool run_{number}(void** buffers, unsigned grid, unsigned group) {{\n'
            f"  shim::body = [=](uint3 group, uint3 position) {{ {self.function}({arguments}); }};\n"
            "  return shim::run(grid, group);\n}\n"
        )


class Library:
    """Launches, compiled for the CPU."""

    def __init__(self, launches: list[Launch], language: dialect.Language, compiler: str, folder: Path) -> None:
        source = f'#include "{language}.h"\n{BEFORE}'
        source += dialect.HEADERS["cuda"] if language == "cuda" else ""  # MLX puts Metal's before each kernel
        source += "".join(dict.fromkeys(launch.text for launch in launches))
        source += "".join(launch.caller(number) for number, launch in enumerate(launches))
        (folder / "kernels.cpp").write_text(source)
        files = ["-I", str(FOLDER), str(folder / "kernels.cpp"), "-o", str(folder / "kernels.so")]
        subprocess.run([compiler, *FLAGS, *files], check=True)
        self.functions = ctypes.CDLL(str(folder / "kernels.so"))
        self.launches = launches

    def run(self, number: int, inputs: dict[str, np.ndarray[Any, Any]], out: int) -> bool:
        """Run a launch on inputs, into the address `out`; False for a barrier that not all threads of a group reach."""
        buffers, kept = {"out": out}, []
        for name, array in inputs.items():
            shape, strides = np.zeros(10, np.int32), np.zeros(10, np.int64)
            shape[: array.ndim] = array.shape
            strides[: array.ndim] = np.array(array.strides) // array.itemsize
            kept += [shape, strides]
            buffers |= {name: array.ctypes.data}
            buffers |= {f"{name}_shape": shape.ctypes.data, f"{name}_strides": strides.ctypes.data}
        launch = self.launches[number]
        order = [buffers[name] for _, name in launch.parameters if name in buffers]
        call = getattr(self.functions, f"run_{number}")
        return bool(call((ctypes.c_void_p * len(order))(*order), launch.grid, launch.group) & 1)


def launches_of(language: dialect.Language, runs: list[Callable[[], mx.array]], folder: Path) -> list[Launch]:
    """The launch that each of `runs` does; nothing reaches a GPU."""
    real = dialect._built
    found: list[Launch] = []

    def build(kernel: dialect.Kernel, language: dialect.Language) -> Callable[..., list[mx.array]]:
        def metal(**call: Any) -> list[mx.array]:
            with printed() as lines:
                out = real(kernel, language)(**call, verbose=True)
            found.append(metal_launch(lines[0], call))
            return out

        def cuda(**call: Any) -> list[mx.array]:
            found.append(cuda_launch(kernel, call, len(found)))
            return [mx.zeros(call["output_shapes"][0])]

        return metal if language == "metal" else cuda

    with mock.patch.object(dialect, "_built", build):
        for run in runs:
            if language == "metal":  # exporting is how MLX writes a Metal kernel where there is no Metal
                mx.export_function(str(folder / "kernel.mlxfn"), run)
            else:
                run()
    return found


def metal_launch(text: str, call: dict[str, Any]) -> Launch:
    """Of what mx.fast.metal_kernel prints."""
    text = text.split("```\n")[1]
    signature = re.search(r"\[\[kernel\]\] void \w+\(\n(.*?)\) \{\n", text, re.DOTALL)
    function = re.search(r"decltype\((.*?)\) ", text)
    assert signature is not None
    assert function is not None
    parameters = tuple(re.findall(r"^  (.+?) (\w+) \[\[", signature[1], re.MULTILINE))
    grid, group = call["grid"][0], call["threadgroup"][0]
    return Launch(text, function[1], parameters, grid, min(grid, group))


def cuda_launch(kernel: dialect.Kernel, call: dict[str, Any], number: int) -> Launch:
    """As mx.fast.cuda_kernel of mlx 0.32.4 would have it, which can't be asked without a GPU."""
    parameters = []
    for name, array in zip(kernel.inputs, call["inputs"], strict=True):
        parameters.append((f"const {CUDA_TYPES[array.dtype]}*", name))
        for kind, suffix in (("Shape", "shape"), ("Strides", "strides")):
            if f"{name}_{suffix}" in kernel.body:
                parameters.append((f"const __grid_constant__ {kind}", f"{name}_{suffix}"))
    parameters.append((f"{CUDA_TYPES[call['output_dtypes'][0]]}*", "out"))
    constants = "".join(
        f"  using {name} = {CUDA_TYPES[value]};\n"
        if isinstance(value, mx.Dtype)
        else f"  constexpr {type(value).__name__} {name} = {str(value).lower()};\n"
        for name, value in call["template"]
    )
    listed = ",\n".join(f"    {kind} {name}" for kind, name in parameters)
    text = f"__global__ void kernel_{number}(\n{listed}) {{\n{constants}{kernel.body}\n}}\n"
    grid, group = call["grid"][0], call["threadgroup"][0]
    return Launch(text, f"kernel_{number}", tuple(parameters), math.ceil(grid / group) * group, group)  # whole groups


@contextlib.contextmanager
def printed() -> Iterator[list[str]]:
    """The output of C++, as one string in a list, once the block has ended."""
    found: list[str] = []
    with tempfile.TemporaryFile("w+") as file:
        saved = os.dup(1)
        os.dup2(file.fileno(), 1)
        try:
            yield found
        finally:
            os.dup2(saved, 1)
            os.close(saved)
            file.seek(0)
            found.append(file.read())
