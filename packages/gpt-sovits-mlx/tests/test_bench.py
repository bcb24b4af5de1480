"""The bench's arithmetic and the command around it, with stages that take no time."""

import json
import subprocess
import sys

import mlx.core as mx
import pytest

from gpt_sovits_mlx import CNHubert, bench
from gpt_sovits_mlx.cli import main
from gpt_sovits_mlx.networks import CNHubertConfig, released_sizes
from mlx_core.errors import InputError


@pytest.fixture
def instant(monkeypatch):
    """Stages that count how often they run."""
    ran = []

    def stage(name, version, steps):
        return 2.0, lambda: ran.append(name)

    monkeypatch.setattr(bench, "_stage", stage)
    return ran


def test_the_first_round_does_not_count(instant, monkeypatch):
    clock = iter([0, 50, 100, 103, 200, 201])
    monkeypatch.setattr("mlx_core.bench.time.perf_counter", lambda: next(clock))
    (timing,) = bench.bench(["hubert"], rounds=2)
    assert instant == ["hubert"] * 3
    assert (timing.seconds, timing.fastest_s, timing.rtf) == (2, 1, 1)


def test_the_command(instant, capsys):
    assert main(["bench", "--stage", "t2s", "--rounds", "1", "--json"]) == 0
    (timing,) = json.loads(capsys.readouterr().out)
    assert timing["stage"] == "t2s"
    assert timing["rtf"] == timing["seconds"] / 2
    assert main(["bench", "--stage", "voice", "--rounds", "1"]) == 0
    assert "voice" in capsys.readouterr().out
    assert main(["bench", "--stage", "none"]) == 1
    assert "none" in capsys.readouterr().err


def test_unknown_versions():
    with pytest.raises(InputError, match="v2ProPlus"):
        released_sizes.released_sovits("v5")


def test_random_weights_are_of_their_seed_and_leave_the_global_state():
    config = CNHubertConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=32, conv_dim=[16] * 7
    )
    first, again, other = (released_sizes.randomised(CNHubert(config), seed).state_dict() for seed in (1, 1, 2))
    assert all(mx.array_equal(first[name], again[name]) for name in first)
    assert not any(mx.array_equal(first[name], other[name]) for name in first)


def test_importing_loads_nothing_heavy():
    heavy = ("torch", "transformers", "librosa", "numba", "huggingface_hub", "jinja2", "scipy")
    code = f"import sys, gpt_sovits_mlx; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
