"""The commands `preview`, `analyze`, `compare`, `evaluate` and `proxy`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from vidrestore.cli.options import (
    Changes,
    Cuts,
    Deinterlace,
    DetectorName,
    Device,
    End,
    ExtentName,
    Fps,
    InputCurve,
    Json,
    MaxVram,
    MinFace,
    Offline,
    Overwrite,
    People,
    PrintConfig,
    Profile,
    Reference,
    RestorerName,
    Scale,
    ShotsToObey,
    Source,
    StageTimes,
    Start,
    Strength,
    UpscalerFile,
    WeightsFolder,
    print_settings,
    settings_from,
    span_of,
)
from vidrestore.common.errors import ChangedSourceError, InputError, UsageError
from vidrestore.common.events import Done
from vidrestore.common.handled import log_handled
from vidrestore.common.timecode import seconds_of

Picture = Annotated[
    Path,
    typer.Option(
        "-o",
        metavar="FILE",
        help="Write to FILE: a picture, .png or .jpg, or a video, .mp4.",
        readable=False,
    ),
]


def preview(
    source: Source,
    output: Picture,
    at: Annotated[
        str,
        typer.Option(
            metavar="TIME",
            help="Show this moment, in seconds or as [H:]M:S: 75.5 or 1:15.5. Default: 0.",
            show_default=False,
        ),
    ] = "0",
    close: Annotated[
        bool,
        typer.Option(
            "--close",
            help="Crop to the largest face and its surroundings.",
        ),
    ] = False,
    apart: Annotated[
        bool,
        typer.Option(
            "--apart",
            help="Write two files of one size, such as NAME.before.png and NAME.after.png, instead "
            "of one.",
        ),
    ] = False,
    overwrite: Overwrite = False,
    profile: Profile = None,
    restorer: RestorerName = None,
    detector: DetectorName = None,
    weights: WeightsFolder = None,
    offline: Offline = None,
    device: Device = None,
    deinterlace: Deinterlace = None,
    max_vram: MaxVram = None,
    fps: Fps = None,
    input_curve: InputCurve = None,
    strength: Strength = None,
    extent: ExtentName = None,
    scale: Scale = None,
    upscaler: UpscalerFile = None,
    people: People = None,
    reference: Reference = None,
    min_face: MinFace = None,
    shots: ShotsToObey = None,
    changes: Changes = None,
    as_json: Json = False,
) -> None:
    """Show one moment of INPUT before and after, as a picture or as a video of two seconds."""
    settings = settings_from(
        profile,
        changes,
        restorer=restorer,
        device=device,
        deinterlace=deinterlace,
        max_vram=max_vram,
        fps=fps,
        input_curve=input_curve,
        detector=detector,
        weights=weights,
        offline=offline,
        strength=strength,
        extent=extent,
        scale=scale,
        upscaler=upscaler,
    )
    at_seconds = seconds_of(at)
    from vidrestore.analysis.choice import Choice
    from vidrestore.common.files import check_new
    from vidrestore.review.file_names import files_of, is_movie

    is_movie(output)
    read = [path for path in (source, reference, shots) if path is not None]
    for path in files_of(output, apart=apart):
        check_new(path, overwrite=overwrite, inputs=read)
    _check_there(source)
    # These load torch, which takes seconds.
    from vidrestore.cli import console
    from vidrestore.cli.progress import events
    from vidrestore.review.preview import write_preview

    with events(as_json) as on_event:
        result = write_preview(
            source,
            at_seconds,
            output,
            settings,
            choice=Choice(people, reference, shots, min_face),
            close=close,
            apart=apart,
            on_event=on_event,
        )
    if as_json:
        print(json.dumps(Done("preview", result.as_dict()).as_dict()))
    else:
        console.show_preview(result)


def analyze(
    source: Source,
    profile: Profile = None,
    detector: DetectorName = None,
    weights: WeightsFolder = None,
    offline: Offline = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            metavar="FILE.npz",
            help="Write the analysis to FILE.npz, which `restore --analysis` reads.",
        ),
    ] = None,
    shots: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.toml|FILE.edl|FILE.otio",
            help="Write the list of shots: as TOML, to edit for `restore --shots`, or as an edit "
            "decision list or a timeline, for `restore --cuts` and editing programs.",
            readable=False,
        ),
    ] = None,
    contact_sheet: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png|DIR",
            help="Write a contact sheet of all people to FILE.png, or one picture of each person "
            "to the folder DIR.",
            readable=False,
        ),
    ] = None,
    cuts: Cuts = None,
    restorer: RestorerName = None,
    device: Device = None,
    deinterlace: Deinterlace = None,
    max_vram: MaxVram = None,
    fps: Fps = None,
    input_curve: InputCurve = None,
    no_estimate: Annotated[
        bool,
        typer.Option(
            "--no-estimate",
            help="Skip the estimate of how long `restore` will take on this machine.",
        ),
    ] = False,
    people: Annotated[
        str | None,
        typer.Option(
            metavar="IDS",
            help="Estimate the time for the people with these numbers only: 1,3. A minus sign "
            "leaves people out: -2. Default: all people.",
        ),
    ] = None,
    estimate_shots: Annotated[
        Path | None,
        typer.Option(
            "--estimate-shots",
            metavar="FILE.toml",
            help="Estimate the time with the instructions in this file, an edited file of "
            "--shots: people, parts and restorers. Default: all shots alike.",
            readable=False,
        ),
    ] = None,
    changes: Changes = None,
    print_config: PrintConfig = False,
    stage_times: StageTimes = False,
    as_json: Json = False,
) -> None:
    """List the people and shots in INPUT, what was guessed about the file, and the time needed."""
    settings = settings_from(
        profile,
        changes,
        restorer=restorer,
        device=device,
        deinterlace=deinterlace,
        max_vram=max_vram,
        fps=fps,
        input_curve=input_curve,
        detector=detector,
        weights=weights,
        offline=offline,
        cuts=cuts,
    )
    if print_config:
        print_settings(settings)
        return
    from vidrestore.analysis.choice import Choice

    choice = Choice(people=people, shots=estimate_shots)
    if no_estimate and choice != Choice():
        raise UsageError(
            "--people and --estimate-shots tell what the estimate counts, and --no-estimate skips "
            "it; remove one of them"
        )
    choice.check()
    _check_written(source, output, shots, contact_sheet, (cuts, estimate_shots))
    from vidrestore.cli import console
    from vidrestore.cli.progress import events
    from vidrestore.common.events import notify
    from vidrestore.media.probe import probe

    with events(as_json, stage_times=stage_times) as on_event:
        probed = probe(source, settings)
        notify(on_event, *probed.time_line.notes)
        from vidrestore.analysis import storage
        from vidrestore.analysis.cache import find_analysis, forget_analysis
        from vidrestore.analysis.description import as_dict
        from vidrestore.analysis.selection import write_shots

        result = find_analysis(probed, settings, on_event=on_event)
        settings = result.settings
        if contact_sheet is not None:
            from vidrestore.review.contact_sheet import write_contact_sheet  # loads torch

            try:
                write_contact_sheet(result.analysis, source, contact_sheet)
            except ChangedSourceError:
                if not result.is_kept:
                    raise
                forget_analysis(probed, settings, on_event)
                probed = probe(source, settings)
                result = find_analysis(probed, settings, may_be_kept=False, on_event=on_event)
                write_contact_sheet(result.analysis, source, contact_sheet)
        analysis = result.analysis
        if output is not None:
            storage.save(analysis, output)
        if shots is not None:
            write_shots(analysis, source, shots)
        cost = None
        if not no_estimate:
            from vidrestore.jobs.estimate import estimate  # loads torch

            cost = estimate(source, analysis, settings, on_event, choice=choice)
    if as_json:
        plain = cost if cost is None or isinstance(cost, str) else cost.as_dict()
        fields = as_dict(analysis) | {"estimate": plain}
        print(json.dumps(Done("analysis", fields).as_dict(), allow_nan=False))
    else:
        console.show_analysis(analysis, source, cost)


def _check_written(
    source: Path,
    output: Path | None,
    shots: Path | None,
    contact_sheet: Path | None,
    others: Sequence[Path | None],
) -> None:
    """Raise UsageError, before any work, if `analyze` cannot or must not write one of its files."""
    from vidrestore.common.files import check_new

    written = [p for p in (output, shots, contact_sheet) if p is not None]
    read = [source, *filter(None, others)]
    for number, path in enumerate(written):
        if path.absolute() in {other.absolute() for other in written[:number]}:
            raise UsageError(f"{path} would be written twice; give each file a name of its own")
    if shots is not None:
        from vidrestore.analysis.shot_list import check_shots_path

        check_shots_path(shots)
    for each in (output, shots):
        if each is not None:
            check_new(each, overwrite=True, inputs=read)
    if contact_sheet is not None:
        from vidrestore.review.contact_sheet import check_sheet

        check_sheet(contact_sheet, inputs=read)


def _check_there(*videos: Path) -> None:
    """Raise InputError where a video does not exist, before libraries are loaded for it.

    The readers of the files check pictures, and all other faults of a file.
    """
    from vidrestore.common.files import check_path
    from vidrestore.media.images import is_pictures
    from vidrestore.media.images.animation import check_no_animation

    for video in videos:
        try:
            video.stat()
            check_no_animation(video)
        except FileNotFoundError:
            if not is_pictures(video):
                check_path(video)
                raise InputError(f"the file {video} does not exist") from None
        except (OSError, ValueError) as error:
            log_handled(error)


def compare(
    before: Annotated[
        Path,
        typer.Argument(
            metavar="BEFORE", help="Show this video or picture first, such as the source."
        ),
    ],
    after: Annotated[
        Path,
        typer.Argument(
            metavar="AFTER", help="Show this video or picture second, such as the restored one."
        ),
    ],
    output: Picture,
    at: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Compare this moment, if FILE is a picture. In seconds or as [H:]M:S. Default: "
            "the start.",
        ),
    ] = None,
    start: Start = None,
    end: End = None,
    wipe: Annotated[
        bool,
        typer.Option(
            "--wipe",
            help="Show both in one picture, divided by a line; in a video the line moves. "
            "Default: side by side.",
        ),
    ] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write a comparison of two videos or pictures, side by side or divided by a line."""
    from vidrestore.common.files import check_new
    from vidrestore.review.file_names import is_movie

    span = span_of(start if at is None else at, end)
    if is_movie(output) and at is not None:
        raise UsageError(f"--at is for a picture; for the video {output} give --start and --end")
    if not is_movie(output) and (start is not None or end is not None):
        raise UsageError(f"--start and --end are for a video; for the picture {output} give --at")
    check_new(output, overwrite=overwrite, inputs=(before, after))
    _check_there(before, after)
    # These load torch, which takes seconds.
    from vidrestore.cli import console
    from vidrestore.cli.progress import events
    from vidrestore.review.comparison import write_comparison

    with events(as_json) as on_event:
        comparison = write_comparison(
            before, after, output, span=span, wipe=wipe, on_event=on_event
        )
    if as_json:
        print(json.dumps(Done("comparison", comparison.as_dict()).as_dict()))
    else:
        console.show_comparison(comparison, output)


