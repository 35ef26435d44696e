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
        tags = exif_module.parse(data)
    except ValueError as error:
        is_short = bytes(data[:4]) in (b"II*\0", b"MM\0*")
        what = "is cut short" if is_short else "is not a TIFF file, despite its suffix"
        raise UnreadableError(what) from error
    if tags.has_more or _FURTHER in tags.first.entries:
        raise UnreadableError("holds more than one picture; save each in a file of its own")
    channels, bits = tags.values(_CHANNELS, (1,))[0], tags.values(_BITS, (1,))
    photometric = tags.values(_PHOTOMETRIC, (-1,))[0]
    is_plain = set(tags.values(_FORMAT, (1,))) == {1} and len(set(bits)) == 1
    fits = channels in {_GREY: (1, 2), _RGB: (3, 4)}.get(photometric, ())
    if not (is_plain and fits and bits[0] in (8, 16)):
        raise UnreadableError(
            "is neither RGB nor gray, 0 being black, of 8 or 16 bits; save it as one of the two"
        )
    if _compression(tags) not in (_NONE, _LZW, _OLD_DEFLATE, _PACKBITS, _DEFLATE):
        raise UnreadableError(
            "has a rare compression; save it uncompressed, or with LZW or Deflate"
        )
    (width,), (height,) = tags.values(_WIDTH, (0,)), tags.values(_HEIGHT, (0,))
    return Header("tiff", width, height, channels, bits[0], tags.orientation)


def _compression(tags: Tags) -> int:
    """Return the number of the compression of a file."""
    return tags.values(_COMPRESSION, (_NONE,))[0]


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
    tags = exif_module.parse(data)
    icc = tags.first.entries.get(exif_module.ICC)
    tags.drop(_NOT_EXIF)
    exif = exif_module.exif_bytes(tags) if tags.first.entries else None
    return Metadata(None if icc is None else icc.raw, exif)


def replace_pixels(data: Any, samples: Samples, factor: int = 1) -> bytes:
    """Replace the pixels of a TIFF file.

    Args:
        data: The file.
        samples: The new pixels, of the channels and bits of the file.
        factor: The factor from the sides of the picture in the file to those of the new one, whose
            physical size is the same; default: 1.

    Returns:
        The new file, compressed by Deflate unless the old one is not compressed.

    Raises:
        UnreadableError: The new file would be larger than 4 GB.
    """
    tags = exif_module.parse(data)
    tags.drop([*_TILES, 288, 289])
    if factor > 1:
        tags.enlarge(factor)
        tags.set(_WIDTH, samples.shape[1])
        tags.set(_HEIGHT, samples.shape[0])
    compression = _NONE if _compression(tags) == _NONE else _DEFLATE
    predictor = tags.values(_PREDICTOR, (1,))[0] if compression == _DEFLATE else 1
    return _file(tags, samples, compression, predictor)


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
    tags = Tags("<", exif_module.Directory(), False)
    if metadata.exif is not None:
        tags = exif_module.parse(metadata.exif)
        tags.drop(_NOT_EXIF)
    rows, columns, channels = samples.shape
    tags.set(_WIDTH, columns)
    tags.set(_HEIGHT, rows)
    tags.set(_BITS, *[8 * samples.dtype.itemsize] * channels, short=True)
    tags.set(_PHOTOMETRIC, _RGB if channels > 2 else _GREY, short=True)
    tags.set(_CHANNELS, channels, short=True)
    if channels in (2, 4):
        tags.set(_EXTRA, _UNASSOCIATED_ALPHA, short=True)
    if metadata.icc is not None:
        tags.set_bytes(exif_module.ICC, metadata.icc)
    return _file(tags, samples, _DEFLATE, 2)


def _file(tags: Tags, samples: Samples, compression: int, predictor: int) -> bytes:
    """Serialize pixels and tags as a file: header, strips, directory."""
    rows, columns, channels = samples.shape
    rows_per_strip = max(1, _STRIP_BYTES // (columns * channels * samples.dtype.itemsize))
    strips = [_strip(samples[at : at + rows_per_strip], tags.order, compression, predictor)
              for at in range(0, rows, rows_per_strip)]  # fmt: skip
    places, at = [], 8
    for strip in strips:
        places.append(at)
        at += len(strip) + len(strip) % 2
    if at >= _MOST_BYTES:
        raise UnreadableError("would take more than the 4 GB that a TIFF file can hold")
    tags.set(_COMPRESSION, compression, short=True)
    tags.set(_PLANAR, 1, short=True)
    tags.set(_ROWS_PER_STRIP, rows_per_strip)
    tags.set(_OFFSETS, *places)
    tags.set(_BYTE_COUNTS, *map(len, strips))
    tags.drop([_PREDICTOR])
    if predictor != 1:
        tags.set(_PREDICTOR, predictor, short=True)
    even = (strip + bytes(len(strip) % 2) for strip in strips)
    directory = exif_module.pack_directory(tags.first, tags.order, at)
    return b"".join([exif_module.tiff_header(tags.order, at), *even, directory])


def _strip(samples: Samples, order: str, compression: int, predictor: int) -> bytes:
    """Serialize the rows of one strip."""
    if predictor == 2:
        samples = samples.copy()
        samples[:, 1:] -= samples[:, :-1].copy()
    stored = samples.astype(f"{order}u{samples.dtype.itemsize}").tobytes()
    return stored if compression == _NONE else zlib.compress(stored, _LEVEL)
