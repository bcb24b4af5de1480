"""Streaming detokenisation: the text of tokens, one token at a time.

The pieces of a stream, joined, are exactly the text that decoding all of its tokens at once gives, for any tokens. A
piece is returned as soon as no further token can change it, and the cost of a token doesn't grow with the text.

What has to be held back depends on the tokenizer's decoder:

- byte-level vocabularies (GPT-2, Llama 3, Qwen): the bytes of an unfinished UTF-8 character;
- byte fallback (SentencePiece): a whole run of byte tokens, since one invalid byte turns every byte of its run into
  U+FFFD;
- the start of a text, which may lose its leading space, or whose first token is decoded differently;
- decoders that aren't known to work token by token: everything, until the end.
"""

from __future__ import annotations

import codecs
import json
import operator
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Protocol

import tokenizers

from ..errors import TokenizerError

Decode = Callable[[list[str]], str]

ID_LIMIT = 2**32  # the library's ids have 32 bits
_SENTINEL = "a"  # decoded before tokens that aren't the first of their text; only the decoder sees it
_BYTE_PROBES = ("<0x41>", "<0xFF>")  # a valid byte and an invalid one: any byte token changes beside one of them
_MAX_STRIPPED = 16  # characters that a decoder may strip at the start and still be streamed


def checked_ids(ids: Iterable[Any] | Any) -> list[int]:
    """`ids` as a list of integers, from an iterable of them, a NumPy array or an mx.array of one dimension.

    Raises TokenizerError for anything but integers of 0 and up.
    """
    values = ids.tolist() if hasattr(ids, "tolist") else ids
    if not isinstance(values, Iterable) or isinstance(values, str | bytes):
        raise TokenizerError(f"token ids must be a sequence of integers, found {type(ids).__name__}: put it in a list")
    return [checked_id(value) for value in values]


def checked_id(value: Any) -> int:
    """A token id as a Python integer, from any kind of integer. Raises TokenizerError for others and negative ones."""
    try:
        index = operator.index(value.item() if hasattr(value, "item") else value)
    except (TypeError, ValueError):
        raise TokenizerError(
            f"a token id must be an integer, found {value!r:.80} ({type(value).__name__}): "
            "give one sequence at a time, without batch dimension"
        ) from None
    if index < 0:
        raise TokenizerError(f"a token id must be 0 or more, found {index}: padding has to be cut off before decoding")
    return index


@contextmanager
def library_errors(task: str) -> Iterator[None]:
    """Turn exceptions of the tokenizers library into TokenizerErrors: ValueError, bare Exception, Rust's panics."""
    try:
        yield
    except TokenizerError:
        raise
    except BaseException as error:
        # A panic is a BaseException, of a class that can't be imported.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise TokenizerError(f"the tokenizers library can't {task}: {error}") from error


class Decoding:
    """One tokenizer's decoder, and the texts of its tokens as far as they were needed. Its streams share it."""

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        self._backend = backend
        self._texts: dict[str, str | None] = {}

    def token(self, token_id: int) -> str | None:
        """The token's own string, or None if the vocabulary has no such id."""
        return self._backend.id_to_token(token_id) if token_id < ID_LIMIT else None

    @cached_property
    def special_tokens(self) -> frozenset[str]:
        return frozenset(token.content for token in self._backend.get_added_tokens_decoder().values() if token.special)

    def decode(self, tokens: list[str]) -> str:
        """The library's text of `tokens`, which are strings of the vocabulary."""
        decoder = self._backend.decoder
        if decoder is None:
            return " ".join(tokens)
        with library_errors("decode these tokens"):
            return decoder.decode(tokens)

    def continuation(self, tokens: list[str]) -> str:
        """The text that `tokens` add to a text which has begun."""
        return self.decode([_SENTINEL, *tokens])[len(_SENTINEL) :]

    def text(self, token: str) -> str | None:
        """The text that `token` adds to a text which has begun; None for a byte's token, where it depends on others."""
        if token not in self._texts:
            alone = self.continuation([token])
            is_byte = self._has_byte_fallback and any(
                self.continuation([token, byte]) != alone + self.continuation([byte]) for byte in _BYTE_PROBES
            )
            self._texts[token] = None if is_byte else alone
        return self._texts[token]

    def reader(self) -> _Reader:
        if [stage["type"] for stage in self._stages] == ["ByteLevel"]:
            return _ByteReader()
        return _TokenReader(self) if self._works_by_token else _WholeReader(self.decode)

    @cached_property
    def _stages(self) -> list[dict[str, Any]]:
        decoder = self._backend.decoder
        return [] if decoder is None else _flatten(json.loads(decoder.__getstate__()))

    @cached_property
    def _has_byte_fallback(self) -> bool:
        return any(stage["type"] == "ByteFallback" for stage in self._stages)

    @cached_property
    def _works_by_token(self) -> bool:
        """Whether tokens are decoded one by one, except runs of bytes and the start of a text."""
        fused = False
        for stage in self._stages:
            match stage["type"]:
                case "Fuse":
                    fused = True
                case "Strip" if fused:
                    if stage["stop"] or stage["start"] > _MAX_STRIPPED:
                        return False
                case "Replace" | "ByteFallback" | "Metaspace" | "WordPiece" | "Strip" if not fused:
                    pass
                case _:
                    return False
        # The sentinel and the probes are only valid if no stage changes them.
        if self.decode([_SENTINEL]) != _SENTINEL:
            return False
        if not self._has_byte_fallback:
            return True
        fallbacks = sum(stage["type"] == "ByteFallback" for stage in self._stages)
        valid, invalid = _BYTE_PROBES
        return (
            fallbacks == 1
            and self.continuation([valid]) == "A"
            and self.continuation([valid, invalid]) == "\ufffd\ufffd"
        )


