"""PNG files (third edition): replaces the pixels and keeps every other chunk."""

from __future__ import annotations

import logging
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from vidrestore.media.images import exif as exif_module
from vidrestore.media.images.header import (
    Header,
    Metadata,
    Samples,
    UnreadableError,
    big_endian_bytes,
)

_log = logging.getLogger("vidrestore")

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHANNELS_OF_TYPE = {0: 1, 2: 3, 4: 2, 6: 4}
_LEVEL = 6
_PER_METER = 1
# Rows that are filtered at a time, which limits the memory that a large picture takes.
_ROWS = 64


def read(data: Any) -> Header:
    """Read the header of a PNG file.

    Args:
        data: The file.

    Returns:
        The header.

    Raises:
        UnreadableError: The file is not a PNG file, is damaged, or is of a kind that vidrestore
            does not write.
    """
    if bytes(data[:8]) != _SIGNATURE:
        raise UnreadableError("is not a PNG file, despite its suffix")
    header, orientation = None, 1
    for name, content in _chunks(data):
        if name == b"IHDR":
            header = struct.unpack(">IIBB", content[:10])
        elif name == b"tRNS":
            raise UnreadableError(
                "makes one of its colors transparent; save it with an alpha channel"
            )
        elif name == b"acTL":
            raise UnreadableError("is an animation; convert it to a video first")
        elif name == b"eXIf":
            orientation = orientation_in(content)
    if header is None:
        raise UnreadableError("is cut short")
    width, height, bits, kind = header
    if kind not in _CHANNELS_OF_TYPE or bits not in (8, 16):
        raise UnreadableError("has a palette or few bits; save it as RGB or gray of 8 or 16 bits")
    return Header("png", width, height, _CHANNELS_OF_TYPE[kind], bits, orientation)


def orientation_in(exif: bytes) -> int:
    """Read the orientation from Exif data.

    Args:
        exif: The Exif data.

    Returns:
        1 to 8; 1 where the data is damaged or does not state it.
    """
    try:
        return exif_module.parse(exif).orientation
    except ValueError as error:
        _log.info("the orientation is taken for upright: %s", error)
        return 1


def read_metadata(data: Any) -> Metadata:
    """Read the metadata that goes along to another kind of file.

    Args:
        data: The file.

    Returns:
        Color profile and Exif data.
    """
    icc = exif = None
    for name, content in _chunks(data):
        if name == b"iCCP":
            icc = zlib.decompress(content[content.index(b"\0") + 2 :])
        elif name == b"eXIf":
            exif = content
    return Metadata(icc, exif)


def replace_pixels(data: Any, samples: Samples, factor: int = 1) -> bytes:
    """Replace the pixels of a PNG file.

    Args:
        data: The file.
        samples: The new pixels, of the channels and bits of the file.
        factor: The factor from the sides of the picture in the file to those of the new one, whose
            physical size is the same; default: 1.

    Returns:
        The new file, not interlaced.
    """
    parts = [_SIGNATURE]
    is_written = False
    for name, content in _chunks(data):
        if name == b"IHDR":
            size = struct.pack(">II", samples.shape[1], samples.shape[0])
            content = size + content[8:12] + b"\0"  # not interlaced
        elif name == b"pHYs":
            content = _denser(content, factor)
        elif name == b"eXIf":
            content = enlarged_exif(content, factor)
        if name != b"IDAT":
            parts.append(_chunk(name, content))
        elif not is_written:
            parts.append(_chunk(b"IDAT", _compressed(samples)))
            is_written = True
    return b"".join(parts)


def enlarged_exif(exif: bytes, factor: int) -> bytes:
    """Change Exif data for a picture whose sides are `factor` times as long.

    Args:
        exif: The Exif data.
        factor: The factor of both sides.

    Returns:
        The Exif data; unchanged where it is damaged or the factor is 1.
    """
    if factor == 1:
        return exif
    try:
        return exif_module.enlarged(exif, factor)
    except ValueError as error:
        _log.info("damaged Exif data stays as it is: %s", error)
        return exif


def _denser(content: bytes, factor: int) -> bytes:
    """Return a pHYs chunk with `factor` times as many pixels per meter."""
    if len(content) != 9 or content[8] != _PER_METER:
        return content
    across, down = struct.unpack(">II", content[:8])
    return struct.pack(">IIB", *(min(factor * n, 2**31 - 1) for n in (across, down)), _PER_METER)


def new_file(samples: Samples, metadata: Metadata) -> bytes:
    """Make a PNG file.

    Args:
        samples: The pixels.
        metadata: The metadata.

    Returns:
        The new file.
    """
    rows, columns, channels = samples.shape
    kind = {count: number for number, count in _CHANNELS_OF_TYPE.items()}[channels]
    bits = 8 * samples.dtype.itemsize
    parts = [_SIGNATURE, _chunk(b"IHDR", struct.pack(">IIBB3x", columns, rows, bits, kind))]
    if metadata.icc is not None:
        parts.append(_chunk(b"iCCP", b"icc\0\0" + zlib.compress(metadata.icc)))
    if metadata.exif is not None:
        parts.append(_chunk(b"eXIf", metadata.exif))
    parts += [_chunk(b"IDAT", _compressed(samples)), _chunk(b"IEND", b"")]
    return b"".join(parts)


def _chunks(data: Any) -> Iterator[tuple[bytes, bytes]]:
    """Yield name and content of each chunk, up to the end of the picture."""
    at = len(_SIGNATURE)
    while True:
        head = bytes(data[at : at + 8])
        if len(head) < 8:
            raise UnreadableError("is cut short")
        length, name = struct.unpack(">I4s", head)
        yield name, bytes(data[at + 8 : at + 8 + length])
        if name == b"IEND":
            return
        at += length + 12


def _chunk(name: bytes, content: bytes) -> bytes:
    """Serialize a chunk."""
    checksum = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


def _compressed(samples: Samples) -> bytes:
    """Compress pixels, each row with the filter whose differences have the least sum (PNG 12.7)."""
    compressor, before = zlib.compressobj(_LEVEL), samples[:0]
    parts = []
    for at in range(0, len(samples), _ROWS):
        rows = samples[at : at + _ROWS]
        parts.append(compressor.compress(_filtered(rows, before).data))
        before = rows[-1:]
    return b"".join([*parts, compressor.flush()])


def _filtered(samples: Samples, before: Samples) -> npt.NDArray[np.uint8]:
    """Filter some rows; `before` is the row above them, or empty."""
    rows, columns, channels = samples.shape
    step = channels * samples.dtype.itemsize
    plain = np.frombuffer(big_endian_bytes(samples), np.uint8).reshape(rows, columns * step)
    above = np.zeros_like(plain)
    above[1:] = plain[:-1]
    if len(before):
        above[0] = np.frombuffer(big_endian_bytes(before), np.uint8)
    left = np.zeros_like(plain)
    left[:, step:] = plain[:, :-step]
    mean = ((left.astype(np.uint16) + above) // 2).astype(np.uint8)
    numbers_and_guesses = ((1, left), (2, above), (3, mean))
    best = np.empty((rows, columns * step + 1), np.uint8)
    least = np.full(rows, np.iinfo(np.int64).max)
    for number, guess in numbers_and_guesses:
        rest = plain - guess
        total = np.abs(rest.view(np.int8).astype(np.int16)).sum(axis=1, dtype=np.int64)
        better = total < least
        least[better] = total[better]
        best[better, 0], best[better, 1:] = number, rest[better]
    return best
