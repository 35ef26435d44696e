"""Decodes a video stream into frames, and repairs what damaged files break."""

from __future__ import annotations

import logging
import math
import re
from collections import Counter, deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
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
from vidrestore.imaging.frame import Frame, PictureChange, TimeShift, VideoInfo
from vidrestore.imaging.planes import planar_format, to_planar, with_codes_of_halves
from vidrestore.media.appended import MOV
from vidrestore.media.discontinuities import has_no_times, may_need_repair, read_time_line
from vidrestore.media.fitting import (
    PictureFitter,
    PictureShape,
    StatedColors,
    StatedSideData,
    aspect_text,
    shape_of,
    shape_of_picture,
    shape_text,
)
from vidrestore.media.packets import read_packets
from vidrestore.media.source import is_headerless, main_video_stream, open_source, path_of
from vidrestore.media.timeline import NOTHING_TO_REPAIR, TimeLine, begin_pts, with_shifts

_log = logging.getLogger("vidrestore")

# In these formats, seeking may not lead to a key frame.
_WITHOUT_INDEX = ("mpegts", "mpeg", "mpegvideo", "h264", "hevc", "m4v")
_FRAMES_TO_PROBE = 100
# Decoders that hold a frame back -> what a header states before a key frame: of MPEG-1 and MPEG-2
# width, height and aspect ratio; of MPEG-4 all of the video object layer.
_SEQUENCE = re.compile(rb"\0\0\x01\xb3(....)", re.DOTALL)
_HOLDING_BACK = {
    "mpeg1video": _SEQUENCE,
    "mpeg2video": _SEQUENCE,
    "mpeg4": re.compile(rb"\0\0\x01[\x20-\x2f](.*?)\0\0\x01", re.DOTALL),
}
_ASPECT_BITS = 0xF0  # of the last byte of MPEG-1 and MPEG-2; the rest is the frame rate
_HEADER_BYTES = 128
_MOST_THREADS = 16  # the limit of ffmpeg's automatic thread count
_LONGEST_SECONDS = 24 * 3600
_GAP_SECONDS = 1  # between packets of one part of a stream without presentation times
_LONGEST_TICKS = 2**31 - 1  # mp4 cannot hold a frame that lasts longer
# A frame with a duration of one tick lasts longer where the step before it has more ticks.
_UNSTATED_STEP_TICKS = 2
# One in so many frames may have a false presentation time before its decoding time is preferred.
_MANY_FALLS = 16
# Where the usual size of a video is looked for, as shares of its duration; or in so many pictures.
_PLACES = (Fraction(1, 4), Fraction(1, 2), Fraction(3, 4))
_FIRST_PICTURES = 240

_Timed = Iterator[tuple[int, av.VideoFrame]]


@dataclass(slots=True)
class DecodeErrors:
    """The errors that a decoder met; `decode` counts them while the frames are read."""

    corrupt_frames: int = 0
    """The number of yielded frames that are damaged."""
    decode_errors: int = 0
    """The number of packets that could not be read or decoded, and of frames dropped for their
    shape.
    """
    is_cut: bool = False
    """Whether the file ends within a packet of the stream. Several threads may drop that packet and
    the frames just before it without an error.
    """
    repaired_times: int = 0
    """The number of frames whose time was missing or wrong and was replaced."""
    shifts: int = 0
    """The number of places from which on the times of the file are shifted."""
    changes: list[PictureChange] = field(default_factory=list)
    """The changes of the picture, which are no errors. The times of those of the aspect ratio are
    exact where one thread decodes.
    """
    fitted_frames: int = 0
    """The number of yielded frames that were scaled or converted into the shape of the others."""
    reduced_frames: int = 0
    """The number of those that had more pixels."""
    by_seeking: bool = False
    """Whether the frames were reached by seeking rather than from the beginning of the file."""

    @property
    def found(self) -> bool:
        """Whether any error was counted."""
        damaged = self.corrupt_frames or self.decode_errors or self.is_cut
        return bool(damaged or self.repaired_times or self.shifts)


