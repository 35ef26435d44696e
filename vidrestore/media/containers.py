"""What each container can hold, and what becomes of every stream of the source."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from vidrestore.common.errors import UsageError

if TYPE_CHECKING:
    from vidrestore.media.probe import Probe, StreamInfo
    from vidrestore.media.timeline import TimeLine

_CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
_TEXT_SUBTITLES = {"mov_text", "subrip", "srt", "ass", "ssa", "webvtt", "text"}
_NEEDS_TEXT_IN_MATROSKA = {"mov_text", "eia_608", "text"}
_PICTURE_TYPES = {"mjpeg": ("image/jpeg", "jpg"), "png": ("image/png", "png"),
                  "bmp": ("image/bmp", "bmp"), "gif": ("image/gif", "gif"),
                  "tiff": ("image/tiff", "tif"), "webp": ("image/webp", "webp")}  # fmt: skip
_PICTURES_IN_MP4 = {"mjpeg", "png", "bmp"}
_TIMECODE_TAG = "tmcd"
_CHAPTER_TAG = "text"
# Tags of a file that ffmpeg's muxers for mov and mp4 write; other tags need an extension.
_MOV_TAGS = {"title", "artist", "album", "date", "encoder", "comment", "genre", "copyright",
             "location", "location-eng", "creation_time", "make", "model", "timecode"}  # fmt: skip
_MP4_TAGS = {"title", "artist", "album_artist", "composer", "album", "date", "encoder", "comment",
             "genre", "copyright", "grouping", "lyrics", "description", "synopsis", "show",
             "episode_id", "network", "keywords", "track", "disc", "location", "location-eng",
             "creation_time", "season_number", "episode_sort", "media_type", "hd_video",
             "compilation", "gapless_playback", "timecode"}  # fmt: skip
# ISO 639-2 has two codes for some languages; the values are the codes that QuickTime knows.
_LANGUAGES_IN_MOV = {"deu": "ger", "nld": "dut", "isl": "ice", "ell": "gre", "zho": "chi",
                     "hye": "arm", "kat": "geo", "mkd": "mac", "sqi": "alb", "fre": "fra",
                     "cze": "ces", "slo": "slk", "rum": "ron"}  # fmt: skip
_OF_THE_OLD_FILE = {"major_brand", "minor_version", "compatible_brands", "encoder", "duration"}
# Tags that describe the old encoding rather than the content.
_OF_THE_OLD_STREAM = re.compile(
    r"encoder|duration|bps.*|number_of_(frames|bytes).*|_statistics_.*|vendor_id|rotate|name|"
    r"handler_name|title",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class RemuxPlan:
    """What becomes of each stream of the source."""

    container: str
    """The container: mp4, mov or matroska."""
    kept: tuple[int, ...]
    """The indices of the source streams to keep, in the order of the output, with the restored one
    among them.
    """
    codecs: Mapping[int, str]
    """Source stream index -> codec to convert to, for streams that cannot be copied."""
    tags: Mapping[int, Mapping[str, str]]
    """Source stream index -> tags that ffmpeg does not carry over by itself; the value "" removes a
    tag.
    """
    dispositions: Mapping[int, str]
    """Source stream index -> ffmpeg's names of its disposition flags, joined by "+"."""
    attached: Mapping[int, tuple[str, str]] = field(default_factory=dict)
    """Source stream index of a cover picture -> (file name, media type) as an attachment."""
    has_own_tags: bool = False
    """Whether the file has tags that mp4 and mov hold only by an extension."""
    can_have_own_tags: bool = True
    """Whether the output can hold such tags; mp4 and mov cannot hold them together with a cover
    picture.
    """
    has_comment: bool = False
    """Whether the source has the tag comment."""
    lost: tuple[str, ...] = ()
    """What the container cannot hold, one sentence each."""
    time_line: TimeLine | None = None
    """The repair of the times of the source; None: none is needed."""
    start: Fraction = Fraction(0)
    """The start time of the source, in seconds."""

    def without(self, streams: Collection[int], why: str) -> RemuxPlan:
        """Return the plan without some streams of the source.

        Args:
            streams: The indices of the streams to leave out.
            why: The reason, a sentence for `lost`.

        Returns:
            The new plan.
        """
        kept = tuple(index for index in self.kept if index not in streams)
        return replace(self, kept=kept, lost=(*self.lost, why))


def container_of(target: Path) -> str:
    """Return the container of the output by its suffix.

    Args:
        target: The output.

    Returns:
        mp4, mov or matroska.

    Raises:
        UsageError: The suffix is none of .mp4, .m4v, .mov and .mkv.
    """
    container = _CONTAINERS.get(target.suffix.lower())
    if container is None:
        raise UsageError(
            f"the output {target.name} must end in one of {', '.join(_CONTAINERS)}; .mkv can hold "
            "the most"
        )
    return container


def is_container(path: Path) -> bool:
    """Return whether the suffix of a path names a container that vidrestore writes.

    Args:
        path: The path; the file need not exist.

    Returns:
        True for .mp4, .m4v, .mov and .mkv.
    """
    return path.suffix.lower() in _CONTAINERS


def suffix_for(container: str) -> str:
    """Return the usual suffix of files in a container.

    Args:
        container: mp4, mov or matroska.

    Returns:
        The suffix with its dot.
    """
    return next(suffix for suffix, name in _CONTAINERS.items() if name == container)


