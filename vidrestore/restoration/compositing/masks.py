"""Masks: the part of a crop that is face or head, as a soft hull within a bound.

The hull is that of the points of the face mesh, where the track has them, and else of an average
face that is fitted to the five landmarks. The nose of a turned head stands out of the hull of the
other points of the mesh; it is a hull of its own, so that the hollows beside it stay outside.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from vidrestore.common.settings import Extent
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
from vidrestore.models.face_mesh import (
    CHEEKS,
    LEFT_BROW,
    LEFT_EYE,
    LIPS,
    NOSE,
    OVAL,
    RIGHT_BROW,
    RIGHT_EYE,
    SHAPE_POINTS,
    places_in_shape,
)

# Width of the soft edge of the mask of a pasted face, in pixels of the frame, and its largest share
# of the side of the crop. The edge of a head lies in hair and background, where a wider one is less
# visible.
_FEATHER_PX, _WIDEST_FEATHER = 14.0, 0.07
_HEAD_FEATHER_PX, _WIDEST_HEAD_FEATHER = 28.0, 0.1

# Upright ellipses in the unit crop. The first one holds an average face, and bounds the masks of
# faces without a mesh; the second one bounds those of faces with a mesh, which may be turned.
_CENTER = (0.5, 0.53)
_RADII = (0.33, 0.41)
_WIDE_RADII = (0.44, 0.46)
# Share of the radius over which the first one falls from 1 to 0, where a face is measured.
_ELLIPSE_FEATHER = 0.25
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

# The mesh ends in the middle of the forehead. In most of 31 photographs the hair line lies about so
# many times as high above the bridge of the nose, or higher. Near profile the mesh is smaller than
# the face: for five outlines of three people, drawn by hand, the best number was 1.7 to 2.0; it was
# 1.3 to 1.5 for heads with up to 31 degrees of yaw. So the number rises with the turn, as
# `_with_forehead` measures it: at least 1.2 for the five, and up to 0.6 for the others.
_FOREHEAD, _FOREHEAD_IN_PROFILE, _PROFILE_TURNS = 1.4, 1.65, (0.7, 1.2)
# A forehead leans back: where a head is turned all the way to the side, its upper end lies so far
# behind the bridge of the nose, over the height between them, more than the middle of the forehead.
_LEANING = 0.6
# How far inside the outline of a mesh the middle of the soft edge lies, in widths of the edge. With
# 0, as much of the face is lost as is gained of the background.
_INSET = 0.075
# How much larger than a face, from between the eyes, a head is: to its sides, upwards, downwards.
_HEAD_ACROSS, _HEAD_UP, _HEAD_DOWN = 1.38, 1.7, 1.03
# A square with round corners, which bounds the masks of heads: half of its side and the radius.
_HEAD_HALF, _HEAD_CORNER = 0.44, 0.16
# How far beyond the points of the mesh its regions reach, and the width of their soft edge.
_REGION_MARGINS = {"brows": 0.018, "eyes": 0.026, "mouth": 0.022}
_REGION_FEATHER = 0.03
EXPRESSIVE = ("left_eye", "right_eye", "mouth")
"""The parts of a face of which less may be used than of the rest; left and right are those of the
picture."""
# Half-axes of the ellipses, in distances of the eyes, of which less is used: an eye, and the mouth
# beyond half its width, whose center lies lower than its corners. The restored face is used in full
# again at a multiple of that distance, except near the other eye and the tip of the nose.
_LESS_EYE, _EYE_UP_TO = (0.28, 0.19), 1.9
_LESS_MOUTH, _MOUTH_UP_TO, _MOUTH_DOWN = (0.1, 0.27), 1.7, 0.05

# Where a shape holds the points of the nose that stand out of a turned face, and those of the hull
# that the nose forms with the middle of the face.
_NOSE_TIP = [SHAPE_POINTS.index(number) for number in (195, 4, 48, 278)]
_MIDDLE_OF_FACE = [
    *(SHAPE_POINTS.index(number) for number in (*NOSE, *CHEEKS)),
    *(place for numbers in (LEFT_EYE, RIGHT_EYE, LIPS) for place in places_in_shape(numbers)),
]
# Where points of the mesh stand in a shape.
_TOP, _BRIDGE, _CHIN, _LEFT, _RIGHT = (
    SHAPE_POINTS.index(number) for number in (10, 168, 152, 234, 454)
)
_REGION_PLACES = [
    (name, places_in_shape(numbers))
    for name, numbers in (
        ("brows", LEFT_BROW),
        ("brows", RIGHT_BROW),
        ("eyes", LEFT_EYE),
        ("eyes", RIGHT_EYE),
        ("mouth", LIPS),
    )
]

Points = npt.NDArray[np.float64]
"""(n, 2) points (x, y), or (n,) lengths."""
Field = TypeVar("Field", torch.Tensor, FloatArray)
"""A picture as a tensor or an array."""


def face_mask(side: int) -> torch.Tensor:
    """Return a soft ellipse that holds an average face.

    Convention:
        (row, column) pixels of the unit crop scaled to `side`, whose outer edges lie at 0 and
        `side`.

    Args:
        side: The side of the mask in pixels.

    Returns:
        (1, side, side) float32 on the CPU, in [0, 1].
    """
    radius = torch.from_numpy(_ellipse_radius(side, _RADII))
    edge = ((1 - radius) / _ELLIPSE_FEATHER).clamp(0, 1)
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
    places = np.arange(work_px, dtype=np.float64)
    for (across, down, offset), length in zip(to_frame, (info.width, info.height), strict=True):
        at = across * places[None, :] + (down * places[:, None] + offset)
        mask = mask * ((at >= -0.5) & (at <= length - 0.5))
    return mask


def _lies_in(points_px: Points, info: VideoInfo) -> npt.NDArray[np.bool_]:
    """Return (n,): whether (n, 2) points (x, y) lie on a pixel of the frame."""
    size = np.array([info.width, info.height])
    return np.asarray(((points_px >= -0.5) & (points_px <= size - 0.5)).all(axis=-1))


def mask_rect(
    matrix: FloatArray,
    work_px: int,
    info: VideoInfo,
    grid: tuple[int, int],
    extent: Extent = "face",
) -> Rect:
    """Return the part of the frame that pasting a crop can change.

    Convention:
        `matrix` is frame pixel centers (x, y) -> crop pixel centers (x, y).

    Args:
        matrix: (2, 3) matrix.
        work_px: The side of the crop in pixels.
        info: The properties of the frame.
        grid: The width and height of a group of chroma samples in pixels; the rectangle consists of
            whole groups.
        extent: What is pasted; default: the face.

    Returns:
        The rectangle in pixels of the frame; it is empty where the mask lies outside the frame.
    """
    (cx, cy), (rx, ry) = _CENTER, _WIDE_RADII
    # One texel of a small mask beyond the ellipse, which interpolation reaches.
    rx, ry = rx + 1 / _ELLIPSE_PX, ry + 1 / _ELLIPSE_PX
    box = np.array([[cx - rx, cy - ry], [cx + rx, cy - ry], [cx - rx, cy + ry], [cx + rx, cy + ry]])
    corners = apply(invert(matrix), (unit_corners() if extent == "head" else box) * work_px - 0.5)
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


def feather_width(side_px: float, extent: Extent = "face") -> float:
    """Return the width of the soft edge of the mask of a pasted face.

    Args:
        side_px: The side of the crop, in pixels of the frame.
        extent: What is pasted; default: the face.

    Returns:
        The width, as a share of the side of the crop.
    """
    if extent == "head":
        return min(_HEAD_FEATHER_PX / side_px, _WIDEST_HEAD_FEATHER)
    return min(_FEATHER_PX / side_px, _WIDEST_FEATHER)


def hull_distance(reach: Points, feather: float, *, has_mesh: bool = False) -> FloatArray:
    """Return the signed distance to the outline of a face.

    Where the ellipse of the bound ends, the distance is at least half of `feather`, so the soft
    edge never leaves the ellipse.

    Args:
        reach: (k, n) extents of the hulls whose union the face is, as `support` returns them.
        feather: The width of the soft edge, in unit crops.
        has_mesh: Whether the outline is that of the face mesh, so that the ellipse is the wide one;
            default: False.

    Returns:
        (64, 64) float32 in unit crops; negative inside.
    """
    distance = _union(reach - _INSET * feather if has_mesh else reach)
    bound = _beyond_ellipse(_WIDE_RADII if has_mesh else _RADII) + np.float32(feather / 2)
    return np.asarray(np.maximum(distance, bound), np.float32)


def head_distance(reach: Points) -> FloatArray:
    """Return the signed distance to the outline of a head.

    At the border of the crop the distance is at least 0.05, so a soft edge of up to 0.1 never
    leaves the crop.

    Args:
        reach: (k, n) extents of the hulls whose union the head is, as `support` returns them.

    Returns:
        (64, 64) float32 in unit crops; negative inside.
    """
    return np.asarray(np.maximum(_union(reach), _beyond_square()), np.float32)


def support(points: Points) -> Points:
    """Return how far the convex hull of points reaches in directions all around.

    It moves as smoothly as the points.

    Convention:
        Points are (x, y) in the unit crop; the first direction is that of x.

    Args:
        points: (n, 2) points.

    Returns:
        (40,) float64, in unit crops from the origin of the unit crop.
    """
    return np.asarray((points @ _directions().T).max(axis=0))


def hull_support(landmarks: Points) -> Points:
    """Return how far the outline of a face without a mesh reaches in directions all around.

    An affine map moves the outline of an average face, with its forehead, to the landmarks. The
    result is the support function of its convex hull.

    Convention:
        Landmarks are (x, y) in the unit crop; the first direction is that of x.

    Args:
        landmarks: (5, 2) landmarks.

    Returns:
        (1, n) float64, in unit crops from the origin of the unit crop.
    """
    margin = _NOSE_MARGIN * math.dist(landmarks[0], landmarks[1])
    return np.maximum(support(_average_outline(landmarks)), support(landmarks) + margin)[None]


def mesh_support(shape: Points) -> Points:
    """Return how far the outline of a face with a mesh reaches in directions all around.

    The forehead is extended to an average hair line: what lies above the bridge of the nose is
    stretched along the middle of the forehead, which leans back. The outline is the union of two
    hulls: of the face without the tip of the nose, and of the middle of the face with it.

    Convention:
        Points are (x, y) in the unit crop; the first direction is that of x.

    Args:
        shape: (86, 2) points, as in `Track.shapes`.

    Returns:
        (2, n) float64, in unit crops from the origin of the unit crop.
    """
    rest = np.delete(_with_forehead(shape), _NOSE_TIP, axis=0)
    return np.stack([support(rest), support(shape[_MIDDLE_OF_FACE])])


def head_support(landmarks: Points, shape: Points | None) -> Points:
    """Return how far a head with its hair and ears reaches in directions all around.

    Its face is enlarged from between the eyes, mostly upwards and to the sides.

    Convention:
        Points are (x, y) in the unit crop; the first direction is that of x.

    Args:
        landmarks: (5, 2) landmarks.
        shape: (86, 2) points, as in `Track.shapes`; None where the face has no mesh.

    Returns:
        (1, n) float64, in unit crops from the origin of the unit crop.
    """
    outline = _average_outline(landmarks) if shape is None else _with_forehead(shape)
    eyes = landmarks[:2].mean(axis=0) if shape is None else shape[_BRIDGE]
    x, y = (outline - eyes).T
    head = np.column_stack([_HEAD_ACROSS * x, np.where(y < 0, _HEAD_UP, _HEAD_DOWN) * y])
    return support(eyes + head)[None]


def _with_forehead(shape: Points) -> Points:
    """Return the points of a mesh, and its oval up to an average hair line.

    On a turned head, the forehead leans to the near side.
    """
    oval, bridge, top, chin = shape[: len(OVAL)], shape[_BRIDGE], shape[_TOP], shape[_CHIN]
    up, middle = top - chin, top - bridge
    height = (oval - bridge) @ up / max(float(middle @ up), 1e-6)
    across = shape[_RIGHT] - shape[_LEFT]
    width = max(float(np.linalg.norm(across)), 1e-6)
    # 0 for a face seen from the front, -1 and 1 where the bridge of the nose is its edge.
    turn = 2 * float((bridge - shape[_LEFT]) @ across) / width**2 - 1
    leaning = -_LEANING * np.clip(turn, -1, 1) * float(np.linalg.norm(middle)) * across / width
    low, high = _PROFILE_TURNS
    profile = smoothstep(np.clip((abs(turn) - low) / (high - low), 0, 1))
    forehead = _FOREHEAD + profile * (_FOREHEAD_IN_PROFILE - _FOREHEAD)
    higher = (forehead - 1) * height.clip(0, 1)[:, None] * (middle + leaning)
    return np.concatenate([shape, oval + higher])


def _union(reach: Points) -> FloatArray:
    """Return the (64, 64) signed distance to the union of (k, n) hulls.

    A place inside has the distance to the edge of the hull in which it lies deepest.
    """
    first, *others = reach
    distance = _hull(first)
    for other in others:
        if (other > first).any():
            distance = np.minimum(distance, _hull(other))
    return distance


def _hull(reach: Points) -> FloatArray:
    """Return the (64, 64) signed distance to the convex hull that reaches so far."""
    across, down = _along_directions()
    down = down - reach.astype(np.float32)[:, None]
    return np.asarray((across[:, None] + down[..., None]).max(axis=0), np.float32)


@cache
def _along_directions() -> tuple[FloatArray, FloatArray]:
    """Return (n, 64) each: how far columns and rows lie along each of `_directions`."""
    centers = (np.arange(GRID_PX, dtype=np.float32) + 0.5) / GRID_PX
    x, y = _directions().astype(np.float32).T[..., None]
    return x * centers, y * centers


@cache
def _beyond_ellipse(radii: tuple[float, float]) -> FloatArray:
    """Return the (64, 64) distance beyond the ellipse in unit crops."""
    return (_ellipse_radius(GRID_PX, radii) - 1) * np.float32(min(radii))


@cache
def _beyond_square() -> FloatArray:
    """Return the (64, 64) distance beyond the bound of heads in unit crops."""
    centers = (np.arange(GRID_PX, dtype=np.float32) + 0.5) / GRID_PX
    off = np.abs(centers - 0.5) - (_HEAD_HALF - _HEAD_CORNER)
    x, y = np.meshgrid(off, off)
    outer = np.hypot(x.clip(0), y.clip(0)) + np.maximum(x, y).clip(None, 0)
    return np.asarray(outer - _HEAD_CORNER, np.float32)


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
    shape: Points | None = None,
) -> FloatArray:
    """Return the strength of each place of a face by its regions.

    Regions are the eyes, brows and lips of the face mesh with a margin, or ellipses around the
    landmarks without a mesh. A parsed region replaces them as far as the parser found it, since
    closed eyes, for one, are not parsed.

    Convention:
        Landmarks are (x, y) in the unit crop, whose outer edges lie at 0 and 1.

    Args:
        landmarks: (5, 2) landmarks.
        strengths: The strength in [0, 1] of "eyes", "brows", "mouth" and "skin", which is the rest;
            1 for a region that is missing.
        parsed: (64, 64) share in [0, 1] of each parsed region; default: none.
        shape: (86, 2) points of the face mesh in the unit crop, as in `Track.shapes`; default: the
            face has no mesh.

    Returns:
        (64, 64) float32 in [0, 1].
    """
    spots = _ellipses(landmarks) if shape is None else _mesh_regions(shape)
    if parsed is not None:
        spots = _with_parsed(spots, parsed)
    field = np.full((GRID_PX, GRID_PX), strengths.get("skin", 1.0), np.float32)
    for name, inside in spots:
        field += inside * (np.float32(strengths.get(name, 1.0)) - field)
    return field


def _mesh_regions(shape: Points) -> list[tuple[str, FloatArray]]:
    """Return the name of each region and (64, 64): 1 inside, falling to 0 around its edge."""
    spots = []
    for name, places in _REGION_PLACES:
        reach = support(shape[places]) + _REGION_MARGINS[name]
        spots.append((name, soft(_hull(reach), _REGION_FEATHER)))
    return spots


def _ellipses(landmarks: Points) -> list[tuple[str, FloatArray]]:
    """Return the regions like `_mesh_regions`, by the landmarks alone."""
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
    return [
        (name, _spot(center, right * across, down * high))
        for name, center, (across, high) in places
    ]


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
    """Return each region as it was parsed, mixed with its usual place where it was hardly found."""
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
def _ellipse_radius(side: int, radii: tuple[float, float]) -> FloatArray:
    """Return (side, side) distance from the center of the ellipse, 1 at its edge."""
    centers = (np.arange(side, dtype=np.float32) + np.float32(0.5)) / np.float32(side)
    across = (centers - np.float32(_CENTER[0])) / np.float32(radii[0])
    down = (centers - np.float32(_CENTER[1])) / np.float32(radii[1])
    return np.asarray(np.hypot(across, down[:, None]), np.float32)


def usual_landmarks() -> Points:
    """Return the (5, 2) landmarks (x, y) of an average face in the unit crop.

    They are the mean of the templates, which differ by less than the soft edge of a mask.
    """
    return (template("gpen") + template("ffhq")) / 2


def _average_outline(landmarks: Points) -> Points:
    """Return the outline of an average face, moved to the landmarks."""
    return apply(_shape(landmarks), _outline())


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
