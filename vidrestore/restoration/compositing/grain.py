"""Grain: the noise of the source around a face, and similar noise for the restored face.

Levels are code values of a plane. A spectrum is the power of blocks, (16, 9) in the layout of
`rfft2`, scaled so that its mean over all 16 x 16 frequencies is the variance.

Noise is what is new in each frame: of three successive frames, the middle one less the mean of the
others. The rest of a moving picture in that difference is proportional to the slopes of the
picture. The picture and its slopes are estimated from the sum of the three frames, which is
uncorrelated with that difference where there is only noise. The change from the first frame to the
third, by which blocks are chosen, is also uncorrelated with it. Choosing blocks by one and
measuring the level by the other has no bias, and no block has to be flat. Where one of the first
two and the last two frames repeat a picture, the change from the first to the third is the noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from statistics import NormalDist
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from vidrestore.imaging.frame import FloatArray

_BLOCK_PX = 16
# The number of blocks that are measured: at most, and at least. The flattest share of the measured
# blocks, `_FLAT_SHARE`, counts as flat.
_MOST_BLOCKS, _FEWEST_BLOCKS = 240, 8
# The number of pairs of one block before and after, at most. Fewer suffice, because both blocks of
# a pair have the same random deviation.
_MOST_PAIRS = 96
_FLAT_SHARE = 0.25
# Of a whole plane, of which most shows other things.
_FLAT_SHARE_OF_ALL = 0.05
# So much finer than measured may be the detail of a part that has few samples.
_BY_CHANCE = 1.25
# Of three frames fewer do, too; blocks overlap by half where so few lie side by side.
_MOST_TRIPLES, _FEW_BLOCKS = 40, 32
# The share of their samples, those with the smallest differences, that give the strength of noise.
_CALM_SHARE = 0.3
# Two of three frames repeat a picture if between them this share goes on of what goes on otherwise.
_REPEAT_SHARE = 0.3
# Both margins of a block, whose slopes need its neighbors.
_MARGINS_PX = 2
# Shares of the range beyond which a plane is clipped and shows no noise of its own.
_DARKEST, _BRIGHTEST = 0.04, 0.96
# Standard deviations, of 8 bits: below the first there is only rounding, above the second noise.
_CLEAN, _NOISY = 0.5, 0.8
# The power of the flattest blocks as a share of the mean power; measured with white noise.
_FLATTEST_SHARE = 0.9
# A loss of a fifth counts as no loss, because interpolation alone causes about that.
_NEARLY_ALL = 1.3
# Normal numbers are drawn from a table of 2^12 numbers of equal probability.
_NORMAL_BITS = 12
# Half width of the filter that shapes noise; what lies beyond is the error of the estimate, mostly,
# and takes three times as long.
_REACH_PX = 5
# A share so small of the power of all noise is left out: estimates of white noise are wrong by as
# much.
_WORTHLESS = 0.01

Spectrum = npt.NDArray[np.float64]
"""The power of noise in blocks, (16, 9) in the layout of `rfft2`, in squared code values."""


def nothing() -> Spectrum:
    """Return the (16, 9) spectrum of no noise."""
    return np.zeros((_BLOCK_PX, _BLOCK_PX // 2 + 1))


def spectrum_of(plane: npt.NDArray[Any], bits: int) -> Spectrum:
    """Return the spectrum of the flattest blocks of a plane.

    Args:
        plane: (h, w) samples.
        bits: The bit depth of the samples.

    Returns:
        (16, 9) float64; zeros where there are too few blocks.
    """
    blocks = _blocks(plane)
    flat = _flattest(blocks, _is_exposed(blocks, bits))
    if len(flat) == 0:
        return nothing()
    return _density(_without_slope(blocks[flat])) / _FLATTEST_SHARE


def spectrum_of_whole(plane: npt.NDArray[Any], bits: int) -> Spectrum:
    """Return the spectrum of the flattest blocks of a whole plane.

    Args:
        plane: (h, w) samples of the whole picture.
        bits: The bit depth of the samples.

    Returns:
        (16, 9) float64; zeros where there are too few blocks.
    """
    tiles = _tiles(plane)
    # An odd step takes another column in each row.
    step = -(-len(tiles) * tiles.shape[1] // _MOST_BLOCKS) | 1
    places = np.arange(0, len(tiles) * tiles.shape[1], step)
    if len(places) == 0:
        return nothing()
    chosen = tiles[places // tiles.shape[1], places % tiles.shape[1]]
    blocks = np.asarray(chosen.reshape(len(places), -1), np.float32)
    flat = _flattest(blocks, _is_exposed(blocks, bits), share=_FLAT_SHARE_OF_ALL)
    if len(flat) == 0:
        return nothing()
    return _density(_without_slope(blocks[flat])) / _FLATTEST_SHARE


def most_within(spectrum: Spectrum, part: npt.NDArray[Any]) -> Spectrum:
    """Return a spectrum, reduced to what a part of the picture can hold.

    Noise is everywhere, so the finest detail of the part is no weaker than that of the noise. By
    its median, few edges do not count.

    Args:
        spectrum: (16, 9) spectrum of noise.
        part: (h, w) samples of the part.

    Returns:
        (16, 9) float64; zeros where the part has less than 3 x 3 samples.
    """
    if min(part.shape) < 3:
        return nothing()
    bends = np.diff(np.diff(np.asarray(part, np.float32), 2, axis=0), 2, axis=1)
    found = float(np.median(np.abs(bends))) / NormalDist().inv_cdf(0.75)
    down, across = (
        (2 - 2 * np.cos(2 * np.pi * np.arange(count) / _BLOCK_PX)) ** 2
        for count in (_BLOCK_PX, _BLOCK_PX // 2 + 1)
    )
    expected = sigma_of(spectrum * np.outer(down, across))
    return np.asarray(spectrum * min(_BY_CHANCE * found / max(expected, 1e-9), 1.0) ** 2)


def changing_spectrum(
    three: Sequence[npt.NDArray[Any]], bits: int, *, single_fields: bool = False
) -> Spectrum | None:
    """Return the spectrum of what is new in each of three successive frames.

    Args:
        three: (h, w) samples of each frame, which follow the motion to a pixel.
        bits: The bit depth of the samples.
        single_fields: Whether each frame shows one field. Its other lines are interpolated from the
            frames around, so that only the change from the first to the third is new. Default: no.

    Returns:
        (16, 9) float64; None where no block fits into the samples, or all blocks are clipped.
    """
    height, width = three[0].shape
    corners = _corners(height, width)
    if len(corners) == 0:
        return None
    before, now, after = (_windows(plane, corners) for plane in three)
    mean = (before + now + after) / np.float32(3)
    places = np.flatnonzero(_is_exposed(_inner(mean), bits))
    if len(places) == 0:
        return None
    before, now, after, mean = (each[places] for each in (before, now, after, mean))
    slopes, activity = _slopes(mean)
    basis = _orthonormal([_inner(mean), *slopes])
    change = _without_slope(_inner(after - before))
    change -= _part_in(basis, change)
    power = np.einsum("ni,ni->n", change, change)
    count = min(len(places), max(_FEWEST_BLOCKS // 2, round(_FLAT_SHARE * len(places))))
    calm = np.argpartition(power, count - 1)[:count]
    basis, activity = [each[calm] for each in basis], activity[calm]
    # What goes on in the calmest blocks from one frame to the next.
    steps = sorted(
        float(np.partition(np.einsum("ni,ni->n", each, each), count - 1)[:count].sum())
        for each in (_without_slope(_inner(pair)) for pair in (now - before, after - now))
    )
    if by_ends := single_fields or steps[0] < _REPEAT_SHARE * steps[1]:
        new = (after - before) / np.float32(math.sqrt(2))
    else:
        new = (now - (before + after) / np.float32(2)) / np.float32(math.sqrt(1.5))
    noise = _without_slope(_inner(new[calm]))
    # How much of noise of this spectrum lies in the slopes of the picture by chance: as much as of
    # the same noise turned around, which has nothing to do with them.
    turned = noise[:, ::-1]
    whole = float(np.square(turned).sum())
    if whole == 0:
        return nothing()
    by_chance = float(np.square(_part_in(basis, turned)).sum()) / whole
    noise -= _part_in(basis, noise)
    # Noise is the same in calm places and in others, what sampling makes of moving edges is not.
    square = np.square(noise)
    order = round(_CALM_SHARE * (activity.size - 1))
    calm_samples = activity <= np.partition(activity, order, axis=None)[order]
    share = min(float(square[calm_samples].mean() / max(square.mean(), 1e-9)), 1.0)
    if by_ends and len(places) > count:  # the blocks were chosen by the noise itself
        share /= _FLATTEST_SHARE
    return np.asarray(share * _density(noise) / max(1 - by_chance, 0.5))


def _slopes(windows: npt.NDArray[np.float32]) -> tuple[list[FloatArray], FloatArray]:
    """Return the slopes across and down, (n, 256) each, and the activity around each sample."""
    middle = windows[:, 1:-1, 1:-1]
    left, right = windows[:, 1:-1, :-2], windows[:, 1:-1, 2:]
    above, below = windows[:, :-2, 1:-1], windows[:, 2:, 1:-1]
    slopes = [right - left, below - above]
    bends = [left + right - 2 * middle, above + below - 2 * middle]
    activity = np.sum([np.square(each) for each in (*slopes, *bends)], axis=0)
    flat = (len(windows), -1)
    return [each.reshape(flat) for each in slopes], np.reshape(activity, flat)


def _orthonormal(blocks: Sequence[npt.NDArray[np.float32]]) -> list[FloatArray]:
    """Return orthogonal directions of (n, 256) less its best plane; zeros where there are none."""
    found: list[FloatArray] = []
    for each in blocks:
        own = _without_slope(each)
        own -= _part_in(found, own)
        length = np.sqrt(np.einsum("ni,ni->n", own, own))[:, None]
        found.append(own / np.maximum(length, 1e-3))
    return found


def _part_in(basis: Sequence[FloatArray], blocks: npt.NDArray[np.float32]) -> FloatArray:
    """Return the part of each (n, 256) block in the span of the directions, (n, 256) each."""
    part = np.zeros_like(blocks)
    for each in basis:
        part += each * np.einsum("ni,ni->n", each, blocks)[:, None]
    return part


def _corners(height: int, width: int) -> npt.NDArray[np.intp]:
    """Return (n, 2) corners of blocks with a margin, spread over a plane; few blocks overlap."""
    rows, columns = height - _MARGINS_PX, width - _MARGINS_PX
    if min(rows, columns) < _BLOCK_PX:
        return np.zeros((0, 2), np.intp)
    few = (rows // _BLOCK_PX) * (columns // _BLOCK_PX) < _FEW_BLOCKS
    step = _BLOCK_PX // 2 if few else _BLOCK_PX
    down, across = (
        np.linspace(0, length - _BLOCK_PX, (length - _BLOCK_PX) // step + 1).round().astype(np.intp)
        for length in (rows, columns)
    )
    every = np.stack(np.meshgrid(down, across, indexing="ij"), axis=-1).reshape(-1, 2)
    return np.asarray(every[:: -(-len(every) // _MOST_TRIPLES)])


def _windows(plane: npt.NDArray[Any], corners: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
    """Return (n, 18, 18) blocks with a margin of one sample."""
    side = _BLOCK_PX + _MARGINS_PX
    views = np.lib.stride_tricks.sliding_window_view(plane, (side, side))
    return np.asarray(views[corners[:, 0], corners[:, 1]], np.float32)


def _inner(windows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return (n, 256) samples of the blocks without their margin."""
    return np.asarray(windows[:, 1:-1, 1:-1].reshape(len(windows), -1))