def plan_streams(source: Probe, target: Path, *, whole: bool) -> RemuxPlan:
    """Decide before the work begins which streams are copied, converted or lost.

    Args:
        source: The file whose streams are carried over.
        target: The output, whose suffix names the container.
        whole: False for a part of the source, for which only sound is carried over.

    Returns:
        The plan for `media.remux`.

    Raises:
        UsageError: The suffix of the output names no container.
    """
    container, info = container_of(target), source.info
    covers = {s.index for s in source.streams if s.is_cover}
    kept: list[int] = []
    codecs: dict[int, str] = {}
    attached: dict[int, tuple[str, str]] = {}
    lost: list[str] = []
    for stream in source.streams:
        change, loss = _stream_change(stream, container)
        if not whole and stream.type != "audio":
            loss = f"{_named(stream)} is left out of a sample, which has picture and sound only"
        if stream.index == info.stream_index or (loss is None and change != _RECREATED):
            if container == "matroska" and stream.index in covers:
                attached[stream.index] = _attachment(stream)
                continue
            kept.append(stream.index)
            if change is not None:
                codecs[stream.index] = change
            lost += _lost_within(stream, change)
        elif loss is not None:
            lost.append(loss)
    tags = {key.lower() for key in source.metadata} - _OF_THE_OLD_FILE
    has_cover = bool(covers.intersection(kept))
    own = sorted(tags - (_MOV_TAGS if container == "mov" else _MP4_TAGS))
    if own and has_cover and container != "matroska":
        suffix = suffix_for(container)
        lost.append(f"{suffix} cannot hold both a cover picture and the tags {', '.join(own)}")
    return RemuxPlan(
        container,
        tuple(kept),
        codecs,
        tags={
            s.index: dict(
                _stream_tags(
                    s,
                    container,
                    anew=s.index == info.stream_index or not source.time_line.is_plain,
                )
            )
            for s in source.streams
            if s.index in kept
        },
        dispositions={s.index: _flags(s) for s in source.streams if s.index in kept},
        attached=attached,
        has_own_tags=bool(own) and container != "matroska",
        can_have_own_tags=not has_cover,
        has_comment="comment" in tags,
        lost=tuple(lost),
        time_line=source.time_line,
        start=source.start,
    )


_RECREATED = "recreated"


def _stream_change(stream: StreamInfo, container: str) -> tuple[str | None, str | None]:
    """Return (codec to convert to, or None to copy; notice if the stream is lost, or None)."""
    name, where = stream.codec, _named(stream)
    if stream.type == "subtitle":
        if container == "matroska":
            return ("srt" if name in _NEEDS_TEXT_IN_MATROSKA else None), None
        if name in _TEXT_SUBTITLES:
            return (None if name == "mov_text" else "mov_text"), None
        return None, f"{where} holds subtitles as pictures, which only an .mkv file can keep"
    if stream.type == "attachment" and container != "matroska":
        return None, f"{where} is an attached file, which only an .mkv file can keep"
    if stream.is_cover and (
        container == "mov" or (container == "mp4" and name not in _PICTURES_IN_MP4)
    ):
        holds = "an .mkv file" if container == "mp4" else "an .mp4 or .mkv file"
        return None, f"{where} is a cover picture, which {holds} can keep"
    if stream.type == "data":
        # ffmpeg writes both again, from the time code in the stream's tags and from the chapters.
        if stream.data_tag in (_TIMECODE_TAG, _CHAPTER_TAG):
            return _RECREATED, None
        return None, f"{where} holds data that no player shows, so vidrestore leaves it out"
    if stream.type not in ("video", "audio", "attachment"):
        return None, f"{where} is of a kind that vidrestore cannot copy, so it is left out"
    return None, None


def _lost_within(stream: StreamInfo, change: str | None) -> Iterator[str]:
    """Yield a notice for each property that a kept stream loses."""
    if change is not None and stream.codec in ("ass", "ssa"):
        yield f"{_named(stream)} loses its styling as {change}, which only an .mkv file can keep"
    if stream.metadata.get("alpha_mode", stream.metadata.get("ALPHA_MODE")) == "1":
        yield f"{_named(stream)} has transparency that is not decoded; the output is opaque"


def _named(stream: StreamInfo) -> str:
    """Return how messages name a stream."""
    return f"stream {stream.index} ({stream.codec or stream.type})"


def _attachment(stream: StreamInfo) -> tuple[str, str]:
    """Return file name and media type of a cover picture that becomes an attachment."""
    media_type, suffix = _PICTURE_TYPES.get(str(stream.codec), ("application/octet-stream", "bin"))
    tags = {key.lower(): value for key, value in stream.metadata.items()}
    name = Path(tags.get("filename") or f"cover.{suffix}").name
    return name, tags.get("mimetype") or media_type


def _flags(stream: StreamInfo) -> str:
    """Return ffmpeg's names of the disposition flags of a stream, joined by "+"; "0" for none."""
    from av.stream import Disposition  # paths are checked by their suffix without PyAV

    names = [flag.name for flag in Disposition if flag.name and flag & stream.disposition]
    return "+".join(names) or "0"


def _stream_tags(stream: StreamInfo, container: str, *, anew: bool) -> Iterator[tuple[str, str]]:
    """Yield the tags that ffmpeg does not carry over by itself; the value "" removes a tag.

    `anew` is whether ffmpeg gets the stream from another file than the source.
    """
    tags = {key.lower(): value for key, value in stream.metadata.items()}
    if anew:
        for key, value in stream.metadata.items():
            if not _OF_THE_OLD_STREAM.fullmatch(key):
                yield key, value
    elif container == "matroska" and "creation_time" in tags:
        yield "creation_time", tags["creation_time"]
    if title := tags.get("title") or tags.get("name"):
        # The tag name of mp4 becomes the title; it is removed so that it does not appear twice.
        yield "title", title
        yield "name", ""
    if container == "mov" and tags.get("language") in _LANGUAGES_IN_MOV:
        yield "language", _LANGUAGES_IN_MOV[tags["language"]]
