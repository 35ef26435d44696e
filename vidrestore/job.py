"""From a request to a finished file: check, analyze, restore, join, rename."""

from __future__ import annotations

import errno
import math
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path

import imageio_ffmpeg

from vidrestore.analyze import analyze_video, frames_expected, weight_finder
from vidrestore.config import Settings
from vidrestore.errors import InputError, OutputError, UsageError, WeightsError
from vidrestore.frame import Analysis, OnEvent, Summary, Tally
from vidrestore.locks import held
from vidrestore.restore import choose_device, restore_segment
from vidrestore.restorers import Restorer, open_restorer
from vidrestore.stages.decode import Span, open_source, probe
from vidrestore.stages.encode import choose_codec, stream_suffix
from vidrestore.stages.remux import (
    RemuxPlan,
    container_of,
    packet_count,
    plan_streams,
    remux,
    try_remux,
)
from vidrestore.weights import user_cache


def restore_video(
    source: str | Path,
    target: str | Path,
    settings: Settings | None = None,
    *,
    restorer: Restorer | None = None,
    analysis: Analysis | None = None,
    span: Span | None = None,
    overwrite: bool = False,
    on_event: OnEvent | None = None,
) -> Summary:
    """Restore the faces of `source` and write the whole file anew as `target`.

    `restorer` may be any object that keeps the contract of `vidrestore.restorers`; `analysis` is
    that of the same source, span and settings where it is already known. `target` appears only
    when it is whole; until then, and after any error, whatever was there stays.
    Raises VidrestoreError; see `vidrestore.errors`.
    """
    settings = settings or Settings()
    source, target = Path(source), Path(target)
    started = time.monotonic()
    check_paths(source, target, overwrite=overwrite)
    info = probe(source)
    codec = choose_codec(settings.encode.codec, info)
    with open_source(source) as container:
        plan = plan_streams(container, info, target, codec, whole=span is None)
        container_start = Fraction(container.start_time or 0, 1_000_000)
    with _work_folder(target) as folder:
        program = ffmpeg_program()
        try_remux(source, folder / f"trial{target.suffix}", plan, info, ffmpeg_program=program)
        restorer = restorer or chosen_restorer(settings, on_event)
        settings = _with_template(settings, restorer)
        if analysis is not None and analysis.template != settings.align.template:
            raise UsageError(
                f"the analysis was made for the template {analysis.template} and {restorer.name} "
                f"wants {settings.align.template}; analyze with align.template set to that"
            )
        analysis = analysis or analyze_video(source, settings, span=span, on_event=on_event)
        analyzed = time.monotonic()
        video, whole = folder / f"video{stream_suffix(codec)}", folder / f"whole{target.suffix}"
        tally = restore_segment(
            source, video, analysis, restorer, settings, codec=codec, span=span, on_event=on_event
        )
        part = None if span is None else _part_seconds(analysis, container_start)
        remux(video, source, whole, plan, info, ffmpeg_program=program, part_seconds=part)
        _check_whole(whole, plan, analysis)
        whole.replace(target)
    seconds = {"analyze": analyzed - started, "restore": time.monotonic() - analyzed}
    return _summary(analysis, tally, plan, span, seconds)


def check_paths(source: Path, target: Path, *, overwrite: bool) -> None:
    """Refuse before any work what could harm a file or cannot end well."""
    try:
        if not target.is_dir():
            container_of(target)
        _check_files(source, target, overwrite=overwrite)
    except PermissionError as error:
        kind = InputError if error.filename == str(source) else OutputError
        raise kind(f"{error.filename} cannot be reached: permission denied") from error


def _check_files(source: Path, target: Path, *, overwrite: bool) -> None:
    if not source.exists():
        raise InputError(f"the file {source} does not exist")
    if target.is_dir():
        raise UsageError(f"the output {target} is a folder; give a file name in it")
    if target.exists() and source.samefile(target):
        raise UsageError(f"the output {target} is the input itself; choose another name")
    if target.exists() and not overwrite:
        raise UsageError(f"the output {target} exists already; add --overwrite to replace it")
    if not target.parent.is_dir():
        raise OutputError(f"the folder {target.parent} for the output does not exist; create it")


def ffmpeg_program() -> str:
    """VIDRESTORE_FFMPEG, else the binary of imageio-ffmpeg; OutputError if it cannot be run."""
    program = os.environ.get("VIDRESTORE_FFMPEG") or str(imageio_ffmpeg.get_ffmpeg_exe())
    if shutil.which(program) is None:
        raise OutputError(
            f"{program} cannot be run; let VIDRESTORE_FFMPEG name an ffmpeg that can, or unset it"
        )
    return program


def chosen_restorer(settings: Settings, on_event: OnEvent | None) -> Restorer:
    """The restorer that the settings name, its weights fetched where they are missing."""
    how = settings.restore

    def notice(message: str) -> None:
        if on_event is not None:
            on_event({"event": "notice", "message": message})

    try:
        return open_restorer(
            how.restorer,
            device=choose_device(how.device),
            number_format=how.number_format,
            engine=how.engine,
            cache_folder=user_cache() / "openvino",
            fusion_sharpness=how.fusion_sharpness,
            codeformer_fidelity=how.codeformer_fidelity,
            find_weights=weight_finder(settings, on_event),
            on_notice=notice,
        )
    except MemoryError as error:
        raise WeightsError(
            f"{how.restorer} does not fit into the memory of the device; use a smaller one such as "
            "gpen-512, or --device cpu"
        ) from error


def _with_template(settings: Settings, restorer: Restorer) -> Settings:
    """The settings, with the restorer's template where none was asked for."""
    if settings.align.template != "auto":
        return settings
    align = settings.align.model_copy(update={"template": restorer.template})
    return settings.model_copy(update={"align": align})


@contextmanager
def _work_folder(target: Path) -> Iterator[Path]:
    """`TARGET.vidrestore` beside the output, gone again afterwards whatever happened.

    What a killed run left there is removed; UsageError while another run works in it.
    """
    folder = target.with_name(target.name + ".vidrestore")
    with ExitStack() as last, ExitStack() as stack:
        try:
            folder.mkdir(exist_ok=True)
            stack.enter_context(held(folder / "lock", wait=False))
            if sys.platform == "win32":  # which removes no file that is open, as the lock is
                last.callback(shutil.rmtree, folder, ignore_errors=True)
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            for left in folder.iterdir():
                if left.name != "lock":
                    left.unlink()
        except BlockingIOError as error:
            raise UsageError(
                f"another run is writing {target}; wait for it or choose another name"
            ) from error
        except OSError as error:
            raise OutputError(
                f"the folder {target.parent} cannot be written to: {(error.strerror or '').lower()}"
            ) from error
        try:
            yield folder
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise OutputError(f"no space is left in {target.parent}") from error
            reason = (error.strerror or str(error)).lower()
            raise OutputError(f"{error.filename or target} cannot be used: {reason}") from error


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
    plan: RemuxPlan,
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
        tracks=len(analysis.tracks),
        people=len({track.person_id for track in analysis.tracks}),
        shots=len(analysis.shots),
        skipped=skipped,
        corrupt_frames=analysis.corrupt_frames,
        missing_frames=missing,
        warnings=(*_warnings(analysis, missing), *tally.notes.values(), *plan.lost),
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
