"""Two videos or pictures of the same, one beside the other or wiped into each other."""

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
from vidrestore.imaging.frame import VideoInfo
from vidrestore.media.decode import DecodeErrors, TimeRange, decode
from vidrestore.media.images import is_pictures
from vidrestore.media.probe import probe
from vidrestore.review.drawing import (
    Picture,
    beside,
    for_movie,
    is_movie,
    picture_of,
    wiped,
    write_movie,
    write_picture,
)

_WIPE_SECONDS, _WIPE_SHARE = 4.0, 0.45


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was shown."""

    frames: int
    """Of the first file, each beside what the second shows at its time."""
    alone: int
    """Of these, how many come after the second file has ended, beside its last picture."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
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
    """Write `target`: a picture of the first frame of `span`, or a video of all of it.

    What is on screen at the same time after the first frame is shown together, the smaller one
    enlarged; both upright, as an ordinary display would show them; without sound. `wipe` shows one
    picture, `before` to the left of a line, which in a video wanders.
    InputError for what cannot be read, UsageError and OutputError for `target`.
    """
    before, after, target = Path(before), Path(after), Path(target)
    moves = is_movie(target)
    if moves and (is_pictures(before) or is_pictures(after)):
        raise UsageError(f"pictures are compared in a picture, .png or .jpg, not in {target.name}")
    infos = [probe(path, settings).info for path in (before, after)]
    left, right = (
        _shown(path, info, span) for path, info in zip((before, after), infos, strict=True)
    )
    pairs = _together(left, right)
    if (first := next(pairs, None)) is None:
        raise InputError(f"{before} or {after} has no picture at that time; give an earlier one")
    if not moves:
        _, was, now, _ = first
        write_picture(target, wiped(was, now, 0.5) if wipe else beside(was, now))
        return Comparison(1, 0)
    counts, expected = [0, 0], frames_expected(infos[0], span)

    def drawn() -> Iterator[tuple[Fraction, Picture]]:
        for seconds, was, now, is_alone in chain([first], pairs):
            counts[0] += 1
            counts[1] += is_alone
            if on_event is not None:
                on_event(Progress("compare", counts[0], expected))
            share = 0.5 + _WIPE_SHARE * math.sin(2 * math.pi * float(seconds) / _WIPE_SECONDS)
            yield seconds, for_movie(wiped(was, now, share) if wipe else beside(was, now))

    write_movie(target, drawn(), 1 / infos[0].frame_rate)
    return Comparison(*counts)


def _shown(
    path: Path, info: VideoInfo, span: TimeRange | None
) -> Iterator[tuple[Fraction, Picture]]:
    """(seconds after the first frame, picture)."""
    first = None
    for frame in decode(path, DecodeErrors(), span, stream_index=info.stream_index):
        first = frame.pts if first is None else first
        yield (frame.pts - first) * info.time_base, picture_of(frame.image, info)


_Shown = Iterator[tuple[Fraction, Picture]]


def _together(before: _Shown, after: _Shown) -> Iterator[tuple[Fraction, Picture, Picture, bool]]:
    """(seconds, before, after on screen then, whether after has ended)."""
    now, then = next(after, None), next(after, None)
    for seconds, was in before:
        if now is None:
            return
        while then is not None and _is_due(then[0], seconds):
            now, then = then, next(after, None)
        yield seconds, was, now[1], then is None and not _is_due(seconds, now[0])


def _is_due(at_seconds: Fraction, by_seconds: Fraction) -> bool:
    """Whether it has come by then, the rounding of containers' clocks to milliseconds aside."""
    return at_seconds <= by_seconds + Fraction(1, 1000)
