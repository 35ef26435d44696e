"""Restored faces leave the frames that they were found in for those of a plate."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch

from vidrestore import swap
from vidrestore.frame import Face, FaceFrame, Frame, Track, VideoInfo
from vidrestore.geometry import Matrix, crop_matrix
from vidrestore.grade import grade_between, graded

CutOut = Callable[[Frame, Matrix, VideoInfo, int, torch.device], torch.Tensor | None]


def onto_plate(
    frames: Iterator[FaceFrame],
    plate: Iterator[Frame],
    tracks: Sequence[Track],
    info: VideoInfo,
    plate_from_source: Matrix,
    cut_out: CutOut,
) -> Iterator[FaceFrame]:
    """The same faces in the same frames of the plate, which `info` and `tracks` are of.

    A face's `source` becomes the plate's own crop, as `cut_out` gives it, and what was restored is
    graded as the plate is: by what leads from the one source to the other. What was left alone
    stays alone. Without a grade, and at the same size, nothing changes.

    Convention: `plate_from_source` (2, 3) is frame pixel centres (x, y) -> those of the plate.
    """
    known = {track.track_id: track for track in tracks}
    for frame, shown in zip(frames, plate, strict=True):
        faces = (
            _moved(face, shown, known[face.track_id], info, plate_from_source, cut_out)
            for face in frame.faces
        )
        yield FaceFrame(shown, tuple(face for face in faces if face is not None))


def _moved(
    face: Face,
    shown: Frame,
    track: Track,
    info: VideoInfo,
    plate_from_source: Matrix,
    cut_out: CutOut,
) -> Face | None:
    unit = track.matrices[shown.index - track.first_frame]
    source = cut_out(shown, unit, info, face.work_px, face.source.device)
    if source is None:
        return None
    return replace(
        face,
        matrix=crop_matrix(unit, face.work_px),
        source=source,
        restored=_restored(face, source),
        region=None if face.region is None else swap.moved(face.region, plate_from_source),
    )


def _restored(face: Face, source: torch.Tensor) -> torch.Tensor | None:
    if face.restored is None or torch.equal(face.source, source):
        return face.restored
    left_alone = torch.eq(face.restored, face.source).all(dim=0)
    grade = grade_between(face.source, source)
    return torch.where(left_alone, source, graded(face.restored, grade))
