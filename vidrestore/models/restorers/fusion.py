"""A restorer without a network: it combines several frames of the same face.

It removes noise and blocking. It invents no detail, and so cannot sharpen a face that is blurred in
every frame.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from vidrestore.imaging.filters import gaussian_blur
from vidrestore.imaging.luma import BT601
from vidrestore.imaging.optical_flow import DenseFlow, FlowField, confidence, enlarged, moved
from vidrestore.models.restorers import Restorer

_REACH_FRAMES = 4
_TIME_SIGMA_FRAMES = 4.0
_FLOW_PX = (128, 256)
# Blur of the luma for the gates and of the luma for the flow, in pixels of the flow's picture.
_GATE_SIGMA_PX = 1.5
_FLOW_SIGMA_PX = 0.8
# Blur that back-projection compensates, in pixels of the crop, one or two of which make a pixel of
# the frame.
_BLUR_SIGMA_PX = 2.0
_RIM_PX = 2
# Distances of the two second differences whose ratio measures sharpness, and the ratios of a soft
# and of a sharp picture. Measured ratios: 0.15 to 0.19 for pictures enlarged from a quarter or an
# eighth of their pixels, 0.24 to 0.31 from a half, 0.31 to 0.55 for pictures at full resolution.
_DIFFERENCE_PX = (2, 6)
_SOFT_TO_SHARP = (0.26, 0.31)

_Field = npt.NDArray[np.float32]


class Fusion(Restorer):
    """Flow-aligned robust mean over four frames on either side, lightly back-projected.

    out(x) = sum_s g_s(x) I_s(x + f_ts(x)) / sum_s g_s(x), where g_t = 1 and the gate g_s is the
    confidence of the flow f_ts (`imaging.optical_flow`) times exp(-(s - t)^2 / (2 * 4^2)).
    Then one step of back-projection (Irani and Peleg, CVGIP 53(3), 1991) adds a share of the
    difference between luma and its Gaussian blur, less the sharper the picture is.

    Args:
        sharpness: Share of the difference that is added to a soft picture, in [0, 1].
    """

    name = "fusion"
    reach_frames = _REACH_FRAMES
    template = "gpen"
    is_cheap = True

    def __init__(self, *, sharpness: float) -> None:
        self._sharpness = sharpness
        self.cache_key = (
            f"fusion, sharpness {sharpness}, torch {torch.__version__}, opencv {cv2.__version__}"
        )
        self._flow = DenseFlow()

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        """Restore the middle frame of each window.

        Args:
            windows: (B, 9, 3, W, W) float32 RGB in [0, 1].

        Returns:
            (B, 3, W, W) float32 RGB in [0, 1].
        """
        return torch.stack([self._fused(window) for window in windows])

    def _fused(self, window: torch.Tensor) -> torch.Tensor:
        """Fuse a window (9, 3, W, W) to (3, W, W)."""
        middle = window[_REACH_FRAMES]
        views = [_View(luma) for luma in _small_lumas(window)]
        total, weight = middle.clone(), torch.ones_like(middle[:1])
        for index in _distinct_neighbors(window):
            flow, gate = self._motion(views[_REACH_FRAMES], views[index])
            distance = abs(index - _REACH_FRAMES)
            gate = gate * np.float32(np.exp(-(distance**2) / (2 * _TIME_SIGMA_FRAMES**2)))
            share = enlarged(gate, middle.shape[-1], middle.device)
            total.addcmul_(share, moved(window[index], flow))
            weight += share
        fused = (total / weight).clamp(0, 1)
        sharpness = self._sharpness * _softness(fused) if self._sharpness else 0.0
        return _sharpened(fused, sharpness) if sharpness else fused

    def _motion(self, first: _View, second: _View) -> tuple[FlowField, _Field]:
        """Return the flow from the first view to the second, and its confidence."""
        forward = self._flow(first.gray, second.gray)
        backward = self._flow(second.gray, first.gray)
        return forward, confidence(forward, backward, first.low, second.low)


class _View:
    """The blurred luma of a frame, for the flow and for its gate."""

    def __init__(self, luma: _Field) -> None:
        self.gray = np.rint(gaussian_blur(luma, _FLOW_SIGMA_PX)).astype(np.uint8)
        self.low = gaussian_blur(luma, _GATE_SIGMA_PX)


def _distinct_neighbors(window: torch.Tensor) -> list[int]:
    """Return the frames that differ from their neighbor: a repeated picture adds no evidence."""
    distinct = []
    for step in (-1, 1):
        last = _REACH_FRAMES
        for index in range(_REACH_FRAMES + step, _REACH_FRAMES + step * (_REACH_FRAMES + 1), step):
            if not torch.equal(window[index], window[last]):
                distinct.append(index)
                last = index
    return distinct


def _small_lumas(window: torch.Tensor) -> list[_Field]:
    """Return the luma of every frame at the flow's size, in 8-bit levels."""
    side = int(np.clip(window.shape[-1] // 2, *_FLOW_PX))
    rgb = 255 * window.new_tensor([BT601])
    luma = (rgb @ window.flatten(2)).reshape(len(window), *window.shape[-2:])
    return [np.ascontiguousarray(x) for x in _resized(luma, side).cpu().numpy()]


def _resized(planes: torch.Tensor, side: int) -> torch.Tensor:
    """Resize (N, H, W) to (N, side, side)."""
    if planes.shape[-1] == side:
        return planes
    if planes.shape[-1] % side == 0:
        return F.interpolate(planes[None], (side, side), mode="area")[0]
    # Areas of whole pixels would lie unevenly, and the flow would see that as motion.
    return F.interpolate(
        planes[None], (side, side), mode="bilinear", align_corners=False, antialias=True
    )[0]


def _softness(image: torch.Tensor) -> float:
    """Return the softness of a picture in [0, 1]; 0 where it is as sharp as its pixels allow.

    It follows from the ratio of second differences over near and far pixels, in the middle of the
    picture, where the face is.
    """
    edge = image.shape[-1] // 4
    luma = image[:, edge:-edge, edge:-edge].mean(dim=0)
    near, far = (_second_difference(luma, distance) for distance in _DIFFERENCE_PX)
    soft, sharp = _SOFT_TO_SHARP
    return min(max((sharp - near / max(far, 1e-6)) / (sharp - soft), 0.0), 1.0)


def _second_difference(luma: torch.Tensor, distance_px: int) -> float:
    """Return the root mean square of second differences over a distance, across and down."""
    total = luma.new_zeros(())
    for dim in (0, 1):
        count = luma.shape[dim] - 2 * distance_px
        first, middle, last = (luma.narrow(dim, i * distance_px, count) for i in range(3))
        total += (first - 2 * middle + last).square().mean()
    return float(total.sqrt())


def _sharpened(image: torch.Tensor, sharpness: float) -> torch.Tensor:
    """Add a share of the difference between luma and its blur to an image (3, W, W).

    The values around each pixel bound the result, so that contours get no bright or dark rims.
    """
    luma = (image.new_tensor([BT601]) @ image.flatten(1)).reshape(1, *image.shape[1:])
    sharper = image + sharpness * (luma - _blurred(luma))
    return sharper.clamp(-_largest_around(-image), _largest_around(image))


def _blurred(plane: torch.Tensor) -> torch.Tensor:
    """Blur (1, H, W) across, then down, by a sum of shifted planes, faster than `conv2d`."""
    reach = round(3 * _BLUR_SIGMA_PX)
    taps = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * _BLUR_SIGMA_PX**2))
    padded = F.pad(plane[None], (reach,) * 4, mode="replicate")[0]
    for dim in (-1, -2):
        count = padded.shape[dim] - 2 * reach
        total = torch.zeros_like(padded.narrow(dim, 0, count))
        for i, tap in enumerate(taps / taps.sum()):
            total.add_(padded.narrow(dim, i, count), alpha=float(tap))
        padded = total
    return padded


def _largest_around(image: torch.Tensor) -> torch.Tensor:
    """Return the largest value of the square around each pixel."""
    padded = F.pad(image[None], (_RIM_PX,) * 4, mode="replicate")[0]
    return _largest_ahead(_largest_ahead(padded, -1), -2)


def _largest_ahead(image: torch.Tensor, dim: int) -> torch.Tensor:
    """Return the largest of five values in a row, by pairs, which is faster than `max_pool2d`."""
    size = image.shape[dim]
    two = torch.maximum(image.narrow(dim, 0, size - 1), image.narrow(dim, 1, size - 1))
    four = torch.maximum(two.narrow(dim, 0, size - 3), two.narrow(dim, 2, size - 3))
    return torch.maximum(four.narrow(dim, 0, size - 4), image.narrow(dim, 4, size - 4))
