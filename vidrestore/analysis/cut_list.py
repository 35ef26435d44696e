"""The lists of cuts that editing programs export, of all kinds that vidrestore reads.

An edit decision list (CMX 3600), a timeline of OpenTimelineIO (.otio), FCPXML (.fcpxml, or a
bundle .fcpxmld) or the XML of Final Cut Pro 7 (.xml).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from vidrestore.common.errors import ConfigError
from vidrestore.common.text_files import read_text
from vidrestore.common.timecode import time_text
from vidrestore.common.xml_files import read_xml

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from vidrestore.analysis.timeline import Cuts

_EDL, _TIMELINE = "the edit decision list", "the timeline"
_XML, _OTIO = (".fcpxml", ".xml"), ".otio"
_BUNDLE, _IN_BUNDLE = ".fcpxmld", "Info.fcpxml"
# A timeline of a whole film with the parameters of all effects.
_MOST_BYTES = 128 << 20
# How far a time may lie after a frame and mean that frame, in frames.
_SLACK = Fraction(1, 100)


@dataclass(frozen=True, slots=True)
class CutList:
    """The cuts in the frames of a video."""

    frames: tuple[int, ...]
    """The first frames of shots, in rising order, without duplicates."""
    doubtful: tuple[tuple[int, int], ...] = ()
    """The ranges [first, last] of frames in which the pictures must decide where a shot begins."""

    def starts(self, found: Iterable[int]) -> tuple[int, ...]:
        """Return the first frames of all shots.

        Args:
            found: The first frames of the shots that were found in the pictures.

        Returns:
            Frame indices, ascending; the first is 0.
        """
        certain = {0, *self.frames}
        near = {frame + step for frame in certain for step in (-1, 0, 1)}
        ranges = sorted(self.doubtful)
        begins = [first for first, _ in ranges]
        ends = list(accumulate((last for _, last in ranges), max))
        more = [
            frame
            for frame in set(found) - near
            if (number := bisect_right(begins, frame)) and frame <= ends[number - 1]
        ]
        return tuple(sorted(certain.union(more)))


def file_of(path: Path) -> Path:
    """Return the file that holds a list of cuts.

    Args:
        path: The path that the user gave.

    Returns:
        The document in a bundle of Final Cut Pro; otherwise `path` itself.
    """
    is_bundle = path.suffix.lower() == _BUNDLE and path.is_dir()
    return path / _IN_BUNDLE if is_bundle else path


def check_readable(path: Path) -> None:
    """Check that a list of cuts can be read; its content is not understood yet.

    Args:
        path: The list.

    Raises:
        ConfigError: The file cannot be read or is too large, or OpenTimelineIO is needed and not
            installed.
    """
    if _is_timeline(path):
        if path.suffix.lower() == _OTIO:
            from vidrestore.analysis import otio

            otio.library()
        read_text(file_of(path), _TIMELINE, most_bytes=_MOST_BYTES)
    else:
        read_text(path, _EDL, errors="replace")


def check_content(path: Path, frame_rate: Fraction) -> str | None:
    """Check that a list of cuts is one, as far as that can be told without the frames.

    Args:
        path: The list.
        frame_rate: The nominal frame rate of the video in frames per second.

    Returns:
        A notice for the user that the list will not do unless the rate of the video varies; None
        where it may do.

    Raises:
        ConfigError: The file cannot be read or has no cuts, or is a timeline that vidrestore cannot
            read, or has a time code that is impossible at this frame rate.
    """
    if not _is_timeline(path):
        from vidrestore.analysis import edl

        edl.check_content(path, frame_rate)
        return None
    rate = _read(path).rate
    if rate is None or _fits(rate, frame_rate):
        return None
    return (
        f"{_other_rate(rate, frame_rate, path)}; the video will be refused at the end of its "
        "analysis, unless its frames have no constant rate"
    )


def read_cuts(
    path: Path,
    pts: npt.NDArray[np.int64],
    time_base: Fraction,
    frame_rate: Fraction,
    begin: int | None = None,
) -> CutList:
    """Read the cuts in the frames of a video, or of a part of it.

    Args:
        path: The list.
        pts: (frames,) presentation times of all frames, in units of `time_base`.
        time_base: The time base in seconds.
        frame_rate: The nominal frame rate of the video in frames per second.
        begin: The presentation time of the first frame of the video, where `pts` are those of a
            part of it. Default: they are those of the whole video.

    Returns:
        The cuts. In an edit decision list the earliest event is the first frame of the video; in a
        timeline its start is.

    Raises:
        ConfigError: The file cannot be read, does not fit the rate of the video, or has a cut after
            its end.
    """
    if not _is_timeline(path):
        from vidrestore.analysis import edl

        return CutList(edl.read_cuts(path, pts, time_base, frame_rate, begin))
    timeline = _read(path)
    factor = _factor(timeline.rate, frame_rate, pts, path)
    clock = _Clock(pts, time_base, frame_rate, begin)

    def seconds(at: Fraction) -> Fraction:
        if timeline.rate is None:
            return at
        return math.ceil(at * timeline.rate - _SLACK) / timeline.rate * factor

    certain = set[int]()
    for at in map(seconds, timeline.cuts.certain):
        if (frame := clock.frame(at)) is not None:
            certain.add(frame)
        elif clock.is_whole and at > clock.end + 1 / frame_rate / 2:
            raise ConfigError(
                f"{_TIMELINE} {path} has a cut at {time_text(at)}, after the end of the video at "
                f"{time_text(clock.end)}; export the timeline that the video was made from"
            )
    doubtful = [
        (clock.nearest(seconds(first)) - 1, clock.nearest(seconds(last)) + 1)
        for first, last in timeline.cuts.doubtful
    ]
    return CutList(tuple(sorted(certain)), tuple(doubtful))


def _is_timeline(path: Path) -> bool:
    """Tell by the name whether a list is a timeline rather than an edit decision list."""
    return path.suffix.lower() in (*_XML, _BUNDLE, _OTIO)


class _Read(NamedTuple):
    """What a timeline says."""

    cuts: Cuts
    rate: Fraction | None
    """Its frames per second; None where it has none."""


def _read(path: Path) -> _Read:
    """Read a timeline; raise ConfigError where it is none, or shows nothing."""
    from vidrestore.analysis.timeline import TimelineError, cuts_of

    file = file_of(path)
    try:
        if file.suffix.lower() == _OTIO:
            from vidrestore.analysis import otio

            found = otio.read(read_text(file, _TIMELINE, most_bytes=_MOST_BYTES))
        else:
            from vidrestore.analysis import fcpxml, xmeml

            root = read_xml(file, _TIMELINE, _MOST_BYTES)
            readers = {"fcpxml": fcpxml.read, "xmeml": xmeml.read}
            if root.tag not in readers:
                raise TimelineError(
                    f"is neither FCPXML nor the XML of Final Cut Pro 7, but a document {root.tag}"
                )
            found = readers[root.tag](root)
        if not any(track.items for track in found.tracks):
            raise TimelineError("shows no picture")
        return _Read(cuts_of(found.tracks), found.rate)
    except TimelineError as error:
        raise ConfigError(f"{_TIMELINE} {path} {error}") from error


def _factor(
    rate: Fraction | None, frame_rate: Fraction, pts: npt.NDArray[np.int64], path: Path
) -> Fraction:
    """Return the seconds of the video for each second of a timeline.

    A timeline of 24 frames a second and a video of 24000/1001 have the same frames. The frames of
    a video of variable rate have times of their own.
    """
    if rate is None or not _is_constant(pts):
        return Fraction(1)
    if not _fits(rate, frame_rate):
        raise ConfigError(
            f"{_other_rate(rate, frame_rate, path)}; export the timeline at the rate of the video"
        )
    return rate / _whole(rate) * _whole(frame_rate) / frame_rate


def _whole(rate: Fraction) -> int:
    return max(1, round(rate))


def _fits(rate: Fraction, frame_rate: Fraction) -> bool:
    """Return whether frames at these two rates begin at the same times."""
    own, other = _whole(rate), _whole(frame_rate)
    return own % other == 0 or other % own == 0


def _other_rate(rate: Fraction, frame_rate: Fraction, path: Path) -> str:
    return (
        f"{_TIMELINE} {path} has {_rate_text(rate)} frames per second and the video "
        f"{_rate_text(frame_rate)}, so its cuts would fall on other frames"
    )


def _is_constant(pts: npt.NDArray[np.int64]) -> bool:
    """Tell whether frames follow each other at a constant rate."""
    steps = sorted(b - a for a, b in zip(pts[:-1].tolist(), pts[1:].tolist(), strict=True))
    return not steps or (steps[-1] <= 1.5 * steps[len(steps) // 2] <= 3 * steps[0])


def _rate_text(rate: Fraction) -> str:
    return f"{float(rate):.3f}".rstrip("0").rstrip(".")


class _Clock:
    """Finds the frames of a video, or of a part of it, by their times."""

    def __init__(
        self,
        pts: npt.NDArray[np.int64],
        time_base: Fraction,
        frame_rate: Fraction,
        begin: int | None,
    ) -> None:
        self.is_whole = begin is None
        first = int(pts[0]) if begin is None else begin
        self._times = [(int(each) - first) * time_base for each in pts]
        self._half = 1 / frame_rate / 2
        self.end = self._times[-1] + 1 / frame_rate
        """The end of the last frame, in seconds from the first frame of the video."""

    def nearest(self, seconds: Fraction) -> int:
        """Return the frame nearest to a time, which may lie outside."""
        after = bisect_right(self._times, seconds)
        if after == 0:
            return 0
        if after == len(self._times):
            return after - 1
        before, behind = self._times[after - 1], self._times[after]
        return after - 1 if seconds - before <= behind - seconds else after

    def frame(self, seconds: Fraction) -> int | None:
        """Return the frame that begins at a time; None where the video has none there."""
        if not self._times[0] - self._half < seconds <= self.end - self._half:
            return None
        return self.nearest(seconds)
