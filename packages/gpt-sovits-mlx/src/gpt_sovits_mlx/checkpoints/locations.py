"""Where the networks of a voice are: in one folder by their names, elsewhere by a path, or on a hub by an id.

| network | in the folder as |
|---|---|
| text to semantic | `t2s/`, or one `*.ckpt` |
| SoVITS | `sovits/`, or one `*.pth` |
| CNHubert | `hubert/`, `chinese-hubert-base/` |
| Chinese RoBERTa | `bert/`, `chinese-roberta-wwm-ext-large/`: for Chinese text |
| speaker net | `speaker/`, `pretrained_eres2netv2w24s4ep4.ckpt`, also in `sv/`: for v2Pro and v2ProPlus |
| vocoder | `vocoder/`; v4: `vocoder.pth`, also in `gsv-v4-pretrained/`; v3: `bigvgan_v2_24khz_100band_256x/` |
| base of a LoRA | `sovits-base/`, `s2Gv3.pth`, `s2Gv4.pth`, also in `gsv-v4-pretrained/`: of its version |
| g2pW | `g2pw/`, `G2PWModel/`: for characters with several readings, if wanted |

Folders are what `convert` writes, or the hub's; files are as they were released.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from mlx_core.checkpoints import resolve
from mlx_core.errors import InputError, MissingCheckpointError

_BIGVGAN = "bigvgan_v2_24khz_100band_256x"
_V3_VOCODERS = (_BIGVGAN, f"models--nvidia--{_BIGVGAN}")
_V4_VOCODERS = ("vocoder.pth", "gsv-v4-pretrained/vocoder.pth")
_V3_BASES, _V4_BASES = ("s2Gv3.pth",), ("s2Gv4.pth", "gsv-v4-pretrained/s2Gv4.pth")
NAMES: dict[str, tuple[str, ...]] = {
    "t2s": ("t2s", "*.ckpt"),
    "sovits": ("sovits", "*.pth"),
    "hubert": ("hubert", "chinese-hubert-base"),
    "bert": ("bert", "chinese-roberta-wwm-ext-large"),
    "speaker": ("speaker", "pretrained_eres2netv2w24s4ep4.ckpt", "sv/pretrained_eres2netv2w24s4ep4.ckpt"),
    "vocoder": ("vocoder", *_V3_VOCODERS, *_V4_VOCODERS),
    "base": ("sovits-base", *_V3_BASES, *_V4_BASES),
    "g2pw": ("g2pw", "G2PWModel"),
}
"""Where each network is looked for, in this order; `*.ckpt` and `*.pth` match what no other network is named."""
_OF_OTHERS = {"v3": {*_V4_VOCODERS, *_V4_BASES}, "v4": {*_V3_VOCODERS, *_V3_BASES}}
"""Names that aren't looked for, since they are of the other version."""

_V2 = "gsv-v2final-pretrained"
PRETRAINED: dict[str, tuple[str, str]] = {
    "v1": ("s1bert25hz-2kh-longer-epoch=68e-step=50232.ckpt", "s2G488k.pth"),
    "v2": (f"{_V2}/s1bert25hz-5kh-longer-epoch=12-step=369668.ckpt", f"{_V2}/s2G2333k.pth"),
    "v2Pro": ("s1v3.ckpt", "v2Pro/s2Gv2Pro.pth"),
    "v2ProPlus": ("s1v3.ckpt", "v2Pro/s2Gv2ProPlus.pth"),
    "v3": ("s1v3.ckpt", "s2Gv3.pth"),
    "v4": ("s1v3.ckpt", "gsv-v4-pretrained/s2Gv4.pth"),
}
"""Text to semantic and SoVITS of each version in the folder of released models (`lj1995/GPT-SoVITS`), as GPT-SoVITS's
`config.py` has them.
"""

_NO_FOLDER = "{} is no folder. Give one that holds the models, or a hub id (org/name)."
# What a hub's folder for one network holds beside what `resolve` takes anyway.
_EXTRA_FILES = ("*.ckpt", "*.pth", "bigvgan_generator.p[t]", "*.onnx")


