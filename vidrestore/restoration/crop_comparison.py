"""Comparing crops of one face: its luma, its light, and where two pictures of it differ.

Deflickering and key frames decide by it which crops show the same. Pictures are (S, S, 3) float32
in 8-bit levels, crops (3, W, W) in [0, 1].
"""

from __future__ import annotations

from functools import cache
from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from vidrestore.imaging.device_copies import to_host
from vidrestore.imaging.filters import gaussian_blur
from vidrestore.imaging.geometry import Rect
from vidrestore.imaging.luma import bt601_luma
from vidrestore.imaging.optical_flow import Grey, enlarged, uses_opencv
from vidrestore.restoration.compositing.masks import face_mask

LEAST_GUIDE_PX = 128
"""The least side of the small pictures in which motion and weights are computed."""
_GREATEST_GUIDE_PX = 256
# The difference of the mean colors, in 8-bit levels, at which the weight of a picture is 1/e.
_LIGHT_TOLERANCE = 30.0
# Standard deviation of the blur before flow, in pixels of its picture.
_FLOW_SIGMA_PX = 1.2
# Changes of light below this many levels are more likely noise of the estimate.
_LIGHT_NOISE = 1.5
# Variance, in squared levels, below which a picture tells little about contrast.
_LIGHT_RIDGE = 64.0
_LIGHT_ROUNDS = 2
# The difference, in 8-bit levels, from which on a pixel hardly tells about light.
_FITTING_LEVELS = 12.0

_Plane = npt.NDArray[np.float32]
_Level = TypeVar("_Level", np.uint8, np.float32)


def guide_side(work_px: int) -> int:
    """Return the side of the small pictures in which motion and weights are computed.

    Args:
        work_px: The side of the crops in pixels.

    Returns:
        The side S in pixels, from 128 to 256.
    """
    return min(max(work_px, LEAST_GUIDE_PX), _GREATEST_GUIDE_PX)


def misfit(picture: _Plane, light: _Plane, target: _Plane) -> _Plane:
    """Return the mean squared difference of two pictures in the same light.

    Args:
        picture: (S, S, 3) float32 in 8-bit levels.
        light: (2, 3) gain and offset that bring it into the light of `target`.
        target: (S, S, 3) float32 in 8-bit levels.

    Returns:
        (S, S) float32 in squared levels.
    """
    lit = cv2.transform(picture, np.column_stack([np.diag(light[0]), light[1]]))
    apart = np.asarray(lit, np.float32)
    apart -= target
    return mean_square(apart)


def mean_square(apart: _Plane) -> _Plane:
    """Return the mean square of the channels of a difference, which is overwritten.

    Args:
        apart: (S, S, 3) float32.

    Returns:
        (S, S) float32.
    """
    apart *= apart
    return np.asarray(cv2.transform(apart, np.full((1, 3), 1 / 3, np.float32)))


def doubt_by_light(first: _Plane, second: _Plane) -> np.float32:
    """Return the doubt whether two pictures show the same, by their mean colors.

    Args:
        first: (S, S, 3) float32 in 8-bit levels.
        second: (S, S, 3) float32 in 8-bit levels.

    Returns:
        The doubt, at least 0; a weight is exp(-doubt).
    """
    jump = np.subtract(cv2.mean(first)[:3], cv2.mean(second)[:3])
    return np.float32((jump**2).mean() / _LIGHT_TOLERANCE**2)


def light_change(target: _Plane, picture: _Plane) -> _Plane:
    """Return the gain and offset of each channel that light `picture` as `target` is lit.

    They are found by least squares over the face, first from the median offset, then without pixels
    that do not fit: a hand that comes into the picture is no change of light.

    Args:
        target: (S, S, 3) float32 in 8-bit levels.
        picture: (S, S, 3) float32 in 8-bit levels.

    Returns:
        (2, 3) float32: gains, and offsets in 8-bit levels.
    """
    places = _fitted_places(len(target))
    x, y = (
        np.ascontiguousarray(plane.reshape(-1, 3).take(places, axis=0).T, np.float64)
        for plane in (picture, target)
    )
    change = y - x
    gain, offset = np.ones(3), _medians(change)
    for _ in range(_LIGHT_ROUNDS):
        errors = ((gain - 1)[:, None] * x + offset[:, None] - change) ** 2
        weights = np.exp(errors.sum(axis=0) / (-3 * _FITTING_LEVELS**2)) + 1e-6
        weights /= weights.sum()
        x_mean = (weights * x).sum(axis=1)
        weighted = weights * (x - x_mean[:, None])
        variance, covariance = (weighted * x).sum(axis=1), (weighted * change).sum(axis=1)
        gain = 1 + covariance / (variance + _LIGHT_RIDGE)
        offset = (weights * y).sum(axis=1) - gain * x_mean
    size = float((((gain - 1)[:, None] * x + offset[:, None]) ** 2).mean())
    likely = size / (size + _LIGHT_NOISE**2)
    return np.array([1 + likely * (gain - 1), likely * offset], np.float32)


