"""Occlusion: where a restored face contradicts its source, as behind a hand, glasses or hair.

No network is needed: a hand in front of a chin changes broad colors, which a faithful restorer
keeps. All computations use small pictures of the unit crop in 8-bit levels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from vidrestore.imaging.filters import box_blur, gaussian_blur
from vidrestore.imaging.frame import FloatArray

GRID_PX = 128
"""The side, in pixels, of the small pictures that are compared."""

# Standard deviations of blurs, in pixels of the grid: that of the source before it is compared, and
# those tried on the restored face until it is as soft as the blurred source.
_SIGMA_PX, _SOFTNESS_PX = 2.0, (2.0, 2.8, 4.0, 5.7, 8.0)
# How far a feature may be displaced, in pixels of the grid.
_MOVED_PX = 1
# Contradiction, in levels, from which an occluder is seen, and down to which it then extends.
_SEEN, _REACHED = 20.0, 5.0
# Both fall on dark faces, down to this share at black; faces are dark below the second value.
_DARKEST, _BRIGHT = 0.3, 90.0
# Radii by which holes and gaps are closed, and by which the outline then moves out.
_CLOSED_PX, _DILATION_PX = 6, 3
# Smaller areas are noise.
_LEAST_AREA_PX = 24
# Rounds of the fit of the tint, and the contradiction in levels at which a pixel counts half.
_FIT_ROUNDS, _FIT_LEVELS = 4, 12.0
_LARGEST_GAIN = 1.6
# Width over which a face fades towards an occluder.
_FADE_PX = 2


@dataclass(frozen=True, slots=True, eq=False)
class OcclusionCheck:
    """The contradictions of one frame."""

    levels: FloatArray
    """(128, 128) contradiction in 8-bit levels, raised in dark faces; 0 beyond the face."""

    @property
    def agrees(self) -> FloatArray:
        """(128, 128) float32: 1 where there is no contradiction, else 0."""
        return (self.levels <= _REACHED).astype(np.float32)


def contradiction(source: FloatArray, restored: FloatArray, face: FloatArray) -> OcclusionCheck:
    """Measure how far a restored face is from what its source can have shown.

    Only low frequencies are compared. The tint of the restorer is removed first, and the restored
    face is made as soft as the source is in most places. A pixel contradicts by the distance of the
    source from the range of the restored values within one pixel around.

    Args:
        source: (128, 128, 3) RGB in 8-bit levels.
        restored: (128, 128, 3) RGB in 8-bit levels.
        face: (128, 128) weight in [0, 1] of each pixel; pixels of weight 0 never contradict.

    Returns:
        The contradictions.
    """
    # Such wide blurs are made and compared at half the resolution.
    given = _blurred(cv2.pyrDown(source), _halved(_SIGMA_PX))
    half = np.asarray(cv2.pyrDown(restored), np.float32)
    blurs = _increasing_blurs(_without_tint(half, source, face))
    where = face[::2, ::2]
    alike = [float((where * np.minimum(_length(blur - given), _SEEN)).sum()) for blur in blurs]
    best = int(np.argmin(alike))
    low, *near = (cv2.pyrUp(each) for each in (given, *blurs[max(0, best - 1) : best + 2]))
    around = np.ones((2 * _MOVED_PX + 1, 2 * _MOVED_PX + 1), np.uint8)
    least = cv2.erode(reduce(cv2.min, near), around)
    most = cv2.dilate(reduce(cv2.max, near), around)
    # A value between the two gives no difference, any other its distance from the nearer one.
    levels = _length(low - cv2.min(cv2.max(low, least), most))
    light = float((where * given.mean(axis=2)).sum()) / max(float(where.sum()), 1e-6)
    darkness = min(max(light / _BRIGHT, _DARKEST), 1.0)
    levels *= np.float32(1 / darkness)
    levels[face == 0] = 0
    return OcclusionCheck(levels)


def visible(window: Sequence[OcclusionCheck], at: int, reach: int) -> FloatArray:
    """Return where the face of a frame is not covered.

    A clear contradiction in a frame or next to it is an occluder, as far as weaker contradiction
    continues around it. Occluders of the frames up to `reach` before and after fade in and out, so
    that nothing flickers. An occluder of the frame itself counts fully.

    Args:
        window: The contradictions of successive frames.
        at: The index of the frame in `window`.
        reach: The number of frames before and after over which occluders fade.

    Returns:
        (128, 128) float32 in [0, 1]; 0 where the face is covered.
    """
    near = range(max(0, at - reach), min(len(window), at + reach + 1))
    covered = np.max(
        [_covered(window, i) * np.float32(1 - abs(i - at) / (reach + 1)) for i in near], axis=0
    )
    if not covered.any():
        return np.asarray(1 - covered, np.float32)
    dilated = cv2.dilate(covered, _disc(_DILATION_PX))
    fading = box_blur(cv2.dilate(dilated, _disc(_FADE_PX)), 2 * _FADE_PX + 1, 2 * _FADE_PX + 1)
    return np.asarray(1 - np.maximum(dilated, fading), np.float32)


def _covered(window: Sequence[OcclusionCheck], at: int) -> FloatArray:
    """Return (128, 128) of 0 or 1: the occluders of one frame."""
    near = window[max(0, at - 1) : at + 2]
    if max(float(each.levels.max()) for each in near) <= _SEEN:
        return np.zeros((GRID_PX, GRID_PX), np.float32)
    seen = np.max([each.levels for each in near], axis=0) > _SEEN
    reached = (window[at].levels > _REACHED).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(reached, connectivity=8)
    holds = np.bincount(labels[seen & (reached > 0)], minlength=count) > 0
    holds &= stats[:, cv2.CC_STAT_AREA] >= _LEAST_AREA_PX
    holds[0] = False
    kept = holds[labels].astype(np.uint8)
    closed = cv2.morphologyEx(kept, cv2.MORPH_CLOSE, _disc(_CLOSED_PX))
    return np.asarray(closed, np.float32)


def _without_tint(restored: FloatArray, source: FloatArray, face: FloatArray) -> FloatArray:
    """Return `restored`, of any size, with the gain and offset of each channel that fit `source`.

    The fit is robust against occluders.
    """
    side = GRID_PX // 4
    a, b = (
        _reduced(picture, side).reshape(-1, 3).astype(np.float64) for picture in (restored, source)
    )
    base: npt.NDArray[Any] = _reduced(face, side).reshape(-1).astype(np.float64)
    if base.sum() < 1:
        return restored
    # The fit needs only weighted means of the products.
    products = np.concatenate([a, b, a * a, a * b], axis=1)
    weight = base
    gain, offset = np.ones(3), np.zeros(3)
    for _ in range(_FIT_ROUNDS):
        sums = weight @ products
        mean_a, mean_b, squares, both = (sums / weight.sum()).reshape(4, 3)
        own = squares - mean_a**2 + 25.0
        gain = ((both - mean_a * mean_b + 25.0) / own).clip(1 / _LARGEST_GAIN, _LARGEST_GAIN)
        offset = mean_b - gain * mean_a
        off = (a * gain + offset - b) / _FIT_LEVELS
        distance = np.einsum("nk,nk->n", off, off)
        weight = base / (1 + distance) + 1e-9
    return restored * gain.astype(np.float32) + offset.astype(np.float32)


def _increasing_blurs(half: FloatArray) -> list[FloatArray]:
    """Blur a picture of half the size by each of `_SOFTNESS_PX`.

    Each blur continues the one before, since variances add.
    """
    blurs, before = [half], 0.0
    for sigma in map(_halved, _SOFTNESS_PX):
        blurs.append(_blurred(blurs[-1], math.sqrt(sigma**2 - before**2)))
        before = sigma
    return blurs[1:]


def _halved(sigma_px: float) -> float:
    """Return the blur that remains between `pyrDown` and `pyrUp`, whose variances are 1 each."""
    return math.sqrt(sigma_px**2 - 2) / 2


def _length(vectors: FloatArray) -> FloatArray:
    """Return the (h, w) length of (h, w, 3) vectors."""
    squares = cv2.transform(vectors * vectors, np.ones((1, 3), np.float32))
    return np.asarray(np.sqrt(squares, out=squares), np.float32)


def _reduced(picture: FloatArray, side: int) -> FloatArray:
    small = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
    return _blurred(small, 1.0)


def _blurred(picture: npt.NDArray[Any], sigma: float) -> FloatArray:
    return np.asarray(gaussian_blur(picture, sigma, border="repeat"), np.float32)


def _disc(radius: int) -> npt.NDArray[np.uint8]:
    side = 2 * radius + 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)), np.uint8)
