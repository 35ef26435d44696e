"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from vidrestore.common.timecode import seconds_of

if TYPE_CHECKING:
    from vidrestore.common.settings import Settings
    from vidrestore.media.decode import TimeRange

# The setting that each option changes.
_SETTINGS = {
    "fps": "decode.fps",
    "input_curve": "decode.input_curve",
    "detector": "detect.detector",
    "codec": "encode.codec",
    "quality": "encode.quality",
    "deinterlace": "fields.deinterlace",
    "extent": "paste.extent",
    "strength": "paste.strength",
    "batch_size": "restore.batch_size",
    "device": "restore.device",
    "max_vram": "restore.max_vram_gb",
    "restorer": "restore.restorer",
    "base": "train.base",
    "minutes": "train.minutes",
    "scale": "scale.factor",
    "seed": "train.seed",
    "steps": "train.steps",
    "upscaler": "scale.upscaler",
    "cuts": "shots.edl",
    "weights": "weights.folder",
    "offline": "weights.offline",
}

# The panels of options, in the order in which the help shows them.
_PANELS = (
    "Input and output",
    "Whom to restore",
    "How to restore",
    "Picture",
    "File",
    "Long jobs",
    "Diagnostics",
)


class Command(TyperCommand):
    """A command whose help shows panels in the order of `_PANELS`, and flags without a type."""

    def get_params(self, ctx: Any) -> Any:
        """Return the parameters in the order of the help, for the parser `ctx`."""
        return _for_help(super().get_params(ctx))


class CommandGroup(TyperGroup):
    """A group of commands, whose help shows flags as that of `Command` does."""

    def get_params(self, ctx: Any) -> Any:
        """Return the parameters in the order of the help, for the parser `ctx`."""
        return _for_help(super().get_params(ctx))


def _for_help(parameters: list[Any]) -> list[Any]:
    """Return the parameters sorted by panel, with no type for flags, which take no value."""
    for parameter in parameters:
        if isinstance(parameter, TyperOption) and parameter.is_flag:
            parameter.metavar = ""
    return sorted(parameters, key=_panel_index)


def _panel_index(parameter: Any) -> int:
    """Return the place of a parameter's panel in the help; arguments and own options come first."""
    panel = parameter.rich_help_panel if isinstance(parameter, TyperOption) else None
    return _PANELS.index(panel) + 1 if panel else 0


def _values(section: str, name: str) -> Callable[[str], list[str]]:
    """Return the completion function of an option whose setting has a few values."""

    def beginning_with(incomplete: str) -> list[str]:
        from vidrestore.common.settings import Settings

        values = type(getattr(Settings(), section)).model_fields[name].annotation
        return [str(v) for v in get_args(values) if str(v).startswith(incomplete)]

    return beginning_with


def _profiles(incomplete: str) -> list[str]:
    """Return the names of profiles that begin with `incomplete`, for completion in a shell."""
    from vidrestore.common.profiles import profile_folder

    names = sorted(path.stem for path in profile_folder().glob("*.toml"))
    return [name for name in names if name.startswith(incomplete)]


def _restorers(incomplete: str) -> list[str]:
    """Return the names of restorers that begin with `incomplete`, for completion in a shell."""
    from vidrestore.common.settings import RESTORERS

    return [name for name in RESTORERS if name.startswith(incomplete)]


