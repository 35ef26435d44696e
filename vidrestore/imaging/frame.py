"""The values that the stages exchange: stream properties, frames, regions and layers.

A value checks itself when it is made. Pixel coordinates are (x, y) with (0, 0) at the center of the
top-left pixel; boxes are x1 y1 x2 y2. "Frame pixels" are the pixels of the coded picture, before
any rotation or aspect ratio is applied.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import av


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
class TimeShift:
    """A packet of a stream from which on the times that the file states are shifted."""

    packet: int
    """The number of the packet among those of its stream, from 0, in the order of the file."""
    ticks: int
    """The ticks of the stream's clock to add to the times of this packet and of all later ones, up
    to the next shift."""
    rest: Fraction = Fraction(0)
    """A part of a tick to add as well, for sound, whose clock may be coarse; 0 for a picture."""


@dataclass(frozen=True, slots=True)
class PictureChange:
    """A frame of a file from which on the picture has another form than before."""

    pts: int
    """The presentation time of the frame in ticks of the stream's time_base."""
    kind: Literal["shape", "pixel aspect", "colors", "side data"]
    """What changes: size and pixel format, the aspect ratio of pixels that the coded stream states,
    the color tags that it states, or what its frames state besides, such as HDR metadata.
    """
    form: str
    """The new form in words, such as 640 x 360 in yuv420p."""


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """The properties of one video stream, which the output must have as well.

    `matrix` and `full_range` are resolved: vidrestore guesses from size and format what the file
    does not state, and lists the guessed fields in `guessed`.
    """

    stream_index: int
    """The index of the stream in its container."""
    codec: str
    """The codec by ffmpeg's canonical name, such as h264."""
    width: int
    """The width of the coded picture in pixels."""
    height: int
    """The height of the coded picture in pixels."""
    time_base: Fraction
    """The clock of the stream: seconds per tick of `pts`."""
    frame_rate: Fraction
    """The nominal frame rate per second, for constants that scale with it; times come from `pts`
    alone.
    """
    frame_count_from_header: int
    """The number of frames that the container states; 0 where it states none. It may be wrong, so
    it never decides where the video ends.
    """
    duration_seconds_from_header: float
    """The duration of the stream that the container states, in seconds; 0 where it states none."""
    sample_aspect_ratio: Fraction
    """Width of a pixel divided by its height; 1 for square pixels."""
    display_orientation: tuple[int, int, int, int]
    """The rotation and flip for display as a signed permutation (a, b, c, d): display coordinates =
    ((a, b), (c, d)) @ coded coordinates, columns (x, y).
    """
    display_matrix: tuple[int, ...] | None
    """The nine 16.16 fixed-point numbers of the file's display matrix, which the output gets
    unchanged; None where the file has none.
    """
    pixel_format: str
    """The pixel format of the decoded frames, by ffmpeg's name."""
    bit_depth: int
    """The number of bits per sample."""
    matrix: str
    """bt601, bt709 or bt2020: the constants of the conversion between R'G'B' and Y'CbCr."""
    full_range: bool
    """Whether code values use the full range rather than the limited one."""
    tags: tuple[int, int, int, int]
    """Range, matrix, primaries and transfer as the file has them (ISO/IEC 23091-2); 0 or 2 where it
    does not state one. The output gets them unchanged, except that full range is written where
    `full_range` holds.
    """
    field_order: str
    """progressive, tff or bff: which field of an interlaced frame is the earlier one, top or
    bottom.
    """
    chroma_location: str = "left"
    """The position of a chroma sample in its group of luma samples (H.264 figure E-1): left,
    center, topleft, top, bottomleft or bottom.
    """
    transfer: str = "sdr"
    """The transfer curve: sdr, pq or hlg (Rec. ITU-R BT.2100), or cineon, slog3 or table where the
    user named one (`imaging.curves`).
    """
    curve: tuple[tuple[float, float, float], ...] = ()
    """The table of display values of R', G' and B' for evenly spaced signals from 0 to 1, where
    `transfer` is table; else empty.
    """
    primaries: str = "bt709"
    """bt709 (also for the similar primaries of 525-line and 625-line video), bt2020 or p3."""
    mastering_display: tuple[Fraction, ...] | None = None
    """The mastering display (SMPTE ST 2086): x, y of red, green, blue and white (CIE 1931), then
    the least and the greatest luminance in cd/m2; None where the file states none.
    """
    content_light: tuple[int, int] | None = None
    """The greatest light level of a pixel and of the average of a frame, in cd/m2 (CTA-861.3); None
    where the file states none.
    """
    guessed: frozenset[str] = frozenset()
    """The names of the properties that the file does not state and that vidrestore guessed."""
    shifts: tuple[TimeShift, ...] = ()
    """The shifts that make the times of the stream rise, in the order of the file; empty where the
    times of the file can be used as they are. See `media.timeline`.
    """
    joins_seconds: tuple[float, ...] = ()
    """The times at which one recording ends and the next one begins, where times of the file go
    back, in seconds from the first frame; empty where the file holds one recording.
    """

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise ValueError(
                f"width and height must be at least 1 pixel, not {self.width} x {self.height}"
            )
        if self.time_base <= 0 or self.sample_aspect_ratio <= 0 or self.frame_rate <= 0:
            raise ValueError(
                f"time base {self.time_base}, frame rate {self.frame_rate} and sample aspect ratio "
                f"{self.sample_aspect_ratio} must be positive"
            )
        for name, allowed in _ALLOWED.items():
            if getattr(self, name) not in allowed:
                choices = ", ".join(allowed)
                raise ValueError(f"{name} must be one of {choices}, not {getattr(self, name)!r}")

    @property
    def is_interlaced(self) -> bool:
        """Whether the frames consist of two fields."""
        return self.field_order != "progressive"


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A decoded picture in its stream's pixel format, which vidrestore never converts whole."""

    index: int
    """The number of the frame, from 0, in order of presentation."""
    pts: int
    """The presentation time in ticks of the stream's time_base."""
    image: av.VideoFrame
    """The picture."""
    duration: int = 0
    """The duration in ticks of the stream's time_base; 0 where the file does not state it."""
    pasted: Pasted | None = None
    """What was pasted into the picture, where a stage was asked to keep that and pasted something;
    else None.
    """
    layer: Layer | None = None
    """The changes made to the picture as a layer, where a stage was asked for layers and changed
    it; else None.
    """
    packet: bytes | None = None
    """The packet that gives exactly this picture without any other packet, where the decoder was
    asked to keep it; None where it was not, and where the picture was changed.
    """

    def __post_init__(self) -> None:
        if self.index < 0:
            raise ValueError(f"frame index must not be negative, got {self.index}")


