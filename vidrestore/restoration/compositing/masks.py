"""Masks: the part of a crop that is face, as a soft hull around the landmarks within an ellipse."""

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

# An upright ellipse in the unit crop, which bounds every mask, and the width of its soft edge.
_CENTER = (0.5, 0.53)
_RADII = (0.33, 0.41)
_FEATHER = 0.25  # share of the radius over which the ellipse falls from 1 to 0
_ELLIPSE_PX = 128


# The outline of a face seen from the front, one half, from the middle of the eyes in distances of
# the eyes: hairline, temple, cheek, jaw, chin.
_OUTLINE = np.array(
    [[0, -1.2], [0.6, -1.05], [1.02, -0.5], [1.12, 0.1], [1.05, 0.75], [0.85, 1.35], [0.48, 1.8],
     [0, 1.98]]
)  # fmt: skip
_NOSE_MARGIN = 0.2  # the nose of a turned face extends so far; in distances of the eyes
_DIRECTIONS = 40
# How far, in unit crops, landmarks may be from their template before they count less, and from
# where on they do not count.
_DOUBT, _DISBELIEF = 0.12, 0.3
# Weight of "a similarity" against the narrowing of a turned face by the landmarks.
_RIGIDITY = 0.15
# Share of the area of its ellipse from which on a parsed region is surely there.
_SEEN_SHARE = 0.15
_BROW = 0.38  # above the eye, in distances of the eyes

EXPRESSIVE = ("left_eye", "right_eye", "mouth")
"""The parts of a face of which less may be used than of the rest; left and right are those of the
picture."""
# Half-axes of the ellipses, in distances of the eyes, of which less is used: an eye, and the mouth
# beyond half its width, whose center lies lower than its corners. The restored face is used in full
# again from so many times as far on, short of the other eye and the tip of the nose.
_LESS_EYE, _EYE_UP_TO = (0.28, 0.19), 1.9
_LESS_MOUTH, _MOUTH_UP_TO, _MOUTH_DOWN = (0.1, 0.27), 1.7, 0.05

Points = npt.NDArray[np.float64]
"""(n, 2) points (x, y), or (n,) lengths."""
Field = TypeVar("Field", torch.Tensor, FloatArray)
"""A picture as a tensor or an array."""


def face_mask(side: int) -> torch.Tensor:
    """Return the soft ellipse that no mask exceeds.

    Convention:
        (row, column) pixels of the unit crop scaled to `side`, whose outer edges lie at 0 and
        `side`.

    Args:
        side: The side of the mask in pixels.

    Returns:
        (1, side, side) float32 on the CPU, in [0, 1].
    """
    radius = torch.from_numpy(_ellipse_radius(side))
    edge = ((1 - radius) / _FEATHER).clamp(0, 1)
    return smoothstep(edge)[None]


def crop_mask(matrix: FloatArray, work_px: int, info: VideoInfo) -> FloatArray:
    """Return the soft ellipse on a crop, without the part of the crop beyond the frame.

    Convention:
        `matrix` is frame pixel centers (x, y) -> crop pixel centers (x, y).

    Args:
        matrix: (2, 3) matrix.
        work_px: The side W of the crop in pixels.
        info: The properties of the frame.

    Returns:
        (W, W) float32 in [0, 1]; 0 beyond the frame.
    """
    mask = np.asarray(face_mask(work_px)[0].numpy(), np.float32)
    to_frame = invert(matrix.astype(np.float64))
    if _lies_in(apply(to_frame, unit_corners() * work_px - 0.5), info).all():
        return mask
    x, y = np.meshgrid(np.arange(work_px), np.arange(work_px))
    at = apply(to_frame, np.stack([x, y], axis=-1).reshape(-1, 2))
    return mask * _lies_in(at, info).reshape(work_px, work_px)


def _lies_in(points_px: Points, info: VideoInfo) -> npt.NDArray[np.bool_]:
    """Return (n,): whether (n, 2) points (x, y) lie on a pixel of the frame."""
    size = np.array([info.width, info.height])
    return np.asarray(((points_px >= -0.5) & (points_px <= size - 0.5)).all(axis=-1))


def mask_rect(matrix: FloatArray, work_px: int, info: VideoInfo, grid: tuple[int, int]) -> Rect:
    """Return the part of the frame that pasting a crop can change.

    Convention:
        `matrix` is frame pixel centers (x, y) -> crop pixel centers (x, y).

    Args:
        matrix: (2, 3) matrix.
        work_px: The side of the crop in pixels.
        info: The properties of the frame.
        grid: The width and height of a group of chroma samples in pixels; the rectangle consists of
            whole groups.

    Returns:
        The rectangle in pixels of the frame; it is empty where the mask lies outside the frame.
    """
    (cx, cy), (rx, ry) = _CENTER, _RADII
    # One texel of a small mask beyond the ellipse, which interpolation reaches.
    rx, ry = rx + 1 / _ELLIPSE_PX, ry + 1 / _ELLIPSE_PX
    box = np.array([[cx - rx, cy - ry], [cx + rx, cy - ry], [cx - rx, cy + ry], [cx + rx, cy + ry]])
    corners = apply(invert(matrix), box * work_px - 0.5)
    return covering_rect(corners, info, grid=grid, margin_px=1)