@dataclass(frozen=True, slots=True)
class TimeRange:
    """A part of a video, in seconds from its first frame; None leaves that end open."""

    start_seconds: Fraction | None = None
    """The start in seconds, included; None: the first frame."""
    end_seconds: Fraction | None = None
    """The end in seconds, excluded; None: the end of the video."""

    def __post_init__(self) -> None:
        start, end = self.start_seconds or Fraction(0), self.end_seconds
        # The comparisons also reject NaN.
        if not 0 <= start < math.inf or not (end is None or start < end < math.inf):
            raise UsageError(
                f"the part from {float(start):g} s to {float(end or 0):g} s is empty; "
                "the end must lie after the start"
            )

    def pts_range(self, stream: Any, shifts: Sequence[TimeShift] = ()) -> tuple[int, int | None]:
        """Convert the range to times of a stream.

        Args:
            stream: A PyAV stream.
            shifts: The shifts of its times; default: none.

        Returns:
            [first, end) in the time_base of the stream; None for an open end.
        """
        begin = begin_pts(stream, shifts)
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
    shifts: Sequence[TimeShift] | None = None,
    like: VideoInfo | None = None,
    one_thread: bool = False,
    may_seek: bool = False,
    device: str | None = None,
    keep_packets: bool = False,
) -> Iterator[Frame]:
    """Decode the frames of a video stream in order of presentation.

    Decoding with several threads is not repeatable where the file is damaged, and loses the last
    frames of a file that ends within a packet. Times come from the
    stream, where the format has no presentation times, from its decoding times; one that is missing
    or does not fit between its neighbors is replaced. Where `shifts` are needed, decoding begins at
    the beginning of the file. Undamaged frames of another size or pixel format are fitted into the
    shape of the others (`media.fitting`).

    Args:
        path: The file.
        damage: Counts what cannot be decoded and is dropped, damaged frames of another size or
            pixel format, which are dropped as well, and replaced times. It collects the changes of
            the picture.
        span: The part to decode; None: all.
        stream_index: The index of the stream; None: the main video stream.
        shifts: The shifts of its times, as `VideoInfo` has them; None: they are found by reading
            the times in the whole file, if its format needs that.
        like: The properties of the stream, whose shape the frames get; None: the shape is that of
            the first frame or, if that is damaged, of the first undamaged one of the file.
        one_thread: Decode with one thread, which gives the same frames every time, and from the
            beginning of the file unless `may_seek`.
        may_seek: Whether decoding with one thread may seek to the start of `span`.
        device: A device that `decoding_device` returned; None: the processor.
        keep_packets: Whether undamaged frames keep the key packets that they were decoded from
            (`Frame.packet`); only for codecs whose key packets stand alone. Default: no.

    Yields:
        The frames, numbered from 0.

    Raises:
        InputError: The file cannot be read.
    """
    may_seek = may_seek or not one_thread
    at = _opened_at(
        path, span, damage, stream_index, shifts, one_thread, may_seek, device, keep_packets
    )
    with at as (stream, known, images):
        timed = _timed(images, damage, stream, known)
        chosen = _within(span, stream, known, timed)
        alike = _alike(chosen, damage, stream, _shape_for(like), path)
        for index, (pts, image) in enumerate(alike):
            damage.corrupt_frames += bool(image.is_corrupt)
            yield _frame(index, pts, image)


def decode_from(
    path: Path,
    pts: int,
    *,
    stream_index: int,
    like: VideoInfo | None = None,
    device: str | None = None,
    keep_packets: bool = False,
) -> Iterator[Frame]:
    """Decode frames from about a given time on.

    The position depends on the seek: the first frame may lie before or after `pts`. Only the times
    of the frames are reliable.

    Args:
        path: The file.
        pts: The time in the time_base of the stream.
        stream_index: The index of the stream.
        like: The properties of the stream, into whose shape undamaged frames are fitted; None:
            frames keep their shapes.
        device: A device that `decoding_device` returned; None: the processor.
        keep_packets: Whether frames keep their packets, as in `decode`. Default: no.

    Yields:
        The frames, numbered from 0.

    Raises:
        InputError: The file cannot be read.
    """
    with open_source(path, device) as container:
        stream = _chosen_stream(container, stream_index)
        yield from _frames_from(container, stream, pts, like=like, keep_packets=keep_packets)


def _frames_from(
    container: Any,
    stream: Any,
    pts: int,
    byte: int | None = None,
    *,
    like: VideoInfo | None = None,
    keep_packets: bool = False,
) -> Iterator[Frame]:
    """Seek to about a time, or to a byte of the file, and decode from there."""
    with logged(av.error.FFmpegError, what=f"decoding {path_of(container)} from {pts} on"):
        if byte is None:
            container.seek(pts, stream=stream)
        else:
            container.seek(byte, unsupported_byte_offset=True)
        damage = DecodeErrors()
        images = _decoded(container, stream, damage, False, keep_packets=keep_packets)
        timed = _timed(images, damage, stream)
        shape = _shape_for(like)
        fitted = timed if shape is None else _fitted(timed, damage, stream, shape)
        for index, (time, image) in enumerate(fitted):
            yield _frame(index, time, image)


