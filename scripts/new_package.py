"""Write a package for a family of language models, with its registration, a page, and an entry for the recorders.

    uv run python scripts/new_package.py olmo2 --title OLMo-2 --holds "OLMo-2, 1B to 32B"

The package is a Llama of the core's blocks under the family's name, which works, and whose comments say where a family
says what distinguishes it; docs/adding-a-model.md tells the rest. Either everything is written or nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import keyword
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

ROOT = Path(__file__).parents[1]
TEMPLATES = Path(__file__).parent / "package_template"
REGISTRY = "packages/mlx-core/src/mlx_core/models/registry.py"


class PackageError(ValueError):
    """A package that can't be written; nothing has been."""


@dataclass(frozen=True)
class Package:
    """A family of language models: `name` without "-mlx", its title, its model types, transformers' class."""

    name: str
    title: str
    holds: str
    model_types: tuple[str, ...]
    architecture: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", self.name) or keyword.iskeyword(self.stem):
            raise PackageError(
                f"a name is small letters and digits, with single hyphens between (olmo2, glm4-moe); got {self.name!r}."
            )
        for model_type in self.model_types:
            if not re.fullmatch(r"[a-z][a-z0-9_-]*", model_type):
                raise PackageError(f"a model type is what config.json's model_type says, as olmo2; got {model_type!r}.")
        if len(set(self.model_types)) < len(self.model_types):
            raise PackageError(f"each model type once; got {', '.join(self.model_types)}.")
        if not self.architecture.isidentifier():
            raise PackageError(f"transformers' class is a name, as Olmo2ForCausalLM; got {self.architecture!r}.")
        for text in (self.title, self.holds):
            if not text.strip() or not text.isprintable() or set(text) & set('|"\\$'):
                raise PackageError(
                    f'a title and what the package holds are a line without |, ", \\ and $; got {text!r}.'
                )

    @property
    def package(self) -> str:
        return f"{self.name}-mlx"

    @property
    def module(self) -> str:
        return f"{self.stem}_mlx"

    @property
    def stem(self) -> str:
        return self.name.replace("-", "_")

    def fields(self, core_version: str) -> dict[str, str]:
        """The templates' fields."""
        major, minor = (int(part) for part in core_version.split(".")[:2])
        types = [f'    "{name}": ModelType("{self.architecture}"),' for name in self.model_types]
        return {
            "name": self.name,
            "title": self.title,
            "holds": self.holds,
            "package": self.package,
            "module": self.module,
            "stem": self.stem,
            "model_type": self.model_types[0],
            "types_quoted": ", ".join(f"`{name}`" for name in self.model_types),
            "entry_points": "\n".join(f'{name} = "{self.module}.{self.stem}"' for name in self.model_types),
            "model_types": "\n".join(types),
            "core": f"{major}.{minor}",
            "core_end": f"{major}.{minor + 1}",
        }


def registered(root: Path) -> dict[str, str]:
    """model_type -> the member that serves it, by the members' entry points."""
    found = {}
    for path in sorted((root / "packages").glob("*/pyproject.toml")):
        project = tomllib.loads(path.read_text())["project"]
        for model_type in project.get("entry-points", {}).get("mlx_core.models", {}):
            found[model_type] = project["name"]
    return found


def new_files(root: Path, package: Package) -> dict[str, str]:
    """Path below the root -> content, of every file that is new."""
    core = tomllib.loads((root / "packages/mlx-core/pyproject.toml").read_text())["project"]["version"]
    fields = package.fields(core)

    def made(name: str) -> str:
        return Template((TEMPLATES / f"{name}.in").read_text()).substitute(fields)

    folder, source = f"packages/{package.package}", f"packages/{package.package}/src/{package.module}"
    return {
        f"{folder}/pyproject.toml": made("pyproject.toml"),
        f"{folder}/README.md": made("README.md"),
        f"{folder}/CHANGELOG.md": made("CHANGELOG.md"),
        **{f"{folder}/{name}": (root / name).read_text() for name in ("LICENSE-APACHE", "LICENSE-MIT")},
        f"{source}/__init__.py": made("__init__.py"),
        f"{source}/cli.py": made("cli.py"),
        f"{source}/py.typed": "",
        f"{source}/{package.stem}.py": made("model.py"),
        f"{folder}/tests/test_{package.stem}.py": made("test_model.py"),
        f"{folder}/tests/test_{package.stem}_parity.py": made("test_parity.py"),
        f"{folder}/tests/goldens/README.md": made("goldens.md"),
        f"docs/{package.package}.md": made("page.md"),
        f"scripts/record_golden/families/{package.stem}.py": made("family.py"),
    }


def changed_files(root: Path, package: Package) -> dict[str, str]:
    """Path below the root -> new content, of every file that lists the members."""
    siblings = sorted(set(registered(root).values()))

    def changed(path: str, change: str) -> str:
        text = (root / path).read_text()
        if package.package in text:
            raise PackageError(f"{path} names {package.package} already; take that out first.")
        edit = {"sources": _with_source, "registry": _with_types, "link": _with_link}[change]
        return edit(path, text, package, siblings)

    return {
        "pyproject.toml": changed("pyproject.toml", "sources"),
        REGISTRY: changed(REGISTRY, "registry"),
        "README.md": changed("README.md", "link"),
        "docs/index.md": changed("docs/index.md", "link"),
    }


def _with_source(path: str, text: str, package: Package, siblings: Sequence[str]) -> str:
    """The member among the root's `[tool.uv.sources]`, in alphabetical order."""
    found = re.search(r"(?m)^\[tool\.uv\.sources\]\n((?:[\w-]+ = .*\n)+)", text)
    if found is None:
        raise PackageError(f"{path} has no table [tool.uv.sources] of members.")
    lines = sorted([*found[1].splitlines(), f"{package.package} = {{ workspace = true }}"])
    return text[: found.start(1)] + "\n".join(lines) + "\n" + text[found.end(1) :]


