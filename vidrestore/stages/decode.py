"""A file becomes frames, and what must be known of its video stream."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from av.stream import Disposition

from vidrestore import color
from vidrestore.errors import InputError, UsageError
from vidrestore.frame import Frame, VideoInfo

_DISPLAY_ONE = 65536  # the display matrix is in 16.16 fixed point
_NO_ROTATION = (1, 0, 0, 1)
# Seeking in these lands anywhere, not on a key frame.
_WITHOUT_INDEX = ("mpegts", "mpeg", "mpegvideo", "h264", "hevc", "m4v")


@dataclass(slots=True)
class Damage:
    """What a decoder met on its way; filled while the frames are read."""

    corrupt_frames: int = 0
    decode_errors: int = 0
    repaired_times: int = 0


@dataclass(frozen=True, slots=True)
class Span:
    """A part of the video, in seconds from its first frame; None leaves that end open."""

    start_seconds: Fraction | None = None
    end_seconds: Fraction | None = None

    def __post_init__(self) -> None:
        start, end = self.start_seconds or Fraction(0), self.end_seconds
        if start < 0 or (end is not None and end <= start):
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


@contextmanager
def open_source(path: Path) -> Iterator[Any]:
    """The opened container; InputError, in one sentence, for whatever is not readable as video."""
    try:
        if not path.exists():
            raise InputError(f"the file {path} does not exist")
        if path.is_dir():
            raise InputError(f"{path} is a folder; give the path of a video file in it")
        if path.stat().st_size == 0:
            raise InputError(f"the file {path} is empty")
        container = av.open(str(path.absolute()), metadata_errors="replace")
    except (av.error.FFmpegError, OSError) as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"the file {path} cannot be read as video: {reason}") from error
    with container:
        kind = container.format.name
        if kind == "tty":
            raise InputError(f"{path} is text, not a video")
        if kind == "image2" or kind.endswith("_pipe"):
            raise InputError(f"{path} is a picture; give a video")
        yield container


def main_video_stream(container: Any) -> Any:
    """The video stream to restore: the default one that is not cover art, else the best."""
    moving = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not moving:
        raise InputError(f"the file {container.name} has no video stream")
    best = container.streams.best("video")
    marked = [s for s in moving if s.disposition & Disposition.default]
    if best in marked or not (marked or best not in moving):
        return best
    return (marked or moving)[0]


def probe(path: Path) -> VideoInfo:
    """Everything about the main video stream that its frames do not carry themselves."""
    with open_source(path) as container:
        stream = main_video_stream(container)
        try:
            first = next(_decoded(container, stream, Damage()), None)
        except av.error.FFmpegError as error:
            raise InputError(f"the video of {path} cannot be decoded: {error}") from error
        if first is None:
            raise InputError(f"no frame of the video in {path} can be decoded")
        color.layout(first)
        return _info(container, stream, first)


def decode(path: Path, damage: Damage, span: Span | None = None) -> Iterator[Frame]:
    """All frames of the main video stream, or those of `span`, in order of presentation.

    What cannot be decoded is counted in `damage` and left out. Times come from the stream; a
    frame without one, or not later than its predecessor, is put right after it and counted.
    InputError where the picture changes its size or pixel format midway.
    """
    with _opened_at(path, span or Span(), damage) as (stream, images):
        first, end = (span or Span()).pts_range(stream)
        index, last_pts, shape = 0, None, None
        for image in images:
            pts = image.pts
            step = max(int(image.duration or 0), 1)
            if pts is None or (last_pts is not None and pts <= last_pts):
                damage.repaired_times += 1
                pts = 0 if last_pts is None else last_pts + (step if pts is None else 1)
            last_pts = pts
            if end is not None and pts >= end:
                return
            if span is None or pts >= first:
                shape = shape or _shape(image)
                if shape != _shape(image):
                    raise InputError(
                        f"{path} changes from {shape} to {_shape(image)} at frame {index}; "
                        "cut it there and restore the parts"
                    )
                damage.corrupt_frames += bool(image.is_corrupt)
                yield Frame(index, pts, image, int(image.duration or 0))
                index += 1


def _shape(image: av.VideoFrame) -> str:
    return f"{image.width} x {image.height} in {image.format.name}"


@contextmanager
def _opened_at(
    path: Path, span: Span, damage: Damage
) -> Iterator[tuple[Any, Iterator[av.VideoFrame]]]:
    """The video stream and its frames from the start of `span` or somewhat before it.

    A seek that turns out to have landed too late is given up for decoding from the beginning.
    """
    with open_source(path) as container:
        stream = main_video_stream(container)
        first, _ = span.pts_range(stream)
        if span.start_seconds and container.format.name not in _WITHOUT_INDEX:
            container.seek(first, stream=stream)
            images = _decoded(container, stream, damage)
            head = next(images, None)
            if head is not None and head.pts is not None and head.pts <= first:
                yield stream, chain([head], images)
                return
    with open_source(path) as container:
        stream = main_video_stream(container)
        yield stream, _decoded(container, stream, damage)


def _decoded(container: Any, stream: Any, damage: Damage) -> Iterator[av.VideoFrame]:
    """Frames packet by packet, so that one bad packet does not end the stream."""
    stream.thread_type = "AUTO"
    packets = container.demux(stream)
    flushed = False
    while not flushed:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except av.error.FFmpegError:
            damage.decode_errors += 1
            packet = None  # the container ends here: hand out what the decoder still holds
        flushed = packet is None or not packet.size
        try:
            yield from stream.codec_context.decode(packet)
        except (av.error.InvalidDataError, av.error.EOFError):
            damage.decode_errors += 1


def _info(container: Any, stream: Any, first: av.VideoFrame) -> VideoInfo:
    context = stream.codec_context
    codec = context.codec.name
    tags = tuple(
        int(value or 0)
        for value in (
            context.color_range or first.color_range,
            context.colorspace if context.colorspace != 2 else first.colorspace,
            context.color_primaries,
            context.color_trc,
        )
    )
    matrix, full_range, guessed = color.resolve(
        pixel_format=first.format.name,
        codec=codec,
        width=first.width,
        height=first.height,
        range_tag=tags[0],
        matrix_tag=tags[1],
    )
    rate = stream.guessed_rate or stream.average_rate
    display = _display_matrix(first)
    return VideoInfo(
        stream_index=stream.index,
        codec=codec,
        width=first.width,
        height=first.height,
        time_base=Fraction(stream.time_base),
        frame_rate=Fraction(rate or 25),
        frame_count_from_header=int(stream.frames or 0),
        duration_seconds_from_header=_duration_seconds(container, stream),
        sample_aspect_ratio=Fraction(stream.sample_aspect_ratio or 1),
        display_orientation=_orientation(display),
        display_matrix=display,
        pixel_format=first.format.name,
        bit_depth=first.format.components[0].bits,
        matrix=matrix,
        full_range=full_range,
        tags=(tags[0], tags[1], tags[2], tags[3]),
        field_order=int(context.field_order or 0),
        guessed=guessed if rate else guessed | {"frame rate"},
    )


def _duration_seconds(container: Any, stream: Any) -> float:
    """Of the video stream by its own word; 0 where only the whole file has a duration."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    said = re.fullmatch(r"(\d+):(\d+):(\d+\.?\d*)", stream.metadata.get("DURATION", ""))
    if said:  # Matroska: the end of the stream, counted from the start of the file
        hours, minutes, seconds = map(float, said.groups())
        begin = float((stream.start_time or 0) * stream.time_base)
        return 3600 * hours + 60 * minutes + seconds - begin
    alone = len(container.streams) == 1
    return float((container.duration or 0) / av.time_base) if alone else 0.0


def _display_matrix(frame: av.VideoFrame) -> tuple[int, ...] | None:
    side_data: Any = frame.side_data.get("DISPLAYMATRIX")
    return None if side_data is None else struct.unpack("<9i", bytes(side_data)[:36])


def _orientation(display: tuple[int, ...] | None) -> tuple[int, int, int, int]:
    """The nearest rotation by quarter turns, with or without a flip.

    The file's (a, b, u, c, d, v, x, y, w) shows pixel (p, q) at (a p + c q + x, b p + d q + y).
    """
    if display is None:
        return _NO_ROTATION
    a, b, _, c, d = (value / _DISPLAY_ONE for value in display[:5])
    linear = np.array([[a, c], [b, d]])
    if abs(linear[0, 0] * linear[1, 1]) >= abs(linear[0, 1] * linear[1, 0]):
        linear[0, 1] = linear[1, 0] = 0
    else:
        linear[0, 0] = linear[1, 1] = 0
    signs = np.sign(linear).astype(int)
    if abs(int(np.linalg.det(signs))) != 1:
        return _NO_ROTATION
    return int(signs[0, 0]), int(signs[0, 1]), int(signs[1, 0]), int(signs[1, 1])
