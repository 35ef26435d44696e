"""Motion blur: the blur of a source along the motion of its face, and the same blur for a face."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from vidrestore.imaging.filters import gaussian_blur
from vidrestore.imaging.frame import FloatArray
from vidrestore.imaging.geometry import Matrix, invert
from vidrestore.imaging.luma import BT601_WEIGHTS

GRID_PX = 256
"""The side, in pixels, of the small pictures of the unit crop that are compared."""

Vector = npt.NDArray[np.float64]
"""(2,) float64 (x, y)."""

# Motion per frame, in pixels of the grid, below which blur is not measured.
_LEAST_PX = 1.5
# Lengths of blur that are tried, as shares of the motion per frame: an open shutter gives 1.
_SHARES = np.linspace(0, 1, 9)
# Gradients that exceed those of the source by this factor count as equal.
_TOLERANCE = 1.05
# Blur that removes noise before gradients are compared.
_SIGMA_PX = 1.0
# A shorter blur, in pixels of the frame, does not show.
_LEAST_BLUR_PX = 0.7
_SUBSTEPS = 8
# Blurs in all directions that are tried, in pixels of the grid.
_SOFTNESS_PX = np.linspace(0, 5, 11)


@dataclass(frozen=True, slots=True, eq=False)
class MotionBlur:
    """The motion blur of one frame."""

    motion_px: Vector
    """(2,) motion (x, y), frame pixels per frame."""
    share: float
    """The length of the blur of the source as a share of the motion, in [0, 1]."""


def motion_px(unit: Matrix, neighbors: Sequence[Matrix | None]) -> Vector:
    """Return the motion of the middle of a crop.

    Convention:
        Matrices are frame pixel centers (x, y) -> unit crop.

    Args:
        unit: (2, 3) matrix of the frame.
        neighbors: The (2, 3) matrices of the frame before and of the frame after; None where there
            is none.

    Returns:
        (2,) float64 (x, y), frame pixels per frame; 0 without neighbors.
    """
    here = _middle(unit)
    steps = [sign * (_middle(each) - here) for sign, each in zip((-1, 1), neighbors, strict=True)
             if each is not None]  # fmt: skip
    return np.mean(steps, axis=0) if steps else np.zeros(2)


def is_fast(unit: Matrix, motion: Vector) -> bool:
    """Return whether a blur by a motion would show in the small pictures.

    Convention:
        `unit` is frame pixel centers (x, y) -> unit crop.

    Args:
        unit: (2, 3) matrix.
        motion: (2,) motion (x, y), frame pixels per frame.

    Returns:
        Whether it would.
    """
    return bool(np.linalg.norm(unit[:, :2] @ motion * GRID_PX) >= _LEAST_PX)


def smear_of(
    source: FloatArray, restored: FloatArray, face: FloatArray, unit: Matrix, motion: Vector
) -> MotionBlur:
    """Measure the motion blur of a source.

    Blur along the motion leaves the gradients across it unchanged. The restored face is first made
    as soft as the source is across the motion. The result is then the least length of blur with
    which the ratio of its gradients along the motion to those across it is no greater than in the
    source.

    Convention:
        `unit` is frame pixel centers (x, y) -> unit crop.

    Args:
        source: (256, 256, 3) RGB in [0, 1].
        restored: (256, 256, 3) RGB in [0, 1].
        face: (256, 256) weight in [0, 1] of each pixel.
        unit: (2, 3) matrix.
        motion: (2,) motion (x, y), frame pixels per frame, not 0.

    Returns:
        The motion blur.
    """
    x, y, width, height = cv2.boundingRect((face > 0).view(np.uint8))
    if min(width, height) < 3:
        return MotionBlur(motion, 0.0)
    part = np.s_[y : y + height, x : x + width]
    source, restored, face = source[part], restored[part], face[part].copy()
    along = unit[:, :2] @ motion * GRID_PX
    given = cv2.transform(source, BT601_WEIGHTS[None])
    own, across = _energies(given, face, along)
    wanted = _TOLERANCE * own / max(across, 1e-12)
    luma = _as_soft(cv2.transform(restored, BT601_WEIGHTS[None]), across, face, along)

    def is_enough(share: float) -> bool:
        own, across = _energies(_along(luma, along * share), face, along)
        return own <= wanted * max(across, 1e-12)

    return MotionBlur(motion, _first(_SHARES, is_enough))


def smeared(rgb: npt.NDArray[np.float32], blur_px: Vector) -> npt.NDArray[np.float32]:
    """Blur a picture along a line.

    Args:
        rgb: (h, w) or (h, w, 3) float32 picture.
        blur_px: (2,) length (x, y) of the line in pixels of the picture.

    Returns:
        The blurred picture, with its border repeated; `rgb` itself where the line is too short to
        show.
    """
    if np.linalg.norm(blur_px) < _LEAST_BLUR_PX:
        return rgb
    return _along(rgb, blur_px)


def _along(picture: npt.NDArray[Any], blur_px: Vector) -> npt.NDArray[np.float32]:
    """Average a picture along a line."""
    length = float(np.linalg.norm(blur_px))
    if length == 0:
        return picture
    reach = int(np.ceil(np.abs(blur_px).max() / 2)) + 1
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float64)
    count = max(2, round(_SUBSTEPS * length))
    x, y = (((np.arange(count) + 0.5) / count - 0.5) * along for along in blur_px)
    i, j = np.floor(y).astype(np.intp), np.floor(x).astype(np.intp)
    v, u = y - i, x - j
    for down, right, share in ((0, 0, (1 - v) * (1 - u)), (0, 1, (1 - v) * u),
                               (1, 0, v * (1 - u)), (1, 1, v * u)):  # fmt: skip
        np.add.at(kernel, (reach + i + down, reach + j + right), share / count)
    border = cv2.BORDER_REPLICATE
    return np.asarray(cv2.filter2D(picture, -1, kernel.astype(np.float32), borderType=border))


def _as_soft(
    luma: npt.NDArray[Any], across: float, face: FloatArray, along: Vector
) -> npt.NDArray[Any]:
    """Blur as little as leaves at most the energy `across` in the gradient across the motion."""

    def softer(sigma: float) -> npt.NDArray[Any]:
        return gaussian_blur(luma, sigma) if sigma else luma

    def is_enough(sigma: float) -> bool:
        return _energies(softer(sigma), face, along)[1] <= _TOLERANCE * across

    return softer(_first(_SOFTNESS_PX, is_enough))


def _first(lengths: npt.NDArray[Any], is_enough: Callable[[float], bool]) -> float:
    """Return the least sufficient of rising lengths of blur, or the last one.

    A longer blur removes more of a gradient, so bisection finds it.
    """
    return float(lengths[bisect_left(lengths[:-1].tolist(), True, key=is_enough)])


def _energies(luma: npt.NDArray[Any], face: FloatArray, along: Vector) -> tuple[float, float]:
    """Return the energy of the gradient along a direction, and of that across it."""
    low = gaussian_blur(luma, _SIGMA_PX)
    x, y = low[1:-1, 2:] - low[1:-1, :-2], low[2:, 1:-1] - low[:-2, 1:-1]
    inner = face[1:-1, 1:-1]
    weighted = inner * x
    xx, xy = (float(np.vdot(weighted, each)) / 4 for each in (x, y))
    yy = float(np.vdot(np.multiply(inner, y, out=weighted), y)) / 4
    u, v = along / np.linalg.norm(along)
    return u * u * xx + 2 * u * v * xy + v * v * yy, u * u * yy - 2 * u * v * xy + v * v * xx


def _middle(unit: Matrix) -> Vector:
    """Return the middle (x, y) of the unit crop in frame pixels."""
    inverse = invert(np.asarray(unit, np.float64))
    return np.asarray(inverse[:, :2] @ [0.5, 0.5] + inverse[:, 2])
