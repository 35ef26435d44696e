"""The faces of each shot become tracks."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

from vidrestore.analysis.tracks import Motion, Observation, RawTrack, mean_direction
from vidrestore.common.settings import Tracking
from vidrestore.imaging.frame import FloatArray
from vidrestore.imaging.geometry import overlaps
from vidrestore.models.detectors import Detection

Array = npt.NDArray[Any]

# Sightings that a velocity is measured over: from one frame to the next, and across a gap, at
# whose edges landmarks err, drawn to the part of the face that is still seen. A frame later, this
# share of it is left.
_RECENT, _LONGER, _DAMPING = 5, 10, 0.95
# Sightings whose embeddings stand for a path while it grows.
_MEMORY = 60
# A path of so few sightings may be a false alarm and must not take a face from an older one.
_YOUNG, _YOUNG_WORTH = 3, 0.7
# Landmarks may lie this far, in eye distances, from where they are expected: from one frame to the
# next, across a gap, and across a gap where the embeddings agree.
_FAR, _FAR_ACROSS, _FAR_IF_SAME = 1.0, 1.5, 6.0
_SIZE_RATIO = 1.6
# What it is worth that a path has no successor.
_ALONE = 1e-6
# Below these shares of the similarity of one person, two embeddings are of two people: where the
# faces touched or the sight of one broke off; and where nothing but two embeddings on each side
# says so.
_OTHER, _OTHER_FOR_SURE, _SURE_EMBEDDINGS = 0.5, 0.1, 2
# Mean score from which `min_frames` sightings are enough. With weaker ones it takes more, by the
# square of the ratio and up to the factor.
_STRONG_SCORE, _MOST_FRAMES_FACTOR = 0.75, 2.0


def track(
    observations: Sequence[Observation],
    shots: Sequence[tuple[int, int]],
    how: Tracking,
    *,
    frame_rate: Fraction,
    every: int,
    similarity: float,
) -> tuple[list[RawTrack], int]:
    """Join the faces of successive frames to tracks.

    Frame by frame, detections are assigned to where the open tracks are expected. What comes of it
    is split where the embeddings say that it went over to another face, and joined across gaps of
    up to `gap_frames` where the way in and the way out meet, and the embeddings if there are any.
    Nothing is joined across shots.

    Faces whose score is NaN were not found but followed from the frame before. They lead a track
    across a gap, and are neither its beginning nor its end, nor counted.

    Args:
        observations: The faces of every frame, in order.
        shots: (first, end) of each shot, in frames.
        how: Overlap, and the times in seconds.
        frame_rate: Frames per second.
        every: A detector looked at each frame whose index is a multiple of this.
        similarity: Least cosine of two embeddings of one person.

    Returns:
        All tracks, ordered by first frame, and how many detections were too few or too weak.
    """
    gap, needed = gap_frames(how, frame_rate, every), min_frames(how, frame_rate, every)
    tracks, brief = [], 0
    for shot in shots:
        paths = _forward(observations[slice(*shot)], how.overlap, gap)
        parts = [_trimmed(part) for path in paths for part in _split(path, similarity)]
        for path in _joined(parts, gap, similarity):
            scores = [s.face.score for s in path if not s.is_carried]
            if len(scores) < min(_frames_needed(scores, needed), shot[1] - shot[0]):
                brief += len(scores)
            else:
                tracks.append(_raw_track(path, shot))
    return sorted(tracks, key=lambda t: (t.first_frame, float(t.landmarks[0, 0, 0]))), brief


def gap_frames(how: Tracking, frame_rate: Fraction, every: int) -> int:
    """Return the longest miss that is bridged, in frames; at least those without a detector."""
    return max(round(how.gap_seconds * frame_rate), every - 1)


def min_frames(how: Tracking, frame_rate: Fraction, every: int) -> int:
    """Return how many detections a track needs unless it lasts as long as its shot."""
    return round(how.min_seconds * frame_rate / every)


@dataclass(frozen=True, slots=True, eq=False)
class _Sighting:
    """A face of one frame, where it came from, and whether its box touches another's."""

    frame: int
    place: int
    face: Detection
    motions: dict[int, Motion]
    """Place in the frame before -> how the face moved since."""
    touches: bool
    sharpness: float

    @property
    def is_carried(self) -> bool:
        return bool(np.isnan(self.face.score))

    @property
    def embedding(self) -> FloatArray | None:
        return None if self.is_carried else self.face.embedding


