"""Arguments in, tables and progress out, exit status. Heavy modules load where needed."""

from __future__ import annotations

import json
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from vidrestore.cli_options import (
    BeforeSwap,
    Changes,
    Cluster,
    Codec,
    Cuts,
    Deinterlace,
    DetectorName,
    Device,
    End,
    Fps,
    FrameMd5,
    InputCurve,
    Json,
    KeepJob,
    LayerFolder,
    MaxVram,
    Offline,
    Plate,
    Profile,
    Quality,
    RedoShots,
    Reference,
    RestorerName,
    Scale,
    Source,
    StageTimes,
    Start,
    UpscalerFile,
    WeightsFolder,
    Workers,
    settings_from,
    span_of,
)
from vidrestore.cli_ui import ui
from vidrestore.cli_weights import weights_app
from vidrestore.errors import UsageError, VidrestoreError

_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and leave with its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [a for a in given if a != "--debug"]
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        # Typer turns an interruption into a status that it returns, and raises other failures.
        status = int(_build()(given, prog_name="vidrestore", standalone_mode=False) or 0)
        if status == _INTERRUPTED:
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        status = _fail("interrupted", "interrupted; no output was written", _INTERRUPTED, given)
    except VidrestoreError as error:
        if debug:
            traceback.print_exc()
        status = _fail(type(error).__name__, str(error), error.exit_status, given)
    except (typer.Exit, SystemExit) as leaving:
        status = int(getattr(leaving, "exit_code", getattr(leaving, "code", 0)) or 0)
    except Exception as error:
        status = _unexpected(error, given, debug=debug)
    sys.exit(status)


def _unexpected(error: Exception, given: Sequence[str], *, debug: bool) -> int:
    """A usage error of the parser, which knows how to show itself; else a defect."""
    show = getattr(error, "show", None)
    if show is not None:
        show()
        return int(getattr(error, "exit_code", 2))
    if type(error).__name__ == "Abort":
        return _fail("interrupted", "interrupted; no output was written", _INTERRUPTED, given)
    if debug:
        traceback.print_exception(error)
    message = f"{type(error).__name__}: {error}; run again with --debug and report what it prints"
    return _fail(type(error).__name__, message, 1, given)


def _fail(kind: str, message: str, status: int, given: Sequence[str]) -> int:
    if "--json" in given:
        print(json.dumps({"event": "error", "kind": kind, "message": message}), flush=True)
    else:
        print(f"vidrestore: {message}", file=sys.stderr)
    return status


