"""The picture that a detector sees: 8 bits, through the curve of the stream."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from vidrestore.imaging.curves import NAMES
from vidrestore.imaging.frame import VideoInfo


def detector_picture(bgr: npt.NDArray[Any], info: VideoInfo) -> npt.NDArray[np.uint8]:
    """Convert a picture to 8 bits for a detector, through the curve of the stream.

    Only neutral colors are exact, since primaries are not mixed.

    Args:
        bgr: (h, w, 3) uint8 or uint16 in the order B, G, R.
        info: The stream.

    Returns:
        (h, w, 3) uint8; `bgr` itself where the stream is neither in a log curve nor uses a table.
    """
    if info.transfer not in (*NAMES, "table"):
        return bgr
    # Only these streams need torch in pass one.
    import torch

    from vidrestore.imaging.transfer import to_display

    levels = 2 ** (8 * bgr.itemsize)
    ramp = torch.linspace(0, 1, levels, dtype=torch.float64).expand(3, 1, -1)
    display = to_display(ramp, info)[:, 0].clamp(0, 1).mul(255).round()
    table = display.flip(0).T.to(torch.uint8).contiguous().numpy()  # (levels, B G R)
    if bgr.itemsize == 1:
        return np.asarray(cv2.LUT(bgr, table[None]), np.uint8)
    return np.stack([table[bgr[..., i], i] for i in range(3)], axis=-1)
