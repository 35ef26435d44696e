"""Alignment: smooth the landmarks of tracks over time, and fit the face crop to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from vidrestore.analysis.tracks import HalfArray, Motion, RawTrack, Track, work_size
from vidrestore.common.settings import Align
from vidrestore.imaging.frame import BoolArray, FloatArray, VideoInfo
from vidrestore.imaging.geometry import (
    Matrix,
    apply,
    compose,
    crop_side_px,
    fit_similarity,
    invert,
    template,
    upright,
)
from vidrestore.models.face_mesh import OUTLINE_POINTS

_LANDMARK_ORDER, _DRIFT_ORDER = 3, 2
_ROUNDS = 6
# The weight of the third difference of shapes at 25 frames per second; the rounds of reweighting;
# and the mean residual, in sides of the crop, at which a frame has half its weight.
_SHAPE_SMOOTHNESS, _SHAPE_ROUNDS, _SHAPE_OUTLIER = 2.0, 3, 0.01
# The outline of a shape is smoothed further. It follows its average over about a second, the
# first time, until the shape differs from that by more than this share of the crop's side: the soft
# edge of a mask, which is wider, hides smaller errors, but not trembling. Where it departs, as on a
# head that turns quickly, the shape itself is smoothed over the second time.
_OUTLINE_SECONDS, _OUTLINE_SLACK, _QUICK_SECONDS = 1.0, 0.01, 0.1
_OUTLINE_ORDER = 2
# At this angle per frame, times the seconds of a smoother, its amplitude is one half.
_HALF_AMPLITUDE = 1.18
# The least share of the detections of a track with a mesh, and the weight of the other frames.
_LEAST_SHARE_WITH_SHAPE, _WEIGHT_WITHOUT_SHAPE = 0.5, 0.05
# The residual, in eye distances, at which the weight of a landmark is one half: a landmark further
# off is an error. The limit for the drift is lower, because the measured motion is already removed.
_OUTLIER_EYES, _DRIFT_OUTLIER_EYES = 0.06, 0.05
# Weight of the third difference against measured motion. It removes the noise of the motion from
# frame to frame, and a twentieth of shaking at 5 Hz.
_STEADINESS = 0.02
# The largest weight of a difference, against a sample's weight of 1: beyond it, rounding errors
# outweigh the samples.
_MOST_SMOOTHNESS = 1e9
_RIDGE, _RIDGE_OF_SMOOTHNESS = 1e-9, 1e-13
# The limits, as multiples of 25 frames per second, beyond which smoothing ignores the frame rate.
_SLOWEST, _FASTEST = 1 / 25, 40.0
_LEAST_POINTS = 12
# The second difference of the drift, in eye distances, at which the stiffness is halved: a larger
# one shows that the measured motion is wrong.
_KINK_EYES = 0.0007
# The stiffness of the drift where motion was not measured, relative to where it was.
_UNMEASURED = 0.1
# The number of detections that are compared on either side of a possible break.
_AROUND_BREAK = 3
_SMALLEST_WORK_PX, _LARGEST_WORK_PX = 64, 2048

Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def align(
    tracks: Sequence[RawTrack],
    info: VideoInfo,
    how: Align,
    *,
    template_name: str,
    coarse: bool,
    repeats: BoolArray | None = None,
) -> list[Track]:
    """Smooth every track by itself and fit a crop to its landmarks in each frame.

    The weights of `how` are meant for 25 frames per second and are scaled with the frame rate, from
    1 to 1000 frames per second: the weight of the p-th difference stands for the same time constant
    as its power 2 p. A rate outside this range counts as the nearest one inside it.

    Convention: `matrices` of the result lead from frame pixel centers (x, y) to the unit crop with
    edges at 0 and 1. The crop is fitted in the upright, square-pixel view, so the matrices carry
    rotation, flips and the pixel aspect ratio.

    Args:
        tracks: The tracks, in frame pixels.
        info: The properties of the frames.
        how: The weights, and `least_support`: a motion on which a smaller share of its points agree
            is not used.
        template_name: The template of the crop: "gpen" or "ffhq".
        coarse: Whether the detector guessed the landmarks from boxes. If so, the weight is
            `coarse_smoothness`, otherwise `smoothness`.
        repeats: (frames,) True where a frame of the video shows the same picture as the frame
            before. Smoothing leaves such a frame out, and the frame gets the geometry of the one
            before it, so that their crops are equal too. Default: no frame repeats.

    Returns:
        The tracks in the order given, all with a strength of 1; `vidrestore.analysis.strength`
        computes the strength.
    """
    smoothness = how.coarse_smoothness if coarse else how.smoothness
    to_upright = upright(info).matrix
    points = template(template_name)
    faster = min(max(float(info.frame_rate / 25), _SLOWEST), _FASTEST)
    aligned = []
    for track_id, raw in enumerate(tracks):
        seen = apply(to_upright, raw.landmarks.astype(np.float64))
        seen[np.isnan(raw.score)] = np.nan
        moves = upright_motions(raw.motions, to_upright, how.least_support)
        starts, sightings, picture = _pictures(raw, repeats)
        seen, moves = seen[sightings], moves[starts] if len(moves) else moves
        smooth = smooth_landmarks(seen, smoothness * faster ** (2 * _LANDMARK_ORDER))
        if np.isfinite(moves).any():
            smooth = follow_motion(
                seen, smooth, moves, smoothness=how.motion_smoothness, faster=faster
            )
        smooth = smooth[picture]
        upright_to_unit = fit_similarity(smooth, points)
        shapes, angles = _smooth_shapes(raw, sightings, faster)
        aligned.append(
            Track(
                track_id=track_id,
                person_id=track_id + 1,
                first_frame=raw.first_frame,
                work_px=_work_px(compose(upright_to_unit, to_upright)),
                matrices=compose(upright_to_unit, to_upright).astype(np.float32),
                landmarks=apply(invert(to_upright), smooth).astype(np.float32),
                score=_filled(raw.score),
                strength=np.ones(len(raw.score), np.float32),
                detected=np.isfinite(raw.score),
                shapes=None if shapes is None else _in_crop(shapes[picture], smooth, points),
                angles_degrees=None if angles is None else angles[picture].astype(np.float32),
            )
        )
    return aligned


def _smooth_shapes(
    raw: RawTrack, sightings: Sequence[int], faster: float
) -> tuple[Array | None, Array | None]:
    """Smooth the shapes and angles of a track over time, with less weight for bad frames.

        `faster` is the frame rate over 25. Returns (n, 86, 2) and (n, 2) float64 for the frames of
    X
    """
    if raw.shapes is None or raw.angles_degrees is None:
        return None, None
    shapes = raw.shapes[list(sightings)].astype(np.float64)
    angles = raw.angles_degrees[list(sightings)].astype(np.float64)
    found = np.isfinite(angles[:, 0])
    detected = np.isfinite(raw.score)[list(sightings)]
    if np.count_nonzero(found) < _LEAST_SHARE_WITH_SHAPE * max(int(detected.sum()), 1):
        return None, None
    at = np.flatnonzero(found)
    sparse = np.column_stack([shapes.reshape(len(shapes), -1), angles])
    # Between and beyond the frames with a mesh, interpolated values hold the result in place.
    values = np.column_stack(
        [np.interp(np.arange(len(found)), at, column[at]) for column in sparse.T]
    )
    trust = np.where(found, 1.0, _WEIGHT_WITHOUT_SHAPE)
    weights = trust
    for _ in range(_SHAPE_ROUNDS):
        smooth = whittaker(values, weights, _SHAPE_SMOOTHNESS * faster ** (2 * _LANDMARK_ORDER))
        residual = np.abs(smooth - values)[:, :-2].mean(axis=1)
        weights = trust / (1 + (residual / _SHAPE_OUTLIER) ** 2)
    smooth[:, : 2 * OUTLINE_POINTS] = _steady(smooth[:, : 2 * OUTLINE_POINTS], weights, 25 * faster)
    return smooth[:, :-2].reshape(shapes.shape), smooth[:, -2:]


def _steady(outline: Array, weights: Array, frame_rate: float) -> Array:
    """Smooth (n, 2 k) points further, more where they hardly move than where they move far."""

    def over(seconds: float, order: int) -> Array:
        stiffness = (seconds * frame_rate / _HALF_AMPLITUDE) ** (2 * order)
        return whittaker(outline, weights, stiffness, order=order)

    slow, quick = over(_OUTLINE_SECONDS, _OUTLINE_ORDER), over(_QUICK_SECONDS, _LANDMARK_ORDER)
    off = (quick - slow).reshape(len(outline), -1, 2)
    far = np.linalg.norm(off, axis=-1, keepdims=True)
    share = (1 - _OUTLINE_SLACK / np.maximum(far, _OUTLINE_SLACK)).clip(0)
    return np.asarray(slow + (off * share).reshape(outline.shape))


def _in_crop(shapes: Array, smooth: Array, points: npt.NDArray[Any]) -> HalfArray:
    """Convert shapes from the crop with the template "gpen" to the crop with another template.

    Convention: `shapes` and the result are (x, y) in unit crops with edges at 0 and 1.

    Args:
        shapes: (n, 86, 2) points.
        smooth: (n, 5, 2) landmarks in the upright view.
        points: (5, 2) the template.

    Returns:
        (n, 86, 2) float16.
    """
    to_gpen = fit_similarity(smooth, template("gpen"))
    moved = compose(fit_similarity(smooth, points), invert(to_gpen))
    return np.asarray(apply(moved, shapes), np.float16)


def _pictures(raw: RawTrack, repeats: BoolArray | None) -> tuple[list[int], list[int], IntArray]:
    """Group the frames of a track by the picture that they show.

    Returns the first frame of each picture; one frame of each picture, in which the detector found
    the face if it did so in any; and (n,) the index of the picture of each frame.
    """
    n = len(raw.score)
    is_repeat = np.zeros(n, bool) if repeats is None else repeats[raw.first_frame :][:n].copy()
    is_repeat[0] = False
    starts = np.flatnonzero(~is_repeat).tolist()
    detected = np.isfinite(raw.score)
    sightings = [a + int(np.argmax(detected[a:b])) for a, b in pairwise([*starts, n])]
    return starts, sightings, np.cumsum(~is_repeat) - 1


def broken(tracks: Sequence[RawTrack], how: Align) -> list[RawTrack]:
    """Cut tracks where both the pixels and the landmarks show that another face begins.

    A track is cut between two detections if a motion between them is missing or has less support
    than `how.least_support`, and if the landmarks jump by more than `how.break_eyes` eye distances.
    A track without any measured motion is not cut.

    Args:
        tracks: The tracks, ordered by first frame.
        how: The settings; `least_support` and `break_eyes` count here.

    Returns:
        The tracks and parts of tracks, ordered by first frame.
    """
    parts = [part for raw in tracks for part in _parts(raw, how.least_support, how.break_eyes)]
    return sorted(parts, key=lambda part: part.first_frame)


def _parts(raw: RawTrack, least_support: float, break_eyes: float) -> list[RawTrack]:
    """Cut one track as `broken` does."""
    found = np.flatnonzero(np.isfinite(raw.score)).tolist()
    seen = raw.landmarks[found].astype(np.float64)
    limit = break_eyes * float(np.median(np.linalg.norm(seen[:, 1] - seen[:, 0], axis=-1)))
    jumps = {}
    for k, (before, after) in enumerate(pairwise(found), start=1):
        steps = raw.motions[before + 1 : after + 1]
        if steps and min(step.support if step else 0.0 for step in steps) < least_support:
            jumps[k] = _jump(seen.mean(axis=1), found, k)
    starts, ends = [0], []
    for k, jump in jumps.items():
        near = range(k - _AROUND_BREAK, k + _AROUND_BREAK + 1)
        if jump > limit and jump == max(jumps.get(i, 0.0) for i in near):
            ends.append(found[k - 1] + 1)
            starts.append(found[k])
    return [_part(raw, *limits) for limits in zip(starts, [*ends, len(raw.score)], strict=True)]


def _jump(centers: Array, frames: Sequence[int], k: int) -> float:
    """Measure the distance in pixels of detection k from the course of earlier detections.

    This is the median of three detections from k on minus that of the three before k, minus the
    part that the median velocity before, after or on both sides explains. Neither a quick turn nor
    one bad detection counts. The result is 0 where a side has only one detection.
    """
    sides = [slice(max(0, k - _AROUND_BREAK), k), slice(k, k + _AROUND_BREAK)]
    if any(len(centers[side]) < 2 for side in sides):
        return 0.0
    times = np.array(frames, dtype=np.float64)
    velocities = [np.diff(centers[side], axis=0) / np.diff(times[side])[:, None] for side in sides]
    velocities.append(np.concatenate(velocities))
    step, lasts = (
        np.median(values[sides[1]], axis=0) - np.median(values[sides[0]], axis=0)
        for values in (centers, times)
    )
    explained = [np.median(velocity, axis=0) * lasts for velocity in velocities]
    return min(float(np.linalg.norm(step - way)) for way in explained)


def _part(raw: RawTrack, start: int, end: int) -> RawTrack:
    """Cut frames [start, end) out of a track."""
    if (start, end) == (0, len(raw.score)):
        return raw
    return replace(
        raw,
        first_frame=raw.first_frame + start,
        landmarks=raw.landmarks[start:end],
        score=raw.score[start:end],
        motions=(None, *raw.motions[start + 1 : end]),
        sharpness=raw.sharpness[start:end],
        shapes=None if raw.shapes is None else raw.shapes[start:end],
        angles_degrees=None if raw.angles_degrees is None else raw.angles_degrees[start:end],
        embeddings={
            frame: vector
            for frame, vector in raw.embeddings.items()
            if start <= frame - raw.first_frame < end
        },
    )


def upright_motions(
    motions: Sequence[Motion | None], to_upright: Matrix, least_support: float
) -> Array:
    """Convert motions from frame pixels to the upright view.

    Convention: each motion leads from the pixel centers (x, y) of a frame to those of the next one,
    in the frame for `motions` and in the upright, square-pixel view for the result.

    Args:
        motions: The motions of a track, one for each frame since the frame before.
        to_upright: (2, 3) frame pixel centers -> upright pixel centers.
        least_support: The least share of the points that must agree on a motion, in [0, 1].

    Returns:
        (n, 2, 3) float64; NaN where there is no motion, or one with too few agreeing points.
    """
    from_upright = invert(to_upright)
    moves = np.full((len(motions), 2, 3), np.nan)
    for index, motion in enumerate(motions):
        if motion and motion.support >= least_support and motion.points >= _LEAST_POINTS:
            moves[index] = compose(to_upright, compose(motion.matrix, from_upright))
    return moves


def smooth_landmarks(seen: npt.NDArray[Any], weight: float) -> Array:
    """Smooth landmarks over time, each landmark by itself.

    min over x of sum w |x - z|^2 + weight * |D3 x|^2 (Whittaker 1923; Eilers, Anal. Chem. 75,
    2003), with Cauchy weights w from the smoothed residuals over six rounds. One bad landmark
    therefore loses its weight, and the other landmarks of its frame keep theirs.

    Args:
        seen: (n, 5, 2) landmarks (x, y) in pixels; NaN where missing.
        weight: The weight of the third difference, above 0.

    Returns:
        (n, 5, 2) float64 smooth landmarks for every frame.
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


