"""Tracks become smooth geometry: landmarks that do not tremble, and the crop they define."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import solveh_banded

from vidrestore.analysis.tracks import Motion, RawTrack, Track
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

_LANDMARK_ORDER, _DRIFT_ORDER = 3, 2
_ROUNDS = 6
# Residual, in eye distances, at which a landmark counts half: a sighting further off is an error.
# Once motion is taken out, less is left that could be no error.
_OUTLIER_EYES, _DRIFT_OUTLIER_EYES = 0.06, 0.05
# Weight of the third difference against motion that was measured; takes away its noise from frame
# to frame, and a twentieth of shaking at 5 Hz.
_STEADINESS = 0.02
# Of a difference, against a sample's weight of 1: beyond this, rounding outweighs the samples.
_MOST_SMOOTHNESS = 1e9
_RIDGE, _RIDGE_OF_SMOOTHNESS = 1e-9, 1e-13
# Frame rates, over 25 per second, at which smoothing stops to follow the rate.
_SLOWEST, _FASTEST = 1 / 25, 40.0
_LEAST_POINTS = 12
# Second difference of the drift, in eye distances, at which motion counts half: it went wrong.
_KINK_EYES = 0.0007
# How stiff the drift is where motion was not measured, against where it was.
_UNMEASURED = 0.1
# Sightings on either side of a break.
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
    """Smooth every track by itself, so that nothing leaks across a cut.

    The weights of `how` are meant for 25 frames per second and scaled with the rate, from 1 to
    1000: a weight of the p-th difference stands for the same time constant as its power 2 p. A rate
    beyond these counts as the nearer of them. The crop is fitted in the upright, square-pixel view;
    the matrices carry rotation, flips and pixel aspect ratio.

    Args:
        tracks: In pixels of the frame.
        info: Of the frames.
        how: The weights, and `least_support`: motion on which a smaller share of its points agree
            is not used.
        template_name: Where the landmarks stand in the crop: "gpen" or "ffhq".
        coarse: Whether landmarks were guessed from boxes: `coarse_smoothness` counts then, else
            `smoothness`.
        repeats: (frames,) True where a frame of the video shows what the one before showed:
            smoothing leaves these out, and they get the geometry of the one before, so that their
            crops are equal too. Default: none does.

    Returns:
        The tracks in the order given, all with the strength 1; `vidrestore.analysis.strength`
        gives them theirs.
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
            )
        )
    return aligned


def _pictures(raw: RawTrack, repeats: BoolArray | None) -> tuple[list[int], list[int], IntArray]:
    """Of each picture that the track shows the first frame, and one in which the face was found
    if there is any; and (n,) which picture each frame shows, from 0."""
    n = len(raw.score)
    again = np.zeros(n, bool) if repeats is None else repeats[raw.first_frame :][:n].copy()
    again[0] = False
    starts = np.flatnonzero(~again).tolist()
    found = np.isfinite(raw.score)
    sightings = [a + int(np.argmax(found[a:b])) for a, b in pairwise([*starts, n])]
    return starts, sightings, np.cumsum(~again) - 1


def broken(tracks: Sequence[RawTrack], how: Align) -> list[RawTrack]:
    """Cut tracks where pixels and landmarks both say that another face begins.

    Args:
        tracks: Ordered by first frame.
        how: That is where motion was looked for and has less than `least_support`, and where the
            landmarks jump by more than `break_eyes` eye distances.

    Returns:
        The tracks and parts of tracks, ordered by first frame.
    """
    parts = [part for raw in tracks for part in _parts(raw, how.least_support, how.break_eyes)]
    return sorted(parts, key=lambda part: part.first_frame)


def _parts(raw: RawTrack, least_support: float, break_eyes: float) -> list[RawTrack]:
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


def _jump(centres: Array, frames: Sequence[int], k: int) -> float:
    """How far sighting k is, in pixels, from where those before it lead.

    The median of three sightings from it on against that of the three before, less what the
    median velocity before, after or on both sides explains of it, so that neither a quick turn
    nor one bad sighting counts. 0 where there is but one sighting on a side.
    """
    sides = [slice(max(0, k - _AROUND_BREAK), k), slice(k, k + _AROUND_BREAK)]
    if any(len(centres[side]) < 2 for side in sides):
        return 0.0
    times = np.array(frames, dtype=np.float64)
    velocities = [np.diff(centres[side], axis=0) / np.diff(times[side])[:, None] for side in sides]
    velocities.append(np.concatenate(velocities))
    step, lasts = (
        np.median(values[sides[1]], axis=0) - np.median(values[sides[0]], axis=0)
        for values in (centres, times)
    )
    explained = [np.median(velocity, axis=0) * lasts for velocity in velocities]
    return min(float(np.linalg.norm(step - way)) for way in explained)


