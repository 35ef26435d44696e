"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from vidrestore.common.timecode import seconds_of

if TYPE_CHECKING:
    from vidrestore.common.settings import Settings
    from vidrestore.media.decode import Span

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
        help="home-video, face-swap, film, or a TOML file.",
        autocompletion=_profiles,
    ),
]
RestorerName = Annotated[
    str | None,
    typer.Option(
        "--restorer",
        metavar="NAME|FILE",
        help="gpen-2048, gpen-1024, gpen-512, gpen-256, gpen-auto (the smallest that suffices), "
        "a weight file, or fusion: no weights.",
        autocompletion=_restorers,
    ),
]
DetectorName = Annotated[
    str | None,
    typer.Option(
        "--detector",
        metavar="NAME",
        help="insightface, yunet or haar.",
        autocompletion=_values("detect", "detector"),
    ),
]
Reference = Annotated[
    Path | None,
    typer.Option(metavar="PHOTO", help="Only the person whose face this shows.", readable=False),
]
Start = Annotated[
    str | None, typer.Option(metavar="TIME", help="Only from here on: 75.5, 1:15.5 or 0:01:15.5.")
]
End = Annotated[str | None, typer.Option(metavar="TIME", help="Only up to here.")]
WeightsFolder = Annotated[
    Path | None, typer.Option("--weights", metavar="DIR", help="Where weight files are.")
]
Device = Annotated[
    str | None, typer.Option(metavar="auto|cpu|cuda[:N]", help="Where networks run.")
]
Deinterlace = Annotated[
    str | None,
    typer.Option(
        metavar="MODE",
        help="Of interlaced footage: keep (restore both fields, weave again), bob (a frame for "
        "each field), frame (one for each frame), film (undo 3:2 pulldown), off (take frames as "
        "they are).",
        autocompletion=_values("fields", "deinterlace"),
    ),
]
MaxVram = Annotated[
    float | None,
    typer.Option("--max-vram", metavar="GB", help="Most that networks take of a GPU's memory."),
]
InputCurve = Annotated[
    str | None,
    typer.Option(
        "--input-curve",
        metavar="cineon|slog3|FILE.cube",
        help="How INPUT codes light, for networks only; the output keeps its own values.",
    ),
]
Fps = Annotated[
    float | None,
    typer.Option("--fps", metavar="N", help="Of numbered pictures: how many make a second (24)."),
]
Strength = Annotated[
    float | None, typer.Option(metavar="0..1", help="How much of the restored face is used.")
]
People = Annotated[
    str | None, typer.Option(metavar="IDS", help="Only these people: 1,3; or -2: all but that one.")
]
MinFace = Annotated[
    float | None,
    typer.Option(metavar="PX", help="Only people whose eyes are this many pixels apart."),
]
ShotsToObey = Annotated[
    Path | None,
    typer.Option(metavar="FILE.toml", help="What `analyze --shots` wrote, edited.", readable=False),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what exists.")]
PrintConfig = Annotated[
    bool,
    typer.Option(
        "--print-config", help="Print all settings as they would hold, as a profile, and stop."
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers", metavar="N", min=1, help="So many processes side by side (extra: cluster)."
    ),
]
Cluster = Annotated[
    str | None,
    typer.Option("--cluster", metavar="HOST:PORT|auto", help="Work on a Ray cluster."),
]
Codec = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="auto (the source's own), h264, hevc, av1, prores, dnxhr or ffv1.",
        autocompletion=_values("encode", "codec"),
    ),
]
Quality = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|N",
        help="archive (lossless), high, small, or the codec's number, 0 the best.",
    ),
]
FrameMd5 = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Write, for each frame, the hash in source and output and what changed.",
        readable=False,
    ),
]
Report = Annotated[
    Path | None,
    typer.Option(
        "--report",
        metavar="FILE.html",
        help="Write a page about the run: before and after, who, when, and what was left out.",
        readable=False,
    ),
]
KeepJob = Annotated[
    bool,
    typer.Option("--keep-job", help="Keep beside OUTPUT what --redo-shots needs: a small folder."),
]
RedoShots = Annotated[
    str | None,
    typer.Option(
        "--redo-shots",
        metavar="N,N",
        help="Render these shots of OUTPUT anew, 1 being the first; take the rest from it.",
    ),
]
Offline = Annotated[
    bool | None, typer.Option("--offline", help="Never fetch a missing weight file.")
]
BeforeSwap = Annotated[
    Path | None,
    typer.Option(
        "--before-swap",
        metavar="FILE",
        help="INPUT before faces were swapped in it: only what differs is restored.",
        readable=False,
    ),
]
Plate = Annotated[
    Path | None,
    typer.Option(
        "--plate",
        metavar="FILE",
        help="A larger or graded version of INPUT, onto which the faces are pasted.",
        readable=False,
    ),
]
Scale = Annotated[
    int | None,
    typer.Option(
        "--scale",
        metavar="1|2|4",
        help="Enlarge the picture; faces keep their detail.",
        autocompletion=_values("scale", "factor"),
    ),
]
UpscalerFile = Annotated[
    Path | None,
    typer.Option(
        "--upscaler",
        metavar="FILE.onnx",
        help="With --scale: enlarge all but the faces by a Real-ESRGAN-like network.",
        readable=False,
    ),
]
LayerFolder = Annotated[
    Path | None,
    typer.Option(
        "--layer",
        metavar="DIR",
        help="Write the restored faces by themselves, unpremultiplied, and their matte: in ProRes, "
        "which is lossy, or exactly with --set layer.format=tiff.",
        readable=False,
    ),
]
Cuts = Annotated[
    Path | None,
    typer.Option("--cuts", metavar="FILE.edl", help="Take the cuts of an edit decision list."),
]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change any setting; repeatable."),
]
StageTimes = Annotated[
    bool,
    typer.Option("--stage-times", help="Say what each stage cost, and which one limits the speed."),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON event per line on standard output.")]


def span_of(start: str | None, end: str | None) -> Span | None:
    """The part between two times, None where neither is given; UsageError for what is no time."""
    from vidrestore.media.decode import Span

    if start is None and end is None:
        return None
    return Span(*(None if text is None else seconds_of(text) for text in (start, end)))


def settings_from(profile: str | None, changes: list[str] | None, **options: Any) -> Settings:
    """Of a command's options by the names in `_SETTINGS`; None: not given."""
    from vidrestore.common.profiles import load_settings

    given = {_SETTINGS[name]: value for name, value in options.items()}
    return load_settings(profile, changes or (), options=given)


def print_settings(settings: Settings) -> None:
    from vidrestore.common.profiles import as_toml

    print(as_toml(settings), end="")
