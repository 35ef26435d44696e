"""Tracks become smooth geometry: landmarks that do not tremble, and the crop they define."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import solveh_banded

from vidrestore.frame import FloatArray, RawTrack, Track, VideoInfo
from vidrestore.geometry import (
    apply,
    compose,
    crop_side_px,
    fit_similarity,
    invert,
    template,
    upright,
)

_ORDER = 3
_ROUNDS = 6
# Residual, in eye distances, at which a landmark counts half: a sighting further off is an error.
_OUTLIER_EYES = 0.06
_SMALLEST_WORK_PX, _LARGEST_WORK_PX = 64, 2048


def align(
    tracks: Sequence[RawTrack],
    info: VideoInfo,
    *,
    template_name: str,
    smoothness: float,
    min_face_px: float,
    fade_seconds: float,
) -> list[Track]:
    """Smooth every track by itself, so that nothing leaks across a cut.

    `smoothness` is meant for 25 frames per second and scaled with the rate. The crop is fitted in
    the upright, square-pixel view; the matrices carry rotation, flips and pixel aspect ratio.
    """
    to_upright = upright(info).matrix
    points = template(template_name)
    weight = smoothness * float(info.frame_rate / 25) ** (2 * _ORDER)
    fade_frames = round(fade_seconds * info.frame_rate)
    aligned = []
    for track_id, raw in enumerate(tracks):
        seen = apply(to_upright, raw.landmarks.astype(np.float64))
        smooth = smooth_landmarks(seen, weight)
        upright_to_unit = fit_similarity(smooth, points)
        detected = np.isfinite(raw.score)
        aligned.append(
            Track(
                track_id=track_id,
                person_id=track_id + 1,
                first_frame=raw.first_frame,
                work_px=_work_px(compose(upright_to_unit, to_upright)),
                matrices=compose(upright_to_unit, to_upright).astype(np.float32),
                landmarks=apply(invert(to_upright), smooth).astype(np.float32),
                score=_filled(raw.score),
                strength=_strength(
                    raw, _eye_distance_px(upright_to_unit, points), min_face_px, fade_frames
                ),
                detected=detected,
            )
        )
    return aligned


def smooth_landmarks(seen: npt.NDArray[Any], weight: float) -> npt.NDArray[np.float64]:
    """(n, 5, 2) landmarks, NaN where missing -> smooth ones for every frame.

    Each landmark for itself: min over x of sum w |x - z|^2 + weight * |D3 x|^2 (Whittaker 1923;
    Eilers, Anal. Chem. 75, 2003), with Cauchy weights w taken from the smoothed residuals over
    six rounds, so that one bad point is put aside without giving up its frame.
    """
    found = np.isfinite(seen[:, :, 0])
    eyes = np.linalg.norm(seen[:, 1] - seen[:, 0], axis=-1)
    limit = max(_OUTLIER_EYES * float(np.nanmedian(eyes)), 1e-6)
    smooth = np.empty(seen.shape)
    for point in range(seen.shape[1]):
        z = np.where(found[:, point, None], seen[:, point], 0.0)
        weights = found[:, point].astype(float)
        for _ in range(_ROUNDS):
            smooth[:, point] = whittaker(z, weights, weight)
            residual = np.linalg.norm(smooth[:, point] - z, axis=-1)
            weights = found[:, point] / (1 + (residual / limit) ** 2)
    return smooth


def whittaker(
    z: npt.NDArray[Any], weights: npt.NDArray[Any], smoothness: float
) -> npt.NDArray[np.float64]:
    """(n, c) samples with (n,) weights -> (n, c) smooth ones; a banded solve, O(n)."""
    n = len(z)
    order = min(_ORDER, n - 1, max(int(np.count_nonzero(weights)) - 1, 0))
    if order == 0:
        return np.repeat(np.average(z, axis=0, weights=weights)[None], n, axis=0)
    difference = np.diff(np.eye(order + 1), n=order, axis=0)[0]
    bands = np.zeros((order + 1, n))  # upper form: bands[order - k, k:] is the k-th diagonal
    for k in range(order + 1):
        for i in range(order + 1 - k):
            product = difference[i] * difference[i + k]
            bands[order - k, i + k : n - order + i + k] += smoothness * product
    bands[order] += weights
    # A tiny ridge keeps the system solvable where only a few frames carry weight.
    bands[order] += 1e-9
    return np.asarray(solveh_banded(bands, weights[:, None] * z))


def _work_px(matrices: npt.NDArray[Any]) -> int:
    """The smallest power of two not below the largest crop."""
    side = max(crop_side_px(matrix) for matrix in matrices)
    return int(np.clip(2 ** np.ceil(np.log2(side)), _SMALLEST_WORK_PX, _LARGEST_WORK_PX))


def _eye_distance_px(
    upright_to_unit: npt.NDArray[Any], points: npt.NDArray[Any]
) -> npt.NDArray[Any]:
    """(n,) distance that the eyes would have if the face looked straight ahead."""
    eyes = float(np.linalg.norm(points[1] - points[0]))
    side = np.array([crop_side_px(matrix) for matrix in upright_to_unit])
    return np.asarray(eyes * side)


def _filled(score: FloatArray) -> FloatArray:
    known = np.flatnonzero(np.isfinite(score))
    return np.interp(np.arange(len(score)), known, score[known]).astype(np.float32)


def _strength(
    raw: RawTrack, eyes_px: npt.NDArray[Any], min_face_px: float, fade_frames: int
) -> FloatArray:
    """1, falling to 0 around the least size and where a track begins or ends inside its shot."""
    n = len(raw.score)
    strength = np.ones(n)
    if min_face_px > 0:
        strength = np.clip((eyes_px / min_face_px - 0.8) / 0.4, 0, 1)
    ramp = np.arange(1, n + 1) / (fade_frames + 1)
    if raw.first_frame > raw.shot[0]:
        strength = np.minimum(strength, ramp)
    if raw.first_frame + n < raw.shot[1]:
        strength = np.minimum(strength, ramp[::-1])
    return strength.astype(np.float32)
