"""`scripts/new_package.py`, run in a copy of the workspace."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SPEC = importlib.util.spec_from_file_location("new_package", ROOT / "scripts" / "new_package.py")
assert SPEC is not None
assert SPEC.loader is not None
new_package = importlib.util.module_from_spec(SPEC)
sys.modules["new_package"] = new_package  # its dataclass looks itself up
SPEC.loader.exec_module(new_package)

SKIPPED = shutil.ignore_patterns(".*", "__pycache__", "*.safetensors", "data", "goldens", "site", "dist", "build")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """The parts of the workspace that rules are about."""
    copy = tmp_path_factory.mktemp("workspace")
    for name in ("packages", "docs", "scripts", "tests", ".github"):
        shutil.copytree(ROOT / name, copy / name, ignore=SKIPPED if name != ".github" else None)
    for file in [*ROOT.glob("*.*"), *ROOT.glob("LICENSE-*"), *ROOT.glob(".ci/*")]:
        if file.is_file():
            (copy / file.relative_to(ROOT)).parent.mkdir(exist_ok=True)
            shutil.copy(file, copy / file.relative_to(ROOT))
    for member in (copy / "packages").iterdir():  # what a rule asks of the recordings stays where they are
        recorded = ROOT / "packages" / member.name / "tests" / "goldens"
        if recorded.exists():
            (member / "tests" / "goldens").symlink_to(recorded)
    return copy


def state(root):
    """Every file's content, by path."""
    return {
        path.relative_to(root): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and "goldens" not in path.parts and "__pycache__" not in path.parts
    }


def run(*arguments, root):
    return new_package.main([*arguments, "--root", str(root)])


def python(*arguments, root, path=""):
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def written(workspace):
    holds = "A family of four words, small"
    types = ["--model-type", "new_words", "--model-type", "new_words_moe"]
    assert run("new-words", *types, "--title", "New Words", "--holds", holds, root=workspace) == 0
    return workspace


def test_a_new_package_keeps_the_rules_and_lacks_only_recordings(written):
    result = python("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_workspace.py", root=written)
    failed = [line for line in result.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    assert len(failed) == 1, result.stdout[-3000:]
    assert "test_every_family_is_recorded_by_each_reference[new-words-mlx]" in failed[0]
    assert "nothing is recorded yet" in result.stdout
    assert (
        "| [new-words-mlx](packages/new-words-mlx) | `new_words_mlx` | A family of four words, small |"
        in (written / "README.md").read_text()
    )


def test_a_new_package_is_a_model_that_works(written):
    folder = written / "packages" / "new-words-mlx"
    tests = "packages/new-words-mlx/tests/test_new_words.py"
    result = python("-m", "pytest", "-q", "-p", "no:cacheprovider", tests, root=written, path=str(folder / "src"))
    assert result.returncode == 0, result.stdout[-3000:]


def test_what_is_written_is_formatted_and_clean(written):
    files = [str(path) for path in written.rglob("*.py") if "new_words" in str(path.relative_to(written))]
    assert len(files) == 6
    for command in (["format", "--check"], ["check"]):
        result = python("-m", "ruff", *command, *files, root=written)
        assert result.returncode == 0, result.stdout


def test_the_recorders_find_the_new_family(written):
    script = "import families; f = families.find('new-words-mlx'); print(*f.MODEL_TYPES, *f.CASES)"
    result = python("-c", script, root=written, path=str(written / "scripts" / "record_golden"))
    assert result.stdout.split() == ["new_words", "new_words_moe", "new_words_untied", "new_words_tied"], result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["New"], "small letters"),
        (["a--b"], "small letters"),
        (["../evil"], "small letters"),
        (["class"], "small letters"),
        (["qwen3", "--model-type", "other"], "names qwen3-mlx already"),
        (["other", "--model-type", "qwen3"], "served by qwen3-mlx"),
        (["other", "--model-type", "a b"], "model_type"),
        (["other", "--model-type", "x", "--model-type", "x"], "each model type once"),
        (["other", "--architecture", "not a name"], "class"),
        (["other", "--holds", "a | b"], "a line without"),
        (["other", "--title", 'say "hi"'], "a line without"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(workspace, arguments, message, capsys):
    before = state(workspace)
    assert run(*arguments, root=workspace) == 1
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert state(workspace) == before


def test_a_package_is_written_once(written, capsys):
    before = state(written)
    assert run("new-words", "--model-type", "another", root=written) == 1
    assert "new-words-mlx" in capsys.readouterr().err
    assert state(written) == before


def test_a_failure_half_way_takes_everything_back(workspace, monkeypatch):
    before, replace, calls = state(workspace), Path.replace, []

    def failing(self, target):
        calls.append(target)
        if str(target).endswith("registry.py"):
            raise OSError("disk full")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", failing)
    with pytest.raises(OSError, match="disk full"):
        run("late", root=workspace)
    assert len(calls) > 10
    assert state(workspace) == before
    assert not (workspace / "packages" / "late-mlx").exists()


def test_a_list_that_is_not_as_expected_is_named(workspace, tmp_path, capsys):
    copy = shutil.copytree(workspace, tmp_path / "copy", symlinks=True)
    readme = copy / "README.md"
    readme.write_text("# Nothing\n")
    assert run("other", root=copy) == 1
    assert "README.md has no link to a family's package" in capsys.readouterr().err
