"""The addresses of the page: its files, what it asks and orders, and the media that it shows."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import os
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Query, Request
from fastapi import Path as FromPath
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from vidrestore.common.errors import OutputError, is_disk_full
from vidrestore.common.files import sync_file
from vidrestore.common.handled import log_handled
from vidrestore.web import commands, targets
from vidrestore.web.access import REPORT_POLICY, owner_of
from vidrestore.web.choices import Change
from vidrestore.web.places import Entry, Listing, is_ordinary
from vidrestore.web.queue import Job
from vidrestore.web.service import Service
from vidrestore.web.state import state, weights
from vidrestore.web.wording import DEFECT, GONE, RefusedError

_PACKING = 3  # a level of gzip; higher ones take longer and gain little
_CHUNK_BYTES = 2**22
_SPARE_BYTES = 2**28  # of the disk, which an upload leaves free
_LONGEST_SECONDS = 10**7
_STALLED_SECONDS = 300.0  # without a byte; until then an upload keeps its room on the disk
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
_STATIC = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
}

_log = logging.getLogger("vidrestore")

Id = Annotated[str, FromPath(pattern=r"^[A-Za-z0-9_-]{16}$")]


class _Body(BaseModel):
    """The body of a request; nothing that the page does not send is accepted."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class _Nothing(_Body):
    pass


class _Open(_Body):
    entry: Annotated[str, Field(max_length=40)]


class _Name(_Body):
    person: Annotated[int, Field(ge=1, le=10**6)]
    name: Annotated[str, Field(max_length=1000)]


class _Moment(_Body):
    at_seconds: Annotated[float, Field(ge=0, le=_LONGEST_SECONDS)]


class _Target(_Body):
    folder: Annotated[str, Field(max_length=40)] | None = None
    name: Annotated[str, Field(max_length=1000)] = ""


class _Restore(_Body):
    overwrite: bool = False


class _Remove(_Body):
    delete_result: bool = False


class _Proxy(_Body):
    of_source: bool = False


class _Settings(_Body):
    keep_days: Annotated[int, Field(ge=0, le=3650)]


