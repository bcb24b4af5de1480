"""Answer one prompt with a Qwen2, Qwen3, Qwen3-MoE or Llama model, through the Python API.

uv run scripts/qwen3_generate.py "Name three fruits." [--model PATH_OR_ID]
"""

from __future__ import annotations

import argparse
import sys

from mlx_core.errors import MLXCoreError
from qwen3_mlx import demo_model, load, stream_generate


def main() -> int:
    parser = argparse.ArgumentParser(description="Answer one prompt.")
    parser.add_argument("prompt")
    parser.add_argument("--model", help="folder, .gguf file or hub id (default: the demonstration model)")
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--temp", type=float, default=0.0)
    args = parser.parse_args()
    try:
        model, tokenizer, _ = load(args.model or demo_model())
        prompt = tokenizer.encode_chat([{"role": "user", "content": args.prompt}])
        with stream_generate(model, tokenizer, prompt, max_tokens=args.max_tokens, temperature=args.temp) as chunks:
            for chunk in chunks:
                print(chunk.text, end="", flush=True)
        print()
    except MLXCoreError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
