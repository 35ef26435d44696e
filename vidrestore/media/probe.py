"""What is known of a file before its frames are decoded: one look for a whole run."""

from __future__ import annotations

import hashlib
import logging
import re
import struct
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import av.logging
import numpy as np
from av.stream import Disposition

from vidrestore.common.errors import InputError, UsageError, system_reason
from vidrestore.common.settings import Settings
from vidrestore.imaging import color, log_curves, planes
from vidrestore.imaging.frame import VideoInfo
from vidrestore.media.decode import DecodeErrors, OpenVideo, _decoded, _first_whole
from vidrestore.media.images import (
    exr,
    files,
    is_pattern,
    is_pictures,
    kind_of,
    pictures_of,
)
from vidrestore.media.images.exif import turn_of
from vidrestore.media.images.header import Header
from vidrestore.media.source import main_video_stream, open_source

_log = logging.getLogger("vidrestore")

_SAMPLE_BYTES = 1 << 20

_USUAL_FPS = 24

_CLOCK = 1001  # the largest denominator of a rate, as 24000/1001 has it


_DISPLAY_ONE = 65536  # the display matrix is in 16.16 fixed point
_NO_ROTATION = (1, 0, 0, 1)
_MOST_ANAMORPHIC = Fraction(16)
_CHROMA_LOCATIONS = ("left", "center", "topleft", "top", "bottomleft", "bottom")
_LIBAV_LEVEL = threading.Lock()
"""Held by the one thread that has changed the log level of libav."""
# AVFieldOrder. 4 and 5 mean fields stored line by line, in ffmpeg's and QuickTime's practice.
_FIELD_ORDERS = {2: "tff", 3: "bff", 4: "tff", 5: "bff"}


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """One stream of a container."""

    index: int
    type: str
    """video, audio, subtitle, attachment or data."""
    codec: str | None
    """The decoder's name; None where there is none."""
    disposition: Disposition
    metadata: Mapping[str, str]
    data_tag: str | None = None
    """The four letters by which mp4 and mov name a stream of data."""

    @property
    def is_cover(self) -> bool:
        """Whether it is a picture of the file rather than a video."""
        return self.type == "video" and bool(self.disposition & Disposition.attached_pic)


@dataclass(frozen=True, slots=True)
class Probe:
    """A file as one look found it; made once for a run, and handed on."""

    path: Path
    info: VideoInfo
    """The main video stream, with what the settings say of it."""
    streams: tuple[StreamInfo, ...]
    metadata: Mapping[str, str]
    """The tags of the file."""
    start: Fraction
    """The container's own start, in seconds."""
    fingerprint: str
    """See `fingerprint`."""
    mtime_ns: int
    """When the file was last written to; 0 for pictures, whose fingerprint has their times."""


def video_info(container: Any, stream: Any, first: av.VideoFrame, printed: str) -> VideoInfo:
    """Everything about a stream that its frames do not carry themselves.

    Args:
        container: The opened file.
        stream: The stream.
        first: A frame of it whose size and pixel format are those of the others.
        printed: The description of the file that libavformat prints (`_description`).

    Returns:
        The stream's properties; those that the file leaves unsaid are guessed.
    """
    context = stream.codec_context
    codec = context.codec.canonical_name
    tags = _tags(context, first)
    meaning = color.resolve(
        pixel_format=first.format.name,
        codec=codec,
        width=first.width,
        height=first.height,
        tags=tags,
    )
    guessed = set(meaning.guessed)
    rate = _positive(stream.guessed_rate) or _positive(stream.average_rate)
    if rate is None:
        guessed.add("frame rate")
    field_order = _field_order(context, first)
    if field_order is None:
        # Of consumer formats only DV has the bottom field first.
        field_order = "bff" if codec == "dvvideo" else "tff"
        guessed.add("field order")
    location = _chroma_location(printed, stream.index)
    if location is None:
        location = "center" if codec in ("mjpeg", "mpeg1video") else "left"
        if meaning.transfer != "sdr":
            location = "topleft"  # Rec. ITU-R BT.2100
        guessed |= {"chroma location"} if planes.layout(first).grid != (1, 1) else set()
    aspect = _positive(stream.sample_aspect_ratio)
    if aspect is not None and not 1 / _MOST_ANAMORPHIC <= aspect <= _MOST_ANAMORPHIC:
        aspect = None  # of a damaged header, as no player could show it
        guessed.add("sample aspect ratio")
    display, mastering, content_light = None, None, None
    if container.format.name != "image2":
        # Where a picture has a colour profile, looking at its side data makes PyAV 18 crash later,
        # when the garbage collector meets the frame.
        display = _display_matrix(first)
        mastering, content_light = _light(first)
    return VideoInfo(
        stream_index=stream.index,
        codec=codec,
        width=first.width,
        height=first.height,
        time_base=Fraction(stream.time_base),
        frame_rate=rate or Fraction(25),
        frame_count_from_header=int(stream.frames or 0),
        duration_seconds_from_header=_duration_seconds(container, stream),
        sample_aspect_ratio=aspect or Fraction(1),
        display_orientation=_orientation(display),
        display_matrix=display,
        pixel_format=first.format.name,
        bit_depth=first.format.components[0].bits,
        matrix=meaning.matrix,
        full_range=meaning.full_range,
        tags=tags,
        field_order=field_order,
        chroma_location=location,
        transfer=meaning.transfer,
        primaries=meaning.primaries,
        mastering_display=mastering,
        content_light=content_light,
        guessed=frozenset(guessed),
    )


