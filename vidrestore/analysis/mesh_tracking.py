"""Faces confirmed by their mesh, and followed by it from frame to frame.

A detector says where a face may be; the mesh says whether it is one, at which angle, and where its
points lie. Whichever detector found a face, its landmarks come from the mesh, so the crop does not
depend on the detector. A face that the mesh knows from the frame before needs no detector, so a
head that tilts further than the detector can see is not lost.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import numpy.typing as npt

from vidrestore.imaging.geometry import invert
from vidrestore.models.detectors import Detection, Detector, is_among, moved
from vidrestore.models.face_mesh import (
    INPUT_PX,
    NO_DOUBT_LOGIT,
    UNLIKELY_LOGIT,
    FaceMesh,
    Mesh,
    Square,
    square_of_landmarks,
    square_of_mesh,
)

Picture = npt.NDArray[np.uint8]

# From this logit on, a mesh is that of a face where a detector saw one. Of 794 squares without a
# face, 5 settled at 0.8 to 2 and two at 2 and 3.
FACE_LOGIT = 2.5
# Rounds for a detection that was no face a moment ago, or that may be a face that is known.
_ROUNDS_AGAIN = 2
# Two meshes have settled alike if their squares differ by less: in degrees, in position and in size
# as shares of the side.
_ALIKE_DEGREES, _ALIKE_SHARE = 10.0, 0.1
# A followed face moves by less, as a share of its size, and changes its size by a smaller factor.
_MOST_SHIFT, _MOST_GROWTH = 0.35, 1.35
# Two meshes belong to one face if they are nearer to each other than the first share of the smaller
# size. A weak mesh that is nearer than the second share of the larger size shows no other face.
_ONE_FACE, _ONE_HEAD, _WEAK_LOGIT = 0.5, 0.8, 6.0
# A detection that the mesh does not confirm counts, by its own landmarks, if its score exceeds the
# least score of the detector by this margin: in a dark or low picture, and on heads near profile,
# the network may see no face. YuNet's false faces in hair and ears exceed it by up to 0.11, but lie
# on the head of another face. Once such a face is known, its least score is the detector's.
_SURE_SCORE = 0.05
# The mesh tries a detection only at its own angle if, within this number of frames, a box that
# overlaps it by more than this share was no face. After this number of tries in a row whose logit
# was below the least one, it tries the detection only in every third frame, and in every sixth
# where the logit was below `UNLIKELY_LOGIT`.
_SAME_BOX, _REJECTED_FRAMES = 0.5, 12
_TRIES_IN_A_ROW, _LEAST_DOUBT_LOGIT, _RARELY_FRAMES = 3, 0.0, 3
# It tries such a detection at every angle at most once in this number of frames.
_SEARCH_AGAIN_FRAMES = 6
# A mesh that settles only at the detector's size of the face keeps that size, which moves by the
# last share towards each new size, until its logit is at least the second one. Where the detector
# is sure, the first logit is enough for it: the face counts without a mesh, too.
_LEAST_HELD_LOGIT, _FREE_LOGIT, _RESIZING = 0.0, 10.0, 0.1
# Where the first look has a lower logit, there is no second one: of 39 squares on which the
# detector was sure, the highest second logit was -0.7.
_HOPELESS_LOGIT = -6.0
# Faces whose square is smaller, as a share of the network's picture, get a larger picture.
_TOO_SMALL = 0.8
_QUARTER_TURNS = {
    90.0: cv2.ROTATE_90_COUNTERCLOCKWISE,
    180.0: cv2.ROTATE_180,
    270.0: cv2.ROTATE_90_CLOCKWISE,
}
# The logit is divided by this, and a logistic function of it is the score of the face.
_LOGIT_SCALE = 3.0


def score_of(logit: float) -> float:
    """Convert the logit of a mesh to a score.

    Args:
        logit: The logit.

    Returns:
        The score in (0, 1): 0.84 at a logit of 5, 0.98 at 12.
    """
    return 1 / (1 + math.exp(-min(max(logit / _LOGIT_SCALE, -50.0), 50.0)))


@dataclass(slots=True)
class Pictures:
    """One frame in the view of the detector and, where faces are small, in a larger one."""

    view: Picture
    """(H, W, 3) uint8 BGR, the upright picture of the detector."""
    larger: Callable[[float], tuple[Picture, float]] | None = None
    """Returns the upright picture at about this many times the size of `view`, at most at the size
    of the frame, and its exact size as a multiple; None where the frame is not larger."""
    _detections: tuple[Picture, float] | None = field(default=None)

    def fitting(self, squares: Iterable[Square]) -> None:
        """Make the larger picture now, if the smallest of some squares needs it.

        Args:
            squares: The squares that the network will receive.
        """
        sides = [square.side_px for square in squares]
        if self.larger is None or self._detections is not None or not sides:
            return
        if min(sides) < _TOO_SMALL * INPUT_PX:
            self._detections = self.larger(INPUT_PX / max(min(sides), 1.0))

    def best(self, square: Square) -> tuple[Picture, float]:
        """Return the picture in which to look at a square.

        Args:
            square: The square, in pixels of `view`.

        Returns:
            The picture, and its size as a multiple of `view`.
        """
        if self._detections is not None and square.side_px < _TOO_SMALL * INPUT_PX:
            return self._detections
        return self.view, 1.0


@dataclass(frozen=True, slots=True)
class _Rejected:
    """A detection that the mesh did not confirm in one frame."""

    face: Detection
    seen_frame: int
    """The number of the frame."""
    looked_frame: int
    """The number of the frame in which the network looked at it last."""
    logit: float
    """The logit of that look."""
    tries: int
    """The number of looks at it and at what was in its place in the frames before."""
    searched_frame: int
    """The number of the frame in which the network looked at every angle last; -6 before that."""
    is_search_due: bool
    """Whether the network shall look at every angle as soon as it may."""

    def is_worth_a_look(self, frame: int) -> bool:
        """Tell whether the network looks at the detection in a frame."""
        if self.tries < _TRIES_IN_A_ROW or self.logit >= _LEAST_DOUBT_LOGIT:
            return True
        pause_frames = _RARELY_FRAMES * (2 if self.logit < UNLIKELY_LOGIT else 1)
        return frame - self.looked_frame >= pause_frames


@dataclass(slots=True, eq=False)
class _Face:
    """A face of one frame that has a mesh."""

    mesh: Mesh
    """The mesh, in pixels of the view."""
    side_px: float | None = None
    """The side of the square of a mesh that keeps the detector's size of the face; None: the mesh
    has settled at a size of its own."""
    detection: Detection | None = None
    """The detection that was made of the mesh; None before that."""
    _box: npt.NDArray[np.float32] | None = None

    @property
    def box(self) -> npt.NDArray[np.float32]:
        """The box of the points of the mesh."""
        if self._box is None:
            self._box = self.mesh.box()
        return self._box


class MeshTracker:
    """Confirms and follows the faces of the frames of one stream, which must come in order."""

    def __init__(self, network: FaceMesh, *, least_score: float) -> None:
        """Set up the tracker.

        Args:
            network: The network, which only this object uses from now on.
            least_score: The least score of the detector for a face, in [0, 1].
        """
        self._network = network
        self._sure_score = least_score + _SURE_SCORE
        self._unconfirmed: list[Detection] = []
        self._known: list[Detection] = []
        self._before: list[_Face] = []
        self._seen: list[Detection] = []
        self._faces: list[_Face] = []
        self._doubtful: list[_Face] = []
        self._rejected: list[_Rejected] = []
        self._frame = 0
        self.no_faces = 0
        """The number of detections that were no faces, in all frames together."""

    def begin(self) -> None:
        """Begin the next frame, in which no face is known yet."""
        self._before, self._faces, self._doubtful = self._faces, [], []
        self._seen = []
        self._frame += 1
        oldest = self._frame - _REJECTED_FRAMES
        self._rejected = [each for each in self._rejected if each.seen_frame >= oldest]
        self._known, self._unconfirmed = self._unconfirmed, []

    def follow(self, pictures: Pictures) -> list[Detection]:
        """Find the faces of the frame before where they were.

        After a cut that is where another face may be, on which the mesh may settle badly; see
        `again` of `confirm`.

        Args:
            pictures: The pictures of the frame.

        Returns:
            All faces of the frame that are known so far, in pixels of `pictures.view`.
        """
        squares = [square_of_mesh(face.mesh) for face in self._before]
        pictures.fitting(squares)
        for face, square in zip(self._before, squares, strict=True):
            if (side_px := face.side_px) is None or face.mesh.logit >= _FREE_LOGIT:
                now = _Face(self._followed(pictures, square))
            else:
                now = self._held(pictures, replace(square, side_px=side_px), 1)
            if not _is_next(square, square_of_mesh(now.mesh)):
                continue
            if now.mesh.logit >= FACE_LOGIT:
                self._keep(now)
            elif now.side_px is not None and now.mesh.logit >= _LEAST_HELD_LOGIT:
                self._doubtful.append(now)
        return self._detected()

    def confirm(
        self,
        pictures: Pictures,
        found: Sequence[Detection],
        *,
        thorough: bool,
        again: bool = False,
        needs_mesh: bool = False,
    ) -> list[Detection]:
        """Look at detections, and return all faces of the frame that are known so far.

        A detection with a high score that the mesh does not confirm counts as a face without a
        mesh, unless it lies on the head of another face.

        Args:
            pictures: The pictures of the frame.
            found: What a detector found in it, in pixels of `pictures.view`.
            thorough: Whether to look at every angle also at what was no face a moment ago.
            again: Whether to look also at faces that are known, unless their meshes are beyond
                doubt: a mesh may have settled badly. One that settles in the same way stays as it
                is, so that a face is at the same place whether or not the detector sees it.
            needs_mesh: Whether only confirmed detections count, however high their scores are.

        Returns:
            The faces, each once: those that were followed or confirmed before, and those among
            `found` that are faces and none of them.
        """
        squares = [square_of_landmarks(face.landmarks) for face in found]
        pictures.fitting(squares)
        if not needs_mesh:
            self._seen += found
        for face, square in zip(found, squares, strict=True):
            is_known = is_among(face, self._known, _SAME_BOX)
            is_sure = (is_known or face.score >= self._sure_score) and not needs_mesh
            for doubtful in self._doubtful:
                if is_sure and _explains(doubtful, face):
                    self._keep(doubtful)
            explaining = [each for each in self._faces if _explains(each, face)]
            for each in explaining:
                if each.side_px is not None:
                    each.side_px += _RESIZING * (square.side_px - each.side_px)
            known = [each.mesh for each in explaining]
            if any(not again or mesh.logit >= NO_DOUBT_LOGIT for mesh in known):
                continue
            if any(face is other for other in self._unconfirmed):
                continue  # an earlier call looked at it in this frame
            if any(each.side_px is not None for each in explaining):
                continue  # it depends on what the detector saw, so there is no other to settle on
            if known and _is_among(self._settled(pictures, square, _ROUNDS_AGAIN), known):
                continue
            is_lost = not known and any(
                each.mesh.logit < _FREE_LOGIT and _explains(each, face) for each in self._before
            )
            seen = self._confirmed(
                pictures, face, square, thorough=thorough, is_sure=is_sure, is_lost=is_lost
            )
            if seen is not None:
                if not _is_among(seen.mesh, known):
                    self._keep(seen)
                continue
            if is_sure:
                self._unconfirmed.append(face)
            else:
                self.no_faces += 1
        return self._detected()

    def _confirmed(
        self,
        pictures: Pictures,
        face: Detection,
        square: Square,
        *,
        thorough: bool,
        is_sure: bool,
        is_lost: bool,
    ) -> _Face | None:
        """Look at a detection that is no known face; return the face, None where it is none.

        `is_sure` means that the detection counts without a mesh, too; `is_lost` that the frame
        before has its mesh, a weak one, which was not found again.
        """
        frame = self._frame
        before = next(
            (each for each in reversed(self._rejected) if is_among(face, [each.face], _SAME_BOX)),
            None,
        )
        if before is None:
            searches = thorough or not is_lost
            before = _Rejected(face, frame, frame, 0.0, 0, -_SEARCH_AGAIN_FRAMES, False)
        else:
            due = thorough or before.is_search_due
            searches = due and frame - before.searched_frame >= _SEARCH_AGAIN_FRAMES
            before = replace(before, face=face, seen_frame=frame, is_search_due=due)
            if not searches and not before.is_worth_a_look(frame):
                self._rejected.append(before)
                return None
        first = self._first(pictures, square)
        logit = _LEAST_DOUBT_LOGIT
        if searches:
            seen = self._found(pictures, square, first)
            if seen is not None and seen.logit >= FACE_LOGIT:
                return _Face(seen)
            before = replace(before, searched_frame=frame, is_search_due=False)
        if is_sure or not searches:
            held = self._held(pictures, square, _ROUNDS_AGAIN, is_sure=is_sure, first=first)
            logit = held.mesh.logit
            if logit >= (_LEAST_HELD_LOGIT if is_sure else FACE_LOGIT):
                return held
        tried = replace(before, looked_frame=frame, logit=logit, tries=before.tries + 1)
        self._rejected.append(tried)
        return None

    def _detected(self) -> list[Detection]:
        """Return the faces with a mesh, and those without one that lie on no other head."""
        heads = [face.box for face in self._faces]
        others: list[Detection] = []
        for face in sorted(self._unconfirmed, key=lambda each: -each.score):
            boxes = [*heads, *(other.box for other in others)]
            share = _ONE_FACE if face.score >= self._sure_score else _ONE_HEAD
            if all(_distance(face.box, b) >= share * max(_size(face.box), _size(b)) for b in boxes):
                others.append(face)
        return [*(self._detection_of(face) for face in self._faces), *others]

    def _detection_of(self, face: _Face) -> Detection:
        """Return the detection of a face of this frame, made once."""
        found = face.detection or detection_of(face.mesh)
        if found.detector_landmarks is None:
            own = [each for each in self._seen if _explains(face, each)]
            if own:
                best = max(own, key=lambda each: each.score)
                found = replace(found, detector_landmarks=best.landmarks)
                if face.side_px is not None:
                    found = replace(found, score=max(found.score, best.score))
        face.detection = found
        return found

    def _keep(self, face: _Face) -> None:
        """Add a face, unless it is one that has a better mesh; drop those that it betters."""
        rivals = [other for other in self._faces if _are_one_face(face, other)]
        if all(face.mesh.logit > other.mesh.logit for other in rivals):
            self._faces = [f for f in self._faces if not any(f is r for r in rivals)] + [face]

    def _first(self, pictures: Pictures, square: Square) -> Mesh:
        """Look at a square once; the mesh is in pixels of the picture that was looked at."""
        picture, scale = pictures.best(square)
        return self._network.look(picture, _scaled(square, scale))

    def _followed(self, pictures: Pictures, square: Square) -> Mesh:
        picture, scale = pictures.best(square)
        return _to_view(self._network.follow(picture, _scaled(square, scale)), scale)

    def _held(
        self,
        pictures: Pictures,
        square: Square,
        rounds: int,
        *,
        is_sure: bool = False,
        first: Mesh | None = None,
    ) -> _Face:
        """Look at a face in squares of one size, further where the detector is sure of it."""
        picture, scale = pictures.best(square)
        least = _HOPELESS_LOGIT if is_sure else UNLIKELY_LOGIT
        start = _scaled(square, scale)
        mesh = self._network.hold(picture, start, rounds, least_logit=least, first=first)
        return _Face(_to_view(mesh, scale), square.side_px)

    def _settled(self, pictures: Pictures, square: Square, rounds: int) -> Mesh:
        picture, scale = pictures.best(square)
        return _to_view(self._network.settle(picture, _scaled(square, scale), rounds), scale)

    def _found(self, pictures: Pictures, square: Square, first: Mesh) -> Mesh | None:
        picture, scale = pictures.best(square)
        mesh = self._network.find(picture, _scaled(square, scale), first=first)
        return None if mesh is None else _to_view(mesh, scale)


def detection_of(mesh: Mesh) -> Detection:
    """Convert a mesh to a detection.

    Args:
        mesh: The mesh.

    Returns:
        The detection in the same pixels: the box of the points, the landmarks that align the face,
        and the shape.
    """
    return Detection(mesh.box(), mesh.landmarks(), score_of(mesh.logit), shape=mesh.shape())


def look_at_angles(
    picture: Picture, detector: Detector, angles_degrees: Iterable[float]
) -> list[Detection]:
    """Detect faces in a picture that is turned by several angles.

    Args:
        picture: (H, W, 3) uint8, BGR, square pixels.
        detector: The detector.
        angles_degrees: The angles, counterclockwise.

    Returns:
        The faces in pixels of `picture`. One face may be among them several times, and things that
        are none; their boxes enclose the turned boxes.

    Convention:
        The detections are mapped turned picture -> picture. Points are (x, y); integer coordinates
        are pixel centers.
    """
    height, width = picture.shape[:2]
    found = []
    for degrees in angles_degrees:
        angle = math.radians(degrees)
        cos, sin = math.cos(angle), math.sin(angle)
        size = (
            math.ceil(abs(width * cos) + abs(height * sin) - 1e-6),
            math.ceil(abs(width * sin) + abs(height * cos) - 1e-6),
        )
        linear = np.array([[cos, sin], [-sin, cos]])
        middle, own = (np.array(size) - 1) / 2, (np.array([width, height]) - 1) / 2
        matrix = np.column_stack([linear, middle - linear @ own])
        if degrees in _QUARTER_TURNS:  # the same pixels, in a tenth of the time
            turned = np.asarray(cv2.rotate(picture, _QUARTER_TURNS[degrees]), np.uint8)
        else:
            turned = np.asarray(cv2.warpAffine(picture, matrix, size), np.uint8)
        found += [moved(face, invert(matrix)) for face in detector(turned)]
    return found


def _size(box: npt.NDArray[np.float32]) -> float:
    return float(max(box[2] - box[0], box[3] - box[1]))


def _distance(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    """Return the distance of the centers of two boxes."""
    return float(np.linalg.norm(a[:2] + a[2:] - b[:2] - b[2:])) / 2


def _are_one_face(face: _Face, other: _Face) -> bool:
    a, b = face.box, other.box
    apart, sizes = _distance(a, b), sorted((_size(a), _size(b)))
    if apart < _ONE_FACE * sizes[0]:
        return True
    return apart < _ONE_HEAD * sizes[1] and min(face.mesh.logit, other.mesh.logit) < _WEAK_LOGIT


def _explains(face: _Face, seen: Detection) -> bool:
    """Tell whether a detection is of a face with a mesh."""
    near = _distance(face.box, seen.box) < _ONE_FACE * _size(face.box)
    return near and _size(seen.box) < 2 * _size(face.box)


def _is_among(mesh: Mesh, known: Iterable[Mesh]) -> bool:
    """Tell whether a mesh has settled like one that is known, which then stays as it is."""
    return any(_are_alike(square_of_mesh(mesh), square_of_mesh(other)) for other in known)


def _are_alike(square: Square, other: Square) -> bool:
    turned = abs((square.degrees - other.degrees + 180) % 360 - 180)
    shift = math.dist(square.center, other.center) / other.side_px
    growth = abs(square.side_px / other.side_px - 1)
    return turned < _ALIKE_DEGREES and max(shift, growth) < _ALIKE_SHARE


def _is_next(before: Square, now: Square) -> bool:
    shift = math.dist(before.center, now.center) / before.side_px
    growth = now.side_px / before.side_px
    return shift < _MOST_SHIFT and 1 / _MOST_GROWTH < growth < _MOST_GROWTH


def _scaled(square: Square, scale: float) -> Square:
    """Return a square of the view in pixels of a picture that is `scale` times as large."""
    x, y = ((at + 0.5) * scale - 0.5 for at in square.center)
    return Square((x, y), square.side_px * scale, square.degrees)


def _to_view(mesh: Mesh, scale: float) -> Mesh:
    """Map a mesh from a picture that is `scale` times as large to the view."""
    if scale == 1:
        return mesh
    shift = 0.5 / scale - 0.5
    return mesh.moved(np.array([[1 / scale, 0, shift], [0, 1 / scale, shift]]))
