"""The region of a face that a swap changed: where a video differs from the video before the swap.

Where something covers the face, a swap does not change the picture, so the region ends there.
Differences are in 8-bit levels of display values; lengths are shares of the side of the crop.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from vidrestore.imaging import color, transfer
from vidrestore.imaging.filters import gaussian_blur, smoothstep
from vidrestore.imaging.frame import FloatArray, Frame, Region, VideoInfo
from vidrestore.imaging.geometry import Matrix, Rect, apply, covering_rect, crop_side_px, invert
from vidrestore.imaging.planes import layout
from vidrestore.media.fields import own_row
from vidrestore.restoration.faces import FaceFrame, unit_of
from vidrestore.restoration.statistics import RestorationStats

if TYPE_CHECKING:
    import av

# How far around the crop the noise between the two videos is measured.
_AROUND = 0.25
# Standard deviation of the blur that takes noise out of the difference; its least, in pixels.
_SIGMA, _LEAST_SIGMA_PX = 0.006, 1.0
# Length of the blurred difference from which a swap is seen, and down to which its region extends:
# the least values, and multiples of the third quartile around the crop, where another face may be.
_SEEN, _REACHED = 4.0, 1.2
_SEEN_OF_NOISE, _REACHED_OF_NOISE = 4.5, 2.3
_QUIET = 0.75
# Gaps of this width are closed; holes and specks below this area are ignored.
_CLOSED, _LEAST_AREA = 0.015, 0.04**2
# The distance, in standard deviations of the blur, at which a blurred step of 255 levels in three
# channels is below `_REACHED`.
_EDGE_SIGMAS = 3.0
# Width over which the restored face fades out inside the edge of the swapped region.
_FEATHER = 0.04
# The least number of pixels on which color and noise are measured.
_LEAST_PIXELS = 64


def swapped_region(
    after: av.VideoFrame,
    before: av.VideoFrame,
    unit: Matrix,
    info: VideoInfo,
    before_info: VideoInfo,
    field_row: int | None = None,
) -> Region | None:
    """Find where the face differs between two pictures of the same size.

    The weight is exactly 0 outside the changed pixels, and rises inside their edge. Changes by a
    new encoding are noise: a difference counts from a multiple of the differences around the crop
    on, after the median color difference there is subtracted.

    Convention:
        `unit` is frame pixel centers (x, y) -> unit crop, whose outer edges lie at 0 and 1.

    Args:
        after: The frame with the swapped face.
        before: The same frame before the swap.
        unit: (2, 3) matrix.
        info: The properties of `after`.
        before_info: The properties of `before`.
        field_row: The first line, 0 or 1, of the field of which the pictures are made. Only the
            lines of that field count, since the others show a mixture with the fields around.
            Default: all lines count.

    Returns:
        The region in pixels of the frame; None where the face does not differ.
    """
    grids = layout(after).grid, layout(before).grid
    grid = max(grids[0][0], grids[1][0]), max(grids[0][1], grids[1][1])
    low, high = -_AROUND, 1 + _AROUND
    box = np.array([[low, low], [high, low], [low, high], [high, high]])
    rect = covering_rect(apply(invert(unit), box), info, grid=grid)
    if rect.is_empty:
        return None
    side = crop_side_px(unit)
    difference = _levels(after, rect, info) - _levels(before, rect, before_info)
    if field_row is not None:
        _fill_lines(difference, (rect.y0 + field_row + 1) % 2)
    around = _outside_crop(unit, rect)
    has_around = np.count_nonzero(around) >= _LEAST_PIXELS
    if has_around:
        difference -= np.median(difference[around], axis=0)
    sigma = max(_LEAST_SIGMA_PX, _SIGMA * side)
    blurred = gaussian_blur(difference, sigma, border="repeat")
    length = np.sqrt(np.einsum("...k,...k->...", blurred, blurred))
    noise = float(np.quantile(length[around], _QUIET)) if has_around else 0.0
    changed = _changed(
        length,
        seen=max(_SEEN, _SEEN_OF_NOISE * noise),
        reached=max(_REACHED, _REACHED_OF_NOISE * noise),
        side=side,
    )
    weight = _faded(changed, start_px=_EDGE_SIGMAS * sigma, width_px=max(1.0, _FEATHER * side))
    return _trimmed(weight, rect)


def weight_in(region: Region, rect: Rect) -> torch.Tensor:
    """Return how far a region lets each pixel of a rectangle change.

    Args:
        region: The region, in pixels of the frame.
        rect: The rectangle, in pixels of the frame.

    Returns:
        (1, h, w) float32 in [0, 1]; 0 outside the region.
    """
    x, y = region.corner_px
    height, width = region.weight.shape
    weight = np.zeros((rect.height, rect.width), np.float32)
    x0, x1 = max(rect.x0, x), min(rect.x1, x + width)
    y0, y1 = max(rect.y0, y), min(rect.y1, y + height)
    if x0 < x1 and y0 < y1:
        part = region.weight[y0 - y : y1 - y, x0 - x : x1 - x]
        weight[y0 - rect.y0 : y1 - rect.y0, x0 - rect.x0 : x1 - rect.x0] = part
    return torch.from_numpy(weight)[None]


def moved(region: Region, target_from_frame: Matrix) -> Region:
    """Transform a region to another picture of the same view.

    Convention:
        `target_from_frame` is frame pixel centers (x, y) -> pixel centers (x, y) of the other
        picture. It maps axes to axes: it scales, shifts and turns by quarter turns only.

    Args:
        region: The region, in pixels of the frame.
        target_from_frame: (2, 3) matrix.

    Returns:
        The region in pixels of the other picture, interpolated bilinearly; `region` itself for the
        identity.
    """
    if np.array_equal(target_from_frame, np.eye(2, 3)):
        return region
    matrix = np.asarray(target_from_frame, np.float64)
    height, width = region.weight.shape
    x, y = region.corner_px
    corners = np.array([[x - 1, y - 1], [x + width, y + height]], np.float64)
    ends = apply(matrix, corners)
    low = np.floor(ends.min(axis=0)).astype(int).clip(min=0)
    high = np.ceil(ends.max(axis=0)).astype(int) + 1
    local = matrix.copy()
    local[:, 2] += matrix[:, :2] @ np.array([x, y]) - low
    size = (max(1, int(high[0] - low[0])), max(1, int(high[1] - low[1])))
    weight = cv2.warpAffine(region.weight, local, size, flags=cv2.INTER_LINEAR, borderValue=0)
    return Region((int(low[0]), int(low[1])), np.asarray(weight, np.float32))


def _levels(image: av.VideoFrame, rect: Rect, info: VideoInfo) -> FloatArray:
    """Return (h, w, 3) display values in 8-bit levels."""
    display = transfer.to_display(color.region_rgb(image, rect, info), info).clamp(0, 1)
    return np.ascontiguousarray(255 * display.permute(1, 2, 0).float().numpy())


def _fill_lines(values: FloatArray, first: int) -> None:
    """Replace every other line from `first` on, in place, by the mean of its neighbor lines."""
    count = len(values)
    for line in range(first, count, 2):
        above = values[line - 1] if line else values[min(1, count - 1)]
        below = values[line + 1] if line + 1 < count else above
        values[line] = (above + below) / 2


def _outside_crop(unit: Matrix, rect: Rect) -> npt.NDArray[np.bool_]:
    """Return (h, w): the pixels of `rect` that lie outside the unit crop."""
    x = np.arange(rect.x0, rect.x1)
    y = np.arange(rect.y0, rect.y1)[:, None]
    u, v = (row[0] * x + (row[1] * y + row[2]) for row in np.asarray(unit, np.float64))
    return np.asarray((u < 0) | (u > 1) | (v < 0) | (v > 1))


def _changed(
    length: npt.NDArray[Any], *, seen: float, reached: float, side: float
) -> npt.NDArray[np.uint8]:
    """Return (h, w) of 0 or 1: the pixels that clearly differ, and what continues from there."""
    candidates = (length > reached).astype(np.uint8)
    least_px = max(1.0, _LEAST_AREA * side**2)
    holds = _large(candidates, least_px, where=length > seen)
    radius = max(1, round(_CLOSED * side))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    padded = cv2.copyMakeBorder(holds, radius, radius, radius, radius, cv2.BORDER_REPLICATE)
    closed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, disc)[radius:-radius, radius:-radius]
    holes = np.asarray(1 - closed, np.uint8)
    return np.asarray(1 - _large(holes, least_px), np.uint8)


def _large(
    mask: npt.NDArray[np.uint8], least_px: float, where: npt.NDArray[np.bool_] | None = None
) -> npt.NDArray[np.uint8]:
    """Keep the connected parts of at least `least_px` pixels that hold a pixel of `where`."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
    kept = stats[:, cv2.CC_STAT_AREA] >= least_px
    if where is not None:
        kept &= np.bincount(labels[where], minlength=count) > 0
    kept[0] = False
    return np.asarray(kept[labels], np.uint8)


