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


def with_luma(rgb: FloatArray, luma: FloatArray, matrix: str) -> FloatArray:
    """Give a picture the luma of another one, and keep its chroma as far as R'G'B' can hold it.

    Where a channel would leave [0, 1], the chroma of the pixel falls, and its hue stays.

    Args:
        rgb: (3, h, w) float32 R'G'B' in [0, 1].
        luma: (h, w) float32 in [0, 1].
        matrix: The name of the weights in `KR_KB`.

    Returns:
        (3, h, w) float32 in [0, 1].
    """
    chroma = rgb - luma_of(rgb, matrix)
    room = np.where(chroma > 0, 1 - luma, luma)
    share = (room / np.maximum(np.abs(chroma), 1e-6)).min(axis=0).clip(0, 1)
    return np.asarray((luma + share * chroma).clip(0, 1), np.float32)


def luma_of(rgb: FloatArray, matrix: str) -> FloatArray:
    """Luma of R'G'B' by the weights of a matrix.

    Args:
        rgb: (3, h, w) float32 of any scale.
        matrix: The name of the weights in `KR_KB`.

    Returns:
        (h, w) float32 of the same scale.
    """
    kr, kb = KR_KB[matrix]
    luma = np.float32(kr) * rgb[0]
    luma += np.float32(1 - kr - kb) * rgb[1]
    luma += np.float32(kb) * rgb[2]
    return np.asarray(luma)


def bt601_luma(rgb: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Luma of R'G'B' by the weights of BT.601.

    Args:
        rgb: (..., 3) of any scale.

    Returns:
        (...) of the same scale; float32 where `rgb` is.
    """
    luma: npt.NDArray[Any] = rgb @ BT601_WEIGHTS
    return luma
