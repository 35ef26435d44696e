"""What a picture's file says of its pixels, and what else it carries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[Any]
"""(rows, columns, channels) uint8 or uint16; R, G, B or grey, then alpha where there is one."""


@dataclass(frozen=True, slots=True)
class Header:
    """Of a file that can be written with other pixels."""

    kind: str
    width: int
    height: int
    channels: int
    """1 grey, 2 grey and alpha, 3 R'G'B' (or, of JPEG, Y'CbCr), 4 R'G'B' and alpha."""
    bits: int
    orientation: int = 1
    """As Exif counts them: 1 is upright."""

    @property
    def shape(self) -> str:
        """In words."""
        colours = {1: "grey", 2: "grey and alpha", 3: "colour", 4: "colour and alpha"}
        return f"{self.width} x {self.height} pixels of {self.bits} bits, {colours[self.channels]}"


@dataclass(frozen=True, slots=True)
class Carried:
    """What goes from one kind of file to another."""

    icc: bytes | None = None
    """A colour profile."""
    exif: bytes | None = None
    """In the form of `tags.parse`."""


class UnreadableError(ValueError):
    """Goes on a sentence that begins with the file's name."""


def big_endian(samples: Samples) -> bytes:
    return np.ascontiguousarray(samples, samples.dtype.newbyteorder(">")).tobytes()
