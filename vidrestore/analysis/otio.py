"""Reading and writing of .otio files, the timelines of OpenTimelineIO.

The library only reads and writes the format. Its adapters and plugins, which may be any code that
an environment variable or a package names, are never loaded.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from vidrestore.analysis.timeline import (
    DEEPEST,
    Cuts,
    Item,
    Timeline,
    TimelineError,
    Track,
    check_count,
    cuts_of,
    is_still,
    rate_of,
    unknown_within,
    within,
)
from vidrestore.common.errors import ConfigError, OutputError
from vidrestore.common.files import output_file
from vidrestore.common.handled import log_handled
from vidrestore.common.quoting import quoted, shortened

_DEEPEST_JSON = 250
_MOST_VALUE = 1e12


def library() -> Any:
    """Import OpenTimelineIO.

    Returns:
        The module.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        import opentimelineio
    except ImportError as error:
        raise ConfigError(
            "a timeline in .otio needs OpenTimelineIO, which is not installed; run pip install "
            "'vidrestore[otio]'"
        ) from error
    return opentimelineio


def read(text: str) -> Timeline:
    """Read the only timeline of a file.

    Args:
        text: The content of the file.

    Returns:
        The timeline.

    Raises:
        ConfigError: OpenTimelineIO is not installed.
        TimelineError: The text is no timeline, or one that vidrestore cannot read.
    """
    otio = library()
    _check_depth(text)
    try:
        found = otio.core.deserialize_json_from_string(text)
    except Exception as error:  # its exceptions are of many kinds
        log_handled(error)
        raise TimelineError(f"cannot be read by OpenTimelineIO: {shortened(str(error))}") from error
    timelines = list(_timelines(found, otio))
    if not timelines:
        raise TimelineError("holds no timeline; export the timeline itself")
    if len(timelines) > 1:
        names = ", ".join(quoted(each.name) for each in timelines[:3])
        raise TimelineError(
            f"holds {len(timelines)} timelines, such as {names}; export one of them"
        )
    reader = _Reader(otio)
    tracks = reader.tracks(timelines[0].tracks, 0)
    return Timeline(tracks, reader.rate(timelines[0]))


def _check_depth(text: str) -> None:
    """Raise TimelineError for JSON that is nested so deeply that the library would crash."""
    try:
        level = [json.loads(text)]
    except (ValueError, RecursionError) as error:
        log_handled(error)
        why = "is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise TimelineError(f"is not valid JSON: {shortened(why)}") from error
    for _ in range(_DEEPEST_JSON + 1):
        level = [each for each in level if isinstance(each, dict | list)]
        if not level:
            return
        level = [
            inner for each in level for inner in (each.values() if isinstance(each, dict) else each)
        ]
    raise TimelineError(f"nests its objects more than {_DEEPEST_JSON} deep")


def _timelines(found: Any, otio: Any) -> Iterator[Any]:
    """Yield the timelines in what a file holds: one, or a collection of them."""
    if isinstance(found, otio.schema.Timeline):
        yield found
    elif isinstance(found, otio.schema.SerializableCollection):
        for each in found:
            if isinstance(each, otio.schema.Timeline):
                yield each


