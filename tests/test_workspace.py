"""Rules that span the members."""

import ast
import itertools
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MEMBERS = sorted(path.parent for path in (ROOT / "packages").glob("*/pyproject.toml"))
NAMES = [member.name for member in MEMBERS]
MODULES = {name: name.replace("-", "_") for name in NAMES}


def pyproject(member):
    return tomllib.loads((member / "pyproject.toml").read_text())


def version(text):
    return tuple(int(part) for part in re.match(r"\d+(\.\d+)*", text)[0].split("."))


# Distributions whose modules have other names.
IMPORTED_AS = {
    "pyyaml": "yaml",
    "pyopenjtalk_plus": "pyopenjtalk",
    "mecab_python3": "MeCab",
    "python_mecab_ko_dic": "mecab_ko_dic",
}


@pytest.mark.parametrize("member", MEMBERS, ids=NAMES)
def test_every_member_has_what_a_member_has(member):
    project = pyproject(member)["project"]
    assert project["name"] == member.name
    assert project["license"] == "MIT OR Apache-2.0"
    assert project["requires-python"] == ">=3.11"
    for name in ("README.md", "CHANGELOG.md", "LICENSE-MIT", "LICENSE-APACHE"):
        assert (member / name).is_file()
        assert not (member / name).is_symlink()
    for name in ("LICENSE-MIT", "LICENSE-APACHE"):
        assert (member / name).read_bytes() == (ROOT / name).read_bytes()
    package = member / "src" / MODULES[member.name]
    assert (package / "__init__.py").is_file()
    assert (package / "py.typed").is_file()
    assert list((member / "tests").glob("test_*.py"))
    assert f"## {project['version']}" in (member / "CHANGELOG.md").read_text()
    assert {"cpu", "cuda13"} <= project["optional-dependencies"].keys()


@pytest.mark.parametrize("member", MEMBERS, ids=NAMES)
def test_every_dependency_has_a_floor(member):
    project = pyproject(member)["project"]
    extras = [dependency for extra in project["optional-dependencies"].values() for dependency in extra]
    for dependency in project["dependencies"]:
        assert ">=" in dependency, dependency
    for dependency in extras:
        assert ">=" in dependency or dependency.startswith("mlx-core["), dependency


@pytest.mark.parametrize(
    "member", [member for member in MEMBERS if member.name != "mlx-core"], ids=lambda member: member.name
)
def test_ranges_between_members_hold(member):
    """Uv ignores the ranges inside a workspace; wheels carry them."""
    core = version(pyproject(ROOT / "packages" / "mlx-core")["project"]["version"])
    (dependency,) = (entry for entry in pyproject(member)["project"]["dependencies"] if entry.startswith("mlx-core"))
    least, below = re.fullmatch(r"mlx-core(?:\[audio\])?>=([\d.]+),<([\d.]+)", dependency).groups()
    assert version(least) <= core < version(below)


@pytest.mark.parametrize("member", MEMBERS, ids=NAMES)
def test_members_import_what_they_declare_and_never_each_other(member):
    project = pyproject(member)["project"]
    optional = {"mlx_lm"}  # the peer, which bench imports when it is asked to
    entries = itertools.chain(project["dependencies"], *project["optional-dependencies"].values())
    declared = {re.match(r"[\w-]+", entry)[0].replace("-", "_").lower() for entry in entries}
    declared |= {IMPORTED_AS[name] for name in declared & IMPORTED_AS.keys()}
    allowed = declared | {MODULES[member.name]} | optional | set(sys.stdlib_module_names)
    for file in (member / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            for name in names:
                assert name.partition(".")[0] in allowed or name.lower() in declared, (
                    f"{file.relative_to(ROOT)} imports {name}"
                )


def test_the_root_knows_every_member():
    root = tomllib.loads((ROOT / "pyproject.toml").read_text())
    uv = root["tool"]["uv"]
    assert set(uv["sources"]) == set(NAMES)
    pairs = {tuple(tuple(sorted(entry.items())) for entry in pair) for pair in uv["conflicts"]}
    for kind in ("extra", "group"):  # the other members' are inferred
        cpu, cuda = {"package": "mlx-core", kind: "cpu"}, {"package": "mlx-core", "extra": "cuda13"}
        assert (tuple(sorted(cpu.items())), tuple(sorted(cuda.items()))) in pairs
    assert set(root["tool"]["ruff"]["lint"]["isort"]["known-first-party"]) == set(MODULES.values())
    matrix = re.search(r"member: \[(.*)\]", (ROOT / ".github" / "workflows" / "ci.yml").read_text())[1]
    assert [name.strip() for name in matrix.split(",")] == NAMES
    readme, index = (ROOT / "README.md").read_text(), (ROOT / "docs" / "index.md").read_text()
    for name in NAMES:
        assert f"packages/{name})" in readme
        assert f"({name}.md)" in index


def test_ci_runs_the_readme_s_test_command():
    readme, ci = (ROOT / "README.md").read_text(), (ROOT / ".ci" / "run").read_text()
    assert "uv run python -m pytest" in readme
    assert "uv run --locked python -m pytest" in ci
