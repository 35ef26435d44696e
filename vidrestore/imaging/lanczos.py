"""Resampling of planes with the three-lobed Lanczos kernel.

Duchon, Journal of Applied Meteorology 18(8), 1979: L(x) = sinc(x) sinc(x / 3) for |x| < 3. The
weights of a target sample are multiples of 2^-17 and their sum is 1. Sums of samples of up to 16
bits are therefore exact in float64: a constant stays constant, and every machine gives the same
result.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

_LOBES = 3
_ONE = 2.0**17
_BLOCK = 64  # target samples per matrix product


class Axis(NamedTuple):
    """The sampling of a target along its rows or its columns.

    Sample i of the target lies at `first + step * i`, counted in samples of the source from the
    center of its first one. Beyond the source its border is repeated.
    """

    length: int
    """The number of samples of the source."""
    target_length: int
    """The number of samples of the target."""
    first: Fraction
    """The position of the first target sample, in samples of the source."""
    step: Fraction
    """The distance between target samples, in samples of the source."""


class _Block(NamedTuple):
    """The weights of some target samples."""

    target: slice
    source: slice
    weights: npt.NDArray[np.float64]
    """(target samples, source samples)."""


def edge_to_edge(length: int, target_length: int) -> Axis:
    """Make the axis of a target whose outer edges are the outer edges of the source.

    Args:
        length: The number of samples of the source.
        target_length: The number of samples of the target.

    Returns:
        The axis.
    """
    step = Fraction(length, target_length)
    return Axis(length, target_length, (step - 1) / 2, step)


def resampled(plane: npt.NDArray[Any], rows: Axis, columns: Axis) -> npt.NDArray[np.float64]:
    """Resample a plane.

    Along an axis where the target is coarser than the source, the kernel is widened to a low-pass
    filter for the target.

    Args:
        plane: (rows.length, columns.length) samples.
        rows: The sampling of the target from top to bottom.
        columns: The sampling of the target from left to right.

    Returns:
        (rows.target_length, columns.target_length) float64. Values may overshoot those of the
        source at edges.
    """
    target = np.empty((rows.target_length, columns.target_length))
    for rows_at, strip in strips(plane, rows, columns):
        target[rows_at] = strip
    return target


def strips(
    plane: npt.NDArray[Any], rows: Axis, columns: Axis
) -> Iterator[tuple[slice, npt.NDArray[np.float64]]]:
    """Resample a plane, some rows of the target at a time.

    Args:
        plane: (rows.length, columns.length) samples.
        rows: The sampling of the target from top to bottom.
        columns: The sampling of the target from left to right.

    Yields:
        The rows of the target, and their samples as (n, columns.target_length) float64. The next
        strip overwrites the array.
    """
    strip = np.empty((_BLOCK, columns.target_length))
    for down in _blocks(rows):
        high = down.weights @ plane[down.source].astype(np.float64)
        part = strip[: len(high)]
        for across in _blocks(columns):
            part[:, across.target] = high[:, across.source] @ across.weights.T
        yield down.target, part


@cache
def _blocks(axis: Axis) -> tuple[_Block, ...]:
    """Return the weights of all target samples, in blocks."""
    return tuple(
        _block(axis, start, min(start + _BLOCK, axis.target_length))
        for start in range(0, axis.target_length, _BLOCK)
    )


def _block(axis: Axis, start: int, end: int) -> _Block:
    """Compute the weights of the target samples [start, end)."""
    width = max(float(axis.step), 1.0)
    reach = math.ceil(_LOBES * width)
    positions = [axis.first + axis.step * i for i in range(start, end)]
    nearest = np.array([math.floor(place) for place in positions])
    taps = nearest[:, None] + np.arange(1 - reach, reach + 1)
    fractions = np.array([float(place - math.floor(place)) for place in positions])
    x = (fractions[:, None] - np.arange(1 - reach, reach + 1)) / width
    weights = np.where(np.abs(x) < _LOBES, np.sinc(x) * np.sinc(x / _LOBES), 0.0)
    weights = np.rint(weights / weights.sum(axis=1, keepdims=True) * _ONE)
    rows = np.arange(end - start)
    weights[rows, np.abs(weights).argmax(axis=1)] += _ONE - weights.sum(axis=1)
    inside = taps.clip(0, axis.length - 1)
    low, high = int(inside.min()), int(inside.max()) + 1
    matrix = np.zeros((end - start, high - low))
    np.add.at(matrix, (rows[:, None], inside - low), weights / _ONE)
    return _Block(slice(start, end), slice(low, high), matrix)
