"""From a request to a finished file: plan, restore, join, check, rename."""

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
from vidrestore.common.errors import ChangedSourceError, FaultyOutputError
from vidrestore.common.events import Event, OnEvent, notify
from vidrestore.common.files import output_place, placed_together, sync_file
from vidrestore.common.settings import Settings
from vidrestore.common.threads import Stopwatch
from vidrestore.jobs.image_output import at_own_clock
from vidrestore.jobs.layer_output import layer_folder
from vidrestore.jobs.plan import Plan, plan_job
from vidrestore.jobs.redo import note_job
from vidrestore.jobs.render import sum_of
from vidrestore.jobs.request import RestoreRequest
from vidrestore.jobs.summary import Summary, summarize
from vidrestore.jobs.verify import Larger, SampleCollector, Verification, check_output
from vidrestore.jobs.work_folder import WorkFolder, work_folder
from vidrestore.media.containers import RemuxPlan
from vidrestore.media.framemd5 import Listing
from vidrestore.media.remux import packet_count, remux
from vidrestore.restoration.statistics import RestorationStats
from vidrestore.restoration.upscaling import Scaler


class RunObserver(Protocol):
    """Follows a run from outside, as a report of it does."""

    def on_event(self, event: Event) -> None:
        """Receive an event; the observer passes it on."""
        ...

    def sample_collector(self, plan: Plan, tally: RestorationStats) -> SampleCollector:
        """Whoever is shown the frames of the finished file beside those of the source."""
        ...

    def finished(
        self, plan: Plan, tally: RestorationStats, summary: Summary, fixity: Verification | None
    ) -> Summary:
        """The output has its name; returns the summary, maybe with more warnings."""
        ...


def run(
    request: RestoreRequest,
    on_event: OnEvent | None = None,
    observer: RunObserver | None = None,
) -> Summary:
    """Restore the faces of a video and write the whole file anew.

    Finished segments lie in a folder beside the output until the output is whole, and the same
    request goes on from there.

    Args:
        request: What is asked for.
        on_event: Receives progress and notices; default: nobody does.
        observer: Follows the run in place of `on_event`; default: none.

    Returns:
        What was done, and what was not.

    Raises:
        VidrestoreError: See `vidrestore.common.errors`.
    """
    started = time.monotonic()
    request.validate()
    if observer is not None:
        on_event = observer.on_event
    place = output_place(request.target, "the output")
    with (
        work_folder(place, lambda message: notify(on_event, message)) as work,
        layer_folder(request.layer),
        ExitStack() as unfinished,
    ):
        made = _made(request, work, observer, on_event, unfinished)
        plan, whole, counts, tally = made.plan, made.whole, made.counts, made.tally
        if request.keep_job:
            note_job(
                work, whole, plan.job.analysis, plan.rendering.segments, counts=counts,
                restorers=plan.restorers, strength=plan.strength, encoding=plan.job.encoding,
                stream_index=_stream_index(plan),
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
        tally,
        plan.losses,
        seconds,
        is_part=request.span is not None,
        fixity=fixity,
    )
    summary = replace(
        summary,
        codec=_codec(plan),
        restorers=made.used,
        redone_shots=() if plan.redo is None else plan.redo.shots,
        enlarged=plan.job.settings.scale.factor,
    )
    return summary if observer is None else observer.finished(plan, tally, summary, fixity)


