"""Expression: how far the eyes and the mouth of a restored face depart from those of its source.

A face mesh places each eye and the mouth in both pictures. The restored picture is blurred until it
is as soft as the source, and the area of an eye or the mouth is compared. A closed eye for an open
one, or teeth for closed lips, changes most of what the area shows, even where the lids and lips of
the mesh move by hardly more than their own uncertainty.

What the comparison cannot tell is measured on the rest of the same face: noise, compression and the
invention of the restorer differ there as much as they do in the eyes and the mouth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

from vidrestore.imaging.filters import box_blur, gaussian_blur
from vidrestore.imaging.frame import FloatArray
from vidrestore.imaging.luma import bt601_luma
from vidrestore.models.face_mesh import (
    INNER_LIPS,
    LEFT_EYE,
    LIPS,
    OVAL,
    RIGHT_EYE,
    Mesh,
    square_of_landmarks,
    square_of_mesh,
)
from vidrestore.restoration.compositing.masks import EXPRESSIVE, Points

if TYPE_CHECKING:
    from vidrestore.models.face_mesh import FaceMesh

PICTURE_PX = 256
"""The side, in pixels, of the pictures that are compared."""

# Standard deviations of the blurs, in pixels, that are tried on the restored face until it is as
# soft as the source, and of a blur of both beyond that, under which edges may lie a pixel apart.
_SOFTNESS_PX = (0.0, 0.5, 0.75, 1.0, 1.5, 2.0, 2.8, 4.0, 5.6, 8.0)
_CALM_PX = 1.5
# Standard deviation of the blur that softens the edges of areas, and a distance from them that it
# does not reach.
_EDGE_SIGMA_PX, _EDGE_REACH_PX = 1.0, 8
# Correlations that differ by less are equal, so that rounding decides nothing.
_EQUAL = 1e-5
# The number of blurs that agree less than a narrower one after which no wider blur is tried.
_FALLS = 2

# Half-axes of the part of the face on which the softness is measured, in distances of the eyes.
_FACE = (1.0, 1.25)

# How far around its points an area extends, in distances of the eyes.
_MARGINS = {"left_eye": 0.1, "right_eye": 0.1, "mouth": 0.06}
_POINTS: Mapping[str, Sequence[int]] = {
    "left_eye": LEFT_EYE,
    "right_eye": RIGHT_EYE,
    "mouth": (*LIPS, *INNER_LIPS),
}

# Variance, in squared 8-bit levels, below which contrast cannot be distinguished from the noise of
# bad sources.
_RIDGE = 25.0

# The tolerated shortfall of the correlation to 1 on a perfect source. True restorations fell short
# by 0.049 at most where noise explained a part of it; half-closed eyes by 0.14. With the noise
# below, 129 true restorations depart by 0.59 tolerances at most, of sources of a sixteenth of the
# resolution by 0.64.
_TOLERANCE = 0.03
# How much of the noise of the rest of the face is tolerated, too; a shortfall that noise alone
# causes is half of it, and features differ more than skin.
_NOISE_SHARE = 2.0
# The gains of a restorer's light that count as light, not as noise.
_GAINS = (0.2, 5.0)
# Broad differences are light, not noise: those wider than this box, in pixels, are left out.
_BROAD_PX = 41


@dataclass(frozen=True, slots=True, eq=False)
class Area:
    """A part of pictures, for weighted means over it.

    Only the box around the weights above 0 is read, so a small part costs little.
    """

    rows: slice
    columns: slice
    weight: FloatArray
    """(h, w) float32, at least 0: the weights in the box."""
    total: float
    """The sum of the weights."""

    @classmethod
    def of(cls, weight: FloatArray, *, at: tuple[int, int] = (0, 0)) -> Area:
        """Return the area of (h, w) float32 weights, which are at least 0.

        Args:
            weight: The weights.
            at: (row, column) of their first one in the picture; default: (0, 0).
        """
        rows, columns = (_extent(weight.max(axis=axis)) for axis in (1, 0))
        part = np.ascontiguousarray(weight[rows, columns])
        (down, across), total = at, max(float(part.sum()), 1e-6)
        return cls(
            slice(rows.start + down, rows.stop + down),
            slice(columns.start + across, columns.stop + across),
            part,
            total,
        )

    def moments(self, a: FloatArray, b: FloatArray) -> tuple[float, float]:
        """Return the covariance of two pictures, and the geometric mean of their variances.

        A variance that both pictures are assumed to share is added to all.

        Args:
            a: (H, W) float32 luma in 8-bit levels.
            b: (H, W) float32 luma in 8-bit levels.

        Returns:
            Both in squared levels.
        """
        a, b = (each - np.float32(self.mean_of(each)) for each in (self.part(a), self.part(b)))
        both, own, other = (self.mean_of(x * y) for x, y in ((a, b), (a, a), (b, b)))
        return both + _RIDGE, float(np.sqrt((own + _RIDGE) * (other + _RIDGE)))

    def correlation(self, a: FloatArray, b: FloatArray) -> float:
        """Return the weighted correlation of Pearson in [-1, 1].

        The variance that `moments` adds makes it 1 where there is no contrast.
        """
        both, contrast = self.moments(a, b)
        return both / contrast

    def part(self, picture: FloatArray) -> FloatArray:
        """Return a view of the box around the weights in an (H, W) picture."""
        return picture[self.rows, self.columns]

    def mean_of(self, part: FloatArray) -> float:
        """Return the weighted mean of (h, w) values in the box."""
        return float((part * self.weight).sum()) / self.total


def _extent(weights: FloatArray) -> slice:
    """Return the part of a line from the first weight above 0 to the last."""
    places = np.flatnonzero(weights)
    return slice(int(places[0]), int(places[-1]) + 1) if len(places) else slice(0, 0)


def softness_px(source: FloatArray, restored: FloatArray, landmarks: Points) -> float:
    """Return the blur that makes a restored face as soft as its source.

    Convention:
        Landmarks are (x, y) in the unit crop, whose outer edges lie at 0 and 1.

    Args:
        source: (256, 256, 3) float32 RGB in 8-bit levels.
        restored: (256, 256, 3) float32 RGB in 8-bit levels.
        landmarks: (5, 2) landmarks.

    Returns:
        The standard deviation of the blur in pixels, from 0 to 8: the one under which both
        correlate most.
    """
    face = Area.of(_face_weight(landmarks))
    low, luma = bt601_luma(source), bt601_luma(restored)
    best_px, best, falls = 0.0, -1.0, 0
    for sigma in _SOFTNESS_PX:
        agreement = face.correlation(low, _blurred(luma, sigma))
        if agreement > best + _EQUAL:
            best_px, best, falls = sigma, agreement, 0
        elif (falls := falls + 1) == _FALLS:  # wider blurs cost most, and would agree less
            break
    return best_px


def departures(
    mesh: FaceMesh,
    source: FloatArray,
    restored: FloatArray,
    landmarks: Points,
    soft_px: float,
) -> Mapping[str, float]:
    """Measure how far the eyes and the mouth of a restored face depart from those of its source.

    The unit is what the source leaves open: up to 1, the difference is no more than noise and
    softness explain.

    Convention:
        Landmarks are (x, y) in the unit crop, whose outer edges lie at 0 and 1.

    Args:
        mesh: The face mesh, which looks at both pictures once.
        source: (256, 256, 3) float32 RGB in 8-bit levels.
        restored: (256, 256, 3) float32 RGB in 8-bit levels.
        landmarks: (5, 2) landmarks.
        soft_px: The result of `softness_px` for the two pictures.

    Returns:
        The departure, at least 0, by the names of `masks.EXPRESSIVE`; empty where the mesh sees no
        face in the restored picture.
    """
    square = square_of_landmarks(landmarks * PICTURE_PX - 0.5)
    found = mesh.look(_bgr(restored), square)
    if not found.is_face:
        return {}
    meshes = [found]
    of_source = mesh.look(_bgr(source), square_of_mesh(found))
    if of_source.is_face:
        meshes.append(of_source)
    areas = {name: _area(meshes, name) for name in EXPRESSIVE}
    sigma = float(np.hypot(soft_px, _CALM_PX))
    own = _blurred(bt601_luma(source), _CALM_PX)
    other = _blurred(bt601_luma(restored), sigma)
    noise = _noise(own, other, found, areas)
    result = {}
    for name, area in areas.items():
        both, contrast = Area.of(area).moments(own, other)
        shortfall = 1 - both / contrast
        result[name] = max(shortfall, 0.0) / (_TOLERANCE + _NOISE_SHARE * noise / contrast)
    return result


def _noise(
    own: FloatArray, other: FloatArray, mesh: Mesh, areas: Mapping[str, FloatArray]
) -> float:
    """Return the variance of the difference on the rest of the face, in squared 8-bit levels.

    A restorer may lighten a face. The gain that fits best is no noise.
    """
    rest = _filled(mesh.points[list(OVAL), :2], 0)
    for area in areas.values():
        rest -= rest * area
    skin = Area.of(rest)
    own, other = (
        skin.part(each) - skin.part(box_blur(each, _BROAD_PX, _BROAD_PX)) for each in (own, other)
    )
    gain = skin.mean_of(own * other) / max(skin.mean_of(other * other), 1e-6)
    own -= np.float32(np.clip(gain, *_GAINS)) * other
    own *= own
    return skin.mean_of(own)


def _area(meshes: Sequence[Mesh], name: str) -> FloatArray:
    """Return (256, 256) in [0, 1]: where an eye or the mouth is in any of the meshes."""
    eyes = [meshes[0].points[list(each), :2].mean(axis=0) for each in (LEFT_EYE, RIGHT_EYE)]
    margin = _MARGINS[name] * float(np.linalg.norm(eyes[1] - eyes[0]))
    spots = [_filled(each.points[list(_POINTS[name]), :2], margin) for each in meshes]
    return reduce(np.maximum, spots)


def _filled(points: FloatArray, margin_px: float) -> FloatArray:
    """Return (256, 256) in [0, 1]: the convex hull of points (x, y) with a margin around it."""
    mask = np.zeros((PICTURE_PX, PICTURE_PX), np.uint8)
    hull = cv2.convexHull(np.rint(points * 16).astype(np.int32))
    cv2.fillConvexPoly(mask, hull, 255, shift=4)
    if margin_px > 0:
        cv2.polylines(mask, [hull], True, 255, max(1, round(2 * margin_px)), shift=4)
    soft = np.zeros(mask.shape, np.float32)
    x, y, width, height = cv2.boundingRect(mask)
    box = tuple(
        slice(max(start - _EDGE_REACH_PX, 0), start + length + _EDGE_REACH_PX)
        for start, length in ((y, height), (x, width))
    )
    soft[box] = _blurred(mask[box].astype(np.float32) / np.float32(255), _EDGE_SIGMA_PX)
    return soft


def _face_weight(landmarks: Points) -> FloatArray:
    """Return (256, 256): 1 on the face from the brows to the chin, else 0."""
    across = landmarks[1] - landmarks[0]
    middle = landmarks[[0, 1, 3, 4]].mean(axis=0)
    apart_px = float(np.linalg.norm(across)) * PICTURE_PX
    center = (round(float(v) * PICTURE_PX * 16) for v in middle)
    axes = (round(share * apart_px * 16) for share in _FACE)
    degrees = float(np.degrees(np.arctan2(across[1], across[0])))
    mask = np.zeros((PICTURE_PX, PICTURE_PX), np.float32)
    cv2.ellipse(mask, (*center,), (*axes,), degrees, 0, 360, 1.0, cv2.FILLED, shift=4)
    return mask


def _blurred(picture: FloatArray, sigma_px: float) -> FloatArray:
    return gaussian_blur(picture, sigma_px, border="repeat") if sigma_px > 0 else picture


def _bgr(picture: FloatArray) -> npt.NDArray[np.uint8]:
    return np.asarray(cv2.cvtColor(cv2.convertScaleAbs(picture), cv2.COLOR_RGB2BGR), np.uint8)
