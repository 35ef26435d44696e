"""The outermost elements of Matroska and WebM files (EBML, RFC 8794)."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

_EBML_ID = bytes.fromhex("1a45dfa3")
_SEGMENT_ID = bytes.fromhex("18538067")


def may_go_on(path: Path) -> bool:
    """Return whether a file may hold another recording after its first one.

    Args:
        path: The file.

    Returns:
        False where the first segment ends where the file ends; True where it ends earlier, or where
        its size is unknown, as in recordings that were made live.
    """
    later, is_complete = later_segments(path)
    return bool(later) or not is_complete


def later_segments(path: Path) -> tuple[tuple[int, ...], bool]:
    """Find the recordings that follow the first one in a file, by the sizes of their segments.

    Args:
        path: The file.

    Returns:
        The offset of the header of each, and whether the last one ends where the file ends. False
        also where a size is unknown.
    """
    found, header, file_bytes = list[int](), 0, path.stat().st_size
    with path.open("rb") as file:
        while (at := file.tell()) < file_bytes:
            name = file.read(4)
            if name not in (_EBML_ID, _SEGMENT_ID):
                return tuple(found), False
            if name == _EBML_ID:
                header = at
            elif header and header not in found[-1:]:
                found.append(header)
            size = _size(file)
            if size is None:
                return tuple(found), False
            file.seek(size, 1)
    return tuple(found), True


def _size(file: BinaryIO) -> int | None:
    """Read the size of an element; None where it is unknown."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    more = 8 - first[0].bit_length()
    rest = file.read(more)
    value = int.from_bytes(first + rest) & ((1 << 7 * (more + 1)) - 1)
    is_unknown = value == (1 << 7 * (more + 1)) - 1
    return None if is_unknown or len(rest) < more else value
