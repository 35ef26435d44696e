"""Blurs, and the smooth step: the one definition of each for pictures and masks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from vidrestore.imaging.frame import FloatArray

if TYPE_CHECKING:
    import torch

Border = Literal["mirror", "repeat"]
"""What a blur takes for the pixels beyond the border: the picture mirrored at the pixels of its
border, which are not repeated, or these pixels over and over."""

Sample = TypeVar("Sample", bound=np.integer[Any] | np.floating[Any])
Values = TypeVar("Values", float, "torch.Tensor", FloatArray)

_BORDERS = {"mirror": cv2.BORDER_REFLECT_101, "repeat": cv2.BORDER_REPLICATE}


def gaussian_blur(
    picture: npt.NDArray[Sample],
    sigma_px: float | tuple[float, float],
    *,
    border: Border = "mirror",
) -> npt.NDArray[Sample]:
    """The picture under a Gaussian.

    Args:
        picture: (h, w) or (h, w, channels). Of whole numbers, the blur is rounded to such.
        sigma_px: Standard deviation in pixels, above 0: one for both axes, or (across, down).
        border: What lies beyond the border.

    Returns:
        The shape and type of the picture.
    """
    across, down = sigma_px if isinstance(sigma_px, tuple) else (sigma_px, sigma_px)
    blurred = cv2.GaussianBlur(
        picture, (0, 0), sigmaX=across, sigmaY=down, borderType=_BORDERS[border]
    )
    return np.asarray(blurred, picture.dtype)


def box_blur(picture: npt.NDArray[Sample], width_px: int, height_px: int) -> npt.NDArray[Sample]:
    """The mean over the rectangle around each pixel, the picture mirrored at its border.

    Args:
        picture: (h, w) or (h, w, channels).
        width_px: Width of the rectangle; of an even one, the larger half lies to the left.
        height_px: Its height; of an even one, the larger half lies above.

    Returns:
        The shape and type of the picture.
    """
    return np.asarray(cv2.blur(picture, (width_px, height_px)), picture.dtype)


def smoothstep(share: Values) -> Values:
    """From 0 to 1, level at both ends: 3 s^2 - 2 s^3.

    Args:
        share: In [0, 1]; the caller clips.

    Returns:
        The shape and the type of `share`, in [0, 1].
    """
    return share * share * (3 - 2 * share)
