"""Finds files that were appended to a file.

The outermost parts of most formats state their sizes, so their places follow from each other. Where
a file was cut before another one was appended, or something else lies between them, these sizes
lead to no other part. From there on, the file is searched for what a file of its format begins
with.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Collection, Iterator, Mapping, Set
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

from vidrestore.media import ebml

MOV, MATROSKA, ASF, AVI = "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "asf", "avi"
"""The names of libavformat's demuxers."""
# The identifiers of the header and of the packets of a Windows Media file.
_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
_AVI, _MORE_AVI = b"AVI ", b"AVIX"
_HEADERS = (b"ftyp", _ASF_HEADER, _AVI, ebml.HEADER)
_SAMPLES = (b"mdat", _ASF_DATA, _AVI, ebml.SEGMENT)
_SURE = (*_HEADERS, *_SAMPLES, b"moov", b"moof", _MORE_AVI)
_TRANSPORT, _PROGRAM = "mpegts", "mpeg"
_BEGINNINGS = {
    # The header, the size 0 of the tag before the first one, and the kind of the first tag.
    "flv": rb"FLV\x01[\x00-\x07]\0\0\0\x09\0{4}[\x08\x09\x12]",
    # A page that begins a stream: no samples before it, any serial number, and the page number 0.
    "ogg": rb"OggS\0\x02\0{8}.{4}\0{4}",
    # The EBML header with the name of the format.
    MATROSKA: rb"\x1a\x45\xdf\xa3.{1,64}?\x42\x82[\x84\x88](?:webm|matroska)",
    # The type of the file: a short box with the name of a brand.
    MOV: rb"\0\0[\0-\x03].ftyp[ -~]{4}",
    ASF: re.escape(_ASF_HEADER),
    AVI: rb"RIFF.{4}AVI LIST.{4}hdrlavih",
    # The first bytes of eight packets.
    _TRANSPORT: rb"G(?:.{187}G){7}",
    # A pack header and another header, of MPEG-2 or MPEG-1.
    _PROGRAM: rb"\0\0\x01\xba(?:[\x40-\x7f].{9,16}?|[\x20-\x2f].{7})\0\0\x01[\xbb\xbf-\xef]",
}
# The formats in which libavformat reads appended files as one stream.
_ONE_STREAM = (_TRANSPORT, _PROGRAM)
_READ_BYTES, _LONGEST_BEGINNING_BYTES = 1 << 22, 8 * 188
_LEAST_BYTES, _NO_END = 16, 1 << 62
_OTHER = b"other"
_KIND_OF_BOX = re.compile(rb"[ -~\xa9]{4}")
_FRAGMENT = (b"moof", b"sidx")


def later_files(path: Path, format_name: str) -> tuple[int, ...]:
    """Find the files that follow the first one in a file.

    Args:
        path: The file.
        format_name: The name of libavformat's demuxer.

    Returns:
        The offset of each of them that holds samples. Empty for formats other than mp4, mov, AVI,
        Matroska and Windows Media, and for a Matroska file after a part of unknown size.
    """
    return _later(path, format_name).begins


def may_go_on(path: Path, format_name: str) -> bool:
    """Return whether a file may hold another recording after its first one.

    Args:
        path: The file.
        format_name: The name of libavformat's demuxer.

    Returns:
        True where another file follows, and where a Matroska file does not state its size, as in
        recordings that were made live.
    """
    later = _later(path, format_name)
    is_open = format_name == MATROSKA and not later.is_complete
    return bool(later.begins) or later.other is not None or is_open


def end_of_file(path: Path, format_name: str, begin: int) -> int:
    """Find where one of several files ends, for formats in which libavformat may read on.

    Args:
        path: The file.
        format_name: The name of libavformat's demuxer.
        begin: The offset of one of the files in it.

    Returns:
        The offset of the next one that libavformat must not read as a part of this one; 0 where
        there is none.
    """
    later = [at for at in later_files(path, format_name) if at > begin]
    if format_name == MOV:
        return _end_of_mp4(path, begin, later) if later else 0
    return next(iter(later), 0)


class NextFile(NamedTuple):
    """A file that follows in a file."""

    begin: int
    """Its offset."""
    is_alike: bool
    """Whether it has the format of the file before it."""


def next_file(path: Path, format_name: str, after: int) -> NextFile | None:
    """Find the next file in a file.

    Args:
        path: The file.
        format_name: The name of libavformat's demuxer.
        after: An offset in the file before that one.

    Returns:
        The next file; None where there is none.
    """
    if not path.is_file():  # the pattern of numbered pictures, of which each is a file
        return None
    later = _later(path, format_name)
    begin = next((at for at in later.begins if at > after), None)
    if begin is not None:
        return NextFile(begin, True)
    if not later.is_complete:
        return _found(path, format_name, after + 1)
    return None if later.other is None else NextFile(later.other, False)


class _Part(NamedTuple):
    """An outermost part of a file."""

    kind: bytes
    start: int
    end: int | None
    """The offset at which the next part begins; None: it is not known."""


_ReadHeader = Callable[[BinaryIO], tuple[bytes, int | None] | None]
"""Reads kind and size of a part; the size None: it is not known. None: there is no part."""


class _Later(NamedTuple):
    """The files after the first one."""

    begins: tuple[int, ...]
    """The offset of each that has the format of the first one and holds samples."""
    other: int | None
    """The offset of a file of another format, after these; None where there is none."""
    is_complete: bool
    """Whether there are no further ones."""


