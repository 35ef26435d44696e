"""Geometry of frames and face crops: upright views, similarity transforms, and warps between them.

Convention, everywhere: a (2, 3) matrix acts on columns (x, y, 1); pixel coordinates have (0, 0) at
the center of the top-left pixel. Points are (..., 2) in (x, y) order. The unit crop is a square
whose outer edges lie at 0 and 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vidrestore.imaging.frame import FloatArray, VideoInfo

GRID_PX = 64
"""The side, in pixels, of the small pictures of the unit crop in which masks are drawn."""


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
    """Return where a restorer expects the five landmarks in the unit crop.

    The landmarks are: left eye, right eye, nose, left mouth corner, right mouth corner, as the
    viewer sees them. "gpen" is the 112 x 112 template of ArcFace (InsightFace), padded by 28 pixels
    on each side as the authors of GPEN do; "ffhq" is the 512 x 512 FFHQ template of facexlib.

    Convention: (x, y), the unit crop with edges at 0 and 1.

    Args:
        name: "gpen" or "ffhq".

    Returns:
        (5, 2) float64.
    """
    return {"gpen": (_ARCFACE_112 + 28) / 168, "ffhq": _FFHQ_512 / 512}[name]


# Mean positions of the five landmarks in the box of a frontal face; the box is the unit square.
_IN_BOX = np.array([[0.31, 0.385], [0.69, 0.385], [0.50, 0.59], [0.355, 0.78], [0.645, 0.78]])


def landmarks_in_box(xyxy: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Estimate the landmarks of a frontal face from its box.

    Args:
        xyxy: (4,) box x1 y1 x2 y2 in pixels.

    Returns:
        (5, 2) landmarks (x, y) in the pixels of the box, in the order of `template`.
    """
    return np.asarray(_IN_BOX * (xyxy[2:] - xyxy[:2]) + xyxy[:2])


@dataclass(frozen=True, slots=True)
class Rect:
    """A rectangle of whole pixels as half-open ranges."""

    x0: int
    """The first column."""
    y0: int
    """The first row."""
    x1: int
    """The column after the last one."""
    y1: int
    """The row after the last one."""

    @property
    def width(self) -> int:
        """The number of columns; 0 or less for an empty rectangle."""
        return self.x1 - self.x0

    @property
    def height(self) -> int:
        """The number of rows; 0 or less for an empty rectangle."""
        return self.y1 - self.y0

    @property
    def is_empty(self) -> bool:
        """Whether the rectangle holds no pixel."""
        return self.width <= 0 or self.height <= 0


