"""Restored crops go back into the planes of their frame, as a difference."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F

from vidrestore import color
from vidrestore.frame import Face, FaceFrame, FloatArray, Frame, Tally, VideoInfo
from vidrestore.geometry import Rect, apply, covering_rect, invert, shifted, warp

# The mask: an upright ellipse over the face in the unit crop, and the width of its soft edge.
_CENTRE = (0.5, 0.53)
_RADII = (0.33, 0.41)
_FEATHER = 0.25  # share of the radius over which the mask falls from 1 to 0
_MASK_PX = 128


def paste(
    frames: Iterator[FaceFrame], info: VideoInfo, tally: Tally, *, strength: float
) -> Iterator[Frame]:
    """Change the samples under the masks of restored faces, and no other sample.

    out = in + (restored - in) * mask * strength, converted to each plane and rounded there. The
    mask is zero also where `restored` equals `source`, so what was not restored is not resampled.
    """
    mask = face_mask(_MASK_PX)
    for frame in frames:
        changed = [f for f in frame.faces if f.restored is not None and f.strength * strength > 0]
        if changed:
            frame.frame.image.make_writable()
        for face in changed:
            tally.faces += _paste_face(frame.frame, face, info, mask, face.strength * strength)
        yield frame.frame


def face_mask(side: int) -> torch.Tensor:
    """(1, side, side) in [0, 1]: the soft ellipse on the unit crop."""
    centres = (torch.arange(side, dtype=torch.float32) + 0.5) / side
    v, u = torch.meshgrid(centres, centres, indexing="ij")
    radius = torch.hypot((u - _CENTRE[0]) / _RADII[0], (v - _CENTRE[1]) / _RADII[1])
    edge = ((1 - radius) / _FEATHER).clamp(0, 1)
    return (edge * edge * (3 - 2 * edge))[None]


def mask_rect(matrix: FloatArray, work_px: int, info: VideoInfo, grid: tuple[int, int]) -> Rect:
    """The part of the frame that pasting through this frame -> crop matrix can change."""
    (cx, cy), (rx, ry) = _CENTRE, _RADII
    # One texel of the small mask beyond the ellipse, which interpolation reaches.
    rx, ry = rx + 1 / _MASK_PX, ry + 1 / _MASK_PX
    box = np.array([[cx - rx, cy - ry], [cx + rx, cy - ry], [cx - rx, cy + ry], [cx + rx, cy + ry]])
    corners = apply(invert(matrix), box * work_px - 0.5)
    return covering_rect(corners, info, grid=grid, margin_px=1)


def _paste_face(
    frame: Frame, face: Face, info: VideoInfo, mask: torch.Tensor, strength: float
) -> bool:
    """Whether any of it lies in the frame."""
    assert face.restored is not None
    grid = color.layout(frame.image).grid
    rect = mask_rect(face.matrix, face.work_px, info, grid)
    if rect.is_empty:
        return False
    differs = (face.restored != face.source).any(dim=0, keepdim=True)
    size = (face.work_px, face.work_px)
    soft = F.interpolate(mask[None].to(differs.device), size, mode="bilinear")[0] * differs
    crop = torch.cat([face.restored, soft])
    warped = warp(crop, shifted(face.matrix, rect), rect.height, rect.width, mode="bilinear").cpu()
    color.blend_rgb(frame.image, rect, warped[:3], warped[3:] * strength, info)
    return True
