"""The report of a run as one page, with content collected during the run and written at its end."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from importlib.metadata import version
from operator import attrgetter
from pathlib import Path
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from vidrestore.analysis.description import facts_of, people_of
from vidrestore.analysis.replay import last_duration
from vidrestore.analysis.result import Analysis, in_output, is_woven
from vidrestore.common.counting import counted
from vidrestore.common.errors import reason_beneath
from vidrestore.common.events import Event, Notice, OnEvent, PassTimes, notify
from vidrestore.common.files import output_file
from vidrestore.common.handled import log_handled
from vidrestore.common.settings import Settings
from vidrestore.common.stage_times import StageTime
from vidrestore.common.timecode import time_text
from vidrestore.jobs.plan import Plan
from vidrestore.jobs.request import RestoreRequest
from vidrestore.jobs.summary import Summary
from vidrestore.jobs.verify import Verification
from vidrestore.media.images import is_pattern
from vidrestore.restoration.segments import restorers_used
from vidrestore.restoration.statistics import STRETCH_FRAMES, RestorationStats
from vidrestore.review.report.command import changed_settings, command_of
from vidrestore.review.report.likeness import MeasuredLikeness, least_like, measured_likeness
from vidrestore.review.report.outcome import outcome
from vidrestore.review.report.page import Run, ShownPerson, page
from vidrestore.review.report.plots import (
    MOST_POINTS,
    Curve,
    Part,
    Row,
    flicker_and_likeness,
    timeline,
)
from vidrestore.review.report.samples import (
    MOST_WORST,
    WORST_APART_SECONDS,
    Flicker,
    SampleCollector,
)
from vidrestore.review.report.sampling import used_strength

_MOST_ROWS = 24
"""Most rows of people on the timeline; all others share one more row."""
_MOST_NOTICES = 40
_BY_IDENTITY = (
    "A network that tells people apart (the recognizer) compared the faces of every third frame."
)
_BY_FEATURES = (
    "Eyes, mouth and the whole face were compared, without their finest detail; there was no "
    "recognizer, which tells people apart."
)
_SAME = 0.002
"""Largest difference at which two curves of likeness are drawn as one."""

Values = npt.NDArray[np.float64]
"""(n,) values."""


class Reporter:
    """Follows a run, and writes the page about it when the output is whole."""

    def __init__(self, path: Path, request: RestoreRequest, on_event: OnEvent | None) -> None:
        """Start to follow a run.

        Args:
            path: The HTML file to write.
            request: The request of the run.
            on_event: Receives every event of the run from this object; None for no receiver.
        """
        self._path, self._request, self._pass_on = path, request, on_event
        self._begun = datetime.now()
        self._notices: dict[str, None] = {}
        self._stages: dict[str, Mapping[str, StageTime]] = {}
        self._collector: SampleCollector | None = None

    def on_event(self, event: Event) -> None:
        """Pass an event on, and keep it if the page shows it.

        Args:
            event: The event.
        """
        if isinstance(event, Notice) and len(self._notices) < _MOST_NOTICES:
            self._notices[event.message] = None
        if isinstance(event, PassTimes):
            self._stages[event.pass_name] = event.stages
        if self._pass_on is not None:
            self._pass_on(event)

    def sample_collector(
        self, plan: Plan, stats: RestorationStats, *, in_parts: bool
    ) -> SampleCollector:
        """Make the object that receives the frames of the source and of the finished file.

        Args:
            plan: The plan of the run.
            stats: The statistics of the restoration.
            in_parts: Whether the file is read in parts, which the collector names.

        Returns:
            The collector; `finished` takes its samples.
        """
        job, segments = plan.job, None
        if in_parts:
            segments = [in_output(job.analysis, each.first, each.end)
                        for each in plan.rendering.segments]  # fmt: skip
        self._collector = SampleCollector(
            job.analysis, plan.base.analysis, stats, plan.strength,
            segments=segments,
            worst_likeness=least_like(
                job.analysis, stats, most=MOST_WORST, apart_seconds=WORST_APART_SECONDS
            ),
        )  # fmt: skip
        return self._collector

    def finished(
        self, plan: Plan, stats: RestorationStats, summary: Summary, fixity: Verification | None
    ) -> Summary:
        """Write the page. An error or an interruption does not make the run fail.

        Args:
            plan: The plan of the run.
            stats: The statistics of the restoration.
            summary: The summary of the run.
            fixity: The comparison of the output with its source; None where there is none.

        Returns:
            The summary, with one more warning where the page could not be written.
        """
        try:
            text = page(self._run(plan, stats, summary, fixity))
            _write(self._path, text)
        except (Exception, KeyboardInterrupt) as error:
            # The output has its name already, so a failed page must not look like a failed run.
            log_handled(error)
            was_stopped = isinstance(error, KeyboardInterrupt)
            why = "interrupted" if was_stopped else reason_beneath(error)
            sentence = f"the report {self._path} could not be written ({why}); the output is whole"
            return replace(summary, warnings=(*summary.warnings, sentence))
        notify(self._pass_on, f"the report is in {self._path}")
        return summary

    def _run(
        self, plan: Plan, stats: RestorationStats, summary: Summary, fixity: Verification | None
    ) -> Run:
        request, analysis, collector = self._request, plan.job.analysis, self._collector
        assert collector is not None
        in_summary = set(summary.warnings)
        seconds = _seconds(analysis)
        each = 2 if is_woven(analysis) else 1
        verdict = outcome(
            analysis, stats, collector, least_features=plan.job.settings.guard.features
        )
        moments = [] if verdict is None else [m for each in verdict.aspects for m in each.moments]
        named_frames = {view.index for view in (*collector.views, *(m.view for m in moments))}
        if fixity is not None and fixity.worst_frame is not None:
            named_frames.add(fixity.worst_frame * each)
        people = _shown_people(plan, stats, collector, seconds)
        drawing, text = _timeline(plan, stats, seconds)
        return Run(
            source=request.source,
            target=request.target,
            begun=self._begun,
            version=version("vidrestore"),
            summary=summary,
            fixity=fixity,
            restorers=_restorers(plan, summary),
            how=list(_how(plan, summary)),
            asked=[*_options(request), *_changed(request.settings)],
            source_facts=list(facts_of(analysis)),
            part=_part(plan),
            stages=self._stages,
            notices=[text for text in self._notices if text not in in_summary],
            frame_seconds={index: float(seconds[index]) for index in named_frames},
            frames_each=each,
            base=_base(plan, request),
            people=people,
            measured=list(_measured(collector, is_woven(analysis))),
            unseen_people=collector.unseen_people,
            untouched_people=collector.untouched_people,
            timeline=drawing,
            timeline_says=text,
            outcome=verdict,
            broken=collector.broken,
            command=command_of(request),
            in_parallel=request.workers is not None,
            links=_links(request.target, self._path),
        )


def _links(target: Path, page: Path) -> list[tuple[str, str]]:
    """Return (text, address) of the output and of its folder, relative to the page if possible."""
    folder = os.path.realpath(page.parent)
    links = [] if is_pattern(target) else [(target.name, target)]
    links.append(("its folder", target.absolute().parent))
    found = []
    for text, path in links:
        try:
            address = os.fsencode(os.path.relpath(os.path.realpath(path), folder))
        except ValueError as error:  # another drive of Windows
            log_handled(error)
            found.append((text, path.absolute().as_uri()))
        else:
            address = address.replace(os.sep.encode(), b"/")
            found.append((text, f"./{quote(address)}{'' if path == target else '/'}"))
    return found


def _write(path: Path, text: str) -> None:
    """Write the file whole, or not at all."""
    with output_file(path) as part:
        # A file name may contain bytes that are not text, which are written as escapes.
        part.write_bytes(text.encode("utf-8", "backslashreplace"))


def _seconds(analysis: Analysis) -> Values:
    """Return (frames + 1,) the start of each picture from the first, and the end of the last."""
    ticks = np.append(analysis.pts, analysis.pts[-1] + last_duration(analysis))
    return np.asarray((ticks - ticks[0]) * float(analysis.info.time_base), np.float64)


def _shown_people(
    plan: Plan, stats: RestorationStats, collector: SampleCollector, seconds: Values
) -> list[ShownPerson]:
    analysis, guard = plan.job.analysis, plan.job.settings.guard
    people = {person.person_id: person for person in people_of(analysis)}
    shown = []
    for number in sorted(collector.people):
        views = sorted(
            (view for view in collector.views if view.person == number),
            key=lambda view: (-view.side_px, view.index),
        )
        flicker = [one for one in collector.flicker if one.person == number]
        part = _on_screen(analysis, number, seconds)
        measured = measured_likeness(analysis, stats, number)
        likeness, by_identity = _likeness(measured, seconds, part), measured.by_identity
        plot = None
        if flicker or likeness:
            plot = flicker_and_likeness(
                _flicker(flicker, seconds, part), likeness, part, f"person{number}",
                likeness_axis="cosine to\nthe source" if by_identity else "likeness of\nfeatures",
                floor=guard.identity if by_identity else guard.features,
            )  # fmt: skip
        caption = "" if not likeness else (_BY_IDENTITY if by_identity else _BY_FEATURES)
        portrait = collector.portraits.get(number)
        shown.append(ShownPerson(people[number], portrait, views, plot, caption))
    return shown


def _on_screen(analysis: Analysis, person: int, seconds: Values) -> Part:
    tracks = [track for track in analysis.tracks if track.person_id == person]
    first, end = min(t.first_frame for t in tracks), max(t.end_frame for t in tracks)
    return float(seconds[first]), float(seconds[end])


def _flicker(samples: Sequence[Flicker], seconds: Values, part: Part) -> dict[str, Curve]:
    if not samples:
        return {}
    order = sorted(samples, key=lambda one: one.frame)
    at = seconds[[one.frame for one in order]]
    values = {"before": [one.source for one in order], "after": [one.output for one in order]}
    return {
        name: Curve(at, np.array(squares)).binned(part, squares=True)
        for name, squares in values.items()
    }


def _measured(collector: SampleCollector, woven: bool) -> Iterator[str]:
    """Yield explanations of the plots of people."""
    where = " of their earlier fields" if woven else ""
    if collector.flicker:
        how_measured = (
            f"It was measured in a sample of {len(collector.flicker)} faces{where}, spread over "
            "people and time."
            if collector.is_sample
            else f"It was measured in every frame{where} between two others with the same face."
        )
        yield (
            "Flicker tells how much a face differs from the frames before and after it, once its "
            "motion is taken away, in levels. Lower is better, but true changes of the face count "
            f"too. {how_measured}"
        )
    yield (
        "Likeness compares two faces with the source: the restored one, and the one that was used, "
        "which has less of the restored face where that does not look like the source; 1 is the "
        "same. At the dashed line, nothing of the restored face is used. Each point is the mean of "
        f"{STRETCH_FRAMES} frames or more."
    )


def _likeness(likeness: MeasuredLikeness, seconds: Values, part: Part) -> dict[str, Curve]:
    if not likeness.rows:
        return {}
    rows = [(seconds[row.frame], row.restored, row.used) for row in likeness.rows]
    at, restored, used = np.array(rows).T
    if np.abs(restored - used).max() < _SAME:
        return {"restored and used": Curve(at, used).binned(part)}
    return {"restored": Curve(at, restored).binned(part), "used": Curve(at, used).binned(part)}


def _timeline(plan: Plan, stats: RestorationStats, seconds: Values) -> tuple[str | None, str]:
    """Return the drawing and the text below it."""
    analysis = plan.job.analysis
    if analysis.frame_count < 2 or not analysis.tracks:
        return None, ""
    end = float(seconds[-1])
    shots = [(float(seconds[a]), float(seconds[b])) for a, b in analysis.shots]
    frames: dict[int, int] = {}
    for track in analysis.tracks:
        frames[track.person_id] = frames.get(track.person_id, 0) + len(track.matrices)
    order = sorted(frames, key=lambda person: (-frames[person], person))
    shown, others = sorted(order[:_MOST_ROWS]), order[_MOST_ROWS:]
    edges = np.linspace(0, end, min(MOST_POINTS, analysis.frame_count) + 1)
    # Each part of the time counts the frames that are on screen in it, even for a moment.
    first = np.searchsorted(seconds[:-1], edges[:-1], side="right") - 1
    last = np.maximum(np.searchsorted(seconds[:-1], edges[1:], side="left"), first + 1)
    rows = [_row(f"person {person}", {person}, plan, stats, first, last) for person in shown]
    sentences = []
    if others:
        rows.append(_row(f"{len(others)} more", set(others), plan, stats, first, last))
        people = counted(len(others), "person", "people")
        sentences.append(f"The last row shows the {people} with less time on screen.")
    if not analysis.people_are_joined and len(frames) > 1:
        sentences.append(
            "vidrestore did not recognize people again, so one person may have several numbers."
        )
    if not stats.likeness:
        sentences.append("No face was compared with its source, so the strength is as planned.")
    if plan.job.span is not None:
        sentences.append("Times count from the first frame of the part.")
    return timeline(shots, rows, end, "timeline"), " ".join(sentences)


def _row(
    label: str,
    people: set[int],
    plan: Plan,
    stats: RestorationStats,
    first: npt.NDArray[np.int64],
    last: npt.NDArray[np.int64],
) -> Row:
    analysis = plan.job.analysis
    seen, strength = np.zeros((2, analysis.frame_count))
    for track in analysis.tracks:
        if track.person_id in people:
            rows = slice(track.first_frame, track.end_frame)
            seen[rows] = 1
            used = used_strength(track, stats, plan.strength)
            np.maximum(strength[rows], used, out=strength[rows])
    sums = (np.append(0, np.cumsum(values)) for values in (seen, strength))
    return Row(label, *((sum_[last] - sum_[first]) / (last - first) for sum_ in sums))


def _restorers(plan: Plan, summary: Summary) -> list[tuple[str, str | None]]:
    """Return the restorers that some face needed.

    Of those that only an earlier run used, just the names are known.
    """
    analysis, described = plan.job.analysis, plan.rendering.restorers
    stretches = ((0, analysis.frame_count),) if plan.redo is None else plan.redo.frames
    used: dict[tuple[str, str | None], None] = {}
    for first, end in stretches:
        for _, restorer in restorers_used(described, analysis, first, end):
            used[restorer.name, restorer.weights_sha256] = None
    names = {name for name, _ in used}
    return [*used, *((name, None) for name in summary.restorers if name not in names)]


def _how(plan: Plan, summary: Summary) -> Iterator[tuple[str, str]]:
    settings, job = plan.job.settings, plan.job
    yield "detector", job.analysis.detector or settings.detect.detector
    how = settings.guard
    if max(how.identity, how.features, how.expression) > 0:
        yield "likeness measured by", job.judge
    if job.parser is not None:
        yield "face parser, SHA-256", job.parser
    if (scaling := plan.base.scaling) is not None:
        yield "enlarged", f"{scaling.factor} times"
        if scaling.upscaler is not None:
            yield "upscaler", f"{scaling.upscaler.name}, SHA-256 {scaling.upscaler_sha256}"
    yield "codec of the new stream", f"{summary.codec}, {job.encoding.pixel_format}"
    packages = ("vidrestore", "torch", "av", "opencv-python", "numpy")
    versions = [f"{package} {version(package)}" for package in packages]
    yield "versions", ", ".join([*versions, f"Python {platform.python_version()}"])
    yield "run on", f"{platform.system()}, {platform.machine()}"


def _options(request: RestoreRequest) -> Iterator[tuple[str, str]]:
    choice = request.choice
    given = {
        "--people": choice.people, "--reference": choice.reference, "--shots": choice.shots,
        "--min-face": choice.min_face_px, "--before-swap": request.before_swap,
        "--plate": request.plate, "--layer": request.layer, "--framemd5": request.framemd5,
        "--redo-shots": request.redo_shots, "--keep-job": request.keep_job or None,
        "workers": None if request.workers is None else "segments in parallel",
        "own restorer": None if request.restorer is None else request.restorer.name,
    }  # fmt: skip
    yield from ((name, str(value)) for name, value in given.items() if value is not None)


def _changed(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield (dotted name, value) of the settings that differ from the default."""
    usual = Settings()
    for name, value in changed_settings(settings, usual):
        default = attrgetter(name)(usual)
        yield name, f"{_plain(value)} (default: {_plain(default)})"


def _plain(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    words = {None: "not set", True: "on", False: "off", "": "not set"}
    return words[value] if value is None or isinstance(value, bool) or value == "" else str(value)


def _part(plan: Plan) -> str | None:
    if (span := plan.job.span) is None:
        return None
    start, end = (
        None if seconds is None else time_text(float(seconds), 1, short=True)
        for seconds in (span.start_seconds, span.end_seconds)
    )
    return " ".join(filter(None, (start and f"from {start}", end and f"to {end}")))


def _base(plan: Plan, request: RestoreRequest) -> str:
    if request.plate is not None:
        return "the plate"
    return "the source" if plan.base.scaling is None else "the enlarged source"
