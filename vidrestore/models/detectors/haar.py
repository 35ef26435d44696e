"""The Haar cascades of OpenCV: a coarse detector, and the only one that needs no download."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from vidrestore.imaging.frame import FloatArray
from vidrestore.imaging.geometry import apply, fit_similarity, landmarks_in_box
from vidrestore.models.detectors import Detection, Detector, detection

# Number of windows that agree on a face from which its score is 1.
CERTAIN_NEIGHBORS = 30


class Haar(Detector):
    """Frontal faces by Viola and Jones (2001); the eyes are looked for, the rest is guessed."""

    coarse = True

    def __init__(self, *, neighbors: int) -> None:
        """Load the cascades.

        Args:
            neighbors: Smallest number of windows that must agree on a face.
        """
        self._neighbors = neighbors
        self.least_score = neighbors / CERTAIN_NEIGHBORS
        self._faces = _cascade("haarcascade_frontalface_alt2.xml")
        self._eyes = _cascade("haarcascade_eye_tree_eyeglasses.xml")

    def __call__(self, picture: npt.NDArray[np.uint8]) -> list[Detection]:
        """Detect frontal faces.

        Args:
            picture: (H, W, 3) uint8 BGR.

        Returns:
            The faces, in pixels of the picture. Their landmarks are guessed from the box, and from
            the eyes where the cascade detects both.
        """
        gray = np.asarray(cv2.equalizeHist(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)), np.uint8)
        boxes, counts = self._faces.detectMultiScale2(
            gray, scaleFactor=1.1, minNeighbors=self._neighbors, minSize=(24, 24)
        )
        return [
            detection(
                [x, y, x + w, y + h],
                self._landmarks(gray, x, y, w, h),
                min(1.0, count / CERTAIN_NEIGHBORS),
            )
            for (x, y, w, h), count in zip(boxes, counts, strict=True)
        ]

    def _landmarks(
        self, gray: npt.NDArray[np.uint8], x: int, y: int, w: int, h: int
    ) -> npt.NDArray[np.float64]:
        points = landmarks_in_box(np.array([x, y, x + w, y + h], np.float64))
        upper = gray[y : y + int(0.6 * h), x : x + w]
        boxes = self._eyes.detectMultiScale(upper, 1.1, 3, minSize=(w // 8, w // 8))
        eyes = _pair([(x + ex + ew / 2, y + ey + eh / 2) for ex, ey, ew, eh in boxes], points, w)
        if eyes is None:
            return points
        matrix = fit_similarity(points[None, :2], eyes)[0]
        return np.asarray(apply(matrix, points))


def _pair(
    centers: list[tuple[float, float]], points: npt.NDArray[np.float64], width: int
) -> FloatArray | None:
    """Return the two centers nearest to the expected eyes, if both are near enough to be eyes."""
    if len(centers) < 2:
        return None
    distance = np.linalg.norm(np.array(centers)[:, None] - points[None, :2], axis=-1)
    nearest = distance.argmin(axis=0)
    if nearest[0] == nearest[1] or distance.min(axis=0).max() > 0.12 * width:
        return None
    return np.array([centers[i] for i in nearest], dtype=np.float32)


def _cascade(file_name: str) -> cv2.CascadeClassifier:
    folder = Path(cv2.__file__).parent / "data"
    return cv2.CascadeClassifier(str(folder / file_name))
