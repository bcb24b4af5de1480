"""The next tokens that a Qwen2, Qwen3, Qwen3-MoE or Llama model expects after a text, with their probabilities.

uv run scripts/qwen3_logits.py "The capital of France is" [--model PATH_OR_ID]
"""

from __future__ import annotations

import argparse
import math
import sys

from mlx_core.errors import MLXCoreError
from qwen3_mlx import demo_model, generate, load


def main() -> int:
    parser = argparse.ArgumentParser(description="Show the most likely next tokens.")
    parser.add_argument("text")
    parser.add_argument("--model", help="folder, .gguf file or hub id (default: the demonstration model)")
    parser.add_argument("--top", type=int, default=10)
    args = parser.parse_args()
    try:
        model, tokenizer, _ = load(args.model or demo_model())
        result = generate(model, tokenizer, args.text, max_tokens=1, logprobs=args.top)
    except MLXCoreError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for entry in result.logprobs or []:
        for token, logprob in entry.top:
            print(f"{math.exp(logprob):8.4f}  {tokenizer.decode([token])!r}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
