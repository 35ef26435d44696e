"""Sampling: decode a few frames from all parts of a video, before pass one.

Interlacing and margins are measured in the same frames.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from typing import Any, NamedTuple

from vidrestore.analysis.borders import NO_MARGINS, Margins, MarginScan
from vidrestore.imaging.frame import VideoInfo
from vidrestore.media.decode import OpenVideo, TimeRange
from vidrestore.media.fields import FieldScan, scan

_PLACES = 10
_SHORT_FRAMES = 240
_PAIR_EVERY = 8
"""In a short video, one pair of successive frames out of this many is measured for borders.

In a long video, one pair at each place is measured.
"""
_FRAMES_FOR_FIELDS, _FRAMES_FOR_BORDERS = 24, 2
"""The number of successive frames at each place."""


class Samples(NamedTuple):
    """The measurements in the sampled frames."""

    fields: FieldScan | None
    """The counts of frames by how their fields look; None where they were not measured."""
    margins: Margins
    """The margins; none where they were not measured."""


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
        return Samples(None, NO_MARGINS)
    margins = MarginScan(info) if borders else None
    field_scan = FieldScan()
    frames = _FRAMES_FOR_FIELDS if fields else _FRAMES_FOR_BORDERS
    for images, every in _stretches(video, info, span, frames=frames):
        seen = images if margins is None else _with_pairs(images, margins, info, every)
        if fields:
            field_scan += scan(seen)
        else:
            for _ in seen:
                pass
    measured = NO_MARGINS if margins is None else margins.margins()
    return Samples(field_scan if fields else None, measured)


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
    video: OpenVideo, info: VideoInfo, span: TimeRange | None, *, frames: int
) -> Iterator[tuple[Iterator[Any], int]]:
    """Yield (successive images, `every`) for each of ten places in the video, as seeks find them.

    A short video is a single stretch. `every` is the number of images out of which one pair is
    measured for borders.
    """
    whole = Fraction(info.duration_seconds_from_header).limit_denominator(1000)
    start = (span and span.start_seconds) or Fraction(0)
    end = (span and span.end_seconds) or whole
    seconds = min(end, whole) - start
    if seconds * info.frame_rate <= _SHORT_FRAMES:
        yield (frame.image for frame in islice(video.frames(span), _SHORT_FRAMES)), _PAIR_EVERY
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
