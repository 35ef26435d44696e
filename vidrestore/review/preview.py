"""How a moment would look, before the whole is paid for: only what that needs is read."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from vidrestore.analysis.cache import find_analysis, forget_analysis, remembered_analysis
from vidrestore.analysis.replay import frames_again, last_duration
from vidrestore.analysis.result import Analysis, is_woven
from vidrestore.analysis.selection import EVERYONE, Choice
from vidrestore.common.errors import ChangedSourceError, UsageError
from vidrestore.common.events import OnEvent, notify
from vidrestore.common.handled import log_handled
from vidrestore.common.settings import Settings
from vidrestore.common.temporary import temporary_folder
from vidrestore.common.timecode import exact_seconds
from vidrestore.imaging.geometry import apply, invert, unit_corners, upright
from vidrestore.jobs.plan import Plan, plan_job, with_template
from vidrestore.jobs.render import sum_of
from vidrestore.jobs.request import RestoreRequest
from vidrestore.jobs.work_folder import work_folder
from vidrestore.media.decode import DecodeErrors, TimeRange, decode
from vidrestore.media.images import is_pictures
from vidrestore.media.probe import probe
from vidrestore.media.source import main_video_stream, open_source
from vidrestore.models.factory import chosen_restorer
from vidrestore.models.restorers import Restorer, check_restorer
from vidrestore.restoration.segments import Segment
from vidrestore.restoration.statistics import RestorationStats
from vidrestore.review.drawing import (
    Picture,
    beside,
    for_movie,
    is_movie,
    picture_of,
    write_movie,
    write_pictures,
)

LOOP_SECONDS = Fraction(2)
# Around the moment, so that faces are followed as they would be in the whole.
_AROUND_SECONDS = Fraction(1, 2)
_CLOSE_SHARE = 0.1  # of a crop's side, to each side of it


@dataclass(frozen=True, slots=True)
class Preview:
    """What is shown, and of what."""

    at_seconds: float
    """Of the (first) frame that is shown, from the start of the file."""
    frames: int
    faces: int
    """(face, frame) pairs that were restored."""
    not_restored: dict[str, int]
    """Reason -> (face, frame) pairs left as they were."""
    files: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def write_preview(
    source: str | Path,
    at_seconds: float | Fraction,
    target: str | Path,
    settings: Settings | None = None,
    *,
    restorer: Restorer | None = None,
    analysis: Analysis | None = None,
    choice: Choice = EVERYONE,
    close: bool = False,
    apart: bool = False,
    on_event: OnEvent | None = None,
) -> Preview:
    """Before and after, side by side: of the frame at that time as a picture, or of the two
    seconds from there as a video, by the suffix of `target`.

    `close` shows the surroundings of the largest face alone. `apart` writes two pictures instead,
    NAME.before.png and NAME.after.png for NAME.png. Where the whole source is analysed already, by
    `analysis` or an earlier run under the same settings, the faces are those of the whole output;
    else half a second to either side of what is shown is looked at. What would be woven of fields
    is shown field by field.
    VidrestoreError, as `restore_video` raises it.
    """
    source, target = Path(source), Path(target)
    at_seconds = exact_seconds(at_seconds, "the moment")
    settings, moves = settings or Settings(), is_movie(target)
    if moves and apart:
        raise UsageError(f"two pictures apart are written to a .png or .jpg file, not {target}")
    if restorer is not None:
        check_restorer(restorer)
    restorer = restorer or chosen_restorer(settings, on_event)
    settings = with_template(settings, restorer)
    seconds = LOOP_SECONDS if moves else Fraction(0)
    span, is_kept = None, False
    if analysis is None:
        analysis, span, is_kept = _known(source, at_seconds, seconds, settings, choice, on_event)

    def write(analysis: Analysis | None, span: TimeRange | None) -> Preview:
        return _written(
            source, at_seconds, seconds, target, settings, restorer, analysis, span, choice,
            close=close, apart=apart, on_event=on_event,
        )  # fmt: skip

    try:
        return write(analysis, span)
    except ChangedSourceError as error:
        if not is_kept:
            raise
        log_handled(error)
    forget_analysis(probe(source, settings), settings, on_event)
    analysis, span, _ = _known(source, at_seconds, seconds, settings, choice, on_event)
    return write(analysis, span)


def _written(
    source: Path,
    at_seconds: Fraction,
    seconds: Fraction,
    target: Path,
    settings: Settings,
    restorer: Restorer,
    analysis: Analysis | None,
    span: TimeRange | None,
    choice: Choice,
    *,
    close: bool,
    apart: bool,
    on_event: OnEvent | None,
) -> Preview:
    moves, files = is_movie(target), files_of(target, apart=apart)
    with _rendered(
        source, at_seconds, seconds, settings, restorer, analysis, span, choice, on_event
    ) as shown:
        pairs = shown.pairs(close=close)
        if moves:
            last = last_duration(shown.analysis) * shown.analysis.info.time_base
            write_movie(target, ((t, for_movie(beside(was, now))) for t, was, now in pairs), last)
        else:
            _, was, now = next(pairs)
            pictures = (was, now) if apart else (beside(was, now),)
            write_pictures(zip(files, pictures, strict=True))
    return Preview(
        at_seconds=float(shown.at_seconds),
        frames=shown.segment.frame_count,
        faces=shown.tally.faces,
        not_restored=dict(shown.tally.not_restored),
        files=tuple(map(str, files)),
    )


_SIDES = ("before", "after")


def files_of(target: Path, *, apart: bool) -> tuple[Path, ...]:
    """What `write_preview` would write."""
    if not apart:
        return (target,)
    return tuple(target.with_suffix(f".{side}{target.suffix}") for side in _SIDES)


@dataclass(frozen=True, slots=True)
class _Shown:
    """A few frames of the source, and of the video that was made of them."""

    plan: Plan
    segment: Segment
    video: Path
    tally: RestorationStats
    start_seconds: Fraction
    """At which the file's clock begins."""

    @property
    def analysis(self) -> Analysis:
        return self.plan.job.analysis

    @property
    def at_seconds(self) -> Fraction:
        return self._seconds(self.segment.first) - self.start_seconds

    def pairs(self, *, close: bool) -> Iterator[tuple[Fraction, Picture, Picture]]:
        """(seconds from the first, before, after)."""
        job, info = self.plan.job, self.plan.output.info
        first, end = self.segment.first, self.segment.end
        around = self._around() if close else None
        before = frames_again(job.source, self.analysis, job.span, first=first, end=end)
        after = decode(self.video, DecodeErrors())
        for was, now in zip(before, after, strict=True):
            seen = picture_of(was.image, self.analysis.info), picture_of(now.image, info)
            old, new = (_cut(picture, around) for picture in seen)
            yield self._seconds(was.index) - self._seconds(first), old, new

    def _seconds(self, index: int) -> Fraction:
        return int(self.analysis.pts[index]) * self.analysis.info.time_base

    def _around(self) -> tuple[float, float, float, float] | None:
        """x1 y1 x2 y2 of the largest face in all frames shown, as shares of the upright picture."""
        info, first, end = self.analysis.info, self.segment.first, self.segment.end
        view, boxes = upright(info), []
        for track in self.analysis.tracks:
            rows = slice(max(0, first - track.first_frame), max(0, end - track.first_frame))
            if not len(track.matrices[rows]):
                continue
            corners = apply(invert(track.matrices[rows]), unit_corners())
            seen = apply(view.matrix, corners.reshape(-1, 2))
            boxes.append((*seen.min(axis=0), *seen.max(axis=0)))
        if not boxes:
            return None
        x1, y1, x2, y2 = max(boxes, key=lambda box: (box[2] - box[0]) * (box[3] - box[1]))
        margin = _CLOSE_SHARE * max(x2 - x1, y2 - y1)
        width, height = _upright_size(info.display_orientation, view.coded_size)
        return (
            max(0.0, (x1 - margin) / width), max(0.0, (y1 - margin) / height),
            min(1.0, (x2 + margin) / width), min(1.0, (y2 + margin) / height),
        )  # fmt: skip


