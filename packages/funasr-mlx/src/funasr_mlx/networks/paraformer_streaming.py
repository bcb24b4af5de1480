"""Streaming Paraformer: the networks of Paraformer, a chunk at a time.

    history + chunk -> encoder, attending to the keys of earlier chunks -> integrate-and-fire, carrying the token that
    isn't complete -> decoder, with memories of earlier tokens and keys of earlier speech

A chunk is seen with frames before it and after it, as in `ChunkConfig`; its text comes once those after it are known.
Reference: FunASR 1.4.16, `models/paraformer_streaming`, `models/scama`. `T` frames of a chunk, `F` features, `D` width,
`N` tokens, `V` vocabulary, `K` taps of a memory; a stream is a batch of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import mlx.core as mx
import numpy as np

from mlx_core.errors import InputError

from .cif import CifPredictor, integrate_and_fire
from .paraformer import Paraformer

KeysValues: TypeAlias = tuple[mx.array, mx.array]
"""Each `[1, S, D]`."""

_MAX_FRAMES = 2**16


@dataclass(frozen=True)
class ChunkConfig:
    """The division of a stream into chunks. Frames are those of the encoder, 60 ms in every released model."""

    before: int = 0
    """Frames that are seen again before a chunk."""
    size: int = 10
    """Frames of a chunk."""
    after: int = 5
    """Frames after it that are seen already: by so much text is late."""
    encoder_look_back: int = 4
    """Chunks before this one that the encoder attends to; -1: all, so that memory grows with the stream."""
    decoder_look_back: int = 1
    """Chunks before this one that the decoder attends to; -1 is 0, as in the reference."""

    def __post_init__(self) -> None:
        limits = {"before": 0, "size": 1, "after": 0, "encoder_look_back": -1, "decoder_look_back": -1}
        for name, minimum in limits.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= _MAX_FRAMES:
                raise InputError(
                    f"a chunk's {name} must be a whole number from {minimum} to {_MAX_FRAMES}; found {value!r}."
                )
        if self.before + self.after == 0:
            raise InputError(
                "a chunk must be seen with some frames before or after it: chunk_size (0, 10, 5), not (0, 10, 0)."
            )


@dataclass(frozen=True)
class StreamState:
    """The state of a stream between chunks. It never changes: each chunk makes another."""

    config: ChunkConfig
    history: mx.array
    """`[1, before + after, F]`: the last frames, with their positions."""
    position: int = 1
    """Of the next frame."""
    encoder: list[KeysValues | None] = field(default_factory=list)
    """By layer, of the frames that it looks back to."""
    alpha: float = 0.0
    """The weight of the incomplete token so far; it fires at 1."""
    token: mx.array | None = None
    """`[1, D]`: the mean frame of that token."""
    memories: list[mx.array | None] = field(default_factory=list)
    """`[1, K - 1, D]`, by layer of the decoder."""
    decoder: list[KeysValues | None] = field(default_factory=list)
    """By layer that attends, of the frames that it looks back to."""

    def arrays(self) -> list[mx.array]:
        """The arrays to evaluate before the next chunk, lest its graph hold on to all chunks before it."""
        pairs = [array for pair in (*self.encoder, *self.decoder) if pair is not None for array in pair]
        rest = [array for array in (self.token, *self.memories) if array is not None]
        return [self.history, *pairs, *rest]


@dataclass(frozen=True)
class ChunkOutput:
    """The output for a chunk."""

    encoder_out: mx.array
    """`[1, T, D]`, T being before + size + after."""
    acoustic_embeds: mx.array
    """`[1, N, D]`."""
    logits: mx.array
    """`[1, N, V]`."""


class ParaformerStreaming(Paraformer):
    """`ParaformerStreaming` of a config.yaml. Called, it takes a whole recording, every frame attending to all."""

    model_type = "paraformer-streaming"

    def start(self, config: ChunkConfig | None = None) -> StreamState:
        """The state before a stream's first chunk: zeros before it."""
        config = ChunkConfig() if config is None else config
        features: mx.array = self.encoder.encoders0[0].norm1.weight
        history = mx.zeros((1, config.before + config.after, features.shape[0]), self.encoder.after_norm.weight.dtype)
        decoder = self.decoder
        return StreamState(
            config,
            history,
            encoder=[None] * len(self.encoder.layers),
            memories=[None] * (len(decoder.decoders) + len(decoder.decoders2)),
            decoder=[None] * len(decoder.decoders),
        )

    def chunk(
        self, features: mx.array | None, state: StreamState, final: bool = False
    ) -> tuple[ChunkOutput, StreamState]:
        """A stream's next frames, `[1, T, F]`, `config.size` of them but for the last ones -> their output, and the
        state after them.

        features: None for a stream that ends with too little for a frame, whose last frames are then looked at alone.
        final: whether nothing follows, so that the frames after the chunk count too. Raises InputError.
        """
        x, count, state = self._window(features, state)
        encoder_out, state = self._encode_chunk(x, state)
        embeds, state = self._fire_chunk(encoder_out, count, state, final)
        if embeds.shape[1] == 0:  # the decoder isn't called: its state stays for the next chunk
            return ChunkOutput(encoder_out, embeds, mx.zeros((1, 0, self.vocabulary))), state
        hidden, state = self._decode_chunk(embeds, encoder_out, state)
        return ChunkOutput(encoder_out, embeds, self.decoder.output_layer(hidden)), state

    def _window(self, features: mx.array | None, state: StreamState) -> tuple[mx.array, int, StreamState]:
        """History and new frames as the encoder sees them, `[1, T, F]`, and how many are new."""
        history = state.history
        if features is None:
            # The reference scales these frames, which are scaled already, again. Only an encoder whose first layer has
            # a residual can tell.
            return history * self.encoder.after_norm.weight.shape[0] ** 0.5, 0, state
        if features.ndim != 3 or features.shape[0] != 1 or features.shape[2] != history.shape[2]:
            raise InputError(f"features must be [1, T, {history.shape[2]}]; found shape {tuple(features.shape)}.")
        count = features.shape[1]
        x = mx.concatenate([history, self.encoder.embed(features.astype(history.dtype), state.position)], axis=1)
        return x, count, replace(state, history=x[:, count:], position=state.position + count)

    def _encode_chunk(self, x: mx.array, state: StreamState) -> tuple[mx.array, StreamState]:
        """`[1, T, F] -> [1, T, D]`."""
        config, known = state.config, list(state.encoder)
        # Those after the chunk come again with the next one. Where there are none the reference keeps nothing.
        again = config.after or x.shape[1]
        limit = None if config.encoder_look_back < 0 else config.encoder_look_back * config.size
        for i, layer in enumerate(self.encoder.layers):
            attention = layer.self_attn
            q, k, v = attention.project(layer.norm1(x))
            pair = _after(known[i], (k, v))
            attended = attention.attend(q, *pair)
            if config.encoder_look_back:
                known[i] = _latest(pair, limit, again)
            x = layer.finish(x, attended + attention.fsmn_block(v))
        return self.encoder.after_norm(x), replace(state, encoder=known)

    def _fire_chunk(
        self, speech: mx.array, count: int, state: StreamState, final: bool
    ) -> tuple[mx.array, StreamState]:
        """The speech `[1, T, D]` -> the tokens that it completes `[1, N, D]`; in float32, as `CifPredictor` has it."""
        predictor: CifPredictor = self.predictor
        hidden = speech.astype(mx.float32)
        first = state.config.before
        alphas = np.array(predictor.alphas(hidden, None))[0]
        alphas[:first] = 0
        if not final:
            alphas[first + count :] = 0
        nothing = mx.zeros((1, hidden.shape[2]))
        rows = mx.concatenate([nothing if state.token is None else state.token, hidden[0], nothing])
        tail = predictor.config.tail_threshold if final else 0
        alphas = np.concatenate([[state.alpha], alphas, [tail]]).astype(np.float32)
        weights, _, peaks = integrate_and_fire(alphas[None], catch_up=True, tail=True)
        tokens = weights[0, : np.count_nonzero(peaks >= 1)]
        left = alphas - tokens.sum(axis=0)  # of no token
        alpha = max(0.0, float(left.sum()))
        token = mx.array(left / alpha if alpha else left)[None] @ rows
        return (mx.array(tokens) @ rows)[None].astype(speech.dtype), replace(state, alpha=alpha, token=token)

    def _decode_chunk(self, x: mx.array, speech: mx.array, state: StreamState) -> tuple[mx.array, StreamState]:
        """Embeddings `[1, N, D]` and the speech `[1, T, D]` -> hidden `[1, N, D]`."""
        memories, known, decoder = list(state.memories), list(state.decoder), self.decoder
        limit = max(0, state.config.decoder_look_back) * state.config.size
        attending = len(decoder.decoders)
        layers = [*decoder.decoders, *decoder.decoders2]
        if len(decoder.decoders2) == 1:
            layers.pop()  # the reference passes over it, unless there are more
        for i, layer in enumerate(layers):
            inner, memory = layer.inner(x), layer.self_attn.fsmn_block
            x = x + memory(inner, before=memories[i])
            memories[i] = memory.with_context(inner, memories[i])[:, inner.shape[1] :]
            if i < attending:
                attention = layer.src_attn
                pair = _after(known[i], attention.project(speech))
                x = x + attention.attend(layer.norm3(x), *pair)
                known[i] = _latest(pair, limit) if limit else None
        for last in decoder.decoders3:
            x = last(x)
        return decoder.after_norm(x), replace(state, memories=memories, decoder=known)


def _after(known: KeysValues | None, new: KeysValues) -> KeysValues:
    if known is None:
        return new
    return mx.concatenate([known[0], new[0]], axis=1), mx.concatenate([known[1], new[1]], axis=1)


def _latest(pair: KeysValues, limit: int | None, again: int = 0) -> KeysValues:
    """The last `limit` frames, None for all, without the `again` that come again."""
    stop = pair[0].shape[1] - again
    first = 0 if limit is None else max(0, stop - limit)
    return pair[0][:, first:stop], pair[1][:, first:stop]


def make_chunks(chunk_size: Sequence[int], encoder_look_back: int, decoder_look_back: int) -> ChunkConfig:
    """A ChunkConfig from FunASR's arguments: `chunk_size` is (before, size, after). Raises InputError."""
    sizes = list(chunk_size)
    if len(sizes) != 3:
        raise InputError(
            f"chunk_size must be three numbers, frames before, in and after a chunk; found {chunk_size!r}."
        )
    before, size, after = sizes
    return ChunkConfig(before, size, after, encoder_look_back, decoder_look_back)
