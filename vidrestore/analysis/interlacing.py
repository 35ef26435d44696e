"""The decision whether footage is interlaced, measured in sampled frames of all parts of it."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from vidrestore.analysis.borders import Margins
from vidrestore.analysis.result import Analysis
from vidrestore.analysis.sampling import SHORT_FRAMES, KeptFrames, sample
from vidrestore.common.errors import UsageError
from vidrestore.common.settings import Settings
from vidrestore.media.decode import OpenVideo, TimeRange, open_video
from vidrestore.media.fields import FieldScan, can_split
from vidrestore.media.images import is_pictures
from vidrestore.media.probe import Probe, probe, with_usual_shape

# No interlaced system has more lines. With fewer lines than the least, filters lack neighbors.
_MOST_LINES, _LEAST_LINES = 1088, 16
# The share of the frames with motion that must look interlaced: where the stream marks the frames
# as interlaced, and where it does not.
_LEAST_SHARE_FLAGGED, _LEAST_SHARE = 0.1, 0.2
_CLEAR_ORDER = 5  # the least ratio of the frames of one order to those of the other
_FEWEST_DECIDED = 3
# The share of all frames; 3:2 pulldown repeats a field in two of five.
_LEAST_REPEATED = 0.25


@dataclass(frozen=True, slots=True)
class Interlacing:
    """The kind of the footage, and the way in which its fields are processed."""

    mode: str
    """The way to process fields: keep, bob, frame or film; off: frames are used as they are."""
    order: str = "tff"
    """The order of the fields: tff (top field first) or bff (bottom field first)."""
    found: str = ""
    """The measured kind of the footage in words; empty where it was not measured."""
    obstacle: str = ""
    """The notice why interlaced frames are used as they are against the settings; else empty."""

    def notice(self) -> str | None:
        """Return the notice for the user before the work begins; None where none is needed."""
        if self.mode == "off":
            return self.obstacle or None
        follows = {
            "keep": "faces are restored in both fields of each frame, twice as many, and woven "
            "again (--deinterlace keep)",
            "bob": "the output has a frame for each field (--deinterlace bob)",
            "frame": "the output's frames come from the earlier fields (--deinterlace frame)",
            "film": "the output has the frames of the film, four for every five of the source "
            "(--deinterlace film)",
        }[self.mode]
        return f"the picture is {self.found}; {follows}"


NOT_INTERLACED = Interlacing("off")


def interlacing_of(analysis: Analysis) -> Interlacing:
    """Return the interlacing with which an analysis was made.

    Args:
        analysis: The analysis.

    Returns:
        Its mode and its order of fields, without words; `NOT_INTERLACED` where it has no fields.
    """
    fields = analysis.fields
    return NOT_INTERLACED if fields is None else Interlacing(fields.mode, fields.order)


@dataclass(frozen=True, slots=True)
class Inspection:
    """The measurements in sampled frames of a video, made before the analysis."""

    interlacing: Interlacing
    """The kind of the footage, and the way in which its fields are processed."""
    margins: Margins
    """The margins in which faces are ignored."""
    kept: KeptFrames | None = None
    """All frames of a short video, for pass one; None, the default: it decodes them."""


def probe_and_inspect(
    path: Path, settings: Settings, span: TimeRange | None = None
) -> tuple[Probe, Inspection]:
    """Probe a file and inspect samples of it, with the file opened once.

    Args:
        path: A video, a picture, or a pattern of numbered pictures.
        settings: The settings; see `media.probe.probe` and `inspect_samples`.
        span: The part of the video to work on; default: all.

    Returns:
        The properties of the file, and the measurements in its samples.

    Raises:
        InputError: The file cannot be read as video.
        UsageError: A setting does not suit the file.
    """
    with open_video(path, short_frames=SHORT_FRAMES) as video:
        found = probe(path, settings, video)
        video.like = found.info
        inspection = inspect_samples(found, settings, span, video)
        usual = with_usual_shape(found, video, settings)
    if usual is found:
        return found, inspection
    return usual, inspect_samples(usual, settings, span)


def inspect_samples(
    source: Probe,
    settings: Settings,
    span: TimeRange | None = None,
    video: OpenVideo | None = None,
) -> Inspection:
    """Measure interlacing and margins in sampled frames as the settings ask, and decide on both.

    Args:
        source: The video.
        settings: The settings; `fields.deinterlace` and `detect.margins` count here.
        span: The part of the video to work on; default: all.
        video: The opened file; default: it is opened here.

    Returns:
        The measurements.

    Raises:
        UsageError: The settings ask for film in footage without 3:2 pulldown.
    """
    mode, info, is_video = settings.fields.deinterlace, source.info, not is_pictures(source.path)
    has_lines = _LEAST_LINES <= info.height <= _MOST_LINES
    known = source.time_line
    with (
        open_video(source.path, time_line=known) if video is None else nullcontext(video)
    ) as opened:
        opened.like = info
        found = sample(
            opened, info, span,
            fields=mode != "off" and is_video and has_lines,
            borders=settings.detect.margins and is_video,
        )  # fmt: skip
    interlacing = NOT_INTERLACED
    if found.fields is not None:
        interlacing = _chosen(found.fields, source, mode)
    return Inspection(interlacing, found.margins, found.kept)


def _chosen(seen: FieldScan, source: Probe, mode: str) -> Interlacing:
    """Choose how to process the fields of a video."""
    info = source.info
    order, kind = judged(seen, info.field_order)
    if order is not None and not can_split(info.pixel_format):
        why = f"pictures of fields cannot be made in {info.pixel_format}"
        obstacle = f"the picture is {kind}, and {why}; vidrestore treats its frames as progressive"
        return Interlacing("off", order, kind, obstacle)
    if mode == "film" and order is not None and not is_pulldown(seen):
        raise UsageError(
            f"{source.path} is {kind}, and its fields do not repeat as 3:2 pulldown repeats them, "
            "so vidrestore cannot rebuild the frames of a film; use --deinterlace keep or bob"
        )
    return Interlacing("off" if order is None else mode, order or "tff", kind)


def is_pulldown(seen: FieldScan) -> bool:
    """Tell whether enough fields repeat for 3:2 pulldown.

    Args:
        seen: The measurement of the fields.

    Returns:
        True if at least a quarter of the frames repeat a field.
    """
    return seen.repeated >= _LEAST_REPEATED * seen.frames


def judged(seen: FieldScan, flagged_order: str) -> tuple[str | None, str]:
    """Decide whether footage is interlaced and in which order its fields come.

    Args:
        seen: The measurement of the fields.
        flagged_order: The field order that the stream states: progressive, tff or bff.

    Returns:
        (order, description): tff, bff, or None for progressive; and the same in words.
    """
    flagged = 2 * seen.flagged > seen.frames
    by_flag = None if flagged_order == "progressive" else flagged_order
    decided = seen.progressive + seen.tff + seen.bff
    if decided < _FEWEST_DECIDED:
        if not flagged or by_flag is None or seen.frames < 2:
            return None, "treated as progressive: too little motion to measure"
        return (
            by_flag,
            f"interlaced, {_ORDER_WORDS[by_flag]} according to the file: too little motion to "
            "measure",
        )
    most, least = max(seen.tff, seen.bff), min(seen.tff, seen.bff)
    share = (seen.tff + seen.bff) / decided
    if share < (_LEAST_SHARE_FLAGGED if flagged else _LEAST_SHARE):
        says = ", although the file is marked as interlaced" if flagged else ""
        return None, f"progressive{says}"
    if most < _CLEAR_ORDER * least:
        if by_flag is None:
            return None, "treated as progressive: its fields have no clear order"
        return by_flag, f"interlaced, {_ORDER_WORDS[by_flag]} according to the file"
    order = "tff" if seen.tff > seen.bff else "bff"
    kind = f"interlaced, {_ORDER_WORDS[order]}"
    if is_pulldown(seen):
        kind = f"film with repeated fields (3:2 pulldown), {_ORDER_WORDS[order]}"
    if order != flagged_order:
        kind += f", although the file states {_ORDER_WORDS[flagged_order]}"
    return order, kind


_ORDER_WORDS = {"progressive": "progressive", "tff": "top field first", "bff": "bottom field first"}
