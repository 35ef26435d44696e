"""What flows between the stages. Every value checks itself when it is made, then is trusted.

Pixel coordinates are (x, y) with (0, 0) at the centre of the top-left pixel; boxes are x1 y1 x2 y2.
"Frame pixels" are those of the coded picture, before any rotation or aspect ratio is applied.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import av
    import torch

OnEvent = Callable[[dict[str, Any]], None]
"""Receives what the command line shows: {"event": "progress" or "notice", ...}."""

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """One video stream as it must come out again.

    `matrix` and `full_range` are resolved: what the file leaves unsaid is guessed from its size
    and format, and the names of the guessed fields stand in `guessed`. `tags` are the four numbers
    as the file has them (range, matrix, primaries, transfer; ISO/IEC 23091-2), passed on unchanged
    but for a range that is full by the pixel format's name.
    """

    stream_index: int
    codec: str
    width: int
    height: int
    time_base: Fraction
    frame_rate: Fraction
    """Nominal, for constants that scale with it; times come from `pts` alone."""
    frame_count_from_header: int
    """What the container claims; 0 where it claims nothing. Never trusted for the end."""
    duration_seconds_from_header: float
    sample_aspect_ratio: Fraction
    display_orientation: tuple[int, int, int, int]
    """Signed permutation (a, b, c, d): shown = ((a, b), (c, d)) @ coded; rotation and flips."""
    display_matrix: tuple[int, ...] | None
    """The file's own nine 16.16 numbers, passed on unchanged; None where it has none."""
    pixel_format: str
    bit_depth: int
    matrix: str
    """bt601, bt709 or bt2020: the constants of R'G'B' <-> Y'CbCr."""
    full_range: bool
    tags: tuple[int, int, int, int]
    field_order: int
    guessed: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise ValueError(f"a video of {self.width} x {self.height} pixels has no picture")
        if self.time_base <= 0 or self.sample_aspect_ratio <= 0 or self.frame_rate <= 0:
            raise ValueError(
                f"time base {self.time_base}, frame rate {self.frame_rate} and sample aspect ratio "
                f"{self.sample_aspect_ratio} must be positive"
            )
        if self.matrix not in ("bt601", "bt709", "bt2020"):
            raise ValueError(f"matrix must be bt601, bt709 or bt2020, not {self.matrix!r}")


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A decoded picture in its own pixel format; it is never converted whole."""

    index: int
    """From 0 in decoding order of presentation."""
    pts: int
    """In the stream's time_base."""
    image: av.VideoFrame
    duration: int = 0
    """In the stream's time_base; 0 where the file does not say."""

    def __post_init__(self) -> None:
        if self.index < 0:
            raise ValueError(f"frame index must not be negative, got {self.index}")


