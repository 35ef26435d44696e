"""The codec of a packet by its first bytes, and the places where it changes in a stream.

A transport or program stream may go on with another codec under the same number: a broadcast whose
sound is stereo before the film and surround in it. libavformat then gives the packets as those of
the stream that was there before. Sources: ISO/IEC 11172-3 and 13818-3 (MPEG audio), 13818-7 (ADTS),
14496-3 (LATM), ETSI TS 102 366 (AC-3, E-AC-3), TS 102 114 (DTS), ITU-T H.262, H.264, H.265.
"""

from __future__ import annotations

from dataclasses import dataclass

_HEAD_BYTES = 8
_LAYERS = {1: "mp3", 2: "mp2", 3: "mp1"}
_DTS = bytes.fromhex("7ffe8001")
_LAST_BSID_OF_AC3 = 10
# The byte after the first start code: a sequence, group or picture; an access unit delimiter.
_START_CODES = {0xB3: "mpeg2video", 0xB8: "mpeg2video", 0x00: "mpeg2video", 0x09: "h264",
                0x46: "hevc"}  # fmt: skip
_FEWEST_PACKETS = 2
KNOWN_SOUND = (*_LAYERS.values(), "aac", "aac_latm", "ac3", "eac3", "dts")
"""The codecs of sound, by ffmpeg's names, whose packets begin with a sync word. Those of others may
begin with one by chance.
"""


def codec_of(packet: memoryview, kind: str) -> str | None:
    """Tell the codec of a packet.

    Args:
        packet: The packet.
        kind: The kind of its stream, audio or video.

    Returns:
        The codec by ffmpeg's name; None where the first bytes do not tell it.
    """
    head = bytes(packet[:_HEAD_BYTES])
    if len(head) < _HEAD_BYTES:
        return None
    return _sound(head) if kind == "audio" else _picture(head)


def _sound(head: bytes) -> str | None:
    """Tell the codec of a sound."""
    first, second = head[0], head[1]
    if first == 0xFF and second & 0xF6 == 0xF0:
        return "aac"
    if first == 0xFF and second & 0xE0 == 0xE0:
        return _LAYERS.get(second >> 1 & 3)
    if head.startswith(b"\x0b\x77"):
        return "ac3" if head[5] >> 3 <= _LAST_BSID_OF_AC3 else "eac3"
    if first == 0x56 and second & 0xE0 == 0xE0:
        return "aac_latm"
    return "dts" if head.startswith(_DTS) else None


def _picture(head: bytes) -> str | None:
    """Tell the codec of a picture."""
    at = head.find(b"\0\0\1")
    return _START_CODES.get(head[at + 3]) if 0 <= at < _HEAD_BYTES - 3 else None


@dataclass(slots=True)
class CodecRun:
    """A series of packets of one stream and one codec."""

    codec: str
    """The codec by ffmpeg's name."""
    packet: int
    """The number of the first packet among those of its stream."""
    time: int | None
    """The presentation time of that packet, or of the last one before it that has one."""
    packets: int = 1
    """The number of packets, with those that do not tell their codec."""
    telling: int = 1
    """The number of packets that tell it."""


class CodecRuns:
    """Follows the codec of one stream."""

    def __init__(self, kind: str) -> None:
        """Begin a stream of a kind, audio or video."""
        self._kind = kind
        self._runs: list[CodecRun] = []
        self._packets = 0
        self._time: int | None = None

    def add(self, packet: memoryview, time: int | None) -> None:
        """Look at the next packet, whose presentation time is `time`."""
        codec, self._time = codec_of(packet, self._kind), self._time if time is None else time
        last = self._runs[-1] if self._runs else None
        if codec is None or (last is not None and last.codec == codec):
            if last is not None:
                last.packets += 1
                last.telling += codec is not None
        else:
            self._runs.append(CodecRun(codec, self._packets, self._time))
        self._packets += 1

    def parts(self) -> list[CodecRun]:
        """Return the runs, of which each has another codec than the one before it.

        A packet alone whose first bytes look otherwise is damaged.
        """
        parts: list[CodecRun] = []
        for run in self._runs:
            if parts and (run.telling < _FEWEST_PACKETS or run.codec == parts[-1].codec):
                parts[-1].packets += run.packets
            else:
                parts.append(run)
        return parts
