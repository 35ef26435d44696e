"""Files that state more of their picture than codec, size and color, which no muxer writes alone.

Nothing of the product is used.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import av
from helpers.sources import ffmpeg

_ENTRY_FIELDS = 78


def box(kind: bytes, *parts: bytes) -> bytes:
    content = b"".join(parts)
    return struct.pack(">I4s", 8 + len(content), kind) + content


def full_box(kind: bytes, *parts: bytes) -> bytes:
    return box(kind, bytes(4), *parts)


def st3d(mode: int) -> bytes:
    """Two views: 1 one over the other, 2 side by side."""
    return full_box(b"st3d", bytes([mode]))


def sv3d(*projection: bytes, pose: tuple[int, int, int] = (0, 0, 0)) -> bytes:
    turned = full_box(b"prhd", struct.pack(">3i", *pose))
    shape = projection or (full_box(b"equi", bytes(16)),)
    return box(b"sv3d", full_box(b"svhd", b"test\0"), box(b"proj", turned, *shape))


def tile(top: int, bottom: int, left: int, right: int) -> bytes:
    return full_box(b"equi", struct.pack(">4I", top, bottom, left, right))


def cube_map(padding: int) -> bytes:
    return full_box(b"cbmp", struct.pack(">2I", 0, padding))


def clap(size: tuple[int, int], *, left: int, right: int, top: int, bottom: int) -> bytes:
    """The picture without its edges."""
    width, height = size[0] - left - right, size[1] - top - bottom
    return box(b"clap", struct.pack(">4I4i", width, 1, height, 1, left - right, 2, top - bottom, 2))


def vexu(packing: bytes = b"side", projection: bytes = b"hequ") -> bytes:
    """Apple's words for two half spheres, with a field of view of 180 degrees."""
    inside = [
        box(b"eyes", full_box(b"stri", b"\3")), box(b"pack", full_box(b"pkin", packing)),
        box(b"proj", full_box(b"prji", projection)),
    ]  # fmt: skip
    return box(b"vexu", *inside) + box(b"hfov", struct.pack(">I", 180_000))


AMVE = box(b"amve", struct.pack(">IHH", 3_140_000, 15635, 16450))


def dvvc(profile: int, compatibility: int) -> bytes:
    """Dolby Vision, level 6, with a base layer and its metadata."""
    fields = bytes([1, 0, profile << 1, 6 << 3 | 0b101, compatibility << 4])
    return box(b"dvvC", fields, bytes(19))


def stating(source: Path, target: Path, boxes: bytes) -> Path:
    """A copy of an mp4 or mov file, whose index stands at its end, with boxes in the description
    of its first video track."""
    data = bytearray(source.read_bytes())
    moov = next(each for each in _boxes(data, 0, len(data)) if each[0] == b"moov")
    assert moov[2] == len(data)
    path = [moov]
    for track in _boxes(data, moov[1] + 8, moov[2]):
        if track[0] != b"trak":
            continue
        media = [each for each in _boxes(data, track[1] + 8, track[2]) if each[0] == b"mdia"]
        if media and b"vide" in data[media[0][1] : media[0][1] + 100]:
            path += [track, media[0]]
            break
    for kind in (b"minf", b"stbl", b"stsd"):
        inside = _boxes(data, path[-1][1] + 8, path[-1][2])
        path.append(next(each for each in inside if each[0] == kind))
    entry = next(_boxes(data, path[-1][1] + 16, path[-1][2]))
    for _, start, _ in (*path, entry):
        size = struct.unpack_from(">I", data, start)[0]
        struct.pack_into(">I", data, start, size + len(boxes))
    data[entry[2] : entry[2]] = boxes
    target.write_bytes(data)
    return target


def _boxes(data: bytearray, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield (kind, start, end) of the boxes in a part of a file."""
    while start + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, start)
        yield kind, start, start + size
        start += size


def with_messages(source: Path, target: Path, kind: int, payload: bytes) -> Path:
    """A copy of a file without B frames whose frames all have a message (SEI) of a kind."""
    with av.open(str(source)) as container:
        stream = container.streams.video[0]
        name = stream.codec_context.name
        split = av.BitStreamFilterContext(f"{name}_mp4toannexb", stream)
        packets = list(container.demux(stream))
        coded = [bytes(part) for packet in packets for part in split.filter(packet)]
    head = b"\x06" if name == "h264" else b"\x4e\x01"
    message = b"\0\0\0\1" + head + _escaped(bytes([kind, len(payload)]) + payload + b"\x80")
    raw = target.with_suffix(f".{name}")
    raw.write_bytes(b"".join(_before_slices(each, message, name) for each in coded if each))
    ffmpeg("-framerate 25 -i", raw, "-c copy", target)
    return target


def _before_slices(coded: bytes, message: bytes, name: str) -> bytes:
    at = coded.find(b"\0\0\1")
    while at >= 0:
        first = coded[at + 3]
        if 1 <= first & 31 <= 5 if name == "h264" else first >> 1 & 63 < 32:
            at -= coded[at - 1 : at] == b"\0"
            return coded[:at] + message + coded[at:]
        at = coded.find(b"\0\0\1", at + 3)
    raise AssertionError("a packet without a slice")


def _escaped(data: bytes) -> bytes:
    """With the bytes that keep a start code out of a message."""
    escaped, zeros = bytearray(), 0
    for byte in data:
        if zeros >= 2 and byte <= 3:
            escaped.append(3)
            zeros = 0
        escaped.append(byte)
        zeros = 0 if byte else zeros + 1
    return bytes(escaped)


CAPTIONS = b"\xb5\x00\x31GA94\x03" + bytes([0x42, 0xFF]) + b"\xfc\xc8\xe9\xfd\x80\x80\xff"
"""The letters "Hi" of CEA-608, as a registered message (kind 4)."""


def hdr10_plus() -> bytes:
    """Dynamic metadata of ST 2094-40 with one window, as a registered message (kind 4)."""
    fields = [(1, 2), (4000, 27), (0, 1), (10000, 17), (9000, 17), (8000, 17), (3000, 17), (9, 4)]
    for at, percent in enumerate((1, 5, 10, 25, 50, 75, 90, 95, 99)):
        fields += [(percent, 7), (100 * at, 17)]
    fields += [(0, 10), (0, 1), (0, 1), (0, 1)]
    bits = "".join(f"{value:0{width}b}" for value, width in fields)
    bits += "0" * (-len(bits) % 8)
    return b"\xb5\x00\x3c\x00\x01\x04\x01" + int(bits, 2).to_bytes(len(bits) // 8, "big")


def frame_packing() -> bytes:
    """Two views side by side, as H.264 states it (kind 45)."""
    bits = "1 0 0000011 0 000001 000000 0000 0000 0000 0000 00000000 010 0 1".replace(" ", "")
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")
