"""Interlaced frames become one picture for each field, and are woven again from these.

A field's picture keeps the lines of the field, sample by sample, and has the others interpolated
(bwdif, with the fields before and after). So frames woven from pictures that nobody changed are the
frames that were there; each plane by itself, which is what 4:2:0 with fields asks for.
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

from vidrestore.imaging.frame import Frame
from vidrestore.imaging.planes import layout, luma_8bit, plane

# How much more a frame's lines must differ than those of its fields, and less: idet's own measures.
_IDET = "intl_thres=1.04:prog_thres=1.5"
# The first line of the later field, from 0.
_LATER_ROWS = {"tff": 1, "bff": 0}
_COLUMNS = 4


@dataclass(frozen=True, slots=True)
class FieldScan:
    """How many frames look how; one more is the first of each stretch, which nothing is said of."""

    progressive: int = 0
    tff: int = 0
    bff: int = 0
    undecided: int = 0
    """Too little moves."""
    repeated: int = 0
    """Of all, those of which a field repeats that of the frame before."""
    flagged: int = 0
    """Of all, those that the stream calls interlaced."""

    def __add__(self, other: FieldScan) -> FieldScan:
        return FieldScan(*(getattr(self, n) + getattr(other, n) for n in self.__dataclass_fields__))

    @property
    def frames(self) -> int:
        return self.progressive + self.tff + self.bff + self.undecided


def scan(images: Iterable[Any]) -> FieldScan:
    """Look at successive frames with ffmpeg's idet.

    It is shown luma alone: where 4:4:4 was made of 4:2:0, every other line of chroma is like that
    before it, as in no field.
    """
    looks: Counter[str] = Counter()
    repeated = flagged = 0
    graph = None
    # What the stream says of those that the filter still holds; it writes its own flag over that.
    said = deque[bool]()
    for image in images:
        said.append(bool(image.interlaced_frame))
        grey = _grey(image)
        graph = graph or _Graph(grey, "idet", _IDET)
        for seen in graph.through(grey):
            found = seen.metadata
            looks[found.get("lavfi.idet.multiple.current_frame", "undetermined")] += 1
            repeated += found.get("lavfi.idet.repeated.current_frame") in ("top", "bottom")
            flagged += said.popleft()
    return FieldScan(
        looks["progressive"], looks["tff"], looks["bff"], looks["undetermined"], repeated, flagged
    )


def _grey(image: Any) -> Any:
    """Its luma. Of R'G'B' the mean of four columns: what rounding left in it of chroma and of the
    matrix is as much as moves in quiet footage."""
    luma = luma_8bit(image)
    if layout(image).is_rgb and image.width >= _COLUMNS:
        columns = luma[:, : image.width // _COLUMNS * _COLUMNS].reshape(len(luma), -1, _COLUMNS)
        luma = np.rint(columns.mean(axis=2)).astype(np.uint8)
    height, width = luma.shape
    grey = av.VideoFrame(width, height, "gray")
    plane(grey, 0)[...] = luma
    return grey


def can_split(pixel_format: str) -> bool:
    """Whether the filter takes the format itself, and not one like it."""
    graph = _Graph(av.VideoFrame(64, 48, pixel_format), "bwdif", "mode=send_field")
    for _ in range(2):
        for field in graph.through(av.VideoFrame(64, 48, pixel_format)):
            return bool(field.format.name == pixel_format)
    return False


def pictures(frames: Iterator[Frame], mode: str, order: str) -> Iterator[Frame]:
    """Those in which faces are found and restored; see `vidrestore.analysis.result.Fields`."""
    return first_fields(frames, order) if mode == "frame" else bobbed(frames, order)


def bobbed(frames: Iterator[Frame], order: str) -> Iterator[Frame]:
    """Two frames for each: the earlier field and the later one, every line of them.

    `order` is tff or bff. Frame i becomes 2 i and 2 i + 1, times count half ticks of the clock, and
    the later field comes halfway to the next frame. The first and the last frame given are
    interpolated without a neighbour on one side.
    """
    for i, field, image in _split(frames, order):
        half = i.until - i.frame.pts
        yield replace(
            i.frame,
            index=2 * i.frame.index + field,
            pts=2 * i.frame.pts + field * half,
            duration=half,
            image=image,
        )


def first_fields(frames: Iterator[Frame], order: str) -> Iterator[Frame]:
    """Of each frame the picture of its earlier field, at the frame's own time."""
    for i, field, image in _split(frames, order):
        if field == 0:
            yield replace(i.frame, image=image)


def woven(frames: Iterator[Frame], order: str, *, said: str) -> Iterator[Frame]:
    """The opposite of `bobbed`, of frames from an even one on. `said` is the field order that they
    state, true or not, or progressive."""
    mark = None
    second = _LATER_ROWS[order]
    for earlier in frames:
        if (later := next(frames, None)) is None:
            return  # who counts the frames will say it
        earlier.image.make_writable()
        for number in range(len(earlier.image.planes)):
            into = plane(earlier.image, number)
            into[second::2] = plane(later.image, number)[second::2]
        image = earlier.image
        if said != "progressive":
            mark = mark or _Graph(image, "setfield", said)
            (image,) = mark.through(image)
        yield replace(
            earlier, index=earlier.index // 2, pts=earlier.pts // 2, duration=0, image=image
        )


@dataclass(frozen=True, slots=True)
class _Timed:
    frame: Frame
    until: int
    """The time of the next frame."""


def _split(frames: Iterator[Frame], order: str) -> Iterator[tuple[_Timed, int, Any]]:
    """(frame, 0 or 1 for its earlier or later field, the field's picture)."""
    how = f"mode=send_field:parity={order}:deint=all"
    graph, waiting, field = None, deque[_Timed](), 0
    last: Frame | None = None
    for frame in chain(frames, (None,)):
        if last is not None:
            until = last.pts + (last.duration or 1) if frame is None else frame.pts
            waiting.append(_Timed(last, until))
        last = frame
        images: Iterator[Any] = iter(())
        if frame is not None:
            graph = graph or _Graph(frame.image, "bwdif", how)
            images = graph.through(frame.image)
        elif graph is not None:
            images = graph.rest()
        for image in images:
            yield waiting[0], field, image
            if field == 1:
                waiting.popleft()
            field = 1 - field


class _Graph:
    """One of ffmpeg's filters."""

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
        """What comes out once the image went in."""
        # bwdif wants times that grow; those of the frames are set later.
        image.pts, image.time_base = self._count, Fraction(1, 1000)
        self._count += 1
        self._graph.push(image)
        yield from self._ready()

    def rest(self) -> Iterator[Any]:
        self._graph.push(None)
        yield from self._ready()

    def _ready(self) -> Iterator[Any]:
        while True:
            try:
                yield self._graph.pull()
            except (av.error.EOFError, BlockingIOError):
                return
