"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

# readable=False: Typer leaves it to the command to say what is wrong with a file.
Source = Annotated[
    Path,
    typer.Argument(metavar="INPUT", help="The video.", show_default=False, readable=False),
]
Profile = Annotated[
    str | None,
    typer.Option(metavar="NAME|FILE", help="home-video, face-swap, film, or a TOML file."),
]
RestorerName = Annotated[
    str | None,
    typer.Option(
        "--restorer",
        metavar="NAME|FILE",
        help="gpen-2048, gpen-1024, gpen-512, gpen-256, gpen-auto (the smallest that suffices), "
        "a weight file, or fusion: no weights.",
    ),
]
DetectorName = Annotated[
    str | None, typer.Option("--detector", metavar="NAME", help="insightface, yunet or haar.")
]
Start = Annotated[
    str | None, typer.Option(metavar="TIME", help="Only from here on: 75.5 or 1:15.5.")
]
End = Annotated[str | None, typer.Option(metavar="TIME", help="Only up to here.")]
WeightsFolder = Annotated[
    Path | None, typer.Option("--weights", metavar="DIR", help="Where weight files are.")
]
Device = Annotated[
    str | None, typer.Option(metavar="auto|cpu|cuda[:N]", help="Where networks run.")
]
Codec = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="auto (the source's own), h264, hevc, av1, prores, dnxhr or ffv1."
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
Cuts = Annotated[
    Path | None,
    typer.Option("--cuts", metavar="FILE.edl", help="Take the cuts of an edit decision list."),
]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change any setting; repeatable."),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON event per line on standard output.")]
