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
    shifted, all streams have times, no file was appended, and no codec changes.
    """
    late: frozenset[int] = frozenset()
    """The indices of the streams that begin after the part of the file in which libavformat looks
    for streams.
    """
    untimed: Mapping[int, Fraction] = field(default_factory=dict)
    """The index of a picture or sound of which no packet has a time -> the time in seconds, after
    the repair, at which it begins: together with the others.
    """
    of_other_codec: Mapping[int, tuple[range, ...]] = field(default_factory=dict)
    """The index of a sound that changes its codec -> the numbers of its packets, among those of its
    stream, that are of another codec than the first ones. They cannot be copied with these.
    """
    notes: tuple[str, ...] = ()
    """Notices for the user about the repair, one sentence each."""

    @property
    def is_plain(self) -> bool:
        """Whether ffmpeg can read all streams of the file with the right times by itself."""
        return not (self.durations_seconds or self.late)


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
            empty packets pass unchanged. Where a shift has a part of a tick, the packet gets a
            finer clock (`time_base`).
        shifts: The index of a stream -> its shifts.

    Yields:
        The packets.
    """
    left = {index: list(reversed(own)) for index, own in shifts.items() if own}
    numbers, current = Counter[int](), dict.fromkeys(left, TimeShift(0, 0))
    for packet in packets:
        if packet is not None and packet.size and (index := packet.stream_index) in left:
            while left[index] and left[index][-1].packet <= numbers[index]:
                current[index] = left[index].pop()
            numbers[index] += 1
            ticks, rest = current[index].ticks, current[index].rest
            if ticks and packet.is_discard:
                packet = copy_of(packet, bytes(packet))
            if packet.pts is not None:
                packet.pts += ticks
            if packet.dts is not None:
                packet.dts += ticks
            if rest:
                _add_rest(packet, rest)
        yield packet


def _add_rest(packet: Any, rest: Fraction) -> None:
    """Add a part of a tick to the times of a packet, in a clock that has it."""
    finer = rest.denominator
    for name in ("pts", "dts"):
        if (time := getattr(packet, name)) is not None:
            setattr(packet, name, time * finer + rest.numerator)
    packet.duration = (packet.duration or 0) * finer
    packet.time_base = Fraction(packet.time_base) / finer


def copy_of(packet: Any, data: bytes) -> Any:
    """Copy a packet with other data; the decoder gives out the frames of the copy.

    Args:
        packet: A PyAV packet.
        data: The data of the copy.

    Returns:
        The copy.
    """
    copy: Any = av.Packet(data)
    copy.stream, copy.time_base = packet.stream, packet.time_base
    copy.pts, copy.dts, copy.duration = packet.pts, packet.dts, packet.duration
    copy.is_keyframe = packet.is_keyframe
    for entry in packet.iter_sidedata():
        copy.set_sidedata(entry)
    return copy
