"""Noise reduction of the crops of a noisy tape, before a network that sees a single frame.

A mean over the frames around, along the motion of the face, removes noise of luma. Noise of colors,
which a tape smears over dozens of pixels, is also filtered with luma as the guide.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from vidrestore.imaging.luma import BT601
from vidrestore.models.restorers.fusion import Fusion

# Side of the reduced picture, and of the squares in it in which colors are fitted to luma.
_FIT_PX, _SQUARE_PX = 128, 9
# Variance of luma, for values in [0, 1], below which it does not predict colors.
_FLAT = 4e-4


class Denoise:
    """Removes noise by `Fusion` without its sharpening, then by a guided filter for the colors.

    The guided filter is that of He, Sun, Tang, IEEE TPAMI 35(6), 2013, with its coefficients
    computed in a reduced picture, as in He, Sun, arXiv:1505.00996. In the square around each place
    the color differences are fitted to luma, Cb = a Y + b, by least squares with `_FLAT` added to
    the variance.

    Args:
        amount: Share of the noise to remove, in [0, 1].
    """

    reach_frames = Fusion.reach_frames

    def __init__(self, amount: float) -> None:
        self.name = f"denoised by {amount:g}"
        self._amount = amount
        self._fusion = Fusion(sharpness=0.0)
        self.cache_key = f"denoise, amount {amount}, {self._fusion.cache_key}"

    def __call__(self, window: torch.Tensor) -> torch.Tensor:
        """Remove noise from the middle frame of a window.

        Args:
            window: (2 * reach_frames + 1, 3, W, W) float32 RGB in [0, 1].

        Returns:
            (3, W, W) float32 RGB in [0, 1].
        """
        clean = _with_calm_colors(self._fusion(window[None])[0])
        return torch.lerp(window[self.reach_frames], clean, self._amount)


def _with_calm_colors(image: torch.Tensor) -> torch.Tensor:
    """Return an image (3, W, W) RGB with its own luma, and with colors fitted to its luma."""
    luma = (image.new_tensor([BT601]) @ image.flatten(1)).reshape(1, *image.shape[1:])
    # Red and blue suffice, since the constant luma determines green.
    differences = image[[0, 2]] - luma
    small = F.adaptive_avg_pool2d(torch.cat([luma, differences]), min(image.shape[-1], _FIT_PX))
    y, colors = small[:1], small[1:]
    means = _mean(torch.cat([y, colors, y * y, y * colors]))
    mean_y, mean_colors = means[:1], means[1:3]
    slope = (means[4:] - mean_y * mean_colors) / (means[3:4] - mean_y**2 + _FLAT)
    fit = _mean(torch.cat([slope, mean_colors - slope * mean_y]))
    full = F.interpolate(fit[None], image.shape[1:], mode="bilinear", align_corners=False)[0]
    slope, offset = full[:2], full[2:]
    red, blue = luma + slope * luma + offset
    green = (luma[0] - BT601[0] * red - BT601[2] * blue) / BT601[1]
    return torch.stack([red, green, blue]).clamp(0, 1)


def _mean(planes: torch.Tensor) -> torch.Tensor:
    """Average (C, H, W) over the square around each pixel; the border is repeated."""
    edge = _SQUARE_PX // 2
    padded = F.pad(planes[None], (edge,) * 4, mode="replicate")
    across = F.avg_pool2d(padded, (1, _SQUARE_PX), 1)
    return F.avg_pool2d(across, (_SQUARE_PX, 1), 1)[0]
