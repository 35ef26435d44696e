"""Finds the places where the times of a file jump, and the shifts that repair them.

Recordings that were joined byte by byte, the cells of a DVD and interrupted broadcasts have times
that go back where one part ends and the next one begins. All streams jump there, each at a packet
of its own. vidrestore reads the times of all packets once and shifts those of all streams of a part
by the same amount, so that the part begins where the part before it ends. Sound and picture of a
part keep their distance.

A run is a series of packets of one stream whose times rise without a jump; a piece is a run with
its times in seconds. A jump is the beginning of a piece whose times go back, or which comes long
after the end of the piece before it. A join is a place where all streams jump that are there.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice, pairwise
from math import ceil, floor
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import av

from vidrestore.common.counting import counted
from vidrestore.common.errors import InputError
from vidrestore.common.timecode import duration_text, time_text
from vidrestore.imaging.frame import TimeShift
from vidrestore.media.appended import MOV, may_go_on
from vidrestore.media.description import description, stream_count
from vidrestore.media.packets import Unlike, read_files
from vidrestore.media.source import is_headerless, main_video_stream, open_source, path_of
from vidrestore.media.sync_words import KNOWN_SOUND, CodecRun, CodecRuns
from vidrestore.media.timeline import NOTHING_TO_REPAIR, TimeLine

# A coarser clock than the first one is divided, into parts of a tick as small as the second one.
_FINE_CLOCK_SECONDS, _PARTS_OF_TICK = Fraction(1, 1000), 1000
# libavformat's AVFMT_NOTIMESTAMPS and AVFMT_TS_DISCONT.
_NO_TIMES, _MAY_JUMP = 0x80, 0x200
# In transport and program streams, a stream may go on with another codec.
_CHANGING = ("mpegts", "mpeg")
# The clock of MPEG streams has 33 bits.
_WRAP_SECONDS = dict.fromkeys(("mpegts", "mpeg"), Fraction(2**33, 90000))
# After a longer gap another recording begins; a shorter gap is kept. The first limit is for files
# without other joins.
_LONGEST_GAP_SECONDS, _LONGEST_GAP_BESIDE_JOINS_SECONDS = 3600, 10
_NAMED_GAP_SECONDS = 10
# By how much times may fall without a jump: those of sound are derived where several packets share
# one time; presentation times fall in coding order.
_SLACK_SECONDS = {"audio": Fraction(1, 100)}
_LEAST_SLACK_SECONDS = Fraction(1, 1000)
_REORDERED_SECONDS = 1
# A run ends at a gap of so many seconds and so many steps.
_RUN_GAP_SECONDS, _RUN_GAP_STEPS = 1, 8
_HELD_SECONDS = 1  # of packets that are read after those of another part
_MOST_APART_SECONDS = 10  # between the streams of a part, in the file and in their times
_ALIKE_SECONDS = 1  # the difference of jumps of about the same time
# A shorter jump of one stream alone is an error of rounding.
_LEAST_ALONE_SECONDS = Fraction(1, 10)
# After so few packets with other times, times may return to where they were.
_GLITCH_PACKETS, _ISLAND_PACKETS = 2, 64
_RETURN_SECONDS = Fraction(1, 2)  # how far from where they were
_FIRST_PACKETS = 32  # of a run, among which is the one that is shown first
# So many small jumps, and one in each second, are disorder.
_SMALL_SECONDS, _FEWEST_IN_DISORDER = Fraction(1, 2), 4
_MOST_RUNS, _MOST_NEAR = 100_000, 64
_MOST_NAMED = 10


def read_time_line(path: Path) -> TimeLine:
    """Read the times of all packets of a file, and find what must be repaired.

    Args:
        path: The file.

    Returns:
        The time line. For formats whose times cannot jump and whose header announces all streams,
        it is empty, and no packet is read.

    Raises:
        InputError: The file cannot be read as video.
    """
    with open_source(path) as container:
        if not may_need_repair(container):
            return NOTHING_TO_REPAIR
        known = {s.index for s in container.streams if _is_complete(s)}
        runs = _Runs(container)
        has_all = stream_count(description(container)) == len(known)
    if not has_all:
        with open_source(path, read_through=True) as container:
            if late := {s.index for s in container.streams if _is_complete(s)} - known:
                return _Repair(_Runs(container)).time_line(frozenset(late))
    return _Repair(runs).time_line(frozenset())


def may_need_repair(container: Any) -> bool:
    """Return whether the times of a file may jump, or its streams begin late.

    Args:
        container: An opened PyAV container.

    Returns:
        True for MPEG transport and program streams, FLV, Ogg and similar formats, for Matroska
        files of which the header does not state that they hold one recording, and for mp4, mov and
        Windows Media files to which another one was appended.
    """
    flags, name, path = _flags(container), container.format.name, path_of(container)
    return (
        is_headerless(container)
        or bool(flags & _MAY_JUMP and not flags & _NO_TIMES)
        or may_go_on(path, name)
    )


def has_no_times(container: Any) -> bool:
    """Return whether a file holds a bare video stream, whose format has no times.

    Args:
        container: An opened PyAV container.

    Returns:
        True for files such as .m2v and .h264.
    """
    return bool(_flags(container) & _NO_TIMES)


def _flags(container: Any) -> int:
    """Return libavformat's flags of the demuxer of a file."""
    # The format of an opened file has the flags of the muxer of that name as well.
    name = container.format.name.split(",")[0]
    return int(av.format.ContainerFormat(name, "r").flags)


