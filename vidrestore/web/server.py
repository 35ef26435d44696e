"""The server of the local page.

By default only this machine can reach it, and the page loads nothing from other hosts.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import secrets
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vidrestore.common.errors import OutputError, UsageError, system_reason
from vidrestore.common.files import held, remove_tree
from vidrestore.common.handled import logged
from vidrestore.models.weights import cache_variable, user_cache
from vidrestore.web.access import LOCAL, Access, visitor_of
from vidrestore.web.queue import COMMAND

if TYPE_CHECKING:
    from fastapi import FastAPI

    from vidrestore.web.session import Session
    from vidrestore.web.uploads import Uploads

_SHUTDOWN_SECONDS = 2
_GIGABYTE = 1e9
# Types that a browser may display. It only saves other files, such as SVG, which can hold scripts.
_SHOWN = {
    ".gif": "image/gif",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".m4v": "video/mp4",
    ".mkv": "video/x-matroska",
    ".mov": "video/quicktime",
    ".mp4": "video/mp4",
    ".png": "image/png",
    ".webm": "video/webm",
    ".webp": "image/webp",
}


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """The address of the page and the limits of what it may do."""

    host: str
    """The address to serve at."""
    port: int | None
    """The port to serve at; None: a free one."""
    max_upload_gb: float
    """The largest size of one video, in GB (10^9 bytes)."""
    weights: Path | None = None
    """A folder to search for weight files before all others; None: the usual folders."""
    offline: bool = False
    """Whether the page never downloads weights."""
    command: Sequence[str] = COMMAND
    """The program that does the work."""

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the page."""
        return self.host in LOCAL


def serve(serving: ServerOptions, on_ready: Callable[[str, Path], None]) -> None:
    """Serve the page until interrupted; then stop the running command and remove all files.

    Args:
        serving: The address of the page and the limits of what it may do.
        on_ready: Called when the page can be opened, with its address and a folder. The address
            contains the secret token, so it must not be written to a log, a file or an argument
            that other users can read. Other users cannot read the folder, which is removed when
            the page ends.

    Raises:
        UsageError: gradio is not installed, or the address cannot be used.
        OutputError: The folder for videos cannot be written to.
    """
    if importlib.util.find_spec("gradio") is None:
        raise UsageError(
            "the page needs gradio, which is not installed; run pip install 'vidrestore[ui]'"
        )
    with work_folder() as folder, _listener(serving) as listener:
        _confine_gradio(folder)
        import uvicorn

        host = f"[{serving.host}]" if ":" in serving.host else serving.host
        port = listener.getsockname()[1]
        app = _app(serving, folder, port)
        on_ready(f"http://{host}:{port}/?token={app.token}", folder)
        config = uvicorn.Config(
            app,
            log_level="critical",  # else it prints a traceback for each page that is still open
            access_log=False,  # an address contains the token
            server_header=False,
            timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        )
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])


def _app(serving: ServerOptions, folder: Path, port: int) -> Access:
    """Return the application: the routes and the page, behind the access control."""
    import gradio
    from fastapi import FastAPI

    from vidrestore.web import content
    from vidrestore.web.page import Page
    from vidrestore.web.session import Session

    session = Session(
        folder, weights=serving.weights, offline=serving.offline, command=serving.command
    )

    @asynccontextmanager
    async def at_work(app: FastAPI) -> AsyncIterator[None]:
        work = asyncio.create_task(session.work())
        try:
            yield
        finally:
            work.cancel()
            with suppress(asyncio.CancelledError):
                await work

    app = FastAPI(lifespan=at_work, docs_url=None, redoc_url=None, openapi_url=None)
    longest_bytes = round(serving.max_upload_gb * _GIGABYTE)
    # These routes take precedence over those of gradio with the same address.
    _add_files(app, session)
    _add_upload(app, session.uploads, longest_bytes)

    theme = gradio.themes.Base(
        font=("system-ui", "sans-serif"), font_mono=("ui-monospace", "monospace")
    ).set(block_info_text_color="*neutral_500", block_info_text_color_dark="*neutral_400")
    blocks = Page(session).blocks
    gradio.mount_gradio_app(
        app,
        blocks,
        path="/",
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        max_file_size=longest_bytes,
        theme=theme,
        css=content.CSS,
    )
    # gradio checks that a path was uploaded only if this is set; launch() sets it, and mounting
    # does not.
    blocks.has_launched = True
    return Access(app, session, port=port, is_local=serving.is_local)