def _positive(ratio: Any) -> Fraction | None:
    """None also for what only a damaged header says."""
    return Fraction(ratio) if ratio and ratio > 0 else None


def _tags(context: Any, first: av.VideoFrame) -> tuple[int, int, int, int]:
    """Range, matrix, primaries, transfer; 0 or 2 where the file does not say."""
    colorspace = context.colorspace if context.colorspace != 2 else first.colorspace
    return (
        int(context.color_range or first.color_range or 0),
        int(colorspace or 0),
        int(context.color_primaries or 0),
        int(context.color_trc or 0),
    )


def _field_order(context: Any, first: av.VideoFrame) -> str | None:
    """None where the picture is interlaced and nothing says how."""
    said = _FIELD_ORDERS.get(int(context.field_order or 0))
    if said is not None:
        return said
    return None if first.interlaced_frame else "progressive"


def _chroma_location(printed: str, stream_index: int) -> str | None:
    """The location as libavformat prints it; None where the file does not state it."""
    line = re.search(rf"Stream #0:{stream_index}\b.*: Video: (.*)", printed)
    entries = re.split(r"[()]|, ", line[1]) if line else []
    return next((entry for entry in entries if entry in _CHROMA_LOCATIONS), None)


def _light(frame: av.VideoFrame) -> tuple[tuple[Fraction, ...] | None, tuple[int, int] | None]:
    """Mastering display and content light level, from the layouts of libavutil's
    AVMasteringDisplayMetadata and AVContentLightMetadata."""
    mastering, content = None, None
    side_data = _side_data(frame)
    if (raw := side_data.get("MASTERING_DISPLAY_METADATA")) is not None:
        numbers = struct.unpack("<22i", bytes(raw)[:88])
        ratios = zip(numbers[0:20:2], numbers[1:20:2], strict=True)
        if numbers[20:] == (1, 1) and all(numbers[1:20:2]):
            mastering = tuple(Fraction(*ratio) for ratio in ratios)
    if (raw := side_data.get("CONTENT_LIGHT_LEVEL")) is not None:
        content = struct.unpack("<2I", bytes(raw)[:8])
    return mastering, content


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
    matrix = _side_data(frame).get("DISPLAYMATRIX")
    return None if matrix is None else struct.unpack("<9i", bytes(matrix)[:36])


def _side_data(frame: av.VideoFrame) -> Any:
    try:
        return frame.side_data
    except ValueError as error:  # PyAV has no name for one of them, such as Exif
        _log.info("side data of a frame is not read: %s", error)
        return {}


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


def probe(path: Path, settings: Settings | None = None, video: OpenVideo | None = None) -> Probe:
    """Look at a file: its streams, its first frame, its fingerprint.

    Args:
        path: A video, a picture, or numbered pictures by a pattern. All pictures are looked at.
        settings: What only the user knows of the file: `decode.fps`, `decode.input_curve`;
            default: nothing.
        video: The file, where the caller has opened it; default: opened here. A damaged file is
            opened here in any case, since several threads do not decode it repeatably.

    Returns:
        What was found.

    Raises:
        InputError: The file cannot be read as video, or a picture is not like the first.
        UsageError: A setting does not go with the kind of file.
    """
    how = settings or Settings()
    if how.decode.fps is not None and not is_pattern(path):
        raise UsageError(f"--fps is for numbered pictures, such as name_%06d.tif, not for {path}")
    header = files.check_alike(pictures_of(path)) if is_pictures(path) else None
    if (is_light := header is not None and kind_of(path) == "exr") and how.decode.input_curve:
        raise UsageError(
            f"{path.name} holds light itself, not light in a curve; leave --input-curve out"
        )
    first = None if video is None else video.first()
    if video is None or first is None or first.is_corrupt or video.damage.found:
        with open_source(path) as container:
            stream = main_video_stream(container)
            first = _first_whole(_decoded(container, stream, DecodeErrors(), True))
            found = _found(path, container, stream, first, how)
    else:
        found = _found(path, video.container, video.stream, first, how)
    info = found.info
    if is_light:
        info = replace(info, transfer="table", curve=exr.display_table())
    if header is not None:
        info = _info_of_pictures(info, header, len(pictures_of(path).files), how.decode.fps)
    written_at = 0 if is_pattern(path) else path.stat().st_mtime_ns
    return replace(found, info=info, fingerprint=fingerprint(path), mtime_ns=written_at)


