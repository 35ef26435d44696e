"""Read and write sample planes of decoded pictures; convert packed formats to planar ones.

A plane holds one component of a picture, such as Y or Cb. A code value is the integer that a plane
stores for a pixel.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import Interpolation

from vidrestore.common.errors import InputError
from vidrestore.imaging.geometry import Rect
from vidrestore.imaging.luma import BT601

if TYPE_CHECKING:
    import av
    import torch


# Planar format -> packed formats whose samples it holds unchanged; padding components are dropped.
_UNPACKED = {
    "gbrp": "rgb24 bgr24 rgb0 bgr0 0rgb 0bgr pal8",
    "gbrap": "rgba bgra argb abgr",
    "gbrp10le": "x2rgb10le x2bgr10le",
    "gbrp16le": "rgb48le rgb48be bgr48le bgr48be",
    "gbrap16le": "rgba64le rgba64be bgra64le bgra64be",
    "yuv420p": "nv12 nv21",
    "yuv422p": "yuyv422 uyvy422 yvyu422 nv16",
    "yuv444p": "nv24 nv42 vyu444 vuyx",
    "yuva444p": "vuya ayuv uyva ya8",
    "yuv420p10le": "p010le p010be",
    "yuv422p10le": "p210le p210be nv20le nv20be y210le",
    "yuv444p10le": "p410le p410be xv30le v30xle",
    "yuv420p12le": "p012le p012be",
    "yuv422p12le": "p212le p212be y212le",
    "yuv444p12le": "p412le p412be xv36le",
    "yuv420p16le": "p016le p016be",
    "yuv422p16le": "p216le p216be y216le",
    "yuv444p16le": "p416le p416be xv48le",
    "yuva444p16le": "ya16le ya16be",
}
_HALF_FLOATS = {"gbrpf16le": "gbrp16le", "gbrapf16le": "gbrap16le"}
GREATEST_HALF = 0x7BFF
"""The bit pattern of the greatest finite half float (65504); the patterns above it are infinity and
NaN.
"""
_FULL_RANGE = 2
_REFUSAL = (
    "vidrestore does not support the pixel format {} of this video; convert the video to another "
    "pixel format first"
)


@dataclass(frozen=True, slots=True)
class Layout:
    """The arrangement of components in the planes of a pixel format; alpha is left out."""

    planes: tuple[int, ...]
    """The plane numbers of Y, Cb and Cr; of Y alone; or of R, G and B."""
    is_rgb: bool
    """Whether the planes hold R'G'B' rather than Y' or Y'CbCr."""
    grid: tuple[int, int]
    """The number of luma pixels per chroma sample, (x, y); (1, 1) without subsampling."""
    bits: int
    """The number of bits per sample, 8 to 16."""


def copy_of(image: av.VideoFrame) -> av.VideoFrame:
    """Copy the samples of a frame.

    Args:
        image: The frame.

    Returns:
        A frame of the same size and pixel format, without time, tags and side data.
    """
    copy = av.VideoFrame(image.width, image.height, image.format.name)
    for index in range(len(image.planes)):
        plane(copy, index)[...] = plane(image, index)
    return copy


def layout(image: av.VideoFrame) -> Layout:
    """Return the layout of the planes of a decoded frame.

    Args:
        image: A frame in a planar format; `to_planar` converts packed ones.

    Returns:
        The layout, without alpha.

    Raises:
        InputError: vidrestore cannot change faces in this pixel format.
    """
    return _layout_of(image.format.name)


