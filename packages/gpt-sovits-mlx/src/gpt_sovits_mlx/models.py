"""The networks of a voice, loaded from a folder, from files elsewhere, or from a hub."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx

from mlx_core.config import read_json
from mlx_core.errors import ConfigError, MissingCheckpointError, TokenizerError

from .checkpoints import NAMES, Locations, read_released
from .networks import (
    T2S,
    BigVGAN,
    ChineseRoberta,
    CNHubert,
    ERes2NetV2,
    HiFiGAN,
    MelVocoder,
    SoVITS,
    SoVITSV3,
)
from .synthesis import Synthesizer, make_synthesizer
from .text import G2PW, Polyphones, Utterance, bert_inputs

# Phones of SoVITS v1, and of the text-to-semantic network of later versions: they number them alike, and mean others.
_MIXED = (322, 732)


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
        """The vocabulary in BERT's folder. Raises MissingCheckpointError, TokenizerError."""
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
        self.synthesizer: Synthesizer = make_synthesizer(self.sovits, speaker=self.speaker, vocoder=self.vocoder)

    @property
    def version(self) -> str:
        """v1, v2, v2Pro, v2ProPlus, v3 or v4."""
        return self.synthesizer.version

    @property
    def sample_rate(self) -> int:
        """Hz, of the speech."""
        return self.synthesizer.sample_rate

    def bert_features(self, utterance: Utterance) -> mx.array | None:
        """BERT's features of a sentence `[phones, 1024]`, zeros but for Chinese; None where there is no Chinese.

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


def load_models(
    models: str | Path,
    *,
    version: str | None = None,
    dtype: mx.Dtype | str | None = None,
    paths: Mapping[str, str | Path | None] | None = None,
) -> Models:
    """The networks in a folder, named as `checkpoints.locations` lists, or in the hub's folder of that id.

    version: take the pretrained networks of this version, where the folder holds several. paths: where some networks
    are instead, by the names in `NAMES`: a path, a path inside the folder, or a hub id. Raises MissingCheckpointError,
    which says what was looked for, HubError, InputError for unknown names, and the errors of loading.
    """
    locations = Locations(models, paths, version)
    sovits = load_sovits(locations.need("sovits"), lambda flow: locations.find("base", flow), dtype=dtype)
    bert, speaker, g2pw = (locations.find(network) for network in ("bert", "speaker", "g2pw"))
    is_flow = isinstance(sovits, SoVITSV3)
    return Models(
        T2S.load(locations.need("t2s"), dtype=dtype),
        sovits,
        CNHubert.load(locations.need("hubert"), dtype=dtype),
        None if bert is None else ChineseRoberta.load(bert, dtype=dtype),
        None if bert is None else Vocabulary.load(bert),
        None if speaker is None or is_flow or not sovits.has_speaker else ERes2NetV2.load(speaker, dtype=dtype),
        load_vocoder(locations.need("vocoder", sovits.version), sovits.version, dtype=dtype) if is_flow else None,
        None if g2pw is None else G2PW(g2pw),
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


def load_vocoder(path: Path, version: str, *, dtype: mx.Dtype | str | None = None) -> MelVocoder:
    """The vocoder of v3 or v4."""
    kind: type[MelVocoder] = BigVGAN if version == "v3" else HiFiGAN
    return kind.load(path, dtype=dtype)
