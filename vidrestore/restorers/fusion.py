"""A restorer without a network: what several frames show of the same face, put together.

It takes out noise and blocking. It invents no detail, and so cannot sharpen what every frame shows
blurred.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from vidrestore.flow import DenseFlow, FlowField, trust

_REACH_FRAMES = 4
_TIME_SIGMA_FRAMES = 4.0
_FLOW_PX = (128, 256)
# Of the luma that gates compare, and of what flow sees, in pixels of the flow's picture.
_GATE_SIGMA_PX = 1.5
_FLOW_SIGMA_PX = 0.8
# Of the blur that the light back-projection undoes, in crop pixels, of which one to two lie on a
# frame pixel.
_BLUR_SIGMA_PX = 2.0
_RIM_PX = 2

_Field = npt.NDArray[np.float32]


class Fusion:
    """Flow-aligned robust mean over four frames on either side, lightly back-projected."""

    name = "fusion"
    size: int | None = None
    reach_frames = _REACH_FRAMES
    template = "gpen"

    def __init__(self, *, sharpness: float) -> None:
        self._sharpness = sharpness
        self._flow = DenseFlow()

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        return torch.stack([self._fused(window) for window in windows])

    def _fused(self, window: torch.Tensor) -> torch.Tensor:
        """(2 reach + 1, 3, W, W) -> (3, W, W)."""
        middle = window[_REACH_FRAMES]
        lumas = _small_lumas(window)
        total, weight = middle.clone(), torch.ones_like(middle[:1])
        for index in _distinct_neighbors(window):
            flow, gate = self._motion(lumas[_REACH_FRAMES], lumas[index])
            distance = abs(index - _REACH_FRAMES)
            gate = gate * np.float32(np.exp(-(distance**2) / (2 * _TIME_SIGMA_FRAMES**2)))
            share = _resized(torch.from_numpy(gate)[None], middle.shape[-1]).to(middle.device)
            total += share * _moved(window[index], flow)
            weight += share
        fused = (total / weight).clamp(0, 1)
        sharper = fused + self._sharpness * (fused - _blurred(fused))
        # Within what stands around each pixel, so that contours get no bright or dark rims.
        return sharper.clamp(-_largest_around(-fused), _largest_around(fused))

    def _motion(self, first: _Field, second: _Field) -> tuple[FlowField, _Field]:
        """Flow from the first luma to the second, and the trust in it, at the lumas' size."""
        a, b = (
            np.rint(_gaussian(luma, _FLOW_SIGMA_PX)).astype(np.uint8) for luma in (first, second)
        )
        forward, backward = self._flow(a, b), self._flow(b, a)
        low = [_gaussian(luma, _GATE_SIGMA_PX) for luma in (first, second)]
        return forward, trust(forward, backward, low[0], low[1])


def _distinct_neighbors(window: torch.Tensor) -> list[int]:
    """Frames that add evidence: a repeated picture, at an end or in the source, adds none."""
    distinct = []
    for step in (-1, 1):
        last = _REACH_FRAMES
        for index in range(_REACH_FRAMES + step, _REACH_FRAMES + step * (_REACH_FRAMES + 1), step):
            if not torch.equal(window[index], window[last]):
                distinct.append(index)
                last = index
    return distinct


def _small_lumas(window: torch.Tensor) -> list[_Field]:
    """Luma of every frame at the flow's size, in 8-bit levels."""
    side = int(np.clip(window.shape[-1] // 2, *_FLOW_PX))
    rgb = 255 * window.new_tensor([[0.299, 0.587, 0.114]])
    luma = (rgb @ window.flatten(2)).reshape(len(window), *window.shape[-2:])
    return [np.ascontiguousarray(x) for x in _resized(luma, side).cpu().numpy()]


def _resized(planes: torch.Tensor, side: int) -> torch.Tensor:
    """(N, H, W) -> (N, side, side)."""
    if planes.shape[-1] > side:
        return F.interpolate(planes[None], (side, side), mode="area")[0]
    return F.interpolate(planes[None], (side, side), mode="bilinear", align_corners=False)[0]


def _moved(image: torch.Tensor, flow: FlowField) -> torch.Tensor:
    """(3, W, W) `image` read at x + flow(x), bicubic; the flow is scaled up to W."""
    side = image.shape[-1]
    field = torch.from_numpy(flow).permute(2, 0, 1)
    # In the units of grid_sample the picture is 2 wide at any size.
    field = _resized(field * (2 / flow.shape[0]), side).permute(1, 2, 0).to(image.device)
    centres = (torch.arange(side, device=image.device, dtype=torch.float32) * 2 + 1) / side - 1
    grid = torch.stack(torch.meshgrid(centres, centres, indexing="xy"), dim=-1) + field
    return F.grid_sample(
        image[None], grid[None], mode="bicubic", padding_mode="border", align_corners=False
    )[0]


def _blurred(image: torch.Tensor) -> torch.Tensor:
    reach = 6
    x = torch.arange(-reach, reach + 1, dtype=image.dtype, device=image.device)
    kernel = torch.exp(-(x**2) / (2 * _BLUR_SIGMA_PX**2))
    kernel = kernel / kernel.sum()
    padded = F.pad(image[None], (reach,) * 4, mode="replicate")
    across = kernel.expand(3, 1, 1, -1)
    return F.conv2d(F.conv2d(padded, across, groups=3), across.mT, groups=3)[0]


def _largest_around(image: torch.Tensor) -> torch.Tensor:
    return F.max_pool2d(image[None], 2 * _RIM_PX + 1, stride=1, padding=_RIM_PX)[0]


def _gaussian(luma: _Field, sigma_px: float) -> _Field:
    return np.asarray(cv2.GaussianBlur(luma, (0, 0), sigma_px), dtype=np.float32)
