"""Prefill and decode against mlx-lm on the same weights, alternating in one run: the figures in docs/performance.md.

uv run --with mlx-lm==0.32.2 scripts/bench/compare_mlx_lm.py [--model PATH_OR_ID] [--prompt-tokens 64]
[--generate-tokens 48]

Arguments are those of `qwen3-mlx bench`.
"""

from __future__ import annotations

import sys

from qwen3_mlx.cli import main

if __name__ == "__main__":
    sys.exit(main(["bench", "--compare", "mlx-lm", *sys.argv[1:]]))