def _place_all(made: _Made, request: RestoreRequest, place: Path) -> None:
    """Bring the output and all that was written with it to their places, or nothing.

    The output itself comes last: whoever finds it under its name finds the rest, too, also after a
    power cut or a kill in between. That leaves the listing, the layer or some numbered pictures
    without the others at worst, while all of the work is kept: the same command with --overwrite
    replaces them. The report follows once all have their names, for it tells how long that took.
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


class _Made(NamedTuple):
    """The whole output, checked, in the work folder."""

    plan: Plan
    whole: Path
    counts: list[Mapping[str, Any]]
    tally: RestorationStats
    used: tuple[str, ...]
    """Names of the restorers."""
    fixity: Verification | None
    listing: Listing | None
    """Finished, and not in its place."""
    planned: float
    restored: float
    """When that was done, by the monotonic clock."""


def _made(
    request: RestoreRequest,
    work: WorkFolder,
    observer: RunObserver | None,
    on_event: OnEvent | None,
    unfinished: ExitStack,
) -> _Made:
    """Plan, restore, join and check; once more where the analysis of an earlier run is of other
    frames than the source has."""
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
) -> _Made:
    planned = time.monotonic()
    watch = Stopwatch()
    video, counts = plan.rendering.video()
    tally = sum_of(counts)
    watch.report(on_event, "restore", tally.stages)
    used = tuple(dict.fromkeys(chain.from_iterable(plan.restorers)))
    try:
        if (pictures := plan.output.pictures) is not None:
            whole = pictures.write(video, work.path / "whole", plan.base.analysis)
        else:
            whole = work.path / f"whole{request.target.suffix}"
            _join_all(video, whole, plan, used, tally)
        restored = time.monotonic()
        onlooker = None if observer is None else observer.sample_collector(plan, tally)
        with ExitStack() as stack:
            listing = None
            if (path := request.framemd5) is not None:
                listing = Listing(path, plan.base.path, request.target)
                stack.enter_context(listing)
            fixity = _checked(whole, plan, request, onlooker, listing, on_event)
            unfinished.push(stack.pop_all())
    except FaultyOutputError:
        work.forget_video()  # else the next run would begin with it
        raise
    return _Made(plan, whole, counts, tally, used, fixity, listing, planned, restored)


def _codec(plan: Plan) -> str:
    return plan.job.encoding.codec if plan.output.pictures is None else plan.output.pictures.kind


def _join_all(
    video: Path, whole: Path, plan: Plan, restorers: Sequence[str], tally: RestorationStats
) -> None:
    """Write the new video stream and everything else of the source as `whole`."""
    analysis = plan.base.analysis
    remux(
        video,
        plan.base.path,
        whole,
        plan.output.streams,
        plan.output.info,
        last_frame=_last_frame(analysis),
        provenance=_provenance(plan.job.settings, restorers, tally),
        part_seconds=(
            None if plan.job.span is None else _part_seconds(analysis, plan.output.container_start)
        ),
    )
    _check_whole(whole, plan.output.streams, analysis)


def _checked(
    whole: Path,
    plan: Plan,
    request: RestoreRequest,
    onlooker: SampleCollector | None,
    listing: Listing | None,
    on_event: OnEvent | None,
) -> Verification | None:
    """What reading the file back shows; None where nobody wants that."""
    is_wanted = listing is not None or onlooker is not None
    if not plan.job.settings.encode.check and not is_wanted:
        return None
    analysis = plan.base.analysis
    fixity = check_output(
        plan.base.path,
        whole,
        analysis if plan.output.pictures is None else at_own_clock(analysis),
        stream_index=_stream_index(plan),
        span=plan.base.span,
        strength=plan.strength,
        larger=_larger(plan),
        listing=listing,
        onlooker=onlooker,
        on_event=on_event,
    )
    _check_lossless(fixity, plan)
    return fixity


def _larger(plan: Plan) -> Larger | None:
    """What the picture was enlarged by, as far as that does not take long."""
    scaling = plan.base.scaling
    if scaling is None or scaling.upscaler is not None:
        return None
    return Scaler(plan.job.analysis.info, plan.base.analysis.info, None)


def _stream_index(plan: Plan) -> int:
    """Of the restored stream in the output."""
    return plan.output.streams.kept.index(plan.output.info.stream_index)


def _check_lossless(fixity: Verification, plan: Plan) -> None:
    """Decoders conceal broken slices without a word; samples that differ cannot be missed."""
    is_lossless = plan.job.encoding.is_lossless and _codec(plan) != "jpeg"
    if is_lossless and fixity.identical_outside not in (None, fixity.frames):
        raise FaultyOutputError(
            f"the finished file differs from its source outside the faces, which {_codec(plan)} "
            "does not do by itself; check the disk, nothing was changed"
        )


def _last_frame(analysis: Analysis) -> tuple[Fraction, Fraction]:
    """Its time and how long it lasts, in seconds."""
    clock = analysis.info.time_base
    return int(analysis.pts[-1]) * clock, last_duration(analysis) * clock


def _provenance(settings: Settings, names: Sequence[str], tally: RestorationStats) -> str | None:
    """What the output's tags say of how it was made; nothing where no face was restored."""
    if not settings.encode.provenance or not tally.faces:
        return None
    return f"faces restored by vidrestore {version('vidrestore')} with {', '.join(names)}"


def _part_seconds(analysis: Analysis, container_start: Fraction) -> tuple[Fraction, Fraction]:
    """[start, end) of the analysed frames, counted from the start of the file."""
    first, last = (int(analysis.pts[i]) * analysis.info.time_base for i in (0, -1))
    return first - container_start, last + 1 / analysis.info.frame_rate - container_start


def _check_whole(whole: Path, plan: RemuxPlan, analysis: Analysis) -> None:
    written = packet_count(whole, plan.kept.index(analysis.info.stream_index))
    if written != analysis.frame_count:
        raise FaultyOutputError(
            f"the joined file holds {written} frames instead of {analysis.frame_count}; "
            "nothing was changed, run the same command again"
        )
