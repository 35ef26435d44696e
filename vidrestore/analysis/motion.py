"""Motion of faces from frame to frame, measured in their pixels instead of their landmarks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

from vidrestore.analysis.tracks import Motion, Observation
from vidrestore.imaging import planes
from vidrestore.imaging.filters import box_blur, gaussian_blur
from vidrestore.imaging.frame import Frame, VideoInfo
from vidrestore.imaging.geometry import (
    Matrix,
    apply,
    compose,
    covering_rect,
    crop_matrix,
    fit_similarity,
    invert,
    overlaps,
    shifted,
    template,
    unit_corners,
    upright,
)
from vidrestore.models.detectors import Detection

if TYPE_CHECKING:
    import av

Gray = npt.NDArray[np.uint8]

# The template with the wider view; the eyes are 31 pixels apart in the crop.
_CROP_PX, _TEMPLATE = 128, "ffhq"
# The size of the window of the local mean, and the largest shift of the corners of a crop at which
# the crop of the frame before is used again.
_AROUND_PX, _REUSED_PX = 31, 5.0
# The center and the half axes of the inner face in the crop, without background that moves
# differently.
_CENTER, _HALF_AXES = (0.5, 0.53), (0.22, 0.30)
_CORNERS, _CORNER_QUALITY, _CORNER_DISTANCE_PX = 96, 0.01, 4
_WINDOW_PX, _LEVELS = (15, 15), 2
_STOP = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 20, 0.01)
# The largest error of tracking forward and back; the residual at which the weight of a point in the
# fit is one half; the largest residual of a point that agrees.
_OPEN_PX, _DOUBT_PX, _AGREEING_PX = 0.5, 0.33, 1.0
_ROUNDS = 8
# Detail finer than this vanishes first in a blur, and is still coarser than most noise.
_FINE_PX = 1.5
_LEAST_POINTS = 8
_LEAST_OVERLAP = 0.1
# A crop that exceeds the frame this many times does not show a face.
_LARGEST_CROP = 10


def follow(
    seen: Iterator[tuple[Frame, Observation]], estimator: FaceMotionEstimator
) -> Iterator[Observation]:
    """Add motions to observations, and faces that the detector missed but that can be followed.

    Args:
        seen: Each frame with its observation, in order.
        estimator: The estimator, used for this stream alone.

    Yields:
        The observations with motions, sharpness and carried faces.
    """
    for frame, observation in seen:
        faces, motions = estimator.follow(frame.image, observation.detections)
        sharpness = estimator.sharpness()
        yield replace(observation, detections=faces, motions=motions, sharpness=sharpness)


@dataclass(frozen=True, slots=True, eq=False)
class _FaceCrop:
    """A face and its crop in one frame."""

    face: Detection
    carried_frames: int
    """The number of frames since the detector found the face."""
    crop: Gray
    matrix: Matrix
    """Convention: frame pixel centers (x, y) -> pixel centers of `crop`."""


class FaceMotionEstimator:
    """Follows the faces of one stream; called for every frame, in order, from one thread.

    It keeps a gray crop of 128 x 128 pixels of each face of the last frame, and no picture. The
    crop shows luma, or green in RGB, around the upright face in square pixels, minus the local
    mean. Without the mean, a change of the light is not mistaken for motion.
    """

    def __init__(self, info: VideoInfo, *, carry_frames: int, least_support: float) -> None:
        """Set up the estimator.

        Args:
            info: The properties of the frames.
            carry_frames: The number of frames for which a face is followed without a detection.
            least_support: The least share of the points, in [0, 1], that must agree for a face to
                be followed without a detection.
        """
        self._size = (info.width, info.height)
        self._info = info
        self._carry_frames = carry_frames
        self._least_support = least_support
        self._to_upright = upright(info).matrix
        self._inner_face = _ellipse()
        self._before: list[_FaceCrop | None] = []

    def follow(
        self, image: av.VideoFrame, found: Sequence[Detection]
    ) -> tuple[tuple[Detection, ...], dict[tuple[int, int], Motion]]:
        """Measure how the faces of the next frame moved since the frame before.

        Faces of the frame before that overlap no detection are followed by their pixels if
        possible. Such a carried face has a score of NaN.

        Convention: each `Motion.matrix` leads from pixel centers (x, y) of the frame before to
        those of this frame.

        Args:
            image: The decoded frame, planar, of 8 to 16 bits.
            found: The detections in frame pixels; empty where the detector did not run.

        Returns:
            (faces, motions): `found` and after them the carried faces; and the motion of each pair
            (index in the faces of the frame before, index in `faces`) that overlaps and has enough
            points to follow.
        """
        faces = list(found)
        crops = [self._face_crop(image, face) for face in faces]
        boxes = np.array([face.box for face in found]).reshape(-1, 4)
        motions = {}
        for i, before in enumerate(self._before):
            if before is None:
                continue
            near = np.flatnonzero(overlaps(before.face.box, boxes)[0] > _LEAST_OVERLAP).tolist()
            for j in near:
                after = crops[j]
                motion = None if after is None else self._motion(before, after)
                if motion is not None:
                    motions[i, j] = motion
            carried = None if near else self._carried(image, before)
            if carried is not None:
                face_crop, motions[i, len(faces)] = carried
                faces.append(face_crop.face)
                crops.append(face_crop)
        self._before = crops
        return tuple(faces), motions

    def sharpness(self) -> tuple[float, ...]:
        """Measure, for each face of the last frame, the share of its contrast in its finest detail.

        Returns:
            One number for each face, 0 or more; NaN for a face outside the frame.
        """
        return tuple(
            math.nan if face_crop is None else self._fine_detail_share(face_crop.crop)
            for face_crop in self._before
        )

    def _fine_detail_share(self, crop: Gray) -> float:
        inside = self._inner_face > 0
        gray = crop.astype(np.float32)
        fine = gray - gaussian_blur(gray, _FINE_PX)
        return float(fine[inside].std() / max(float(gray[inside].std()), 1.0))

    def _carried(self, image: av.VideoFrame, before: _FaceCrop) -> tuple[_FaceCrop, Motion] | None:
        """Follow a face that the detector missed, around the place where it was."""
        crop = self._crop(image, before.matrix)
        age = before.carried_frames + 1
        if age > self._carry_frames or crop is None:
            return None
        motion = self._motion(before, _FaceCrop(before.face, age, crop, before.matrix))
        if motion is None or motion.support < self._least_support:
            return None
        face = _moved(before.face, motion.matrix)
        middle = face.landmarks.mean(axis=0)
        face_crop = self._face_crop(image, face, age)
        if face_crop is None or (middle < 0).any() or (middle > self._size).any():
            return None
        return face_crop, motion

    def _face_crop(self, image: av.VideoFrame, face: Detection, age: int = 0) -> _FaceCrop | None:
        """Crop a face; None if it lies outside the frame or its landmarks are impossible."""
        seen = apply(self._to_upright, face.landmarks.astype(np.float64))
        to_unit = fit_similarity(seen[None], template(_TEMPLATE))[0]
        if not np.hypot(*to_unit[:, 0]) * max(self._size) > 1 / _LARGEST_CROP:
            return None
        matrix = crop_matrix(compose(to_unit, self._to_upright), _CROP_PX).astype(np.float64)
        matrix = self._reused_matrix(matrix)
        crop = self._crop(image, matrix)
        return None if crop is None else _FaceCrop(face, age, crop, matrix)

    def _reused_matrix(self, matrix: Matrix) -> Matrix:
        """Return the matrix of a crop of the frame before if it differs little, otherwise `matrix`.

        A still face is then sampled at the same places, so that only its noise changes.
        """
        corners = unit_corners() * _CROP_PX
        for before in self._before:
            if before is not None:
                off = apply(compose(before.matrix, invert(matrix)), corners) - corners
                if np.linalg.norm(off, axis=-1).max() < _REUSED_PX:
                    return before.matrix
        return matrix

    def _crop(self, image: av.VideoFrame, matrix: Matrix) -> Gray | None:
        """Sample a crop: (128, 128) uint8 around 128; None where it lies outside the frame.

        The border of the frame is repeated. The frame is averaged over areas first where it has
        more pixels than the crop.
        """
        how = planes.layout(image)
        samples = planes.plane(image, how.planes[1 if how.is_rgb else 0])
        corners = apply(invert(matrix), unit_corners() * _CROP_PX - 0.5)
        rect = covering_rect(corners, self._info, grid=(1, 1), margin_px=2)
        if rect.is_empty:
            return None
        part = np.ascontiguousarray(samples[rect.y0 : rect.y1, rect.x0 : rect.x1])
        matrix = shifted(matrix, rect)
        scale = np.minimum(np.linalg.norm(matrix[:, :2], axis=0), 1)
        if scale.min() < 1:
            size = np.array(part.shape[::-1])
            smaller = np.maximum(1, np.round(scale * size)).astype(int)
            part = np.asarray(cv2.resize(part, smaller.tolist(), interpolation=cv2.INTER_AREA))
            step = size / smaller
            matrix = compose(matrix, np.column_stack([np.diag(step), (step - 1) / 2]))
        crop = cv2.warpAffine(part, matrix, (_CROP_PX, _CROP_PX), borderMode=cv2.BORDER_REPLICATE)
        gray = cv2.convertScaleAbs(crop, alpha=2.0 ** (8 - how.bits))
        local_mean = box_blur(gray, _AROUND_PX, _AROUND_PX)
        return np.asarray(cv2.addWeighted(gray, 1, local_mean, -1, 128), np.uint8)

    def _motion(self, before: _FaceCrop, after: _FaceCrop) -> Motion | None:
        """Return the similarity on which most points of the inner face agree; None with too few.

        Both crops are cut around the face, so only a small motion is left to measure.
        """
        start = cv2.goodFeaturesToTrack(
            before.crop, _CORNERS, _CORNER_QUALITY, _CORNER_DISTANCE_PX, mask=self._inner_face
        )
        if start is None:
            return None
        p = start[self._in_frame(start[:, 0], before), 0]
        if len(p) < _LEAST_POINTS:
            return None
        q, closes = _followed(before.crop, after.crop, p)
        closes &= self._in_frame(q, after)
        if np.count_nonzero(closes) < _LEAST_POINTS:
            return None
        similarity, off = _robust_similarity(p[closes], q[closes])
        agreeing = int(np.count_nonzero(off < _AGREEING_PX))
        matrix = compose(invert(after.matrix), compose(similarity, before.matrix))
        return Motion(matrix, agreeing / len(p), agreeing)

    def _in_frame(self, points: npt.NDArray[Any], face_crop: _FaceCrop) -> npt.NDArray[np.bool_]:
        """Tell which crop points, (n,), show the frame and not its repeated border."""
        at = apply(invert(face_crop.matrix), points.astype(np.float64))
        return np.asarray(((at >= 0) & (at <= np.array(self._size) - 1)).all(axis=-1))


def _followed(
    before: Gray, after: Gray, points: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Track (n, 2) points, and tell for which of them, (n,), tracking back returns to the start.

    Pyramidal Lucas-Kanade (Bouguet, 2000), forward and back (Kalal et al., ICPR 2010).
    """
    there, status, _ = cv2.calcOpticalFlowPyrLK(
        before, after, points, points.copy(), winSize=_WINDOW_PX, maxLevel=_LEVELS, criteria=_STOP
    )
    back, status_back, _ = cv2.calcOpticalFlowPyrLK(
        after, before, there, points.copy(), winSize=_WINDOW_PX, maxLevel=_LEVELS, criteria=_STOP
    )
    open_px = np.linalg.norm(np.asarray(back) - points, axis=-1)
    is_tracked = (np.asarray(status) > 0)[:, 0] & (np.asarray(status_back) > 0)[:, 0]
    closes = is_tracked & (open_px < _OPEN_PX)
    return np.asarray(there, np.float32), closes


