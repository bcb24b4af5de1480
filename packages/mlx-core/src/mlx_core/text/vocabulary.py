"""GGUF vocabularies: the metadata under `tokenizer.ggml.` as a tokenizer of the tokenizers library.

Two of llama.cpp's models are supported: "gpt2", byte-level BPE with a list of merges and a named pre-tokenizer, and
"llama", SentencePiece's BPE, whose merges follow from the scores of its pieces. The expressions of the pre-tokenizers
are those of the models' own tokenizer.json files; their names are those of llama.cpp's llama-vocab.cpp.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

from ..errors import TokenizerError
from .detokenizer import library_errors
from .sentencepiece import (
    BPE,
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    SentencePieceModel,
    sentencepiece_backend,
)

T = TypeVar("T")

_NO_IDS = (-1, 2**32 - 1)  # how a file says that it has no such token


class PreTokenizer(NamedTuple):
    """Splits text into words before merging: by each expression in turn, applied to the pieces of the one before."""

    patterns: tuple[str, ...]
    nfc: bool = False  # Unicode normalisation first
    ignore_merges: bool = False  # a word that is a token stays whole, whatever its merges
    add_bos: bool = False  # if the metadata doesn't say


_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + _REST
_QWEN2 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + _REST
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+%(end)s|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*%(end)s|%(digits)s"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_TEKKEN = _CASED % {"end": "", "digits": r"\p{N}"}
_GPT4O = _CASED % {"end": f"{_CONTRACTIONS}?", "digits": r"\p{N}{1,3}"}
_CJK = "[一-龥\u3040-\u309f\u30a0-\u30ff]+"
_DEEPSEEK3 = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

PRE_TOKENIZERS = {
    name: pre_tokenizer
    for names, pre_tokenizer in {
        ("default",): PreTokenizer((r"[\p{P}$+<=>^~|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]")),
        ("gpt-2", "phi-2", "mpt", "olmo", "jais", "exaone4"): PreTokenizer((_GPT2,)),
        ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"): PreTokenizer(
            (r"\p{N}", _GPT2)
        ),
        ("falcon",): PreTokenizer((r"[\p{P}$+<=>^~|`]+", _GPT2, "[0-9][0-9][0-9]")),
        ("llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "lfm2"): PreTokenizer(
            (_LLAMA3,), ignore_merges=True, add_bos=True
        ),
        ("dbrx", "smaug-bpe", "chatglm-bpe"): PreTokenizer((_LLAMA3,)),
        ("glm4", "glm5"): PreTokenizer((_LLAMA3,), ignore_merges=True),
        ("qwen2",): PreTokenizer((_QWEN2,), nfc=True),
        ("deepseek-r1-qwen", "stablelm2", "megrez", "hunyuan"): PreTokenizer((_QWEN2,)),
        ("tekken",): PreTokenizer((_TEKKEN,), ignore_merges=True, add_bos=True),
        ("gpt-4o", "llama4"): PreTokenizer((_GPT4O,)),
        ("deepseek-coder",): PreTokenizer((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", r"\p{N}")),
        ("deepseek-v3", "hunyuan-dense"): PreTokenizer((r"\p{N}{1,3}", _CJK, _DEEPSEEK3)),
    }.items()
    for name in names
}


class GGUFVocabulary(NamedTuple):
    """The tokenizer in a GGUF file's metadata."""

    backend: tokenizers.Tokenizer
    special_tokens: dict[str, str]  # by the names of tokenizer_config.json: "bos_token", "eos_token" ...
    eos_token_ids: tuple[int, ...]  # that end an answer: eos, end of turn, end of message
    chat_templates: dict[str, str]