def _faded(changed: npt.NDArray[np.uint8], *, start_px: float, width_px: float) -> FloatArray:
    """Return (h, w) rising from 0 at `start_px` inside the edge to 1 `width_px` further in."""
    depth = cv2.distanceTransform(changed, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    share = np.clip((depth - np.float32(start_px)) / np.float32(width_px), 0, 1)
    return np.asarray(smoothstep(share), np.float32)


def _trimmed(weight: FloatArray, rect: Rect) -> Region | None:
    """Return the region of the nonzero weights; None where all are 0."""
    x, y, width, height = cv2.boundingRect((weight > 0).view(np.uint8))
    if not width:
        return None
    part = np.ascontiguousarray(weight[y : y + height, x : x + width])
    return Region((rect.x0 + x, rect.y0 + y), part)


def only_swapped(
    frames: Iterator[FaceFrame],
    before: Iterator[Frame],
    info: VideoInfo,
    before_info: VideoInfo,
    stats: RestorationStats,
    *,
    order: str | None = None,
) -> Iterator[FaceFrame]:
    """Give every face the `region` that the swap changed.

    A face that the swap did not change is left out and counted, so that no network runs on it.

    Args:
        frames: The frames with their faces, in order.
        before: The same frames before the swap, in the same order and number.
        info: The properties of `frames`.
        before_info: The properties of `before`.
        stats: The statistics, which receive the counts.
        order: The field order, where the frames are pictures of fields of which only the field's
            own lines are used; default: all lines are used.

    Yields:
        The frames in order.

    Raises:
        ValueError: `frames` and `before` differ in number.
    """
    for frame, original in zip(frames, before, strict=True):
        faces = []
        row = None if order is None else own_row(frame.frame.index, order)
        for face in frame.faces:
            region = swapped_region(
                frame.frame.image, original.image, unit_of(face), info, before_info, row
            )
            if region is not None:
                faces.append(replace(face, region=region))
            elif stats.counts(frame.frame.index):
                stats.not_restored["not changed by the face swap"] += 1
        yield frame.with_faces(tuple(faces))
