"""The frames of pass one once more, each checked to be the one it was."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np

from vidrestore.analysis.result import Analysis, of_file
from vidrestore.common.errors import ChangedSourceError, InputError
from vidrestore.common.handled import logged
from vidrestore.imaging.frame import Frame
from vidrestore.imaging.planes import checksum
from vidrestore.media.decode import DecodeErrors, TimeRange, decode, decode_from
from vidrestore.media.fields import pictures
from vidrestore.media.pulldown import rebuild_film_pictures

# How long before a frame to seek where the seek to it led elsewhere.
_EARLIER_SECONDS = (Fraction(0), Fraction(2), Fraction(10))


def frames_again(
    source: Path,
    analysis: Analysis,
    span: TimeRange | None = None,
    *,
    first: int = 0,
    end: int | None = None,
    device: str | None = None,
) -> Iterator[Frame]:
    """Frames [first, end) of the analysis once more: those of the file as `_file_again` gives them,
    or what is made of their fields."""
    end = analysis.frame_count if end is None else end
    read = partial(_file_again, source, of_file(analysis), span, device)
    if (fields := analysis.fields) is None:
        yield from read(first, end)
        return
    if fields.sources is not None:
        named = fields.sources[first:end]
        begin, stop = int(named.min()), int(named.max()) + 1
        own = read(begin, stop)
        yield from rebuild_film_pictures(
            own, fields.order, fields.sources, analysis.pts, first, end
        )
        return
    each = 1 if fields.mode == "frame" else 2
    # A field is interpolated with the help of the frames around its own.
    begin, stop = max(0, first // each - 1), min(len(fields.pts), -(-end // each) + 1)
    for frame in pictures(read(begin, stop), fields.mode, fields.order):
        if first <= frame.index < end:
            yield replace(frame, pts=int(analysis.pts[frame.index]))


def _file_again(
    source: Path,
    analysis: Analysis,
    span: TimeRange | None,
    device: str | None,
    first: int,
    end: int,
) -> Iterator[Frame]:
    """Frames [first, end) of the file once more, with the times and checksums that they have
    there. `span` is the part of the source that was analysed.

    Begins at the exact frame: where a seek leads to another one, from further and further before
    it, in the end from the start. Several threads decode until a frame is another: some damage, of
    HEVC for one, shows only in that. The rest then comes from one thread, as in the analysis.
    `device` is what decodes instead of them, under the same condition.
    ChangedSourceError where that does not help: the file is no longer the one that was analysed.
    """
    given = first
    ends_with_source = end == analysis.frame_count and span is None
    for frames in _attempts(source, analysis, span, first, device):
        for frame in frames:
            if frame.index < given:
                continue
            if not ends_with_source and given == end:
                return
            if not _is_known(frame, analysis):
                break
            yield frame
            given += 1
        else:
            if given == end:
                return
    may_seek = not analysis.one_thread
    index = analysis.info.stream_index
    for frame in decode(
        source, DecodeErrors(), span, stream_index=index, one_thread=True, may_seek=may_seek
    ):
        if frame.index < given:
            continue
        if not ends_with_source and given == end:
            return
        if not _is_known(frame, analysis):
            raise ChangedSourceError(
                f"frame {frame.index} of {source} is not the one of the first pass, so the file "
                "changed meanwhile or cannot be read reliably; run the command again, without an "
                "analysis of before if one was given"
            )
        yield frame
        given += 1
    if given < end:
        raise ChangedSourceError(
            f"{source} ends before frame {given}, which the first pass met, so the file changed "
            "meanwhile or cannot be read reliably; run the command again, without an analysis of "
            "before if one was given"
        )


def _attempts(
    source: Path, analysis: Analysis, span: TimeRange | None, first: int, device: str | None
) -> Iterator[Iterator[Frame]]:
    """Ways to read from frame `first` on, with indices of the analysis; the quickest first."""
    if analysis.one_thread:
        return
    index = analysis.info.stream_index
    # Which of the frames it is that is met first, its time says.
    known = {int(pts): i for i, pts in enumerate(analysis.pts[: first + 1].tolist())}
    for kind in dict.fromkeys((device, None)):
        frames: Iterator[Frame]
        for earlier_seconds in _EARLIER_SECONDS if first else ():
            earlier = math.ceil(earlier_seconds / analysis.info.time_base)
            begin = int(analysis.pts[first]) - earlier
            if begin <= analysis.pts[0]:
                break
            frames = decode_from(source, begin, stream_index=index, device=kind)
            yield _numbered(_while_there(frames, kind), known)
        if kind is None or not first:
            frames = decode(source, DecodeErrors(), span, stream_index=index, device=kind)
            yield _while_there(frames, kind)


def _while_there(frames: Iterator[Frame], device: str | None) -> Iterator[Frame]:
    """As long as the device, if it is one, does its work."""
    with logged(InputError, what=f"decoding on {device}") if device else nullcontext():
        yield from frames


def _numbered(frames: Iterator[Frame], known: Mapping[int, int]) -> Iterator[Frame]:
    index = None
    for frame in frames:
        index = known.get(frame.pts) if index is None else index + 1
        if index is not None:
            yield replace(frame, index=index)


def _is_known(frame: Frame, analysis: Analysis) -> bool:
    at = frame.index
    if at >= analysis.frame_count or frame.pts != analysis.pts[at]:
        return False
    return checksum(frame.image) == int(analysis.crc32[at])


def last_duration(analysis: Analysis) -> int:
    """How many ticks the last frame lasts: until the end that the file states.

    An end that would hold it more than twice as long as any other belongs to frames that were
    lost, and none at all gives it the nominal rate.
    """
    pts, info = analysis.pts, analysis.info
    shown = int(pts[-1] - pts[0]) * info.time_base
    left = round((Fraction(info.duration_seconds_from_header) - shown) / info.time_base)
    nominal = max(1, round(1 / (info.frame_rate * info.time_base)))
    longest = int(np.diff(pts).max(initial=nominal))
    return left if 0 < left <= 2 * longest else nominal
