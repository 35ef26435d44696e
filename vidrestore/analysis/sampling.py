"""A few frames from all through a video, for what must be known before each is looked at."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

from vidrestore.imaging.frame import VideoInfo
from vidrestore.media.decode import Damage, Span, decode, decode_from

_PLACES = 10
_SHORT_FRAMES = 240
# In a short video, one pair of successive frames is looked at out of so many.
_PAIR_EVERY = 8


def stretches(
    source: Path, info: VideoInfo, span: Span | None, *, frames: int
) -> Iterator[Iterator[Any]]:
    """So many successive pictures each from ten places in the video, or in `span` of it, as seeks
    find them; all of a short one."""
    whole = Fraction(info.duration_seconds_from_header).limit_denominator(1000)
    start = (span and span.start_seconds) or Fraction(0)
    end = (span and span.end_seconds) or whole
    seconds = min(end, whole) - start
    if seconds * info.frame_rate <= _SHORT_FRAMES:
        every = decode(source, Damage(), span, stream_index=info.stream_index)
        yield (frame.image for frame in islice(every, _SHORT_FRAMES))
        return
    first = _first_pts(source, info)
    for place in range(_PLACES):
        at = first + round((start + seconds * (2 * place + 1) / (2 * _PLACES)) / info.time_base)
        sought = decode_from(source, at, stream_index=info.stream_index)
        yield (frame.image for frame in islice(sought, frames))


def _first_pts(source: Path, info: VideoInfo) -> int:
    frames = decode(source, Damage(), stream_index=info.stream_index)
    first = next(frames, None)
    return 0 if first is None else first.pts


def _is_of(info: VideoInfo, image: Any) -> bool:
    return (image.width, image.height, image.format.name) == (
        info.width, info.height, info.pixel_format
    )  # fmt: skip
