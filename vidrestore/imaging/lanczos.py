"""A plane of samples read on a finer or coarser grid by Lanczos' kernel of three lobes.

Duchon, Journal of Applied Meteorology 18(8), 1979: L(x) = sinc(x) sinc(x / 3) for |x| < 3. The
weights of a sample are multiples of 2^-17 and their sum is 1, so that all sums of samples of up to
16 bits are exact in float64: a constant stays constant, and every machine gives the same.
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
_BLOCK = 64  # samples of the target that are computed by one product of matrices


class Axis(NamedTuple):
    """Where the samples of a target lie, along its rows or its columns.

    Sample i of the target lies at `first + step * i`, counted in samples of the source from the
    centre of its first one; beyond the source its border is repeated.
    """

    length: int
    """Of the source, in samples."""
    target_length: int
    first: Fraction
    step: Fraction


class _Block(NamedTuple):
    target: slice
    source: slice
    weights: npt.NDArray[np.float64]
    """(samples of the target, samples of the source)."""


def edge_to_edge(length: int, target_length: int) -> Axis:
    """The outer edges of the target are those of the source."""
    step = Fraction(length, target_length)
    return Axis(length, target_length, (step - 1) / 2, step)


def resampled(plane: npt.NDArray[Any], rows: Axis, columns: Axis) -> npt.NDArray[np.float64]:
    """(rows.length, columns.length) samples on the grid of the target; they may exceed those of the
    source at edges. Where the target is coarser, what it cannot hold is low-passed."""
    found = np.empty((rows.target_length, columns.target_length))
    for at, strip in strips(plane, rows, columns):
        found[at] = strip
    return found


def strips(
    plane: npt.NDArray[Any], rows: Axis, columns: Axis
) -> Iterator[tuple[slice, npt.NDArray[np.float64]]]:
    """The same, some rows of the target at a time; each strip is overwritten by the next."""
    strip = np.empty((_BLOCK, columns.target_length))
    for down in _blocks(rows):
        high = down.weights @ plane[down.source].astype(np.float64)
        part = strip[: len(high)]
        for across in _blocks(columns):
            part[:, across.target] = high[:, across.source] @ across.weights.T
        yield down.target, part


@cache
def _blocks(axis: Axis) -> tuple[_Block, ...]:
    return tuple(
        _block(axis, start, min(start + _BLOCK, axis.target_length))
        for start in range(0, axis.target_length, _BLOCK)
    )


def _block(axis: Axis, start: int, end: int) -> _Block:
    """Samples [start, end) of the target."""
    width = max(float(axis.step), 1.0)
    reach = math.ceil(_LOBES * width)
    places = [axis.first + axis.step * i for i in range(start, end)]
    nearest = np.array([math.floor(place) for place in places])
    taps = nearest[:, None] + np.arange(1 - reach, reach + 1)
    away = np.array([float(place - math.floor(place)) for place in places])
    x = (away[:, None] - np.arange(1 - reach, reach + 1)) / width
    weights = np.where(np.abs(x) < _LOBES, np.sinc(x) * np.sinc(x / _LOBES), 0.0)
    weights = np.rint(weights / weights.sum(axis=1, keepdims=True) * _ONE)
    rows = np.arange(end - start)
    weights[rows, np.abs(weights).argmax(axis=1)] += _ONE - weights.sum(axis=1)
    inside = taps.clip(0, axis.length - 1)
    low, high = int(inside.min()), int(inside.max()) + 1
    matrix = np.zeros((end - start, high - low))
    np.add.at(matrix, (rows[:, None], inside - low), weights / _ONE)
    return _Block(slice(start, end), slice(low, high), matrix)
