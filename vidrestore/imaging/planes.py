"""The planes of a decoded picture: what they hold, their samples, and packed formats unpacked."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import numpy.typing as npt
import torch
from av.video.reformatter import Interpolation

from vidrestore.common.errors import InputError
from vidrestore.imaging.geometry import Rect
from vidrestore.imaging.luma import BT601

if TYPE_CHECKING:
    import av


# Planar formats that hold the very samples of packed ones; what only fills up a pixel is left out.
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
"""Its bits; beyond them are infinity and what is no number."""
_FULL_RANGE = 2
_REFUSAL = "the pixel format {} of this video is not supported"


@dataclass(frozen=True, slots=True)
class Layout:
    """How the planes of a pixel format are to be read."""

    planes: tuple[int, ...]
    """Plane numbers of Y, Cb, Cr; of Y; or of R, G, B."""
    is_rgb: bool
    grid: tuple[int, int]
    """Luma pixels per chroma sample, (x, y)."""
    bits: int


def layout(image: av.VideoFrame) -> Layout:
    """The layout of a decoded frame; InputError for formats whose faces cannot be changed.

    Packed formats have none before `to_planar` took them apart. Alpha is in no layout.
    """
    return _layout_of(image.format.name)


@cache
def _layout_of(name: str) -> Layout:
    fmt = av.VideoFormat(name)
    if not _is_planar(fmt):
        raise InputError(_REFUSAL.format(name))
    bits = fmt.components[0].bits
    if fmt.name.startswith("gbr"):
        return Layout((2, 0, 1), True, (1, 1), bits)
    if len(fmt.components) < 3:
        return Layout((0,), False, (1, 1), bits)
    # The widths of a 64 x 64 picture's planes give the subsampling.
    grid = (64 // fmt.chroma_width(64), 64 // fmt.chroma_height(64))
    return Layout((0, 1, 2), False, grid, bits)


def planar_format(name: str) -> str | None:
    """The planar little-endian format with the same samples: `name` itself where it is one.

    None for what is not supported: samples in floating point, of one bit, XYZ, and rare packings.
    """
    for target, packed in _UNPACKED.items():
        if name in packed.split():
            return target
    little = re.sub("be$", "le", name)
    return little if _is_planar(av.VideoFormat(little)) else None


def to_planar(image: av.VideoFrame) -> av.VideoFrame:
    """The frame itself where it is planar, else a writable copy in its `planar_format`.

    Every sample keeps its value, and the copy its times, tags, side data and interlaced flag.
    InputError where there is no such format, or where a palette makes some pixels transparent.
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
            "the palette of this video makes some of its pixels transparent, which is not "
            "supported; convert it to the pixel format rgba first"
        )
    copy = image.reformat(format=target, interpolation=Interpolation.POINT, threads=1)
    copy.colorspace = image.colorspace  # swscale takes 5 for 6, both of which mean BT.601
    return copy


def _with_chroma(image: av.VideoFrame, target: str) -> av.VideoFrame:
    """Grey with alpha as Y'CbCr with alpha, in full range, which has the form of one."""
    copy = av.VideoFrame(image.width, image.height, target)
    form = image.format
    dtype = np.dtype(f"{'>' if form.is_big_endian else '<'}u{form.components[0].bits // 8}")
    packed = np.frombuffer(image.planes[0], dtype)  # type: ignore[call-overload]
    pairs = packed.reshape(image.height, -1)[:, : 2 * image.width].reshape(image.height, -1, 2)
    middle = 1 << (8 * dtype.itemsize - 1)
    for index, samples_there in enumerate((pairs[..., 0], middle, middle, pairs[..., 1])):
        plane(copy, index)[...] = samples_there
    copy.pts, copy.duration = image.pts, image.duration
    if image.time_base is not None:
        copy.time_base = image.time_base
    copy.color_range, copy.colorspace = _FULL_RANGE, image.colorspace
    return copy