def _upright_size(
    orientation: tuple[int, int, int, int], coded: tuple[int, int]
) -> tuple[int, int]:
    return coded if orientation[0] else (coded[1], coded[0])


def _cut(picture: Picture, shares: tuple[float, float, float, float] | None) -> Picture:
    if shares is None:
        return picture
    height, width = picture.shape[:2]
    x1, x2 = (round(share * width) for share in shares[::2])
    y1, y2 = (round(share * height) for share in shares[1::2])
    return picture[y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)]


@contextmanager
def _rendered(
    source: Path,
    at_seconds: Fraction,
    seconds: Fraction,
    settings: Settings,
    restorer: Restorer,
    analysis: Analysis | None,
    span: TimeRange | None,
    choice: Choice,
    on_event: OnEvent | None,
) -> Iterator[_Shown]:
    """Pass two for the frames from `at_seconds` on, in a folder of its own that is gone after."""
    suffix = source.suffix if is_pictures(source) else ".mkv"
    with temporary_folder() as folder:
        target = folder / f"{source.stem}{suffix}"
        request = RestoreRequest(
            source, target, _quick(settings), restorer, _as_pictures(analysis), span, choice
        )
        request.validate()
        with work_folder(target, lambda message: None) as work:
            plan = plan_job(request, work, on_event)
            start = _clock_start(source)
            segment = _segment(plan.job.analysis, at_seconds, start, seconds, source)
            video, counts = replace(plan.rendering, segments=[segment], taken={}).video()
            yield _Shown(plan, segment, video, sum_of(counts), start)


