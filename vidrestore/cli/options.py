"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from vidrestore.common.timecode import seconds_of

if TYPE_CHECKING:
    from vidrestore.common.settings import Settings
    from vidrestore.media.decode import TimeRange

# Option -> the setting that it is a name of.
_SETTINGS = {
    "fps": "decode.fps",
    "input_curve": "decode.input_curve",
    "detector": "detect.detector",
    "codec": "encode.codec",
    "quality": "encode.quality",
    "deinterlace": "fields.deinterlace",
    "strength": "paste.strength",
    "batch_size": "restore.batch_size",
    "device": "restore.device",
    "max_vram": "restore.max_vram_gb",
    "restorer": "restore.restorer",
    "scale": "scale.factor",
    "upscaler": "scale.upscaler",
    "cuts": "shots.edl",
    "weights": "weights.folder",
    "offline": "weights.offline",
}


def _values(section: str, name: str) -> Callable[[str], list[str]]:
    """What a shell offers for an option whose setting has a few values."""

    def beginning_with(incomplete: str) -> list[str]:
        from vidrestore.common.settings import Settings

        values = type(getattr(Settings(), section)).model_fields[name].annotation
        return [str(v) for v in get_args(values) if str(v).startswith(incomplete)]

    return beginning_with


def _profiles(incomplete: str) -> list[str]:
    from vidrestore.common.profiles import profile_folder

    names = sorted(path.stem for path in profile_folder().glob("*.toml"))
    return [name for name in names if name.startswith(incomplete)]


def _restorers(incomplete: str) -> list[str]:
    from vidrestore.common.settings import RESTORERS

    return [name for name in RESTORERS if name.startswith(incomplete)]


