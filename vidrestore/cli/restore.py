"""The command `vidrestore restore`, for one video or many."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from vidrestore.cli.options import (
    BeforeSwap,
    Changes,
    Cluster,
    Codec,
    Cuts,
    Deinterlace,
    DetectorName,
    Device,
    End,
    ExtentName,
    Fps,
    FrameMd5,
    InputCurve,
    Json,
    KeepJob,
    LayerFolder,
    Live,
    MaxVram,
    MinFace,
    Offline,
    Overwrite,
    People,
    Plate,
    PrintConfig,
    Profile,
    Quality,
    RedoShots,
    Reference,
    Report,
    RestorerName,
    Scale,
    ShotsToObey,
    StageTimes,
    Start,
    Strength,
    UpscalerFile,
    WeightsFolder,
    Workers,
    print_settings,
    settings_from,
    span_of,
)
from vidrestore.common.counting import counted
from vidrestore.common.errors import UsageError
from vidrestore.common.events import Done, FileOutcome
from vidrestore.jobs.exclusions import check_exclusions

if TYPE_CHECKING:
    from vidrestore.common.settings import Settings
    from vidrestore.jobs.summary import Summary


def restore(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="INPUT OUTPUT",
            help="Read INPUT, a video, a picture or a numbered sequence of pictures "
            "(name_%06d.tif), and write OUTPUT: .mp4, .mov or .mkv for a video; .tif, .png, .jpg, "
            ".dpx or .exr for pictures. With --output-dir, give inputs only.",
            show_default=False,
            readable=False,
        ),
    ] = None,
    output_dir: Annotated[
        Path | None,
        typer.Option(
            "--output-dir",
            metavar="DIR",
            rich_help_panel="Input and output",
            help="Restore every INPUT into this folder. An input that fails does not stop the "
            "others.",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="PATTERN",
            rich_help_panel="Input and output",
            help="Name the outputs in --output-dir by this pattern: {name} is the input's name, "
            "{suffix} its suffix (.mkv if no output can have that), {number} its place in the "
            "list. Default: {name}{suffix}.",
        ),
    ] = None,
    people: People = None,
    reference: Reference = None,
    min_face: MinFace = None,
    shots: ShotsToObey = None,
    cuts: Cuts = None,
    analysis_file: Annotated[
        Path | None,
        typer.Option(
            "--analysis",
            metavar="FILE.npz",
            readable=False,
            rich_help_panel="Whom to restore",
            help="Use the analysis of the whole INPUT that `analyze -o` wrote, for a part too. "
            "Default: vidrestore analyzes what it restores, or uses its cached analysis.",
        ),
    ] = None,
    profile: Profile = None,
    restorer: RestorerName = None,
    detector: DetectorName = None,
    weights: WeightsFolder = None,
    device: Device = None,
    deinterlace: Deinterlace = None,
    max_vram: MaxVram = None,
    fps: Fps = None,
    input_curve: InputCurve = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            rich_help_panel="How to restore",
            help="Restore N faces in one batch. Default: 1 on a CPU, up to 4 on a GPU.",
        ),
    ] = None,
    strength: Strength = None,
    extent: ExtentName = None,
    codec: Codec = None,
    quality: Quality = None,
    start: Start = None,
    end: End = None,
    before_swap: BeforeSwap = None,
    plate: Plate = None,
    scale: Scale = None,
    upscaler: UpscalerFile = None,
    layer: LayerFolder = None,
    framemd5: FrameMd5 = None,
    report: Report = None,
    overwrite: Overwrite = False,
    no_resume: Annotated[
        bool,
        typer.Option(
            "--no-resume",
            rich_help_panel="Long jobs",
            help="Start again from the beginning. Default: continue an interrupted run.",
        ),
    ] = False,
    keep_job: KeepJob = False,
    redo_shots: RedoShots = None,
    workers: Workers = None,
    cluster: Cluster = None,
    offline: Offline = None,
    changes: Changes = None,
    print_config: PrintConfig = False,
    live: Live = None,
    stage_times: StageTimes = False,
    as_json: Json = False,
) -> None:
    """Restore the faces in INPUT; sound, subtitles, times and all other pixels stay the same.

    Examples:

    vidrestore restore tape.mp4 clear.mp4 --profile home-video

    vidrestore restore *.mkv --output-dir clear --name "{name}-clear{suffix}"
    """
    settings = settings_from(
        profile,
        changes,
        restorer=restorer,
        detector=detector,
        weights=weights,
        offline=offline,
        device=device,
        deinterlace=deinterlace,
        max_vram=max_vram,
        fps=fps,
        input_curve=input_curve,
        batch_size=batch_size,
        strength=strength,
        extent=extent,
        scale=scale,
        upscaler=upscaler,
        codec=codec,
        quality=quality,
        cuts=cuts,
    )
    if print_config:
        print_settings(settings)
        return
    span = span_of(start, end)
    check_exclusions({
        "--output-dir": output_dir, "--people": people, "--shots": shots, "--cuts": cuts,
        "--analysis": analysis_file, "--before-swap": before_swap, "--plate": plate,
        "--layer": layer, "--framemd5": framemd5, "--report": report, "--keep-job": keep_job,
        "--redo-shots": redo_shots, "--start or --end": span, "--scale": settings.scale.factor > 1,
        "--live": live, "--workers or --cluster": workers or cluster,
    })  # fmt: skip
    pairs = _pairs(paths or [], output_dir, name, settings)
    from vidrestore.analysis.choice import Choice
    from vidrestore.jobs.request import RestoreRequest, check_address

    source, target = pairs[0]
    request = RestoreRequest(
        source,
        target,
        settings,
        span=span,
        choice=Choice(people, reference, shots, min_face),
        before_swap=before_swap,
        plate=plate,
        layer=layer,
        framemd5=framemd5,
        report=report,
        live=live,
        overwrite=overwrite,
        resume=not no_resume,
        keep_job=keep_job,
        redo_shots=redo_shots,
    )
    if output_dir is None:  # among many inputs, one that is refused does not stop the others
        request.validate()
    if cluster is not None:
        check_address(cluster)
    analysis = None
    if analysis_file is not None:
        from vidrestore.analysis import storage

        analysis = storage.load(analysis_file)
    # These load torch and the other libraries, which takes seconds.
    from vidrestore import api
    from vidrestore.cli import console
    from vidrestore.cli.progress import events
    from vidrestore.jobs.ray_cluster import open_workers

    output = sys.stdout  # kept, because `open_workers` redirects it: Ray prints there
    with open_workers(workers, cluster) as pool:

        def restore_one(source: Path, target: Path) -> Summary:
            each = replace(request, source=source, target=target, workers=pool, analysis=analysis)
            with events(as_json, stage_times=stage_times, output=output) as on_event:
                return api.restore(each, on_event)

        if output_dir is not None:
            _restore_all(pairs, restore_one, output, overwrite=overwrite, as_json=as_json)
            return
        summary = restore_one(source, target)
    if as_json:
        print(json.dumps(Done("summary", summary.as_dict()).as_dict()))
    else:
        console.show_summary(summary, target)


def _pairs(
    paths: Sequence[Path], folder: Path | None, name: str | None, settings: Settings
) -> list[tuple[Path, Path]]:
    """Return the pairs (INPUT, OUTPUT): one, or with a folder one for each input."""
    from vidrestore.jobs.batch import USUAL_NAME, expanded, targets_in

    if folder is not None:
        if not paths:
            raise UsageError("no INPUT was named; give one or more before --output-dir")
        return targets_in(folder, expanded(paths), name or USUAL_NAME, settings)
    if name is not None:
        raise UsageError("--name is for many outputs; give --output-dir with it")
    if len(paths) != 2:
        given = counted(len(paths), "path was", "paths were")
        raise UsageError(
            f"restore takes INPUT and OUTPUT, and {given} given; for many inputs add "
            "--output-dir DIR"
        )
    return [(paths[0], paths[1])]


def _restore_all(
    pairs: Sequence[tuple[Path, Path]],
    restore_one: Callable[[Path, Path], Summary],
    output: TextIO,
    *,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Restore every pair and show the results; exit with status 1 if any failed."""
    from vidrestore.cli import console
    from vidrestore.jobs.batch import restore_all

    outcomes = []
    try:
        for outcome in restore_all(pairs, restore_one, overwrite=overwrite):
            outcomes.append(outcome)
            if as_json:
                line = FileOutcome(**outcome.as_dict())
                print(json.dumps(line.as_dict()), file=output, flush=True)
            else:
                console.show_outcome(outcome, len(outcomes), len(pairs))
    finally:
        if as_json:
            files = [outcome.as_dict() | {"summary": None} for outcome in outcomes]
            print(json.dumps(Done("files", files).as_dict()), file=output)
        else:
            console.show_outcomes(outcomes, len(pairs), output)
    if any(outcome.status == "failed" for outcome in outcomes):
        raise typer.Exit(1)
