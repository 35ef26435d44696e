"""Where things are: the upright view of a coded picture, aligned crops, and warps between them.

Convention, everywhere: a (2, 3) matrix acts on columns (x, y, 1); pixel coordinates have (0, 0) at
the centre of the top-left pixel. Points are (..., 2) in (x, y) order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from vidrestore.imaging.frame import FloatArray, VideoInfo

GRID_PX = 64
"""Side of the small pictures of the unit crop in which masks are drawn."""


Matrix = npt.NDArray[Any]

# The five points of InsightFace's ArcFace alignment in its 112 x 112 crop.
_ARCFACE_112 = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ]
)
# The five points of facexlib's 512 x 512 FFHQ crop.
_FFHQ_512 = np.array(
    [
        [192.98138, 239.94708],
        [318.90277, 240.19360],
        [256.63416, 314.01935],
        [201.26117, 371.41043],
        [313.08905, 371.15118],
    ]
)


def template(name: str) -> npt.NDArray[np.float64]:
    """(5, 2) landmarks in the unit crop: "gpen", the authors' padded ArcFace points, or "ffhq"."""
    return {"gpen": (_ARCFACE_112 + 28) / 168, "ffhq": _FFHQ_512 / 512}[name]


# Mean place of the five points in the box of a frontal face, in units of the box.
_IN_BOX = np.array([[0.31, 0.385], [0.69, 0.385], [0.50, 0.59], [0.355, 0.78], [0.645, 0.78]])