@dataclass(frozen=True, slots=True, eq=False)
class Upright:
    """The transform from a coded picture to its upright view with square pixels."""

    coded_size: tuple[int, int]
    """(width, height) to which the coded picture is scaled before it is rotated."""
    orientation: tuple[int, int, int, int]
    """The rotation and flip, as in `VideoInfo.display_orientation`."""
    matrix: Matrix
    """The (2, 3) matrix of the whole transform. Convention: frame pixel centers -> upright pixel
    centers.
    """

    def turn(self, picture: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Rotate and flip a picture so that it is upright.

        Args:
            picture: (H, W, ...) of `coded_size`, of any dtype.

        Returns:
            The upright picture, (H, W, ...) or (W, H, ...): a view of `picture`.
        """
        a, b, c, d = self.orientation
        if a == 0:
            picture = np.swapaxes(picture, 0, 1)
        x_sign, y_sign = (a, d) if a else (b, c)
        return picture[::y_sign, ::x_sign]


def upright(info: VideoInfo, longer_side_px: int | None = None) -> Upright:
    """Return the transform to the upright view of a stream.

    Convention: `Upright.matrix` maps frame pixel centers to upright pixel centers, (x, y).

    Args:
        info: The stream.
        longer_side_px: The longest side allowed, in pixels; the view is scaled down to it, never
            up. None: no limit. Without a limit the axis with the larger pixels is stretched, so no
            pixel is lost.

    Returns:
        The transform.
    """
    aspect = float(info.sample_aspect_ratio)
    width, height = info.width * max(aspect, 1.0), info.height * max(1 / aspect, 1.0)
    scale = 1.0 if longer_side_px is None else min(1.0, longer_side_px / max(width, height))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    orientation = np.array(info.display_orientation, dtype=np.float64).reshape(2, 2)
    linear = orientation @ np.diag([size[0] / info.width, size[1] / info.height])
    corners = linear @ np.array([[0, info.width, 0, info.width], [0, 0, info.height, info.height]])
    # Outer edges map to outer edges; edges and centers lie half a pixel apart on both sides.
    offset = linear @ [0.5, 0.5] - corners.min(axis=1) - 0.5
    return Upright(size, info.display_orientation, np.column_stack([linear, offset]))


def compose(second: Matrix, first: Matrix) -> Matrix:
    """Multiply two affine matrices.

    Convention: the result applies `first`, then `second`, to columns (x, y, 1).

    Args:
        second: (..., 2, 3), applied last.
        first: (..., 2, 3), applied first.

    Returns:
        (..., 2, 3).
    """
    linear = second[..., :2] @ first[..., :2]
    offset = second[..., :2] @ first[..., 2:] + second[..., 2:]
    return np.concatenate([linear, offset], axis=-1)


def invert(matrix: Matrix) -> Matrix:
    """Invert affine matrices.

    Convention: if `matrix` maps a to b, the result maps b to a.

    Args:
        matrix: (..., 2, 3), not singular.

    Returns:
        (..., 2, 3).
    """
    linear = np.linalg.inv(matrix[..., :2])
    return np.concatenate([linear, -linear @ matrix[..., 2:]], axis=-1)


def apply(matrix: Matrix, points: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Map points through affine matrices.

    Convention: points are rows (x, y); a matrix acts on the column (x, y, 1).

    Args:
        matrix: (2, 3), or (k, 2, 3) for k sets of points.
        points: (n, 2), or (k, n, 2).

    Returns:
        The mapped points, of the shape of `points`.
    """
    return points @ np.swapaxes(matrix[..., :2], -1, -2) + matrix[..., None, :, 2]


def fit_similarity(points: npt.NDArray[Any], target: npt.NDArray[Any]) -> Matrix:
    """Fit rotation, uniform scale and shift between point sets by least squares.

    The closed form of Umeyama (IEEE TPAMI 13(4), 1991) in the plane, without reflection: with
    complex coordinates, the best factor is <p, q> / <p, p> after the means are removed.

    Convention: each matrix maps `points` to `target`, both (x, y).

    Args:
        points: (k, n, 2), k sets of n points.
        target: (n, 2).

    Returns:
        (k, 2, 3) float64.
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
    """Convert a frame -> unit crop matrix to one that leads to the pixels of a crop.

    Convention: `unit` maps frame pixel centers to the unit crop, whose edges lie at 0 and 1; the
    result maps frame pixel centers to pixel centers of a W x W crop.

    Args:
        unit: (2, 3).
        work_px: W, the side of the crop in pixels.

    Returns:
        (2, 3) float32.
    """
    scaled = np.asarray(unit, dtype=np.float64) * work_px
    scaled[..., 2] -= 0.5
    return scaled.astype(np.float32)


def crop_side_px(unit: Matrix) -> float:
    """Return the longest side of a crop in frame pixels.

    Convention: `unit` maps frame pixel centers to the unit crop, whose edges lie at 0 and 1.

    Args:
        unit: (2, 3).

    Returns:
        The longer of the two side lengths, in frame pixels.
    """
    return float(np.linalg.norm(invert(np.asarray(unit, dtype=np.float64))[:, :2], axis=0).max())


def covering_rect(
    points: npt.NDArray[Any], info: VideoInfo, *, grid: tuple[int, int], margin_px: int = 0
) -> Rect:
    """Return the smallest rectangle of a frame, on the chroma grid, that holds all points.

    Convention: points are (x, y) in frame pixels, (0, 0) at the center of the top-left pixel.

    Args:
        points: (n, 2).
        info: The stream, whose size limits the rectangle.
        grid: The number of luma pixels per chroma sample, (x, y); the rectangle starts and ends on
            multiples of it, or ends at the edge of the frame.
        margin_px: Pixels added on each side; default 0.

    Returns:
        The rectangle in frame pixels; empty where all points lie outside the frame.
    """
    low = np.floor(points.min(axis=0)).astype(int) - margin_px
    high = np.ceil(points.max(axis=0)).astype(int) + 1 + margin_px
    x0, y0 = (max(0, low[i]) // grid[i] * grid[i] for i in (0, 1))
    x1, y1 = (-(-high[i] // grid[i]) * grid[i] for i in (0, 1))
    return Rect(x0, y0, min(x1, info.width), min(y1, info.height))


def unit_corners() -> npt.NDArray[np.float64]:
    """Return the corners of the unit crop, (4, 2) in (x, y) order: top row, then bottom row."""
    return np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])


def shifted(matrix: Matrix, rect: Rect) -> Matrix:
    """Make a matrix that acts on frame pixels act on the pixels of a rectangle instead.

    Convention: `matrix` maps frame pixel centers to something; the result maps pixel centers of
    `rect` to the same, (0, 0) being the top-left pixel of `rect`.

    Args:
        matrix: (2, 3).
        rect: The rectangle in frame pixels.

    Returns:
        (2, 3).
    """
    return compose(matrix, np.array([[1.0, 0.0, rect.x0], [0.0, 1.0, rect.y0]]))


def overlaps(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Compute the intersection over union of each pair of boxes.

    Args:
        a: (n, 4) boxes x1 y1 x2 y2.
        b: (m, 4) boxes x1 y1 x2 y2.

    Returns:
        (n, m) float64 in [0, 1].
    """
    p, q = a.reshape(-1, 1, 4), b.reshape(1, -1, 4)
    low, high = np.maximum(p[..., :2], q[..., :2]), np.minimum(p[..., 2:], q[..., 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=-1)
    areas = np.prod(p[..., 2:] - p[..., :2], axis=-1) + np.prod(q[..., 2:] - q[..., :2], axis=-1)
    return np.asarray(shared / np.maximum(areas - shared, 1e-6), np.float64)
