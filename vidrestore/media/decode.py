"""A file becomes frames, and what must be known of its video stream."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from typing import Any

import av
import av.error
from av.codec.hwaccel import hwdevices_available
from av.stream import Discard

from vidrestore.common.errors import InputError, UsageError
from vidrestore.common.handled import logged
from vidrestore.common.system import usable_cores
from vidrestore.imaging.frame import Frame
from vidrestore.imaging.planes import planar_format, to_planar, with_codes_of_halves
from vidrestore.media.source import main_video_stream, open_source

_log = logging.getLogger("vidrestore")

# Seeking in these lands anywhere, not on a key frame.
_WITHOUT_INDEX = ("mpegts", "mpeg", "mpegvideo", "h264", "hevc", "m4v")
_READ_FAILURES = 100  # in a row: the container has no more to give
_FRAMES_TO_PROBE = 100
_MOST_THREADS = 16  # as ffmpeg has it, where it counts the cores
_LONGEST_SECONDS = 24 * 3600
_LONGEST_TICKS = 2**31 - 1  # mp4 cannot hold a frame that lasts longer
_MOST_STRAYS = 300  # in a row: the picture changed for good

_Timed = Iterator[tuple[int, av.VideoFrame]]


@dataclass(slots=True)
class DecodeErrors:
    """What a decoder met on its way; filled while the frames are read."""

    corrupt_frames: int = 0
    """Frames that were given, and are damaged."""
    decode_errors: int = 0
    """Packets that could not be read or decoded, and frames left out for their shape."""
    repaired_times: int = 0
    sought: bool = False
    """The frames were not reached from the beginning of the file."""

    @property
    def found(self) -> bool:
        return bool(self.corrupt_frames or self.decode_errors or self.repaired_times)


@dataclass(frozen=True, slots=True)
class TimeRange:
    """A part of the video, in seconds from its first frame; None leaves that end open."""

    start_seconds: Fraction | None = None
    end_seconds: Fraction | None = None

    def __post_init__(self) -> None:
        start, end = self.start_seconds or Fraction(0), self.end_seconds
        # Nor is a part what does not lie between numbers.
        if not 0 <= start < math.inf or not (end is None or start < end < math.inf):
            raise UsageError(
                f"the part from {float(start):g} s to {float(end or 0):g} s is empty; "
                "the end must lie after the start"
            )

    def pts_range(self, stream: Any) -> tuple[int, int | None]:
        """[first, end) in the stream's time_base."""
        begin = int(stream.start_time or 0)
        ticks = 1 / Fraction(stream.time_base)
        first = begin + math.ceil((self.start_seconds or 0) * ticks)
        end = self.end_seconds
        return first, None if end is None else begin + math.ceil(end * ticks)


def decode(
    path: Path,
    damage: DecodeErrors,
    span: TimeRange | None = None,
    *,
    stream_index: int | None = None,
    one_thread: bool = False,
    may_seek: bool = False,
    device: str | None = None,
) -> Iterator[Frame]:
    """All frames of the main (or the given) video stream, or those of `span`, in order of
    presentation.

    Several threads decode, which is not repeatable where the file is damaged. `one_thread` gives
    the same frames every time, and reads the file from its beginning unless `may_seek`. `device`
    is one that `decoding_device` found.

    What cannot be decoded is counted in `damage` and left out, as are stray frames of another size
    or pixel format. Times come from the stream; one that is missing or does not fit between its
    neighbours is replaced by one that does, and counted.
    InputError where the picture changes its size or pixel format for good.
    """
    may_seek = may_seek or not one_thread
    at = _opened_at(path, span, damage, stream_index, one_thread, may_seek, device)
    with at as (stream, images):
        chosen = _within(span, stream, _timed(images, damage, Fraction(stream.time_base)))
        for index, (pts, image) in enumerate(_alike(chosen, damage, path, stream_index)):
            damage.corrupt_frames += bool(image.is_corrupt)
            yield Frame(index, pts, image, _duration(image))


