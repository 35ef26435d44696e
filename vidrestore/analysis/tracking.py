"""Tracking: join the faces of successive frames to tracks, shot by shot."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from vidrestore.analysis.tracks import HalfArray, Motion, Observation, RawTrack, mean_direction
from vidrestore.common.settings import Tracking
from vidrestore.imaging.frame import FloatArray
from vidrestore.imaging.geometry import overlaps
from vidrestore.models.detectors import Detection
from vidrestore.models.face_mesh import SHAPE_POINTS

Array = npt.NDArray[Any]

# The number of sightings over which a velocity is measured: from one frame to the next, and across
# a gap. At the edges of a gap landmarks err toward the part of the face that is still visible.
# _DAMPING is the share of the velocity that is left a frame later.
_RECENT, _LONGER, _DAMPING = 5, 10, 0.95
# The number of the last sightings whose embeddings represent a path while it grows.
_MEMORY = 60
# A path with fewer sightings may be a false detection and must not take a face from an older path.
_YOUNG, _YOUNG_WORTH = 3, 0.7
# The largest distance, in eye distances, of landmarks from where they are expected: from one frame
# to the next, across a gap, and across a gap where the embeddings agree.
_FAR, _FAR_ACROSS, _FAR_IF_SAME = 1.0, 1.5, 6.0
_SIZE_RATIO = 1.6
# The value of a path without a successor in the assignment.
_ALONE = 1e-6
# Below these shares of the similarity of one person, two embeddings belong to two people: where
# the boxes of the faces touched or detections are missing; and where only the embeddings differ,
# at least two on each side.
_OTHER, _OTHER_FOR_SURE, _SURE_EMBEDDINGS = 0.5, 0.1, 2
# The number of frames with a mesh from which the landmarks of a face without one are estimated.
_NEAR_PAIRS = 15
# The mean score from which `min_frames` sightings are enough. Weaker sightings must be more
# numerous, by the square of the ratio and up to the factor.
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

    Frame by frame, detections are assigned to the places where the open tracks are expected. The
    resulting paths are split where the embeddings show that a path changed to another face. Paths
    are joined across gaps of up to `gap_frames` frames where their courses meet, and where their
    embeddings agree if there are any. Nothing is joined across shots.

    A face with a score of NaN was not detected but followed from the frame before. It can lead a
    track across a gap, but a track neither begins nor ends with one, and such faces are not
    counted.

    Args:
        observations: The observations of all frames, in order.
        shots: The shots, half-open [start, end) in frames.
        how: The settings: the overlap, and the times in seconds.
        frame_rate: Frames per second.
        every: The detector ran on each frame whose index is a multiple of this.
        similarity: The least cosine of two embeddings of one person.

    Returns:
        (tracks, brief): all tracks, ordered by first frame, and the number of detections in paths
        that were too short or too weak for a track.
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
                tracks.append(_raw_track(_reconciled(path), shot))
    return sorted(tracks, key=lambda t: (t.first_frame, float(t.landmarks[0, 0, 0]))), brief


def gap_frames(how: Tracking, frame_rate: Fraction, every: int) -> int:
    """Return the longest gap that a track bridges.

    Args:
        how: The settings; `gap_seconds` counts here.
        frame_rate: Frames per second.
        every: The detector runs on each frame whose index is a multiple of this.

    Returns:
        The number of frames; at least the number of successive frames without a detector run.
    """
    return max(round(how.gap_seconds * frame_rate), every - 1)


def min_frames(how: Tracking, frame_rate: Fraction, every: int) -> int:
    """Return how many detections a track needs unless it lasts as long as its shot.

    Args:
        how: The settings; `min_seconds` counts here.
        frame_rate: Frames per second.
        every: The detector runs on each frame whose index is a multiple of this.

    Returns:
        The number of detections.
    """
    return round(how.min_seconds * frame_rate / every)


@dataclass(frozen=True, slots=True, eq=False)
class _Sighting:
    """A face of one frame, with its motions, and whether its box touches another box."""

    frame: int
    place: int
    face: Detection
    motions: dict[int, Motion]
    """Index of a face in the frame before -> the motion from that face to this one."""
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
    """Assign detections to open paths, frame by frame, with the greatest total agreement."""
    paths: list[_Path] = []
    open_paths: list[_Path] = []
    for seen in observations:
        open_paths = [p for p in open_paths if seen.index - _last_found(p) <= gap + 1]
        sightings = _sightings(seen)
        detected = [s for s in sightings if not s.is_carried]
        free = set(range(len(detected)))
        if open_paths and detected:
            for row, column in _assigned(_agreement(open_paths, detected, overlap)):
                open_paths[row].append(detected[column])
                free.discard(column)
        _carry(open_paths, [s for s in sightings if s.is_carried])
        new_paths = [[detected[i]] for i in sorted(free)]
        open_paths += new_paths
        paths += new_paths
    return paths


def _last_found(path: _Path) -> int:
    return next(s.frame for s in reversed(path) if not s.is_carried)


def _carry(paths: list[_Path], carried: list[_Sighting]) -> None:
    """Append carried faces to the paths from which they were followed."""
    for sighting in carried:
        for path in paths:
            if path[-1].frame == sighting.frame - 1 and path[-1].place in sighting.motions:
                path.append(sighting)


def _frames(path: _Path) -> int:
    return path[-1].frame - path[0].frame + 1


def _trimmed(path: _Path) -> _Path:
    """Return the path from its first to its last detection."""
    detected = [i for i, s in enumerate(path) if not s.is_carried]
    return path[detected[0] : detected[-1] + 1]


def _agreement(paths: list[_Path], sightings: list[_Sighting], overlap: float) -> Array:
    """Return (paths, sightings), positive where the two may be one face.

    It is the sum of the shared area, the nearness of the landmarks, the agreement of the pixels and
    the similarity of the embeddings. One of the first two must suffice, whatever the others are, so
    that a face that turns away is not lost.
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
    """Return the share of the points of the path that were followed to a sighting, or 0."""
    is_next = path[-1].frame == sighting.frame - 1
    motion = sighting.motions.get(path[-1].place) if is_next else None
    return motion.support if motion else 0.0


