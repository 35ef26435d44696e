"""What flows between the stages. Every value checks itself when it is made, then is trusted.

Pixel coordinates are (x, y) with (0, 0) at the centre of the top-left pixel; boxes are x1 y1 x2 y2.
"Frame pixels" are those of the coded picture, before any rotation or aspect ratio is applied.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import av
    import torch

    from vidrestore.margins import Margins
    from vidrestore.parts import Layer, Region

OnEvent = Callable[[dict[str, Any]], None]
"""Receives what the command line shows: {"event": "progress" or "notice", ...}."""


def notify(on_event: OnEvent | None, *messages: str) -> None:
    """Say each to whoever listens."""
    if on_event is not None:
        for message in messages:
            on_event({"event": "notice", "message": message})


_ALLOWED = {
    "matrix": ("bt601", "bt709", "bt2020"),
    "transfer": ("sdr", "pq", "hlg", "cineon", "slog3", "table"),
    "primaries": ("bt709", "bt2020", "p3"),
    "field_order": ("progressive", "tff", "bff"),
    "chroma_location": ("left", "center", "topleft", "top", "bottomleft", "bottom"),
}

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
    field_order: str
    """progressive, tff or bff: which field of an interlaced frame is the earlier one."""
    chroma_location: str = "left"
    """Where a chroma sample lies in its group of luma samples (H.264 figure E-1): left, center,
    topleft, top, bottomleft or bottom."""
    transfer: str = "sdr"
    """sdr, pq or hlg (Rec. ITU-R BT.2100); or as somebody said, see `vidrestore.logcurves`."""
    curve: tuple[tuple[float, float, float], ...] = ()
    """Where `transfer` is table: display values of R', G', B' over signals from 0 to 1."""
    primaries: str = "bt709"
    """bt709 (and its near kin of 525 and 625 lines), bt2020 or p3."""
    mastering_display: tuple[Fraction, ...] | None = None
    """x, y of red, green, blue and white (CIE 1931), then least and greatest luminance in cd/m2;
    SMPTE ST 2086."""
    content_light: tuple[int, int] | None = None
    """Greatest light level of a pixel and of a frame's average, in cd/m2; CTA-861.3."""
    guessed: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise ValueError(f"a video of {self.width} x {self.height} pixels has no picture")
        if self.time_base <= 0 or self.sample_aspect_ratio <= 0 or self.frame_rate <= 0:
            raise ValueError(
                f"time base {self.time_base}, frame rate {self.frame_rate} and sample aspect ratio "
                f"{self.sample_aspect_ratio} must be positive"
            )
        for name, allowed in _ALLOWED.items():
            if getattr(self, name) not in allowed:
                known = ", ".join(allowed)
                raise ValueError(f"{name} must be one of {known}, not {getattr(self, name)!r}")

    @property
    def is_interlaced(self) -> bool:
        return self.field_order != "progressive"


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
    layer: Layer | None = None
    """What was pasted into the image, where that is asked for and there is anything."""

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
    embedding: FloatArray | None = None
    """(d,) of unit length: whose face it is, as far as a recogniser can tell."""

    def __post_init__(self) -> None:
        _check("box", self.box, (4,), np.float32)
        _check("landmarks", self.landmarks, (5, 2), np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Motion:
    """How one face moved since the frame before, measured in its pixels rather than landmarks."""

    matrix: npt.NDArray[np.float64]
    """(2, 3).

    Convention: frame pixel centres (x, y) of the earlier frame -> of the later one; a similarity
    in the upright, square-pixel view.
    """
    support: float
    """Share of the followed points that agree with it, in [0, 1]."""
    points: int
    """How many agree."""

    def __post_init__(self) -> None:
        _check("matrix", self.matrix, (2, 3), np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """What pass one keeps of a frame once its picture is gone."""

    index: int
    pts: int
    crc32: int
    """Of the samples of all planes."""
    thumbnail: npt.NDArray[np.uint8] | None
    """(36, 64) grey, upright: enough to see a cut; None once it was looked for."""
    detections: tuple[Detection, ...]
    """In frame pixels."""
    motions: Mapping[tuple[int, int], Motion] = field(default_factory=dict)
    """(place in the detections of the frame before, place in these) -> how that face moved."""
    sharpness: tuple[float, ...] = ()
    """Of each detection: the share of its contrast that is in its finest detail; NaN where it was
    not looked at, empty where none was."""
    in_margins: int = 0
    """How many other detections lay in `Margins`."""


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
    motions: tuple[Motion | None, ...] = ()
    """(n,) each since the frame before; the first, and those that were not measured, None. Empty
    where none was."""
    embeddings: Mapping[int, FloatArray] = field(default_factory=dict)
    """Frame -> (d,) of unit length, where a recogniser looked at the face."""
    sharpness: FloatArray = field(default_factory=lambda: np.zeros(0, np.float32))
    """(n,) the share of the face's contrast that is in its finest detail, NaN where it was not
    measured; or empty."""

    def __post_init__(self) -> None:
        n = len(self.landmarks)
        if len(self.sharpness) not in (0, n):
            raise ValueError(f"{len(self.sharpness)} values of sharpness for {n} frames")
        if len(self.motions) not in (0, n):
            raise ValueError(f"{len(self.motions)} motions for {n} frames")
        _check("landmarks", self.landmarks, (n, 5, 2), np.float32)
        _check("score", self.score, (n,), np.float32)

    @property
    def embedding(self) -> FloatArray | None:
        """(d,) of unit length: the mean direction of the embeddings; None where there is none."""
        return mean_direction(list(self.embeddings.values()))


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
    embedding: FloatArray | None = None
    """(d,) of unit length: whose face it is, as far as a recogniser can tell."""

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
        if not (self.strength.min() >= 0 and self.strength.max() <= 1):  # which NaN is not
            raise ValueError(f"strength must be within [0, 1], got {self.strength.min()} .. "
                             f"{self.strength.max()}")  # fmt: skip

    @property
    def end_frame(self) -> int:
        """One past the last frame."""
        return self.first_frame + len(self.matrices)


class TracksByFrame:
    """Which of many tracks have a face where, without a look at all of them.

    Holds 8 bytes for every frame of the video up to the last face, and for every face.
    """

    def __init__(self, tracks: Sequence[Track]) -> None:
        self._tracks = tracks
        counts = [len(track.matrices) for track in tracks]
        frames = [np.arange(track.first_frame, track.end_frame) for track in tracks]
        at = np.concatenate(frames) if frames else np.zeros(0, np.int64)
        numbers = np.repeat(np.arange(len(tracks)), counts)
        self._numbers = numbers[np.argsort(at, kind="stable")]
        self._ends = np.cumsum(np.bincount(at))

    def at(self, index: int) -> list[Track]:
        """Those with a face in frame `index`, in the order in which they were given."""
        return [self._tracks[number] for number in self._slice(index, index + 1)]

    def within(self, first: int, end: int) -> list[int]:
        """The places among the given tracks of those with a face in frames [first, end)."""
        return [int(number) for number in np.unique(self._slice(first, end))]

    def _slice(self, first: int, end: int) -> npt.NDArray[np.int64]:
        first, end = (min(max(frame, 0), len(self._ends)) for frame in (first, end))
        begin, stop = (int(self._ends[frame - 1]) if frame else 0 for frame in (first, end))
        return self._numbers[begin:stop]


@dataclass(frozen=True, slots=True, eq=False)
class Fields:
    """The file's own frames, where faces are found and restored in pictures of their fields."""

    mode: str
    """keep: both fields of each frame, woven again in the output; bob: both, and so they stay;
    frame: the earlier one; film: four pictures from each five frames."""
    order: str
    """tff or bff, as measured."""
    info: VideoInfo
    pts: npt.NDArray[np.int64]
    crc32: npt.NDArray[np.uint32]
    sources: npt.NDArray[np.int64] | None = None
    """(pictures, 2) of film: the frames that their earlier and their later field are from."""


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
    detector_errors: int = 0
    """Frames at which the detector broke."""
    one_thread: bool = False
    """The source is damaged: only one decoding thread, from the start, gives the same again."""
    coarse_landmarks: bool = False
    """The detector guessed landmarks from boxes."""
    template: str = "gpen"
    """Where the matrices lead the landmarks; see `vidrestore.geometry.template`."""
    fingerprint: str = ""
    """Of the source file's content; see `vidrestore.store`."""
    people_are_joined: bool = False
    """A recogniser joined the tracks of a person across shots."""
    margins: Margins | None = None
    """Edges from which no face was taken."""
    fields: Fields | None = None
    """Where all the rest is of pictures of fields; see `vidrestore.interlace`."""

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


def mean_direction(vectors: Sequence[FloatArray]) -> FloatArray | None:
    """(d,) of unit length; None of no vectors, or of such as add up to nothing."""
    mean = np.mean(vectors, axis=0) if vectors else np.zeros(1)
    length = float(np.linalg.norm(mean))
    return np.asarray(mean / length, np.float32) if length else None


def _check(name: str, array: npt.NDArray[Any], shape: tuple[int, ...], dtype: Any) -> None:
    if array.shape != shape or array.dtype != dtype:
        raise ValueError(
            f"{name} must be {np.dtype(dtype).name} of shape {shape}, "
            f"got {array.dtype} of shape {array.shape}"
        )
