"""The limit on how much longer a tokenizer's normaliser and decoder may make a text.

A tokenizer.json may replace a letter by a thousand, several times over: without a limit, a file of a few kB turns one
letter into more than the memory holds, and the tokenizers library ends the process.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from typing import Any

import tokenizers

from ..errors import TokenizerError

MAX_EXPANSION = 4096  # times; the normalisers that `sentencepiece` builds come to some 800
_PREFIX_BYTES = 64  # a prefix is put before a text once: counted as if the text had this many bytes


def check_expansion(backend: tokenizers.Tokenizer) -> None:
    """Raise TokenizerError if a text may become more than `MAX_EXPANSION` times as long, in bytes."""
    for name, part in (("normaliser", backend.normalizer), ("decoder", backend.decoder)):
        expansion = 1.0 if part is None else _expansion(json.loads(part.__getstate__()))
        if expansion > MAX_EXPANSION:
            raise TokenizerError(
                f"the tokenizer's {name} may make a text {expansion:.3g} times as long, more than {MAX_EXPANSION} times: its "
                "file is damaged, or made to use up the memory; get it from elsewhere"
            )


def _expansion(stage: Mapping[str, Any]) -> float:
    """The most bytes that a stage may make of one byte. Types that aren't named here add next to nothing."""
    match stage["type"]:
        case "Sequence":
            return math.prod(map(_expansion, stage.get("normalizers") or stage.get("decoders") or ()))
        case "Replace":
            content, found = _bytes(stage["content"]), _bytes(stage["pattern"].get("String", ""))
            return max(1.0, content / found) if found else 1.0 + content  # an expression may match between letters
        case "Prepend":
            return max(1.0, _bytes(stage["prepend"]) / _PREFIX_BYTES)
        case "Precompiled":
            return float(_longest_replacement(base64.b64decode(stage["precompiled_charsmap"])))
        case _:
            return 1.0


def _longest_replacement(characters: bytes) -> int:
    """Bytes of the longest text in a precompiled map: a trie, after its size in four bytes, then texts that end with 0."""
    return max(map(len, characters[4 + int.from_bytes(characters[:4], "little") :].split(b"\0")), default=1)


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
