"""DPX files (SMPTE ST 268): replaces the pixels and keeps the header byte for byte."""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np

from vidrestore.media.images.header import Header, Samples, UnreadableError

_ORDERS = {b"SDPX": ">", b"XPDS": "<"}
_HEAD_BYTES = 812  # up to the end of the first image element
_ELEMENTS, _ELEMENT = 770, 800
_FILE_SIZE, _SIZE = 16, 772
# Fields in pixels, which a file may leave undefined: the offsets, centers and sizes of the picture
# in the original it was cut out of, and the widths of its borders.
_PLACES = ((1408, "I", 2), (1416, "f", 2), (1424, "I", 2), (1620, "H", 4))
_CHANNELS_OF_DESCRIPTOR = {6: 1, 50: 3, 51: 4}
_FILLED = 1


def read(data: Any) -> Header:
    """Read the header of a DPX file.

    Args:
        data: The file.

    Returns:
        The header.

    Raises:
        UnreadableError: The file is not a DPX file, is cut short, or is of a kind that vidrestore
            does not write.
    """
    order = _ORDERS.get(bytes(data[:4]))
    if order is None:
        raise UnreadableError("is not a DPX file, despite its suffix")
    if len(data) < _HEAD_BYTES:
        raise UnreadableError("is cut short")
    elements, width, height = struct.unpack(f"{order}HII", data[_ELEMENTS : _ELEMENTS + 10])
    descriptor, bits, packing, encoding = _element(data, order)
    channels = _CHANNELS_OF_DESCRIPTOR.get(descriptor)
    if elements != 1 or channels is None or encoding != 0:
        raise UnreadableError(
            "is a DPX file of an unsupported kind; save it as R'G'B', with or without alpha, or as "
            "gray"
        )
    fits = bits in (8, 16) or (packing == _FILLED and (bits, channels) in ((10, 3), (12, 3)))
    if not fits:
        raise UnreadableError(
            f"packs {channels} channels of {bits} bits in a way that vidrestore does not "
            "write; save it as R'G'B' of 10 or 12 bits in filled words, or of 8 or 16 bits"
        )
    return Header("dpx", width, height, channels, bits)


def _element(data: Any, order: str) -> tuple[int, int, int, int]:
    """Read descriptor, bits, packing and encoding of the first image element."""
    return struct.unpack(f"{order}B2xBHH", data[_ELEMENT : _ELEMENT + 8])


def replace_pixels(data: Any, samples: Samples, factor: int = 1) -> bytes:
    """Replace the pixels of a DPX file.

    Args:
        data: The file.
        samples: The new pixels, of the channels and bits of the file.
        factor: The factor from the sides of the picture in the file to those of the new one;
            default: 1.

    Returns:
        The new file.
    """
    start, stored = _place(data), _stored(data, samples)
    if factor == 1:
        return b"".join([data[:start], stored, data[start + len(stored) :]])
    was = read(data)
    old = np.zeros((was.height, was.width, was.channels), samples.dtype)
    behind = bytes(data[start + len(_stored(data, old)) :])
    head = _enlarged_head(bytearray(data[:start]), samples, factor)
    order, size = _ORDERS[bytes(head[:4])], start + len(stored) + len(behind)
    head[_FILE_SIZE : _FILE_SIZE + 4] = struct.pack(f"{order}I", min(size, 0xFFFFFFFF))
    return b"".join([head, stored, behind])


def _enlarged_head(head: bytearray, samples: Samples, factor: int) -> bytearray:
    """Change the size of the picture, and all places and widths that the header states in pixels.

    The sizes of the scanned area stay, as they are in millimeters.
    """
    order = _ORDERS[bytes(head[:4])]
    rows, columns = samples.shape[:2]
    head[_SIZE : _SIZE + 8] = struct.pack(f"{order}II", columns, rows)
    for at, letter, count in _PLACES:
        form = f"{order}{count}{letter}"
        field = slice(at, at + struct.calcsize(form))
        if len(head) < field.stop:
            break
        most = math.inf if letter == "f" else 256 ** struct.calcsize(letter) - 1
        values = struct.unpack(form, head[field])
        # All bits set mean that a field is not defined, and give NaN as a real number.
        larger = [v * factor if v * factor < most else v for v in values]
        packed = struct.pack(form, *larger)
        head[field] = packed if letter != "f" else _defined(bytes(head[field]), packed)
    return head


def _defined(was: bytes, now: bytes) -> bytes:
    """Replace the real numbers of four bytes that are defined; NaN keeps its bits."""
    pairs = ((was[at : at + 4], now[at : at + 4]) for at in range(0, len(was), 4))
    return b"".join(old if old == b"\xff" * 4 else new for old, new in pairs)


def matches_pixels(data: Any, samples: Samples) -> bool:
    """Return whether `replace_pixels` with these pixels gives exactly the same file.

    Args:
        data: The file.
        samples: The decoded pixels of the file.

    Returns:
        False where the file stores its pixels in another way.
    """
    start, stored = _place(data), _stored(data, samples)
    return bytes(data[start : start + len(stored)]) == stored


def _place(data: Any) -> int:
    """Return the offset of the pixels."""
    (start,) = struct.unpack(f"{_ORDERS[bytes(data[:4])]}I", data[4:8])
    return int(start)


def _stored(data: Any, samples: Samples) -> bytes:
    """Serialize pixels as the file stores them."""
    order = _ORDERS[bytes(data[:4])]
    _, bits, _, _ = _element(data, order)
    rows = samples.shape[0]
    if bits == 10:
        red, green, blue = (samples[..., i].astype(np.uint32) for i in range(3))
        return (red << 22 | green << 12 | blue << 2).astype(f"{order}u4").tobytes()
    if bits == 12:
        samples = samples << 4
    # Lines begin at multiples of four bytes.
    stored = samples.astype(f"{order}u{samples.dtype.itemsize}").reshape(rows, -1).view(np.uint8)
    return np.pad(stored, ((0, 0), (0, -stored.shape[1] % 4))).tobytes()