# readable=False: Typer leaves it to the command to say what is wrong with a file.
Source = Annotated[
    Path,
    typer.Argument(
        metavar="INPUT",
        help="The video, a picture, or name_%06d.tif for many.",
        show_default=False,
        readable=False,
    ),
]
Profile = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FILE",
        autocompletion=_profiles,
        rich_help_panel="How to restore",
        help="Start from the settings of a profile: home-video, face-swap, film, or a TOML file.",
    ),
]
RestorerName = Annotated[
    str | None,
    typer.Option(
        "--restorer",
        metavar="NAME|FILE",
        autocompletion=_restorers,
        rich_help_panel="How to restore",
        help="Choose the network: gpen-2048, gpen-1024, gpen-512, gpen-256, gpen-auto (the "
        "smallest that suffices for each face), a weight file, or fusion, which needs no "
        "weights. Default: gpen-2048.",
    ),
]
DetectorName = Annotated[
    str | None,
    typer.Option(
        "--detector",
        metavar="NAME",
        autocompletion=_values("detect", "detector"),
        rich_help_panel="How to restore",
        help="Choose the face detector: insightface, yunet or haar. Default: insightface.",
    ),
]
Reference = Annotated[
    Path | None,
    typer.Option(
        metavar="PHOTO",
        readable=False,
        rich_help_panel="Whom to restore",
        help="Restore only the person whose face is in this photo.",
    ),
]
Start = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        rich_help_panel="Input and output",
        help="Begin at this time: 75.5, 1:15.5 or 0:01:15.5. Default: the start.",
    ),
]
End = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        rich_help_panel="Input and output",
        help="Stop at this time. Default: the end.",
    ),
]
WeightsFolder = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        metavar="DIR",
        rich_help_panel="How to restore",
        help="Look for weight files in this folder first.",
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        metavar="auto|cpu|cuda[:N]",
        rich_help_panel="How to restore",
        help="Run networks here. Default: auto, the GPU where there is one.",
    ),
]
Deinterlace = Annotated[
    str | None,
    typer.Option(
        metavar="MODE",
        autocompletion=_values("fields", "deinterlace"),
        rich_help_panel="Picture",
        help="Treat interlaced footage by MODE: keep (restore both fields and weave them again), "
        "bob (make a frame of each field), frame (make one frame of two fields), film (undo "
        "3:2 pulldown), off (take frames as they are). Default: keep.",
    ),
]
MaxVram = Annotated[
    float | None,
    typer.Option(
        "--max-vram",
        metavar="GB",
        rich_help_panel="How to restore",
        help="Let networks take at most this much of a GPU's memory, in GB. Default: all of it.",
    ),
]
InputCurve = Annotated[
    str | None,
    typer.Option(
        "--input-curve",
        metavar="cineon|slog3|FILE.cube",
        rich_help_panel="Picture",
        help="Show networks an ordinary picture of footage in this log curve; the output keeps "
        "its own values.",
    ),
]
Fps = Annotated[
    float | None,
    typer.Option(
        "--fps",
        metavar="N",
        rich_help_panel="Input and output",
        help="Show numbered pictures at N per second. Default: 24.",
    ),
]
Strength = Annotated[
    float | None,
    typer.Option(
        metavar="0..1",
        rich_help_panel="How to restore",
        help="Use this share of the restored face. Default: 1.",
    ),
]
People = Annotated[
    str | None,
    typer.Option(
        metavar="IDS",
        rich_help_panel="Whom to restore",
        help="Restore only these people, by their numbers: 1,3. A minus sign leaves people out: "
        "-2. Default: all.",
    ),
]
MinFace = Annotated[
    float | None,
    typer.Option(
        metavar="PX",
        rich_help_panel="Whom to restore",
        help="Restore only people whose eyes are at least PX pixels apart. Default: all.",
    ),
]
ShotsToObey = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.toml",
        readable=False,
        rich_help_panel="Whom to restore",
        help="Follow the instructions for each shot in this file; `analyze --shots` writes one.",
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        metavar="",
        rich_help_panel="Input and output",
        help="Replace files that exist.",
    ),
]
PrintConfig = Annotated[
    bool,
    typer.Option(
        "--print-config",
        metavar="",
        rich_help_panel="How to restore",
        help="Print all settings as a profile, and stop.",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        metavar="N",
        min=1,
        rich_help_panel="Long jobs",
        help="Render segments in N processes side by side. Needs the extra cluster.",
    ),
]
Cluster = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="HOST:PORT|auto",
        rich_help_panel="Long jobs",
        help="Render segments on a Ray cluster. Needs the extra cluster.",
    ),
]
Codec = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        autocompletion=_values("encode", "codec"),
        rich_help_panel="File",
        help="Encode as h264, hevc, av1, prores, dnxhr or ffv1. Default: auto, the source's own.",
    ),
]
Quality = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|N",
        rich_help_panel="File",
        help="Set the quality: archive (lossless), high, small, or the codec's number, 0 being "
        "the best. Default: high.",
    ),
]
FrameMd5 = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        readable=False,
        rich_help_panel="File",
        help="Write for each frame its hash in source and output, and what changed, into FILE.",
    ),
]
Report = Annotated[
    Path | None,
    typer.Option(
        "--report",
        metavar="FILE.html",
        readable=False,
        rich_help_panel="File",
        help="Write a page about the run: before and after, who, when, and what was left out.",
    ),
]
KeepJob = Annotated[
    bool,
    typer.Option(
        "--keep-job",
        metavar="",
        rich_help_panel="Long jobs",
        help="Keep a small folder beside OUTPUT, which --redo-shots needs.",
    ),
]
RedoShots = Annotated[
    str | None,
    typer.Option(
        "--redo-shots",
        metavar="N,N",
        rich_help_panel="Long jobs",
        help="Render only these shots of OUTPUT anew, counted from 1, and take the rest from it. "
        "Needs --keep-job in the run before.",
    ),
]
Offline = Annotated[
    bool | None,
    typer.Option(
        "--offline",
        metavar="",
        rich_help_panel="How to restore",
        help="Never download a missing weight file.",
    ),
]
BeforeSwap = Annotated[
    Path | None,
    typer.Option(
        "--before-swap",
        metavar="FILE",
        readable=False,
        rich_help_panel="Input and output",
        help="Restore only what differs from FILE, which is INPUT before faces were swapped in it.",
    ),
]
Plate = Annotated[
    Path | None,
    typer.Option(
        "--plate",
        metavar="FILE",
        readable=False,
        rich_help_panel="Input and output",
        help="Paste the faces onto FILE, a larger or graded version of INPUT.",
    ),
]
Scale = Annotated[
    int | None,
    typer.Option(
        "--scale",
        metavar="1|2|4",
        autocompletion=_values("scale", "factor"),
        rich_help_panel="Picture",
        help="Enlarge the picture by this factor; faces keep their detail. Default: 1.",
    ),
]
UpscalerFile = Annotated[
    Path | None,
    typer.Option(
        "--upscaler",
        metavar="FILE.onnx",
        readable=False,
        rich_help_panel="Picture",
        help="Enlarge all but the faces through this network, such as Real-ESRGAN. Needs --scale.",
    ),
]
LayerFolder = Annotated[
    Path | None,
    typer.Option(
        "--layer",
        metavar="DIR",
        readable=False,
        rich_help_panel="Input and output",
        help="Write the restored faces alone, unpremultiplied, with their matte, into DIR: in "
        "ProRes, which is lossy, or exactly with --set layer.format=tiff.",
    ),
]
Cuts = Annotated[
    Path | None,
    typer.Option(
        "--cuts",
        metavar="FILE.edl",
        rich_help_panel="Whom to restore",
        help="Take the cuts from this edit decision list (CMX 3600) instead of the picture.",
    ),
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="SECTION.KEY=VALUE",
        rich_help_panel="How to restore",
        help="Change any setting; repeatable. --print-config prints all of them.",
    ),
]
StageTimes = Annotated[
    bool,
    typer.Option(
        "--stage-times",
        metavar="",
        rich_help_panel="Diagnostics",
        help="Print what each stage cost, and which one limits the speed.",
    ),
]
Json = Annotated[
    bool,
    typer.Option(
        "--json",
        metavar="",
        rich_help_panel="Diagnostics",
        help="Print one JSON event per line on standard output.",
    ),
]


def span_of(start: str | None, end: str | None) -> TimeRange | None:
    """The part between two times, None where neither is given; UsageError for what is no time."""
    from vidrestore.media.decode import TimeRange

    if start is None and end is None:
        return None
    return TimeRange(*(None if text is None else seconds_of(text) for text in (start, end)))


def settings_from(profile: str | None, changes: list[str] | None, **options: Any) -> Settings:
    """Of a command's options by the names in `_SETTINGS`; None: not given."""
    from vidrestore.common.profiles import load_settings

    given = {_SETTINGS[name]: value for name, value in options.items()}
    changed = [change.partition("=")[0].strip() for change in changes or ()]
    names = {
        _SETTINGS[name]: f"--{name.replace('_', '-')}"
        for name, value in options.items()
        if value is not None and _SETTINGS[name] not in changed
    }
    return load_settings(profile, changes or (), options=given, names=names)


def print_settings(settings: Settings) -> None:
    from vidrestore.common.profiles import as_toml

    print(as_toml(settings), end="")