def intersection(a: Rect, b: Rect) -> Rect:
    """Intersect two rectangles.

    Args:
        a: A rectangle.
        b: A rectangle.

    Returns:
        The rectangle of the pixels in both; it may be empty.
    """
    return Rect(max(a.x0, b.x0), max(a.y0, b.y0), min(a.x1, b.x1), min(a.y1, b.y1))


def believable(landmarks: npt.NDArray[Any]) -> Points:
    """Move landmarks towards their usual places in the unit crop if they are far from them.

    Convention:
        Landmarks are (x, y) in the unit crop, whose outer edges lie at 0 and 1.

    Args:
        landmarks: (5, 2) landmarks.

    Returns:
        (5, 2) float64.
    """
    usual = usual_landmarks()
    off = np.asarray(landmarks, np.float64) - usual
    far = np.linalg.norm(off, axis=1, keepdims=True)
    share = np.clip((_DISBELIEF - far) / (_DISBELIEF - _DOUBT), 0, 1)
    return np.asarray(usual + off * share, np.float64)


def hull_distance(reach: Points, feather: float) -> FloatArray:
    """Return the signed distance to the outline of a face.

    Where the ellipse of `mask_rect` ends, the distance is at least half of `feather`, so the soft
    edge never leaves the ellipse.

    Args:
        reach: (n,) extents of the outline, as `hull_support` returns them.
        feather: The width of the soft edge, in unit crops.

    Returns:
        (64, 64) float32 in unit crops; negative inside.
    """
    across, down = _along_directions()
    down = down - reach.astype(np.float32)[:, None]
    distance = (across[:, None] + down[..., None]).max(axis=0)
    bound = _beyond_ellipse() + np.float32(feather / 2)
    return np.asarray(np.maximum(distance, bound), np.float32)


def hull_support(landmarks: Points) -> Points:
    """Return how far the outline of a face reaches in directions all around.

    An affine map moves the outline of an average face, with its forehead, to the landmarks. The
    result is the support function of its convex hull, so it moves as smoothly as the landmarks.

    Convention:
        Landmarks are (x, y) in the unit crop; the first direction is that of x.

    Args:
        landmarks: (5, 2) landmarks.

    Returns:
        (n,) float64, in unit crops from the origin of the unit crop.
    """
    outline = apply(_shape(landmarks), _outline())
    directions = _directions()
    reach = (outline @ directions.T).max(axis=0)
    margin = _NOSE_MARGIN * math.dist(landmarks[0], landmarks[1])
    return np.asarray(np.maximum(reach, (landmarks @ directions.T).max(axis=0) + margin))


@cache
def _along_directions() -> tuple[FloatArray, FloatArray]:
    """Return (n, 64) each: how far columns and rows lie along each of `_directions`."""
    centers = (np.arange(GRID_PX, dtype=np.float32) + 0.5) / GRID_PX
    x, y = _directions().astype(np.float32).T[..., None]
    return x * centers, y * centers


@cache
def _beyond_ellipse() -> FloatArray:
    """Return the (64, 64) distance beyond the ellipse in unit crops."""
    return (_ellipse_radius(GRID_PX) - 1) * np.float32(min(_RADII))


@cache
def _directions() -> Points:
    """Return (n, 2) unit vectors."""
    angles = np.arange(_DIRECTIONS) * (2 * np.pi / _DIRECTIONS)
    directions: Points = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    return directions