@dataclass(slots=True)
class _Reader:
    """Reads the compositions of one file."""

    otio: Any
    """The module of the library."""
    count: int = 0
    """The number of items, and of the cuts in nested timelines as often as each is shown."""

    def rate(self, timeline: Any) -> Fraction | None:
        """Return the rate that most items of the lowest track have, else that of the start."""
        rates: Counter[Fraction] = Counter()
        for track in self._video_tracks(timeline.tracks):
            for child in track:
                length = getattr(child, "source_range", None)
                if length is not None:
                    rates[rate_of(length.duration.rate)] += 1
        if (start := timeline.global_start_time) is not None and start.rate > 0:
            return rate_of(start.rate)
        return rates.most_common(1)[0][0] if rates else None

    def tracks(self, stack: Any, depth: int) -> tuple[Track, ...]:
        """Return the tracks of pictures of a stack, the lowest first."""
        if stack is None:
            raise TimelineError("has no tracks")
        if depth > DEEPEST:
            raise TimelineError(f"nests its timelines more than {DEEPEST} deep")
        return tuple(self._track(each, depth) for each in self._video_tracks(stack))

    def _video_tracks(self, stack: Any) -> Iterator[Any]:
        """Yield the enabled tracks of pictures; an item beside them makes a track of its own."""
        for child in stack:
            is_sound = isinstance(child, self.otio.schema.Track) and child.kind == "Audio"
            if child.enabled and not is_sound:
                yield child if isinstance(child, self.otio.schema.Track) else [child]

    def _track(self, track: Any, depth: int) -> Track:
        """Read a track."""
        items, transitions = list[Item](), list[tuple[Fraction, Fraction]]()
        trim = getattr(track, "source_range", None)
        begin = Fraction(0) if trim is None else _seconds(trim.start_time)
        at = -begin
        for child in track:
            if isinstance(child, self.otio.schema.Transition):
                before, after = _seconds(child.in_offset), _seconds(child.out_offset)
                transitions.append((at - before, at + after))
                continue
            length = self._length(child)
            if length < 0:
                raise TimelineError(f"has {_named(child)} of negative length")
            item = self._item(child, at, at + length, depth)
            if item is not None and length:
                items.append(item)
                self.count += 1
                check_count(self.count)
            at += length
        if trim is not None:
            end = _seconds(trim.duration)
            items = [_clipped(item, end) for item in items if item.end > 0 and item.start < end]
        return Track(tuple(items), tuple(transitions))

    def _length(self, child: Any, depth: int = 0) -> Fraction:
        """Return the length of an item on its track, in seconds."""
        if depth > DEEPEST:
            raise TimelineError(f"nests its timelines more than {DEEPEST} deep")
        if (given := child.source_range) is not None:
            return _seconds(given.duration)
        if isinstance(child, self.otio.schema.Clip):
            media = child.media_reference
            available = None if media is None else media.available_range
            if available is None:
                raise TimelineError(f"has {_named(child)} without a length")
            return _seconds(available.duration)
        if isinstance(child, self.otio.schema.Track):
            lengths = (
                self._length(each, depth + 1)
                for each in child
                if not isinstance(each, self.otio.schema.Transition)
            )
            return sum(lengths, Fraction(0))
        if isinstance(child, self.otio.schema.Stack):
            return max((self._length(each, depth + 1) for each in child), default=Fraction(0))
        raise TimelineError(f"has {_named(child)} without a length")

    def _item(self, child: Any, start: Fraction, end: Fraction, depth: int) -> Item | None:
        """Return what a child of a track shows; None where it shows nothing."""
        schema = self.otio.schema
        if isinstance(child, schema.Gap) or not child.enabled:
            return None
        if isinstance(child, schema.Clip):
            return Item(start, end, covers=self._is_moving(child.media_reference))
        item = Item(start, end, covers=True)
        if isinstance(child, schema.Stack):
            tracks = self.tracks(child, depth + 1)
        elif isinstance(child, schema.Track):
            tracks = self.tracks([child], depth + 1)
        else:
            return replace(item, covers=False)
        return self._with_nested(child, item, tracks)

    def _with_nested(self, child: Any, item: Item, tracks: Sequence[Track]) -> Item:
        """Return the item of a nested timeline with the cuts that it shows."""
        trim, is_track = child.source_range, isinstance(child, self.otio.schema.Track)
        # The times of the items of a track count from the start of its own range already.
        origin = Fraction(0) if trim is None or is_track else _seconds(trim.start_time)
        last = max((each.end for track in tracks for each in track.items), default=Fraction(0))
        if last == 0 or origin >= last:
            item = unknown_within(item)  # its content is not in the file, or counts otherwise
        else:
            item = within(cuts_of(tracks), item, origin, self._speed(child))
        self.count += len(item.inner.certain) + len(item.inner.doubtful)
        check_count(self.count)
        return item

    def _speed(self, child: Any) -> Fraction | None:
        """Return how fast an item runs, 1 as it is; None where that is not constant."""
        speed = Fraction(1)
        for effect in child.effects:
            if isinstance(effect, self.otio.schema.LinearTimeWarp):
                scalar = effect.time_scalar
                if not 0.001 <= scalar <= 1000:  # which is also false for NaN
                    return None
                speed *= Fraction(scalar).limit_denominator(10**6)
            elif isinstance(effect, self.otio.schema.TimeEffect):
                return None
        return speed

    def _is_moving(self, media: Any) -> bool:
        """Tell whether a reference leads to moving pictures."""
        if isinstance(media, self.otio.schema.ImageSequenceReference):
            return True
        is_file = isinstance(media, self.otio.schema.ExternalReference)
        return is_file and not is_still(media.target_url or "")


def _clipped(item: Item, end: Fraction) -> Item:
    """Return an item between 0 and `end`."""
    inner = Cuts(
        tuple(at for at in item.inner.certain if 0 < at < end),
        tuple((max(a, Fraction(0)), min(b, end)) for a, b in item.inner.doubtful
              if b > 0 and a < end),
    )  # fmt: skip
    return replace(item, start=max(item.start, Fraction(0)), end=min(item.end, end), inner=inner)


def _seconds(time: Any) -> Fraction:
    """Return a time of the library, exactly."""
    if not (math.isfinite(time.value) and abs(time.value) <= _MOST_VALUE):
        raise TimelineError(f"has a time of {time.value:g} frames")
    return Fraction(time.value) / rate_of(time.rate)


def _named(child: Any) -> str:
    """Name an item for a message."""
    kind = type(child).__name__.lower()
    return f"the {kind} {quoted(child.name)}" if child.name else f"an item of the kind {kind}"


def write_cuts(
    path: Path,
    shots: Sequence[tuple[int, int]],
    counts: Sequence[int],
    rate: Fraction,
    source: Path,
) -> None:
    """Write a timeline with one clip for each shot.

    Args:
        path: The file to write.
        shots: The shots, half-open [start, end) in frames.
        counts: The number of nominal frames before each frame, and before the end, as of
            `edl.nominal_counts`.
        rate: The nominal frames per second.
        source: The video.

    Raises:
        ConfigError: OpenTimelineIO is not installed.
        OutputError: The file cannot be written.
    """
    otio = library()
    schema, time = otio.schema, otio.opentime

    def span(start: int, end: int) -> Any:
        at, length = (time.RationalTime(count, float(rate)) for count in (start, end - start))
        return time.TimeRange(at, length)

    track = schema.Track(name="V1", kind=schema.TrackKind.Video)
    for number, (start, end) in enumerate(shots, 1):
        media = schema.ExternalReference(
            target_url=source.absolute().as_uri(), available_range=span(0, counts[-1])
        )
        track.append(
            schema.Clip(
                name=f"{source.stem} {number}",
                media_reference=media,
                source_range=span(counts[start], counts[end]),
            )
        )
    timeline = schema.Timeline(name=source.stem)
    timeline.global_start_time = time.RationalTime(0, float(rate))
    timeline.tracks.append(track)
    try:
        text = otio.core.serialize_json_to_string(timeline, indent=4)
    except ValueError as error:
        raise OutputError(
            f"the timeline {path} cannot be written: {shortened(str(error))}"
        ) from error
    with output_file(path, "the timeline") as part:
        part.write_text(text, encoding="utf-8")
