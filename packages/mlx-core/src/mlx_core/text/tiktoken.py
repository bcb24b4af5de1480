"""Rank files of tiktoken: `*.tiktoken`, and the `tokenizer.model` of GLM-4, as tokenizers of the tokenizers library.

A line holds a token's bytes in base64 and its rank, which is also its id. tiktoken merges the pair with the lowest
rank, leftmost first, and doesn't split a word that is a token. The file has neither the pre-tokenizer's expression nor
the special tokens: `RankFamily` has them, by the family of the checkpoint.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import tokenizers

from ..errors import TokenizerError
from .detokenizer import BYTES, library_errors
from .sentencepiece import merges_by_score
from .vocabulary import PRE_TOKENIZERS, PreTokenizer, byte_level_backend

_LINE = re.compile(rb"[A-Za-z0-9+/]+={0,2} [0-9]{1,7}\r?\n?")
_CHARACTERS = {byte: character for character, byte in BYTES.items()}


class RankFamily(NamedTuple):
    """The pre-tokenizer and the special tokens of a family."""

    pre_tokenizer: PreTokenizer
    special_tokens: tuple[str, ...]  # by id, the first one following the last rank
    prefix_tokens: tuple[str, ...]  # that begin every text
    eos_token: str

    def config(self, n_ranks: int) -> dict[str, Any]:
        """The entries of a tokenizer_config.json for it."""
        added = {
            str(index): {"content": token, "special": True, "normalized": False}
            for index, token in enumerate(self.special_tokens, n_ranks)
        }
        return {"added_tokens_decoder": added, "eos_token": self.eos_token, "pad_token": self.eos_token}


# The lists of tokenization_chatglm.py of THUDM/glm-4-9b-chat, and of tokenization_qwen.py of Qwen/Qwen-7B.
_GLM4 = RankFamily(
    pre_tokenizer=PRE_TOKENIZERS["glm4"],
    special_tokens=(
        *("<|endoftext|>", "[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>"),
        *("<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"),
        *("<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>", "<|end_of_video|>"),
    ),
    prefix_tokens=("[gMASK]", "<sop>"),
    eos_token="<|endoftext|>",
)
_QWEN = RankFamily(
    pre_tokenizer=PRE_TOKENIZERS["qwen2"]._replace(ignore_merges=True),
    special_tokens=("<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|extra_{n}|>" for n in range(205))),
    prefix_tokens=(),
    eos_token="<|endoftext|>",
)
# By tokenizer_class, by model_type and by the file's name.
_FAMILIES = {
    **dict.fromkeys(("ChatGLM4Tokenizer", "chatglm", "glm", "glm4", "glm4_moe"), _GLM4),
    **dict.fromkeys(("QWenTokenizer", "qwen"), _QWEN),
}


def is_rank_file(data: bytes) -> bool:
    """Whether the file's first line is one of a rank file. No SentencePiece model begins like that."""
    return _LINE.match(data) is not None


def rank_family(names: Iterable[Any]) -> RankFamily:
    """The family of the first of `names` that is known. Raises TokenizerError if none is."""
    names = [name for name in names if isinstance(name, str)]
    for name in names:
        if name in _FAMILIES:
            return _FAMILIES[name]
    raise TokenizerError(
        f"a rank file doesn't say how text is cut into words, and none of {', '.join(map(repr, names))} is known to: only "
        f"{', '.join(_FAMILIES)} are. Use a checkpoint with tokenizer.json in place of this file"
    )


def read_ranks(data: bytes) -> dict[bytes, int]:
    """The tokens of a rank file and their ranks: 0 and up, each once. Raises TokenizerError for a damaged file."""
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(data.splitlines(), 1):
        if not line:
            continue
        try:
            if not _LINE.fullmatch(line):
                raise ValueError("expected base64, a space and a number")
            text, _, rank = line.partition(b" ")
            token = base64.b64decode(text, validate=True)
        except ValueError as error:
            raise _damaged(f"line {number} is {line!r:.60} ({error})") from error
        if ranks.setdefault(token, int(rank)) != int(rank):
            raise _damaged(f"line {number} has the token {token!r:.60} for a second time")
    if sorted(ranks.values()) != list(range(len(ranks))):
        raise _damaged(f"its {len(ranks):,} tokens have to have the ranks 0 to {len(ranks) - 1:,}, each once")
    missing = [byte for byte in range(256) if bytes([byte]) not in ranks]
    if missing:
        raise _damaged(f"{len(missing)} of the 256 bytes are no tokens, the first of them {missing[0]}")
    return ranks


def rank_backend(ranks: dict[bytes, int], pre_tokenizer: PreTokenizer) -> tokenizers.Tokenizer:
    """A byte-level BPE that gives the ids that tiktoken gives, without special tokens. Raises TokenizerError."""
    vocabulary = {"".join(map(_CHARACTERS.__getitem__, token)): rank for token, rank in ranks.items()}
    merges = merges_by_score({token: -rank for token, rank in vocabulary.items()})
    with library_errors("build this vocabulary of ranks"):
        return byte_level_backend(vocabulary, merges, pre_tokenizer)


def _damaged(what: str) -> TokenizerError:
    return TokenizerError(f"this is no valid rank file: {what}; get the file again")
