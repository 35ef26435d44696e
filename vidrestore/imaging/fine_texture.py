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


def cell_px(side: int) -> int:
    """Return the side of the cells of a crop whose means `with_texture` leaves out.

    Args:
        side: The side of the crop in pixels.

    Returns:
        The side of a cell in pixels. Parts of a crop begin and end on multiples of twice that.
    """
    return max(2, side // _CELLS)


def with_texture(
    image: torch.Tensor, model: torch.Tensor, amount: float, *, side: int | None = None
) -> torch.Tensor:
    """Raise the finest contrasts of a crop to those of another, at most 1.6 times.

    Args:
        image: (3, h, w) float32 on any device, a crop or a part of it; its memory may be that of
            the result.
        model: (3, h, w) float32 on the same device.
        amount: The share of the missing contrast that is added, in [0, 1].
        side: The side of the whole crop in pixels; default: w.

    Returns:
        (3, h, w) float32.
    """
    cell = cell_px(side or image.shape[-1])
    # OpenCV's areas are those of torch where they are whole pixels, as with all work sizes.
    if uses_opencv(image.device) and all(each % (2 * cell) == 0 for each in image.shape[1:]):
        return _by_opencv(image, model, amount, cell)
    return _by_torch(image, model, amount, cell)


def _by_opencv(image: torch.Tensor, model: torch.Tensor, amount: float, cell: int) -> torch.Tensor:
    height, width = image.shape[1:]
    fine = np.empty(image.shape, np.float32)
    other = np.empty((height, width), np.float32)
    few = height // (2 * cell), width // (2 * cell)
    left, meant = np.zeros((2, *few), np.float32)
    for plane, wanted, texture in zip(image.numpy(), model.numpy(), fine, strict=True):
        _subtract_cells(plane, cell, texture)
        np.multiply(texture, texture, out=other)
        left += _means(other, 2 * cell)
        _subtract_cells(wanted, cell, other)
        other *= other
        meant += _means(other, 2 * cell)
    ratio = meant / np.maximum(left, np.float32(len(fine) * _LEAST_POWER))
    gain = np.clip(np.sqrt(ratio), 1, _LARGEST_GAIN)
    # Factors are interpolated between the middles of cells.
    factor = cv2.resize((gain - 1) * np.float32(amount), (width, height))
    for plane, texture in zip(image.numpy(), fine, strict=True):
        cv2.accumulateProduct(texture, factor, plane)
    return image


def _subtract_cells(plane: npt.NDArray[Any], cell: int, output: npt.NDArray[Any]) -> None:
    """Write a plane less the bilinearly interpolated means of its cells."""
    cv2.resize(_means(plane, cell), plane.shape[::-1], dst=output)
    np.subtract(plane, output, out=output)


def _means(plane: npt.NDArray[Any], cell: int) -> npt.NDArray[Any]:
    """Return the means of whole cells."""
    size = plane.shape[1] // cell, plane.shape[0] // cell
    return cv2.resize(plane, size, interpolation=cv2.INTER_AREA)


def _by_torch(image: torch.Tensor, model: torch.Tensor, amount: float, cell: int) -> torch.Tensor:
    fine = _without_cells(image, cell)
    left, meant = (
        F.avg_pool2d((x**2).mean(dim=0)[None, None], 2 * cell)
        for x in (fine, _without_cells(model, cell))
    )
    gain = (meant / left.clamp_min(_LEAST_POWER)).sqrt().clamp(1, _LARGEST_GAIN)
    return image + amount * (_enlarged(gain, image.shape[1:])[0] - 1) * fine


def _without_cells(image: torch.Tensor, cell: int) -> torch.Tensor:
    """Return (3, h, w) less the bilinearly interpolated means of its cells."""
    return image - _enlarged(F.avg_pool2d(image[None], cell, ceil_mode=True), image.shape[1:])[0]


def _enlarged(planes: torch.Tensor, size: torch.Size) -> torch.Tensor:
    return F.interpolate(planes, size, mode="bilinear", align_corners=False)
