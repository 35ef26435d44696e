"""The base class of face detectors, and second detections at other scales and in tiles."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from vidrestore.common.errors import UsageError
from vidrestore.imaging.frame import FloatArray, _check
from vidrestore.imaging.geometry import Matrix, Rect, apply, overlaps
from vidrestore.models.face_mesh import FaceShape

NAMES = ("insightface", "yunet", "haar")
"""Names of the detectors that the settings may choose."""


@dataclass(frozen=True, slots=True)
class DetectionModels:
    """What finds the faces of a job and tells them apart; its work folder keeps this."""

    detector: str
    """The name of the detector, one of `NAMES`."""
    has_mesh: bool
    """Whether the face mesh is used."""
    recognizes: bool
    """Whether the recognizer of an InsightFace pack is used, if the pack has one."""


class Detector(ABC):
    """The base class of face detectors.

    A subclass defines `__call__` and sets the attributes that apply to it, on the class or on the
    instance. No detector is called from two threads at once.
    """

    coarse: bool = False
    """Whether the landmarks are derived from the box, not detected. vidrestore smooths such
    landmarks more. Default: False."""
    least_score: float = 0.5
    """The lowest score of the faces that it returns, in [0, 1]. The strength of the restored face
    rises from there. Default: 0.5."""

    @abstractmethod
    def __call__(self, picture: npt.NDArray[np.uint8]) -> list[Detection]:
        """Find the faces of one upright picture.

        Args:
            picture: (H, W, 3) uint8, BGR, square pixels.

        Returns:
            The faces, in pixels of the picture. The same picture gives the same faces.
        """

    def with_hint(self, picture: npt.NDArray[np.uint8]) -> tuple[list[Detection], bool]:
        """Find the faces of one upright picture, and tell whether anything else resembles one.

        Args:
            picture: (H, W, 3) uint8, BGR, square pixels.

        Returns:
            What `__call__` returns; and whether any other score, also one far below `least_score`,
            hints at a face. Default: True, as a detector without such scores cannot tell.
        """
        return self(picture), True


class OneAtATime(Detector):
    """A detector that several threads share: while one thread calls it, the others wait."""

    def __init__(self, detector: Detector) -> None:
        """Share a detector.

        Args:
            detector: The detector; from now on, only this object may call it.
        """
        self.coarse, self.least_score = detector.coarse, detector.least_score
        self._detector, self._lock = detector, Lock()

    def __call__(self, picture: npt.NDArray[np.uint8]) -> list[Detection]:
        """Find the faces of one upright picture, after other threads' calls have ended.

        Args:
            picture: (H, W, 3) uint8, BGR, square pixels.

        Returns:
            The faces, in pixels of the picture.
        """
        with self._lock:
            return self._detector(picture)

    def with_hint(self, picture: npt.NDArray[np.uint8]) -> tuple[list[Detection], bool]:
        """Do the same as `Detector.with_hint`, after other threads' calls have ended.

        Args:
            picture: (H, W, 3) uint8, BGR, square pixels.

        Returns:
            The faces, and whether anything else resembles one.
        """
        with self._lock:
            return self._detector.with_hint(picture)


def check_detector(detector: object) -> None:
    """Check, before any work, that an object is a detector.

    Args:
        detector: The object that a caller gave as a detector.

    Raises:
        UsageError: The object does not inherit `Detector`.
    """
    if isinstance(detector, Detector):
        return
    kind = f"an object of the class {type(detector).__name__}"
    if isinstance(detector, type):
        kind = f"the class {detector.__name__} itself"
    raise UsageError(
        f"the detector is {kind}; it must be an instance of a class that inherits "
        "vidrestore.Detector"
    )


def detection(box: Any, landmarks: Any, score: float) -> Detection:
    """Make a Detection from the numbers that a library returns.

    Args:
        box: 4 numbers of any type: x1, y1, x2, y2 in pixels.
        landmarks: 10 numbers of any type: x, y in pixels of the five landmarks, in the order of
            `Detection.landmarks`.
        score: The score, in [0, 1].

    Returns:
        The detection, without an embedding.

    Raises:
        ValueError: The number of values differs from 4 or 10.
    """
    return Detection(
        np.asarray(box, dtype=np.float32).reshape(4),
        np.asarray(landmarks, dtype=np.float32).reshape(5, 2),
        float(score),
    )


# Width of the border in `look_from_afar`, as a share of the picture's sides.
_BORDER = 0.5
# Boxes with a larger overlap belong to one face.
_SAME_FACE = 0.3


def look_from_afar(picture: npt.NDArray[np.uint8], detector: Detector) -> list[Detection]:
    """Detect faces in the picture at half its size, within a wide black border.

    Detectors miss a face that fills the picture.

    Args:
        picture: (H, W, 3) uint8, BGR, square pixels.
        detector: The detector.

    Returns:
        The faces, in pixels of `picture`.

    Convention:
        The detections are mapped reduced picture with border -> picture. Points are (x, y);
        integer coordinates are pixel centers.
    """
    height, width = picture.shape[:2]
    half = cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    x, y = round(half.shape[1] * _BORDER / 2), round(half.shape[0] * _BORDER / 2)
    faces = detector(
        np.asarray(cv2.copyMakeBorder(half, y, y, x, x, cv2.BORDER_CONSTANT), np.uint8)
    )
    sx, sy = width / half.shape[1], height / half.shape[0]
    back = np.array([[sx, 0, (0.5 - x) * sx - 0.5], [0, sy, (0.5 - y) * sy - 0.5]])
    return [moved(face, back) for face in faces]


def look_closely(
    picture: npt.NDArray[np.uint8], detector: Detector, tiles: Iterable[Rect], *, largest_px: int
) -> list[Detection]:
    """Detect small faces in tiles of the picture at full size.

    A tile leaves out the faces that its edge may cut. The next tile finds them, if the tiles
    overlap by at least `largest_px`.

    Args:
        picture: (H, W, 3) uint8, BGR, square pixels.
        detector: The detector.
        tiles: Parts of the picture, in its pixels.
        largest_px: Larger faces are left out; the longer side of the box, in pixels.

    Returns:
        The faces, each once, in pixels of `picture`.

    Convention:
        The detections are mapped tile -> picture. Points are (x, y); integer coordinates are
        pixel centers.
    """
    faces: list[Detection] = []
    height, width = picture.shape[:2]
    for tile in tiles:
        part = np.ascontiguousarray(picture[tile.y0 : tile.y1, tile.x0 : tile.x1])
        # An edge of the tile that is an edge of the picture cuts no further faces.
        low = np.where([tile.x0 > 0, tile.y0 > 0], 1.0, -np.inf)
        high = np.where(
            [tile.x1 < width, tile.y1 < height], [tile.width - 1, tile.height - 1], np.inf
        )
        shift = np.array([[1.0, 0, tile.x0], [0, 1.0, tile.y0]])
        whole = [
            moved(face, shift)
            for face in detector(part)
            if max(face.box[2:] - face.box[:2]) <= largest_px
            and (face.box[:2] >= low).all()
            and (face.box[2:] <= high).all()
        ]
        faces = with_others(faces, whole)
    return faces


def with_others(found: Sequence[Detection], others: Sequence[Detection]) -> list[Detection]:
    """Add the detections of other faces to a list of detections.

    Args:
        found: The detections to keep, in pixels of one picture.
        others: More detections of the same picture.

    Returns:
        `found`, followed by each of `others` whose box has an overlap (intersection over union) of
        at most 0.3 with every box before it.
    """
    result = list(found)
    for face in others:
        if not is_among(face, result, _SAME_FACE):
            result.append(face)
    return result


def is_among(face: Detection, others: Sequence[Detection], overlap: float) -> bool:
    """Tell whether the box of a detection overlaps that of another one.

    Args:
        face: The detection.
        others: The other detections, in the same pixels.
        overlap: The intersection over union that one of the boxes must exceed, in [0, 1].

    Returns:
        Whether one of them does.
    """
    boxes = np.array([other.box for other in others]).reshape(-1, 4)
    return bool((overlaps(face.box, boxes) > overlap).any())


def moved(face: Detection, matrix: Matrix) -> Detection:
    """Map a detection to the pixels of another picture.

    Args:
        face: The detection.
        matrix: (2, 3), a similarity, a flip or a different scale of either axis.

    Returns:
        The detection with its landmarks mapped, the upright box that encloses the mapped box, and
        all else unchanged.

    Convention:
        `matrix` maps pixels of the detected picture -> pixels of the other picture. Points are
        (x, y); integer coordinates are pixel centers.
    """
    corners = apply(matrix, face.box[[[0, 1], [2, 1], [0, 3], [2, 3]]])
    box = np.concatenate([corners.min(axis=0), corners.max(axis=0)])
    own = face.detector_landmarks
    return replace(
        face,
        box=box.astype(np.float32),
        landmarks=apply(matrix, face.landmarks).astype(np.float32),
        detector_landmarks=None if own is None else apply(matrix, own).astype(np.float32),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Detection:
    """One face that a detector found in one picture."""

    box: FloatArray
    """(4,) float32 x1, y1, x2, y2 of the box, in pixels."""
    landmarks: FloatArray
    """(5, 2) float32 x, y in pixels: image-left eye, image-right eye, nose, image-left mouth
    corner, image-right mouth corner, where image-left is the left side of the upright picture."""
    score: float
    """The detector's score of the face, in [0, 1]."""
    embedding: FloatArray | None = None
    """(d,) float32 of unit length: the recognizer's vector of the face, similar for faces of one
    person. None, the default: no recognizer has seen the face."""
    shape: FaceShape | None = None
    """The outline, features and angles of the face; None, the default: no mesh was found."""
    detector_landmarks: FloatArray | None = None
    """(5, 2) float32, the detector's own landmarks of a face whose `landmarks` come from its mesh;
    None, the default: there are no others."""

    def __post_init__(self) -> None:
        _check("box", self.box, (4,), np.float32)
        _check("landmarks", self.landmarks, (5, 2), np.float32)