def _is_complete(stream: Any) -> bool:
    """Return whether libavformat has seen enough of a stream to describe it."""
    context = stream.codec_context
    if context is None or stream.type not in ("audio", "video"):
        return True
    if stream.type == "audio":
        return bool(context.sample_rate and context.channels)
    return bool(context.width and context.height)


def _codec_of(stream: Any) -> str | None:
    """Return the codec of a stream by ffmpeg's name; None where it is not known."""
    context = stream.codec_context
    return None if context is None else str(context.codec.canonical_name)


@dataclass(slots=True)
class _Run:
    """A run. Times are in ticks of the clock of the stream."""

    stream: int
    packet: int
    """The number of the first packet among those of its stream."""
    order: int
    """The number of the first packet among all packets of the file."""
    last_order: int
    """The same of the last packet."""
    start: int
    """The decoding time of the first packet."""
    last: int
    """The decoding time of the last packet."""
    low: int
    """The earliest presentation time."""
    high: int
    """The latest end of a packet in presentation."""
    beside: Mapping[int, tuple[int, int | None]]
    """The index of each stream -> the number of its packets before this run in the file, and the
    latest end of the run that it was in; None where it had no run.
    """
    packets: int = 1
    is_coarse: bool = False
    """Whether the decoding time of the last packet makes no sense."""

    @property
    def step(self) -> Fraction:
        """The mean distance of packets; 0 for one packet."""
        return Fraction(self.last - self.start, max(1, self.packets - 1))


class _Reader:
    """Collects the runs of one stream."""

    def __init__(self, stream: Any) -> None:
        """Begin a stream."""
        self.tick = Fraction(stream.time_base or 1)
        self.is_shown = stream.type in ("video", "audio")
        """Whether the stream is video or sound, which go on all the time."""
        self.packets = 0
        self.runs: list[_Run] = []
        self._index, self._is_video = stream.index, stream.type == "video"
        self._slack, self._reordered, self._gap, self._apart = (
            int(seconds / self.tick)
            for seconds in (
                _SLACK_SECONDS.get(stream.type, _LEAST_SLACK_SECONDS),
                _REORDERED_SECONDS,
                _RUN_GAP_SECONDS,
                _MOST_APART_SECONDS,
            )
        )
        # Whether presentation times were missing, or different from decoding times.
        self._is_delayed = self._is_reordered = False
        # The numbers in the stream and in the file, and the presentation times, of packets without
        # a decoding time.
        self._early: list[tuple[int, int, int]] = []
        self._is_in_next_file = False

    def begin_file(self) -> None:
        """Let the next packet, which is of another one of the files that were joined, begin a run.

        Times may go on by chance, as those of two subtitles.
        """
        self._is_in_next_file = True

    def add(self, packet: _Timed, order: int, beside: Mapping[int, _Reader]) -> None:
        """Add the next packet to the last run, or begin a run with it.

        Args:
            packet: The packet.
            order: Its number among all packets of the file.
            beside: The readers of all streams.
        """
        number = self.packets
        self.packets += 1
        dts, pts, lasts = packet.dts, packet.pts, packet.duration
        if self._is_video:
            self._is_delayed = self._is_delayed or pts is None
            self._is_reordered = self._is_reordered or pts != dts
        if dts is None:
            if pts is None:
                return
            if self.is_shown:
                # The first packets of a stream, or of a part, whose frames are reordered may have
                # no decoding time; they belong to the run of the packet that follows.
                self._early.append((number, order, pts))
                return
            dts = pts
        pts = dts if pts is None else pts
        # Where a file states presentation times only, libavformat derives decoding times from a
        # sorted list. It mixes the times before and after a jump, and may take presentation times
        # as they are.
        is_coarse = abs(pts - dts) > self._apart
        is_doubtful = is_coarse or (self._is_reordered and pts == dts and not packet.is_keyframe)
        time = pts if is_coarse else dts
        # Where the file does not state when a frame is shown on which others depend, it is shown
        # after the last of these.
        high = max(pts, time) + (2 * lasts if self._is_delayed else lasts)
        packets, low, last_order = 1, pts, order
        if self._early:
            packets += len(self._early)
            number, order, _ = self._early[0]
            low = min(pts, *(early for _, _, early in self._early))
            self._early.clear()
        run = self.runs[-1] if self.runs and not self._is_in_next_file else None
        self._is_in_next_file = False
        if run is not None and self._goes_on(run, time, is_doubtful=is_doubtful):
            run.last, run.last_order, run.is_coarse = time, last_order, is_coarse
            run.packets += packets
            run.high = max(run.high, high)
            if run.packets <= _FIRST_PACKETS:
                run.low = min(run.low, low)
        elif len(self.runs) < _MOST_RUNS:
            state = {i: (each.packets, each.high) for i, each in beside.items()}
            self.runs.append(
                _Run(self._index, number, order, last_order, time, time, low, high, state,
                     packets, is_coarse)
            )  # fmt: skip

    @property
    def high(self) -> int | None:
        """The latest end of the last run; None where there is none."""
        return self.runs[-1].high if self.runs else None

    def _goes_on(self, run: _Run, time: int, *, is_doubtful: bool) -> bool:
        """Return whether a packet with this decoding time belongs to a run."""
        step = time - run.last
        slack = self._reordered if is_doubtful or run.is_coarse else self._slack
        return -slack <= step <= self._gap or 0 < step <= _RUN_GAP_STEPS * run.step


