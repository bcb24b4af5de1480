"""The documentation's pages: in the navigation, with links that lead somewhere and commands and names that exist.

`mkdocs build --strict` checks the pages of the site; this checks the README and CONTRIBUTING.md too, and what MkDocs
can't know: commands, their options, and names in Python programs.
"""

import argparse
import ast
import importlib.util
import re
import shlex
import tomllib
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
MEMBERS = {path.parent.name: path.parent for path in sorted((ROOT / "packages").glob("*/pyproject.toml"))}
PAGES = sorted(DOCS.rglob("*.md"))
FILES = [*sorted(ROOT.glob("*.md")), *PAGES, *sorted((ROOT / "packages").glob("*/*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def name(path):
    return str(path.relative_to(ROOT))


def blocks(path, language):
    return [text for found, text in FENCE.findall(path.read_text(encoding="utf-8")) if found == language]


def anchors(path):
    """A page's anchors, as GitHub and mkdocs.yml's slugs make them of headings."""
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ +(.+)$", text, re.MULTILINE)
    return {
        re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", heading.replace("`", "")).strip().lower()) for heading in headings
    }


# --- pages and links ---


class Loader(yaml.SafeLoader):
    """Reads mkdocs.yml, whose tags for Python names mean nothing here."""


Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: suffix)


def navigation():
    def leaves(entry):
        if isinstance(entry, str):
            return [entry]
        return [page for part in (entry.values() if isinstance(entry, dict) else entry) for page in leaves(part)]

    return leaves(yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader)["nav"])


def test_every_page_is_in_the_navigation_once():
    written = [page for page in navigation() if not page.startswith("api/") and page != "contributing.md"]
    assert sorted([*written, *(f"{member}.md" for member in MEMBERS)]) == [
        str(page.relative_to(DOCS)) for page in PAGES
    ]


@pytest.mark.parametrize("path", FILES, ids=name)
def test_links_and_anchors_lead_somewhere(path):
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
        file, _, anchor = target.partition("#")
        found = (path.parent / file) if file else path
        assert found.exists(), f"{name(path)} links to {target}"
        assert not anchor or anchor in anchors(found), f"{name(path)} links to {target}"


# --- commands ---


class Described(BaseException):
    """Carries a command's parser out of its `main`."""


def parser_of(member, monkeypatch):
    """The parser of a member's command, caught when it is about to parse."""
    entry = tomllib.loads((MEMBERS[member] / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"][
        member
    ]
    module, _, function = entry.partition(":")

    def caught(self, *args, **kwargs):
        raise Described(self)

    with monkeypatch.context() as patched:
        patched.setattr(argparse.ArgumentParser, "parse_args", caught)
        with pytest.raises(Described) as found:
            getattr(importlib.import_module(module), function)(["--help"])
    return found.value.args[0]


def lines(path):
    """Every command line of a page's shell blocks that runs something of ours, in words, up to a pipe."""
    for block in blocks(path, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            inner = re.findall(r"\$\((.+)\)", line)
            for part in [re.sub(r"\$\(.+\)", "VALUE", line), *inner]:
                lexer = shlex.shlex(part, posix=True, punctuation_chars="|<>;&")
                lexer.whitespace_split = True
                words = list(lexer)
                while words:
                    end = next((i for i, word in enumerate(words) if set(word) <= set("|<>;&")), len(words))
                    command, words = words[:end], words[end + 1 :]
                    if command and (command[0] == "uv" or command[0] in MEMBERS):
                        yield line, command


UV_COMMANDS = {"build", "pip", "run", "sync", "lock"}
UV_VALUES, UV_FLAGS = {"--package", "--group", "--no-group", "--extra", "--with"}, {"--locked", "--no-sync"}


def ours(command):
    """The command that `uv run` runs, its own options taken off and checked."""
    if command[0] != "uv":
        return command
    assert command[1] in UV_COMMANDS, command
    if command[1] != "run":
        return []
    rest = command[2:]
    while rest and rest[0].startswith("-"):
        if rest[0] == "--package":
            assert rest[1] in MEMBERS, command
        assert rest[0] in UV_VALUES | UV_FLAGS, command
        rest = rest[2 if rest[0] in UV_VALUES else 1 :]
    return rest


def check_options(parser, words, line):
    """Raises AssertionError where a word is no subcommand or option of the parser; values aren't looked at."""
    choices = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            choices = action.choices
    if choices and words and not words[0].startswith("-"):
        assert words[0] in choices, f"{line}: {parser.prog} has no command {words[0]!r}"
        check_options(choices[words[0]], words[1:], line)
        return
    for word in words:
        if re.match(r"--?[a-z]", word):
            assert word.partition("=")[0] in parser._option_string_actions, f"{line}: {parser.prog} has no {word}"


@pytest.fixture(scope="module")
def parsers():
    with pytest.MonkeyPatch.context() as patch:
        commands = [
            member for member in MEMBERS if (MEMBERS[member] / "src" / member.replace("-", "_") / "cli.py").exists()
        ]
        return {member: parser_of(member, patch) for member in commands if member != "mlx-core"}


WITH_COMMANDS = [path for path in FILES if list(lines(path))]


@pytest.mark.parametrize("path", WITH_COMMANDS, ids=name)
def test_commands_and_options_exist(path, parsers):
    for line, command in lines(path):
        match ours(command):
            case [program, *words] if program in parsers:
                check_options(parsers[program], words, line)
            case ["python", "-m", module, *_] | ["python", "-c", module, *_] if module.isidentifier():
                assert importlib.util.find_spec(module), line
            case ["python", script, *_] | [script, *_] if script.endswith(".py"):
                assert (ROOT / script).is_file(), line
            case ["python", *_] | ["mkdocs" | "ruff" | "mypy", *_] | []:
                pass
            case [program, *_]:
                pytest.fail(f"{line}: what is {program}?")


def test_every_page_of_tasks_shows_commands_or_programs():
    pages = sorted((DOCS / "tasks").glob("*.md"))
    assert len(pages) > 5
    for page in pages:
        assert blocks(page, "sh") or blocks(page, "python"), name(page)


def test_unknown_commands_and_options_are_found(parsers):
    with pytest.raises(AssertionError, match="no command 'dance'"):
        check_options(parsers["qwen3-mlx"], ["dance"], "")
    with pytest.raises(AssertionError, match="no --loud"):
        check_options(parsers["qwen3-mlx"], ["generate", "Hello", "--loud"], "")


# --- programs ---


@pytest.mark.parametrize("path", [path for path in FILES if blocks(path, "python")], ids=name)
def test_names_that_programs_import_exist(path):
    modules = {member.replace("-", "_") for member in MEMBERS}
    for block in blocks(path, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module.partition(".")[0] in modules:
                module = importlib.import_module(node.module)
                for alias in node.names:
                    assert hasattr(module, alias.name), f"{name(path)}: {node.module} has no {alias.name}"


# --- the picture ---


def test_the_picture_is_of_the_readme_s_first_command():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    command = blocks(ROOT / "README.md", "sh")[0].splitlines()[0]
    (picture,) = re.findall(r"!\[[^\]]*\]\(([^)]+\.svg)\)", readme)
    texts = [element.text for element in ElementTree.parse(ROOT / picture).iter() if element.tag.endswith("}text")]
    assert texts[0] == f"$ {command}"
    assert len(texts) > 5
