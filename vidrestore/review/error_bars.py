"""Error bars of measures of a video, from the differences between its parts.

Neighboring frames are alike, so they do not count as independent: the values are summed over parts
of the video, and the spread of these sums gives the error. Parts end at cuts. An error bar is two
standard errors, which holds the true value in about 95 of 100 cases.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
"""(n,) values, one for each sample."""
Parts = npt.NDArray[np.int64]
"""(n,) the number of the part of the video that holds each sample."""

_FEWEST_PARTS = 20
"""No part has more than one in this many of the samples."""
_STANDARD_ERRORS = 2.0


def parts_of(
    frames: Sequence[int] | npt.NDArray[np.int64], shots: Sequence[tuple[int, int]]
) -> Parts:
    """Divide samples into parts of the video: the shots, and pieces of those with many samples.

    Args:
        frames: The frame of each sample, in any order.
        shots: [start, end) of each shot, in frames.

    Returns:
        The part of each sample.
    """
    frames = np.asarray(frames, np.int64)
    starts = [start for start, _ in shots]
    shot = np.array([bisect_right(starts, frame) for frame in frames.tolist()], np.int64)
    most = max(1, math.ceil(len(frames) / _FEWEST_PARTS))
    parts, number = np.zeros(len(frames), np.int64), -1
    for each in np.unique(shot):
        own = np.flatnonzero(shot == each)
        own = own[np.argsort(frames[own], kind="stable")]
        for begin in range(0, len(own), most):
            number += 1
            parts[own[begin : begin + most]] = number
    return parts


def error_of_mean(values: Values, weights: Values, parts: Parts) -> float:
    """Compute the error bar of a weighted mean.

    Args:
        values: The values of the samples.
        weights: Their weights; the sum need not be 1.
        parts: The part of each sample; see `parts_of`.

    Returns:
        Two standard errors, in the unit of the values; nan where fewer than two parts have samples.
    """
    shares = weights / max(float(weights.sum()), 1e-300)
    return _error(shares * (values - float(shares @ values)), parts)


def error_of_change(source: Values, output: Values, weights: Values, parts: Parts) -> float:
    """Compute the error bar of the change of a root mean square from source to output.

    Both are measured in the same samples, so what they have in common does not add to the error.

    Args:
        source: The mean squares of the samples of the source.
        output: The mean squares of the samples of the output.
        weights: The weights of the samples; the sum need not be 1.
        parts: The part of each sample; see `parts_of`.

    Returns:
        Two standard errors of rms(output) - rms(source), in the unit of the roots; nan where fewer
        than two parts have samples.
    """
    shares = weights / max(float(weights.sum()), 1e-300)
    change = np.zeros(len(shares))
    for squares, sign in ((output, 1), (source, -1)):
        mean = float(shares @ squares)
        change += sign * (squares - mean) / (2 * math.sqrt(max(mean, 1e-12)))
    return _error(shares * change, parts)


def _error(terms: Values, parts: Parts) -> float:
    """Return two standard errors of the sum of the terms, whose parts are independent."""
    used = np.unique(parts, return_inverse=True)[1]
    sums = np.bincount(used, weights=terms)
    count = len(sums)
    if count < 2:
        return math.nan
    return _STANDARD_ERRORS * math.sqrt(count / (count - 1) * float(sums @ sums))
