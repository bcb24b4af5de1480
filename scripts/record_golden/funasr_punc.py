"""Record what FunASR's CT-Transformers make of text at random weights, and how they split and write it.

Run in an environment with funasr 1.4.16 and torch, and without torchaudio:

    python scripts/record_golden/funasr_punc.py --out packages/funasr-mlx/tests/goldens/punctuation

`cases.json`: for each case the configuration, tokens, what is added to the decoder's bias, the words of jieba's
dictionary, and texts with what comes out; `logits.safetensors`: the logits of the first words of the tokens. Weights
are NumPy's random numbers, tensor after tensor by name, over the square root of what they are summed over.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from funasr import AutoModel
from funasr.models.ct_transformer.utils import split_words
from safetensors.numpy import save_file

SEED, IDS = 8, 13
MARKS = ["<unk>", "_", "，", "。", "？", "、"]
CHARACTERS = "今天气怎么样语音识别模型好你我他的是不了人在有这中大来上个国"
ENGLISH = ["hello", "world", "the", "fox", "it's", "a"]
TOKENS = ["<blank>", "<s>", *CHARACTERS, "天气", "今天", "语音", *ENGLISH, "<unk>"]

# The biases make every mark about as likely as no mark.
CASES: dict[str, dict[str, Any]] = {
    "plain": {"bias": [-9, -0.6, 0.8, -0.9, 0.95, -0.2], "split_size": 20},
    "shifted": {
        "bias": [-9, -1.6, 0.1, -2.9, 1.9, -1.3],
        "split_size": 5,
        "encoder": {"kernel_size": 4, "sanm_shfit": 1},
    },
    "endless": {"bias": [-9, -0.6, 0.8, -30, -30, -0.2], "split_size": 20},
    "jieba": {
        "bias": [-9, -0.6, 0.8, -0.9, 0.95, -0.2],
        "split_size": 7,
        "words": ["天气 10 n", "今天", "语音 20", "识别模型"],
    },
    "streaming": {"bias": [-9, -0.8, 0.6, -1, 0.6, -0.2], "split_size": 6, "streaming": True},
}


def texts() -> list[str]:
    rng = np.random.default_rng(SEED)

    def chinese(count: int) -> str:
        return "".join(rng.choice(list(CHARACTERS), count))

    def english(count: int) -> str:
        return " ".join(rng.choice(ENGLISH, count))

    return [
        "今天天气怎么样",
        "hello world it's",
        "今天hello 天气abc 12 world the",
        f"{chinese(7)} {english(4)} {chinese(9)}",
        chinese(20),
        chinese(21),
        english(23),
        f"{chinese(120)} {english(30)} {chinese(130)}",
        "a b",
        "好的",
        "语音识别模型 fox，好. 你？",
        "ＡＢ é\u3000你",
    ]


def configuration(case: dict[str, Any]) -> dict[str, Any]:
    encoder = {
        "input_size": 12,
        "output_size": 16,
        "attention_heads": 2,
        "linear_units": 20,
        "num_blocks": 3,
        "input_layer": "pe",
        "kernel_size": 5,
        "sanm_shfit": 0,
    }
    streaming = case.get("streaming", False)
    return {
        "model": "CTTransformerStreaming" if streaming else "CTTransformer",
        "model_conf": {"embed_unit": 12, "att_unit": 16, "punc_list": MARKS, "sentence_end_id": 3, "ignore_id": 0},
        "encoder": "SANMVadEncoder" if streaming else "SANMEncoder",
        "encoder_conf": encoder | case.get("encoder", {}),
        "tokenizer": "CharTokenizer",
        "tokenizer_conf": {"unk_symbol": "<unk>"},
    }


def fill(model: Any, bias: list[float]) -> None:
    rng, state = np.random.default_rng(SEED), model.state_dict()
    for name in sorted(state):
        shape = tuple(state[name].shape)
        values = rng.standard_normal(shape, np.float32) / np.sqrt(np.float32(np.prod(shape[1:])))
        state[name] = torch.from_numpy(values + (np.array(bias, np.float32) if name == "decoder.bias" else 0))
    model.load_state_dict(state)


def record(case: dict[str, Any], folder: Path) -> tuple[dict[str, Any], npt.NDArray[np.float32]]:
    config = configuration(case)
    (folder / "config.yaml").write_text(json.dumps(config))  # which is YAML too
    (folder / "tokens.json").write_text(json.dumps(TOKENS))
    if "words" in case:
        (folder / "jieba_usr_dict").write_text("\n".join(case["words"]), encoding="utf-8")
    torch.save({}, folder / "model.pt")
    auto = AutoModel(model=str(folder), device="cpu", disable_update=True, disable_pbar=True, ncpu=1)
    model = auto.model.eval()
    fill(model, case["bias"])
    ids = torch.arange(IDS)[None]
    results: list[dict[str, Any]] = []
    with torch.no_grad():
        if case.get("streaming"):
            logits = model.punc_forward(ids, torch.tensor([IDS]), vad_indexes=torch.tensor([4]))[0]
            pieces = [text for text in texts() if text != "a b"]
            cache: dict[str, Any] = {}
            for text in pieces:
                out = auto.generate(input=text, cache=cache, split_size=case["split_size"])[0]["text"]
                results.append({"text": text, "out": out})
        else:
            logits = model.punc_forward(ids, torch.tensor([IDS]))[0]
            for text in texts():
                row = auto.generate(input=text, split_size=case["split_size"])[0]
                words = split_words(text, jieba_usr_dict=model.jieba_usr_dict)
                marks = [int(mark) for mark in row["punc_array"]]
                results.append({"text": text, "out": row["text"], "words": words, "marks": marks})
    return case | {"config": config, "tokens": TOKENS, "results": results}, logits[0].numpy().copy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    rows, logits = {}, {}
    for name, case in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            rows[name], logits[name] = record(case, Path(folder))
    (out / "cases.json").write_text(json.dumps(rows, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    save_file(logits, out / "logits.safetensors")


if __name__ == "__main__":
    main()
