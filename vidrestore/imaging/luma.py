"""How much red, green and blue count in luma."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from vidrestore.imaging.frame import FloatArray

KR_KB = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}
"""Weights of red and of blue by the name of the matrix; green has the rest of 1. From ITU-R BT.601,
BT.709 and BT.2020."""

BT601 = (0.299, 0.587, 0.114)
"""Weights of red, green and blue of BT.601, in which faces are measured whatever the stream's own
matrix."""

BT601_WEIGHTS: FloatArray = np.array(BT601, np.float32)
"""(3,) `BT601` for numpy and OpenCV."""
BT601_WEIGHTS.setflags(write=False)


def bt601_luma(rgb: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Luma of R'G'B' by the weights of BT.601.

    Args:
        rgb: (..., 3) of any scale.

    Returns:
        (...) of the same scale; float32 where `rgb` is.
    """
    luma: npt.NDArray[Any] = rgb @ BT601_WEIGHTS
    return luma