@dataclass(frozen=True, slots=True, eq=False)
class Detection:
    """One face found in one picture."""

    box: FloatArray
    """(4,) x1 y1 x2 y2 in pixels."""
    landmarks: FloatArray
    """(5, 2) x, y in pixels: image-left eye, image-right eye, nose, image-left mouth corner,
    image-right mouth corner, as they stand in the upright picture."""
    score: float

    def __post_init__(self) -> None:
        _check("box", self.box, (4,), np.float32)
        _check("landmarks", self.landmarks, (5, 2), np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """What pass one keeps of a frame once its picture is gone."""

    index: int
    pts: int
    crc32: int
    """Of the samples of all planes."""
    thumbnail: npt.NDArray[np.uint8]
    """(36, 64) grey, upright: enough to see a cut."""
    detections: tuple[Detection, ...]
    """In frame pixels."""


@dataclass(frozen=True, slots=True, eq=False)
class RawTrack:
    """The detections of one face through one shot, before anything is smoothed."""

    first_frame: int
    shot: tuple[int, int]
    """Half-open [start, end) in frames."""
    landmarks: FloatArray
    """(n, 5, 2) frame pixels, NaN where the detector found nothing."""
    score: FloatArray
    """(n,), NaN likewise."""

    def __post_init__(self) -> None:
        n = len(self.landmarks)
        _check("landmarks", self.landmarks, (n, 5, 2), np.float32)
        _check("score", self.score, (n,), np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """One face through one shot, frame by frame without gaps."""

    track_id: int
    """From 0."""
    person_id: int
    """From 1."""
    first_frame: int
    work_px: int
    """Side of the square on which this face is restored and pasted; a power of two."""
    matrices: FloatArray
    """(n, 2, 3).

    Convention: frame pixel centres (x, y) -> unit crop (u, v), in which 0 and 1 are the outer
    edges of the square and the centre of pixel i of W is (i + 0.5) / W.
    """
    landmarks: FloatArray
    """(n, 5, 2) smoothed, frame pixels."""
    score: FloatArray
    """(n,) of the detector, interpolated where it found nothing."""
    strength: FloatArray
    """(n,) in [0, 1]: how much of the restored face is used."""
    detected: BoolArray
    """(n,) True where the detector found it, False where it was interpolated."""

    def __post_init__(self) -> None:
        n = len(self.matrices)
        _check("matrices", self.matrices, (n, 2, 3), np.float32)
        _check("landmarks", self.landmarks, (n, 5, 2), np.float32)
        _check("score", self.score, (n,), np.float32)
        _check("strength", self.strength, (n,), np.float32)
        _check("detected", self.detected, (n,), np.bool_)
        if n == 0:
            raise ValueError(f"track {self.track_id} has no frame")
        if self.work_px < 1 or self.work_px & (self.work_px - 1):
            raise ValueError(f"work_px must be a power of two, got {self.work_px}")
        if self.strength.min() < 0 or self.strength.max() > 1:
            raise ValueError(f"strength must be within [0, 1], got {self.strength.min()} .. "
                             f"{self.strength.max()}")  # fmt: skip

    @property
    def end_frame(self) -> int:
        """One past the last frame."""
        return self.first_frame + len(self.matrices)


@dataclass(frozen=True, slots=True, eq=False)
class Analysis:
    """What pass one found: all that must be known about a whole shot before pass two begins."""

    info: VideoInfo
    pts: npt.NDArray[np.int64]
    """(frames,) in time_base."""
    crc32: npt.NDArray[np.uint32]
    """(frames,) of the decoded planes."""
    shots: tuple[tuple[int, int], ...]
    """Half-open [start, end) in frames, together covering every frame."""
    tracks: tuple[Track, ...]
    skipped: Mapping[str, int] = field(default_factory=dict)
    """Faces that will not be restored: reason -> how many (face, frame) pairs."""
    corrupt_frames: int = 0
    decode_errors: int = 0
    repaired_times: int = 0
    coarse_landmarks: bool = False
    """The detector guessed landmarks from boxes."""
    template: str = "gpen"
    """Where the matrices lead the landmarks; see `vidrestore.geometry.template`."""

    def __post_init__(self) -> None:
        if len(self.pts) != len(self.crc32):
            raise ValueError(f"{len(self.pts)} times but {len(self.crc32)} checksums")
        edges = [start for start, _ in self.shots] + [len(self.pts)]
        if [end for _, end in self.shots] != edges[1:] or edges[0] != 0:
            raise ValueError(f"shots {self.shots} do not cover {len(self.pts)} frames")

    @property
    def frame_count(self) -> int:
        return len(self.pts)

    @property
    def face_count(self) -> int:
        """(face, frame) pairs with a strength above zero."""
        return int(sum(np.count_nonzero(track.strength) for track in self.tracks))


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


@dataclass(slots=True)
class Tally:
    """What pass two did, counted while it runs."""

    faces: int = 0
    """(face, frame) pairs pasted."""
    not_restored: Counter[str] = field(default_factory=Counter)
    """Reason -> (face, frame) pairs left as they were."""
    notes: dict[str, str] = field(default_factory=dict)
    """What a person should know, one sentence for each cause."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What was done and what was not."""

    frames: int
    faces: int
    """(face, frame) pairs that were restored."""
    tracks: int
    people: int
    shots: int
    skipped: Mapping[str, int] = field(default_factory=dict)
    """Reason -> how many (face, frame) pairs were left as they were."""
    corrupt_frames: int = 0
    missing_frames: int = 0
    """Frames that the file claims but that could not be decoded."""
    warnings: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Pass -> wall seconds."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {name: _plain(getattr(self, name)) for name in self.__dataclass_fields__}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _check(name: str, array: npt.NDArray[Any], shape: tuple[int, ...], dtype: Any) -> None:
    if array.shape != shape or array.dtype != dtype:
        raise ValueError(
            f"{name} must be {np.dtype(dtype).name} of shape {shape}, "
            f"got {array.dtype} of shape {array.shape}"
        )
