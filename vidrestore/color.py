"""Matrices, ranges, and R'G'B' <-> Y'CbCr of one region of a frame.

R'G'B' is (3, H, W) float32, 0 black and 1 white, not clipped: values that the planes can hold
beyond black and white survive. Formulas: Rec. ITU-R BT.601-7, BT.709-6, BT.2020-2; the code values
of both ranges: ISO/IEC 23091-2. float32 is within 0.05 code values at 16 bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from vidrestore import transfer
from vidrestore.errors import InputError
from vidrestore.frame import VideoInfo
from vidrestore.geometry import Rect
from vidrestore.planes import Layout as Layout
from vidrestore.planes import add, samples
from vidrestore.planes import chroma_rect as chroma_rect
from vidrestore.planes import layout as layout
from vidrestore.planes import plane as plane

if TYPE_CHECKING:
    import av

_LUMA_WEIGHTS = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}

# ISO/IEC 23091-2 MatrixCoefficients that this module computes with, and those it does not.
_OTHER_MATRICES = {8: "YCgCo", 10: "BT.2020 with constant luminance", 11: "ST 2085",
                   12: "derived from primaries", 13: "derived from primaries, constant luminance",
                   14: "ICtCp", 15: "IPT-C2", 16: "YCgCo-Re", 17: "YCgCo-Ro"}  # fmt: skip
_MATRIX_OF_TAG = {1: "bt709", 4: "bt601", 5: "bt601", 6: "bt601", 7: "bt709", 9: "bt2020"}
_TRANSFER_OF_TAG = {16: "pq", 18: "hlg"}
_PRIMARIES_OF_TAG = {9: "bt2020", 11: "p3", 12: "p3"}
# Beginnings of the names of formats that are full range unless they say otherwise.
_FULL_RANGE_NAMES = (
    "yuvj",
    "gray",
    "gbr",
    "rgb",
    "bgr",
    "argb",
    "abgr",
    "0rgb",
    "0bgr",
    "pal8",
    "x2",
)


@dataclass(frozen=True, slots=True)
class Meaning:
    """What the samples of a stream stand for; the fields of `VideoInfo` of the same names."""

    matrix: str
    full_range: bool
    transfer: str
    primaries: str
    guessed: frozenset[str]


def resolve(
    *, pixel_format: str, codec: str, width: int, height: int, tags: tuple[int, int, int, int]
) -> Meaning:
    """The meaning of a stream whose tags (range, matrix, primaries, transfer) may be missing.

    InputError for a matrix whose colours are not computed here.
    """
    range_tag, matrix_tag, primaries_tag, transfer_tag = tags
    guessed = set()
    if range_tag in (1, 2):
        full = range_tag == 2
    else:
        full = pixel_format.startswith(_FULL_RANGE_NAMES) or codec == "mjpeg"
        guessed.add("range")
    if matrix_tag in _OTHER_MATRICES:
        raise InputError(
            f"the colours of this video are coded as {_OTHER_MATRICES[matrix_tag]}, which is not "
            "supported; convert it to bt709 or bt2020 first"
        )
    matrix = _MATRIX_OF_TAG.get(matrix_tag)
    if matrix is None:
        # SD material that says nothing was made for SD equipment.
        matrix = "bt601" if height <= 576 and width <= 1024 else "bt709"
        guessed.add("matrix")
    transfer = _TRANSFER_OF_TAG.get(transfer_tag, "sdr")
    primaries = _PRIMARIES_OF_TAG.get(primaries_tag, "bt709")
    return Meaning(matrix, full, transfer, primaries, frozenset(guessed))


def region_rgb(image: av.VideoFrame, rect: Rect, info: VideoInfo) -> torch.Tensor:
    """R'G'B' (3, h, w) float32 of `rect`, which lies on the chroma grid or ends at the frame."""
    how = layout(image)
    offset, scale = _luma_range(info, how)
    if how.is_rgb:
        return torch.stack([(samples(image, p, rect) - offset) / scale for p in how.planes])
    luma = (samples(image, how.planes[0], rect) - offset) / scale
    if len(how.planes) == 1:
        return luma.expand(3, -1, -1).clone()
    middle, chroma_scale = _chroma_range(info, how)
    small = chroma_rect(rect, how.grid)
    cb, cr = (
        _upsampled((samples(image, p, small) - middle) / chroma_scale, rect, how.grid, info)
        for p in how.planes[1:]
    )
    kr, kb = _LUMA_WEIGHTS[info.matrix]
    red = luma + 2 * (1 - kr) * cr
    blue = luma + 2 * (1 - kb) * cb
    green = (luma - kr * red - kb * blue) / (1 - kr - kb)
    return torch.stack([red, green, blue])


