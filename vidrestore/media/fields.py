"""Splits interlaced frames into one picture per field, and weaves frames from these again.

The picture of a field keeps the lines of the field sample by sample; the filter bwdif interpolates
the other lines from the fields before and after. Frames woven from unchanged pictures therefore
equal the original frames. Each plane is processed by itself, as 4:2:0 with fields requires.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain
from typing import Any

import av
import av.error
import numpy as np

from vidrestore.imaging.frame import Frame, Pasted
from vidrestore.imaging.planes import copy_of, layout, luma_8bit, plane
from vidrestore.media.side_data import side_data_of

# Thresholds of the filter idet for interlaced and for progressive frames.
_IDET = "intl_thres=1.04:prog_thres=1.5"
# Field order -> the first line of the later field, from 0.
_LATER_ROWS = {"tff": 1, "bff": 0}
_COLUMNS = 4


@dataclass(frozen=True, slots=True)
class FieldScan:
    """The counts of frames by how their fields look.

    The filter does not classify the first frame of each stretch, so that frame is not counted.
    """

    progressive: int = 0
    """The number of progressive frames."""
    tff: int = 0
    """The number of interlaced frames whose top field is the earlier one."""
    bff: int = 0
    """The number of interlaced frames whose bottom field is the earlier one."""
    undecided: int = 0
    """The number of frames in which too little moves."""
    repeated: int = 0
    """The number of frames, of all kinds, of which a field repeats that of the frame before."""
    flagged: int = 0
    """The number of frames, of all kinds, that the stream marks as interlaced."""

    def __add__(self, other: FieldScan) -> FieldScan:
        """Return the sum of the counts of two stretches."""
        return FieldScan(*(getattr(self, n) + getattr(other, n) for n in self.__dataclass_fields__))

    @property
    def frames(self) -> int:
        """The number of classified frames."""
        return self.progressive + self.tff + self.bff + self.undecided


def scan(images: Iterable[Any]) -> FieldScan:
    """Classify successive frames with ffmpeg's filter idet.

    The filter gets only luma: in 4:4:4 that was made from 4:2:0, every other line of chroma repeats
    the line before, which no field does.

    Args:
        images: Frames in planar formats, in order of presentation.

    Returns:
        The counts.
    """
    counts: Counter[str] = Counter()
    repeated = flagged = 0
    graph = None
    # The interlaced flags of the frames in the filter, which overwrites them with its own.
    flags = deque[bool]()
    for image in images:
        flags.append(bool(image.interlaced_frame))
        gray = _gray(image)
        graph = graph or _Graph(gray, "idet", _IDET)
        for filtered in graph.through(gray):
            tags = filtered.metadata
            counts[tags.get("lavfi.idet.multiple.current_frame", "undetermined")] += 1
            repeated += tags.get("lavfi.idet.repeated.current_frame") in ("top", "bottom")
            flagged += flags.popleft()
    return FieldScan(
        progressive=counts["progressive"],
        tff=counts["tff"],
        bff=counts["bff"],
        undecided=counts["undetermined"],
        repeated=repeated,
        flagged=flagged,
    )


def _gray(image: Any) -> Any:
    """Return the luma of a frame as a gray frame; for R'G'B', averaged over four columns.

    Rounding errors of the conversion to R'G'B' are as large as the changes in quiet footage; the
    average removes them.
    """
    luma = luma_8bit(image)
    if layout(image).is_rgb and image.width >= _COLUMNS:
        columns = luma[:, : image.width // _COLUMNS * _COLUMNS].reshape(len(luma), -1, _COLUMNS)
        luma = np.rint(columns.mean(axis=2)).astype(np.uint8)
    height, width = luma.shape
    gray = av.VideoFrame(width, height, "gray")
    plane(gray, 0)[...] = luma
    return gray


def own_row(index: int, order: str) -> int:
    """Return the first line of the field that a picture of `bobbed` shows.

    Args:
        index: The index of the picture.
        order: The field order, tff or bff.

    Returns:
        0 or 1; every other line from there on is the field's own.
    """
    later = _LATER_ROWS[order]
    return later if index % 2 else 1 - later


def can_split(pixel_format: str) -> bool:
    """Return whether bwdif takes a pixel format without converting it.

    Args:
        pixel_format: The format by ffmpeg's name.

    Returns:
        False where the filter would convert to a similar format.
    """
    graph = _Graph(av.VideoFrame(64, 48, pixel_format), "bwdif", "mode=send_field")
    for _ in range(2):
        for field in graph.through(av.VideoFrame(64, 48, pixel_format)):
            return bool(field.format.name == pixel_format)
    return False


def pictures(frames: Iterator[Frame], mode: str, order: str) -> Iterator[Frame]:
    """Make the pictures in which vidrestore finds and restores faces.

    Args:
        frames: Interlaced frames in order of presentation.
        mode: The mode of `vidrestore.analysis.result.Fields`: "frame" for `first_fields`, else
            `bobbed`.
        order: The field order, tff or bff.

    Returns:
        The pictures.
    """
    return first_fields(frames, order) if mode == "frame" else bobbed(frames, order)


def bobbed(frames: Iterator[Frame], order: str) -> Iterator[Frame]:
    """Make two pictures of each frame, one per field, with all lines.

    The first and the last frame are interpolated without a neighbor on one side.

    Args:
        frames: Interlaced frames in order of presentation.
        order: The field order, tff or bff.

    Yields:
        The pictures 2 i and 2 i + 1 of frame i. Times are in half ticks of the clock; the later
        field lies halfway to the next frame.
    """
    strip: _Graph | None = None
    for i, field, image in _split(frames, order):
        if field == 1 and side_data_of(image).get("A53_CC") is not None:
            # Both pictures have the captions of the frame; players would show each letter twice.
            strip = strip or _Graph(image, "sidedata", "mode=delete:type=A53_CC")
            (image,) = strip.through(image)
        half = i.until - i.frame.pts
        yield replace(
            i.frame,
            index=2 * i.frame.index + field,
            pts=2 * i.frame.pts + field * half,
            duration=half,
            image=image,
        )


def first_fields(frames: Iterator[Frame], order: str) -> Iterator[Frame]:
    """Make the picture of the earlier field of each frame.

    Args:
        frames: Interlaced frames in order of presentation.
        order: The field order, tff or bff.

    Yields:
        One picture per frame, with the number and the time of the frame.
    """
    for i, field, image in _split(frames, order):
        if field == 0:
            yield replace(i.frame, image=image, packet=None)


def earlier_field(image: av.VideoFrame, order: str) -> av.VideoFrame:
    """Copy the lines of the earlier field of an interlaced frame.

    Args:
        image: The frame, in a planar format.
        order: The order of its fields: tff or bff.

    Returns:
        A picture of half the height: every second line, from the first or the second on.
    """
    first = 1 - _LATER_ROWS[order]
    half = av.VideoFrame(image.width, (image.height - first + 1) // 2, image.format.name)
    for number in range(len(image.planes)):
        lines, into = plane(image, number)[first::2], plane(half, number)
        # An odd height of a plane lacks the last line of a field, so its line before is repeated.
        into[...] = lines[np.minimum(np.arange(len(into)), len(lines) - 1)]
    return half


def woven(frames: Iterator[Frame], order: str, *, flagged_order: str) -> Iterator[Frame]:
    """Weave frames from the pictures of their fields: the inverse of `bobbed`.

    What was pasted into the pictures (`Frame.pasted`) is woven as well: of each face, the lines of
    its own field are left. A frame has the packet of its pictures if neither was changed.

    Args:
        frames: Pictures of fields from an even number on; their images are overwritten.
        order: The field order, tff or bff.
        flagged_order: The field order that the frames shall be marked with, tff or bff, even if it
            is not `order`; "progressive": no mark.

    Yields:
        One frame for each two pictures.
    """
    marker = FieldMarker(flagged_order)
    later_row = _LATER_ROWS[order]
    for earlier in frames:
        if (later := next(frames, None)) is None:
            return  # the caller counts the frames and reports a missing one
        pasted = _woven_faces(earlier, later, later_row)
        yield replace(
            earlier,
            index=earlier.index // 2,
            pts=earlier.pts // 2,
            duration=0,
            image=marker(_interleaved(earlier.image, later.image, later_row)),
            pasted=pasted,
            packet=None if later.packet is None else earlier.packet,
        )


class FieldMarker:
    """Marks frames as interlaced; PyAV itself cannot do that."""

    def __init__(self, order: str) -> None:
        """Make a marker for frames of one size and pixel format.

        Args:
            order: The field order to mark, tff or bff; "progressive": frames stay as they are.
        """
        self._order = order
        self._graph: _Graph | None = None

    def __call__(self, image: Any) -> Any:
        """Mark a frame.

        Args:
            image: The frame.

        Returns:
            The marked frame; its time is undefined.
        """
        if self._order == "progressive":
            return image
        self._graph = self._graph or _Graph(image, "setfield", self._order)
        (marked,) = self._graph.through(image)
        return marked


def _interleaved(earlier: Any, later: Any, later_row: int) -> Any:
    """Overwrite the lines of the later field in `earlier` by those of `later`."""
    earlier.make_writable()
    for number in range(len(earlier.planes)):
        plane(earlier, number)[later_row::2] = plane(later, number)[later_row::2]
    return earlier


def _woven_faces(earlier: Frame, later: Frame, later_row: int) -> Pasted | None:
    """Weave what was pasted into the pictures of two fields, whose images are not woven yet."""
    if earlier.pasted is None and later.pasted is None:
        return None
    first, second = (
        copy_of(frame.image) if frame.pasted is None else frame.pasted.before
        for frame in (earlier, later)
    )
    faces = []
    for frame, other_row in ((earlier, later_row), (later, 1 - later_row)):
        for face in () if frame.pasted is None else frame.pasted.faces:
            weight = face.weight.copy()
            weight[(other_row - face.corner_px[1]) % 2 :: 2] = 0
            faces.append(replace(face, weight=weight))
    return Pasted(_interleaved(first, second, later_row), tuple(faces))


@dataclass(frozen=True, slots=True)
class _Timed:
    """A frame and the time at which the next one begins."""

    frame: Frame
    until: int
    """The time of the next frame."""


def _split(frames: Iterator[Frame], order: str) -> Iterator[tuple[_Timed, int, Any]]:
    """Yield (frame, 0 or 1 for its earlier or later field, the picture of that field)."""
    options = f"mode=send_field:parity={order}:deint=all"
    graph, waiting, field = None, deque[_Timed](), 0
    last: Frame | None = None
    for frame in chain(frames, (None,)):
        if last is not None:
            until = last.pts + (last.duration or 1) if frame is None else frame.pts
            waiting.append(_Timed(last, until))
        last = frame
        images: Iterator[Any] = iter(())
        if frame is not None:
            graph = graph or _Graph(frame.image, "bwdif", options)
            images = graph.through(frame.image)
        elif graph is not None:
            images = graph.rest()
        for image in images:
            yield waiting[0], field, image
            if field == 1:
                waiting.popleft()
            field = 1 - field


class _Graph:
    """A graph with one of ffmpeg's filters."""

    def __init__(self, image: Any, name: str, options: str) -> None:
        self._graph = av.filter.Graph()
        self._graph.threads = 1
        source = self._graph.add_buffer(
            width=image.width,
            height=image.height,
            format=image.format,
            time_base=Fraction(1, 1000),
        )
        self._graph.link_nodes(
            source, self._graph.add(name, options), self._graph.add("buffersink")
        ).configure()
        self._count = 0

    def through(self, image: Any) -> Iterator[Any]:
        """Push an image into the filter and yield the images that come out."""
        # bwdif needs rising times; the caller sets the times of the frames later.
        image.pts, image.time_base = self._count, Fraction(1, 1000)
        self._count += 1
        self._graph.push(image)
        yield from self._ready()

    def rest(self) -> Iterator[Any]:
        """Signal the end of the input and yield the images that are left in the filter."""
        self._graph.push(None)
        yield from self._ready()

    def _ready(self) -> Iterator[Any]:
        """Yield the images that the filter has finished."""
        while True:
            try:
                yield self._graph.pull()
            except (av.error.EOFError, BlockingIOError):
                return
