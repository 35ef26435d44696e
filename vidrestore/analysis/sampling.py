"""Sample frames from all through a video, once, for what must be known before pass one.

Interlacing and borders are measured in the same frames.
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
"""In a short video, one pair of successive frames out of so many is measured for borders; in a long
one, one pair at each place."""
_FRAMES_FOR_FIELDS, _FRAMES_FOR_BORDERS = 24, 2
"""So many successive frames at each place."""


class Samples(NamedTuple):
    """What the sampled frames show."""

    fields: FieldScan | None
    """None where nobody wants to know."""
    margins: Margins


def sample(
    video: OpenVideo, info: VideoInfo, span: TimeRange | None, *, fields: bool, borders: bool
) -> Samples:
    """Decode a few frames and measure them.

    Args:
        video: The video, of which at most the first frame was read.
        info: The properties of its stream.
        span: The part of it to look at; None: all.
        fields: Whether to measure interlacing.
        borders: Whether to measure borders.

    Returns:
        The measurements; without decoding anything where neither is wanted.
    """
    if not fields and not borders:
        return Samples(None, NO_MARGINS)
    margins = MarginScan(info) if borders else None
    found = FieldScan()
    frames = _FRAMES_FOR_FIELDS if fields else _FRAMES_FOR_BORDERS
    for images, every in _stretches(video, info, span, frames=frames):
        seen = images if margins is None else _with_pairs(images, margins, info, every)
        if fields:
            found += scan(seen)
        else:
            for _ in seen:
                pass
    return Samples(found if fields else None, NO_MARGINS if margins is None else margins.margins())


def _with_pairs(
    images: Iterator[Any], margins: MarginScan, info: VideoInfo, every: int
) -> Iterator[Any]:
    """The images; of so many, `margins` is shown the first two on the way."""
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
    """So many successive pictures each from ten places in the video, or in `span` of it, as seeks
    find them; all of a short one. With them: out of how many a pair is measured for borders."""
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
    return (image.width, image.height, image.format.name) == (
        info.width, info.height, info.pixel_format
    )  # fmt: skip
