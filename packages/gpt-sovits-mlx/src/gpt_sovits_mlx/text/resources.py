"""The data files of the text front end, in `text/data`; `LICENSES.md` there says where they come from."""

from __future__ import annotations

import gzip
from importlib.resources import files


def data(name: str) -> bytes:
    """The bytes of a data file, unpacked if its name ends in .gz."""
    raw = files(__package__).joinpath("data", name).read_bytes()
    return gzip.decompress(raw) if name.endswith(".gz") else raw


def data_lines(name: str) -> list[str]:
    """The lines of a data file, which is UTF-8."""
    return data(name).decode("utf-8").splitlines()


def word_list(text: str) -> list[str]:
    """The words of a text: lists of words read better without quotes and commas."""
    return text.split()
