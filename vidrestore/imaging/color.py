"""Matrices, ranges, and R'G'B' <-> Y'CbCr of one region of a frame.

R'G'B' is (3, H, W) float32, 0 black and 1 white, not clipped: values that the planes can hold
beyond black and white survive. Formulas: Rec. ITU-R BT.601-7, BT.709-6, BT.2020-2; the code values
of both ranges: ISO/IEC 23091-2. float32 is within 0.05 code values at 16 bits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch

from vidrestore.common.errors import InputError
from vidrestore.imaging import transfer
from vidrestore.imaging.frame import FloatArray, VideoInfo
from vidrestore.imaging.geometry import Rect
from vidrestore.imaging.luma import KR_KB
from vidrestore.imaging.planes import Layout, add, chroma_rect, layout, plane, samples

if TYPE_CHECKING:
    import av

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
    if not how.is_rgb:
        return torch.from_numpy(_rgb(*_components(image, rect, info, how), info))
    found = [_values(image, index, rect, *_luma_range(info, how)) for index in how.planes]
    return torch.from_numpy(np.stack(found))


def blend_rgb(
    image: av.VideoFrame, rect: Rect, rgb: torch.Tensor, weight: torch.Tensor, info: VideoInfo
) -> None:
    """Move the samples of a writable frame towards `rgb`, in place: all the way where weight is 1.

    `rgb` is (3, h, w) in [0, 1], in display values (`vidrestore.imaging.transfer`: for SDR of
    BT.709 primaries the stream's own R'G'B'); `weight` (1, h, w) in [0, 1]. The change is computed
    for each plane and rounded by itself, so a weight of zero leaves the sample untouched. What the
    planes hold beyond black and white stays on top. Alpha stays as it is.

    With D taking chroma to its samples, U bringing it back and w the weight, a chroma sample c
    becomes c + D(w (C(rgb) - U c)) + D(w) (D(U c) - c), which is D(C(rgb)) where w is 1: without
    the last term, chroma noise too fine for D would shine through.
    """
    how = layout(image)
    _, scale = _luma_range(info, how)
    if how.is_rgb:
        moved = transfer.change(region_rgb(image, rect, info), rgb, weight, info)
        for index, channel in zip(how.planes, moved, strict=True):
            add(image, index, rect, channel * scale, how.bits)
        return
    original, upsampled = _components(image, rect, info, how)
    before = torch.from_numpy(_rgb(original, upsampled, info))
    change = transfer.change(before, rgb, weight, info).numpy()
    kr, kb = KR_KB[info.matrix]
    luma = kr * change[0]
    luma += (1 - kr - kb) * change[1]
    luma += kb * change[2]
    add(image, how.planes[0], rect, torch.from_numpy(luma * scale), how.bits)
    if len(how.planes) == 1:
        return
    middle, chroma_scale = _chroma_range(info, how)
    small = chroma_rect(rect, how.grid)
    small_weight = _downsampled(weight[0].numpy(), how.grid, info)
    for index, channel, k in ((1, 2, kb), (2, 0, kr)):
        difference = _downsampled(change[channel] - luma, how.grid, info) / (2 * (1 - k))
        chroma = _values(image, how.planes[index], small, middle, chroma_scale)
        difference += small_weight * (_there_and_back(chroma, rect, how.grid, info) - chroma)
        difference *= chroma_scale
        add(image, how.planes[index], small, torch.from_numpy(difference), how.bits)


def write_rgb(image: av.VideoFrame, rgb: FloatArray, info: VideoInfo) -> None:
    """Make (3, height, width) R'G'B' the whole picture of a writable frame; alpha stays as it is.

    The opposite of `region_rgb` of the whole frame, but for chroma that is finer than the planes
    and for rounding.
    """
    how = layout(image)
    offset, scale = _luma_range(info, how)
    if how.is_rgb:
        for index, channel in zip(how.planes, rgb, strict=True):
            _write(image, index, channel, offset, scale, how)
        return
    kr, kb = KR_KB[info.matrix]
    luma = np.float32(kr) * rgb[0]
    luma += np.float32(1 - kr - kb) * rgb[1]
    luma += np.float32(kb) * rgb[2]
    _write(image, how.planes[0], luma, offset, scale, how)
    offset, scale = _chroma_range(info, how)
    for index, channel, k in zip(how.planes[1:], (2, 0), (kb, kr), strict=False):
        chroma = _downsampled(rgb[channel] - luma, how.grid, info)
        _write(image, index, chroma, offset, scale / (2 * (1 - k)), how)


def _write(
    image: av.VideoFrame, index: int, values: FloatArray, offset: float, scale: float, how: Layout
) -> None:
    codes = np.rint(values * np.float32(scale) + np.float32(offset))
    np.copyto(plane(image, index), codes.clip(0, 2**how.bits - 1), casting="unsafe")


def _components(
    image: av.VideoFrame, rect: Rect, info: VideoInfo, how: Layout
) -> tuple[FloatArray, list[FloatArray]]:
    """(h, w) Y' in [0, 1]; Cb and Cr in [-1/2, 1/2] at the same pixels, none of grey."""
    luma = _values(image, how.planes[0], rect, *_luma_range(info, how))
    small = chroma_rect(rect, how.grid)
    chroma = [_values(image, p, small, *_chroma_range(info, how)) for p in how.planes[1:]]
    return luma, [_upsampled(each, rect, how.grid, info) for each in chroma]


def _values(
    image: av.VideoFrame, index: int, rect: Rect, offset: float, scale: float
) -> FloatArray:
    found = samples(image, index, rect).numpy()
    found -= offset
    found /= scale
    return np.asarray(found)