class StreamingDetokenizer:
    """Decodes tokens one at a time; made by `Tokenizer.detokenizer`.

    `add` takes a token and returns the text that is final with it ("" while a character is unfinished); `flush` returns
    the rest at the end. The pieces join to the text that `Tokenizer.decode` gives for all the tokens.
    """

    def __init__(self, decoding: Decoding, *, skip_special_tokens: bool = True, shown: Iterable[str] = ()) -> None:
        self._decoding = decoding
        self._skipped = decoding.special_tokens.difference(shown) if skip_special_tokens else frozenset()
        self._reader = decoding.reader()
        self._pieces: list[str] = []
        self._flushed = False

    def add(self, token_id: int) -> str:
        """The text that is final with this token, possibly "". An id outside the vocabulary has no text.

        Raises TokenizerError for a negative id, and after `flush`.
        """
        if self._flushed:
            raise TokenizerError("this stream has been flushed: call reset() before adding tokens of another text")
        token = self._decoding.token(checked_id(token_id))
        if token is None or token in self._skipped:
            return ""
        return self._record(self._reader.add(token))

    def flush(self) -> str:
        """The text that is still held back. Ends the stream."""
        if self._flushed:
            return ""
        self._flushed = True
        return self._record(self._reader.finish())

    @property
    def text(self) -> str:
        """All the text returned so far."""
        self._pieces = ["".join(self._pieces)]
        return self._pieces[0]

    def reset(self) -> None:
        """Forget everything, for another text."""
        self._reader = self._decoding.reader()
        self._pieces, self._flushed = [], False

    def _record(self, piece: str) -> str:
        if piece:
            self._pieces.append(piece)
        return piece


class _Reader(Protocol):
    def add(self, token: str) -> str: ...

    def finish(self) -> str: ...


class _ByteReader:
    """A byte-level vocabulary: each character of a token stands for a byte."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, token: str) -> str:
        try:
            data = bytes([BYTES[character] for character in token])
        except KeyError:  # an added token in plain text: its UTF-8 bytes, as in the library
            data = token.encode()
        text = self._decoder.decode(data)
        pending, _ = self._decoder.getstate()
        if b"\xed\xa0" <= pending < b"\xee":  # Python waits for the rest of a surrogate, which is never valid UTF-8
            self._decoder.reset()
            text += pending.decode(errors="replace")
        return text

    def finish(self) -> str:
        return self._decoder.decode(b"", final=True)


class _TokenReader:
    """A vocabulary in which each token has a text of its own, except for bytes and at the start of the text."""

    def __init__(self, decoding: Decoding) -> None:
        self._decoding = decoding
        self._head: list[str] | None = []  # the tokens so far, until the first text: it may lose its leading space
        self._run: list[str] = []  # the bytes since the last other token

    def add(self, token: str) -> str:
        text = self._decoding.text(token)
        if text is None:
            self._run.append(token)
            return ""
        if self._head is None and not self._run:
            return text
        piece = self._window([token])
        if self._head is not None and (text or not self._head or self._decoding.text(self._head[-1]) is None):
            self._head.append(token)  # a token without text matters only if it is the first or ends a run of bytes
        return piece

    def finish(self) -> str:
        return self._window([])

    def _window(self, tokens: list[str]) -> str:
        """The text of the tokens that were held back, and of `tokens`."""
        window, self._run = self._run + tokens, []
        if self._head is None:
            return self._decoding.continuation(window)
        piece = self._decoding.decode(self._head + window)
        self._head = None if piece else self._head + window[: len(window) - len(tokens)]
        return piece


class _WholeReader:
    """A decoder that may change any part of the text until the last token."""

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self._tokens: list[str] = []

    def add(self, token: str) -> str:
        self._tokens.append(token)
        return ""

    def finish(self) -> str:
        return self._decode(self._tokens)


def _flatten(decoder: dict[str, Any]) -> list[dict[str, Any]]:
    """The decoder's stages in order, without nesting."""
    if decoder["type"] != "Sequence":
        return [decoder]
    return [stage for inner in decoder["decoders"] for stage in _flatten(inner)]


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's alphabet, character -> byte: Latin-1's printable characters, and U+0100 and up for the other bytes."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


BYTES = _byte_alphabet()
