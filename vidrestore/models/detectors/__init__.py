"""The contract of a face detector, and how to look again with one."""

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

NAMES = ("insightface", "yunet", "haar")


class Detector(ABC):
    """The base class of everything that finds faces.

    A subclass defines `__call__` and sets the attributes that apply to it, on the class or on the
    instance. No detector is called from two threads at once.
    """

    coarse: bool = False
    """Whether landmarks are guessed from the box rather than seen. They are smoothed more then.
    Default: False."""
    least_score: float = 0.5
    """The least score that it gives to a face, in [0, 1]. The strength of the restored face rises
    from there on. Default: 0.5."""

    @abstractmethod
    def __call__(self, picture: npt.NDArray[np.uint8]) -> list[Detection]:
        """Find the faces of one upright picture.

        Args:
            picture: (H, W, 3) uint8, BGR, square pixels.

        Returns:
            The faces, in pixels of the picture. The same picture gives the same faces.
        """


class OneAtATime(Detector):
    """A detector for several threads: while one calls it, the others wait."""

    def __init__(self, detector: Detector) -> None:
        """Share a detector.

        Args:
            detector: Called by this object alone from now on.
        """
        self.coarse, self.least_score = detector.coarse, detector.least_score
        self._detector, self._lock = detector, Lock()

    def __call__(self, picture: npt.NDArray[np.uint8]) -> list[Detection]:
        with self._lock:
            return self._detector(picture)


def check_detector(detector: object) -> None:
    """Refuse what is no detector, before any work.

    Args:
        detector: What a caller gave as one.

    Raises:
        UsageError: It does not inherit `Detector`.
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
    """A Detection from whatever numbers a library returns."""
    return Detection(
        np.asarray(box, dtype=np.float32).reshape(4),
        np.asarray(landmarks, dtype=np.float32).reshape(5, 2),
        float(score),
    )


# Of the picture's sides, the border around it in a second look from afar.
_BORDER = 0.5
# Boxes that share more are of one face.
_SAME_FACE = 0.3


def look_from_afar(picture: npt.NDArray[np.uint8], detector: Detector) -> list[Detection]:
    """Faces of the picture seen at half the size, in a wide border.

    Detectors miss a face that fills the picture they are given.
    """
    height, width = picture.shape[:2]
    half = cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    x, y = round(half.shape[1] * _BORDER / 2), round(half.shape[0] * _BORDER / 2)
    found = detector(
        np.asarray(cv2.copyMakeBorder(half, y, y, x, x, cv2.BORDER_CONSTANT), np.uint8)
    )
    sx, sy = width / half.shape[1], height / half.shape[0]
    back = np.array([[sx, 0, (0.5 - x) * sx - 0.5], [0, sy, (0.5 - y) * sy - 0.5]])
    return [moved(face, back) for face in found]


def look_closely(
    picture: npt.NDArray[np.uint8], detector: Detector, tiles: Iterable[Rect], *, largest_px: int
) -> list[Detection]:
    """Faces of at most `largest_px` in parts of the picture, in pixels of the whole.

    Faces that an edge of a tile may cut are left to the next tile, which must overlap by as much.
    """
    found: list[Detection] = []
    height, width = picture.shape[:2]
    for tile in tiles:
        part = np.ascontiguousarray(picture[tile.y0 : tile.y1, tile.x0 : tile.x1])
        # An edge of the tile that is the picture's own cuts nothing more.
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
        found = with_others(found, whole)
    return found


def with_others(found: Sequence[Detection], others: Sequence[Detection]) -> list[Detection]:
    """`found` and those of the `others` that are faces besides."""
    result = list(found)
    for face in others:
        shared = overlaps(face.box, np.array([f.box for f in result]).reshape(-1, 4))
        if not (shared > _SAME_FACE).any():
            result.append(face)
    return result


def moved(face: Detection, matrix: Matrix) -> Detection:
    """The face in other pixels; `matrix` (2, 3) scales and shifts."""
    box = apply(matrix, face.box.reshape(2, 2)).reshape(4)
    points = apply(matrix, face.landmarks)
    return replace(face, box=box.astype(np.float32), landmarks=points.astype(np.float32))


@dataclass(frozen=True, slots=True, eq=False)
class Detection:
    """One face found in one picture."""

    box: FloatArray
    """(4,) x1 y1 x2 y2 in pixels."""
    landmarks: FloatArray
    """(5, 2) x, y in pixels: image-left eye, image-right eye, nose, image-left mouth corner,
    image-right mouth corner, as they stand in the upright picture."""
    score: float
    embedding: FloatArray | None = None
    """(d,) of unit length: whose face it is, as far as a recogniser can tell."""

    def __post_init__(self) -> None:
        _check("box", self.box, (4,), np.float32)
        _check("landmarks", self.landmarks, (5, 2), np.float32)