def with_codes_of_halves(image: av.VideoFrame) -> av.VideoFrame:
    """A picture of half floats as one of 16 bits, by `codes_of_halves`; any other is handed on."""
    target = _HALF_FLOATS.get(image.format.name)
    if target is None:
        return image
    copy = av.VideoFrame(image.width, image.height, target)
    for index in range(len(copy.planes)):
        plane(copy, index)[...] = codes_of_halves(plane(image, index))
    copy.pts, copy.duration = image.pts, image.duration
    if image.time_base is not None:
        copy.time_base = image.time_base
    copy.color_range, copy.colorspace = _FULL_RANGE, image.colorspace
    return copy


def codes_of_halves(bits: npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
    """The bits of half floats (IEEE 754 binary16) as integers that grow with what they stand for.

    0 is 32768, -0 one less. Every pattern has its own code, so nothing is lost on the way back.
    """
    return np.where(bits < 0x8000, bits + np.uint16(0x8000), 0xFFFF - bits).astype(np.uint16)


def halves_of_codes(codes: npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
    """The inverse of `codes_of_halves`."""
    return np.where(codes >= 0x8000, codes - np.uint16(0x8000), 0xFFFF - codes).astype(np.uint16)


def plane(image: av.VideoFrame, index: int) -> npt.NDArray[Any]:
    """A view (rows, columns) of one plane; writable once image.make_writable() was called."""
    source = image.planes[index]
    dtype = np.dtype(np.uint8 if image.format.components[0].bits <= 8 else "<u2")
    samples = np.frombuffer(source, dtype)  # type: ignore[call-overload]
    view: npt.NDArray[Any] = samples.reshape(source.height, source.line_size // dtype.itemsize)
    return view[:, : source.width]


def luma_8bit(image: av.VideoFrame) -> npt.NDArray[np.uint8]:
    """(H, W) Y' of a planar picture, in its own range, without the bits beyond eight.

    Of R'G'B' by the constants of BT.601: chroma of which only every other line was known then shows
    in it as little as can be.
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
    """(h, w) float32 code values of the part `rect` of one plane."""
    view = plane(image, index)[rect.y0 : rect.y1, rect.x0 : rect.x1]
    return torch.from_numpy(view.astype(np.float32))


def add(image: av.VideoFrame, index: int, rect: Rect, difference: torch.Tensor, bits: int) -> None:
    """Add the (h, w) `difference`, rounded by itself, to the part `rect` of a writable plane.

    What it carries beyond the code values of `bits` is cut off.
    """
    view = plane(image, index)[rect.y0 : rect.y1, rect.x0 : rect.x1]
    total = np.rint(difference.cpu().numpy())
    total += view
    np.copyto(view, total.clip(0, 2**bits - 1, out=total), casting="unsafe")


def chroma_rect(rect: Rect, grid: tuple[int, int]) -> Rect:
    """The chroma samples of a luma rectangle."""
    x, y = grid
    return Rect(rect.x0 // x, rect.y0 // y, -(-rect.x1 // x), -(-rect.y1 // y))


def _is_planar(fmt: av.VideoFormat) -> bool:
    """Whether each component has a plane of its own, of little-endian integers from bit 0 on."""
    own = all(c.plane == i for i, c in enumerate(fmt.components)) or fmt.name.startswith("gbr")
    other = fmt.is_big_endian or fmt.has_palette or fmt.is_bit_stream or "msb" in fmt.name
    is_float = re.search(r"f(16|32)le$", fmt.name) is not None
    bits = max((c.bits for c in fmt.components), default=0)
    return own and not other and not is_float and 8 <= bits <= 16


def _differs_in_opacity(image: av.VideoFrame) -> bool:
    """Of a frame with a palette: whether its pixels have more than one value of alpha."""
    palette = np.frombuffer(image.planes[1], np.uint8)  # type: ignore[call-overload]
    alpha = palette.reshape(-1, 4)[:, 3]  # a word 0xAARRGGBB, little-endian
    return bool(np.ptp(alpha[np.unique(plane(image, 0))]) > 0)


def checksum(image: av.VideoFrame) -> int:
    """crc32 of the samples of all planes, without the padding at the ends of their rows."""
    crc = 0
    for index in range(len(image.planes)):
        crc = zlib.crc32(np.ascontiguousarray(plane(image, index)).data, crc)
    return crc
