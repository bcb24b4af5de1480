"""From a path or a hub id to files on this machine.

    resolve("models/qwen3")                     # a folder or a .gguf file: itself
    resolve("Qwen/Qwen3-0.6B")                  # a repository: the folder of its files
    resolve("Qwen/Qwen3-8B-GGUF:Q8_0")          # of a repository of GGUF files the one of this quantisation
    resolve("modelscope:iic/SenseVoiceSmall")   # on ModelScope; `huggingface:` says the other

An id is first looked for on this machine, in the caches of huggingface_hub (`HF_HUB_CACHE`, by default
`~/.cache/huggingface/hub`) and of modelscope (`MODELSCOPE_CACHE`, by default `~/.cache/modelscope`), and a copy that is
whole is used without asking any hub: `hf download ID` gets a newer one. Otherwise it is downloaded into its hub's
cache, which other tools share: from ModelScope, by the package `modelscope`, where the prefix or
`MLX_CORE_USE_MODELSCOPE=1` asks for it, else from the Hugging Face hub. With `HF_HUB_OFFLINE=1` only what is cached is
used.

After the id's colon stands, as in llama.cpp, the quantisation of a GGUF model: the end of a file's name, in any case, or
all of it. Without one, of a repository that has no other weights than GGUF, the only model is taken, else Q4_K_M, else
Q8_0. Of a split model all parts are downloaded.

The layouts are those that huggingface_hub 0.34 to 2.4, modelscope 1.28 and 1.40 and modelscope_hub 0.5 write and read.
"""

from __future__ import annotations

import contextlib
import fnmatch
import glob
import importlib
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..errors import HubError, InputError, MissingCheckpointError
from .layout import (
    PYTORCH,
    SAFETENSORS,
    gguf_models,
    gguf_parts,
    matching_gguf,
    missing_shard,
)

_USE_MODELSCOPE = "MLX_CORE_USE_MODELSCOPE"  # named as vLLM, SGLang and mlx-lm name theirs

_REFERENCE = re.compile(
    r"(?:(?P<hub>huggingface|modelscope):)?(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?::(?P<quantization>\w[\w./-]*))?"
)

# Everything that a language model needs, and no second copy of its weights in another format.
_PATTERNS = ("*.json", "*.safetensors", "*.jinja", "*.txt", "*.model", "*.tiktoken")
_SECOND_COPIES = ("consolidated*", "original/*")
_WEIGHTS_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
_VOCABULARIES = ("tokenizer.json", "tokenizer.model", "*.tiktoken")
_DEFAULT_QUANTIZATIONS = ("Q4_K_M", "Q8_0")  # llama.cpp's


@dataclass(frozen=True)
class _Wanted:
    """The wanted part of a repository: its files by patterns, or one GGUF model."""

    repo: str
    revision: str | None
    patterns: tuple[str, ...]
    """Beside `_PATTERNS`: of a network that isn't a language model."""
    quantization: str | None

    @property
    def allow(self) -> list[str]:
        return [*_PATTERNS, *self.patterns]

    @property
    def ignore(self) -> list[str]:
        return [] if self.patterns else list(_SECOND_COPIES)


class _Hub(Protocol):
    """A hub and its cache on this machine."""

    title: str

    def hint(self) -> str:
        """Advice for who can't get a model from it."""
        ...

    def is_offline(self) -> bool:
        """Whether the user told it to ask nobody."""
        ...

    def caches(self) -> list[Path]:
        """The folders in which it keeps what it downloaded."""
        ...

    def cached(self, wanted: _Wanted, allow: list[str]) -> Path | None:
        """The repository's folder in the cache; None where there is none, or the hub's library knows that files that
        match `allow` are missing.
        """
        ...

    def names(self, wanted: _Wanted) -> list[str]:
        """The repository's files, as the hub says."""
        ...

    def download(self, wanted: _Wanted, allow: list[str]) -> Path:
        """The repository's folder in the cache with all files that match `allow`."""
        ...


