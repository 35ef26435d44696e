"""`vidrestore ui`: the local page. Heavy modules load where needed."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

import typer

from vidrestore.cli_options import Offline, WeightsFolder

_SECONDS_TO_OPEN = 60.0  # a browser on a busy machine may take long to start


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

    with ExitStack() as at_end:

        def ready(address: str, folder: Path) -> None:
            console.show_page(address, is_local=serving.is_local)
            if not no_browser:
                _open(address, folder, at_end)

        serve(serving, ready)


def _open(address: str, folder: Path, at_end: ExitStack) -> None:
    """In a browser with windows; one in the terminal would take it over.

    Every user of the machine can read the arguments of a process, so the browser is given the
    name of a file that only its user can read, and that file leads on to the address.
    """
    import webbrowser

    try:
        browser = webbrowser.get()
    except webbrowser.Error:
        return
    if type(browser) is not webbrowser.GenericBrowser:
        browser.open(at_end.enter_context(_redirect(address, folder)).as_uri())


@contextmanager
def _redirect(address: str, folder: Path) -> Iterator[Path]:
    """A private file that leads to `address`; gone after a minute, or when the context ends."""
    from html import escape

    descriptor, name = tempfile.mkstemp(dir=folder, suffix=".html")  # made with 0600
    path = Path(name)
    target = escape(address)
    text = f'<meta charset="utf-8"><meta http-equiv="refresh" content="0; url={target}">'
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(f'{text}<a href="{target}">The page of vidrestore</a>')
    later = threading.Timer(_SECONDS_TO_OPEN, path.unlink, kwargs={"missing_ok": True})
    later.daemon = True
    later.start()
    try:
        yield path
    finally:
        later.cancel()
        path.unlink(missing_ok=True)
