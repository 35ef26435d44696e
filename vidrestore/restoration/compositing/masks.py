"""Which part of a crop is face: a soft hull around the landmarks, and what it never leaves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from vidrestore.imaging.filters import smoothstep
from vidrestore.imaging.frame import FloatArray, VideoInfo
from vidrestore.imaging.geometry import (
    GRID_PX,
    Matrix,
    Rect,
    apply,
    covering_rect,
    fit_similarity,
    invert,
    template,
    unit_corners,
)

# An upright ellipse in the unit crop, which no mask leaves, and the width of its soft edge.
_CENTRE = (0.5, 0.53)
_RADII = (0.33, 0.41)
_FEATHER = 0.25  # share of the radius over which the ellipse falls from 1 to 0
_ELLIPSE_PX = 128


# The outline of a face seen from the front, one half, from the middle of the eyes in distances of
# the eyes: hairline, temple, cheek, jaw, chin.
_OUTLINE = np.array(
    [[0, -1.2], [0.6, -1.05], [1.02, -0.5], [1.12, 0.1], [1.05, 0.75], [0.85, 1.35], [0.48, 1.8],
     [0, 1.98]]
)  # fmt: skip
_NOSE_MARGIN = 0.2  # of a turned face stands out so far; distances of the eyes
_DIRECTIONS = 40
# How far, in unit crops, landmarks may be from their template before they are doubted, and until
# they count nothing.
_DOUBT, _DISBELIEF = 0.12, 0.3
# Weight of "a similarity" against what the landmarks say of how a turned face is narrowed.
_RIGIDITY = 0.15
# Of its ellipse's area, what a parsed region has when it is surely there.
_SEEN_SHARE = 0.15
_BROW = 0.38  # above the eye, in distances of the eyes

Points = npt.NDArray[np.float64]
Field = TypeVar("Field", torch.Tensor, FloatArray)


def face_mask(side: int) -> torch.Tensor:
    """(1, side, side) in [0, 1]: the soft ellipse on the unit crop, where faces are measured."""
    radius = torch.from_numpy(_ellipse_radius(side))
    edge = ((1 - radius) / _FEATHER).clamp(0, 1)
    return smoothstep(edge)[None]


def crop_mask(matrix: FloatArray, work_px: int, info: VideoInfo) -> FloatArray:
    """(W, W) in [0, 1]: that mask on the crop of this frame -> crop matrix, 0 beyond the frame."""
    mask = np.asarray(face_mask(work_px)[0].numpy(), np.float32)
    to_frame = invert(matrix.astype(np.float64))
    if _lies_in(apply(to_frame, unit_corners() * work_px - 0.5), info).all():
        return mask
    x, y = np.meshgrid(np.arange(work_px), np.arange(work_px))
    at = apply(to_frame, np.stack([x, y], axis=-1).reshape(-1, 2))
    return mask * _lies_in(at, info).reshape(work_px, work_px)


def _lies_in(points_px: Points, info: VideoInfo) -> npt.NDArray[np.bool_]:
    """(n, 2) -> (n,) whether they lie on a pixel of the frame."""
    size = np.array([info.width, info.height])
    return np.asarray(((points_px >= -0.5) & (points_px <= size - 0.5)).all(axis=-1))


def mask_rect(matrix: FloatArray, work_px: int, info: VideoInfo, grid: tuple[int, int]) -> Rect:
    """The part of the frame that pasting through this frame -> crop matrix can change."""
    (cx, cy), (rx, ry) = _CENTRE, _RADII
    # One texel of a small mask beyond the ellipse, which interpolation reaches.
    rx, ry = rx + 1 / _ELLIPSE_PX, ry + 1 / _ELLIPSE_PX
    box = np.array([[cx - rx, cy - ry], [cx + rx, cy - ry], [cx - rx, cy + ry], [cx + rx, cy + ry]])
    corners = apply(invert(matrix), box * work_px - 0.5)
    return covering_rect(corners, info, grid=grid, margin_px=1)


def intersection(a: Rect, b: Rect) -> Rect:
    """What lies in both; it may be empty."""
    return Rect(max(a.x0, b.x0), max(a.y0, b.y0), min(a.x1, b.x1), min(a.y1, b.y1))


def believable(landmarks: npt.NDArray[Any]) -> Points:
    """(5, 2) landmarks in the unit crop, led back to where crops have them if they are far off."""
    usual = usual_landmarks()
    off = np.asarray(landmarks, np.float64) - usual
    far = np.linalg.norm(off, axis=1, keepdims=True)
    share = np.clip((_DISBELIEF - far) / (_DISBELIEF - _DOUBT), 0, 1)
    return np.asarray(usual + off * share, np.float64)


def hull_distance(reach: Points, feather: float) -> FloatArray:
    """(64, 64) signed distance to the outline of a face, in unit crops: negative inside.

    `reach` (n,) is that of `hull_support`. `feather` is the width of the soft edge: where the
    ellipse of `mask_rect` ends, the distance is at least half of it.
    """
    across, down = _along_directions()
    down = down - reach.astype(np.float32)[:, None]
    distance = (across[:, None] + down[..., None]).max(axis=0)
    bound = _beyond_ellipse() + np.float32(feather / 2)
    return np.asarray(np.maximum(distance, bound), np.float32)


def hull_support(landmarks: Points) -> Points:
    """(n,) how far the outline of a face reaches along directions all around, the first along x.

    `landmarks` (5, 2) are those of the unit crop. The outline with its forehead is led to them by
    an affine map, and taken as the intersection of half-planes (the support function of its
    convex hull), so that it moves as smoothly as they do.
    """
    outline = apply(_shape(landmarks), _outline())
    directions = _directions()
    reach = (outline @ directions.T).max(axis=0)
    margin = _NOSE_MARGIN * math.dist(landmarks[0], landmarks[1])
    return np.asarray(np.maximum(reach, (landmarks @ directions.T).max(axis=0) + margin))


@cache
def _along_directions() -> tuple[FloatArray, FloatArray]:
    """(n, 64) how far along each of `_directions` a column lies, and a row."""
    centres = (np.arange(GRID_PX, dtype=np.float32) + 0.5) / GRID_PX
    x, y = _directions().astype(np.float32).T[..., None]
    return x * centres, y * centres


@cache
def _beyond_ellipse() -> FloatArray:
    """(64, 64) in unit crops."""
    return (_ellipse_radius(GRID_PX) - 1) * np.float32(min(_RADII))


@cache
def _directions() -> Points:
    """(n, 2) of unit length."""
    angles = np.arange(_DIRECTIONS) * (2 * np.pi / _DIRECTIONS)
    directions: Points = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    return directions


def region_strength(
    landmarks: Points,
    strengths: Mapping[str, float],
    parsed: Mapping[str, FloatArray] | None = None,
) -> FloatArray:
    """(64, 64) strength of each place of a face: of its "eyes", "brows" and "mouth", else "skin".

    1 for what is not named. `landmarks` (5, 2) are those of the unit crop, around which regions
    are ellipses; where regions (64, 64) are given they are these, as far as there is something in
    them: closed eyes are not parsed.
    """
    right = landmarks[1] - landmarks[0]
    unit = float(np.linalg.norm(right))
    down = np.array([-right[1], right[0]])
    mouth = landmarks[3:].mean(axis=0)
    wide = max(float(np.linalg.norm(landmarks[4] - landmarks[3])) / unit, 0.5)
    places = [
        ("brows", landmarks[0] - _BROW * down, (0.46, 0.17)),
        ("brows", landmarks[1] - _BROW * down, (0.46, 0.17)),
        ("eyes", landmarks[0], (0.4, 0.25)),
        ("eyes", landmarks[1], (0.4, 0.25)),
        ("mouth", mouth, (0.7 * wide, 0.42)),
    ]
    spots = [
        (name, _spot(centre, right * across, down * high))
        for name, centre, (across, high) in places
    ]
    if parsed is not None:
        spots = _with_parsed(spots, parsed)
    found = np.full((GRID_PX, GRID_PX), strengths.get("skin", 1.0), np.float32)
    for name, inside in spots:
        found += inside * (np.float32(strengths.get(name, 1.0)) - found)
    return found


def _with_parsed(
    spots: Sequence[tuple[str, FloatArray]], parsed: Mapping[str, FloatArray]
) -> list[tuple[str, FloatArray]]:
    """Each region as it is parsed; the less of it there is, the more the spots stand for it."""
    found = []
    for name, region in parsed.items():
        own = [spot for kind, spot in spots if kind == name]
        usual = _SEEN_SHARE * float(np.sum(own))
        seen = np.float32(min(float(region.sum()) / usual, 1.0))
        found += [(name, spot * (1 - seen)) for spot in own] + [(name, region * seen)]
    return found


def soft(distance: Field, feather: float) -> Field:
    """Signed distance -> [0, 1]: 1 inside, falling over `feather` around zero, smooth at both."""
    edge: Field = (0.5 - distance / feather).clip(0, 1)
    return smoothstep(edge)


def _spot(centre: Points, right: Points, down: Points) -> FloatArray:
    """(64, 64) 1 inside the ellipse with these half-axes, falling to 0 around its edge."""
    centres = (np.arange(GRID_PX) + 0.5) / GRID_PX
    x, y = centres - centre[0], (centres - centre[1])[:, None]
    across = (x * right[0] + y * right[1]) / (right @ right)
    high = (x * down[0] + y * down[1]) / (down @ down)
    edge = np.clip(1.5 - np.hypot(across, high), 0, 1)
    return np.asarray(smoothstep(edge), np.float32)


@cache
def _ellipse_radius(side: int) -> FloatArray:
    """(side, side) distance from the ellipse's centre, 1 at its edge."""
    centres = (np.arange(side, dtype=np.float32) + np.float32(0.5)) / np.float32(side)
    across = (centres - np.float32(_CENTRE[0])) / np.float32(_RADII[0])
    down = (centres - np.float32(_CENTRE[1])) / np.float32(_RADII[1])
    return np.asarray(np.hypot(across, down[:, None]), np.float32)


