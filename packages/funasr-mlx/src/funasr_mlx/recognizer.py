"""Recognizers: a front end, a network, and the way from its output to words.

samples -> features -> network -> tokens and times -> words, text
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from mlx_core import backend
from mlx_core.errors import ConfigError, InputError
from mlx_core.models import CheckpointModule

from .folder import Folder, open_folder
from .frontend import Audio, Frontend, Samples, read_samples
from .networks import (
    PREFIX,
    ContextualParaformer,
    Paraformer,
    ParaformerOutput,
    SeacoParaformer,
    SenseVoiceOutput,
    SenseVoiceSmall,
    collapse,
    find_recognizer,
)
from .pipeline import Pipeline
from .recognition import DEFAULT_OPTIONS, Hotwords, Recognition, RecognitionOptions
from .text import Pieces, Transcript, Vocabulary, join_tokens, read_spellings, read_tags, rich_text, token_times

_ROW_MS = 60  # of features, in every released model
_FINE_STEPS = 3  # into which the timestamp predictor divides a row


class Recognizer(ABC):
    """A model as `load_model` gives it."""

    def __init__(self, network: CheckpointModule, frontend: Frontend) -> None:
        self.network, self.frontend = network, frontend

    @property
    def sample_rate(self) -> int:
        """The rate of the samples that the model takes, in Hz."""
        return self.frontend.sample_rate

    @property
    def takes_hotwords(self) -> bool:
        """Whether the model knows hotwords."""
        return False

    @abstractmethod
    def __call__(
        self, features: npt.ArrayLike | mx.array, lengths: npt.ArrayLike | mx.array, hotwords: Hotwords = None
    ) -> Any:
        """The network's output for features `[B, T, F]` of which row b has `lengths[b]`."""

    @abstractmethod
    def recognize(
        self, features: Sequence[mx.array], options: RecognitionOptions = DEFAULT_OPTIONS
    ) -> list[Recognition]:
        """Recognize features `[T, F]`, one array per stretch, as one batch. Raises InputError."""

    def transcribe(
        self,
        audio: Audio,
        hotwords: Hotwords = None,
        language: str = "auto",
        itn: bool = True,
        *,
        sample_rate: int | None = None,
    ) -> Transcript:
        """The transcript of a recording: a file's path, or samples `[S]` in [-1, 1].

        hotwords: words to listen for, as a list or one string with blanks between. language, itn: SenseVoice's; itn
        writes numbers as digits, with punctuation. sample_rate: of the samples in Hz; None for the model's.
        Recordings of more than a minute are cut at quiet places; `Pipeline` cuts them by voice activity. Raises
        AudioError, InputError.
        """
        return Pipeline(self).transcribe(audio, hotwords=hotwords, language=language, itn=itn, sample_rate=sample_rate)

    def samples(self, audio: Audio, sample_rate: int | None = None) -> Samples:
        """A recording as `[S]` at the model's rate. Raises AudioError."""
        return read_samples(audio, self.sample_rate, sample_rate)


class ParaformerRecognizer(Recognizer):
    """A recognizer with a Paraformer of any kind."""

    network: Paraformer

    def __init__(self, network: Paraformer, frontend: Frontend, vocabulary: Vocabulary, end_ids: Iterable[int]) -> None:
        super().__init__(network, frontend)
        if len(vocabulary) < network.vocabulary:
            raise ConfigError(
                f"the network has {network.vocabulary} tokens, tokens.json {len(vocabulary)}. They are of different models."
            )
        self.vocabulary, self._silent_ids = vocabulary, frozenset(end_ids)

    @property
    def takes_hotwords(self) -> bool:
        """Whether the model knows hotwords."""
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

    def recognize(
        self, features: Sequence[mx.array], options: RecognitionOptions = DEFAULT_OPTIONS
    ) -> list[Recognition]:
        """Recognize features `[T, F]`, one array per stretch, as one batch. Raises InputError."""
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
        tokens = self.vocabulary.decode(int(i) for i in ids if int(i) not in self._silent_ids)
        if not tokens:
            return Recognition()
        if fine:
            steps = length * _FINE_STEPS
            times = token_times(alphas[:steps], peaks[:steps], len(tokens), _ROW_MS / _FINE_STEPS)
        else:
            # FunASR passes these in the wrong order, so its times aren't the predictor's
            steps = min(length + 1, len(alphas))
            times = token_times(peaks[:steps], alphas[:steps], len(tokens), _ROW_MS)
        joined = join_tokens(tokens, times)
        raw = " ".join(joined.words) if fine else joined.text
        return Recognition(joined.text, joined.words, joined.times, raw)


class SenseVoiceRecognizer(Recognizer):
    """A recognizer with SenseVoice."""

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

    def recognize(
        self, features: Sequence[mx.array], options: RecognitionOptions = DEFAULT_OPTIONS
    ) -> list[Recognition]:
        """Recognize features `[T, F]`, one array per stretch, as one batch. Raises InputError."""
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
        # the likeliest path of all that spell its text, so no alignment is needed
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
    """The recognizer in a folder, FunASR's own (config.yaml, model.pt, am.mvn, tokens.json or bpe.model) or one that
    `convert` wrote, or of a hub id (org/name). The other arguments are those of `CheckpointModule.from_state_dict`.

    Raises MissingCheckpointError, HubError, ConfigError, WeightsError, TokenizerError.
    """
    folder = open_folder(path)
    network = find_recognizer(folder.kind).from_state_dict(
        folder.config, folder.weights(), dtype=dtype, keep_packed=keep_packed, consume=True
    )
    return make_recognizer(network, folder)


def make_recognizer(network: CheckpointModule, folder: Folder) -> Recognizer:
    """A recognizer of a network and the companions in its folder. Raises as `load_model`."""
    frontend = folder.frontend()
    if isinstance(network, SenseVoiceSmall):
        return SenseVoiceRecognizer(network, frontend, folder.pieces())
    if not isinstance(network, Paraformer):
        raise ConfigError(f"a {network.model_type} is no recognizer.")
    spellings = folder.file("seg_dict")
    vocabulary = Vocabulary(folder.tokens(), read_spellings(spellings) if spellings else None)
    conf = folder.table("model_conf")
    ends = (conf.get("blank_id", 0), conf.get("sos", 1), conf.get("eos", 2))
    return ParaformerRecognizer(network, frontend, vocabulary, [int(end) for end in ends])
