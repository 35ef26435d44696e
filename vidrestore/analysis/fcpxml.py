"""Reading of FCPXML, the timelines of Final Cut Pro; DaVinci Resolve and others write it, too.

Terms and rules are those of "FCPXML Reference", developer.apple.com. Times are rational numbers of
seconds. `offset` is a place in the time of the parent, `start` the time that the element itself has
there. The time of a sequence begins at its time code, `tcStart`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from xml.etree.ElementTree import Element

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
    unknown_within,
    within,
)
from vidrestore.common.quoting import quoted

_TIME = re.compile(r"(-?[0-9]{1,20})(?:/([0-9]{1,20}))?s|(-?[0-9]{1,12}\.[0-9]{1,12})s")
# Elements that take time in a storyline; all others describe one of these.
_STORY = (
    "asset-clip", "audio", "audition", "clip", "gap", "mc-clip", "ref-clip", "sync-clip", "title",
    "video",
)  # fmt: skip


def read(root: Element) -> Timeline:
    """Read the only project of a document.

    Args:
        root: The root element, fcpxml.

    Returns:
        The timeline.

    Raises:
        TimelineError: The document holds no project, or several, or is not as the reference says.
    """
    projects = list(root.iter("project"))
    sequences = [each for each in projects if each.find("sequence") is not None]
    if not sequences:
        raise TimelineError("holds no project with a sequence; export the project itself")
    if len(sequences) > 1:
        names = ", ".join(quoted(each.get("name", "")) for each in sequences[:3])
        raise TimelineError(f"holds {len(sequences)} projects, such as {names}; export one of them")
    resources = {
        name: each
        for group in root.iter("resources")
        for each in group
        if (name := each.get("id")) is not None
    }
    sequence = _child(sequences[0], "sequence")
    reader = _Reader(resources)
    lanes = reader.lanes_of(sequence, 0)
    return Timeline(lanes.tracks(), reader.rate(sequence))


@dataclass(slots=True)
class _Lanes:
    """The items of a timeline that is being read, by their lanes; 0 is the primary storyline."""

    items: defaultdict[int, list[Item]] = field(default_factory=lambda: defaultdict(list))
    transitions: defaultdict[int, list[tuple[Fraction, Fraction]]] = field(
        default_factory=lambda: defaultdict(list)
    )

    def tracks(self) -> tuple[Track, ...]:
        """Return the tracks, the lowest first."""
        return tuple(
            Track(
                tuple(sorted(self.items[lane], key=lambda item: item.start)),
                tuple(self.transitions[lane]),
            )
            for lane in sorted(self.items)
        )


@dataclass(slots=True)
class _Reader:
    """Reads the sequences of one document."""

    resources: dict[str, Element]
    """The id of each resource -> the resource."""
    nested: dict[int, Cuts] = field(default_factory=dict)
    """The cuts of the sequences and the angles that were read, by the identity of the element."""
    count: int = 0
    """The number of items, and of the cuts in nested timelines as often as each is shown."""

    def rate(self, sequence: Element) -> Fraction | None:
        """Return the frames per second of a sequence; None where its format does not state them."""
        frame = self._resource(sequence, "format")
        text = None if frame is None else frame.get("frameDuration")
        if text is None:
            return None
        seconds = _seconds(text, "frameDuration")
        if not Fraction(1, 1000) <= seconds <= 1:
            raise TimelineError(f"states {quoted(text)} for the duration of a frame")
        return 1 / seconds

    def lanes_of(self, sequence: Element, depth: int) -> _Lanes:
        """Read the items of a sequence; times count from its start."""
        lanes = _Lanes()
        begin = _time(sequence, "tcStart", Fraction(0))
        self._storyline(_child(sequence, "spine"), Fraction(0), begin, 0, lanes, depth)
        return lanes

    def _storyline(
        self,
        elements: Iterable[Element],
        base: Fraction,
        origin: Fraction,
        lane: int,
        lanes: _Lanes,
        depth: int,
    ) -> None:
        """Read elements that follow each other; `origin` is the time of their parent at `base`."""
        at = base
        for element in elements:
            if element.tag == "transition":
                duration = _time(element, "duration")
                middle = origin + at - base
                start = base + _time(element, "offset", middle - duration / 2) - origin
                lanes.transitions[lane].append((start, start + duration))
            elif element.tag in _STORY:
                start = base + _time(element, "offset", origin + at - base) - origin
                at = start + self._place(element, start, lane, lanes, depth)

    def _place(
        self, element: Element, start: Fraction, lane: int, lanes: _Lanes, depth: int
    ) -> Fraction:
        """Read one element and all that is anchored to it; return its duration."""
        shown = element
        if element.tag == "audition":
            choices = [each for each in element if each.tag in _STORY]
            if not choices:
                raise TimelineError("has an audition without clips")
            shown = choices[0]  # the active one
        duration = self._duration(shown)
        if duration < 0:
            raise TimelineError(f"has {_named(shown)} that ends before it begins")
        if shown.get("enabled", "1") != "0":
            item = self._item(shown, start, start + duration, depth)
            if item is not None and duration:
                lanes.items[lane].append(item)
                self.count += 1
                check_count(self.count)
        own = self._start(shown, duration)
        for child in shown:
            if (number := _lane(child)) == 0:
                continue
            at = start + _time(child, "offset", own) - own
            if child.tag == "spine":
                self._storyline(child, at, Fraction(0), lane + number, lanes, depth)
            elif child.tag in _STORY:
                self._place(child, at, lane + number, lanes, depth)
        return duration

    def _item(self, element: Element, start: Fraction, end: Fraction, depth: int) -> Item | None:
        """Return the item that an element shows; None where it shows nothing."""
        tag = element.tag
        if tag in ("gap", "audio") or element.get("srcEnable") == "audio":
            return None
        if tag == "title":
            return Item(start, end, covers=False)
        if tag in ("asset-clip", "video"):
            return self._media_item(element, start, end)
        if tag == "clip":
            videos = [each for each in element.iter("video") if _lane(each) == 0]
            return self._media_item(videos[0], start, end) if videos else None
        item = Item(start, end, covers=True)
        if tag == "sync-clip":
            return item
        cuts = self._nested(element, depth + 1)
        if cuts is None:  # the document lacks what it shows
            return unknown_within(item)
        item = within(cuts, item, *self._window(element))
        self.count += len(item.inner.certain) + len(item.inner.doubtful)
        check_count(self.count)
        return item

    def _window(self, element: Element) -> tuple[Fraction, Fraction | None]:
        """Return where in a nested timeline an element begins, and how fast that runs."""
        start, begin = self._start(element, Fraction(0)), self._origin(element)
        times = element.find("timeMap")
        if times is None:
            return start - begin, Fraction(1)
        points = [(_time(each, "time"), _time(each, "value")) for each in times.iter("timept")]
        if len(points) != 2 or points[0][0] >= points[1][0]:
            return start - begin, None  # the speed changes
        (first, value), (last, end) = points
        speed = (end - value) / (last - first)
        return value + (start - first) * speed - begin, speed

    def _media_item(self, element: Element, start: Fraction, end: Fraction) -> Item | None:
        """Return the item of an element that shows an asset, or the picture of an effect."""
        asset = self._resource(element, "ref")
        if asset is None or asset.tag != "asset":
            return Item(start, end, covers=False)
        if asset.get("hasVideo", "0") != "1" and asset.get("hasAudio", "0") == "1":
            return None
        names = [asset.get("src", ""), *(each.get("src", "") for each in asset.iter("media-rep"))]
        is_moving = _time(asset, "duration", Fraction(1)) > 0 and not any(map(is_still, names))
        return Item(start, end, covers=is_moving)

    def _nested(self, element: Element, depth: int) -> Cuts | None:
        """Return the cuts of the sequence or of the angle that an element shows, if it is there."""
        if depth > DEEPEST:
            raise TimelineError(f"nests its timelines more than {DEEPEST} deep")
        content = self._content(element)
        if content is None:
            return None
        if id(content) not in self.nested:
            if content.tag == "sequence":
                lanes = self.lanes_of(content, depth)
            else:
                lanes = _Lanes()
                self._storyline(content, Fraction(0), self._origin(element), 0, lanes, depth)
            self.nested[id(content)] = cuts_of(lanes.tracks())
        return self.nested[id(content)]

    def _content(self, element: Element) -> Element | None:
        """Return the sequence of a compound clip, or the angle that a multicam clip shows."""
        media = self._resource(element, "ref")
        if media is None:
            return None
        if (sequence := media.find("sequence")) is not None:
            return sequence
        chosen = [
            each.get("angleID")
            for each in element.iter("mc-source")
            if each.get("srcEnable", "all") in ("all", "video")
        ]
        angles = [a for a in media.iter("mc-angle") if not chosen or a.get("angleID") in chosen]
        return angles[0] if angles else None

    def _origin(self, element: Element) -> Fraction:
        """Return the time at which the timeline that an element shows begins."""
        media = self._resource(element, "ref")
        inside = None if media is None else media.find("sequence")
        if inside is None and media is not None:
            inside = media.find("multicam")
        return Fraction(0) if inside is None else _time(inside, "tcStart", Fraction(0))

    def _start(self, element: Element, duration: Fraction) -> Fraction:
        """Return the time that an element itself has where it begins.

        Where it states none, that is the beginning of what it shows, or 0 for programs that count
        from there: what is anchored to it lies in its time.
        """
        if element.get("start") is not None:
            return _time(element, "start")
        start = Fraction(0)
        if element.tag in ("ref-clip", "mc-clip"):
            start = self._origin(element)
        elif (asset := self._resource(element, "ref")) is not None and asset.tag == "asset":
            start = _time(asset, "start", Fraction(0))
        places = [_time(each, "offset", start) for each in element if _lane(each) != 0]
        is_before = bool(places) and min(places) < start and max(places) <= duration
        return Fraction(0) if is_before else start

    def _duration(self, element: Element) -> Fraction:
        """Return the duration of an element; where it states none, that of what it shows."""
        if element.get("duration") is not None:
            return _time(element, "duration")
        media = self._resource(element, "ref")
        inside = None if media is None else media.find("sequence")
        for each in (media, inside):
            if each is not None and each.get("duration") is not None:
                return _time(each, "duration")
        raise TimelineError(f"has {_named(element)} without a duration")

    def _resource(self, element: Element, attribute: str) -> Element | None:
        """Return the resource that an attribute names; None where there is none."""
        return self.resources.get(element.get(attribute, ""))


def _child(element: Element, tag: str) -> Element:
    found = element.find(tag)
    if found is None:
        raise TimelineError(f"has {_named(element)} without a {tag}")
    return found


def _named(element: Element) -> str:
    """Name an element for a message."""
    name = element.get("name")
    return f"an element {element.tag}" if name is None else f"the {element.tag} {quoted(name)}"


def _lane(element: Element) -> int:
    """Return the lane of an anchored element; 0 for one that is contained."""
    text = element.get("lane", "0")
    if re.fullmatch(r"-?[0-9]{1,6}", text) is None:
        raise TimelineError(f"has {quoted(text)} for a lane")
    return int(text)


def _time(element: Element, attribute: str, otherwise: Fraction | None = None) -> Fraction:
    """Return a time of an element, in seconds; `otherwise` where it states none."""
    text = element.get(attribute)
    if text is None and otherwise is not None:
        return otherwise
    if text is None:
        raise TimelineError(f"has {_named(element)} without {attribute}")
    return _seconds(text, attribute)


def _seconds(text: str, attribute: str) -> Fraction:
    """Parse a time such as 1001/30000s or 5s."""
    match = _TIME.fullmatch(text)
    if match is None or (match[2] is not None and int(match[2]) == 0):
        raise TimelineError(f"has {quoted(text)} for {attribute}, which is no time")
    return Fraction(match[3]) if match[3] else Fraction(int(match[1]), int(match[2] or 1))