_Path = list[_Sighting]


def _sightings(seen: Observation) -> list[_Sighting]:
    boxes = np.array([d.box for d in seen.detections]).reshape(-1, 4)
    shared = overlaps(boxes, boxes)
    np.fill_diagonal(shared, 0)
    motions: list[dict[int, Motion]] = [{} for _ in boxes]
    for (before, place), motion in seen.motions.items():
        motions[place][before] = motion
    sharpness = seen.sharpness or (np.nan,) * len(boxes)
    return [
        _Sighting(
            seen.index, place, face, motions[place], bool(shared[place].any()), sharpness[place]
        )
        for place, face in enumerate(seen.detections)
    ]


def _forward(observations: Sequence[Observation], overlap: float, gap: int) -> list[_Path]:
    """Frame by frame, the assignment of detections to open paths with the most agreement."""
    paths: list[_Path] = []
    open_paths: list[_Path] = []
    for seen in observations:
        open_paths = [p for p in open_paths if seen.index - _last_found(p) <= gap + 1]
        sightings = _sightings(seen)
        found = [s for s in sightings if not s.is_carried]
        free = set(range(len(found)))
        if open_paths and found:
            for row, column in _assigned(_agreement(open_paths, found, overlap)):
                open_paths[row].append(found[column])
                free.discard(column)
        _carry(open_paths, [s for s in sightings if s.is_carried])
        begun = [[found[i]] for i in sorted(free)]
        open_paths += begun
        paths += begun
    return paths


def _last_found(path: _Path) -> int:
    return next(s.frame for s in reversed(path) if not s.is_carried)


def _carry(paths: list[_Path], carried: list[_Sighting]) -> None:
    for sighting in carried:
        for path in paths:
            if path[-1].frame == sighting.frame - 1 and path[-1].place in sighting.motions:
                path.append(sighting)


def _frames(path: _Path) -> int:
    return path[-1].frame - path[0].frame + 1


def _trimmed(path: _Path) -> _Path:
    """From the first to the last sighting that was found."""
    found = [i for i, s in enumerate(path) if not s.is_carried]
    return path[found[0] : found[-1] + 1]


def _agreement(paths: list[_Path], sightings: list[_Sighting], overlap: float) -> Array:
    """(paths, sightings), positive where the two may be one face.

    The sum of what shared area, nearness of the landmarks, agreement of the pixels and likeness of
    the embeddings add; one of the first two must suffice, whatever the others say, so that a face
    that turns away is not lost.
    """
    frame = sightings[0].frame
    shifts = np.array([_shift(path, frame) for path in paths])
    boxes = np.array([p[-1].face.box for p in paths]) + np.tile(shifts, 2)
    points = np.array([p[-1].face.landmarks for p in paths]) + shifts[:, None]
    faces = [s.face for s in sightings]
    shared = overlaps(boxes, np.array([f.box for f in faces]))
    off = np.linalg.norm(points[:, None] - np.array([f.landmarks for f in faces]), axis=-1)
    sizes = np.maximum.outer([_size(p[-1].face) for p in paths], [_size(f) for f in faces])
    off = off.mean(axis=-1) / sizes
    near = shared + np.maximum(0, 1 - off / _FAR)
    near *= np.array([_YOUNG_WORTH if len(p) < _YOUNG else 1.0 for p in paths])[:, None]
    more = np.array([[_support(p, s) + _alike(p, s) for s in sightings] for p in paths])
    return np.where((shared >= overlap) | (off < _FAR / 2), near + more, 0)