@cache
def _layout_of(name: str) -> Layout:
    """Return the layout of a pixel format by its name."""
    fmt = av.VideoFormat(name)
    if not _is_planar(fmt):
        raise InputError(_REFUSAL.format(name))
    bits = fmt.components[0].bits
    if fmt.name.startswith("gbr"):
        return Layout((2, 0, 1), True, (1, 1), bits)
    if len(fmt.components) < 3:
        return Layout((0,), False, (1, 1), bits)
    # PyAV does not state the subsampling, so it is derived from the plane sizes of 64 x 64 pixels.
    grid = (64 // fmt.chroma_width(64), 64 // fmt.chroma_height(64))
    return Layout((0, 1, 2), False, grid, bits)


@cache
def planar_format(name: str) -> str | None:
    """Return the planar little-endian pixel format that holds the same samples.

    Args:
        name: A pixel format by ffmpeg's name.

    Returns:
        The planar format, which is `name` itself where that is planar and little-endian. None where
        vidrestore does not support the format: samples in floating point or of one bit, XYZ, and
        rare packings.
    """
    for target, packed in _UNPACKED.items():
        if name in packed.split():
            return target
    little = re.sub("be$", "le", name)
    return little if _is_planar(av.VideoFormat(little)) else None


def to_planar(image: av.VideoFrame) -> av.VideoFrame:
    """Convert a frame to its `planar_format` without changing any sample.

    Args:
        image: A decoded frame in any pixel format.

    Returns:
        `image` itself where it is planar, else a writable copy with the times, tags, side data and
        interlaced flag of `image`.

    Raises:
        InputError: The format has no planar form, or its palette makes some pixels transparent.
    """
    name = image.format.name
    target = planar_format(name)
    if target is None:
        raise InputError(_REFUSAL.format(name))
    if target == name:
        return image
    if name.startswith("ya"):
        return _with_chroma(image, target)
    if name == "pal8" and _differs_in_opacity(image):
        raise InputError(
            "the palette of this video makes some of its pixels transparent, which vidrestore does "
            "not support; convert the video to the pixel format rgba first"
        )
    copy = image.reformat(format=target, interpolation=Interpolation.POINT, threads=1)
    copy.colorspace = image.colorspace  # swscale turns 5 into 6; both mean BT.601
    return copy


def _with_chroma(image: av.VideoFrame, target: str) -> av.VideoFrame:
    """Convert gray with alpha to full-range Y'CbCr with alpha and neutral chroma."""
    copy = av.VideoFrame(image.width, image.height, target)
    pixel_format = image.format
    sample_bytes = pixel_format.components[0].bits // 8
    dtype = np.dtype(f"{'>' if pixel_format.is_big_endian else '<'}u{sample_bytes}")
    packed = np.frombuffer(image.planes[0], dtype)  # type: ignore[call-overload]
    pairs = packed.reshape(image.height, -1)[:, : 2 * image.width].reshape(image.height, -1, 2)
    middle = 1 << (8 * dtype.itemsize - 1)
    for index, values in enumerate((pairs[..., 0], middle, middle, pairs[..., 1])):
        plane(copy, index)[...] = values
    _copy_times(image, copy)
    copy.color_range, copy.colorspace = _FULL_RANGE, image.colorspace
    return copy


def format_with_chroma(name: str, width: int, height: int) -> str:
    """Return the pixel format in which a gray picture of the same bits can get colors.

    Args:
        name: A planar pixel format by ffmpeg's name.
        width: The width of the picture in pixels.
        height: The height of the picture in pixels.

    Returns:
        For a format of luma alone, Y'CbCr with a chroma sample for each 2 x 2 pixels, or for each
        pixel where a side is odd; else `name`.
    """
    how = _layout_of(name)
    if len(how.planes) > 1:
        return name
    grid = "420" if width % 2 == height % 2 == 0 else "444"
    return f"yuv{grid}p{'' if how.bits == 8 else f'{how.bits}le'}"


def with_chroma(image: av.VideoFrame) -> av.VideoFrame:
    """Give a picture of luma alone neutral chroma; no sample of luma changes.

    Args:
        image: A frame in a planar format.

    Returns:
        A writable copy in `format_with_chroma`; `image` itself where it has chroma.
    """
    how, name = layout(image), image.format.name
    target = format_with_chroma(name, image.width, image.height)
    if target == name:
        return image
    copy = av.VideoFrame(image.width, image.height, target)
    for index, values in enumerate((plane(image, 0), 1 << (how.bits - 1), 1 << (how.bits - 1))):
        plane(copy, index)[...] = values
    _copy_times(image, copy)
    copy.color_range, copy.colorspace = image.color_range, image.colorspace
    return copy


def _copy_times(image: av.VideoFrame, copy: av.VideoFrame) -> None:
    copy.pts, copy.duration = image.pts, image.duration
    if image.time_base is not None:
        copy.time_base = image.time_base


def with_codes_of_halves(image: av.VideoFrame) -> av.VideoFrame:
    """Convert a picture of half floats to a 16-bit picture by `codes_of_halves`.

    Args:
        image: A decoded frame.

    Returns:
        A new frame in gbrp16le or gbrap16le, marked as full range; `image` itself where its format
        is not one of half floats.
    """
    target = _HALF_FLOATS.get(image.format.name)
    if target is None:
        return image
    copy = av.VideoFrame(image.width, image.height, target)
    for index in range(len(copy.planes)):
        plane(copy, index)[...] = codes_of_halves(plane(image, index))
    _copy_times(image, copy)
    copy.color_range, copy.colorspace = _FULL_RANGE, image.colorspace
    return copy


def codes_of_halves(bits: npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
    """Map half floats (IEEE 754 binary16) to integers in the same order.

    The code of 0 is 32768, that of -0 is 32767. Each bit pattern has a code of its own, so
    `halves_of_codes` restores it exactly.

    Args:
        bits: Bit patterns of half floats as uint16, of any shape.

    Returns:
        Codes from 0 to 65535, of the same shape.
    """
    return np.where(bits < 0x8000, bits + np.uint16(0x8000), 0xFFFF - bits).astype(np.uint16)


def halves_of_codes(codes: npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
    """Map the codes of `codes_of_halves` back to half floats.

    Args:
        codes: Codes from 0 to 65535 as uint16, of any shape.

    Returns:
        Bit patterns of half floats, of the same shape.
    """
    return np.where(codes >= 0x8000, codes - np.uint16(0x8000), 0xFFFF - codes).astype(np.uint16)


def plane(image: av.VideoFrame, index: int) -> npt.NDArray[Any]:
    """Return a view of the samples of one plane.

    Args:
        image: A frame in a planar little-endian format of 8 to 16 bits.
        index: The number of the plane, from 0.

    Returns:
        (rows, columns) uint8, or little-endian uint16 for more than 8 bits, without the padding at
        the ends of the rows. The view is writable after `image.make_writable()`.
    """
    source = image.planes[index]
    dtype = np.dtype(np.uint8 if image.format.components[0].bits <= 8 else "<u2")
    samples = np.frombuffer(source, dtype)  # type: ignore[call-overload]
    view: npt.NDArray[Any] = samples.reshape(source.height, source.line_size // dtype.itemsize)
    return view[:, : source.width]


def luma_8bit(image: av.VideoFrame) -> npt.NDArray[np.uint8]:
    """Return the luma of a planar picture, shifted down to 8 bits.

    For R'G'B', luma is computed with the BT.601 weights in 1/256: they show least of the error of
    chroma that was stored for every other line only.

    Args:
        image: A frame in a planar format.

    Returns:
        (H, W) uint8 Y', in the range (limited or full) of the picture.
    """
    how = layout(image)
    shift = how.bits - 8
    if not how.is_rgb:
        luma = plane(image, how.planes[0])
        return np.asarray(luma >> shift, np.uint8) if shift else luma.copy()
    red, green, blue = (plane(image, number).astype(np.uint32) for number in how.planes)
    by_red, by_green, by_blue = (round(weight * 256) for weight in BT601)
    luma = (by_red * red + by_green * green + by_blue * blue + (128 << shift)) >> (8 + shift)
    return np.asarray(np.minimum(luma, 255), np.uint8)


def samples(image: av.VideoFrame, index: int, rect: Rect) -> torch.Tensor:
    """Read a rectangle of one plane as floating-point code values.

    Args:
        image: A frame in a planar format.
        index: The number of the plane, from 0.
        rect: The rectangle in samples of this plane.

    Returns:
        (h, w) float32 code values.
    """
    import torch  # pass one reads planes, too, and runs without it

    view = plane(image, index)[rect.y0 : rect.y1, rect.x0 : rect.x1]
    return torch.from_numpy(view.astype(np.float32))


def add(image: av.VideoFrame, index: int, rect: Rect, difference: torch.Tensor, bits: int) -> None:
    """Add a rounded difference to a rectangle of one plane, in place.

    Args:
        image: A writable frame in a planar format.
        index: The number of the plane, from 0.
        rect: The rectangle in samples of this plane.
        difference: (h, w) in code values. It is rounded before it is added, so 0 changes nothing.
        bits: The number of bits per sample; sums are clipped to 0 .. 2**bits - 1.
    """
    view = plane(image, index)[rect.y0 : rect.y1, rect.x0 : rect.x1]
    total = np.rint(difference.numpy())
    total += view
    np.copyto(view, total.clip(0, 2**bits - 1, out=total), casting="unsafe")


def chroma_rect(rect: Rect, grid: tuple[int, int]) -> Rect:
    """Return the chroma samples that cover a rectangle of luma pixels.

    Convention: luma pixel (x, y) belongs to chroma sample (x // grid x, y // grid y); the end of
    the rectangle is rounded up.

    Args:
        rect: The rectangle in luma pixels.
        grid: The number of luma pixels per chroma sample, (x, y).

    Returns:
        The rectangle in chroma samples.
    """
    x, y = grid
    return Rect(rect.x0 // x, rect.y0 // y, -(-rect.x1 // x), -(-rect.y1 // y))


def _is_planar(fmt: av.VideoFormat) -> bool:
    """Whether each component has a plane of its own, of little-endian integers from bit 0 on."""
    own_planes = all(c.plane == i for i, c in enumerate(fmt.components))
    own_planes = own_planes or fmt.name.startswith("gbr")
    is_unsupported = fmt.is_big_endian or fmt.has_palette or fmt.is_bit_stream or "msb" in fmt.name
    is_float = re.search(r"f(16|32)le$", fmt.name) is not None
    bits = max((c.bits for c in fmt.components), default=0)
    return own_planes and not is_unsupported and not is_float and 8 <= bits <= 16


def _differs_in_opacity(image: av.VideoFrame) -> bool:
    """Whether the pixels of a frame with a palette have more than one value of alpha."""
    palette = np.frombuffer(image.planes[1], np.uint8)  # type: ignore[call-overload]
    alpha = palette.reshape(-1, 4)[:, 3]  # a word 0xAARRGGBB, little-endian
    return bool(np.ptp(alpha[np.unique(plane(image, 0))]) > 0)


def checksum(image: av.VideoFrame) -> int:
    """Return the CRC-32 of the samples of all planes, without row padding.

    Args:
        image: A frame in a planar format.

    Returns:
        The CRC-32, 0 to 2**32 - 1.
    """
    crc = 0
    for index in range(len(image.planes)):
        crc = zlib.crc32(np.ascontiguousarray(plane(image, index)).data, crc)
    return crc
