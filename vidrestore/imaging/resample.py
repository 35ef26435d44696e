"""Resampling of a picture on a coarser grid, with a low-pass filter against aliasing."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from vidrestore.imaging.filters import smoothstep
from vidrestore.imaging.geometry import Matrix

# Pictures are halved by boxes while at least this many of their pixels fall on one target pixel.
# The frequencies that alias in a halving lie far above the cutoff of the filter that follows.
_HALVE_FROM = 8.0
# Up to this step, bicubic interpolation alone is used, as for enlarging.
_NEARLY_ONE = 1.02
# The filter fades in up to this step, so that a face that comes nearer changes its sharpness
# gradually.
_FULL_FROM = 1.25
# The filter: its cutoff in cycles per target pixel; its half width in target pixels; the beta of
# its Kaiser window. It does not average over a pixel besides: that took a tenth of the contrast at
# a quarter of a cycle and a third at 0.4, and aliasing and shimmer were no less.
_CUTOFF, _LOBES, _KAISER = 0.447, 3, 3.0


def squared(crops: torch.Tensor, side: int) -> torch.Tensor:
    """Scale square crops to another side.

    Args:
        crops: (..., W, W) float tensor in [0, 1], with a channel axis before the last two.
        side: The new side in pixels.

    Returns:
        (..., side, side) in [0, 1], scaled down as by `resample` or up by bicubic interpolation;
        `crops` itself where W is `side`.
    """
    if crops.shape[-1] == side:
        return crops
    flat = crops.flatten(0, -3)
    if crops.shape[-1] > side:
        step = crops.shape[-1] / side
        place = np.array([[step, 0, (step - 1) / 2], [0, step, (step - 1) / 2]])
        flat = resample(flat, place, side, side)
    else:
        flat = F.interpolate(flat[None], (side, side), mode="bicubic", align_corners=False)[0]
    return flat.clamp(0, 1).reshape(*crops.shape[:-2], side, side)


def warp(
    image: torch.Tensor, source_from_target: Matrix, height: int, width: int, *, mode: str
) -> torch.Tensor:
    """Sample an image at every pixel center of a target.

    The image is first halved by 2 x 2 boxes as long as more than two of its pixels fall on one
    pixel of the target, so that nothing aliases.

    Convention: `source_from_target` maps target pixel centers to pixel centers of `image`, (x, y);
    beyond the edge of the image its border is repeated.

    Args:
        image: (C, H, W) float tensor on any device.
        source_from_target: (2, 3).
        height: The height of the target in pixels.
        width: The width of the target in pixels.
        mode: "bilinear" or "bicubic".

    Returns:
        (C, height, width), of the dtype and on the device of `image`.
    """
    matrix = np.asarray(source_from_target, dtype=np.float64)
    step = np.linalg.norm(matrix[:, :2], axis=0).min()
    halvings = max(0, math.floor(math.log2(max(step, 1e-6))))
    for _ in range(min(halvings, int(math.log2(min(image.shape[1:]))))):
        image = F.avg_pool2d(image[None], 2, ceil_mode=True, count_include_pad=False)[0]
        matrix = matrix / 2
        matrix[:, 2] -= 0.25
    rows, columns = image.shape[1:]
    theta = torch.as_tensor(matrix, dtype=torch.float32, device=image.device)
    x = torch.arange(width, dtype=torch.float32, device=image.device)
    y = torch.arange(height, dtype=torch.float32, device=image.device)[:, None]
    grid_x = (theta[0, 0] * x + theta[0, 1] * y + theta[0, 2] + 0.5) * (2 / columns) - 1
    grid_y = (theta[1, 0] * x + theta[1, 1] * y + theta[1, 2] + 0.5) * (2 / rows) - 1
    grid = torch.stack([grid_x, grid_y], dim=-1)
    return F.grid_sample(
        image[None], grid[None], mode=mode, padding_mode="border", align_corners=False
    )[0]


def sampling_grid(
    source_from_target: Matrix, height: int, width: int, size: tuple[int, int], device: torch.device
) -> torch.Tensor:
    """Make the grid by which `torch.nn.functional.grid_sample` applies a matrix.

    Convention: `source_from_target` maps target pixel centers to pixel centers of the picture, (x,
    y). The grid is for align_corners=False: -1 and 1 are the outer edges of the picture.

    Args:
        source_from_target: (2, 3).
        height: The height of the target in pixels.
        width: The width of the target in pixels.
        size: (rows, columns) of the picture.
        device: The device of the result.

    Returns:
        (1, height, width, 2) float32.
    """
    scale = np.array([[2 / size[1]], [2 / size[0]]])
    a = np.asarray(source_from_target, dtype=np.float64) * scale
    a[:, 2:] += scale / 2 - 1
    x, y = np.arange(width), np.arange(height)[:, None]
    grid = np.empty((1, height, width, 2), np.float32)
    for axis, (from_x, from_y, start) in enumerate(a.tolist()):
        row, column = (from_x * x).astype(np.float32), (from_y * y + start).astype(np.float32)
        np.add(row, column, out=grid[0, ..., axis])
    return torch.from_numpy(grid).to(device)


def resample(
    image: torch.Tensor, source_from_target: Matrix, height: int, width: int
) -> torch.Tensor:
    """Sample an image, low-passed for the target, at every pixel center of the target.

    Where several image pixels fall on one target pixel, the image is low-passed first. Bicubic
    interpolation (Keys, IEEE TASSP 29(6), 1981) then reads the target from it, so the result does
    not depend on where in a target pixel the image pixels lie.

    Convention: `source_from_target` maps target pixel centers to pixel centers of `image`, (x, y);
    beyond the edge of the image its border is repeated.

    Args:
        image: (C, H, W) float32 on any device.
        source_from_target: (2, 3).
        height: The height of the target in pixels.
        width: The width of the target in pixels.

    Returns:
        (C, height, width) float32. Values may overshoot those of the image a little at edges.
    """
    matrix = np.asarray(source_from_target, dtype=np.float64)
    rows, columns = source_window((image.shape[1], image.shape[2]), matrix, height, width)
    image, matrix = image[:, rows, columns], matrix.copy()
    matrix[:, 2] -= columns.start, rows.start
    while min(steps := _steps(matrix)) >= _HALVE_FROM and min(image.shape[1:]) > 1:
        image = F.avg_pool2d(image[None], 2, ceil_mode=True, count_include_pad=False)[0]
        matrix = matrix / 2
        matrix[:, 2] -= 0.25
    if max(steps) > _NEARLY_ONE:
        image = _filtered(image, *(_kernel(step) for step in steps))
    size = (image.shape[1], image.shape[2])
    grid = sampling_grid(matrix, height, width, size, image.device)
    return F.grid_sample(
        image[None], grid, mode="bicubic", padding_mode="border", align_corners=False
    )[0]


def _steps(matrix: Matrix) -> tuple[float, float]:
    """Return how many pixels of the image, along its x and its y axis, fall on one target pixel."""
    x, y = np.linalg.norm(matrix[:, :2], axis=1)
    return float(x), float(y)


def source_window(
    size: tuple[int, int], source_from_target: Matrix, height: int, width: int
) -> tuple[slice, slice]:
    """Return the part of a picture that `resample` reads.

    Convention: `source_from_target` maps target pixel centers to pixel centers of the picture, (x,
    y).

    Args:
        size: (rows, columns) of the picture.
        source_from_target: (2, 3).
        height: The height of the target in pixels.
        width: The width of the target in pixels.

    Returns:
        The rows and the columns; at least one of each.
    """
    matrix = np.asarray(source_from_target, dtype=np.float64)
    margin = 2 + math.ceil(_LOBES * max(*_steps(matrix), 1.0))
    parts = []
    for length, (from_x, from_y, start) in zip(size, matrix[::-1].tolist(), strict=True):
        far_x, far_y = from_x * (width - 1), from_y * (height - 1)
        low = math.floor(start + min(far_x, 0) + min(far_y, 0)) - margin
        high = math.ceil(start + max(far_x, 0) + max(far_y, 0)) + margin + 1
        low = min(max(low, 0), length - 1)
        parts.append(slice(low, min(max(high, low + 1), length)))
    return parts[0], parts[1]


def _kernel(step: float) -> npt.NDArray[np.float32]:
    """Return the filter for `step` image pixels per target pixel; its sum is 1."""
    step = max(step, 1.0)
    reach = math.ceil(step * _LOBES)
    places = np.arange(-reach, reach + 1)
    filtered = _impulse(places / step)
    filtered /= filtered.sum()
    share = smoothstep(min((step - 1) / (_FULL_FROM - 1), 1.0))
    return np.asarray(share * filtered + (1 - share) * (places == 0), np.float32)


def _impulse(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the filter at (n,) positions in target pixels, not normalized.

    It is a sinc with cutoff `_CUTOFF` under a Kaiser window (Kaiser and Schafer, IEEE TASSP 28(1),
    1980), and zero beyond the window.
    """
    inside = np.clip(1 - (x / _LOBES) ** 2, 0, 1)
    window = np.i0(_KAISER * np.sqrt(inside)) * (inside > 0)
    return np.asarray(np.sinc(2 * _CUTOFF * x) * window)


def _filtered(
    image: torch.Tensor, across: npt.NDArray[Any], down: npt.NDArray[Any]
) -> torch.Tensor:
    """Filter an image along both axes; its border is repeated."""
    if image.device.type == "cpu":
        # OpenCV takes an eighth of the time of torch's convolution of single channels.
        planes = np.empty(image.shape, np.float32)
        for plane, output in zip(image.numpy(), planes, strict=True):
            cv2.sepFilter2D(plane, -1, across, down, output, borderType=cv2.BORDER_REPLICATE)
        return torch.from_numpy(planes)
    x, y = (torch.from_numpy(kernel).to(image.device) for kernel in (across, down))
    margin = (len(x) // 2, len(x) // 2, len(y) // 2, len(y) // 2)
    padded = F.pad(image[:, None], margin, mode="replicate")
    return F.conv2d(F.conv2d(padded, x[None, None, None]), y[None, None, :, None])[:, 0]