def resolve(path_or_id: str | Path, *, revision: str | None = None, patterns: Sequence[str] | None = None) -> Path:
    """The local folder, or GGUF file, of a model: of what exists by that name, else of what a hub has.

    path_or_id: a path, or `[modelscope:|huggingface:]org/name[:QUANTISATION]`. revision: a branch, tag or commit of the
    repository. patterns: of files to get beside those of language models (JSON, safetensors, or pytorch_model.bin where
    there are none, tokenizers), such as "am.mvn" and "*.pt"; those without a wildcard must be there for a cached copy
    to count as whole. Raises MissingCheckpointError where the name can only be a path, HubError, which says what was
    tried, where no hub can give it.
    """
    name = str(path_or_id)
    try:
        path = Path(path_or_id).expanduser()
        if path.exists():
            return path
    except (OSError, RuntimeError, ValueError) as error:  # too long for the system, an unknown user's home, a NUL
        raise MissingCheckpointError(f"{name:.200} can't be a path: {error}.") from error
    reference = None if isinstance(path_or_id, Path) else _REFERENCE.fullmatch(name)
    if reference is None:
        raise MissingCheckpointError(
            f"{name} does not exist. Give a model's folder, a .gguf file or a hub id (org/name, org/name:Q4_K_M for GGUF, "
            "modelscope:org/name)."
        )
    if isinstance(patterns, str):
        raise InputError(f"patterns must be a list of patterns; found the text {patterns!r}.")
    wanted = _Wanted(reference["repo"], revision, tuple(patterns or ()), reference["quantization"])
    hubs = _hubs(reference["hub"])
    for hub in hubs:
        if (found := _find(hub, wanted)) is not None:
            return found
    return _download(hubs, wanted, name)


def _hubs(named: str | None) -> list[_Hub]:
    """Where to look, in this order; the first is asked for what isn't on this machine."""
    if named is not None:
        return [_ModelScope() if named == "modelscope" else _HuggingFace()]
    value = os.environ.get(_USE_MODELSCOPE, "").lower()
    if value not in ("", "0", "1", "false", "true"):
        raise InputError(f"{_USE_MODELSCOPE} is {value!r}; expected 1 (ModelScope) or 0 (the Hugging Face hub).")
    return [_ModelScope(), _HuggingFace()] if value in ("1", "true") else [_HuggingFace(), _ModelScope()]


def _find(hub: _Hub, wanted: _Wanted) -> Path | None:
    """The copy in a hub's cache, if it is whole."""
    if wanted.quantization is None:
        folder = hub.cached(wanted, wanted.allow)
        return folder if folder is not None and _is_whole(folder, wanted.patterns) else None
    folder = hub.cached(wanted, [])
    if folder is None:
        return None
    models = matching_gguf(_names(folder), wanted.quantization)
    if len(models) != 1 or not all((folder / part).is_file() for part in gguf_parts(models[0])):
        return None
    return folder / models[0]


def _is_whole(folder: Path, patterns: tuple[str, ...]) -> bool:
    """Whether a cached copy has all its weights, and files that a part of a model lacks: those that `patterns` name
    without a wildcard, or where there are no patterns a vocabulary.
    """
    names = {file.name for file in folder.iterdir() if file.is_file()}
    if patterns:
        rest = all((folder / pattern).is_file() for pattern in patterns if not glob.has_magic(pattern))
    else:
        rest = any(_matches(name, _VOCABULARIES) for name in names)
    return rest and _has_weights(folder, names, patterns)


def _has_weights(folder: Path, names: set[str], patterns: tuple[str, ...]) -> bool:
    for layout in (SAFETENSORS, PYTORCH):
        files = layout.files(names)
        # an index alone belongs to a second copy that wasn't downloaded
        if files and layout.index in names and layout.single not in files:
            try:
                return set(json.loads((folder / layout.index).read_bytes())["weight_map"].values()) <= names
            except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
                return False
        if files:
            return missing_shard(files) is None
    wanted = [pattern for pattern in patterns if pattern.endswith(_WEIGHTS_SUFFIXES)]
    return any(_matches(name, wanted) for name in names) or any((folder / pattern).is_file() for pattern in wanted)


