"""What two video files hold, and every difference between them.

PyAV reads the streams and their packets, the ffmpeg program the pictures' properties; nothing of
the product is used. `differences` says what a restored file lacks of its source.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.stream import Disposition
from helpers.sources import ffmpeg

Titled = tuple[Fraction, Fraction, str]
"""Start and end in seconds, and a text."""

# What a container has no place for, as docs/reference/containers-and-codecs.md says: only this may
# be lost, and only if a warning says so.
MAY_LACK = {
    ".mp4": {"attachment", "picture subtitle", "data", "tag", "flags", "style"},
    ".mov": {"attachment", "picture subtitle", "data", "tag", "flags", "style", "cover", "title"},
    ".mkv": {"data"},
}

_DRAWN = ("pgssub", "dvdsub", "dvbsub")
_SHOWN = ("video", "audio", "subtitle")
_LANGUAGES = {"fre": "fra", "ger": "deu", "und": ""}
# By the names of decoders; MPEG-4 has one name for all layers of MPEG audio.
_CODEC_NAMES = {
    "srt": "subrip", "ssa": "ass", "libdav1d": "av1", "mp2": "mpeg audio", "mp3float": "mpeg audio",
}  # fmt: skip
# Written by every muxer about itself, or compared under another name.
_NO_TAGS = {
    "major_brand", "minor_version", "compatible_brands", "encoder", "software", "duration",
    "language", "handler_name", "vendor_id", "timecode", "filename", "mimetype",
}  # fmt: skip
# What showinfo may say of the output where the source says nothing: the usual reading.
_USUAL = {
    "range": {"tv"},
    "matrix": {"smpte170m", "bt470bg"},
    "primaries": {"smpte170m", "bt470bg", "bt709"},
    "transfer": {"smpte170m", "bt709"},
    "chroma location": {"left"},
}
_ADTS = (b"\xff\xf1", b"\xff\xf9")
_MILLISECOND = Fraction(1, 1000)  # Matroska's clock
# AVFieldOrder; as ffmpeg and QuickTime use the latter two, by the field that is shown first.
_STREAM_ORDER = {0: None, 1: "P", 2: "T", 3: "B", 4: "T", 5: "B"}


@dataclass(frozen=True)
class Difference:
    what: str
    text: str
    """Names what is missing, in words of which a warning must hold one."""
    words: tuple[str, ...] = ()

    def is_announced(self, suffix: str, warnings: Sequence[str]) -> bool:
        """Whether the container excuses it and a warning says it."""
        said = " ".join(warnings).lower()
        return self.what in MAY_LACK[suffix] and any(word.lower() in said for word in self.words)

    def __str__(self) -> str:
        return f"{self.what}: {self.text}"


@dataclass(frozen=True)
class Stream:
    index: int
    kind: str
    """video, cover, audio, subtitle, attachment or data."""
    codec: str
    facts: dict[str, Any]
    """What must be equal: language, title, sound format, an attachment's name and so on."""
    flags: set[str]
    tags: dict[str, str]
    packets: tuple[tuple[Fraction, bytes], ...]
    """(seconds, payload) in order, without what an edit list hides."""
    hidden: int
    """How many packets it hides."""
    heard_from: Fraction
    """Of sound: the time of the first samples that a decoder gives."""
    tick: Fraction
    """Of its clock, in seconds."""


@dataclass(frozen=True)
class Contents:
    container: str
    """By the name of its demuxer."""
    picture: dict[str, Any]
    """The main video stream: codec, size, colour, shape, fields, HDR; see `_picture`."""
    times: tuple[Fraction, ...]
    last_duration: Fraction
    streams: list[Stream]
    """All but chapters and timecode, which are tracks in some containers."""
    chapters: list[Titled]
    tags: dict[str, str]
    timecode: str | None
    cues: dict[int, list[Titled]]
    """Stream index -> text subtitles."""