def _alike(path: _Path, sighting: _Sighting) -> float:
    """Return the cosine of the late embeddings of the path with a sighting; 0 if one is missing."""
    if sighting.embedding is None or (late := _embedding(path[-_MEMORY:])) is None:
        return 0.0
    return float(late @ sighting.embedding)


def _assigned(agreement: Array) -> Iterator[tuple[int, int]]:
    """Return pairs, each row and column once, with the greatest sum of positive agreement."""
    gain = np.maximum(agreement, 0)
    from scipy.optimize import linear_sum_assignment  # loaded once all frames are seen

    for row, column in zip(*linear_sum_assignment(gain, maximize=True), strict=True):
        if gain[row, column] > 0:
            yield int(row), int(column)


def _shift(path: _Path, frame: float, recent: int = _RECENT) -> Array:
    """Return (2,) from the end of a path to its expected place in `frame`; the velocity decays."""
    last = path[-recent:]
    if len(last) < 2:
        return np.zeros(2)
    times = np.array([s.frame for s in last], float)
    centers = np.array([s.face.landmarks.mean(axis=0) for s in last], float)
    times -= times.mean()
    velocity = times @ (centers - centers.mean(axis=0)) / (times @ times)
    ahead = abs(frame - path[-1].frame)
    worth = _DAMPING * (1 - _DAMPING**ahead) / (1 - _DAMPING)
    return np.asarray(velocity * np.copysign(worth, frame - path[-1].frame))


def _split(path: _Path, similarity: float) -> Iterator[_Path]:
    """Split a path where the embeddings before and after belong to two people."""
    embedded = [i for i, s in enumerate(path) if s.embedding is not None]
    if len(embedded) < 2:
        yield path
        return
    likeness = _likeness_across(np.array([path[i].embedding for i in embedded]))
    for k, (first, last) in enumerate(pairwise(embedded), start=1):
        between = path[first : last + 1]
        doubtful = any(s.touches for s in between) or _frames(between) > len(between)
        limit = similarity * (_OTHER if doubtful else _OTHER_FOR_SURE)
        is_enough = doubtful or min(k, len(embedded) - k) >= _SURE_EMBEDDINGS
        if likeness[k - 1] >= limit or not is_enough:
            likeness[k - 1] = np.inf
    k = int(likeness.argmin())
    if np.isinf(likeness[k]):
        yield path
        return
    at = _most_sudden(path, embedded[k], embedded[k + 1])
    yield from _split(path[:at], similarity)
    yield from _split(path[at:], similarity)


def _likeness_across(vectors: Array) -> Array:
    """Return (n - 1,) cosines of the mean of the vectors up to each place with the later mean."""
    sums = np.cumsum(vectors.astype(np.float64), axis=0)
    before, after = sums[:-1], sums[-1] - sums[:-1]
    lengths = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    return np.asarray((before * after).sum(axis=1) / np.maximum(lengths, 1e-9))


