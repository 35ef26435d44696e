"""The broad colours of a restored face follow its source: tint, light, and film without colours.

Everything happens in small pictures of the unit crop, in [0, 1], display values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from vidrestore.imaging.filters import gaussian_blur
from vidrestore.imaging.frame import FloatArray
from vidrestore.imaging.luma import BT601_WEIGHTS, bt601_luma

GRID_PX = 64
"""Side of the small pictures."""

# Standard deviation of the blur that leaves broad colours, in pixels of the grid.
_SIGMA_PX = 3.0
# Weight of "no correction" where nothing of the face is near.
_LEAST_WEIGHT = 1e-3
# Contrast is lowered with the light, down to this; and black has some contrast left.
_LEAST_GAIN, _BLACK = 0.2, 4 / 255
# Standard deviation of chroma around a function of the luma, in 8-bit levels, up to which a
# picture has no colours of its own, and from which on it surely has some.
_TONED, _COLOURFUL = 0.8, 1.8
_CHROMA_SIGMA_PX = 1.0
# A film's toning is a parabola of the luma at most; this keeps it from swinging where no luma is.
_RIDGE = 1e-4
# Levels from which a source counts as clipped, and where nothing else than that is left of it.
_CLIPPED, _BLOWN = 246 / 255, 252 / 255


@dataclass(frozen=True, slots=True, eq=False)
class Tone:
    """What one frame says."""

    source: FloatArray
    """(64, 64, 3) broad colours; likewise:"""
    restored: FloatArray
    chroma: npt.NDArray[np.float64]
    """(3, 2) R - Y and B - Y of the source as 1, Y and Y^2 give them."""
    toned: float
    """In [0, 1]: whether that is all the colour there is."""


@dataclass(frozen=True, slots=True, eq=False)
class Correction:
    """restored * gain + offset, then as much of the toning as `toned` says."""

    gain: FloatArray
    """(64, 64)"""
    offset: FloatArray
    """(64, 64, 3)"""
    chroma: npt.NDArray[np.float64]
    toned: float


def tone_of(source: FloatArray, restored: FloatArray, face: FloatArray) -> Tone:
    """Of two (64, 64, 3) pictures, where (64, 64) `face` in [0, 1] is more than 0."""
    chroma, deviation = _toning(source, face)
    toned = float(np.clip((_COLOURFUL - 255 * deviation) / (_COLOURFUL - _TONED), 0, 1))
    return Tone(_broad(source, face), _broad(restored, face), chroma, toned)


def correction(window: Sequence[Tone]) -> Correction:
    """The mean over the frames of the window, which makes it slow.

    The restored face keeps its own detail around the source's broad colours. Where it was lighter
    than its source the contrast of that falls in proportion, so that dark shots stay dark.
    """
    source, restored = (
        reduce(np.add, [getattr(tone, name) for tone in window]) / np.float32(len(window))
        for name in ("source", "restored")
    )
    light, own = (
        cv2.transform(p, BT601_WEIGHTS[None]) + np.float32(_BLACK) for p in (source, restored)
    )
    gain = (light / own).clip(_LEAST_GAIN, 1)
    return Correction(
        gain,
        np.asarray(source - cv2.merge([gain] * 3) * restored, np.float32),
        np.mean([tone.chroma for tone in window], axis=0),
        float(np.mean([tone.toned for tone in window])),
    )


def add_toning(rgb: FloatArray, found: Correction) -> None:
    """Lead the chroma of (3, h, w), in place, to what the source has at its luma, neutral exactly
    so."""
    if found.toned == 0:
        return
    red, green, blue = (float(k) for k in BT601_WEIGHTS)
    luma = red * rgb[0] + green * rgb[1] + blue * rgb[2]
    from_red, from_blue = ((k[2] * luma + k[1]) * luma + k[0] for k in found.chroma.T.tolist())
    from_green = (red * from_red + blue * from_blue) / (red + blue - 1)
    for channel, chroma in zip(rgb, (from_red, from_green, from_blue), strict=True):
        channel += np.float32(found.toned) * (luma + chroma - channel)


def unclipped(source: FloatArray) -> FloatArray:
    """(h, w) in [0, 1]: 0 where `source` (h, w, 3) is blown out, and has nothing to restore."""
    least = reduce(cv2.min, cv2.split(gaussian_blur(source, 1.0)))
    return np.asarray(((_BLOWN - least) / (_BLOWN - _CLIPPED)).clip(0, 1), np.float32)


def _broad(picture: FloatArray, face: FloatArray) -> FloatArray:
    """Blurred, from the face alone, and beyond it what is nearest."""
    weight = face + np.float32(_LEAST_WEIGHT)
    weighted = cv2.merge([*(cv2.multiply(each, weight) for each in cv2.split(picture)), weight])
    sums = gaussian_blur(weighted, _SIGMA_PX, border="repeat")
    *colors, total = cv2.split(sums)
    return np.asarray(cv2.merge([cv2.divide(each, total) for each in colors]), np.float32)


def _toning(source: FloatArray, face: FloatArray) -> tuple[npt.NDArray[np.float64], float]:
    """(3, 2) chroma as a parabola of the luma, and the standard deviation around it."""
    # Every other pixel of what is so blurred says it all.
    low = gaussian_blur(source, _CHROMA_SIGMA_PX)[::2, ::2].reshape(-1, 3).astype(float)
    weight = face[::2, ::2].reshape(-1).astype(np.float64)
    luma = bt601_luma(low)
    # Equal channels must give a chroma of exactly nothing, which their weighted sum would not.
    chroma = (low - low[:, 1:2])[:, ::2]
    chroma = chroma - (chroma @ BT601_WEIGHTS[::2])[:, None]
    powers = np.stack([np.ones_like(luma), luma, luma**2], axis=1)
    normal = (powers * weight[:, None]).T @ powers + _RIDGE * max(weight.sum(), 1) * np.eye(3)
    found = np.linalg.solve(normal, (powers * weight[:, None]).T @ chroma)
    off: npt.NDArray[Any] = ((chroma - powers @ found) ** 2).sum(axis=1)
    return found, float(np.sqrt((off * weight).sum() / max(weight.sum(), 1e-6)))