def contents(path: Path) -> Contents:
    with av.open(str(path)) as container:
        main = next(s for s in container.streams.video if not _is_cover(s))
        chapters = [
            (c["start"] * c["time_base"], c["end"] * c["time_base"], c["metadata"].get("title", ""))
            for c in container.chapters()
        ]
        packets = [packet for packet in container.demux() if packet.size]
        kept = [s for s in container.streams if not _is_bookkeeping(s, bool(chapters))]
        heard = {s.index: _heard_from(path, s.index) for s in container.streams.audio}
        streams = [
            _stream(s, [p for p in packets if p.stream is s], heard.get(s.index, Fraction(0)))
            for s in kept
        ]
        text = [s.index for s in streams if s.kind == "subtitle" and s.codec not in _DRAWN]
        return Contents(
            container.format.name, *_picture(path, main.index), streams, chapters,
            _tags(container.metadata), _timecode(container), {i: _cues(path, i) for i in text},
        )  # fmt: skip


def differences(source: Contents, output: Contents, suffix: str, codec: str) -> list[Difference]:
    """Whatever of `source` is not in `output`, a file of that suffix encoded in `codec`."""
    is_mkv = suffix == ".mkv"
    found = [
        *_of_picture({**source.picture, "codec": codec}, output.picture, is_mkv),
        *_of_times(source, output, _MILLISECOND if is_mkv else Fraction(0)),
        *_of_streams(source, output, suffix),
        *_of_tags("file", source.tags, output.tags),
    ]
    if not _are_close(source.chapters, output.chapters):
        found.append(Difference("chapters", f"{source.chapters} became {output.chapters}"))
    if source.timecode != output.timecode:
        found.append(Difference("timecode", f"{source.timecode} became {output.timecode}"))
    return found


def _of_picture(was: dict[str, Any], now: dict[str, Any], is_mkv: bool) -> Iterator[Difference]:
    for name, value in was.items():
        got = now[name]
        if name == "chroma location" and (value, got) == ("unspecified", "topleft"):
            fine = was["transfer"] in ("smpte2084", "arib-std-b67")  # as BT.2100 has it
        elif name in _USUAL and value in ("unknown", "unspecified"):
            fine = got in (value, *_USUAL[name])
        elif name == "chroma location" and not re.search("42|41", was["pixel format"]):
            fine = True
        elif name == "range" and was["codec"] == "h264":  # whose default it is: annex E.2.1
            fine = got == value or (got, value) == ("unknown", "tv")
        elif name == "shape" and is_mkv:  # a whole number of display pixels
            fine = abs(got - value) * was["size"][0] <= Fraction(1, 2)
        elif name == "coded shape":  # which not every codec has, and the container overrules
            fine = got in (value, was["shape"], None)
        elif name == "stream field order":  # may be left unsaid
            fine = got in (None, value or was["fields"][0])
        elif name == "mastering display" and value and got:
            fine = all(abs(a - b) <= Fraction(1, 50000) for a, b in zip(value, got, strict=True))
        else:
            fine = got == value
        if not fine:
            yield Difference("picture", f"{name} {value} became {got}")


def _of_times(source: Contents, output: Contents, tolerance: Fraction) -> Iterator[Difference]:
    if len(source.times) != len(output.times):
        yield Difference("times", f"{len(source.times)} frames became {len(output.times)}")
        return
    off = [abs(b - a) for a, b in zip(source.times, output.times, strict=True)]
    if max(off) > tolerance:
        worst = off.index(max(off))
        yield Difference("times", f"frame {worst} moved by {float(1000 * off[worst])} ms")
    was, now = source.last_duration, output.last_duration
    if was and abs(was - now) > max(tolerance, _MILLISECOND / 10):
        yield Difference("times", f"the last frame lasts {float(now)} s, not {float(was)} s")


