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
from vidrestore.imaging.optical_flow import uses_opencv

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
# The weights of bicubic interpolation in the middle of two pixels, by torch and OpenCV.
_MIDDLE = np.array([-0.09375, 0.59375, 0.59375, -0.09375], np.float32)
# The number of samples that are added up at a time.
_CACHED = 1 << 16
_FLAGS = {"bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC}

_Plane = npt.NDArray[np.float32]


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
    shape = (*crops.shape[:-2], side, side)
    if _by_opencv(crops):
        output = np.empty((len(flat), side, side), np.float32)
        for plane, scaled in zip(flat.numpy(), output, strict=True):
            _square(plane, scaled)
        return torch.from_numpy(output).reshape(shape)
    if crops.shape[-1] > side:
        step = crops.shape[-1] / side
        place = np.array([[step, 0, (step - 1) / 2], [0, step, (step - 1) / 2]])
        flat = resample(flat, place, side, side)
    else:
        flat = F.interpolate(flat[None], (side, side), mode="bicubic", align_corners=False)[0]
    return flat.clamp(0, 1).reshape(shape)


def squared_into(crop: torch.Tensor, output: torch.Tensor) -> None:
    """Scale a square crop as `squared` does, or copy it, into memory that is there.

    Args:
        crop: (C, W, W) float32 in [0, 1].
        output: (C, side, side) float32 on the device of `crop`; it is overwritten.
    """
    if not _by_opencv(crop):
        output.copy_(squared(crop, output.shape[-1]))
        return
    for plane, scaled in zip(crop.numpy(), output.numpy(), strict=True):
        _square(plane, scaled)


def _by_opencv(image: torch.Tensor) -> bool:
    return uses_opencv(image.device) and image.dtype == torch.float32


def _square(plane: _Plane, output: _Plane) -> None:
    """Scale a square plane to that of `output`, clipped to [0, 1]."""
    own, side = len(plane), len(output)
    if own == side:
        np.copyto(output, plane)
        return
    if own < side:
        cv2.resize(plane, (side, side), dst=output, interpolation=cv2.INTER_CUBIC)
    elif own % side == 0 and own < _HALVE_FROM * side:
        across = cv2.transpose(_rows_reduced(plane, side))
        cv2.transpose(_rows_reduced(np.asarray(across, np.float32), side), dst=output)
    else:
        step = own / side
        place = np.array([[step, 0, (step - 1) / 2], [0, step, (step - 1) / 2]])
        output[...] = resample(torch.from_numpy(plane)[None], place, side, side)[0].numpy()
    np.clip(output, 0, 1, out=output)


def _rows_reduced(plane: _Plane, count: int) -> _Plane:
    """Return (count, w) rows of an (n, w) plane, low-passed and interpolated as by `resample`.

    n is a multiple of `count`. Only the rows that are wanted are computed, which takes half the
    time of a filter for all.
    """
    own, width = plane.shape
    step = own // count
    weights = _kernel(step)
    if step % 2 == 0:
        # Rows of the result lie between two of the plane, where bicubic interpolation reads them.
        weights = np.convolve(weights, _MIDDLE)
    starts = step * np.arange(count) + (step - len(weights)) // 2
    within = np.flatnonzero((starts >= 0) & (starts + len(weights) <= own))
    output = np.zeros((count, width), np.float32)
    for k in np.setdiff1d(np.arange(count), within):
        output[k] = weights @ plane[np.clip(starts[k] + np.arange(len(weights)), 0, own - 1)]
    # Some rows at a time, which stay in the cache.
    for some in np.array_split(within, 1 + len(within) * width // _CACHED):
        if len(some) > 0:
            total = output[some[0] : some[-1] + 1]
            for first, weight in enumerate(weights.tolist(), starts[some[0]]):
                rows = plane[first : first + step * len(some) : step][: len(some)]
                cv2.scaleAdd(rows, weight, total, dst=total)
    return output


def warp(
    image: torch.Tensor, source_from_target: Matrix, height: int, width: int, *, mode: str
) -> torch.Tensor:
    """Sample an image at every pixel center of a target.

    The image is first halved by 2 x 2 boxes as long as more than two of its pixels fall on one
    pixel of the target, so that nothing aliases. On the processor positions are rounded to 1/32 of
    a pixel, as OpenCV does it.

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
    if _by_opencv(image):
        return _read(image, matrix, height, width, _FLAGS[mode])
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
    not depend on where in a target pixel the image pixels lie. On the processor positions are
    rounded to 1/32 of a pixel, as OpenCV does it.

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
    if _by_opencv(image):
        return _read(image, matrix, height, width, cv2.INTER_CUBIC)
    size = (image.shape[1], image.shape[2])
    grid = sampling_grid(matrix, height, width, size, image.device)
    return F.grid_sample(
        image[None], grid, mode="bicubic", padding_mode="border", align_corners=False
    )[0]


def _read(
    image: torch.Tensor, source_from_target: Matrix, height: int, width: int, how: int
) -> torch.Tensor:
    """Read an image at every pixel center of a target by OpenCV, to 1/32 of a pixel."""
    output = np.empty((len(image), height, width), np.float32)
    for plane, target in zip(image.numpy(), output, strict=True):
        cv2.warpAffine(
            plane, source_from_target, (width, height), dst=target,
            flags=how | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE,
        )  # fmt: skip
    return torch.from_numpy(output)


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
    if uses_opencv(image.device):
        # OpenCV takes an eighth of the time of torch's convolution of single channels.
        planes = np.empty(image.shape, np.float32)
        for plane, output in zip(image.numpy(), planes, strict=True):
            cv2.sepFilter2D(plane, -1, across, down, output, borderType=cv2.BORDER_REPLICATE)
        return torch.from_numpy(planes)
    x, y = (torch.from_numpy(kernel).to(image.device) for kernel in (across, down))
    margin = (len(x) // 2, len(x) // 2, len(y) // 2, len(y) // 2)
    padded = F.pad(image[:, None], margin, mode="replicate")
    return F.conv2d(F.conv2d(padded, x[None, None, None]), y[None, None, :, None])[:, 0]
