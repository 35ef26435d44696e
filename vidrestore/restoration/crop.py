"""Cropping: aligned crops of the faces to restore are cut out of the frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from vidrestore.analysis.tracks import Track, TracksByFrame
from vidrestore.common.settings import Extent
from vidrestore.imaging import color, transfer
from vidrestore.imaging.device_copies import to_device
from vidrestore.imaging.frame import Frame, VideoInfo
from vidrestore.imaging.geometry import (
    Matrix,
    Rect,
    apply,
    covering_rect,
    crop_matrix,
    invert,
    shifted,
    unit_corners,
)
from vidrestore.imaging.planes import layout
from vidrestore.imaging.resample import warp
from vidrestore.restoration.compositing.appearance import TrackGeometry
from vidrestore.restoration.crop_comparison import clamp
from vidrestore.restoration.faces import Face, FaceFrame

# The outermost samples of a crop are interpolated from this number of pixels beyond its corners.
_MARGIN_PX = 3


def crop(
    frames: Iterator[Frame],
    tracks: Sequence[Track],
    info: VideoInfo,
    *,
    device: torch.device,
    largest_px: int | None = None,
    extent: Extent | None = None,
) -> Iterator[FaceFrame]:
    """Cut out every face whose strength is above zero.

    Only the planes under a face are converted. Crops hold display values
    (`vidrestore.imaging.transfer`), which for ordinary video are its R'G'B'.

    Args:
        frames: The frames, in order.
        tracks: The tracks of the faces.
        info: The properties of the frames.
        device: The device that the crops are placed on.
        largest_px: The greatest side of a crop in pixels; default: that of each track.
        extent: What will be pasted into the same frames, by which faces get their `shown`; default:
            it is not known.

    Yields:
        Each frame with its faces, in order. A face outside the frame is left out.
    """
    by_frame = TracksByFrame(tracks)
    geometries = {track.track_id: TrackGeometry(track) for track in tracks if extent is not None}
    for frame in frames:
        faces = []
        for track in by_frame.at(frame.index):
            at = frame.index - track.first_frame
            if track.strength[at] > 0:
                side = track.work_px if largest_px is None else min(track.work_px, largest_px)
                face = _face(frame, track, at, info, side, device)
                if face is None:
                    continue
                if extent is not None:
                    box = geometries[track.track_id].box(frame.index, extent=extent)
                    face = replace(face, shown=_shown(box, face.work_px))
                faces.append(face)
        yield FaceFrame(frame, tuple(faces))


def _face(
    frame: Frame, track: Track, at: int, info: VideoInfo, side: int, device: torch.device
) -> Face | None:
    unit = track.matrices[at]
    source = cut_out(frame, unit, info, side, device)
    if source is None:
        return None
    matrix = crop_matrix(unit, side)
    return Face(track.track_id, side, matrix, source, float(track.strength[at]))


def _shown(box: npt.NDArray[np.float64], side: int) -> Rect | None:
    """Return the pixels of a crop in a box of the unit crop; None where there are none."""
    low, high = np.floor(box[0] * side), np.ceil(box[1] * side)
    (x0, y0), (x1, y1) = (each.clip(0, side).astype(int).tolist() for each in (low, high))
    rect = Rect(x0, y0, x1, y1)
    return None if rect.is_empty else rect


def cut_out(
    frame: Frame, unit: Matrix, info: VideoInfo, side: int, device: torch.device
) -> torch.Tensor | None:
    """Cut the square that a matrix names out of a frame.

    Convention:
        `unit` is frame pixel centers (x, y) -> unit crop, whose outer edges lie at 0 and 1; beyond
        the edge of the frame the crop repeats its border.

    Args:
        frame: The frame.
        unit: (2, 3) matrix.
        info: The properties of the frame.
        side: The side of the crop in pixels.
        device: The device that the crop is placed on.

    Returns:
        (3, side, side) float32 RGB display values in [0, 1]; None where the square lies outside the
        frame.
    """
    grid = layout(frame.image).grid
    corners = apply(invert(unit), unit_corners())
    rect = covering_rect(corners, info, grid=grid, margin_px=_MARGIN_PX)
    if rect.is_empty:
        return None
    display = transfer.to_display(color.region_rgb(frame.image, rect, info), info)
    # In place: the memory for one more picture takes longer than the comparison.
    clamp(display)
    region = to_device(display.to(torch.float32), device)
    matrix = shifted(crop_matrix(unit, side), rect)
    cropped = warp(region, invert(matrix), side, side, mode="bicubic")
    clamp(cropped)
    return cropped