def _of_streams(source: Contents, output: Contents, suffix: str) -> Iterator[Difference]:
    for kind in ("video", "cover", "audio", "subtitle", "attachment", "data"):
        was = [s for s in source.streams if s.kind == kind]
        now = [s for s in output.streams if s.kind == kind]
        if kind == "subtitle" and len(now) < len(was):
            for lost in (s for s in was if s.codec in _DRAWN):
                yield Difference("picture subtitle", "is lost", (f"stream {lost.index}",))
            was = [s for s in was if s.codec not in _DRAWN]
        if kind != "video" and was and not now:
            for lost in was:
                yield Difference(kind, f"{lost.codec} is lost", (f"stream {lost.index}", kind))
        elif len(was) != len(now):
            yield Difference(f"number of {kind} streams", f"{len(was)} became {len(now)}")
        else:
            for a, b in zip(was, now, strict=True):
                yield from _of_stream(a, b, source, output, suffix)
    order, got = ([s.kind for s in c.streams if s.kind in _SHOWN] for c in (source, output))
    if len(order) == len(got) and order != got:
        yield Difference("order of streams", f"{order} became {got}")


def _of_stream(
    was: Stream, now: Stream, source: Contents, output: Contents, suffix: str
) -> Iterator[Difference]:
    which = f"{was.kind} stream {was.index}"
    for name, value in was.facts.items():
        is_cover_name = was.kind == "cover" and (suffix != ".mkv" or value is None)
        if now.facts.get(name) != value and not is_cover_name:
            text = f"{which}: {value!r} became {now.facts.get(name)!r}"
            yield Difference(name, text, (name,))
    gone, come = was.flags - now.flags, now.flags - was.flags
    if suffix != ".mkv" or not source.container.startswith(("matroska", "mov")):
        come -= {"default"}  # QuickTime's kin has one enabled track of each kind, always
    if suffix != ".mkv" and "hearing_impaired" in was.flags:
        come -= {"captions"}  # MPEG-4 has one word for both
    if gone or come:
        yield Difference("flags", f"{which} {sorted(gone)} lost, {sorted(come)} new", tuple(gone))
    own = {k: v for k, v in was.tags.items() if source.tags.get(k) != v}
    yield from _of_tags(which, own, now.tags)
    if was.kind == "video":
        return
    if was.kind == "subtitle" and was.codec != now.codec:
        if was.codec == "ass":
            yield Difference("style", f"of {was.codec} became {now.codec}", (now.codec, "styl"))
        a, b = source.cues[was.index], output.cues.get(now.index, [])
        if not _are_close(a, b):
            yield Difference(which, f"{a} became {b}")
        return
    if was.codec != now.codec:
        yield Difference(which, f"{was.codec} became {now.codec}")
    more = len(now.packets) - len(was.packets)
    if suffix == ".mkv" and 0 < more <= was.hidden:
        # Matroska hides the first packets not by themselves but by a delay of the decoder.
        now = replace(now, packets=now.packets[more:])
    if _payload(was) != _payload(now):
        yield Difference(
            which, f"{len(was.packets)} packets are not the {len(now.packets)} written"
        )
    elif was.kind in ("audio", "subtitle"):
        yield from _of_offsets(which, was, now, source, output, suffix)


def _of_offsets(
    which: str, was: Stream, now: Stream, source: Contents, output: Contents, suffix: str
) -> Iterator[Difference]:
    """Of times against the picture's; after the first packet these may move in a coarse clock."""
    tolerance = _MILLISECOND if suffix == ".mkv" else _MILLISECOND / 10
    pairs = zip(was.packets, now.packets, strict=was.codec[:4] != "pcm_")
    begin = output.times[0] - source.times[0]
    first, *others = (abs(b - a - begin) for (a, _), (b, _) in pairs)
    late = now.heard_from - was.heard_from - begin
    if first > tolerance:
        yield Difference(which, f"moved by {float(1000 * first):.3f} ms against the picture")
    elif abs(late) > tolerance:
        yield Difference(which, f"is heard {float(1000 * late):.3f} ms later against the picture")
    elif not was.codec.startswith("pcm_") and max(others, default=0) > max(tolerance, was.tick):
        yield Difference(which, f"a packet moved by {float(1000 * max(others)):.3f} ms")