def _clock_start(source: Path) -> Fraction:
    """At which the video of the file begins, in seconds of its own clock."""
    if is_pictures(source):
        return Fraction(0)
    with open_source(source) as container:
        stream = main_video_stream(container)
        return int(stream.start_time or 0) * Fraction(stream.time_base)


def _segment(
    analysis: Analysis,
    at_seconds: Fraction,
    start_seconds: Fraction,
    seconds: Fraction,
    source: Path,
) -> Segment:
    """From the frame that is on screen at that time; `start_seconds` is when the clock begins."""
    clock, pts = analysis.info.time_base, analysis.pts
    over_seconds = (int(pts[-1]) + last_duration(analysis)) * clock - start_seconds
    if at_seconds >= over_seconds:
        raise UsageError(
            f"{source} has no picture at {float(at_seconds):g} s; it ends at "
            f"{float(over_seconds):.3f} s"
        )
    at_pts = math.floor((at_seconds + start_seconds) / clock)
    end_pts = math.ceil((at_seconds + start_seconds + seconds) / clock)
    first = max(0, int(np.searchsorted(pts, at_pts, side="right")) - 1)
    return Segment(0, first, max(first + 1, int(np.searchsorted(pts, end_pts, side="left"))))


def _known(
    source: Path,
    at_seconds: Fraction,
    seconds: Fraction,
    settings: Settings,
    choice: Choice,
    on_event: OnEvent | None,
) -> tuple[Analysis | None, TimeRange | None, bool]:
    """The analysis of the whole where there is one, and else the part to be looked at; and whether
    an earlier run made it."""
    found = probe(source, settings)
    if (whole := remembered_analysis(found, settings, on_event)) is not None:
        return whole, None, True
    if is_pictures(source):
        return find_analysis(found, settings, on_event=on_event).analysis, None, False
    if choice.people is not None:
        notify(
            on_event,
            "people are numbered as they come up around this moment; run vidrestore analyze first, "
            "and they have the numbers of the whole video",
        )
    begin = max(Fraction(0), at_seconds - _AROUND_SECONDS)
    return None, TimeRange(begin, at_seconds + seconds + _AROUND_SECONDS), False


def _as_pictures(analysis: Analysis | None) -> Analysis | None:
    """What would be woven of fields is shown field by field, without combs."""
    if analysis is None or not is_woven(analysis):
        return analysis
    fields = analysis.fields
    assert fields is not None
    return replace(analysis, fields=replace(fields, mode="bob"))


def _quick(settings: Settings) -> Settings:
    """The same, without what only serves a file that is kept."""
    encode = settings.encode.model_copy(
        update={"codec": "ffv1", "quality": "high", "check": False, "hardware": False,
                "pixel_format": "source"}
    )  # fmt: skip
    fields = settings.fields
    if fields.deinterlace == "keep":
        fields = fields.model_copy(update={"deinterlace": "bob"})
    # A moment is too short to measure margins by.
    detect = settings.detect.model_copy(update={"margins": False})
    return settings.model_copy(update={"encode": encode, "fields": fields, "detect": detect})
