"""Matrices, ranges, and R'G'B' <-> Y'CbCr of one region of a frame.

R'G'B' is (3, H, W) float32, 0 black and 1 white, not clipped: values that the planes can hold
beyond black and white survive. Formulas: Rec. ITU-R BT.601-7, BT.709-6, BT.2020-2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from vidrestore.errors import InputError
from vidrestore.frame import VideoInfo
from vidrestore.geometry import Rect

if TYPE_CHECKING:
    import av

_LUMA_WEIGHTS = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}

# ISO/IEC 23091-2 MatrixCoefficients that this module computes with.
_MATRIX_OF_TAG = {1: "bt709", 4: "bt601", 5: "bt601", 6: "bt601", 7: "bt709", 9: "bt2020"}


def resolve(
    *, pixel_format: str, codec: str, width: int, height: int, range_tag: int, matrix_tag: int
) -> tuple[str, bool, frozenset[str]]:
    """(matrix, full range, what was guessed) of a stream whose tags may be missing."""
    guessed = set()
    if range_tag in (1, 2):
        full = range_tag == 2
    else:
        full = pixel_format.startswith(("yuvj", "gray", "gbr")) or codec == "mjpeg"
        guessed.add("range")
    matrix = _MATRIX_OF_TAG.get(matrix_tag)
    if matrix is None:
        # SD material that says nothing was made for SD equipment.
        matrix = "bt601" if height <= 576 and width <= 1024 else "bt709"
        guessed.add("matrix")
    return matrix, full, frozenset(guessed)


@dataclass(frozen=True, slots=True)
class Layout:
    """How the planes of a pixel format are to be read."""

    planes: tuple[int, ...]
    """Plane numbers of Y, Cb, Cr; of Y; or of R, G, B."""
    is_rgb: bool
    grid: tuple[int, int]
    """Luma pixels per chroma sample, (x, y)."""
    bits: int


def layout(image: av.VideoFrame) -> Layout:
    """The layout of a decoded frame; InputError for formats whose faces cannot be changed."""
    fmt = image.format
    components = fmt.components
    bits = components[0].bits
    planar = all(c.plane == i for i, c in enumerate(components)) or fmt.name.startswith("gbr")
    if not planar or fmt.is_big_endian or fmt.name.endswith(("f32le", "f16le")) or bits > 16:
        raise InputError(f"the pixel format {fmt.name} of this video is not supported")
    if fmt.name.startswith("gbr"):
        return Layout((2, 0, 1), True, (1, 1), bits)
    if len(components) < 3:
        return Layout((0,), False, (1, 1), bits)
    # The widths of a 64 x 64 picture's planes give the subsampling.
    grid = (64 // fmt.chroma_width(64), 64 // fmt.chroma_height(64))
    return Layout((0, 1, 2), False, grid, bits)


def plane(image: av.VideoFrame, index: int) -> npt.NDArray[Any]:
    """A view (rows, columns) of one plane; writable once image.make_writable() was called."""
    source = image.planes[index]
    dtype = np.dtype(np.uint8 if image.format.components[0].bits <= 8 else "<u2")
    samples = np.frombuffer(source, dtype)  # type: ignore[call-overload]
    view: npt.NDArray[Any] = samples.reshape(source.height, source.line_size // dtype.itemsize)
    return view[:, : source.width]


def region_rgb(image: av.VideoFrame, rect: Rect, info: VideoInfo) -> torch.Tensor:
    """R'G'B' (3, h, w) float32 of `rect`, which lies on the chroma grid or ends at the frame."""
    how = layout(image)
    offset, scale = _luma_range(info, how)
    if how.is_rgb:
        return torch.stack([(_samples(image, p, rect) - offset) / scale for p in how.planes])
    luma = (_samples(image, how.planes[0], rect) - offset) / scale
    if len(how.planes) == 1:
        return luma.expand(3, -1, -1).clone()
    middle, chroma_scale = _chroma_range(info, how)
    small = chroma_rect(rect, how.grid)
    cb, cr = (
        _upsampled((_samples(image, p, small) - middle) / chroma_scale, rect, how.grid, info)
        for p in how.planes[1:]
    )
    kr, kb = _LUMA_WEIGHTS[info.matrix]
    red = luma + 2 * (1 - kr) * cr
    blue = luma + 2 * (1 - kb) * cb
    green = (luma - kr * red - kb * blue) / (1 - kr - kb)
    return torch.stack([red, green, blue])


