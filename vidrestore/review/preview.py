"""Preview of the restoration of a moment, for which only the frames around it are restored."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from vidrestore.analysis.cache import find_analysis, forget_analysis, remembered_analysis
from vidrestore.analysis.choice import EVERYONE, Choice
from vidrestore.analysis.replay import frames_again, last_duration
from vidrestore.analysis.result import Analysis, is_woven
from vidrestore.analysis.selection import face_of_photo
from vidrestore.common.errors import ChangedSourceError, UsageError
from vidrestore.common.events import OnEvent, notify
from vidrestore.common.files import fitting_name
from vidrestore.common.handled import log_handled
from vidrestore.common.settings import Settings
from vidrestore.common.temporary import temporary_folder
from vidrestore.common.timecode import exact_seconds
from vidrestore.imaging.display import Picture, picture_of
from vidrestore.imaging.frame import TimeShift
from vidrestore.imaging.geometry import apply, invert, unit_corners, upright
from vidrestore.jobs.personal_networks import with_base_network
from vidrestore.jobs.plan import Plan, plan_job, with_template
from vidrestore.jobs.render import sum_of
from vidrestore.jobs.request import RestoreRequest
from vidrestore.jobs.work_folder import work_folder
from vidrestore.media.decode import DecodeErrors, TimeRange, decode
from vidrestore.media.images import is_pictures
from vidrestore.media.probe import Probe, probe
from vidrestore.media.source import main_video_stream, open_source
from vidrestore.media.timeline import begin_pts
from vidrestore.models.factory import chosen_restorer, with_models_here
from vidrestore.models.restorers import Restorer, check_restorer
from vidrestore.restoration.segments import Segment
from vidrestore.restoration.statistics import RestorationStats
from vidrestore.review.drawing import (
    beside,
    for_movie,
    same_size,
    write_movies,
    write_pictures,
)
from vidrestore.review.file_names import files_of, is_movie

LOOP_SECONDS = Fraction(2)
"""Duration of a preview that is a video, in seconds."""
# Analyzed before and after the moment, so that tracks are like those of the whole video.
_AROUND_SECONDS = Fraction(1, 2)
_CLOSE_SHARE = 0.1  # margin, as a share of the crop's side, on each side


@dataclass(frozen=True, slots=True)
class Preview:
    """The files of a preview, and the frames and faces that they show."""

    at_seconds: float
    """Time of the first frame of the preview, from the start of the source, in seconds."""
    frames: int
    """Number of frames of the preview."""
    faces: int
    """Number of (face, frame) pairs that were restored."""
    not_restored: dict[str, int]
    """Reason -> number of (face, frame) pairs that were not restored."""
    files: tuple[str, ...]
    """Paths of the files that were written."""

    def as_dict(self) -> dict[str, Any]:
        """Return the attributes as plain values, for JSON."""
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
    """Write a preview of a moment, before and after the restoration, side by side.

    The suffix of `target` decides between a picture of the frame at that time and a video of the
    two seconds from there. Where `analysis` or an earlier run with the same settings has analyzed
    the whole source, the preview uses that analysis, and its faces are those of the whole output.
    Otherwise the function analyzes the moment and half a second before and after it. Interlaced
    video is shown field by field.

    Args:
        source: The video.
        at_seconds: The moment, from the start of the file, in seconds.
        target: The file to write.
        settings: The settings. Default: `Settings()`.
        restorer: The restorer. Default: the one that the settings name.
        analysis: The analysis of the whole source. Default: that of an earlier run, if any.
        choice: The people to restore. Default: everyone.
        close: Whether to show only the largest face and its surroundings. Default: False.
        apart: Whether to write two files of one size instead of one: NAME.before.png and
            NAME.after.png for NAME.png, or NAME.before.mp4 and NAME.after.mp4 for NAME.mp4.
            Default: False.
        on_event: Receives the progress and notices. Default: none.

    Returns:
        The files, and the numbers of frames and faces.

    Raises:
        UsageError: The source ends before the moment, or the options do not fit together.
        InputError: The source cannot be read.
        WeightsError: Weights are missing or damaged.
        OutputError: A file cannot be written.
        VidrestoreError: Any other error that `restore_video` raises.
    """
    source, target = Path(source), Path(target)
    at_seconds = exact_seconds(at_seconds, "the moment")
    settings, moves = settings or Settings(), is_movie(target)
    if restorer is not None:
        check_restorer(restorer)
    if restorer is None:
        settings = with_base_network(settings, choice)
        restorer = chosen_restorer(settings, on_event)
    settings = with_template(settings, restorer)
    seconds = LOOP_SECONDS if moves else Fraction(0)
    span, is_kept = None, False
    if analysis is None:
        choice.check()
        probed = probe(source, settings)
        settings = with_models_here(settings, on_event)
        if is_pictures(source):
            face_of_photo(choice, settings, None)  # refused before all pictures are analyzed
        analysis, span, is_kept = _find_analysis(
            probed, at_seconds, seconds, settings, choice, on_event
        )

    def write(analysis: Analysis | None, span: TimeRange | None) -> Preview:
        return _write(
            source, at_seconds, seconds, target, settings, restorer, analysis, span, choice,
            close=close, apart=apart, on_event=on_event,
        )  # fmt: skip

    try:
        return write(analysis, span)
    except ChangedSourceError as error:
        if not is_kept:
            raise
        log_handled(error)
    probed = probe(source, settings)
    forget_analysis(probed, settings, on_event)
    analysis, span, _ = _find_analysis(probed, at_seconds, seconds, settings, choice, on_event)
    return write(analysis, span)


def _write(
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
    ) as excerpt:
        pairs = excerpt.pairs(close=close)
        shown = (
            (seconds, same_size(was, now) if apart else (beside(was, now),))
            for seconds, was, now in pairs
        )
        if moves:
            last = last_duration(excerpt.analysis) * excerpt.analysis.info.time_base
            write_movies(files, ((at, [*map(for_movie, each)]) for at, each in shown), last)
        else:
            write_pictures(zip(files, next(shown)[1], strict=True))
    return Preview(
        at_seconds=float(excerpt.at_seconds),
        frames=excerpt.segment.frame_count,
        faces=excerpt.stats.faces,
        not_restored=dict(excerpt.stats.not_restored),
        files=tuple(map(str, files)),
    )


@dataclass(frozen=True, slots=True)
class _Excerpt:
    """A few frames of the source, and the restored video of them."""

    plan: Plan
    segment: Segment
    video: Path
    stats: RestorationStats
    start_seconds: Fraction
    """Time of the first frame of the file, in seconds of its own clock."""

    @property
    def analysis(self) -> Analysis:
        return self.plan.job.analysis

    @property
    def at_seconds(self) -> Fraction:
        return self._seconds(self.segment.first) - self.start_seconds

    def pairs(self, *, close: bool) -> Iterator[tuple[Fraction, Picture, Picture]]:
        """Yield (seconds from the first frame, before, after)."""
        job, info = self.plan.job, self.plan.output.info
        first, end = self.segment.first, self.segment.end
        around = self._around() if close else None
        before = frames_again(job.source, self.analysis, job.span, first=first, end=end)
        after = decode(self.video, DecodeErrors())
        for was, now in zip(before, after, strict=True):
            pictures = picture_of(was.image, self.analysis.info), picture_of(now.image, info)
            old, new = (_cut(picture, around) for picture in pictures)
            yield self._seconds(was.index) - self._seconds(first), old, new

    def _seconds(self, index: int) -> Fraction:
        return int(self.analysis.pts[index]) * self.analysis.info.time_base

    def _around(self) -> tuple[float, float, float, float] | None:
        """Return x1, y1, x2, y2 around the largest face, as shares of the upright picture."""
        info, first, end = self.analysis.info, self.segment.first, self.segment.end
        view, boxes = upright(info), []
        for track in self.analysis.tracks:
            rows = slice(max(0, first - track.first_frame), max(0, end - track.first_frame))
            if not len(track.matrices[rows]):
                continue
            corners = apply(invert(track.matrices[rows]), unit_corners())
            points = apply(view.matrix, corners.reshape(-1, 2))
            boxes.append((*points.min(axis=0), *points.max(axis=0)))
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
) -> Iterator[_Excerpt]:
    """Restore the frames from `at_seconds` on, in a temporary folder."""
    suffix = source.suffix if is_pictures(source) else ".mkv"
    with temporary_folder() as folder:
        target = folder / fitting_name(folder, source.stem, suffix)
        request = RestoreRequest(
            source, target, _quick(settings, source), restorer, _as_pictures(analysis), span, choice
        )
        request.validate()
        with work_folder(target, lambda message: None) as work:
            plan = plan_job(request, work, on_event)
            start = _clock_start(source, plan.job.analysis.info.shifts)
            segment = _segment(plan.job.analysis, at_seconds, start, seconds, source)
            video, counts = replace(plan.rendering, segments=[segment], taken={}).video()
            yield _Excerpt(plan, segment, video, sum_of(counts), start)


def _clock_start(source: Path, shifts: Sequence[TimeShift]) -> Fraction:
    """Return the time at which the video begins, in seconds of the file's own clock."""
    if is_pictures(source):
        return Fraction(0)
    with open_source(source) as container:
        stream = main_video_stream(container)
        return begin_pts(stream, shifts) * Fraction(stream.time_base)