def read_gguf_vocabulary(metadata: Mapping[str, Any]) -> GGUFVocabulary:
    """The vocabulary in a GGUF file's metadata: a mapping of GGUF's keys to Python values.

    Raises TokenizerError for an unknown model or pre-tokenizer, and for entries that are missing or don't fit together.
    """
    tokens = _list(metadata, "tokens", str)
    if not tokens:
        raise TokenizerError("the GGUF metadata has no tokenizer.ggml.tokens: this file holds no vocabulary")
    types = list(_list(metadata, "token_type", int, len(tokens))) or [NORMAL] * len(tokens)
    ids = {name: _id(metadata, key, len(tokens)) for name, key in _SPECIAL_IDS.items()}
    special_ids = {name: index for name, index in ids.items() if index is not None}
    for index in special_ids.values():
        types[index] = CONTROL  # old converters call them normal
    model = _value(metadata, "model", str, "")
    if model == "gpt2":
        pre_tokenizer = _pre_tokenizer(metadata)
        backend, add_bos = _byte_level(metadata, tokens, types, pre_tokenizer), pre_tokenizer.add_bos
    elif model == "llama":
        backend, add_bos = _sentencepiece(metadata, tokens, types), True
    else:
        raise TokenizerError(
            f"the GGUF vocabulary's model is {model!r:.60}, but only 'gpt2' (byte-level BPE) and 'llama' (SentencePiece BPE) "
            "are known: use a checkpoint with tokenizer.json in place of this file"
        )
    with library_errors("add the special tokens of this GGUF vocabulary"):
        backend.add_tokens(
            [
                AddedToken(token, special=kind != USER_DEFINED, normalized=False)
                for token, kind in zip(tokens, types, strict=True)
                if kind in (UNKNOWN, CONTROL, USER_DEFINED)
            ]
        )
    bos, eos = special_ids.get("bos_token"), special_ids.get("eos_token")
    set_end_tokens(
        backend,
        [bos] if bos is not None and _value(metadata, "add_bos_token", bool, add_bos) else [],
        [eos] if eos is not None and _value(metadata, "add_eos_token", bool, False) else [],
    )
    return GGUFVocabulary(
        backend=backend,
        special_tokens={name: tokens[index] for name, index in special_ids.items() if name in _CONFIG_NAMES},
        eos_token_ids=tuple(dict.fromkeys(special_ids[name] for name in _ENDS if name in special_ids)),
        chat_templates=_chat_templates(metadata),
    )


def set_end_tokens(backend: tokenizers.Tokenizer, before: Sequence[int], after: Sequence[int] = ()) -> None:
    """Make `backend` add these tokens before and after a text that is encoded with special tokens."""
    # The template gets names of its own for them, because a token's string may hold the template's syntax.
    starts = {f"before{n}": index for n, index in enumerate(before)}
    ends = {f"after{n}": index for n, index in enumerate(after)}
    backend.post_processor = processors.TemplateProcessing(
        single=[*starts, "$A", *ends],
        special_tokens=[
            {"id": name, "ids": [index], "tokens": [backend.id_to_token(index) or name]}
            for name, index in (starts | ends).items()
        ],
    )


_SPECIAL_IDS = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
    "end of turn": "eot_token_id",
    "end of message": "eom_token_id",
}
_CONFIG_NAMES = ("bos_token", "eos_token", "unk_token", "pad_token")
_ENDS = ("eos_token", "end of turn", "end of message")


def _byte_level(
    metadata: Mapping[str, Any], tokens: list[str], types: list[int], pre_tokenizer: PreTokenizer
) -> tokenizers.Tokenizer:
    # Padding of the embedding matrix ("[PAD151935]") is unused: not in the vocabulary unless merges need it.
    unused = {token: index for index, token in enumerate(tokens) if types[index] == UNUSED}
    vocabulary: dict[str, int] = {}
    for index, token in enumerate(tokens):
        if types[index] != UNUSED:
            vocabulary.setdefault(token, index)
    merges = []
    for merge in _list(metadata, "merges", str):
        left, _, right = merge.partition(" ")
        for token in (left, right, left + right):
            if token not in vocabulary:
                if token not in unused:
                    raise TokenizerError(
                        f"the GGUF vocabulary merges {left!r} and {right!r}, but has no token {token!r}: "
                        "the file is damaged or was badly converted"
                    )
                vocabulary[token] = unused[token]
        merges.append((left, right))
    with library_errors("build this GGUF vocabulary"):
        return byte_level_backend(vocabulary, merges, pre_tokenizer)


