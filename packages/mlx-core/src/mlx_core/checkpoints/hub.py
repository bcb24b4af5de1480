"""A path or a hub id -> a folder on this machine.

Downloads go to the Hugging Face cache (`HF_HUB_CACHE`, by default `~/.cache/huggingface/hub`), which other tools
share; `hf cache` lists and deletes what is in it. With `HF_HUB_OFFLINE=1` only what is cached is used.
"""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import HubError, MissingCheckpointError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")

# Everything that a model needs, and no second copy of its weights in another format.
_WANTED = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model", "*.tiktoken"]
_TORCH = ["pytorch_model*.bin"]  # where there are no safetensors


def resolve(path_or_id: str | Path, *, revision: str | None = None) -> Path:
    """The local path of a model: what exists by that name, else the hub's snapshot, downloaded if it isn't cached.

    Raises MissingCheckpointError where the name can only be a path, HubError where the hub can't give it.
    """
    name = str(path_or_id)
    try:
        path = Path(path_or_id).expanduser()
        if path.exists():
            return path
    except (OSError, RuntimeError, ValueError) as error:  # too long for the system, an unknown user's home, a NUL
        raise MissingCheckpointError(f"{name:.200} can't be a path: {error}.") from error
    if isinstance(path_or_id, Path) or not _HUB_ID.fullmatch(name):
        raise MissingCheckpointError(
            f"{name} does not exist. Give a model's folder, a .gguf file or a hub id (org/name)."
        )

    import huggingface_hub
    from huggingface_hub import constants

    try:
        folder = Path(huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=_WANTED))
        if not any(folder.glob("*.safetensors")):
            huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=_TORCH)
        return folder
    except Exception as error:  # the library raises its own, its HTTP client's and the operating system's errors
        reason = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else f"{type(error).__name__}: {error}"
        raise HubError(
            f"{name!r} is no local path, and the hub didn't give it ({reason}). Check the id, the network and, for gated models, "
            f"`hf auth login`; or download it elsewhere and give its folder. Models are cached in {constants.HF_HUB_CACHE}; "
            "`hf cache` lists and deletes them."
        ) from error
