"""`vidrestore ui`: the local page. Heavy modules load where needed."""

from __future__ import annotations

from typing import Annotated

import typer

from vidrestore.cli_options import Offline, WeightsFolder


def ui(
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where it is served; default: to this machine.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(metavar="N", min=1, max=65535, help="Default: a free one.")
    ] = None,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Do not open it in the browser.")
    ] = False,
    max_upload: Annotated[
        float,
        typer.Option(
            "--max-upload", metavar="GB", min=0.001, max=100_000, help="Largest video taken."
        ),
    ] = 50,
    weights: WeightsFolder = None,
    offline: Offline = None,
) -> None:
    """Open a page in the browser: drop a video, choose whom, restore. It stays on this machine."""
    from vidrestore import console
    from vidrestore.ui.server import Serving, serve

    folder = None if weights is None else weights.absolute()
    serving = Serving(host, port, max_upload, folder, bool(offline))

    def ready(address: str) -> None:
        console.show_page(address, is_local=serving.is_local)
        if not no_browser:
            _open(address)

    serve(serving, ready)


def _open(address: str) -> None:
    """In a browser with windows; one in the terminal would take it over."""
    import webbrowser

    try:
        browser = webbrowser.get()
    except webbrowser.Error:
        return
    if type(browser) is not webbrowser.GenericBrowser:
        browser.open(address)
