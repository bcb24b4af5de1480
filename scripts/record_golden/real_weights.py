"""Records transformers' results on the real GGUF files: tokens of prompts, logits, greedy continuations.

Run in an environment of its own (torch 2.13.0, transformers 4.57.6, gguf), once per file:

    python scripts/record_golden/real_weights.py FILE.gguf --out packages/qwen3-mlx/tests/goldens/real_weights/NAME.json

transformers dequantises the file with the gguf package and un-permutes q and k itself, so nothing of ours is involved.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

CHATS = [
    [{"role": "user", "content": "Explain what a KV cache is."}],
    [{"role": "user", "content": "Write a function that returns the n-th Fibonacci number"}],
    [
        {"role": "system", "content": "You answer in one word."},
        {"role": "user", "content": "What is the capital of France?"},
        {"role": "assistant", "content": "Paris."},
        {"role": "user", "content": "Und von Österreich? 🇦🇹"},
    ],
]
TEXT = (
    "The key-value cache of a transformer holds, for every layer, the keys and values of the tokens that it has already seen. "
    "Each new token then needs one row of queries only: its own. Without the cache, the work for a text of n tokens would grow "
    "with the cube of n; with it, with the square. Das kostet Speicher: für jedes Token zwei Vektoren je Schicht und Kopf."
)
NEW_TOKENS = 48


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()

    folder, name = str(args.file.parent), args.file.name
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32).eval()
    record: dict[str, object] = {
        "transformers": transformers.__version__,
        "torch": torch.__version__,
        "file": name,
        "chats": [],
    }
    with torch.no_grad():
        ids = tokenizer(TEXT, return_tensors="pt", add_special_tokens=False).input_ids
        logits = model(ids).logits[0]
        nll = torch.nn.functional.cross_entropy(logits[:-1], ids[0, 1:]).item()
        best = logits[-1].topk(20)
        record["text"] = {
            "text": TEXT,
            "tokens": ids[0].tolist(),
            "nll": nll,
            "last_top_tokens": best.indices.tolist(),
            "last_top_logits": best.values.tolist(),
        }
        chats = []
        for chat in CHATS:
            rendered = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
            prompt = tokenizer(rendered, return_tensors="pt", add_special_tokens=False).input_ids
            out = model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=NEW_TOKENS,
                do_sample=False,
                pad_token_id=0,
                repetition_penalty=1.0,
                output_logits=True,
                return_dict_in_generate=True,
            )
            steps = torch.cat(out.logits)  # [n, V]
            pairs = steps.topk(2).values
            chats.append(
                {
                    "messages": chat,
                    "rendered": rendered,
                    "prompt": prompt[0].tolist(),
                    "greedy": out.sequences[0, prompt.shape[1] :].tolist(),
                    "smallest_lead": (pairs[:, 0] - pairs[:, 1]).min().item(),
                }
            )
        record["chats"] = chats
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(record, ensure_ascii=False, indent=1) + "\n")
    print(args.out, nll, [chat["smallest_lead"] for chat in chats])


if __name__ == "__main__":
    main()
