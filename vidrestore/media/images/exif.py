"""Tags in image file directories of TIFF files and Exif data (TIFF 6.0; Exif 3.0)."""

from __future__ import annotations

import struct
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from vidrestore.media.images.header import UnreadableError

ORIENTATION, ICC = 274, 34675
_BYTES_OF_TYPE = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_LETTER_OF_TYPE = {1: "B", 3: "H", 4: "I", 13: "I"}
_SHORT, _LONG, _RATIONAL, _UNDEFINED = 3, 4, 5, 7
# Lengths and places in pixels: ImageWidth, ImageLength, PixelXDimension, PixelYDimension,
# SubjectArea, SubjectLocation.
_IN_PIXELS = (256, 257, 0xA002, 0xA003, 0x9214, 0xA214)
# Pixels per unit of length: XResolution, YResolution, and those in the focal plane.
_PER_LENGTH = (282, 283, 0xA20E, 0xA20F)
# Tags that point to directories: Exif, GPS, and within Exif, interoperability.
_DIRECTORIES = (34665, 34853, 40965)
_NORMAL = 1

# Exif orientation -> (a, b, c, d); display = ((a, b), (c, d)) @ stored, (x, y) with y downward.
_TURNS = {
    1: (1, 0, 0, 1), 2: (-1, 0, 0, 1), 3: (-1, 0, 0, -1), 4: (1, 0, 0, -1),
    5: (0, 1, 1, 0), 6: (0, -1, 1, 0), 7: (0, -1, -1, 0), 8: (0, 1, -1, 0),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Entry:
    """One tag."""

    kind: int
    """The type of the values as TIFF numbers types."""
    count: int
    """The number of values."""
    raw: bytes
    """The values in the byte order of the file."""


@dataclass(slots=True)
class Directory:
    """Tags, and the directories to which some tags point."""

    entries: dict[int, Entry] = field(default_factory=dict)
    """Tag number -> the tag."""
    below: dict[int, Directory] = field(default_factory=dict)
    """Tag number -> the directory to which the tag points."""


def _enlarged(tag: int, entry: Entry, order: str, factor: int) -> Entry:
    """Return a tag as it is right for a picture whose sides are `factor` times as long."""
    if tag in _IN_PIXELS and entry.kind in (_SHORT, _LONG):
        letter, most = _LETTER_OF_TYPE[entry.kind], 256 ** _BYTES_OF_TYPE[entry.kind] - 1
        values = [
            factor * value for value in struct.unpack(f"{order}{entry.count}{letter}", entry.raw)
        ]
        if entry.count == 1 and values[0] > most and entry.kind == _SHORT:
            return Entry(_LONG, 1, struct.pack(f"{order}I", values[0]))
        values = [min(value, most) for value in values]
        return Entry(entry.kind, entry.count, struct.pack(f"{order}{entry.count}{letter}", *values))
    if tag in _PER_LENGTH and entry.kind == _RATIONAL and entry.count == 1:
        numerator, denominator = struct.unpack(f"{order}II", entry.raw)
        if denominator % factor == 0:
            denominator //= factor
        else:
            numerator = min(factor * numerator, 0xFFFFFFFF)
        return Entry(_RATIONAL, 1, struct.pack(f"{order}II", numerator, denominator))
    return entry


@dataclass(slots=True)
class Tags:
    """The tags of the first picture of a file."""

    order: str
    """The byte order as `struct` denotes it: < or >."""
    first: Directory
    """The directory of the first picture."""
    has_more: bool
    """Whether another picture follows the first one."""

    def values(self, tag: int, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """Return the whole numbers of a tag.

        Args:
            tag: The tag number.
            default: The result where the tag is missing or holds something else; default: ().

        Returns:
            The values.
        """
        entry = self.first.entries.get(tag)
        letter = None if entry is None else _LETTER_OF_TYPE.get(entry.kind)
        if entry is None or letter is None:
            return default
        return struct.unpack(f"{self.order}{entry.count}{letter}", entry.raw)

    def set(self, tag: int, *values: int, short: bool = False) -> None:
        """Set a tag to whole numbers.

        Args:
            tag: The tag number.
            *values: The values.
            short: Whether to store 16-bit rather than 32-bit numbers; default: False.
        """
        kind = _SHORT if short else _LONG
        raw = struct.pack(f"{self.order}{len(values)}{_LETTER_OF_TYPE[kind]}", *values)
        self.first.entries[tag] = Entry(kind, len(values), raw)

    def set_bytes(self, tag: int, content: bytes) -> None:
        """Set a tag to bytes of type UNDEFINED.

        Args:
            tag: The tag number.
            content: The bytes.
        """
        self.first.entries[tag] = Entry(_UNDEFINED, len(content), content)

    def drop(self, tags: Collection[int]) -> None:
        """Remove tags and the directories to which they point.

        Args:
            tags: The tag numbers; missing tags are ignored.
        """
        for tag in tags:
            self.first.entries.pop(tag, None)
            self.first.below.pop(tag, None)

    def enlarge(self, factor: int) -> None:
        """Change the tags that state lengths in pixels, or pixels per length.

        Args:
            factor: The factor of both sides of the picture, whose physical size stays.
        """
        directories = [self.first]
        for directory in directories:
            directories += directory.below.values()
            for tag, entry in directory.entries.items():
                directory.entries[tag] = _enlarged(tag, entry, self.order, factor)

    @property
    def orientation(self) -> int:
        """The Exif orientation, 1 to 8; 1 where the tag is missing or not valid."""
        values = self.values(ORIENTATION, (_NORMAL,))
        return values[0] if len(values) == 1 and values[0] in _TURNS else _NORMAL


def orientation_matrix(orientation: int) -> tuple[int, int, int, int]:
    """Convert an Exif orientation to a rotation and flip.

    Convention: display = ((a, b), (c, d)) @ stored, (x, y) with y downward.

    Args:
        orientation: 1 to 8.

    Returns:
        (a, b, c, d), as `VideoInfo.display_orientation`.
    """
    return _TURNS[orientation]


def parse(data: Any) -> Tags:
    """Parse the tags of a TIFF file, or of Exif data, which has the same form.

    Args:
        data: The file: bytes or a memory map.

    Returns:
        The tags of the first picture.

    Raises:
        UnreadableError: The data holds no TIFF tags or is cut short.
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(bytes(data[:4]))
    if order is None:
        raise UnreadableError("holds no TIFF tags")
    (start,) = _unpacked(f"{order}I", data, 4)
    first, following = _directory(data, order, start, depth=0)
    return Tags(order, first, following != 0)


def _directory(data: Any, order: str, start: int, depth: int) -> tuple[Directory, int]:
    """Parse a directory; return it and the offset of the next one, 0 where there is none."""
    directory = Directory()
    (count,) = _unpacked(f"{order}H", data, start)
    for at in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind, length = _unpacked(f"{order}HHI", data, at)
        if kind not in _BYTES_OF_TYPE:
            continue  # TIFF 6.0 requires readers to skip unknown types
        size, place = length * _BYTES_OF_TYPE[kind], at + 8
        if size > 4:
            (place,) = _unpacked(f"{order}I", data, place)
        raw = bytes(data[place : place + size])
        if len(raw) != size:
            raise UnreadableError("is cut short")
        directory.entries[tag] = Entry(kind, length, raw)
        if tag in _DIRECTORIES and size == 4 and depth < 2:
            (below,) = _unpacked(f"{order}I", raw, 0)
            directory.below[tag], _ = _directory(data, order, below, depth + 1)
    (following,) = _unpacked(f"{order}I", data, start + 2 + 12 * count)
    return directory, following


def enlarged(exif: bytes, factor: int) -> bytes:
    """Change the tags of Exif data that state lengths in pixels, or pixels per length.

    All other bytes stay where they are, since the notes of some makers of cameras count from the
    beginning of the data.

    Args:
        exif: The Exif data.
        factor: The factor of both sides of the picture, whose physical size stays.

    Returns:
        The Exif data, of the same length.

    Raises:
        UnreadableError: The data holds no tags or is cut short.
    """
    order, data = parse(exif).order, bytearray(exif)

    def patch(start: int, depth: int) -> None:
        (count,) = _unpacked(f"{order}H", data, start)
        for at in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, length = _unpacked(f"{order}HHI", data, at)
            if kind not in _BYTES_OF_TYPE:
                continue
            size, place = length * _BYTES_OF_TYPE[kind], at + 8
            if size > 4:
                (place,) = _unpacked(f"{order}I", data, place)
            entry = Entry(kind, length, bytes(data[place : place + size]))
            larger = _enlarged(tag, entry, order, factor)
            data[at + 2 : at + 4] = struct.pack(f"{order}H", larger.kind)
            data[place : place + len(larger.raw)] = larger.raw
            if tag in _DIRECTORIES and size == 4 and depth < 2:
                patch(_unpacked(f"{order}I", entry.raw, 0)[0], depth + 1)

    patch(_unpacked(f"{order}I", data, 4)[0], 0)
    return bytes(data)


def _unpacked(form: str, data: Any, at: int) -> tuple[int, ...]:
    """Unpack numbers at an offset; raise UnreadableError where the data ends before."""
    size = struct.calcsize(form)
    raw = bytes(data[at : at + size])
    if len(raw) != size:
        raise UnreadableError("is cut short")
    return struct.unpack(form, raw)


def pack_directory(directory: Directory, order: str, at: int) -> bytes:
    """Serialize a directory, its values and the directories below it.

    Args:
        directory: The directory.
        order: The byte order, < or >.
        at: The offset of the directory from the start of the file.

    Returns:
        The directory with its values after it; it states that no directory follows.
    """
    rows, values = [], bytearray()
    behind = at + 2 + 12 * len(directory.entries) + 4
    for tag, entry in sorted(directory.entries.items()):
        raw = entry.raw
        if (below := directory.below.get(tag)) is not None:
            place = behind + len(values)
            values += pack_directory(below, order, place)
            raw = struct.pack(f"{order}I", place)
        elif len(raw) > 4:
            place = behind + len(values)
            values += raw + bytes(len(raw) % 2)
            raw = struct.pack(f"{order}I", place)
        rows.append(struct.pack(f"{order}HHI", tag, entry.kind, entry.count) + raw.ljust(4, b"\0"))
    count, last = struct.pack(f"{order}H", len(rows)), struct.pack(f"{order}I", 0)
    return b"".join([count, *rows, last, bytes(values)])


def exif_bytes(tags: Tags) -> bytes:
    """Serialize tags as Exif data, without the directories of further pictures.

    Args:
        tags: The tags.

    Returns:
        The Exif data, which begins with the TIFF header.
    """
    return tiff_header(tags.order, 8) + pack_directory(tags.first, tags.order, 8)


def tiff_header(order: str, directory_at: int) -> bytes:
    """Return the 8 bytes at the start of a TIFF file.

    Args:
        order: The byte order, < or >.
        directory_at: The offset of the first directory.

    Returns:
        The TIFF header.
    """
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(f"{order}I", directory_at)
