"""The header of a picture file, and the metadata that other kinds of files can take over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[Any]
"""(rows, columns, channels) uint8 or uint16: R, G, B or gray, then alpha where there is one."""


@dataclass(frozen=True, slots=True)
class Header:
    """The header of a picture file whose pixels vidrestore can replace."""

    kind: str
    """The kind of the file: jpeg, png, tiff, dpx or exr."""
    width: int
    """The width of the stored picture in pixels."""
    height: int
    """The height of the stored picture in pixels."""
    channels: int
    """The number of channels: 1 gray, 2 gray and alpha, 3 R'G'B' (Y'CbCr in JPEG), 4 R'G'B' and
    alpha.
    """
    bits: int
    """The number of bits per sample."""
    orientation: int = 1
    """The Exif orientation, 1 to 8; 1 is upright."""

    @property
    def shape(self) -> str:
        """The size, bits and channels in words, for messages."""
        content = {1: "gray", 2: "gray and alpha", 3: "color", 4: "color and alpha"}
        return f"{self.width} x {self.height} pixels of {self.bits} bits, {content[self.channels]}"


@dataclass(frozen=True, slots=True)
class Metadata:
    """The metadata that goes along to another kind of file."""

    icc: bytes | None = None
    """The ICC color profile; None where there is none."""
    exif: bytes | None = None
    """The Exif data in the form that `exif.parse` takes; None where there is none."""


class UnreadableError(ValueError):
    """An error whose text continues a sentence that begins with the name of the file."""


def big_endian_bytes(samples: Samples) -> bytes:
    """Serialize samples in big-endian byte order.

    Args:
        samples: Samples of any shape.

    Returns:
        The bytes, row by row.
    """
    return np.ascontiguousarray(samples, samples.dtype.newbyteorder(">")).tobytes()