def _robust_similarity(
    p: npt.NDArray[Any], q: npt.NDArray[Any]
) -> tuple[Matrix, npt.NDArray[np.float64]]:
    """Fit a similarity (2, 3) from (n, 2) p to q; return it and the (n,) residuals.

    Least squares as in `fit_similarity`, with the weight 1 / (1 + (residual / 0.33)^2) for each
    point, which is Cauchy's weight, over eight rounds (Holland and Welsch, 1977).
    """
    start, end = p @ [1, 1j], q @ [1, 1j]
    weights = np.ones(len(p))
    for _ in range(_ROUNDS):
        share = weights / weights.sum()
        a, b = start - share @ start, end - share @ end
        factor = (share * a.conj()) @ b / max((share * abs(a) ** 2).sum(), 1e-9)
        off = abs(b - factor * a)
        weights = 1 / (1 + (off / _DOUBT_PX) ** 2)
    shift = share @ end - factor * (share @ start)
    rows = [[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]]
    return np.array(rows), off


def _moved(face: Detection, motion: Matrix) -> Detection:
    """Move a face by a motion; its box stays parallel to the frame."""
    middle, half = (face.box[:2] + face.box[2:]) / 2, (face.box[2:] - face.box[:2]) / 2
    middle = apply(motion, middle[None])[0]
    half = half * math.sqrt(abs(np.linalg.det(motion[:, :2])))
    return Detection(
        np.concatenate([middle - half, middle + half]).astype(np.float32),
        apply(motion, face.landmarks.astype(np.float64)).astype(np.float32),
        math.nan,
    )


def _ellipse() -> Gray:
    """Draw the mask of the inner face: (128, 128) uint8, 255 inside, otherwise 0."""
    mask = np.zeros((_CROP_PX, _CROP_PX), np.uint8)
    center, half_axes = ([round(x * _CROP_PX) for x in pair] for pair in (_CENTER, _HALF_AXES))
    cv2.ellipse(mask, center, half_axes, 0, 0, 360, (255,), -1)
    return mask
