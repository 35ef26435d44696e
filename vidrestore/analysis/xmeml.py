"""Reading of the XML of Final Cut Pro 7 (xmeml), which Premiere Pro and DaVinci Resolve write.

Terms are those of "Final Cut Pro XML Interchange Format", developer.apple.com. Times are whole
frames, at the rate of the next element around them that states one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import compress
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
    within,
)
from vidrestore.common.quoting import quoted

_UNKNOWN = -1
"""Stands in place of a start or an end that lies in a transition."""
_LONG = Fraction(10**9)


def read(root: Element) -> Timeline:
    """Read the only sequence of a document, apart from those that are nested in it.

    Args:
        root: The root element, xmeml.

    Returns:
        The timeline.

    Raises:
        TimelineError: The document holds no sequence, or several, or is not as the reference says.
    """
    reader = _Reader()
    for element in root.iter():
        name = element.get("id")
        if name is not None and len(element):
            reader.known.setdefault((element.tag, name), element)
    nested = {
        reader.whole(inside)
        for item in root.iter("clipitem")
        if (inside := item.find("sequence")) is not None
    }
    sequences = [
        each
        for each in root.iter("sequence")
        if each not in nested and each.find("media") is not None
    ]
    if not sequences:
        raise TimelineError("holds no sequence; export the sequence itself")
    if len(sequences) > 1:
        names = ", ".join(quoted(each.findtext("name", "")) for each in sequences[:3])
        raise TimelineError(
            f"holds {len(sequences)} sequences, such as {names}; export one of them"
        )
    rate = _rate(sequences[0], None)
    return Timeline(tuple(reader.tracks(sequences[0], rate, 0)), rate)


@dataclass(slots=True)
class _Reader:
    """Reads the sequences of one document."""

    known: dict[tuple[str, str], Element] = field(default_factory=dict)
    """(tag, id) -> the first element that has content; others with that id stand for it."""
    nested: dict[int, Cuts] = field(default_factory=dict)
    """The cuts of the sequences that were read, by the identity of the element."""
    count: int = 0
    """The number of items, and of the cuts in nested sequences as often as each is shown."""

    def whole(self, element: Element) -> Element:
        """Return the element that an empty one with the same id stands for."""
        name = element.get("id")
        if name is None or len(element):
            return element
        return self.known.get((element.tag, name), element)

    def tracks(self, sequence: Element, rate: Fraction, depth: int) -> Iterator[Track]:
        """Yield the tracks of pictures of a sequence, the lowest first."""
        for track in sequence.findall("media/video/track"):
            if _is_on(track):
                yield self._track(track, rate, depth)

    def _track(self, track: Element, rate: Fraction, depth: int) -> Track:
        """Read a track; a clip that begins or ends in a transition does so at its beginning."""
        items, transitions = list[Item](), list[tuple[Fraction, Fraction]]()
        is_on = list[bool]()
        pending: tuple[Fraction, Fraction] | None = None
        for given in track:
            if given.tag not in ("clipitem", "generatoritem", "transitionitem"):
                continue
            element = self.whole(given)
            start, end = _frames(element, "start"), _frames(element, "end")
            if element.tag == "transitionitem":
                pending = Fraction(start) / rate, Fraction(end) / rate
                transitions.append(pending)
                if items and items[-1].end < 0:
                    items[-1] = _until(items[-1], pending[0])
                continue
            if start == _UNKNOWN:
                if pending is None:
                    raise TimelineError(f"has {_named(element)} that begins in no transition")
                begin = pending[0]
            else:
                begin = Fraction(start) / rate
            stop = Fraction(_UNKNOWN) if end == _UNKNOWN else Fraction(end) / rate
            if 0 <= stop < begin:
                raise TimelineError(f"has {_named(element)} that ends before it begins")
            if items and items[-1].end < 0:
                raise TimelineError(
                    f"has a clip before {_named(element)} that ends in no transition"
                )
            self.count += 1
            check_count(self.count)
            items.append(self._item(element, begin, stop, rate, depth))
            is_on.append(_is_on(element))
        if items and items[-1].end < 0:
            raise TimelineError("has a clip at the end of a track that ends in no transition")
        return Track(tuple(compress(items, is_on)), tuple(transitions))

    def _item(
        self, element: Element, start: Fraction, end: Fraction, rate: Fraction, depth: int
    ) -> Item:
        """Return the item of a clip or a generator."""
        inside = element.find("sequence")
        if inside is None:
            return Item(start, end, covers=self._is_moving(element))
        sequence = self.whole(inside)
        if depth >= DEEPEST:
            raise TimelineError(f"nests its timelines more than {DEEPEST} deep")
        inner_rate = _rate(sequence, rate)
        if id(sequence) not in self.nested:
            self.nested[id(sequence)] = cuts_of(tuple(self.tracks(sequence, inner_rate, depth + 1)))
        origin = Fraction(_frames(element, "in", 0)) / _rate(element, rate)
        item = Item(start, start + _LONG if end < 0 else end, covers=True)
        item = within(self.nested[id(sequence)], item, origin, _speed(element))
        self.count += len(item.inner.certain) + len(item.inner.doubtful)
        check_count(self.count)
        return replace(item, end=end)

    def _is_moving(self, element: Element) -> bool:
        """Tell whether an element shows moving pictures of a file."""
        given = element.find("file")
        if element.tag != "clipitem" or given is None:
            return False
        file = self.whole(given)
        names = [file.findtext("pathurl", ""), file.findtext("name", "")]
        return bool(names[0]) and not any(map(is_still, names))


def _until(item: Item, end: Fraction) -> Item:
    """Return an item of unknown end with its end."""
    inner = Cuts(
        tuple(at for at in item.inner.certain if at < end),
        tuple((a, min(b, end)) for a, b in item.inner.doubtful if a < end),
    )
    return replace(item, end=max(item.start, end), inner=inner)


def _is_on(element: Element) -> bool:
    """Tell whether a track or a clip is enabled."""
    return element.findtext("enabled", "TRUE").strip().upper() != "FALSE"


def _speed(element: Element) -> Fraction | None:
    """Return how fast a clip runs, 1 as it is; None where that is not constant, or backward."""
    for effect in element.iterfind("filter/effect"):
        if effect.findtext("effectid", "").strip().lower() != "timeremap":
            continue
        values = {
            each.findtext("parameterid", "").strip().lower(): each.findtext("value", "").strip()
            for each in effect.iterfind("parameter")
        }
        if values.get("variablespeed", "0") not in ("0", "FALSE"):
            return None
        if values.get("reverse", "FALSE").upper() not in ("0", "FALSE"):
            return None
        percent = values.get("speed", "100")
        if re.fullmatch(r"[0-9]{1,6}(?:\.[0-9]{1,9})?", percent) is None or float(percent) == 0:
            return None
        return Fraction(percent) / 100
    return Fraction(1)


def _rate(element: Element, otherwise: Fraction | None) -> Fraction:
    """Return the frames per second that an element states; else `otherwise`."""
    timebase = element.findtext("rate/timebase")
    if timebase is None:
        if otherwise is None:
            raise TimelineError(f"has {_named(element)} without a rate")
        return otherwise
    if re.fullmatch(r"[0-9]{1,4}", timebase.strip()) is None or not 1 <= int(timebase) <= 1000:
        raise TimelineError(f"has {quoted(timebase)} for a timebase, which is no rate")
    ntsc = element.findtext("rate/ntsc", "FALSE").strip().upper() == "TRUE"
    return Fraction(int(timebase) * 1000, 1001) if ntsc else Fraction(int(timebase))


def _frames(element: Element, tag: str, otherwise: int | None = None) -> int:
    """Return a number of frames that an element states."""
    text = element.findtext(tag)
    if text is None and otherwise is not None:
        return otherwise
    if text is None or re.fullmatch(r"-?[0-9]{1,12}(?:\.0*)?", text.strip()) is None:
        raise TimelineError(f"has {_named(element)} whose {tag} is {quoted(text)}, not a frame")
    number = int(float(text))
    if number < _UNKNOWN:
        raise TimelineError(f"has {_named(element)} whose {tag} is {number}, before its sequence")
    return number


def _named(element: Element) -> str:
    """Name an element for a message."""
    name = element.findtext("name")
    return f"an element {element.tag}" if name is None else f"the {element.tag} {quoted(name)}"