class OpenVideo:
    """The main video stream of a file that stays open: its first frame, then samples of it."""

    def __init__(
        self,
        path: Path,
        container: Any,
        *,
        one_thread: bool = False,
        time_line: TimeLine | None = None,
    ) -> None:
        """Prepare to decode the main video stream.

        Args:
            path: The file.
            container: The file as a PyAV container, which the caller closes.
            one_thread: Whether one thread decodes; default: several, whose result is not repeatable
                where the file is damaged.
            time_line: The repair of the times of the file, if the caller knows it; default: it is
                found by reading the times in the whole file, if its format needs that.

        Raises:
            InputError: The file has no video stream, or none that can be decoded.
        """
        self.path, self.container, self.one_thread = path, container, one_thread
        self.stream = main_video_stream(container)
        self.damage = DecodeErrors()
        """What the decoder met where the file is read from its beginning."""
        if time_line is None:
            time_line = read_time_line(path) if may_need_repair(container) else NOTHING_TO_REPAIR
        self.time_line = time_line
        """The repair of the times of the file."""
        self.like: VideoInfo | None = None
        """The properties of the stream, whose shape all frames get; None: see `decode`."""
        self._shifts = self.time_line.shifts.get(self.stream.index, ())
        self._images = _decoded(container, self.stream, self.damage, one_thread, self._shifts)
        self._read: list[av.VideoFrame] = []

    def first(self) -> av.VideoFrame | None:
        """Return the first undamaged frame, else the first frame; None if there is no frame."""
        return _first_whole(self._noted())

    def frames(self, span: TimeRange | None) -> Iterator[Frame]:
        """Decode the frames of the file, or of a part of it, in order of presentation.

        Can be read once.

        Args:
            span: The part; None: all.

        Yields:
            The frames, numbered from 0.

        Raises:
            InputError: The file cannot be read.
        """
        images, damage = chain(self._read, self._images), self.damage
        if span is not None and span.start_seconds:
            sought_images = None
            if not self._shifts:
                sought_images = _sought(self.container, self.stream, span, damage, False)
            if sought_images is None:
                yield from decode(
                    self.path,
                    damage,
                    span,
                    stream_index=self.stream.index,
                    shifts=self._shifts,
                    like=self.like,
                )
                return
            images = chain(sought_images)
        timed = _timed(images, damage, self.stream, self._shifts)
        within = _within(span, self.stream, self._shifts, timed)
        alike = _alike(within, damage, self.stream, _shape_for(self.like), self.path)
        for index, (pts, image) in enumerate(alike):
            yield _frame(index, pts, image)

    def frames_from(self, pts: int) -> Iterator[Frame]:
        """Decode frames from about a given time on, as `decode_from` does.

        Where times are shifted, the frames are those of the part of the file that has about this
        time if all seconds have the same number of bytes, and have the times of the file. In mp4,
        where libavformat cannot seek to a byte, they are those of any part.

        Args:
            pts: The time in the time_base of the stream.

        Returns:
            The frames, numbered from 0.
        """
        if not self._shifts:
            return _frames_from(self.container, self.stream, pts, like=self.like)
        if self.container.format.name == MOV:
            begins = (shift.ticks for shift in self._shifts if shift.ticks <= pts)
            pts -= max(begins, default=0)
            return _frames_from(self.container, self.stream, pts, like=self.like)
        lasts = Fraction(self.time_line.durations_seconds[self.stream.index])
        seconds = (pts - begin_pts(self.stream, self._shifts)) * Fraction(self.stream.time_base)
        share = min(max(seconds / lasts, Fraction(0)), Fraction(1)) if lasts else Fraction(0)
        byte = int(share * self.container.size)
        return _frames_from(self.container, self.stream, pts, byte, like=self.like)

    def usual_picture(self, info: VideoInfo) -> tuple[av.VideoFrame, Fraction | None] | None:
        """Look for the size that most of the video has, where that is larger than the first one.

        Recordings of calls begin with few pixels. The pictures at three places of the video, or
        where its duration is not known the first ones, decide. `frames` cannot be read afterwards.

        Args:
            info: The properties of the stream, with the shape of its first frame.

        Returns:
            A picture of the usual size, and the aspect ratio of its pixels that the coded stream
            states, if it does; None where most pictures have the first size, or a smaller one.
        """
        seen = [each for each in self._glances(info) if not each[0].is_corrupt]
        count = Counter(shape_text(image) for image, _ in seen)
        most, number = next(iter(count.most_common(1)), ("", 0))
        if 2 * number <= len(seen):
            return None
        picture = next(each for each in seen if shape_text(each[0]) == most)
        is_larger = picture[0].width * picture[0].height > info.width * info.height
        return picture if is_larger else None

    def _glances(self, info: VideoInfo) -> Iterator[tuple[av.VideoFrame, Fraction | None]]:
        """Yield pictures from several places, each with the stated aspect ratio of its pixels."""
        context = self.stream.codec_context
        lasts = Fraction(info.duration_seconds_from_header).limit_denominator(1000)
        if not lasts:
            for image in islice(self._images, _FIRST_PICTURES):
                yield image, context.sample_aspect_ratio
            return
        begin, self.like = int(self.stream.start_time or 0), None
        for place in _PLACES:
            at = begin + round(lasts * place / info.time_base)
            for frame in islice(self.frames_from(at), 1):
                yield frame.image, context.sample_aspect_ratio

    def _noted(self) -> Iterator[av.VideoFrame]:
        """Yield the pictures, and keep them so that `frames` can yield them again."""
        for image in self._images:
            self._read.append(image)
            yield image


