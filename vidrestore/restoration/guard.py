"""The guard: less of a restored face is used where it no longer looks like its source.

Identity and features concern the whole face. The expression concerns an eye or the mouth, of which
alone less is used.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, repeat
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt
import torch

from vidrestore.analysis.tracks import Track
from vidrestore.common.checksums import FileHashes
from vidrestore.common.events import OnEvent
from vidrestore.common.settings import Guard, Settings
from vidrestore.imaging.filters import gaussian_blur, smoothstep
from vidrestore.imaging.frame import FloatArray
from vidrestore.imaging.luma import bt601_luma
from vidrestore.imaging.optical_flow import reduced
from vidrestore.models.detectors import Detection
from vidrestore.models.factory import chosen_face_mesh, chosen_recognizer
from vidrestore.restoration.compositing.appearance import TrackGeometry
from vidrestore.restoration.compositing.masks import (
    EXPRESSIVE,
    Points,
    believable,
    usual_landmarks,
)
from vidrestore.restoration.expression import PICTURE_PX, Area, departures, softness_px
from vidrestore.restoration.faces import Face, FaceFrame
from vidrestore.restoration.statistics import Likeness, RestorationStats

if TYPE_CHECKING:
    from vidrestore.models.face_mesh import FaceMesh

Recognise = Callable[[npt.NDArray[np.uint8], Sequence[Detection]], list[FloatArray | None]]
"""The function of a recognizer; see `vidrestore.models.recognizer.Recognizer`."""

_GRID_PX = 128


# Standard deviations of blurs, in pixels of the grid: that of the source where features are
# compared, and those tried on the restored face until it is as soft as the blurred source. Those of
# `_SHARPNESS_PX` are tried until it is as soft as the source itself.
_SIGMA_PX, _SOFTNESS_PX = 2.0, (2.0, 2.8, 4.0, 5.7)

_SHARPNESS_PX = (0.0, 0.6, 1.2, 2.4)

# Both are blurred by this share of that before the recognizer compares them: at an eighth of the
# resolution the least cosine of 57 faithful faces rose from 0.32 to 0.41.
_CALM = 0.5

# Half-axes of the areas that are compared, in distances of the eyes: an eye, the mouth, whose first
# half-axis is a share of its own width, and the face from the brows to the chin.
_EYE, _MOUTH, _FACE = (0.42, 0.3), (0.75, 0.45), (1.0, 1.3)

_NARROWEST_MOUTH = 0.5


REACH_FRAMES = 4
"""The number of frames before and after a frame on whose faces its strengths depend."""

IDENTITY_EVERY = 3
"""The recognizer runs in each third frame of a track, since it costs more than all the rest of the
guard.
"""

UNLIKE = "the restored face does not look like the source"
"""The reason in the statistics for a restored face that is not used."""

# The number of frames on either side over which the least value is taken, and then the mean.
_AROUND = REACH_FRAMES // 2
# How far above the floor all of a restored face is used: in cosines of embeddings, and for
# features, whose correlations reach nearly 1, as a share of the distance from the floor to 1.
_SURE_COSINE, _SURE_SHARE = 0.15, 2 / 3
# The softness of the source, in pixels of the compared pictures, beyond which the floor for
# features falls; its fall per pixel; and its largest fall, which is limited because another
# person's face looks similar under much blur. True restorations of sources of an eighth of the
# resolution reach 0.987, of a sixteenth 0.93, of a twenty-fourth 0.88; other people's faces 0.78,
# and 0.90 in the same pose.
_SOFT_PX, _FALL, _DEEPEST_FALL = 3.0, 0.12, 0.2
# The multiple of the tolerated departure from which on no restored eye or mouth is used.
_DEPARTED = 1.75


def guard(
    frames: Iterator[FaceFrame],
    judge: SimilarityJudge,
    stats: RestorationStats,
    how: Guard,
    *,
    tracks: Sequence[Track] = (),
) -> Iterator[FaceFrame]:
    """Lower the `strength` of faces whose `restored` does not look like their `source`.

    At the least similarity nothing of the restored face is used; some way above it all of the face
    is used, with a smooth rise between. The lesser of the two similarities counts, and the least of
    that over the frames up to two before and after. The mean over as many frames is the factor, so
    it changes by at most 1 / 5 from one frame to the next. The factors of each eye and of the mouth
    follow in the same way from the expression. A face whose factors are all 1 passes as the same
    object.

    Memory: the crops of `REACH_FRAMES` frames, 24 W^2 bytes for each face.

    Args:
        frames: The frames with their restored faces, in order.
        judge: The judge that compares faces.
        stats: The statistics, which receive the similarity for each track.
        how: The settings. `identity` is the least cosine that the recognizer gives, `features` the
            least correlation of the features of a source that is not too soft, `expression` the
            largest departure of an eye or the mouth; 0 turns a comparison off.
        tracks: The tracks of the faces; default: none, and faces are compared with average
            landmarks.

    Yields:
        The frames in order, `REACH_FRAMES` later, or at once where no comparison is on.
    """
    compares_people = how.identity > 0 and judge.knows_people
    compares_expression = how.expression > 0 and judge.sees_expression
    if how.features == 0 and not compares_people and not compares_expression:
        yield from frames
        return
    stage = _Stage(judge, stats, how, tracks)
    held: deque[FaceFrame] = deque()
    for last, frame in enumerate(chain(frames, repeat(None, REACH_FRAMES))):
        if frame is not None:
            held.append(frame)
            stage.compare(frame)
        if last >= REACH_FRAMES and held:
            yield stage.guarded(held.popleft())


@dataclass(frozen=True, slots=True)
class _Similarity:
    """The similarities of one face of one frame."""

    identity: float | None
    features: float
    trust: float
    """In [0, 1]: how much of the restored face this frame alone would allow."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """The same for the eyes and the mouth, by name; 1 for those that are missing."""

    def trust_of(self, part: str | None) -> float:
        """Return the trust in a part of the face; None stands for all of it."""
        return self.trust if part is None else self.parts.get(part, 1.0)


@dataclass(slots=True)
class _TrackState:
    """A track around the current frame."""

    geometry: TrackGeometry | None
    first_frame: int
    found: dict[int, _Similarity] = field(default_factory=dict)

    def landmarks(self, index: int) -> Points:
        """Return the (5, 2) landmarks in the unit crop."""
        return believable(self.geometry.landmarks(index)) if self.geometry else usual_landmarks()

    def factor(self, index: int, part: str | None = None) -> float:
        """Return the factor of the strength in a frame, of a part or of the whole face."""
        around = range(index - _AROUND, index + _AROUND + 1)
        near = [i for i in around if i in self.found]
        return float(np.interp(around, near, [self._least(i, part) for i in near]).mean())

    def part_factors(self, index: int) -> dict[str, float]:
        """Return the factors of the eyes and the mouth that are below 1."""
        factors = {part: self.factor(index, part) for part in EXPRESSIVE}
        return {part: factor for part, factor in factors.items() if factor < 1}

    def _least(self, index: int, part: str | None) -> float:
        """Return the least trust in the frames around a frame."""
        near = range(index - _AROUND, index + _AROUND + 1)
        return min(self.found[i].trust_of(part) for i in near if i in self.found)


class _Stage:
    """The guard with what it knows of the frames around the current one."""

    def __init__(
        self,
        judge: SimilarityJudge,
        stats: RestorationStats,
        how: Guard,
        tracks: Sequence[Track],
    ) -> None:
        self._judge, self._stats = judge, stats
        self._identity, self._features = how.identity, how.features
        self._expression = how.expression if judge.sees_expression else 0.0
        self._tracks = {
            track.track_id: _TrackState(TrackGeometry(track), track.first_frame) for track in tracks
        }

    def compare(self, frame: FaceFrame) -> None:
        """Compare the restored faces of a frame with their sources."""
        index = frame.frame.index
        for face in frame.faces:
            if face.restored is None:
                continue
            track = self._tracks.setdefault(face.track_id, _TrackState(None, 0))
            is_identified = (index - track.first_frame) % IDENTITY_EVERY == 0
            found = self._similarities(
                face, face.restored, track.landmarks(index), closely=is_identified
            )
            track.found[index] = found

    def guarded(self, frame: FaceFrame) -> FaceFrame:
        """Return the frame with the strengths that the guard allows."""
        faces = tuple(self._guarded(face, frame.frame.index) for face in frame.faces)
        if all(face is before for face, before in zip(faces, frame.faces, strict=True)):
            return frame
        return frame.with_faces(faces)

    def _guarded(self, face: Face, index: int) -> Face:
        if face.restored is None:
            return face
        track = self._tracks[face.track_id]
        for old in [i for i in track.found if i < index - REACH_FRAMES]:
            del track.found[old]
        factor, parts = track.factor(index), track.part_factors(index)
        if self._stats.counts(index):
            self._count(face, face.restored, index, factor, are_parts_kept=bool(parts))
        if factor == 1 and not parts:
            return face
        return replace(face, strength=face.strength * factor, part_factors=parts)

    def _similarities(
        self,
        face: Face,
        restored: torch.Tensor,
        points: Points,
        *,
        closely: bool,
        has_parts: bool = True,
    ) -> _Similarity:
        pair = pair_of(face.source, restored, points)
        features = self._judge.features(pair)
        soft_px = self._judge.softness_px(pair)
        identity = self._judge.identity(pair) if closely and self._identity > 0 else None
        trust = 1.0
        if self._features > 0:
            fall = min(_FALL * max(soft_px - _SOFT_PX, 0.0), _DEEPEST_FALL)
            floor = max(self._features - fall, 0.0)
            trust = _rise(features, floor, floor + (1 - floor) * _SURE_SHARE)
        if identity is not None:
            trust = min(trust, _rise(identity, self._identity, self._identity + _SURE_COSINE))
        return _Similarity(
            identity, features, trust, self._parts(pair, soft_px) if has_parts else {}
        )

    def _parts(self, pair: Pair, soft_px: float) -> dict[str, float]:
        """Return the trust in the eyes and the mouth, where it is below 1."""
        most = self._expression
        if most == 0:
            return {}
        departed = self._judge.departures(pair, soft_px)
        return {part: 1 - _rise(far, most, _DEPARTED * most)
                for part, far in departed.items() if far > most}  # fmt: skip

    def _count(
        self,
        face: Face,
        restored: torch.Tensor,
        index: int,
        factor: float,
        *,
        are_parts_kept: bool,
    ) -> None:
        track = self._tracks[face.track_id]
        of_restored = used = track.found[index]
        if factor < 1:
            closely = of_restored.identity is not None
            mixed = torch.lerp(face.source, restored, factor)
            used = self._similarities(
                face, mixed, track.landmarks(index), closely=closely, has_parts=False
            )
        if factor == 0:
            self._stats.not_restored[UNLIKE] += 1
        one = Likeness(
            frames=1,
            reduced=int(factor < 1),
            expressions=int(are_parts_kept),
            share=factor,
            features=of_restored.features,
            features_used=used.features,
        )
        if of_restored.identity is not None and used.identity is not None:
            one = replace(
                one, comparisons=1, identity=of_restored.identity, identity_used=used.identity
            )
        self._stats.add_likeness(face.track_id, index, one)


def _rise(value: float, low: float, high: float) -> float:
    """Return 0 up to `low`, 1 from `high` on, and a smooth rise between."""
    return smoothstep(min(max((value - low) / (high - low), 0.0), 1.0))


def chosen_judge(
    settings: Settings, on_event: OnEvent | None, hashes: FileHashes | None = None
) -> SimilarityJudge:
    """Return the judge of restored faces that the settings ask for.

    Args:
        settings: The settings; `guard.identity` above 0 asks for a recognizer, `guard.expression`
            for the face mesh.
        on_event: The callback for events, or None.
        hashes: Hashes of the files that this run has read already. Default: none.

    Returns:
        A judge of features, with a recognizer and the face mesh where they are asked for and
        available.
    """
    how = settings.guard
    recognizer = chosen_recognizer(settings, on_event, hashes) if how.identity > 0 else None
    mesh = None
    if how.expression > 0:
        without = "the expressions of restored faces are not compared with their source's"
        mesh = chosen_face_mesh(settings, on_event, hashes, without=without)
    name = "features" if recognizer is None else recognizer.name
    return SimilarityJudge(recognizer, name, mesh)


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """A face before and after restoration."""

    source: FloatArray
    """(256, 256, 3) float32 RGB of the source in 8-bit levels."""
    restored: FloatArray
    """(256, 256, 3) float32 RGB of the restored face in 8-bit levels."""
    landmarks: Points
    """(5, 2) landmarks (x, y) in the unit crop."""


def pair_of(source: torch.Tensor, restored: torch.Tensor, landmarks: Points) -> Pair:
    """Reduce two crops to a pair of small pictures.

    Convention:
        `landmarks` are (x, y) in the unit crop, whose outer edges lie at 0 and 1.

    Args:
        source: (3, W, W) RGB in [0, 1], on any device.
        restored: (3, W, W) RGB in [0, 1], on any device.
        landmarks: (5, 2) landmarks.

    Returns:
        The pair, on the CPU.
    """
    return Pair(reduced(source, PICTURE_PX), reduced(restored, PICTURE_PX), landmarks)


class SimilarityJudge:
    """Rates the similarity of faces in [-1, 1], where 1 is equal; equal pairs get equal values.

    Only one thread may use a judge at a time.
    """

    def __init__(
        self,
        recognise: Recognise | None = None,
        name: str = "features",
        mesh: FaceMesh | None = None,
    ) -> None:
        """Make a judge.

        Args:
            recognise: The function of a recognizer, or None (the default) for features alone.
            name: A name that differs from the names of other recognizers; the judge adds the
                hash of the mesh.
            mesh: The face mesh, or None (the default) to compare no expressions.
        """
        self._recognise, self._mesh, self._own_name = recognise, mesh, name
        self.name = name if mesh is None else f"{name}, face mesh {mesh.sha256}"

    def parts(self) -> dict[str, str]:
        """Return the networks of the judge: what each one is, and a text that names its file."""
        parts = {} if self._recognise is None else {"the recognizer": self._own_name}
        return parts if self._mesh is None else parts | {"the face mesh": self._mesh.sha256}

    @property
    def knows_people(self) -> bool:
        """Whether the judge has a recognizer."""
        return self._recognise is not None

    @property
    def sees_expression(self) -> bool:
        """Whether the judge has a face mesh."""
        return self._mesh is not None

    def softness_px(self, pair: Pair) -> float:
        """Return how much softer the source is than the restored face.

        Args:
            pair: The faces.

        Returns:
            The standard deviation of a blur in pixels of the pair; see `expression.softness_px`.
        """
        return softness_px(pair.source, pair.restored, pair.landmarks)

    def departures(self, pair: Pair, soft_px: float) -> Mapping[str, float]:
        """Measure how far the eyes and the mouth of the restored face depart from the source's.

        Args:
            pair: The faces.
            soft_px: The result of `softness_px`.

        Returns:
            The departure by name, up to 1 where noise and softness explain it; see
            `expression.departures`. Empty without a face mesh.
        """
        if self._mesh is None:
            return {}
        return departures(self._mesh, pair.source, pair.restored, pair.landmarks, soft_px)

    def features(self, pair: Pair) -> float:
        """Return the least correlation of the eyes, the mouth and the face, at low frequencies.

        Correlations of luma are normalized, so that light and tint do not count. Where there is
        less contrast than the noise of bad sources, all faces are alike.

        Args:
            pair: The faces.

        Returns:
            The correlation in [-1, 1].
        """
        areas = _areas(pair.landmarks)
        low = _blurred(_luma(pair.source), _SIGMA_PX)
        luma = _luma(pair.restored)
        blurs = [_blurred(luma, sigma) for sigma in _SOFTNESS_PX]
        as_soft = blurs[_likest(low, blurs, areas[-1])]
        return min(area.correlation(low, as_soft) for area in areas)

    def identity(self, pair: Pair) -> float | None:
        """Return the cosine of the embeddings of both faces.

        Args:
            pair: The faces.

        Returns:
            The cosine in [-1, 1]; None without a recognizer, or where the source is so bad that the
            recognizer cannot tell people apart.
        """
        if self._recognise is None:
            return None
        luma = _luma(pair.restored)
        blurs = [_blurred(luma, sigma) for sigma in _SHARPNESS_PX]
        sigma_px = _SHARPNESS_PX[_likest(_luma(pair.source), blurs, _areas(pair.landmarks)[-1])]
        # Another person looks most alike where the picture is too soft for any embedding; then the
        # faces are compared with less blur.
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
    """Return the (128, 128) luma of a picture."""
    small = cv2.resize(picture, (_GRID_PX, _GRID_PX), interpolation=cv2.INTER_AREA)
    return np.asarray(bt601_luma(small), np.float32)


def _blurred(picture: FloatArray, sigma_px: float) -> FloatArray:
    if sigma_px == 0:
        return picture
    return gaussian_blur(picture, sigma_px, border="repeat")


def _likest(picture: FloatArray, others: Sequence[FloatArray], area: Area) -> int:
    """Return the index of the picture in `others` that correlates most with `picture`."""
    return int(np.argmax([area.correlation(picture, other) for other in others]))


def _areas(landmarks: Points) -> list[Area]:
    """Return the areas of each eye, of the mouth, and last of the face, in 128 x 128 pixels."""
    across = landmarks[1] - landmarks[0]
    eyes_apart = max(float(np.linalg.norm(across)), 1e-6)
    eyes, mouth = landmarks[:2].mean(axis=0), landmarks[3:].mean(axis=0)
    wide = float(np.linalg.norm(landmarks[4] - landmarks[3])) / eyes_apart
    of_mouth = (_MOUTH[0] * max(wide, _NARROWEST_MOUTH), _MOUTH[1])
    middle = (eyes + mouth) / 2
    places = [(landmarks[0], _EYE), (landmarks[1], _EYE), (mouth, of_mouth), (middle, _FACE)]
    return [_area(center, across, axes) for center, axes in places]


def _area(center: Points, across: Points, axes: tuple[float, float]) -> Area:
    """Return an ellipse with its weights.

    They fall like a Gaussian with a standard deviation of 0.7 half-axes, and are 0 from 2 half-axes
    on.
    """
    # Beyond this square, and a pixel for rounding, all weights are 0.
    far = 2 * max(axes) * max(float(np.linalg.norm(across)), 1e-3) + 1 / _GRID_PX
    low, high = (
        np.clip(np.rint((center + sign * far) * _GRID_PX), 0, _GRID_PX).astype(int).tolist()
        for sign in (-1, 1)
    )
    # At least one pixel, for landmarks beyond the picture.
    columns, rows = (
        slice(min(a, _GRID_PX - 1), max(b, a + 1)) for a, b in zip(low, high, strict=True)
    )
    centers = (np.arange(_GRID_PX) + 0.5) / _GRID_PX
    x, y = centers[columns] - center[0], (centers[rows] - center[1])[:, None]
    squared = max(float(across @ across), 1e-6)
    right = (x * across[0] + y * across[1]) / (squared * axes[0])
    down = (y * across[0] - x * across[1]) / (squared * axes[1])
    radius = right**2 + down**2
    weight = np.asarray(np.exp(-radius) * (radius < 4), np.float32)
    return Area.of(weight, at=(rows.start, columns.start))
