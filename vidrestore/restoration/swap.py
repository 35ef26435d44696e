"""Which part of a face a swap has changed: where a video differs from what it was before.

Where something covers the face, a swap leaves the picture as it was, so it lies outside.
Differences are in 8-bit levels of display values; lengths are shares of the crop's side.
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
from vidrestore.restoration.faces import FaceFrame, unit_of
from vidrestore.restoration.statistics import RestorationStats

if TYPE_CHECKING:
    import av

# How far around the crop the noise between the two videos is measured.
_AROUND = 0.25
# Standard deviation of the blur that takes noise out of the difference; its least, in pixels.
_SIGMA, _LEAST_SIGMA_PX = 0.006, 1.0
# Length of the blurred difference that shows a swap, and down to which it then reaches: the least,
# and as multiples of what a quarter of the surroundings exceeds, which another face may be in.
_SEEN, _REACHED = 4.0, 1.2
_SEEN_OF_NOISE, _REACHED_OF_NOISE = 4.5, 2.3
_QUIET = 0.75
# Gaps so wide are closed, and holes and specks of so many squared lengths do not count.
_CLOSED, _LEAST_AREA = 0.015, 0.04**2
# A step of 255 levels in three channels, so blurred, is below `_REACHED` that many deviations off.
_EDGE_SIGMAS = 3.0
# Width over which what is restored fades out inside the edge of the swapped region.
_FEATHER = 0.04
# Colour and noise are taken from so many pixels at least.
_LEAST_PIXELS = 64


def swapped_region(
    after: av.VideoFrame,
    before: av.VideoFrame,
    unit: Matrix,
    info: VideoInfo,
    before_info: VideoInfo,
) -> Region | None:
    """Where the face differs between two pictures of one size; None where it does not.

    Convention: `unit` (2, 3) is frame pixel centres (x, y) -> unit crop. The weight is exactly 0
    outside the changed pixels, and rises inside of their edge. What a re-encoding changed is
    noise: differences count from a multiple of those around the crop, without the median colour
    there.
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
    """(1, h, w) how far each pixel of `rect` may be changed."""
    x, y = region.corner_px
    height, width = region.weight.shape
    found = np.zeros((rect.height, rect.width), np.float32)
    x0, x1 = max(rect.x0, x), min(rect.x1, x + width)
    y0, y1 = max(rect.y0, y), min(rect.y1, y + height)
    if x0 < x1 and y0 < y1:
        part = region.weight[y0 - y : y1 - y, x0 - x : x1 - x]
        found[y0 - rect.y0 : y1 - rect.y0, x0 - rect.x0 : x1 - rect.x0] = part
    return torch.from_numpy(found)[None]


def moved(region: Region, target_from_frame: Matrix) -> Region:
    """The same region in another picture.

    Convention: the (2, 3) matrix is frame pixel centres (x, y) -> those of the other picture, along
    the axes or by quarter turns.
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
    """(h, w, 3) in 8-bit levels."""
    shown = transfer.to_display(color.region_rgb(image, rect, info), info).clamp(0, 1)
    return np.ascontiguousarray(255 * shown.permute(1, 2, 0).float().numpy())


def _outside_crop(unit: Matrix, rect: Rect) -> npt.NDArray[np.bool_]:
    """(h, w) of the pixels of `rect` that lie outside the unit crop."""
    x = np.arange(rect.x0, rect.x1)
    y = np.arange(rect.y0, rect.y1)[:, None]
    u, v = (row[0] * x + (row[1] * y + row[2]) for row in np.asarray(unit, np.float64))
    return np.asarray((u < 0) | (u > 1) | (v < 0) | (v > 1))


def _changed(
    length: npt.NDArray[Any], *, seen: float, reached: float, side: float
) -> npt.NDArray[np.uint8]:
    """(h, w) 0 or 1: what is plainly different, and what goes on from there."""
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
    """Only the connected parts of so many pixels that hold one of `where`."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
    kept = stats[:, cv2.CC_STAT_AREA] >= least_px
    if where is not None:
        kept &= np.bincount(labels[where], minlength=count) > 0
    kept[0] = False
    return np.asarray(kept[labels], np.uint8)


def _faded(changed: npt.NDArray[np.uint8], *, start_px: float, width_px: float) -> FloatArray:
    """(h, w) rising smoothly from 0 at `start_px` inside the edge to 1 `width_px` further in."""
    depth = cv2.distanceTransform(changed, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    share = np.clip((depth - np.float32(start_px)) / np.float32(width_px), 0, 1)
    return np.asarray(smoothstep(share), np.float32)


def _trimmed(weight: FloatArray, rect: Rect) -> Region | None:
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
    tally: RestorationStats,
) -> Iterator[FaceFrame]:
    """Give every face its `region`; `before` are the same frames as they were before the swap.

    A face without any is left out and counted, so that nothing is spent on it.
    """
    for frame, was in zip(frames, before, strict=True):
        faces = []
        for face in frame.faces:
            region = swapped_region(frame.frame.image, was.image, unit_of(face), info, before_info)
            if region is not None:
                faces.append(replace(face, region=region))
            elif tally.counts(frame.frame.index):
                tally.not_restored["not changed by the face swap"] += 1
        yield frame.with_faces(tuple(faces))
