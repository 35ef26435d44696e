"""Tracks of faces: what pass one keeps of a frame, and what becomes of it frame by frame."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, overload

import numpy as np
import numpy.typing as npt

from vidrestore.imaging.frame import BoolArray, FloatArray, _check
from vidrestore.models.detectors import Detection

if TYPE_CHECKING:
    pass


@dataclass(frozen=True, slots=True, eq=False)
class Motion:
    """How one face moved since the frame before, measured in its pixels rather than landmarks."""

    matrix: npt.NDArray[np.float64]
    """(2, 3).

    Convention: frame pixel centres (x, y) of the earlier frame -> of the later one; a similarity
    in the upright, square-pixel view.
    """
    support: float
    """Share of the followed points that agree with it, in [0, 1]."""
    points: int
    """How many agree."""

    def __post_init__(self) -> None:
        _check("matrix", self.matrix, (2, 3), np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """What pass one keeps of a frame once its picture is gone."""

    index: int
    pts: int
    crc32: int
    """Of the samples of all planes."""
    thumbnail: npt.NDArray[np.uint8] | None
    """(36, 64) grey, upright: enough to see a cut; None once it was looked for."""
    detections: tuple[Detection, ...]
    """In frame pixels."""
    motions: Mapping[tuple[int, int], Motion] = field(default_factory=dict)
    """(place in the detections of the frame before, place in these) -> how that face moved."""
    sharpness: tuple[float, ...] = ()
    """Of each detection: the share of its contrast that is in its finest detail; NaN where it was
    not looked at, empty where none was."""
    in_margins: int = 0
    """How many other detections lay in `Margins`."""


@dataclass(frozen=True, slots=True, eq=False)
class RawTrack:
    """The detections of one face through one shot, before anything is smoothed."""

    first_frame: int
    shot: tuple[int, int]
    """Half-open [start, end) in frames."""
    landmarks: FloatArray
    """(n, 5, 2) frame pixels, NaN where the detector found nothing."""
    score: FloatArray
    """(n,), NaN likewise."""
    motions: tuple[Motion | None, ...] = ()
    """(n,) each since the frame before; the first, and those that were not measured, None. Empty
    where none was."""
    embeddings: Mapping[int, FloatArray] = field(default_factory=dict)
    """Frame -> (d,) of unit length, where a recogniser looked at the face."""
    sharpness: FloatArray = field(default_factory=lambda: np.zeros(0, np.float32))
    """(n,) the share of the face's contrast that is in its finest detail, NaN where it was not
    measured; or empty."""

    def __post_init__(self) -> None:
        n = len(self.landmarks)
        if len(self.sharpness) not in (0, n):
            raise ValueError(f"{len(self.sharpness)} values of sharpness for {n} frames")
        if len(self.motions) not in (0, n):
            raise ValueError(f"{len(self.motions)} motions for {n} frames")
        _check("landmarks", self.landmarks, (n, 5, 2), np.float32)
        _check("score", self.score, (n,), np.float32)

    @property
    def embedding(self) -> FloatArray | None:
        """(d,) of unit length: the mean direction of the embeddings; None where there is none."""
        return mean_direction(list(self.embeddings.values()))


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """One face through one shot, frame by frame without gaps."""

    track_id: int
    """From 0."""
    person_id: int
    """From 1."""
    first_frame: int
    work_px: int
    """Side of the square on which this face is restored and pasted; a power of two."""
    matrices: FloatArray
    """(n, 2, 3).

    Convention: frame pixel centres (x, y) -> unit crop (u, v), in which 0 and 1 are the outer
    edges of the square and the centre of pixel i of W is (i + 0.5) / W.
    """
    landmarks: FloatArray
    """(n, 5, 2) smoothed, frame pixels."""
    score: FloatArray
    """(n,) of the detector, interpolated where it found nothing."""
    strength: FloatArray
    """(n,) in [0, 1]: how much of the restored face is used."""
    detected: BoolArray
    """(n,) True where the detector found it, False where it was interpolated."""
    embedding: FloatArray | None = None
    """(d,) of unit length: whose face it is, as far as a recogniser can tell."""

    def __post_init__(self) -> None:
        n = len(self.matrices)
        _check("matrices", self.matrices, (n, 2, 3), np.float32)
        _check("landmarks", self.landmarks, (n, 5, 2), np.float32)
        _check("score", self.score, (n,), np.float32)
        _check("strength", self.strength, (n,), np.float32)
        _check("detected", self.detected, (n,), np.bool_)
        if n == 0:
            raise ValueError(f"track {self.track_id} has no frame")
        if self.work_px < 1 or self.work_px & (self.work_px - 1):
            raise ValueError(f"work_px must be a power of two, got {self.work_px}")
        if not (self.strength.min() >= 0 and self.strength.max() <= 1):  # which NaN is not
            raise ValueError(f"strength must be within [0, 1], got {self.strength.min()} .. "
                             f"{self.strength.max()}")  # fmt: skip

    @property
    def end_frame(self) -> int:
        """One past the last frame."""
        return self.first_frame + len(self.matrices)


def mean_direction(vectors: Sequence[FloatArray]) -> FloatArray | None:
    """(d,) of unit length; None of no vectors, or of such as add up to nothing."""
    mean = np.mean(vectors, axis=0) if vectors else np.zeros(1)
    length = float(np.linalg.norm(mean))
    return np.asarray(mean / length, np.float32) if length else None


class TracksByFrame:
    """Which of many tracks have a face where, without a look at all of them.

    Holds 8 bytes for every frame of the video up to the last face, and for every face.
    """

    def __init__(self, tracks: Sequence[Track]) -> None:
        self._tracks = tracks
        counts = [len(track.matrices) for track in tracks]
        frames = [np.arange(track.first_frame, track.end_frame) for track in tracks]
        at = np.concatenate(frames) if frames else np.zeros(0, np.int64)
        numbers = np.repeat(np.arange(len(tracks)), counts)
        self._numbers = numbers[np.argsort(at, kind="stable")]
        self._ends = np.cumsum(np.bincount(at))

    def at(self, index: int) -> list[Track]:
        """Those with a face in frame `index`, in the order in which they were given."""
        return [self._tracks[number] for number in self._slice(index, index + 1)]

    def within(self, first: int, end: int) -> list[int]:
        """The places among the given tracks of those with a face in frames [first, end)."""
        return [int(number) for number in np.unique(self._slice(first, end))]

    def _slice(self, first: int, end: int) -> npt.NDArray[np.int64]:
        first, end = (min(max(frame, 0), len(self._ends)) for frame in (first, end))
        begin, stop = (int(self._ends[frame - 1]) if frame else 0 for frame in (first, end))
        return self._numbers[begin:stop]


class Observations(Sequence[Observation]):
    """Observations by frame, which come out as they went in, but without their thumbnails.

    Memory: about 400 bytes for a frame with one face, and its embedding where it has one; as
    objects, with their thumbnails, they take nine times that. What is asked for is made anew.
    """

    def __init__(self) -> None:
        self.pts, self.crc32 = array("q"), array("L")
        self._faces: list[_Packed] = []

    def append(self, seen: Observation) -> None:
        """That of the next frame: its index is its place here."""
        self.pts.append(seen.pts)
        self.crc32.append(seen.crc32)
        self._faces.append(_packed(seen) if seen.detections else _NOBODY)

    def __len__(self) -> int:
        return len(self._faces)

    @overload
    def __getitem__(self, at: int) -> Observation: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Observation]: ...
    def __getitem__(self, at: int | slice) -> Observation | Sequence[Observation]:
        places = range(len(self))[at]
        return self._made(places) if isinstance(places, int) else [*map(self._made, places)]

    def _made(self, index: int) -> Observation:
        packed = self._faces[index]
        faces = tuple(_detections(packed))
        sharpness = tuple(np.frombuffer(packed.sharpness).tolist())
        motions = dict(_motions(packed))
        return Observation(
            index, self.pts[index], self.crc32[index], None, faces, motions, sharpness
        )


class _Packed(NamedTuple):
    """The bytes of arrays."""

    places: bytes
    """(n, 14) float32: box and landmarks."""
    scores: bytes
    """(n,) float64."""
    sharpness: bytes
    """(n,) float64, or empty."""
    motions: bytes
    """(m, 10) float64: place before, place now, points, support, matrix."""
    embeddings: tuple[FloatArray | None, ...]
    """Empty where no face has one."""


_NOBODY = _Packed(b"", b"", b"", b"", ())


def _packed(seen: Observation) -> _Packed:
    faces = seen.detections
    places = np.array([[*d.box, *d.landmarks.ravel()] for d in faces], np.float32)
    motions = [[*pair, m.points, m.support, *m.matrix.ravel()] for pair, m in seen.motions.items()]
    embeddings = tuple(d.embedding for d in faces)
    return _Packed(
        places.tobytes(),
        np.array([d.score for d in faces], np.float64).tobytes(),
        np.array(seen.sharpness, np.float64).tobytes(),
        np.array(motions, np.float64).tobytes(),
        embeddings if any(e is not None for e in embeddings) else (),
    )


def _detections(packed: _Packed) -> Iterator[Detection]:
    places = np.frombuffer(packed.places, np.float32).reshape(-1, 14)
    scores = np.frombuffer(packed.scores).tolist()
    embeddings = packed.embeddings or (None,) * len(scores)
    for place, score, embedding in zip(places, scores, embeddings, strict=True):
        yield Detection(place[:4].copy(), place[4:].reshape(5, 2).copy(), score, embedding)


def _motions(packed: _Packed) -> Iterator[tuple[tuple[int, int], Motion]]:
    for row in np.frombuffer(packed.motions).reshape(-1, 10):
        before, now, points = (int(value) for value in row[:3])
        yield (before, now), Motion(row[4:].reshape(2, 3).copy(), float(row[3]), points)
