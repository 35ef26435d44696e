"""TIFF files (6.0): replaces the pixels and keeps every tag that is not about their storage."""

from __future__ import annotations

import zlib
from typing import Any

from vidrestore.media.images import exif as exif_module
from vidrestore.media.images.exif import Tags
from vidrestore.media.images.header import Header, Metadata, Samples, UnreadableError

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_OFFSETS, _CHANNELS, _ROWS_PER_STRIP, _BYTE_COUNTS, _PLANAR = 273, 277, 278, 279, 284
_PREDICTOR, _FURTHER, _EXTRA, _FORMAT = 317, 330, 338, 339
_TILES = (322, 323, 324, 325)
_NONE, _LZW, _OLD_DEFLATE, _PACKBITS, _DEFLATE = 1, 5, 32946, 32773, 8
_GREY, _RGB = 1, 2
_UNASSOCIATED_ALPHA = 2
_STRIP_BYTES = 1 << 20
_LEVEL = 6
_MOST_BYTES = (1 << 32) - (1 << 26)  # leaves room for the tags
# Tags about the storage of pixels, and tags that Exif data cannot hold: XMP, IPTC, Photoshop's.
_NOT_EXIF = (_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, 266, _OFFSETS, _CHANNELS,
             _ROWS_PER_STRIP, _BYTE_COUNTS, 280, 281, _PLANAR, 288, 289, _PREDICTOR, *_TILES,
             _FURTHER, _EXTRA, _FORMAT, 700, 33723, 34377, 37724, exif_module.ICC)  # fmt: skip


def read(data: Any) -> Header:
    """Read the header of a TIFF file.

    Args:
        data: The file.

    Returns:
        The header.

    Raises:
        UnreadableError: The file is not a TIFF file, is cut short, or is of a kind that vidrestore
            does not write.
    """
    if bytes(data[:4]) in (b"II+\0", b"MM\0+"):
        raise UnreadableError("is a BigTIFF file; save it as TIFF of less than 4 GB")
    try:
        found = exif_module.parse(data)
    except ValueError as error:
        is_short = bytes(data[:4]) in (b"II*\0", b"MM\0*")
        what = "is cut short" if is_short else "is not a TIFF file, despite its suffix"
        raise UnreadableError(what) from error
    if found.has_more or _FURTHER in found.first.entries:
        raise UnreadableError("holds more than one picture; save each in a file of its own")
    channels, bits = found.values(_CHANNELS, (1,))[0], found.values(_BITS, (1,))
    photometric = found.values(_PHOTOMETRIC, (-1,))[0]
    is_plain = set(found.values(_FORMAT, (1,))) == {1} and len(set(bits)) == 1
    fits = channels in {_GREY: (1, 2), _RGB: (3, 4)}.get(photometric, ())
    if not (is_plain and fits and bits[0] in (8, 16)):
        raise UnreadableError(
            "is neither RGB nor gray, 0 being black, of 8 or 16 bits; save it as one of the two"
        )
    if _compression(found) not in (_NONE, _LZW, _OLD_DEFLATE, _PACKBITS, _DEFLATE):
        raise UnreadableError(
            "has a rare compression; save it uncompressed, or with LZW or Deflate"
        )
    (width,), (height,) = found.values(_WIDTH, (0,)), found.values(_HEIGHT, (0,))
    return Header("tiff", width, height, channels, bits[0], found.orientation)


def _compression(found: Tags) -> int:
    return found.values(_COMPRESSION, (_NONE,))[0]


def becomes_deflate(data: Any) -> bool:
    """Return whether `replace_pixels` changes the compression of the file to Deflate.

    Args:
        data: The file.

    Returns:
        True for files compressed by LZW or PackBits, which are lossless as well.
    """
    return _compression(exif_module.parse(data)) in (_LZW, _PACKBITS)


def read_metadata(data: Any) -> Metadata:
    """Read the metadata that goes along to another kind of file.

    Args:
        data: The file.

    Returns:
        Color profile and Exif data.
    """
    found = exif_module.parse(data)
    icc = found.first.entries.get(exif_module.ICC)
    found.drop(_NOT_EXIF)
    exif = exif_module.exif_bytes(found) if found.first.entries else None
    return Metadata(None if icc is None else icc.raw, exif)


def replace_pixels(data: Any, samples: Samples) -> bytes:
    """Replace the pixels of a TIFF file.

    Args:
        data: The file.
        samples: The new pixels, of the size, channels and bits of the file.

    Returns:
        The new file, compressed by Deflate unless the old one is not compressed.

    Raises:
        UnreadableError: The new file would be larger than 4 GB.
    """
    found = exif_module.parse(data)
    found.drop([*_TILES, 288, 289])
    how = _NONE if _compression(found) == _NONE else _DEFLATE
    predictor = found.values(_PREDICTOR, (1,))[0] if how == _DEFLATE else 1
    return _file(found, samples, how, predictor)


def new_file(samples: Samples, metadata: Metadata) -> bytes:
    """Make a TIFF file compressed by Deflate.

    Args:
        samples: The pixels.
        metadata: The metadata.

    Returns:
        The new file.

    Raises:
        UnreadableError: The new file would be larger than 4 GB.
    """
    found = Tags("<", exif_module.Directory(), False)
    if metadata.exif is not None:
        found = exif_module.parse(metadata.exif)
        found.drop(_NOT_EXIF)
    rows, columns, channels = samples.shape
    found.set(_WIDTH, columns)
    found.set(_HEIGHT, rows)
    found.set(_BITS, *[8 * samples.dtype.itemsize] * channels, short=True)
    found.set(_PHOTOMETRIC, _RGB if channels > 2 else _GREY, short=True)
    found.set(_CHANNELS, channels, short=True)
    if channels in (2, 4):
        found.set(_EXTRA, _UNASSOCIATED_ALPHA, short=True)
    if metadata.icc is not None:
        found.set_bytes(exif_module.ICC, metadata.icc)
    return _file(found, samples, _DEFLATE, 2)


def _file(found: Tags, samples: Samples, how: int, predictor: int) -> bytes:
    rows, columns, channels = samples.shape
    each = max(1, _STRIP_BYTES // (columns * channels * samples.dtype.itemsize))
    strips = [_strip(samples[at : at + each], found.order, how, predictor)
              for at in range(0, rows, each)]  # fmt: skip
    places, at = [], 8
    for strip in strips:
        places.append(at)
        at += len(strip) + len(strip) % 2
    if at >= _MOST_BYTES:
        raise UnreadableError("would take more than the 4 GB that a TIFF file can hold")
    found.set(_COMPRESSION, how, short=True)
    found.set(_PLANAR, 1, short=True)
    found.set(_ROWS_PER_STRIP, each)
    found.set(_OFFSETS, *places)
    found.set(_BYTE_COUNTS, *map(len, strips))
    found.drop([_PREDICTOR])
    if predictor != 1:
        found.set(_PREDICTOR, predictor, short=True)
    even = (strip + bytes(len(strip) % 2) for strip in strips)
    directory = exif_module.pack_directory(found.first, found.order, at)
    return b"".join([exif_module.tiff_header(found.order, at), *even, directory])


def _strip(samples: Samples, order: str, how: int, predictor: int) -> bytes:
    if predictor == 2:
        samples = samples.copy()
        samples[:, 1:] -= samples[:, :-1].copy()
    stored = samples.astype(f"{order}u{samples.dtype.itemsize}").tobytes()
    return stored if how == _NONE else zlib.compress(stored, _LEVEL)
