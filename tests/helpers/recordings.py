"""Small recordings as broadcasts, discs and live streams leave them: joined, cut, without times.

The ffmpeg program makes them and measures what a file shows; PyAV reads packets. Nothing of the
product is used.
"""

from __future__ import annotations

import struct
import subprocess
import zlib
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import imageio_ffmpeg
from helpers.sources import ffmpeg

MPEG2 = "-c:v mpeg2video -bf 2 -g 12 -q:v 5"
H264 = "-c:v libx264 -preset ultrafast -bf 3 -g 12"
_SOUND = {".flv": "-c:a aac", ".mp4": "-c:a aac", ".webm": "-c:a libopus", ".mov": "-c:a aac",
          ".ogv": "-c:a libvorbis", ".wmv": "-c:a wmav2", ".avi": "-c:a libmp3lame"}  # fmt: skip
_VIDEO = {".webm": "-c:v libvpx -deadline realtime -cpu-used 8", ".ogv": "-c:v libtheora -q:v 7",
          ".wmv": "-c:v wmv2 -b:v 1M", ".avi": "-c:v mpeg4 -bf 2 -q:v 3", ".mpg": MPEG2,
          ".vob": MPEG2}  # fmt: skip
# Live recordings are fragmented.
_FRAGMENTED = "-movflags +frag_keyframe+empty_moov+default_base_moof"
_MUXERS = {".ts": "mpegts", ".mpg": "mpeg", ".vob": "vob", ".flv": "flv", ".mkv": "matroska",
           ".webm": "webm", ".mp4": f"mp4 {_FRAGMENTED}", ".mov": "mov", ".ogv": "ogg",
           ".wmv": "asf", ".avi": "avi"}  # fmt: skip
_FLV_HEADER_BYTES = 13
_TS_PACKET_BYTES = 188
_ADTS = (b"\xff\xf1", b"\xff\xf9")

Timed = list[tuple[Fraction, int]]
"""Times in seconds, and checksums of the content."""


def record(
    path: Path,
    number: int,
    frames: int = 25,
    offset: float = 0,
    *,
    video: str = "",
    audio: str = "",
    sound_seconds: float | None = None,
    sound_late: float = 0,
    has_sound: bool = True,
    size: str = "64x48",
    more: str = "",
) -> Path:
    """Write a recording that no other number makes: noise in picture and sound."""
    suffix = path.suffix
    seconds = frames / 25 if sound_seconds is None else sound_seconds
    noise = f"testsrc2=size={size}:rate=25,noise=alls=15:allf=t:all_seed={number + 1}"
    sound = f"anoisesrc=seed={number + 1}:sample_rate=44100:duration={seconds}"
    inputs = f"-f lavfi -i {noise},trim=end_frame={frames}"
    maps = "-map 0"
    if has_sound:
        inputs += f" -itsoffset {sound_late} -f lavfi -i {sound}"
        maps += " -map 1"
    usual = _VIDEO.get(suffix, H264)
    heard = audio or _SOUND.get(suffix, "-c:a mp2")
    ffmpeg(inputs, maps, video or usual, heard, f"-output_ts_offset {offset} {more}",
           f"-f {_MUXERS[suffix]}", path)  # fmt: skip
    return path


def join(target: Path, parts: Sequence[Path]) -> Path:
    """Append recordings to each other, byte by byte; those of FLV without the later headers."""
    skipped = _FLV_HEADER_BYTES if target.suffix == ".flv" else 0
    first, *others = (part.read_bytes() for part in parts)
    target.write_bytes(first + b"".join(other[skipped:] for other in others))
    return target


def append(target: Path, parts: Sequence[Path]) -> Path:
    """Append whole files to each other, as cat does."""
    target.write_bytes(b"".join(part.read_bytes() for part in parts))
    return target


def frames_shown(path: Path, stream: str = "0:v:0") -> Timed:
    """The frames of a stream, as the ffmpeg program shows them."""
    done = subprocess.run(
        [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error", "-copyts", "-i", str(path),
         "-map", stream, "-fps_mode", "passthrough", "-enc_time_base", "demux", "-f", "framecrc",
         "-"], capture_output=True, text=True,
    )  # fmt: skip
    shown, clock = [], Fraction(1)
    for line in done.stdout.splitlines():
        if line.startswith("#tb 0:"):
            clock = Fraction(line.removeprefix("#tb 0:").strip())
        elif not line.startswith("#"):
            fields = [field.strip() for field in line.split(",")]
            shown.append((int(fields[2]) * clock, int(fields[5], 16)))
    return shown


def packets(path: Path, index: int) -> Timed:
    """The packets of a stream, without what a transport stream puts before each packet of AAC."""
    with av.open(str(path), options={"scan_all_pmts": "1"}) as container:
        found = []
        for packet in container.demux(container.streams[index]):
            if packet.size:
                content = bytes(packet)
                content = content[7:] if content[:2] in _ADTS else content
                found.append((Fraction(packet.pts * packet.time_base), zlib.crc32(content)))
        return found


def spread(
    parts: Sequence[Path], target: Path, streams: Sequence[int] = (1,)
) -> list[tuple[Fraction, Fraction]]:
    """The least and the greatest shift of picture and sound of each part in a file made of them.

    Fails if a frame or a packet of a part is missing in the file, or more is in it.
    """
    shown, heard = frames_shown(target), {index: packets(target, index) for index in streams}
    shifts = []
    for part in parts:
        pairs = _matched(frames_shown(part), shown)
        for index in streams:
            with av.open(str(part), options={"scan_all_pmts": "1"}) as container:
                has_stream = index < len(container.streams)
            if has_stream:
                pairs += _matched(packets(part, index), heard[index])
        moved = [after - before for before, after in pairs]
        shifts.append((min(moved), max(moved)))
    assert not shown
    assert not any(heard.values())
    return shifts


