"""Record what FunASR makes of tokens, weights and tags: words, times, sentences.

Run in an environment with torch 2.13.0 and funasr 1.4.16:

    python scripts/record_golden/funasr_words.py --out packages/funasr-mlx/tests/goldens/words.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import funasr
import numpy as np
import torch
from funasr.utils.postprocess_utils import rich_transcription_postprocess, sentence_postprocess
from funasr.utils.timestamp_tools import timestamp_sentence, ts_prediction_lfr6_standard

SEED = 62
TOKENS = [
    *"今天气怎么样欢迎大家",
    "hello",
    "wor@@",
    "ld",
    "the",
    "ing",
    "ab@@",
    "a",
    "b",
    "c",
    "'s",
    "7",
    "w35",
    "x@@",
    "<unk>",
]
TAGS = [
    "zh",
    "en",
    "nospeech",
    "HAPPY",
    "SAD",
    "NEUTRAL",
    "EMO_UNKNOWN",
    "Speech",
    "BGM",
    "Laughter",
    "withitn",
    "Event_UNK",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    rng = np.random.default_rng(SEED)
    record: dict[str, Any] = {
        "funasr": funasr.__version__,
        "seed": SEED,
        "times": [],
        "words": [],
        "rich": [],
        "sentences": [],
    }
    for _ in range(60):
        length, count = int(rng.integers(4, 90)), int(rng.integers(1, 12))
        alphas = rng.random(length).astype(np.float32) * np.float32(rng.choice([0.3, 0.6, 1.4]))
        peaks = np.where(rng.random(length) < rng.choice([0.05, count / length]), 1.0, alphas * 0.9).astype(np.float32)
        rate = int(rng.choice([1, 3]))
        try:
            _, times = ts_prediction_lfr6_standard(
                torch.tensor(alphas), torch.tensor(peaks), ["字"] * count, upsample_rate=rate
            )
        except IndexError:
            continue  # it crashes where nothing fires, or too much
        record["times"].append(
            {"alphas": alphas.tolist(), "peaks": peaks.tolist(), "count": count, "step_ms": 60 / rate, "times": times}
        )
    for _ in range(150):
        tokens = [str(token) for token in rng.choice(TOKENS, int(rng.integers(0, 14)))]
        times = [[100 * at, 100 * at + 80] for at in range(len(tokens))]
        text, words = sentence_postprocess(list(tokens))
        try:
            _, of_words, _ = sentence_postprocess(list(tokens), times)
        except IndexError:
            of_words = None
        record["words"].append({"tokens": tokens, "text": text, "words": words, "times": of_words})
    for _ in range(60):
        parts = [f"<|{rng.choice(TAGS)}|>" if rng.random() < 0.5 else str(rng.choice(TOKENS)) for _ in range(9)]
        text = "".join(parts)
        record["rich"].append([text, rich_transcription_postprocess(text)])
    for _ in range(20):
        words = [str(word) for word in rng.choice(TOKENS[:14], int(rng.integers(1, 9))) if "@" not in word] or ["今"]
        times = [[100 * at, 100 * at + 80] for at in range(len(words))]
        marks = [int(mark) for mark in rng.integers(1, 6, len(words) - 1)] + [3]
        record["sentences"].append(
            {"words": words, "marks": marks, "sentences": timestamp_sentence(marks, times, " ".join(words))}
        )
    out.write_text(json.dumps(record, ensure_ascii=False, default=float) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
