"""The outermost elements of Matroska and WebM files (EBML, RFC 8794)."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

EBML_ID = bytes.fromhex("1a45dfa3")
"""The bytes with which each file begins."""
_SEGMENT_ID = bytes.fromhex("18538067")
_MOST_ELEMENTS = 8  # before the segment


def may_go_on(path: Path) -> bool:
    """Return whether a file may hold another recording after its first one.

    Args:
        path: The file.

    Returns:
        False where the first segment ends where the file ends; True where it ends earlier, or where
        its size is unknown, as in recordings that were made live.
    """
    with path.open("rb") as file:
        for _ in range(_MOST_ELEMENTS):
            name = file.read(4)
            if name not in (EBML_ID, _SEGMENT_ID):
                return True
            size = _size(file)
            if size is None:
                return True
            end = file.tell() + size
            if name == _SEGMENT_ID:
                return end < path.stat().st_size
            file.seek(end)
    return True


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
