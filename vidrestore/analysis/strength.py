"""How much of a restored face is used: less where it is small, turned away, unsure or blurred."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from vidrestore.analysis.tracks import RawTrack, Track
from vidrestore.common.settings import Align
from vidrestore.imaging.geometry import apply, crop_side_px, template

# Around the least size: none below 0.8 of it, all from 1.2 of it on.
_SMALL, _LARGE = 0.8, 1.2
# How far the nose stands before the eyes, in distances of the eyes.
_NOSE = 0.6
# A face is used whole up to the first angle, and not at all from the second on, where its
# landmarks lie on a line and the network invents the other half.
_TURNED_DEGREES, _AWAY_DEGREES = 50.0, 80.0
# What is used at the least score, and how far above it all is.
_UNSURE, _SURE_SCORE = 0.3, 0.15
# What size and score must allow in some frame of a track.
_LEAST_SURE = 0.5
# Sharpness, as a share of what the track has in its clear frames, below which a face is blurred by
# motion or out of focus; what is used of it at least; the quantile of its clear frames.
_CLEAR, _BLURRED, _LEAST_OF_BLURRED, _CLEAR_QUANTILE = 0.6, 0.3, 0.4, 0.8
# Below this there is nothing to tell sharp from blurred by.
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
) -> tuple[list[Track | None], Counter[str]]:
    """Give tracks their strength.

    Args:
        tracks: Aligned.
        seen: The same tracks before smoothing.
        how: A frame in which the face was neither found nor followed by `least_support` of its
            points counts nothing. All is averaged over `fade_seconds` on either side, and rises and
            falls over as many where a track begins or ends inside its shot. At `min_face_px` half
            counts.
        template_name: Where the landmarks stand in the crops: "gpen" or "ffhq".
        least_score: From which the detector calls something a face, in [0, 1].
        frame_rate: Frames per second.

    Returns:
        The tracks, each with its strength, None for one that is all the way so small or so doubtful
        that it is better left out; and why faces get none: reason -> how many.
    """
    fade_frames = round(how.fade_seconds * frame_rate)
    result: list[Track | None] = []
    reasons = Counter[str]()
    for track, raw in zip(tracks, seen, strict=True):
        factors = dict(
            _factors(
                track,
                raw,
                eyes=template(template_name),
                min_face_px=how.min_face_px,
                least_score=least_score,
                least_support=how.least_support,
            )
        )
        if (factors["too small"] * factors["unsure"]).max() < _LEAST_SURE:
            reasons["too small or too doubtful"] += len(raw.score)
            result.append(None)
            continue
        strength = _averaged(np.prod(list(factors.values()), axis=0), fade_frames)
        strength = np.minimum(strength, _ramps(raw, fade_frames))
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
    eyes: Array,
    min_face_px: float,
    least_score: float,
    least_support: float,
) -> Iterator[tuple[str, Array]]:
    """Each with the reason that it is where it is 0."""
    sides = np.array([crop_side_px(matrix) for matrix in track.matrices])
    eyes_px = float(np.linalg.norm(eyes[1] - eyes[0])) * sides
    yield "too small", _ramp(eyes_px / max(min_face_px, 1e-6), _SMALL, _LARGE)
    degrees = _averaged(turned_degrees(track), 1)
    yield "turned away", 1 - _ramp(degrees, _TURNED_DEGREES, _AWAY_DEGREES)
    surely = _ramp(track.score, least_score, least_score + _SURE_SCORE)
    yield "unsure", _UNSURE + (1 - _UNSURE) * surely
    if len(raw.sharpness) and np.isfinite(raw.sharpness).any():
        yield "blurred", _clearness(raw.sharpness)
    yield "hidden or lost for a moment", _is_in_sight(raw, least_support).astype(np.float64)


def turned_degrees(track: Track) -> Array:
    """(n,) angle by which the head is turned to either side, from where the nose is between the
    eyes; rough, but 0 where a face looks straight ahead and 90 in profile."""
    points = apply(track.matrices.astype(np.float64), track.landmarks.astype(np.float64))
    across = points[:, 1, 0] - points[:, 0, 0]
    nose = points[:, 2, 0] - (points[:, 0, 0] + points[:, 1, 0]) / 2
    return np.asarray(np.degrees(np.arctan2(np.abs(nose) / _NOSE, across)))


def _clearness(sharpness: npt.NDArray[Any]) -> Array:
    known = np.flatnonzero(np.isfinite(sharpness))
    every = np.interp(np.arange(len(sharpness)), known, sharpness[known])
    clear = max(float(np.quantile(every[known], _CLEAR_QUANTILE)), _NO_DETAIL)
    every = np.maximum(every, _NO_DETAIL)
    share = _ramp(every / clear, _BLURRED, _CLEAR)
    return _LEAST_OF_BLURRED + (1 - _LEAST_OF_BLURRED) * share


def _is_in_sight(raw: RawTrack, least_support: float) -> npt.NDArray[np.bool_]:
    found = np.isfinite(raw.score)
    followed = [m is not None and m.support >= least_support for m in raw.motions]
    return np.asarray(found | np.array(followed or [False], bool))


def _ramps(raw: RawTrack, fade_frames: int) -> Array:
    """(n,) rising and falling where a track begins and ends inside its shot, else 1."""
    n = len(raw.score)
    ramp = np.arange(1, n + 1) / (fade_frames + 1)
    limits = np.ones(n)
    if raw.first_frame > raw.shot[0]:
        limits = np.minimum(limits, ramp)
    if raw.first_frame + n < raw.shot[1]:
        limits = np.minimum(limits, ramp[::-1])
    return limits


def _ramp(values: npt.NDArray[Any], low: float, high: float) -> Array:
    return np.asarray(np.clip((values - low) / (high - low), 0, 1), np.float64)


def _averaged(values: Array, reach: int) -> Array:
    """Mean over `reach` values on either side, the ends repeated."""
    if reach == 0:
        return values
    padded = np.pad(values, reach, mode="edge")
    return np.convolve(padded, np.full(2 * reach + 1, 1 / (2 * reach + 1)), mode="valid")
