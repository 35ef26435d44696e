"""Frames become the faces found in each, and enough of the picture to see cuts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt
from av.video.reformatter import Interpolation

from vidrestore.analysis.borders import NO_MARGINS, Margins
from vidrestore.analysis.tracks import Observation
from vidrestore.common.settings import Detect
from vidrestore.imaging import transfer
from vidrestore.imaging.frame import Frame, VideoInfo
from vidrestore.imaging.geometry import Rect, Upright, apply, invert, overlaps, upright
from vidrestore.imaging.planes import checksum, plane
from vidrestore.models.detectors import (
    Detection,
    Detector,
    look_closely,
    look_from_afar,
    moved,
    with_others,
)

if TYPE_CHECKING:
    import av

_log = logging.getLogger("vidrestore")

Picture = npt.NDArray[np.uint8]
Recognise = Callable[[Picture, Sequence[Detection], float], list[Detection]]

_THUMBNAIL_SIZE = (64, 36)
_SWSCALE_MATRIX = {"bt601": "ITU601", "bt709": "ITU709", "bt2020": "BT2020"}
# Mean change of the small grey picture, in 8-bit levels, that may be a cut.
_CHANGE = 8.0
# Share of its area that a face keeps from one frame to the next.
_SAME_FACE = 0.1
# Frames in a row at which a detector may break: with more it is no accident.
_MOST_FAILURES = 5
# A closer look has 20 pixels for a face that has 24 in the frame, and looks at square tiles which
# overlap by the largest face that it is for.
_CLOSER, _TILE_OVERLAP_PX = 5 / 6, 96


@dataclass(slots=True)
class Failures:
    """Frames at which a detector or a recogniser broke; filled while they are looked at."""

    frames: int = 0
    first: str = ""
    """Which was the first, and what the error said."""
    _in_a_row: int = 0

    def add(self, index: int, error: Exception | None) -> None:
        """Of the next frame; raises the error where too many frames in a row have one."""
        if error is None:
            self._in_a_row = 0
            return
        self.frames += 1
        self._in_a_row += 1
        self.first = self.first or f"frame {index}, {type(error).__name__}: {error}"
        if self._in_a_row == _MOST_FAILURES:
            raise error


@dataclass(frozen=True, slots=True, eq=False)
class FirstLookResult:
    """What the first look at a frame gave."""

    frame: Frame
    picture: Picture
    """(H, W, 3) BGR, upright."""
    thumbnail: Picture
    crc32: int
    found: list[Detection] | None
    """In pixels of `picture`; None where nobody looked."""
    error: Exception | None = None
    """Why not, where the detector broke."""


class FirstLook:
    """Looks for faces in each `every`-th frame as a person would see it, scaled to `size_px`.

    Every thread has one of its own: detectors are not for two threads at a time.
    """

    def __init__(
        self,
        detector: Detector,
        info: VideoInfo,
        how: Detect,
        *,
        margins: Margins = NO_MARGINS,
    ) -> None:
        """Set up the first look.

        Args:
            detector: Finds the faces; not used by another thread meanwhile.
            info: Of the frames.
            how: `size_px` and `every` count here.
            margins: Parts of the picture that are covered; default: none.
        """
        self._detector = detector
        self._info = info
        self._margins = margins
        self._view = upright(info, how.size_px)
        self._every = how.every

    def __call__(self, frame: Frame) -> FirstLookResult:
        picture = upright_picture(frame.image, self._info, self._view, self._margins)
        grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
        small = cv2.resize(grey, _THUMBNAIL_SIZE, interpolation=cv2.INTER_AREA)
        found, error = None, None
        if frame.index % self._every == 0:
            try:
                found = self._detector(picture)
            except Exception as broken:  # of whatever kind; `detect` counts it
                _log.info("the detector failed at frame %d: %r", frame.index, broken)
                error = broken
        crc32 = checksum(frame.image)
        return FirstLookResult(frame, picture, np.asarray(small, np.uint8), crc32, found, error)


def detect(
    looks: Iterator[FirstLookResult],
    detector: Detector,
    info: VideoInfo,
    how: Detect,
    *,
    margins: Margins = NO_MARGINS,
    recognise: Recognise | None = None,
    failures: Failures | None = None,
) -> Iterator[tuple[Frame, Observation]]:
    """Find the faces of every frame, with a second look where the first may have missed some.

    A face that fills the picture is seen from afar: where nothing was found or a face of the frame
    before is gone. Small ones in large frames are seen closely, tile by tile. Where neither a lost
    face nor a new picture asks for it, both are done every `how.again_seconds` only.

    Args:
        looks: What the first look at each frame gave, in order.
        detector: For the second look; not used by another thread meanwhile.
        info: Of the frames.
        how: `size_px` and `again_seconds` count here.
        margins: What lies in them is no face, and counted in the observation; default: none.
        recognise: Adds embeddings to the faces of a picture, given its time in seconds; default:
            no embeddings.
        failures: Counts the frames at which `detector` or `recognise` broke, which keep the faces
            found until then; default: they are not told.

    Yields:
        Each frame with its faces, in pixels of the frame.

    Raises:
        Exception: Of the detector or the recogniser, where several frames in a row have one.
    """
    failures = failures or Failures()
    view = upright(info, how.size_px)
    again = _SecondLook(detector, info, view, how, margins)
    for look in looks:
        frame, found, error = look.frame, look.found, look.error
        seconds, in_margins = float(frame.pts * info.time_base), 0
        if found is not None:
            try:
                seen = again(look, found, seconds)
                found = [f for f in seen if not margins.hold(_in_frame(f, view).box, info)]
                in_margins = len(seen) - len(found)
                if recognise is not None:
                    found = recognise(look.picture, found, seconds)
            except Exception as broken:
                _log.info("the second look at frame %d failed: %r", frame.index, broken)
                error = broken
        if found is not None or error is not None:
            failures.add(frame.index, error)
        faces = tuple(_in_frame(face, view) for face in found or ())
        seen_here = Observation(
            frame.index, frame.pts, look.crc32, look.thumbnail, faces, in_margins=in_margins
        )
        yield frame, seen_here


class _SecondLook:
    """Finds what the first look missed; called for the frames of one stream in order."""

    def __init__(
        self,
        detector: Detector,
        info: VideoInfo,
        view: Upright,
        how: Detect,
        margins: Margins,
    ) -> None:
        self._detector = detector
        self._info = info
        self._again_seconds = how.again_seconds
        self._margins = margins
        longer = round(_CLOSER * max(upright(info).coded_size))
        self._close = upright(info, longer) if longer > how.size_px else None
        self._larger = longer / max(view.coded_size)
        if self._close is not None:
            width, height = self._close.coded_size
            if self._close.orientation[0] == 0:
                width, height = height, width
            self._tiles = _tiles(width, height, how.size_px)
        self._before: list[Detection] = []
        self._thumbnail: Picture | None = None
        self._looked_seconds = -np.inf

    def __call__(
        self, look: FirstLookResult, found: list[Detection], seconds: float
    ) -> list[Detection]:
        """`found` and what else there is, in the same pixels."""
        lost = [face for face in self._before if not _is_among(face, found)]
        due = self._is_new(look.thumbnail) or seconds - self._looked_seconds >= self._again_seconds
        if due:
            self._looked_seconds = seconds
        if lost or (due and not found):
            found = with_others(found, look_from_afar(look.picture, self._detector))
            lost = [face for face in lost if not _is_among(face, found)]
        if self._close is not None:
            tiles = self._tiles if due else self._tiles_of(lost)
            if tiles:
                found = with_others(found, self._closely(look.frame, tiles))
        self._before = found
        return found

    def _is_new(self, thumbnail: Picture) -> bool:
        before, self._thumbnail = self._thumbnail, thumbnail
        return before is None or float(cv2.absdiff(before, thumbnail).mean()) > _CHANGE

    def _tiles_of(self, lost: Sequence[Detection]) -> list[Rect]:
        """For each small face that is gone the tile in the middle of which it was."""
        wanted = []
        for face in lost:
            x0, y0, x1, y1 = face.box * self._larger
            if max(x1 - x0, y1 - y0) <= _TILE_OVERLAP_PX:
                wanted.append(
                    min(
                        self._tiles,
                        key=lambda t: abs(t.x0 + t.x1 - x0 - x1) + abs(t.y0 + t.y1 - y0 - y1),
                    )
                )
        return list(dict.fromkeys(wanted))

    def _closely(self, frame: Frame, tiles: Sequence[Rect]) -> list[Detection]:
        assert self._close is not None
        picture = upright_picture(frame.image, self._info, self._close, self._margins)
        found = look_closely(picture, self._detector, tiles, largest_px=_TILE_OVERLAP_PX)
        scale = 1 / self._larger
        back = np.array([[scale, 0, 0.5 * scale - 0.5], [0, scale, 0.5 * scale - 0.5]])
        return [moved(face, back) for face in found]


def _is_among(face: Detection, found: Sequence[Detection]) -> bool:
    boxes = np.array([f.box for f in found]).reshape(-1, 4)
    return bool((overlaps(face.box, boxes) > _SAME_FACE).any())


def _tiles(width: int, height: int, side: int) -> list[Rect]:
    """Squares of `side`, or less, that cover the picture and overlap."""
    return [
        Rect(x, y, min(x + side, width), min(y + side, height))
        for y in _starts(height, side)
        for x in _starts(width, side)
    ]


def _starts(length: int, side: int) -> list[int]:
    count = max(1, -(-(length - _TILE_OVERLAP_PX) // (side - _TILE_OVERLAP_PX)))
    return [round(start) for start in np.linspace(0, max(length - side, 0), count)]


def upright_picture(
    image: av.VideoFrame, info: VideoInfo, view: Upright, margins: Margins = NO_MARGINS
) -> npt.NDArray[np.uint8]:
    """(H, W, 3) uint8 BGR copy of a frame, with its noise covered, for looking at only."""
    width, height = view.coded_size
    # A table may leave few of 256 levels to a picture, as that of half floats does.
    is_fine = info.transfer == "table" and info.bit_depth == 16
    scaled = image.reformat(
        width=width,
        height=height,
        format="gbrp16le" if is_fine else "bgr24",
        src_colorspace=_SWSCALE_MATRIX[info.matrix],
        src_color_range="JPEG" if info.full_range else "MPEG",
        interpolation=Interpolation.AREA,
    )
    if is_fine:
        bgr = np.dstack([plane(scaled, index) for index in (1, 0, 2)])
    else:
        bgr = np.asarray(scaled.to_ndarray(), np.uint8)
    picture = np.ascontiguousarray(view.turn(transfer.detector_picture(bgr, info)))
    return margins.covered(picture, view.matrix, info)


def _in_frame(found: Detection, view: Upright) -> Detection:
    """From pixels of the upright picture to those of the frame."""
    back = invert(view.matrix)
    corners = apply(back, found.box.reshape(2, 2))
    return Detection(
        np.concatenate([corners.min(axis=0), corners.max(axis=0)]).astype(np.float32),
        apply(back, found.landmarks).astype(np.float32),
        found.score,
        found.embedding,
    )
