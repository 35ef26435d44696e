"""The cascades that OpenCV carries: the only detector that needs no download, and a coarse one."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from vidrestore.imaging.frame import FloatArray
from vidrestore.imaging.geometry import apply, fit_similarity, landmarks_in_box
from vidrestore.models.detectors import Detection, Detector, detection

# Windows that agree on a face; from here on it counts as certain.
CERTAIN_NEIGHBORS = 30


class Haar(Detector):
    """Frontal faces by Viola and Jones (2001); the eyes are looked for, the rest is guessed."""

    coarse = True

    def __init__(self, *, neighbors: int) -> None:
        self._neighbors = neighbors
        self.least_score = neighbors / CERTAIN_NEIGHBORS
        self._faces = _cascade("haarcascade_frontalface_alt2.xml")
        self._eyes = _cascade("haarcascade_eye_tree_eyeglasses.xml")

    def __call__(self, picture: npt.NDArray[np.uint8]) -> list[Detection]:
        grey = np.asarray(cv2.equalizeHist(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)), np.uint8)
        boxes, counts = self._faces.detectMultiScale2(
            grey, scaleFactor=1.1, minNeighbors=self._neighbors, minSize=(24, 24)
        )
        return [
            detection(
                [x, y, x + w, y + h],
                self._landmarks(grey, x, y, w, h),
                min(1.0, count / CERTAIN_NEIGHBORS),
            )
            for (x, y, w, h), count in zip(boxes, counts, strict=True)
        ]

    def _landmarks(
        self, grey: npt.NDArray[np.uint8], x: int, y: int, w: int, h: int
    ) -> npt.NDArray[np.float64]:
        points = landmarks_in_box(np.array([x, y, x + w, y + h], np.float64))
        upper = grey[y : y + int(0.6 * h), x : x + w]
        found = self._eyes.detectMultiScale(upper, 1.1, 3, minSize=(w // 8, w // 8))
        eyes = _pair([(x + ex + ew / 2, y + ey + eh / 2) for ex, ey, ew, eh in found], points, w)
        if eyes is None:
            return points
        turned = fit_similarity(points[None, :2], eyes)[0]
        return np.asarray(apply(turned, points))


def _pair(
    centres: list[tuple[float, float]], points: npt.NDArray[np.float64], width: int
) -> FloatArray | None:
    """The two centres nearest to where eyes belong, if both are near enough to be eyes."""
    if len(centres) < 2:
        return None
    distance = np.linalg.norm(np.array(centres)[:, None] - points[None, :2], axis=-1)
    nearest = distance.argmin(axis=0)
    if nearest[0] == nearest[1] or distance.min(axis=0).max() > 0.12 * width:
        return None
    return np.array([centres[i] for i in nearest], dtype=np.float32)


def _cascade(file_name: str) -> cv2.CascadeClassifier:
    folder = Path(cv2.__file__).parent / "data"
    return cv2.CascadeClassifier(str(folder / file_name))
