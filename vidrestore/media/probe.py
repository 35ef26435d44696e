"""The properties of a file and its streams, read once per run before frames are decoded."""

from __future__ import annotations

import hashlib
import logging
import re
import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from av.stream import Disposition

from vidrestore.common.errors import InputError, UsageError, system_reason
from vidrestore.common.settings import Settings
from vidrestore.imaging import curves, planes
from vidrestore.imaging.color_properties import resolve
from vidrestore.imaging.frame import VideoInfo
from vidrestore.media.coded_frames import field_order_of_prores, stated
from vidrestore.media.decode import OpenVideo, open_video
from vidrestore.media.description import description
from vidrestore.media.images import (
    exr,
    files,
    is_pattern,
    is_pictures,
    kind_of,
    pictures_of,
)
from vidrestore.media.images.exif import orientation_matrix
from vidrestore.media.images.header import Header
from vidrestore.media.side_data import NONE, SideData, read_side_data, side_data_of
from vidrestore.media.source import open_source, path_of
from vidrestore.media.timeline import NOTHING_TO_REPAIR, TimeLine, begin_pts

_log = logging.getLogger("vidrestore")

_SAMPLE_BYTES = 1 << 20

_USUAL_FPS = 24

_CLOCK = 1001  # the largest denominator of a frame rate, as in 24000/1001


_DISPLAY_ONE = 65536  # the display matrix is in 16.16 fixed point
_NO_ROTATION = (1, 0, 0, 1)
_MOST_ANAMORPHIC = Fraction(16)
_MOST_SECONDS = 1e9  # a longer duration, 30 years, is from a damaged tag
_CHROMA_LOCATIONS = ("left", "center", "topleft", "top", "bottomleft", "bottom")
# AVFieldOrder. 4 and 5 mean fields stored line by line, in ffmpeg's and QuickTime's practice.
_FIELD_ORDERS = {2: "tff", 3: "bff", 4: "tff", 5: "bff"}


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """One stream of a container."""

    index: int
    """The index of the stream in its container."""
    type: str
    """The kind of the stream: video, audio, subtitle, attachment or data."""
    codec: str | None
    """The codec by ffmpeg's name; None where it is not known, and for data without a decoder."""
    disposition: Disposition
    """The disposition flags of the stream."""
    metadata: Mapping[str, str]
    """The tags of the stream."""
    data_tag: str | None = None
    """The four letters by which mp4 and mov name a data stream; None for other streams."""

    @property
    def is_cover(self) -> bool:
        """Whether the stream is a cover picture rather than a video."""
        return self.type == "video" and bool(self.disposition & Disposition.attached_pic)


@dataclass(frozen=True, slots=True)
class Probe:
    """The properties of a file, read once per run."""

    path: Path
    """The path of the file, or the pattern of numbered pictures."""
    info: VideoInfo
    """The main video stream, with the properties that the settings state."""
    streams: tuple[StreamInfo, ...]
    """All streams in the order of the container."""
    metadata: Mapping[str, str]
    """The tags of the file."""
    start: Fraction
    """The start time of the container, in seconds."""
    side_data: SideData
    """What the file states of the main video stream besides `info`."""
    fingerprint: str
    """The checksum that the function `fingerprint` computes."""
    mtime_ns: int
    """The time of the last change of the file in nanoseconds; 0 for numbered pictures, whose
    fingerprint includes their times.
    """
    time_line: TimeLine = NOTHING_TO_REPAIR
    """The repair of the times of all streams."""