def byte_level_backend(
    vocabulary: dict[str, int], merges: list[tuple[str, str]], pre_tokenizer: PreTokenizer
) -> tokenizers.Tokenizer:
    """A byte-level BPE, as GPT-2's: each character of the vocabulary's tokens stands for a byte."""
    backend = tokenizers.Tokenizer(models.BPE(vocabulary, merges, ignore_merges=pre_tokenizer.ignore_merges))
    if pre_tokenizer.nfc:
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            *(pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in pre_tokenizer.patterns),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    return backend


def _pre_tokenizer(metadata: Mapping[str, Any]) -> PreTokenizer:
    name = _value(metadata, "pre", str, "default")
    if name not in PRE_TOKENIZERS:
        raise TokenizerError(
            f"the GGUF vocabulary's pre-tokenizer is {name!r:.60}, but only these are known: {', '.join(PRE_TOKENIZERS)}; "
            "use a checkpoint with tokenizer.json in place of this file"
        )
    return PRE_TOKENIZERS[name]


def _sentencepiece(metadata: Mapping[str, Any], tokens: list[str], types: list[int]) -> tokenizers.Tokenizer:
    scores = _list(metadata, "scores", float, len(tokens))
    if not scores or any(score != score for score in scores):
        raise TokenizerError("a GGUF vocabulary of model 'llama' needs tokenizer.ggml.scores, a number for each token")
    unknown = _id(metadata, "unknown_token_id", len(tokens))
    if unknown is None and UNKNOWN in types:
        unknown = types.index(UNKNOWN)
    return sentencepiece_backend(
        SentencePieceModel(
            pieces=tokens,
            scores=scores,
            # llama.cpp finds user-defined symbols in a text as it finds control tokens.
            types=[CONTROL if kind == USER_DEFINED else kind for kind in types],
            unknown=unknown,
            kind=BPE,
            byte_fallback=BYTE in types,
            add_dummy_prefix=_value(metadata, "add_space_prefix", bool, True),
            remove_extra_whitespaces=False,
        )
    )


def _chat_templates(metadata: Mapping[str, Any]) -> dict[str, str]:
    """The chat templates by name: tokenizer.chat_template is "default", tokenizer.chat_template.NAME is NAME."""
    key = "tokenizer.chat_template"
    templates = {
        "default" if name == key else name.removeprefix(f"{key}."): template
        for name, template in metadata.items()
        if name == key or name.startswith(f"{key}.")
    }
    if any(not isinstance(template, str) for template in templates.values()):
        raise TokenizerError(f"the GGUF metadata's {key} must be a string")
    return templates


def _value(metadata: Mapping[str, Any], key: str, kind: type[T], default: T) -> T:
    value = metadata.get(f"tokenizer.ggml.{key}", default)
    if not isinstance(value, kind):
        raise TokenizerError(
            f"the GGUF metadata's tokenizer.ggml.{key} must be of type {kind.__name__}, found {type(value).__name__}"
        )
    return value


def _list(metadata: Mapping[str, Any], key: str, kind: type[T], length: int | None = None) -> list[T]:
    """The list under `key`, of `length` entries; an empty list if there is none."""
    values = _value(metadata, key, list, [])
    found = {type(value) for value in values} - {kind, int if kind is float else kind}
    if found:
        names = ", ".join(sorted(wrong.__name__ for wrong in found))
        raise TokenizerError(f"the GGUF metadata's tokenizer.ggml.{key} must hold {kind.__name__}, found {names}")
    if values and length is not None and len(values) != length:
        raise TokenizerError(
            f"the GGUF metadata's tokenizer.ggml.{key} has {len(values)} entries for {length} tokens: the file is damaged"
        )
    return values


def _id(metadata: Mapping[str, Any], key: str, size: int) -> int | None:
    index = _value(metadata, key, int, -1)
    if index in _NO_IDS:
        return None
    if not 0 <= index < size:
        raise TokenizerError(f"the GGUF metadata's tokenizer.ggml.{key} is {index}, but there are {size} tokens")
    return index
