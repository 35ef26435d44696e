"""Color matrices, code value ranges, and conversion between R'G'B' and Y'CbCr of a frame region.

R'G'B' is (3, H, W) float32, 0 black and 1 white, not clipped: values that the planes can hold
beyond black and white survive. Formulas: Rec. ITU-R BT.601-7, BT.709-6, BT.2020-2; code values of
both ranges: ISO/IEC 23091-2. float32 is exact to 0.05 code values at 16 bits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch

from vidrestore.imaging import transfer
from vidrestore.imaging.frame import FloatArray, VideoInfo
from vidrestore.imaging.geometry import Rect
from vidrestore.imaging.luma import KR_KB, luma_of
from vidrestore.imaging.planes import Layout, add, chroma_rect, layout, plane, samples

if TYPE_CHECKING:
    import av


def region_rgb(image: av.VideoFrame, rect: Rect, info: VideoInfo) -> torch.Tensor:
    """Read the R'G'B' of a rectangle of a frame.

    Args:
        image: A frame in a planar format.
        rect: The rectangle in frame pixels; it lies on the chroma grid or ends at the edge of the
            frame.
        info: The stream.

    Returns:
        (3, h, w) float32, 0 black and 1 white, not clipped.
    """
    how = layout(image)
    if not how.is_rgb:
        return torch.from_numpy(_rgb(*_components(image, rect, info, how), info))
    found = [_values(image, index, rect, *_luma_range(info, how)) for index in how.planes]
    return torch.from_numpy(np.stack(found))


def blend_rgb(
    image: av.VideoFrame,
    rect: Rect,
    rgb: torch.Tensor,
    weight: torch.Tensor,
    info: VideoInfo,
    *,
    keep_luma: bool = False,
) -> None:
    """Blend a rectangle of a writable frame toward given display values, in place.

    The change is computed and rounded for each plane, so a weight of 0 leaves a sample untouched.
    Values that the planes hold beyond black and white are kept on top. Alpha stays as it is.

    With D the filter from pixels to chroma samples, U the interpolation back, C(rgb) the chroma of
    `rgb` and w the weight, a chroma sample c becomes c + D(w (C(rgb) - U c)) + D(w) (D(U c) - c),
    which is D(C(rgb)) where w is 1. Without the last term, chroma noise too fine for D would remain
    visible.

    Args:
        image: A writable frame in a planar format.
        rect: The rectangle in frame pixels; it lies on the chroma grid or ends at the edge of the
            frame.
        rgb: (3, h, w) display values in [0, 1] (`vidrestore.imaging.transfer`; for SDR with BT.709
            primaries these are the R'G'B' of the stream).
        weight: (1, h, w) in [0, 1]; 1 replaces the picture by `rgb`.
        info: The stream.
        keep_luma: Whether only the chroma changes; default: no.
    """
    how = layout(image)
    _, scale = _luma_range(info, how)
    if how.is_rgb:
        moved = transfer.change(region_rgb(image, rect, info), rgb, weight, info)
        if keep_luma:
            moved = moved - torch.from_numpy(luma_of(moved.numpy(), info.matrix))
        for index, channel in zip(how.planes, moved, strict=True):
            add(image, index, rect, channel * scale, how.bits)
        return
    original, upsampled = _components(image, rect, info, how)
    before = torch.from_numpy(_rgb(original, upsampled, info))
    change = transfer.change(before, rgb, weight, info).numpy()
    kr, kb = KR_KB[info.matrix]
    luma = luma_of(change, info.matrix)
    if not keep_luma:
        add(image, how.planes[0], rect, torch.from_numpy(luma * scale), how.bits)
    if len(how.planes) == 1:
        return
    middle, chroma_scale = _chroma_range(info, how)
    small = chroma_rect(rect, how.grid)
    small_weight = _downsampled(weight[0].numpy(), how.grid, info)
    for index, channel, k in ((1, 2, kb), (2, 0, kr)):
        difference = _downsampled(change[channel] - luma, how.grid, info) / (2 * (1 - k))
        chroma = _values(image, how.planes[index], small, middle, chroma_scale)
        difference += small_weight * (_subsampled(chroma, rect, how.grid, info) - chroma)
        difference *= chroma_scale
        add(image, how.planes[index], small, torch.from_numpy(difference), how.bits)


def write_rgb(image: av.VideoFrame, rgb: FloatArray, info: VideoInfo) -> None:
    """Replace the whole picture of a writable frame; alpha stays as it is.

    The inverse of `region_rgb` of the whole frame, except for rounding and for chroma that is finer
    than the planes can hold.

    Args:
        image: A writable frame in a planar format.
        rgb: (3, height, width) float32 R'G'B' of the stream, 0 black and 1 white.
        info: The stream.
    """
    how = layout(image)
    offset, scale = _luma_range(info, how)
    if how.is_rgb:
        for index, channel in zip(how.planes, rgb, strict=True):
            _write(image, index, channel, offset, scale, how)
        return
    kr, kb = KR_KB[info.matrix]
    luma = luma_of(rgb, info.matrix)
    _write(image, how.planes[0], luma, offset, scale, how)
    offset, scale = _chroma_range(info, how)
    for index, channel, k in zip(how.planes[1:], (2, 0), (kb, kr), strict=False):
        chroma = _downsampled(rgb[channel] - luma, how.grid, info)
        _write(image, index, chroma, offset, scale / (2 * (1 - k)), how)


def _write(
    image: av.VideoFrame, index: int, values: FloatArray, offset: float, scale: float, how: Layout
) -> None:
    """Write a whole plane: values times `scale` plus `offset`, rounded and clipped."""
    codes = np.rint(values * np.float32(scale) + np.float32(offset))
    np.copyto(plane(image, index), codes.clip(0, 2**how.bits - 1), casting="unsafe")


def _components(
    image: av.VideoFrame, rect: Rect, info: VideoInfo, how: Layout
) -> tuple[FloatArray, list[FloatArray]]:
    """Return (h, w) Y' in [0, 1], and Cb and Cr in [-1/2, 1/2], which gray does not have."""
    luma = _values(image, how.planes[0], rect, *_luma_range(info, how))
    small = chroma_rect(rect, how.grid)
    chroma = [_values(image, p, small, *_chroma_range(info, how)) for p in how.planes[1:]]
    return luma, [_upsampled(each, rect, how.grid, info) for each in chroma]


def _values(
    image: av.VideoFrame, index: int, rect: Rect, offset: float, scale: float
) -> FloatArray:
    """Read a rectangle of a plane: code values minus `offset`, divided by `scale`."""
    values = samples(image, index, rect).numpy()
    values -= offset
    values /= scale
    return np.asarray(values)


def _rgb(luma: FloatArray, chroma: Sequence[FloatArray], info: VideoInfo) -> FloatArray:
    """Convert Y'CbCr to (3, h, w) R'G'B'; gray has no chroma."""
    if not chroma:
        return np.stack([luma] * 3)
    cb, cr = chroma
    kr, kb = KR_KB[info.matrix]
    kg = 1 - kr - kb
    by_red, by_blue = 2 * (1 - kr), 2 * (1 - kb)
    rgb = np.empty((3, *luma.shape), np.float32)
    red, green, blue = rgb
    cv2.scaleAdd(cr, by_red, luma, dst=red)
    cv2.scaleAdd(cb, by_blue, luma, dst=blue)
    cv2.scaleAdd(cr, -by_red * kr / kg, luma, dst=green)
    cv2.scaleAdd(cb, -by_blue * kb / kg, green, dst=green)
    return rgb


def _luma_range(info: VideoInfo, how: Layout) -> tuple[float, float]:
    """Return the code value of black and the distance from black to white."""
    step = 2.0 ** (how.bits - 8)
    return (0.0, 2.0**how.bits - 1) if info.full_range else (16 * step, 219 * step)


def _chroma_range(info: VideoInfo, how: Layout) -> tuple[float, float]:
    """Return the code value of neutral chroma and the distance between chroma -1/2 and 1/2."""
    step = 2.0 ** (how.bits - 8)
    return 128 * step, (2.0**how.bits - 1 if info.full_range else 224 * step)


def chroma_site(info: VideoInfo, grid: tuple[int, int]) -> tuple[float, float]:
    """Return where in its group of luma pixels a chroma sample lies (H.264 figure E-1).

    Convention: (x, y) in luma pixels from the center of the top-left pixel of the group. The rule
    is applied to groups of any size: the first or last pixel, or the middle.

    Args:
        info: The stream.
        grid: The number of luma pixels per chroma sample, (x, y).

    Returns:
        (x, y).
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
    """Interpolate chroma samples at every luma pixel of `rect`, bilinear."""
    x, y = chroma_site(info, grid)
    high = _interpolated(chroma, rect.height, grid[1], y, axis=0)
    return _interpolated(high, rect.width, grid[0], x, axis=1)


def _downsampled(full: FloatArray, grid: tuple[int, int], info: VideoInfo) -> FloatArray:
    """Low-pass a plane and sample it where the chroma samples lie; a constant stays constant."""
    x, y = chroma_site(info, grid)
    return _decimated(_decimated(full, grid[1], y, axis=0), grid[0], x, axis=1)


def _subsampled(
    chroma: FloatArray, rect: Rect, grid: tuple[int, int], info: VideoInfo
) -> FloatArray:
    """Apply `_upsampled`, then `_downsampled`."""
    x, y = chroma_site(info, grid)
    if rect.height % grid[1] == rect.width % grid[0] == 0:
        kernels = _kernel(grid[0], x), _kernel(grid[1], y)
        filtered = cv2.sepFilter2D(chroma, -1, *kernels, borderType=cv2.BORDER_REPLICATE)
        return np.asarray(filtered, np.float32)
    chroma = _subsampled_axis(chroma, rect.height, grid[1], y, axis=0)
    return _subsampled_axis(chroma, rect.width, grid[0], x, axis=1)


@cache
def _kernel(step: int, first: float) -> FloatArray:
    """Return the filter that equals `_subsampled_axis` where the border cuts no group."""
    impulse = np.eye(1, 5, 2, dtype=np.float32)
    return _subsampled_axis(impulse, 5 * step, step, first, axis=1)[0, ::-1].copy()


def _subsampled_axis(
    chroma: FloatArray, length: int, step: int, first: float, *, axis: int
) -> FloatArray:
    """Interpolate chroma to luma pixels and decimate it again along one axis."""
    there = _interpolated(chroma, length, step, first, axis=axis)
    return _decimated(there, step, first, axis=axis)


def _interpolated(
    chroma: FloatArray, length: int, step: int, first: float, *, axis: int
) -> FloatArray:
    """Interpolate chroma samples linearly at luma pixels along one axis."""
    if step == 1:
        return chroma
    count = chroma.shape[axis]
    padded = _padded(chroma, 1, 1, axis)
    shape = list(chroma.shape)
    shape[axis] = count * step
    target = np.empty(shape, np.float32)
    for phase in range(step):
        place = (phase - first) / step
        low = math.floor(place)
        near, far = (_taken(padded, axis, 1 + low + i, count) for i in (0, 1))
        share = place - low
        between = cv2.addWeighted(near, 1 - share, far, share, 0) if share else near
        _taken(target, axis, phase, count, step)[...] = between
    return _taken(target, axis, 0, length)


def _decimated(picture: FloatArray, step: int, first: float, *, axis: int) -> FloatArray:
    """Low-pass along an axis and keep every `step`-th position from `first` on.

    The filter is a box over the group where `first` is its middle, else a triangle around a pixel.
    """
    if step == 1:
        return picture
    weights, before, after = [1] * step, 0, -picture.shape[axis] % step
    if first != (step - 1) / 2:
        # The triangle reaches beyond the group on both sides, by the distance of the pixel to the
        # opposite end.
        before, after = int(step - 1 - first), after + int(first)
        weights = [*range(1, step + 1), *range(step - 1, 0, -1)]
    count = -(-picture.shape[axis] // step)
    padded = _padded(picture, before, after, axis)
    total = _taken(padded, axis, 0, count, step) / np.float32(sum(weights))
    for start, weight in enumerate(weights[1:], start=1):
        total += _taken(padded, axis, start, count, step) * np.float32(weight / sum(weights))
    return np.asarray(total)


def _padded(picture: FloatArray, before: int, after: int, axis: int) -> FloatArray:
    """Repeat the border along one axis."""
    if before == after == 0:
        return picture
    sides = (before, after, 0, 0) if axis == 0 else (0, 0, before, after)
    return np.asarray(cv2.copyMakeBorder(picture, *sides, cv2.BORDER_REPLICATE), np.float32)


def _taken(picture: FloatArray, axis: int, start: int, count: int, step: int = 1) -> FloatArray:
    """Return a view of `count` positions along an axis."""
    part = slice(start, start + step * (count - 1) + 1, step)
    return picture[part] if axis == 0 else picture[:, part]