def video_info(
    container: Any,
    stream: Any,
    first: av.VideoFrame,
    printed: str,
    aspect: Fraction | None = None,
) -> VideoInfo:
    """Collect the properties of a stream that its frames do not carry themselves.

    Args:
        container: The opened file.
        stream: The stream.
        first: A frame of it whose size and pixel format are those of the others.
        printed: The description of the file that libavformat prints (`media.description`).
        aspect: The aspect ratio of the pixels of `first` where that is not the first frame, but the
            first of its shape; default: that of the stream.

    Returns:
        The properties; vidrestore guesses those that the file does not state.

    Raises:
        InputError: vidrestore does not support the color matrix or the pixel format of the stream.
    """
    context = stream.codec_context
    codec = context.codec.canonical_name
    tags = _tags(context if aspect is None else first, first)
    meaning = resolve(
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
    field_order = _field_order(container, stream, first)
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
    aspect = _positive(aspect or stream.sample_aspect_ratio)
    if aspect is not None and not 1 / _MOST_ANAMORPHIC <= aspect <= _MOST_ANAMORPHIC:
        aspect = None  # of a damaged header, as no player could show it
        guessed.add("sample aspect ratio")
    display, mastering, content_light = None, None, None
    if container.format.name != "image2":
        # If a picture has a color profile, reading its side data makes PyAV 18 crash later, when
        # the garbage collector reaches the frame.
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
    """Return the ratio; None where it is missing or not positive, as in damaged headers."""
    return Fraction(ratio) if ratio and ratio > 0 else None


def _tags(context: Any, first: av.VideoFrame) -> tuple[int, int, int, int]:
    """Return range, matrix, primaries and transfer; 0 or 2 where the file does not state one.

    `context` is the decoder or, where that is at another place of the file, the frame itself.
    """
    colorspace = context.colorspace if context.colorspace != 2 else first.colorspace
    return (
        int(context.color_range or first.color_range or 0),
        int(colorspace or 0),
        int(context.color_primaries or 0),
        int(context.color_trc or 0),
    )


def _field_order(container: Any, stream: Any, first: av.VideoFrame) -> str | None:
    """Return the field order; None where the picture is interlaced and the file states no order."""
    context = stream.codec_context
    order = _FIELD_ORDERS.get(int(context.field_order or 0))
    if order is not None:
        return order
    if not first.interlaced_frame:
        return "progressive"
    if context.codec.canonical_name != "prores":
        return None
    # The header of .mxf calls interlaced pictures progressive.
    own = _field_order_of_first_packet(path_of(container), stream.index)
    return own if own in _FIELD_ORDERS.values() else None


def _field_order_of_first_packet(path: Path, stream_index: int) -> str | None:
    """Return the field order that the first packet of ProRes states; None: it is damaged."""
    with open_source(path) as container:
        packets = container.demux(container.streams[stream_index])
        packet = next((bytes(each) for each in packets if each.size), b"")
    return None if stated("prores", packet) is None else field_order_of_prores(packet)


def _chroma_location(printed: str, stream_index: int) -> str | None:
    """Return the location that libavformat prints; None where the file does not state it."""
    line = re.search(rf"Stream #0:{stream_index}\b.*: Video: (.*)", printed)
    entries = re.split(r"[()]|, ", line[1]) if line else []
    return next((entry for entry in entries if entry in _CHROMA_LOCATIONS), None)


def _light(frame: av.VideoFrame) -> tuple[tuple[Fraction, ...] | None, tuple[int, int] | None]:
    """Read mastering display and content light level from the side data of a frame.

    The byte layouts are those of libavutil's AVMasteringDisplayMetadata and AVContentLightMetadata.
    """
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
    """Return the duration that the file states for the stream; 0 where it states none."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    end_tag = re.fullmatch(r"(\d+):(\d+):(\d+\.?\d*)", stream.metadata.get("DURATION", ""))
    if end_tag:  # Matroska: the end of the stream, counted from the start of the file
        hours, minutes, seconds = map(float, end_tag.groups())
        start_seconds = float((stream.start_time or 0) * stream.time_base)
        duration = 3600 * hours + 60 * minutes + seconds - start_seconds
        return duration if duration < _MOST_SECONDS else 0.0
    if len(container.streams) > 1:
        return 0.0
    duration = float((container.duration or 0) / av.time_base)
    if container.format.name == "flv":
        # The duration of an FLV file counts from its beginning, or from its first frame.
        start_seconds = float((stream.start_time or 0) * stream.time_base)
        return duration - start_seconds if duration > start_seconds else duration
    return duration


def _display_matrix(frame: av.VideoFrame) -> tuple[int, ...] | None:
    """Read the nine numbers of the display matrix from the side data of a frame."""
    matrix = _side_data(frame).get("DISPLAYMATRIX")
    return None if matrix is None else struct.unpack("<9i", bytes(matrix)[:36])


def _side_data(frame: av.VideoFrame) -> Any:
    """Return the side data of a frame; empty where PyAV cannot read it."""
    try:
        return side_data_of(frame)
    except ValueError as error:  # PyAV fails if it has no name for a kind, such as Exif
        _log.info("side data of a frame is not read: %s", error)
        return {}


def _side_data_of(
    container: Any, stream_index: int, first: av.VideoFrame, printed: str
) -> SideData:
    """Read what a file states of its picture; nothing for pictures, whose metadata stay."""
    if container.format.name == "image2":
        return NONE
    found = {entry.type.name: bytes(entry) for entry in _side_data(first)}
    return read_side_data(printed, stream_index, found)


def _orientation(display: tuple[int, ...] | None) -> tuple[int, int, int, int]:
    """Return the nearest rotation by quarter turns, with or without a flip.

    Convention: the matrix (a, b, u, c, d, v, x, y, w) of the file shows coded pixel (p, q) at
    (a p + c q + x, b p + d q + y).
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
    """Read the properties of a file: its streams, its first frame, its fingerprint.

    Args:
        path: A video, a picture, or numbered pictures by a pattern. The headers of all pictures are
            read.
        settings: The properties that only the user knows: `decode.fps`, `decode.input_curve`; None:
            none.
        video: The file, if the caller has opened it; None: the function opens it. A damaged file is
            always opened again, since decoding with several threads is not repeatable for it.

    Returns:
        The properties.

    Raises:
        InputError: The file cannot be read as video, or a picture differs from the first one.
        UsageError: A setting does not apply to this kind of file.
    """
    wanted = settings or Settings()
    if wanted.decode.fps is not None and not is_pattern(path):
        raise UsageError(f"--fps is for numbered pictures, such as name_%06d.tif, not for {path}")
    header = files.check_alike(pictures_of(path)) if is_pictures(path) else None
    if (is_light := header is not None and kind_of(path) == "exr") and wanted.decode.input_curve:
        raise UsageError(
            f"{path.name} holds linear light, which needs no curve; leave --input-curve out"
        )
    first = None if video is None else video.first()
    if video is None or first is None or first.is_corrupt or video.damage.found:
        known = None if video is None else video.time_line
        with open_video(path, one_thread=True, time_line=known) as alone:
            result = _read_properties(alone, alone.first(), wanted)
            if video is None:
                result = with_usual_shape(result, alone, wanted)
    else:
        result = _read_properties(video, first, wanted)
    info = result.info
    if is_light:
        info = replace(info, transfer="table", curve=exr.display_table())
    if header is not None:
        info = _info_of_pictures(info, header, len(pictures_of(path).files), wanted.decode.fps)
    written_at = 0 if is_pattern(path) else path.stat().st_mtime_ns
    return replace(result, info=info, fingerprint=fingerprint(path), mtime_ns=written_at)


def _read_properties(video: OpenVideo, first: av.VideoFrame | None, settings: Settings) -> Probe:
    """Read the properties of an open file, without its fingerprint and modification time."""
    path, container, line = video.path, video.container, video.time_line
    if first is None:
        raise InputError(f"no frame of the video in {path} can be decoded")
    planes.layout(first)
    printed = description(container)
    info = _with_time_line(video_info(container, video.stream, first, printed), line)
    if line.late and len(container.streams) == 1:
        # The duration is that of the file, which may be that of a late stream.
        info = replace(info, duration_seconds_from_header=0.0)
    return Probe(
        path=path,
        info=_with_curve(info, settings.decode.input_curve),
        streams=_streams(path, line.late) if line.late else _stream_infos(container, printed),
        metadata=dict(container.metadata),
        start=Fraction(container.start_time or 0, av.time_base)
        + (begin_pts(video.stream, info.shifts) - begin_pts(video.stream, ())) * info.time_base,
        side_data=_side_data_of(container, video.stream.index, first, printed),
        fingerprint="",
        mtime_ns=0,
        time_line=line,
    )


def with_usual_shape(found: Probe, video: OpenVideo, settings: Settings) -> Probe:
    """Replace the shape of the first frame by that of most frames, where that is larger.

    Args:
        found: The properties of a file.
        video: The opened file, whose frames are not read in order afterwards.
        settings: The settings with which the file was probed.

    Returns:
        `found` itself where the picture has one size, or the file is damaged.
    """
    if is_pictures(video.path) or video.damage.found:
        return found
    usual = video.usual_picture(found.info)
    if usual is None:
        return found
    image, aspect = usual
    _log.info("most pictures of %s have %s x %s pixels", video.path, image.width, image.height)
    printed = description(video.container)
    stated = aspect or found.info.sample_aspect_ratio
    info = video_info(video.container, video.stream, image, printed, stated)
    info = _with_time_line(info, found.time_line)
    return replace(found, info=_with_curve(info, settings.decode.input_curve))


def _with_time_line(info: VideoInfo, line: TimeLine) -> VideoInfo:
    """Add the repair of the times to the properties of a stream."""
    index = info.stream_index
    if index not in line.durations_seconds:
        return info
    return replace(
        info,
        shifts=line.shifts.get(index, ()),
        joins_seconds=line.joins_seconds,
        duration_seconds_from_header=line.durations_seconds[index],
    )


def _streams(path: Path, late: Collection[int]) -> tuple[StreamInfo, ...]:
    """Describe the streams of a file of which some begin late."""
    _log.info("streams %s of %s begin late", sorted(late), path)
    with open_source(path, read_through=True) as container:
        return _stream_infos(container, description(container))


def _stream_infos(container: Any, printed: str) -> tuple[StreamInfo, ...]:
    """Describe the streams of an open file."""
    tags, codecs = _data_tags(printed), _codec_names(printed)
    return tuple(_stream_info(each, tags, codecs) for each in container.streams)


def _stream_info(
    stream: Any, data_tags: Mapping[int, str], codecs: Mapping[int, str]
) -> StreamInfo:
    context = stream.codec_context
    return StreamInfo(
        index=stream.index,
        type=stream.type,
        codec=context.codec.canonical_name if context else codecs.get(stream.index),
        disposition=stream.disposition,
        metadata=dict(stream.metadata),
        data_tag=data_tags.get(stream.index),
    )


def _data_tags(printed: str) -> dict[int, str]:
    """Map the index of each data stream to the four letters by which mp4 and mov name it."""
    matches = re.findall(r"Stream #0:(\d+)\S*: Data: \w+ \((\w+) ", printed)
    return {int(index): tag for index, tag in matches}


def _codec_names(printed: str) -> dict[int, str]:
    """Map the index of each stream to the name of its codec, also where PyAV has no decoder."""
    matches = re.findall(r"Stream #0:(\d+)\S*: (?:Video|Audio|Subtitle): (\w+)", printed)
    return {int(index): name for index, name in matches if name not in ("none", "unknown")}


def _info_of_pictures(info: VideoInfo, header: Header, count: int, fps: float | None) -> VideoInfo:
    """Replace the properties that pictures do not have: clock, rate, count, orientation."""
    rate = Fraction(fps or _USUAL_FPS).limit_denominator(_CLOCK)
    return replace(
        info,
        time_base=1 / rate,
        frame_rate=rate,
        frame_count_from_header=count,
        duration_seconds_from_header=float(count / rate),
        display_orientation=orientation_matrix(header.orientation),
        sample_aspect_ratio=Fraction(1),
        field_order="progressive",
    )


def fingerprint(source: Path) -> str:
    """Compute a checksum that identifies the content of a source whatever its name.

    It covers the size of the file and its first, middle and last MiB. For numbered pictures it
    covers the first picture in this way, and the sizes and modification times of all others.

    Args:
        source: A file, or numbered pictures by a pattern.

    Returns:
        64 hexadecimal digits of a SHA-256.

    Raises:
        InputError: The file does not exist or cannot be read.
    """
    digest = hashlib.sha256()
    try:
        if is_pattern(source):
            first, *others = pictures_of(source).files
            for path in (first, *others):
                status = path.stat()
                digest.update(f"{status.st_size} {status.st_mtime_ns}\n".encode())
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
    """Apply the curve that the user named, by name or as a .cube file; "" for none."""
    if not name:
        return info
    if name in curves.NAMES:
        return replace(info, transfer=name)
    return replace(info, transfer="table", curve=curves.read_cube(Path(name)))