class _Timed(NamedTuple):
    """What is read of a packet."""

    stream_index: int
    pts: int | None
    dts: int | None
    duration: int
    is_keyframe: bool
    pos: int | None


def _timed_packets(packets: Iterator[Any], format_name: str) -> Iterable[_Timed]:
    """Return what is read of the packets of a file, in its order."""
    timed = (
        _Timed(p.stream_index, p.pts, p.dts, p.duration or 0, p.is_keyframe, p.pos)
        for p in packets
        if p is not None and p.size
    )
    if format_name == MOV:
        # libavformat gives the packets of mp4 in order of their times.
        return sorted(timed, key=lambda packet: packet.pos or 0)
    return timed


class _Runs:
    """The runs of all streams of a file."""

    def __init__(self, container: Any) -> None:
        """Read all packets of an opened file."""
        self.main: int = main_video_stream(container).index
        self.wrap_seconds = _WRAP_SECONDS.get(container.format.name)
        self._readers = {stream.index: _Reader(stream) for stream in container.streams}
        self.packets = self.files = 0
        self.unlike: list[Unlike] = []
        self.bytes = path_of(container).stat().st_size
        of_codecs = container.format.name in _CHANGING
        self.codecs = {
            stream.index: CodecRuns(stream.type)
            for stream in container.streams
            if of_codecs and (stream.type == "video" or _codec_of(stream) in KNOWN_SOUND)
        }
        for read in read_files(container, on_unlike=self.unlike.append):
            before, packets = self.packets, self._noted(read)
            for reader in self._readers.values():
                reader.begin_file()
            for packet in _timed_packets(packets, container.format.name):
                self._readers[packet.stream_index].add(packet, self.packets, self._readers)
                self.packets += 1
            self.files += self.packets > before
        self.ticks = {index: reader.tick for index, reader in self._readers.items()}
        self.of_stream = {index: reader.runs for index, reader in self._readers.items()}

    def _noted(self, packets: Iterator[Any]) -> Iterator[Any]:
        """Look at the codec of packets."""
        for packet in packets:
            if packet is not None and packet.size and packet.stream_index in self.codecs:
                self.codecs[packet.stream_index].add(memoryview(packet), packet.pts)
            yield packet

    @property
    def untimed(self) -> list[int]:
        """The indices of the streams of picture and sound of which no packet has a time."""
        return [
            index
            for index, reader in self._readers.items()
            if reader.is_shown and reader.packets and not reader.runs
        ]

    def is_shown(self, stream: int) -> bool:
        """Return whether a stream is video or sound, which go on all the time."""
        return self._readers[stream].is_shown

    def is_brief(self, stream: int) -> bool:
        """Return whether a stream has so few packets that their times may be false.

        Bytes between two files may look like a packet.
        """
        return self._readers[stream].packets <= _GLITCH_PACKETS