def region_strength(
    landmarks: Points,
    strengths: Mapping[str, float],
    parsed: Mapping[str, FloatArray] | None = None,
) -> FloatArray:
    """Return the strength of each place of a face by its regions.

    Regions are ellipses around the landmarks. A parsed region replaces its ellipses as far as the
    parser found it, since closed eyes, for one, are not parsed.

    Convention:
        Landmarks are (x, y) in the unit crop, whose outer edges lie at 0 and 1.

    Args:
        landmarks: (5, 2) landmarks.
        strengths: The strength in [0, 1] of "eyes", "brows", "mouth" and "skin", which is the rest;
            1 for a region that is missing.
        parsed: (64, 64) share in [0, 1] of each parsed region; default: none.

    Returns:
        (64, 64) float32 in [0, 1].
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
        (name, _spot(center, right * across, down * high))
        for name, center, (across, high) in places
    ]
    if parsed is not None:
        spots = _with_parsed(spots, parsed)
    field = np.full((GRID_PX, GRID_PX), strengths.get("skin", 1.0), np.float32)
    for name, inside in spots:
        field += inside * (np.float32(strengths.get(name, 1.0)) - field)
    return field


def expression_strength(landmarks: Points, factors: Mapping[str, float]) -> FloatArray:
    """Return the factor of the strength at each place of a face by its eyes and its mouth.

    Convention:
        Landmarks are (x, y) in the unit crop, whose outer edges lie at 0 and 1.

    Args:
        landmarks: (5, 2) landmarks.
        factors: The factor in [0, 1] of any of `EXPRESSIVE`; 1 for a part that is missing.

    Returns:
        (64, 64) float32 in [0, 1]: the factor on the whole of a part, rising to 1 around it.
    """
    right = landmarks[1] - landmarks[0]
    unit = max(float(np.linalg.norm(right)), 1e-6)
    down = np.array([-right[1], right[0]])
    wide = max(float(np.linalg.norm(landmarks[4] - landmarks[3])) / unit, 0.5)
    mouth = landmarks[3:].mean(axis=0) + _MOUTH_DOWN * down
    of_mouth = (wide / 2 + _LESS_MOUTH[0], _LESS_MOUTH[1])
    eye, lips = (*_LESS_EYE, _EYE_UP_TO), (*of_mouth, _MOUTH_UP_TO)
    places = zip(EXPRESSIVE, (*landmarks[:2], mouth), (eye, eye, lips), strict=True)
    field = np.ones((GRID_PX, GRID_PX), np.float32)
    for name, center, (across, high, up_to) in places:
        if (factor := factors.get(name, 1.0)) < 1:
            inside = _spot(center, right * across, down * high, edge=(1.0, up_to))
            field *= 1 - inside * np.float32(1 - factor)
    return field


def _with_parsed(
    spots: Sequence[tuple[str, FloatArray]], parsed: Mapping[str, FloatArray]
) -> list[tuple[str, FloatArray]]:
    """Return each region as it was parsed, mixed with its ellipses where it was hardly found."""
    mixed = []
    for name, region in parsed.items():
        own = [spot for kind, spot in spots if kind == name]
        usual = _SEEN_SHARE * float(np.sum(own))
        seen = np.float32(min(float(region.sum()) / usual, 1.0))
        mixed += [(name, spot * (1 - seen)) for spot in own] + [(name, region * seen)]
    return mixed


def soft(distance: Field, feather: float) -> Field:
    """Turn a signed distance into a mask.

    Args:
        distance: The signed distance, of any shape; negative inside.
        feather: The width of the edge, in the unit of `distance`.

    Returns:
        The mask in [0, 1]: 1 inside, falling to 0 over `feather` around distance 0, smooth at both
        ends.
    """
    edge: Field = (0.5 - distance / feather).clip(0, 1)
    return smoothstep(edge)


def _spot(
    center: Points, right: Points, down: Points, edge: tuple[float, float] = (0.5, 1.5)
) -> FloatArray:
    """Return (64, 64): 1 inside the ellipse with these half-axes, falling to 0 around its edge.

    `edge` are the shares of the half-axes up to which it is 1, and from which on it is 0.
    """
    centers = (np.arange(GRID_PX) + 0.5) / GRID_PX
    x, y = centers - center[0], (centers - center[1])[:, None]
    across = (x * right[0] + y * right[1]) / (right @ right)
    high = (x * down[0] + y * down[1]) / (down @ down)
    inner, outer = edge
    share = np.clip((outer - np.hypot(across, high)) / (outer - inner), 0, 1)
    return np.asarray(smoothstep(share), np.float32)


@cache
def _ellipse_radius(side: int) -> FloatArray:
    """Return (side, side) distance from the center of the ellipse, 1 at its edge."""
    centers = (np.arange(side, dtype=np.float32) + np.float32(0.5)) / np.float32(side)
    across = (centers - np.float32(_CENTER[0])) / np.float32(_RADII[0])
    down = (centers - np.float32(_CENTER[1])) / np.float32(_RADII[1])
    return np.asarray(np.hypot(across, down[:, None]), np.float32)


def usual_landmarks() -> Points:
    """Return the (5, 2) landmarks (x, y) of an average face in the unit crop.

    They are the mean of the templates, which differ by less than the soft edge of a mask.
    """
    return (template("gpen") + template("ffhq")) / 2


@cache
def _outline() -> Points:
    return np.concatenate([_OUTLINE, _OUTLINE[1:-1] * [-1, 1]])


def _shape(landmarks: Points) -> Matrix:
    """Return the (2, 3) map from distances of the eyes around their middle to the unit crop.

    It is the similarity that fits best, and as much of the affine rest as `_RIGIDITY` allows.
    """
    face, center, bending = _usual_shape()
    similarity = fit_similarity(face[None], landmarks)[0]
    off = landmarks - apply(similarity, face)
    middle = off.mean(axis=0)
    bend = (bending @ (off - middle)).T
    return np.asarray(similarity + np.column_stack([bend, middle - bend @ center]))


@cache
def _usual_shape() -> tuple[Points, Points, Points]:
    """Return the usual landmarks, their center, and the matrix from their errors to the bend.

    They are (5, 2) and (2,) in distances of the eyes around their middle, and (2, 5).
    """
    usual = usual_landmarks()
    middle, eye_distance = usual[:2].mean(axis=0), float(np.linalg.norm(usual[1] - usual[0]))
    face = (usual - middle) / eye_distance
    center = face.mean(axis=0)
    spread = (face - center).T @ (face - center)
    spread += _RIGIDITY * np.trace(spread) / 2 * np.eye(2)
    return face, center, np.linalg.solve(spread, (face - center).T)
