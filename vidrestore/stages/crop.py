"""Frames become frames with aligned crops of the faces to restore."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from vidrestore import color
from vidrestore.frame import Face, FaceFrame, Frame, Track, VideoInfo
from vidrestore.geometry import (
    apply,
    covering_rect,
    crop_matrix,
    invert,
    shifted,
    unit_corners,
    warp,
)

# Pixels beyond the crop's corners that its outermost interpolated samples lean on.
_MARGIN_PX = 3


def crop(
    frames: Iterator[Frame],
    tracks: Sequence[Track],
    info: VideoInfo,
    *,
    largest_px: int,
    device: torch.device,
) -> Iterator[FaceFrame]:
    """Cut every face whose strength is above zero; only the planes under it are converted.

    `largest_px` bounds the side of the crops: there is no use for more than the restorer gives.
    """
    for frame in frames:
        faces = []
        for track in tracks:
            at = frame.index - track.first_frame
            if 0 <= at < len(track.matrices) and track.strength[at] > 0:
                face = _face(frame, track, at, info, min(track.work_px, largest_px), device)
                if face is not None:
                    faces.append(face)
        yield FaceFrame(frame, tuple(faces))


def _face(
    frame: Frame, track: Track, at: int, info: VideoInfo, side: int, device: torch.device
) -> Face | None:
    unit = track.matrices[at]
    grid = color.layout(frame.image).grid
    corners = apply(invert(unit), unit_corners())
    rect = covering_rect(corners, info, grid=grid, margin_px=_MARGIN_PX)
    if rect.is_empty:
        return None
    region = color.region_rgb(frame.image, rect, info).clamp(0, 1).to(device)
    matrix = crop_matrix(unit, side)
    source = warp(region, invert(shifted(matrix, rect)), side, side, mode="bicubic").clamp(0, 1)
    return Face(track.track_id, side, matrix, source, float(track.strength[at]))
