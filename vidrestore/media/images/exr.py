"""OpenEXR files whose R, G, B and A are half floats: replaces the pixels and keeps the attributes.

The OpenEXR library reads and writes the files. Terms are those of "Technical Introduction to
OpenEXR", openexr.com.
"""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

import numpy as np

from vidrestore.imaging.planes import GREATEST_HALF, codes_of_halves, halves_of_codes
from vidrestore.media.images.header import Header, Samples, UnreadableError

if TYPE_CHECKING:
    import OpenEXR

_MAGIC = b"v/1\x01"
_LOSSLESS = ("NO", "RLE", "ZIPS", "ZIP", "PIZ", "PXR24")
"""The compressions that preserve half floats exactly."""
_TABLE_ROWS = 513


def read(data: Any) -> Header:
    """Read the header of an OpenEXR file and check that its pixels can be replaced.

    Args:
        data: The whole file: bytes or a memory map.

    Returns:
        The header; it counts only the channels R, G, B and A.

    Raises:
        UnreadableError: The file is not an OpenEXR file, is cut short or damaged, or is of a kind
            that vidrestore does not write.
    """
    part = _part(data)
    _check(part)
    return Header("exr", part.width(), part.height(), len(_order(part)), 16)


def replace_pixels(data: Any, samples: Samples, factor: int = 1) -> bytes:
    """Replace the pixels of an OpenEXR file and keep its attributes, compression and tiles.

    Args:
        data: The whole file.
        samples: (rows, columns, channels) uint16 codes of half floats
            (`vidrestore.imaging.planes`): R, G, B, and A if the file has it.
        factor: The factor from the sides of the picture in the file to those of the new one, whose
            physical size is the same; default: 1.

    Returns:
        The new file. Other channels keep their values; in a larger picture each value is repeated.

    Raises:
        UnreadableError: The file is damaged.
    """
    import OpenEXR

    part = _part(data)
    order = _order(part)
    halves = halves_of_codes(samples)
    if factor > 1:
        _enlarge(part, factor)
    for index, name in enumerate(order):
        pixels = np.ascontiguousarray(halves[..., index]).view(np.float16)
        part.channels[name].pixels = pixels
    target = io.BytesIO()
    OpenEXR.File([part]).write(target)
    return target.getvalue()


def has_further_channels(data: Any) -> bool:
    """Tell whether a file has other channels than R, G, B and A, such as depth.

    Args:
        data: The whole file: bytes or a memory map.

    Returns:
        True where it has any.

    Raises:
        UnreadableError: The file is damaged.
    """
    part = _part(data)
    return len(part.channels) > len(_order(part))


def _enlarge(part: OpenEXR.Part, factor: int) -> None:
    """Make the windows of a part larger, and repeat the values of its further channels."""
    (x, y), (right, bottom) = part.header["dataWindow"]
    last = x + factor * (right - x + 1) - 1, y + factor * (bottom - y + 1) - 1
    window = np.array([x, y], np.int32), np.array(last, np.int32)
    part.header["dataWindow"] = part.header["displayWindow"] = window
    if "xDensity" in part.header:
        part.header["xDensity"] *= factor
    for name, channel in part.channels.items():
        if name not in tuple("RGBA"):
            larger = channel.pixels.repeat(factor, axis=0).repeat(factor, axis=1)
            channel.pixels = np.ascontiguousarray(larger)


def matches_pixels(data: Any, samples: Samples) -> bool:
    """Return whether the decoder gave the same pixels as the OpenEXR library.

    Args:
        data: The whole file.
        samples: (rows, columns, channels) uint16 codes of half floats from the decoder.

    Returns:
        False where a pixel differs.

    Raises:
        UnreadableError: The file is damaged.
    """
    part = _part(data)
    channels = [part.channels[name].pixels.view(np.uint16) for name in _order(part)]
    return np.array_equal(codes_of_halves(np.dstack(channels)), samples)


