"""Faces marked by hand in the list of shots: find the face inside each box."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import cv2
import numpy as np
import numpy.typing as npt

from vidrestore.analysis.detection import upright_picture
from vidrestore.analysis.replay import frames_again
from vidrestore.analysis.result import Analysis
from vidrestore.analysis.shot_list import ShotList
from vidrestore.common.counting import counted
from vidrestore.common.events import OnEvent, notify
from vidrestore.common.settings import Settings
from vidrestore.imaging.frame import FloatArray
from vidrestore.imaging.geometry import landmarks_in_box, overlaps, upright
from vidrestore.media.decode import TimeRange
from vidrestore.models.detectors import Detection, Detector, moved
from vidrestore.models.factory import chosen_detector

Marked = tuple[int, tuple[float, ...]]
"""The frame of a box drawn by hand, and its edges (x1, y1, x2, y2) in pixels of the upright
picture."""

NO_POINTS: Mapping[Marked, FloatArray] = MappingProxyType({})
"""The result of `faces_in_boxes` where no face was looked for."""

# The detector sees the box with as much around it, because it misses a face that fills a picture.
_AROUND = 0.5
# A small box is enlarged by at most this factor before the detector looks at it.
_MOST_ENLARGED = 8.0
# The user marked a face here, so a lower confidence is enough.
_LESS_SURE = 0.5


def faces_in_boxes(
    wanted_shots: ShotList,
    analysis: Analysis,
    source: Path,
    settings: Settings,
    span: TimeRange | None = None,
    on_event: OnEvent | None = None,
) -> dict[Marked, FloatArray]:
    """Find the face inside each box that the user drew; its middle lies within the box.

    The detector looks at the box and its surroundings, enlarged, so that it finds faces that it
    misses in the whole picture. Boxes outside their shot or in skipped shots are not searched. A
    notice counts the boxes without a face.

    Args:
        wanted_shots: The list of shots.
        analysis: The analysis of the source.
        source: The source, of which the marked frames are read again.
        settings: The settings; `detect`, `restore` (for the device) and `weights` matter.
        span: The part of the source that was analyzed. Default: all.
        on_event: Receives notices and the progress of a download. Default: none.

    Returns:
        Box -> (5, 2) float32 landmarks (x, y) of the face, in pixels of the upright picture. Boxes
        without a face are missing.

    Raises:
        InputError: The source cannot be read.
        ChangedSourceError: The source has other frames than the analysis.
        WeightsError: The weights of the detector are missing or damaged.
    """
    boxes = sorted({
        mark
        for shot in wanted_shots.shots if not shot.skip
        for face in shot.faces
        for mark in face if shot.start <= mark[0] < min(shot.end, analysis.frame_count)
    })  # fmt: skip
    if not boxes:
        return {}
    how = settings.detect
    less = {"score": how.score * _LESS_SURE, "yunet_score": how.yunet_score * _LESS_SURE}
    settings = settings.model_copy(update={"detect": how.model_copy(update=less)})
    detector = chosen_detector(settings, on_event)
    view, found = upright(analysis.info), dict[Marked, FloatArray]()
    for index in sorted({frame for frame, _ in boxes}):
        (frame,) = frames_again(source, analysis, span, first=index, end=index + 1)
        picture = upright_picture(frame.image, analysis.info, view)
        for at, box in boxes:
            if at != index:
                continue
            face = _face_in(picture, np.array(box), detector, how.size_px)
            if face is not None:
                found[at, box] = face.landmarks
    if missed := len(boxes) - len(found):
        notify(
            on_event,
            f"vidrestore found no face in {missed} of {counted(len(boxes), 'box', 'boxes')} drawn "
            "by hand; the landmarks there are guessed from the box, so draw it from the brows to "
            "the chin",
        )
    return found


def _face_in(
    picture: npt.NDArray[np.uint8], box: npt.NDArray[np.float64], detector: Detector, size_px: int
) -> Detection | None:
    """Return the face in pixels of the picture that agrees best with a box; None without one."""
    height, width = picture.shape[:2]
    margin = _AROUND * (box[2:] - box[:2])
    x0, y0 = np.maximum(np.floor(box[:2] - margin), 0).astype(int)
    x1, y1 = np.minimum(np.ceil(box[2:] + margin) + 1, [width, height]).astype(int)
    if x1 - x0 < 2 or y1 - y0 < 2:
        return None
    part = picture[y0:y1, x0:x1]
    factor = min(size_px / max(part.shape[:2]), _MOST_ENLARGED)
    side = [max(2, round(length * factor)) for length in (x1 - x0, y1 - y0)]
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    look = np.asarray(cv2.resize(part, side, interpolation=how), np.uint8)
    # Pixel centers of the enlarged part -> of the picture.
    scale = np.array([(x1 - x0) / side[0], (y1 - y0) / side[1]])
    back = np.column_stack([np.diag(scale), 0.5 * scale - 0.5 + [x0, y0]])
    faces = [moved(face, back) for face in detector(look)]
    middles = [(face.box[:2] + face.box[2:]) / 2 for face in faces]
    inside = [
        face
        for face, middle in zip(faces, middles, strict=True)
        if (middle >= box[:2]).all() and (middle <= box[2:]).all()
    ]
    if not inside:
        return None
    shared = overlaps(box, np.array([face.box for face in inside]))
    return inside[int(np.argmax(shared))]


def landmarks_of_marks(
    face: Sequence[Marked], points: Mapping[Marked, FloatArray]
) -> npt.NDArray[np.float64]:
    """Return the landmarks of a face marked by hand at each of its boxes.

    A box in which no face was found gets the landmarks of the nearest box of the face in which one
    was, at the same place within the box; else they are guessed from the box.

    Args:
        face: The boxes of the face, ordered by frame.
        points: The result of `faces_in_boxes`.

    Returns:
        (boxes, 5, 2) landmarks (x, y) in pixels of the upright picture.
    """
    known = [mark for mark in face if mark in points]
    result = []
    for frame, edges in face:
        box = np.array(edges)
        if not known:
            result.append(landmarks_in_box(box))
            continue
        nearest = min(known, key=lambda mark: abs(mark[0] - frame))
        other = np.array(nearest[1])
        shares = (points[nearest] - other[:2]) / (other[2:] - other[:2])
        result.append(shares * (box[2:] - box[:2]) + box[:2])
    return np.array(result)
