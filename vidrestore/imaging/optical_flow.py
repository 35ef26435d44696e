"""Optical flow between small grey pictures, how far it can be trusted, and what is moved by it."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

Grey = npt.NDArray[np.uint8]
FlowField = npt.NDArray[np.float32]

# Luma difference, in 8-bit levels, at which a match counts for 1/e.
_LUMA_TOLERANCE = 12.0
_STEPS_PER_LEVEL = 16


class DenseFlow:
    """Dense inverse search (Kroeger et al., ECCV 2016, arXiv:1603.03590), fast preset.

    Convention: a field f of shape (H, W, 2), in pixels (x, y), leads from each pixel of the first
    picture to its place in the second: first(x) = second(x + f(x)). For one thread at a time.
    """

    def __init__(self) -> None:
        self._dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)

    def __call__(self, first: Grey, second: Grey) -> FlowField:
        return np.asarray(self._dis.calc(first, second, None), dtype=np.float32)  # type: ignore[call-overload]


def sample(image: npt.NDArray[Any], flow: FlowField) -> npt.NDArray[Any]:
    """`image` (H, W[, C]) float32 read at x + flow(x), bilinear, its border repeated."""
    height, width = flow.shape[:2]
    x = flow[..., 0] + np.arange(width, dtype=np.float32)
    y = flow[..., 1] + np.arange(height, dtype=np.float32)[:, None]
    return np.asarray(cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))


def trust(
    forward: FlowField,
    backward: FlowField,
    first_luma: npt.NDArray[np.float32],
    second_luma: npt.NDArray[np.float32],
) -> npt.NDArray[np.float32]:
    """(H, W) in [0, 1]: how surely `forward` leads each pixel to the same point of the scene.

    exp(-|f + b(x + f)|^2 / (1 + 0.01 |f|^2)) * exp(-(dI / 12)^2): the way there and back must
    close, and the low-passed lumas (8-bit levels) at both ends must agree.
    """
    change = (sample(second_luma, forward) - first_luma) / _LUMA_TOLERANCE
    return np.asarray(np.exp(-gap(forward, backward) - change**2), dtype=np.float32)


def gap(forward: FlowField, backward: FlowField, tolerance_px: float = 1.0) -> FlowField:
    """(H, W) by how much the way there and back fails to close, squared.

    |f + b(x + f)|^2 / (tolerance^2 + 0.01 |f|^2): at 1 a match counts for 1/e.
    """
    closing = forward + sample(backward, forward)
    allowed = tolerance_px**2 + 0.01 * squared(forward)
    return np.asarray(squared(closing) / allowed, dtype=np.float32)


def squared(field: FlowField) -> npt.NDArray[np.float32]:
    """(H, W) squared lengths; several times as fast as a sum over the last axis."""
    return np.asarray(field[..., 0] ** 2 + field[..., 1] ** 2, np.float32)


def resized(flow: FlowField, side: int) -> FlowField:
    """A square (S, S, 2) field in its own pixels -> (side, side, 2) in those of `side`."""
    if flow.shape[0] == side:
        return flow
    how = cv2.INTER_AREA if side < flow.shape[0] else cv2.INTER_LINEAR
    larger = cv2.resize(flow, (side, side), interpolation=how)
    return np.asarray(larger * np.float32(side / flow.shape[0]), dtype=np.float32)


def reduced(crop: torch.Tensor, side: int) -> npt.NDArray[np.float32]:
    """(3, W, W) in [0, 1] on any device -> (side, side, 3) in 8-bit levels on the CPU.

    Put together from sixteenths of levels, whose sums are exact in float32: where W is a power of
    two every device gives the same, bit for bit.
    """
    levels = (crop * (255 * _STEPS_PER_LEVEL)).round()[None]
    if crop.shape[-1] > side:
        levels = F.adaptive_avg_pool2d(levels, side)
    elif crop.shape[-1] < side:
        levels = F.interpolate(levels, (side, side), mode="bilinear", align_corners=False)
    small = levels[0].permute(1, 2, 0).cpu().numpy()
    return np.ascontiguousarray(small * np.float32(1 / _STEPS_PER_LEVEL))


def enlarged(plane: npt.NDArray[np.float32], side: int, device: torch.device) -> torch.Tensor:
    """(H, H) -> (1, side, side) on the device, bilinear."""
    small = torch.from_numpy(plane)[None, None].to(device)
    return F.interpolate(small, (side, side), mode="bilinear", align_corners=False)[0]


def moved(image: torch.Tensor, flow: FlowField) -> torch.Tensor:
    """(C, W, W) float32 `image` read at x + flow(x), bicubic, its border repeated.

    `flow` (S, S, 2) is in its own pixels and is scaled up to W. The grid is float32: with float16
    places would be off by pixels at 2048.
    """
    side = image.shape[-1]
    # In the units of grid_sample the picture is 2 wide at any size.
    field = torch.from_numpy(flow * np.float32(2 / flow.shape[0])).to(image.device)
    field = F.interpolate(
        field.permute(2, 0, 1)[None], (side, side), mode="bilinear", align_corners=False
    )[0]
    centres = (torch.arange(side, device=image.device, dtype=torch.float32) * 2 + 1) / side - 1
    grid = torch.stack([field[0] + centres, field[1] + centres[:, None]], dim=-1)
    return F.grid_sample(
        image[None], grid[None], mode="bicubic", padding_mode="border", align_corners=False
    )[0]
