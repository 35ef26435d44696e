"""The built-in portrait, enlarged and worn in three known ways.

It shows Eileen Collins, by NASA, in the public domain, as scikit-image carries it. Its face is
enlarged about 2.7 times first, so that wear is stated in pixels of a 512 x 512 crop, as the
literature on restoring faces does (Wang et al. 2021, arXiv:2101.04061, section 4.1). No truth
here holds finer detail than the portrait's own.
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
    warp,
)

Picture = npt.NDArray[np.uint8]
"""(H, W, 3) RGB."""
Points = npt.NDArray[np.float64]

CROP_PX = 512

# Eyes, nose, corners of the mouth in skimage.data.astronaut(), (x, y) in pixels; found once with
# SCRFD 2.5g (score 0.82) at a detector size of 640, so that none is needed here.
_LANDMARKS_PX = np.array(
    [[204.42, 100.81], [247.31, 103.09], [223.53, 128.42], [201.16, 138.53], [246.45, 140.62]]
)
_MARGIN = 0.25  # of the crop, around it, for the template with the wider view
_CANVAS_PX = round(CROP_PX * (1 + 2 * _MARGIN))


def clean_portrait() -> tuple[torch.Tensor, Points]:
    """(3, C, C) RGB in [0, 1], the face upright and a margin around it; its (5, 2) landmarks."""
    wide = (common_template() + _MARGIN) / (1 + 2 * _MARGIN)
    matrix = crop_matrix(fit_similarity(_LANDMARKS_PX[None], wide)[0], _CANVAS_PX)
    portrait = as_tensor(np.asarray(data.astronaut(), np.uint8))
    return cut(portrait, matrix, _CANVAS_PX), apply(matrix, _LANDMARKS_PX)


def common_template() -> Points:
    """Between the two, so that neither gains by a larger face in the crop that is scored."""
    return (template("gpen") + template("ffhq")) / 2


def place_in_crop(landmarks: Points, points: Points, side: int) -> Matrix:
    """Pixels of the portrait -> those of a crop of that side with its template at `points`."""
    return crop_matrix(fit_similarity(landmarks[None], points)[0], side)


def cut(picture: torch.Tensor, crop_from_picture: Matrix, side: int) -> torch.Tensor:
    return warp(picture, invert(crop_from_picture), side, side, mode="bicubic").clamp(0, 1)


def as_tensor(picture: Picture) -> torch.Tensor:
    """(H, W, 3) -> (3, H, W) in [0, 1]."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255


def as_picture(tensor: torch.Tensor) -> Picture:
    """The way back."""
    levels = (tensor * 255).round().clamp(0, 255).permute(1, 2, 0)
    return np.asarray(levels.numpy(), np.uint8)


def _soft(picture: Picture) -> Picture:
    """Out of focus, stored at a quarter of its size."""
    blurred = gaussian_blur(picture, 3)
    return _enlarged(_jpeg(_noisy(_reduced(blurred, 4), 4), quality=75), picture)


def _small(picture: Picture) -> Picture:
    """Far away: an eighth of its size."""
    return _enlarged(_jpeg(_noisy(_reduced(picture, 8), 2), quality=90), picture)


def _old(picture: Picture) -> Picture:
    """Tape: half the resolution, chroma that bleeds to the right, noise, compression."""
    bled = np.asarray(bleed_chroma(_reduced(picture, 2), (4, 1), 3), np.uint8)
    return _enlarged(_jpeg(_noisy(bled, 12), quality=60), picture)


def bleed_chroma(
    picture: npt.NDArray[Any], sigma_px: tuple[float, float], shift_px: float
) -> npt.NDArray[Any]:
    """(H, W, 3) RGB, uint8 or float32 in 8-bit levels, with chroma blurred in (x, y), moved right.

    What composite video does, whose chroma has a fraction of the luma's bandwidth.
    """
    ycc = cv2.cvtColor(picture, cv2.COLOR_RGB2YCrCb)
    chroma = gaussian_blur(ycc[..., 1:], sigma_px)
    shift = np.array([[1, 0, shift_px], [0, 1, 0]], np.float32)
    ycc[..., 1:] = cv2.warpAffine(chroma, shift, ycc.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(cv2.cvtColor(ycc, cv2.COLOR_YCrCb2RGB))


WEAR: dict[str, Callable[[Picture], Picture]] = {"soft": _soft, "small": _small, "old": _old}
"""By name, each from a clean picture to a worn one of the same size."""


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
