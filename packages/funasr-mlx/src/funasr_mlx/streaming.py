"""Streaming recognition: text while somebody speaks.

Samples come in pieces of any size; each chunk that they complete is recognized at once. A call returns FunASR's text of
the same samples, which reads badly in English: words have no space between calls, and one whose pieces come with
different chunks is cut. `text` puts all of it together.
Reference: FunASR 1.4.16, `models/paraformer_streaming`.
"""

from __future__ import annotations

import copy
from array import array
from collections.abc import Sequence
from pathlib import Path

import mlx.core as mx
import numpy as np

from mlx_core.errors import ConfigError

from .config import setting
from .frontend import AnySamples, OnlineFrontend, Samples, mono_samples
from .networks import ParaformerStreaming, StreamState, make_chunks
from .recognizer import ParaformerRecognizer, Recognizer, load_model
from .text import join_tokens


class StreamingSession:
    """One recording after the other, each in pieces of any size.

    Memory doesn't grow with a recording, but for four bytes a token, unless `encoder_chunk_look_back` is -1.
    """

    _online: OnlineFrontend
    _state: StreamState
    _samples: Samples  # less than a chunk
    _ended: bool  # whether the text is of a recording that ended
    _ids: array[int]

    def __init__(
        self,
        model: Recognizer | str | Path,
        *,
        chunk_size: Sequence[int] = (0, 10, 5),
        encoder_chunk_look_back: int = 4,
        decoder_chunk_look_back: int = 1,
    ) -> None:
        """model: as `load_model` gives it, its folder, or its hub id. The others are FunASR's; see `ChunkConfig`.

        Raises ConfigError for a model that isn't a streaming one, InputError for sizes, and as `load_model`.
        """
        recognizer = load_model(model) if isinstance(model, (str, Path)) else model
        network = getattr(recognizer, "network", None)
        if not isinstance(recognizer, ParaformerRecognizer) or not isinstance(network, ParaformerStreaming):
            kind = getattr(network, "model_type", type(model).__name__)
            raise ConfigError(
                f"a stream needs a ParaformerStreaming; found a {kind}. Name another model's folder or hub id."
            )
        self.recognizer = recognizer
        self._network = network
        self._chunks = make_chunks(chunk_size, encoder_chunk_look_back, decoder_chunk_look_back)
        frontend = recognizer.frontend.config
        self._frame_samples = frontend.fbank().shift_samples * frontend.lfr_n  # 960 in every released model
        names = (("blank_id", 0), ("sos", 1), ("eos", 2))
        self._silent_ids = [int(setting(network.checkpoint_config, name, default)) for name, default in names]
        self.reset()

    @property
    def sample_rate(self) -> int:
        """Hz that `feed` expects."""
        return self.recognizer.sample_rate

    @property
    def chunk_samples(self) -> int:
        """Samples of a chunk."""
        return self._chunks.size * self._frame_samples

    @property
    def text(self) -> str:
        """The text so far of this recording, or of the one that ended last: pieces of words that came with
        different chunks are joined, and English words have spaces between them.
        """
        return join_tokens(self.recognizer.vocabulary.decode(self._ids)).text

    def reset(self) -> None:
        """Drop text and state: another recording begins."""
        self._ids = array("i")
        self._begin()

    def feed(self, samples: AnySamples, final: bool = False) -> str:
        """The next samples `[S]`, floats in [-1, 1] at `sample_rate`, of any number -> the text of the chunks that they
        complete, which is often empty.

        final: the recording ends here; the next piece begins another. The samples that are left are recognized too,
        unless they are less than a frame, 60 ms, as in the reference; a recording that short has no text. Raises
        AudioError for NaN, infinity or several channels. A call that raises leaves everything as it was.
        """
        known = mono_samples(samples)
        if self._samples.size:
            known = np.concatenate([self._samples, known])
        online, state, size = copy.copy(self._online), self._state, self.chunk_samples
        new: list[int] = []
        count = known.size // size
        for i in range(count):
            ids, state = self._recognize_chunk(online, known[i * size : (i + 1) * size], state)
            new += ids
        rest = known[count * size :]
        if final:
            ids, state = self._recognize_chunk(online, rest, state, final)
            new += ids
        text = join_tokens(self.recognizer.vocabulary.decode(new)).text
        # From here on nothing raises.
        if self._ended:
            self._ids = array("i")
        self._ids.extend(new)
        if final:
            self._begin(ended=True)
        else:
            self._online, self._state, self._samples, self._ended = online, state, rest.copy(), False
        return text

    def _begin(self, ended: bool = False) -> None:
        """As before the first sample; ended: there is the text of a recording to be kept until the next one."""
        self._ended = ended
        self._online = OnlineFrontend(self.recognizer.frontend)
        self._state = self._network.start(self._chunks)
        self._samples = np.zeros(0, np.float32)

    def _recognize_chunk(
        self, online: OnlineFrontend, samples: Samples, state: StreamState, final: bool = False
    ) -> tuple[list[int], StreamState]:
        """The tokens of a chunk."""
        features = None
        if not final or samples.size >= self._frame_samples:
            features = online.rows(online.frames(samples)[0], final)[None]
        if features is None or not features.shape[1]:
            # Without a frame before, the reference would recognize its zeros.
            if not final or state.position == 1:
                return [], state
            features = None
        output, state = self._network.chunk(features, state, final)
        best = mx.argmax(output.logits, axis=-1) if output.logits.size else mx.zeros((1, 0), mx.int32)
        mx.eval(best, state.arrays())
        return [int(i) for i in np.array(best[0]) if i not in self._silent_ids], state
