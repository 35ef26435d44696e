"""Aligned faces, and frames with the faces to paste into them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from vidrestore.imaging.frame import FloatArray, Frame, _check
from vidrestore.imaging.geometry import (
    Matrix,
)

if TYPE_CHECKING:
    import torch

    from vidrestore.imaging.frame import Region


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """One face of one frame, aligned."""

    track_id: int
    work_px: int
    matrix: FloatArray
    """(2, 3).

    Convention: frame pixel centres (x, y) -> crop pixel centres (x, y) of the W x W crop,
    W = work_px; beyond the frame's edge the crop repeats its border.
    """
    source: torch.Tensor
    """(3, W, W) float32 RGB in [0, 1], on the restoring device."""
    strength: float
    restored: torch.Tensor | None = None
    """As `source`, or None where the face is left as it was."""
    region: Region | None = None
    """The only part of the frame that it may change; None: no bound but its mask."""

    def __post_init__(self) -> None:
        _check("matrix", self.matrix, (2, 3), np.float32)
        square = (3, self.work_px, self.work_px)
        for name, crop in (("source", self.source), ("restored", self.restored)):
            if crop is not None and tuple(crop.shape) != square:
                raise ValueError(f"{name} must have shape {square}, got {tuple(crop.shape)}")
        if not 0 <= self.strength <= 1:
            raise ValueError(f"strength must be within [0, 1], got {self.strength}")


@dataclass(frozen=True, slots=True, eq=False)
class FaceFrame:
    """A frame and the faces to be pasted into it."""

    frame: Frame
    faces: tuple[Face, ...] = ()

    def with_faces(self, faces: tuple[Face, ...]) -> FaceFrame:
        return replace(self, faces=faces)


def unit_of(face: Face) -> Matrix:
    """(2, 3) frame -> unit crop."""
    matrix = face.matrix.astype(np.float64)
    matrix[:, 2] += 0.5
    return matrix / face.work_px