def _of_tags(which: str, was: dict[str, str], now: dict[str, str]) -> Iterator[Difference]:
    for key, value in was.items():
        if now.get(key) != value:
            yield Difference("tag", f"{which} {key}={value} became {now.get(key)}", (key,))


def _payload(stream: Stream) -> bytes:
    # Sound without compression is cut into packets as a container likes.
    parted = b"" if stream.codec.startswith("pcm_") else b"|"
    return parted.join(payload for _, payload in stream.packets)


def _are_close(was: Sequence[Titled], now: Sequence[Titled]) -> bool:
    return len(was) == len(now) and all(
        a[2] == b[2] and abs(a[0] - b[0]) <= _MILLISECOND and abs(a[1] - b[1]) <= _MILLISECOND
        for a, b in zip(was, now, strict=True)
    )


def _is_cover(stream: Any) -> bool:
    return bool(stream.disposition & Disposition.attached_pic)


def _is_bookkeeping(stream: Any, has_chapters: bool) -> bool:
    """The tracks in which QuickTime keeps chapters and timecode."""
    is_chapters = has_chapters and stream.container.format.name.startswith("mov")
    return stream.type == "data" and (is_chapters or "timecode" in stream.metadata)


def _timed(packet: Any) -> tuple[Fraction, bytes]:
    time = packet.pts if packet.pts is not None else packet.dts
    payload = bytes(packet)
    is_transport = packet.stream.container.format.name == "mpegts"
    if is_transport and payload[:2] in _ADTS:
        payload = payload[7:]  # the header by which a transport stream frames AAC
    return (time or 0) * Fraction(packet.time_base), payload


def _heard_from(path: Path, index: int) -> Fraction:
    with av.open(str(path)) as container:
        first = next(container.decode(container.streams[index]))
        return first.pts * Fraction(first.time_base)


def _stream(stream: Any, demuxed: Sequence[Any], heard_from: Fraction) -> Stream:
    packets = tuple(_timed(packet) for packet in demuxed if not packet.is_discard)
    hidden = len(demuxed) - len(packets)
    kind = "cover" if _is_cover(stream) else stream.type
    name = stream.codec_context.name if stream.codec_context else stream.type
    language = stream.metadata.get("language", "")
    facts: dict[str, Any] = {"language": _LANGUAGES.get(language, language)}
    facts["title"] = _title({k.lower(): v for k, v in stream.metadata.items()})
    if kind == "audio":
        facts["sound"] = (stream.codec_context.sample_rate, stream.codec_context.channels)
    if kind == "attachment":
        facts |= {"name": stream.name, "type": stream.mimetype}
        packets = ((Fraction(0), bytes(stream.data)),)
    if kind == "cover":  # in Matroska an attachment, whose name says what it is
        facts = {key: stream.metadata.get(key) for key in ("filename", "mimetype")}
        packets = packets[:1]
    if name == "mov_text":  # whose gaps are packets without text
        packets = tuple(p for p in packets if p[1] != b"\0\0")
    flags = {f.name for f in Disposition if f.name and f & stream.disposition} - {"attached_pic"}
    tags = {k: v for k, v in _tags(stream.metadata).items() if k not in ("title", "name")}
    return Stream(
        stream.index, kind, _CODEC_NAMES.get(name, name), facts, flags, tags, packets, hidden,
        heard_from, Fraction(stream.time_base or 0),
    )  # fmt: skip


def _title(tags: dict[str, str]) -> str | None:
    """Of a track; QuickTime's kin may keep it as the name of the track or of its handler."""
    names = (tags.get(key, "") for key in ("title", "name", "handler_name"))
    return next((name for name in names if name and not name.endswith("Handler")), None)


def _tags(metadata: dict[str, str]) -> dict[str, str]:
    tags = {key.lower(): value for key, value in metadata.items()}
    # "location-eng" repeats "location".
    return {k: v for k, v in tags.items() if k not in _NO_TAGS and not k.endswith("-eng")}