def landmarks_in_box(xyxy: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """(5, 2) where the landmarks of a frontal face are likely to be in its box (4,)."""
    return np.asarray(_IN_BOX * (xyxy[2:] - xyxy[:2]) + xyxy[:2])


@dataclass(frozen=True, slots=True)
class Rect:
    """Half-open ranges of pixels."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def width(self) -> int:
        return self.x1 - self.x0

    @property
    def height(self) -> int:
        return self.y1 - self.y0

    @property
    def is_empty(self) -> bool:
        return self.width <= 0 or self.height <= 0


@dataclass(frozen=True, slots=True, eq=False)
class Upright:
    """The picture as a person sees it: rotated upright, square pixels."""

    coded_size: tuple[int, int]
    """(width, height) to which the coded picture is scaled before it is turned."""
    orientation: tuple[int, int, int, int]
    matrix: Matrix
    """Convention: frame pixel centres -> upright pixel centres."""

    def turn(self, picture: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """An (H, W, ...) picture of `coded_size`, turned and flipped upright."""
        a, b, c, d = self.orientation
        if a == 0:
            picture = np.swapaxes(picture, 0, 1)
        x_sign, y_sign = (a, d) if a else (b, c)
        return picture[::y_sign, ::x_sign]


def upright(info: VideoInfo, longer_side_px: int | None = None) -> Upright:
    """The upright view of a stream, scaled down to at most `longer_side_px`.

    Without a bound the coarser axis is stretched, so that no pixel is given up.
    """
    aspect = float(info.sample_aspect_ratio)
    width, height = info.width * max(aspect, 1.0), info.height * max(1 / aspect, 1.0)
    scale = 1.0 if longer_side_px is None else min(1.0, longer_side_px / max(width, height))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    orientation = np.array(info.display_orientation, dtype=np.float64).reshape(2, 2)
    linear = orientation @ np.diag([size[0] / info.width, size[1] / info.height])
    corners = linear @ np.array([[0, info.width, 0, info.width], [0, 0, info.height, info.height]])
    # Outer edges map to outer edges; half a pixel leads from edges to centres on both sides.
    offset = linear @ [0.5, 0.5] - corners.min(axis=1) - 0.5
    return Upright(size, info.display_orientation, np.column_stack([linear, offset]))


def compose(second: Matrix, first: Matrix) -> Matrix:
    """The (..., 2, 3) matrix that applies `first`, then `second`."""
    linear = second[..., :2] @ first[..., :2]
    offset = second[..., :2] @ first[..., 2:] + second[..., 2:]
    return np.concatenate([linear, offset], axis=-1)


def invert(matrix: Matrix) -> Matrix:
    """The (..., 2, 3) inverse."""
    linear = np.linalg.inv(matrix[..., :2])
    return np.concatenate([linear, -linear @ matrix[..., 2:]], axis=-1)


def apply(matrix: Matrix, points: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(n, 2) points through a (2, 3) matrix, or (k, n, 2) through (k, 2, 3)."""
    return points @ np.swapaxes(matrix[..., :2], -1, -2) + matrix[..., None, :, 2]


def fit_similarity(points: npt.NDArray[Any], target: npt.NDArray[Any]) -> Matrix:
    """Rotation, uniform scale and shift from (k, n, 2) `points` to (n, 2) `target`, least squares.

    Returns (k, 2, 3) float64; no reflection. Closed form of Umeyama (1991) in the plane: with
    complex coordinates, the best factor is <p, q> / <p, p> after removing the means.
    """
    p = points[..., 0] + 1j * points[..., 1]
    q = target[..., 0] + 1j * target[..., 1]
    p_mean, q_mean = p.mean(axis=-1, keepdims=True), q.mean(axis=-1, keepdims=True)
    spread = np.sum(np.abs(p - p_mean) ** 2, axis=-1)
    factor = np.sum(np.conj(p - p_mean) * (q - q_mean), axis=-1) / np.maximum(spread, 1e-12)
    shift = (q_mean - factor[..., None] * p_mean)[..., 0]
    rows = [[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]]
    return np.moveaxis(np.array(rows), (0, 1), (-2, -1))


def crop_matrix(unit: Matrix, work_px: int) -> FloatArray:
    """Frame -> unit crop (edges at 0 and 1) becomes frame -> pixel centres of a W x W crop."""
    scaled = np.asarray(unit, dtype=np.float64) * work_px
    scaled[..., 2] -= 0.5
    return scaled.astype(np.float32)


def crop_side_px(unit: Matrix) -> float:
    """Longest side, in frame pixels, of the unit crop whose frame -> crop matrix is given."""
    return float(np.linalg.norm(invert(np.asarray(unit, dtype=np.float64))[:, :2], axis=0).max())


def covering_rect(
    points: npt.NDArray[Any], info: VideoInfo, *, grid: tuple[int, int], margin_px: int = 0
) -> Rect:
    """The part of the frame that holds all (n, 2) points, on the chroma grid (x, y)."""
    low = np.floor(points.min(axis=0)).astype(int) - margin_px
    high = np.ceil(points.max(axis=0)).astype(int) + 1 + margin_px
    x0, y0 = (max(0, low[i]) // grid[i] * grid[i] for i in (0, 1))
    x1, y1 = (-(-high[i] // grid[i]) * grid[i] for i in (0, 1))
    return Rect(x0, y0, min(x1, info.width), min(y1, info.height))


def unit_corners() -> npt.NDArray[np.float64]:
    """(4, 2) corners of the unit crop."""
    return np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])


def shifted(matrix: Matrix, rect: Rect) -> Matrix:
    """A matrix from frame pixels, made to start from the pixels of `rect`."""
    return compose(matrix, np.array([[1.0, 0.0, rect.x0], [0.0, 1.0, rect.y0]]))


def warp(
    image: torch.Tensor, source_from_target: Matrix, height: int, width: int, *, mode: str
) -> torch.Tensor:
    """Sample (C, H, W) `image` at every pixel centre of a height x width target.

    Convention: `source_from_target` maps target pixel centres to pixel centres of `image`;
    beyond its edge the image repeats its border. `mode` is bilinear or bicubic. The image is
    halved by boxes first while more than two of its pixels fall on one of the target, so that
    nothing aliases.
    """
    matrix = np.asarray(source_from_target, dtype=np.float64)
    step = np.linalg.norm(matrix[:, :2], axis=0).min()
    halvings = max(0, math.floor(math.log2(max(step, 1e-6))))
    for _ in range(min(halvings, int(math.log2(min(image.shape[1:]))))):
        image = F.avg_pool2d(image[None], 2, ceil_mode=True, count_include_pad=False)[0]
        matrix = matrix / 2
        matrix[:, 2] -= 0.25
    rows, columns = image.shape[1:]
    theta = torch.as_tensor(matrix, dtype=torch.float32, device=image.device)
    x = torch.arange(width, dtype=torch.float32, device=image.device)
    y = torch.arange(height, dtype=torch.float32, device=image.device)[:, None]
    grid_x = (theta[0, 0] * x + theta[0, 1] * y + theta[0, 2] + 0.5) * (2 / columns) - 1
    grid_y = (theta[1, 0] * x + theta[1, 1] * y + theta[1, 2] + 0.5) * (2 / rows) - 1
    grid = torch.stack([grid_x, grid_y], dim=-1)
    return F.grid_sample(
        image[None], grid[None], mode=mode, padding_mode="border", align_corners=False
    )[0]


def overlaps(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """(n, m) intersection over union of (n, 4) and (m, 4) boxes x1 y1 x2 y2."""
    p, q = a.reshape(-1, 1, 4), b.reshape(1, -1, 4)
    low, high = np.maximum(p[..., :2], q[..., :2]), np.minimum(p[..., 2:], q[..., 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=-1)
    areas = np.prod(p[..., 2:] - p[..., :2], axis=-1) + np.prod(q[..., 2:] - q[..., :2], axis=-1)
    return np.asarray(shared / np.maximum(areas - shared, 1e-6), np.float64)