class Locations:
    """The networks in a folder, or in the hub's folder of that id.

    given: where some of them are instead, by the names in `NAMES`: a path, a path inside the folder, or a hub id.
    version: take the pretrained text-to-semantic network and SoVITS of this version, by their released names. Raises
    InputError for an unknown network or version, MissingCheckpointError and HubError for a folder that isn't there.
    """

    def __init__(
        self,
        models: str | Path,
        given: Mapping[str, str | Path | None] | None = None,
        version: str | None = None,
    ) -> None:
        named = {network: path for network, path in (given or {}).items() if path is not None}
        if unknown := named.keys() - NAMES.keys():
            raise InputError(f"there is no network {sorted(unknown)[0]!r}; there are {', '.join(NAMES)}.")
        pretrained: dict[str, str] = {}
        if version is not None:
            if version not in PRETRAINED:
                raise InputError(f"version must be one of {', '.join(PRETRAINED)}; found {version!r}.")
            pretrained = dict(zip(("t2s", "sovits"), PRETRAINED[version], strict=True))
        pretrained = {network: name for network, name in pretrained.items() if network not in named}
        try:
            self.folder = resolve(models, patterns=list(_hub_patterns({**pretrained, **named}, version)))
        except MissingCheckpointError as error:
            raise MissingCheckpointError(_NO_FOLDER.format(models)) from error
        if not self.folder.is_dir():
            raise MissingCheckpointError(_NO_FOLDER.format(models))
        self._given = {network: resolve_network(path, self.folder) for network, path in named.items()}
        for network, name in pretrained.items():
            if not (self.folder / name).exists():
                raise MissingCheckpointError(
                    f"{self.folder} has no {name}, the pretrained {network} of {version}. Download it, or name another by "
                    f"{network}=."
                )
            self._given[network] = self.folder / name

    def find(self, network: str, version: str | None = None) -> Path | None:
        """Where a network is, None for nowhere; see `find`."""
        return self._given.get(network) or find(self.folder, network, version)

    def need(self, network: str, version: str | None = None) -> Path:
        """Where a network is. Raises MissingCheckpointError, which says what was looked for."""
        path = self.find(network, version)
        if path is None:
            raise MissingCheckpointError(
                f"{self.folder} has no {network}: expected one of {', '.join(NAMES[network])}."
            )
        return path


def resolve_network(path: str | Path, folder: Path | None = None) -> Path:
    """Where one network is: at a path, at a path inside `folder`, or in the hub's folder of that id.

    Raises MissingCheckpointError, HubError.
    """
    if folder is not None and not Path(path).expanduser().exists() and (inside := folder / path).exists():
        return inside
    return resolve(path, patterns=_EXTRA_FILES)


def _hub_patterns(named: Mapping[str, str | Path], version: str | None) -> Iterator[str]:
    """The files that are wanted of a hub's folder of all models, those of other versions left out."""
    unused = set()
    if version is not None:
        unused = {"base"} | ({"speaker"} if "Pro" not in version else set())
        unused |= {"vocoder"} if version not in _OF_OTHERS else set()
    for network, names in NAMES.items():
        if network in named:
            yield from (str(named[network]), f"{named[network]}/*")
        elif network not in unused:
            for name in names:
                if name not in _OF_OTHERS.get(version or "", ()):
                    # a name with a wildcard needn't be there
                    yield f"{name[:-1]}[{name[-1]}]" if Path(name).suffix else f"{name}/*"


def find(models_dir: str | Path, network: str, version: str | None = None) -> Path | None:
    """Where a network is in the folder, None for nowhere. Raises InputError where several could be meant.

    version: v3 or v4, whose vocoder or base isn't the other's. A base that stands alone is the SoVITS itself.
    """
    folder = Path(models_dir)
    named = {name for names in NAMES.values() for name in names if "*" not in name}
    names = [name for name in NAMES[network] if name not in _OF_OTHERS.get(version or "", ())]
    for name in names:
        if "*" not in name:
            if (path := folder / name).exists():
                return path
            continue
        found = sorted(path for path in folder.glob(name) if path.name not in named)
        if network == "sovits" and not found:
            found = [path for base in NAMES["base"] if (path := folder / base).exists()]
        if len(found) > 1:
            raise InputError(
                f"{folder} holds several files for {network}: {', '.join(path.name for path in found)}. Say which one by "
                f"{network}=, or put the others elsewhere."
            )
        if found:
            return found[0]
    return None