@dataclass(slots=True, eq=False)
class _Piece:
    """A run with its times in seconds; a clock that begins anew after its last bit goes on."""

    run: _Run
    turn: Fraction
    """The seconds that were added for the clock."""
    start: Fraction
    """The decoding time of the first packet."""
    end: Fraction
    """The decoding time at which the next packet is due."""
    low: Fraction
    """The earliest presentation time."""
    high: Fraction
    """The latest end of a packet in presentation."""

    @property
    def lasts(self) -> Fraction:
        """The duration in seconds."""
        return self.end - self.start

    def add(self, seconds: Fraction) -> None:
        """Move all times."""
        self.turn += seconds
        self.start += seconds
        self.end += seconds
        self.low += seconds
        self.high += seconds


@dataclass(slots=True, eq=False)
class _Jump:
    """The beginning of a piece whose times do not follow from those of the piece before it."""

    piece: _Piece
    before: _Piece
    after: _Piece | None
    """The piece that follows; None for the last one."""

    @property
    def stream(self) -> int:
        """The index of the stream."""
        return self.piece.run.stream

    @property
    def packet(self) -> int:
        """The number of the packet among those of its stream."""
        return self.piece.run.packet

    @property
    def order(self) -> int:
        """The number of the packet among all packets of the file."""
        return self.piece.run.order

    @property
    def seconds(self) -> Fraction:
        """The size of the jump; negative where times go back."""
        return self.piece.start - self.before.end

    @property
    def is_island(self) -> bool:
        """Whether the times return to where they were after few packets."""
        if self.after is None:
            return self.piece.run.packets <= _GLITCH_PACKETS
        is_short = self.piece.run.packets <= _ISLAND_PACKETS
        return is_short and _returns(self.before, self.piece, self.after)


