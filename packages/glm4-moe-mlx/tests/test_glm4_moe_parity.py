"""Logits and greedy continuations against transformers, checkpoints that mlx-lm wrote, the sizes of released models.
See goldens/README.md.
"""

from pathlib import Path

import pytest

from mlx_core.testing import CACHES, LAYOUTS, Goldens

GOLDENS = Goldens(Path(__file__).parent / "goldens")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("case", GOLDENS.cases)
def test_a_full_pass(case, layout, tmp_path):
    GOLDENS.check_full_pass(case, layout, tmp_path)


@pytest.mark.parametrize("kind", CACHES)
@pytest.mark.parametrize("case", GOLDENS.position_cases)
def test_token_by_token_and_in_chunks(case, kind, tmp_path):
    GOLDENS.check_through_cache(case, kind, tmp_path)


@pytest.mark.parametrize("case", GOLDENS.cases)
def test_greedy_continuations(case, tmp_path):
    GOLDENS.check_greedy(case, tmp_path)


def test_experts_fused_by_transformers_5(tmp_path):
    GOLDENS.check_fused_experts("glm4_moe_groups", tmp_path)


@pytest.mark.parametrize("keep_packed", [True, False])
@pytest.mark.parametrize("case", GOLDENS.mlx_lm)
def test_checkpoints_that_mlx_lm_wrote(case, keep_packed, tmp_path):
    GOLDENS.check_mlx_lm(case, keep_packed, tmp_path)


@pytest.mark.parametrize("case", GOLDENS.mlx_lm)
def test_saving_gives_the_checkpoint_back(case, tmp_path):
    GOLDENS.check_saving(case, tmp_path)


@pytest.mark.parametrize("version", ["4.57.6", "5.23.0"])
@pytest.mark.parametrize("name", GOLDENS.released)
def test_released_sizes(name, version):
    GOLDENS.check_released(name, version)
