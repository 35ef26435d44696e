"""A part of an analysis: what the analysis of a whole video says about some of its frames."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vidrestore.analysis.result import Analysis, of_file
from vidrestore.analysis.tracks import Track
from vidrestore.common.errors import InputError
from vidrestore.imaging.frame import VideoInfo
from vidrestore.media.decode import TimeRange
from vidrestore.media.source import open_source


def part_within(analysis: Analysis, source: Path, span: TimeRange) -> Analysis:
    """Take the frames of a range of times out of the analysis of a whole video.

    People keep their numbers, and tracks and shots stay as the whole video gave them.

    Args:
        analysis: The analysis of the whole video, or of the part.
        source: The video.
        span: The part.

    Returns:
        The analysis of the part; `analysis` itself if it has no other frames.

    Raises:
        InputError: The video has no frame in the part.
    """
    file = of_file(analysis)
    with open_source(source) as container:
        stream = container.streams[file.info.stream_index]
        first_pts, end_pts = span.pts_range(stream, file.info.shifts)
    first = int(np.searchsorted(file.pts, first_pts))
    end = len(file.pts) if end_pts is None else int(np.searchsorted(file.pts, end_pts))
    if first >= end:
        raise no_frame_in_part(source, file.info)
    return analysis if (first, end) == (0, len(file.pts)) else frames_of(analysis, first, end)


def no_frame_in_part(source: Path, info: VideoInfo) -> InputError:
    """Return the error for a part of a video in which no frame lies.

    Args:
        source: The video.
        info: The properties of its frames.

    Returns:
        The error.
    """
    return InputError(
        f"no frame of {source} lies in the part that was asked for; the source lasts "
        f"{info.duration_seconds_from_header:.3f} s, so choose an earlier part"
    )


def frames_of(analysis: Analysis, first: int, end: int) -> Analysis:
    """Take frames out of an analysis, and count them from 0.

    The number of faces that the analysis skipped is known only for the whole, so the part has none.

    Args:
        analysis: The analysis.
        first: The first of the file's own frames.
        end: The frame of the file after the last one.

    Returns:
        The analysis of these frames, or of the pictures that are made from their fields alone.
    """
    fields = analysis.fields
    start, stop = first, end
    if fields is not None:
        sources = fields.sources
        if sources is not None:
            start, stop = _pictures_within(sources, first, end)
            sources = sources[start:stop] - first
        elif fields.mode != "frame":
            start, stop = 2 * first, 2 * end
        frames = slice(first, end)
        fields = replace(fields, pts=fields.pts[frames], crc32=fields.crc32[frames],
                         sources=sources)  # fmt: skip
    shots = ((max(begin, start), min(after, stop)) for begin, after in analysis.shots)
    return replace(
        analysis,
        pts=analysis.pts[start:stop],
        crc32=analysis.crc32[start:stop],
        shots=tuple((begin - start, after - start) for begin, after in shots if begin < after),
        tracks=tuple(
            _cut(track, start, stop)
            for track in analysis.tracks
            if track.first_frame < stop and start < track.end_frame
        ),
        skipped={},
        fields=fields,
    )


def first_in_file(analysis: Analysis, frame: int) -> int:
    """Return the first of the file's own frames of which a frame of the analysis is made.

    Args:
        analysis: The analysis.
        frame: The index of the frame in the analysis.

    Returns:
        The index of the file's frame.
    """
    fields = analysis.fields
    if fields is None or fields.mode == "frame":
        return frame
    return frame // 2 if fields.sources is None else int(fields.sources[frame].min())


def _pictures_within(sources: npt.NDArray[np.int64], first: int, end: int) -> tuple[int, int]:
    """Return the range of the film's pictures of which both fields lie in the frames."""
    start = int(np.searchsorted(sources.min(axis=1), first))
    return start, max(start, int(np.searchsorted(sources.max(axis=1), end)))


def _cut(track: Track, first: int, end: int) -> Track:
    """Cut the frames [first, end) out of a track, and count them from `first`."""
    frames = slice(max(first - track.first_frame, 0), end - track.first_frame)
    return track.frames(frames, first_frame=max(track.first_frame - first, 0))
