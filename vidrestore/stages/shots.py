"""Small pictures of every frame become shots."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# Frames on either side of a change that show how much the picture changes anyway, and within which
# there is but one cut.
_AROUND, _APART = 4, 2
_FLASH_FRAMES = 2


def find_shots(
    thumbnails: Sequence[npt.NDArray[np.uint8]], *, cut: float, contrast: float
) -> tuple[tuple[int, int], ...]:
    """Half-open [start, end) ranges that together cover all thumbnails.

    A cut is a mean absolute change of at least `cut` 8-bit levels that is the largest around it and
    `contrast` times their median, so that fast motion, shaking, fades and dissolves do not cut.
    Neither do one or two bright frames after which the picture is as before.
    """
    count = len(thumbnails)
    if count == 0:
        return ()
    restless = _changes(thumbnails)
    change = _changes(_without_flashes(thumbnails, restless, cut))
    starts = [0]
    for t in np.flatnonzero(change >= cut).tolist():
        around = [*restless[max(0, t - _AROUND) : t], *restless[t + 1 : t + 1 + _AROUND]]
        least = max(cut, contrast * float(np.median(around))) if around else cut
        earlier = change[max(0, t - _APART) : t].max(initial=0)
        if change[t] >= max(least, change[t : t + 1 + _APART].max()) and change[t] > earlier:
            starts.append(t + 1)
    return tuple(zip(starts, [*starts[1:], count], strict=True))


def _without_flashes(pictures: Sequence[Array], restless: Array, cut: float) -> list[Array]:
    """The same with brighter frames, after which the picture is as before, replaced by that."""
    steady = list(pictures)
    for start in (np.flatnonzero(restless >= cut) + 1).tolist():
        before = steady[start - 1]
        for end in range(start + 1, min(start + 1 + _FLASH_FRAMES, len(pictures))):
            is_brighter = all(p.mean() - before.mean() >= cut for p in pictures[start:end])
            if is_brighter and _changes([before, pictures[end]])[0] < cut:
                steady[start:end] = [before] * (end - start)
    return steady


def _changes(pictures: Sequence[Array]) -> Array:
    return np.array([np.abs(b.astype(np.int16) - a).mean() for a, b in pairwise(pictures)])
