"""What each container can hold, and what becomes of every stream of the source."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from vidrestore.common.errors import UsageError
from vidrestore.media.side_data import (
    SideData,
    boxes_of,
    enlarged,
    losses,
    states_stereo,
    stereo_tag,
)

if TYPE_CHECKING:
    from vidrestore.imaging.frame import VideoInfo
    from vidrestore.media.probe import Probe, StreamInfo
    from vidrestore.media.timeline import TimeLine

_CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
# Subtitles that each container holds as they are. ffmpeg's muxer for mov takes more without an
# error, and writes them as data that nothing reads.
_HELD_SUBTITLES = {
    "mp4": {"mov_text", "ttml"},
    "mov": {"mov_text", "ttml", "eia_608"},
    "matroska": {"subrip", "ass", "ssa", "webvtt", "hdmv_pgs_subtitle", "dvd_subtitle",
                 "dvb_subtitle", "hdmv_text_subtitle", "arib_caption"},
}  # fmt: skip
# Subtitles that ffmpeg converts to any kind of text.
_TEXT_SUBTITLES = {"mov_text", "subrip", "ass", "ssa", "webvtt", "text", "eia_608", "jacosub",
                   "microdvd", "mpl2", "pjs", "realtext", "sami", "stl", "subviewer",
                   "subviewer1", "vplayer"}  # fmt: skip
_TEXT_IN = {"mp4": "mov_text", "mov": "mov_text", "matroska": "srt"}
_PICTURE_SUBTITLES = {"hdmv_pgs_subtitle", "dvd_subtitle", "dvb_subtitle", "xsub"}
_STYLED_SUBTITLES = {"ass", "ssa", "eia_608", "jacosub"}
_PICTURE_TYPES = {"mjpeg": ("image/jpeg", "jpg"), "png": ("image/png", "png"),
                  "bmp": ("image/bmp", "bmp"), "gif": ("image/gif", "gif"),
                  "tiff": ("image/tiff", "tif"), "webp": ("image/webp", "webp")}  # fmt: skip
_PICTURES_IN_MP4 = {"mjpeg", "png", "bmp"}
_STEREO_TAG = "stereo_mode"
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
# The names of codecs in mp4 and mov that Apple's players take, where ffmpeg writes others.
_FOURCCS = {"hevc": "hvc1"}
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
    fourccs: Mapping[int, str] = field(default_factory=dict)
    """Source stream index -> four letters by which mp4 and mov name the codec of a copied video
    stream, where ffmpeg would write others."""
    attached: Mapping[int, tuple[str, str]] = field(default_factory=dict)
    """Source stream index of a cover picture -> (file name, media type) as an attachment."""
    boxes: bytes = b""
    """Boxes by which the restored stream states what the source does of its picture, for the sample
    entry of mp4 or mov. For Matroska, ffmpeg converts them."""
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


def fourcc_of(codec: str | None, container: str) -> str | None:
    """Return the four letters by which the output is to name the codec of a video stream.

    Args:
        codec: The codec by ffmpeg's name; None: it is not known.
        container: mp4, mov or matroska.

    Returns:
        The letters; None: those that ffmpeg writes, or none, as in Matroska.
    """
    return None if container == "matroska" else _FOURCCS.get(codec or "")


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
        fourccs={
            s.index: fourcc
            for s in source.streams
            if s.index in kept
            and s.index != info.stream_index
            and (fourcc := fourcc_of(s.codec, container))
        },
        attached=attached,
        has_own_tags=bool(own) and container != "matroska",
        can_have_own_tags=not has_cover,
        has_comment="comment" in tags,
        lost=tuple(lost),
        time_line=source.time_line,
        start=source.start,
    )


def with_side_data(
    plan: RemuxPlan,
    side_data: SideData,
    source: VideoInfo,
    output: VideoInfo,
    encoder: str,
    *,
    has_new_frames: bool,
) -> RemuxPlan:
    """Add to the plan what the output states of its picture, and notices about what it cannot.

    Args:
        plan: The plan.
        side_data: What the source states.
        source: The restored stream of the source.
        output: The same stream as the output has it, which may be larger.
        encoder: The encoder by ffmpeg's name.
        has_new_frames: Whether the frames of the output are put together from several frames of
            the source, without the metadata of these.

    Returns:
        The new plan.
    """
    sizes = [(each.width, each.height) for each in (source, output)]
    side_data, too_coarse = enlarged(side_data, sizes[0], sizes[1])
    lost = [(what, "") for what in too_coarse]
    lost += losses(side_data, plan.container, encoder, has_new_frames=has_new_frames)
    where = f"stream {source.stream_index} ({source.codec})"
    notices = [
        f"{where} has {what}, which {f'{holder} can keep' if holder else 'the output cannot keep'}"
        for what, holder in lost
    ]
    tags = dict(plan.tags.get(source.stream_index, {}))
    if not states_stereo(side_data, plan.container, encoder):
        tags = {key: value for key, value in tags.items() if key.lower() != _STEREO_TAG}
        side_data = replace(side_data, stereo=None)
    elif plan.container == "matroska":
        tags[_STEREO_TAG] = str(stereo_tag(side_data))
        side_data = replace(side_data, stereo=None)  # ffmpeg would write it a second time
    return replace(
        plan,
        tags={**plan.tags, source.stream_index: tags},
        boxes=boxes_of(side_data, output.width, output.height),
        lost=(*plan.lost, *notices),
    )


_RECREATED = "recreated"


def _stream_change(stream: StreamInfo, container: str) -> tuple[str | None, str | None]:
    """Return (codec to convert to, or None to copy; notice if the stream is lost, or None)."""
    name, where = stream.codec, _named(stream)
    if stream.type == "subtitle":
        return _subtitle_change(stream, container)
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


def _subtitle_change(stream: StreamInfo, container: str) -> tuple[str | None, str | None]:
    """Return what `_stream_change` returns, for subtitles."""
    name, where = stream.codec, _named(stream)
    if name in _HELD_SUBTITLES[container]:
        return None, None
    if name in _TEXT_SUBTITLES:
        return _TEXT_IN[container], None
    what = "subtitles as pictures" if name in _PICTURE_SUBTITLES else "subtitles"
    holders = [suffix_for(other) for other, held in _HELD_SUBTITLES.items() if name in held]
    if holders:
        only = "only " if len(holders) == 1 else ""
        return None, f"{where} holds {what}, which {only}an {' or '.join(holders)} file can keep"
    if name is None:
        return None, f"{where} holds subtitles of an unknown kind, so it is left out"
    return None, (
        f"{where} holds {what} of a kind that no container that vidrestore writes can hold, so it "
        "is left out"
    )


def _lost_within(stream: StreamInfo, change: str | None) -> Iterator[str]:
    """Yield a notice for each property that a kept stream loses."""
    if change is not None and stream.codec in _STYLED_SUBTITLES:
        keeps = "an .mov" if stream.codec == "eia_608" else "an .mkv"
        yield f"{_named(stream)} loses its styling as {change}, which only {keeps} file can keep"
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
