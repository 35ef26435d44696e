"""A run, from the request to the finished file: plan, restore, join, check and rename."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from fractions import Fraction
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from vidrestore.analysis.cache import OTHER_FRAMES
from vidrestore.analysis.replay import last_duration
from vidrestore.analysis.result import Analysis
from vidrestore.common.counting import counted
from vidrestore.common.errors import ChangedSourceError, FaultyOutputError
from vidrestore.common.events import Event, OnEvent, notify
from vidrestore.common.files import output_place, placed_together, sync_file
from vidrestore.common.interruption import expect_end
from vidrestore.common.settings import Settings
from vidrestore.common.threads import Stopwatch
from vidrestore.imaging.planes import with_chroma
from vidrestore.jobs.image_output import at_own_clock
from vidrestore.jobs.layer_output import layer_folder
from vidrestore.jobs.plan import Plan, plan_job
from vidrestore.jobs.redo import note_job
from vidrestore.jobs.render import sum_of
from vidrestore.jobs.request import RestoreRequest
from vidrestore.jobs.summary import Summary, networks_by_people, summarize
from vidrestore.jobs.verify import (
    Larger,
    SampleCollector,
    Verification,
    check_output,
    read_samples,
)
from vidrestore.jobs.work_folder import WorkFolder, work_folder
from vidrestore.media.containers import RemuxPlan
from vidrestore.media.framemd5 import Listing
from vidrestore.media.remux import packet_count, remux
from vidrestore.restoration.statistics import RestorationStats
from vidrestore.restoration.upscaling import Scaler


class RunObserver(Protocol):
    """Collects data about a run while it works, as the report does."""

    def on_event(self, event: Event) -> None:
        """Receive an event, and pass it on.

        Args:
            event: Progress, a notice, or the times of a pass.
        """
        ...

    def sample_collector(
        self, plan: Plan, stats: RestorationStats, *, in_parts: bool
    ) -> SampleCollector:
        """Return the object that receives the frames of the source and of the finished file.

        Args:
            plan: The plan of the run.
            stats: The counts of pass two.
            in_parts: Whether the file is read only in the parts that the object names.

        Returns:
            The object.
        """
        ...

    def finished(
        self, plan: Plan, stats: RestorationStats, summary: Summary, fixity: Verification | None
    ) -> Summary:
        """Complete the observation, after the output has its final name.

        Args:
            plan: The plan of the run.
            stats: The counts of pass two.
            summary: The summary of the run.
            fixity: The result of reading the output back; None: it was not compared.

        Returns:
            The summary, possibly with more warnings.
        """
        ...


def run(
    request: RestoreRequest,
    on_event: OnEvent | None = None,
    observer: RunObserver | None = None,
) -> Summary:
    """Restore the faces of a video and write the whole file anew.

    A folder next to the output holds finished segments until the output is complete. After an
    interruption, the same request continues from there.

    Args:
        request: The video, the output and the settings.
        on_event: Receives progress and notices; default: None, and none are sent.
        observer: Receives the events in place of `on_event`, and the frames; default: None.

    Returns:
        The summary of what was restored and what was not.

    Raises:
        VidrestoreError: See `vidrestore.common.errors`.
    """
    started = time.monotonic()
    expect_end(False)  # in a batch, the output before is in its place
    request.validate()
    if observer is not None:
        on_event = observer.on_event
    place = output_place(request.target, "the output")
    with (
        work_folder(place, lambda message: notify(on_event, message)) as work,
        layer_folder(request.layer),
        ExitStack() as unfinished,
    ):
        request.check_paths()  # another run may have written the output before the lock was free
        made = _make_output(request, work, observer, on_event, unfinished)
        plan, whole, counts, stats = made.plan, made.whole, made.counts, made.stats
        if request.keep_job:
            note_job(
                work, whole, plan.job.analysis, plan.rendering.segments, counts=counts,
                restorers=plan.restorers, labels=plan.labels, strength=plan.strength,
                extent=plan.extent,
                encoding=plan.job.encoding, stream_index=_stream_index(plan),
                scaling=plan.output.scaling,
            )  # fmt: skip
        _place_all(made, request, place)
        work.end(keep_job=request.keep_job)
    seconds = {
        "analyze": made.planned - started,
        "restore": made.restored - made.planned,
        "check": time.monotonic() - made.restored,
    }
    fixity = made.fixity
    summary = summarize(
        plan.job.analysis,
        stats,
        plan.losses,
        seconds,
        is_part=request.span is not None,
        fixity=fixity,
    )
    summary = replace(
        summary,
        codec=_codec(plan),
        restorers=made.used,
        networks=networks_by_people(plan.labels, stats, plan.job.analysis),
        redone_shots=() if plan.redo is None else plan.redo.shots,
        enlarged=plan.job.settings.scale.factor,
    )
    return summary if observer is None else observer.finished(plan, stats, summary, fixity)


def _place_all(made: _MadeOutput, request: RestoreRequest, place: Path) -> None:
    """Move the output and all files that belong to it to their places, or none of them.

    The output itself is moved last. So a person who finds it under its name finds the other files,
    too, even after a power cut or a kill. At worst, such an interruption leaves the listing, the
    layer or some numbered pictures without the rest. The work folder keeps all of the work, and the
    same command with --overwrite replaces the files. The report is written after this, because it
    states the time that this takes.
    """
    plan, is_part = made.plan, request.span is not None
    moves = [] if made.listing is None else [made.listing.move]
    if plan.output.pictures is not None:
        moves += plan.output.pictures.moves(made.whole.parent)
    else:
        sync_file(made.whole)
        moves.append((made.whole, place))
    with ExitStack() as together:
        if plan.job.layering is not None:
            base = plan.base
            together.enter_context(
                plan.job.layering.placed(base.path, base.analysis, is_part=is_part)
            )
        together.enter_context(placed_together(moves))


class _MadeOutput(NamedTuple):
    """The complete and checked output in the work folder."""

    plan: Plan
    whole: Path
    """The file of the output, or the pattern of its pictures, in the work folder."""
    counts: list[Mapping[str, Any]]
    """The counts of each segment."""
    stats: RestorationStats
    """The sum of the counts."""
    used: tuple[str, ...]
    """The names of the restorers."""
    fixity: Verification | None
    listing: Listing | None
    """The finished listing, which is not in its place yet."""
    planned: float
    """The time at which the plan was made, by the monotonic clock, in seconds."""
    restored: float
    """The time at which the output was joined, by the monotonic clock, in seconds."""


def _make_output(
    request: RestoreRequest,
    work: WorkFolder,
    observer: RunObserver | None,
    on_event: OnEvent | None,
    unfinished: ExitStack,
) -> _MadeOutput:
    """Plan, restore, join and check the output.

    Where the analysis of an earlier run has other frames than the source, all of this is repeated
    with a new analysis.
    """
    plan = plan_job(request, work, on_event)
    try:
        return _restored(plan, request, work, observer, on_event, unfinished)
    except ChangedSourceError as error:
        if not plan.has_kept_analysis:
            raise
        logging.getLogger("vidrestore").info("a kept analysis is of no use: %s", error)
    notify(on_event, OTHER_FRAMES)
    plan = plan_job(request, work, on_event, may_be_kept=False)
    return _restored(plan, request, work, observer, on_event, unfinished)


def _restored(
    plan: Plan,
    request: RestoreRequest,
    work: WorkFolder,
    observer: RunObserver | None,
    on_event: OnEvent | None,
    unfinished: ExitStack,
) -> _MadeOutput:
    """Render, join and check the output of a plan."""
    planned = time.monotonic()
    watch = Stopwatch()
    video, counts = plan.rendering.video()
    stats = sum_of(counts)
    watch.report(on_event, "restore", stats.stages)
    used = tuple(dict.fromkeys(chain.from_iterable(plan.restorers)))
    try:
        if (pictures := plan.output.pictures) is not None:
            whole = pictures.write(video, work.path / "whole", plan.base.analysis)
        else:
            whole = work.path / f"whole{request.target.suffix}"
            _join_all(video, whole, plan, used, stats)
        restored = time.monotonic()
        collector = None
        if observer is not None:
            in_parts = not _is_read_back(request, plan)
            collector = observer.sample_collector(plan, stats, in_parts=in_parts)
        with ExitStack() as stack:
            listing = None
            if (path := request.framemd5) is not None:
                listing = Listing(path, plan.base.path, request.target)
                stack.enter_context(listing)
            fixity = _checked(whole, plan, request, collector, listing, on_event)
            unfinished.push(stack.pop_all())
    except FaultyOutputError:
        work.forget_video()  # so that the next run renders the video again
        raise
    return _MadeOutput(plan, whole, counts, stats, used, fixity, listing, planned, restored)


def _codec(plan: Plan) -> str:
    """Return the codec of the output, or the format of its pictures."""
    return plan.job.encoding.codec if plan.output.pictures is None else plan.output.pictures.kind


def _join_all(
    video: Path, whole: Path, plan: Plan, restorers: Sequence[str], stats: RestorationStats
) -> None:
    """Write the new video stream and all other streams of the base into `whole`."""
    analysis = plan.base.analysis
    remux(
        video,
        plan.base.path,
        whole,
        plan.output.streams,
        plan.output.info,
        codec=plan.job.encoding.codec,
        last_frame=_last_frame(analysis),
        provenance=_provenance(plan.job.settings, restorers, stats),
        part_seconds=(
            None if plan.job.span is None else _part_seconds(analysis, plan.output.container_start)
        ),
    )
    _check_whole(whole, plan.output.streams, analysis)


def _checked(
    whole: Path,
    plan: Plan,
    request: RestoreRequest,
    collector: SampleCollector | None,
    listing: Listing | None,
    on_event: OnEvent | None,
) -> Verification | None:
    """Read the output back and compare it; None where no setting or option needs that."""
    analysis = plan.base.analysis
    if plan.output.pictures is not None:
        analysis = at_own_clock(analysis)
    if not _is_read_back(request, plan):
        if collector is not None:
            read_samples(
                plan.base.path,
                whole,
                analysis,
                collector,
                stream_index=_stream_index(plan),
                span=plan.base.span,
                larger=_larger(plan),
                on_event=on_event,
            )
        return None
    fixity = check_output(
        plan.base.path,
        whole,
        analysis,
        stream_index=_stream_index(plan),
        span=plan.base.span,
        strength=plan.strength,
        extent=plan.extent,
        larger=_larger(plan),
        listing=listing,
        collector=collector,
        on_event=on_event,
    )
    _check_lossless(fixity, plan)
    return fixity


def _is_read_back(request: RestoreRequest, plan: Plan) -> bool:
    """Tell whether the whole output is compared with its source."""
    return plan.job.settings.encode.check or request.framemd5 is not None


def _larger(plan: Plan) -> Larger | None:
    """Return what makes the source comparable; None: nothing, or a slow network enlarges it."""
    scaling = plan.base.scaling
    if scaling is None:
        colorizes = any(each.colorizes for each in plan.rendering.restorers.each())
        return with_chroma if colorizes else None
    if scaling.upscaler is not None:
        return None
    return Scaler(plan.job.analysis.info, plan.base.analysis.info, None)


def _stream_index(plan: Plan) -> int:
    """Return the index of the restored stream in the output."""
    return plan.output.streams.kept.index(plan.output.info.stream_index)


def _check_lossless(fixity: Verification, plan: Plan) -> None:
    """Raise FaultyOutputError where a lossless output differs from its source outside the faces.

    Decoders conceal damaged slices without an error, so only the samples show the damage.
    """
    is_lossless = plan.job.encoding.is_lossless and _codec(plan) != "jpeg"
    if is_lossless and fixity.identical_outside not in (None, fixity.frames):
        raise FaultyOutputError(
            f"the finished file differs from its source outside the faces, although {_codec(plan)} "
            "is lossless; nothing was changed, check the disk"
        )


def _last_frame(analysis: Analysis) -> tuple[Fraction, Fraction]:
    """Return the time and the duration of the last frame, in seconds."""
    clock = analysis.info.time_base
    return int(analysis.pts[-1]) * clock, last_duration(analysis) * clock


def _provenance(settings: Settings, names: Sequence[str], stats: RestorationStats) -> str | None:
    """Return the tag that tells how the output was made; None where no face was restored."""
    if not settings.encode.provenance or not stats.faces:
        return None
    return f"faces restored by vidrestore {version('vidrestore')} with {', '.join(names)}"


def _part_seconds(analysis: Analysis, container_start: Fraction) -> tuple[Fraction, Fraction]:
    """Return [start, end) of the analyzed frames, in seconds from the start of the file."""
    first, last = (int(analysis.pts[i]) * analysis.info.time_base for i in (0, -1))
    return first - container_start, last + 1 / analysis.info.frame_rate - container_start


def _check_whole(whole: Path, plan: RemuxPlan, analysis: Analysis) -> None:
    """Raise FaultyOutputError where the joined file has another number of frames."""
    written = packet_count(whole, plan.kept.index(analysis.info.stream_index))
    if written != analysis.frame_count:
        raise FaultyOutputError(
            f"the joined file holds {counted(written, 'frame')} instead of {analysis.frame_count}; "
            "nothing was changed, run the same command again"
        )
