"""Shot detection: find cuts in small pictures of all frames."""

from __future__ import annotations

from array import array
from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt

from vidrestore.common.settings import Shots

Picture = npt.NDArray[Any]

# The frames on either side of a change that show how much the picture changes in any case, and the
# distance in frames within which there is only one cut.
_AROUND, _APART = 4, 2
_FLASH_FRAMES = 2


class ShotFinder:
    """Finds the shots in the small pictures of all frames, given in order.

    A cut is a mean absolute change of at least `how.cut` 8-bit levels that is the largest around it
    and `how.contrast` times the median around it. Fast motion, shaking, fades and dissolves
    therefore do not count as cuts. Neither do one or two bright frames after which the picture is
    as before.

    Memory: the last few pictures, and two numbers for each frame.
    """

    def __init__(self, how: Shots) -> None:
        """Start before the first frame.

        Args:
            how: The settings; `cut` and `contrast` count here.
        """
        self._cut, self._contrast = how.cut, how.contrast
        # The last picture that is checked for flashes, and the pictures after it with flashes
        # replaced; and the same pictures unchanged.
        self._steady: deque[Picture] = deque()
        self._pictures: deque[Picture] = deque()
        self._differences, self._change = array("d"), array("d")

    def add(self, thumbnail: Picture) -> None:
        """Add the picture of the next frame.

        Args:
            thumbnail: (H, W) uint8 gray; the same size for all frames.
        """
        if self._steady:
            last = self._pictures[-1] if self._pictures else self._steady[0]
            self._differences.append(_change(last, thumbnail))
            self._pictures.append(thumbnail)
        self._steady.append(thumbnail)
        if len(self._pictures) > _FLASH_FRAMES:
            self._confirm_oldest()

    def shots(self) -> tuple[tuple[int, int], ...]:
        """Return the shots: half-open [start, end) ranges that together cover all pictures."""
        if not self._steady:
            return ()
        while self._pictures:
            self._confirm_oldest()
        differences, change = np.array(self._differences), np.array(self._change)
        starts = [0]
        for t in np.flatnonzero(change >= self._cut).tolist():
            around = [*differences[max(0, t - _AROUND) : t], *differences[t + 1 : t + 1 + _AROUND]]
            typical = float(np.median(around)) if around else 0.0
            least = max(self._cut, self._contrast * typical)
            earlier = change[max(0, t - _APART) : t].max(initial=0)
            if change[t] >= max(least, change[t : t + 1 + _APART].max()) and change[t] > earlier:
                starts.append(t + 1)
        return tuple(zip(starts, [*starts[1:], len(change) + 1], strict=True))

    def _confirm_oldest(self) -> None:
        """Replace a flash that begins at the oldest picture with the picture before it."""
        before, pictures = self._steady.popleft(), list(self._pictures)
        if self._differences[len(self._change)] >= self._cut:
            for end in range(1, min(1 + _FLASH_FRAMES, len(pictures))):
                is_brighter = all(p.mean() - before.mean() >= self._cut for p in pictures[:end])
                if is_brighter and _change(before, pictures[end]) < self._cut:
                    for i in range(end):
                        self._steady[i] = before
        self._change.append(_change(before, self._steady[0]))
        self._pictures.popleft()


def _change(before: Picture, after: Picture) -> float:
    """Return the mean absolute difference of two pictures."""
    return float(np.abs(after.astype(np.int16) - before).mean())
