"""Timelines of editing programs: the tracks with their items, and the cuts that a viewer sees.

Where an item of an upper track shows moving pictures, what lies beneath is hidden, and its cuts
are not seen; unless the upper picture is smaller, or lets the other shine through, which the lists
of editing programs do not tell in a common way. So a cut beneath such an item is doubtful, and the
pictures of the video must decide. The same holds for the ends of titles and still pictures, which
cover a part of the picture only.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

MOST_CUTS = 50_000
"""The greatest number of cuts in a timeline, and of its items; a file with more is refused."""
DEEPEST = 16
"""How deep timelines may be nested."""
_STILLS = (
    ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".psd", ".tga", ".bmp", ".gif", ".webp", ".heic",
    ".ai", ".eps", ".pdf", ".svg", ".mogrt", ".prtl",
)  # fmt: skip


class TimelineError(ValueError):
    """A reason why a timeline cannot be read, as the end of a sentence that names the file."""


@dataclass(frozen=True, slots=True)
class Cuts:
    """The cuts of a timeline, in seconds from its start."""

    certain: tuple[Fraction, ...] = ()
    """The cuts that a viewer sees, in rising order."""
    doubtful: tuple[tuple[Fraction, Fraction], ...] = ()
    """The ranges [from, to] in which the pictures must decide where a cut is, if any."""


@dataclass(frozen=True, slots=True)
class Item:
    """A clip, a title or a nested timeline on a track."""

    start: Fraction
    """The start in seconds from the start of the timeline."""
    end: Fraction
    """The end in seconds from the start of the timeline."""
    covers: bool
    """Whether it shows moving pictures, which probably fill the frame."""
    inner: Cuts = Cuts()
    """The cuts of a nested timeline, in the time of the timeline that holds it."""


@dataclass(frozen=True, slots=True)
class Track:
    """A track of pictures."""

    items: tuple[Item, ...]
    """The items, in rising order."""
    transitions: tuple[tuple[Fraction, Fraction], ...] = ()
    """The start and the end of each transition, in seconds from the start of the timeline."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """A timeline."""

    tracks: tuple[Track, ...]
    """The tracks of pictures, the lowest first."""
    rate: Fraction | None
    """The frames per second; None: the file does not state it."""


def is_still(name: str) -> bool:
    """Tell by the name of a file whether it holds a still picture or a title.

    Args:
        name: A file name, a path or an URL.

    Returns:
        True for the suffixes of pictures and of templates for titles.
    """
    return name.lower().split("?")[0].endswith(_STILLS)


def cuts_of(tracks: Sequence[Track]) -> Cuts:
    """Find the cuts of tracks that lie over each other.

    A transition counts from its beginning, as in an edit decision list.

    Args:
        tracks: The tracks, the lowest first.

    Returns:
        The cuts; the start and the end of the timeline are none.

    Raises:
        TimelineError: There are more than `MOST_CUTS`.
    """
    moved = [_with_early_transitions(track) for track in tracks]
    last = max((item.end for track in moved for item in track.items), default=Fraction(0))
    stacks = [_Stack(track.items) for track in moved]
    certain, doubtful = set[Fraction](), set[tuple[Fraction, Fraction]]()
    for number, track in enumerate(moved):
        above, beneath = stacks[number + 1 :], stacks[:number]
        for item in track.items:
            for at in (item.start, item.end):
                if not 0 < at < last:
                    continue
                is_hidden = any(stack.covers(at) for stack in above)
                is_part = not item.covers and any(stack.shows(at) for stack in beneath)
                if is_hidden or is_part:
                    doubtful.add((at, at))
                else:
                    certain.add(at)
            for at in item.inner.certain:
                if any(stack.covers(at) for stack in above):
                    doubtful.add((at, at))
                else:
                    certain.add(at)
            doubtful.update(item.inner.doubtful)
            check_count(len(certain) + len(doubtful))
    ranges = (each for each in doubtful if each[0] < each[1] or each[0] not in certain)
    return Cuts(tuple(sorted(certain)), tuple(sorted(ranges)))


def check_count(count: int) -> None:
    """Check the number of cuts or of items.

    Args:
        count: The number.

    Raises:
        TimelineError: It is greater than `MOST_CUTS`.
    """
    if count > MOST_CUTS:
        raise TimelineError(f"has more than {MOST_CUTS:,} cuts or clips")


def within(cuts: Cuts, item: Item, origin: Fraction, speed: Fraction | None = Fraction(1)) -> Item:
    """Return an item with the cuts of the timeline that is nested in it.

    Args:
        cuts: The cuts of the nested timeline.
        item: The item.
        origin: The time of the nested timeline at the start of the item, in seconds from its start.
        speed: How fast the nested timeline runs, 1 as it is; None where it is not constant, so that
            its cuts are not known. Default: 1.

    Returns:
        The item with those cuts that it shows.
    """
    if not cuts.certain and not cuts.doubtful:
        return item
    if speed is None or speed <= 0:
        return unknown_within(item)

    def moved(at: Fraction) -> Fraction:
        return item.start + (at - origin) / speed

    end = origin + (item.end - item.start) * speed
    seen = cuts.certain[bisect_right(cuts.certain, origin) : bisect_left(cuts.certain, end)]
    doubtful = tuple((moved(max(a, origin)), moved(min(b, end)))
                     for a, b in cuts.doubtful if a < end and b > origin)  # fmt: skip
    return replace(item, inner=Cuts(tuple(map(moved, seen)), doubtful))


def unknown_within(item: Item) -> Item:
    """Return an item with a nested timeline whose cuts are not known.

    Args:
        item: The item.

    Returns:
        The item, in all of which the pictures must decide.
    """
    return replace(item, inner=Cuts(doubtful=((item.start, item.end),)))


def rate_of(frames_per_second: float) -> Fraction:
    """Return the exact rate that a rounded number stands for.

    Args:
        frames_per_second: The number that a file states, such as 23.98.

    Returns:
        The rate, such as 24000/1001.

    Raises:
        TimelineError: There is no such rate.
    """
    if not 1 <= frames_per_second <= 1000:  # which is also false for NaN
        raise TimelineError(f"states {frames_per_second:g} frames per second, which is no rate")
    whole = round(frames_per_second)
    for rate in (Fraction(whole), Fraction(1000 * whole, 1001)):
        if abs(float(rate) / frames_per_second - 1) < 0.0003:
            return rate
    return Fraction(frames_per_second).limit_denominator(1001)


class _Stack:
    """The items of one track, by time."""

    def __init__(self, items: Iterable[Item]) -> None:
        self._items = sorted(items, key=lambda item: item.start)
        self._starts = [item.start for item in self._items]

    def _around(self, at: Fraction) -> Iterator[Item]:
        """Yield the item, if any, that is there before and after a time."""
        number = bisect_left(self._starts, at) - 1
        if number >= 0 and self._items[number].end > at:
            yield self._items[number]

    def covers(self, at: Fraction) -> bool:
        """Tell whether moving pictures go on at a time."""
        return any(item.covers for item in self._around(at))

    def shows(self, at: Fraction) -> bool:
        """Tell whether anything goes on at a time."""
        return any(True for _ in self._around(at))


def _with_early_transitions(track: Track) -> Track:
    """Move the ends of items that lie in a transition to its beginning."""
    transitions = sorted(track.transitions)
    starts = [start for start, _ in transitions]

    def moved(at: Fraction) -> Fraction:
        number = bisect_right(starts, at) - 1
        return starts[number] if number >= 0 and at <= transitions[number][1] else at

    return Track(
        tuple(
            replace(item, start=moved(item.start), end=max(moved(item.start), moved(item.end)))
            for item in track.items
        )
    )
