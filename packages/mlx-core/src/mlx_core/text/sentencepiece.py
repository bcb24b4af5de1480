"""SentencePiece: `tokenizer.model` files as tokenizers of the tokenizers library.

A file is one protobuf message, ModelProto of SentencePiece's sentencepiece_model.proto; the fields that are needed are
read here, without a protobuf library. SentencePiece's text handling (normalizer.cc, bpe_model.cc, unigram_model.cc) is
built from the tokenizers library's parts: the file's map of characters, whitespace, the prefix, user-defined symbols,
BPE or Unigram, byte fallback.

transformers has two ways to treat the text after a special token, which `legacy` chooses: with it, every span between
special tokens begins with the prefix; without it, only the text's first does.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from ..errors import TokenizerError
from .detokenizer import library_errors

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # types of pieces
UNIGRAM, BPE = 1, 2  # types of models
_OTHER_MODELS = {3: "word", 4: "char"}

_MAX_PIECES = 2**20
_MAX_PIECE = 1024  # characters; SentencePiece's own limit is 16 unless a trainer raises it
_SPACE = "\u2581"  # SentencePiece's space
_SEPARATOR = "\uffff"  # a noncharacter, which no text has
_BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))


@dataclass(frozen=True)
class SentencePieceModel:
    """A vocabulary and its normalisation of text; the defaults are SentencePiece's.

    `scores` and `types` are per piece; a piece's id is its index. `unknown` is the id of the unknown token.
    `special_tokens` are pieces by the names of tokenizer_config.json: "bos_token", "eos_token" ...
    """

    pieces: Sequence[str]
    scores: Sequence[float]
    types: Sequence[int]
    unknown: int | None
    kind: int = UNIGRAM
    byte_fallback: bool = False
    characters: bytes = b""  # the precompiled map of characters
    add_dummy_prefix: bool = True
    remove_extra_whitespaces: bool = True
    escape_whitespaces: bool = True
    special_tokens: Mapping[str, str] = field(default_factory=dict)


def sentencepiece_backend(model: SentencePieceModel, *, legacy: bool = True) -> tokenizers.Tokenizer:
    """A tokenizer with SentencePiece's ids; `add_special_pieces` still has to add its special tokens.

    `legacy`: every span between special tokens begins with the prefix, not only the first.
    Raises TokenizerError for a vocabulary that the library can't hold.
    """
    space = _SPACE if model.escape_whitespaces else " "
    symbols = [piece for piece, kind in zip(model.pieces, model.types, strict=True) if kind == USER_DEFINED]
    with library_errors("build this SentencePiece vocabulary"):
        backend = tokenizers.Tokenizer(_bpe(model, symbols) if model.kind == BPE else _unigram(model))
        stages = _normalizers(model, space)
        cuts: list[pre_tokenizers.PreTokenizer] = []
        if model.add_dummy_prefix and legacy:
            stages.append(normalizers.Prepend(space))
        elif model.add_dummy_prefix:
            # Metaspace adds no prefix to a text that begins with its own replacement. With " " as the replacement no
            # text does, because its spaces are replaced before; the second Metaspace turns the prefix into U+2581.
            cuts.append(pre_tokenizers.Metaspace(" ", prepend_scheme="first", split=False))
            if model.escape_whitespaces:
                cuts.append(pre_tokenizers.Metaspace(_SPACE, prepend_scheme="never", split=False))
        if model.remove_extra_whitespaces:
            stages.append(normalizers.Replace(Regex(rf"{space}+\z"), ""))
        if symbols:
            cuts.append(pre_tokenizers.Split(Regex(_any_of(symbols)), "isolated"))
        if model.byte_fallback and (symbols or model.kind == UNIGRAM):
            # SentencePiece doesn't take "<0x41>" in a text for a byte; the library would, so it is split.
            cuts.append(pre_tokenizers.Split(Regex("<(?=0x[0-9A-F]{2}>)"), "merged_with_previous"))
        if stages:
            backend.normalizer = normalizers.Sequence(stages)
        if cuts:
            backend.pre_tokenizer = pre_tokenizers.Sequence(cuts)
        backend.decoder = _decoder(model)
    return backend


def add_special_pieces(backend: tokenizers.Tokenizer, model: SentencePieceModel) -> None:
    """Make the unknown and the control pieces special tokens: recognised in texts, skipped when decoding."""
    kinds = zip(model.pieces, model.types, strict=True)
    with library_errors("add the special tokens of this SentencePiece vocabulary"):
        backend.add_special_tokens(
            [AddedToken(piece, special=True, normalized=False) for piece, kind in kinds if kind in (UNKNOWN, CONTROL)]
        )


def merges_by_score(pieces: Mapping[str, float]) -> list[tuple[str, str]]:
    """BPE's merges, best score first, then leftmost. `pieces`: piece -> score.

    Raises TokenizerError for a piece of more than 1,024 characters.
    """
    longest = max(pieces, key=len, default="")
    if len(longest) > _MAX_PIECE:
        raise TokenizerError(
            f"the vocabulary has a piece of {len(longest):,} characters, more than {_MAX_PIECE}: {longest[:40]!r}..."
        )
    merges = [
        (left, right)
        for piece in pieces
        for cut in range(1, len(piece))
        if (left := piece[:cut]) in pieces and (right := piece[cut:]) in pieces
    ]
    # Runs of spaces share one score. The longer left part goes first, so that a run is merged from its left end.
    return sorted(merges, key=lambda merge: (-pieces[merge[0] + merge[1]], -len(merge[0])))


def _bpe(model: SentencePieceModel, symbols: list[str]) -> models.BPE:
    vocabulary: dict[str, int] = {}
    for index, piece in enumerate(model.pieces):
        vocabulary.setdefault(piece, index)
    # Only pieces of text are merged: user-defined symbols are found before, the others never.
    mergeable = {
        piece: score
        for piece, score, kind in zip(model.pieces, model.scores, model.types, strict=True)
        if kind in (NORMAL, UNUSED)
    }
    return models.BPE(
        vocabulary,
        merges_by_score(mergeable),
        unk_token=None if model.unknown is None else model.pieces[model.unknown],
        fuse_unk=True,
        byte_fallback=model.byte_fallback,
        ignore_merges=bool(symbols),  # no merges lead to a symbol, which by then stands alone
    )


def _unigram(model: SentencePieceModel) -> models.Unigram:
    normal = [score for score, kind in zip(model.scores, model.types, strict=True) if kind == NORMAL]
    best = max([0.0, *normal])
    # To the library every piece is text, and an unknown character scores 10 less than the worst piece. Pieces of other
    # types must not be the worst; a user-defined symbol has to score better than anything that it could be split into.
    # Scores are fp32, for which nine digits are enough; with more, tokenizer.json may not restore the same number.
    scores = [
        float(f"{score:.9g}") if kind == NORMAL else best * len(piece)
        for piece, score, kind in zip(model.pieces, model.scores, model.types, strict=True)
    ]
    return models.Unigram(list(zip(model.pieces, scores, strict=True)), model.unknown, model.byte_fallback)


def _normalizers(model: SentencePieceModel, space: str) -> list[normalizers.Normalizer]:
    """The normalisers before the prefix."""
    stages: list[normalizers.Normalizer] = []
    if model.characters:
        # Precompiled looks up a whole grapheme cluster, and replaces all of it if the map has its beginning. With a
        # noncharacter between any two characters it looks up each alone; the map's own pairs (a letter and an accent)
        # are those of NFC.
        stages += [
            normalizers.NFC(),
            normalizers.Replace(Regex(r"(?!\A)(?=[\s\S])"), _SEPARATOR),
            normalizers.Precompiled(model.characters),
            normalizers.Replace(_SEPARATOR, ""),
        ]
    if model.remove_extra_whitespaces:
        stages += [normalizers.Replace(Regex(r"\A +"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    if space != " ":
        stages.append(normalizers.Replace(" ", space))
    return stages


def _decoder(model: SentencePieceModel) -> decoders.Decoder:
    stages = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if model.escape_whitespaces and (model.add_dummy_prefix or model.remove_extra_whitespaces):
        stages.append(decoders.Strip(" ", 1, 0))
    return decoders.Sequence(stages)


def _any_of(symbols: list[str]) -> str:
    """An expression for the longest of `symbols`, grouped by their first characters: there may be thousands."""
    rests: dict[str, list[str]] = {}
    for symbol in sorted(symbols, key=len, reverse=True):
        rests.setdefault(symbol[0], []).append(re.escape(symbol[1:]))
    return "|".join(f"{re.escape(first)}(?:{'|'.join(rest)})" for first, rest in rests.items())


# --- The file's fields


class _Field(NamedTuple):
    name: str
    kind: type  # str, bytes, float, int, bool; dict for a message


# The fields of each message, by number; others are skipped.
_MODEL = {
    1: _Field("piece", dict),
    2: _Field("trainer", dict),
    3: _Field("normalizer", dict),
    5: _Field("denormalizer", dict),
}
_PIECE = {1: _Field("piece", str), 2: _Field("score", float), 3: _Field("type", int)}
_TRAINER = {
    3: _Field("model_type", int),
    24: _Field("treat_whitespace_as_suffix", bool),
    35: _Field("byte_fallback", bool),
    45: _Field("unk_token", str),
    46: _Field("bos_token", str),
    47: _Field("eos_token", str),
    48: _Field("pad_token", str),
}
_NORMALIZER = {
    1: _Field("name", str),
    2: _Field("characters", bytes),
    3: _Field("add_dummy_prefix", bool),
    4: _Field("remove_extra_whitespaces", bool),
    5: _Field("escape_whitespaces", bool),
}
_SPECIAL = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
_MAPS = ("nmt_nfkc", "nfkc", "nmt_nfkc_cf", "nfkc_cf")  # their only pairs of characters are those of NFC
_WIRE_TYPES = {int: 0, bool: 0, str: 2, bytes: 2, dict: 2, float: 5}


def read_sentencepiece_model(data: bytes) -> SentencePieceModel:
    """The model in the bytes of a `tokenizer.model` file.

    Raises TokenizerError for a damaged file, and for a feature of SentencePiece that isn't supported, by its name.
    """
    pieces: list[dict[str, Any]] = []
    parts: dict[str, dict[str, Any]] = {"trainer": {}, "normalizer": {}, "denormalizer": {}}
    schemas = {"trainer": _TRAINER, "normalizer": _NORMALIZER, "denormalizer": _NORMALIZER}
    for name, value in _fields(data, _MODEL):
        if name == "piece":
            pieces.append(dict(_fields(value, _PIECE)))
            if len(pieces) > _MAX_PIECES:
                raise _damaged(f"it has more than {_MAX_PIECES:,} pieces")
        else:
            parts[name].update(_fields(value, schemas[name]))
    trainer, normalizer = parts["trainer"], parts["normalizer"]
    _check_features(trainer, normalizer, parts["denormalizer"])
    normalizer.pop("name", None)
    texts = [piece.get("piece", "") for piece in pieces]
    types = [piece.get("type", NORMAL) for piece in pieces]
    scores = [piece.get("score", 0.0) for piece in pieces]
    byte_fallback = trainer.get("byte_fallback", False)
    _check_pieces(texts, types, scores, byte_fallback)
    kinds = dict(zip(texts, types, strict=True))
    named = {name: trainer.get(name, default) for name, default in _SPECIAL.items()}
    named["unk_token"] = texts[types.index(UNKNOWN)]
    return SentencePieceModel(
        pieces=texts,
        scores=scores,
        types=types,
        unknown=types.index(UNKNOWN),
        kind=trainer.get("model_type", UNIGRAM),
        byte_fallback=byte_fallback,
        special_tokens={name: text for name, text in named.items() if kinds.get(text) in (UNKNOWN, CONTROL)},
        **normalizer,
    )


def _check_features(trainer: Mapping[str, Any], normalizer: Mapping[str, Any], denormalizer: Mapping[str, Any]) -> None:
    kind = trainer.get("model_type", UNIGRAM)
    if kind not in (UNIGRAM, BPE):
        found = _OTHER_MODELS.get(kind, f"unknown type {kind}")
        raise TokenizerError(
            f"the SentencePiece model is of type {found!r}, but only 'unigram' and 'bpe' are read{_ELSE}"
        )
    if trainer.get("treat_whitespace_as_suffix"):
        raise TokenizerError(f"the SentencePiece model has treat_whitespace_as_suffix, which isn't supported{_ELSE}")
    if normalizer.get("characters") and normalizer.get("name") not in _MAPS:
        raise TokenizerError(
            f"the SentencePiece model's normaliser is {normalizer.get('name', '')!r:.60}, but of maps of characters only "
            f"{', '.join(_MAPS)} are applied{_ELSE}"
        )
    if denormalizer.get("characters"):
        raise TokenizerError(f"the SentencePiece model has a denormalizer, which isn't supported{_ELSE}")


_ELSE = ": use a checkpoint with tokenizer.json in place of this file"


def _check_pieces(texts: list[str], types: list[int], scores: list[float], byte_fallback: bool) -> None:
    if types.count(UNKNOWN) != 1:
        raise _damaged(f"exactly one of its pieces has to be the unknown token, found {types.count(UNKNOWN)}")
    seen: set[str] = set()
    for index, (text, kind, score) in enumerate(zip(texts, types, scores, strict=True)):
        if not text or text in seen:
            raise _damaged(f"piece {index} is {text!r:.60}, which {'appears twice' if text else 'is empty'}")
        if not NORMAL <= kind <= BYTE:
            raise _damaged(f"piece {index} ({text!r:.60}) is of type {kind}, expected 1 to 6")
        if not math.isfinite(score):
            raise _damaged(f"piece {index} ({text!r:.60}) has the score {score}")
        seen.add(text)
    if UNUSED in types:
        raise TokenizerError(
            f"the SentencePiece model has unused pieces, such as {texts[types.index(UNUSED)]!r:.60}: a vocabulary that was "
            f"restricted after training isn't read{_ELSE}"
        )
    found = sorted(text for text, kind in zip(texts, types, strict=True) if kind == BYTE)
    expected = sorted(_BYTES) if byte_fallback else []
    if found != expected:
        raise _damaged(
            f"byte_fallback is {byte_fallback}, so {len(expected)} pieces have to be bytes, found {len(found)}"
        )


def _fields(data: bytes, schema: Mapping[int, _Field]) -> Iterator[tuple[str, Any]]:
    """The fields of a message that are in the schema, in the file's order."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        number, wire_type = tag >> 3, tag & 7
        value: int | bytes
        if wire_type == 0:
            value, position = _varint(data, position)
        elif wire_type in (1, 2, 5):
            length = 8 if wire_type == 1 else 4
            if wire_type == 2:
                length, position = _varint(data, position)
            value = data[position : position + length]
            if len(value) < length:
                raise _damaged(f"a field of {length:,} bytes has only {len(value):,}")
            position += length
        else:
            raise _damaged(f"a field has the wire type {wire_type}")
        known = schema.get(number)
        if known is not None:
            if wire_type != _WIRE_TYPES[known.kind]:
                raise _damaged(f"the field {known.name} has the wire type {wire_type}")
            yield known.name, _value(known, value)


def _value(known: _Field, value: Any) -> Any:
    if known.kind is str:
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise _damaged(f"the field {known.name} is no UTF-8 ({error})") from error
    if known.kind is float:
        return struct.unpack("<f", value)[0]
    return value != 0 if known.kind is bool else value


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """The number at `position` and where it ends."""
    value = 0
    for index, byte in enumerate(data[position : position + 10]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, position + index + 1
    raise _damaged("a number has no end")


def _damaged(what: str) -> TokenizerError:
    return TokenizerError(f"this is no valid SentencePiece model: {what}; get the file again")
