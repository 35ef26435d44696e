"""Strength: the share of a restored face that is blended in, for each frame.

It is lower where the face is small, turned away, doubtful or blurred.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from vidrestore.analysis.tracks import RawTrack, Track, TracksByFrame
from vidrestore.common.settings import Align
from vidrestore.imaging.geometry import apply, crop_side_px, template

# The share of `min_face_px` up to which the strength is 0; it is 1 from `min_face_px` on.
_SMALL = 2 / 3
# How far the nose stands in front of the eyes, in eye distances.
_NOSE = 0.6
# The strength is 1 up to the first angle and 0 from the second on, where the landmarks lie on a
# line and the network invents the other half of the face.
_TURNED_DEGREES, _AWAY_DEGREES = 50.0, 80.0
# The same for a face that the mesh does not confirm: mostly one near profile.
_UNCONFIRMED_TURNED_DEGREES, _UNCONFIRMED_AWAY_DEGREES = 40.0, 60.0
# The same for the mesh, which measures yaw and pitch; its errors grow with the angle.
_YAW_DEGREES, _YAW_AWAY_DEGREES = 40.0, 60.0
_PITCH_DEGREES, _PITCH_AWAY_DEGREES = 40.0, 70.0
# The factor at the least score, and how far above the least score the factor is 1.
_UNSURE, _SURE_SCORE = 0.3, 0.15
# The least product of the factors of size and score that a track must reach in some frame.
_LEAST_SURE = 0.5
# The least product of the factors of size, score and angle that a track without any mesh must
# reach: what detectors take for a face in profile is often the back of a head.
_LEAST_OF_UNCONFIRMED = 0.1
# The largest change of the strength from one frame to the next.
_MOST_CHANGE = 0.15
# Sharpness is relative to that of the clear frames of the track, a quantile. The factor is 1 from
# _CLEAR on; at _BLURRED and below, where motion or focus blurs the face, it is _LEAST_OF_BLURRED.
_CLEAR, _BLURRED, _LEAST_OF_BLURRED, _CLEAR_QUANTILE = 0.6, 0.3, 0.4, 0.8
# The distance of two faces, in sides of the crop, within which one of them may cover the other.
_NEAR = 0.5
# A face that is missed in fewer frames in a row is not covered by another one.
_LEAST_COVERED_FRAMES = 3
# Below this sharpness, a face has too little detail to tell sharp from blurred.
_NO_DETAIL = 0.02

Array = npt.NDArray[np.float64]


def with_strength(
    tracks: Sequence[Track],
    seen: Sequence[RawTrack],
    how: Align,
    *,
    template_name: str,
    least_score: float,
    frame_rate: Fraction,
    has_mesh: bool = False,
) -> tuple[list[Track | None], Counter[str]]:
    """Compute the strength of tracks, and drop tracks that are too small or doubtful throughout.

    Args:
        tracks: The aligned tracks.
        seen: The same tracks before smoothing.
        how: The settings. The strength is 0 in a frame in which the face was neither detected nor
            followed by `least_support` of its points. It is 1 from an eye distance of
            `min_face_px` on. It is averaged over `fade_seconds` on either side, and fades in and
            out over `fade_seconds` where a track begins or ends inside its shot.
        template_name: The template of the crops: "gpen" or "ffhq".
        least_score: The least score of the detector for a face, in [0, 1].
        frame_rate: Frames per second.
        has_mesh: Whether a face mesh looked at the faces. Then a face without a mesh gets less
            strength the further it is turned. Default: False.

    Returns:
        (tracks, reasons): the tracks with their strength, None for a dropped track; and for each
        reason why faces get no strength, the number of (face, frame) pairs.
    """
    fade_frames = round(how.fade_seconds * frame_rate)
    by_frame = TracksByFrame(tracks)
    result: list[Track | None] = []
    reasons = Counter[str]()
    for track, raw in zip(tracks, seen, strict=True):
        factors = dict(
            _factors(
                track,
                raw,
                template_name=template_name,
                min_face_px=how.min_face_px,
                least_score=least_score,
                least_support=how.least_support,
                has_mesh=has_mesh,
            )
        )
        sure = factors["too small"] * factors["unsure"]
        is_profile = (sure * factors["turned away"]).max() < _LEAST_OF_UNCONFIRMED
        if sure.max() < _LEAST_SURE or (is_profile and raw.angles_degrees is None):
            reasons["too small or too doubtful"] += len(raw.score)
            result.append(None)
            continue
        strength = _averaged(np.prod(list(factors.values()), axis=0), fade_frames)
        strength[_covered(track, by_frame)] = 0
        strength = _without_jumps(np.minimum(strength, _ramps(raw, fade_frames)), raw)
        for name, factor in factors.items():
            is_reason = (strength == 0) & (factor == 0)
            reasons[name] += int(np.count_nonzero(is_reason))
            strength = np.where(is_reason, np.nan, strength)  # each face has one reason
        strength = np.nan_to_num(strength)
        result.append(replace(track, strength=np.clip(strength, 0, 1).astype(np.float32)))
    return result, reasons


def _factors(
    track: Track,
    raw: RawTrack,
    *,
    template_name: str,
    min_face_px: float,
    least_score: float,
    least_support: float,
    has_mesh: bool,
) -> Iterator[tuple[str, Array]]:
    """Yield each factor of the strength, after the reason that applies where the factor is 0."""
    eyes_px = eye_distances_px(track, template_name)
    yield "too small", _ramp(eyes_px / max(min_face_px, 1e-6), _SMALL, 1.0)
    yield "turned away", _frontness(track, raw, has_mesh=has_mesh)
    surely = _ramp(track.score, least_score, least_score + _SURE_SCORE)
    yield "unsure", _UNSURE + (1 - _UNSURE) * surely
    if len(raw.sharpness) and np.isfinite(raw.sharpness).any():
        yield "blurred", _clearness(raw.sharpness)
    yield "hidden or lost for a moment", _is_in_sight(raw, least_support).astype(np.float64)


def eye_distances_px(track: Track, template_name: str) -> Array:
    """Measure the size of a face in each frame, as every table of sizes and every limit of them.

    The size is the distance of the eyes as if the face looked straight ahead: that of the eyes of
    the template in the crop, whatever the head's angle.

    Args:
        track: The track.
        template_name: The template of the crops: "gpen" or "ffhq".

    Returns:
        (n,) float64 distances, in frame pixels.
    """
    points = template(template_name)
    sides = np.array([crop_side_px(matrix) for matrix in track.matrices])
    return np.asarray(np.linalg.norm(points[1] - points[0]) * sides, np.float64)


def _frontness(track: Track, raw: RawTrack, *, has_mesh: bool) -> Array:
    """Return the factor of each frame for a head that is turned away.

    A track with too few meshes for a mask still has their angles.
    """
    angles = track.angles_degrees
    if angles is None and raw.angles_degrees is not None:
        found = np.flatnonzero(np.isfinite(raw.angles_degrees[:, 0]))
        frames = np.arange(len(raw.score))
        columns = [np.interp(frames, found, raw.angles_degrees[found, i]) for i in (0, 1)]
        angles = np.stack(columns, axis=-1).astype(np.float32)
    if angles is None:
        degrees = _averaged(turned_degrees(track), 1)
        if has_mesh:
            return 1 - _ramp(degrees, _UNCONFIRMED_TURNED_DEGREES, _UNCONFIRMED_AWAY_DEGREES)
        return 1 - _ramp(degrees, _TURNED_DEGREES, _AWAY_DEGREES)
    yaw, pitch = np.abs(angles.astype(np.float64)).T
    sideways = _ramp(yaw, _YAW_DEGREES, _YAW_AWAY_DEGREES)
    upward = _ramp(pitch, _PITCH_DEGREES, _PITCH_AWAY_DEGREES)
    return (1 - sideways) * (1 - upward)


def turned_degrees(track: Track) -> Array:
    """Return how far a head is turned to either side: the yaw of its mesh, if it has one.

    Otherwise the angle is estimated from the nose between the eyes. The estimate is rough, but 0
    where a face looks straight ahead and 90 in profile.

    Args:
        track: The track.

    Returns:
        (n,) float64 angles in degrees, in [0, 180].
    """
    if track.angles_degrees is not None:
        return np.abs(track.angles_degrees[:, 0].astype(np.float64))
    points = apply(track.matrices.astype(np.float64), track.landmarks.astype(np.float64))
    across = points[:, 1, 0] - points[:, 0, 0]
    nose = points[:, 2, 0] - (points[:, 0, 0] + points[:, 1, 0]) / 2
    return np.asarray(np.degrees(np.arctan2(np.abs(nose) / _NOSE, across)))


def _covered(track: Track, by_frame: TracksByFrame) -> list[int]:
    """Return the frames, from 0, in which another face is seen where this one was not seen.

    A face that is missed for a moment is not covered.
    """
    from scipy.ndimage import binary_opening  # loaded once all frames are seen: it takes long

    covered = []
    missed = ~track.detected
    for at in np.flatnonzero(binary_opening(missed, np.ones(_LEAST_COVERED_FRAMES))).tolist():
        middle = track.landmarks[at].mean(axis=0)
        near_px = _NEAR * crop_side_px(track.matrices[at])
        for other in by_frame.at(track.first_frame + at):
            theirs = track.first_frame + at - other.first_frame
            if other is track or not other.detected[theirs]:
                continue
            if np.linalg.norm(other.landmarks[theirs].mean(axis=0) - middle) < near_px:
                covered.append(at)
                break
    return covered


def _clearness(sharpness: npt.NDArray[Any]) -> Array:
    """Return the factor of each frame for blur."""
    measured = np.flatnonzero(np.isfinite(sharpness))
    every = np.interp(np.arange(len(sharpness)), measured, sharpness[measured])
    clear = max(float(np.quantile(every[measured], _CLEAR_QUANTILE)), _NO_DETAIL)
    every = np.maximum(every, _NO_DETAIL)
    share = _ramp(every / clear, _BLURRED, _CLEAR)
    return _LEAST_OF_BLURRED + (1 - _LEAST_OF_BLURRED) * share


def _is_in_sight(raw: RawTrack, least_support: float) -> npt.NDArray[np.bool_]:
    """Tell for each frame whether the face was detected or followed."""
    detected = np.isfinite(raw.score)
    followed = [m is not None and m.support >= least_support for m in raw.motions]
    return np.asarray(detected | np.array(followed or [False], bool))


def _ramps(raw: RawTrack, fade_frames: int) -> Array:
    """Return (n,) ramps where a track begins or ends inside its shot, otherwise 1."""
    n = len(raw.score)
    ramp = np.arange(1, n + 1) / (fade_frames + 1)
    limits = np.ones(n)
    if raw.first_frame > raw.shot[0]:
        limits = np.minimum(limits, ramp)
    if raw.first_frame + n < raw.shot[1]:
        limits = np.minimum(limits, ramp[::-1])
    return limits


def _without_jumps(strength: Array, raw: RawTrack) -> Array:
    """Lower the strength where it would change faster than by `_MOST_CHANGE` a frame.

    Before and after a track that begins or ends inside its shot, the strength is 0.
    """
    n = len(strength)
    outside = [raw.first_frame > raw.shot[0], raw.first_frame + n < raw.shot[1]]
    padded = np.concatenate([[0.0] * outside[0], strength, [0.0] * outside[1]], dtype=np.float64)
    steps = _MOST_CHANGE * np.arange(len(padded))
    padded = np.minimum.accumulate(padded - steps) + steps
    padded = (np.minimum.accumulate(padded[::-1] - steps) + steps)[::-1]
    return np.asarray(padded[int(outside[0]) :][:n])


def _ramp(values: npt.NDArray[Any], low: float, high: float) -> Array:
    """Map values linearly: `low` and less to 0, `high` and more to 1."""
    return np.asarray(np.clip((values - low) / (high - low), 0, 1), np.float64)


def _averaged(values: Array, reach: int) -> Array:
    """Average over `reach` values on either side, with the ends repeated."""
    if reach == 0:
        return values
    padded = np.pad(values, reach, mode="edge")
    return np.convolve(padded, np.full(2 * reach + 1, 1 / (2 * reach + 1)), mode="valid")