def evaluate(
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="Measure this restored video.")],
    source: Annotated[
        Path,
        typer.Option(metavar="INPUT", help="Compare it with this video, which it was made from."),
    ],
    reference: Annotated[
        Path | None,
        typer.Option(
            metavar="TRUTH",
            help="Measure against this video, which shows the same without any damage. Default: "
            "measure without one.",
        ),
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
    """Measure how much better the faces in OUTPUT are, and compare its frames and times."""
    settings = settings_from(
        profile,
        changes,
        detector=detector,
        weights=weights,
        offline=offline,
    )
    span = span_of(start, end)
    _check_there(output, source, *filter(None, [reference]))
    # These load torch, which takes seconds.
    from vidrestore.cli import console
    from vidrestore.cli.progress import events
    from vidrestore.review.evaluate import evaluate as measure

    with events(as_json) as on_event:
        result = measure(
            output, source, settings, reference=reference, span=span, on_event=on_event
        )
    if as_json:
        print(json.dumps(Done("evaluation", result.as_dict()).as_dict(), allow_nan=False))
    else:
        console.show_evaluation(result)


def proxy(
    source: Source,
    output: Annotated[
        Path,
        typer.Option("-o", metavar="FILE.mp4", help="Write the copy to FILE.mp4.", readable=False),
    ],
    max_height: Annotated[
        int,
        typer.Option(
            "--max-height",
            metavar="PX",
            min=16,
            max=4320,
            show_default=False,
            help="Reduce a larger picture to this height, in pixels. Default: 1080.",
        ),
    ] = 1080,
    overwrite: Overwrite = False,
    input_curve: InputCurve = None,
    as_json: Json = False,
) -> None:
    """Write a copy of INPUT that browsers play, with the same times: H.264 and AAC, 8 bit, SDR."""
    settings = settings_from(None, None, input_curve=input_curve)
    from vidrestore.common.files import check_new
    from vidrestore.review.file_names import check_proxy_path

    check_proxy_path(source, output)
    check_new(output, overwrite=overwrite, inputs=[source])
    _check_there(source)
    # These load torch, which takes seconds.
    from vidrestore.cli import console
    from vidrestore.cli.progress import events
    from vidrestore.review.proxy import write_proxy

    with events(as_json) as on_event:
        made = write_proxy(source, output, settings, most_height_px=max_height, on_event=on_event)
    if as_json:
        print(json.dumps(Done("proxy", made.as_dict()).as_dict()))
    else:
        console.show_proxy(made, output)
