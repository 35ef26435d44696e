"""Serves the local page: to this machine alone unless told otherwise, and with nothing from any
other host in it."""

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

_SECONDS_TO_SAY_GOODBYE = 2
_GIGABYTE = 1e9
# What a browser may show by itself; all else, a picture with a program in it too, it only saves.
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
    """Where the page is served, and to whom."""

    host: str
    port: int | None
    """None: a free one."""
    max_upload_gb: float
    """Of one video, in GB (10^9 bytes)."""
    weights: Path | None = None
    offline: bool = False
    command: Sequence[str] = COMMAND
    """What does the work."""

    @property
    def is_local(self) -> bool:
        return self.host in LOCAL


def serve(serving: ServerOptions, on_ready: Callable[[str, Path], None]) -> None:
    """Serve the page until interrupted; then the command that runs is stopped and all is removed.

    Args:
        serving: Where, and what the page may do.
        on_ready: Told the address, with the secret token in it: it is for the user's eyes and for
            no log, file or argument that others can read; and a folder that no other user can
            look into, which goes when the page ends.

    Raises:
        UsageError: gradio is missing or the address cannot be had.
    """
    if importlib.util.find_spec("gradio") is None:
        raise UsageError(
            "the page needs gradio, which is not installed; pip install 'vidrestore[ui]'"
        )
    with work_folder() as folder, _listener(serving) as listener:
        _keep_to_itself(folder)
        import uvicorn

        host = f"[{serving.host}]" if ":" in serving.host else serving.host
        port = listener.getsockname()[1]
        app = _app(serving, folder, port)
        on_ready(f"http://{host}:{port}/?token={app.token}", folder)
        config = uvicorn.Config(
            app,
            log_level="critical",  # else it shows a traceback for each page open at the end
            access_log=False,  # the token stands in an address
            server_header=False,
            timeout_graceful_shutdown=_SECONDS_TO_SAY_GOODBYE,
        )
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])


def _app(serving: ServerOptions, folder: Path, port: int) -> Access:
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
    # Routes that stand here come before those of gradio that have the same address.
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
    # Only a page of which this is set has gradio look whether a path was uploaded; launch() sets
    # it, mounting does not.
    blocks.has_launched = True
    return Access(app, session, port=port, is_local=serving.is_local)


def _add_files(app: FastAPI, session: Session) -> None:
    """All files that leave the server; the visitor's own, each by the server's own path."""
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

    async def portrait(request: Request, look_id: int, person: int) -> FileResponse:
        return sent(session.portrait(visitor_of(request.scope), look_id, person))

    async def result(request: Request, job_id: int) -> FileResponse:
        return sent(session.result(visitor_of(request.scope), job_id), to_keep=True)

    async def shown(request: Request, named: str) -> FileResponse:
        return sent(session.shown(visitor_of(request.scope), named))

    routes: dict[str, Callable[..., Awaitable[FileResponse]]] = {
        "/person/{look_id}/{person}.png": portrait,
        "/result/{job_id}": result,
        "/gradio_api/file={named:path}": shown,
    }
    for address, answer in routes.items():
        # The annotations of a function inside another one cannot be found by their names.
        answer.__annotations__.update(request=Request, **{"return": FileResponse})
        app.add_api_route(address, answer, methods=["GET", "HEAD"], response_model=None)


def _add_upload(app: FastAPI, uploads: Uploads, longest_bytes: int) -> None:
    """Takes the place of gradio's own, which stores files with the same bytes only once."""
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
            if kept is None:  # also where the browser went away in the middle
                uploads.drop_folder(folder)
        if kept is None:
            raise HTTPException(400, "one video is taken at a time, with a name")
        return JSONResponse([str(kept.path)])

    upload.__annotations__.update(request=Request, **{"return": Response})
    app.add_api_route("/gradio_api/upload", upload, methods=["POST"], response_model=None)


def _keep_to_itself(folder: Path) -> None:
    """Read by gradio when it is imported: no word to anybody, and files nowhere but in `folder`."""
    os.environ.update(
        GRADIO_ANALYTICS_ENABLED="False",
        GRADIO_TEMP_DIR=str(folder),
        GRADIO_SHARE="False",
        HF_HUB_OFFLINE="1",
        HF_HUB_DISABLE_TELEMETRY="1",
    )


def _listener(serving: ServerOptions) -> socket.socket:
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
    """A folder of its own that goes when the page ends; what an earlier one left goes now."""
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
    """Unless the page that made it still runs."""
    lock = folder / "lock"
    if lock.is_symlink():  # no page makes one, and holding it would make a file elsewhere
        lock.unlink()
    with logged(BlockingIOError):
        with held(lock, wait=False):
            pass
        remove_tree(folder)
