"""Spelling to sound for English words that no dictionary has: the GRU encoder-decoder of g2p_en 2.1, in NumPy.

One layer each way, 256 wide, greedy decoding of at most 20 phones (https://github.com/Kyubyong/g2p). The weights are
stored in 18 bits, scaled row by row: 16 bits change a word in ten thousand.
"""

from __future__ import annotations

import io
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

from ..resources import data, word_list
from .lexicon import integers

_GRAPHEMES = ("<pad>", "<unk>", "</s>", *"abcdefghijklmnopqrstuvwxyz")
_VOWELS = ("AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW")
_CONSONANTS = word_list("B CH D DH F G HH JH K L M N NG P R S SH T TH V W Y Z ZH")
_PHONES = (
    "<pad>",
    "<unk>",
    "<s>",
    "</s>",
    # In the alphabet's order, and with a UW without stress.
    *sorted([*_CONSONANTS, *(f"{vowel}{stress}" for vowel in _VOWELS for stress in "012"), "UW"]),
)
_START, _END = 2, 3
_MAX_PHONES = 20
Array = NDArray[np.float32]


@cache
def _weights() -> dict[str, Array]:
    with np.load(io.BytesIO(data("english_g2p.npz"))) as stored:
        found = {
            name: (integers(stored[name]) * stored[f"{name}_scale"]).astype(np.float32)
            for name in stored.files
            if not name.endswith("_scale")
        }
    for side in ("enc", "dec"):  # what a symbol adds to the gates is the same at every step
        found[f"{side}_in"] = found[f"{side}_emb"] @ found[f"{side}_w_ih"].T + found[f"{side}_b_ih"]
    return found


def _step(inputs: Array, hidden: Array, weights: Array, bias: Array) -> Array:
    """A GRU's step: `inputs` [3 * H] (what the symbol adds), `hidden` [H] -> [H]; gates in the order r, z, n."""
    recurrent = weights @ hidden + bias
    size = len(hidden)
    r, z = np.split(1 / (1 + np.exp(-(inputs[: 2 * size] + recurrent[: 2 * size]))), 2)
    n = np.tanh(inputs[2 * size :] + r * recurrent[2 * size :])
    return ((1 - z) * n + z * hidden).astype(np.float32)


@lru_cache(maxsize=4096)
def predict(word: str) -> tuple[str, ...]:
    """A word in lower-case letters -> at most 20 phones, or "<unk>" where the network says so.

    Signs other than a to z count as unknown letters.
    """
    w = _weights()
    hidden = np.zeros(w["enc_w_hh"].shape[1], np.float32)
    for letter in (*word, "</s>"):
        symbol = _GRAPHEMES.index(letter) if letter in _GRAPHEMES else 1
        hidden = _step(w["enc_in"][symbol], hidden, w["enc_w_hh"], w["enc_b_hh"])
    phones: list[str] = []
    symbol = _START
    while len(phones) < _MAX_PHONES:
        hidden = _step(w["dec_in"][symbol], hidden, w["dec_w_hh"], w["dec_b_hh"])
        symbol = int((w["fc_w"] @ hidden + w["fc_b"]).argmax())
        if symbol == _END:
            break
        phones.append(_PHONES[symbol])
    return tuple(phones)