class _Repair:
    """The shifts that repair the times of a file."""

    def __init__(self, runs: _Runs) -> None:
        """Begin without shifts."""
        self._file = runs
        self._pieces = self._turned()
        # For each stream, the shift of the part that begins with a packet, and the additional shift
        # of this stream alone.
        self._common: dict[int, list[_Mark]] = {index: [] for index in self._pieces}
        self._own: dict[int, list[_Mark]] = {index: [] for index in self._pieces}
        self._joins: list[Fraction] = []
        self._notes: list[str] = []
        self._longest_gap_seconds = _LONGEST_GAP_SECONDS

    def time_line(self, late: frozenset[int]) -> TimeLine:
        """Compute the time line.

        Args:
            late: The indices of the streams that begin late.

        Returns:
            The time line.
        """
        false_times = self._without_glitches(self._groups())
        if any(self._is_join(group, self._shown(group)) for group in self._groups()):
            self._longest_gap_seconds = _LONGEST_GAP_BESIDE_JOINS_SECONDS
        for group in self._groups():
            shown = self._shown(group)
            if self._is_join(group, shown):
                self._join(group, shown)
            else:
                for jump in shown:
                    self._repair_alone(jump)
        self._replace(false_times)
        untimed, other_codecs = self._untimed(), self._other_codecs()
        shifts = {index: self._shifts(index) for index in self._pieces}
        shifts = {index: own for index, own in shifts.items() if own}
        begin = self._begin()
        joins = tuple(float(max(join - begin, Fraction(0))) for join in self._joins)
        return TimeLine(
            shifts=shifts,
            joins_seconds=joins,
            durations_seconds=(
                self._durations()
                if shifts or untimed or self._file.files > 1 or self._file.unlike or other_codecs
                else {}
            ),
            late=late,
            untimed=untimed,
            of_other_codec={index: ranges for index, (ranges, _) in other_codecs.items()},
            notes=(
                *_joins_notes(joins),
                *self._notes,
                *self._gaps(),
                *_untimed_notes({*untimed} - {self._file.main}),
                *(note for _, note in other_codecs.values()),
                *self._unlike(),
            ),
        )

    def _turned(self) -> dict[int, list[_Piece]]:
        """Convert the runs to seconds, and let clocks that begin anew go on."""
        file, wrap = self._file, self._file.wrap_seconds
        pieces: dict[int, list[_Piece]] = {index: [] for index in file.of_stream}
        runs = (run for own in file.of_stream.values() for run in own)
        for run in sorted(runs, key=lambda each: each.order):
            tick, own, turn = file.ticks[run.stream], pieces[run.stream], Fraction(0)
            if wrap is not None:
                near = own[-1].end if own else self._time_beside(run, pieces)
                if near is not None:
                    turn = wrap * round((near - run.start * tick) / wrap)
            times = (run.start, run.last + run.step, run.low, run.high)
            start, end, low, high = (time * tick + turn for time in times)
            own.append(_Piece(run, turn, start, end, low, high))
        main = pieces[file.main]
        if main and main[0].low < 0:
            # libavformat counts back from the end of the clock, and no container that vidrestore
            # writes holds a picture before 0.
            begin = -main[0].low if wrap is None else wrap
            for piece in (piece for own in pieces.values() for piece in own):
                piece.add(begin)
        return pieces

    def _time_beside(self, run: _Run, pieces: Mapping[int, Sequence[_Piece]]) -> Fraction | None:
        """Return a time of another stream where a stream begins; None where it is the first."""
        for index, (_, high) in run.beside.items():
            if high is not None and pieces[index] and self._file.is_shown(index):
                return high * self._file.ticks[index] + pieces[index][-1].turn
        return None

    def _without_glitches(self, groups: Sequence[Sequence[_Jump]]) -> list[tuple[_Piece, Fraction]]:
        """Take out the pieces of one or two packets with false times.

        Args:
            groups: The jumps that belong together. What several streams have is no false time.

        Returns:
            Each of these pieces, and the decoding time at which it is due.
        """
        alone = {id(group[0].piece) for group in groups if len(group) == 1}
        glitches = []
        for index, own in self._pieces.items():
            kept = own[:1]
            for piece, after in zip(own[1:], [*own[2:], None], strict=False):
                if (
                    after is not None
                    and piece.run.packets <= _GLITCH_PACKETS
                    and (id(piece) in alone or id(after) in alone)
                    and _returns(kept[-1], piece, after)
                ):
                    glitches.append((piece, kept[-1].end))
                else:
                    kept.append(piece)
            self._pieces[index] = kept
        return glitches

    def _groups(self) -> list[list[_Jump]]:
        """Return the jumps that belong together, in the order of the file.

        Small jumps of a stream that has them all the time, alone, are left out: its times are in no
        order.
        """
        groups = _together(self._jumps(), self._most_between())
        small = Counter(group[0].stream for group in groups if _is_small(group))
        orderly = {
            index
            for index, own in self._pieces.items()
            if small[index] < max(_FEWEST_IN_DISORDER, sum(piece.lasts for piece in own))
        }
        return [group for group in groups if group[0].stream in orderly or not _is_small(group)]

    def _jumps(self) -> list[_Jump]:
        """Return the jumps of all streams, in the order of the file."""
        found: list[_Jump] = []
        for own in self._pieces.values():
            found += [
                _Jump(piece, before, after)
                for before, piece, after in zip(own, own[1:], [*own[2:], None], strict=False)
                if self._is_jump(before, piece)
            ]
        return sorted(found, key=lambda jump: jump.order)

    def _is_jump(self, before: _Piece, piece: _Piece) -> bool:
        """Return whether times go back or far forward from one piece to the next one."""
        step = before.lasts / before.run.packets
        return not -step / 2 <= piece.start - before.end <= self._longest_gap_seconds

    def _most_between(self) -> int:
        """Return the number of packets of the file between two jumps of one join, at most."""
        seconds = max(sum(piece.lasts for piece in own) for own in self._pieces.values())
        rate = self._file.packets / seconds if seconds else 0
        return _ISLAND_PACKETS + int(_MOST_APART_SECONDS * rate)

    def _shown(self, group: Sequence[_Jump]) -> list[_Jump]:
        """Return the jumps of video and sound."""
        return [jump for jump in group if self._file.is_shown(jump.stream)]

    def _is_join(self, group: Sequence[_Jump], shown: Sequence[_Jump]) -> bool:
        """Return whether all streams jump where a group of jumps is."""
        if len(shown) != 1:
            return len(shown) > 1
        (jump,) = shown
        if jump.is_island:
            return False
        # A stream that goes back by some seconds while another one goes on lags behind from then
        # on; that is the distance that the file states.
        is_lag = _LEAST_ALONE_SECONDS <= -jump.seconds <= _MOST_APART_SECONDS
        return is_lag or not self._across(group)

    def _across(self, group: Sequence[_Jump]) -> set[int]:
        """Return the streams of video and sound that go on where a group of jumps is."""
        across = set[int]()
        for index, own in self._pieces.items():
            at = bisect_right(own, group[0].order, key=lambda piece: piece.run.order) - 1
            goes_on = at >= 0 and own[at].run.last_order > group[-1].order
            if goes_on and self._file.is_shown(index) and self._held(index, group[0].piece.run) < 1:
                across.add(index)
        return across - {jump.stream for jump in group}

    def _held(self, index: int, run: _Run) -> int:
        """Return the number of packets of another stream that belong before a run.

        libavformat gives the last packets of a stream when the stream goes on, or at the end of the
        file. These end a run of the stream, soon after the packets before them.
        """
        packets, _ = run.beside[index]
        own = self._pieces[index]
        at = bisect_right(own, packets - 1, key=lambda piece: piece.run.packet) - 1
        if at < 0:
            return 0
        rest = own[at].run.packet + own[at].run.packets - packets
        lasts = rest * own[at].run.step * self._file.ticks[index]
        return rest if rest > 0 and lasts <= _HELD_SECONDS else 0

    def _join(self, group: Sequence[_Jump], shown: Sequence[_Jump]) -> None:
        """Let a part begin where the part before it ends."""
        across, packets = self._across(group), {jump.stream: jump.packet for jump in group}
        first = group[0].piece.run
        ends = [jump.before.high + self._shift_at(jump.stream, jump.packet - 1) for jump in shown]
        starts = [jump.piece.low for jump in shown]
        latest = max(ends) + _MOST_APART_SECONDS
        for index, end, shift in self._beside(first):
            is_false = end + shift > latest and self._file.is_brief(index)
            if index not in packets and not is_false:
                ends.append(end + shift)
                starts += [end] if index in across else []
        # A coarse clock, as that of AVI, has the times of whole frames only.
        tick = self._file.ticks[self._file.main]
        offset = ceil((max(ends) - min(starts)) / tick) * tick
        for index in self._common:
            packet = packets.get(index, first.beside[index][0] + self._held(index, first))
            _mark(self._common[index], packet, offset)
            _mark(self._own[index], packet, Fraction(0))
        pictures = [jump.piece.low for jump in shown if jump.stream == self._file.main]
        self._joins.append(offset + min(pictures or starts))

    def _beside(self, run: _Run) -> Iterator[tuple[int, Fraction, Fraction]]:
        """Yield (stream, end, shift) of the last packets of video and sound before a run."""
        for index, (packets, high) in run.beside.items():
            if high is not None and index != run.stream and self._file.is_shown(index):
                end = high * self._file.ticks[index] + self._turn_at(index, packets - 1)
                yield index, end, self._shift_at(index, packets - 1)

    def _repair_alone(self, jump: _Jump) -> None:
        """Let a stream go on whose times jump while those of the others do not."""
        is_brief = jump.is_island and jump.piece.run.packets <= _GLITCH_PACKETS
        if is_brief or abs(jump.seconds) < _LEAST_ALONE_SECONDS:
            return
        stream, packet = jump.stream, jump.packet
        due = jump.before.end + self._shift_at(stream, packet - 1)
        start = jump.piece.start + _last(self._common[stream], packet)
        others = [end + shift for _, end, shift in self._beside(jump.piece.run)]
        own = due - start
        if any(abs(start - time) <= _MOST_APART_SECONDS for time in others) and not jump.is_island:
            own = Fraction(0)  # its times are those of the other streams again
        if own == _last(self._own[stream], packet):
            return
        _mark(self._own[stream], packet, own)
        if own:
            way, at = "back" if jump.seconds < 0 else "forward", due - self._begin()
            self._notes.append(
                f"the times of stream {stream} jump {way} at {time_text(max(at, Fraction(0)))} and "
                "those of the other streams do not, so vidrestore lets the stream go on without "
                "the jump"
            )
            if jump.is_island and jump.after is not None:
                _mark(self._own[stream], jump.after.run.packet, Fraction(0))

    def _replace(self, false_times: Sequence[tuple[_Piece, Fraction]]) -> None:
        """Let packets with false times follow those before them, except in the main video stream.

        For that stream, decoding repairs the times of single frames.
        """
        counts = Counter[int]()
        for piece, due in false_times:
            index, packet = piece.run.stream, piece.run.packet
            if index != self._file.main and self._file.is_shown(index):
                before = _last(self._own[index], packet)
                own = [mark for mark in self._own[index] if mark[0] != packet]
                own.append((packet, before + due - piece.start))
                if packet + piece.run.packets not in {number for number, _ in own}:
                    own.append((packet + piece.run.packets, before))
                self._own[index] = sorted(own)
                counts[index] += piece.run.packets
        self._notes += [
            f"{counted(count, 'packet')} of stream {index} had false times, which vidrestore "
            "replaced by those that follow from the packets before"
            for index, count in counts.items()
        ]

    def _gaps(self) -> Iterator[str]:
        """Yield a notice for long gaps in all streams."""
        main, gaps = self._pieces[self._file.main], []
        for before, piece in pairwise(main):
            seconds = piece.start - before.end
            jump = _Jump(piece, before, None)
            is_gap = _NAMED_GAP_SECONDS < seconds <= self._longest_gap_seconds
            if is_gap and not self._across([jump]):
                at = before.high + self._shift_at(self._file.main, jump.packet - 1) - self._begin()
                gaps.append((at, seconds))
        named = [f"by {duration_text(float(s))} at {time_text(at)}" for at, s in gaps]
        if gaps:
            yield (
                f"the times in the source jump forward {_listed(named)}, where nothing was "
                "recorded; vidrestore keeps the gap"
            )

    def _untimed(self) -> dict[int, Fraction]:
        """Return the time at which each stream begins of which no packet has a time."""
        begin = self._begin()
        return dict.fromkeys(self._file.untimed, begin)

    def _other_codecs(self) -> dict[int, tuple[tuple[range, ...], str]]:
        """Find the sound that changes its codec.

        Returns:
            The index of a stream -> the numbers of the packets that are not of the first codec, and
            a notice.

        Raises:
            InputError: The main video stream changes its codec.
        """
        found = {}
        for index, codecs in self._file.codecs.items():
            parts = codecs.parts()
            if len(parts) < 2:
                continue
            first = parts[0].codec
            places = [
                f"to {each.codec} at {time_text(self._at(index, each))}" for each in parts[1:]
            ]
            changes = f"stream {index} changes its codec from {first} {_listed(places)}"
            advice = "cut the file there and restore the parts"
            if index == self._file.main:
                raise InputError(f"{changes}, in the middle of the video; {advice}")
            ranges = tuple(
                range(each.packet, each.packet + each.packets)
                for each in parts
                if each.codec != first
            )
            found[index] = (
                ranges,
                f"{changes}; the output has it only where it is {first}, since a stream "
                f"has one codec; to keep the rest, {advice}",
            )
        return found

    def _at(self, index: int, run: CodecRun) -> Fraction:
        """Return the time of a change of codec, from the first frame on."""
        time = (run.time or 0) * self._file.ticks[index]
        shift = self._shift_at(index, run.packet) + self._turn_at(index, run.packet)
        return max(time + shift - self._begin(), Fraction(0))

    def _unlike(self) -> Iterator[str]:
        """Yield the notices about appended files that differ from the first one."""
        for begin, stream, difference, is_read in self._file.unlike:
            split = f"split the source at byte {begin:,} and restore both parts"
            if is_read:
                yield (
                    f"the file that was appended to the source at byte {begin:,} states "
                    f"{difference}; the output states what the first file does throughout, so "
                    f"players show the picture otherwise there; {split}"
                )
            elif stream is None:
                count = self._file.bytes - begin
                yield (
                    f"the last {count:,} bytes of the source are another file that was appended, "
                    f"which cannot be read as a part of it: {difference}; {split}"
                )
            else:
                yield (
                    f"{stream} of the file that was appended to the source at byte {begin:,} "
                    f"{difference}, so it is left out; {split}"
                )

    def _begin(self) -> Fraction:
        """Return the time of the first frame of the main video stream, in seconds."""
        main = self._file.main
        if own := self._pieces[main]:
            return own[0].low + self._shift_at(main, 0)
        # Decoding lets a picture without times begin with the first packet that has one.
        firsts = ((own[0].low, index) for index, own in self._pieces.items() if own)
        low, index = min(firsts, default=(Fraction(0), main))
        return low + self._shift_at(index, 0)

    def _turn_at(self, index: int, packet: int) -> Fraction:
        """Return the seconds that were added to a packet where the clock began anew."""
        own = self._pieces[index]
        at = bisect_right(own, packet, key=lambda piece: piece.run.packet)
        return own[max(0, at - 1)].turn if own else Fraction(0)

    def _shift_at(self, index: int, packet: int) -> Fraction:
        """Return the shift of a packet by the repairs so far, in seconds."""
        return _last(self._common[index], packet) + _last(self._own[index], packet)

    def _shifts(self, index: int) -> tuple[TimeShift, ...]:
        """Return the shifts of a stream."""
        marks = (*self._common[index], *self._own[index])
        packets = {packet for packet, _ in marks} | {p.run.packet for p in self._pieces[index]}
        shifts, last = list[TimeShift](), TimeShift(0, 0)
        for packet in sorted(packets):
            seconds = self._shift_at(index, packet) + self._turn_at(index, packet)
            ticks = seconds / self._file.ticks[index]
            whole, rest = round(ticks), Fraction(0)
            if self._file.ticks[index] > _FINE_CLOCK_SECONDS and index != self._file.main:
                whole = floor(ticks)
                rest = (ticks - whole).limit_denominator(_PARTS_OF_TICK)
            now = TimeShift(packet, whole, rest)
            if (now.ticks, now.rest) != (last.ticks, last.rest):
                shifts.append(now)
                last = now
        return tuple(shifts)

    def _durations(self) -> dict[int, float]:
        """Return the durations of the streams after the repair, in seconds."""
        durations = {}
        for index, own in self._pieces.items():
            if own:
                last = (p.run.packet + p.run.packets - 1 for p in own)
                ends = [p.high + self._shift_at(index, n) for p, n in zip(own, last, strict=True)]
                begin = own[0].low + self._shift_at(index, own[0].run.packet)
                durations[index] = float(max(ends) - begin)
        return durations


