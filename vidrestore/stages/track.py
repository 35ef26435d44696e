"""Observations become shots, and the faces of each shot become tracks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from vidrestore.frame import Detection, Observation, RawTrack

# Frames on either side of a change that show how much the picture changes anyway.
_AROUND = 4


def find_shots(
    thumbnails: Sequence[npt.NDArray[np.uint8]], *, cut: float, contrast: float
) -> tuple[tuple[int, int], ...]:
    """Half-open [start, end) ranges that together cover all thumbnails.

    A cut is a mean absolute change of at least `cut` 8-bit levels that is the largest around it and
    `contrast` times their median, so that fast motion and shaking do not cut.
    """
    count = len(thumbnails)
    if count == 0:
        return ()
    change = np.array([np.abs(b.astype(np.int16) - a).mean() for a, b in pairwise(thumbnails)])
    starts = [0]
    for t in range(len(change)):
        near = np.concatenate([change[max(0, t - _AROUND) : t], change[t + 1 : t + 1 + _AROUND]])
        usual = np.median(near) if len(near) else 0.0
        if change[t] >= max(cut, contrast * usual) and change[t] >= near.max(initial=0.0):
            starts.append(t + 1)
    return tuple(zip(starts, [*starts[1:], count], strict=True))


def track(
    observations: Sequence[Observation],
    shots: Sequence[tuple[int, int]],
    *,
    overlap: float,
    gap_frames: int,
    min_frames: int,
) -> tuple[list[RawTrack], int]:
    """All tracks, ordered by first frame, and how many detections were too brief to be one."""
    tracks, brief = [], 0
    for shot in shots:
        for path in _paths(observations[slice(*shot)], overlap=overlap, gap_frames=gap_frames):
            if len(path.found) < min(min_frames, shot[1] - shot[0]):
                brief += len(path.found)
            else:
                tracks.append(path.as_track(shot))
    return sorted(tracks, key=lambda t: t.first_frame), brief


@dataclass(slots=True)
class _Path:
    """A track while it grows."""

    found: dict[int, Detection] = field(default_factory=dict)

    @property
    def last_frame(self) -> int:
        return next(reversed(self.found))

    def predicted_box(self, index: int) -> npt.NDArray[Any]:
        """The last box, moved on by the mean velocity of the last few."""
        recent = list(self.found.items())[-4:]
        (first, a), (last, b) = recent[0], recent[-1]
        if first == last:
            return b.box
        velocity = (b.box - a.box) / (last - first)
        shift = np.tile((velocity[:2] + velocity[2:]) / 2, 2)
        return b.box + shift * (index - last)

    def as_track(self, shot: tuple[int, int]) -> RawTrack:
        first, last = next(iter(self.found)), self.last_frame
        landmarks = np.full((last - first + 1, 5, 2), np.nan, np.float32)
        score = np.full(last - first + 1, np.nan, np.float32)
        for index, detection in self.found.items():
            landmarks[index - first] = detection.landmarks
            score[index - first] = detection.score
        return RawTrack(first, shot, landmarks, score)


def _paths(
    observations: Sequence[Observation], *, overlap: float, gap_frames: int
) -> Iterator[_Path]:
    """Frame by frame, the pairing of open paths and detections with the most overlap in all."""
    open_paths: list[_Path] = []
    for seen in observations:
        ended = [p for p in open_paths if seen.index - p.last_frame > gap_frames + 1]
        yield from ended
        open_paths = [p for p in open_paths if p not in ended]
        free = set(range(len(seen.detections)))
        for path, chosen in _pairs(open_paths, seen, overlap):
            path.found[seen.index] = seen.detections[chosen]
            free.discard(chosen)
        open_paths += [_Path({seen.index: seen.detections[i]}) for i in sorted(free)]
    yield from open_paths


def _pairs(paths: list[_Path], seen: Observation, overlap: float) -> list[tuple[_Path, int]]:
    if not paths or not seen.detections:
        return []
    shared = np.array(
        [[_iou(p.predicted_box(seen.index), d.box) for d in seen.detections] for p in paths]
    )
    rows, columns = linear_sum_assignment(-np.where(shared >= overlap, shared, 0))
    return [
        (paths[r], int(c)) for r, c in zip(rows, columns, strict=True) if shared[r, c] >= overlap
    ]


def _iou(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    """Intersection over union of two x1 y1 x2 y2 boxes."""
    width, height = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    shared = max(width, 0) * max(height, 0)
    union = np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared
    return float(shared / union) if union > 0 else 0.0
