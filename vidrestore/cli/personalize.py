"""The command `personalize`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from vidrestore.cli.options import (
    Changes,
    DetectorName,
    Device,
    Json,
    MaxVram,
    Offline,
    Overwrite,
    PrintConfig,
    Profile,
    WeightsFolder,
    print_settings,
    settings_from,
)
from vidrestore.common.events import Done


def personalize(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT...",
            help="Learn from these videos and pictures of the person.",
            show_default=False,
            readable=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            metavar="FILE.safetensors",
            help="Write the adapted network to FILE.safetensors.",
            readable=False,
        ),
    ],
    person: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            rich_help_panel="Whom to restore",
            help="Learn the person with this number in the first INPUT, as `analyze` lists it.",
        ),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            metavar="PHOTO",
            readable=False,
            rich_help_panel="Whom to restore",
            help="Learn the person whose face is in this photo.",
        ),
    ] = None,
    photos: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            readable=False,
            rich_help_panel="Input and output",
            help="Learn from the photographs in this folder, too. Those without the person are "
            "left out.",
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            rich_help_panel="How to restore",
            help="Adapt this network: gpen-2048, gpen-1024, gpen-512, gpen-256, or a weight file "
            "of a GPEN. Default: gpen-512.",
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            rich_help_panel="Long jobs",
            help="Train for this number of steps at most. Default: 2000.",
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            metavar="N",
            rich_help_panel="Long jobs",
            help="Stop training after this time, in minutes. Default: no limit.",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            rich_help_panel="How to restore",
            help="Draw everything random from this seed. Default: 0.",
        ),
    ] = None,
    no_embedding: Annotated[
        bool,
        typer.Option(
            "--no-embedding",
            rich_help_panel="File",
            help="Leave the numbers by which a recognizer knows the person out of the file.",
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            rich_help_panel="Long jobs",
            help="Print the memory and the time that training takes, and stop.",
        ),
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.html",
            readable=False,
            rich_help_panel="File",
            help="Write an HTML report: the losses, the scores, and the crops that were used.",
        ),
    ] = None,
    overwrite: Overwrite = False,
    profile: Profile = None,
    detector: DetectorName = None,
    weights: WeightsFolder = None,
    offline: Offline = None,
    device: Device = None,
    max_vram: MaxVram = None,
    changes: Changes = None,
    print_config: PrintConfig = False,
    as_json: Json = False,
) -> None:
    """Adapt a GPEN to one person in INPUT, and write it if it is better for that person.

    It runs on this computer and sends nothing anywhere. Run the same command again to go on with a
    training that was stopped.
    """
    settings = settings_from(
        profile,
        changes,
        base=base,
        steps=steps,
        minutes=minutes,
        seed=seed,
        device=device,
        max_vram=max_vram,
        detector=detector,
        weights=weights,
        offline=offline,
    )
    if print_config:
        print_settings(settings)
        return
    from vidrestore.personal.request import PersonalizeRequest

    request = PersonalizeRequest(
        tuple(sources), output, settings, person=person, reference=reference, photos=photos,
        keeps_embedding=not no_embedding, report=report, overwrite=overwrite,
    )  # fmt: skip
    request.validate()
    # These load torch, which takes seconds.
    from vidrestore import api
    from vidrestore.cli import console
    from vidrestore.cli.progress import events

    if dry_run:
        from vidrestore.personal.forecast import forecast

        with events(as_json) as on_event:
            planned = forecast(settings, on_event)
        if as_json:
            print(json.dumps(Done("forecast", planned.as_dict()).as_dict()))
        else:
            console.show_forecast(planned)
        return
    with events(as_json) as on_event:
        record = api.train(request, on_event)
    from vidrestore.personal.personal_file import read_description

    description = read_description(output)
    assert description is not None
    if as_json:
        fields = {"target": str(output), **description.as_dict(), "seconds": record.seconds}
        print(json.dumps(Done("training", fields).as_dict()))
    else:
        console.show_training(description, record, output)
