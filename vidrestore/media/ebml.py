"""The outermost elements of Matroska and WebM files (EBML, RFC 8794)."""

from __future__ import annotations

from typing import BinaryIO

HEADER = bytes.fromhex("1a45dfa3")
"""The identifier of the header of a file."""
SEGMENT = bytes.fromhex("18538067")
"""The identifier of a segment, which holds one recording."""


def read_header(file: BinaryIO) -> tuple[bytes, int | None] | None:
    """Read how an outermost element begins.

    Args:
        file: The file, at the beginning of the element.

    Returns:
        The identifier, and the size with the identifier; None for a size that is not known, as in
        recordings that were made live. None where no such element begins.
    """
    start, name = file.tell(), file.read(4)
    if name not in (HEADER, SEGMENT):
        return None
    size = _size(file)
    return name, None if size is None else file.tell() - start + size


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
