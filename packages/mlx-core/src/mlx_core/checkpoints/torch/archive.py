"""The zip files that torch.save writes: stored entries, each a slice of the mapped file.

Python's zipfile makes an object for each entry that a file announces before anything can be checked; here the directory
is checked first, against the bytes that are there: entries lie inside the file and don't overlap, none is compressed,
and none occurs twice. The format is that of PKWARE's APPNOTE.TXT with its 64-bit extension (4.3 and 4.5.3).
"""

from __future__ import annotations

import struct
from itertools import pairwise

from ...errors import WeightsError

_END = struct.Struct("<4s4H2IH")  # end of central directory
_LOCATOR = struct.Struct("<4sIQI")  # of the 64-bit end of central directory
_END64 = struct.Struct("<4sQ2H2I4Q")
_ENTRY = struct.Struct("<4s6H3I5H2I")  # in the central directory
_LOCAL = struct.Struct("<4s5H3I2H")  # before the data
_COMMENT = 2**16
_MAX_ENTRIES = 2**18


def read_archive(data: memoryview, source: str) -> dict[str, memoryview]:
    """The content of each entry by its name below the archive's only folder.

    Raises WeightsError, with `source` as the file's name, for anything that torch.save doesn't write.
    """
    try:
        count, start, end = _directory(data)
        if count > min((end - start) // _ENTRY.size, _MAX_ENTRIES):
            raise ValueError(f"{count} entries in a directory of {end - start} bytes")
        entries: dict[str, memoryview] = {}
        spans: list[tuple[int, int, str]] = []
        packed: list[str] = []
        for _ in range(count):
            name, header, nbytes, stored, start = _entry(data, start, end)
            content = _content(data, name, header, nbytes)
            spans.append((header, content + nbytes, name))
            if name in entries:
                raise ValueError(f"{name!a:.100} occurs twice")
            entries[name] = data[content : content + nbytes]
            if not stored:
                packed.append(name)
    except (ValueError, struct.error) as error:
        raise WeightsError(f"{source}: the zip file is damaged or cut short: {error}. Fetch it again.") from error
    spans.sort()
    for (_, before_end, before), (header, _, name) in pairwise(spans):
        if header < before_end:
            raise WeightsError(f"{source}: the entries {before!a:.100} and {name!a:.100} overlap. The file is damaged.")
    below = _below_folder(entries, source)
    if packed:
        raise WeightsError(
            f"{source} has compressed or encrypted entries ({packed[0]!a:.100}), which torch.save doesn't write. Pack it anew "
            "without compression (zip -0)."
        )
    return below


def _directory(data: memoryview) -> tuple[int, int, int]:
    """Number of entries, start and end of the central directory."""
    tail = max(0, len(data) - _COMMENT - _END.size)
    at = tail + bytes(data[tail:]).rfind(b"PK\5\6")
    if at < tail:
        raise ValueError("it has no directory")
    *_, count, size, start, _ = _END.unpack_from(data, at)
    if at >= _LOCATOR.size:
        magic, _, at64, _ = _LOCATOR.unpack_from(data, at - _LOCATOR.size)
        if magic == b"PK\6\7":
            if at64 + _END64.size > len(data):
                raise ValueError("its directory lies outside")
            magic, *_, count, size, start = _END64.unpack_from(data, at64)
            if magic != b"PK\6\6":
                raise ValueError("it has no 64-bit directory")
    if start + size > at:
        raise ValueError("its directory lies outside")
    return count, start, start + size


def _entry(data: memoryview, at: int, end: int) -> tuple[str, int, int, bool, int]:
    """Name, offset of the local header, size in the file, whether the entry is stored uncompressed, offset of the next
    entry.
    """
    if at + _ENTRY.size > end:
        raise ValueError("its directory is cut short")
    magic, _, _, flags, method, _, _, _, packed, nbytes, n_name, n_extra, n_comment, _, _, _, header = (
        _ENTRY.unpack_from(data, at)
    )
    at += _ENTRY.size
    following = at + n_name + n_extra + n_comment
    if magic != b"PK\1\2" or following > end:
        raise ValueError("its directory is damaged")
    name = str(data[at : at + n_name], "utf-8")
    extra = data[at + n_name : at + n_name + n_extra]
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<2H", extra)
        if kind == 1:  # sizes and offset that don't fit into 32 bits, in this order
            words = iter(struct.unpack(f"<{length // 8}Q", extra[4 : 4 + length // 8 * 8]))
            nbytes, packed, header = (
                next(words, value) if value == 2**32 - 1 else value for value in (nbytes, packed, header)
            )
        extra = extra[4 + length :]
    return name, header, packed, not method and not flags & 1 and packed == nbytes, following


def _content(data: memoryview, name: str, header: int, nbytes: int) -> int:
    """The offset of an entry's data."""
    if header + _LOCAL.size > len(data):
        raise ValueError(f"{name!a:.100} lies outside")
    magic, *_, n_name, n_extra = _LOCAL.unpack_from(data, header)
    start = header + _LOCAL.size + n_name + n_extra
    if magic != b"PK\3\4" or data[header + _LOCAL.size : start - n_extra] != name.encode():
        raise ValueError(f"{name!a:.100} isn't where the directory says")
    if start + nbytes > len(data):
        raise ValueError(f"{name!a:.100} ends at byte {start + nbytes} of {len(data)}")
    return start


def _below_folder(entries: dict[str, memoryview], source: str) -> dict[str, memoryview]:
    folders = [name.removesuffix("data.pkl") for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(folders) != 1:
        raise WeightsError(
            f"{source} is a zip file with {len(folders)} entries FOLDER/data.pkl; expected one, as torch.save writes it."
        )
    below = {name.removeprefix(folders[0]): data for name, data in entries.items() if name.startswith(folders[0])}
    if "constants.pkl" in below or any(name.startswith("code/") for name in below):
        raise WeightsError(
            f"{source} is a TorchScript archive: a program with its weights. In Python with torch, save its weights alone: "
            "torch.save(torch.jit.load(path).state_dict(), new_path)."
        )
    return below