def _segment(
    analysis: Analysis,
    at_seconds: Fraction,
    start_seconds: Fraction,
    seconds: Fraction,
    source: Path,
) -> Segment:
    """Return the segment from the frame that is on screen at `at_seconds`, after the start."""
    clock, pts = analysis.info.time_base, analysis.pts
    end_seconds = (int(pts[-1]) + last_duration(analysis)) * clock - start_seconds
    if at_seconds >= end_seconds:
        raise UsageError(
            f"{source} has no picture at {float(at_seconds):g} s; it ends at "
            f"{float(end_seconds):.3f} s, so give an earlier time"
        )
    at_pts = math.floor((at_seconds + start_seconds) / clock)
    end_pts = math.ceil((at_seconds + start_seconds + seconds) / clock)
    first = max(0, int(np.searchsorted(pts, at_pts, side="right")) - 1)
    return Segment(0, first, max(first + 1, int(np.searchsorted(pts, end_pts, side="left"))))


def _find_analysis(
    probed: Probe,
    at_seconds: Fraction,
    seconds: Fraction,
    settings: Settings,
    choice: Choice,
    on_event: OnEvent | None,
) -> tuple[Analysis | None, TimeRange | None, bool]:
    """Return the analysis of the whole source where there is one, else the part to analyze.

    The last value tells whether an earlier run made the analysis.
    """
    if (whole := remembered_analysis(probed, settings, on_event)) is not None:
        return whole, None, True
    if is_pictures(probed.path):
        return find_analysis(probed, settings, on_event=on_event).analysis, None, False
    if choice.people is not None:
        notify(
            on_event,
            "vidrestore numbers the people in the order in which they appear around this moment; "
            "run vidrestore analyze first to have the numbers of the whole video",
        )
    begin = max(Fraction(0), at_seconds - _AROUND_SECONDS)
    return None, TimeRange(begin, at_seconds + seconds + _AROUND_SECONDS), False


def _as_pictures(analysis: Analysis | None) -> Analysis | None:
    """Make an interlaced source be shown field by field, without combs."""
    if analysis is None or not is_woven(analysis):
        return analysis
    fields = analysis.fields
    assert fields is not None
    return replace(analysis, fields=replace(fields, mode="bob"))


def _quick(settings: Settings, source: Path) -> Settings:
    """Return the settings without what only serves a file that is kept."""
    codec = "auto" if is_pictures(source) else "ffv1"
    encode = settings.encode.model_copy(
        update={"codec": codec, "quality": "high", "check": False, "hardware": False,
                "pixel_format": "source"}
    )  # fmt: skip
    fields = settings.fields
    if fields.deinterlace == "keep":
        fields = fields.model_copy(update={"deinterlace": "bob"})
    # A moment is too short for a measurement of the margins.
    detect = settings.detect.model_copy(update={"margins": False})
    return settings.model_copy(update={"encode": encode, "fields": fields, "detect": detect})