@contextmanager
def open_video(
    path: Path,
    *,
    one_thread: bool = False,
    short_frames: int = 0,
    time_line: TimeLine | None = None,
) -> Iterator[OpenVideo]:
    """Open a file for its first frame and for samples of it.

    Args:
        path: The file.
        one_thread: See `OpenVideo`.
        short_frames: One thread also decodes a file whose header states at most this number of
            frames. Default: 0.
        time_line: See `OpenVideo`.

    Yields:
        The main video stream.

    Raises:
        InputError: The file cannot be read as video.
    """
    with open_source(path) as container:
        stream = main_video_stream(container)
        is_short = 0 < _stated_frames(container, stream) <= short_frames
        yield OpenVideo(path, container, one_thread=one_thread or is_short, time_line=time_line)


def _stated_frames(container: Any, stream: Any) -> int:
    """Estimate the number of frames from the header; 0 where it states nothing."""
    if stream.frames:
        return int(stream.frames)
    seconds = Fraction(container.duration or 0, av.time_base)
    return math.ceil(seconds * Fraction(stream.guessed_rate or stream.average_rate or 0))


def decoding_device(path: Path, stream_index: int) -> str | None:
    """Find a hardware device that decodes the first frame exactly as the processor does.

    Args:
        path: The file.
        stream_index: The index of the stream.

    Returns:
        The kind of the first such device, such as cuda; None where there is none.
    """
    expected = next(
        decode(path, DecodeErrors(), stream_index=stream_index, shifts=(), one_thread=True)
    )
    for device in hwdevices_available():
        # Drivers, and machines without one, report failures by various exceptions.
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
    """Whether a picture equals a frame, in shape and in every byte of its planes."""
    pairs = zip(image.planes, other.image.planes, strict=False)
    return shape_text(image) == shape_text(other.image) and all(
        bytes(a) == bytes(b) for a, b in pairs
    )


def _timed(
    images: Iterator[av.VideoFrame],
    damage: DecodeErrors,
    stream: Any,
    shifts: Sequence[TimeShift] = (),
) -> _Timed:
    """Yield each frame with a time later than the previous one: its own, where that fits."""
    longest = min(_LONGEST_TICKS, int(_LONGEST_SECONDS / Fraction(stream.time_base)))
    last, step, lasted = None, 1, 0
    for image, *following in _with_next_two(images):
        pts = image.pts
        then, later = (None if near is None else near.pts for near in following)
        if last is None:
            step = max(_duration(image), 1)
        if pts is not None and _fits(pts, last, then, later, longest):
            step = step if last is None else pts - last
        else:
            damage.repaired_times += 1
            if last is pts is then is later is None:
                pts = begin_pts(stream, shifts)  # a stream without times begins with the file
            else:
                pts = _repaired(last, then, lasted or step if then is None else step, longest)
        last, lasted = pts, _duration(image)
        yield pts, image


def _with_next_two(images: Iterator[av.VideoFrame]) -> Iterator[tuple[Any, Any, Any]]:
    """Yield each frame and the two after it, None where there is none."""
    image, then = next(images, None), next(images, None)
    while image is not None:
        later = next(images, None)
        yield image, then, later
        image, then = then, later


