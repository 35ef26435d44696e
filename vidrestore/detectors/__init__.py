"""The contract of a face detector, and how one is opened by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from vidrestore.frame import Detection

NAMES = ("insightface", "yunet", "haar")


class Detector(Protocol):
    """Finds the faces of one upright picture. Called from one thread at a time."""

    coarse: bool
    """Landmarks are guessed from the box rather than seen."""

    def __call__(self, picture: npt.NDArray[np.uint8]) -> list[Detection]:
        """(H, W, 3) uint8 BGR, square pixels -> faces in pixels of that picture."""
        ...


def open_detector(
    name: str,
    *,
    pack: str,
    size_px: int,
    score: float,
    yunet_score: float,
    haar_neighbors: int,
    find_weights: Callable[[str], Path],
) -> Detector:
    """The detector `name`; `find_weights` leads from a weight's name to its file or folder."""
    if name == "insightface":
        from vidrestore.detectors.insightface import InsightFace

        return InsightFace(find_weights(pack), size_px=size_px, score=score)
    if name == "yunet":
        from vidrestore.detectors.yunet import YuNet

        return YuNet(find_weights("yunet"), score=yunet_score)
    from vidrestore.detectors.haar import Haar

    return Haar(neighbors=haar_neighbors)


def detection(box: Any, landmarks: Any, score: float) -> Detection:
    """A Detection from whatever numbers a library returns."""
    return Detection(
        np.asarray(box, dtype=np.float32).reshape(4),
        np.asarray(landmarks, dtype=np.float32).reshape(5, 2),
        float(score),
    )
