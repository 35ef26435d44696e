"""Noise of the source around a face, and noise like it for what was restored.

Levels are code values of a plane. A spectrum is that of flat blocks, (16, 9) as `rfft2` gives it,
scaled so that its mean over all 16 x 16 frequencies is the variance.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from vidrestore.frame import FloatArray

_BLOCK_PX = 16
# So many blocks are looked at at most, and of these the flattest share is taken for flat.
_MOST_BLOCKS, _FEWEST_BLOCKS = 240, 8
_FLAT_SHARE = 0.25
# Shares of the range beyond which a plane is clipped and shows no noise of its own.
_DARKEST, _BRIGHTEST = 0.04, 0.96
# Standard deviations, of 8 bits: below the first there is only rounding, above the second noise.
_CLEAN, _NOISY = 0.5, 0.8
# What the flattest of so many blocks fall short of the mean, in power; found with white noise.
_FLATTEST_SHARE = 0.9
# A fifth less than all counts as all: interpolation alone takes about that.
_NEARLY_ALL = 1.3

Spectrum = npt.NDArray[np.float64]


def spectrum_of(plane: npt.NDArray[Any], bits: int) -> Spectrum:
    """(16, 9) of the flattest blocks of (h, w) samples; zeros where there are too few blocks."""
    blocks = _blocks(plane)
    flat = _flattest(blocks, _is_exposed(blocks, bits))
    if len(flat) == 0:
        return np.zeros((_BLOCK_PX, _BLOCK_PX // 2 + 1))
    return _density(_without_slope(blocks[flat])) / _FLATTEST_SHARE


def kept_share(
    before: npt.NDArray[Any], after: npt.NDArray[Any], mask: FloatArray, bits: int
) -> Spectrum:
    """(16, 9) in [0, 1]: what share of the power that (h, w) `before` has in its flattest blocks
    `after` has there, too. Only blocks in which `mask` (h, w) is above 1/2 throughout are looked
    at; zeros where there are too few."""
    blocks = _blocks(before)
    usable = _is_exposed(blocks, bits) & (_blocks(mask).min(axis=(1, 2)) > 0.5)
    flat = _flattest(blocks, usable)
    if len(flat) == 0:
        return np.zeros((_BLOCK_PX, _BLOCK_PX // 2 + 1))
    was, now = (
        cv2.blur(_density(_without_slope(each[flat])), (3, 3)) for each in (blocks, _blocks(after))
    )
    share = np.divide(now, was, out=np.ones_like(now), where=was > 0)
    return np.asarray(np.clip(share * _NEARLY_ALL, 0, 1))


def _is_exposed(blocks: npt.NDArray[np.float32], bits: int) -> npt.NDArray[np.bool_]:
    means = blocks.mean(axis=(1, 2)) / (2**bits - 1)
    return np.asarray((means > _DARKEST) & (means < _BRIGHTEST))


def _flattest(
    blocks: npt.NDArray[np.float32], usable: npt.NDArray[np.bool_]
) -> npt.NDArray[np.intp]:
    """Which blocks; none where too few are usable."""
    places = np.flatnonzero(usable)
    if len(places) < _FEWEST_BLOCKS:
        return places[:0]
    places = places[:: -(-len(places) // _MOST_BLOCKS)]
    level = _without_slope(blocks[places])
    power = np.einsum("nij,nij->n", level, level)
    count = max(_FEWEST_BLOCKS // 2, round(_FLAT_SHARE * len(places)))
    return places[np.argpartition(power, count - 1)[:count]]


def _density(flat: npt.NDArray[np.float32]) -> Spectrum:
    """By the autocorrelation (Blackman and Tukey, 1958), since a block so small smears a spectrum:
    that of windowed blocks, without wrapping around, over that of the window."""
    correlation = _autocorrelation(flat * _window()) * _lag_window()
    return np.asarray(np.maximum(np.fft.rfft2(correlation).real, 0))


def _autocorrelation(blocks: npt.NDArray[np.float32]) -> Spectrum:
    """(16, 16) the mean over (n, 16, 16), at lags of up to half a block."""
    wide = (2 * _BLOCK_PX, 2 * _BLOCK_PX)
    power = np.mean(np.abs(np.fft.rfft2(blocks, s=wide)) ** 2, axis=0)
    lags = _lags()
    return np.asarray(np.fft.irfft2(power, s=wide)[np.ix_(lags, lags)])


def _lags() -> npt.NDArray[np.intp]:
    return np.asarray(np.r_[: _BLOCK_PX // 2, -_BLOCK_PX // 2 : 0])


@cache
def _lag_window() -> Spectrum:
    """(16, 16): undoes the blocks' window, and fades out towards the longest lags."""
    taper = 1 - (_lags() / (_BLOCK_PX // 2)) ** 4
    return np.asarray(np.outer(taper, taper) / _autocorrelation(_window()[None]))


def sigma_of(spectrum: Spectrum) -> float:
    """Standard deviation of the noise."""
    both = 2 * spectrum.sum() - spectrum[:, 0].sum() - spectrum[:, -1].sum()
    return float(np.sqrt(both / _BLOCK_PX**2))


def missing(source: Spectrum, kept: Spectrum | float, bits: int) -> Spectrum:
    """What must be added to noise of which a share is kept; nothing where `source` is clean."""
    sigma = sigma_of(source) / 2 ** (bits - 8)
    share = np.clip((sigma - _CLEAN) / (_NOISY - _CLEAN), 0, 1)
    return np.asarray(source * (1 - kept) * share)


def grain(spectrum: Spectrum, height: int, width: int, seed: tuple[int, ...]) -> FloatArray:
    """(height, width) Gaussian noise of that spectrum; the same for the same seed."""
    random = np.random.default_rng([each % 2**32 for each in seed])
    white = random.standard_normal((height + _BLOCK_PX, width + _BLOCK_PX), np.float32)
    response = np.fft.irfft2(np.sqrt(spectrum), s=(_BLOCK_PX, _BLOCK_PX))
    kernel = np.fft.fftshift(response)[1:, 1:].astype(np.float32)  # symmetric around its middle
    margin = _BLOCK_PX // 2
    shaped = cv2.filter2D(white, -1, kernel)
    return np.asarray(shaped[margin : margin + height, margin : margin + width])


def share_of(weight: FloatArray) -> FloatArray:
    """How much grain goes with a face that is blended in with `weight` in [0, 1].

    Of the source's own noise 1 - w is left there, so what is added has the variance
    1 - (1 - w)^2 = w (2 - w).
    """
    return np.asarray(np.sqrt(weight * (2 - weight)), np.float32)


def _blocks(plane: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """(n, 16, 16)"""
    rows, columns = plane.shape[0] // _BLOCK_PX, plane.shape[1] // _BLOCK_PX
    whole = plane[: rows * _BLOCK_PX, : columns * _BLOCK_PX].astype(np.float32)
    tiles = whole.reshape(rows, _BLOCK_PX, columns, _BLOCK_PX).swapaxes(1, 2)
    return np.asarray(tiles.reshape(-1, _BLOCK_PX, _BLOCK_PX), np.float32)


def _without_slope(blocks: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Each less the plane that fits it best."""
    ramp = np.arange(_BLOCK_PX, dtype=np.float32) - (_BLOCK_PX - 1) / 2
    ramp /= np.linalg.norm(ramp) * np.sqrt(_BLOCK_PX)
    level = blocks - blocks.mean(axis=(1, 2), keepdims=True)
    down = np.einsum("nij,i->n", level, ramp)[:, None, None] * ramp[:, None]
    across = np.einsum("nij,j->n", level, ramp)[:, None, None] * ramp
    return np.asarray(level - down - across, np.float32)


@cache
def _window() -> npt.NDArray[np.float32]:
    line = np.hanning(_BLOCK_PX + 1)[:-1]
    return np.asarray(np.outer(line, line), np.float32)
