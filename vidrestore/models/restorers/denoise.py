"""What a network that sees one frame is shown of a noisy tape: its crops with the noise taken out.

Luma noise goes by the mean of the frames around, along the face's motion; noise of colours, which a
tape smears over dozens of pixels, also by what the luma of the same place is like.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from vidrestore.imaging.luma import BT601
from vidrestore.models.restorers.fusion import Fusion

# Side of the picture, and of a square in it, in which colours are fitted to luma.
_FIT_PX, _SQUARE_PX = 128, 9
# Variance of luma, in [0, 1], below which it says nothing of colours.
_FLAT = 4e-4


class Denoise:
    """`Fusion` without its sharpening, then a guided filter for the colours.

    Guided filter: He, Sun, Tang, IEEE TPAMI 35(6), 2013; its coefficients found in a smaller
    picture: He, Sun, arXiv:1505.00996. In the squares around each place the colour differences are
    fitted to luma, Cb = a Y + b, by least squares with `_FLAT` added to the variance.
    """

    reach_frames = Fusion.reach_frames

    def __init__(self, amount: float) -> None:
        """`amount` in [0, 1] is the share of the noise that is taken out."""
        self.name = f"denoised by {amount:g}"
        self._amount = amount
        self._fusion = Fusion(sharpness=0.0)
        self.cache_key = f"denoise, amount {amount}, {self._fusion.cache_key}"

    def __call__(self, window: torch.Tensor) -> torch.Tensor:
        """(2 * reach_frames + 1, 3, W, W) RGB in [0, 1] -> (3, W, W), of the middle frame."""
        clean = _with_calm_colors(self._fusion(window[None])[0])
        return torch.lerp(window[self.reach_frames], clean, self._amount)


def _with_calm_colors(image: torch.Tensor) -> torch.Tensor:
    """(3, W, W) RGB with the luma it has, and colours as smooth as that."""
    # Only for taking luma and colours apart and putting them together again.
    luma = (image.new_tensor([BT601]) @ image.flatten(1)).reshape(1, *image.shape[1:])
    # Of red and blue, from which green follows where luma is to stay.
    apart = image[[0, 2]] - luma
    small = F.adaptive_avg_pool2d(torch.cat([luma, apart]), min(image.shape[-1], _FIT_PX))
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
    """(C, H, W) over the square around each pixel, the border repeated."""
    edge = _SQUARE_PX // 2
    padded = F.pad(planes[None], (edge,) * 4, mode="replicate")
    across = F.avg_pool2d(padded, (1, _SQUARE_PX), 1)
    return F.avg_pool2d(across, (_SQUARE_PX, 1), 1)[0]
