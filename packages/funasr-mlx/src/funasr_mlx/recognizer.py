"""A recogniser: front end, network, and the way from its output to words.

samples -> features -> network -> tokens and times -> words, text
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from mlx_core import backend
from mlx_core.audio import load_audio, resample
from mlx_core.audio.samples import AnySamples, as_samples
from mlx_core.errors import AudioError, ConfigError, InputError
from mlx_core.models import CheckpointModule

from .architectures import recogniser
from .contextual import ContextualParaformer
from .ctc import collapse
from .folder import Folder, open_folder
from .frontend import Frontend, check_loudness
from .paraformer import Paraformer, ParaformerOutput
from .seaco import SeacoParaformer
from .sensevoice import PREFIX, SenseVoiceOutput, SenseVoiceSmall
from .tags import Pieces, read_tags, rich_text
from .timestamps import token_times
from .transcript import Transcript
from .wording import Times, Vocabulary, join_tokens, read_spellings

Audio: TypeAlias = str | os.PathLike[str] | AnySamples
Hotwords: TypeAlias = str | Sequence[str] | Sequence[Sequence[int]] | None

_ROW_MS = 60  # of features, in every released model
_FINE_STEPS = 3  # into which the timestamp predictor divides a row


@dataclass(frozen=True)
class Recognition:
    """What was said in one stretch of speech; times count from its start."""

    text: str = ""
    tokens: list[str] = field(default_factory=list)
    timestamps: list[Times] = field(default_factory=list)
    raw_text: str = ""
    """With SenseVoice's tags; else words with blanks between where the model tells times, as FunASR has it."""
    language: str | None = None
    emotion: str | None = None
    events: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Options:
    """What may be said of a recording; the words of `Recognizer.transcribe`."""

    hotwords: Hotwords = None
    language: str = "auto"
    itn: bool = True


DEFAULTS = Options()


class Recognizer(ABC):
    """A model as `load_model` gives it."""

    def __init__(self, network: CheckpointModule, frontend: Frontend) -> None:
        self.network, self.frontend = network, frontend

    @property
    def sample_rate(self) -> int:
        """Hz that the model hears."""
        return self.frontend.sample_rate

    @property
    def takes_hotwords(self) -> bool:
        """Whether hotwords are of influence."""
        return False

    @abstractmethod
    def __call__(
        self, features: npt.ArrayLike | mx.array, lengths: npt.ArrayLike | mx.array, hotwords: Hotwords = None
    ) -> Any:
        """The network's output for features `[B, T, F]` of which row b has `lengths[b]`."""

    @abstractmethod
    def recognize(self, features: Sequence[mx.array], options: Options = DEFAULTS) -> list[Recognition]:
        """What is said in each of some features `[T, F]`, as one batch. Raises InputError."""

    def transcribe(
        self,
        audio: Audio,
        hotwords: Hotwords = None,
        language: str = "auto",
        itn: bool = True,
        *,
        sample_rate: int | None = None,
    ) -> Transcript:
        """What is said in a recording: a file's path, or samples `[S]` in [-1, 1].

        hotwords: words to listen for, as a list or one string with blanks between. language, itn: SenseVoice's; itn
        writes numbers as digits, with punctuation. sample_rate: of the samples in Hz; None for the model's.
        Recordings of more than a minute are cut at quiet places; `Pipeline` cuts them by voice activity. Raises
        AudioError, InputError.
        """
        from .pipeline import Pipeline  # which is made of recognisers

        return Pipeline(self).transcribe(audio, hotwords=hotwords, language=language, itn=itn, sample_rate=sample_rate)

    def samples(self, audio: Audio, sample_rate: int | None = None) -> npt.NDArray[np.float32]:
        """A recording as `[S]` at the model's rate. Raises AudioError."""
        return read_samples(audio, self.sample_rate, sample_rate)


