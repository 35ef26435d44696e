"""Crops of faces that show the same picture, such as a photograph that is a frame of a video.

A picture in another size, or compressed, gives other landmarks, so its crop is shifted, turned and
scaled a little. Two crops are compared where they match best.
"""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
import numpy.typing as npt

from vidrestore.common.handled import log_handled
from vidrestore.imaging.filters import gaussian_blur
from vidrestore.imaging.frame import FloatArray
from vidrestore.imaging.luma import bt601_luma

_SIDE_PX = 48
# The standard deviation of the blur that is subtracted: light changes, features stay.
_LIGHT_SIGMA_PX = 6.0
# The half axes of the face in a crop, and how far its middle is down.
_FACE, _FACE_Y = (0.36, 0.42), 0.52
# So many of the crops that are most alike are compared where they match best, if these are alike
# at all.
_MOST_TRIED, _ALIKE = 24, 0.5
# Correlation of the faces of two crops from which on they show the same picture. On three clips,
# photographs of half the size had 0.988 and more with the frames of the same tenth of a second.
# Frames that are a second apart had 0.80 to 0.997, and faces of two people at most 0.76.
_SAME_PICTURE = 0.985
_STEPS = cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 20, 1e-4
_FILTER_PX = 3


def thumbnail_of(rgb: FloatArray) -> FloatArray:
    """Reduce a crop to what stays when it is compressed or scaled, or its exposure is changed.

    Args:
        rgb: (S, S, 3) float32 RGB.

    Returns:
        (48, 48) float32 features of the luma, with mean 0 and length 1; zeros where it has no
        contrast.
    """
    luma = np.asarray(bt601_luma(rgb), np.float32)
    small = cv2.resize(luma, (_SIDE_PX, _SIDE_PX), interpolation=cv2.INTER_AREA)
    small = small - gaussian_blur(small, _LIGHT_SIGMA_PX)
    return _of_length_one(small - small.mean())


class SeenPictures:
    """Pictures that were seen so far, numbered from 0 in the order of `add`."""

    def __init__(self) -> None:
        self._thumbnails: list[FloatArray] = []
        self._coarse: list[FloatArray] = []

    def add(self, thumbnail: FloatArray) -> None:
        """Add a picture.

        Args:
            thumbnail: (48, 48), see `thumbnail_of`.
        """
        self._thumbnails.append(thumbnail)
        self._coarse.append(_coarse(thumbnail))

    def find(self, thumbnail: FloatArray) -> int | None:
        """Find the picture that a thumbnail shows.

        Args:
            thumbnail: (48, 48), see `thumbnail_of`.

        Returns:
            The number of the picture that is most alike; None where none is the same.
        """
        if not self._coarse:
            return None
        likeness = np.array(self._coarse) @ _coarse(thumbnail)
        tried = [int(i) for i in np.argsort(-likeness)[:_MOST_TRIED] if likeness[i] >= _ALIKE]
        matches = ((_best_match(thumbnail, self._thumbnails[i]), -i) for i in tried)
        match, number = max(matches, default=(-1.0, 0))
        return -number if match >= _SAME_PICTURE else None


def _coarse(thumbnail: FloatArray) -> FloatArray:
    """Return a vector of length 1 that a shift of a few pixels hardly changes."""
    return _of_length_one(gaussian_blur(thumbnail, 2.0).ravel())


def _of_length_one(values: FloatArray) -> FloatArray:
    """Divide values by their length; zeros stay."""
    return np.asarray(values / max(float(np.linalg.norm(values)), 1e-6), np.float32)


def _best_match(one: FloatArray, other: FloatArray) -> float:
    """Return the correlation of two faces where one is moved to match the other best.

    The place is that of the greatest correlation (Evangelidis and Psarakis, IEEE TPAMI 30(10),
    2008).
    """
    matrix = np.eye(2, 3, dtype=np.float32)
    try:
        value, _ = cv2.findTransformECC(
            one, other, matrix, cv2.MOTION_AFFINE, _STEPS, _face(), _FILTER_PX
        )
    except cv2.error as error:  # they have nothing in common
        log_handled(error)
        return -1.0
    return float(value)


@cache
def _face() -> npt.NDArray[np.uint8]:
    """Return the mask of the face in a thumbnail."""
    y, x = (np.mgrid[:_SIDE_PX, :_SIDE_PX] + 0.5) / _SIDE_PX
    inside = ((x - 0.5) / _FACE[0]) ** 2 + ((y - _FACE_Y) / _FACE[1]) ** 2 < 1
    return np.asarray(255 * inside, np.uint8)