def decode_from(
    path: Path, pts: int, *, stream_index: int, device: str | None = None
) -> Iterator[Frame]:
    """Frames from that time on, or from somewhat before or after it, numbered from 0.

    Wherever a seek leads to; nothing is promised of the first frames but their times. `device`
    is one that `decoding_device` found.
    """
    with open_source(path, device) as container:
        yield from _frames_from(container, _chosen_stream(container, stream_index), pts)


def _frames_from(container: Any, stream: Any, pts: int) -> Iterator[Frame]:
    with logged(av.error.FFmpegError, what=f"decoding {container.name} from {pts} on"):
        container.seek(pts, stream=stream)
        damage = DecodeErrors()
        timed = _timed(
            _decoded(container, stream, damage, False), damage, Fraction(stream.time_base)
        )
        for index, (time, image) in enumerate(timed):
            yield Frame(index, time, image, _duration(image))


class OpenVideo:
    """The main video stream of a file that stays open: its first frame, then samples of it.

    Several threads decode, which is not repeatable where the file is damaged.
    """

    def __init__(self, path: Path, container: Any) -> None:
        self.path, self.container = path, container
        self.stream = main_video_stream(container)
        self.damage = DecodeErrors()
        """What the decoder met before the first frame."""
        self._images = _decoded(container, self.stream, self.damage, False)
        self._read: list[av.VideoFrame] = []

    def first(self) -> av.VideoFrame | None:
        """The first undamaged frame, or the first of all where the beginning has none."""
        return _first_whole(self._noted())

    def frames(self, span: TimeRange | None) -> Iterator[Frame]:
        """The frames of the file, or of a part of it, in order of presentation; may be read once.

        Args:
            span: The part; None: all.
        """
        images, damage = chain(self._read, self._images), DecodeErrors()
        if span is not None and span.start_seconds:
            sought = _sought(self.container, self.stream, span, damage, False)
            if sought is None:
                yield from decode(self.path, damage, span, stream_index=self.stream.index)
                return
            images = chain(sought)
        timed = _timed(images, damage, Fraction(self.stream.time_base))
        within = _within(span, self.stream, timed)
        alike = _alike(within, damage, self.path, self.stream.index)
        for index, (pts, image) in enumerate(alike):
            yield Frame(index, pts, image, _duration(image))

    def frames_from(self, pts: int) -> Iterator[Frame]:
        """Frames from that time on, or from somewhat before or after it: see `decode_from`."""
        return _frames_from(self.container, self.stream, pts)

    def _noted(self) -> Iterator[av.VideoFrame]:
        for image in self._images:
            self._read.append(image)
            yield image


@contextmanager
def open_video(path: Path) -> Iterator[OpenVideo]:
    """Open a file for its first frame and samples of it.

    Raises:
        InputError: The file cannot be read as video.
    """
    with open_source(path) as container:
        yield OpenVideo(path, container)


def decoding_device(path: Path, stream_index: int) -> str | None:
    """The first kind of device, such as cuda, that gives the stream's first picture as the
    processor does, or None."""
    expected = next(decode(path, DecodeErrors(), stream_index=stream_index, one_thread=True))
    for device in hwdevices_available():
        # What a driver, or a machine without one, answers with is not known beforehand.
        with (
            logged(InputError, OSError, RuntimeError, ValueError, what=f"decoding on {device}"),
            open_source(path, device) as container,
        ):
            stream = _chosen_stream(container, stream_index)
            image = next(_decoded(container, stream, DecodeErrors(), False), None)
            if stream.codec_context.is_hwaccel and image is not None and _same(image, expected):
                return device
    return None


def _same(image: av.VideoFrame, other: Frame) -> bool:
    pairs = zip(image.planes, other.image.planes, strict=False)
    return _shape(image) == _shape(other.image) and all(bytes(a) == bytes(b) for a, b in pairs)