def _fits(pts: int, last: int | None, then: int | None, later: int | None, longest: int) -> bool:
    """Whether a time follows `last` and agrees with the times of the next two frames."""
    if last is not None and not last < pts <= last + longest:
        return False
    contradicted = then is not None and then < pts and (later is None or then < later < pts)
    return not contradicted or (last is not None and then is not None and then <= last)


def _repaired(last: int | None, then: int | None, step: int, longest: int) -> int:
    """Return a time between those of the neighbors, if these are plausible."""
    if last is None:
        return 0 if then is None else then - step
    if then is None or not last + 1 < then <= last + longest:
        return last + step
    return last + min(step, (then - last) // 2)


def _duration(image: av.VideoFrame) -> int:
    """Return the duration of a picture in ticks; 0 where it is missing or not plausible."""
    duration = int(image.duration or 0)
    return duration if 0 < duration <= _LONGEST_TICKS else 0


def _frame(index: int, pts: int, image: Any) -> Frame:
    """Make the frame of a picture, with its packet where the decoder kept that."""
    packet, damaged = image.opaque, bool(image.is_corrupt)
    image.opaque = None  # the frame alone decides how long the packet stays in memory
    return Frame(index, pts, image, _duration(image), packet=None if damaged else packet)


def _within(
    span: TimeRange | None, stream: Any, shifts: Sequence[TimeShift], timed: _Timed
) -> _Timed:
    """Yield the frames of a range."""
    first, end = (span or TimeRange()).pts_range(stream, shifts)
    for pts, image in timed:
        if end is not None and pts >= end:
            return
        if span is None or pts >= first:
            yield pts, image


def _shape_for(like: VideoInfo | None) -> PictureShape | None:
    """Return the shape that frames get; None: that of the first one."""
    return None if like is None else shape_of(like)


def _alike(
    timed: _Timed, damage: DecodeErrors, stream: Any, shape: PictureShape | None, path: Path
) -> _Timed:
    """Fit frames into one shape, and drop damaged frames of another one."""
    first = next(timed, None)
    if first is None:
        return
    if shape is None:
        whole = _whole(path, stream.index) if first[1].is_corrupt else first[1]
        aspect = Fraction(stream.sample_aspect_ratio or 1)
        shape = shape_of_picture(whole or first[1], aspect if aspect > 0 else Fraction(1))
    for pts, image in _fitted(chain([first], timed), damage, stream, shape):
        if shape_text(image) == shape.text:
            yield pts, image
        else:
            damage.decode_errors += 1


def _fitted(timed: _Timed, damage: DecodeErrors, stream: Any, shape: PictureShape) -> _Timed:
    """Fit undamaged frames into a shape, and note where the picture changes."""
    fitter, colors, was = PictureFitter(shape), StatedColors(), shape.text
    stated = StatedSideData(stream.codec_context.codec.canonical_name)
    for pts, image in timed:
        if image.is_corrupt:
            yield pts, image
            continue
        if (now := shape_text(image)) != was:
            damage.changes.append(PictureChange(pts, "shape", now))
            was = now
        is_fitted = now != shape.text
        if (change := colors.changed(image, is_fitted=is_fitted)) is not None:
            damage.changes.append(PictureChange(pts, "colors", change))
        if (change := stated.changed(image)) is not None:
            damage.changes.append(PictureChange(pts, "side data", change))
        if is_fitted:
            damage.fitted_frames += 1
            damage.reduced_frames += image.width * image.height > shape.width * shape.height
            states_aspect = stream.codec_context.sample_aspect_ratio is not None
            image = fitter(image, states_aspect=states_aspect)
            image.opaque = None  # the packet is of another picture
        yield pts, image


def _whole(path: Path, stream_index: int) -> av.VideoFrame | None:
    """Return the first undamaged frame of a file; None where no frame can be decoded."""
    with open_source(path) as container:
        stream = _chosen_stream(container, stream_index)
        return _first_whole(_decoded(container, stream, DecodeErrors(), True))


def _first_whole(images: Iterator[av.VideoFrame]) -> av.VideoFrame | None:
    """Return the first undamaged frame, or the first frame if the beginning has no such frame."""
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
    shifts: Sequence[TimeShift] | None,
    one_thread: bool,
    may_seek: bool,
    device: str | None,
    keep_packets: bool,
) -> Iterator[tuple[Any, Sequence[TimeShift], Iterator[av.VideoFrame]]]:
    """Open a file for its frames from the start of `span` or before it.

    Yields:
        The video stream, the shifts of its times, and the frames.
    """
    if shifts is None:
        shifts = _shifts_of(path, stream_index, device)
    if may_seek and span is not None and span.start_seconds and not shifts:
        with open_source(path, device) as container:
            stream = _chosen_stream(container, stream_index)
            images = _sought(container, stream, span, damage, one_thread, keep_packets)
            if images is not None:
                damage.by_seeking = True
                yield stream, (), images
                return
    with open_source(path, device) as container:
        stream = _chosen_stream(container, stream_index)
        images = _decoded(container, stream, damage, one_thread, shifts, keep_packets=keep_packets)
        yield stream, shifts, images