def usual_landmarks() -> Points:
    """(5, 2) in the unit crop: between the templates, which differ by less than a mask's edge."""
    return (template("gpen") + template("ffhq")) / 2


@cache
def _outline() -> Points:
    return np.concatenate([_OUTLINE, _OUTLINE[1:-1] * [-1, 1]])


def _shape(landmarks: Points) -> Matrix:
    """(2, 3) from distances of the eyes around their middle to the unit crop.

    The similarity that fits best, and on top of it as much of the affine map as `_RIGIDITY` lets.
    """
    face, centre, bending = _usual_shape()
    similarity = fit_similarity(face[None], landmarks)[0]
    off = landmarks - apply(similarity, face)
    middle = off.mean(axis=0)
    bend = (bending @ (off - middle)).T
    return np.asarray(similarity + np.column_stack([bend, middle - bend @ centre]))


@cache
def _usual_shape() -> tuple[Points, Points, Points]:
    """(5, 2) in distances of the eyes around their middle; (2,) its centre; and (2, 5) what makes
    the bend of how far landmarks are off."""
    usual = usual_landmarks()
    middle, eye_distance = usual[:2].mean(axis=0), float(np.linalg.norm(usual[1] - usual[0]))
    face = (usual - middle) / eye_distance
    centre = face.mean(axis=0)
    spread = (face - centre).T @ (face - centre)
    spread += _RIGIDITY * np.trace(spread) / 2 * np.eye(2)
    return face, centre, np.linalg.solve(spread, (face - centre).T)
