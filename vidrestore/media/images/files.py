"""Pictures of every kind: looked at before the work, and written with other pixels after it."""

from __future__ import annotations

import mmap
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from vidrestore.common.errors import InputError, system_reason
from vidrestore.media.images import Pictures, dpx, exr, jpeg, kind_of, png, tiff
from vidrestore.media.images.header import Carried, Header, Samples, UnreadableError

_READ = {"jpeg": jpeg.read, "png": png.read, "tiff": tiff.read, "dpx": dpx.read, "exr": exr.read}
_REWRITTEN = {
    "png": png.rewritten, "tiff": tiff.rewritten, "dpx": dpx.rewritten, "exr": exr.rewritten,
}  # fmt: skip
_CARRIED = {"jpeg": jpeg.carried, "png": png.carried, "tiff": tiff.carried}
_MADE = {"png": png.made, "tiff": tiff.made}


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The bytes of a file, not all of them in memory; InputError where it cannot be read."""
    try:
        if path.stat().st_size == 0:
            raise InputError(f"the file {path} is empty")
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
    """InputError for what is not the kind of picture that its name says, or not one that is
    written here."""
    kind = kind_of(path)
    with opened(path) as data:
        return _READ[kind](data)


def check_alike(pictures: Pictures) -> Header:
    """That of the first; InputError, naming the first that is another, where they differ."""
    first: Header | None = None
    for path in pictures.files:
        found = read_header(path)
        if first is None:
            first = found
        elif found != first:
            turned = "" if found.orientation == first.orientation else " turned otherwise"
            raise InputError(
                f"{path} has {found.shape}{turned}, unlike {pictures.files[0].name} with "
                f"{first.shape}; restore what is alike together"
            )
    assert first is not None
    return first


def with_samples(path: Path, samples: Samples, target_kind: str) -> bytes:
    """A file of that kind, not JPEG, that shows `samples` and carries what `path` carries."""
    kind = kind_of(path)
    with opened(path) as data:
        if kind != target_kind:
            return _MADE[target_kind](np.ascontiguousarray(samples), carried(data, kind))
        return _REWRITTEN[kind](data, np.ascontiguousarray(samples))


def with_jpeg(path: Path, encoded: bytes) -> bytes:
    """A JPEG file that shows what `encoded` does and carries what `path` carries."""
    kind = kind_of(path)
    with opened(path) as data:
        if kind == "jpeg":
            return jpeg.rewritten(data, encoded)
        return jpeg.made(encoded, carried(data, kind))


def carried(data: Any, kind: str) -> Carried:
    return _CARRIED[kind](data)


def changes_beside(path: Path, target_kind: str) -> list[str]:
    """What becomes of all that is not pixels where it is not kept as it is, in sentences."""
    kind = kind_of(path)
    with opened(path) as data:
        said = []
        if kind == "jpeg" and jpeg.has_further_pictures(data):
            said.append(
                "of pictures with restored faces, further ones in the same file, a preview or a "
                "map of gains, are left out"
            )
        if kind == target_kind == "tiff" and tiff.becomes_deflate(data):
            said.append("pictures with restored faces are compressed by Deflate, as lossless as "
                        "before")  # fmt: skip
        if kind != target_kind:
            if target_kind == "jpeg" and not jpeg.fits(carried(data, kind)):
                said.append("Exif data that is too large for a JPEG is left out")
            said.append("of what goes with the pixels, the colour profile and Exif data are kept, "
                        "other notes are not; an output of the same kind keeps all")  # fmt: skip
        return said