def read_samples(audio: Audio, rate: int, sample_rate: int | None = None) -> npt.NDArray[np.float32]:
    """A file, or samples `[S]` or `[S, channels]` at `sample_rate`, as `[S]` at `rate` Hz. Raises AudioError."""
    if isinstance(audio, (str, os.PathLike)):
        return check_loudness(load_audio(audio, rate), str(audio))
    samples = check_loudness(as_samples(audio))
    if samples.ndim == 2:
        samples = samples.mean(axis=1)
    if samples.ndim != 1:
        raise AudioError(f"samples must be [S] or [S, channels]; found shape {tuple(samples.shape)}.")
    if sample_rate is None or sample_rate == rate or samples.size == 0:
        return samples
    return resample(samples, sample_rate, rate)


class ParaformerRecognizer(Recognizer):
    """Paraformer and its kin."""

    network: Paraformer

    def __init__(self, network: Paraformer, frontend: Frontend, vocabulary: Vocabulary, end_ids: Iterable[int]) -> None:
        super().__init__(network, frontend)
        if len(vocabulary) < network.vocabulary:
            raise ConfigError(
                f"the network has {network.vocabulary} tokens, tokens.json {len(vocabulary)}. They are of different models."
            )
        self.vocabulary, self._not_said = vocabulary, frozenset(end_ids)

    @property
    def takes_hotwords(self) -> bool:
        """Whether hotwords are of influence."""
        return isinstance(self.network, (SeacoParaformer, ContextualParaformer))

    def __call__(
        self,
        features: npt.ArrayLike | mx.array,
        lengths: npt.ArrayLike | mx.array,
        hotwords: Hotwords = None,
        **options: Any,
    ) -> ParaformerOutput:
        """The network's output for features `[B, T, F]` of which row b has `lengths[b]`.

        hotwords: text, or ids. options: the network's own, `nfilter` or `clas_scale`. Raises InputError.
        """
        return self.network(features, lengths, self.hotword_ids(hotwords), **options)

    def hotword_ids(self, hotwords: Hotwords) -> list[list[int]] | None:
        """The ids of each hotword, and the network's sign for none of them at the end. Raises InputError."""
        if hotwords is None:
            return None
        ids: list[list[int]] = []
        try:
            for word in hotwords.split() if isinstance(hotwords, str) else hotwords:
                ids.append(self.vocabulary.encode(word) if isinstance(word, str) else list(word))
        except TypeError as error:
            raise InputError(
                f"hotwords must be text, or a list of words, each as text or as a list of ids; found {hotwords!r:.100}."
            ) from error
        if not ids:
            return None
        none = [int(getattr(self.network, "sos", 1))]
        return ids if ids[-1] == none else [*ids, none]

    def recognize(self, features: Sequence[mx.array], options: Options = DEFAULTS) -> list[Recognition]:
        """What is said in each of some features `[T, F]`, as one batch. Raises InputError."""
        if options.hotwords and not self.takes_hotwords:
            raise InputError(
                f"a {self.network.model_type} takes no hotwords. Leave them out, or use a SeACo or contextual Paraformer."
            )
        batch, lengths = padded(features)
        output = self(batch, lengths, options.hotwords)
        best = mx.argmax(output.logits, axis=-1) if output.logits.size else mx.zeros((len(lengths), 0), mx.int32)
        alphas, peaks = output.alphas.astype(mx.float32), output.peaks.astype(mx.float32)
        mx.eval(best, output.token_num, alphas, peaks)
        counts, fine = np.array(output.token_num), output.us_alphas is not None
        rows = zip(np.array(best), counts, lengths, np.array(alphas), np.array(peaks), strict=True)
        return [self._read(ids[:count], int(length), a, p, fine) for ids, count, length, a, p in rows]

    def _read(
        self,
        ids: npt.NDArray[np.integer],
        length: int,
        alphas: npt.NDArray[np.float32],
        peaks: npt.NDArray[np.float32],
        fine: bool,
    ) -> Recognition:
        tokens = self.vocabulary.decode(int(i) for i in ids if int(i) not in self._not_said)
        if not tokens:
            return Recognition()
        if fine:
            steps = length * _FINE_STEPS
            times = token_times(alphas[:steps], peaks[:steps], len(tokens), _ROW_MS / _FINE_STEPS)
        else:
            # FunASR hands these to its function in the wrong order, and so tells other times than the predictor's
            steps = min(length + 1, len(alphas))
            times = token_times(peaks[:steps], alphas[:steps], len(tokens), _ROW_MS)
        wording = join_tokens(tokens, times)
        raw = " ".join(wording.words) if fine else wording.text
        return Recognition(wording.text, wording.words, wording.times, raw)


