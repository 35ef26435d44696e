"""How well a network restores the crops that are set apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from vidrestore.imaging.filters import gaussian_blur
from vidrestore.imaging.luma import bt601_luma
from vidrestore.personal.degradations import Pair, Picture
from vidrestore.personal.objectives import Judges

# Fine detail is the difference to this blur, in pixels of a crop of 512 px; the least blur in
# pixels of the crop that removes anything.
_DETAIL_SIGMA_PX, _DETAIL_SIDE_PX, _LEAST_SIGMA_PX = 2.0, 512, 0.6


@dataclass(frozen=True, slots=True)
class Scores:
    """How near restored faces are to the clear ones. More is better, in each value."""

    psnr_db: float
    """Peak signal-to-noise ratio over all pixels of all faces, in decibels."""
    detail: float
    """Share of the true fine detail that the faces have: 1 less the squared error of what is finer
    than 2 px in a crop of 512 px, as a share of its power. It may be negative."""
    identity: float | None
    """Mean cosine of the embeddings of restored and clear faces; None: not judged."""

    def is_better_than(self, other: Scores) -> bool:
        """Return whether detail and likeness are better and the distance of pixels is no larger.

        Args:
            other: The scores of another network on the same pairs.

        Returns:
            Whether all of this holds; without embeddings, detail alone decides beside pixels.
        """
        is_judged = self.identity is not None and other.identity is not None
        if is_judged and not (self.identity or 0.0) > (other.identity or 0.0):
            return False
        return self.detail > other.detail and self.psnr_db >= other.psnr_db

    def merit(self, base: Scores) -> tuple[bool, float]:
        """Return what the states of one training are compared by; the greatest is the best.

        Args:
            base: The scores of the network before training.

        Returns:
            Whether the network is better than the base; then the decibels, where 0.05 of a cosine
            counts as much as one of them.
        """
        return self.is_better_than(base), self.psnr_db + 20 * (self.identity or 0.0)


def score(
    network: nn.Module, pairs: Sequence[Pair], judges: Judges, device: torch.device
) -> Scores:
    """Score a network on pairs.

    Args:
        network: Maps (1, 3, S, S) RGB in [-1, 1] to restored faces, on the device.
        pairs: The pairs, at least one.
        judges: The networks that judge, on the device.
        device: The device.

    Returns:
        The scores.
    """
    errors, missed, power, cosines = [], 0.0, 0.0, []
    for pair in pairs:
        with torch.no_grad():
            restored = network(tensor_of([pair.degraded], device)).clamp(-1, 1)
            if judges.scoring is not None:
                vectors = judges.scoring(torch.cat([restored, tensor_of([pair.truth], device)]))
                cosines.append(float(vectors[0] @ vectors[1]))
        picture = (restored[0].permute(1, 2, 0).cpu().numpy() + 1) / 2
        errors.append(np.square(picture - pair.truth, dtype=np.float64).mean())
        own, true = _fine_detail(picture), _fine_detail(pair.truth)
        missed += float(np.square(own - true, dtype=np.float64).sum())
        power += float(np.square(true, dtype=np.float64).sum())
    return Scores(
        psnr_db=-10 * math.log10(max(float(np.mean(errors)), 1e-10)),
        detail=1 - missed / max(power, 1e-10),
        identity=float(np.mean(cosines)) if cosines else None,
    )


def tensor_of(pictures: Sequence[Picture], device: torch.device) -> Tensor:
    """Convert pictures to what networks take.

    Args:
        pictures: (S, S, 3) float32 RGB in [0, 1] each.
        device: The device.

    Returns:
        (B, 3, S, S) float32 RGB in [-1, 1] on the device.
    """
    batch = np.stack([picture.transpose(2, 0, 1) for picture in pictures])
    return torch.from_numpy(2 * batch - 1).to(device)


def _fine_detail(picture: Picture) -> Picture:
    """Return (S, S) the luma less its blur."""
    luma = np.asarray(bt601_luma(picture), np.float32)
    sigma = max(_DETAIL_SIGMA_PX * len(luma) / _DETAIL_SIDE_PX, _LEAST_SIGMA_PX)
    return np.asarray(luma - gaussian_blur(luma, sigma), np.float32)