@cache
def _fitted_places(side: int) -> npt.NDArray[np.intp]:
    """Return the numbers of the pixels of the face to which light is fitted, in (side, side)."""
    apart = side // 32
    numbers = np.arange(side**2).reshape(side, side)[::apart, ::apart]
    return np.asarray(numbers[face_ellipse(side)[::apart, ::apart]], np.intp)


def _medians(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the median of each row, in half the time of numpy's own, which looks for NaN."""
    middle = [(rows.shape[1] - 1) // 2, rows.shape[1] // 2]
    return np.asarray(np.partition(rows, middle, axis=1)[:, middle].mean(axis=1))


def differing(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return where any channel of two crops differs.

    Args:
        first: (3, W, W) on any device.
        second: (3, W, W) on the same device.

    Returns:
        (W, W) bool.
    """
    if not uses_opencv(first.device):
        return (first != second).any(dim=0)
    (red, *others), (red_then, *others_then) = first.numpy(), second.numpy()
    differs = np.asarray(red != red_then)
    for own, then in zip(others, others_then, strict=True):
        if differs.all():
            break
        differs |= own != then
    return torch.from_numpy(differs)


def share_changed(differs: torch.Tensor, side: int) -> _Plane | None:
    """Return the shares of pixels that differ.

    Args:
        differs: (W, W) bool, as `differing` returns it.
        side: The side S of the result in pixels.

    Returns:
        (S, S) float32 in [0, 1]; None where all pixels differ.
    """
    if not uses_opencv(differs.device) or len(differs) < side:
        if differs.all():
            return None
        return np.asarray(to_host(F.adaptive_avg_pool2d(differs[None].float(), side)[0]).numpy())
    everywhere = differs.numpy()
    if everywhere.all():
        return None
    small = cv2.resize(everywhere.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)
    return np.asarray(small)


def clamp(crop: torch.Tensor) -> None:
    """Clamp a crop to [0, 1], in place.

    Args:
        crop: (3, W, W) float32 on any device.
    """
    if not uses_opencv(crop.device):
        crop.clamp_(0, 1)
    else:
        np.clip(crop.numpy(), 0, 1, out=crop.numpy())


def copy_into(crop: torch.Tensor, target: torch.Tensor) -> None:
    """Copy a crop, or a part of one, into memory that is there.

    Args:
        crop: (3, h, w) on any device.
        target: (3, h, w) on the same device; it is overwritten.
    """
    if not uses_opencv(crop.device):
        target.copy_(crop)
    else:
        np.copyto(target.numpy(), crop.numpy())


def quotient(
    total: torch.Tensor, offsets: _Plane, weight: _Plane, side: int, part: Rect | None = None
) -> torch.Tensor:
    """Return (total + enlarged(offsets)) / enlarged(weight), in the memory of `total`.

    Args:
        total: (3, h, w) float32 on any device; it is overwritten.
        offsets: (3, S, S) float32.
        weight: (S, S) float32 above 0.
        side: The side W of the crop in pixels.
        part: The part of the crop that `total` is; default: all.

    Returns:
        `total`.
    """
    device = total.device
    divisor = enlarged(weight, side, device, part)
    if not uses_opencv(device):
        return total.add_(enlarged(offsets, side, device, part)).div_(divisor)
    for plane, offset in zip(total.numpy(), offsets, strict=True):
        plane += enlarged(offset, side, device, part)[0].numpy()
        plane /= divisor[0].numpy()
    return total


@cache
def face_ellipse(side: int) -> npt.NDArray[np.bool_]:
    """Return where the face is in a crop.

    Args:
        side: The side S of the crop in pixels.

    Returns:
        (S, S) bool, True on the face.
    """
    return np.asarray(face_mask(side)[0].numpy() > 0)


def gray_of(levels: _Plane) -> Grey:
    luma = gaussian_blur(bt601_luma(levels), _FLOW_SIGMA_PX)
    return np.asarray(np.clip(np.rint(luma), 0, 255), np.uint8)


def blurred(field: npt.NDArray[np.float32], sigma_px: float) -> npt.NDArray[np.float32]:
    """Blur with a standard deviation in pixels at a side of 512.

    Args:
        field: (S, S) or (S, S, C) float32.
        sigma_px: The standard deviation.

    Returns:
        An array of the shape of `field`.
    """
    return gaussian_blur(field, sigma_px * field.shape[0] / 512)


def halved(picture: npt.NDArray[_Level]) -> npt.NDArray[_Level]:
    """Scale a picture to half its sides, by means over areas.

    Args:
        picture: (S, S) or (S, S, C) uint8 or float32, S an even number.

    Returns:
        An array of half the sides, of the type of `picture`.
    """
    half = cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return np.asarray(half, picture.dtype)
