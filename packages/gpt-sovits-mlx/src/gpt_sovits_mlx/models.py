"""The networks that a voice needs, found in one folder by their names.

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

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx

from mlx_core.config import read_json
from mlx_core.errors import ConfigError, InputError, MissingCheckpointError, TokenizerError

from .bert import ChineseRoberta
from .bigvgan import BigVGAN
from .hubert import CNHubert
from .released import read_released
from .sovits import SAMPLE_RATE, SoVITS
from .sovits_v3 import SoVITSV3
from .speaker import ERes2NetV2
from .t2s import T2S
from .text import Polyphones, TextFrontend, Utterance, bert_inputs
from .vocoder import HiFiGAN, MelVocoder

# Phones of SoVITS v1, and of the text-to-semantic network of later versions: they number them alike, and mean others.
_MIXED = (322, 732)
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
"""What isn't looked for, since it is of the other version."""


class Vocabulary:
    """The characters that Chinese RoBERTa knows: `vocab.txt`, or the vocabulary in `tokenizer.json`."""

    def __init__(self, ids: Mapping[str, int]) -> None:
        try:
            self._start, self._end, self._unknown = ids["[CLS]"], ids["[SEP]"], ids["[UNK]"]
        except KeyError as error:
            raise TokenizerError(f"BERT's vocabulary lacks {error}. Give the folder of the released model.") from error
        self._ids = ids

    @classmethod
    def load(cls, folder: Path) -> Vocabulary:
        """Of BERT's folder. Raises MissingCheckpointError, TokenizerError."""
        if (path := folder / "vocab.txt").is_file():
            try:
                lines = path.read_text(encoding="utf-8").splitlines()
            except UnicodeDecodeError as error:
                raise TokenizerError(f"{path} isn't UTF-8: {error}.") from error
            return cls({token: number for number, token in enumerate(lines)})
        if (path := folder / "tokenizer.json").is_file():
            try:
                found = json.loads(path.read_text(encoding="utf-8"))["model"]["vocab"]
                return cls({str(token): int(number) for token, number in found.items()})
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise TokenizerError(f"{path} holds no vocabulary of BERT's: {error!r}.") from error
        raise MissingCheckpointError(f"{folder} has neither vocab.txt nor tokenizer.json, which BERT's text needs.")

    def encode(self, text: str) -> list[int]:
        """A token for each character, between `[CLS]` and `[SEP]`."""
        return [self._start, *(self._ids.get(character, self._unknown) for character in text), self._end]


@dataclass
class Models:
    """The networks; those that a text or a version doesn't need may be missing."""

    t2s: T2S
    sovits: SoVITS | SoVITSV3
    hubert: CNHubert
    bert: ChineseRoberta | None = None
    vocabulary: Vocabulary | None = None
    speaker: ERes2NetV2 | None = None
    vocoder: MelVocoder | None = None
    polyphones: Polyphones | None = None

    def __post_init__(self) -> None:
        symbols, known = self.sovits.enc_p.text_embedding.weight.shape[0], self.t2s.config.phoneme_vocab_size
        if known < symbols or (symbols, known) == _MIXED:
            raise ConfigError(
                f"the text-to-semantic network knows {known} phones, SoVITS {symbols}: they are of different versions."
            )
        if self.needs_speaker and self.speaker is None:
            raise MissingCheckpointError(
                f"SoVITS {self.version} hears a voice through the speaker net too: expected one of "
                f"{', '.join(NAMES['speaker'])}."
            )
        if isinstance(self.sovits, SoVITSV3):
            wanted = BigVGAN if self.version == "v3" else HiFiGAN
            if not isinstance(self.vocoder, wanted):
                raise MissingCheckpointError(
                    f"SoVITS {self.version} speaks through {wanted.__name__}: expected one of {', '.join(NAMES['vocoder'])}."
                )

    @property
    def version(self) -> str:
        """v1, v2, v2Pro, v2ProPlus, v3 or v4."""
        return self.sovits.version

    @property
    def needs_speaker(self) -> bool:
        """Whether a voice has a speaker embedding."""
        return isinstance(self.sovits, SoVITS) and self.sovits.has_speaker

    @property
    def sample_rate(self) -> int:
        """Hz, of what is spoken."""
        return SAMPLE_RATE if self.vocoder is None else self.vocoder.sample_rate

    @functools.cached_property
    def text(self) -> TextFrontend:
        """The text front end for this version."""
        return TextFrontend(self.version, polyphones=self.polyphones)

    def bert_features(self, utterance: Utterance) -> mx.array | None:
        """`[phones, 1024]`, zeros but for Chinese; None where there is none.

        Raises MissingCheckpointError for Chinese where there is no BERT.
        """
        inputs = bert_inputs(utterance)
        if not inputs:
            return None
        if self.bert is None or self.vocabulary is None:
            raise MissingCheckpointError(
                f"Chinese text is read by Chinese RoBERTa, which isn't there: expected one of {', '.join(NAMES['bert'])}."
            )
        width = self.bert.config.hidden_size
        parts, at = [], 0
        for start, (text, word2ph) in sorted(inputs.items()):
            features = self.bert.phone_features(self.vocabulary.encode(text), word2ph).astype(mx.float32)
            parts += [mx.zeros((start - at, width)), features]
            at = start + len(features)
        return mx.concatenate([*parts, mx.zeros((len(utterance.ids) - at, width))])


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