def blend_rgb(
    image: av.VideoFrame, rect: Rect, rgb: torch.Tensor, weight: torch.Tensor, info: VideoInfo
) -> None:
    """Move the samples of a writable frame towards `rgb`, in place: all the way where weight is 1.

    `rgb` is R'G'B' (3, h, w) in [0, 1], `weight` (1, h, w) in [0, 1]. The change is computed for
    each plane and rounded by itself, so a weight of zero leaves the sample untouched. What the
    planes hold beyond black and white stays on top.

    With D taking chroma to its samples, U bringing it back and w the weight, a chroma sample c
    becomes c + D(w (C(rgb) - U c)) + D(w) (D(U c) - c), which is D(C(rgb)) where w is 1: without
    the last term, chroma noise too fine for D would shine through.
    """
    how = layout(image)
    original = region_rgb(image, rect, info)
    change = weight * (rgb - original.clamp(0, 1))
    _, scale = _luma_range(info, how)
    if how.is_rgb:
        for index, channel in zip(how.planes, change, strict=True):
            _add(image, index, rect, channel * scale, how.bits)
        return
    kr, kb = _LUMA_WEIGHTS[info.matrix]
    luma = _luma(change, kr, kb)
    _add(image, how.planes[0], rect, luma * scale, how.bits)
    if len(how.planes) == 1:
        return
    middle, chroma_scale = _chroma_range(info, how)
    small = chroma_rect(rect, how.grid)
    small_weight = _downsampled(weight[0], how.grid, info)
    original_luma = _luma(original, kr, kb)
    for index, channel, k in ((1, 2, kb), (2, 0, kr)):
        moved = _downsampled((change[channel] - luma) / (2 * (1 - k)), how.grid, info)
        upsampled = (original[channel] - original_luma) / (2 * (1 - k))
        samples = (_samples(image, how.planes[index], small) - middle) / chroma_scale
        fine = _downsampled(upsampled, how.grid, info) - samples
        _add(
            image, how.planes[index], small, (moved + small_weight * fine) * chroma_scale, how.bits
        )


def _luma(rgb: torch.Tensor, kr: float, kb: float) -> torch.Tensor:
    return kr * rgb[0] + (1 - kr - kb) * rgb[1] + kb * rgb[2]


def chroma_rect(rect: Rect, grid: tuple[int, int]) -> Rect:
    """The chroma samples of a luma rectangle."""
    x, y = grid
    return Rect(rect.x0 // x, rect.y0 // y, -(-rect.x1 // x), -(-rect.y1 // y))


def _luma_range(info: VideoInfo, how: Layout) -> tuple[float, float]:
    step = 2.0 ** (how.bits - 8)
    return (0.0, 2.0**how.bits - 1) if info.full_range else (16 * step, 219 * step)


def _chroma_range(info: VideoInfo, how: Layout) -> tuple[float, float]:
    step = 2.0 ** (how.bits - 8)
    return 128 * step, (2.0**how.bits - 1 if info.full_range else 224 * step)


def _samples(image: av.VideoFrame, index: int, rect: Rect) -> torch.Tensor:
    view = plane(image, index)[rect.y0 : rect.y1, rect.x0 : rect.x1]
    return torch.from_numpy(view.astype(np.float32))


def _add(image: av.VideoFrame, index: int, rect: Rect, difference: torch.Tensor, bits: int) -> None:
    view = plane(image, index)[rect.y0 : rect.y1, rect.x0 : rect.x1]
    rounded = torch.round(difference).to("cpu", torch.int32).numpy()
    np.copyto(view, np.clip(view + rounded, 0, 2**bits - 1), casting="unsafe")


def _is_left_sited(info: VideoInfo) -> bool:
    """Chroma lies on the first luma column of its group, as in MPEG-2; JPEG centres it."""
    return info.codec != "mjpeg"


def _upsampled(
    chroma: torch.Tensor, rect: Rect, grid: tuple[int, int], info: VideoInfo
) -> torch.Tensor:
    """Bilinear, from the places where the samples lie to every luma pixel of `rect`."""
    across = 0.0 if _is_left_sited(info) else (grid[0] - 1) / 2
    wide = _interpolated(chroma, rect.width, grid[0], across, dim=1)
    return _interpolated(wide, rect.height, grid[1], (grid[1] - 1) / 2, dim=0)


def _interpolated(
    samples: torch.Tensor, length: int, step: int, first: float, *, dim: int
) -> torch.Tensor:
    if step == 1:
        return samples
    position = (torch.arange(length, dtype=torch.float32) - first) / step
    position = position.clamp(0, samples.shape[dim] - 1)
    low = position.floor().long()
    high = (low + 1).clamp(max=samples.shape[dim] - 1)
    share = position - low
    share = share[None, :] if dim == 1 else share[:, None]
    return torch.lerp(samples.index_select(dim, low), samples.index_select(dim, high), share)


def _downsampled(full: torch.Tensor, grid: tuple[int, int], info: VideoInfo) -> torch.Tensor:
    """Low-passed and taken at the places of the chroma samples; a constant stays constant."""
    x, y = grid
    padded = F.pad(
        full[None, None], (0, -full.shape[1] % x, 0, -full.shape[0] % y), mode="replicate"
    )
    small = F.avg_pool2d(padded, (y, 1)) if y > 1 else padded
    if x > 1 and _is_left_sited(info):
        ramp = torch.arange(1, x + 1, dtype=full.dtype, device=full.device)
        triangle = torch.cat([ramp, ramp[:-1].flip(0)]) / x**2
        reach = F.pad(small, (x - 1, x - 1, 0, 0), mode="replicate")
        small = F.conv2d(reach, triangle[None, None, None], stride=(1, x))
    elif x > 1:
        small = F.avg_pool2d(small, (1, x))
    return small[0, 0]
