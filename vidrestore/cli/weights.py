"""The commands `vidrestore weights`, for the files of networks and detectors."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vidrestore.cli.options import (
    Changes,
    Command,
    CommandGroup,
    Device,
    Json,
    Offline,
    Overwrite,
    WeightsFolder,
)
from vidrestore.common.errors import WeightsError
from vidrestore.common.events import Done
from vidrestore.common.files import fitting_name

if TYPE_CHECKING:
    from vidrestore.models.weights import Weight

_log = logging.getLogger("vidrestore")

Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="Download the file with this name, which `weights list` shows.",
        show_default=False,
    ),
]


def weights_app() -> typer.Typer:
    """Return the parser of the commands below `vidrestore weights`."""
    app = typer.Typer(
        cls=CommandGroup,
        no_args_is_help=True,
        help="List, download, verify and convert weight files.",
    )
    app.command("list", cls=Command)(list_all)
    app.command("fetch", cls=Command)(fetch)
    app.command("verify", cls=Command)(verify)
    app.command("convert", cls=Command)(convert)
    app.command("try", cls=Command)(try_out)
    return app


def list_all(weights: WeightsFolder = None, changes: Changes = None) -> None:
    """List the weight files, where each one is, and its license."""
    from vidrestore.cli import console
    from vidrestore.models.weights import list_weights

    folders = _folders(weights, changes)
    console.show_weights(list_weights(folders), folders)


def fetch(
    name: Name,
    weights: WeightsFolder = None,
    changes: Changes = None,
    as_json: Json = False,
) -> None:
    """Download NAME if it is missing. Run it again to continue an interrupted download."""
    from vidrestore.cli import console
    from vidrestore.models.weights import load_table

    folders = _folders(weights, changes)
    path = _present_file(name, folders)
    is_present = path is not None
    if path is None:
        path = _download(name, folders, as_json=as_json)
    weight = load_table().get(name)
    if as_json:
        license_text = weight.licence if weight else ""
        fields = {"name": name, "path": str(path), "license": license_text}
        print(json.dumps(Done("weight", fields).as_dict()))
        return
    console.show_fetched(name, path, weight.licence if weight else "", is_present=is_present)


def _folders(weights: Path | None, changes: list[str] | None) -> tuple[Path, ...]:
    """Return the folders to search for weight files, with those of the settings."""
    from vidrestore.common.profiles import load_settings
    from vidrestore.models.weights import search_folders

    section = load_settings(changes=changes or (), options={"weights.folder": weights}).weights
    return search_folders(section.folder, section.also)


def _present_file(name: str, folders: tuple[Path, ...]) -> Path | None:
    """Return the checked file of a weight, or None if it must be downloaded."""
    from vidrestore.models.weights import require

    try:
        path = require(name, folders, target=folders[0], offline=True)
    except WeightsError as error:
        _log.info("%s is to be fetched: %s", name, error)
        return None
    # A user who has GPEN as ONNX and fetches it wants the checkpoint.
    return None if name.startswith("gpen-") and path.suffix.lower() == ".onnx" else path


def _download(name: str, folders: tuple[Path, ...], *, as_json: bool) -> Path:
    """Download a weight and return the checked file."""
    from vidrestore.cli.progress import events
    from vidrestore.models import weights
    from vidrestore.models.download import as_events

    with events(as_json) as on_event:
        weights.fetch(name, folders[0], on_progress=as_events(name, on_event))
    # A damaged file in an earlier folder still comes first; then this raises.
    return weights.require(name, folders, target=folders[0], offline=True)


def verify(weights: WeightsFolder = None, changes: Changes = None) -> None:
    """Read every weight file in full and check its size, hash and structure."""
    from vidrestore.cli import console
    from vidrestore.models.weights import load_table
    from vidrestore.models.weights import verify as check

    folders = _folders(weights, changes)
    rows = [(name, check(name, folders, structure=check_network)) for name in load_table()]
    console.show_verified(rows, folders)
    if any(one.state in ("changed", "damaged") for _, checked in rows for one in checked):
        raise typer.Exit(1)


def check_network(path: Path, weight: Weight) -> None:
    """Check that a checkpoint holds the network that it names, of a GPEN also its values.

    Args:
        path: The file to check. ONNX files, and weights of other kinds, are not checked.
        weight: Its entry in the manifest.

    Raises:
        WeightsError: The file is damaged, or holds another network or number of parameters.
    """
    if weight.kind not in ("gpen", "gpen-task") or path.suffix.lower() == ".onnx":
        from vidrestore.models.weights import check_structure

        check_structure(path, weight)
        return
    from vidrestore.models.gpen.checkpoint import load_gpen

    size_px = int(weight.name.removeprefix("gpen-")) if weight.kind == "gpen" else None
    state = load_gpen(path, size_px).state_dict()
    parameters = sum(v.numel() for k, v in state.items() if not k.endswith(".kernel"))
    if weight.parameters not in (None, parameters):
        raise WeightsError(
            f"{path} is a GPEN of {parameters} parameters instead of {weight.parameters}"
        )


def convert(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="Read GPEN's weights from this .onnx, .pth or .pt file.",
            show_default=False,
            readable=False,
        ),
    ],
    target: Annotated[
        Path | None,
        typer.Option(
            "-o",
            metavar="OUT",
            help="Write to OUT, .safetensors, .pth or .pt. Default: FILE with the suffix "
            ".safetensors.",
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write the GPEN weights in FILE as a state dict of vidrestore's own network."""
    from vidrestore.cli import console
    from vidrestore.models.convert import convert_weights

    console.show_converted(convert_weights(file, target, overwrite=overwrite))


def try_out(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="Try this restorer: gpen-2048, gpen-1024, gpen-512, gpen-256, or a weight file.",
            show_default=False,
        ),
    ],
    sheet: Annotated[
        Path | None,
        typer.Option(
            "-o", metavar="PNG", help="Write the contact sheet to PNG. Default: try-NAME.png."
        ),
    ] = None,
    weights: WeightsFolder = None,
    device: Device = None,
    offline: Offline = None,
    changes: Changes = None,
    overwrite: Overwrite = False,
) -> None:
    """Restore a built-in portrait with three kinds of damage, and score each alignment template.

    With --set restore.latent=shot it also measures what the latent codes of the shot change.
    """
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
    from vidrestore.review.trial import run_trial

    target = sheet or Path(fitting_name(Path(), f"try-{Path(name).stem}", ".png"))
    with events(False) as on_event:
        result = run_trial(settings, target, overwrite=overwrite, on_event=on_event)
    console.show_trial(result, target)
