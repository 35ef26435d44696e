"""The built-in portrait, enlarged and degraded in three known ways.

The portrait shows Eileen Collins. NASA made it and put it in the public domain; scikit-image
contains it. The face is enlarged about 2.7 times before it is degraded, so that the degradation is
stated in pixels of a 512 x 512 crop, as in the literature on face restoration (Wang et al. 2021,
arXiv:2101.04061, section 4.1). The clean portrait holds no finer detail than the original.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from skimage import data

from vidrestore.imaging.filters import gaussian_blur
from vidrestore.imaging.geometry import (
    Matrix,
    apply,
    crop_matrix,
    fit_similarity,
    invert,
    template,
)
from vidrestore.imaging.resample import warp

Picture = npt.NDArray[np.uint8]
"""(H, W, 3) uint8 R'G'B'."""
Points = npt.NDArray[np.float64]
"""(5, 2) x, y of the five landmarks."""

CROP_PX = 512
"""Side of the crop in whose pixels the degradation is stated."""

# Eyes, nose and corners of the mouth in skimage.data.astronaut(), (x, y) in pixels. SCRFD 2.5g
# detected them at a detector size of 640 (score 0.82); stored here, they need no detector.
_LANDMARKS_PX = np.array(
    [[204.42, 100.81], [247.31, 103.09], [223.53, 128.42], [201.16, 138.53], [246.45, 140.62]]
)
_MARGIN = 0.25  # as a share of the crop, around it, for the template with the wider view
_CANVAS_PX = round(CROP_PX * (1 + 2 * _MARGIN))


def clean_portrait() -> tuple[torch.Tensor, Points]:
    """Make the clean portrait, with the face upright and a margin around it.

    Returns:
        (3, C, C) float32 R'G'B' in [0, 1], and the (5, 2) landmarks.

    Convention:
        The landmarks are (x, y) in pixels of the picture; integer coordinates are pixel centers.
    """
    wide = (common_template() + _MARGIN) / (1 + 2 * _MARGIN)
    matrix = crop_matrix(fit_similarity(_LANDMARKS_PX[None], wide)[0], _CANVAS_PX)
    portrait = as_tensor(np.asarray(data.astronaut(), np.uint8))
    return cut(portrait, matrix, _CANVAS_PX), apply(matrix, _LANDMARKS_PX)


def common_template() -> Points:
    """Return the mean of the templates "gpen" and "ffhq", (5, 2) in sides of the crop.

    In a crop by this template, neither of the two has the advantage of a larger face.
    """
    return (template("gpen") + template("ffhq")) / 2


def place_in_crop(landmarks: Points, points: Points, side: int) -> Matrix:
    """Compute the matrix that places the face of the portrait in a crop.

    Args:
        landmarks: (5, 2) landmarks in the portrait, x, y in pixels.
        points: (5, 2) places of the landmarks in the crop, in sides of the crop.
        side: Side of the crop, in pixels.

    Returns:
        (2, 3) matrix of a similarity.

    Convention:
        The matrix maps pixels of the portrait -> pixels of the crop. Points are (x, y); integer
        coordinates are pixel centers.
    """
    return crop_matrix(fit_similarity(landmarks[None], points)[0], side)


def cut(picture: torch.Tensor, crop_from_picture: Matrix, side: int) -> torch.Tensor:
    """Cut a square crop out of a picture, by bicubic interpolation.

    Args:
        picture: (3, H, W) float32 in [0, 1].
        crop_from_picture: (2, 3) matrix.
        side: Side of the crop, in pixels.

    Returns:
        (3, side, side) float32 in [0, 1].

    Convention:
        The matrix maps pixels of the picture -> pixels of the crop. Points are (x, y); integer
        coordinates are pixel centers.
    """
    return warp(picture, invert(crop_from_picture), side, side, mode="bicubic").clamp(0, 1)


def as_tensor(picture: Picture) -> torch.Tensor:
    """Convert a picture to a tensor.

    Args:
        picture: (H, W, 3) uint8.

    Returns:
        (3, H, W) float32 in [0, 1].
    """
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255


def as_picture(tensor: torch.Tensor) -> Picture:
    """Convert a tensor to a picture; `as_tensor` does the reverse.

    Args:
        tensor: (3, H, W) in [0, 1]; values outside are clipped.

    Returns:
        (H, W, 3) uint8.
    """
    levels = (tensor * 255).round().clamp(0, 255).permute(1, 2, 0)
    return np.asarray(levels.numpy(), np.uint8)


def _soft(picture: Picture) -> Picture:
    """Degrade like a picture out of focus that was stored at a quarter of its size."""
    blurred = gaussian_blur(picture, 3)
    return _enlarged(_jpeg(_noisy(_reduced(blurred, 4), 4), quality=75), picture)


def _small(picture: Picture) -> Picture:
    """Degrade like a face far away, at an eighth of its size."""
    return _enlarged(_jpeg(_noisy(_reduced(picture, 8), 2), quality=90), picture)


def _old(picture: Picture) -> Picture:
    """Degrade like a tape: half the resolution, chroma shifted right, noise, compression."""
    bled = np.asarray(bleed_chroma(_reduced(picture, 2), (4, 1), 3), np.uint8)
    return _enlarged(_jpeg(_noisy(bled, 12), quality=60), picture)


def bleed_chroma(
    picture: npt.NDArray[Any], sigma_px: tuple[float, float], shift_px: float
) -> npt.NDArray[Any]:
    """Blur the chroma of a picture and shift it to the right, as composite video does.

    The chroma of composite video has a fraction of the bandwidth of the luma.

    Args:
        picture: (H, W, 3) R'G'B', uint8, or float32 in the range of `cv2.cvtColor`.
        sigma_px: Sigma of the Gaussian blur in x and in y, in pixels.
        shift_px: Shift to the right, in pixels.

    Returns:
        The picture, of the same shape and type.
    """
    ycc = cv2.cvtColor(picture, cv2.COLOR_RGB2YCrCb)
    chroma = gaussian_blur(ycc[..., 1:], sigma_px)
    shift = np.array([[1, 0, shift_px], [0, 1, 0]], np.float32)
    ycc[..., 1:] = cv2.warpAffine(chroma, shift, ycc.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(cv2.cvtColor(ycc, cv2.COLOR_YCrCb2RGB))


DEGRADATIONS: dict[str, Callable[[Picture], Picture]] = {
    "soft": _soft,
    "small": _small,
    "old": _old,
}
"""Name of each degradation -> the function from a clean picture to a degraded one of its size."""


def _reduced(picture: npt.NDArray[np.generic], factor: int) -> Picture:
    height, width = picture.shape[0] // factor, picture.shape[1] // factor
    reduced = cv2.resize(np.asarray(picture), (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(reduced, np.uint8)


def _enlarged(picture: Picture, like: Picture) -> Picture:
    larger = cv2.resize(picture, like.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    return np.asarray(larger, np.uint8)


def _noisy(picture: Picture, sigma: float) -> Picture:
    noise = np.random.default_rng(20).normal(0, sigma, picture.shape)
    return np.asarray(np.clip(np.rint(picture + noise), 0, 255), np.uint8)


def _jpeg(picture: Picture, *, quality: int) -> Picture:
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    _, coded = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), options)
    decoded = cv2.imdecode(coded, cv2.IMREAD_COLOR)
    assert decoded is not None
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)
