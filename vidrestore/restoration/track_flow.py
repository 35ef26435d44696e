"""Optical flow between the pictures of one face: from frame to frame, and on to frames around.

Convention, everywhere: a flow f leads from each pixel of the first picture to its position in the
second, (x, y) in pixels of its own grid: first(x) = second(x + f(x)).
"""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np

from vidrestore.imaging.optical_flow import (
    DenseFlow,
    FlowField,
    Grey,
    inverse,
    resized,
    sample,
    squared,
)
from vidrestore.restoration.crop_comparison import face_ellipse, halved

# From this distance on, in frames, a flow is a chain: to the next frame and from there on. From two
# frames on, chains took up to 0.6 % of the detail of calm faces.
_LONG_WAY_FRAMES = 3
# The greatest distance by which the flow to the next frame and back may miss its start for a chain,
# in pixels at a side of 512, as the root of the mean square over the face. Faces that hardly turn
# miss it by 0.1 to 0.4 px, a head that is thrown about by 0.6 to 1.4 px; there chains would cost up
# to 0.15 dB.
_MOST_OPEN_PX = 0.4


class TrackFlow:
    """The flow between the pictures of one face, in frames near each other.

    Flow to near frames is estimated. Flow to frames further away is a chain of others if the flow
    from frame to frame is reliable on the way, and else it is estimated, too. It depends on nothing
    but the pictures of the frames from the first to the second. Not safe for use by several threads
    at once.
    """

    def __init__(self, *, like: TrackFlow | None = None) -> None:
        """Allocate the estimator.

        Args:
            like: The flow between other pictures of the same frames, which move as these do and
                hold the same frames. It tells where flow is reliable, and flow back in time is the
                inverse of that forward, refined, which takes less time than an estimate. Default:
                none, and flow is estimated both ways.
        """
        self._like = like
        self._flow = DenseFlow(finest_halvings=0)
        self._pictures: dict[int, tuple[Grey, bool]] = {}
        self._flows: dict[tuple[int, int], FlowField] = {}
        self._reliable: dict[tuple[int, int], bool] = {}

    def add(self, at: int, picture: Grey, *, is_fine: bool = True) -> None:
        """Add the picture of a frame.

        Args:
            at: The index of the frame.
            picture: (F, F) uint8 luma; F is the same for all frames.
            is_fine: Whether the picture has detail. Flow to or from a picture without detail is
                estimated at half the side, where it follows noise less. Default: yes.
        """
        self._pictures[at] = picture, is_fine

    def forget(self, last: int) -> None:
        """Drop the frames up to one, and all flows to or from them.

        Args:
            last: The index of the last frame to drop.
        """
        for at in [at for at in self._pictures if at <= last]:
            del self._pictures[at]
        for kept in (self._flows, self._reliable):
            for pair in [pair for pair in kept if min(pair) <= last]:
                del kept[pair]

    def between(self, first: int, second: int) -> FlowField:
        """Return the flow from one frame to another.

        Args:
            first: The index of a frame that was added.
            second: The index of another one.

        Returns:
            (F, F, 2) float32.
        """
        pair = first, second
        if pair not in self._flows:
            step = 1 if first < second else -1
            steps = list(pairwise(range(first, second + step, step)))
            if len(steps) >= _LONG_WAY_FRAMES and all(self._is_reliable(*each) for each in steps):
                start = self.between(first, first + step)
                self._flows[pair] = start + sample(self.between(first + step, second), start)
            elif self._like is not None and first > second:
                self._flows[pair] = self._refined(*pair, inverse(self.between(second, first)))
            else:
                self._flows[pair] = self._estimated(*pair)
        return self._flows[pair]

    def _is_reliable(self, first: int, second: int) -> bool:
        """Tell whether the flow to the next frame and back leads to its start."""
        if self._like is not None:
            return self._like._is_reliable(first, second)
        pair = min(first, second), max(first, second)
        if first not in self._pictures or second not in self._pictures:
            return False
        if pair not in self._reliable:
            there = self.between(*pair)
            open_px = there + sample(self.between(*pair[::-1]), there)
            side = len(open_px)
            mean = cv2.mean(squared(open_px), face_ellipse(side).view(np.uint8))[0]
            self._reliable[pair] = mean <= (_MOST_OPEN_PX * side / 512) ** 2
        return self._reliable[pair]

    def _refined(self, first: int, second: int, flow: FlowField) -> FlowField:
        """Return the flow, refined where both pictures have detail."""
        (picture, is_fine), (other, is_other_fine) = self._pictures[first], self._pictures[second]
        return self._flow.refined(picture, other, flow) if is_fine and is_other_fine else flow

    def _estimated(self, first: int, second: int) -> FlowField:
        (picture, is_fine), (other, is_other_fine) = self._pictures[first], self._pictures[second]
        if is_fine and is_other_fine:
            return self._flow(picture, other)
        return resized(self._flow(halved(picture), halved(other)), len(picture))
