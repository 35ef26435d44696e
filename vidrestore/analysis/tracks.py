"""Face tracks: what pass one keeps of a frame, and the tracks that it makes from that."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt

from vidrestore.imaging.frame import BoolArray, FloatArray, _check
from vidrestore.models.detectors import Detection
from vidrestore.models.face_mesh import SHAPE_POINTS, FaceShape

HalfArray = npt.NDArray[np.float16]


@dataclass(frozen=True, slots=True, eq=False)
class Motion:
    """The motion of one face from one frame to the next, measured in its pixels."""

    matrix: npt.NDArray[np.float64]
    """(2, 3) float64, a similarity in the upright, square-pixel view.

    Convention: pixel centers (x, y) of the earlier frame -> pixel centers of the later frame.
    """
    support: float
    """The share of the followed points that agree with the motion, in [0, 1]."""
    points: int
    """The number of followed points that agree with the motion."""

    def __post_init__(self) -> None:
        _check("matrix", self.matrix, (2, 3), np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """The facts that pass one keeps of a frame after it drops the picture."""

    index: int
    """The index of the frame, from 0."""
    pts: int
    """The presentation time, in units of the time base."""
    crc32: int
    """The CRC-32 of the samples of all planes of the decoded frame."""
    thumbnail: npt.NDArray[np.uint8] | None
    """(36, 64) uint8 gray, upright: enough to see a cut; None once cuts were looked for."""
    detections: tuple[Detection, ...]
    """The faces of the frame, in frame pixels."""
    motions: Mapping[tuple[int, int], Motion] = field(default_factory=dict)
    """The motion of each face that is in both frames.

    The key is (its index in the detections of the frame before, its index in `detections`).
    """
    sharpness: tuple[float, ...] = ()
    """For each detection, the share of its contrast that is in its finest detail.

    NaN where the sharpness of a detection was not measured; empty where none was measured.
    """
    in_margins: int = 0
    """The number of other detections, which were dropped because they lay in `Margins`."""


@dataclass(frozen=True, slots=True, eq=False)
class RawTrack:
    """The detections of one face through one shot, before they are smoothed."""

    first_frame: int
    """The index of the first frame of the track."""
    shot: tuple[int, int]
    """The shot of the track: half-open [start, end) in frames."""
    landmarks: FloatArray
    """(n, 5, 2) float32 landmarks (x, y) in frame pixels; NaN where the detector found nothing."""
    score: FloatArray
    """(n,) float32 scores of the detector; NaN where the detector found nothing."""
    motions: tuple[Motion | None, ...] = ()
    """n motions, each since the frame before; empty where no motion was measured.

    The first is None, and so is each motion that was not measured.
    """
    embeddings: Mapping[int, FloatArray] = field(default_factory=dict)
    """The embedding, (d,) of unit length, for each frame in which a recognizer saw the face."""
    sharpness: FloatArray = field(default_factory=lambda: np.zeros(0, np.float32))
    """(n,) float32: the share of the contrast of the face that is in its finest detail.

    NaN where the sharpness was not measured; empty where it was measured in no frame.
    """
    shapes: HalfArray | None = None
    """(n, 86, 2) float16: the points of `FaceShape`, in its convention; NaN where no mesh was
    found. None, the default: no mesh was found in any frame."""
    angles_degrees: FloatArray | None = None
    """(n, 2) float32 yaw and pitch of `FaceShape`; NaN where no mesh was found. None, the default,
    as `shapes`."""

    def __post_init__(self) -> None:
        n = len(self.landmarks)
        _check_shapes(self.shapes, self.angles_degrees, n)
        if len(self.sharpness) not in (0, n):
            raise ValueError(f"{len(self.sharpness)} values of sharpness for {n} frames")
        if len(self.motions) not in (0, n):
            raise ValueError(f"{len(self.motions)} motions for {n} frames")
        _check("landmarks", self.landmarks, (n, 5, 2), np.float32)
        _check("score", self.score, (n,), np.float32)

    @property
    def embedding(self) -> FloatArray | None:
        """The mean direction of the embeddings, (d,) of unit length; None where there is none."""
        return mean_direction(list(self.embeddings.values()))


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """One face through one shot, with values for every frame."""

    track_id: int
    """The number of the track, from 0."""
    person_id: int
    """The number of the person, from 1."""
    first_frame: int
    """The index of the first frame of the track."""
    work_px: int
    """The side, in pixels, of the square on which the face is restored: a power of two or
    5/8 or 3/4 of one, as `work_size` chooses it, the same in all frames."""
    matrices: FloatArray
    """(n, 2, 3) float32, one matrix for each frame.

    Convention: frame pixel centers (x, y) -> unit crop (u, v), in which 0 and 1 are the outer
    edges of the square and the center of pixel i of W is (i + 0.5) / W.
    """
    landmarks: FloatArray
    """(n, 5, 2) float32 smoothed landmarks (x, y) in frame pixels."""
    score: FloatArray
    """(n,) float32 scores of the detector, interpolated where it found nothing."""
    strength: FloatArray
    """(n,) float32 in [0, 1]: the share of the restored face that is blended in."""
    detected: BoolArray
    """(n,) True where the detector found the face, False where its place was interpolated."""
    embedding: FloatArray | None = None
    """The mean embedding of the face, (d,) of unit length; None without a recognizer."""
    shapes: HalfArray | None = None
    """(n, 86, 2) float16: the points `SHAPE_POINTS` of the face mesh, smoothed; None, the default:
    the face has no mesh.

    Convention: (x, y) in the unit crop of `matrices`, whose outer edges lie at 0 and 1.
    """
    angles_degrees: FloatArray | None = None
    """(n, 2) float32 yaw and pitch of the head, smoothed: yaw is positive where the nose points to
    the right of the upright picture, pitch where the face looks up. None, the default, as
    `shapes`."""

    def __post_init__(self) -> None:
        n = len(self.matrices)
        _check_shapes(self.shapes, self.angles_degrees, n)
        _check("matrices", self.matrices, (n, 2, 3), np.float32)
        _check("landmarks", self.landmarks, (n, 5, 2), np.float32)
        _check("score", self.score, (n,), np.float32)
        _check("strength", self.strength, (n,), np.float32)
        _check("detected", self.detected, (n,), np.bool_)
        if n == 0:
            raise ValueError(f"track {self.track_id} has no frame")
        if self.work_px < 1 or self.work_px != work_size(self.work_px):
            raise ValueError(
                f"work_px must be a power of two or 5/8 or 3/4 of one, got {self.work_px}"
            )
        if not (self.strength.min() >= 0 and self.strength.max() <= 1):  # which NaN is not
            raise ValueError(f"strength must be within [0, 1], got {self.strength.min()} .. "
                             f"{self.strength.max()}")  # fmt: skip

    @property
    def end_frame(self) -> int:
        """The index one past the last frame of the track."""
        return self.first_frame + len(self.matrices)

    def frames(self, rows: slice, *, first_frame: int) -> Track:
        """Take some of the frames out of the track.

        Args:
            rows: The frames, counted from the first one of the track.
            first_frame: The index of the first of them in the video of the result.

        Returns:
            The track with only the frames of the range.
        """
        parts: dict[str, Any] = {
            name: np.ascontiguousarray(values[rows])
            for name in PER_FRAME
            if (values := getattr(self, name)) is not None
        }
        return replace(self, first_frame=first_frame, **parts)


PER_FRAME = (
    "matrices", "landmarks", "score", "strength", "detected", "shapes", "angles_degrees",
)  # fmt: skip
"""The attributes of a track that have one row for each of its frames, or are None."""


def _check_shapes(shapes: HalfArray | None, angles: FloatArray | None, n: int) -> None:
    if (shapes is None) != (angles is None):
        raise ValueError("shapes and angles_degrees belong together")
    if shapes is not None:
        _check("shapes", shapes, (n, len(SHAPE_POINTS), 2), np.float16)
    if angles is not None:
        _check("angles_degrees", angles, (n, 2), np.float32)


def work_size(side_px: float) -> int:
    """Return the side of the square on which a face is restored.

    It is the least number that is not below the side of the crop and is a power of two or 5/8 or
    3/4 of one, so from 64 px on a multiple of 16. There are few, since faces of one side share
    batches. None lies between 3/4 of a power of two and that itself, which is the size of many
    networks: a result reduced by less than a quarter, and then once more to the picture, loses more
    detail than one that is not reduced.

    Args:
        side_px: The side of the crop in pixels of the frame, above 0.

    Returns:
        The side in pixels.
    """
    whole = max(math.ceil(side_px - 1e-6), 1)
    above = 1 << (whole - 1).bit_length()
    if above < 8:
        return above
    return next(side for side in (above * 5 // 8, above * 3 // 4, above) if side >= whole)


def mean_direction(vectors: Sequence[FloatArray]) -> FloatArray | None:
    """Compute the mean direction of vectors.

    Args:
        vectors: Vectors of shape (d,), usually embeddings of unit length.

    Returns:
        (d,) float32 of unit length; None without vectors, or where the vectors add up to zero.
    """
    mean = np.mean(vectors, axis=0) if vectors else np.zeros(1)
    length = float(np.linalg.norm(mean))
    return np.asarray(mean / length, np.float32) if length else None


class TracksByFrame:
    """Finds the tracks that have a face in given frames, without a search through all tracks.

    Memory: 8 bytes for every frame of the video up to the last face, and 8 for every face.
    """

    def __init__(self, tracks: Sequence[Track]) -> None:
        """Build the index.

        Args:
            tracks: The tracks to search.
        """
        self._tracks = tracks
        counts = [len(track.matrices) for track in tracks]
        frames = [np.arange(track.first_frame, track.end_frame) for track in tracks]
        at = np.concatenate(frames) if frames else np.zeros(0, np.int64)
        numbers = np.repeat(np.arange(len(tracks)), counts)
        self._numbers = numbers[np.argsort(at, kind="stable")]
        self._ends = np.cumsum(np.bincount(at))

    def at(self, index: int) -> list[Track]:
        """Return the tracks with a face in one frame.

        Args:
            index: The index of the frame, from 0.

        Returns:
            The tracks, in the order in which they were given.
        """
        return [self._tracks[number] for number in self._slice(index, index + 1)]

    def within(self, first: int, end: int) -> list[int]:
        """Return the places of the tracks with a face in a range of frames.

        Args:
            first: The first frame of the range.
            end: The frame after the last one of the range.

        Returns:
            Indices into the tracks that were given, ascending.
        """
        return [int(number) for number in np.unique(self._slice(first, end))]

    def _slice(self, first: int, end: int) -> npt.NDArray[np.int64]:
        first, end = (min(max(frame, 0), len(self._ends)) for frame in (first, end))
        begin, stop = (int(self._ends[frame - 1]) if frame else 0 for frame in (first, end))
        return self._numbers[begin:stop]


class Observations(Sequence[Observation]):
    """A sequence of observations by frame, stored compactly and without their thumbnails.

    Memory: about 400 bytes for a frame with one face, plus 400 for its mesh and its embedding if it
    has them. Each access builds a new `Observation`.
    """

    def __init__(self) -> None:
        """Create an empty sequence."""
        self.pts, self.crc32 = array("q"), array("L")
        self._faces: list[_Packed] = []

    def append(self, seen: Observation) -> None:
        """Append the observation of the next frame.

        Args:
            seen: The observation. Its `index` must be the present length of the sequence.
        """
        self.pts.append(seen.pts)
        self.crc32.append(seen.crc32)
        self._faces.append(_packed(seen) if seen.detections else _NO_FACES)

    def __len__(self) -> int:
        return len(self._faces)

    @overload
    def __getitem__(self, at: int) -> Observation: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Observation]: ...
    def __getitem__(self, at: int | slice) -> Observation | Sequence[Observation]:
        places = range(len(self))[at]
        return (
            self._observation(places)
            if isinstance(places, int)
            else [*map(self._observation, places)]
        )

    def _observation(self, index: int) -> Observation:
        packed = self._faces[index]
        faces = tuple(_detections(packed))
        sharpness = tuple(np.frombuffer(packed.sharpness).tolist())
        motions = dict(_motions(packed))
        return Observation(
            index, self.pts[index], self.crc32[index], None, faces, motions, sharpness
        )


class _Packed(NamedTuple):
    """The observation of one frame as the bytes of arrays."""

    places: bytes
    """(n, 14) float32: the box and the landmarks of each face."""
    scores: bytes
    """(n,) float64: the score of each face."""
    sharpness: bytes
    """(n,) float64: the sharpness of each face; or empty."""
    motions: bytes
    """(m, 10) float64: index before, index now, points, support, matrix of each motion."""
    embeddings: tuple[FloatArray | None, ...]
    """The embedding of each face; empty where no face has one."""
    shapes: bytes
    """(n, 86, 2) float16: the points of the shape of each face, NaN where it has none; or empty."""
    angles: bytes
    """(n, 3) float32: yaw, pitch and logit of the shape of each face; or empty."""
    detector_landmarks: bytes
    """(n, 5, 2) float32: the detector's own landmarks of each face, NaN where it has none; or
    empty."""


_NO_FACES = _Packed(b"", b"", b"", b"", (), b"", b"", b"")
_NO_LANDMARKS = np.full((5, 2), np.nan, np.float32)
_NO_SHAPE = np.full((len(SHAPE_POINTS), 2), np.nan, np.float16)


def _packed(seen: Observation) -> _Packed:
    faces = seen.detections
    places = np.array([[*d.box, *d.landmarks.ravel()] for d in faces], np.float32)
    motions = [[*pair, m.points, m.support, *m.matrix.ravel()] for pair, m in seen.motions.items()]
    embeddings = tuple(d.embedding for d in faces)
    shapes = [d.shape for d in faces]
    has_shapes = any(shape is not None for shape in shapes)
    points = [_NO_SHAPE if s is None else s.points for s in shapes]
    angles = [
        [np.nan] * 3 if s is None else [s.yaw_degrees, s.pitch_degrees, s.logit] for s in shapes
    ]
    own = [_NO_LANDMARKS if d.detector_landmarks is None else d.detector_landmarks for d in faces]
    return _Packed(
        places.tobytes(),
        np.array([d.score for d in faces], np.float64).tobytes(),
        np.array(seen.sharpness, np.float64).tobytes(),
        np.array(motions, np.float64).tobytes(),
        embeddings if any(e is not None for e in embeddings) else (),
        np.array(points, np.float16).tobytes() if has_shapes else b"",
        np.array(angles, np.float32).tobytes() if has_shapes else b"",
        np.array(own, np.float32).tobytes() if has_shapes else b"",
    )


def _detections(packed: _Packed) -> Iterator[Detection]:
    places = np.frombuffer(packed.places, np.float32).reshape(-1, 14)
    scores = np.frombuffer(packed.scores).tolist()
    embeddings = packed.embeddings or (None,) * len(scores)
    shapes = _shapes(packed) if packed.shapes else [None] * len(scores)
    own = _detector_landmarks(packed) if packed.shapes else [None] * len(scores)
    for place, *more in zip(places, scores, embeddings, shapes, own, strict=True):
        yield Detection(place[:4].copy(), place[4:].reshape(5, 2).copy(), *more)


def _detector_landmarks(packed: _Packed) -> list[FloatArray | None]:
    rows = np.frombuffer(packed.detector_landmarks, np.float32).reshape(-1, 5, 2)
    return [None if np.isnan(row).any() else row.copy() for row in rows]


def _shapes(packed: _Packed) -> list[FaceShape | None]:
    points = np.frombuffer(packed.shapes, np.float16).reshape(-1, len(SHAPE_POINTS), 2)
    angles = np.frombuffer(packed.angles, np.float32).reshape(-1, 3).tolist()
    return [
        None if np.isnan(logit) else FaceShape(own.copy(), yaw, pitch, logit)
        for own, (yaw, pitch, logit) in zip(points, angles, strict=True)
    ]


def _motions(packed: _Packed) -> Iterator[tuple[tuple[int, int], Motion]]:
    for row in np.frombuffer(packed.motions).reshape(-1, 10):
        before, now, points = (int(value) for value in row[:3])
        yield (before, now), Motion(row[4:].reshape(2, 3).copy(), float(row[3]), points)
