"""The `gemma3-mlx` command."""

from __future__ import annotations

from collections.abc import Sequence

from mlx_core import cli


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; see `mlx_core.cli`."""
    return cli.main(cli.Family("gemma3-mlx", "Run Gemma 3 models on MLX.", None), arguments)
