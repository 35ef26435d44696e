"""Face detection in every frame, and the small pictures in which cuts are found later."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import cv2
import numpy as np
import numpy.typing as npt
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter

from vidrestore.analysis.borders import NO_MARGINS, Margins
from vidrestore.analysis.mesh_tracking import MeshTracker, Pictures, look_at_angles
from vidrestore.analysis.tracks import Observation
from vidrestore.common.settings import Detect
from vidrestore.imaging.detector_picture import detector_picture
from vidrestore.imaging.frame import Frame, VideoInfo
from vidrestore.imaging.geometry import Rect, Upright, invert, upright
from vidrestore.imaging.planes import checksum, plane
from vidrestore.models.detectors import (
    Detection,
    Detector,
    is_among,
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
_SWSCALE_MATRIX = {
    "bt601": Colorspace.ITU601, "bt709": Colorspace.ITU709, "bt2020": Colorspace.BT2020,
}  # fmt: skip
# The mean change of the thumbnail, in 8-bit levels, that may be a cut.
_CHANGE = 8.0
# The mean change up to which nothing but what was seen before is in the picture.
_CALM_CHANGE = 4.0
# Where all of the picture moves or flashes, every frame is new. Then only every sixth frame, and
# the frame after the last one, is a reason to search for a face at every angle again.
_NEW_IN_A_ROW = 6
# The least overlap of a face with itself in the frame before.
_SAME_FACE = 0.1
# The number of frames in a row at which a detector may not fail, because that is no accident.
_MOST_FAILURES = 5
# The closer look shows a face of 24 frame pixels with 20 pixels. Its square tiles overlap by the
# largest face that the closer look searches for.
_CLOSER, _TILE_OVERLAP_PX = 5 / 6, 96
# The angles at which the picture is searched for turned faces: where no face is known, and on
# request.
_RIGHT_ANGLES_DEGREES = (90.0, 180.0, 270.0)
_ALL_ANGLES_DEGREES = (45.0, 90.0, 135.0, 180.0, 225.0, 270.0, 315.0)


@dataclass(slots=True)
class Failures:
    """The count of the frames at which a detector or a recognizer failed."""

    frames: int = 0
    """The number of frames with a failure."""
    first: str = ""
    """The first such frame and the message of its error; empty without a failure."""
    _in_a_row: int = 0

    def add(self, index: int, error: Exception | None) -> None:
        """Count the result of the next frame.

        Args:
            index: The index of the frame, from 0.
            error: The exception that the frame caused; None: the frame caused none.

        Raises:
            Exception: `error` itself, where it is the fifth in a row.
        """
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
    """The result of the first look at a frame."""

    frame: Frame
    """The decoded frame."""
    picture: Picture
    """(H, W, 3) uint8 BGR, the frame in the upright view in which faces are detected."""
    thumbnail: Picture
    """(36, 64) uint8 gray, upright."""
    crc32: int
    """The CRC-32 of the samples of all planes of the frame."""
    found: list[Detection] | None
    """The faces, in pixels of `picture`; None where the detector did not run or failed."""
    error: Exception | None = None
    """The exception of the detector, where it failed."""
    has_hint: bool = True
    """False where the detector ran and saw nothing else that resembles a face."""
    is_open: bool = False
    """Whether the detector has yet to run, unless the frames around need no look at this one."""
    is_followed: bool = False
    """Whether the faces are those of the frame before, which the mesh follows; the detector runs
    where one of them is gone.
    """


class FirstLook:
    """Detects faces in each `every`-th frame, in an upright picture scaled to `size_px`.

    With `apart` above 1, the detector searches one of every `apart` of these frames at first.
    `close_gaps` then chooses the skipped frames that need a search, and `closed` searches them.

    Each thread needs a `FirstLook` of its own, because two threads must not share a detector.
    """

    def __init__(
        self,
        detector: Detector,
        info: VideoInfo,
        how: Detect,
        *,
        margins: Margins = NO_MARGINS,
        apart: int = 1,
    ) -> None:
        """Set up the first look.

        Args:
            detector: The detector, which no other thread uses in the meantime.
            info: The properties of the frames.
            how: The settings; `size_px` and `every` count here.
            margins: The margins; the noise in them is covered. Default: none.
            apart: The number of frames for the detector out of which the first is looked at; the
                others are left open. Default: 1.
        """
        self._detector = detector
        self._apart = apart
        self._info = info
        self._margins = margins
        self._view = upright(info, how.size_px)
        self._every = how.every
        self._scaler = VideoReformatter()

    def __call__(self, frame: Frame) -> FirstLookResult:
        """Look at one frame.

        Args:
            frame: The decoded frame.

        Returns:
            The faces, the upright picture, the thumbnail and the checksum.
        """
        picture = upright_picture(
            frame.image, self._info, self._view, self._margins, scaler=self._scaler
        )
        gray = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
        small = cv2.resize(gray, _THUMBNAIL_SIZE, interpolation=cv2.INTER_AREA)
        result = FirstLookResult(
            frame, picture, np.asarray(small, np.uint8), checksum(frame.image), None
        )
        if frame.index % self._every:
            return result
        if frame.index % (self._every * self._apart):
            return replace(result, is_open=True)
        return self._looked(result)

    def closed(self, look: FirstLookResult) -> FirstLookResult:
        """Look at a frame that was left open.

        Args:
            look: The result for any frame.

        Returns:
            The result with the faces of the frame; `look` itself where it is not open.
        """
        return self._looked(look) if look.is_open else look

    def _looked(self, look: FirstLookResult) -> FirstLookResult:
        try:
            found, has_hint = self._detector.with_hint(look.picture)
        except Exception as error:  # a detector may raise anything; `detect` counts it
            _log.info("the detector failed at frame %d: %r", look.frame.index, error)
            return replace(look, error=error, is_open=False)
        return replace(look, found=found, has_hint=has_hint, is_open=False)


def close_gaps(
    looks: Iterator[FirstLookResult], *, most_ticks: float, cut: float, follows: bool = False
) -> Iterator[FirstLookResult]:
    """Choose the open frames that a detector need not see, and close them.

    These are the frames between two that show the same faces, or none, and nothing else that
    resembles a face, if the two are close in time, and the picture does not change much from one
    frame to the next. Another face in them would be too brief for a track.

    Args:
        looks: The results of `FirstLook` for each frame, in order.
        most_ticks: The longest time between the two frames, in units of the frames' `pts`: the
            least length of a track. The frame rate that a file states may be far from its own.
        cut: The least mean change of the thumbnail at a cut, in 8-bit levels.
        follows: Whether faces are followed through the frames that are closed. Default: no, and the
            detector sees all frames around a face.

    Yields:
        The results in order; those that are still open need a look.
    """
    waiting: list[FirstLookResult] = []
    is_calm = False
    last_pts = 0  # of the frame before those that wait
    calm_change = min(_CALM_CHANGE, cut / 3)
    before: FirstLookResult | None = None
    seen: list[Detection] = []
    for look in looks:
        if before is not None:
            is_calm &= cv2.absdiff(before.thumbnail, look.thumbnail).mean() <= calm_change
        before = look
        if look.is_open or (look.found is None and look.error is None):
            waiting.append(look)
            continue
        found = look.found or []
        is_clear = not look.has_hint and (follows or not found)
        is_calm &= is_clear and look.frame.pts - last_pts <= most_ticks
        is_calm = is_calm and _are_the_same(seen, found)
        for each in waiting:
            if is_calm and each.is_open:
                yield replace(each, found=[], is_open=False, is_followed=bool(found))
            else:
                yield each
        waiting.clear()
        is_calm, last_pts, seen = is_clear, look.frame.pts, found
        yield look
    yield from waiting


def _are_the_same(faces: Sequence[Detection], later: Sequence[Detection]) -> bool:
    """Tell whether each face is in both frames."""
    return len(faces) == len(later) and all(
        is_among(face, others, _SAME_FACE)
        for some, others in ((faces, later), (later, faces))
        for face in some
    )


def detect(
    looks: Iterator[FirstLookResult],
    detector: Detector,
    info: VideoInfo,
    how: Detect,
    *,
    margins: Margins = NO_MARGINS,
    recognise: Recognise | None = None,
    failures: Failures | None = None,
    meshes: MeshTracker | None = None,
) -> Iterator[tuple[Frame, Observation]]:
    """Find the faces of every frame, with a second look where the first look may have missed some.

    With the face mesh, a face is what the mesh confirms. The mesh first follows the faces of the
    frame before; it then looks at what the detector found. If no face is known then, or with
    `how.any_angle`, the detector also searches the turned picture, as often as it looks again.

    The second look shrinks the picture to find faces that fill it, where the first look found
    nothing or where a face of the frame before is gone. It also searches large frames tile by tile
    for small faces. If no face is lost and the picture is not new, both happen only every
    `how.again_seconds`.

    Args:
        looks: The results of the first look at each frame, in order.
        detector: The detector for the second look, which no other thread uses in the meantime.
        info: The properties of the frames.
        how: The settings; `size_px` and `again_seconds` count here.
        margins: The margins. Detections in them are dropped, and the observation counts them.
            Default: none.
        recognise: Adds embeddings to the faces of a picture, given the picture, its faces and its
            time in seconds. Default: the faces get no embeddings.
        failures: Counts the frames at which `detector` or `recognise` failed. Such a frame keeps
            the faces that were found before the failure. Default: a counter that is dropped.
        meshes: Confirms and follows the faces. Default: the detector alone decides.

    Yields:
        Each frame with its observation; faces are in frame pixels.

    Raises:
        Exception: The error of the detector or the recognizer, after five frames in a row with one.
    """
    failures = failures or Failures()
    view = upright(info, how.size_px)
    to_frame = invert(view.matrix)
    again = _SecondLook(detector, info, view, how, margins, meshes)
    for look in looks:
        frame, found, error = look.frame, look.found, look.error
        seconds, in_margins = float(frame.pts * info.time_base), 0
        if found is not None:
            try:
                seen = again(look, found, seconds)
                found = [f for f in seen if not margins.hold(moved(f, to_frame).box, info)]
                in_margins = len(seen) - len(found)
                if recognise is not None:
                    found = recognise(look.picture, found, seconds)
            except Exception as broken:
                _log.info("the second look at frame %d failed: %r", frame.index, broken)
                error = broken
        if found is not None or error is not None:
            failures.add(frame.index, error)
        faces = tuple(moved(face, to_frame) for face in found or ())
        seen_here = Observation(
            frame.index, frame.pts, look.crc32, look.thumbnail, faces, in_margins=in_margins
        )
        yield frame, seen_here


class _Confirm(Protocol):
    def __call__(self, found: Sequence[Detection], needs_mesh: bool = False) -> list[Detection]: ...


class _SecondLook:
    """Finds faces that the first look missed; called for the frames of one stream in order."""

    def __init__(
        self,
        detector: Detector,
        info: VideoInfo,
        view: Upright,
        how: Detect,
        margins: Margins,
        meshes: MeshTracker | None,
    ) -> None:
        self._detector = detector
        self._info = info
        self._view, self._meshes = view, meshes
        self._angles_degrees = _ALL_ANGLES_DEGREES if how.any_angle else _RIGHT_ANGLES_DEGREES
        self._at_any_angle = how.any_angle
        self._again_seconds = how.again_seconds
        self._margins = margins
        self._own_px = max(upright(info).coded_size)
        longer = round(_CLOSER * self._own_px)
        self._close = upright(info, longer) if longer > how.size_px else None
        self._larger = longer / max(view.coded_size)
        if self._close is not None:
            width, height = self._close.coded_size
            if self._close.orientation[0] == 0:
                width, height = height, width
            self._tiles = _tiles(width, height, how.size_px)
        self._before: list[Detection] = []
        self._thumbnail: Picture | None = None
        self._new_in_a_row = 0
        self._looked_seconds = -np.inf
        self._scaler = VideoReformatter()

    def __call__(
        self, look: FirstLookResult, found: list[Detection], seconds: float
    ) -> list[Detection]:
        """Return `found` and the other faces, in the same pixels; with a mesh, confirmed ones."""
        is_new = self._is_new(look.thumbnail)
        due = is_new or seconds - self._looked_seconds >= self._again_seconds
        if due:
            self._looked_seconds = seconds
        thorough = self._is_thorough(is_new) or (due and self._at_any_angle)
        confirmed = self._confirmed(look, due=due, thorough=thorough)
        found = confirmed(found)
        lost = self._lost_from(found)
        if look.is_followed and (lost or not found):
            found = confirmed(with_others(found, self._detector(look.picture)))
            lost = self._lost_from(found)
        if lost or (due and not found):
            more = look_from_afar(look.picture, self._detector)
            found = confirmed(with_others(found, more))
            lost = [face for face in lost if not is_among(face, found, _SAME_FACE)]
        if self._close is not None:
            tiles = self._tiles if due else self._tiles_of(lost)
            if tiles:
                found = confirmed(with_others(found, self._in_tiles(look.frame, tiles)))
        if due and self._meshes is not None and (self._at_any_angle or not found):
            more = look_at_angles(look.picture, self._detector, self._angles_degrees)
            found = confirmed(more, needs_mesh=True)
        self._before = found
        return found

    def _lost_from(self, found: Sequence[Detection]) -> list[Detection]:
        """Return the faces of the frame before that are gone."""
        return [face for face in self._before if not is_among(face, found, _SAME_FACE)]

    def _is_thorough(self, is_new: bool) -> bool:
        """Tell whether what was no face may now be one at any angle: at a cut, and during and after
        fast motion."""
        before = self._new_in_a_row
        self._new_in_a_row = before + 1 if is_new else 0
        return before % _NEW_IN_A_ROW == 0 if is_new else before > 1

    def _confirmed(self, look: FirstLookResult, *, due: bool, thorough: bool) -> _Confirm:
        """Begin a frame; return what makes faces of detections."""
        meshes = self._meshes
        if meshes is None:
            return lambda found, needs_mesh=False: list(found)
        pictures = Pictures(look.picture, self._larger_picture(look.frame))
        meshes.begin()
        meshes.follow(pictures)

        def confirm(found: Sequence[Detection], needs_mesh: bool = False) -> list[Detection]:
            new = [face for face in found if face.shape is None]
            return meshes.confirm(
                pictures,
                new,
                thorough=thorough,
                again=due,
                needs_mesh=needs_mesh,
            )

        return confirm

    def _larger_picture(self, frame: Frame) -> Callable[[float], tuple[Picture, float]] | None:
        own_px, view_px = self._own_px, max(self._view.coded_size)
        if own_px <= view_px:
            return None

        def larger(factor: float) -> tuple[Picture, float]:
            view = upright(self._info, min(round(factor * view_px), own_px))
            picture = upright_picture(frame.image, self._info, view, self._margins)
            return picture, max(view.coded_size) / view_px

        return larger

    def _is_new(self, thumbnail: Picture) -> bool:
        before, self._thumbnail = self._thumbnail, thumbnail
        return before is None or float(cv2.absdiff(before, thumbnail).mean()) > _CHANGE

    def _tiles_of(self, lost: Sequence[Detection]) -> list[Rect]:
        """Return, for each small face that is lost, the tile whose center is nearest to it."""
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

    def _in_tiles(self, frame: Frame, tiles: Sequence[Rect]) -> list[Detection]:
        assert self._close is not None
        picture = upright_picture(
            frame.image, self._info, self._close, self._margins, scaler=self._scaler
        )
        found = look_closely(picture, self._detector, tiles, largest_px=_TILE_OVERLAP_PX)
        scale = 1 / self._larger
        back = np.array([[scale, 0, 0.5 * scale - 0.5], [0, scale, 0.5 * scale - 0.5]])
        return [moved(face, back) for face in found]


def _tiles(width: int, height: int, side: int) -> list[Rect]:
    """Divide a picture into overlapping squares of `side` pixels or less."""
    return [
        Rect(x, y, min(x + side, width), min(y + side, height))
        for y in _starts(height, side)
        for x in _starts(width, side)
    ]


def _starts(length: int, side: int) -> list[int]:
    count = max(1, -(-(length - _TILE_OVERLAP_PX) // (side - _TILE_OVERLAP_PX)))
    return [round(start) for start in np.linspace(0, max(length - side, 0), count)]


def upright_picture(
    image: av.VideoFrame,
    info: VideoInfo,
    view: Upright,
    margins: Margins = NO_MARGINS,
    *,
    scaler: VideoReformatter | None = None,
) -> npt.NDArray[np.uint8]:
    """Convert a frame to an upright BGR picture for detection and display.

    The noise of head switching is covered. The picture is never part of the output.

    Convention: the picture is the view whose `matrix` leads from frame pixel centers (x, y) to
    pixel centers of the picture.

    Args:
        image: The decoded frame.
        info: The properties of the frame.
        view: The size and the orientation of the picture.
        margins: The margins; default: none.
        scaler: swscale with its tables, which no other thread uses in the meantime. It need not
            make them again for the next picture of the same view. Default: one for this picture.

    Returns:
        (H, W, 3) uint8 BGR copy.
    """
    width, height = view.coded_size
    # A lookup table may map a picture to few of 256 levels, as the table of half floats does.
    is_fine = info.transfer == "table" and info.bit_depth == 16
    scaled = (scaler or VideoReformatter()).reformat(
        image,
        width=width,
        height=height,
        format="gbrp16le" if is_fine else "bgr24",
        src_colorspace=_SWSCALE_MATRIX[info.matrix],
        src_color_range="JPEG" if info.full_range else "MPEG",
        interpolation=Interpolation.AREA,
        threads=1,  # to start others takes longer than they save
    )
    if is_fine:
        bgr = np.dstack([plane(scaled, index) for index in (1, 0, 2)])
    else:
        bgr = np.asarray(scaled.to_ndarray(), np.uint8)
    picture = np.ascontiguousarray(view.turn(detector_picture(bgr, info)))
    return margins.covered(picture, view.matrix, info)