# readable=False: the command itself checks the file, so that its error is one sentence.
Source = Annotated[
    Path,
    typer.Argument(
        metavar="INPUT",
        help="Read this video, picture or numbered sequence of pictures (name_%06d.tif).",
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
        help="Start from the settings of a profile: home-video, face-swap, film, quick, or a TOML "
        "file. Default: no profile.",
    ),
]
RestorerName = Annotated[
    str | None,
    typer.Option(
        "--restorer",
        metavar="NAME|FILE",
        autocompletion=_restorers,
        rich_help_panel="How to restore",
        help="Choose the restorer: gpen-2048, gpen-1024, gpen-512, gpen-256, gpen-auto (for each "
        "track the smallest GPEN that can show its face in full), gpen-colorize (colors for the "
        "faces of gray film), a weight file, or fusion, which needs no weights. Default: "
        "gpen-2048.",
    ),
]
DetectorName = Annotated[
    str | None,
    typer.Option(
        "--detector",
        metavar="NAME",
        autocompletion=_values("detect", "detector"),
        rich_help_panel="How to restore",
        help="Choose the face detector: insightface, yunet, or haar, which needs no weights and "
        "is less exact. auto: the best that is installed, else yunet, downloaded. Default: auto.",
    ),
]
Reference = Annotated[
    Path | None,
    typer.Option(
        metavar="PHOTO",
        readable=False,
        rich_help_panel="Whom to restore",
        help="Restore only the person whose face is in this photo. Default: all people.",
    ),
]
Start = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        rich_help_panel="Input and output",
        help="Begin at this time, in seconds or as [H:]M:S: 75.5, 1:15.5 or 0:01:15.5. Default: "
        "the start of the video.",
    ),
]
End = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        rich_help_panel="Input and output",
        help="Stop at this time, written as for --start. Default: the end of the video.",
    ),
]
WeightsFolder = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        metavar="DIR",
        rich_help_panel="How to restore",
        help="Look for weight files in this folder before all others. Default: VIDRESTORE_WEIGHTS, "
        "./weights, then the user cache.",
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        metavar="auto|cpu|cuda[:N]|mps|xpu",
        rich_help_panel="How to restore",
        help="Run networks on this device: cuda is NVIDIA, or AMD by ROCm; mps is Apple; xpu is "
        "Intel. Default: auto, which is the first of them that gives what the CPU gives, else the "
        "CPU.",
    ),
]
Deinterlace = Annotated[
    str | None,
    typer.Option(
        metavar="MODE",
        autocompletion=_values("fields", "deinterlace"),
        rich_help_panel="Picture",
        help="Choose how to treat interlaced footage: keep (restore both fields and weave them "
        "into a frame again), bob (make a frame from each field), frame (make one frame from "
        "each pair of fields), film (undo 3:2 pulldown), off (treat all frames as progressive). "
        "Default: keep.",
    ),
]
MaxVram = Annotated[
    float | None,
    typer.Option(
        "--max-vram",
        metavar="GB",
        rich_help_panel="How to restore",
        help="Limit the GPU memory that networks use, in GB (10^9 bytes). Default: no limit.",
    ),
]
InputCurve = Annotated[
    str | None,
    typer.Option(
        "--input-curve",
        metavar="cineon|slog3|FILE.cube",
        rich_help_panel="Picture",
        help="Convert footage in this log curve to a display curve for the detector and the "
        "networks; the output stays in the log curve. Default: the curve that the file states.",
    ),
]
Fps = Annotated[
    float | None,
    typer.Option(
        "--fps",
        metavar="N",
        rich_help_panel="Input and output",
        help="Take a numbered sequence of pictures as N frames per second. Default: 24.",
    ),
]
Strength = Annotated[
    float | None,
    typer.Option(
        metavar="0..1",
        rich_help_panel="How to restore",
        help="Mix this share of the restored face with the source's: 0 leaves the source, 1 uses "
        "the restored face alone. Default: 1.",
    ),
]
ExtentName = Annotated[
    str | None,
    typer.Option(
        "--extent",
        metavar="NAME",
        autocompletion=_values("paste", "extent"),
        rich_help_panel="How to restore",
        help="Restore the face, or the head with its hair and ears: face or head. Default: face.",
    ),
]
People = Annotated[
    str | None,
    typer.Option(
        metavar="IDS",
        rich_help_panel="Whom to restore",
        help="Restore only the people with these numbers, as `analyze` lists them: 1,3. A minus "
        "sign leaves people out: -2. Default: all people.",
    ),
]
MinFace = Annotated[
    float | None,
    typer.Option(
        metavar="PX",
        rich_help_panel="Whom to restore",
        help="Restore only people whose eyes are at least PX pixels apart. Default: all people.",
    ),
]
ShotsToObey = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.toml",
        readable=False,
        rich_help_panel="Whom to restore",
        help="Follow the instructions for each shot in this file, which `analyze --shots` writes.",
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        rich_help_panel="Input and output",
        help="Replace files that exist.",
    ),
]
PrintConfig = Annotated[
    bool,
    typer.Option(
        "--print-config",
        rich_help_panel="How to restore",
        help="Print all settings as a profile in TOML, and stop.",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        metavar="N",
        min=1,
        rich_help_panel="Long jobs",
        help="Restore segments in N parallel processes on this machine. Needs Ray (the extra "
        "`cluster`). Default: this process alone.",
    ),
]
Cluster = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="HOST:PORT|auto",
        rich_help_panel="Long jobs",
        help="Restore segments on the Ray cluster at this address; auto is the one that this "
        "machine belongs to. Needs Ray (the extra `cluster`). Default: no cluster.",
    ),
]
Codec = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        autocompletion=_values("encode", "codec"),
        rich_help_panel="File",
        help="Encode the video as h264, hevc, av1, prores, dnxhr or ffv1. Default: auto, which is "
        "the source's codec if vidrestore can encode it.",
    ),
]
Quality = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|N",
        rich_help_panel="File",
        help="Set the quality: archive (lossless), high, small, or a number on the codec's own "
        "scale, where 0 is the best. Default: high.",
    ),
]
FrameMd5 = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        readable=False,
        rich_help_panel="File",
        help="Write to FILE, for each frame, the MD5 of source and output and the box that "
        "changed.",
    ),
]
Report = Annotated[
    Path | None,
    typer.Option(
        "--report",
        metavar="FILE.html",
        readable=False,
        rich_help_panel="File",
        help="Write an HTML report: pictures before and after, people, a timeline, and the faces "
        "that were left as they were.",
    ),
]
Live = Annotated[
    Path | None,
    typer.Option(
        "--live",
        metavar="FILE.jpg",
        readable=False,
        rich_help_panel="Diagnostics",
        help="Write the newest restored frame to FILE.jpg every two seconds, at most 640 pixels "
        "wide, to look at while the run works. An older FILE.jpg is replaced.",
    ),
]
KeepJob = Annotated[
    bool,
    typer.Option(
        "--keep-job",
        rich_help_panel="Long jobs",
        help="Keep the work folder OUTPUT.vidrestore, which --redo-shots needs.",
    ),
]
RedoShots = Annotated[
    str | None,
    typer.Option(
        "--redo-shots",
        metavar="SHOTS",
        rich_help_panel="Long jobs",
        help="Restore only these shots of OUTPUT again (3,7-9, counted from 1) and keep the rest "
        "of it. The earlier run needs --keep-job.",
    ),
]
Offline = Annotated[
    bool | None,
    typer.Option(
        "--offline",
        rich_help_panel="How to restore",
        help="Never download a missing weight file. Default: download it.",
    ),
]
BeforeSwap = Annotated[
    Path | None,
    typer.Option(
        "--before-swap",
        metavar="FILE",
        readable=False,
        rich_help_panel="Input and output",
        help="Restore only what differs from FILE, the video before the faces in INPUT were "
        "swapped.",
    ),
]
Plate = Annotated[
    Path | None,
    typer.Option(
        "--plate",
        metavar="FILE",
        readable=False,
        rich_help_panel="Input and output",
        help="Paste the restored faces onto FILE, a larger or graded version of INPUT.",
    ),
]
Scale = Annotated[
    int | None,
    typer.Option(
        "--scale",
        metavar="1|2|4",
        autocompletion=_values("scale", "factor"),
        rich_help_panel="Picture",
        help="Enlarge the picture by this factor; faces keep the detail that the restorer gives. "
        "Default: 1.",
    ),
]
UpscalerFile = Annotated[
    Path | None,
    typer.Option(
        "--upscaler",
        metavar="FILE",
        readable=False,
        rich_help_panel="Picture",
        help="Enlarge all but the faces with this network, such as Real-ESRGAN: an .onnx file, or "
        "with the extra spandrel a .pth file. Needs --scale. Default: a Lanczos filter.",
    ),
]
LayerFolder = Annotated[
    Path | None,
    typer.Option(
        "--layer",
        metavar="DIR",
        readable=False,
        rich_help_panel="Input and output",
        help="Write the restored faces alone, not premultiplied, and their matte into DIR, as "
        "ProRes 4444 (lossy), or as 16-bit TIFF with --set layer.format=tiff.",
    ),
]
Cuts = Annotated[
    Path | None,
    typer.Option(
        "--cuts",
        metavar="FILE",
        rich_help_panel="Whom to restore",
        help="Read the cuts from this list of an editing program: CMX 3600 (.edl), OpenTimelineIO "
        "(.otio), FCPXML (.fcpxml, .fcpxmld) or XML of Final Cut Pro 7 (.xml). Default: "
        "vidrestore finds the cuts in the pictures.",
    ),
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="SECTION.KEY=VALUE",
        rich_help_panel="How to restore",
        help="Change any setting, such as encode.preset=slow. May be given several times; "
        "`vidrestore restore --print-config` prints all settings.",
    ),
]
StageTimes = Annotated[
    bool,
    typer.Option(
        "--stage-times",
        rich_help_panel="Diagnostics",
        help="Print the seconds that each stage took, and which stage limits the speed.",
    ),
]
Json = Annotated[
    bool,
    typer.Option(
        "--json",
        rich_help_panel="Diagnostics",
        help="Print one JSON event per line on standard output.",
    ),
]


def span_of(start: str | None, end: str | None) -> TimeRange | None:
    """Return the part of a video between two times.

    Args:
        start: Time of the first frame, as `seconds_of` reads it. None: the start of the video.
        end: Time at which the part ends, in the same form. None: the end of the video.

    Returns:
        The part, in seconds; None if neither time is given.

    Raises:
        UsageError: A text is not a time.
    """
    if start is None and end is None:
        return None
    first, last = (None if text is None else seconds_of(text) for text in (start, end))
    from vidrestore.media.decode import TimeRange  # loads the libraries for video

    return TimeRange(first, last)


def settings_from(profile: str | None, changes: list[str] | None, **options: Any) -> Settings:
    """Return the settings that the options of a command give.

    Args:
        profile: Name or file of a profile. None: the defaults.
        changes: Texts SECTION.KEY=VALUE of `--set`, which are applied last.
        **options: Values of options by the names in `_SETTINGS`. None: not given.

    Returns:
        The settings.

    Raises:
        UsageError: The profile does not exist, or a value is not allowed.
    """
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
    """Print all settings as a profile in TOML on standard output.

    Args:
        settings: The settings to print.
    """
    from vidrestore.common.profiles import as_toml

    print(as_toml(settings), end="")
