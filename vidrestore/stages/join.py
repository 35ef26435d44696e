"""Segments of a video stream become one, packet by packet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from vidrestore.codecs import container_options
from vidrestore.errors import OutputError
from vidrestore.frame import VideoInfo


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
        reason = getattr(error, "strerror", None) or str(error)
        raise OutputError(f"the segments cannot be joined: {reason.lower()}") from error


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
            raise OutputError(f"the segment {part} was not made by the same encoder as the first")
        for packet in container.demux(stream):
            if packet.size:
                yield packet