def _shifts_of(path: Path, stream_index: int | None, device: str | None) -> Sequence[TimeShift]:
    """Find the shifts of the times of a stream, by reading the file if its format needs that."""
    with open_source(path, device) as container:
        index = _chosen_stream(container, stream_index).index
        return read_time_line(path).shifts.get(index, ()) if may_need_repair(container) else ()


def _sought(
    container: Any,
    stream: Any,
    span: TimeRange,
    damage: DecodeErrors,
    one_thread: bool,
    keep_packets: bool = False,
) -> Iterator[av.VideoFrame] | None:
    """Seek to the start of `span`; return None if no frame at or before it can be reached."""
    if container.format.name in _WITHOUT_INDEX:
        return None
    first, _ = span.pts_range(stream)
    met = damage.decode_errors
    aspect = stream.codec_context.sample_aspect_ratio  # of the beginning of the file
    with logged(av.error.FFmpegError, what=f"seeking to {first}"):
        container.seek(first, stream=stream)
        images = _decoded(
            container, stream, damage, one_thread, aspect=aspect, keep_packets=keep_packets
        )
        head = next(images, None)
        if head is not None and head.pts is not None and head.pts <= first:
            return chain([head], images)
    damage.decode_errors = met
    return None


def _chosen_stream(container: Any, stream_index: int | None) -> Any:
    """Return the stream with that index, or the main video stream for None."""
    if stream_index is None:
        return main_video_stream(container)
    return container.streams[stream_index]


def _decoded(
    container: Any,
    stream: Any,
    damage: DecodeErrors,
    one_thread: bool,
    shifts: Sequence[TimeShift] = (),
    aspect: Fraction | None = None,
    keep_packets: bool = False,
) -> Iterator[av.VideoFrame]:
    """Decode packet by packet, so that one bad packet does not end the stream.

    `aspect` is the aspect ratio of pixels that the coded stream states before its first packet
    here; None: it is not known. With `keep_packets`, a frame has its packet as its `opaque`.
    """
    context = stream.codec_context
    threads = 1 if one_thread else min(usable_cores() + 1, _MOST_THREADS)
    if not context.is_open:
        stream.thread_type = "NONE" if one_thread else "AUTO"
        if not one_thread:
            context.thread_count = threads
    copied = _Copier(stream.time_base)
    is_picture = container.format.name == "image2"
    damage.shifts = max(damage.shifts, len(shifts))
    timed = _FrameTimes(
        {shift.packet for shift in shifts},
        gap=int(_GAP_SECONDS / stream.time_base) if is_headerless(container) else None,
        known=not has_no_times(container),
    )
    aspects = _StatedAspects(aspect, damage)
    kept = _KeptPackets(threads) if keep_packets else None
    packets = with_shifts(_packets(container, stream, damage), {stream.index: shifts})
    last_is_corrupt = False
    for packet in _with_ends(packets, context):
        is_at_end = packet is None or not packet.size
        if not is_at_end:
            last_is_corrupt = packet.is_corrupt
            timed.add(packet)
            if kept is not None:
                kept.add(packet)
        try:
            images = context.decode(packet)
        except av.error.FFmpegError as error:
            _log.info("the packet at %s cannot be decoded: %s", packet.pts, error)
            damage.decode_errors += 1
            continue
        if not is_at_end:
            aspects.look(context, packet)
        for image in images:
            own_packet = None if kept is None else kept.take(image)
            image.pts = timed(image, is_at_end=is_at_end)
            aspects.pass_on(image)
            own = copied(image) if one_thread else image
            own = _planar(with_codes_of_halves(own) if is_picture else own)
            if own_packet is not None:
                own.opaque = own_packet
            yield own
    damage.is_cut |= last_is_corrupt
    aspects.end()


