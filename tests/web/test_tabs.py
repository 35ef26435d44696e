"""The tabs and the visitors that the page remembers are bounded, whatever a client makes up."""

import asyncio
import json
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import pytest

from vidrestore.web import access
from vidrestore.web.access import Access
from vidrestore.web.session import AnalysisOptions, Session
from vidrestore.web.tabs import Tabs
from vidrestore.web.uploads import Upload

PORT = 1234


def tabs_of(most: int, at_work: set[int] | None = None) -> tuple[Tabs, list[tuple[str, int]]]:
    forgotten: list[tuple[str, int]] = []
    tabs = Tabs(
        lambda visitor, analysis_id: analysis_id in (at_work or set()),
        lambda visitor, analysis_id: forgotten.append((visitor, analysis_id)),
        most,
    )
    return tabs, forgotten


def test_invented_names_leave_no_more_than_the_tabs_used_last():
    tabs, forgotten = tabs_of(10)
    for number in range(1000):
        assert tabs.claim(f"tab{number}", "me") is not None
        assert tabs.claim("open", "me") is not None  # as a page that is open asks each second
        assert len(tabs) <= 10
    assert forgotten == []  # no video was looked at in them
    tab = tabs.claim("open", "me")
    tab.analysis_id = 7
    for number in range(20):
        tabs.claim(f"more{number}", "me")
    assert forgotten == [("me", 7)]
    assert tabs.claim("open", "me") is not tab


def test_a_tab_with_work_or_an_open_request_is_never_forgotten():
    tabs, forgotten = tabs_of(3, at_work={1})
    working, asking, idle = (tabs.claim(name, "me") for name in ("working", "asking", "idle"))
    working.analysis_id, asking.open_requests, idle.analysis_id = 1, 1, 2
    for number in range(50):
        tabs.claim(f"tab{number}", "me")
    assert tabs.claim("working", "me") is working
    assert tabs.claim("asking", "me") is asking
    assert forgotten == [("me", 2)]
    # Where all are in use, no other begins, and none of theirs ends.
    tabs.claim("tab49", "me").open_requests = 1
    assert tabs.is_full("me")
    assert tabs.claim("one more", "me") is None
    assert len(tabs) == 3


def test_a_visitor_with_many_tabs_costs_another_none():
    tabs, _ = tabs_of(5)
    own = tabs.claim("own", "me")
    for number in range(50):
        tabs.claim(f"tab{number}", "you")
    assert tabs.claim("own", "me") is own
    assert tabs.claim("own", "you") is None
    assert not tabs.is_full("me")
    tabs.forget_all("you")
    assert len(tabs) == 1


def test_a_tab_that_is_loaded_again_is_found_by_its_name():
    tabs, _ = tabs_of(5)
    first, second, other = (tabs.claim(name, who) for name, who in
                            (("a", "me"), ("b", "me"), ("c", "you")))  # fmt: skip
    assert tabs.give_name(first, "x") is None
    assert tabs.give_name(first, "x") is None  # itself
    assert tabs.give_name(other, "x") is None  # another visitor's
    assert tabs.give_name(second, "x") is first
    assert first.name == ""


class Client:
    """Sends requests to an application without a network."""

    def __init__(self, app: Access) -> None:
        self.app, self.cookie = app, ""

    def ask(self, path: str, query: str = "", body: bytes | None = None) -> tuple[int, bytes]:
        headers = [(b"host", b"127.0.0.1"), (b"cookie", self.cookie.encode())]
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body or b"", "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "GET" if body is None else "POST", "path": path,
                 "query_string": query.encode(), "headers": headers}  # fmt: skip
        asyncio.run(self.app(scope, receive, send))
        given = dict(sent[0]["headers"]).get(b"set-cookie")
        if given is not None:
            ((name, value),) = SimpleCookie(given.decode()).items()
            self.cookie = f"{name}={value.value}"
        return sent[0]["status"], b"".join(each.get("body", b"") for each in sent[1:])

    def log_in(self) -> int:
        return self.ask("/", f"token={self.app.token}")[0]

    def join(self, tab: object) -> int:
        body = json.dumps({"session_hash": tab, "data": []}).encode()
        return self.ask("/gradio_api/queue/join", body=body)[0]