class Routes:
    """The routes of the page.

    Args:
        service: What the page does.
        static: The folder of the page's own files.
    """

    def __init__(self, service: Service, static: Path) -> None:
        self._service = service
        self._static = static
        self._files = {
            path.relative_to(static).as_posix(): path
            for path in static.rglob("*")
            if path.is_file() and path.suffix in _STATIC
        }
        self._arriving_bytes = 0

    def add_to(self, app: FastAPI) -> None:
        """Add the routes and the handlers of errors to an application."""
        router = APIRouter()
        get: dict[str, Callable[..., Any]] = {
            "/": self.index,
            "/static/{name:path}": self.static,
            "/api/state": self.state,
            "/api/folders": self.folders,
            "/api/folders/{folder_id}": self.folder,
            "/api/weights": self.weights,
            "/media/{kind}/{media_id}": self.media,
            "/media/{kind}/{media_id}/{part}": self.media_part,
        }
        post: dict[str, Callable[..., Any]] = {
            "/api/videos": self.upload,
            "/api/videos/open": self.open,
            "/api/videos/{video_id}/choices": self.choices,
            "/api/videos/{video_id}/names": self.names,
            "/api/videos/{video_id}/moment": self.moment,
            "/api/videos/{video_id}/proxy": self.proxy,
            "/api/videos/{video_id}/analyze": self.analyze,
            "/api/videos/{video_id}/target": self.target,
            "/api/videos/{video_id}/restore": self.restore,
            "/api/restorations/{restoration_id}/pause": self.pause,
            "/api/restorations/{restoration_id}/continue": self.resume,
            "/api/restorations/{restoration_id}/show": self.show,
            "/api/restorations/{restoration_id}/remove": self.remove,
            "/api/restorations/{restoration_id}/proxy": self.result_proxy,
            "/api/weights/{name}/fetch": self.fetch,
            "/api/settings": self.settings,
        }
        for address, answer in get.items():
            router.add_api_route(address, answer, methods=["GET", "HEAD"], response_model=None)
        for address, order in post.items():
            router.add_api_route(address, order, methods=["POST"], response_model=None)
        router.add_api_route(
            "/api/videos/{video_id}", self.forget, methods=["DELETE"], response_model=None
        )
        app.include_router(router)
        app.add_exception_handler(RefusedError, _refused)
        app.add_exception_handler(OutputError, _not_written)
        app.add_exception_handler(RequestValidationError, _not_valid)
        app.add_exception_handler(HTTPException, _not_found)
        app.add_exception_handler(Exception, _defect)

    # The page

    async def index(self) -> Response:
        """Send the page itself."""
        return await self.static("index.html")

    async def static(self, name: str) -> Response:
        """Send a file of the package."""
        path = self._files.get(name)
        if path is None:
            raise RefusedError(GONE, 404)
        return FileResponse(
            path, media_type=_STATIC[path.suffix], headers={"cache-control": "no-cache"}
        )

    async def state(self, request: Request, since: int | None = None) -> Response:
        """Send all that the page shows, unless nothing has changed."""
        self._service.seen()
        if since == self._service.library.version:
            return Response(status_code=204)
        return _packed(_json(state(self._service, owner_of(request.scope))), request)

    async def settings(self, body: _Settings) -> Response:
        """Set how long files are kept."""
        self._service.set_keep_days(body.keep_days)
        return _json({"keep_days": body.keep_days})

    # Folders of this computer

    async def folders(self) -> Response:
        """List the folders that the user named."""
        self._check_local()
        return _json([_entry(entry) for entry in self._service.places.roots()])

    async def folder(self, folder_id: Id) -> Response:
        """List a folder."""
        self._check_local()
        listing = await asyncio.to_thread(self._service.places.listing, folder_id)
        return _json(_listing(listing))

    def _check_local(self) -> None:
        if not self._service.is_local:
            raise RefusedError(GONE, 404)

    # Videos

    async def upload(self, request: Request, name: Annotated[str, Query(max_length=1000)] = "") -> (
        Response
    ):  # fmt: skip
        """Store a video that the browser sends, and open it."""
        owner = owner_of(request.scope)
        size = _length_of(request)
        if size is None:
            raise RefusedError("The browser did not tell the size of the file; try again.", 411)
        if size > self._service.most_upload_bytes:
            most = self._service.most_upload_bytes / 1e9
            raise RefusedError(f"The file is larger than {most:g} GB, the most that is taken.", 413)
        if size == 0:
            raise RefusedError("The file is empty; copy it again from where it came from.")
        self._service.check_room(owner)
        library = self._service.library
        free = shutil.disk_usage(library.folder).free - self._arriving_bytes
        if size + _SPARE_BYTES > free:
            raise RefusedError(
                f"The file needs {size / 1e9:.1f} GB, and {max(0, free) / 1e9:.1f} GB are free on "
                "the disk; make room first.",
                507,
            )
        folder = library.make_folder(library.uploads)
        path = folder / targets.name_of_upload(name)
        self._arriving_bytes += size
        kept = False
        try:
            await _store(request, folder / ".part", size)
            (folder / ".part").rename(path)
            video = self._service.open_path(owner, path, folder)
            kept = True
            library.save()
        except ClientDisconnect as error:
            log_handled(error, "an upload")
            raise RefusedError("The file did not arrive whole; send it again.") from error
        except OSError as error:
            log_handled(error, "an upload")
            if is_disk_full(error):
                raise RefusedError(
                    "The disk is full; make room, then send the file again.", 507
                ) from (error)
            raise RefusedError("The file could not be stored; send it again.", 500) from error
        finally:
            self._arriving_bytes -= size
            if not kept:
                library.uploads.remove(folder)
        return _json({"video": video.id})

    async def open(self, request: Request, body: _Open) -> Response:
        """Open a file of this computer."""
        self._check_local()
        video = self._service.open_file(owner_of(request.scope), body.entry)
        self._service.library.save()
        return _json({"video": video.id})

    async def forget(self, request: Request, video_id: Id) -> Response:
        """Remove a video from the page."""
        self._service.forget_video(owner_of(request.scope), video_id)
        return _json({})

    async def choices(self, request: Request, video_id: Id, body: Change) -> Response:
        """Change what is chosen for a video."""
        new = self._service.choose(owner_of(request.scope), video_id, body)
        return _json({"choices": new.model_dump()})

    async def names(self, request: Request, video_id: Id, body: _Name) -> Response:
        """Name a person."""
        self._service.name_person(owner_of(request.scope), video_id, body.person, body.name)
        return _json({})

    async def moment(self, request: Request, video_id: Id, body: _Moment) -> Response:
        """Make the loop of a moment."""
        self._service.show_moment(owner_of(request.scope), video_id, body.at_seconds)
        return _json({})

    async def proxy(self, request: Request, video_id: Id, body: _Nothing) -> Response:
        """Make a copy of a video that browsers play."""
        self._service.make_proxy(owner_of(request.scope), video_id)
        return _json({})

    async def analyze(self, request: Request, video_id: Id, body: _Nothing) -> Response:
        """Find the people in a video again."""
        self._service.analyze_again(owner_of(request.scope), video_id)
        return _json({})

    async def target(self, request: Request, video_id: Id, body: _Target) -> Response:
        """Set where the result goes."""
        owner = owner_of(request.scope)
        exists = self._service.set_target(owner, video_id, body.folder, body.name)
        return _json({"exists": exists})

    async def restore(self, request: Request, video_id: Id, body: _Restore) -> Response:
        """Order a restoration."""
        owner = owner_of(request.scope)
        each = self._service.restore(owner, video_id, overwrite=body.overwrite)
        return _json({"restoration": each.id})

    # Restorations

    async def pause(self, request: Request, restoration_id: Id, body: _Nothing) -> Response:
        """Pause a restoration."""
        self._service.pause(owner_of(request.scope), restoration_id)
        return _json({})

    async def resume(self, request: Request, restoration_id: Id, body: _Nothing) -> Response:
        """Continue a restoration."""
        self._service.resume(owner_of(request.scope), restoration_id)
        return _json({})

    async def show(self, request: Request, restoration_id: Id, body: _Nothing) -> Response:
        """Open the file manager at a result."""
        self._service.show(owner_of(request.scope), restoration_id)
        return _json({})

    async def remove(self, request: Request, restoration_id: Id, body: _Remove) -> Response:
        """Remove a restoration from the list."""
        owner = owner_of(request.scope)
        self._service.remove(owner, restoration_id, delete_result=body.delete_result)
        return _json({})

    async def result_proxy(self, request: Request, restoration_id: Id, body: _Proxy) -> Response:
        """Make a copy of a result that browsers play."""
        owner = owner_of(request.scope)
        self._service.make_result_proxy(owner, restoration_id, of_source=body.of_source)
        return _json({})

    # Weights

    async def weights(self) -> Response:
        """List the weights."""
        return _json(weights(self._service))

    async def fetch(self, name: Annotated[str, FromPath(max_length=40)], body: _Nothing) -> (
        Response
    ):  # fmt: skip
        """Download a weight."""
        self._service.fetch(name)
        return _json({})

    # Media

    async def media(self, request: Request, kind: str, media_id: Id) -> Response:
        """Send a file of a video or of a restoration."""
        return self._send(owner_of(request.scope), kind, media_id, "")

    async def media_part(self, request: Request, kind: str, media_id: Id, part: str) -> Response:
        """Send one of several files of a video."""
        return self._send(owner_of(request.scope), kind, media_id, part)

    def _send(self, owner: str, kind: str, media_id: str, part: str) -> Response:
        if kind in ("portrait", "loop") and not part:
            raise RefusedError(GONE, 404)
        if kind in ("source", "proxy", "thumbnail", "portrait", "loop"):
            video = self._service.own_video(owner, media_id)
            analysis = video.analysis
            if kind == "source" and not part:
                return _file(video.path)
            if kind == "proxy" and not part:
                return _file_of(video.proxy, commands.PROXY)
            if kind == "thumbnail" and not part:
                return _file_of(analysis, "person_1.png")
            if kind == "portrait" and part.isascii() and part.isdigit() and len(part) < 8:
                return _file_of(analysis, f"person_{int(part)}.png")
            if kind == "loop" and part in ("before", "after") and video.moment is not None:
                both = commands.moment_files(video.path, video.moment.folder)
                if video.moment.state == "done":
                    return _file(both[part == "after"])
            raise RefusedError(GONE, 404)
        each = self._service.own_restoration(owner, media_id)
        is_done = each.job.state == "done"
        match kind, part:
            case "result", "" if is_done:
                return _file(each.target)
            case "download", "" if is_done:
                return _file(each.target, to_keep=True)
            case "result-proxy", "":
                return _file_of(each.proxy, commands.PROXY)
            case "restored-source", "":
                return _file(each.source)
            case "restored-source-proxy", "":
                return _file_of(each.source_proxy, commands.PROXY)
            case "live", "":
                return _file(each.job.folder / commands.LIVE)
            case "report", "" if is_done:
                return _report(each.job.folder / commands.REPORT)
        raise RefusedError(GONE, 404)


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    """Yield the body of a request in large parts; raise ClientDisconnect where no more comes."""
    parts: list[bytes] = []
    size = 0
    stream = request.stream()
    while True:
        try:
            async with asyncio.timeout(_STALLED_SECONDS):
                part = await anext(stream, None)
        except TimeoutError as error:
            raise ClientDisconnect from error
        if part is None:
            break
        parts.append(part)
        size += len(part)
        if size >= _CHUNK_BYTES:
            yield b"".join(parts)
            parts, size = [], 0
    if parts:
        yield b"".join(parts)