def _timed(images: Iterator[av.VideoFrame], damage: DecodeErrors, time_base: Fraction) -> _Timed:
    """Each frame with a time later than the one before: its own, where that fits."""
    longest = min(_LONGEST_TICKS, int(_LONGEST_SECONDS / time_base))
    last, step = None, 1
    for image, *following in _with_next_two(images):
        pts = image.pts
        then, later = (None if near is None else near.pts for near in following)
        if last is None:
            step = max(_duration(image), 1)
        if pts is not None and _fits(pts, last, then, later, longest):
            step = step if last is None else pts - last
        else:
            damage.repaired_times += 1
            pts = _repaired(last, then, step, longest)
        last = pts
        yield pts, image


def _with_next_two(images: Iterator[av.VideoFrame]) -> Iterator[tuple[Any, Any, Any]]:
    """Each frame, the next and the one behind that, None where there is none."""
    image, then = next(images, None), next(images, None)
    while image is not None:
        later = next(images, None)
        yield image, then, later
        image, then = then, later


def _fits(pts: int, last: int | None, then: int | None, later: int | None, longest: int) -> bool:
    """Whether a time follows `last`, and those of the next two frames do not belie it."""
    if last is not None and not last < pts <= last + longest:
        return False
    belied = then is not None and then < pts and (later is None or then < later < pts)
    return not belied or (last is not None and then is not None and then <= last)


