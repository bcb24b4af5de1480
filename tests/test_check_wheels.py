"""The check that everything installs from wheels: `scripts/check_wheels.py`."""

import importlib.util
import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def check():
    spec = importlib.util.spec_from_file_location("check_wheels", ROOT / "scripts" / "check_wheels.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def lacking(check, requirement, *files):
    """The targets for which a distribution of these wheels has none."""
    requirement = Requirement(requirement)
    (pin,) = requirement.specifier
    package = {
        "name": requirement.name,
        "version": pin.version,
        "wheels": [{"url": f"https://example.org/{file}"} for file in files],
    }
    wheels = check.locked_wheels({"package": [package]})
    return {
        (target.python, target.platform) for _, _, target in check.without_wheels([requirement], wheels, check.TARGETS)
    }


def everywhere(check):
    return {(target.python, target.platform) for target in check.TARGETS}


def test_twelve_targets(check):
    assert len(everywhere(check)) == 12


def test_pure_python_wheels_install_everywhere(check):
    assert not lacking(check, "a==1", "a-1-py3-none-any.whl")
    assert not lacking(check, "a==1", "a-1-py2.py3-none-any.whl")


def test_a_source_distribution_alone_is_lacking_everywhere(check):
    assert lacking(check, "a==1") == everywhere(check)


def test_wheels_of_older_pythons_are_lacking_for_newer_ones(check):
    files = [
        f"a-1-{tag}-{platform}.whl"
        for tag in ("cp311-cp311", "cp312-cp312")
        for platform in ("manylinux_2_17_x86_64.manylinux2014_x86_64", "manylinux_2_28_aarch64", "macosx_11_0_arm64")
    ]
    expected = {(python, platform) for python, platform in everywhere(check) if python in ("3.13", "3.14")}
    assert lacking(check, "a==1", *files) == expected
    assert not lacking(check, 'a==1; python_version < "3.13"', *files)
    assert not lacking(check, "a==1", *files, *(file.replace("cp311-cp311", "cp310-abi3") for file in files))


@pytest.mark.parametrize(
    ("platform", "wheel"),
    [
        ("linux x86_64", "a-1-py3-none-manylinux_2_35_x86_64.whl"),
        ("linux x86_64", "a-1-py3-none-manylinux1_x86_64.whl"),
        ("linux aarch64", "a-1-py3-none-manylinux2014_aarch64.whl"),
        ("darwin arm64", "a-1-py3-none-macosx_14_0_arm64.whl"),
        ("darwin arm64", "a-1-py3-none-macosx_11_0_universal2.whl"),
        (None, "a-1-py3-none-manylinux_2_36_x86_64.whl"),  # newer than MLX itself asks for
        (None, "a-1-py3-none-macosx_15_0_arm64.whl"),
        (None, "a-1-py3-none-musllinux_1_2_x86_64.whl"),
        (None, "a-1-cp313-cp313t-manylinux_2_28_x86_64.whl"),  # free-threaded
        (None, "a-1-py3-none-win_amd64.whl"),
    ],
)
def test_platforms(check, platform, wheel):
    found = everywhere(check) - lacking(check, "a==1", wheel)
    assert {name for _, name in found} == ({platform} if platform else set())


@pytest.mark.parametrize(
    ("marker", "platforms"),
    [
        ("sys_platform == 'linux'", {"linux x86_64", "linux aarch64"}),
        ("sys_platform == 'darwin' and platform_machine == 'arm64'", {"darwin arm64"}),
        ("platform_machine == 'x86_64'", {"linux x86_64"}),
        ("python_full_version >= '3.15'", set()),
    ],
)
def test_markers(check, marker, platforms):
    assert {platform for _, platform in lacking(check, f"a==1; {marker}")} == platforms


def test_the_pythons_begin_with_the_oldest_that_members_take_and_end_with_ci_s_newest(check):
    for file in (ROOT / "packages").glob("*/pyproject.toml"):
        assert tomllib.loads(file.read_text())["project"]["requires-python"] == f">={check.PYTHONS[0]}"
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    used = set(re.findall(r"\b3\.\d+", workflow))
    assert used == {check.PYTHONS[0], check.PYTHONS[-1]}
