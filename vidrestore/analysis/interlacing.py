"""Whether footage is interlaced, measured in frames from all of it, and what follows from that."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from vidrestore.analysis.borders import Margins
from vidrestore.analysis.result import Analysis
from vidrestore.analysis.sampling import sample
from vidrestore.common.errors import UsageError
from vidrestore.common.settings import Settings
from vidrestore.media.decode import OpenVideo, TimeRange, open_video
from vidrestore.media.fields import FieldScan, can_split
from vidrestore.media.images import is_pictures
from vidrestore.media.probe import Probe, probe

# No interlaced system has more lines; below the other bound filters have no neighbours to go by.
_MOST_LINES, _LEAST_LINES = 1088, 16
# Share of the frames with motion that must look interlaced, by what the stream says of them.
_LEAST_SHARE_FLAGGED, _LEAST_SHARE = 0.1, 0.2
_CLEAR_ORDER = 5  # times as many frames of one order as of the other
_FEWEST_DECIDED = 3
# Of all frames; 3:2 pulldown repeats a field in two of five.
_LEAST_REPEATED = 0.25


@dataclass(frozen=True, slots=True)
class Interlacing:
    """What the footage is, and what is to be made of it."""

    mode: str
    """keep, bob, frame, film, or off where frames are taken as they are."""
    order: str = "tff"
    """tff or bff."""
    found: str = ""
    """In words; empty where nobody looked."""
    obstacle: str = ""
    """Why interlaced frames are taken as they are, although that was not asked for."""

    def notice(self) -> str | None:
        """What a person should know before the work begins; None where it goes without saying."""
        if self.mode == "off":
            return self.obstacle or None
        follows = {
            "keep": "faces are restored in both fields of each frame, twice as many, and woven "
            "again (--deinterlace keep)",
            "bob": "the output has a frame for each field (--deinterlace bob)",
            "frame": "the output's frames come from the earlier fields (--deinterlace frame)",
            "film": "the output has the film that is in it, four pictures for each five frames "
            "(--deinterlace film)",
        }[self.mode]
        return f"the picture is {self.found}; {follows}"


NOT_INTERLACED = Interlacing("off")


def interlacing_of(analysis: Analysis) -> Interlacing:
    """What an analysis was made with."""
    fields = analysis.fields
    return NOT_INTERLACED if fields is None else Interlacing(fields.mode, fields.order)


@dataclass(frozen=True, slots=True)
class Inspection:
    """What sampled frames of a video say, before all are looked at."""

    interlacing: Interlacing
    margins: Margins


def probe_and_inspect(
    path: Path, settings: Settings, span: TimeRange | None = None
) -> tuple[Probe, Inspection]:
    """Probe a file and inspect samples of it, with the file opened once.

    Args:
        path: A video, a picture, or numbered pictures by a pattern.
        settings: See `media.probe.probe` and `inspect_samples`.
        span: The part of the video that is worked on; default: all.

    Returns:
        What was found.

    Raises:
        InputError: The file cannot be read as video.
        UsageError: A setting does not go with the file.
    """
    with open_video(path) as video:
        found = probe(path, settings, video)
        return found, inspect_samples(found, settings, span, video)


def inspect_samples(
    source: Probe,
    settings: Settings,
    span: TimeRange | None = None,
    video: OpenVideo | None = None,
) -> Inspection:
    """Measure interlacing and borders in sampled frames, unless that is not wanted, and decide.

    Args:
        source: The video.
        settings: `fields.deinterlace` and `detect.margins` count.
        span: The part of the video that is worked on; default: all.
        video: The file, where the caller has opened it; default: opened here.

    Returns:
        What was found.

    Raises:
        UsageError: The settings ask for film in footage that holds none.
    """
    mode, info, is_video = settings.fields.deinterlace, source.info, not is_pictures(source.path)
    has_lines = _LEAST_LINES <= info.height <= _MOST_LINES
    with open_video(source.path) if video is None else nullcontext(video) as opened:
        found = sample(
            opened, info, span,
            fields=mode != "off" and is_video and has_lines,
            borders=settings.detect.margins and is_video,
        )  # fmt: skip
    interlacing = NOT_INTERLACED
    if found.fields is not None:
        interlacing = _chosen(found.fields, source, mode)
    return Inspection(interlacing, found.margins)


def _chosen(seen: FieldScan, source: Probe, mode: str) -> Interlacing:
    info = source.info
    order, found = judged(seen, info.field_order)
    if order is not None and not can_split(info.pixel_format):
        why = f"pictures of fields cannot be made in {info.pixel_format}"
        obstacle = f"the picture is {found}, and {why}; its frames are taken as they are"
        return Interlacing("off", order, found, obstacle)
    if mode == "film" and order is not None and not is_pulldown(seen):
        raise UsageError(
            f"{source.path} is {found}, and its fields do not repeat as 3:2 pulldown repeats them, "
            "so there is no film to bring back; use --deinterlace keep or bob"
        )
    return Interlacing("off" if order is None else mode, order or "tff", found)


def is_pulldown(seen: FieldScan) -> bool:
    return seen.repeated >= _LEAST_REPEATED * seen.frames


def judged(seen: FieldScan, said: str) -> tuple[str | None, str]:
    """(tff, bff or None for progressive, the same in words); `said` is the stream's field order."""
    flagged = 2 * seen.flagged > seen.frames
    by_flag = None if said == "progressive" else said
    decided = seen.progressive + seen.tff + seen.bff
    if decided < _FEWEST_DECIDED:
        if not flagged or by_flag is None or seen.frames < 2:
            return None, "taken for progressive: too little moves to tell"
        return by_flag, f"interlaced by what the file says, {_SAID[by_flag]}: too little moves"
    most, least = max(seen.tff, seen.bff), min(seen.tff, seen.bff)
    share = (seen.tff + seen.bff) / decided
    if share < (_LEAST_SHARE_FLAGGED if flagged else _LEAST_SHARE):
        says = ", whatever the file says" if flagged else ""
        return None, f"progressive{says}"
    if most < _CLEAR_ORDER * least:
        if by_flag is None:
            return None, "taken for progressive: its fields have no clear order"
        return by_flag, f"interlaced, {_SAID[by_flag]} by what the file says"
    order = "tff" if seen.tff > seen.bff else "bff"
    kind = f"interlaced, {_SAID[order]}"
    if is_pulldown(seen):
        kind = f"film with repeated fields (3:2 pulldown), {_SAID[order]}"
    if order != said:
        kind += f", though the file says {_SAID[said]}"
    return order, kind


_SAID = {"progressive": "progressive", "tff": "top field first", "bff": "bottom field first"}