def _download(hubs: list[_Hub], wanted: _Wanted, name: str) -> Path:
    hub = hubs[0]
    try:
        names = hub.names(wanted)
    except Exception as error:  # libraries raise their own, their HTTP client's and the operating system's errors
        found = next(filter(None, (_find_part(each, wanted, _reason(hub, error)) for each in hubs)), None)
        if found is None:
            raise _failure(hubs, name, error) from error
        return found
    if wanted.quantization is not None or _only_gguf(names, wanted):
        model = _choose_gguf(names, wanted, wanted.repo)
        allow = [glob.escape(part) for part in gguf_parts(model)]
    else:
        model, allow = "", wanted.allow
        if not any(file.endswith(SAFETENSORS.suffix) for file in names):
            allow.append(PYTORCH.pattern)
    try:
        return hub.download(wanted, allow) / model
    except Exception as error:
        raise _failure(hubs, name, error) from error


def _find_part(hub: _Hub, wanted: _Wanted, reason: str) -> Path | None:
    """The copy in a cache when no hub can be asked for more, for that `reason`: whoever reads it will say what it lacks
    of what is needed.
    """
    folder = hub.cached(wanted, [] if wanted.quantization else wanted.allow)
    if folder is None:
        return None
    names = _names(folder)
    if wanted.quantization is not None or _only_gguf(names, wanted):
        return folder / _choose_gguf(names, wanted, f"the copy in {folder} (no hub gave more: {reason})")
    return folder


def _only_gguf(names: list[str], wanted: _Wanted) -> bool:
    """Whether the only weights among the files are GGUF."""
    others = (SAFETENSORS.pattern, PYTORCH.pattern, *(p for p in wanted.patterns if p.endswith(_WEIGHTS_SUFFIXES)))
    return bool(gguf_models(names)) and not any(_matches(name, others) for name in names)


def _choose_gguf(names: list[str], wanted: _Wanted, where: str) -> str:
    """The model's only or first file. Raises HubError that lists the choice where there is none, or more than one."""
    models = gguf_models(names)
    if wanted.quantization is not None:
        found = matching_gguf(names, wanted.quantization)
    elif len(models) == 1:
        found = models
    else:
        found = next(filter(None, (matching_gguf(names, default) for default in _DEFAULT_QUANTIZATIONS)), [])
    if len(found) == 1:
        if lost := sorted(set(gguf_parts(found[0])) - set(names)):
            raise HubError(f"{where} lacks {lost[0]} ({len(lost)} files of {len(gguf_parts(found[0]))}).")
        return found[0]
    asked = wanted.quantization or " or ".join(_DEFAULT_QUANTIZATIONS)
    listed = ", ".join(found or models) or "no GGUF model"
    raise HubError(
        f"{where} has {len(found) or 'no'} GGUF models for {asked!r}; expected one. Say which by {wanted.repo}:QUANTISATION, the "
        f"end of a file's name or all of it. It has {listed}."
    )


def _failure(hubs: list[_Hub], name: str, error: Exception) -> HubError:
    caches = "; ".join(f"{hub.title}: {', '.join(map(str, hub.caches()))}" for hub in hubs)
    return HubError(
        f"{name!r} is no local path, is not whole in the caches ({caches}), and {hubs[0].title} didn't give it "
        f"({_reason(hubs[0], error)}). Check the id and the network, or download it elsewhere and give its folder. "
        f"{hubs[0].hint()}"
    )


def _reason(hub: _Hub, error: Exception) -> str:
    if isinstance(error, HubError):
        return str(error)
    return "HF_HUB_OFFLINE is set" if hub.is_offline() else f"{type(error).__name__}: {error}"


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _names(folder: Path) -> list[str]:
    """The files in a folder and below, relative to it."""
    return [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]


