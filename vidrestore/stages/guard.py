"""A restored face that no longer is the one in the source is used less, or not at all."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, repeat

import numpy as np
import torch

from vidrestore.frame import Face, FaceFrame, Track
from vidrestore.likeness import Judge, pair_of
from vidrestore.looks import Course
from vidrestore.masks import Points, believable, usual_landmarks
from vidrestore.summary import Likeness, Tally

REACH_FRAMES = 4
"""The strength of a frame depends on the faces of so many frames before and after it."""

LOOK_EVERY = 3
"""A recogniser costs more than all the rest, so it looks at each third frame of a track."""

UNLIKE = "the restored face does not look like the source"
"""Why nothing of a restored face is used."""

# The least of so many frames on either side counts, then the mean over as many.
_AROUND = REACH_FRAMES // 2
# How far above the floor a restored face is used whole: in cosines of embeddings, and for
# features, which are alike to nearly 1, as a share of what is left up to that.
_SURE_COSINE, _SURE_SHARE = 0.15, 2 / 3


def guard(
    frames: Iterator[FaceFrame],
    judge: Judge,
    tally: Tally,
    *,
    identity: float,
    features: float,
    tracks: Sequence[Track] = (),
) -> Iterator[FaceFrame]:
    """Lower the `strength` of faces whose `restored` does not look like their `source`.

    `identity` is the least cosine to a recogniser, `features` the least correlation of the
    features (`vidrestore.likeness`); 0: not looked at. At that nothing of the restored face is
    used, and some way above it everything, with a smooth rise between. Of both, and of the frames
    up to two before and after, the least counts; the mean of that over as many frames is the
    factor, which so changes by at most 1 / 5 from one frame to the next.

    What is alike all around passes as the same object. Frames come out in order, `REACH_FRAMES`
    later. What is found is added to `tally`, for each track.
    Memory: the crops of as many frames, 24 W^2 bytes for each face.
    """
    if features == 0 and not (identity > 0 and judge.knows_people):
        yield from frames
        return
    stage = _Stage(judge, tally, identity, features, tracks)
    held: deque[FaceFrame] = deque()
    for last, frame in enumerate(chain(frames, repeat(None, REACH_FRAMES))):
        if frame is not None:
            held.append(frame)
            stage.look(frame)
        if last >= REACH_FRAMES and held:
            yield stage.guarded(held.popleft())


@dataclass(frozen=True, slots=True)
class _Seen:
    identity: float | None
    features: float
    trust: float
    """In [0, 1]: how much of the restored face that alone would let be used."""


@dataclass(slots=True)
class _Followed:
    """A track around the frame in hand."""

    course: Course | None
    first_frame: int
    seen: dict[int, _Seen] = field(default_factory=dict)

    def landmarks(self, index: int) -> Points:
        """(5, 2) in the unit crop."""
        return believable(self.course.landmarks(index)) if self.course else usual_landmarks()

    def factor(self, index: int) -> float:
        around = range(index - _AROUND, index + _AROUND + 1)
        near = [i for i in around if i in self.seen]
        return float(np.interp(around, near, [self._least(i) for i in near]).mean())

    def _least(self, index: int) -> float:
        near = range(index - _AROUND, index + _AROUND + 1)
        return min(self.seen[i].trust for i in near if i in self.seen)


class _Stage:
    def __init__(
        self,
        judge: Judge,
        tally: Tally,
        identity: float,
        features: float,
        tracks: Sequence[Track],
    ) -> None:
        self._judge, self._tally = judge, tally
        self._identity, self._features = identity, features
        self._tracks = {
            track.track_id: _Followed(Course(track), track.first_frame) for track in tracks
        }

    def look(self, frame: FaceFrame) -> None:
        index = frame.frame.index
        for face in frame.faces:
            if face.restored is None:
                continue
            track = self._tracks.setdefault(face.track_id, _Followed(None, 0))
            looks_closely = (index - track.first_frame) % LOOK_EVERY == 0
            seen = self._seen(face, face.restored, track.landmarks(index), closely=looks_closely)
            track.seen[index] = seen

    def guarded(self, frame: FaceFrame) -> FaceFrame:
        faces = tuple(self._guarded(face, frame.frame.index) for face in frame.faces)
        if all(face is before for face, before in zip(faces, frame.faces, strict=True)):
            return frame
        return frame.with_faces(faces)

    def _guarded(self, face: Face, index: int) -> Face:
        if face.restored is None:
            return face
        track = self._tracks[face.track_id]
        for old in [i for i in track.seen if i < index - REACH_FRAMES]:
            del track.seen[old]
        factor = track.factor(index)
        if self._tally.counts(index):
            self._count(face, face.restored, index, factor)
        return face if factor == 1 else replace(face, strength=face.strength * factor)

    def _seen(self, face: Face, restored: torch.Tensor, points: Points, *, closely: bool) -> _Seen:
        pair = pair_of(face.source, restored, points)
        features = self._judge.features(pair)
        identity = self._judge.identity(pair) if closely and self._identity > 0 else None
        trust = 1.0
        if self._features > 0:
            sure = self._features + (1 - self._features) * _SURE_SHARE
            trust = _rise(features, self._features, sure)
        if identity is not None:
            trust = min(trust, _rise(identity, self._identity, self._identity + _SURE_COSINE))
        return _Seen(identity, features, trust)

    def _count(self, face: Face, restored: torch.Tensor, index: int, factor: float) -> None:
        track = self._tracks[face.track_id]
        found = used = track.seen[index]
        if factor < 1:
            closely = found.identity is not None
            mixed = torch.lerp(face.source, restored, factor)
            used = self._seen(face, mixed, track.landmarks(index), closely=closely)
        if factor == 0:
            self._tally.not_restored[UNLIKE] += 1
        one = Likeness(
            frames=1,
            reduced=int(factor < 1),
            share=factor,
            features=found.features,
            features_used=used.features,
        )
        if found.identity is not None and used.identity is not None:
            one = replace(one, looks=1, identity=found.identity, identity_used=used.identity)
        self._tally.add_likeness(face.track_id, index, one)


def _rise(value: float, low: float, high: float) -> float:
    """0 up to `low`, 1 from `high` on, smooth between."""
    x = min(max((value - low) / (high - low), 0.0), 1.0)
    return x * x * (3 - 2 * x)