def _later(path: Path, format_name: str) -> _Later:
    """Find the later files by the parts of the file."""
    if format_name not in _READERS:
        return _Later((), None, False)
    status = path.stat()
    return _later_of(path, format_name, status.st_size, status.st_mtime_ns)


# A file is opened many times, and a search takes a second for 200 MB.
@lru_cache(maxsize=8)
def _later_of(path: Path, format_name: str, _size: int, _mtime_ns: int) -> _Later:
    """Find the later files of a file of this size and time of change."""
    found, start, other, is_complete = list[int](), 0, None, True
    seen, last = set[bytes](), b""
    for kind, at, end in _parts(path, format_name):
        if kind == _OTHER:
            other = at
            break
        if seen and (kind in _HEADERS or _begins_without_header(kind, seen, last)):
            start, seen = at, set()
        seen.add(kind)
        last, is_complete = kind, end is not None
        if start and kind in _SAMPLES and start not in found[-1:]:
            found.append(start)
    return _Later(tuple(found), other, is_complete)


def _begins_without_header(kind: bytes, seen: Set[bytes], last: bytes) -> bool:
    """Return whether a part begins a file of the old QuickTime form, which has no header.

    Args:
        kind: The kind of the part.
        seen: The kinds of the parts of the file before it.
        last: The kind of the last one of them.
    """
    is_after_index = last == b"moov" and b"mdat" in seen and b"ftyp" not in seen
    return is_after_index or (kind == b"moov" and kind in seen)


def _parts(path: Path, format_name: str, start: int = 0) -> Iterator[_Part]:
    """Yield the outermost parts of a file, also after a place to which no size leads.

    A file of another format is the last part.
    """
    read, at, before, file_bytes = _READERS[format_name], start, start, path.stat().st_size
    with path.open("rb") as file:
        while at + _LEAST_BYTES <= file_bytes:
            file.seek(at)
            if (header := read(file)) is not None:
                kind, size = header
                yield _Part(kind, at, None if size is None else at + size)
                # A size that is too great may lead to samples that look like another part.
                before = at if kind in _SURE else before
                at += size or 0
                if size is None:
                    return
                if at <= file_bytes:
                    continue
            found = _found(path, format_name, before + 1)
            if found is None:
                return
            if not found.is_alike:
                yield _Part(_OTHER, found.begin, None)
                return
            at = before = found.begin


def _box(file: BinaryIO) -> tuple[bytes, int] | None:
    """Read kind and size of a box of an mp4 or mov file."""
    size, kind, long_size = struct.unpack(">I4sQ", file.read(16))
    # A box of the size 0 ends where the file ends; another file may follow in spite of that.
    size = {0: _NO_END, 1: long_size}.get(size, size)
    return (kind, size) if size >= 8 and _KIND_OF_BOX.fullmatch(kind) else None


def _object(file: BinaryIO) -> tuple[bytes, int] | None:
    """Read identifier and size of an object of a Windows Media file."""
    kind, size = struct.unpack("<16sQ", file.read(24).ljust(24, b"\0"))
    if kind == _ASF_DATA and size < 24:
        size = _NO_END  # of a live recording
    return (kind, size) if size >= 24 else None


def _list(file: BinaryIO) -> tuple[bytes, int] | None:
    """Read type and size of a list of an AVI file.

    The file begins with a list of the type AVI and goes on, where it is large, in lists of the type
    AVIX.
    """
    kind, size, of_type = struct.unpack("<4sI4s", file.read(12))
    if kind != b"RIFF" or of_type not in (_AVI, _MORE_AVI) or not size:
        return None
    return of_type, 8 + size + size % 2


_READERS: Mapping[str, _ReadHeader] = {
    MOV: _box, ASF: _object, AVI: _list, MATROSKA: ebml.read_header,
}  # fmt: skip


def _end_of_mp4(path: Path, begin: int, later: Collection[int]) -> int:
    """Return the first of the later files that is no more of a fragmented file; 0 for none.

    Segments of one stream may each repeat its header.
    """
    due, next_one, index, is_fragmented = begin, begin, b"", False
    with path.open("rb") as file:
        for kind, at, end in _parts(path, MOV, begin):
            is_fragmented = is_fragmented or kind in _FRAGMENT
            if at in later:
                if at != due or not is_fragmented:
                    return at
                next_one = at
            due = end or at
            if kind == b"moov":
                file.seek(at)
                own = file.read(due - at)
                if index not in (b"", own):
                    return next_one
                index = own
    return 0


def _found(path: Path, format_name: str, start: int) -> NextFile | None:
    """Return the first file that begins at an offset or after it; None where there is none."""
    names = sorted(_BEGINNINGS, key=lambda name: name != format_name)
    beginnings = [
        (name, re.compile(_BEGINNINGS[name], re.DOTALL))
        for name in names
        if name != format_name or name not in _ONE_STREAM
    ]
    with path.open("rb") as file:
        file.seek(start)
        data = file.read(_READ_BYTES)
        while data:
            found, end = None, len(data)
            for name, beginning in beginnings:
                match = beginning.search(data, 0, end)
                if match is not None and (found is None or start + match.start() < found.begin):
                    found = NextFile(start + match.start(), name == format_name)
                    end = match.start() + _LONGEST_BEGINNING_BYTES
            if found is not None:
                return found
            kept = data[-_LONGEST_BEGINNING_BYTES:]
            more = file.read(_READ_BYTES)
            if not more:
                return None
            start += len(data) - len(kept)
            data = kept + more
    return None
