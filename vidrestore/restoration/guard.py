"""A restored face that no longer is the one in the source is used less, or not at all."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, repeat

import cv2
import numpy as np
import numpy.typing as npt
import torch

from vidrestore.analysis.tracks import Track
from vidrestore.common.events import OnEvent
from vidrestore.common.settings import Guard, Settings
from vidrestore.imaging.filters import gaussian_blur, smoothstep
from vidrestore.imaging.frame import FloatArray
from vidrestore.imaging.luma import bt601_luma
from vidrestore.imaging.optical_flow import reduced
from vidrestore.models.detectors import Detection
from vidrestore.models.factory import chosen_recognizer
from vidrestore.restoration.compositing.appearance import TrackGeometry
from vidrestore.restoration.compositing.masks import Points, believable, usual_landmarks
from vidrestore.restoration.faces import Face, FaceFrame
from vidrestore.restoration.statistics import Likeness, RestorationStats

PICTURE_PX = 256
"""Side of the pictures that are compared."""

Recognise = Callable[[npt.NDArray[np.uint8], Sequence[Detection]], list[FloatArray | None]]
"""What a recogniser does; see `vidrestore.models.recognizer.Recognizer`."""

_GRID_PX = 128


# Standard deviations of blurs, in pixels of the grid: of the source where features are compared,
# and those among which the restored face becomes as soft as that, or as the source by itself.
_SIGMA_PX, _SOFTNESS_PX = 2.0, (2.0, 2.8, 4.0, 5.7)

_SHARPNESS_PX = (0.0, 0.6, 1.2, 2.4)

# Share of that by which both are blurred before a recogniser sees them: at an eighth of the
# resolution the least cosine of 57 faithful faces rose from 0.32 to 0.41.
_CALM = 0.5

# Squared 8-bit levels, of the noise that is left in the low frequencies of a bad source.
_RIDGE = 25.0

# Half-axes of what is compared, in distances of the eyes: an eye, the mouth, of which the first
# is a share of its own width, and from the brows to the chin.
_EYE, _MOUTH, _FACE = (0.42, 0.3), (0.75, 0.45), (1.0, 1.3)

_NARROWEST_MOUTH = 0.5


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
    judge: SimilarityJudge,
    tally: RestorationStats,
    how: Guard,
    *,
    tracks: Sequence[Track] = (),
) -> Iterator[FaceFrame]:
    """Lower the `strength` of faces whose `restored` does not look like their `source`.

    At the least likeness nothing of the restored face is used, and some way above it everything,
    with a smooth rise between. Of both kinds of likeness, and of the frames up to two before and
    after, the least counts; the mean of that over as many frames is the factor, which so changes by
    at most 1 / 5 from one frame to the next. What is alike all around passes as the same object.

    Memory: the crops of `REACH_FRAMES` frames, 24 W^2 bytes for each face.

    Args:
        frames: In order.
        judge: Compares faces.
        tally: Receives what is found, for each track.
        how: `identity` is the least cosine to a recogniser, `features` the least correlation of the
            features; 0: not looked at.
        tracks: Those of the faces; default: none.

    Yields:
        The frames in order, `REACH_FRAMES` later.
    """
    if how.features == 0 and not (how.identity > 0 and judge.knows_people):
        yield from frames
        return
    stage = _Stage(judge, tally, how, tracks)
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

    course: TrackGeometry | None
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
        judge: SimilarityJudge,
        tally: RestorationStats,
        how: Guard,
        tracks: Sequence[Track],
    ) -> None:
        self._judge, self._tally = judge, tally
        self._identity, self._features = how.identity, how.features
        self._tracks = {
            track.track_id: _Followed(TrackGeometry(track), track.first_frame) for track in tracks
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
    return smoothstep(min(max((value - low) / (high - low), 0.0), 1.0))


def chosen_judge(settings: Settings, on_event: OnEvent | None) -> SimilarityJudge:
    """Of restored faces: with a recogniser where there is one and it is asked for."""
    recognizer = chosen_recognizer(settings, on_event) if settings.guard.identity > 0 else None
    return SimilarityJudge() if recognizer is None else SimilarityJudge(recognizer, recognizer.name)


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """A face as it was and as it would be."""

    source: FloatArray
    """(256, 256, 3) RGB in 8-bit levels; likewise:"""
    restored: FloatArray
    landmarks: Points
    """(5, 2) in the unit crop."""


def pair_of(source: torch.Tensor, restored: torch.Tensor, landmarks: Points) -> Pair:
    """Of two (3, W, W) crops in [0, 1] on any device."""
    return Pair(reduced(source, PICTURE_PX), reduced(restored, PICTURE_PX), landmarks)


class SimilarityJudge:
    """Gives likenesses in [-1, 1], of which 1 is the same; the same pair always gets the same.

    For one thread at a time.
    """

    def __init__(self, recognise: Recognise | None = None, name: str = "features") -> None:
        """`name` tells this judge from those that judge otherwise."""
        self._recognise = recognise
        self.name = name

    @property
    def knows_people(self) -> bool:
        return self._recognise is not None

    def features(self, pair: Pair) -> float:
        """The least correlation of the lumas of an eye, the mouth or the face, at low frequencies.

        Normalised, so that light and tint do not count. Where there is less contrast than bad
        sources have noise, all is alike.
        """
        areas = _areas(pair.landmarks)
        low = _blurred(_luma(pair.source), _SIGMA_PX)
        luma = _luma(pair.restored)
        blurs = [_blurred(luma, sigma) for sigma in _SOFTNESS_PX]
        as_soft = blurs[_likest(low, blurs, areas[-1])]
        return min(_correlation(low, as_soft, area) for area in areas)

    def identity(self, pair: Pair) -> float | None:
        """Cosine of the embeddings; None without a recogniser, and where the source is so bad that
        it could be anybody."""
        if self._recognise is None:
            return None
        luma = _luma(pair.restored)
        blurs = [_blurred(luma, sigma) for sigma in _SHARPNESS_PX]
        sigma_px = _SHARPNESS_PX[_likest(_luma(pair.source), blurs, _areas(pair.landmarks)[-1])]
        # Somebody else is found likest where it is too soft to be anybody; then with less blur.
        soft, calm = sigma_px * PICTURE_PX / _GRID_PX, _CALM * sigma_px * PICTURE_PX / _GRID_PX
        ways = [(calm, float(np.hypot(soft, calm))), (0.0, soft), (0.0, 0.0)]
        for own_px, other_px in ways if sigma_px > 0 else ways[-1:]:
            own = self._embedding(_blurred(pair.source, own_px), pair.landmarks)
            other = self._embedding(_blurred(pair.restored, other_px), pair.landmarks)
            if own is not None and other is not None:
                return float(own @ other)
        return None

    def _embedding(self, picture: FloatArray, landmarks: Points) -> FloatArray | None:
        assert self._recognise is not None
        bgr = np.ascontiguousarray(np.clip(np.rint(picture[..., ::-1]), 0, 255), np.uint8)
        points = np.asarray(landmarks * PICTURE_PX - 0.5, np.float32)
        box = np.array([0, 0, PICTURE_PX, PICTURE_PX], np.float32)
        return self._recognise(bgr, [Detection(box, points, 1.0)])[0]


def _luma(picture: FloatArray) -> FloatArray:
    """(128, 128)"""
    small = cv2.resize(picture, (_GRID_PX, _GRID_PX), interpolation=cv2.INTER_AREA)
    return np.asarray(bt601_luma(small), np.float32)


def _blurred(picture: FloatArray, sigma_px: float) -> FloatArray:
    if sigma_px == 0:
        return picture
    return gaussian_blur(picture, sigma_px, border="repeat")


def _likest(picture: FloatArray, others: Sequence[FloatArray], area: FloatArray) -> int:
    return int(np.argmax([_correlation(picture, other, area) for other in others]))


def _correlation(a: FloatArray, b: FloatArray, area: FloatArray) -> float:
    """Pearson's, weighted; `_RIDGE` stands for what both have in common without showing it."""
    a, b = (x - np.float32((x * area).sum()) for x in (a, b))
    both, own, other = (float((x * y * area).sum()) for x, y in ((a, b), (a, a), (b, b)))
    return (both + _RIDGE) / float(np.sqrt((own + _RIDGE) * (other + _RIDGE)))


