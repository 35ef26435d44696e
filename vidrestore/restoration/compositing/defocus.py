"""Defocus: the width of edges, so that a face is no sharper than the picture around it."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from vidrestore.imaging.filters import gaussian_blur
from vidrestore.imaging.frame import FloatArray
from vidrestore.imaging.luma import bt601_luma

# A face may be at most 1.2 times as sharp as its surroundings; the lower value leaves room for
# errors of the measurement.
_SHARPER = 1.1

# Edges are compared after these two blurs; the first removes noise.
_SIGMAS_PX = (1.5, 2.0)
# Gradient, per pixel after the first blur, below which there is no edge.
_LEAST_GRADIENT = 0.015
# The least number of edge pixels, and the quantile of their widths that is returned: on photographs
# blurred by 1 to 4 pixels it is 0.8 to 3.7, with noise of 4 levels 0.8 to 3.5. Lower widths are
# those of texture.
_FEWEST, _QUANTILE = 40, 0.4
# A wider transition is shading and no edge.
_WIDEST_PX = 12.0
# A pixel counts on the ridge of an edge, where its gradient is this share of the greatest around.
_RIDGE = 0.97
# A pixel itself blurs an edge by this much.
_LEAST_WIDTH_PX = 0.4


def width_px(rgb: npt.NDArray[Any], where: npt.NDArray[np.bool_]) -> float | None:
    """Measure the width of the edges of a picture.

    A step that a Gaussian of standard deviation s blurred has the gradient 1 / s on its ridge, up
    to a factor. The ratio R of the gradients after two more blurs, s1 and s2, therefore gives s:
    R^2 = (s^2 + s2^2) / (s^2 + s1^2) (Zhuo and Sim, Pattern Recognition 44(9), 2011).

    Args:
        rgb: (h, w, 3) RGB in [0, 1].
        where: (h, w) the pixels in which edges count.

    Returns:
        The standard deviation of the blur of the edges, in pixels; None where there are too few
        edges.
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
    """Return the blur that makes edges hardly sharper than other edges.

    Args:
        own_px: The width of the edges in pixels, as `width_px` returns it.
        around_px: The width of the other edges in pixels, as `width_px` returns it.

    Returns:
        The standard deviation of the blur in pixels; 0 where a width is None.
    """
    if own_px is None or around_px is None:
        return 0.0
    return float(np.sqrt(max((around_px / _SHARPER) ** 2 - own_px**2, 0.0)))


def blurred(rgb: FloatArray, sigma_px: float) -> FloatArray:
    """Blur a picture.

    Args:
        rgb: (h, w, 3) float32 picture.
        sigma_px: The standard deviation in pixels.

    Returns:
        (h, w, 3) float32; `rgb` itself where the blur is below what a pixel can show.
    """
    if sigma_px < _LEAST_WIDTH_PX / 2:
        return rgb
    return gaussian_blur(rgb, sigma_px, border="repeat")


def _gradient(picture: npt.NDArray[Any]) -> FloatArray:
    """Return the magnitude of the gradient per pixel."""
    x = cv2.filter2D(picture, -1, np.array([[-0.5, 0, 0.5]], np.float32))
    y = cv2.filter2D(picture, -1, np.array([[-0.5], [0], [0.5]], np.float32))
    return np.asarray(np.hypot(x, y), np.float32)
