"""`vidrestore weights`: the files of networks and detectors. Heavy modules load where needed."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vidrestore.cli.options import Changes, Device, Offline, Overwrite, WeightsFolder
from vidrestore.common.errors import WeightsError

if TYPE_CHECKING:
    from vidrestore.models.weights import Weight

_log = logging.getLogger("vidrestore")

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="As `weights list` shows it.", show_default=False)
]


def weights_app() -> typer.Typer:
    """The commands below `vidrestore weights`."""
    app = typer.Typer(no_args_is_help=True, help="List, download, verify and convert weight files.")
    app.command("list")(list_all)
    app.command("fetch")(fetch)
    app.command("verify")(verify)
    app.command("convert")(convert)
    app.command("try")(try_out)
    return app


def list_all(weights: WeightsFolder = None, changes: Changes = None) -> None:
    """Show which weight files are here, where, and under which licence."""
    from vidrestore.cli import console
    from vidrestore.models.weights import list_weights

    folders = _folders(weights, changes)
    console.show_weights(list_weights(folders), folders)


def fetch(name: Name, weights: WeightsFolder = None, changes: Changes = None) -> None:
    """Download NAME unless it is here; after a break, run it again to go on."""
    from vidrestore.cli import console
    from vidrestore.models.weights import load_table

    folders = _folders(weights, changes)
    path = _whole(name, folders)
    found = path is not None
    if path is None:
        path = _fetched(name, folders)
    known = load_table().get(name)
    console.show_fetched(name, path, known.licence if known else "", found=found)


def _folders(weights: Path | None, changes: list[str] | None) -> tuple[Path, ...]:
    """Where to look, the settings' own folders included."""
    from vidrestore.common.profiles import load_settings
    from vidrestore.models.weights import search_folders

    how = load_settings(changes=changes or (), options={"weights.folder": weights}).weights
    return search_folders(how.folder, how.also)


def _whole(name: str, folders: tuple[Path, ...]) -> Path | None:
    """The weight where it is here already, checked; None where it is to be fetched."""
    from vidrestore.models.weights import require

    try:
        path = require(name, folders, target=folders[0], offline=True)
    except WeightsError as error:
        _log.info("%s is to be fetched: %s", name, error)
        return None
    # Whoever has GPEN as ONNX and asks for the file wants the checkpoint.
    return None if name.startswith("gpen-") and path.suffix == ".onnx" else path


def _fetched(name: str, folders: tuple[Path, ...]) -> Path:
    from vidrestore.cli.progress import events
    from vidrestore.models import weights
    from vidrestore.models.download import as_events

    with events(False) as on_event:
        weights.fetch(name, folders[0], on_progress=as_events(name, on_event))
    # What was there before may stand in the way; then this says so.
    return weights.require(name, folders, target=folders[0], offline=True)


def verify(weights: WeightsFolder = None, changes: Changes = None) -> None:
    """Read every weight file in full and compare it with all that is known of it."""
    from vidrestore.cli import console
    from vidrestore.models.weights import load_table
    from vidrestore.models.weights import verify as check

    folders = _folders(weights, changes)
    rows = [(name, check(name, folders, structure=check_network)) for name in load_table()]
    console.show_verified(rows, folders)
    if any(one.state in ("changed", "damaged") for _, checked in rows for one in checked):
        raise typer.Exit(1)


def check_network(path: Path, weight: Weight) -> None:
    """Raise WeightsError unless a GPEN checkpoint holds finite weights of the network it names."""
    if weight.kind != "gpen" or path.suffix.lower() == ".onnx":
        return
    from vidrestore.models.gpen.checkpoint import load_gpen

    state = load_gpen(path, int(weight.name.removeprefix("gpen-"))).state_dict()
    parameters = sum(v.numel() for k, v in state.items() if not k.endswith(".kernel"))
    if weight.parameters not in (None, parameters):
        raise WeightsError(
            f"{path} is a GPEN of {parameters} parameters instead of {weight.parameters}"
        )


def convert(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="GPEN as .onnx, .pth or .pt.", show_default=False, readable=False
        ),
    ],
    target: Annotated[
        Path | None,
        typer.Option(
            "-o",
            metavar="OUT",
            help="Write to OUT, .safetensors or .pth. Default: .safetensors beside FILE.",
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write the weights in FILE as a state dict of the exact network."""
    from vidrestore.cli import console
    from vidrestore.models.convert import convert_weights

    console.show_converted(convert_weights(file, target, overwrite=overwrite))


def try_out(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="gpen-2048, gpen-512, ..., or a weight file.", show_default=False
        ),
    ],
    sheet: Annotated[
        Path | None,
        typer.Option("-o", metavar="PNG", help="Write the picture to PNG. Default: try-NAME.png."),
    ] = None,
    weights: WeightsFolder = None,
    device: Device = None,
    offline: Offline = None,
    changes: Changes = None,
    overwrite: Overwrite = False,
) -> None:
    """Restore a built-in portrait worn three ways, score it, and name the better template."""
    from vidrestore.cli import console
    from vidrestore.cli.progress import events
    from vidrestore.common.profiles import load_settings

    options = {
        "restore.restorer": name,
        "restore.device": device,
        "weights.folder": weights,
        "weights.offline": offline,
    }
    names = {"restore.device": "--device"}
    settings = load_settings(changes=changes or (), options=options, names=names)
    from vidrestore.review.trial import run_tryout

    target = sheet or Path(f"try-{Path(name).stem}.png")
    with events(False) as on_event:
        result = run_tryout(settings, target, overwrite=overwrite, on_event=on_event)
    console.show_tryout(result, target)