_Mark = tuple[int, Fraction]
"""The number of a packet of a stream, and the shift in seconds that begins with it."""


def _mark(marks: list[_Mark], packet: int, seconds: Fraction) -> None:
    """Let a shift begin at a packet, or at the last mark if that is later."""
    if marks and marks[-1][0] >= packet:
        packet, _ = marks.pop()
    marks.append((packet, seconds))


def _last(marks: Sequence[_Mark], packet: int) -> Fraction:
    """Return the shift of a packet; 0 before the first mark."""
    at = bisect_right(marks, packet, key=itemgetter(0))
    return marks[at - 1][1] if at else Fraction(0)


def _is_small(group: Sequence[_Jump]) -> bool:
    """Return whether a group is a short step back in one stream."""
    return len(group) == 1 and -_SMALL_SECONDS < group[0].seconds < 0


def _returns(before: _Piece, between: _Piece, after: _Piece) -> bool:
    """Return whether a piece goes on where the piece before the one between them ended."""
    return abs(after.start - before.end - between.lasts) <= _RETURN_SECONDS


def _together(jumps: Sequence[_Jump], most_between: int) -> list[list[_Jump]]:
    """Group the jumps of different streams that belong together.

    Streams that jump by about the same time belong together first, and of these the nearest ones.
    Those of a stream that was absent in a part jump by another time.
    """
    pairs = []
    for number, jump in enumerate(jumps):
        for other in islice(jumps, number + 1, number + 1 + _MOST_NEAR):
            if other.order - jump.order > most_between:
                break
            apart = abs(other.piece.start - jump.piece.start)
            if other.stream != jump.stream and apart <= _MOST_APART_SECONDS:
                differ = abs(other.seconds - jump.seconds)
                is_small = min(abs(jump.seconds), abs(other.seconds)) < _LEAST_ALONE_SECONDS
                if not is_small or differ < _LEAST_ALONE_SECONDS:
                    rank = (differ > _ALIKE_SECONDS, other.order - jump.order)
                    pairs.append((rank, jump, other))
    group_of = {id(jump): [jump] for jump in jumps}
    for _, jump, other in sorted(pairs, key=itemgetter(0)):
        ours, theirs = group_of[id(jump)], group_of[id(other)]
        if {each.stream for each in ours}.isdisjoint(each.stream for each in theirs):
            ours += theirs
            for each in theirs:
                group_of[id(each)] = ours
    groups = {id(group): group for group in group_of.values()}.values()
    return sorted(
        (sorted(group, key=lambda jump: jump.order) for group in groups),
        key=lambda group: group[0].order,
    )


def _joins_notes(joins_seconds: Sequence[float]) -> Iterator[str]:
    """Yield the notice about a source that is joined from several recordings."""
    if joins_seconds:
        places = _listed([f"at {time_text(seconds)}" for seconds in joins_seconds])
        yield (
            f"the times in the source begin anew {places}, as in recordings that were joined; "
            "vidrestore gives picture, sound and subtitles one time line without these jumps"
        )


def _untimed_notes(streams: Collection[int]) -> Iterator[str]:
    """Yield the notice about sound without times."""
    if streams:
        named = _listed([str(index) for index in sorted(streams)])
        yield (
            f"the source states no times of stream {named}, so vidrestore lets it begin with the "
            "picture"
        )


def _listed(places: Sequence[str]) -> str:
    """Join the first places in words, and count the others."""
    named, more = list(places[:_MOST_NAMED]), len(places) - _MOST_NAMED
    if more > 0:
        named.append(f"at {counted(more, 'later place')}")
    return " and ".join(filter(None, [", ".join(named[:-1]), named[-1]]))
