"""Color matching: the broad colors of a restored face follow its source.

They are its tint, its light, and the lack of colors of black and white film. All computations use
small pictures of the unit crop with display values in [0, 1].
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
"""The side, in pixels, of the small pictures."""

# Standard deviation of the blur that leaves broad colors, in pixels of the grid.
_SIGMA_PX = 3.0
# Weight of "no correction" far from the face.
_LEAST_WEIGHT = 1e-3
# Contrast falls with the light, down to this gain; black keeps some contrast.
_LEAST_GAIN, _BLACK = 0.2, 4 / 255
# Standard deviation of chroma around a function of the luma, in 8-bit levels, up to which a
# picture has no colors of its own, and from which on it surely has some.
_TONED, _COLORFUL = 0.8, 1.8
_CHROMA_SIGMA_PX = 1.0
# The toning of a film is at most a parabola of the luma; this damps it where no luma was seen.
_RIDGE = 1e-4
# Levels from which a source begins to count as clipped, and from which it counts as fully clipped.
_CLIPPED, _BLOWN = 246 / 255, 252 / 255


@dataclass(frozen=True, slots=True, eq=False)
class Tone:
    """The tones of one frame."""

    source: FloatArray
    """(64, 64, 3) broad colors of the source."""
    restored: FloatArray
    """(64, 64, 3) broad colors of the restored face."""
    chroma: npt.NDArray[np.float64]
    """(3, 2) coefficients of 1, Y and Y^2 that give R - Y and B - Y of the source."""
    toned: float
    """In [0, 1]: how surely `chroma` describes all colors of the source."""


@dataclass(frozen=True, slots=True, eq=False)
class Correction:
    """A correction of color: restored * gain + offset, then `toned` parts of the toning."""

    gain: FloatArray
    """(64, 64) factor of the restored face."""
    offset: FloatArray
    """(64, 64, 3) values to add after the gain."""
    chroma: npt.NDArray[np.float64]
    """(3, 2) coefficients of the toning, as in `Tone.chroma`."""
    toned: float
    """In [0, 1]: how much of the chroma the toning replaces."""


def tone_of(source: FloatArray, restored: FloatArray, face: FloatArray) -> Tone:
    """Measure the tones of a source and of a restored face.

    Args:
        source: (64, 64, 3) RGB in [0, 1].
        restored: (64, 64, 3) RGB in [0, 1].
        face: (64, 64) weight in [0, 1] of each pixel; only pixels above 0 count.

    Returns:
        The tones.
    """
    chroma, deviation = _toning(source, face)
    toned = float(np.clip((_COLORFUL - 255 * deviation) / (_COLORFUL - _TONED), 0, 1))
    return Tone(_broad(source, face), _broad(restored, face), chroma, toned)


def correction(window: Sequence[Tone]) -> Correction:
    """Return the correction for the middle of a window of frames.

    It is the mean over the window, so that it changes slowly. The restored face keeps its own
    detail around the broad colors of the source. Where it was lighter than its source, its contrast
    falls in proportion, so that dark shots stay dark.

    Args:
        window: The tones of the frames of the window, at least one.

    Returns:
        The correction.
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
    """Change the chroma of a picture, in place, to the chroma of the source at the same luma.

    The more `toned` is, the more of the chroma is replaced. A neutral source gives exactly neutral
    colors.

    Args:
        rgb: (3, h, w) float32 RGB in [0, 1].
        found: The correction.
    """
    if found.toned == 0:
        return
    red, green, blue = (float(k) for k in BT601_WEIGHTS)
    part, luma = np.empty_like(rgb[0]), np.multiply(rgb[0], red)
    luma += np.multiply(rgb[1], green, out=part)
    luma += np.multiply(rgb[2], blue, out=part)
    from_red, from_blue = (_parabola(luma, k) for k in found.chroma.T.tolist())
    from_green = np.multiply(from_red, red)
    from_green += np.multiply(from_blue, blue, out=part)
    from_green /= red + blue - 1
    for channel, chroma in zip(rgb, (from_red, from_green, from_blue), strict=True):
        chroma += luma
        chroma -= channel
        chroma *= np.float32(found.toned)
        channel += chroma


def _parabola(luma: FloatArray, k: Sequence[float]) -> FloatArray:
    """Return k0 + k1 Y + k2 Y^2."""
    values = np.multiply(luma, k[2])
    values += k[1]
    values *= luma
    values += k[0]
    return values


def unclipped(source: FloatArray) -> FloatArray:
    """Return where a source is not overexposed.

    An overexposed area holds no detail to restore.

    Args:
        source: (h, w, 3) RGB in [0, 1].

    Returns:
        (h, w) float32 in [0, 1]; 0 where the source is overexposed.
    """
    least = reduce(cv2.min, cv2.split(gaussian_blur(source, 1.0)))
    return np.asarray(((_BLOWN - least) / (_BLOWN - _CLIPPED)).clip(0, 1), np.float32)


def _broad(picture: FloatArray, face: FloatArray) -> FloatArray:
    """Return the colors of the face, blurred, and the nearest of them beyond it."""
    weight = face + np.float32(_LEAST_WEIGHT)
    weighted = cv2.merge([*(cv2.multiply(each, weight) for each in cv2.split(picture)), weight])
    sums = gaussian_blur(weighted, _SIGMA_PX, border="repeat")
    *colors, total = cv2.split(sums)
    return np.asarray(cv2.merge([cv2.divide(each, total) for each in colors]), np.float32)


def _toning(source: FloatArray, face: FloatArray) -> tuple[npt.NDArray[np.float64], float]:
    """Return the (3, 2) chroma as a parabola of the luma, and the standard deviation around it."""
    # The picture is so blurred that every other pixel suffices.
    low = gaussian_blur(source, _CHROMA_SIGMA_PX)[::2, ::2].reshape(-1, 3).astype(float)
    weight = face[::2, ::2].reshape(-1).astype(np.float64)
    luma = bt601_luma(low)
    # Equal channels must give a chroma of exactly 0, which their weighted sum would not.
    chroma = (low - low[:, 1:2])[:, ::2]
    chroma = chroma - (chroma @ BT601_WEIGHTS[::2])[:, None]
    powers = np.stack([np.ones_like(luma), luma, luma**2], axis=1)
    normal = (powers * weight[:, None]).T @ powers + _RIDGE * max(weight.sum(), 1) * np.eye(3)
    solution = np.linalg.solve(normal, (powers * weight[:, None]).T @ chroma)
    off: npt.NDArray[Any] = ((chroma - powers @ solution) ** 2).sum(axis=1)
    return solution, float(np.sqrt((off * weight).sum() / max(weight.sum(), 1e-6)))