def _found(
    path: Path, container: Any, stream: Any, first: av.VideoFrame | None, settings: Settings
) -> Probe:
    """What an open file says, without its fingerprint and time."""
    if first is None:
        raise InputError(f"no frame of the video in {path} can be decoded")
    planes.layout(first)
    printed = _description(container)
    info = video_info(container, stream, first, printed)
    tags = _data_tags(printed)
    return Probe(
        path=path,
        info=_with_curve(info, settings.decode.input_curve),
        streams=tuple(_stream_info(each, tags) for each in container.streams),
        metadata=dict(container.metadata),
        start=Fraction(container.start_time or 0, av.time_base),
        fingerprint="",
        mtime_ns=0,
    )


def _description(container: Any) -> str:
    """What libavformat prints about an open file, with the details that PyAV does not expose.

    libav prints these details only at the level VERBOSE, and its level belongs to the process.
    Messages of other threads in the meantime go into `dropped`.
    """
    with _LIBAV_LEVEL, av.logging.Capture(local=False) as dropped:
        level = av.logging.get_level()
        av.logging.set_libav_level(av.logging.VERBOSE)
        av.logging.set_level(av.logging.VERBOSE)
        try:
            return str(container.dumps_format())
        finally:
            av.logging.set_level(level)
            av.logging.set_libav_level(av.logging.INFO)
            dropped.clear()


def _stream_info(stream: Any, data_tags: Mapping[int, str]) -> StreamInfo:
    return StreamInfo(
        index=stream.index,
        type=stream.type,
        codec=stream.codec_context.name if stream.codec_context else None,
        disposition=stream.disposition,
        metadata=dict(stream.metadata),
        data_tag=data_tags.get(stream.index),
    )


def _data_tags(printed: str) -> dict[int, str]:
    """Stream index -> the four letters by which mp4 and mov name a stream of data."""
    found = re.findall(r"Stream #0:(\d+)\S*: Data: \w+ \((\w+) ", printed)
    return {int(index): tag for index, tag in found}


def _info_of_pictures(info: VideoInfo, header: Header, count: int, fps: float | None) -> VideoInfo:
    rate = Fraction(fps or _USUAL_FPS).limit_denominator(_CLOCK)
    return replace(
        info,
        time_base=1 / rate,
        frame_rate=rate,
        frame_count_from_header=count,
        duration_seconds_from_header=float(count / rate),
        display_orientation=turn_of(header.orientation),
        sample_aspect_ratio=Fraction(1),
        field_order="progressive",
    )


def fingerprint(source: Path) -> str:
    """Of a file's content, whatever its name: its size and its first, middle and last MiB.

    Of a sequence of pictures: that of the first, and of all their sizes and times.
    """
    digest = hashlib.sha256()
    try:
        if is_pattern(source):
            first, *others = pictures_of(source).files
            for path in (first, *others):
                known = path.stat()
                digest.update(f"{known.st_size} {known.st_mtime_ns}\n".encode())
            source = first
        size = source.stat().st_size
        digest.update(str(size).encode())
        with source.open("rb") as file:
            for start in (0, (size - _SAMPLE_BYTES) // 2, size - _SAMPLE_BYTES):
                file.seek(max(0, start))
                digest.update(file.read(_SAMPLE_BYTES))
    except FileNotFoundError as error:
        raise InputError(f"the file {error.filename or source} does not exist") from error
    except OSError as error:
        reason = system_reason(error)
        raise InputError(f"the file {source} cannot be read: {reason}") from error
    return digest.hexdigest()


def _with_curve(info: VideoInfo, name: str) -> VideoInfo:
    if not name:
        return info
    if name in log_curves.NAMES:
        return replace(info, transfer=name)
    return replace(info, transfer="table", curve=log_curves.read_cube(Path(name)))
