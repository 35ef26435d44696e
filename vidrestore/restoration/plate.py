"""Restored faces leave the frames that they were found in for those of a plate."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from vidrestore.analysis.tracks import Track
from vidrestore.imaging.frame import Frame, VideoInfo
from vidrestore.imaging.geometry import Matrix, crop_matrix
from vidrestore.restoration import swap
from vidrestore.restoration.faces import Face, FaceFrame

if TYPE_CHECKING:
    import av


GRID_PX = 64
"""Side of the small pictures that are compared."""

# Weight of "one gain for all channels" against what the pictures say, as a variance: where a face
# has no colours of a kind, nothing is known of what becomes of them.
_RIDGE = 1e-4

Grade = npt.NDArray[np.float64]
"""(3, 4): graded = grade @ (red, green, blue, 1)."""


CutOut = Callable[[Frame, Matrix, VideoInfo, int, torch.device], torch.Tensor | None]


def enlarged(
    frames: Iterator[FaceFrame], larger: Callable[[av.VideoFrame], av.VideoFrame]
) -> Iterator[tuple[FaceFrame, Frame]]:
    """Each with its frame as `larger` makes it, which is the plate."""
    for frame in frames:
        yield frame, replace(frame.frame, image=larger(frame.frame.image))


def onto_plate(
    pairs: Iterator[tuple[FaceFrame, Frame]],
    tracks: Sequence[Track],
    info: VideoInfo,
    plate_from_source: Matrix,
    cut_out: CutOut,
    *,
    may_be_graded: bool,
) -> Iterator[FaceFrame]:
    """The faces of each pair in its frame of the plate, which `info` and `tracks` are of.

    A face's `source` becomes the plate's own crop, as `cut_out` gives it, and what was restored is
    graded as the plate is, if it may be: by what leads from the one source to the other. What was
    left alone stays alone. Without a grade, and at the same size, nothing changes.

    Convention: `plate_from_source` (2, 3) is frame pixel centres (x, y) -> those of the plate.
    """
    known = {track.track_id: track for track in tracks}
    for frame, shown in pairs:
        faces = []
        for face in frame.faces:
            unit = known[face.track_id].matrices[shown.index - known[face.track_id].first_frame]
            source = cut_out(shown, unit, info, face.work_px, face.source.device)
            if source is None:
                continue
            moved = None if face.region is None else swap.moved(face.region, plate_from_source)
            restored = _restored(face, source, may_be_graded=may_be_graded)
            matrix = crop_matrix(unit, face.work_px)
            faces.append(
                replace(face, matrix=matrix, source=source, restored=restored, region=moved)
            )
        yield FaceFrame(shown, tuple(faces))


def _restored(face: Face, source: torch.Tensor, *, may_be_graded: bool) -> torch.Tensor | None:
    if face.restored is None or torch.equal(face.source, source):
        return face.restored
    left_alone = torch.eq(face.restored, face.source).all(dim=0)
    restored = face.restored
    if may_be_graded:
        restored = graded(restored, grade_between(face.source, source))
    return torch.where(left_alone, source, restored)


def grade_between(picture: torch.Tensor, graded: torch.Tensor) -> Grade:
    """What leads from (3, W, W) `picture` to `graded` of the same size, by least squares.

    A gain that the channels share is found first, and is what directions without any variance get.
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
    """(3, h, w) in [0, 1]."""
    matrix = torch.as_tensor(grade, dtype=picture.dtype, device=picture.device)
    shown = torch.einsum("ij,jhw->ihw", matrix[:, :3], picture) + matrix[:, 3, None, None]
    return shown.clamp(0, 1)


def _small(picture: torch.Tensor) -> npt.NDArray[Any]:
    """(n, 3) its colours, without detail that only one of two pictures has."""
    return F.adaptive_avg_pool2d(picture, GRID_PX).flatten(1).T.double().cpu().numpy()
