"""Replay: read the frames of pass one a second time, and check that they are the same frames."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vidrestore.analysis.result import Analysis, Fields, of_file
from vidrestore.common.errors import ChangedSourceError, InputError
from vidrestore.common.handled import logged
from vidrestore.imaging.frame import Frame
from vidrestore.imaging.planes import checksum
from vidrestore.media.decode import DecodeErrors, TimeRange, decode, decode_from
from vidrestore.media.fields import pictures
from vidrestore.media.pulldown import rebuild_film_pictures

# How long before a frame to seek, if the seek to the frame itself leads to another frame.
_EARLIER_SECONDS = (Fraction(0), Fraction(2), Fraction(10))


def frames_again(
    source: Path,
    analysis: Analysis,
    span: TimeRange | None = None,
    *,
    first: int = 0,
    end: int | None = None,
    device: str | None = None,
    keep_packets: bool = False,
) -> Iterator[Frame]:
    """Read frames [first, end) of an analysis a second time, each checked against the analysis.

    Args:
        source: The source file.
        analysis: The analysis of the source.
        span: The part of the source that was analyzed; default: all.
        first: The first frame, an index of the analysis; default: 0.
        end: The frame after the last one; default: that after the last frame of the analysis.
        device: A device that `media.decode.decoding_device` returned; default: the processor.
            Where the device fails or gives other frames, the processor decodes.
        keep_packets: Whether frames keep their packets, as in `media.decode.decode`; default: no.

    Yields:
        The frames, with the indices and times of the analysis. Where the analysis is of pictures of
        fields, these pictures.

    Raises:
        InputError: The source cannot be read as video.
        ChangedSourceError: A frame differs from the one in pass one, or is missing.
    """
    end = analysis.frame_count if end is None else end
    read = partial(_file_again, source, of_file(analysis), span, device, keep_packets)
    if (fields := analysis.fields) is None:
        yield from read(first, end)
        return
    if fields.sources is not None:
        needed = fields.sources[first:end]
        begin, stop = int(needed.min()), int(needed.max()) + 1
    else:
        each = 1 if fields.mode == "frame" else 2
        # The interpolation of a field needs the frames before and after its own frame.
        begin, stop = max(0, first // each - 1), min(len(fields.pts), -(-end // each) + 1)
    yield from pictures_again(read(begin, stop), fields, analysis.pts, first, end)


def pictures_again(
    frames: Iterator[Frame], fields: Fields, pts: npt.NDArray[np.int64], first: int, end: int
) -> Iterator[Frame]:
    """Make pictures [first, end) of fields from the frames that hold these fields.

    Args:
        frames: Frames of a file in order of presentation, among them all on which the pictures
            depend.
        fields: How the pictures are made; its times and checksums are not used.
        pts: The presentation times of all pictures.
        first: The first picture.
        end: The picture after the last one.

    Yields:
        The pictures, with their indices and times.
    """
    if fields.sources is not None:
        yield from rebuild_film_pictures(frames, fields.order, fields.sources, pts, first, end)
        return
    for frame in pictures(frames, fields.mode, fields.order):
        if first <= frame.index < end:
            yield replace(frame, pts=int(pts[frame.index]))


def _file_again(
    source: Path,
    analysis: Analysis,
    span: TimeRange | None,
    device: str | None,
    keep_packets: bool,
    first: int,
    end: int,
) -> Iterator[Frame]:
    """Read frames [first, end) of the file, with the times and checksums of the analysis.

    `span` is the part of the source that was analyzed.

    The read begins at the exact frame. Where a seek leads to another frame, it begins further and
    further before the frame, and in the end at the start of the file. Several threads, or `device`,
    decode until a frame differs, because some damage, for example of HEVC, shows only then. One
    thread decodes the rest, as in the analysis. If a frame still differs, the file is no longer the
    one that was analyzed, and vidrestore raises ChangedSourceError.
    """
    next_index = first
    ends_with_source = end == analysis.frame_count and span is None
    for frames in _attempts(source, analysis, span, first, device, keep_packets):
        for frame in frames:
            if frame.index < next_index:
                continue
            if not ends_with_source and next_index == end:
                return
            if not _is_same(frame, analysis):
                break
            yield frame
            next_index += 1
        else:
            if next_index == end:
                return
    may_seek = not analysis.one_thread
    index = analysis.info.stream_index
    for frame in decode(
        source,
        DecodeErrors(),
        span,
        stream_index=index,
        shifts=analysis.info.shifts,
        like=analysis.decoded or analysis.info,
        one_thread=True,
        may_seek=may_seek,
        keep_packets=keep_packets,
    ):
        if frame.index < next_index:
            continue
        if not ends_with_source and next_index == end:
            return
        if not _is_same(frame, analysis):
            raise ChangedSourceError(
                f"frame {frame.index} of {source} differs from the one of the first pass, so the "
                "file changed in the meantime or cannot be read reliably; run the command again, "
                "and do not give it an earlier analysis"
            )
        yield frame
        next_index += 1
    if next_index < end:
        raise ChangedSourceError(
            f"{source} ends before frame {next_index}, which the first pass read, so the file "
            "changed in the meantime or cannot be read reliably; run the command again, and do "
            "not give it an earlier analysis"
        )


def _attempts(
    source: Path,
    analysis: Analysis,
    span: TimeRange | None,
    first: int,
    device: str | None,
    keep_packets: bool,
) -> Iterator[Iterator[Frame]]:
    """Yield ways to read from frame `first` on, with indices of the analysis; the fastest first."""
    if analysis.one_thread:
        return
    index, shape = analysis.info.stream_index, analysis.decoded or analysis.info
    # The time of the first frame after a seek gives its index.
    index_of_pts = {int(pts): i for i, pts in enumerate(analysis.pts[: first + 1].tolist())}
    for kind in dict.fromkeys((device, None)):
        frames: Iterator[Frame]
        for earlier_seconds in _EARLIER_SECONDS if first else ():
            earlier = math.ceil(earlier_seconds / analysis.info.time_base)
            begin = int(analysis.pts[first]) - earlier
            if begin <= analysis.pts[0]:
                break
            frames = decode_from(
                source,
                begin,
                stream_index=index,
                like=shape,
                device=kind,
                keep_packets=keep_packets,
            )
            yield _numbered(_until_failure(frames, kind), index_of_pts)
        if kind is None or not first:
            frames = decode(
                source,
                DecodeErrors(),
                span,
                stream_index=index,
                shifts=analysis.info.shifts,
                like=shape,
                device=kind,
                keep_packets=keep_packets,
            )
            yield _until_failure(frames, kind)


def _until_failure(frames: Iterator[Frame], device: str | None) -> Iterator[Frame]:
    """Yield frames until `device` fails; errors of the processor are raised."""
    with logged(InputError, what=f"decoding on {device}") if device else nullcontext():
        yield from frames


def _numbered(frames: Iterator[Frame], index_of_pts: Mapping[int, int]) -> Iterator[Frame]:
    """Number frames from the first one with a known time on; drop those before it."""
    index = None
    for frame in frames:
        index = index_of_pts.get(frame.pts) if index is None else index + 1
        if index is not None:
            yield replace(frame, index=index)


def _is_same(frame: Frame, analysis: Analysis) -> bool:
    """Tell whether a frame has the time and the checksum of the analysis."""
    at = frame.index
    if at >= analysis.frame_count or frame.pts != analysis.pts[at]:
        return False
    return checksum(frame.image) == int(analysis.crc32[at])


def last_duration(analysis: Analysis) -> int:
    """Return how long the last frame of an analysis lasts: until the end that the file states.

    If that is more than twice the longest other frame, the stated end belongs to lost frames. Then,
    and if the file states no end after the last frame, the nominal frame duration is returned.

    Args:
        analysis: The analysis.

    Returns:
        The duration in units of the time base, at least 1.
    """
    pts, info = analysis.pts, analysis.info
    lasted = int(pts[-1] - pts[0]) * info.time_base
    left = round((Fraction(info.duration_seconds_from_header) - lasted) / info.time_base)
    nominal = max(1, round(1 / (info.frame_rate * info.time_base)))
    longest = int(np.diff(pts).max(initial=nominal))
    return left if 0 < left <= 2 * longest else nominal