def kept_share(
    before: npt.NDArray[Any], after: npt.NDArray[Any], mask: FloatArray, bits: int
) -> Spectrum:
    """Return the share of the noise of a plane that another version of the plane keeps.

    Only blocks in which the mask is above 1/2 throughout are used.

    Args:
        before: (h, w) samples before the change, whose flattest blocks are measured.
        after: (h, w) samples after the change.
        mask: (h, w) float32 in [0, 1].
        bits: The bit depth of the samples.

    Returns:
        (16, 9) float64 in [0, 1], the share of the power; zeros where there are too few blocks.
    """
    blocks = _blocks(before)
    usable = _is_exposed(blocks, bits) & (_blocks(mask).min(axis=1) > 0.5)
    flat = _flattest(blocks, usable, _MOST_PAIRS)
    if len(flat) == 0:
        return nothing()
    both = np.concatenate([blocks[flat], _blocks(after)[flat]])
    power = _density(_without_slope(both).reshape(2, len(flat), -1))
    was, now = (cv2.blur(each, (3, 3)) for each in power)
    share = np.divide(now, was, out=np.ones_like(now), where=was > 0)
    return np.asarray(np.clip(share * _NEARLY_ALL, 0, 1))


def _is_exposed(blocks: npt.NDArray[np.float32], bits: int) -> npt.NDArray[np.bool_]:
    """Return (n,): whether the mean of each block is far enough from black and white."""
    most = 2**bits - 1
    means = blocks @ np.full(_BLOCK_PX**2, 1 / _BLOCK_PX**2, np.float32)
    return np.asarray((means > _DARKEST * most) & (means < _BRIGHTEST * most))


