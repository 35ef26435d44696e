"""The finest contrasts of a crop, raised to those of another."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from vidrestore.imaging.optical_flow import uses_opencv

_LARGEST_GAIN = 1.6
_LEAST_POWER = 1e-8
# The side of a crop in cells; texture is what differs from the means of cells.
_CELLS = 128


def with_texture(image: torch.Tensor, model: torch.Tensor, amount: float) -> torch.Tensor:
    """Raise the finest contrasts of a crop to those of another, at most 1.6 times.

    Args:
        image: (3, W, W) float32 on any device; its memory may be that of the result.
        model: (3, W, W) float32 on the same device.
        amount: The share of the missing contrast that is added, in [0, 1].

    Returns:
        (3, W, W) float32.
    """
    cell = max(2, image.shape[-1] // _CELLS)
    # OpenCV's areas are those of torch where they are whole pixels, as with all work sizes.
    if uses_opencv(image.device) and image.shape[-1] % (2 * cell) == 0:
        return _by_opencv(image, model, amount, cell)
    return _by_torch(image, model, amount, cell)


def _by_opencv(image: torch.Tensor, model: torch.Tensor, amount: float, cell: int) -> torch.Tensor:
    side = image.shape[-1]
    fine = np.empty(image.shape, np.float32)
    other = np.empty((side, side), np.float32)
    few = side // (2 * cell)
    left, meant = np.zeros((2, few, few), np.float32)
    for plane, wanted, texture in zip(image.numpy(), model.numpy(), fine, strict=True):
        _subtract_cells(plane, cell, texture)
        np.multiply(texture, texture, out=other)
        left += _scaled(other, few)
        _subtract_cells(wanted, cell, other)
        other *= other
        meant += _scaled(other, few)
    ratio = meant / np.maximum(left, np.float32(len(fine) * _LEAST_POWER))
    gain = np.clip(np.sqrt(ratio), 1, _LARGEST_GAIN)
    # Factors are interpolated between the middles of cells.
    factor = _scaled((gain - 1) * np.float32(amount), side)
    for plane, texture in zip(image.numpy(), fine, strict=True):
        cv2.accumulateProduct(texture, factor, plane)
    return image


def _subtract_cells(plane: npt.NDArray[Any], cell: int, output: npt.NDArray[Any]) -> None:
    """Write a plane less the bilinearly interpolated means of its cells."""
    side = len(plane)
    cv2.resize(_scaled(plane, side // cell), (side, side), dst=output)
    np.subtract(plane, output, out=output)


def _scaled(plane: npt.NDArray[Any], side: int) -> npt.NDArray[Any]:
    """Return means of whole areas, or a larger plane by bilinear interpolation."""
    how = cv2.INTER_AREA if side < len(plane) else cv2.INTER_LINEAR
    return cv2.resize(plane, (side, side), interpolation=how)


def _by_torch(image: torch.Tensor, model: torch.Tensor, amount: float, cell: int) -> torch.Tensor:
    fine = _without_cells(image, cell)
    left, meant = (
        F.avg_pool2d((x**2).mean(dim=0)[None, None], 2 * cell)
        for x in (fine, _without_cells(model, cell))
    )
    gain = (meant / left.clamp_min(_LEAST_POWER)).sqrt().clamp(1, _LARGEST_GAIN)
    return image + amount * (_enlarged(gain, image.shape[-1])[0] - 1) * fine


def _without_cells(image: torch.Tensor, cell: int) -> torch.Tensor:
    """Return (3, W, W) less the bilinearly interpolated means of its cells."""
    return image - _enlarged(F.avg_pool2d(image[None], cell, ceil_mode=True), image.shape[-1])[0]


def _enlarged(planes: torch.Tensor, side: int) -> torch.Tensor:
    return F.interpolate(planes, (side, side), mode="bilinear", align_corners=False)