def _most_sudden(path: _Path, first: int, last: int) -> int:
    """Return the index in (first, last] that is furthest from its expected place or after a gap."""

    def deviation(i: int) -> float:
        expected = path[i - 1].face.landmarks + _shift(path[:i], path[i].frame)
        off = np.linalg.norm(path[i].face.landmarks - expected, axis=-1).mean()
        missed = path[i].frame - path[i - 1].frame - 1
        return float(off / _size(path[i].face)) + missed

    return max(range(first + 1, last + 1), key=deviation)


def _joined(paths: list[_Path], gap: int, similarity: float) -> list[_Path]:
    """Join paths by the best assignment of ends to beginnings that lie at most `gap` apart."""
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
    """Return the assignment with the greatest sum; only few of the pairs are possible."""
    pairs = [*agreement, *((i, count + i) for i in range(count))]
    values = [*agreement.values(), *([_ALONE] * count)]
    from scipy.sparse import csr_array  # loaded once all frames are seen: it takes long
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching

    graph = csr_array((values, tuple(zip(*pairs, strict=True))), shape=(count, 2 * count))
    solved = zip(*min_weight_full_bipartite_matching(graph, maximize=True), strict=True)
    return {int(i): int(j) for i, j in solved if j < count}


def _continuity(path: _Path, later: _Path, similarity: float) -> float:
    """Return a positive value where one path may continue as the other.

    Both are extrapolated to the middle of the gap, the later one backward in time.
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
    """Return how many detections with these scores a track needs."""
    ratio = _STRONG_SCORE / max(float(np.mean(scores)), 1e-6)
    return float(needed * np.clip(ratio**2, 1, _MOST_FRAMES_FACTOR))


def _reconciled(path: _Path) -> _Path:
    """Move the landmarks of faces without a mesh to where the mesh would see them.

    A detector's landmarks differ from those of the mesh, most of all near profile, where the mesh
    comes and goes. The difference is that of the frames nearby that have both, along the line of
    the eyes and in sizes of the face.
    """
    known = [
        (s.frame, (_complex(s.face.landmarks) - _complex(own)) / _scale(s.face, own))
        for s in path
        if s.face.shape is not None and (own := s.face.detector_landmarks) is not None
    ]
    if not known:
        return path
    frames, offsets = np.array([frame for frame, _ in known]), np.array([off for _, off in known])
    reconciled = []
    for sighting in path:
        face = sighting.face
        if face.shape is None and not sighting.is_carried:
            near = offsets[np.argsort(np.abs(frames - sighting.frame), kind="stable")[:_NEAR_PAIRS]]
            offset = np.median(near.real, axis=0) + 1j * np.median(near.imag, axis=0)
            moved = _complex(face.landmarks) + offset * _scale(face, face.landmarks)
            landmarks = np.stack([moved.real, moved.imag], axis=-1).astype(np.float32)
            sighting = replace(sighting, face=replace(face, landmarks=landmarks))
        reconciled.append(sighting)
    return reconciled


def _complex(points: FloatArray) -> Array:
    """Return (n,) complex128 x + i y."""
    return np.asarray(points.astype(np.float64) @ np.array([1, 1j]))


def _scale(face: Detection, landmarks: FloatArray) -> complex:
    """Return the size of a face as a complex number along the line of its eyes."""
    left, right = _complex(landmarks[:2])
    across = right - left
    height = float(face.box[3] - face.box[1])
    return complex(across / max(abs(across), 1e-6) * max(abs(across), 0.3 * height, 1e-6))


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
    shapes, angles = _shapes(path, count)
    return RawTrack(first, shot, landmarks, score, measured, embeddings, sharpness, shapes, angles)


def _shapes(path: _Path, count: int) -> tuple[HalfArray | None, FloatArray | None]:
    """Return (n, 86, 2) points and (n, 2) yaw and pitch of a path; None without any mesh."""
    found = [(s.frame - path[0].frame, s.face.shape) for s in path if s.face.shape is not None]
    if not found:
        return None, None
    points = np.full((count, len(SHAPE_POINTS), 2), np.nan, np.float16)
    angles = np.full((count, 2), np.nan, np.float32)
    for at, shape in found:
        points[at] = shape.points
        angles[at] = shape.yaw_degrees, shape.pitch_degrees
    return points, angles


def _embedding(path: _Path) -> FloatArray | None:
    return mean_direction([vector for s in path if (vector := s.embedding) is not None])


def _size(face: Detection) -> float:
    """Return the distance of the eyes, at least that of a face in profile seen from the front."""
    eyes = float(np.linalg.norm(face.landmarks[1] - face.landmarks[0]))
    height = float(face.box[3] - face.box[1])
    return max(eyes, 0.3 * height, 1e-6)