def _support(path: _Path, sighting: _Sighting) -> float:
    """The share of the path's points that were followed to the other, 0 where none were."""
    is_next = path[-1].frame == sighting.frame - 1
    motion = sighting.motions.get(path[-1].place) if is_next else None
    return motion.support if motion else 0.0


def _alike(path: _Path, sighting: _Sighting) -> float:
    """Cosine of the path's late embeddings with the other, 0 where one is missing."""
    if sighting.embedding is None or (late := _embedding(path[-_MEMORY:])) is None:
        return 0.0
    return float(late @ sighting.embedding)


def _assigned(agreement: Array) -> Iterator[tuple[int, int]]:
    """The pairs, each row and column once, with the greatest sum of positive agreement."""
    gain = np.maximum(agreement, 0)
    for row, column in zip(*linear_sum_assignment(gain, maximize=True), strict=True):
        if gain[row, column] > 0:
            yield int(row), int(column)


def _shift(path: _Path, frame: float, recent: int = _RECENT) -> Array:
    """(2,) from the path's end to where it is expected in `frame`, at a velocity that dies away."""
    last = path[-recent:]
    if len(last) < 2:
        return np.zeros(2)
    times = np.array([s.frame for s in last], float)
    centres = np.array([s.face.landmarks.mean(axis=0) for s in last], float)
    times -= times.mean()
    velocity = times @ (centres - centres.mean(axis=0)) / (times @ times)
    ahead = abs(frame - path[-1].frame)
    worth = _DAMPING * (1 - _DAMPING**ahead) / (1 - _DAMPING)
    return np.asarray(velocity * np.copysign(worth, frame - path[-1].frame))


def _split(path: _Path, similarity: float) -> Iterator[_Path]:
    """The path, or its parts where the embeddings before and after are of two people."""
    known = [i for i, s in enumerate(path) if s.embedding is not None]
    if len(known) < 2:
        yield path
        return
    likeness = _likeness_across(np.array([path[i].embedding for i in known]))
    for k, (first, last) in enumerate(pairwise(known), start=1):
        between = path[first : last + 1]
        doubtful = any(s.touches for s in between) or _frames(between) > len(between)
        limit = similarity * (_OTHER if doubtful else _OTHER_FOR_SURE)
        is_enough = doubtful or min(k, len(known) - k) >= _SURE_EMBEDDINGS
        if likeness[k - 1] >= limit or not is_enough:
            likeness[k - 1] = np.inf
    k = int(likeness.argmin())
    if np.isinf(likeness[k]):
        yield path
        return
    at = _most_sudden(path, known[k], known[k + 1])
    yield from _split(path[:at], similarity)
    yield from _split(path[at:], similarity)


def _likeness_across(vectors: Array) -> Array:
    """(n - 1,) cosine of the mean of the vectors up to each place with that of the later ones."""
    sums = np.cumsum(vectors.astype(np.float64), axis=0)
    before, after = sums[:-1], sums[-1] - sums[:-1]
    lengths = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    return np.asarray((before * after).sum(axis=1) / np.maximum(lengths, 1e-9))


def _most_sudden(path: _Path, first: int, last: int) -> int:
    """The place in (first, last] that is furthest from where the path was going, or after a gap."""

    def surprise(i: int) -> float:
        expected = path[i - 1].face.landmarks + _shift(path[:i], path[i].frame)
        off = np.linalg.norm(path[i].face.landmarks - expected, axis=-1).mean()
        missed = path[i].frame - path[i - 1].frame - 1
        return float(off / _size(path[i].face)) + missed

    return max(range(first + 1, last + 1), key=surprise)


