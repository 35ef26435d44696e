"""Joins the segments of a video stream into one, packet by packet, and takes segments out again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import av

from vidrestore.common.errors import OutputError, not_written, system_reason
from vidrestore.imaging.frame import VideoInfo
from vidrestore.media.codecs import container_options


def join(
    parts: Sequence[Path], target: Path, expected: Sequence[Sequence[int]], info: VideoInfo
) -> None:
    """Copy the packets of all segments, in order, into one file without encoding.

    Decoding times are recomputed for the whole stream, since those of each segment begin before
    its first frame.

    Args:
        parts: The files of the segments, each with one video stream.
        target: The file to write.
        expected: The pts of the frames of each segment, in the time base of the source.
        info: The stream of the source.

    Raises:
        OutputError: A segment does not hold the expected frames or comes from another encoder, or a
            file cannot be read or written.
    """
    times = [
        _presentation_times(part, pts, info.time_base)
        for part, pts in zip(parts, expected, strict=True)
    ]
    decoding = iter(_decoding_times([pts for part in times for pts in part]))
    try:
        with (
            av.open(str(parts[0].absolute())) as first,
            av.open(
                str(target.absolute()), "w", container_options=container_options(target)
            ) as joined,
        ):
            source: Any = first.streams.video[0]
            stream: Any = joined.add_stream_from_template(source, opaque=True)
            stream.time_base = source.time_base
            # The tag names the profile of ProRes, and with it the bit depth of decoded frames.
            stream.codec_context.codec_tag = source.codec_context.codec_tag
            # The template has the aspect ratio only where the coded stream states it.
            stream.codec_context.sample_aspect_ratio = info.sample_aspect_ratio
            if info.display_matrix is not None:
                stream.set_display_matrix(list(info.display_matrix))
            for part in parts:
                for packet in _packets(part, source.codec_context.extradata):
                    packet.dts = next(decoding)
                    packet.stream = stream
                    joined.mux(packet)
    except (av.error.FFmpegError, OSError) as error:
        raise not_written("joining the segments", target.parent, error) from error


def extract_segments(
    whole: Path,
    stream_index: int,
    wanted: Sequence[tuple[int, int, Path]],
    pts: Sequence[int],
    info: VideoInfo,
) -> None:
    """Copy ranges of frames of a joined stream into files of their own, without encoding.

    The new files have exactly the times of `pts`, independent of the clock of `whole`.

    Args:
        whole: The file with the joined stream.
        stream_index: The index of the stream.
        wanted: (first frame, frame after the last, file) of each range, in order.
        pts: The times of all frames, in the time base of the source.
        info: The stream of the source.

    Raises:
        OutputError: The frames of `whole` do not have these times, a range does not start with a
            key frame or cannot be decoded without its neighbors, or a file cannot be read or
            written.
    """
    try:
        coded, clock = _coded(whole, stream_index)
        display_times = sorted(time for time, _ in coded)
        _check_times(whole, display_times, clock, pts, info)
        with av.open(str(whole.absolute())) as container:
            stream = container.streams[stream_index]
            packets: Iterator[Any] = (p for p in container.demux(stream) if p.size)
            at = 0
            for first, end, path in wanted:
                part = coded[first:end]
                number_of = {time: i for i, time in enumerate(display_times[first:end], first)}
                if not part[0][1] or {time for time, _ in part} != number_of.keys():
                    raise OutputError(f"{whole} has no key frame at frame {first}")
                numbers = [number_of[time] for time, _ in part]
                range_packets = islice(packets, first - at, end - at)
                _write_part(range_packets, stream, path, numbers, pts, info)
                at = end
    except (av.error.FFmpegError, OSError) as error:
        raise OutputError(f"nothing can be taken from {whole}: {system_reason(error)}") from error


def _coded(whole: Path, stream_index: int) -> tuple[list[tuple[int, bool]], Fraction]:
    """Return (pts, whether it is a key frame) of each packet in coding order, and their clock."""
    with av.open(str(whole.absolute())) as container:
        if stream_index >= len(container.streams):
            raise OutputError(
                f"{whole} has no stream {stream_index}, so no segment can be taken from it"
            )
        stream = container.streams[stream_index]
        packets: Iterator[Any] = container.demux(stream)
        return [(p.pts, p.is_keyframe) for p in packets if p.size], Fraction(stream.time_base or 1)


def _check_times(
    whole: Path, display_times: Sequence[int], clock: Fraction, pts: Sequence[int], info: VideoInfo
) -> None:
    """Raise OutputError where the times of a joined stream are not those of its frames."""
    # Times are rounded to the clock of the file, so differences may be off by one tick.
    ticks = info.time_base / clock
    if len(display_times) != len(pts) or any(
        abs(time - display_times[0] - (wanted - pts[0]) * ticks) > 1
        for time, wanted in zip(display_times, pts, strict=True)
    ):
        raise OutputError(f"{whole} does not hold the frames that vidrestore wrote to it")


def _write_part(
    packets: Iterator[Any],
    stream: Any,
    path: Path,
    numbers: Sequence[int],
    pts: Sequence[int],
    info: VideoInfo,
) -> None:
    """Write one range; `numbers` are the frame numbers of its packets in coding order."""
    times = [pts[number] for number in numbers]
    with av.open(str(path.absolute()), "w", container_options=container_options(path)) as part:
        copy: Any = part.add_stream_from_template(stream, opaque=True)
        if stream.codec_context.name == "prores":
            # Matroska stores the fourcc of ProRes as private data; the codec itself has none.
            copy.codec_context.extradata = None
        copy.time_base = info.time_base
        copy.codec_context.sample_aspect_ratio = info.sample_aspect_ratio
        if info.display_matrix is not None:
            copy.set_display_matrix(list(info.display_matrix))
        for number, decoding, packet in zip(numbers, _decoding_times(times), packets, strict=True):
            if number + 1 < len(pts):
                duration = pts[number + 1] - pts[number]
            else:
                duration = round((packet.duration or 0) * packet.time_base / info.time_base)
            packet.time_base = info.time_base
            packet.pts, packet.dts, packet.duration = pts[number], decoding, duration
            packet.stream = copy
            part.mux(packet)


def _presentation_times(part: Path, expected: Sequence[int], time_base: Fraction) -> list[int]:
    """Return the times of a segment in coding order, in its own time base; check them."""
    with av.open(str(part.absolute())) as container:
        stream = container.streams.video[0]
        ticks = time_base / Fraction(stream.time_base or 1)
        times = [p.pts for p in container.demux(stream) if p.size and p.pts is not None]
    if len(times) != len(expected) or any(
        abs(pts - wanted * ticks) > Fraction(1, 2)
        for pts, wanted in zip(sorted(times), expected, strict=True)
    ):
        raise OutputError(
            f"the segment {part} does not hold the expected frames; remove it and run the command "
            "again"
        )
    return times


def _decoding_times(times: Sequence[int]) -> Iterator[int]:
    """Yield rising decoding times, none later than the presentation times (in coding order).

    With d the greatest number of positions by which a packet comes later in coding order than in
    order of presentation, packet n gets the presentation time of frame n - d. The first d packets
    count backward in steps of the first frame.
    """
    display_times = sorted(times)
    rank = {pts: i for i, pts in enumerate(display_times)}
    late = max((i - rank[pts] for i, pts in enumerate(times)), default=0)
    step = display_times[1] - display_times[0] if len(display_times) > 1 else 1
    for i in range(len(times)):
        yield display_times[i - late] if i >= late else display_times[0] - (late - i) * step


def _packets(part: Path, extradata: bytes | None) -> Iterator[Any]:
    """Yield the packets of a segment; raise OutputError where another encoder made it."""
    with av.open(str(part.absolute())) as container:
        stream: Any = container.streams.video[0]
        if stream.codec_context.extradata != extradata:
            raise OutputError(
                f"the segment {part} was not made by the same encoder as the first one; keep codec "
                "and quality unchanged, or restore the whole video again with --no-resume"
            )
        for packet in container.demux(stream):
            if packet.size:
                yield packet
