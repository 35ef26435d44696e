"""What flows between the stages. Every value checks itself when it is made, then is trusted.

Pixel coordinates are (x, y) with (0, 0) at the centre of the top-left pixel; boxes are x1 y1 x2 y2.
"Frame pixels" are those of the coded picture, before any rotation or aspect ratio is applied.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import av

    pass


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
    """sdr, pq or hlg (Rec. ITU-R BT.2100), or a curve named by the user (`imaging.log_curves`)."""
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


def _check(name: str, array: npt.NDArray[Any], shape: tuple[int, ...], dtype: Any) -> None:
    if array.shape != shape or array.dtype != dtype:
        raise ValueError(
            f"{name} must be {np.dtype(dtype).name} of shape {shape}, "
            f"got {array.dtype} of shape {array.shape}"
        )


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """A part of a frame that may be changed; nothing outside of it may."""

    corner_px: tuple[int, int]
    """(x, y) of the top-left pixel of `weight` in the frame."""
    weight: FloatArray
    """(h, w) in [0, 1]: how far."""


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """What was pasted into a frame: out = in + (fill - in) * matte."""

    corner_px: tuple[int, int]
    """(x, y) of the top-left pixel in the frame; outside the matte is 0."""
    fill: FloatArray
    """(3, h, w) R'G'B' of the stream, 0 where the matte is 0."""
    matte: FloatArray
    """(h, w) in [0, 1]."""


@dataclass(frozen=True, slots=True)
class LayerRange:
    """What the files of a layer can hold."""

    matte_steps: int
    """Levels of the matte above 0."""
    least: float
    """Of R'G'B' in the fill, 0 being black; likewise:"""
    most: float