def _interrupt(signal_number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _build() -> typer.Typer:
    app = typer.Typer(
        callback=_version,
        invoke_without_command=True,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        help="Makes the faces in a video clear and leaves everything else exactly as it was.",
        epilog="--debug, anywhere, shows the traceback of an error.",
    )
    for command in (restore, analyze, evaluate, demo, doctor, ui):
        app.command()(command)
    app.add_typer(weights_app(), name="weights")
    return app


def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        from importlib.metadata import version as installed

        print(f"vidrestore {installed('vidrestore')}")
        raise typer.Exit


def restore(
    source: Source,
    target: Annotated[
        Path,
        typer.Argument(
            metavar="OUTPUT",
            help="The new file: .mp4, .mov or .mkv; of pictures .tif, .png, .jpg or .dpx.",
            show_default=False,
            readable=False,
        ),
    ],
    profile: Profile = None,
    restorer: RestorerName = None,
    detector: DetectorName = None,
    weights: WeightsFolder = None,
    device: Device = None,
    deinterlace: Deinterlace = None,
    max_vram: MaxVram = None,
    fps: Fps = None,
    input_curve: InputCurve = None,
    batch_size: Annotated[int | None, typer.Option(metavar="N", help="Faces at once.")] = None,
    strength: Annotated[
        float | None, typer.Option(metavar="0..1", help="How much of the restored face is used.")
    ] = None,
    codec: Codec = None,
    quality: Quality = None,
    people: Annotated[
        str | None,
        typer.Option(metavar="IDS", help="Only these people: 1,3; or -2: all but that one."),
    ] = None,
    reference: Reference = None,
    min_face: Annotated[
        float | None,
        typer.Option(metavar="PX", help="Only people whose eyes are this many pixels apart."),
    ] = None,
    shots: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.toml", help="What `analyze --shots` wrote, edited.", readable=False
        ),
    ] = None,
    cuts: Cuts = None,
    known: Annotated[
        Path | None,
        typer.Option(
            "--analysis", metavar="FILE.npz", help="What `analyze -o` wrote.", readable=False
        ),
    ] = None,
    start: Start = None,
    end: End = None,
    before_swap: BeforeSwap = None,
    plate: Plate = None,
    scale: Scale = None,
    upscaler: UpscalerFile = None,
    layer: LayerFolder = None,
    framemd5: FrameMd5 = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUTPUT.")] = False,
    no_resume: Annotated[
        bool, typer.Option("--no-resume", help="Begin anew instead of going on.")
    ] = False,
    keep_job: KeepJob = False,
    redo_shots: RedoShots = None,
    workers: Workers = None,
    cluster: Cluster = None,
    offline: Offline = None,
    changes: Changes = None,
    stage_times: StageTimes = False,
    as_json: Json = False,
) -> None:
    """Restore the faces of INPUT; sound, subtitles, times and all other pixels stay."""
    settings = settings_from(
        profile,
        changes,
        {
            "restore.restorer": restorer,
            "detect.detector": detector,
            "weights.folder": weights,
            "weights.offline": offline,
            "restore.device": device,
            "fields.deinterlace": deinterlace,
            "restore.max_vram_gb": max_vram,
            "decode.fps": fps,
            "decode.input_curve": input_curve,
            "restore.batch_size": batch_size,
            "paste.strength": strength,
            "scale.factor": scale,
            "scale.upscaler": upscaler,
            "encode.codec": codec,
            "encode.quality": quality,
            "shots.edl": cuts,
        },
    )
    from vidrestore import console, store
    from vidrestore.cluster import open_crew
    from vidrestore.job import restore_video
    from vidrestore.paths import check_paths
    from vidrestore.redo import check_alone
    from vidrestore.selection import Choice

    # Before anything heavy is loaded, so that a slip is answered at once.
    beside, is_redo = (before_swap, plate), redo_shots is not None
    check_alone(plate, layer, keep_job=keep_job, is_redo=is_redo)
    check_paths(source, target, framemd5, overwrite=overwrite, beside=beside, is_redo=is_redo)
    span = span_of(start, end)
    if known is not None and span is not None:
        raise UsageError("an analysis is of a whole video; leave out --start and --end with it")
    listen = console.events(as_json, stage_times=stage_times)
    with listen as on_event, open_crew(workers, cluster) as crew:
        summary = restore_video(
            source,
            target,
            settings,
            analysis=None if known is None else store.load(known),
            span=span,
            choice=Choice(people, reference, shots, min_face),
            before_swap=before_swap,
            plate=plate,
            layer=layer,
            framemd5=framemd5,
            overwrite=overwrite,
            resume=not no_resume,
            keep_job=keep_job,
            redo_shots=redo_shots,
            workers=crew,
            on_event=on_event,
        )
    if as_json:
        print(json.dumps({"event": "done", "summary": summary.as_dict()}))
    else:
        console.show_summary(summary, target)


