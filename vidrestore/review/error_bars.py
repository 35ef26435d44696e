"""Error bars of measures that were taken in some of the faces of a video.

An error bar tells how far the value of all faces may be from that of the measured ones. Where all
faces were measured, it is 0. Neighboring frames are alike, so they do not count as independent: the
values are summed over parts of the video, and the spread of these sums gives the error. Parts end
at cuts. An error bar is two standard errors, and more where there are few parts: it holds the value
of all faces in about 95 of 100 cases.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

Values = npt.NDArray[np.float64]
"""(n,) values, one for each sample."""
Parts = npt.NDArray[np.int64]
"""(n,) the number of the part of the video that holds each sample."""

_FEWEST_PARTS = 20
"""No part has more than one in this many of the samples."""
_STANDARD_ERRORS = 2.0
_HELD = 0.975  # of the distribution of Student, below the upper end of a bar


def parts_of(
    frames: Sequence[int] | npt.NDArray[np.int64],
    shots: Sequence[tuple[int, int]],
    *,
    stretches: Sequence[tuple[int, int]] = (),
) -> Parts:
    """Divide samples into parts of the video: the shots, and pieces of those with many samples.

    Args:
        frames: The frame of each sample, in any order.
        shots: [start, end) of each shot, in frames.
        stretches: [start, end) of each stretch, in frames, where only some stretches of the video
            were read; they are the parts then. Default: the whole video was read.

    Returns:
        The part of each sample.
    """
    frames = np.asarray(frames, np.int64)
    if stretches:
        return np.searchsorted([start for start, _ in stretches], frames, side="right")
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


def measured_shares(weights: Values, population: int) -> Values:
    """Compute the share of the faces for which a sample stands that was measured.

    Args:
        weights: The weights of the samples, each of one face; the sum need not be 1.
        population: The number of all faces.

    Returns:
        (n,) in [0, 1]; 1 where all of these faces were measured.
    """
    shares = weights / max(float(weights.sum()), 1e-300)
    return np.asarray(np.minimum(1, 1 / np.maximum(population * shares, 1e-300)))


def error_of_mean(
    values: Values, weights: Values, parts: Parts, measured: Values | float = 0.0
) -> float:
    """Compute the error bar of a weighted mean.

    Args:
        values: The values of the samples.
        weights: Their weights; the sum need not be 1.
        parts: The part of each sample; see `parts_of`.
        measured: The share of all faces that was measured, for all samples or for each; see
            `measured_shares`. Default: 0, there are many more faces.

    Returns:
        The error bar in the unit of the values; nan where fewer than two parts have samples and
        not all faces were measured.
    """
    shares = weights / max(float(weights.sum()), 1e-300)
    return _error(shares * (values - float(shares @ values)), parts, measured)


def error_of_change(
    source: Values,
    output: Values,
    weights: Values,
    parts: Parts,
    measured: Values | float = 0.0,
) -> float:
    """Compute the error bar of the change of a root mean square from source to output.

    Both are measured in the same samples, so what they have in common does not add to the error.

    Args:
        source: The mean squares of the samples of the source.
        output: The mean squares of the samples of the output.
        weights: The weights of the samples; the sum need not be 1.
        parts: The part of each sample; see `parts_of`.
        measured: As for `error_of_mean`.

    Returns:
        The error bar of rms(output) - rms(source), in the unit of the roots; nan where fewer than
        two parts have samples and not all faces were measured.
    """
    shares = weights / max(float(weights.sum()), 1e-300)
    change = np.zeros(len(shares))
    for squares, sign in ((output, 1), (source, -1)):
        mean = float(shares @ squares)
        change += sign * (squares - mean) / (2 * math.sqrt(max(mean, 1e-12)))
    return _error(shares * change, parts, measured)


def _error(terms: Values, parts: Parts, measured: Values | float) -> float:
    """Return the error bar of the sum of the terms, whose parts are independent."""
    # A sample without replacement: the error falls to 0 as the sample becomes all faces.
    missing = 1 - np.broadcast_to(measured, terms.shape)
    if not (missing > 1e-9).any():
        return 0.0
    used = np.unique(parts, return_inverse=True)[1]
    sums = np.bincount(used, weights=terms * np.sqrt(missing))
    count = len(sums)
    if count < 2:
        return math.nan
    # Few parts tell little about the spread.
    width = stdtrit(count - 1, _HELD) if count < _FEWEST_PARTS else _STANDARD_ERRORS
    return float(width) * math.sqrt(count / (count - 1) * float(sums @ sums))


def error_text(error: float, form: str, unit: str = "") -> str:
    """Write an error bar behind its value.

    Args:
        error: The error bar.
        form: The format of the number, such as ".2f".
        unit: The unit, with a space before it; default: none.

    Returns:
        Such as " ± 0.12 levels"; empty where every face was measured.
    """
    if math.isnan(error):
        return " (error not known)"
    if error == 0:
        return ""
    number, least = f"{error:{form}}", f"{0:{form}}"
    if number == least:
        number = f"less than {least[:-1]}1"
    return f" \N{PLUS-MINUS SIGN} {number}{unit}"
