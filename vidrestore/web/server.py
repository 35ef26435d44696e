"""The server of the local page.

By default only this machine can reach it, and the page loads nothing from other hosts.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs

from vidrestore.common.errors import OutputError, UsageError, not_written, system_reason
from vidrestore.common.files import held, written_atomically
from vidrestore.common.handled import log_handled, logged
from vidrestore.web.access import LOCAL, Access
from vidrestore.web.commands import Engine
from vidrestore.web.library import Library
from vidrestore.web.places import Places
from vidrestore.web.queue import COMMAND
from vidrestore.web.routes import Routes
from vidrestore.web.service import Service

if TYPE_CHECKING:
    import uvicorn

_SHUTDOWN_SECONDS = 2
_GIGABYTE = 1e9
_STATIC = Path(__file__).parent / "static"
_ADDRESS_SECONDS = 20.0  # for which a second page waits until the first one can be opened
_ANSWER_SECONDS = 5
_POLL_SECONDS = 0.1
_SECONDS_TO_OPEN = 60.0  # a browser on a busy machine may take long to start
_TIDY_SECONDS = 5.0

_log = logging.getLogger("vidrestore")


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """The address of the page and the limits of what it may do."""

    host: str
    """The address to serve at."""
    port: int | None
    """The port to serve at; None: that of the last time, or else a free one."""
    max_upload_gb: float
    """The largest size of one video, in GB (10^9 bytes)."""
    weights: Path | None = None
    """A folder to search for weight files before all others; None: the usual folders."""
    offline: bool = False
    """Whether the page never downloads weights."""
    folders: tuple[Path, ...] = ()
    """The folders that the page may list; empty: the home folder."""
    command: Sequence[str] = COMMAND
    """The program that does the work."""

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the page."""
        return self.host in LOCAL


@dataclass(frozen=True, slots=True)
class Ended:
    """What a page that has ended leaves."""

    folder: Path
    """The folder in which the page keeps its list, uploads and results."""
    unfinished: int
    """The number of restorations that the next page continues."""


def page_folder() -> Path:
    """Return the folder in which the page keeps all that it needs, which may not exist yet."""
    return platformdirs.user_data_path("vidrestore", appauthor=False) / "ui"


def serve(
    serving: ServerOptions,
    on_ready: Callable[[str, Path], None],
    on_running: Callable[[str, Path], None],
) -> Ended | None:
    """Serve the page until interrupted, unless a page of this user runs already.

    At the end the running commands are stopped so that the next page continues them.

    Args:
        serving: The address of the page and the limits of what it may do.
        on_ready: Called when the page answers, with its address and a folder, in a thread of its
            own. The address contains the secret token, so it must not be written to a log, a file
            or an argument that other users can read. Other users cannot read the folder.
        on_running: Called in the same way, with the address of a page that runs already.

    Returns:
        What the page leaves; None if another one runs.

    Raises:
        UsageError: The address cannot be used, a folder to list is none, or the page that runs
            already does not answer.
        OutputError: The folder of the page cannot be written to.
        InputError: A later version of vidrestore wrote the list.
    """
    folder = _made(page_folder())
    deadline = time.monotonic() + _ADDRESS_SECONDS
    while True:
        with _only_page(folder) as is_only:
            if is_only:
                (folder / "address").unlink(missing_ok=True)  # of a page that was killed
                library = Library(folder)
                with _listener(serving, library.port) as listener:
                    return _serve(serving, library, listener, on_ready)
        address = _read_address(folder / "address")
        if address is not None and _answers(address):
            on_running(address, folder)
            return None
        if time.monotonic() > deadline:
            raise UsageError(
                "another vidrestore ui runs and does not answer; end it, then start this one again"
            )
        time.sleep(_POLL_SECONDS)  # it is starting or ending


def _serve(
    serving: ServerOptions,
    library: Library,
    listener: socket.socket,
    on_ready: Callable[[str, Path], None],
) -> Ended:
    port = listener.getsockname()[1]
    if library.port != port:
        library.port = port
        library.changed()
    service = _service(serving, library)
    ending = _Ending()
    access = _app(service, port, ending)
    host = f"[{serving.host}]" if ":" in serving.host else serving.host
    address = f"http://{host}:{port}/?token={access.token}"
    address_file = library.folder / "address"

    def ready() -> None:
        with written_atomically(address_file, lasting=False) as part:
            part.chmod(0o600)
            part.write_text(json.dumps({"address": address, "pid": os.getpid()}), "utf-8")
        on_ready(address, library.folder)

    try:
        with suppress(KeyboardInterrupt):
            _server(access, ready, ending).run(sockets=[listener])
    finally:
        address_file.unlink(missing_ok=True)
    for failure in ending.failures:
        if isinstance(failure, OSError):
            raise not_written(f"the file {address_file}", library.folder, failure) from failure
        raise failure
    return Ended(library.folder, service.unfinished())


def write_redirect(address: str, folder: Path) -> Path:
    """Write a private file that redirects to the page; the page removes it after a minute.

    Args:
        address: The address with the secret token.
        folder: The folder of the page.

    Returns:
        The file.
    """
    descriptor, name = tempfile.mkstemp(dir=folder, prefix="open-", suffix=".html")  # with 0600
    target = escape(address)
    text = f'<meta charset="utf-8"><meta http-equiv="refresh" content="0; url={target}">'
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(f'{text}<a href="{target}">The page of vidrestore</a>')
    return Path(name)


