"""How much longer a tokenizer's normaliser and decoder may make a text.

A tokenizer.json may replace a letter by a thousand, and do so several times over: without a bound, a file of a few kB
turns the letter into more than a machine can hold, and the tokenizers library ends the process.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from typing import Any

import tokenizers

from ..errors import TokenizerError

MAX_GROWTH = 4096  # times; SentencePiece's own normalisers, as they are put together here, come to some 800
_PREFIX_BYTES = 64  # of what is put before a text once, which makes no long text much longer


def check_growth(backend: tokenizers.Tokenizer) -> None:
    """Raise TokenizerError unless texts grow by no more than `MAX_GROWTH` times, in bytes, at worst."""
    for name, part in (("normaliser", backend.normalizer), ("decoder", backend.decoder)):
        growth = 1.0 if part is None else _growth(json.loads(part.__getstate__()))
        if growth > MAX_GROWTH:
            raise TokenizerError(
                f"the tokenizer's {name} may make a text {growth:.3g} times as long, more than {MAX_GROWTH} times: its "
                "file is damaged, or made to use up the memory; get it from elsewhere"
            )


def _growth(stage: Mapping[str, Any]) -> float:
    """The most bytes that one byte may become; of stages that aren't named here, those that add next to nothing."""
    match stage["type"]:
        case "Sequence":
            return math.prod(map(_growth, stage.get("normalizers") or stage.get("decoders") or ()))
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
    """In bytes: SentencePiece's map is a trie, after its size in four bytes, and then texts that end with a zero."""
    return max(map(len, characters[4 + int.from_bytes(characters[:4], "little") :].split(b"\0")), default=1)


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