class _HuggingFace:
    title = "the Hugging Face hub"

    def hint(self) -> str:
        (cache,) = self.caches()
        return f"Gated models want `hf auth login`. Models are cached in {cache}; `hf cache` lists and deletes them."

    def is_offline(self) -> bool:
        from huggingface_hub import constants

        return bool(constants.HF_HUB_OFFLINE)

    def caches(self) -> list[Path]:
        from huggingface_hub import constants

        return [Path(constants.HF_HUB_CACHE)]

    def cached(self, wanted: _Wanted, allow: list[str]) -> Path | None:
        import huggingface_hub

        try:
            return Path(
                huggingface_hub.snapshot_download(
                    wanted.repo,
                    revision=wanted.revision,
                    allow_patterns=allow,
                    ignore_patterns=wanted.ignore,
                    local_files_only=True,
                )
            )
        except (OSError, ValueError):  # there is none, or the library knows that it isn't whole
            return None

    def names(self, wanted: _Wanted) -> list[str]:
        import huggingface_hub

        return list(huggingface_hub.list_repo_files(wanted.repo, revision=wanted.revision))

    def download(self, wanted: _Wanted, allow: list[str]) -> Path:
        import huggingface_hub

        return Path(
            huggingface_hub.snapshot_download(
                wanted.repo, revision=wanted.revision, allow_patterns=allow, ignore_patterns=wanted.ignore
            )
        )


class _ModelScope:
    title = "ModelScope"

    def hint(self) -> str:
        return "Downloads from there are the package modelscope's: `pip install modelscope`."

    def is_offline(self) -> bool:
        return False

    def caches(self) -> list[Path]:
        """The cache, and the folder in it that older versions use unless MODELSCOPE_CACHE is set."""
        base = Path(os.environ.get("MODELSCOPE_CACHE") or "~/.cache/modelscope").expanduser()
        return [base, base / "hub"]

    def cached(self, wanted: _Wanted, allow: list[str]) -> Path | None:
        return next((folder for folder in self._folders(wanted) if folder.is_dir() and any(folder.iterdir())), None)

    def _folders(self, wanted: _Wanted) -> Iterator[Path]:
        """Where versions of modelscope keep a repository, the latest first; only theirs keeps revisions apart."""
        organisation, _, name = wanted.repo.partition("/")
        for base in self.caches():
            snapshots = base / "models" / f"{organisation}--{name}" / "snapshots"
            if wanted.revision is not None:
                yield snapshots / wanted.revision
                continue
            present = sorted(snapshots.iterdir()) if snapshots.is_dir() else []
            yield from (snapshots / branch for branch in ("master", "main"))
            if len(present) == 1:
                yield present[0]
            for parent in (base / "models", base):
                yield from (parent / organisation / spelling for spelling in (name.replace(".", "___"), name))

    def names(self, wanted: _Wanted) -> list[str]:
        with _modelscope("modelscope.hub.api") as api:
            files = api.HubApi().get_model_files(wanted.repo, revision=wanted.revision or "master", recursive=True)
        return [file["Path"] for file in files if file.get("Type") != "tree"]

    def download(self, wanted: _Wanted, allow: list[str]) -> Path:
        with _modelscope("modelscope") as modelscope:
            return Path(
                modelscope.snapshot_download(
                    wanted.repo, revision=wanted.revision, allow_patterns=allow, ignore_patterns=wanted.ignore or None
                )
            )


@contextlib.contextmanager
def _modelscope(module: str) -> Iterator[Any]:
    """A module of the package, whose notes go to stderr: some versions print them where results belong."""
    with contextlib.redirect_stdout(sys.stderr):
        try:
            loaded = importlib.import_module(module)
        except ImportError as error:
            raise HubError(f"the package modelscope can't be imported: {error}") from error
        yield loaded