def blend_rgb(
    image: av.VideoFrame, rect: Rect, rgb: torch.Tensor, weight: torch.Tensor, info: VideoInfo
) -> None:
    """Move the samples of a writable frame towards `rgb`, in place: all the way where weight is 1.

    `rgb` is (3, h, w) in [0, 1], in display values (`vidrestore.transfer`: for SDR of BT.709
    primaries the stream's own R'G'B'); `weight` (1, h, w) in [0, 1]. The change is computed for
    each plane and rounded by itself, so a weight of zero leaves the sample untouched. What the
    planes hold beyond black and white stays on top. Alpha stays as it is.

    With D taking chroma to its samples, U bringing it back and w the weight, a chroma sample c
    becomes c + D(w (C(rgb) - U c)) + D(w) (D(U c) - c), which is D(C(rgb)) where w is 1: without
    the last term, chroma noise too fine for D would shine through.
    """
    how = layout(image)
    original = region_rgb(image, rect, info)
    change = transfer.change(original, rgb, weight, info)
    _, scale = _luma_range(info, how)
    if how.is_rgb:
        for index, channel in zip(how.planes, change, strict=True):
            add(image, index, rect, channel * scale, how.bits)
        return
    kr, kb = _LUMA_WEIGHTS[info.matrix]
    luma = _luma(change, kr, kb)
    add(image, how.planes[0], rect, luma * scale, how.bits)
    if len(how.planes) == 1:
        return
    middle, chroma_scale = _chroma_range(info, how)
    small = chroma_rect(rect, how.grid)
    small_weight = _downsampled(weight[0], how.grid, info)
    original_luma = _luma(original, kr, kb)
    for index, channel, k in ((1, 2, kb), (2, 0, kr)):
        moved = _downsampled((change[channel] - luma) / (2 * (1 - k)), how.grid, info)
        upsampled = (original[channel] - original_luma) / (2 * (1 - k))
        chroma = (samples(image, how.planes[index], small) - middle) / chroma_scale
        fine = _downsampled(upsampled, how.grid, info) - chroma
        difference = (moved + small_weight * fine) * chroma_scale
        add(image, how.planes[index], small, difference, how.bits)


def _luma(rgb: torch.Tensor, kr: float, kb: float) -> torch.Tensor:
    return kr * rgb[0] + (1 - kr - kb) * rgb[1] + kb * rgb[2]


def _luma_range(info: VideoInfo, how: Layout) -> tuple[float, float]:
    step = 2.0 ** (how.bits - 8)
    return (0.0, 2.0**how.bits - 1) if info.full_range else (16 * step, 219 * step)


def _chroma_range(info: VideoInfo, how: Layout) -> tuple[float, float]:
    step = 2.0 ** (how.bits - 8)
    return 128 * step, (2.0**how.bits - 1 if info.full_range else 224 * step)


def _site(info: VideoInfo, grid: tuple[int, int]) -> tuple[float, float]:
    """Where in its group of luma pixels a chroma sample lies: (x, y) from the first one's centre.

    H.264 figure E-1, for groups of any size: on the first or last pixel, or in the middle.
    """
    x, y = (grid[0] - 1) / 2, (grid[1] - 1) / 2
    if info.chroma_location.endswith("left"):
        x = 0.0
    if info.chroma_location.startswith(("top", "bottom")):
        y = 0.0 if info.chroma_location.startswith("top") else grid[1] - 1.0
    return x, y


def _upsampled(
    chroma: torch.Tensor, rect: Rect, grid: tuple[int, int], info: VideoInfo
) -> torch.Tensor:
    """Bilinear, from the places where the samples lie to every luma pixel of `rect`."""
    x, y = _site(info, grid)
    wide = _interpolated(chroma, rect.width, grid[0], x, dim=1)
    return _interpolated(wide, rect.height, grid[1], y, dim=0)


def _interpolated(
    chroma: torch.Tensor, length: int, step: int, first: float, *, dim: int
) -> torch.Tensor:
    if step == 1:
        return chroma
    position = (torch.arange(length, dtype=torch.float32) - first) / step
    position = position.clamp(0, chroma.shape[dim] - 1)
    low = position.floor().long()
    high = (low + 1).clamp(max=chroma.shape[dim] - 1)
    share = position - low
    share = share[None, :] if dim == 1 else share[:, None]
    return torch.lerp(chroma.index_select(dim, low), chroma.index_select(dim, high), share)


def _downsampled(full: torch.Tensor, grid: tuple[int, int], info: VideoInfo) -> torch.Tensor:
    """Low-passed and taken at the places of the chroma samples; a constant stays constant."""
    x, y = grid
    padded = F.pad(
        full[None, None], (0, -full.shape[1] % x, 0, -full.shape[0] % y), mode="replicate"
    )
    across, down = _site(info, grid)
    small = _decimated(padded, y, down, dim=2)
    return _decimated(small, x, across, dim=3)[0, 0]


def _decimated(picture: torch.Tensor, step: int, first: float, *, dim: int) -> torch.Tensor:
    """Every `step`-th place of (1, 1, H, W) along `dim`, from `first` on, which is the middle of a
    group or a pixel: by a box over the group, or by a triangle around the pixel.

    As sums of slices, which take a tenth of the time of a pooling or a convolution.
    """
    if step == 1:
        return picture
    weights = [1] * step
    if first != (step - 1) / 2:
        # The pixel's distance to the group's start and end, less than the triangle's reach.
        margin = [0, 0, 0, 0]
        margin[2 * (3 - dim) : 2 * (3 - dim) + 2] = int(step - 1 - first), int(first)
        picture = F.pad(picture, margin, mode="replicate")
        weights = [*range(1, step + 1), *range(step - 1, 0, -1)]
    count = (picture.shape[dim] - len(weights)) // step + 1
    total = picture.new_zeros(())
    for start, weight in enumerate(weights):
        at = [slice(None)] * 4
        at[dim] = slice(start, start + step * (count - 1) + 1, step)
        total = total + weight * picture[tuple(at)]
    return total / sum(weights)