def _timecode(container: Any) -> str | None:
    everywhere = (container.metadata, *(s.metadata for s in container.streams))
    said = [m[key] for m in everywhere for key in m if key.lower() == "timecode"]
    return said[0] if said else None


def _picture(path: Path, index: int) -> tuple[dict[str, Any], tuple[Fraction, ...], Fraction]:
    with av.open(str(path)) as container:
        stream: Any = container.streams[index]
        frames = list(container.decode(stream))
        times = tuple(f.pts * Fraction(f.time_base) for f in frames)
        context, first = stream.codec_context, frames[0]
        shown = _shown(path, index)
        said = {
            "codec": _CODEC_NAMES.get(context.name, context.name),
            "size": (first.width, first.height),
            "pixel format": first.format.name.replace("yuvj", "yuv"),
            **shown,
            "shape": Fraction(stream.sample_aspect_ratio or 1),
            "coded shape": Fraction(context.sample_aspect_ratio or 0) or None,
            "stream field order": _STREAM_ORDER[int(context.field_order or 0)],
            "display matrix": _integers(first, "DISPLAYMATRIX", "<9i"),
            "mastering display": _mastering(first),
            "content light": _integers(first, "CONTENT_LIGHT_LEVEL", "<2I"),
        }
    return said, times, _end(path, index) - times[-1]


def _end(path: Path, index: int) -> Fraction:
    """When the last frame ends, in seconds. QuickTime's kin says it of the track; the durations of
    its packets are the steps of decoding."""
    with av.open(str(path)) as container:
        stream = container.streams[index]
        if container.format.name.startswith("mov"):
            ticks = int(stream.start_time or 0) + int(stream.duration or 0)
        else:
            last = max((p for p in container.demux(stream) if p.size), key=lambda p: p.pts)
            ticks = last.pts + (last.duration or 0)
        return ticks * Fraction(stream.time_base)


def _shown(path: Path, index: int) -> dict[str, Any]:
    """What the showinfo filter of ffmpeg says of the frames' fields and of the first's colour."""
    log = ffmpeg(
        "-v info -copyts -noautorotate -i", path,
        f"-map 0:{index} -vf showinfo -fps_mode passthrough -f null -",
    ).decode(errors="replace")  # fmt: skip
    frames = re.findall(r" n: *\d+ .* cl:(\w+) .* i:(.) ", log)
    pattern = r"color_range:(\w+) color_space:(\w+) color_primaries:(\w+) color_trc:(\S+)"
    colour = re.search(pattern, log)
    assert frames, log
    assert colour, log
    said = dict(zip(("range", "matrix", "primaries", "transfer"), colour.groups(), strict=True))
    fields = "".join(field for _, field in frames)
    return {**said, "chroma location": frames[0][0], "fields": fields}


def _integers(frame: Any, name: str, layout: str) -> tuple[int, ...] | None:
    data = frame.side_data.get(name)
    return None if data is None else struct.unpack_from(layout, bytes(data))


def _mastering(frame: Any) -> list[Fraction] | None:
    """Of libavutil's AVMasteringDisplayMetadata: ten ratios."""
    numbers = _integers(frame, "MASTERING_DISPLAY_METADATA", "<20i") or ()
    return [Fraction(a, b) for a, b in zip(numbers[::2], numbers[1::2], strict=True)] or None


def _cues(path: Path, index: int) -> list[Titled]:
    """Start, end and text without marks of every subtitle."""
    said = ffmpeg("-copyts -i", path, f"-map 0:{index} -f srt -").decode()
    cues = []
    for block in re.split(r"\n\s*\n", said.strip()):
        lines = block.splitlines()
        start, end = (_seconds(time) for time in lines[1].split(" --> "))
        text = re.sub(r"<[^>]*>|\{\\[^}]*\}", "", "\n".join(lines[2:]))
        cues.append((start, end, text.strip()))
    return cues


def _seconds(time: str) -> Fraction:
    hours, minutes, seconds = time.replace(",", ".").split(":")
    return 3600 * int(hours) + 60 * int(minutes) + Fraction(seconds)