def _with_ends(packets: Iterator[Any], context: Any) -> Iterator[Any]:
    """Let the decoder of MPEG-1, MPEG-2 and MPEG-4 give out all frames before the picture changes.

    Where a header states another size or aspect ratio, it would drop the frame that it holds back.

    Args:
        packets: The packets of the stream.
        context: The decoder.

    Yields:
        The packets, and None before such a change.
    """
    header = _HOLDING_BACK.get(context.name)
    if header is None:
        yield from packets
        return
    known = _stated_picture(header, context.extradata or b"")
    for packet in packets:
        if packet is not None and packet.is_keyframe and packet.size:
            picture = _stated_picture(header, memoryview(packet)[:_HEADER_BYTES])
            if None not in (known, picture) and known != picture:
                yield None
                context.flush_buffers()
            known = picture or known
        yield packet


def _stated_picture(header: re.Pattern[bytes], data: bytes | memoryview) -> bytes | None:
    """Return what a header states of the picture; None where there is no header."""
    stated = header.search(data)
    if stated is None:
        return None
    picture = stated[1]
    if header is _SEQUENCE:
        return picture[:-1] + bytes([picture[-1] & _ASPECT_BITS])
    return picture


def _planar(image: av.VideoFrame) -> av.VideoFrame:
    """Convert a frame to planar form; `probe` refuses formats that have none."""
    return image if planar_format(image.format.name) is None else to_planar(image)


def _packets(container: Any, stream: Any, damage: DecodeErrors) -> Iterator[Any]:
    """Yield all packets of the stream, also those after unreadable data, and None at the end."""
    for other in container.streams:
        if other.index != stream.index:  # damage in another stream must not end this one
            other.discard = Discard.all

    def count() -> None:
        damage.decode_errors += 1

    yield from read_packets(container, stream, on_failure=count)


class _KeptPackets:
    """Finds the packet of each frame, for codecs that give one frame for each packet, in order.

    A frame has the times of its packet. (`opaque` of PyAV 18 would name the packet, too, but its
    memory may be freed by a thread of the decoder, which then waits for Python while Python waits
    for this thread.)
    """

    def __init__(self, threads: int) -> None:
        # Each thread of a decoder holds one packet.
        self._waiting: deque[tuple[tuple[int | None, int | None], bytes | None]] = deque(
            maxlen=threads + 1
        )

    def add(self, packet: Any) -> None:
        """Note the next packet, before it is decoded."""
        is_alone = packet.is_keyframe and not packet.has_sidedata("new_extradata")
        data = bytes(packet) if is_alone and not packet.is_corrupt else None
        self._waiting.append(((packet.pts, packet.dts), data))

    def take(self, image: av.VideoFrame) -> bytes | None:
        """Return the packet of the next frame; None where it is not known or does not stand alone.

        Args:
            image: The frame, with the times that the decoder gave it.
        """
        times = image.pts, image.dts
        if times == (None, None) or sum(key == times for key, _ in self._waiting) != 1:
            return None
        while True:
            key, data = self._waiting.popleft()
            if key == times:
                return data