class SenseVoiceRecognizer(Recognizer):
    """SenseVoice."""

    network: SenseVoiceSmall

    def __init__(self, network: SenseVoiceSmall, frontend: Frontend, pieces: Pieces) -> None:
        super().__init__(network, frontend)
        self.pieces = pieces

    def __call__(
        self,
        features: npt.ArrayLike | mx.array,
        lengths: npt.ArrayLike | mx.array,
        hotwords: Hotwords = None,
        *,
        language: str | int = "auto",
        itn: bool = False,
    ) -> SenseVoiceOutput:
        """The network's output for features `[B, T, F]` of which row b has `lengths[b]`. Raises InputError."""
        if hotwords:
            raise InputError("SenseVoice takes no hotwords. Leave them out, or use a SeACo-Paraformer.")
        return self.network(features, lengths, language, itn)

    def recognize(self, features: Sequence[mx.array], options: Options = DEFAULTS) -> list[Recognition]:
        """What is said in each of some features `[T, F]`, as one batch; nothing where there are none. InputError."""
        batch, lengths = padded(features)
        output = self(batch, lengths, options.hotwords, language=options.language, itn=options.itn)
        best = np.array(mx.argmax(output.logits, axis=-1))
        return [
            self._read(row[: length + PREFIX], output.blank) if length else Recognition()
            for row, length in zip(best, lengths, strict=True)
        ]

    def _read(self, best: npt.NDArray[np.integer], blank: int) -> Recognition:
        raw = self.pieces.text(collapse(best, blank))
        tags = read_tags(raw)
        # of all paths that spell what the likeliest one spells, this one is the likeliest: nothing is to be aligned
        words, times = self.pieces.words(best[PREFIX:], _ROW_MS, blank)
        return Recognition(rich_text(raw) if raw else "", words, times, raw, *tags)


def padded(features: Sequence[mx.array]) -> tuple[mx.array, npt.NDArray[np.int64]]:
    """Features `[T, F]` of several lengths -> `[B, T, F]`, zeros after them, and the lengths."""
    lengths = np.array([len(rows) for rows in features])
    if not len(lengths):
        raise InputError("a batch must have at least one recording.")
    longest = int(lengths.max())
    rows = [mx.pad(rows, [(0, longest - len(rows)), (0, 0)]) if len(rows) < longest else rows for rows in features]
    return mx.stack(rows), lengths


@backend.worker_streams()
def load_model(path: str | Path, *, dtype: mx.Dtype | str | None = None, keep_packed: bool | None = None) -> Recognizer:
    """The recogniser in a folder: FunASR's own (config.yaml, model.pt, am.mvn, tokens.json or bpe.model), or what
    `convert` wrote. The other arguments are those of `CheckpointModule.from_state_dict`.

    Raises MissingCheckpointError, ConfigError, WeightsError, TokenizerError.
    """
    folder = open_folder(path)
    kind = recogniser(folder.kind)
    network = kind.from_state_dict(folder.config, folder.weights(), dtype=dtype, keep_packed=keep_packed)
    return make_recognizer(network, folder)


def make_recognizer(network: CheckpointModule, folder: Folder) -> Recognizer:
    """A network with what lies beside it. Raises as `load_model`."""
    frontend = folder.frontend()
    if isinstance(network, SenseVoiceSmall):
        return SenseVoiceRecognizer(network, frontend, Pieces(folder.path / "bpe.model"))
    if not isinstance(network, Paraformer):
        raise ConfigError(f"a {network.model_type} is no recogniser.")
    spellings = folder.file("seg_dict")
    vocabulary = Vocabulary(folder.tokens(), read_spellings(spellings) if spellings else None)
    conf = folder.table("model_conf")
    ends = (conf.get("blank_id", 0), conf.get("sos", 1), conf.get("eos", 2))
    return ParaformerRecognizer(network, frontend, vocabulary, [int(end) for end in ends])