async def _store(request: Request, path: Path, size: int) -> None:
    """Write the body of a request to a new file; raise ClientDisconnect if it is not whole."""
    written = 0
    with path.open("xb") as file:
        async for chunk in _chunks(request):
            written += len(chunk)
            if written > size:
                break
            await asyncio.to_thread(file.write, chunk)
    if written != size:
        raise ClientDisconnect
    await asyncio.to_thread(sync_file, path)


def _length_of(request: Request) -> int | None:
    """Return the size of the body that a request announces."""
    text = request.headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def _file_of(job: Job | None, name: str) -> Response:
    """Send a file that a job has made."""
    if job is None or job.state != "done":
        raise RefusedError(GONE, 404)
    return _file(job.folder / name)


def _file(path: Path, *, to_keep: bool = False) -> Response:
    """Send a file by the server's own path."""
    if not is_ordinary(path):
        raise RefusedError(GONE, 404)
    kind = _SHOWN.get(path.suffix.lower())
    name = os.fsencode(path.name).decode(errors="replace")
    return FileResponse(
        path,
        filename=name,
        media_type=kind or "application/octet-stream",
        content_disposition_type="attachment" if to_keep or kind is None else "inline",
        headers={"cache-control": "private, no-cache"},
    )


def _report(path: Path) -> Response:
    if not is_ordinary(path):
        raise RefusedError(GONE, 404)
    headers = {"content-security-policy": REPORT_POLICY, "cache-control": "private, no-cache"}
    return FileResponse(path, media_type="text/html; charset=utf-8", headers=headers)