def _add_files(app: FastAPI, session: Session) -> None:
    """Add the routes of files. Each sends only files of the visitor, by the server's own path."""
    from fastapi import HTTPException, Request
    from fastapi.responses import FileResponse

    def sent(path: Path | None, *, to_keep: bool = False) -> FileResponse:
        if path is None or path.is_symlink() or not path.is_file():
            raise HTTPException(404, "this is no longer here")
        kind = _SHOWN.get(path.suffix.lower())
        return FileResponse(
            path,
            filename=path.name,
            media_type=kind or "application/octet-stream",
            content_disposition_type="attachment" if to_keep or kind is None else "inline",
            headers={"cache-control": "private, no-cache"},
        )

    async def portrait(request: Request, analysis_id: int, person: int) -> FileResponse:
        return sent(session.portrait(visitor_of(request.scope), analysis_id, person))

    async def result(request: Request, job_id: int) -> FileResponse:
        return sent(session.result(visitor_of(request.scope), job_id), to_keep=True)

    async def page_file(request: Request, named: str) -> FileResponse:
        return sent(session.file_for_page(visitor_of(request.scope), named))

    routes: dict[str, Callable[..., Awaitable[FileResponse]]] = {
        "/person/{analysis_id}/{person}.png": portrait,
        "/result/{job_id}": result,
        "/gradio_api/file={named:path}": page_file,
    }
    for address, answer in routes.items():
        # FastAPI cannot resolve the annotations of a nested function by their names.
        answer.__annotations__.update(request=Request, **{"return": FileResponse})
        app.add_api_route(address, answer, methods=["GET", "HEAD"], response_model=None)


def _add_upload(app: FastAPI, uploads: Uploads, longest_bytes: int) -> None:
    """Add the route of uploads; gradio's own stores files with the same bytes only once."""
    from fastapi import HTTPException, Request
    from fastapi.responses import JSONResponse, PlainTextResponse, Response
    from gradio.route_utils import upload_fn
    from gradio.routes import file_upload_statuses
    from starlette.formparsers import MultiPartException

    async def upload(request: Request, upload_id: str | None = None) -> Response:
        folder = uploads.make_folder()
        kept = None
        try:
            files, _, _ = await upload_fn(
                request,
                str(folder),
                longest_bytes,
                upload_id,
                upload_progress=file_upload_statuses if upload_id else None,
            )
            if len(files) == 1:
                kept = uploads.keep(folder, Path(files[0]), visitor_of(request.scope))
        except MultiPartException as error:
            status = 413 if "maximum allowed size" in error.message else 400
            return PlainTextResponse(error.message, status_code=status)
        finally:
            if kept is None:  # also if the browser closed the connection
                uploads.drop_folder(folder)
        if kept is None:
            raise HTTPException(400, "upload one video at a time, with a file name")
        return JSONResponse([str(kept.path)])

    upload.__annotations__.update(request=Request, **{"return": Response})
    app.add_api_route("/gradio_api/upload", upload, methods=["POST"], response_model=None)


def _confine_gradio(folder: Path) -> None:
    """Keep gradio, which reads these variables at import, off the network and inside `folder`."""
    os.environ.update(
        GRADIO_ANALYTICS_ENABLED="False",
        GRADIO_TEMP_DIR=str(folder),
        GRADIO_SHARE="False",
        HF_HUB_OFFLINE="1",
        HF_HUB_DISABLE_TELEMETRY="1",
    )


def _listener(serving: ServerOptions) -> socket.socket:
    """Open the socket of the page; raise UsageError if the address cannot be used."""
    listener = socket.socket(socket.AF_INET6 if ":" in serving.host else socket.AF_INET)
    try:
        if sys.platform != "win32":  # where it would share the port with another program
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((serving.host, serving.port or 0))
        listener.listen()
    except OSError as error:
        listener.close()
        where = serving.host if serving.port is None else f"{serving.host}, port {serving.port}"
        raise UsageError(
            f"the page cannot be served at {where}: {system_reason(error)}; "
            "choose another --host or --port"
        ) from error
    return listener


@contextmanager
def work_folder() -> Iterator[Path]:
    """Make a private folder for the page, and remove folders of pages that no longer run.

    Yields:
        The folder, which is removed at the end.

    Raises:
        OutputError: The folder cannot be made.
    """
    above = user_cache().parent / "ui"
    folder = above / secrets.token_hex(8)
    with ExitStack() as stack:
        try:
            above.mkdir(parents=True, exist_ok=True)
            with held(above / "lock", wait=True):
                for left in above.iterdir():
                    if left.is_dir() and not left.is_symlink():
                        _remove_left(left)
                folder.mkdir(mode=0o700)
                stack.callback(remove_tree, folder)
                stack.enter_context(held(folder / "lock", wait=False))
        except OSError as error:
            raise OutputError(
                f"the folder {above}, where the page keeps its videos, cannot be written to: "
                f"{system_reason(error)}; make it writable, or set {cache_variable(sys.platform)} "
                "to another folder"
            ) from error
        yield folder


def _remove_left(folder: Path) -> None:
    """Remove the folder of an earlier page, unless that page still runs."""
    lock = folder / "lock"
    if lock.is_symlink():  # no page makes one, and holding it would make a file elsewhere
        lock.unlink()
    with logged(BlockingIOError):
        with held(lock, wait=False):
            pass
        remove_tree(folder)
