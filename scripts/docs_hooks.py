"""The pages of the documentation that follow from the workspace, for mkdocs (`hooks` in mkdocs.yml).

Each member has its page docs/<member>.md under Packages and a page of the API reference, each folder of mlx_core one
as well, so that a new package needs no line here or in mkdocs.yml. CONTRIBUTING.md, which stands at the root for
GitHub, is the page contributing.md.
"""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
CORE = "mlx_core"
PACKAGES, API = "Packages", "API reference"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fill two sections of the navigation."""
    sections: dict[str, Any] = {title: pages for entry in config.nav or [] for title, pages in entry.items()}
    sections[PACKAGES] = sorted([f"{member.name}.md" for member in _members()] + sections[PACKAGES])
    sections[API] = [{title: f"api/{title}.md"} for title in _reference()]
    config.nav = [{title: pages} for title, pages in sections.items()]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that aren't in docs/."""
    for title, text in _reference().items():
        files.append(File.generated(config, f"api/{title}.md", content=text))
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    contributing = re.sub(r"\]\(docs/", "](", contributing)
    files.append(File.generated(config, "contributing.md", content=contributing))
    return files


def _members() -> list[Path]:
    return sorted(path.parent for path in (ROOT / "packages").glob("*/pyproject.toml"))


def _reference() -> dict[str, str]:
    """A page's title -> its text, which mkdocstrings fills with docstrings."""
    core = ROOT / "packages" / "mlx-core" / "src" / CORE
    folders = sorted(path.parent for path in core.rglob("*/__init__.py"))
    modules = [".".join(folder.relative_to(core.parent).parts) for folder in folders]
    modules += [f"{CORE}.{name}" for name in ("config", "errors", "files")]
    pages = {CORE: _core_page(modules)}
    pages |= {module: _page(module, [module]) for module in sorted(modules)}
    for member in _members():
        if (module := member.name.replace("-", "_")) != CORE:
            pages[module] = _member_page(member, module)
    return pages


def _page(title: str, modules: list[str], text: str = "") -> str:
    return "\n\n".join([f"# {title}", text, *(f"::: {module}" for module in modules)]) + "\n"


def _core_page(modules: list[str]) -> str:
    """The names of mlx_core itself, each leading to where it is described, and the modules."""
    stub = ROOT / "packages" / "mlx-core" / "src" / CORE / "__init__.pyi"
    lines = []
    for node in ast.parse(stub.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.level:
            module = f"{CORE}.{node.module}"
            names = ", ".join(f"[`{alias.name}`][{module}.{alias.name}]" for alias in node.names)
            lines.append(f"- [{module}]({module}.md): {names}")
    others = ", ".join(f"[{module}]({module}.md)" for module in sorted(modules))
    text = f"The names that most programs need are in `{CORE}` itself, which loads them when they are first used:"
    return "\n\n".join([f"# {CORE}", text, "\n".join(lines), f"Every module with a page: {others}."]) + "\n"


def _member_page(member: Path, module: str) -> str:
    """A family of language models shows its architectures, since its other names are the core's."""
    page = f"See also the page [{member.name}](../{member.name}.md)."
    project = tomllib.loads((member / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    architectures = sorted(set(project.get("entry-points", {}).get("mlx_core.models", {}).values()))
    if not architectures:
        return _page(module, [module], page)
    text = (
        f"`{module}` has `load`, `load_model`, `load_tokenizer`, `generate`, `stream_generate` and other names of "
        f"[{CORE}]({CORE}.md), and registers these architectures. {page}"
    )
    sections = [f"## {name}\n\n::: {name}\n    options:\n      heading_level: 3" for name in architectures]
    return "\n\n".join([f"# {module}", text, *sections]) + "\n"