def follow_motion(
    seen: npt.NDArray[Any], smooth: Array, moves: Array, *, smoothness: float, faster: float = 1.0
) -> Array:
    """Let landmarks follow the measured motion of the face and drift slowly to their detections.

    With c the sum of the steps, x = c + d, where d is the min over d of sum w |d - (z - c)|^2 +
    smoothness * sum v |D2 d|^2. The weights w and v are Cauchy's over six rounds. v lets the drift
    bend where the motion is wrong, for example where a hand is in front of the face. Weak smoothing
    at the end removes the noise of the motion.

    Convention: `moves` lead from the pixel centers (x, y) of a frame to those of the next one, in
    the view of the landmarks.

    Args:
        seen: (n, 5, 2) landmarks (x, y) in pixels; NaN where missing.
        smooth: (n, 5, 2) landmarks as `smooth_landmarks` returns them.
        moves: (n, 2, 3) motions since the frame before; NaN where unknown. There the steps of
            `smooth` count instead, with less weight.
        smoothness: The stiffness of the drift at 25 frames per second, above 0.
        faster: The frame rate divided by 25 per second; default: 1.

    Returns:
        (n, 5, 2) float64 landmarks for every frame.
    """
    found = np.isfinite(seen[:, :, 0])
    eyes = max(float(np.nanmedian(np.linalg.norm(seen[:, 1] - seen[:, 0], axis=-1))), 1e-6)
    moved = apply(moves[1:], smooth[:-1])
    steps = np.where(np.isfinite(moved), moved, smooth[1:]) - smooth[:-1]
    path = np.concatenate([np.zeros((1, *steps.shape[1:])), np.cumsum(steps, axis=0)])
    z = np.where(found[..., None], seen, 0.0) - path
    measured = np.where(np.isfinite(moves[:, 0, 0]), 1.0, _UNMEASURED)
    rigidity = smoothness * faster ** (2 * _DRIFT_ORDER)
    full_stiffness = rigidity * np.minimum(measured[2:], measured[1:-1])
    kink = _KINK_EYES * eyes / faster**_DRIFT_ORDER
    weights, stiffness = found.astype(float), full_stiffness
    drift = np.empty(seen.shape)
    for _ in range(_ROUNDS):
        for point in range(seen.shape[1]):
            drift[:, point] = whittaker(
                z[:, point], weights[:, point], stiffness, order=_DRIFT_ORDER
            )
        residual = np.linalg.norm(drift - z, axis=-1)
        weights = found / (1 + (residual / (_DRIFT_OUTLIER_EYES * eyes)) ** 2)
        bend = np.linalg.norm(np.diff(drift.mean(axis=1), n=_DRIFT_ORDER, axis=0), axis=-1)
        stiffness = full_stiffness / (1 + (bend / kink) ** 2)
    every = np.ones(len(path))
    flat = (path + drift).reshape(len(path), -1)
    steady = whittaker(flat, every, _STEADINESS * faster ** (2 * _LANDMARK_ORDER))
    return steady.reshape(path.shape)