def _rgb(luma: FloatArray, chroma: Sequence[FloatArray], info: VideoInfo) -> FloatArray:
    """(3, h, w)"""
    if not chroma:
        return np.stack([luma] * 3)
    cb, cr = chroma
    kr, kb = KR_KB[info.matrix]
    kg = 1 - kr - kb
    rgb = np.empty((3, *luma.shape), np.float32)
    np.multiply(cr, 2 * (1 - kr), out=rgb[0])
    np.multiply(cb, 2 * (1 - kb), out=rgb[2])
    np.multiply(rgb[0], -kr / kg, out=rgb[1])
    rgb[1] -= kb / kg * rgb[2]
    rgb += luma
    return rgb


def _luma_range(info: VideoInfo, how: Layout) -> tuple[float, float]:
    step = 2.0 ** (how.bits - 8)
    return (0.0, 2.0**how.bits - 1) if info.full_range else (16 * step, 219 * step)


def _chroma_range(info: VideoInfo, how: Layout) -> tuple[float, float]:
    step = 2.0 ** (how.bits - 8)
    return 128 * step, (2.0**how.bits - 1 if info.full_range else 224 * step)


def chroma_site(info: VideoInfo, grid: tuple[int, int]) -> tuple[float, float]:
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
    chroma: FloatArray, rect: Rect, grid: tuple[int, int], info: VideoInfo
) -> FloatArray:
    """Bilinear, from the places where the samples lie to every luma pixel of `rect`."""
    x, y = chroma_site(info, grid)
    high = _interpolated(chroma, rect.height, grid[1], y, axis=0)
    return _interpolated(high, rect.width, grid[0], x, axis=1)


def _downsampled(full: FloatArray, grid: tuple[int, int], info: VideoInfo) -> FloatArray:
    """Low-passed and taken at the places of the chroma samples; a constant stays constant."""
    x, y = chroma_site(info, grid)
    return _decimated(_decimated(full, grid[1], y, axis=0), grid[0], x, axis=1)


def _there_and_back(
    chroma: FloatArray, rect: Rect, grid: tuple[int, int], info: VideoInfo
) -> FloatArray:
    """What `_downsampled` makes of what `_upsampled` gives, one axis after the other."""
    x, y = chroma_site(info, grid)
    if rect.height % grid[1] == rect.width % grid[0] == 0:
        kernels = _kernel(grid[0], x), _kernel(grid[1], y)
        found = cv2.sepFilter2D(chroma, -1, *kernels, borderType=cv2.BORDER_REPLICATE)
        return np.asarray(found, np.float32)
    chroma = _and_back(chroma, rect.height, grid[1], y, axis=0)
    return _and_back(chroma, rect.width, grid[0], x, axis=1)


@cache
def _kernel(step: int, first: float) -> FloatArray:
    """What `_and_back` is where no group is cut off: a filter, at the border, too."""
    impulse = np.eye(1, 5, 2, dtype=np.float32)
    return _and_back(impulse, 5 * step, step, first, axis=1)[0, ::-1].copy()


def _and_back(chroma: FloatArray, length: int, step: int, first: float, *, axis: int) -> FloatArray:
    there = _interpolated(chroma, length, step, first, axis=axis)
    return _decimated(there, step, first, axis=axis)


def _interpolated(
    chroma: FloatArray, length: int, step: int, first: float, *, axis: int
) -> FloatArray:
    if step == 1:
        return chroma
    count = chroma.shape[axis]
    padded = _padded(chroma, 1, 1, axis)
    shape = list(chroma.shape)
    shape[axis] = count * step
    found = np.empty(shape, np.float32)
    for phase in range(step):
        place = (phase - first) / step
        low = math.floor(place)
        near, far = (_taken(padded, axis, 1 + low + i, count) for i in (0, 1))
        share = place - low
        between = cv2.addWeighted(near, 1 - share, far, share, 0) if share else near
        _taken(found, axis, phase, count, step)[...] = between
    return _taken(found, axis, 0, length)


def _decimated(picture: FloatArray, step: int, first: float, *, axis: int) -> FloatArray:
    """Every `step`-th place along an axis, from `first` on, which is the middle of a group or a
    pixel: by a box over the group, or by a triangle around the pixel."""
    if step == 1:
        return picture
    weights, before, after = [1] * step, 0, -picture.shape[axis] % step
    if first != (step - 1) / 2:
        # The pixel's distance to the group's start and end, less than the triangle's reach.
        before, after = int(step - 1 - first), after + int(first)
        weights = [*range(1, step + 1), *range(step - 1, 0, -1)]
    count = -(-picture.shape[axis] // step)
    padded = _padded(picture, before, after, axis)
    total = _taken(padded, axis, 0, count, step) / np.float32(sum(weights))
    for start, weight in enumerate(weights[1:], start=1):
        total += _taken(padded, axis, start, count, step) * np.float32(weight / sum(weights))
    return np.asarray(total)


def _padded(picture: FloatArray, before: int, after: int, axis: int) -> FloatArray:
    if before == after == 0:
        return picture
    sides = (before, after, 0, 0) if axis == 0 else (0, 0, before, after)
    return np.asarray(cv2.copyMakeBorder(picture, *sides, cv2.BORDER_REPLICATE), np.float32)


def _taken(picture: FloatArray, axis: int, start: int, count: int, step: int = 1) -> FloatArray:
    """`count` places along an axis, as a view."""
    part = slice(start, start + step * (count - 1) + 1, step)
    return picture[part] if axis == 0 else picture[:, part]
