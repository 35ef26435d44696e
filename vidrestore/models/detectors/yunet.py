"""The detector YuNet through onnxruntime: small, fast, and free for any use.

OpenCV runs the same network three times slower.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from vidrestore.common.errors import WeightsError
from vidrestore.common.quoting import first_line
from vidrestore.common.system import usable_cores
from vidrestore.models.detectors import Detection, Detector, detection
from vidrestore.models.onnx_session import processor_session

# The network has a grid of cells for each stride; a picture is padded to whole cells of the last.
_STRIDES = (8, 16, 32)
_KINDS = ("cls", "obj", "bbox", "kps")
# Of two boxes with a larger overlap, the one with the lower score is dropped.
_SAME_FACE, _MOST_BOXES = 0.3, 5000
# From this score on, something resembles a face.
_HINT_SCORE = 0.3
# The memory for pictures of so many sizes is kept: the picture, the reduced and the turned ones.
_MOST_ROOMS = 4


class YuNet(Detector):
    """Takes pictures of any size; the score is YuNet's own."""

    def __init__(self, model: Path, *, score: float, threads: int | None = None) -> None:
        """Open the network.

        Args:
            model: The .onnx file.
            score: Smallest score of a detection, in [0, 1].
            threads: Threads for one picture; None (default) for one per core that this process may
                use.

        Raises:
            WeightsError: The file cannot be loaded as a YuNet model.
        """
        self.least_score = score
        self._outputs = [f"{kind}_{stride}" for kind in _KINDS for stride in _STRIDES]
        self._rooms: dict[
            tuple[int, int], tuple[list[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]
        ] = {}
        try:
            network = _of_any_size(model)
            self._session = processor_session(network, threads or usable_cores())
            missing = {*self._outputs} - {each.name for each in self._session.get_outputs()}
            if missing:
                raise ValueError(f"it has no output {min(missing)}")
            self._input = self._session.get_inputs()[0].name
        except Exception as error:  # neither onnx nor onnxruntime has a base class for its errors
            raise WeightsError(
                f"the file {model} cannot be loaded as a YuNet model ({first_line(error)}); "
                "fetch it again"
            ) from error

    def __call__(self, picture: npt.NDArray[np.uint8]) -> list[Detection]:
        """Detect faces.

        Args:
            picture: (H, W, 3) uint8 BGR, of any size.

        Returns:
            The faces, in pixels of the picture; those with the highest scores first.
        """
        return self._above(picture, self.least_score)

    def with_hint(self, picture: npt.NDArray[np.uint8]) -> tuple[list[Detection], bool]:
        """Detect faces, and tell whether anything else resembles one.

        Args:
            picture: (H, W, 3) uint8 BGR, of any size.

        Returns:
            What `__call__` returns, and whether another score exceeds 0.3.
        """
        # A box never drops another one with a higher score.
        found = self._above(picture, min(_HINT_SCORE, self.least_score))
        faces = [face for face in found if face.score > self.least_score]
        return faces, len(found) > len(faces)

    def _above(self, picture: npt.NDArray[np.uint8], least_score: float) -> list[Detection]:
        """Return the faces whose score exceeds a score, as `__call__` does."""
        planar = self._input_of(picture)
        outputs = self._session.run(self._outputs, {self._input: planar})
        values = dict(zip(self._outputs, outputs, strict=True))
        width = planar.shape[3]
        rows = np.concatenate([_rows(values, stride, width, least_score) for stride in _STRIDES])
        if not len(rows):
            return []
        kept = cv2.dnn.NMSBoxes(
            rows[:, :4].tolist(), rows[:, 14].tolist(), least_score, _SAME_FACE, top_k=_MOST_BOXES
        )
        return [
            detection([x, y, x + w, y + h], row[4:14], row[14])
            for row in rows[np.asarray(kept, np.intp).ravel()]
            for x, y, w, h in (row[:4],)
        ]

    def _input_of(self, picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return the input (1, 3, H, W) for a picture, black beyond it; the next call may overwrite
        it.
        """
        height, width = picture.shape[:2]
        room = self._rooms.pop((height, width), None)
        if room is None:
            last = _STRIDES[-1]
            size = -(-height // last) * last, -(-width // last) * last
            room = (
                [np.empty((height, width), np.uint8) for _ in range(3)],
                np.zeros((1, 3, *size), np.float32),
            )
            while len(self._rooms) >= _MOST_ROOMS:
                del self._rooms[next(iter(self._rooms))]
        self._rooms[height, width] = room  # the last one is the one that was used last
        planes, planar = room
        for target, plane in zip(planar[0], cv2.split(picture, planes), strict=True):
            target[:height, :width] = plane
        return planar


def _rows(
    values: dict[str, Any], stride: int, width: int, least_score: float
) -> npt.NDArray[np.float32]:
    """Return (n, 15) x, y, width, height, ten landmarks, score of the cells of one stride.

    A cell states the center of its face and the landmarks from its own corner, in strides, and the
    logarithm of the sides in strides.
    """
    cls, obj, box, points = (values[f"{kind}_{stride}"][0] for kind in _KINDS)
    score = np.sqrt(np.clip(cls[:, 0], 0, 1) * np.clip(obj[:, 0], 0, 1))
    cells = np.flatnonzero(score > least_score)
    if not len(cells):
        return np.empty((0, 15), np.float32)
    corner = np.column_stack([cells % (width // stride), cells // (width // stride)])
    center = (corner + box[cells, :2]) * stride
    sides = np.exp(box[cells, 2:]) * stride
    marks = (points[cells].reshape(-1, 5, 2) + corner[:, None]) * stride
    return np.column_stack([center - sides / 2, sides, marks.reshape(-1, 10), score[cells]]).astype(
        np.float32
    )


def _of_any_size(model: Path) -> bytes:
    """Return the network of a file, with the sides of its picture left open."""
    import onnx

    network = onnx.load(str(model))
    graph = network.graph
    for axis, name in ((2, "height"), (3, "width")):
        graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name
    for output in graph.output:
        output.type.tensor_type.shape.dim[1].dim_param = f"cells of {output.name}"
    del graph.value_info[:]  # the shapes between the layers, at the size in the file
    content: bytes = network.SerializeToString()
    return content
