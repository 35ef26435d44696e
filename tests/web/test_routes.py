"""The routes where the disk is full, where a body ends early, and where something fails."""

import asyncio
import errno
import gzip
import json
from collections import namedtuple
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from helpers.small_disk import Disk

from vidrestore.common.errors import OutputError
from vidrestore.web import routes as routes_of_page
from vidrestore.web.access import OWNER
from vidrestore.web.commands import Engine
from vidrestore.web.library import LOCAL_OWNER, Library
from vidrestore.web.places import Places
from vidrestore.web.routes import Routes
from vidrestore.web.service import Service

Usage = namedtuple("Usage", "total used free")


def page_in(folder: Path) -> tuple[FastAPI, Service]:
    """The routes of a page whose commands are never run."""
    folder.mkdir(exist_ok=True)
    service = Service(
        Library(folder),
        Places([folder.parent]),
        engine=Engine(),
        is_local=True,
        most_upload_bytes=10**9,
    )
    app = FastAPI()
    Routes(service, Path(__file__).parent).add_to(app)
    return app, service


async def ask(
    app: FastAPI,
    method: str,
    path: str,
    parts: Iterable[bytes] = (),
    *,
    announced: int | None = None,
    kind: str = "application/octet-stream",
    accept: str = "",
) -> tuple[int, Any]:
    """Status and fields of an answer; after its parts the browser is gone, unless all came."""
    given = [*parts]
    size = sum(map(len, given)) if announced is None else announced
    headers = [(b"content-type", kind.encode()), (b"content-length", str(size).encode()),
               (b"accept-encoding", accept.encode())]  # fmt: skip
    path, _, query = path.partition("?")
    scope = {"type": "http", "method": method, "path": path, "query_string": query.encode(),
             "headers": headers, OWNER: LOCAL_OWNER, "http_version": "1.1",
             "scheme": "http", "server": ("127.0.0.1", 1), "client": ("127.0.0.1", 2),
             "root_path": "", "raw_path": path.encode()}  # fmt: skip
    is_whole = size == sum(map(len, given))
    left = [
        {"type": "http.request", "body": part, "more_body": not is_whole or n < len(given) - 1}
        for n, part in enumerate(given)
    ] or [{"type": "http.request", "body": b"", "more_body": False}]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return left.pop(0) if left else {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    with suppress(LookupError):  # of a defect, which the server hears of, too
        await app(scope, receive, send)
    body = b"".join(each.get("body", b"") for each in sent[1:])
    if (b"content-encoding", b"gzip") in sent[0]["headers"]:
        packed, body = body, gzip.decompress(body)
        assert len(packed) < len(body) / 2
    return sent[0]["status"], json.loads(body)


UPLOAD = "/api/videos?name=tape.mp4"


def uploads(service: Service) -> list[Path]:
    folder = service.library.folder / "uploads"
    return [*folder.rglob("*")] if folder.exists() else []


def run(test: Callable[[], Any]) -> None:
    asyncio.run(test())


def test_an_upload_is_stored_as_it_was_sent(tmp_path, monkeypatch):
    monkeypatch.setattr(routes_of_page, "_CHUNK_BYTES", 10)

    async def test():
        app, service = page_in(tmp_path / "ui")
        parts = [bytes([n]) * 7 for n in range(9)]
        status, fields = await ask(app, "POST", UPLOAD, parts)
        assert status == 200
        video = service.library.videos[fields["video"]]
        assert video.path.read_bytes() == b"".join(parts)
        assert video.path.name == "tape.mp4"
        assert video.upload == video.path.parent
        assert (tmp_path / "ui/library.json").exists()  # it is not forgotten if the power fails now

    run(test)


def test_a_browser_gets_the_state_compressed(tmp_path):
    async def test():
        app, _ = page_in(tmp_path / "ui")
        plain = await ask(app, "GET", "/api/state")
        assert plain[1]["videos"] == []
        assert await ask(app, "GET", "/api/state", accept="gzip, deflate, br") == plain

    run(test)


@pytest.mark.parametrize(("parts", "announced"), [([b"12345"], 9), ([], 5), ([b"12", b"34567"], 5)])
def test_an_upload_that_is_not_whole_leaves_nothing(tmp_path, parts, announced):
    async def test():
        app, service = page_in(tmp_path / "ui")
        status, fields = await ask(app, "POST", UPLOAD, parts, announced=announced)
        assert (status, "whole" in fields["error"]) == (400, True)
        assert uploads(service) == []
        assert service.library.videos == {}

    run(test)


def test_an_upload_that_does_not_fit_is_not_begun(tmp_path, monkeypatch):
    free = [routes_of_page._SPARE_BYTES + 15]
    monkeypatch.setattr("shutil.disk_usage", lambda folder: Usage(1, 1, free[0]))

    async def test():
        app, _ = page_in(tmp_path / "ui")
        arriving: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        status, _ = await ask(app, "POST", UPLOAD, [bytes(15)])
        assert status == 200
        status, fields = await ask(app, "POST", UPLOAD, [bytes(16)])
        assert (status, "make room" in fields["error"]) == (507, True)
        # What arrives at the same time counts, too.
        scope_path, left, is_asked = UPLOAD.partition("?")[0], [], asyncio.Event()

        async def slow() -> None:
            headers = [(b"content-length", b"10")]
            scope = {"type": "http", "method": "POST", "path": scope_path, "headers": headers,
                     "query_string": b"name=a.mp4", OWNER: LOCAL_OWNER, "root_path": "",
                     "raw_path": scope_path.encode()}  # fmt: skip

            async def send(message: dict[str, Any]) -> None:
                left.append(message)

            async def receive() -> dict[str, Any]:
                is_asked.set()
                return await arriving.get()

            await app(scope, receive, send)

        first = asyncio.create_task(slow())
        await is_asked.wait()  # from then on its room is taken
        assert (await ask(app, "POST", UPLOAD, [bytes(6)]))[0] == 507
        await arriving.put({"type": "http.request", "body": bytes(10), "more_body": False})
        await first
        assert left[0]["status"] == 200
        assert (await ask(app, "POST", UPLOAD, [bytes(6)]))[0] == 200

    run(test)


def test_an_upload_that_stalls_gives_its_room_back(tmp_path, monkeypatch):
    monkeypatch.setattr(routes_of_page, "_STALLED_SECONDS", 0.05)

    async def test():
        app, service = page_in(tmp_path / "ui")
        path, answers = UPLOAD.partition("?")[0], []
        scope = {"type": "http", "method": "POST", "path": path, "query_string": b"name=a.mp4",
                 "headers": [(b"content-length", b"10")], OWNER: LOCAL_OWNER, "root_path": "",
                 "raw_path": path.encode()}  # fmt: skip
        arriving: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        arriving.put_nowait({"type": "http.request", "body": b"12345", "more_body": True})

        async def send(message: dict[str, Any]) -> None:
            answers.append(message)

        async with asyncio.timeout(20):
            await app(scope, arriving.get, send)
        assert answers[0]["status"] == 400
        assert "send it again" in json.loads(answers[1]["body"])["error"]
        assert uploads(service) == []

    run(test)


def test_a_disk_that_becomes_full_during_an_upload_is_said(disk: Disk, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: Usage(1, 1, 10**12))

    async def test():
        app, service = page_in(disk.folder / "ui")
        parts = [bytes(2**22)] * 20
        status, fields = await ask(app, "POST", UPLOAD, parts)
        assert (status, "disk is full" in fields["error"]) == (507, True)
        assert uploads(service) == []
        assert (await ask(app, "POST", UPLOAD, [b"small"]))[0] == 200

    run(test)


def test_a_failure_of_the_disk_is_said(tmp_path, monkeypatch):
    async def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(routes_of_page, "_store", fail)

    async def test():
        app, service = page_in(tmp_path / "ui")
        status, fields = await ask(app, "POST", UPLOAD, [b"12345"])
        assert (status, fields["error"]) == (500, "The file could not be stored; send it again.")
        assert uploads(service) == []

    run(test)


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (OutputError("no space is left in /home/anna; make room"), 507, "The disk is full"),
        (OutputError("the folder /home/anna cannot be written to"), 500, "cannot be written to"),
        (LookupError("faces"), 500, "an error of its own"),
    ],
)
def test_a_failure_is_a_sentence_without_paths(tmp_path, monkeypatch, caplog, error, status, said):
    async def test():
        app, service = page_in(tmp_path / "ui")
        _, fields = await ask(app, "POST", UPLOAD, [b"12345"])

        def fail(*_: object) -> None:
            raise error

        monkeypatch.setattr(service, "make_proxy", fail)
        path = f"/api/videos/{fields['video']}/proxy"
        got, fields = await ask(app, "POST", path, [b"{}"], kind="application/json")
        assert (got, said in fields["error"]) == (status, True)
        assert "anna" not in fields["error"]
        assert "faces" not in fields["error"]

    run(test)
    assert status == 507 or str(error) in caplog.text  # for the terminal
