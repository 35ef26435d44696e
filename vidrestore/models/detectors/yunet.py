"""The detector YuNet through OpenCV: small, fast, and free for any use."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from vidrestore.common.errors import WeightsError
from vidrestore.models.detectors import Detection, Detector, detection


class YuNet(Detector):
    """Takes pictures of any size; the score is YuNet's own."""

    def __init__(self, model: Path, *, score: float) -> None:
        """Open the network.

        Args:
            model: The .onnx file.
            score: Smallest score of a detection, in [0, 1].

        Raises:
            WeightsError: OpenCV cannot load the file.
        """
        self.least_score = score
        try:
            self._network = cv2.FaceDetectorYN.create(str(model), "", (320, 320), score)
        except cv2.error as error:
            raise WeightsError(
                f"the file {model} cannot be loaded as a YuNet model ({error.err}); fetch it again"
            ) from error

    def __call__(self, picture: npt.NDArray[np.uint8]) -> list[Detection]:
        """Detect faces.

        Args:
            picture: (H, W, 3) uint8 BGR, of any size.

        Returns:
            The faces, in pixels of the picture.
        """
        height, width = picture.shape[:2]
        self._network.setInputSize((width, height))
        _, rows = self._network.detect(picture)
        if rows is None:
            return []
        return [
            detection([x, y, x + w, y + h], row[4:14], row[14])
            for row in rows
            for x, y, w, h in (row[:4],)
        ]