def _matched(before: Timed, after: Timed) -> list[tuple[Fraction, Fraction]]:
    """The times of equal contents; what was matched is taken from `after`."""
    taken = after[: len(before)]
    del after[: len(before)]
    assert [content for _, content in taken] == [content for _, content in before]
    return [(a, b) for (a, _), (b, _) in zip(before, taken, strict=True)]


def without_times(data: bytes, wanted: Callable[[int], bool] = lambda _: True) -> bytes:
    """A program stream whose packets have no times; `wanted` selects them by their stream id."""
    changed = bytearray(data)
    for at, kind in _program_packets(data):
        if (kind == 0xBD or 0xC0 <= kind <= 0xEF) and wanted(kind):
            length = {0: 0, 2: 5, 3: 10}[changed[at + 7] >> 6]
            changed[at + 7] &= 0x3F
            changed[at + 9 : at + 9 + length] = b"\xff" * length
    return bytes(changed)


def _program_packets(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield (position, stream id) of the parts of a program stream."""
    at = 0
    while at + 14 <= len(data):
        kind = data[at + 3]
        yield at, kind
        pack = 14 + (data[at + 13] & 7)
        at += pack if kind == 0xBA else 6 + struct.unpack_from(">H", data, at + 4)[0]


def with_moved_times(data: bytes, pid: int, first: int, count: int, seconds: float) -> bytes:
    """A transport stream in which the times of some packets of a stream are false."""
    changed = bytearray(data)
    for number, at in enumerate(_elementary_packets(data, pid)):
        if first <= number < first + count:
            flags = changed[at + 7] >> 6
            for place in (at + 9, at + 14)[: {2: 1, 3: 2}.get(flags, 0)]:
                _move(changed, place, round(90000 * seconds))
    return bytes(changed)


def without_decoding_times(data: bytes, pid: int) -> bytes:
    """A transport stream in which a stream has presentation times only."""
    changed = bytearray(data)
    for at in _elementary_packets(data, pid):
        if changed[at + 7] >> 6 == 3:
            changed[at + 7] = changed[at + 7] & 0x3F | 0x80
            changed[at + 9] = changed[at + 9] & 0x0F | 0x20
            changed[at + 14 : at + 19] = b"\xff" * 5
    return bytes(changed)


def _elementary_packets(data: bytes, pid: int) -> Iterator[int]:
    """Yield the positions of the packets of a stream with a header of their own."""
    for start in range(0, len(data), _TS_PACKET_BYTES):
        own = (data[start + 1] & 0x1F) << 8 | data[start + 2]
        if data[start + 1] & 0x40 and own == pid:
            has_more = data[start + 3] & 0x20
            yield start + 4 + (1 + data[start + 4] if has_more else 0)


def _move(data: bytearray, at: int, ticks: int) -> None:
    """Change a time of 33 bits."""
    a, b, c, d, e = data[at : at + 5]
    time = (a >> 1 & 7) << 30 | b << 22 | c >> 1 << 15 | d << 7 | e >> 1
    time = (time + ticks) % (1 << 33)
    data[at : at + 5] = bytes([
        a & 0xF1 | time >> 30 << 1, time >> 22 & 255, time >> 14 & 254 | 1, time >> 7 & 255,
        time << 1 & 254 | 1,
    ])  # fmt: skip


def with_pulldown(data: bytes) -> bytes:
    """An MPEG-2 stream without B frames whose frames last three and two fields by turns."""
    changed, at, count = bytearray(data), -1, 0
    while (at := changed.find(b"\x00\x00\x01\xb5", at + 1)) >= 0:
        kind = changed[at + 4] >> 4
        if kind == 1:  # the sequence is not progressive
            changed[at + 5] &= ~0x08
        elif kind == 8:  # top field first, repeat first field, and a progressive frame
            flags = 0x80 * (count % 4 in (0, 3)) | 0x02 * (count % 2 == 0)
            changed[at + 7] = changed[at + 7] & ~0x82 | flags
            changed[at + 8] |= 0x80
            count += 1
    return bytes(changed)


def pack_b_frames(source: Path, target: Path) -> Path:
    """An AVI in which each B frame stands in the packet of the frame before it, as DivX did."""
    with av.open(str(source)) as reader, av.open(str(target), "w") as writer:
        stream = reader.streams.video[0]
        copy = writer.add_stream_from_template(stream)
        coded = [bytes(packet) for packet in reader.demux(stream) if packet.size]
        packed: list[bytes] = []
        for data in coded:
            if _vop_type(data) == "B":
                packed[-1] += data
                packed.append(_NOT_CODED)
            else:
                packed.append(data)
        begin = packed[0].index(b"\x00\x00\x01\xb6")
        packed[0] = packed[0][:begin] + b"\x00\x00\x01\xb2DivX503b1393p" + packed[0][begin:]
        for number, data in enumerate(packed):
            packet = av.Packet(data)
            packet.stream, packet.time_base = copy, Fraction(1, 25)
            packet.pts = packet.dts = number
            packet.is_keyframe = _vop_type(data) == "I"
            writer.mux(packet)
    return target


# A frame that repeats the one before: a P frame, whose time has five bits, that is not coded.
_NOT_CODED = b"\x00\x00\x01\xb6" + int("0101000001001111", 2).to_bytes(2)


def _vop_type(data: bytes) -> str:
    """The type of an MPEG-4 frame."""
    return "IPBS"[data[data.index(b"\x00\x00\x01\xb6") + 4] >> 6]
