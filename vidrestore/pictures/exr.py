"""OpenEXR files of half floats in scan lines: the header as it was, and other pixels behind it.

Layout: "Technical Introduction to OpenEXR" and "OpenEXR File Layout", openexr.com.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from vidrestore.pictures.header import Header, Samples, UnreadableError
from vidrestore.planes import GREATEST_HALF, halves_of_codes

_MAGIC, _VERSION, _LONG_NAMES = b"v/1\x01", 2, 0x400
_KINDS = {0x200: "of tiles", 0x800: "of deep pixels", 0x1000: "of several parts"}
_NONE, _RLE, _ZIPS, _ZIP = range(4)
_LINES = {_NONE: 1, _RLE: 1, _ZIPS: 1, _ZIP: 16}
_COMPRESSIONS = ("none", "RLE", "ZIPS", "ZIP", "PIZ", "PXR24", "B44", "B44A", "DWAA", "DWAB")
_HALF = 1
_LEVEL = 6
_TABLE_ROWS = 513


@dataclass(frozen=True, slots=True)
class _Layout:
    order: str
    """Of the channels in each line, one letter each."""
    compression: int
    compression_at: int
    """Where in the file that byte is."""
    first_line: int
    width: int
    height: int
    end: int
    """Of the header."""

    @property
    def lines(self) -> int:
        """Of each chunk but the last."""
        return _LINES[self.compression]

    @property
    def chunks(self) -> int:
        return -(-self.height // self.lines)


def read(data: Any) -> Header:
    found = _layout(data)
    offsets = struct.unpack_from(f"<{found.chunks}Q", data, found.end)
    for at in offsets:
        if at + 8 + struct.unpack_from("<4xI", data, at)[0] > len(data):
            raise UnreadableError("is cut short")
    return Header("exr", found.width, found.height, len(found.order), 16)


def is_rle(data: Any) -> bool:
    """Whether `rewritten` compresses in another way, as lossless as the one before."""
    return _layout(data).compression == _RLE


def rewritten(data: Any, samples: Samples) -> bytes:
    """The file with these pixels, in codes of halves (`vidrestore.planes`); RLE becomes ZIPS."""
    found = _layout(data)
    header = bytearray(data[: found.end])
    how = _ZIPS if found.compression == _RLE else found.compression
    header[found.compression_at] = how
    halves = halves_of_codes(samples)[..., ["RGBA".index(letter) for letter in found.order]]
    # Line by line, and in each channel by channel.
    stored = np.ascontiguousarray(halves.transpose(0, 2, 1), "<u2")
    at = found.end + 8 * found.chunks
    offsets, chunks = [], []
    for line in range(0, found.height, found.lines):
        plain = stored[line : line + found.lines].tobytes()
        packed = plain if how == _NONE else _compressed(plain)
        chunks.append(struct.pack("<iI", found.first_line + line, len(packed)) + packed)
        offsets.append(at)
        at += len(chunks[-1])
    return b"".join([header, struct.pack(f"<{len(offsets)}Q", *offsets), *chunks])


def _compressed(plain: bytes) -> bytes:
    """Of halves first all low bytes, then all high ones, each as its difference to the last."""
    values = np.frombuffer(plain, np.uint8)
    parts = np.concatenate([values[0::2], values[1::2]])
    parts[1:] -= parts[:-1].copy() - np.uint8(128)
    packed = zlib.compress(parts.tobytes(), _LEVEL)
    return packed if len(packed) < len(plain) else plain


def display_table() -> tuple[tuple[float, float, float], ...]:
    """Display values of R', G', B' over codes from 0 to 65535, for `VideoInfo.curve`.

    Light, 1 at white, by the curve of sRGB (IEC 61966-2-1); beyond 1 it goes on, and below 0 it is
    mirrored. Infinite values and those that are none lie a step beyond the greatest.
    """
    codes = np.linspace(0, 65535, _TABLE_ROWS)
    distance = np.maximum(codes - 32768, 32767 - codes).clip(0)
    below = np.floor(distance.clip(max=GREATEST_HALF)).astype(np.uint16)
    least, greater = (
        each.view(np.float16).astype(np.float64)
        for each in (below, np.minimum(below + 1, GREATEST_HALF).astype(np.uint16))
    )
    light = least + (distance.clip(max=GREATEST_HALF) - below) * (greater - least)
    shown = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    shown += (distance - GREATEST_HALF).clip(0)
    shown = np.copysign(shown, codes - 32767.5)
    return tuple((v, v, v) for v in shown.tolist())


def _layout(data: Any) -> _Layout:
    if bytes(data[:4]) != _MAGIC:
        raise UnreadableError("is no OpenEXR file, whatever its name says")
    (version,) = struct.unpack_from("<I", data, 4)
    for flag, kind in _KINDS.items():
        if version & flag:
            raise UnreadableError(f"is an OpenEXR file {kind}; save it in scan lines of one part")
    if version & ~_LONG_NAMES != _VERSION:
        raise UnreadableError("is an OpenEXR file of another version than 2")
    entries, end = _attributes(data)
    try:
        channels, (compression,) = entries["channels"][1], entries["compression"][1]
        data_window = struct.unpack("<4i", entries["dataWindow"][1])
        (line_order,) = entries["lineOrder"][1]
        display_window = struct.unpack("<4i", entries["displayWindow"][1])
    except (KeyError, ValueError) as error:
        raise UnreadableError("is an OpenEXR file without all it needs") from error
    if compression not in _LINES:
        name = dict(enumerate(_COMPRESSIONS)).get(compression, "another way")
        raise UnreadableError(f"is compressed by {name}; save it with ZIP, ZIPS, RLE or none")
    if line_order != 0:
        raise UnreadableError("has its lines in another order than from the top down")
    if data_window != display_window:
        raise UnreadableError(
            "has pixels in another part than it shows (data window and display window differ); "
            "crop or fill it to what it shows"
        )
    x0, y0, x1, y1 = data_window
    return _Layout(
        _order(channels), compression, entries["compression"][0], y0, x1 - x0 + 1, y1 - y0 + 1, end
    )


def _attributes(data: Any) -> tuple[dict[str, tuple[int, bytes]], int]:
    """Name -> (where its value begins, value); and where the header ends."""
    found, at = {}, 8
    while data[at] != 0:
        name, at = _text(data, at)
        _, at = _text(data, at)
        (size,) = struct.unpack_from("<I", data, at)
        found[name] = at + 4, bytes(data[at + 4 : at + 4 + size])
        at += 4 + size
    return found, at + 1


def _text(data: Any, at: int) -> tuple[str, int]:
    """Up to a zero, and what is behind that."""
    end = at + bytes(data[at : at + 256]).index(0)
    return bytes(data[at:end]).decode("latin-1"), end + 1


def _order(channels: bytes) -> str:
    """Of R, G, B and maybe A, of halves, a sample for each pixel; UnreadableError for others."""
    order, at = "", 0
    while channels[at] != 0:
        name, at = _text(channels, at)
        kind, x_step, y_step = struct.unpack_from("<I4xII", channels, at)
        if name not in tuple("RGBA"):
            raise UnreadableError(f"has a channel {name}; only R, G, B and A are written here")
        if (kind, x_step, y_step) != (_HALF, 1, 1):
            raise UnreadableError(
                f"does not hold a half float for each pixel in its channel {name}; save it so"
            )
        order, at = order + name, at + 16
    if sorted(order) not in (sorted("RGB"), sorted("RGBA")):
        raise UnreadableError(f"has the channels {order}; R, G and B, with A or without, are read")
    return order