def _check(name: str, array: npt.NDArray[Any], shape: tuple[int, ...], dtype: Any) -> None:
    """Raise ValueError unless an array has the given shape and dtype."""
    if array.shape != shape or array.dtype != dtype:
        raise ValueError(
            f"{name} must be {np.dtype(dtype).name} of shape {shape}, "
            f"got {array.dtype} of shape {array.shape}"
        )


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """A part of a frame that may be changed; everything outside it stays as it is."""

    corner_px: tuple[int, int]
    """(x, y) of the top-left pixel of `weight` in the frame."""
    weight: FloatArray
    """The weight of the change per pixel, (h, w) in [0, 1]."""


@dataclass(frozen=True, slots=True, eq=False)
class PastedFace:
    """A face as it was pasted into a picture."""

    corner_px: tuple[int, int]
    """(x, y) of the top-left pixel of the face in the frame."""
    rgb: FloatArray
    """(3, h, w) display values in [0, 1]."""
    weight: FloatArray
    """(h, w) in [0, 1]: how much of the face is used."""


@dataclass(frozen=True, slots=True, eq=False)
class Pasted:
    """The faces that were pasted into a picture."""

    before: av.VideoFrame
    """A copy of the picture before any face was pasted into it."""
    faces: tuple[PastedFace, ...]
    """The faces, each pasted over those before it."""


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """The restored faces of a frame as a layer: out = in + (fill - in) * matte."""

    corner_px: tuple[int, int]
    """(x, y) of the top-left pixel of the layer in the frame; the matte is 0 outside the layer."""
    fill: FloatArray
    """The R'G'B' of the stream, (3, h, w), which is 0 where the matte is 0."""
    matte: FloatArray
    """The opacity per pixel, (h, w) in [0, 1]."""


@dataclass(frozen=True, slots=True)
class LayerRange:
    """The range of values that the files of a layer can hold."""

    matte_steps: int
    """The number of levels of the matte above 0."""
    least: float
    """The least R'G'B' value of the fill; 0 is black."""
    most: float
    """The greatest R'G'B' value of the fill; 1 is white."""
