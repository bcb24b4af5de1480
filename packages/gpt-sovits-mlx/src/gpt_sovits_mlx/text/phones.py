"""The phones that the networks know, by number.

Version 1 has 322 of them; version 2 has the same 322 and then 410 for Korean and Cantonese and for the Japanese pitch
marks `[` and `]`. Every later version (v2Pro, v2ProPlus, v3, v4) uses version 2's.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from mlx_core.errors import InputError

from .resources import data_lines

VERSIONS = ("v1", "v2", "v2Pro", "v2ProPlus", "v3", "v4")
PUNCTUATION = frozenset("!?…,.-")
UNKNOWN = "UNK"

_V1_SIZE = 322


@cache
def symbols(version: str = "v2") -> tuple[str, ...]:
    """The phones of a version, in the order of their ids: 322 for v1, 732 for every other one."""
    if version not in VERSIONS:
        raise InputError(f"version is {version!r}, expected one of {', '.join(VERSIONS)}")
    names = data_lines("symbols.txt")
    return tuple(names[:_V1_SIZE] if version == "v1" else names)


@cache
def _ids(version: str) -> dict[str, int]:
    return {name: index for index, name in enumerate(symbols(version))}


def is_known(phone: str, version: str = "v2") -> bool:
    """Whether the version has this phone."""
    return phone in _ids(version)


def to_ids(phones: Iterable[str], version: str = "v2") -> list[int]:
    """Phones by name to phones by number.

    Raises:
        InputError: the version doesn't have one of the phones.
    """
    table = _ids(version)
    phones = list(phones)
    if unknown := sorted({phone for phone in phones if phone not in table}):
        raise InputError(
            f"{version} has no phone {', '.join(map(repr, unknown))}; symbols({version!r}) lists those it has"
        )
    return [table[phone] for phone in phones]
