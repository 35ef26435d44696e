"""From a request to a finished file: check, analyze, restore, join, rename."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from importlib.metadata import version
from itertools import chain
from pathlib import Path

from vidrestore import store
from vidrestore.codecs import Encoding, plan_encoding
from vidrestore.config import Settings
from vidrestore.containers import RemuxPlan, container_of, plan_streams
from vidrestore.errors import InputError, OutputError, UsageError
from vidrestore.fixity import Fixity, check_output
from vidrestore.frame import Analysis, OnEvent, VideoInfo, notify
from vidrestore.framemd5 import check_listing_path
from vidrestore.layering import Layering
from vidrestore.openers import chosen_judge, chosen_parser, chosen_restorer, chosen_restorers
from vidrestore.outcome import summarize
from vidrestore.pairing import Companion, check_before_swap, check_plate, pair, with_room_for
from vidrestore.redo import (
    check_alone,
    check_encoding,
    kept_job,
    names_used,
    note_job,
    plan_redo,
    take_segments,
)
from vidrestore.remembered import known_analysis
from vidrestore.rendering import Here, Rendering, Work, Workers, sum_of
from vidrestore.restore import last_duration
from vidrestore.restorers import Described, Restorer
from vidrestore.segments import networks_used, plan_segments
from vidrestore.selection import EVERYONE, Choice
from vidrestore.stages.decode import Span, open_source, probe
from vidrestore.stages.encode import first_that_opens
from vidrestore.stages.remux import packet_count, plan_that_fits, remux
from vidrestore.summary import Summary, Tally
from vidrestore.workfolder import work_folder


def restore_video(
    source: str | Path,
    target: str | Path,
    settings: Settings | None = None,
    *,
    restorer: Restorer | None = None,
    analysis: Analysis | None = None,
    span: Span | None = None,
    choice: Choice = EVERYONE,
    before_swap: Path | None = None,
    plate: Path | None = None,
    layer: Path | None = None,
    framemd5: Path | None = None,
    overwrite: bool = False,
    resume: bool = True,
    keep_job: bool = False,
    redo_shots: str | None = None,
    workers: Workers | None = None,
    on_event: OnEvent | None = None,
) -> Summary:
    """Restore the faces of `source` and write the whole file anew as `target`.

    `restorer` may be any object that keeps the contract of `vidrestore.restorers`; `analysis` is
    that of the same source, span and settings where it is already known. `choice` says whom to
    restore, and how in which shot. `before_swap` is the same video before faces were swapped in
    it: only what differs is restored. `plate` is a version of it, larger or graded: faces are
    pasted onto that, and everything else of the output is the plate's. `layer` is a folder into
    which the restored faces are written by themselves, with a matte. `framemd5` is a text file to
    write, with the hashes of each frame and what changed in it. `target` appears only when it is
    whole; until then, and after any error, whatever was there stays. Until then finished segments
    are kept in a folder beside it, and the same call goes on from there unless `resume` is False.
    With `keep_job` a note on the finished job stays there, by which `redo_shots`, such as "3,7-9"
    counted from 1, renders these shots anew under the settings given now and takes all else from
    `target`, bit by bit; neither goes with `plate` or `layer`.
    `workers`, from `vidrestore.cluster`, render segments side by side; the frames are the same.
    Raises VidrestoreError; see `vidrestore.errors`.
    """
    settings = settings or Settings()
    source, target = Path(source), Path(target)
    started = time.monotonic()
    is_redo = redo_shots is not None
    check_alone(plate, layer, keep_job=keep_job, is_redo=is_redo)
    check_paths(
        source, target, framemd5, overwrite=overwrite, beside=(before_swap, plate), is_redo=is_redo
    )
    if workers is not None:
        workers.check(settings, restorer)
    with work_folder(target, lambda message: notify(on_event, message)) as work:
        kept = None if redo_shots is None else kept_job(work, source, target, redo_shots)
        info, shown = probe(source), plate or source
        layering = None
        if layer is not None:
            layering = Layering(layer, source.stem, settings.layer.format, work)
            layering.check(target, (source, shown), overwrite=overwrite)
        if before_swap is not None:
            check_before_swap(before_swap, source, info)
        if plate is not None:
            info = check_plate(plate, source, info)
        fingerprint = store.fingerprint(source)
        if (lost := work.begin(fingerprint, resume=resume)) is not None:
            notify(on_event, lost)
        ways = ways_to_encode(info, target, settings)
        with open_source(shown) as container:
            plan = plan_streams(container, info, target, whole=span is None)
            container_start = Fraction(container.start_time or 0, 1_000_000)
        encoding, header = first_that_opens(
            ways, shown, work.path, info, threads=settings.encode.threads
        )
        if kept is not None:
            check_encoding(kept, encoding, target)
        plan = plan_that_fits(shown, work.path / f"trial{target.suffix}", plan, info)
        losses = (*encoding.notes, *plan.lost)
        notify(on_event, *losses)
        usual = restorer or chosen_restorer(settings, on_event)
        parser = chosen_parser(settings)
        settings = _with_template(settings, usual)
        if analysis is not None:
            _check_analysis(analysis, source, usual, settings)
        else:
            analysis = known_analysis(source, settings, span=span, on_event=on_event)
        analysis, names = choice.applied(analysis, source, settings, on_event)
        restorers = chosen_restorers(names, usual, settings, on_event)
        judge = chosen_judge(settings, on_event)
        redo = None if kept is None else plan_redo(kept, analysis, source)
        if redo is not None:
            notify(on_event, *redo.notes)
            losses, analysis = (*losses, *redo.notes), redo.analysis
        pairing = pair(
            source, analysis, span, before_swap=before_swap, plate=plate, on_event=on_event
        )
        analysis, losses = with_room_for(analysis, pairing), (*losses, *pairing.notes())
        base = pairing.plate or Companion(source, analysis, span)
        described = [(first, _described(each)) for first, each in restorers]
        job = Work(
            source=source.absolute(),
            fingerprint=fingerprint,
            folder=work.path.absolute(),
            analysis=analysis,
            restorers=names,
            own_restorer=restorer,
            networks=networks_used(restorers, analysis, 0, analysis.frame_count),
            judge=judge.name,
            parser=None if parser is None else parser.name,
            settings=settings,
            encoding=encoding,
            header=header and header.absolute(),
            span=span,
            pairing=pairing.absolute(),
            layering=layering,
        )
        renderer = workers or Here(restorers, judge, parser)
        # With workers, which open their own, nothing else needs them.
        del usual, restorers, judge, parser
        analyzed = time.monotonic()
        if redo is None:
            most_frames, taken = settings.job.segment_frames, dict[int, str]()
            segments = plan_segments(analysis, most_frames=most_frames, at_every_cut=keep_job)
        else:
            segments = redo.kept.segments
            taken = take_segments(redo, work, target, encoding.suffix)
        rendering = Rendering(job, work, segments, taken, described, renderer, on_event)
        video, counts = rendering.video()
        tally = sum_of(counts)
        names_by_segment = names_used(segments, analysis, described, redo)
        used = tuple(dict.fromkeys(chain.from_iterable(names_by_segment)))
        strength = max(settings.paste.strength, 0 if kept is None else kept.strength)
        whole = work.path / f"whole{target.suffix}"
        remux(
            video,
            base.path,
            whole,
            plan,
            info,
            last_frame=_last_frame(base.analysis),
            provenance=_provenance(settings, used, tally),
            part_seconds=None if span is None else _part_seconds(base.analysis, container_start),
        )
        restored = time.monotonic()
        _check_whole(whole, plan, base.analysis)
        fixity = None
        if settings.encode.check or framemd5 is not None:
            fixity = check_output(
                base.path,
                whole,
                base.analysis,
                stream_index=plan.kept.index(info.stream_index),
                span=base.span,
                strength=strength,
                listing=framemd5,
                target=target,
                on_event=on_event,
            )
            _check_lossless(fixity, encoding)
        if layering is not None:
            layering.deliver(base.path, base.analysis, is_part=span is not None)
        if keep_job:
            note_job(
                work, whole, analysis, segments, counts=counts, restorers=names_by_segment,
                strength=strength, encoding=encoding,
                stream_index=plan.kept.index(info.stream_index),
            )  # fmt: skip
        whole.replace(target)
        work.end(keep_job=keep_job)
    seconds = {
        "analyze": analyzed - started,
        "restore": restored - analyzed,
        "check": time.monotonic() - restored,
    }
    summary = summarize(analysis, tally, losses, seconds, is_part=span is not None, fixity=fixity)
    return replace(
        summary,
        codec=encoding.codec,
        restorers=used,
        redone_shots=() if redo is None else redo.shots,
    )


def _check_analysis(
    analysis: Analysis, source: Path, restorer: Restorer, settings: Settings
) -> None:
    store.check_source(analysis, source, "the given analysis")
    if analysis.template != settings.align.template:
        raise UsageError(
            f"the analysis was made for the template {analysis.template} and {restorer.name} "
            f"wants {settings.align.template}; analyze with align.template set to that"
        )


def _check_lossless(fixity: Fixity, encoding: Encoding) -> None:
    """Decoders conceal broken slices without a word; samples that differ cannot be missed."""
    if encoding.is_lossless and fixity.identical_outside not in (None, fixity.frames):
        raise OutputError(
            f"the finished file differs from its source outside the faces, which {encoding.codec} "
            "does not do by itself; check the disk, nothing was changed"
        )


def ways_to_encode(info: VideoInfo, target: Path, settings: Settings) -> tuple[Encoding, ...]:
    how = settings.encode
    return plan_encoding(
        info,
        target,
        codec=how.codec,
        quality=how.quality,
        preset=how.preset,
        threads=how.threads,
        hardware=how.hardware,
        pixel_format=how.pixel_format,
    )


def _last_frame(analysis: Analysis) -> tuple[Fraction, Fraction]:
    """Its time and how long it lasts, in seconds."""
    clock = analysis.info.time_base
    return int(analysis.pts[-1]) * clock, last_duration(analysis) * clock


@dataclass(slots=True)
class _Description:
    name: str
    size: int | None
    reach_frames: int
    template: str
    weights_sha256: str | None


def _described(restorer: Restorer) -> Described:
    """It without its network; itself where it chooses one by the face, and opens none before."""
    if hasattr(restorer, "for_side"):
        return restorer
    sha256 = getattr(restorer, "weights_sha256", None)
    return _Description(
        restorer.name, restorer.size, restorer.reach_frames, restorer.template, sha256
    )


def _provenance(settings: Settings, names: Sequence[str], tally: Tally) -> str | None:
    """What the output's tags say of how it was made; nothing where no face was restored."""
    if not settings.encode.provenance or not tally.faces:
        return None
    return f"faces restored by vidrestore {version('vidrestore')} with {', '.join(names)}"


