"""Copies streams of a file into files of their own, with the times of its repaired time line.

ffmpeg reads these files in place of the source where it would not read the streams with the right
times, or not at all: a stream that begins late in a format without a header, and all streams where
times jump.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error

from vidrestore.common.errors import not_written, system_reason
from vidrestore.media.packets import read_packets
from vidrestore.media.source import open_source
from vidrestore.media.timeline import TimeLine, with_shifts

_log = logging.getLogger("vidrestore")

DELAY_SECONDS = 1000
"""How much later the times in the extracted files are, since NUT holds none before 0."""
# NUT has the clock of the sound; Matroska holds more codecs, to the millisecond.
_FORMATS = ("nut", "matroska")
# NUT has one name for AC-3 and E-AC-3.
_NOT_IN_NUT = ("eac3",)
_OF_MOV = "mov_text"  # Matroska does not hold it


@dataclass(frozen=True, slots=True)
class Extracted:
    """The streams that were copied."""

    files: Mapping[int, Path] = field(default_factory=dict)
    """The index of a stream in the source -> its file, which holds it as the only stream."""
    failures: Mapping[int, str] = field(default_factory=dict)
    """The index of a stream that no file can hold -> the reason."""


def needed_streams(line: TimeLine, streams: Collection[int]) -> list[int]:
    """Choose the streams that ffmpeg cannot read from the source.

    Args:
        line: The time line of the source.
        streams: The indices of the streams to copy.

    Returns:
        All of the streams, where times are shifted or a stream has none; else those that begin
        late. Streams that have neither times nor a known duration are left out.
    """
    needed = {*line.durations_seconds, *line.untimed, *line.late}
    return sorted(needed & {*streams})


@contextmanager
def extracted(
    source: Path,
    streams: Collection[int],
    line: TimeLine,
    folder: Path,
    *,
    most_packets: int | None = None,
) -> Iterator[Extracted]:
    """Copy streams into files of their own, which are removed at the end.

    Args:
        source: The source.
        streams: The indices of the streams; if there is none, nothing is read.
        line: The time line of the source.
        folder: The folder for the files.
        most_packets: The number of packets of each stream to copy at least, after which reading
            ends; default: all.

    Yields:
        The files.

    Raises:
        InputError: The source cannot be read.
        OutputError: A file cannot be written.
    """
    if not streams:
        yield Extracted()
        return
    files: dict[int, Path] = {}
    try:
        try:
            failures = _extract(source, streams, line, folder, files, most_packets)
        except (av.error.FFmpegError, OSError) as error:
            raise not_written("copying the streams of the source", folder, error) from error
        yield Extracted({i: p for i, p in files.items() if i not in failures}, failures)
    finally:
        for path in files.values():
            path.unlink(missing_ok=True)


def _extract(
    source: Path,
    streams: Collection[int],
    line: TimeLine,
    folder: Path,
    files: dict[int, Path],
    most_packets: int | None,
) -> dict[int, str]:
    """Write the files and note their paths; return why streams cannot be written."""
    failures: dict[int, str] = {}
    with open_source(source, read_through=bool(line.late)) as container, ExitStack() as opened:
        writers: dict[int, _Writer] = {}
        for index in streams:
            files[index] = folder / f"stream{index}"
            try:
                writers[index] = opened.enter_context(
                    _Writer(container.streams[index], files[index], line.untimed.get(index))
                )
            except (ValueError, av.error.FFmpegError) as error:
                _log.info("stream %d cannot be copied: %s", index, error)
                failures[index] = system_reason(error)
        left = set(writers)
        wanted = [container.streams[index] for index in writers]
        packets = read_packets(container, *wanted) if wanted else iter(())
        numbers = Counter[int]()
        for packet in with_shifts(packets, line.shifts):
            if packet is None or not packet.size:
                continue
            index = packet.stream_index
            writer = writers[index]
            numbers[index] += 1
            if any(numbers[index] - 1 in part for part in line.of_other_codec.get(index, ())):
                continue
            writer.write(packet)
            if most_packets is not None and writer.packets >= most_packets:
                left.discard(packet.stream_index)
                if not left:
                    break
    return failures


class _Writer:
    """A file with one stream."""

    def __init__(self, stream: Any, path: Path, begin: Fraction | None) -> None:
        """Open the file; raise ValueError or FFmpegError where no format holds the stream.

        `begin` is the time in seconds of a first packet that has none; None: 0.
        """
        self.packets = 0
        self._last: int | None = None
        self._due_seconds = begin or Fraction(0)
        codec = stream.codec_context.codec.canonical_name if stream.codec_context else ""
        formats: tuple[str, ...] = _FORMATS
        if codec == _OF_MOV:
            formats = ("mov",)
        elif stream.type == "subtitle" or codec in _NOT_IN_NUT:
            formats = formats[1:]
        for name in formats:
            self._file: Any = av.open(str(path.absolute()), "w", format=name)
            try:
                self._stream: Any = self._file.add_stream_from_template(stream, opaque=True)
                self._file.start_encoding()
            except (ValueError, av.error.FFmpegError) as error:
                _log.info("%s cannot hold stream %d: %s", name, stream.index, error)
                self._file.close()
                if name == formats[-1]:
                    raise
            else:
                break
        self._delay = round(DELAY_SECONDS / Fraction(self._stream.time_base))

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def write(self, packet: Any) -> None:
        """Write the next packet of the stream.

        Decoding times rise. A packet without a time is due at the end of the one before it.
        """
        tick = Fraction(packet.time_base)
        dts, pts = (None if t is None else t * tick for t in (packet.dts, packet.pts))
        if dts is None:
            dts = self._due_seconds if pts is None else pts
        lasts = (packet.duration or 0) * tick
        self._due_seconds = dts + lasts
        own = Fraction(self._stream.time_base)
        dts, pts = (round(time / own) for time in (dts, dts if pts is None else pts))
        if self._last is not None:
            dts = max(dts, self._last + 1)
        self._last = dts
        packet.time_base = self._stream.time_base
        packet.dts, packet.pts = dts + self._delay, max(dts, pts) + self._delay
        packet.duration, packet.stream = round(lasts / own), self._stream
        self._file.mux(packet)
        self.packets += 1
