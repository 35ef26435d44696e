"""Comparison of two videos or pictures of the same scene, side by side or with a wipe."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

from vidrestore.analysis.pipeline import frames_expected
from vidrestore.common.errors import InputError, UsageError
from vidrestore.common.events import OnEvent, Progress
from vidrestore.common.settings import Settings
from vidrestore.imaging.display import Picture, picture_of
from vidrestore.imaging.frame import VideoInfo
from vidrestore.media.decode import DecodeErrors, TimeRange, decode
from vidrestore.media.images import is_pictures
from vidrestore.media.probe import probe
from vidrestore.review.drawing import (
    beside,
    for_movie,
    wiped,
    write_movie,
    write_picture,
)
from vidrestore.review.file_names import is_movie

_WIPE_SECONDS, _WIPE_SHARE = 4.0, 0.45


@dataclass(frozen=True, slots=True)
class Comparison:
    """The numbers of frames that a comparison shows."""

    frames: int
    """Number of frames of the first file, each shown with the frame that the second file shows at
    its time."""
    alone: int
    """Number of frames that come after the end of the second file, shown with its last picture."""

    def as_dict(self) -> dict[str, Any]:
        """Return the attributes as plain values, for JSON."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def write_comparison(
    before: str | Path,
    after: str | Path,
    target: str | Path,
    settings: Settings | None = None,
    *,
    span: TimeRange | None = None,
    wipe: bool = False,
    on_event: OnEvent | None = None,
) -> Comparison:
    """Write a comparison of two videos, as a picture of the first frame or as a video.

    The function pairs the frames that are on screen at the same time after the first frame. It
    enlarges the smaller picture, and shows both upright, as an ordinary display does. A video has
    no sound.

    Args:
        before: The first video or picture.
        after: The second video or picture.
        target: The file to write; its suffix decides between picture and video.
        settings: The settings of the decoder. Default: `Settings()`.
        span: The part to compare, in the times of each file. Default: everything.
        wipe: Whether to show `before` and `after` to the left and the right of a line, which
            moves in a video, instead of side by side. Default: False.
        on_event: Receives the progress. Default: none.

    Returns:
        The numbers of frames.

    Raises:
        InputError: A file cannot be read or has no picture in `span`.
        UsageError: `target` has an unsuitable suffix.
        OutputError: `target` cannot be written.
    """
    before, after, target = Path(before), Path(after), Path(target)
    moves = is_movie(target)
    if moves and (is_pictures(before) or is_pictures(after)):
        raise UsageError(
            f"a comparison of two pictures must be a .png or .jpg file, not {target.name}"
        )
    infos = [probe(path, settings).info for path in (before, after)]
    left, right = (
        _pictures(path, info, span) for path, info in zip((before, after), infos, strict=True)
    )
    pairs = _together(left, right)
    if (first := next(pairs, None)) is None:
        raise InputError(f"{before} or {after} has no picture at that time; give an earlier one")
    if not moves:
        _, was, now, _ = first
        write_picture(target, wiped(was, now, 0.5) if wipe else beside(was, now))
        return Comparison(1, 0)
    counts, expected = [0, 0], frames_expected(infos[0], span)

    def compared() -> Iterator[tuple[Fraction, Picture]]:
        for seconds, was, now, is_alone in chain([first], pairs):
            counts[0] += 1
            counts[1] += is_alone
            if on_event is not None:
                on_event(Progress("compare", counts[0], expected))
            share = 0.5 + _WIPE_SHARE * math.sin(2 * math.pi * float(seconds) / _WIPE_SECONDS)
            yield seconds, for_movie(wiped(was, now, share) if wipe else beside(was, now))

    write_movie(target, compared(), 1 / infos[0].frame_rate)
    return Comparison(*counts)


def _pictures(
    path: Path, info: VideoInfo, span: TimeRange | None
) -> Iterator[tuple[Fraction, Picture]]:
    """Yield (seconds after the first frame, picture)."""
    first = None
    frames = decode(path, DecodeErrors(), span, stream_index=info.stream_index, shifts=info.shifts,
                    like=info, one_thread=True, may_seek=True)  # fmt: skip
    for frame in frames:
        first = frame.pts if first is None else first
        yield (frame.pts - first) * info.time_base, picture_of(frame.image, info)


_Pictures = Iterator[tuple[Fraction, Picture]]


def _together(
    before: _Pictures, after: _Pictures
) -> Iterator[tuple[Fraction, Picture, Picture, bool]]:
    """Yield (seconds, before, after on screen at that time, whether `after` has ended)."""
    now, then = next(after, None), next(after, None)
    for seconds, was in before:
        if now is None:
            return
        while then is not None and _is_due(then[0], seconds):
            now, then = then, next(after, None)
        yield seconds, was, now[1], then is None and not _is_due(seconds, now[0])


def _is_due(at_seconds: Fraction, by_seconds: Fraction) -> bool:
    """Return whether a time has come; containers may have rounded times to milliseconds."""
    return at_seconds <= by_seconds + Fraction(1, 1000)
