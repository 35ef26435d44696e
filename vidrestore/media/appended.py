"""Finds files that were appended to a file."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from vidrestore.media.ebml import EBML_ID

MOV, MATROSKA, ASF = "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "asf"
"""The names of libavformat's demuxers."""
# The identifiers of the header and of the packets of a Windows Media file.
_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
_HEADERS, _SAMPLES = (b"ftyp", _ASF_HEADER), (b"mdat", _ASF_DATA)
# How files of other formats begin, and in how many bytes after the last packet one can begin.
_BEGINNINGS = {
    "flv": (b"FLV\x01", 64),
    "ogg": (b"OggS\0\x02", 1 << 16),
    MATROSKA: (EBML_ID, 1 << 20),
}


def later_files(path: Path, format_name: str) -> tuple[int, ...]:
    """Find the files that follow the first one in a file, by the sizes that its parts state.

    Args:
        path: The file.
        format_name: The name of libavformat's demuxer.

    Returns:
        The offset of each of them that holds samples. Empty for formats other than mp4, mov and
        Windows Media.
    """
    parts = {MOV: _boxes, ASF: _objects}.get(format_name)
    if parts is None:
        return ()
    found, start, seen = list[int](), 0, set[bytes]()
    with path.open("rb") as file:
        for kind, at in parts(file, path.stat().st_size):
            # Old QuickTime files begin with the index.
            if seen and (kind in _HEADERS or (kind == b"moov" and kind in seen)):
                start, seen = at, set()
            seen.add(kind)
            if start and kind in _SAMPLES and start not in found[-1:]:
                found.append(start)
    return tuple(found)


def _boxes(file: BinaryIO, file_bytes: int) -> Iterator[tuple[bytes, int]]:
    """Yield (kind, offset) of the outermost boxes of an mp4 or mov file."""
    at = 0
    while at + 16 <= file_bytes:
        file.seek(at)
        size, kind, long_size = struct.unpack(">I4sQ", file.read(16))
        yield kind, at
        size = long_size if size == 1 else size
        if size < 8:
            return
        at += size


def _objects(file: BinaryIO, file_bytes: int) -> Iterator[tuple[bytes, int]]:
    """Yield (identifier, offset) of the outermost objects of a Windows Media file."""
    at = 0
    while at + 24 <= file_bytes:
        file.seek(at)
        kind, size = struct.unpack("<16sQ", file.read(24))
        yield kind, at
        if size < 24:
            return
        at += size


def unread_bytes(path: Path, end: int, format_name: str) -> int:
    """Return how much of a file was not read because it is another file.

    Args:
        path: The file.
        end: The offset of the end of the last packet that was read.
        format_name: The name of libavformat's demuxer.

    Returns:
        The number of bytes from the beginning of that file on; 0 if there is none.
    """
    begin = next((at for at in later_files(path, format_name) if at >= end), None)
    if begin is None and format_name in _BEGINNINGS:
        mark, most = _BEGINNINGS[format_name]
        with path.open("rb") as file:
            file.seek(end)
            place = file.read(most).find(mark)
        begin = end + place if place >= 0 else None
    return 0 if begin is None else path.stat().st_size - begin
