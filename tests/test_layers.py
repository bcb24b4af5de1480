"""The layers hold: imports run downwards, in no circle, and to public names, as docs/architecture.md draws them."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {path.parent.name: path.parent for path in sorted((ROOT / "packages").glob("*/src/*/__init__.py"))}
CORE = "mlx_core"

Imports = dict[str, set[str]]  # module -> the modules that it imports
Edges = set[tuple[str, str]]


def module_name(file: Path, package: Path) -> str:
    parts = file.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def statements(file: Path, package: Path) -> Iterator[tuple[str, list[str]]]:
    """Each import of a file, wherever it stands: the module, and the names that are taken from it."""
    own = module_name(file, package).split(".")
    folder = own if file.stem == "__init__" else own[:-1]
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = folder[: len(folder) - node.level + 1] if node.level else []
            yield ".".join([*base, *filter(None, [node.module])]), [alias.name for alias in node.names]


def sources(package: Path) -> Iterator[Path]:
    """The modules of a package; of a lazy folder the stub, which lists its names."""
    for file in sorted(package.rglob("*.py")):
        yield stub if (stub := file.with_suffix(".pyi")).exists() else file


def imports(packages: dict[str, Path]) -> Imports:
    """The modules that each module imports of these packages; a name that is a module counts as that."""
    files = {module_name(file, package): (file, package) for package in packages.values() for file in sources(package)}
    found: Imports = {}
    for name, (file, package) in files.items():
        targets = set()
        for module, names in statements(file, package):
            inside = {f"{module}.{taken}" for taken in names} & files.keys()
            if module in files and (not names or len(inside) < len(names)):
                targets.add(module)
            targets |= inside
        found[name] = targets - {name}
    return found


def circle(graph: Imports) -> list[str]:
    """Modules that import each other in a circle; empty where there is none.

    A folder's `__init__` gathers what its modules define, so within the folder it is no import of them.
    """
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module not in done:
            for target in sorted(graph[module]):
                if not module.startswith(f"{target}.") and (found := visit(target, [*path, module])):
                    return found
            done.add(module)
        return []

    return next((found for module in sorted(graph) if (found := visit(module, []))), [])


def part(module: str) -> str:
    """The folder or file of the core that a module stands in."""
    return module.split(".")[1] if "." in module else CORE


def core_edges(graph: Imports) -> dict[tuple[str, str], str]:
    """The imports between parts, and of each an example."""
    pairs = ((module, target) for module, targets in graph.items() for target in targets)
    edges = {(part(module), part(target)): f"{module} imports {target}" for module, target in pairs}
    return {(a, b): example for (a, b), example in edges.items() if a != b and not {CORE, "__main__"} & {a, b}}


def drawn_edges(text: str) -> Edges:
    """The arrows of the diagram: lines such as `models --> engines & checkpoints`."""
    diagram = re.search(r"```mermaid\n(.*?)```", text, re.DOTALL)
    assert diagram is not None, "docs/architecture.md has no Mermaid diagram"
    edges: Edges = set()
    for line in diagram[1].splitlines():
        if "-->" in line:
            sources, targets = ([name.strip() for name in side.split("&")] for side in line.split("-->"))
            edges |= {(a, b) for a in sources for b in targets}
    return edges


def closure(edges: Edges) -> Edges:
    reached = set(edges)
    while more := {(a, d) for a, b in reached for c, d in reached if b == c} - reached:
        reached |= more
    return reached


def violations(actual: dict[tuple[str, str], str], drawn: Edges) -> list[str]:
    """How imports and diagram differ."""
    allowed = closure(drawn)
    upwards = [f"{actual[edge]}, which the diagram doesn't allow" for edge in sorted(actual.keys() - allowed)]
    stale = [f"the diagram draws {a} --> {b}, which nothing imports" for a, b in sorted(drawn - actual.keys())]
    both_ways = [f"the diagram has a circle through {a}" for a, b in sorted(allowed) if a == b]
    return upwards + stale + both_ways


def test_the_diagram_is_true():
    actual = core_edges(imports({CORE: PACKAGES[CORE]}))
    drawn = drawn_edges((ROOT / "docs" / "architecture.md").read_text())
    assert not violations(actual, drawn)
    parts = {path.stem for path in PACKAGES[CORE].iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert {name for edge in drawn for name in edge} == parts - {"__init__", "__main__"}


def test_no_module_imports_itself_by_a_detour():
    assert not circle(imports(PACKAGES))


def private(file: Path, package: Path) -> list[str]:
    """The imports of a member that aren't public in another: names with an underscore, and modules within a folder whose
    `__init__` is there for that.
    """
    found = []
    for module, names in statements(file, package):
        owner = PACKAGES.get(module.split(".")[0])
        if owner is None or owner == package:
            continue
        hidden = [name for name in [*module.split("."), *names] if name.startswith("_")]
        found += [f"{module} of {owner.name}: {name}" for name in hidden]
        if len(module.split(".")) > 2:
            found.append(f"{module}: take it from {'.'.join(module.split('.')[:2])}")
    return found


@pytest.mark.parametrize("name", [name for name in PACKAGES if name != CORE])
def test_members_import_public_names(name):
    package = PACKAGES[name]
    assert not {
        str(file.relative_to(ROOT)): found for file in package.rglob("*.py") if (found := private(file, package))
    }


def test_the_text_layer_imports_no_mlx():
    """Not even on the way: a server's front end runs in a process without MLX."""
    graph = imports({CORE: PACKAGES[CORE]})
    reached, queue = set(), [f"{CORE}.text", f"{CORE}.errors", f"{CORE}.files"]
    while queue:
        module = queue.pop()
        if module not in reached:
            reached.add(module)
            # names of the lazy folders are modules of theirs, which are asked for one by one
            queue += [
                target for target in graph[module] if target not in (f"{CORE}.checkpoints", f"{CORE}.checkpoints.gguf")
            ]
    package = PACKAGES[CORE]
    for module in reached - {CORE}:
        path = package.parent.joinpath(*module.split("."))
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        taken = [target for target, _ in statements(file, package) if target.split(".")[0] == "mlx"]
        assert not taken, f"{module} imports {taken}"