def _part(raw: RawTrack, start: int, end: int) -> RawTrack:
    if (start, end) == (0, len(raw.score)):
        return raw
    return replace(
        raw,
        first_frame=raw.first_frame + start,
        landmarks=raw.landmarks[start:end],
        score=raw.score[start:end],
        motions=(None, *raw.motions[start + 1 : end]),
        sharpness=raw.sharpness[start:end],
        embeddings={
            frame: vector
            for frame, vector in raw.embeddings.items()
            if start <= frame - raw.first_frame < end
        },
    )


def upright_motions(
    motions: Sequence[Motion | None], to_upright: Matrix, least_support: float
) -> Array:
    """(n, 2, 3) in the upright view, NaN where there is none that enough points agree on."""
    from_upright = invert(to_upright)
    moves = np.full((len(motions), 2, 3), np.nan)
    for index, motion in enumerate(motions):
        if motion and motion.support >= least_support and motion.points >= _LEAST_POINTS:
            moves[index] = compose(to_upright, compose(motion.matrix, from_upright))
    return moves


def smooth_landmarks(seen: npt.NDArray[Any], weight: float) -> Array:
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


def follow_motion(
    seen: npt.NDArray[Any], smooth: Array, moves: Array, *, smoothness: float, faster: float = 1.0
) -> Array:
    """(n, 5, 2) landmarks that go the way their pixels went, and drift to where they are seen.

    `seen` is NaN where missing; `smooth` are the landmarks smoothed by themselves; `moves`
    (n, 2, 3) leads from each frame before, NaN where unknown: there the steps of `smooth` count
    instead, with less weight. `faster` is the frame rate over 25 per second.

    With c the sum of the steps, x = c + d, d being the min over d of
    sum w |d - (z - c)|^2 + smoothness * sum v |D2 d|^2. w and v are Cauchy's over six rounds: v
    lets the drift bend where motion went wrong, say with a hand before the face. What motion adds
    of its own noise is taken away by weak smoothing in the end.
    """
    found = np.isfinite(seen[:, :, 0])
    eyes = max(float(np.nanmedian(np.linalg.norm(seen[:, 1] - seen[:, 0], axis=-1))), 1e-6)
    moved = apply(moves[1:], smooth[:-1])
    steps = np.where(np.isfinite(moved), moved, smooth[1:]) - smooth[:-1]
    path = np.concatenate([np.zeros((1, *steps.shape[1:])), np.cumsum(steps, axis=0)])
    z = np.where(found[..., None], seen, 0.0) - path
    measured = np.where(np.isfinite(moves[:, 0, 0]), 1.0, _UNMEASURED)
    known = smoothness * faster ** (2 * _DRIFT_ORDER) * np.minimum(measured[2:], measured[1:-1])
    kink = _KINK_EYES * eyes / faster**_DRIFT_ORDER
    weights, stiffness = found.astype(float), known
    drift = np.empty(seen.shape)
    for _ in range(_ROUNDS):
        for point in range(seen.shape[1]):
            drift[:, point] = whittaker(
                z[:, point], weights[:, point], stiffness, order=_DRIFT_ORDER
            )
        residual = np.linalg.norm(drift - z, axis=-1)
        weights = found / (1 + (residual / (_DRIFT_OUTLIER_EYES * eyes)) ** 2)
        bend = np.linalg.norm(np.diff(drift.mean(axis=1), n=_DRIFT_ORDER, axis=0), axis=-1)
        stiffness = known / (1 + (bend / kink) ** 2)
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
    """(n, c) samples with (n,) weights -> (n, c) smooth ones; a banded solve, O(n).

    min over x of sum weights |x - z|^2 + sum smoothness |D^order x|^2, `smoothness` being one
    number or one for each of the n - order differences. With too few samples the order is lower
    and the smoothness their mean. More smoothness than `_MOST_SMOOTHNESS` counts as that much.
    Where neither samples nor smoothness say anything, x is linear between the samples.
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
    # A tiny ridge keeps the system solvable where only a few frames carry weight: more than what
    # rounding takes from the diagonal. It leads to the line between samples, not to zero.
    ridge = _RIDGE + _RIDGE_OF_SMOOTHNESS * float(np.max(smoothness))
    bands[order] += weights + ridge
    carries = np.flatnonzero(weights)
    # Rounding is relative to the values; no difference depends on where they are counted from.
    origin = z[carries].mean(axis=0)
    between = [np.interp(np.arange(n), carries, column[carries]) for column in z.T]
    pulled = weights[:, None] * (z - origin) + ridge * (np.stack(between, axis=1) - origin)
    return np.asarray(solveh_banded(bands, pulled) + origin)


def _work_px(matrices: npt.NDArray[Any]) -> int:
    """The smallest power of two not below the largest crop."""
    side = max(crop_side_px(matrix) for matrix in matrices)
    return int(np.clip(2 ** np.ceil(np.log2(side)), _SMALLEST_WORK_PX, _LARGEST_WORK_PX))


def _filled(score: FloatArray) -> FloatArray:
    known = np.flatnonzero(np.isfinite(score))
    return np.interp(np.arange(len(score)), known, score[known]).astype(np.float32)
