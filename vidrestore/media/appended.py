"""Finds files that were appended to a file."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from vidrestore.media.ebml import later_segments

MOV, MATROSKA, ASF, AVI = "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "asf", "avi"
"""The names of libavformat's demuxers."""
# The identifiers of the header and of the packets of a Windows Media file.
_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
_HEADERS, _SAMPLES = (b"ftyp", _ASF_HEADER), (b"mdat", _ASF_DATA)
# How files of formats begin whose parts state no sizes, or may not.
_BEGINNINGS = {
    # The header, the size 0 of the tag before the first one, and the kind of the first tag.
    "flv": re.compile(rb"FLV\x01[\x00-\x07]\0\0\0\x09\0{4}[\x08\x09\x12]", re.DOTALL),
    # A page that begins a stream: no samples before it, any serial number, and the page number 0.
    "ogg": re.compile(rb"OggS\0\x02\0{8}.{4}\0{4}", re.DOTALL),
    # The EBML header with the name of the format.
    MATROSKA: re.compile(
        rb"\x1a\x45\xdf\xa3.{1,64}?\x42\x82[\x84\x88](?:webm|matroska)", re.DOTALL
    ),
}
_READ_BYTES, _LONGEST_BEGINNING_BYTES = 1 << 22, 128


def later_files(path: Path, format_name: str) -> tuple[int, ...]:
    """Find the files that follow the first one in a file, by the sizes that its parts state.

    Args:
        path: The file.
        format_name: The name of libavformat's demuxer.

    Returns:
        The offset of each of them that holds samples. Empty for formats other than mp4, mov, AVI,
        Matroska and Windows Media.
    """
    if format_name == MATROSKA:
        return later_segments(path)[0]
    if format_name == AVI:
        return _later_lists(path)
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


def _later_lists(path: Path) -> tuple[int, ...]:
    """Return the offsets of the AVI files after the first one.

    Each begins with a list of the type AVI and goes on, where it is large, in lists of the type
    AVIX.
    """
    found, at, file_bytes = list[int](), 0, path.stat().st_size
    with path.open("rb") as file:
        while at + 12 <= file_bytes:
            file.seek(at)
            kind, size, of_type = struct.unpack("<4sI4s", file.read(12))
            if kind != b"RIFF" or of_type not in (b"AVI ", b"AVIX") or not size:
                break
            if at and of_type == b"AVI ":
                found.append(at)
            at += 8 + size + size % 2
    return tuple(found)


def next_file(path: Path, format_name: str, after: int) -> int | None:
    """Find the next file in a file.

    Args:
        path: The file.
        format_name: The name of libavformat's demuxer.
        after: An offset in the file before that one.

    Returns:
        Its offset; None where there is none.
    """
    sized = later_files(path, format_name)
    begin = next((at for at in sized if at > after), None)
    beginning = _BEGINNINGS.get(format_name)
    if begin is not None or beginning is None:
        return begin
    if format_name == MATROSKA and later_segments(path)[1]:
        return None
    return _found(path, beginning, after + 1)


def _found(path: Path, beginning: re.Pattern[bytes], start: int) -> int | None:
    """Return the offset of the first match from `start` on; None where there is none."""
    with path.open("rb") as file:
        file.seek(start)
        data = file.read(_READ_BYTES)
        while data:
            if (match := beginning.search(data)) is not None:
                return start + match.start()
            kept = data[-_LONGEST_BEGINNING_BYTES:]
            more = file.read(_READ_BYTES)
            if not more:
                return None
            start += len(data) - len(kept)
            data = kept + more
    return None
