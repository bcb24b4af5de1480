"""How much faster answers that repeat their prompt come with a draft: plain generation and prompt lookup in turn.

    uv run python scripts/bench/speculation.py [--model MODEL] [--draft-model MODEL] [--rounds 3] [--tokens 160]

Without --model: Qwen2.5-Coder-1.5B, as scripts/fetch_qwen25_coder.py gets it, asked to edit a function. Checks that all
answers are the same, and prints tokens per second of decoding, medians, and ratios within each round.
"""

from __future__ import annotations

import argparse
import os
import statistics
from pathlib import Path

from mlx_core import DraftModel, PromptLookup, generate, load, load_model
from mlx_core.generation import Draft

CODE = """def load_records(path):
    records = []
    with open(path) as handle:
        for number, line in enumerate(handle, 1):
            line = line.strip()
            if not line or line.startswith("#"):
                continue
            name, _, value = line.partition("=")
            if not value:
                raise ValueError(f"{path}:{number}: expected name=value, got {line!r}")
            records.append((name.strip(), value.strip()))
    return records
"""
REQUEST = (
    "Rename the variable `records` to `entries` in this function and change nothing else. Answer with the code alone."
)


def default_model() -> Path:
    """Where the script that fetches it puts it."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "mlx-core" / "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf"


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description="Speculation against plain generation.")
    parser.add_argument("--model", default=default_model())
    parser.add_argument("--draft-model", help="a smaller model of the same vocabulary, as a third contender")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=160)
    args = parser.parse_args()
    model, tokenizer, _ = load(args.model)
    prompt = tokenizer.encode_chat([{"role": "user", "content": f"{REQUEST}\n\n{CODE}"}])
    drafts: dict[str, Draft | None] = {"plain": None}
    drafts |= {f"lookup, {n} tokens": PromptLookup(num_tokens=n) for n in (4, 8, 16)}
    if args.draft_model:
        drafts["draft model"] = DraftModel(load_model(args.draft_model))
    speeds: dict[str, list[float]] = {name: [] for name in drafts}
    answers = set()
    for _ in range(args.rounds):
        for name, draft in drafts.items():
            result = generate(model, tokenizer, prompt, max_tokens=args.tokens, draft=draft)
            answers.add(result.text)
            speeds[name].append(result.stats.decode_tokens_per_s)
            print(f"{name:20} {speeds[name][-1]:8.1f} tok/s, accepted {result.stats.acceptance_rate:.0%}", flush=True)
    print(f"{len(answers)} different answers of {result.stats.generated_tokens} tokens")
    for name, found in speeds.items():
        ratio = statistics.median(a / b for a, b in zip(found, speeds["plain"], strict=True))
        print(f"{name:20} {statistics.median(found):8.1f} tok/s  {ratio:.2f}x plain")


if __name__ == "__main__":
    main()
