"""Serves the local page: to this machine alone unless told otherwise, and with nothing from any
other host in it."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import secrets
import shutil
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidrestore.errors import OutputError, UsageError
from vidrestore.locks import held
from vidrestore.ui.jobs import COMMAND
from vidrestore.weights import user_cache

_LOCAL = ("127.0.0.1", "localhost", "::1")
_SECONDS_TO_SAY_GOODBYE = 2
# The page's own scripts stand in it, and its frames of HTML are filled in by templates.
_POLICY = "; ".join(
    [
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "media-src 'self' blob:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    ]
)
_HEADERS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)

Scope = MutableMapping[str, Any]
Send = Callable[[Scope], Awaitable[None]]
App = Callable[[Scope, Any, Send], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Serving:
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
        return self.host in _LOCAL


def serve(serving: Serving, on_ready: Callable[[str], None]) -> None:
    """Serve the page until interrupted; then the command that runs is stopped and all is removed.

    `on_ready` is told the address. UsageError where gradio is missing or the address cannot be had.
    """
    if importlib.util.find_spec("gradio") is None:
        raise UsageError(
            "the page needs gradio, which is not installed; pip install 'vidrestore[ui]'"
        )
    with work_folder() as folder, _listener(serving) as listener:
        _keep_to_itself(folder)
        import uvicorn

        host = f"[{serving.host}]" if ":" in serving.host else serving.host
        on_ready(f"http://{host}:{listener.getsockname()[1]}")
        config = uvicorn.Config(
            _app(serving, folder),
            log_level="critical",  # else it shows a traceback for each page open at the end
            access_log=False,
            timeout_graceful_shutdown=_SECONDS_TO_SAY_GOODBYE,
        )
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])


def _app(serving: Serving, folder: Path) -> App:
    import gradio
    from fastapi import FastAPI, HTTPException
    from fastapi.responses import FileResponse

    from vidrestore.ui import words
    from vidrestore.ui.desk import Desk
    from vidrestore.ui.page import Page

    desk = Desk(folder, weights=serving.weights, offline=serving.offline, command=serving.command)

    @asynccontextmanager
    async def at_work(app: FastAPI) -> AsyncIterator[None]:
        work = asyncio.create_task(desk.work())
        try:
            yield
        finally:
            work.cancel()
            with suppress(asyncio.CancelledError):
                await work

    app = FastAPI(lifespan=at_work, docs_url=None, redoc_url=None, openapi_url=None)

    def sent(path: Path | None, name: str | None = None) -> FileResponse:
        if path is None or not path.is_file():
            raise HTTPException(404, "this is no longer here")
        return FileResponse(path, filename=name)

    @app.get("/person/{look_id}/{person}.png")
    async def portrait(look_id: int, person: int) -> FileResponse:
        return sent(desk.portrait(look_id, person))

    @app.get("/result/{job_id}")
    async def result(job_id: int) -> FileResponse:
        path = desk.result(job_id)
        return sent(path, None if path is None else path.name)

    theme = gradio.themes.Base(
        font=("system-ui", "sans-serif"), font_mono=("ui-monospace", "monospace")
    ).set(block_info_text_color="*neutral_500", block_info_text_color_dark="*neutral_400")
    gradio.mount_gradio_app(
        app,
        Page(desk).blocks,
        path="/",
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        allowed_paths=[str(folder)],
        max_file_size=round(serving.max_upload_gb * 1e9),
        theme=theme,
        css=words.CSS,
    )
    return _guarded(app, serving)


def _guarded(app: Any, serving: Serving) -> App:
    """Refuses what another site sends through the user's browser, and says in every answer that
    nothing may come from elsewhere."""

    async def guarded(scope: Scope, receive: Any, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        origin = headers.get(b"origin", b"").decode("latin-1")
        is_ours = not origin or origin.partition("://")[2] == host
        # A name that leads to this machine only since the user's browser asked for it.
        name = host.rpartition(":")[0].strip("[]") or host
        if not is_ours or (serving.is_local and name not in _LOCAL):
            await send({"type": "http.response.start", "status": 403, "headers": []})
            await send({"type": "http.response.body", "body": b"not for other sites"})
            return

        async def send_with_headers(message: Scope) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await send(message)

        await app(scope, receive, send_with_headers)

    return guarded


def _keep_to_itself(folder: Path) -> None:
    """Read by gradio when it is imported: no word to anybody, and files nowhere but in `folder`."""
    os.environ.update(
        GRADIO_ANALYTICS_ENABLED="False",
        GRADIO_TEMP_DIR=str(folder / "files"),
        GRADIO_SHARE="False",
        HF_HUB_OFFLINE="1",
        HF_HUB_DISABLE_TELEMETRY="1",
    )


def _listener(serving: Serving) -> socket.socket:
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
            f"the page cannot be served at {where}: {(error.strerror or str(error)).lower()}; "
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
                    if left.is_dir():
                        _remove_left(left)
                folder.mkdir(mode=0o700)
                stack.callback(shutil.rmtree, folder, ignore_errors=True)
                stack.enter_context(held(folder / "lock", wait=False))
        except OSError as error:
            raise OutputError(
                f"the folder {above} cannot be written to: {(error.strerror or '').lower()}"
            ) from error
        yield folder


def _remove_left(folder: Path) -> None:
    """Unless the page that made it still runs."""
    with suppress(BlockingIOError):
        with held(folder / "lock", wait=False):
            pass
        shutil.rmtree(folder, ignore_errors=True)
