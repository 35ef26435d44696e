"""The trial of latent codes: how much a still face changes with those of frame or shot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from vidrestore.imaging.geometry import template
from vidrestore.models.restorers import LatentRestorer
from vidrestore.restoration.latent import REACH_FRAMES, drawn
from vidrestore.review.portrait import (
    CROP_PX,
    DEGRADATIONS,
    as_picture,
    as_tensor,
    clean_portrait,
    cut,
    place_in_crop,
)

_FRAMES = REACH_FRAMES + 1
_NOISE_LEVELS = 6.0


@dataclass(frozen=True, slots=True)
class CodeTrial:
    """The portrait as a still face with new noise in each frame, restored in two ways."""

    change_by_frame: float
    """Root mean square difference of the frames from their mean, in 8-bit levels, each with its own
    latent code."""
    change_by_shot: float
    """The same with the latent codes of the shot."""
    psnr_by_frame_db: float
    """PSNR of the frames against the clean face, in dB, each with its own latent code."""
    psnr_by_shot_db: float
    """The same with the latent codes of the shot."""

    @property
    def verdict(self) -> str:
        """The result as one sentence for users."""
        return (
            "With new noise in each frame, the still face changes by "
            f"{self.change_by_shot:.2f} levels with restore.latent=shot and by "
            f"{self.change_by_frame:.2f} with frame; the PSNR is {self.psnr_by_shot_db:.2f} dB and "
            f"{self.psnr_by_frame_db:.2f} dB."
        )


def try_codes(restorer: LatentRestorer, device: torch.device) -> CodeTrial:
    """Restore the portrait with new noise in each of several frames.

    Args:
        restorer: The restorer, which runs with torch.
        device: The device on which it runs.

    Returns:
        The result.

    Raises:
        MemoryError: One face does not fit into the memory of the device.
    """
    clean, landmarks = clean_portrait()
    side = restorer.size or CROP_PX
    matrix = place_in_crop(landmarks, template(restorer.template), side)
    soft = DEGRADATIONS["soft"](as_picture(clean))
    random = np.random.default_rng(0)
    windows = []
    for _ in range(_FRAMES):
        noisy = np.clip(np.rint(soft + random.normal(0, _NOISE_LEVELS, soft.shape)), 0, 255)
        crop = cut(as_tensor(noisy.astype(np.uint8)), matrix, side)
        windows.append(crop.to(device)[None, None])
    with torch.no_grad():
        by_frame = [restorer(window).cpu() for window in windows]
        codes = [{0: restorer.codes(window)[0].float()} for window in windows]
        by_shot = [
            restorer.with_codes(window, frame[0][None]).cpu()
            for window, frame in zip(windows, drawn(iter(codes)), strict=True)
        ]
    true = cut(clean, matrix, side)
    return CodeTrial(
        _change(by_frame), _change(by_shot), _psnr_db(by_frame, true), _psnr_db(by_shot, true)
    )


def _change(frames: Sequence[torch.Tensor]) -> float:
    stack = torch.cat(list(frames)).double() * 255
    return float((stack - stack.mean(dim=0)).square().mean().sqrt())


def _psnr_db(frames: Sequence[torch.Tensor], true: torch.Tensor) -> float:
    error = (torch.cat(list(frames)).double() - true.double()).square().mean()
    return float(-10 * torch.log10(error))