@pytest.fixture
def house(tmp_path):
    """A package of three layers, to be spoilt."""
    package = tmp_path / "core"
    for name in ("high", "middle", "low"):
        (package / name).mkdir(parents=True)
        (package / name / "__init__.py").write_text("")
    (package / "__init__.py").write_text("")
    (package / "high" / "a.py").write_text("from ..middle import b\n")
    (package / "middle" / "b.py").write_text("from ..low.c import thing\n")
    (package / "low" / "c.py").write_text("thing = 1\n")
    return package


def test_violations_are_found(house):
    drawn = drawn_edges("```mermaid\nflowchart TD\n    high --> middle\n    middle --> low\n```")

    def found():
        return violations(core_edges(imports({"core": house})), drawn), circle(imports({"core": house}))

    assert found() == ([], [])
    (house / "high" / "d.py").write_text("from core.low.c import thing\n")  # past a layer, but downwards
    assert found() == ([], [])
    (house / "low" / "c.py").write_text("def late():\n    from ..middle import b\n")
    upwards, around = found()
    assert upwards == ["core.low.c imports core.middle.b, which the diagram doesn't allow"]
    assert set(around) == {"core.low.c", "core.middle.b"}
    (house / "low" / "c.py").write_text("thing = 1\n")
    (house / "high" / "a.py").write_text("from ..middle import b\nfrom . import d\n")
    (house / "high" / "d.py").write_text("from .a import b\n")
    upwards, around = found()
    assert (upwards, set(around)) == ([], {"core.high.a", "core.high.d"})


def test_the_text_front_end_of_speech_imports_no_mlx():
    """What CI relies on where it leaves out tests of texts."""
    package = PACKAGES["gpt_sovits_mlx"]
    for file in (package / "text").rglob("*.py"):
        taken = {module for module, _ in statements(file, package) if module.split(".")[0] in ("mlx", CORE)}
        assert taken <= {f"{CORE}.errors", f"{CORE}.checkpoints"}, f"{file.name} imports {taken}"