def analyze(
    source: Source,
    profile: Profile = None,
    detector: DetectorName = None,
    weights: WeightsFolder = None,
    offline: Offline = None,
    output: Annotated[
        Path | None, typer.Option("-o", metavar="FILE.npz", help="Keep the whole analysis.")
    ] = None,
    shots: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.toml|FILE.edl", help="Write the shots, to be edited.", readable=False
        ),
    ] = None,
    contact_sheet: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="A picture of everybody.", readable=False),
    ] = None,
    cuts: Cuts = None,
    restorer: RestorerName = None,
    device: Device = None,
    deinterlace: Deinterlace = None,
    max_vram: MaxVram = None,
    fps: Fps = None,
    input_curve: InputCurve = None,
    no_estimate: Annotated[
        bool, typer.Option("--no-estimate", help="Do not measure how long it would take.")
    ] = False,
    changes: Changes = None,
    stage_times: StageTimes = False,
    as_json: Json = False,
) -> None:
    """Say what and who is in INPUT, what was guessed about the file, and how long it will take."""
    settings = settings_from(
        profile,
        changes,
        {
            "restore.restorer": restorer,
            "restore.device": device,
            "fields.deinterlace": deinterlace,
            "restore.max_vram_gb": max_vram,
            "decode.fps": fps,
            "decode.input_curve": input_curve,
            "detect.detector": detector,
            "weights.folder": weights,
            "weights.offline": offline,
            "shots.edl": cuts,
        },
    )
    from vidrestore import console, store
    from vidrestore.contactsheet import write_contact_sheet
    from vidrestore.estimate import estimate
    from vidrestore.findings import as_dict
    from vidrestore.remembered import known_analysis
    from vidrestore.selection import write_shots

    with console.events(as_json, stage_times=stage_times) as on_event:
        analysis = known_analysis(source, settings, on_event=on_event)
        if output is not None:
            store.save(analysis, output)
        if shots is not None:
            write_shots(analysis, source, shots)
        if contact_sheet is not None:
            write_contact_sheet(analysis, source, contact_sheet)
        cost = None if no_estimate else estimate(source, analysis, settings, on_event)
    if as_json:
        plain = cost if cost is None or isinstance(cost, str) else cost.as_dict()
        found = as_dict(analysis) | {"estimate": plain}
        print(json.dumps({"event": "done", "analysis": found}, allow_nan=False))
    else:
        console.show_analysis(analysis, source, cost)


def evaluate(
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="The restored video.")],
    source: Annotated[Path, typer.Option(metavar="INPUT", help="What it was made from.")],
    reference: Annotated[
        Path | None, typer.Option(metavar="TRUTH", help="The clean video, where there is one.")
    ] = None,
    profile: Profile = None,
    detector: DetectorName = None,
    weights: WeightsFolder = None,
    offline: Offline = None,
    start: Start = None,
    end: End = None,
    changes: Changes = None,
    as_json: Json = False,
) -> None:
    """Measure what the faces of OUTPUT gained, and compare frames and times with the source."""
    settings = settings_from(
        profile,
        changes,
        {
            "detect.detector": detector,
            "weights.folder": weights,
            "weights.offline": offline,
        },
    )
    from vidrestore import console
    from vidrestore.evaluate import evaluate as measure

    span = span_of(start, end)
    with console.events(as_json) as on_event:
        result = measure(
            output, source, settings, reference=reference, span=span, on_event=on_event
        )
    if as_json:
        print(json.dumps({"event": "done", "evaluation": result.as_dict()}, allow_nan=False))
    else:
        console.show_evaluation(result)


def demo(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the files go.")] = Path(
        "demo"
    ),
) -> None:
    """Make a small worn video, restore it, and show what was gained; nothing is downloaded."""
    from vidrestore import console
    from vidrestore.demo import run_demo

    with console.events(False) as on_event:
        result = run_demo(folder, on_event)
    console.show_demo(result)


def doctor(weights: WeightsFolder = None) -> None:
    """Say what this machine has and lacks, what will be slow, and what runs right now."""
    from vidrestore import console
    from vidrestore.doctor import diagnose

    diagnosis = diagnose(weights)
    console.show_diagnosis(diagnosis)
    if not diagnosis.can_run:
        raise typer.Exit(1)
