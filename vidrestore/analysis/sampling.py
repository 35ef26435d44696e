"""Sampling: decode a few frames from all parts of a video, before pass one.

Interlacing and margins are measured in the same frames.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from typing import Any, NamedTuple

from vidrestore.analysis.borders import NO_MARGINS, Margins, MarginScan
from vidrestore.common.threads import StageThreads
from vidrestore.imaging.frame import Frame, VideoInfo
from vidrestore.media.decode import OpenVideo, TimeRange
from vidrestore.media.fields import FieldScan, scan

_PLACES = 10
SHORT_FRAMES = 240
"""The most frames of a short video, all of which are samples."""
_PAIR_EVERY = 8
"""In a short video, one pair of successive frames out of this many is measured for borders.

In a long video, one pair at each place is measured.
"""
_FRAMES_FOR_FIELDS, _FRAMES_FOR_BORDERS = 24, 2
"""The number of successive frames at each place."""
_MOST_KEPT_BYTES = 32 << 20
_DEPTH = 4  # frames by which decoding runs ahead


class KeptFrames:
    """All frames of a short video, so that pass one need not decode them again."""

    def __init__(self, frames: list[Frame]) -> None:
        """Keep frames.

        Args:
            frames: All frames of the video or of the part to work on, without damage, as one thread
                decoded them.
        """
        self._frames = frames

    def taken(self) -> list[Frame]:
        """Return the frames, and keep them no longer; empty after the first call."""
        frames, self._frames = self._frames, []
        return frames


class Samples(NamedTuple):
    """The measurements in the sampled frames."""

    fields: FieldScan | None
    """The counts of frames by how their fields look; None where they were not measured."""
    margins: Margins
    """The margins; none where they were not measured."""
    kept: KeptFrames | None
    """All frames; None where the video is long, large or damaged."""


def sample(
    video: OpenVideo, info: VideoInfo, span: TimeRange | None, *, fields: bool, borders: bool
) -> Samples:
    """Decode a few frames and measure interlacing and borders in them.

    Args:
        video: The opened video, of which at most the first frame was read.
        info: The properties of its stream.
        span: The part of the video to look at; None: all.
        fields: Whether to measure interlacing.
        borders: Whether to measure borders.

    Returns:
        The measurements. If both flags are False, nothing is decoded.

    Raises:
        InputError: The video cannot be decoded.
    """
    if not fields and not borders:
        return Samples(None, NO_MARGINS, None)
    margins = MarginScan(info) if borders else None
    field_scan = FieldScan()
    frames = _FRAMES_FOR_FIELDS if fields else _FRAMES_FOR_BORDERS
    short = _Short(video, span)
    for images, every in _stretches(video, info, span, short, frames=frames):
        # The thread has ended before the next place is sought.
        with StageThreads(caller="measure") as threads:
            decoded = threads.background(images, depth=_DEPTH, name="decode samples")
            seen = decoded if margins is None else _with_pairs(decoded, margins, info, every)
            if fields:
                field_scan += scan(seen)
            else:
                for _ in seen:
                    pass
    measured = NO_MARGINS if margins is None else margins.margins()
    return Samples(field_scan if fields else None, measured, short.kept())


class _Short:
    """Reads a short video, and keeps its frames if one thread decodes it from its beginning."""

    def __init__(self, video: OpenVideo, span: TimeRange | None) -> None:
        self._video = video
        self._frames: list[Frame] = []
        self._room_bytes = _MOST_KEPT_BYTES
        self._is_whole = False
        self._may_keep = video.one_thread and not (span and span.start_seconds)
        self._read = video.frames(span)

    def images(self) -> Iterator[Any]:
        """Yield the pictures of the first frames."""
        for frame in islice(self._read, SHORT_FRAMES):
            self._room_bytes -= sum(each.buffer_size for each in frame.image.planes)
            self._may_keep &= self._room_bytes >= 0 and not frame.image.is_corrupt
            if self._may_keep:
                self._frames.append(frame)
            else:
                self._frames.clear()
            yield frame.image
        self._is_whole = next(self._read, None) is None

    def kept(self) -> KeptFrames | None:
        """Return all frames; None where not all of them are here, whole and repeatable."""
        met = self._video.damage
        repeatable = self._may_keep and not met.found and not met.changes
        return KeptFrames(self._frames) if repeatable and self._is_whole else None


def _with_pairs(
    images: Iterator[Any], margins: MarginScan, info: VideoInfo, every: int
) -> Iterator[Any]:
    """Pass the images on, and add the first two out of every `every` images to `margins`."""
    earlier: Any = None
    for index, image in enumerate(images):
        if earlier is not None:
            whole = not (earlier.is_corrupt or image.is_corrupt)
            if whole and _is_of(info, earlier) and _is_of(info, image):
                margins.add(earlier, image)
        earlier = image if index % every == 0 else None
        yield image


def _stretches(
    video: OpenVideo, info: VideoInfo, span: TimeRange | None, short: _Short, *, frames: int
) -> Iterator[tuple[Iterator[Any], int]]:
    """Yield (successive images, `every`) for each of ten places in the video, as seeks find them.

    A short video is a single stretch. `every` is the number of images out of which one pair is
    measured for borders.
    """
    whole = Fraction(info.duration_seconds_from_header).limit_denominator(1000)
    start = (span and span.start_seconds) or Fraction(0)
    end = (span and span.end_seconds) or whole
    seconds = min(end, whole) - start
    if seconds * info.frame_rate <= SHORT_FRAMES:
        yield short.images(), _PAIR_EVERY
        return
    first = next(video.frames(None), None)
    begin = 0 if first is None else first.pts
    for place in range(_PLACES):
        at = begin + round((start + seconds * (2 * place + 1) / (2 * _PLACES)) / info.time_base)
        yield (frame.image for frame in islice(video.frames_from(at), frames)), frames


def _is_of(info: VideoInfo, image: Any) -> bool:
    """Tell whether an image has the size and the format of the stream."""
    return (image.width, image.height, image.format.name) == (
        info.width, info.height, info.pixel_format
    )  # fmt: skip
