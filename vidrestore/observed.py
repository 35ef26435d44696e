"""What was seen in the frames of a whole film, in little memory."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import NamedTuple, overload

import numpy as np

from vidrestore.frame import Detection, FloatArray, Motion, Observation


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