def display_table() -> tuple[tuple[float, float, float], ...]:
    """Return the display values of R', G' and B' for codes from 0 to 65535, for `VideoInfo.curve`.

    The table maps light, 1 at white, to display values by the curve of sRGB (IEC 61966-2-1). The
    curve continues beyond 1 and is mirrored below 0. Infinity and NaN lie a step beyond the
    greatest value.
    """
    codes = np.linspace(0, 65535, _TABLE_ROWS)
    distance = np.maximum(codes - 32768, 32767 - codes).clip(0)
    below = np.floor(distance.clip(max=GREATEST_HALF)).astype(np.uint16)
    least, greater = (
        each.view(np.float16).astype(np.float64)
        for each in (below, np.minimum(below + 1, GREATEST_HALF).astype(np.uint16))
    )
    light = least + (distance.clip(max=GREATEST_HALF) - below) * (greater - least)
    display = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    display += (distance - GREATEST_HALF).clip(0)
    display = np.copysign(display, codes - 32767.5)
    return tuple((v, v, v) for v in display.tolist())


def _part(data: Any) -> OpenEXR.Part:
    """Read the only part of the file, with its pixels."""
    import OpenEXR

    if bytes(data[:4]) != _MAGIC:
        raise UnreadableError("is not an OpenEXR file, despite its suffix")
    headers = _parts(data, header_only=True)
    if len(headers) > 1:
        raise UnreadableError("is an OpenEXR file of several parts; save it as one part")
    if headers[0].type() in (OpenEXR.deepscanline, OpenEXR.deeptile):
        raise UnreadableError("is an OpenEXR file of deep pixels; save it in scan lines or tiles")
    tiles = headers[0].header.get("tiles")
    if tiles is not None and tiles.mode != OpenEXR.ONE_LEVEL:
        raise UnreadableError("holds smaller copies of its picture (mipmaps); save it without them")
    return _parts(data, header_only=False)[0]


def _parts(data: Any, *, header_only: bool) -> list[OpenEXR.Part]:
    """Read the parts of a file, with or without their pixels."""
    import OpenEXR

    try:
        # The library prints a warning about pixels that it cannot read, and omits their part.
        with redirect_stdout(io.StringIO()):
            file = OpenEXR.File(io.BytesIO(data), separate_channels=True, header_only=header_only)
    except (RuntimeError, ValueError, TypeError, MemoryError) as error:
        raise UnreadableError(f"is damaged or cut short: {_reason(error)}") from error
    if not file.parts:
        raise UnreadableError("is damaged or cut short: its pixels cannot be read")
    return list(file.parts)


def _reason(error: Exception) -> str:
    """Return the first line of the library's message."""
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


def _check(part: OpenEXR.Part) -> None:
    """Raise UnreadableError for a file that vidrestore could not write back unchanged."""
    compression = part.compression().name.removesuffix("_COMPRESSION")
    if compression not in _LOSSLESS:
        raise UnreadableError(
            f"is compressed by {compression}, which changes pixels each time they are written; "
            "save it with ZIP, ZIPS, PIZ, RLE, PXR24 or without compression"
        )
    if not np.array_equal(part.header["dataWindow"], part.header["displayWindow"]):
        raise UnreadableError(
            "has a data window that differs from its display window; crop or pad it to the display "
            "window"
        )
    for name in (order := _order(part)):
        channel = part.channels[name]
        if channel.pixels.dtype != np.float16 or (channel.xSampling, channel.ySampling) != (1, 1):
            raise UnreadableError(
                f"does not hold a half float for each pixel in its channel {name}; save it with "
                "half floats and without subsampling"
            )
    if order not in ("RGB", "RGBA"):
        names = ", ".join(sorted(part.channels)) or "none"
        raise UnreadableError(
            f"has the channels {names}; vidrestore needs R, G and B, with or without A"
        )


def _order(part: OpenEXR.Part) -> str:
    """Return which of the channels R, G, B and A the file has."""
    return "".join(name for name in "RGBA" if name in part.channels)
