"""Every recording of transformers and mlx-lm: see goldens/README.md."""

from pathlib import Path

import pytest

from mlx_core.testing import Goldens


@pytest.mark.parametrize("check", Goldens(Path(__file__).parent / "goldens").checks(), ids=str)
def test_parity(check, tmp_path):
    check(tmp_path)
