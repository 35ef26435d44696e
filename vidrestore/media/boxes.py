"""The boxes of mp4 and mov files (ISO/IEC 14496-12), and how to add some to a finished file."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from vidrestore.common.errors import OutputError

_ENTRY_FIELDS = 78  # the fields of a video sample entry before its boxes
_FULL_HEADER = 4  # version and flags
_WITHIN = (b"mdia", b"minf", b"stbl")
# The box of chunk offsets -> the format of an offset.
_OFFSETS = {b"stco": "I", b"co64": "Q"}


def box(kind: bytes, *parts: bytes) -> bytes:
    """Make a box.

    Args:
        kind: Its four letters.
        *parts: Its content.

    Returns:
        The bytes of the box.
    """
    content = b"".join(parts)
    return struct.pack(">I4s", 8 + len(content), kind) + content


def full_box(kind: bytes, *parts: bytes) -> bytes:
    """Make a box of version 0 without flags.

    Args:
        kind: Its four letters.
        *parts: Its content after version and flags.

    Returns:
        The bytes of the box.
    """
    return box(kind, bytes(_FULL_HEADER), *parts)


class _Box(NamedTuple):
    """A place in a file or in its index."""

    kind: bytes
    start: int
    """The offset of the header."""
    content: int
    """The offset of what follows the header."""
    end: int


def copy_with_boxes(source: Path, target: Path, boxes: bytes, track: int) -> None:
    """Copy an mp4 or mov file and add boxes to the sample entry of a video track.

    Args:
        source: The file.
        target: The copy; an existing file is replaced.
        boxes: The boxes. Those of a kind that the entry already has are not added.
        track: The number of the track, from 0.

    Raises:
        OutputError: The file has no such track, or no room for the offsets of its samples.
        OSError: A file cannot be read or written.
    """
    with source.open("rb") as file:
        index = _top_box(file, b"moov", source)
        file.seek(index.start)
        moov = bytearray(file.read(index.end - index.start))
        try:
            _add(moov, boxes, track, moved_from=index.end)
        except (StopIteration, IndexError, struct.error) as error:
            raise OutputError(f"nothing can be added to the index of {source}") from error
        file.seek(0)
        with target.open("wb") as copy:
            _copy(file, copy, index.start)
            copy.write(moov)
            file.seek(index.end)
            shutil.copyfileobj(file, copy)


def _copy(file: IO[bytes], copy: IO[bytes], size: int) -> None:
    """Copy the first bytes of a file."""
    while size:
        part = file.read(min(size, 1 << 20))
        copy.write(part)
        size -= len(part)


def _top_box(file: IO[bytes], kind: bytes, path: Path) -> _Box:
    """Find a box that no other box holds."""
    start, size_of_file = 0, path.stat().st_size
    while start < size_of_file:
        file.seek(start)
        size, own = struct.unpack(">I4s", file.read(8))
        content = start + 8
        if size == 1:
            size, content = struct.unpack(">Q", file.read(8))[0], content + 8
        if own == kind:
            return _Box(own, start, content, start + size)
        if size < 8:
            break
        start += size
    raise OutputError(f"{path} has no index")


def _add(moov: bytearray, boxes: bytes, track: int, *, moved_from: int) -> None:
    """Add boxes to the sample entry of a track; samples from `moved_from` on move behind them."""
    tracks = [each for each in _inside(moov, 8, len(moov)) if each.kind == b"trak"]
    path = [_Box(b"moov", 0, 8, len(moov)), tracks[track]]
    for kind in _WITHIN:
        path.append(_first(moov, path[-1], kind))
    path.append(_first(moov, path[-1], b"stsd"))
    first_entry = path[-1].content + _FULL_HEADER + 4  # after the number of entries
    path.append(next(_inside(moov, first_entry, path[-1].end)))
    at = path[-1].content + _ENTRY_FIELDS
    there = {each.kind for each in _inside(moov, at, path[-1].end)}
    added = _inside(bytearray(boxes), 0, len(boxes))
    boxes = b"".join(boxes[each.start : each.end] for each in added if each.kind not in there)
    for each in tracks:
        _move_samples(moov, each, len(boxes), moved_from)
    for parent in path:
        size = struct.unpack_from(">I", moov, parent.start)[0] + len(boxes)
        struct.pack_into(">I", moov, parent.start, size)
    moov[at:at] = boxes


def _move_samples(moov: bytearray, track: _Box, by: int, moved_from: int) -> None:
    """Correct the places of the samples of a track that lie behind the index."""
    table = track
    for kind in _WITHIN:
        table = _first(moov, table, kind)
    for each in _inside(moov, table.content, table.end):
        if (form := _OFFSETS.get(each.kind)) is None:
            continue
        start = each.content + _FULL_HEADER
        count = struct.unpack_from(">I", moov, start)[0]
        layout = f">{count}{form}"
        offsets = struct.unpack_from(layout, moov, start + 4)
        moved = (offset + by * (offset >= moved_from) for offset in offsets)
        struct.pack_into(layout, moov, start + 4, *moved)


def _first(data: bytearray, parent: _Box, kind: bytes) -> _Box:
    """Return the first box of a kind in another one."""
    return next(each for each in _inside(data, parent.content, parent.end) if each.kind == kind)


def _inside(data: bytearray, start: int, end: int) -> Iterator[_Box]:
    """Yield the boxes from `start` on."""
    while start + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, start)
        if size < 8:
            return
        yield _Box(kind, start, start + 8, start + size)
        start += size
