"""From a request to a finished file: check, analyze, restore, join, rename."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from importlib.metadata import version
from itertools import chain
from pathlib import Path

from vidrestore import store
from vidrestore.analyze import frames_expected
from vidrestore.codecs import Encoding, plan_encoding
from vidrestore.config import Settings
from vidrestore.containers import RemuxPlan, container_of, plan_streams
from vidrestore.errors import InputError, OutputError, UsageError
from vidrestore.fixity import Fixity, check_output
from vidrestore.frame import Analysis, OnEvent, VideoInfo, notify
from vidrestore.framemd5 import check_listing_path
from vidrestore.openers import chosen_restorer
from vidrestore.redo import check_encoding, kept_job, names_used, note_job, plan_redo, take_segments
from vidrestore.remembered import known_analysis
from vidrestore.rendering import Rendering, sum_of
from vidrestore.restore import last_duration
from vidrestore.restorers import Restorer
from vidrestore.segments import plan_segments
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
    framemd5: Path | None = None,
    overwrite: bool = False,
    resume: bool = True,
    keep_job: bool = False,
    redo_shots: str | None = None,
    on_event: OnEvent | None = None,
) -> Summary:
    """Restore the faces of `source` and write the whole file anew as `target`.

    `restorer` may be any object that keeps the contract of `vidrestore.restorers`; `analysis` is
    that of the same source, span and settings where it is already known. `choice` says whom to
    restore, and how in which shot. `framemd5` is a text file to write, with the hashes of each
    frame and what changed in it. `target` appears only when it is whole; until then, and after
    any error, whatever was there stays. Until then finished segments are kept in a folder beside
    it, and the same call goes on from there unless `resume` is False. With `keep_job` a note on
    the finished job stays there, by which `redo_shots`, such as "3,7-9" counted from 1, renders
    these shots anew under the settings given now and takes all else from `target`, bit by bit.
    Raises VidrestoreError; see `vidrestore.errors`.
    """
    settings = settings or Settings()
    source, target = Path(source), Path(target)
    started = time.monotonic()
    is_redo = redo_shots is not None
    check_paths(source, target, framemd5, overwrite=overwrite, is_redo=is_redo)
    with work_folder(target, lambda message: notify(on_event, message)) as work:
        kept = None if redo_shots is None else kept_job(work, source, target, redo_shots)
        info = probe(source)
        if (lost := work.begin(store.fingerprint(source), resume=resume)) is not None:
            notify(on_event, lost)
        ways = ways_to_encode(info, target, settings)
        with open_source(source) as container:
            plan = plan_streams(container, info, target, whole=span is None)
            container_start = Fraction(container.start_time or 0, 1_000_000)
        encoding, header = first_that_opens(
            ways, source, work.path, info, threads=settings.encode.threads
        )
        if kept is not None:
            check_encoding(kept, encoding, target)
        plan = plan_that_fits(source, work.path / f"trial{target.suffix}", plan, info)
        losses = (*encoding.notes, *plan.lost)
        notify(on_event, *losses)
        restorer = restorer or chosen_restorer(settings, on_event)
        settings = _with_template(settings, restorer)
        if analysis is not None:
            _check_analysis(analysis, source, restorer, settings)
        else:
            analysis = known_analysis(source, settings, span=span, on_event=on_event)
        analysis, names = choice.applied(analysis, source, settings, on_event)
        restorers = _schedule(names, restorer, settings, on_event)
        analyzed = time.monotonic()
        if kept is None:
            most_frames = settings.job.segment_frames
            segments = plan_segments(analysis, most_frames=most_frames, at_every_cut=keep_job)
            redo, taken = None, dict[int, str]()
        else:
            redo = plan_redo(kept, analysis, source)
            notify(on_event, *redo.notes)
            losses = (*losses, *redo.notes)
            segments, analysis = kept.segments, redo.analysis
            taken = take_segments(redo, work, target, encoding.suffix)
        rendering = Rendering(
            source, work, segments, taken, analysis, restorers, settings, encoding, header, span,
            on_event,
        )  # fmt: skip
        video, counts = rendering.video()
        tally = sum_of(counts)
        names_by_segment = names_used(segments, analysis, restorers, redo)
        used = tuple(dict.fromkeys(chain.from_iterable(names_by_segment)))
        strength = max(settings.paste.strength, 0 if kept is None else kept.strength)
        whole = work.path / f"whole{target.suffix}"
        remux(
            video,
            source,
            whole,
            plan,
            info,
            last_frame=_last_frame(analysis),
            provenance=_provenance(settings, used, tally),
            part_seconds=None if span is None else _part_seconds(analysis, container_start),
        )
        restored = time.monotonic()
        _check_whole(whole, plan, analysis)
        fixity = None
        if settings.encode.check or framemd5 is not None:
            fixity = check_output(
                source,
                whole,
                analysis,
                stream_index=plan.kept.index(info.stream_index),
                span=span,
                strength=strength,
                listing=framemd5,
                target=target,
                on_event=on_event,
            )
            _check_lossless(fixity, encoding)
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
    summary = replace(
        _summary(analysis, tally, losses, span, seconds),
        codec=encoding.codec,
        restorers=used,
        redone_shots=() if redo is None else redo.shots,
    )
    return summary if fixity is None else _with_fixity(summary, fixity)


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


def _with_fixity(summary: Summary, fixity: Fixity) -> Summary:
    why_not = () if fixity.not_compared is None else (fixity.not_compared,)
    return replace(
        summary,
        identical_frames=fixity.identical_frames,
        identical_outside=fixity.identical_outside,
        psnr_outside_db=fixity.psnr_outside_db,
        warnings=(*summary.warnings, *why_not),
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


def _schedule(
    names: Sequence[tuple[int, str | None]],
    usual: Restorer,
    settings: Settings,
    on_event: OnEvent | None,
) -> list[tuple[int, Restorer]]:
    """The restorers of stretches of frames, each opened once; None stands for the usual one.

    UsageError where they want their crops framed differently.
    """
    opened: dict[str | None, Restorer] = {None: usual}
    for _, name in names:
        if name not in opened:
            how = settings.restore.model_copy(update={"restorer": name})
            other = chosen_restorer(settings.model_copy(update={"restore": how}), on_event)
            if other.template != settings.align.template:
                raise UsageError(
                    f"{usual.name} wants the template {settings.align.template} and {other.name} "
                    f"wants {other.template}; one run cannot mix them, run them one by one"
                )
            opened[name] = other
    return [(first, opened[name]) for first, name in names]


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
    is_redo: bool = False,
) -> None:
    """Refuse before any work what could harm a file or cannot end well.

    A redo needs its target and always replaces it.
    """
    try:
        if not target.is_dir():
            container_of(target)
        _check_files(source, target, overwrite=overwrite or is_redo)
        if is_redo and not target.exists():
            raise UsageError(
                f"the output {target} does not exist, so none of its shots can be redone; restore "
                "it with --keep-job first"
            )
        if framemd5 is not None:
            check_listing_path(framemd5, source, target, overwrite=overwrite)
    except PermissionError as error:
        kind = InputError if error.filename == str(source) else OutputError
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


def _summary(
    analysis: Analysis,
    tally: Tally,
    losses: tuple[str, ...],
    span: Span | None,
    seconds: dict[str, float],
) -> Summary:
    missing = 0 if span is not None else _missing_frames(analysis)
    skipped = dict(analysis.skipped)
    for reason, count in tally.not_restored.items():
        skipped[reason] = skipped.get(reason, 0) + count
    return Summary(
        frames=analysis.frame_count,
        faces=tally.faces,
        repeated=tally.repeated,
        tracks=len(analysis.tracks),
        people=len({track.person_id for track in analysis.tracks}),
        shots=len(analysis.shots),
        skipped=skipped,
        corrupt_frames=analysis.corrupt_frames,
        missing_frames=missing,
        warnings=(*_warnings(analysis, missing), *tally.notes.values(), *losses),
        seconds=seconds,
    )


def _missing_frames(analysis: Analysis) -> int:
    """Frames that the file claims beyond the last one that could be decoded.

    The header's count alone proves nothing: edit lists hide frames that it includes. So the
    time that is missing at the end decides, and the count only says how many.
    """
    info = analysis.info
    shown = int(analysis.pts[-1] - analysis.pts[0]) * info.time_base + 1 / info.frame_rate
    absent = info.duration_seconds_from_header - float(shown)
    if absent <= 2 / info.frame_rate and not analysis.decode_errors:
        return 0
    most = math.ceil(max(absent, 0) * info.frame_rate) + analysis.decode_errors
    return min(max(0, frames_expected(info) - analysis.frame_count), most)


def _warnings(analysis: Analysis, missing: int) -> Iterator[str]:
    if missing:
        yield f"{missing} frames that the file announces could not be decoded; they are missing"
    if analysis.corrupt_frames:
        yield f"{analysis.corrupt_frames} frames are damaged in the source"
    if analysis.repaired_times:
        yield f"{analysis.repaired_times} frames had no time of their own or a repeated one"
    if not analysis.tracks:
        yield "no face was found; nothing was restored"
    elif analysis.coarse_landmarks:
        yield "landmarks were guessed from face boxes; a detector with weights aligns better"
