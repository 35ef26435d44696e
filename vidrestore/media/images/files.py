"""Reads picture files of every kind, and writes them with other pixels."""

from __future__ import annotations

import mmap
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vidrestore.common.errors import InputError, system_reason
from vidrestore.media.images import Pictures, dpx, exr, jpeg, kind_of, png, tiff
from vidrestore.media.images.header import Header, Metadata, Samples, UnreadableError

_READ = {"jpeg": jpeg.read, "png": png.read, "tiff": tiff.read, "dpx": dpx.read, "exr": exr.read}
_REPLACE_PIXELS = {
    "png": png.replace_pixels,
    "tiff": tiff.replace_pixels,
    "dpx": dpx.replace_pixels,
    "exr": exr.replace_pixels,
}
_READ_METADATA = {"jpeg": jpeg.read_metadata, "png": png.read_metadata, "tiff": tiff.read_metadata}
_SIZES_IN_XMP = (b"exif:PixelXDimension", b"tiff:ImageWidth")
_NEW_FILE = {"png": png.new_file, "tiff": tiff.new_file}


@contextmanager
def open_picture(path: Path) -> Iterator[Any]:
    """Map a file into memory and convert errors while it is parsed.

    Args:
        path: The file.

    Yields:
        The bytes of the file as a memory map.

    Raises:
        InputError: The file is empty, damaged, or cannot be read.
    """
    try:
        if path.stat().st_size == 0:
            raise InputError(f"the file {path} is empty; copy it again from its source")
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield data
    except OSError as error:
        reason = system_reason(error)
        raise InputError(f"the file {path} cannot be read: {reason}") from error
    except UnreadableError as error:
        raise InputError(f"{path} {error}") from error
    except (ValueError, IndexError, struct.error, zlib.error) as error:
        raise InputError(f"{path} is damaged: {error}") from error


def read_header(path: Path) -> Header:
    """Read the header of a picture.

    Args:
        path: The file.

    Returns:
        The header.

    Raises:
        InputError: The file is not of the kind that its suffix names, or vidrestore cannot write
            such a file.
        UsageError: vidrestore does not support this kind of picture.
    """
    kind = kind_of(path)
    with open_picture(path) as data:
        return _READ[kind](data)


def check_alike(pictures: Pictures) -> Header:
    """Check that all pictures have the same header.

    Args:
        pictures: The pictures.

    Returns:
        The common header.

    Raises:
        InputError: A picture differs from the first one, or cannot be read.
    """
    first: Header | None = None
    for path in pictures.files:
        header = read_header(path)
        if first is None:
            first = header
        elif header != first:
            turned = "" if header.orientation == first.orientation else " in another orientation"
            raise InputError(
                f"{path} has {header.shape}{turned}, unlike {pictures.files[0].name} with "
                f"{first.shape}; restore pictures of one kind together"
            )
    assert first is not None
    return first


def with_samples(path: Path, samples: Samples, target_kind: str, factor: int = 1) -> bytes:
    """Make a picture file with other pixels and the metadata of an existing file.

    Args:
        path: The existing file.
        samples: (rows, columns, channels) uint8 or uint16, as in `header.Samples`.
        target_kind: The kind of the new file: png or tiff, or the kind of `path`; not jpeg.
        factor: The factor from the sides of the existing picture to those of the new one; default:
            1. The metadata states the new size in pixels and the old physical size.

    Returns:
        The new file.

    Raises:
        InputError: The existing file cannot be read, or the new one would be too large.
    """
    kind = kind_of(path)
    with open_picture(path) as data:
        samples = np.ascontiguousarray(samples)
        if kind != target_kind:
            return _NEW_FILE[target_kind](samples, _enlarged(read_metadata(data, kind), factor))
        return _REPLACE_PIXELS[kind](data, samples, factor)


def with_jpeg(path: Path, encoded: bytes, factor: int = 1) -> bytes:
    """Make a JPEG file with other pixels and the metadata of an existing file.

    Args:
        path: The existing file, of any kind.
        encoded: The pixels as a JPEG file.
        factor: As for `with_samples`; default: 1.

    Returns:
        The new file.

    Raises:
        InputError: The existing file cannot be read.
    """
    kind = kind_of(path)
    with open_picture(path) as data:
        if kind == "jpeg":
            return jpeg.replace_pixels(data, encoded, factor)
        return jpeg.new_file(encoded, _enlarged(read_metadata(data, kind), factor))


def _enlarged(metadata: Metadata, factor: int) -> Metadata:
    """Return metadata as it is right for a picture with longer sides."""
    if metadata.exif is None:
        return metadata
    return replace(metadata, exif=png.enlarged_exif(metadata.exif, factor))


def read_metadata(data: Any, kind: str) -> Metadata:
    """Read the metadata that goes along to another kind of file.

    Args:
        data: The file.
        kind: The kind of the file: jpeg, png or tiff.

    Returns:
        Color profile and Exif data.

    Raises:
        UnreadableError: The file is damaged.
    """
    return _READ_METADATA[kind](data)


def metadata_changes(path: Path, target_kind: str, factor: int = 1) -> list[str]:
    """Describe what changes in a file apart from its pixels, and what does not but should.

    Args:
        path: The file.
        target_kind: The kind of the new file.
        factor: The factor from the sides of the picture in the file to those of the new one;
            default: 1.

    Returns:
        Notices for the user, one sentence each.

    Raises:
        InputError: The file cannot be read.
    """
    kind = kind_of(path)
    with open_picture(path) as data:
        notices = []
        if kind == "jpeg" and jpeg.has_further_pictures(data):
            notices.append(
                "vidrestore leaves further pictures in the same file, such as a preview or a gain "
                "map, out of pictures with restored faces"
            )
        if kind == target_kind == "tiff" and tiff.becomes_deflate(data):
            notices.append(
                "pictures with restored faces are compressed by Deflate, which is lossless as well"
            )
        if factor > 1 and kind == target_kind:
            if kind == "exr" and exr.has_further_channels(data):
                notices.append(
                    "channels other than R, G, B and A are enlarged by repeating their values"
                )
            if any(data.find(word) >= 0 for word in _SIZES_IN_XMP):
                notices.append("the XMP data in the pictures still states the size of the source")
        if kind != target_kind:
            if target_kind == "jpeg" and not jpeg.exif_fits(read_metadata(data, kind)):
                notices.append("vidrestore leaves out Exif data that is too large for a JPEG file")
            notices.append(
                "color profile and Exif data are kept, other metadata is not; an output of the "
                "same kind keeps all metadata"
            )
        return notices