def _entry(entry: Entry) -> dict[str, Any]:
    return {"id": entry.id, "name": entry.name}


def _listing(listing: Listing) -> dict[str, Any]:
    return _entry(listing.folder) | {
        "parent": None if listing.parent is None else listing.parent.id,
        "path_shown": listing.path_shown,
        "folders": [_entry(entry) for entry in listing.folders],
        "files": [
            _entry(file.entry) | {"bytes": file.bytes, "modified_seconds": file.modified_seconds}
            for file in listing.files
        ],
        "is_writable": listing.is_writable,
        "is_cut": listing.is_cut,
    }


def _json(value: Any, status: int = 200) -> Response:
    # Not JSONResponse, whose text is not ASCII and so cannot hold odd bytes of file names.
    text = json.dumps(value, allow_nan=False)
    return Response(text, status, media_type="application/json")


def _packed(answer: Response, request: Request) -> Response:
    """Compress an answer that repeats itself, such as the state of many people."""
    if "gzip" not in request.headers.get("accept-encoding", ""):
        return answer
    body = gzip.compress(bytes(answer.body), _PACKING)
    headers = {"content-encoding": "gzip", "vary": "accept-encoding"}
    return Response(body, media_type=answer.media_type, headers=headers)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    return _json({"error": str(error), **error.fields}, error.status)


async def _not_written(request: Request, error: Exception) -> Response:
    log_handled(error)
    is_full = "no space" in str(error)
    if is_full:
        return _json({"error": "The disk is full; make room first."}, 507)
    _log.error("%s", error)
    text = "The folder of the page cannot be written to; the terminal that runs it shows more."
    return _json({"error": text}, 500)


async def _not_valid(request: Request, error: Exception) -> Response:
    log_handled(error)
    return _json({"error": "The page sends no such request; load the page again."}, 400)


async def _not_found(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    text = "The page sends no such request; load the page again."
    return _json({"error": text if error.status_code in (400, 405) else GONE}, error.status_code)


async def _defect(request: Request, error: Exception) -> Response:
    _log.error("a defect of the page", exc_info=error)
    return _json({"error": DEFECT}, 500)
