"""The plate: restored faces move from the frames of the source to the frames of a plate."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from vidrestore.analysis.tracks import Track
from vidrestore.imaging.device_copies import to_host
from vidrestore.imaging.frame import Frame, VideoInfo
from vidrestore.imaging.geometry import Matrix, crop_matrix
from vidrestore.restoration import swap
from vidrestore.restoration.faces import Face, FaceFrame

if TYPE_CHECKING:
    import av


GRID_PX = 64
"""The side, in pixels, of the small pictures that are compared."""

# Weight of "one gain for all channels" against the pictures, as a variance: where a face lacks some
# colors, the pictures do not show how the grade changes them.
_RIDGE = 1e-4

Grade = npt.NDArray[np.float64]
"""A color grade, (3, 4): graded = grade @ (red, green, blue, 1)."""


CutOut = Callable[[Frame, Matrix, VideoInfo, int, torch.device], torch.Tensor | None]
"""A function that cuts a crop out of a frame; see `vidrestore.restoration.crop.cut_out`."""


def enlarged(
    frames: Iterator[FaceFrame], larger: Callable[[av.VideoFrame], av.VideoFrame]
) -> Iterator[tuple[FaceFrame, Frame]]:
    """Pair every frame with an enlarged copy of itself, which is its plate.

    Args:
        frames: The frames with their faces, in order.
        larger: The function that enlarges a picture.

    Yields:
        (frame with its faces, frame of the plate), in order.
    """
    for frame in frames:
        yield frame, replace(frame.frame, image=larger(frame.frame.image), packet=None)


def onto_plate(
    pairs: Iterator[tuple[FaceFrame, Frame]],
    tracks: Sequence[Track],
    info: VideoInfo,
    plate_from_source: Matrix,
    cut_out: CutOut,
    *,
    may_be_graded: bool,
) -> Iterator[FaceFrame]:
    """Move the faces of each pair to its frame of the plate.

    The `source` of a face becomes the crop of the plate. The restored crop is graded as the plate
    is, if that is allowed, by the grade from the old `source` to the new one. Pixels that the
    restorer did not change become those of the plate. A face whose crop lies outside the plate is
    left out. Without a grade, and at the same size, nothing changes.

    Convention:
        `plate_from_source` is frame pixel centers (x, y) of the source -> frame pixel centers (x,
        y) of the plate.

    Args:
        pairs: (frame of the source with its faces, frame of the plate), in order.
        tracks: The tracks of the faces, in pixels of the plate.
        info: The properties of the plate.
        plate_from_source: (2, 3) matrix.
        cut_out: The function that cuts a crop out of a frame; see
            `vidrestore.restoration.crop.cut_out`.
        may_be_graded: Whether the colors of the plate may differ from those of the source.

    Yields:
        The frames of the plate with the faces, in order.
    """
    by_id = {track.track_id: track for track in tracks}
    for frame, plate in pairs:
        faces = []
        for face in frame.faces:
            track = by_id[face.track_id]
            unit = track.matrices[plate.index - track.first_frame]
            source = cut_out(plate, unit, info, face.work_px, face.source.device)
            if source is None:
                continue
            moved = None if face.region is None else swap.moved(face.region, plate_from_source)
            restored = _restored(face, source, may_be_graded=may_be_graded)
            matrix = crop_matrix(unit, face.work_px)
            faces.append(
                replace(face, matrix=matrix, source=source, restored=restored, region=moved)
            )
        yield FaceFrame(plate, tuple(faces))


def _restored(face: Face, source: torch.Tensor, *, may_be_graded: bool) -> torch.Tensor | None:
    """Return the restored crop of a face as it belongs into the plate."""
    if face.restored is None or torch.equal(face.source, source):
        return face.restored
    left_alone = torch.eq(face.restored, face.source).all(dim=0)
    restored = face.restored
    if may_be_graded:
        restored = graded(restored, grade_between(face.source, source))
    return torch.where(left_alone, source, restored)


def grade_between(picture: torch.Tensor, graded: torch.Tensor) -> Grade:
    """Estimate by least squares the color grade that leads from one picture to another.

    A gain that the channels share is found first; it holds in directions of color without any
    variance.

    Args:
        picture: (3, W, W) RGB in [0, 1].
        graded: (3, W, W) RGB in [0, 1] of the same view.

    Returns:
        (3, 4) float64: graded = grade @ (red, green, blue, 1).
    """
    p, q = (_small(each) for each in (picture, graded))
    p_mean, q_mean = p.mean(axis=0), q.mean(axis=0)
    spread = (p - p_mean).T @ (p - p_mean) / len(p)
    both = (p - p_mean).T @ (q - q_mean) / len(p)
    ridge = _RIDGE * np.eye(3)
    gain = (np.trace(both) + _RIDGE) / (np.trace(spread) + _RIDGE)
    linear = np.linalg.solve(spread + ridge, both + gain * ridge).T
    return np.column_stack([linear, q_mean - linear @ p_mean])


def graded(picture: torch.Tensor, grade: Grade) -> torch.Tensor:
    """Apply a color grade to a picture.

    Args:
        picture: (3, h, w) RGB in [0, 1].
        grade: (3, 4) grade, as `grade_between` returns it.

    Returns:
        (3, h, w) clipped to [0, 1], of the dtype and on the device of `picture`.
    """
    matrix = torch.as_tensor(grade, dtype=picture.dtype, device=picture.device)
    result = torch.einsum("ij,jhw->ihw", matrix[:, :3], picture) + matrix[:, 3, None, None]
    return result.clamp(0, 1)


def _small(picture: torch.Tensor) -> npt.NDArray[Any]:
    """Return (n, 3) colors, without detail that only one of two pictures has."""
    return to_host(F.adaptive_avg_pool2d(picture, GRID_PX).flatten(1).T.double()).numpy()
