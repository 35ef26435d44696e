"""Restored faces leave the frames that they were found in for those of a plate."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from vidrestore import swap
from vidrestore.frame import Face, FaceFrame, Frame, Track, VideoInfo
from vidrestore.geometry import Matrix, crop_matrix
from vidrestore.grade import grade_between, graded

if TYPE_CHECKING:
    import av

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