def _flattest(
    blocks: npt.NDArray[np.float32],
    usable: npt.NDArray[np.bool_],
    most: int = _MOST_BLOCKS,
    share: float = _FLAT_SHARE,
) -> npt.NDArray[np.intp]:
    """Return the indexes of the flattest usable blocks; none where too few are usable."""
    places = np.flatnonzero(usable)
    if len(places) < _FEWEST_BLOCKS:
        return places[:0]
    places = places[:: -(-len(places) // most)]
    level = _without_slope(blocks[places])
    power = np.einsum("ni,ni->n", level, level)
    count = max(_FEWEST_BLOCKS // 2, round(share * len(places)))
    return places[np.argpartition(power, count - 1)[:count]]


def _density(flat: npt.NDArray[np.float32]) -> Spectrum:
    """Return the (..., 16, 9) spectra of (..., n, 256) blocks.

    They are computed from the autocorrelation (Blackman and Tukey, 1958), since a small block
    smears a spectrum: the autocorrelation of the windowed blocks without wrapping around, divided
    by that of the window. The steps from the power of the windowed blocks to the autocorrelation
    and from there to a spectrum are linear and separable, so both together are one matrix for each
    axis.
    """
    windowed = flat.reshape(*flat.shape[:-1], _BLOCK_PX, _BLOCK_PX) * _window()
    # One axis after the other: the first needs no more than the rows that are there.
    from scipy import fft  # loaded once a frame is there: it takes long

    waves = fft.fft(fft.rfft(windowed, 2 * _BLOCK_PX), 2 * _BLOCK_PX, axis=-2)
    parts = waves.view(np.float32)
    squares = (parts * parts).sum(axis=-3)
    power = (squares[..., ::2] + squares[..., 1::2]).astype(np.float64) / flat.shape[-2]
    smoothing = _smoothing()
    across, last = smoothing[: _BLOCK_PX // 2 + 1], _BLOCK_PX + 1
    down = smoothing @ power
    # The half of the columns that `rfft2` leaves out mirrors the other through the origin.
    mirrored = down[..., -np.arange(_BLOCK_PX) % _BLOCK_PX, last - 2 : 0 : -1]
    return np.asarray(np.maximum(down @ across[:, :last].T + mirrored @ across[:, last:].T, 0))


@cache
def _smoothing() -> Spectrum:
    """Return the (16, 32) matrix from power at 32 frequencies to the density at 16, on one axis.

    Lags of up to half a block count. They are corrected for the window of the blocks, and fade out
    towards the longest.
    """
    lags = np.arange(1 - _BLOCK_PX // 2, _BLOCK_PX // 2)
    line = _window_line()
    own = np.correlate(line, line, "full")[lags + _BLOCK_PX - 1]
    weights = (1 - (lags / (_BLOCK_PX // 2)) ** 4) / own
    places = np.arange(2 * _BLOCK_PX) / (2 * _BLOCK_PX) - np.arange(_BLOCK_PX)[:, None] / _BLOCK_PX
    waves = np.cos(2 * np.pi * lags * places[..., None])
    return np.asarray(waves @ weights / (2 * _BLOCK_PX))


def sigma_of(spectrum: Spectrum) -> float:
    """Return the standard deviation of the noise of a spectrum.

    Args:
        spectrum: (16, 9) spectrum.

    Returns:
        The standard deviation in code values.
    """
    both = 2 * spectrum.sum() - spectrum[:, 0].sum() - spectrum[:, -1].sum()
    return float(np.sqrt(both / _BLOCK_PX**2))


def missing(source: Spectrum, kept: Spectrum | float, step: float) -> Spectrum:
    """Return the spectrum of the noise to add to a face that keeps a share of its noise.

    Args:
        source: (16, 9) spectrum of the noise of the source.
        kept: The share of the power in [0, 1] that the face keeps; a number, or (16, 9) for each
            frequency.
        step: The number of code values in one 8-bit level.

    Returns:
        (16, 9) float64; zeros where the source is clean.
    """
    sigma = sigma_of(source) / step
    share = min(max((sigma - _CLEAN) / (_NOISY - _CLEAN), 0.0), 1.0)
    return np.asarray(source * (1 - kept) * share)


def grain(
    spectrum: Spectrum, height: int, width: int, seed: tuple[int, ...], *, among: float = 0.0
) -> FloatArray:
    """Draw Gaussian noise of a spectrum.

    Args:
        spectrum: (16, 9) spectrum.
        height: The height in samples.
        width: The width in samples.
        seed: The seed; the same seed gives the same noise.
        among: The standard deviation of all noise, where `spectrum` is only its missing part;
            default: 0.

    Returns:
        (height, width) float32 in code values.
    """
    kernel = _filter(spectrum, among)
    reach = len(kernel) // 2
    size = (height + 2 * reach, width + 2 * reach)
    drawn = np.random.SFC64([each % 2**32 for each in seed]).random_raw(-(-math.prod(size) // 4))
    bits = drawn.view(np.uint16)[: math.prod(size)].reshape(size)
    white = np.take(_normal(), bits >> (16 - _NORMAL_BITS))
    shaped = cv2.filter2D(white, -1, kernel)
    return np.asarray(shaped[reach:-reach, reach:-reach])


def _filter(spectrum: Spectrum, among: float) -> FloatArray:
    """Return the (n, n) filter that gives white noise the spectrum, symmetric around its middle.

    It is no larger than its effect requires.
    """
    from scipy import fft  # loaded once a frame is there: it takes long

    response = fft.irfft2(np.sqrt(spectrum), s=(_BLOCK_PX, _BLOCK_PX))
    middle = np.roll(response, (_REACH_PX, _REACH_PX), axis=(0, 1))
    widest = middle[: 2 * _REACH_PX + 1, : 2 * _REACH_PX + 1]
    power = widest**2
    most = power.sum() - _WORTHLESS * max(power.sum(), among**2)
    for cut in range(_REACH_PX - 1, 0, -1):
        inner = np.s_[cut:-cut, cut:-cut]
        if (within := power[inner].sum()) >= most and within > 0:
            return np.asarray(widest[inner] * math.sqrt(power.sum() / within), np.float32)
    return np.asarray(widest, np.float32)


@cache
def _normal() -> npt.NDArray[np.float32]:
    """Return (4096,) equally probable numbers with a normal distribution of variance 1."""
    count = 2**_NORMAL_BITS
    numbers = np.array([NormalDist().inv_cdf((i + 0.5) / count) for i in range(count)])
    return np.asarray(numbers / numbers.std(), np.float32)


def share_of(weight: FloatArray) -> FloatArray:
    """Return how much grain a face needs where it is blended in.

    A share 1 - w of the noise of the source is left there, so the added noise has the variance 1 -
    (1 - w)^2 = w (2 - w).

    Args:
        weight: The weight w of the face, of any shape, in [0, 1].

    Returns:
        The factor of the noise in [0, 1], float32 of the same shape.
    """
    return np.asarray(np.sqrt(weight * (2 - weight)), np.float32)


def _blocks(plane: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return (n, 256) blocks side by side."""
    return np.asarray(_tiles(plane).reshape(-1, _BLOCK_PX**2), np.float32)


def _tiles(plane: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return (rows, columns, 16, 16) views of the blocks side by side."""
    rows, columns = plane.shape[0] // _BLOCK_PX, plane.shape[1] // _BLOCK_PX
    whole = plane[: rows * _BLOCK_PX, : columns * _BLOCK_PX]
    return whole.reshape(rows, _BLOCK_PX, columns, _BLOCK_PX).swapaxes(1, 2)


def _without_slope(blocks: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return each (256,) block less the plane that fits it best."""
    planes = _planes()
    return np.asarray(blocks - (blocks @ planes) @ planes.T)


@cache
def _planes() -> npt.NDArray[np.float32]:
    """Return (256, 3) orthogonal vectors of length 1: level, down, across."""
    ramp = np.arange(_BLOCK_PX) - (_BLOCK_PX - 1) / 2
    level = np.ones(_BLOCK_PX)
    planes = [np.outer(a, b).ravel() for a, b in ((level, level), (ramp, level), (level, ramp))]
    return np.stack([each / np.linalg.norm(each) for each in planes], axis=1).astype(np.float32)


@cache
def _window() -> npt.NDArray[np.float32]:
    """Return the (16, 16) window of a block."""
    return np.asarray(np.outer(_window_line(), _window_line()), np.float32)


def _window_line() -> npt.NDArray[np.float64]:
    return np.asarray(np.hanning(_BLOCK_PX + 1)[:-1])
