"""Check that everything that a member may want installs without a compiler.

    uv run --locked --group lint python scripts/check_wheels.py

Every distribution in uv.lock that a member needs with any of its extras and groups, or the workspace with any of its
groups, must have a wheel for each Python from 3.11 to 3.14 on Linux x86_64 and aarch64 and on macOS arm64. What has to
be built from source is named in `SOURCES` with the reason. Reads uv.lock alone: nothing is resolved or downloaded.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.tags import Tag, compatible_tags, cpython_tags, mac_platforms
from packaging.utils import parse_wheel_filename

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
# The oldest systems that MLX's own wheels install on: glibc 2.35 (Ubuntu 22.04, Debian 12) and macOS 14.
GLIBC = (2, 35)
MACOS = (14, 0)
# Distributions that have no wheels, and why they install all the same.
SOURCES = {"jieba": "pure Python, which builds without a compiler"}
BACKENDS = ("cpu", "cuda13")  # extras that exclude each other


@dataclass(frozen=True)
class Target:
    """A Python on a platform: its wheel tags, and what markers see there."""

    python: str
    platform: str  # "linux x86_64", "linux aarch64" or "darwin arm64"

    def __str__(self) -> str:
        return f"Python {self.python} on {self.platform}"

    @cached_property
    def tags(self) -> frozenset[Tag]:
        """All tags of wheels that install there."""
        system, machine = self.platform.split()
        if system == "darwin":
            platforms = list(mac_platforms(MACOS, machine))
        else:
            legacy = {"x86_64": ["manylinux1", "manylinux2010", "manylinux2014"], "aarch64": ["manylinux2014"]}
            names = [f"manylinux_{GLIBC[0]}_{minor}" for minor in range(GLIBC[1] + 1)] + legacy[machine]
            platforms = [f"{name}_{machine}" for name in [*names, "linux"]]
        version = tuple(map(int, self.python.split(".")))
        interpreter = f"cp{version[0]}{version[1]}"
        return frozenset(
            itertools.chain(
                cpython_tags(version, platforms=platforms), compatible_tags(version, interpreter, platforms=platforms)
            )
        )

    @cached_property
    def environment(self) -> dict[str, str]:
        """The values of environment markers."""
        system, machine = self.platform.split()
        values: dict[str, str] = {name: str(value) for name, value in default_environment().items()}
        return values | {
            "implementation_name": "cpython",
            "platform_python_implementation": "CPython",
            "os_name": "posix",
            "sys_platform": system,
            "platform_system": {"linux": "Linux", "darwin": "Darwin"}[system],
            "platform_machine": machine,
            "python_version": self.python,
            "python_full_version": f"{self.python}.0",
            "implementation_version": f"{self.python}.0",
        }


TARGETS = [
    Target(python, platform) for python in PYTHONS for platform in ("linux x86_64", "linux aarch64", "darwin arm64")
]


def locked_wheels(lock: Mapping[str, Any]) -> dict[tuple[str, str], frozenset[Tag]]:
    """The tags of all wheels in a uv.lock, by a distribution's name and version."""
    found = {}
    for package in lock["package"]:
        files = ((wheel.get("url") or wheel["path"]).rpartition("/")[2] for wheel in package.get("wheels", ()))
        tags = (parse_wheel_filename(file)[3] for file in files)
        found[package["name"], package.get("version", "")] = frozenset(itertools.chain.from_iterable(tags))
    return found


def without_wheels(
    requirements: Iterable[Requirement], wheels: Mapping[tuple[str, str], frozenset[Tag]], targets: Iterable[Target]
) -> Iterator[tuple[str, str, Target]]:
    """Name, version and target wherever a pinned requirement (`name==version; marker`) applies and has no wheel."""
    for requirement, target in itertools.product(requirements, targets):
        if requirement.marker is not None and not requirement.marker.evaluate(target.environment):
            continue
        (pin,) = requirement.specifier
        if wheels[requirement.name, pin.version].isdisjoint(target.tags):
            yield requirement.name, pin.version, target


def exported(member: str | None, backend: str) -> list[Requirement]:
    """All that a member needs with one backend, each extra and each group; None stands for the workspace's groups."""
    selection = []
    if member:
        project = tomllib.loads((ROOT / "packages" / member / "pyproject.toml").read_text(encoding="utf-8"))
        selection = ["--package", member, "--all-extras"]
        for other in BACKENDS:
            if other != backend:
                selection += ["--no-extra", other]
                selection += ["--no-group", other] if other in project.get("dependency-groups", {}) else []
    command = ["uv", "export", "--quiet", "--frozen", "--all-groups", *selection]
    command += ["--no-hashes", "--no-annotate", "--no-header", "--no-emit-workspace"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if result.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{result.stderr}")
    return [Requirement(line) for line in result.stdout.splitlines() if line.strip()]


def main() -> None:
    """Check the workspace; exits with 1 and a list where something has no wheel."""
    wheels = locked_wheels(tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8")))
    members = sorted(path.parent.name for path in (ROOT / "packages").glob("*/pyproject.toml"))
    selections = [(None, ""), *itertools.product(members, BACKENDS)]
    with ThreadPoolExecutor(4) as pool:
        closures = list(pool.map(lambda selection: exported(*selection), selections))

    missing: dict[tuple[str, str], list[str]] = {}
    for name, version, target in without_wheels(set().union(*closures), wheels, TARGETS):
        missing.setdefault((name, version), []).append(str(target))

    complaints = [
        f"{name} {version} has no wheel for {', '.join(sorted(targets))}. Who asks for it: `uv tree --frozen --invert "
        f"--package {name}`. Take another version or distribution, or give it a marker."
        for (name, version), targets in sorted(missing.items())
        if name not in SOURCES
    ]
    needless = SOURCES.keys() - {name for name, _ in missing}
    complaints += [f"{name} has wheels everywhere now, or is gone: take it out of SOURCES" for name in sorted(needless)]
    if complaints:
        sys.exit("\n".join(complaints))
    count = len({requirement.name for requirements in closures for requirement in requirements})
    print(
        f"{count} distributions; all install from wheels on Python {PYTHONS[0]} to {PYTHONS[-1]} but {', '.join(SOURCES)}"
    )


if __name__ == "__main__":
    main()