async def answer(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(tmp_path / "page")


@pytest.fixture
def app(session: Session) -> Access:
    return Access(answer, session, port=PORT, is_local=True)


def stored(session: Session, owner: str) -> Upload:
    folder = session.uploads.make_folder()
    (folder / "tape.mp4").write_bytes(b"x")
    upload = session.uploads.keep(folder, folder / "tape.mp4", owner)
    assert upload is not None
    return upload


def test_requests_with_invented_tabs_are_answered_and_not_all_remembered(app, session):
    client = Client(app)
    client.log_in()
    for number in range(300):
        assert client.join(f"tab{number}") == 200
        assert client.ask(f"/gradio_api/heartbeat/other{number}")[0] == 200
        assert client.ask("/gradio_api/queue/data", f"session_hash=third{number}")[0] == 200
    assert len(session.tabs) == 100
    for wrong in (None, "", "a b", ["a"], {"a": 1}, "x" * 65):
        assert client.join(wrong) == 400
    assert len(session.tabs) == 100


def test_the_video_of_a_forgotten_tab_goes_and_that_of_a_working_one_stays(app, session):
    client = Client(app)
    client.log_in()
    ((_, visitor),) = app._visitors.items()
    analyses = []
    for name in ("idle", "working"):
        assert client.join(name) == 200
        upload = stored(session, visitor)
        analyses.append(session.analyze(visitor, str(upload.path), AnalysisOptions("none", "haar")))
        session.tabs.claim(name, visitor).analysis_id = analyses[-1].job_id
    analyses[0].state, analyses[1].state = "done", "running"
    for number in range(150):
        assert client.join(f"tab{number}") == 200
    assert session.analyses.jobs == [analyses[1]]
    assert not analyses[0].folder.exists()
    assert [upload.path for upload in session.uploads.of(visitor)] == [analyses[1].source]


def test_visitors_are_bounded_and_one_with_work_is_never_forgotten(app, session, monkeypatch):
    monkeypatch.setattr(access, "MOST_VISITORS", 5)
    working, keeping, using = (Client(app) for _ in range(3))
    for client in (working, keeping, using):
        assert client.log_in() == 303
    busy, keeper, _ = app._visitors.values()
    analyses = [
        session.analyze(who, str(stored(session, who).path), AnalysisOptions("none", "haar"))
        for who in (busy, keeper)
    ]
    analyses[1].state = "done"
    for _ in range(50):
        assert using.ask("/config")[0] == 200  # it comes again and again
        assert Client(app).log_in() == 303
        assert len(app._visitors) <= 5
    # What is kept goes last, and with it all that it needs on the disk.
    assert keeping.ask("/config")[0] == 200
    for who in (*app._visitors.values(),):
        stored(session, who)
    assert working.ask("/config")[0] == 200
    assert keeping.ask("/config")[0] == 200
    for _ in range(5):
        assert Client(app).log_in() == 303
        stored(session, [*app._visitors.values()][-1])
    assert keeping.ask("/config")[0] == 403
    assert not analyses[1].folder.exists()
    assert session.uploads.of(keeper) == []
    assert working.ask("/config")[0] == 200
    assert analyses[0] in session.analyses.jobs


def test_where_all_visitors_are_at_work_no_other_is_let_in(app, session, monkeypatch):
    monkeypatch.setattr(access, "MOST_VISITORS", 1)
    client = Client(app)
    client.log_in()
    ((_, visitor),) = app._visitors.items()
    session.analyze(visitor, str(stored(session, visitor).path), AnalysisOptions("none", "haar"))
    assert Client(app).log_in() == 429
    assert client.ask("/config")[0] == 200