def _areas(landmarks: Points) -> list[FloatArray]:
    """(128, 128) weights whose sum is 1: of each eye, of the mouth, and last of the face."""
    across = landmarks[1] - landmarks[0]
    eyes_apart = max(float(np.linalg.norm(across)), 1e-6)
    eyes, mouth = landmarks[:2].mean(axis=0), landmarks[3:].mean(axis=0)
    wide = float(np.linalg.norm(landmarks[4] - landmarks[3])) / eyes_apart
    of_mouth = (_MOUTH[0] * max(wide, _NARROWEST_MOUTH), _MOUTH[1])
    middle = (eyes + mouth) / 2
    places = [(landmarks[0], _EYE), (landmarks[1], _EYE), (mouth, of_mouth), (middle, _FACE)]
    return [_area(centre, across, axes) for centre, axes in places]


def _area(centre: Points, across: Points, axes: tuple[float, float]) -> FloatArray:
    """Falls like a Gaussian whose standard deviation is 0.7 half-axes, to the second of them."""
    centres = (np.arange(_GRID_PX) + 0.5) / _GRID_PX
    x, y = centres - centre[0], (centres - centre[1])[:, None]
    squared = max(float(across @ across), 1e-6)
    right = (x * across[0] + y * across[1]) / (squared * axes[0])
    down = (y * across[0] - x * across[1]) / (squared * axes[1])
    radius = right**2 + down**2
    weight = np.exp(-radius) * (radius < 4)
    return np.asarray(weight / max(float(weight.sum()), 1e-6), np.float32)