def load_models(
    models_dir: str | Path, *, dtype: mx.Dtype | str | None = None, paths: Mapping[str, str | Path | None] | None = None
) -> Models:
    """The networks in a folder. paths: where some of them are instead, by the names in `NAMES`.

    Raises MissingCheckpointError, which says what was looked for; and what loading raises.
    """
    given = {name: Path(path) for name, path in (paths or {}).items() if path is not None}
    if unknown := given.keys() - NAMES.keys():
        raise InputError(f"there is no network {sorted(unknown)[0]!r}; there are {', '.join(NAMES)}.")
    folder = Path(models_dir)
    if not folder.is_dir():
        raise MissingCheckpointError(f"{folder} is no folder. Give one that holds the models.")

    def where(network: str, version: str | None = None) -> Path | None:
        return given.get(network) or find(folder, network, version)

    def needed(network: str, version: str | None = None) -> Path:
        path = where(network, version)
        if path is None:
            raise MissingCheckpointError(f"{folder} has no {network}: expected one of {', '.join(NAMES[network])}.")
        return path

    sovits = load_sovits(needed("sovits"), lambda version: where("base", version), dtype=dtype)
    bert, speaker, g2pw = where("bert"), where("speaker"), where("g2pw")
    is_pro = isinstance(sovits, SoVITS) and sovits.has_speaker
    return Models(
        T2S.load(needed("t2s"), dtype=dtype),
        sovits,
        CNHubert.load(needed("hubert"), dtype=dtype),
        None if bert is None else ChineseRoberta.load(bert, dtype=dtype),
        None if bert is None else Vocabulary.load(bert),
        ERes2NetV2.load(speaker, dtype=dtype) if is_pro and speaker is not None else None,
        _load_vocoder(sovits, needed("vocoder", sovits.version), dtype) if isinstance(sovits, SoVITSV3) else None,
        _load_g2pw(g2pw) if g2pw is not None else None,
    )


def load_sovits(
    path: Path, base: Callable[[str], Path | None] = lambda version: None, *, dtype: mx.Dtype | str | None = None
) -> SoVITS | SoVITSV3:
    """A SoVITS of any version, from a released file or a folder. base: what a LoRA of v3 or v4 was trained on."""
    if path.is_dir():
        flow, version = read_json(path / "config.json").get("model_type") == SoVITSV3.model_type, ""
    else:
        version = read_released(path).sovits_version
        flow = version.startswith(("v3", "v4"))
    if not flow:
        return SoVITS.load(path, dtype=dtype)
    return SoVITSV3.load(path, base=base(version.removesuffix("-lora")), dtype=dtype)


def _load_vocoder(sovits: SoVITSV3, path: Path, dtype: mx.Dtype | str | None) -> MelVocoder:
    return BigVGAN.load(path, dtype=dtype) if sovits.version == "v3" else HiFiGAN.load(path, dtype=dtype)


def _load_g2pw(path: Path) -> Polyphones:
    from .text import G2PW

    return G2PW(path)
