"""The time line of a file: the shifts that let the times of all its streams rise without jumps.

`media.discontinuities` finds the shifts. Decoding and the copying of sound and subtitles apply them
to the packets of the file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import av

from vidrestore.imaging.frame import TimeShift


@dataclass(frozen=True, slots=True)
class TimeLine:
    """The repair of the times of all streams of a file; empty where none is needed."""

    shifts: Mapping[int, tuple[TimeShift, ...]] = field(default_factory=dict)
    """The index of a stream -> the shifts of its times, in the order of the file."""
    joins_seconds: tuple[float, ...] = ()
    """The times at which one recording ends and the next one begins, in seconds from the first
    frame of the main video stream.
    """
    durations_seconds: Mapping[int, float] = field(default_factory=dict)
    """The index of a stream that has times -> its duration after the repair; empty where nothing is
    shifted and all streams have times.
    """
    late: frozenset[int] = frozenset()
    """The indices of the streams that begin after the part of the file in which libavformat looks
    for streams.
    """
    untimed: Mapping[int, Fraction] = field(default_factory=dict)
    """The index of a picture or sound of which no packet has a time -> the time in seconds, after
    the repair, at which it begins: together with the others.
    """
    notes: tuple[str, ...] = ()
    """Notices for the user about the repair, one sentence each."""

    @property
    def is_plain(self) -> bool:
        """Whether ffmpeg can read all streams of the file with the right times by itself."""
        return not (self.shifts or self.late or self.untimed)


NOTHING_TO_REPAIR = TimeLine()
"""The time line of a file whose times are right."""


def begin_pts(stream: Any, shifts: Sequence[TimeShift]) -> int:
    """Return the time at which a stream begins.

    Args:
        stream: A PyAV stream.
        shifts: The shifts of its times.

    Returns:
        The time in the time_base of the stream.
    """
    first = shifts[0].ticks if shifts and shifts[0].packet == 0 else 0
    return int(stream.start_time or 0) + first


def with_shifts(packets: Iterable[Any], shifts: Mapping[int, Sequence[TimeShift]]) -> Iterator[Any]:
    """Shift the times of packets as a time line says.

    Of fragmented mp4 files that were joined, libavformat lets decoders drop the frames whose times
    lie before those of the frames before; where these are shifted, they are shown.

    Args:
        packets: The packets of one or more streams, from the beginning of the file on. None and
            empty packets pass unchanged.
        shifts: The index of a stream -> its shifts.

    Yields:
        The packets.
    """
    left = {index: list(reversed(own)) for index, own in shifts.items() if own}
    numbers, ticks = Counter[int](), Counter[int]()
    for packet in packets:
        if packet is not None and packet.size and (index := packet.stream_index) in left:
            while left[index] and left[index][-1].packet <= numbers[index]:
                ticks[index] = left[index].pop().ticks
            numbers[index] += 1
            if ticks[index] and packet.is_discard:
                packet = _shown(packet)
            if packet.pts is not None:
                packet.pts += ticks[index]
            if packet.dts is not None:
                packet.dts += ticks[index]
        yield packet


def _shown(packet: Any) -> Any:
    """Return a copy of a packet whose frames the decoder gives out."""
    copy: Any = av.Packet(bytes(packet))
    copy.stream, copy.time_base = packet.stream, packet.time_base
    copy.pts, copy.dts, copy.duration = packet.pts, packet.dts, packet.duration
    copy.is_keyframe = packet.is_keyframe
    for entry in packet.iter_sidedata():
        copy.set_sidedata(entry)
    return copy