def check_paths(
    source: Path,
    target: Path,
    framemd5: Path | None = None,
    *,
    overwrite: bool,
    beside: Sequence[Path | None] = (),
    is_redo: bool = False,
) -> None:
    """Refuse before any work what could harm a file or cannot end well.

    A redo needs its target and always replaces it.
    """
    try:
        if not target.is_dir():
            container_of(target)
        for each in (source, *filter(None, beside)):
            _check_files(each, target, overwrite=overwrite or is_redo)
            if framemd5 is not None:
                check_listing_path(framemd5, each, target, overwrite=overwrite)
        if is_redo and not target.exists():
            raise UsageError(
                f"the output {target} does not exist, so none of its shots can be redone; restore "
                "it with --keep-job first"
            )
    except PermissionError as error:
        inputs = map(str, (source, *filter(None, beside)))
        kind = InputError if error.filename in inputs else OutputError
        raise kind(f"{error.filename} cannot be reached: permission denied") from error


def _check_files(source: Path, target: Path, *, overwrite: bool) -> None:
    if not source.exists():
        raise InputError(f"the file {source} does not exist")
    if not os.access(source, os.R_OK):
        raise InputError(f"the file {source} cannot be read: permission denied")
    if target.is_dir():
        raise UsageError(f"the output {target} is a folder; give a file name in it")
    if target.exists() and source.samefile(target):
        raise UsageError(f"the output {target} is the input itself; choose another name")
    if target.exists() and not overwrite:
        raise UsageError(f"the output {target} exists already; add --overwrite to replace it")
    if not target.parent.is_dir():
        raise OutputError(f"the folder {target.parent} for the output does not exist; create it")


def _with_template(settings: Settings, restorer: Restorer) -> Settings:
    """The settings, with the restorer's template where none was asked for."""
    if settings.align.template != "auto":
        return settings
    align = settings.align.model_copy(update={"template": restorer.template})
    return settings.model_copy(update={"align": align})


def _part_seconds(analysis: Analysis, container_start: Fraction) -> tuple[Fraction, Fraction]:
    """[start, end) of the analysed frames, counted from the start of the file."""
    first, last = (int(analysis.pts[i]) * analysis.info.time_base for i in (0, -1))
    return first - container_start, last + 1 / analysis.info.frame_rate - container_start


def _check_whole(whole: Path, plan: RemuxPlan, analysis: Analysis) -> None:
    written = packet_count(whole, plan.kept.index(analysis.info.stream_index))
    if written != analysis.frame_count:
        raise OutputError(
            f"the joined file holds {written} frames instead of {analysis.frame_count}; "
            "nothing was changed"
        )
