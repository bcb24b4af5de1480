"""Recordings that are whole, partial or absent."""

import json

import mlx.core as mx
import numpy as np
import pytest
from safetensors.numpy import save_file

from mlx_core.testing import Goldens, tiny_model
from mlx_core.testing import goldens as module

ROW = {"model_type": "llama", "note": "", "by_length": False}


@pytest.fixture
def partial(tmp_path):
    """One case, recorded with transformers 4.57.6 alone."""
    case = tmp_path / "transformers" / "one"
    case.mkdir(parents=True)
    (case.parent / "cases.json").write_text(json.dumps({"one": {**ROW, "v4": {}}}))
    for layout in ("hub", "v4"):
        (case / f"config.{layout}.json").write_text("{}")
    tokens = np.array([[1, 2, 3, 1, 2, 3, 4, 5, 6, 7]], np.int32)
    save_file({"tokens": tokens, "logits": np.array(tiny_model()(mx.array(tokens)))}, case / "io.v4.safetensors")
    return tmp_path


def test_nothing_recorded_says_what_to_run(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing is recorded yet.*transformers_models\.py"):
        Goldens(tmp_path)


def test_one_version_gives_the_checks_that_it_allows(partial):
    goldens = Goldens(partial)
    names = [str(check) for check in goldens.checks()]
    assert {"full-pass-one-hub", "full-pass-one-v4", "greedy-one", "through-cache-one-model"} <= set(names)
    assert not any("v5" in name or "mlx-lm" in name or "released" in name or "fused" in name for name in names)
    assert goldens.io("one")["tokens"].shape == (1, 10)


def test_what_is_missing_is_named(partial):
    missing = Goldens(partial).missing()
    assert [entry for entry in missing if "5.23.0 of one" in entry]
    assert not [entry for entry in missing if "4.57.6" in entry]
    assert [entry for entry in missing if "mlx_lm_checkpoints.py" in entry]
    assert [entry for entry in missing if "released_sizes.py" in entry]
    (partial / "transformers" / "one" / "io.v4.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="record one again"):
        Goldens(partial).io("one")


def test_a_check_fails_where_logits_differ(partial, tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    model, goldens = tiny_model(), Goldens(partial)
    monkeypatch.setattr(module, "load_model", lambda *_, **__: model)
    (check,) = (check for check in goldens.checks() if str(check) == "full-pass-one-v4")
    check(tmp_path / "work")
    model.model.norm.weight = model.model.norm.weight * 1.01
    with pytest.raises(AssertionError, match="logits differ"):
        check(tmp_path / "work")