def _joined(paths: list[_Path], gap: int, similarity: float) -> list[_Path]:
    """The best assignment of ends to beginnings that lie at most `gap` apart."""
    paths = sorted(paths, key=lambda path: path[0].frame)
    beginnings = [path[0].frame for path in paths]
    agreement = {}
    for i, path in enumerate(paths):
        low, high = (bisect_right(beginnings, path[-1].frame + g) for g in (0, gap + 1))
        for j in range(low, high):
            if (value := _continuity(path, paths[j], similarity)) > 0:
                agreement[i, j] = value
    next_of = _best_pairs(agreement, len(paths)) if agreement else {}
    result = []
    for i in sorted(set(range(len(paths))) - set(next_of.values())):
        whole = list(paths[i])
        while i in next_of:
            i = next_of[i]
            whole += paths[i]
        result.append(whole)
    return result


def _best_pairs(agreement: dict[tuple[int, int], float], count: int) -> dict[int, int]:
    """The assignment with the greatest sum; few of the pairs are possible."""
    pairs = [*agreement, *((i, count + i) for i in range(count))]
    values = [*agreement.values(), *([_ALONE] * count)]
    graph = csr_array((values, tuple(zip(*pairs, strict=True))), shape=(count, 2 * count))
    solved = zip(*min_weight_full_bipartite_matching(graph, maximize=True), strict=True)
    return {int(i): int(j) for i, j in solved if j < count}


def _continuity(path: _Path, later: _Path, similarity: float) -> float:
    """Positive where one path may go on as the other; both are followed to the middle of the gap.

    Backward in time, a path is its own reverse.
    """
    end, beginning = path[-1], later[0]
    middle = (end.frame + beginning.frame) / 2
    there = end.face.landmarks + _shift(path, middle, _LONGER)
    back = beginning.face.landmarks + _shift(later[_LONGER - 1 :: -1], middle, _LONGER)
    sizes = sorted((_size(end.face), _size(beginning.face)))
    if sizes[1] > _SIZE_RATIO * sizes[0]:
        return 0.0
    off = float(np.linalg.norm(there - back, axis=-1).mean()) / sizes[1]
    a, b = _embedding(path), _embedding(later)
    likeness = None if a is None or b is None else float(a @ b)
    if likeness is not None and likeness >= similarity:
        return 1 + likeness - off / _FAR_IF_SAME if off < _FAR_IF_SAME else 0.0
    if likeness is not None and likeness < _OTHER * similarity:
        return 0.0
    return max(0.0, 1 - off / _FAR_ACROSS)


def _frames_needed(scores: Sequence[float], needed: int) -> float:
    ratio = _STRONG_SCORE / max(float(np.mean(scores)), 1e-6)
    return float(needed * np.clip(ratio**2, 1, _MOST_FRAMES_FACTOR))


def _raw_track(path: _Path, shot: tuple[int, int]) -> RawTrack:
    first, count = path[0].frame, _frames(path)
    landmarks = np.full((count, 5, 2), np.nan, np.float32)
    score = np.full(count, np.nan, np.float32)
    sharpness = np.full(count, np.nan, np.float32)
    motions: list[Motion | None] = [None] * count
    for sighting in path:
        sharpness[sighting.frame - first] = sighting.sharpness
        if not sighting.is_carried:
            landmarks[sighting.frame - first] = sighting.face.landmarks
            score[sighting.frame - first] = sighting.face.score
    for before, after in pairwise(path):
        if after.frame == before.frame + 1:
            motions[after.frame - first] = after.motions.get(before.place)
    measured = tuple(motions) if any(motions) else ()
    embeddings = {s.frame: vector for s in path if (vector := s.embedding) is not None}
    return RawTrack(first, shot, landmarks, score, measured, embeddings, sharpness)


def _embedding(path: _Path) -> FloatArray | None:
    return mean_direction([vector for s in path if (vector := s.embedding) is not None])


def _size(face: Detection) -> float:
    """Distance of the eyes, but not less than a face seen from the side would have from ahead."""
    eyes = float(np.linalg.norm(face.landmarks[1] - face.landmarks[0]))
    height = float(face.box[3] - face.box[1])
    return max(eyes, 0.3 * height, 1e-6)