def _with_types(path: str, text: str, package: Package, siblings: Sequence[str]) -> str:
    """The model types in the registry's table, so that a checkpoint names the package where it isn't installed."""
    found = re.search(r'(?m)^_PACKAGES = \{\n(?:    ".*\n)+', text)
    if found is None:
        raise PackageError(f"{path} has no table _PACKAGES.")
    rows = "".join(f'    "{model_type}": "{package.package}",\n' for model_type in package.model_types)
    return text[: found.end()] + rows + text[found.end() :]


def _with_link(path: str, text: str, package: Package, siblings: Sequence[str]) -> str:
    """A row, a point or a link after the last one of another family: the same, with this package's names."""
    links = [link for link in re.finditer(r"\[([\w-]+)\]\([\w./-]+\)", text) if link[1] in siblings]
    if not links:
        raise PackageError(
            f"{path} has no link to a family's package ({', '.join(siblings)}) to put another one after."
        )
    last, sibling = links[-1], links[-1][1]
    start, end = text.rfind("\n", 0, last.start()) + 1, text.find("\n", last.end()) + 1 or len(text)
    line = text[start:end]

    def renamed(old: str) -> str:
        return old.replace(sibling, package.package).replace(sibling.replace("-", "_"), package.module)

    if line.startswith("|"):
        cells = line.strip().strip("|").split("|")
        row = "|" + "|".join([*(renamed(cell) for cell in cells[:-1]), f" {package.holds} "]) + "|\n"
    elif re.match(r"\s*[-*] ", line):
        row = renamed(text[start : last.end()]) + f": {package.holds}\n"
    else:
        return text[: last.end()] + ", " + renamed(last[0]) + text[last.end() :]
    return text[:end] + row + text[end:]


def write(root: Path, package: Package) -> list[str]:
    """Write the package and register it; the paths below `root`, new ones first.

    Raises PackageError where a name or a model type is taken, or a file isn't as expected; then, and if writing fails,
    nothing is changed.
    """
    for model_type, owner in registered(root).items():
        if model_type in package.model_types:
            raise PackageError(f"model type {model_type!r} is served by {owner}.")
    new, changed = new_files(root, package), changed_files(root, package)
    for path in (f"packages/{package.package}", *new):
        if (root / path).exists():
            raise PackageError(f"{path} exists. Choose another name, or remove it.")
    _write_all(root, package, new, changed)
    return [*new, *changed]


def _tidy(root: Path, staging: Path, package: Package) -> None:
    """Imports in order, lines broken: both depend on the names."""
    ours = f'lint.isort.known-first-party=["mlx_core", "{package.module}"]'
    config = ["--quiet", "--config", str(root / "pyproject.toml"), "--config", ours]
    for command in (["check", "--select", "I", "--fix"], ["format"]):
        subprocess.run([sys.executable, "-m", "ruff", *command, *config, str(staging)], check=True)


def _write_all(root: Path, package: Package, new: Mapping[str, str], changed: Mapping[str, str]) -> None:
    """Write all files, or none: under temporary names first, then renamed, and taken back if a renaming fails."""
    before = {path: (root / path).read_text() for path in changed}
    done: list[str] = []
    with tempfile.TemporaryDirectory(dir=root, prefix=".new-package-") as staging:
        for path, content in {**new, **changed}.items():
            target = Path(staging) / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(content)
        _tidy(root, Path(staging), package)
        try:
            for path in {**new, **changed}:
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                done.append(path)
                (Path(staging) / path).replace(root / path)
        except BaseException:
            for path in done:
                with contextlib.suppress(FileNotFoundError):
                    (root / path).unlink()
                if path in before:
                    (root / path).write_text(before[path])
            for path in new:
                member = root / Path(*Path(path).parts[:2])
                if path.startswith("packages/") and member.is_dir():
                    shutil.rmtree(member)
            raise


def main(arguments: Sequence[str] | None = None) -> int:
    """Write a package and say what to do next."""
    parser = argparse.ArgumentParser(description="Write a package for a family of language models.")
    parser.add_argument("name", help='the package\'s name, with or without "-mlx": olmo2, glm4-moe')
    parser.add_argument(
        "--model-type", action="append", help="config.json's model_type, once or more; the name by default"
    )
    parser.add_argument("--title", help="the family's name as its makers write it: OLMo-2")
    parser.add_argument("--holds", help="the models that it runs, for the README's table: OLMo-2, 1B to 32B")
    parser.add_argument("--architecture", help="transformers' class: Olmo2ForCausalLM")
    parser.add_argument("--root", type=Path, default=ROOT, help="the workspace")
    given = parser.parse_args(arguments)
    name = given.name.removesuffix("-mlx")
    title = given.title or name
    try:
        package = Package(
            name,
            title,
            given.holds or title,
            tuple(given.model_type or [name.replace("-", "_")]),
            given.architecture or "".join(part.capitalize() for part in name.split("-")) + "ForCausalLM",
        )
        paths = write(given.root, package)
    except PackageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(*paths, sep="\n")
    print(
        f"""
Next (docs/adding-a-model.md):
1. uv lock && uv sync; uv run python -m pytest packages/{package.package}/tests/test_{package.stem}.py
2. scripts/record_golden/families/{package.stem}.py: the checkpoint's tensors, the cases; record them.
3. packages/{package.package}/src/{package.module}/{package.stem}.py until test_{package.stem}_parity.py passes.
4. The page, the README's row, docs/models.md, docs/parity.md."""
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
