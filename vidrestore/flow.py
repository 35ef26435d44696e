"""Optical flow between small grey pictures, and how far it can be trusted."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Grey = npt.NDArray[np.uint8]
FlowField = npt.NDArray[np.float32]

# Luma difference, in 8-bit levels, at which a match counts for 1/e.
_LUMA_TOLERANCE = 12.0


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
    closing = forward + sample(backward, forward)
    error = np.sum(closing**2, axis=-1) / (1 + 0.01 * np.sum(forward**2, axis=-1))
    change = (sample(second_luma, forward) - first_luma) / _LUMA_TOLERANCE
    return np.asarray(np.exp(-error - change**2), dtype=np.float32)
