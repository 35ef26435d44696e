"""Reads the packets of a file, and those of the files that were appended to it.

Where files were joined byte by byte, libavformat reads the first one, or reads on with the headers
of the first one. vidrestore opens each of them by itself. The packets of the later ones become
packets of the streams of the first one: its main video stream goes on in theirs, its first sound in
their first sound. `media.discontinuities` repairs the times, which begin anew.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import av.error
from av.packet import PacketSideData
from av.stream import Discard, Disposition

from vidrestore.common.errors import InputError
from vidrestore.common.handled import log_handled
from vidrestore.media.appended import next_file
from vidrestore.media.description import description
from vidrestore.media.fitting import aspect_text, other_colors
from vidrestore.media.side_data import stated_rotation
from vidrestore.media.source import main_video_stream, open_appended, path_of
from vidrestore.media.sync_words import codec_of
from vidrestore.media.timeline import copy_of

_log = logging.getLogger("vidrestore")

_READ_FAILURES = 100  # consecutive failures after which reading ends
# The decoders that take another header in the middle of a stream: beside a packet, as
# AV_PKT_DATA_NEW_EXTRADATA, or within it.
_BESIDE, _NEW_EXTRADATA = ("h264", "hevc"), 1
_WITHIN = ("mpeg4", "mpeg1video", "mpeg2video")
# Those that find a new header, or a new size of the picture, in the packets in any case.
_IN_PACKETS = ("av1", "vp8", "vp9", "mjpeg", "prores", "dnxhd", "flv1", "dvvideo")
_ANY_SIZE = _BESIDE + _WITHIN + _IN_PACKETS
_FINE_CLOCK_SECONDS = Fraction(1, 1000)


class Unlike(NamedTuple):
    """What differs from the first file in an appended one."""

    begin: int
    """The offset of that file."""
    stream: str | None
    """The stream, such as stream 1; None: the file, or its main video stream."""
    difference: str
    """The difference in words: what stands instead of what."""
    is_read: bool = False
    """Whether the stream is read nevertheless, as if it did not differ."""


def read_packets(
    container: Any,
    *streams: Any,
    on_failure: Callable[[], None] | None = None,
) -> Iterator[Any]:
    """Yield the packets of streams in the order of the file, also those after unreadable data.

    Args:
        container: An opened PyAV container.
        *streams: The streams; default: all.
        on_failure: Called where the data cannot be read, once for each such place; default: None.

    Yields:
        The packets, at the end an empty one for each stream; None at the end where the rest of the
        file cannot be read.
    """
    for packets in read_files(container, *streams, on_failure=on_failure):
        yield from packets


def read_files(
    container: Any,
    *streams: Any,
    on_failure: Callable[[], None] | None = None,
    on_unlike: Callable[[Unlike], None] | None = None,
) -> Iterator[Iterator[Any]]:
    """Read a file and those that were appended to it, one after the other.

    Args:
        container: An opened PyAV container.
        *streams: Streams of it; default: all.
        on_failure: As for `read_packets`.
        on_unlike: Called for each difference that is left out or not taken over; default: None.

    Yields:
        The packets of each file, to be read before the next one is asked for; at the end the empty
        ones, as `read_packets` yields them.
    """
    path, kind = path_of(container), container.format.name
    first = reader = _Reader(container, 0)
    yield reader.packets(streams, on_failure)
    _tell_kinds(reader, on_failure, on_unlike)
    while (following := next_file(path, kind, reader.position)) is not None:
        begin = following.begin
        try:
            if not following.is_alike:
                raise InputError("its format is another one")
            with open_appended(path, begin) as part:
                pairs = _pairs(container, part, begin, on_unlike)
                reader = _Reader(part, begin)
                wanted = {i: s for i, s in pairs.items() if not streams or s in streams}
                yield _of_first(reader, wanted, on_failure)
        except InputError as error:
            log_handled(error, f"opening the file at byte {begin} of {path}")
            if on_unlike is not None:
                on_unlike(Unlike(begin, None, str(error)))
            break
        _tell_kinds(reader, on_failure, on_unlike)
    if reader.is_refused and on_failure is not None:
        on_failure()
    yield iter([None] if reader.is_broken else first.empty or [None])


def _tell_kinds(
    reader: _Reader,
    on_failure: Callable[[], None] | None,
    on_unlike: Callable[[Unlike], None] | None,
) -> None:
    """Report the packets of another kind.

    libavformat drops the packet that it holds back where the kind changes.
    """
    for difference in reader.of_other_kind:
        if on_unlike is not None:
            on_unlike(difference)
        if on_failure is not None:
            on_failure()


class _Reader:
    """Reads the packets of one of the files that were joined."""

    def __init__(self, container: Any, begin: int) -> None:
        """Begin to read a file that begins at this offset."""
        self.container, self._begin = container, begin
        self.position = begin
        """The greatest offset of a packet so far."""
        self.empty: list[Any] = []
        """The empty packets that end the streams."""
        self.is_broken = False
        """Whether the rest of the file cannot be read."""
        self.is_refused = False
        """Whether libavformat does not read on where another file may begin."""
        self.of_other_kind: list[Unlike] = []
        """The places from which on packets of a stream are left out, since they are of another kind
        than those before, such as sound.
        """
        self._kinds = {stream.index: stream.type for stream in container.streams}
        self._was_left_out = dict.fromkeys(self._kinds, False)

    def packets(
        self, streams: Sequence[Any], on_failure: Callable[[], None] | None
    ) -> Iterator[Any]:
        """Yield the packets of streams, of all if there are none."""
        failures = 0
        while failures < _READ_FAILURES:
            try:
                for packet in self._filled(streams):
                    failures = 0
                    yield packet
                return
            except IndexError as error:
                # After the last packet, PyAV 18 may fail where a stream appeared that it did not
                # know when it opened the file. The known streams have got their empty packets by
                # then.
                log_handled(error, f"ending the streams of {path_of(self.container)}")
                return
            except av.error.PatchWelcomeError as error:
                # libavformat's answer to an Ogg stream that begins after the packets of others.
                log_handled(error, f"reading {path_of(self.container)} on")
                self.is_refused = True
                return
            except av.error.FFmpegError as error:
                _log.info("the next packet cannot be read: %s", error)
                if on_failure is not None and failures == 0:
                    on_failure()
                failures += 1
        self.is_broken = True

    def _filled(self, streams: Sequence[Any]) -> Iterator[Any]:
        """Yield the packets but for the empty ones and those of another kind."""
        for packet in self.container.demux(*streams):
            if packet.pos is not None:
                self.position = max(self.position, self._begin + packet.pos)
            if not packet.size and packet.dts is None:
                self.empty.append(packet)
            elif not self._leaves_out(packet):
                yield packet

    def _leaves_out(self, packet: Any) -> bool:
        """Return whether a packet is of another kind than its stream was, and note where.

        In a transport stream, the number of a video may be that of a sound later on.
        """
        stream, index = packet.stream, packet.stream_index
        now, was = stream.type, self._kinds.setdefault(index, stream.type)
        # libavformat knows the new kind before it gives out the last packet of the old one.
        is_other = now != was and codec_of(memoryview(packet), was) is None
        if is_other and not self._was_left_out[index]:
            self.of_other_kind.append(
                Unlike(self.position, f"stream {index} ({was})", f"is {now} instead of {was}")
            )
        self._was_left_out[index] = is_other
        return is_other


def _pairs(
    container: Any, part: Any, begin: int, on_unlike: Callable[[Unlike], None] | None
) -> dict[int, Any]:
    """Find the streams of a file in which those of the first one go on.

    Returns:
        The index of a stream of the part -> the stream of the first file.

    Raises:
        InputError: The main video stream does not go on.
    """
    pairs = {}
    moving = [s for s in part.streams.video if not s.disposition & Disposition.attached_pic]
    if not moving:
        raise InputError("it has no video")
    own, main = main_video_stream(part), main_video_stream(container)
    if (difference := _difference(main, own)) is not None:
        raise InputError(f"its video {difference}")
    pairs[own.index] = main
    if on_unlike is not None:
        for difference in _stated_otherwise(container, part):
            on_unlike(Unlike(begin, None, difference, is_read=True))
    for kind in ("audio", "subtitles"):
        before = getattr(container.streams, kind)
        for number, stream in enumerate(getattr(part.streams, kind)):
            reason: str | None = "is not in the first file"
            if number < len(before):
                reason = _difference(before[number], stream)
            if reason is None:
                pairs[stream.index] = before[number]
            elif on_unlike is not None:
                on_unlike(Unlike(begin, f"stream {stream.index} ({stream.type})", reason))
    return pairs


def _difference(before: Any, stream: Any) -> str | None:
    """Return why a stream of the first file cannot go on in a stream of another one, if so."""
    context, was = stream.codec_context, before.codec_context
    if context is None or was is None:
        return None if context is was else "has an unknown codec"
    name, old = context.codec.canonical_name, was.codec.canonical_name
    if name != old:
        return f"is {name} instead of {old}"
    if stream.type == "audio" and _sound(context) != _sound(was):
        return f"has {_sound(context)} instead of {_sound(was)}"
    if name not in _ANY_SIZE and stream.type == "video" and _picture(context) != _picture(was):
        return f"has {_picture(context)} instead of {_picture(was)}"
    if _header(stream) != _header(before) and name not in _ANY_SIZE:
        return f"has another header of {name}"
    tick, own = Fraction(before.time_base), Fraction(stream.time_base)
    if (own / tick).denominator != 1 and tick > _FINE_CLOCK_SECONDS:
        return f"has a clock of {own} s instead of {tick} s"
    return None


def _stated_otherwise(container: Any, part: Any) -> Iterator[str]:
    """Yield what the header of a file states of its picture otherwise than that of the first one.

    Decoding finds the pixel aspects that the coded streams state.
    """
    streams = [main_video_stream(each) for each in (container, part)]
    was, now = (
        stated_rotation(description(each), stream.index)
        for each, stream in zip((container, part), streams, strict=True)
    )
    if was != now:
        yield f"{now or 'no rotation'} instead of {was or 'none'}"
    shown = [Fraction(stream.sample_aspect_ratio or 1) for stream in streams]
    coded = [stream.codec_context.sample_aspect_ratio for stream in streams]
    if shown[0] != shown[1] and (None in coded or coded[0] == coded[1]):
        yield f"a pixel aspect of {aspect_text(shown[1])} instead of {aspect_text(shown[0])}"
    if (colors := other_colors(*(stream.codec_context for stream in streams))) is not None:
        yield f"other colors: {colors}"


def _sound(context: Any) -> str:
    """Return what a sound must share with the one before it."""
    return f"{context.sample_rate} Hz and {context.channels} channels"


def _picture(context: Any) -> str:
    """Return what a picture must share with the one before it."""
    return f"{context.width} x {context.height} pixels of the format {context.pix_fmt}"


def _of_first(
    reader: _Reader, pairs: Mapping[int, Any], on_failure: Callable[[], None] | None
) -> Iterator[Any]:
    """Yield the packets of a file as those of streams of the first one."""
    wanted = [reader.container.streams[index] for index in pairs]
    for other in reader.container.streams:
        if other.index not in pairs:
            other.discard = Discard.all
    # The decoder may know another header: that of any file before.
    headers = {stream.index: _header(stream) for stream in wanted}
    for packet in reader.packets(wanted, on_failure) if wanted else ():
        index = packet.stream_index
        stream = pairs[index]
        if header := headers.pop(index, b""):
            packet = _with_header(packet, header, stream.codec_context.codec.canonical_name)
        scale = Fraction(packet.time_base) / Fraction(stream.time_base)
        if scale != 1:
            for name in ("pts", "dts", "duration"):
                if (time := getattr(packet, name)) is not None:
                    setattr(packet, name, round(time * scale))
            packet.time_base = stream.time_base
        packet.stream = stream
        yield packet


def _header(stream: Any) -> bytes:
    """Return the header that the decoder of a stream must read first; empty where it has none."""
    context = stream.codec_context
    return b"" if context is None else bytes(context.extradata or b"")


def _with_header(packet: Any, header: bytes, codec: str) -> Any:
    """Return the first packet of a file with the header of its stream."""
    if codec in _BESIDE:
        make: Any = PacketSideData  # its stub does not know what it is made of
        beside = make(_NEW_EXTRADATA, len(header))
        beside.update(header)
        packet.set_sidedata(beside)
        return packet
    data = bytes(packet)
    if codec not in _WITHIN or data.startswith(header):
        return packet
    return copy_of(packet, header + data)
