"""Aligned faces, and frames with the faces that vidrestore pastes into them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from vidrestore.imaging.frame import FloatArray, Frame, _check
from vidrestore.imaging.geometry import Matrix, Rect

if TYPE_CHECKING:
    from vidrestore.imaging.frame import Region
    from vidrestore.restoration.key_frames import Guide


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """One aligned face of one frame."""

    track_id: int
    """The number of the track that the face belongs to."""
    work_px: int
    """The side W of the square crop in pixels."""
    matrix: FloatArray
    """The (2, 3) float32 matrix from the frame to the crop.

    Convention: frame pixel centers (x, y) -> crop pixel centers (x, y) of the W x W crop, W =
    work_px; beyond the edge of the frame the crop repeats its border.
    """
    source: torch.Tensor
    """The crop of the frame: (3, W, W) float32 RGB display values in [0, 1], on the device that
    restores.
    """
    strength: float
    """How much of the restored face is used, in [0, 1]."""
    restored: torch.Tensor | None = None
    """The restored crop, of the same shape and range as `source`; None where the face stays as it
    was.
    """
    shown: Rect | None = None
    """The part of the crop that pasting can show, in pixels of the crop; None: it is not known."""
    region: Region | None = None
    """The only part of the frame that the face may change; None where only its mask bounds it."""
    part_factors: Mapping[str, float] = field(default_factory=dict)
    """Factors of `strength` in [0, 1] on the eyes and the mouth, by the names of
    `vidrestore.restoration.compositing.masks.EXPRESSIVE`; 1 for a part that is missing.
    """
    guide: Guide | None = None
    """What the choice of key frames found; None where the network restores every frame."""
    colorized: bool = False
    """Whether `restored` gives colors to a gray face, of which only the chroma is pasted."""
    is_between: bool = False
    """Whether the crop is made of restored key frames, and the network leaves it out."""

    def __post_init__(self) -> None:
        _check("matrix", self.matrix, (2, 3), np.float32)
        square = (3, self.work_px, self.work_px)
        for name, crop in (("source", self.source), ("restored", self.restored)):
            if crop is not None and tuple(crop.shape) != square:
                raise ValueError(f"{name} must have shape {square}, got {tuple(crop.shape)}")
        if not 0 <= self.strength <= 1:
            raise ValueError(f"strength must be within [0, 1], got {self.strength}")
        if not all(0 <= factor <= 1 for factor in self.part_factors.values()):
            raise ValueError(f"part_factors must be within [0, 1], got {dict(self.part_factors)}")


@dataclass(frozen=True, slots=True, eq=False)
class FaceFrame:
    """A frame with the faces to paste into it."""

    frame: Frame
    """The decoded frame."""
    faces: tuple[Face, ...] = ()
    """The faces to paste into the frame."""

    def with_faces(self, faces: tuple[Face, ...]) -> FaceFrame:
        """Return the same frame with other faces.

        Args:
            faces: The faces that replace the present ones.

        Returns:
            A new `FaceFrame`, which shares `frame` with this one.
        """
        return replace(self, faces=faces)


def unit_of(face: Face) -> Matrix:
    """Return the matrix from the frame to the unit crop of a face.

    Convention:
        Frame pixel centers (x, y) -> unit crop, whose outer edges lie at 0 and 1.

    Args:
        face: The face.

    Returns:
        (2, 3) float64.
    """
    matrix = face.matrix.astype(np.float64)
    matrix[:, 2] += 0.5
    return matrix / face.work_px


def track_and_side(face: Face) -> tuple[int, int]:
    """Return what the crops of a face that follow each other in time have in common.

    Args:
        face: The face.

    Returns:
        (number of the track, side of the crop in pixels).
    """
    return face.track_id, face.work_px
