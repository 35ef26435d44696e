"""JPEG files (ITU-T T.81): replaces the pixels and keeps every segment with other information."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av

from vidrestore.imaging.planes import plane
from vidrestore.media.images.header import Header, Metadata, UnreadableError
from vidrestore.media.images.png import enlarged_exif, orientation_in

_START, _SCAN, _COMMENT, _ADOBE = 0xD8, 0xDA, 0xFE, 0xEE
_APPLICATION = range(0xE0, 0xF0)
_FRAMES = (0xC0, 0xC1, 0xC2)
_ALL_FRAMES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))
_JFIF, _EXIF, _ICC, _FURTHER = b"JFIF\0", b"Exif\0\0", b"ICC_PROFILE\0", b"MPF\0"
_MOST_BYTES = 65533
_PER_INCH, _PER_CENTIMETER = 1, 2
LONGEST_SIDE_PX = 65500
"""The longest side of a picture that the encoders of libavcodec and libjpeg accept."""


def read(data: Any) -> Header:
    """Read the header of a JPEG file.

    Args:
        data: The file.

    Returns:
        The header.

    Raises:
        UnreadableError: The file is not a JPEG file, is damaged, or is of a kind that vidrestore
            does not write.
    """
    if bytes(data[:3]) != b"\xff\xd8\xff":
        raise UnreadableError("is not a JPEG file, despite its suffix")
    header, orientation = None, 1
    for marker, content in _segments(data):
        if marker in _ALL_FRAMES:
            if marker not in _FRAMES or len(content) < 6:
                raise UnreadableError(
                    "is a JPEG file of a rare kind; save it as baseline or progressive JPEG"
                )
            header = struct.unpack(">BHHB", content[:6])
        elif marker == 0xE1 and content.startswith(_EXIF):
            orientation = orientation_in(content[len(_EXIF) :])
    if header is None:
        raise UnreadableError("is cut short")
    bits, height, width, channels = header
    if bits != 8 or channels not in (1, 3) or not height:
        raise UnreadableError("is neither a color nor a gray JPEG file of 8 bits; save it as one")
    return Header("jpeg", width, height, channels, bits, orientation)


def has_further_pictures(data: Any) -> bool:
    """Return whether a JPEG file announces further pictures after the first, such as a preview.

    Args:
        data: The file.

    Returns:
        Whether the file has a multi-picture segment (MPF).
    """
    return any(m == 0xE2 and content.startswith(_FURTHER) for m, content in _segments(data))


def read_metadata(data: Any) -> Metadata:
    """Read the metadata that goes along to another kind of file.

    Args:
        data: The file.

    Returns:
        Color profile and Exif data.
    """
    exif, profile = None, {}
    for marker, content in _segments(data):
        if marker == 0xE1 and content.startswith(_EXIF):
            exif = content[len(_EXIF) :]
        elif marker == 0xE2 and content.startswith(_ICC):
            profile[content[len(_ICC)]] = content[len(_ICC) + 2 :]
    return Metadata(b"".join(profile[i] for i in sorted(profile)) or None, exif)


def encode(image: av.VideoFrame, quantizer: int) -> bytes | None:
    """Encode an 8-bit full-range Y'CbCr picture as JPEG without converting its colors.

    Args:
        image: The picture.
        quantizer: The quantizer scale of ffmpeg's encoder mjpeg, from 1 (best) to 31.

    Returns:
        A JPEG file; None where the pixel format is not yuv420p, yuv422p or yuv444p.
    """
    name = image.format.name.replace("yuvj", "yuv")
    if name not in ("yuv420p", "yuv422p", "yuv444p"):
        return None
    full = av.VideoFrame(image.width, image.height, name.replace("yuv", "yuvj"))
    for index in range(len(image.planes)):
        plane(full, index)[...] = plane(image, index)
    context: Any = av.CodecContext.create("mjpeg", "w")
    context.width, context.height, context.pix_fmt = image.width, image.height, full.format.name
    context.time_base, context.thread_count = Fraction(1), 1
    context.options = {"qmin": str(quantizer), "qmax": str(quantizer)}
    full.pts = 0
    return b"".join(bytes(packet) for given in (full, None) for packet in context.encode(given))


def replace_pixels(data: Any, encoded: bytes, factor: int = 1) -> bytes:
    """Combine the pixels of one JPEG file with the metadata of another.

    Args:
        data: The file with the metadata: application segments and comments.
        encoded: The file with the pixels.
        factor: The factor from the sides of the picture in `data` to those of the new one, whose
            physical size is the same; default: 1.

    Returns:
        The new file, without further pictures.
    """
    kept = [
        (marker, _enlarged(marker, content, factor))
        for marker, content in _segments(data)
        if (marker in _APPLICATION or marker == _COMMENT)
        and marker != _ADOBE
        and not (marker == 0xE2 and content.startswith(_FURTHER))
    ]
    return _joined(kept, encoded)


def _enlarged(marker: int, content: bytes, factor: int) -> bytes:
    """Return an application segment as it is right for a picture with longer sides."""
    if marker == 0xE1 and content.startswith(_EXIF):
        return _EXIF + enlarged_exif(content[len(_EXIF) :], factor)
    if marker == 0xE0 and content.startswith(_JFIF) and len(content) >= 12:
        unit, across, down = struct.unpack(">BHH", content[7:12])
        if unit in (_PER_INCH, _PER_CENTIMETER):
            density = (min(factor * n, 0xFFFF) for n in (across, down))
            return content[:8] + struct.pack(">HH", *density) + content[12:]
    return content


def exif_fits(metadata: Metadata) -> bool:
    """Return whether the Exif data fits into one JPEG segment.

    Args:
        metadata: The metadata.

    Returns:
        True also where there is no Exif data.
    """
    return metadata.exif is None or len(metadata.exif) + len(_EXIF) <= _MOST_BYTES


def new_file(encoded: bytes, metadata: Metadata) -> bytes:
    """Combine the pixels of a JPEG file with metadata of another kind of file.

    Args:
        encoded: The file with the pixels.
        metadata: The metadata; Exif data that does not fit is left out.

    Returns:
        The new file.
    """
    segments = []
    if metadata.exif is not None and exif_fits(metadata):
        segments.append((0xE1, _EXIF + metadata.exif))
    if metadata.icc is not None:
        size = _MOST_BYTES - len(_ICC) - 2
        parts = [metadata.icc[at : at + size] for at in range(0, len(metadata.icc), size)]
        segments += [(0xE2, _ICC + bytes([number, len(parts)]) + part)
                     for number, part in enumerate(parts, 1)]  # fmt: skip
    return _joined(segments, encoded)


def _joined(segments: list[tuple[int, bytes]], encoded: bytes) -> bytes:
    """Put metadata segments before the coding segments and the scans of a JPEG file."""
    parts = [b"\xff\xd8"]
    parts += [_segment(marker, content) for marker, content in segments]
    position = 2
    for marker, content in _segments(encoded):
        if marker not in _APPLICATION and marker != _COMMENT:
            if marker == _SCAN:
                break
            parts.append(_segment(marker, content))
        position += 4 + len(content)
    return b"".join([*parts, encoded[position:]])


def _segment(marker: int, content: bytes) -> bytes:
    """Serialize a segment."""
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def _segments(data: Any) -> Iterator[tuple[int, bytes]]:
    """Yield marker and content of each segment up to the first scan, whose header is the last."""
    at = 2
    while True:
        while bytes(data[at : at + 2]) == b"\xff\xff":  # fill
            at += 1
        head = bytes(data[at : at + 4])
        if len(head) < 4 or head[0] != 0xFF:
            raise UnreadableError("is cut short or damaged")
        (length,) = struct.unpack(">H", head[2:])
        yield head[1], bytes(data[at + 4 : at + 2 + length])
        if head[1] == _SCAN:
            return
        at += 2 + length
