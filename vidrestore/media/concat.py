"""Segments of a video stream become one, packet by packet."""

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
    """Write the packets of all parts, in order, to `target`; nothing is encoded.

    `expected` are the pts of each part's frames, in the source's time base. Decoding times
    are made anew for the whole, since each part begins before its own. OutputError where a part
    does not hold what it should.
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
            # The profile of ProRes, and with it the depth that it is decoded to.
            stream.codec_context.codec_tag = source.codec_context.codec_tag
            # Not every codec says its own, and the template has only what the codec says.
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


def take(
    whole: Path,
    stream_index: int,
    wanted: Sequence[tuple[int, int, Path]],
    pts: Sequence[int],
    info: VideoInfo,
) -> None:
    """Copy the packets of frames [first, end) of a joined stream into a file of their own, for each
    (first, end, file) of `wanted`, which are in order.

    `pts` are those of all frames, in the source's time base; the files have them exactly, whatever
    the clock of `whole`. OutputError where its frames do not have these times, or those of one
    file cannot be decoded by themselves.
    """
    try:
        coded, clock = _coded(whole, stream_index)
        shown = sorted(time for time, _ in coded)
        _check_times(whole, shown, clock, pts, info)
        with av.open(str(whole.absolute())) as container:
            stream = container.streams[stream_index]
            packets: Iterator[Any] = (p for p in container.demux(stream) if p.size)
            at = 0
            for first, end, path in wanted:
                part = coded[first:end]
                number_of = {time: i for i, time in enumerate(shown[first:end], first)}
                if not part[0][1] or {time for time, _ in part} != number_of.keys():
                    raise OutputError(f"{whole} has no key frame at frame {first}")
                numbers = [number_of[time] for time, _ in part]
                own = islice(packets, first - at, end - at)
                _write_part(own, stream, path, numbers, pts, info)
                at = end
    except (av.error.FFmpegError, OSError) as error:
        raise OutputError(f"nothing can be taken from {whole}: {system_reason(error)}") from error


def _coded(whole: Path, stream_index: int) -> tuple[list[tuple[int, bool]], Fraction]:
    """(pts, whether it is a key frame) in coding order, and the clock of these."""
    with av.open(str(whole.absolute())) as container:
        if stream_index >= len(container.streams):
            raise OutputError(f"{whole} has no stream {stream_index}, so nothing is taken from it")
        stream = container.streams[stream_index]
        packets: Iterator[Any] = container.demux(stream)
        return [(p.pts, p.is_keyframe) for p in packets if p.size], Fraction(stream.time_base or 1)


def _check_times(
    whole: Path, shown: Sequence[int], clock: Fraction, pts: Sequence[int], info: VideoInfo
) -> None:
    # Both are rounded to the clock of the file.
    ticks = info.time_base / clock
    if len(shown) != len(pts) or any(
        abs(time - shown[0] - (wanted - pts[0]) * ticks) > 1
        for time, wanted in zip(shown, pts, strict=True)
    ):
        raise OutputError(f"{whole} does not hold the frames that its job wrote")


def _write_part(
    packets: Iterator[Any],
    stream: Any,
    path: Path,
    numbers: Sequence[int],
    pts: Sequence[int],
    info: VideoInfo,
) -> None:
    """`numbers` are those of the frames, in coding order."""
    times = [pts[number] for number in numbers]
    with av.open(str(path.absolute()), "w", container_options=container_options(path)) as part:
        copy: Any = part.add_stream_from_template(stream, opaque=True)
        if stream.codec_context.name == "prores":
            # Matroska states its fourcc as private data, of which it has none.
            copy.codec_context.extradata = None
        copy.time_base = info.time_base
        copy.codec_context.sample_aspect_ratio = info.sample_aspect_ratio
        if info.display_matrix is not None:
            copy.set_display_matrix(list(info.display_matrix))
        for number, decoding, packet in zip(numbers, _decoding_times(times), packets, strict=True):
            if number + 1 < len(pts):
                lasts = pts[number + 1] - pts[number]
            else:
                lasts = round((packet.duration or 0) * packet.time_base / info.time_base)
            packet.time_base = info.time_base
            packet.pts, packet.dts, packet.duration = pts[number], decoding, lasts
            packet.stream = copy
            part.mux(packet)


def _presentation_times(part: Path, expected: Sequence[int], time_base: Fraction) -> list[int]:
    """In coding order, in the part's own time base, to which they were rounded."""
    with av.open(str(part.absolute())) as container:
        stream = container.streams.video[0]
        ticks = time_base / Fraction(stream.time_base or 1)
        times = [p.pts for p in container.demux(stream) if p.size and p.pts is not None]
    if len(times) != len(expected) or any(
        abs(pts - wanted * ticks) > Fraction(1, 2)
        for pts, wanted in zip(sorted(times), expected, strict=True)
    ):
        raise OutputError(
            f"the segment {part} does not hold the frames that it should; remove it and run the "
            "command again"
        )
    return times


def _decoding_times(times: Sequence[int]) -> Iterator[int]:
    """For presentation times in coding order: rising, and never later than these.

    The n-th packet gets the time of the frame shown n - d, d being the largest number of frames by
    which one comes too late; the first d count backwards in steps of the first frame.
    """
    shown = sorted(times)
    rank = {pts: i for i, pts in enumerate(shown)}
    late = max((i - rank[pts] for i, pts in enumerate(times)), default=0)
    step = shown[1] - shown[0] if len(shown) > 1 else 1
    for i in range(len(times)):
        yield shown[i - late] if i >= late else shown[0] - (late - i) * step


def _packets(part: Path, extradata: bytes | None) -> Iterator[Any]:
    with av.open(str(part.absolute())) as container:
        stream: Any = container.streams.video[0]
        if stream.codec_context.extradata != extradata:
            raise OutputError(
                f"the segment {part} was not made by the same encoder as the first; leave codec "
                "and quality as they were, or restore the whole anew with --no-resume"
            )
        for packet in container.demux(stream):
            if packet.size:
                yield packet