async def _tidy(folder: Path) -> None:
    """Remove the files of `write_redirect` once a browser had time to read them."""
    try:
        while True:
            _remove_redirects(folder, older_than_seconds=_SECONDS_TO_OPEN)
            await asyncio.sleep(_TIDY_SECONDS)
    finally:
        _remove_redirects(folder, older_than_seconds=0)


def _remove_redirects(folder: Path, *, older_than_seconds: float) -> None:
    for path in folder.glob("open-*.html"):
        with logged(OSError):
            if time.time() - path.lstat().st_mtime >= older_than_seconds:
                path.unlink()


def _service(serving: ServerOptions, library: Library) -> Service:
    roots = serving.folders or (Path.home(),)
    return Service(
        library,
        Places(roots, library.folder),
        engine=Engine(serving.weights, serving.offline),
        is_local=serving.is_local,
        most_upload_bytes=round(serving.max_upload_gb * _GIGABYTE),
        command=serving.command,
    )


class _Ending:
    """Ends the server where a part of it has failed that it cannot do without."""

    def __init__(self) -> None:
        self.failures: list[BaseException] = []
        self.server: uvicorn.Server | None = None

    def watch(self, part: asyncio.Future[None]) -> None:
        """End the server if a task fails."""
        part.add_done_callback(self._look)

    def _look(self, part: asyncio.Future[None]) -> None:
        error = None if part.cancelled() else part.exception()
        if error is not None:
            self.failures.append(error)
            if self.server is not None:
                self.server.should_exit = True


def _app(service: Service, port: int, ending: _Ending) -> Access:
    """Return the application: the routes, behind the access control."""
    from fastapi import FastAPI

    @asynccontextmanager
    async def at_work(app: FastAPI) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(service.work())]
        tasks.append(asyncio.create_task(_tidy(service.library.folder)))
        for task in tasks:
            ending.watch(task)
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    app = FastAPI(lifespan=at_work, docs_url=None, redoc_url=None, openapi_url=None)
    Routes(service, _STATIC).add_to(app)
    return Access(app, service, port=port)


def _server(access: Access, ready: Callable[[], None], ending: _Ending) -> uvicorn.Server:
    """Return the server, which calls `ready` once it answers; its failure ends the server."""
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            loop = asyncio.get_running_loop()
            ending.watch(loop.run_in_executor(None, ready))

        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            # uvicorn's own raises the signals again, when the page has ended as the user asked.
            names = ("SIGINT", "SIGTERM", "SIGHUP")
            numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
            numbers = [each for each in numbers if signal.getsignal(each) != signal.SIG_IGN]
            before = {each: signal.signal(each, self.handle_exit) for each in numbers}
            try:
                yield
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)

    config = uvicorn.Config(
        access,
        log_level="critical",  # else it prints a traceback for each page that is still open
        access_log=False,  # an address contains the token
        server_header=False,
        date_header=False,
        ws="none",
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )
    ending.server = Server(config)
    return ending.server


def _made(folder: Path) -> Path:
    """Make the folder of the page; raise OutputError if that is impossible."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if sys.platform != "win32":
            status = folder.lstat()
            if folder.is_symlink() or status.st_uid != os.getuid():
                raise PermissionError("it is a link, or belongs to another user")
            folder.chmod(0o700)
        return Path(os.path.realpath(folder))  # a link may be on the way to it
    except OSError as error:
        raise OutputError(
            f"the folder {folder}, in which the page keeps its videos, cannot be written to: "
            f"{system_reason(error)}; make it writable, or set {_data_variable()} to another folder"
        ) from error


def _data_variable() -> str:
    """Name the environment variable that moves the data of the user to another folder."""
    return "WIN_PD_OVERRIDE_LOCAL_APPDATA" if sys.platform == "win32" else "XDG_DATA_HOME"


@contextmanager
def _only_page(folder: Path) -> Iterator[bool]:
    """Hold the lock of the page; yield False where another page holds it."""
    lock = folder / "lock"
    if lock.is_symlink():  # no page makes one, and holding it would make a file elsewhere
        lock.unlink()
    try:
        holding = held(lock, wait=False)
        holding.__enter__()
    except BlockingIOError:
        yield False
        return
    except OSError as error:
        raise OutputError(
            f"the folder {folder}, in which the page keeps its videos, cannot be written to: "
            f"{system_reason(error)}"
        ) from error
    try:
        yield True
    finally:
        holding.__exit__(None, None, None)


def _read_address(path: Path) -> str | None:
    try:
        fields: Any = json.loads(path.read_text(encoding="utf-8"))
        address = fields["address"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        log_handled(error, "reading the address of the page")
        return None
    return address if isinstance(address, str) and address.startswith("http://") else None


def _answers(address: str) -> bool:
    """Whether a page answers at an address; a request without the token is refused, and enough."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(address.partition("?")[0], timeout=_ANSWER_SECONDS):
            return True
    except urllib.error.HTTPError as error:
        log_handled(error)
        error.close()
        return error.code == 403
    except OSError as error:
        log_handled(error)
        return False


def _listener(serving: ServerOptions, last_port: int | None) -> socket.socket:
    """Open the socket of the page; raise UsageError if the address cannot be used."""
    if serving.port is None and last_port is not None:
        with logged(OSError, what="taking the port of the last time"):
            return _bound(serving.host, last_port)
    try:
        return _bound(serving.host, serving.port or 0)
    except OSError as error:
        where = serving.host if serving.port is None else f"{serving.host}, port {serving.port}"
        raise UsageError(
            f"the page cannot be served at {where}: {system_reason(error)}; "
            "choose another --host or --port"
        ) from error


def _bound(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        if sys.platform != "win32":  # where it would share the port with another program
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen()
    except BaseException:
        listener.close()
        raise
    return listener