class _FrameTimes:
    """Chooses the time of each frame of a stream.

    A frame has the presentation time of its packet, where the file states one, and the decoding
    time of the packet that made the decoder give it out. These agree in files without faults. In
    formats without presentation times, and where the presentation times fall more often than the
    decoding times, the latter is right. Where the next packet belongs to another part, and after
    the last packet, a frame without a presentation time follows the one before it. (The rules are
    those of ffmpeg's program, in fftools/ffmpeg_dec.c.)
    """

    def __init__(self, begins: Collection[int], *, gap: int | None, known: bool) -> None:
        """Begin a stream.

        Args:
            begins: The numbers of the packets with which another part begins.
            gap: The distance of decoding times, in ticks, from which on another part begins; None:
                no gap begins one, as in AVI, which keeps gaps in the order of coding.
            known: Whether the format of the stream has times at all.
        """
        self._begins, self._gap, self._known = begins, gap, known
        self._packets = 0
        self._last_dts: int | None = None
        self._given = 0
        self._parts: deque[tuple[int, int]] = deque()
        self._last: dict[str, int | None] = {"pts": None, "dts": None}
        self._falls = {"pts": 0, "dts": 0}
        self._frames = 0
        self._due: int | None = None
        self._last_time: int | None = None
        # The decoding times of the packets before the first frame, and the number of packets and
        # of frames by which the decoder is behind.
        self._first: list[int] = []
        self._delay = self._held = 0

    def add(self, packet: Any) -> None:
        """Note the next packet, before it is decoded."""
        dts = packet.dts
        if dts is not None:
            last, gap = self._last_dts, self._gap
            is_gap = last is not None and gap is not None and dts - last > gap
            if is_gap or self._packets in self._begins:
                self._parts.append((dts, self._packets))
            self._last_dts = dts
            if not self._given:
                self._first.append(dts)
        self._packets += 1

    def __call__(self, image: av.VideoFrame, *, is_at_end: bool) -> int | None:
        """Return the time of the next frame; None where it has no time.

        Args:
            image: The frame.
            is_at_end: Whether the decoder gave it out after the last packet.
        """
        time = self._stated(image)
        if self._first and image.dts is not None:
            self._delay = sum(dts < image.dts for dts in self._first)
            self._first.clear()
        while time is not None and self._parts and time >= self._parts[0][0]:
            _, packets = self._parts.popleft()
            # The decoder holds back the last frames of the part before.
            self._held = min(self._delay, packets - self._given)
        self._given += 1
        is_held, self._held = self._held > 0, max(0, self._held - 1)
        if self._known and (time is None if is_at_end else is_held and image.pts is None):
            time = self._due
        self._due = None if time is None else time + self._lasts(image, time)
        self._last_time = time
        return time

    def _lasts(self, image: av.VideoFrame, time: int) -> int:
        """Return how long a frame probably lasts, in ticks, as ffmpeg estimates it.

        Formats such as AVI state gaps only by leaving out packets, and libavformat gives each frame
        a duration of one tick. After a gap, the next frame is due after a gap of the same length.
        """
        duration, last = _duration(image), self._last_time
        step = 0 if last is None else time - last
        return step if duration == 1 and step > _UNSTATED_STEP_TICKS else duration

    def _stated(self, image: av.VideoFrame) -> int | None:
        """Return the time of a frame according to the file."""
        if not self._known:
            return None
        self._frames += 1
        times = {"pts": image.pts, "dts": image.dts}
        for kind, time in times.items():
            last = self._last[kind]
            if time is not None:
                self._falls[kind] += last is not None and time <= last
                self._last[kind] = time
        pts, dts = times.values()
        is_false = self._falls["pts"] > max(self._falls["dts"], self._frames // _MANY_FALLS)
        return dts if pts is None or (is_false and dts is not None) else pts


class _StatedAspects:
    """Notes where the coded stream states another aspect ratio of pixels.

    A decoder tells of it before it gives out the frames before. The frame is the next key frame
    that is not earlier than the packet.
    """

    def __init__(self, known: Fraction | None, damage: DecodeErrors) -> None:
        self._known, self._damage = known, damage
        self._due: tuple[int, Fraction] | None = None

    def look(self, context: Any, packet: Any) -> None:
        """Compare what the decoder states after it received a packet."""
        stated = context.sample_aspect_ratio
        if packet is None or stated is None or stated == self._known:
            return
        if self._known is not None:
            self.end()
            time = next((t for t in (packet.pts, packet.dts) if t is not None), 0)
            self._due = time, stated
        self._known = stated

    def pass_on(self, image: av.VideoFrame) -> None:
        """Look at the next frame that the decoder gives out."""
        if self._due is not None and image.key_frame and image.pts is not None:
            earliest, stated = self._due
            if image.pts >= earliest:
                self._due = image.pts, stated
                self.end()

    def end(self) -> None:
        """Note a change whose frame did not come as such."""
        if self._due is not None:
            time, stated = self._due
            self._damage.changes.append(PictureChange(time, "pixel aspect", aspect_text(stated)))
        self._due = None


class _Copier:
    """Copies every picture to memory of its own.

    A damaged frame leaves a part of its memory unwritten, which then shows an earlier picture. If
    the decoder got its memory back whenever the caller releases a frame, that part would depend on
    timing.
    """

    def __init__(self, time_base: Fraction) -> None:
        self._time_base = time_base
        self._graph: Any = None
        self._shape = ""

    def __call__(self, image: av.VideoFrame) -> av.VideoFrame:
        """Return a copy of a picture."""
        if shape_text(image) != self._shape:
            self._graph, self._shape = self._new_graph(image), shape_text(image)
        self._graph.push(image)
        copy: av.VideoFrame = self._graph.pull()
        return copy

    def _new_graph(self, image: av.VideoFrame) -> Any:
        """Make a filter graph that copies pictures of one shape."""
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