def whittaker(
    z: npt.NDArray[Any],
    weights: npt.NDArray[Any],
    smoothness: float | npt.NDArray[Any],
    *,
    order: int = _LANDMARK_ORDER,
) -> Array:
    """Smooth samples by a penalty on their differences, with a banded solve in O(n).

    min over x of sum weights |x - z|^2 + sum smoothness |D^order x|^2 (Whittaker 1923). With too
    few samples the order is lowered, and the mean of the smoothness is used. More smoothness than
    10^9 counts as 10^9. Where neither samples nor smoothness determine x, it is linear between the
    samples.

    Args:
        z: (n, c) samples.
        weights: (n,) weights, 0 where a sample is missing.
        smoothness: One number, or (n - order,) numbers, one for each difference.
        order: The order of the differences; default: 3.

    Returns:
        (n, c) float64 smooth samples.
    """
    n = len(z)
    possible = min(n - 1, max(int(np.count_nonzero(weights)) - 1, 0))
    if possible < order:
        order, smoothness = possible, float(np.mean(smoothness)) if np.size(smoothness) else 0.0
    if order == 0:
        return np.repeat(np.average(z, axis=0, weights=weights)[None], n, axis=0)
    smoothness = np.minimum(smoothness, _MOST_SMOOTHNESS)
    difference = np.diff(np.eye(order + 1), n=order, axis=0)[0]
    bands = np.zeros((order + 1, n))  # upper form: bands[order - k, k:] is the k-th diagonal
    for k in range(order + 1):
        for i in range(order + 1 - k):
            product = difference[i] * difference[i + k]
            bands[order - k, i + k : n - order + i + k] += smoothness * product
    # A tiny ridge, larger than the rounding error of the diagonal, keeps the system solvable where
    # only a few frames carry weight. It pulls toward the line between samples, not to zero.
    ridge = _RIDGE + _RIDGE_OF_SMOOTHNESS * float(np.max(smoothness))
    bands[order] += weights + ridge
    carries = np.flatnonzero(weights)
    # Rounding errors grow with the values, and no difference depends on the origin.
    origin = z[carries].mean(axis=0)
    between = [np.interp(np.arange(n), carries, column[carries]) for column in z.T]
    pulled = weights[:, None] * (z - origin) + ridge * (np.stack(between, axis=1) - origin)
    from scipy.linalg import solveh_banded  # loaded once all frames are seen: it takes long

    return np.asarray(solveh_banded(bands, pulled) + origin)


def _work_px(matrices: npt.NDArray[Any]) -> int:
    """Return the `work_size` of the largest crop, within limits."""
    side = max(crop_side_px(matrix) for matrix in matrices)
    return work_size(min(max(side, _SMALLEST_WORK_PX), _LARGEST_WORK_PX))


def _filled(score: FloatArray) -> FloatArray:
    """Interpolate the scores of the frames in which the detector found nothing."""
    detected = np.flatnonzero(np.isfinite(score))
    return np.interp(np.arange(len(score)), detected, score[detected]).astype(np.float32)