def _repaired(last: int | None, then: int | None, step: int, longest: int) -> int:
    """A time between those of the neighbours, as far as these make sense."""
    if last is None:
        return 0 if then is None else then - step
    if then is None or not last + 1 < then <= last + longest:
        return last + step
    return last + min(step, (then - last) // 2)


def _duration(image: av.VideoFrame) -> int:
    duration = int(image.duration or 0)
    return duration if 0 < duration <= _LONGEST_TICKS else 0


def _within(span: TimeRange | None, stream: Any, timed: _Timed) -> _Timed:
    first, end = (span or TimeRange()).pts_range(stream)
    for pts, image in timed:
        if end is not None and pts >= end:
            return
        if span is None or pts >= first:
            yield pts, image


def _alike(timed: _Timed, damage: DecodeErrors, path: Path, stream_index: int | None) -> _Timed:
    """Without stray frames of another shape, which damaged headers make.

    The shape is that of the first frame, or of the file's first undamaged one. Undamaged frames of
    another are a change for good if they are many in a row, or a good part of all up to the end.
    """
    shape, given, strays = None, 0, 0
    for pts, image in timed:
        if shape is None:
            shape = _whole_shape(path, stream_index) if image.is_corrupt else _shape(image)
        if _shape(image) == shape:
            given, strays = given + 1, 0
            yield pts, image
        else:
            damage.decode_errors += 1
            strays += not image.is_corrupt
            other = _shape(image)
            if strays > _MOST_STRAYS:
                break
    if strays > min(_MOST_STRAYS, given // 4):
        raise InputError(
            f"{path} changes from {shape} to {other} at frame {given}; "
            "cut it there and restore the parts"
        )


def _shape(image: av.VideoFrame) -> str:
    return f"{image.width} x {image.height} in {image.format.name}"


def _whole_shape(path: Path, stream_index: int | None) -> str:
    with open_source(path) as container:
        stream = _chosen_stream(container, stream_index)
        first = _first_whole(_decoded(container, stream, DecodeErrors(), True))
        return "" if first is None else _shape(first)


def _first_whole(images: Iterator[av.VideoFrame]) -> av.VideoFrame | None:
    """The first undamaged frame, or the first of all where the beginning has none."""
    first = None
    for image in islice(images, _FRAMES_TO_PROBE):
        if not image.is_corrupt:
            return image
        first = image if first is None else first
    return first


@contextmanager
def _opened_at(
    path: Path,
    span: TimeRange | None,
    damage: DecodeErrors,
    stream_index: int | None,
    one_thread: bool,
    may_seek: bool,
    device: str | None,
) -> Iterator[tuple[Any, Iterator[av.VideoFrame]]]:
    """The video stream and its frames from the start of `span` or somewhat before it."""
    if may_seek and span is not None and span.start_seconds:
        with open_source(path, device) as container:
            stream = _chosen_stream(container, stream_index)
            images = _sought(container, stream, span, damage, one_thread)
            if images is not None:
                damage.sought = True
                yield stream, images
                return
    with open_source(path, device) as container:
        stream = _chosen_stream(container, stream_index)
        yield stream, _decoded(container, stream, damage, one_thread)


def _sought(
    container: Any, stream: Any, span: TimeRange, damage: DecodeErrors, one_thread: bool
) -> Iterator[av.VideoFrame] | None:
    """None where a seek does not land at the start of `span` or before it."""
    if container.format.name in _WITHOUT_INDEX:
        return None
    first, _ = span.pts_range(stream)
    met = damage.decode_errors
    with logged(av.error.FFmpegError, what=f"seeking to {first}"):
        container.seek(first, stream=stream)
        images = _decoded(container, stream, damage, one_thread)
        head = next(images, None)
        if head is not None and head.pts is not None and head.pts <= first:
            return chain([head], images)
    damage.decode_errors = met
    return None


def _chosen_stream(container: Any, stream_index: int | None) -> Any:
    if stream_index is None:
        return main_video_stream(container)
    return container.streams[stream_index]


def _decoded(
    container: Any, stream: Any, damage: DecodeErrors, one_thread: bool
) -> Iterator[av.VideoFrame]:
    """Frames packet by packet, so that one bad packet does not end the stream."""
    context = stream.codec_context
    if not context.is_open:
        stream.thread_type = "NONE" if one_thread else "AUTO"
        if not one_thread:
            context.thread_count = min(usable_cores() + 1, _MOST_THREADS)
    copied = _Copier(stream.time_base)
    is_picture = container.format.name == "image2"
    for packet in _packets(container, stream, damage):
        try:
            images = context.decode(packet)
        except av.error.FFmpegError as error:
            _log.info("the packet at %s cannot be decoded: %s", packet.pts, error)
            damage.decode_errors += 1
            continue
        for image in images:
            own = copied(image) if one_thread else image
            yield _planar(with_codes_of_halves(own) if is_picture else own)


def _planar(image: av.VideoFrame) -> av.VideoFrame:
    """With a plane for each component; what has no such form is refused where it is probed."""
    return image if planar_format(image.format.name) is None else to_planar(image)


def _packets(container: Any, stream: Any, damage: DecodeErrors) -> Iterator[Any]:
    """All packets of the stream, also those behind what cannot be read, and an empty one."""
    for other in container.streams:
        if other.index != stream.index:  # what is damaged in them must not end this one
            other.discard = Discard.all
    failures = 0
    while failures < _READ_FAILURES:
        try:
            for packet in container.demux(stream):
                failures = 0
                yield packet
            return
        except av.error.FFmpegError as error:
            _log.info("the next packet cannot be read: %s", error)
            damage.decode_errors += failures == 0
            failures += 1
    yield None


class _Copier:
    """Gives every picture memory of its own.

    What a damaged frame leaves unwritten shows what lay in its memory before. Were that memory
    given back at the pace of whoever reads the frames, it would depend on the clock.
    """

    def __init__(self, time_base: Fraction) -> None:
        self._time_base = time_base
        self._graph: Any = None
        self._shape = ""

    def __call__(self, image: av.VideoFrame) -> av.VideoFrame:
        if _shape(image) != self._shape:
            self._graph, self._shape = self._made(image), _shape(image)
        self._graph.push(image)
        copy: av.VideoFrame = self._graph.pull()
        return copy

    def _made(self, image: av.VideoFrame) -> Any:
        graph = av.filter.Graph()
        graph.threads = 1
        source = graph.add_buffer(
            width=image.width,
            height=image.height,
            format=image.format,
            time_base=self._time_base,
        )
        graph.link_nodes(source, graph.add("copy"), graph.add("buffersink"))
        graph.configure()
        return graph
