"""How wide the edges of a picture are: that a face is no sharper than what stands around it."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from vidrestore.imaging.filters import gaussian_blur
from vidrestore.imaging.frame import FloatArray
from vidrestore.imaging.luma import bt601_luma

# A face shall be at most 1.2 times as sharp as its surroundings; what it is brought to leaves room
# for errors of the measurement.
_SHARPER = 1.1

# Edges are compared after these two blurs; the first takes away noise.
_SIGMAS_PX = (1.5, 2.0)
# Gradient, per pixel after the first blur, below which there is no edge.
_LEAST_GRADIENT = 0.015
# How many edge pixels there must be, and which of their widths is taken: on photographs blurred by
# 1 to 4 pixels it is 0.8 to 3.7, with noise of 4 levels 0.8 to 3.5. The lower ones are texture.
_FEWEST, _QUANTILE = 40, 0.4
# Wider than this is no edge, but shading.
_WIDEST_PX = 12.0
# A gradient counts on the ridge of an edge, not on its slopes.
_RIDGE = 0.97
# Narrower than a pixel's own blur no edge can be shown.
_LEAST_WIDTH_PX = 0.4


def width_px(rgb: npt.NDArray[Any], where: npt.NDArray[np.bool_]) -> float | None:
    """Standard deviation of the blur of the edges of (h, w, 3), in [0, 1], `where`.

    A step that a Gaussian of s blurred has the gradient 1 / s on its ridge, up to a factor; so the
    ratio of the gradients after two more blurs, s1 and s2, leads to s (Zhuo and Sim, Pattern
    Recognition 44(9), 2011): R^2 = (s^2 + s2^2) / (s^2 + s1^2). None where there are no edges.
    """
    if min(where.shape) < 3 or int(np.count_nonzero(where)) < _FEWEST:
        return None
    luma = np.ascontiguousarray(bt601_luma(rgb), np.float32)
    fine, coarse = (_gradient(gaussian_blur(luma, sigma)) for sigma in _SIGMAS_PX)
    ridge = fine >= _RIDGE * cv2.dilate(fine, np.ones((3, 3), np.uint8))
    edges = where & ridge & (fine > _LEAST_GRADIENT)
    first, second = (sigma**2 for sigma in _SIGMAS_PX)
    excess = np.square(fine[edges] / np.maximum(coarse[edges], 1e-6)) - 1
    squares = (second - first) / np.maximum(excess, 1e-6) - first
    widths = np.sqrt(np.maximum(squares[squares < _WIDEST_PX**2], _LEAST_WIDTH_PX**2))
    return float(np.quantile(widths, _QUANTILE)) if len(widths) >= _FEWEST else None


def blur_px(own_px: float | None, around_px: float | None) -> float:
    """Standard deviation of the blur after which edges as wide as `own_px` are hardly sharper
    than those of `around_px`; 0 where either is not known."""
    if own_px is None or around_px is None:
        return 0.0
    return float(np.sqrt(max((around_px / _SHARPER) ** 2 - own_px**2, 0.0)))


def blurred(rgb: FloatArray, sigma_px: float) -> FloatArray:
    """(h, w, 3); itself where that is none."""
    if sigma_px < _LEAST_WIDTH_PX / 2:
        return rgb
    return gaussian_blur(rgb, sigma_px, border="repeat")


def _gradient(picture: npt.NDArray[Any]) -> FloatArray:
    x = cv2.filter2D(picture, -1, np.array([[-0.5, 0, 0.5]], np.float32))
    y = cv2.filter2D(picture, -1, np.array([[-0.5], [0], [0.5]], np.float32))
    return np.asarray(np.hypot(x, y), np.float32)
