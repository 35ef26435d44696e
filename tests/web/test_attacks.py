"""An attacker's script against the page as it is served: what must not be read, or removed."""

import http.client
import json
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from helpers.served_page import Served, served

pytest.importorskip("gradio", reason="gradio is not installed")

NOT_OFFERED = (
    "This request has a value that the page does not offer; load the page again and choose one of "
    "the values that it shows."
)
SECONDS = 30
SECRET = b"root:"  # what /etc/passwd begins with


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Attacker:
    """Sends what it likes to a page; with a cookie once it has logged in."""

    page: Served
    cookie: str = ""
    tab: str = field(default_factory=lambda: uuid.uuid4().hex[:11])

    def ask(
        self,
        path: str,
        body: bytes | None = None,
        method: str = "",
        until: bytes = b"",
        **headers: str,
    ) -> Answer:
        """An address is sent as it is: no client makes it shorter or nicer on its way.

        Of a stream of events all `until` something in it, else what comes first.
        """
        where = urlsplit(self.page.address)
        connection = http.client.HTTPConnection(where.hostname, where.port, timeout=SECONDS)
        own = {"Cookie": self.cookie} if self.cookie else {}
        own |= {name.replace("_", "-"): text for name, text in headers.items()}
        try:
            connection.putrequest(
                method or ("GET" if body is None else "POST"),
                path,
                skip_host="Host" in own,
                skip_accept_encoding=True,
            )
            for name, text in own.items():
                connection.putheader(name, text)
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            got = connection.getresponse()
            # A stream of events has no end.
            is_stream = "event-stream" in got.headers.get("content-type", "")
            text = got.read1(2**16) if is_stream else got.read()
            while is_stream and until not in text and (more := got.read1(2**16)):
                text += more
            return Answer(got.status, {k.lower(): v for k, v in got.headers.items()}, text)
        finally:
            connection.close()

    def log_in(self) -> "Attacker":
        where = urlsplit(self.page.entry)
        got = self.ask(f"/?{where.query}")
        self.cookie = got.headers.get("set-cookie", "").partition(";")[0]
        return self

    def post(self, route: str, fields: dict[str, Any]) -> Answer:
        body = json.dumps({"session_hash": self.tab} | fields).encode()
        return self.ask(f"/gradio_api/{route}", body, Content_Type="application/json")

    def upload(self, name: str, content: bytes = b"no video", query: str = "") -> Answer:
        head = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
        return self.ask(
            f"/gradio_api/upload{query}",
            head.encode() + content + b"\r\n--x--\r\n",
            Content_Type="multipart/form-data; boundary=x",
        )

    def handlers(self) -> dict[str, dict[str, Any]]:
        """By name."""
        config = json.loads(self.ask("/config").body)
        return {each["api_name"]: each for each in config["dependencies"]}

    def analyze(self, path: str, **more: Any) -> Answer:
        """Have the page analyze a video; return its answer."""
        each = next(each for each in self.handlers().values() if ends(each, "analyze"))
        file = {"path": path, "meta": {"_type": "gradio.FileData"}} | more
        joined = self.post(
            "queue/join",
            {"data": [file, "home-video", "haar"], "fn_index": each["id"]},
        )
        if joined.status == 200:
            joined = self.ask(f"/gradio_api/queue/data?session_hash={self.tab}")
        return joined


def folder_of(stored: Path) -> Path:
    """What was made for one upload."""
    return next(each for each in stored.parents if each.parent.name == "uploads")


def ends(handler: dict[str, Any], name: str) -> bool:
    return str(handler["api_name"]).strip("_") == name


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("attacked")


@pytest.fixture(scope="module")
def page(root: Path) -> Iterator[Served]:
    with served(root, "--offline") as page:
        yield page


@pytest.fixture
def stranger(page: Served) -> Attacker:
    """Has no token."""
    return Attacker(page)


@pytest.fixture
def user(page: Served) -> Attacker:
    """Has one, and wants more than the page gives."""
    return Attacker(page).log_in()


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Path]:
    """A file in a folder of somebody, both of which must survive."""
    folder = tmp_path / "victim"
    (folder / "below").mkdir(parents=True)
    path = folder / "tape.mp4"
    path.write_bytes(b"the only copy")
    yield path
    assert path.read_bytes() == b"the only copy"
    assert (folder / "below").is_dir()


def routes() -> list[tuple[str, str]]:
    """Every route of the framework and of the page, with something for what varies in it."""
    program = """
import json, re, tempfile
from pathlib import Path
from vidrestore.web import server
folder = Path(tempfile.mkdtemp())
server._confine_gradio(folder)
app = server._app(server.ServerOptions("127.0.0.1", None, 1), folder, 1)._app
def of(routes):
    for route in routes:
        inner = getattr(getattr(route, "original_router", route), "routes", None)
        if hasattr(route, "methods"):
            yield from ((method, route.path) for method in route.methods or ())
        elif inner is not None:
            yield from of(inner)
        elif hasattr(route, "app") and hasattr(route.app, "routes"):
            yield from of(route.app.routes)
print(json.dumps(sorted(set(of(app.routes)))))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
    )
    return [tuple(each) for each in json.loads(done.stdout.splitlines()[-1])]


def filled(path: str) -> str:
    """An address of a route."""
    known = {"path_or_url:path": "/etc/passwd", "path:path": "/etc/passwd", "named:path": "/etc/x"}
    known |= {
        "url_path:path": "http://127.0.0.1/",
        "analysis_id": "1",
        "person": "1",
        "job_id": "1",
    }
    while "{" in path:
        before, _, rest = path.partition("{")
        name, _, after = rest.partition("}")
        path = before + known.get(name, "x") + after
    return path


def test_nothing_is_there_without_the_token(stranger, page):
    found = routes()
    assert len(found) > 60, "the routes of the framework were not found"
    assert ("GET", "/result/{job_id}") in found
    wrong = f"vidrestore-{urlsplit(page.address).port}=x"
    for method, path in [*found, ("GET", "/"), ("GET", "/absent"), ("OPTIONS", "/"), ("PUT", "/")]:
        for query in ("", "?token=", "?token=wrong", "?token=" + "x" * 43):
            body = b"{}" if method in ("POST", "PUT") else None
            for cookie in ("", wrong):
                stranger.cookie = cookie
                got = stranger.ask(filled(path) + query, body, method)
                assert got.status == 403, (method, path, query)
                assert SECRET not in got.body
                assert "set-cookie" not in got.headers
                assert "access-control-allow-origin" not in got.headers


def test_only_what_the_page_needs_is_there_with_it(user):
    gone = [
        "/gradio_api/proxy=http://127.0.0.1/",
        "/gradio_api/deep_link?session_hash=x",
        "/gradio_api/file/etc/passwd",
        "/gradio_api/openapi.json",
        "/gradio_api/token",
        "/gradio_api/runs",
        "/monitoring",
        "/openapi.json",
        "/docs",
        "/login_check",
    ]
    for path in gone:
        assert user.ask(path).status == 404, path
    for route in ("component_server", "stream/x", "process_recording", "vibe-edit", "call/x"):
        assert user.post(route, {"data": []}).status == 404, route


def test_the_token_becomes_a_cookie_that_no_script_and_no_other_site_gets(stranger, page):
    where = urlsplit(page.entry)
    token = where.query.partition("=")[2]
    assert len(token) >= 32
    got = stranger.ask(f"/?{where.query}")
    assert (got.status, got.headers["location"]) == (303, "/")
    cookie = got.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert token not in cookie
    assert cookie.startswith(f"vidrestore-{where.port}=")
    stranger.cookie = cookie.partition(";")[0]
    got = stranger.ask("/")
    assert got.status == 200
    assert token.encode() not in got.body
    assert page.entry.encode() not in got.body
    # For the exchange alone, and not for another address.
    assert Attacker(page).ask(f"/config?{where.query}").status == 403
    assert Attacker(page).ask(f"/?{where.query}", b"", "POST").status == 403


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs /proc")
def test_the_token_stands_where_only_its_user_can_read(page, root):
    token = page.entry.partition("token=")[2]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            assert token.encode() not in (process / "cmdline").read_bytes()
        except OSError:
            continue
    assert token not in (root / "stderr").read_text()
    for path in (root / "cache").rglob("*"):
        assert not path.is_file() or token.encode() not in path.read_bytes()


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "https://HOST"},
        {"Origin": "file://HOST"},
        {"Origin": "http://HOST.evil.example"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "whatever"},
        {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"},
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.nip.io"},
        {"Host": "localhost.evil.example"},
        {"Host": ""},
        {"Host": "evil.example:80@127.0.0.1"},
    ],
)
def test_another_site_is_refused_on_every_route(user, page, headers):
    host = urlsplit(page.address).netloc
    headers = {name: text.replace("HOST", host) for name, text in headers.items()}
    api = [f"/gradio_api/{name}" for name in ("info", "file=/etc/passwd", "heartbeat/x")]
    for path in ("/", "/config", "/theme.css", "/result/1", "/person/1/1.png", "/assets/x", *api):
        got = user.ask(path, **headers)
        assert got.status == 403, path
        assert got.headers["cross-origin-resource-policy"] == "same-origin"
    for path in ("run/predict", "queue/join", "upload", "cancel"):
        got = user.ask(f"/gradio_api/{path}", b"{}", Content_Type="application/json", **headers)
        assert got.status == 403, path


def test_another_site_gets_no_cookie_with_a_token_either(page):
    """But for a browser that was sent here by the file that it was given."""
    path = f"/?{urlsplit(page.entry).query}"
    script = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors"}
    for headers in (script, {"Host": "evil.example"}, {"Origin": "http://evil.example"}):
        got = Attacker(page).ask(path, **headers)
        assert got.status == 403
        assert "set-cookie" not in got.headers
    got = Attacker(page).ask(path, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate")
    assert got.status == 200
    assert "set-cookie" in got.headers


def test_a_header_that_is_given_twice_is_refused(user, page):
    where = urlsplit(page.address)
    for twice in ("Host: evil.example", "Origin: http://evil.example", "Sec-Fetch-Site: none"):
        name = twice.partition(":")[0]
        lines = ["GET / HTTP/1.1", f"Host: {where.netloc}", f"Cookie: {user.cookie}"]
        lines += [f"{name}: http://{where.netloc}" if name == "Origin" else "X-A: 1"]
        lines += [twice, twice, "Connection: close", "", ""]
        with socket.create_connection((where.hostname, where.port), timeout=SECONDS) as line:
            line.sendall("\r\n".join(lines).encode())
            status = line.recv(100).split()[1]
        assert status in (b"400", b"403"), twice


def test_a_websocket_is_refused(user):
    for path in ("/", "/queue/join", "/gradio_api/queue/join"):
        got = user.ask(
            path,
            Upgrade="websocket",
            Connection="Upgrade",
            Sec_WebSocket_Version="13",
            Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZQ==",
            Origin="http://evil.example",
        )
        assert got.status == 403


def forms_of(path: str) -> list[str]:
    return [
        path,
        path.lstrip("/"),
        f"//{path}",
        quote(path, safe=""),
        f"../../../../../../../../..{path}",
        f"/proc/self/root{path}",
        f"file://{path}",
        f"{path}%00.png",
        f"/%2e%2e/%2e%2e{path}",
        f"..\\..{path}",
    ]


def test_no_route_reads_a_file_of_the_disk(user, victim, page):
    link = victim.parent / "link.mp4"
    link.symlink_to("/etc/passwd")
    inside = next(path for path in (page.cache / "vidrestore/ui").iterdir() if path.is_dir())
    lock = inside / "lock"
    for target in ("/etc/passwd", str(victim), str(link), str(lock), f"{inside}/../../x"):
        for form in forms_of(target):
            for before in ("/gradio_api/file=", "/gradio_api/file/", "/file=", "/assets/",
                           "/static/", "/svelte/", "/gradio_api/proxy=", "/person/1/",
                           "/result/", "/?deep_link=", "/config?deep_link=",
                           "/gradio_api/custom_component/x/client/x/"):  # fmt: skip
                got = user.ask(before + form.replace(" ", "%20"))
                assert SECRET not in got.body
                assert b"the only copy" not in got.body
                assert before.startswith(("/?", "/config")) or got.status >= 400, before + form


def test_a_path_that_was_not_uploaded_is_not_taken_as_a_video(user, victim, page):
    own = json.loads(user.upload("tape.mp4").body)[0]
    link = Path(own).parent / "link.mp4"
    link.symlink_to("/etc/passwd")
    others = json.loads(Attacker(page).log_in().upload("tape.mp4").body)[0]
    assert not Path(own).samefile(others)
    names = [
        "/etc/passwd",
        str(victim),
        str(link),
        others,
        str(Path(own).parent),
        f"{own}/../tape.mp4",
        own.replace("/tape.mp4", "/./tape.mp4"),
        own.upper(),
        f"http://127.0.0.1:{urlsplit(page.address).port}/config",
        "",
    ]
    for name in names:
        got = user.analyze(name)
        assert got.status == 400, name
        assert SECRET not in got.body
        assert user.analyze(name, url=own, orig_name="tape.mp4").status == 400, name
    # Where a handler expects none at all, and deep inside of something.
    file = {"path": str(victim), "meta": {"_type": "gradio.FileData"}}
    for each in user.handlers().values():
        for data in ([file] * 12, [[[{"a": file}]]], [{"path": ["x"], "meta": file}]):
            for route in ("run/predict", "queue/join"):
                fields = {"data": data, "fn_index": each["id"], "event_data": file}
                assert user.post(route, fields).status == 400


def test_the_framework_looks_too_whether_a_path_was_uploaded(victim):
    """Should something get past what stands before it; mounting alone leaves that off."""
    program = f"""
import asyncio, json, tempfile
from pathlib import Path
import httpx
from vidrestore.web import access, server
folder = Path(tempfile.mkdtemp())
server._confine_gradio(folder)
app = server._app(server.ServerOptions("127.0.0.1", None, 1), folder, 1)._app
async def within(scope, receive, send):
    await app({{**scope, access.VISITOR: "me"}}, receive, send)
async def ask():
    transport = httpx.ASGITransport(within, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        config = (await client.get("/config")).json()
        names = {{str(x["api_name"]).strip("_"): x for x in config["dependencies"]}}
        handler = names["analyze"]
        for path in {[str(victim), "/etc/passwd"]!r}:
            file = {{"path": path, "meta": {{"_type": "gradio.FileData"}}}}
            data = [file, "home-video", "haar"]
            request = {{"session_hash": "abc", "data": data, "fn_index": handler["id"]}}
            got = await client.post("/gradio_api/run/predict", json=request)
            print(got.status_code)
asyncio.run(ask())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.split()[-2:] == ["500", "500"]
    assert done.stderr.count("it was not uploaded by a user") >= 2


def test_a_video_in_whose_place_a_link_was_put_is_not_followed(user, victim):
    stored = Path(json.loads(user.upload("tape.mp4").body)[0])
    stored.unlink()
    stored.symlink_to(victim)
    assert user.analyze(str(stored)).status == 400
    got = user.ask(f"/gradio_api/file={quote(str(stored))}")
    assert got.status == 404

    stored = Path(json.loads(user.upload("tape.mp4").body)[0])
    folder = folder_of(stored)
    folder.rename(folder.with_name("moved"))
    folder.symlink_to(folder.with_name("moved"))
    assert user.analyze(str(stored)).status == 400


def test_a_body_that_is_no_request_of_the_page_is_refused(user):
    deep = b'{"session_hash": "abc", "data": ' + b"[" * 50000 + b"]" * 50000 + b"}"
    nested = json.dumps({"session_hash": "abc", "data": json.loads("[" * 80 + "]" * 80)}).encode()
    bodies = [b"", b"[]", b"{", b'"x"', b"\xff", deep, nested, b" " * (2**20 + 1), b"{}"]
    bodies.append(b'{"session_hash": ["a"], "data": []}')
    for body in bodies:
        for route in ("run/predict", "queue/join"):
            got = user.ask(f"/gradio_api/{route}", body, Content_Type="application/json")
            assert got.status == 400, body[:50]
            assert b"Traceback" not in got.body


@pytest.mark.parametrize("name", ["..", ".", "../../x.mp4", "/etc/cron.d/x", "a\\..\\b.mp4", "%2e"])
def test_the_name_of_an_upload_leads_nowhere(user, page, name):
    got = user.upload(name)
    if got.status == 200:
        stored = Path(json.loads(got.body)[0])
        assert stored.resolve() == stored
        assert stored.is_relative_to(page.cache)
        assert folder_of(stored).is_dir()
    else:
        assert got.status == 400


def test_two_uploads_of_the_same_bytes_are_two_files(user):
    first, second = (Path(json.loads(user.upload("tape.mp4").body)[0]) for _ in range(2))
    assert first != second
    assert not first.samefile(second)
    folders = {
        next(p for p in each.parents if p.parent.name == "uploads") for each in (first, second)
    }
    assert len(folders) == 2
    assert all(folder.stat().st_mode & 0o077 == 0 for folder in folders)
    assert all(len(folder.name) == 32 for folder in folders)

    # Taken back: the other one stays.
    user.analyze(str(first))
    clear = next(each for each in user.handlers().values() if ends(each, "clear"))
    for _ in range(3):
        user.post("run/predict", {"data": [None], "fn_index": clear["id"]})
    assert second.read_bytes() == b"no video"


def test_several_files_at_once_leave_nothing(user, page):
    part = 'Content-Disposition: form-data; name="files"; filename="{}.mp4"\r\n\r\nx\r\n'
    body = "--x\r\n" + part.format("a") + "--x\r\n" + part.format("b") + "--x--\r\n"
    before = len([*page.cache.rglob("uploads/*")])
    got = user.ask(
        "/gradio_api/upload", body.encode(), Content_Type="multipart/form-data; boundary=x"
    )
    assert got.status == 400
    assert len([*page.cache.rglob("uploads/*")]) == before


def test_what_is_no_picture_and_no_video_is_an_attachment(user):
    html = "<script>alert(1)</script>"
    for name in ("a.html", "a.svg", "a.xml", "a.js", "a.pdf", "a"):
        stored = json.loads(user.upload(name, html.encode()).body)[0]
        got = user.ask(f"/gradio_api/file={quote(stored)}")
        assert got.status == 200
        assert got.headers["content-disposition"].startswith("attachment"), name
        assert got.headers["content-type"] == "application/octet-stream"
        assert got.headers["x-content-type-options"] == "nosniff"
        assert got.headers["cross-origin-resource-policy"] == "same-origin"
    stored = json.loads(user.upload("a.mp4").body)[0]
    got = user.ask(f"/gradio_api/file={quote(stored)}")
    assert got.headers["content-disposition"].startswith("inline")
    assert got.headers["content-type"] == "video/mp4"


def test_one_visitor_sees_and_stops_and_removes_nothing_of_another(user, page):
    other = Attacker(page).log_in()
    assert user.cookie != other.cookie
    theirs = json.loads(other.upload("theirs.mp4").body)[0]
    other.analyze(theirs)
    assert user.ask(f"/gradio_api/file={quote(theirs)}").status == 404
    assert other.ask(f"/gradio_api/file={quote(theirs)}").status == 200
    # By the name of the other's open page, which is in its requests alone.
    handlers = user.handlers()
    stolen = Attacker(page, user.cookie, other.tab)
    for each in handlers.values():
        data = [None] * len(each["inputs"])
        got = stolen.post("run/predict", {"data": data, "fn_index": each["id"]})
        assert got.status == 400
    assert stolen.ask(f"/gradio_api/queue/data?session_hash={other.tab}").status == 404
    assert stolen.ask(f"/gradio_api/heartbeat/{other.tab}").status == 404
    # By numbers.
    change = next(each for each in handlers.values() if ends(each, "change"))
    for number in range(6):
        assert user.ask(f"/result/{number}").status == 404
        assert user.ask(f"/person/{number}/1.png").status == 404
        for does in ("stop", "resume", "remove", "rmtree", "__class__", None):
            fields = {"event_data": {"does": does, "job": number}, "fn_index": change["id"]}
            got = user.post("run/predict", {"data": []} | fields)
            assert b"theirs" not in got.body
    assert Path(theirs).exists()


def test_the_folders_of_the_page_are_of_nobody_else(page):
    for path in (page.cache / "vidrestore/ui").iterdir():
        if path.is_dir():
            assert path.stat().st_mode & 0o077 == 0


def test_a_cookie_of_another_program_locks_nobody_out(user, page):
    name = f"vidrestore-{urlsplit(page.address).port}"
    own = user.cookie
    for other in ('x={"a":1}', "a,b=c", "=", "x", 'x="', "\xe9=\xe9", f"{name}=x", f'{name}="'):
        for cookie in (f"{other}; {own}", f"{own}; {other}", f"{other};{own};;"):
            user.cookie = cookie
            assert user.ask("/config").status == 200, cookie
    value = own.partition("=")[2]
    for cookie in (
        f"{name}x={value}",
        f"{name}={value}x",
        f"x={name}={value}",
        f"{name}={value[:-1]}",
    ):
        user.cookie = cookie
        assert user.ask("/config").status == 403, cookie


def progress_of(visitor: Attacker, upload_id: str) -> Answer:
    return visitor.ask(f"/gradio_api/upload_progress?upload_id={upload_id}")


def test_the_progress_of_an_upload_is_its_visitors_alone(user, page):
    """The name of the file is in it."""
    other = Attacker(page).log_in()
    assert other.upload("theirs.mp4", query="?upload_id=abc").status == 200
    assert progress_of(user, "abc").status == 404
    assert progress_of(other, "abc").status == 200
    # The same id by two visitors.
    user.upload("mine.mp4", query="?upload_id=both")
    other.upload("theirs.mp4", query="?upload_id=both")
    for each in (user, other):
        got = progress_of(each, "both")
        assert got.status == 200
        assert b"done" in got.body
    for wrong in ("a&upload_id=b", "", "../x", "x" * 200):
        assert progress_of(user, wrong).status == 404
        assert user.upload("a.mp4", query=f"?upload_id={wrong}").status == 404


def test_no_event_of_another_is_cancelled(user, page):
    """Nothing on the page cancels an event, and the framework asks not whose it is."""
    for event in ("x", uuid.uuid4().hex):
        assert user.post("cancel", {"event_id": event, "fn_index": 0}).status == 404


ORDER = {"quality": "high", "suffix": ".mkv", "people": [], "profile": "home-video",
         "detector": "haar", "restorer": "fusion", "strength": 0.5}  # fmt: skip
NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("quality", ["", "--set", None, ["high"], {"a": 1}]),
        ("suffix", ["/../../x.mp4", ".mkv/x", "", None, [".mkv"], 1]),
        ("people", ["1;--set", ["1;--set"], ["-1"], ["1"], [1], None, {"1": 1}, [["1"]], [None]]),
        ("profile", ["/victim.toml", "../x", "", None, ["home-video"], "--set"]),
        ("detector", ["--json", "x", "", None, ["haar"], [], {}]),
        ("restorer", ["/etc/passwd", "x:y", "", None, ["fusion"], [], "--help"]),
        ("strength", [NAN, INF, -INF, 1.5, -1, "0.5", None, [0.5], True, 10**400]),
    ],
)
def test_what_was_not_offered_is_refused_in_a_sentence(user, name, values):
    """Before a command begins, and without a word of Python in the terminal (see `served`)."""
    start = next(each for each in user.handlers().values() if ends(each, "start"))
    for value in values:
        data = [*(ORDER | {name: value}).values()]
        got = user.post("run/predict", {"data": data, "fn_index": start["id"]})
        assert got.status == 500, value
        said = json.loads(got.body)["error"]
        assert said == NOT_OFFERED, value
    got = user.post("run/predict", {"data": [*ORDER.values()], "fn_index": start["id"]})
    assert got.status == 200
    assert user.post("run/predict", {"data": [], "fn_index": start["id"]}).status == 500


def test_a_moment_that_is_no_number_is_refused(user):
    attempt = next(each for each in user.handlers().values() if ends(each, "preview"))
    for moment in (NAN, INF, "0", "--help", None, [0], True):
        rest = ["people", "profile", "detector", "restorer", "strength"]
        data = [moment, False, *(ORDER[name] for name in rest)]
        user.post("queue/join", {"data": data, "fn_index": attempt["id"]})
        told = f"/gradio_api/queue/data?session_hash={user.tab}"
        got = user.ask(told, until=b"process_completed")
        assert NOT_OFFERED.encode() in got.body, moment


def test_a_button_that_is_none_does_nothing(user):
    change = next(each for each in user.handlers().values() if ends(each, "change"))
    for asked in ([], ["stop"], "stop", 1, {"does": ["stop"], "job": 1}, {"does": {}, "job": {}}):
        got = user.post("run/predict", {"data": [], "event_data": asked, "fn_index": change["id"]})
        assert got.status == 200, asked


def test_what_is_refused_says_why_and_what_to_do(user, stranger):
    for got in (
        user.ask("/", Origin="null"),
        user.post("run/predict", {"data": [{"path": "/etc/passwd"}], "fn_index": 0}),
        user.ask("/absent"),
        stranger.ask("/"),
    ):
        assert got.status in (400, 403, 404)
        assert b"page" in got.body
        assert any(word in got.body for word in (b"load", b"open")), got.body


def test_other_methods_and_old_protocols_get_nothing(user, page):
    for method in ("OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "get"):
        for path in ("/", "/config", "/result/1", "/gradio_api/upload", "/gradio_api/queue/join"):
            got = user.ask(path, b"", method)
            assert got.status in (400, 404, 405), (method, path)
            assert "access-control-allow-origin" not in got.headers
    where = urlsplit(page.address)
    with socket.create_connection((where.hostname, where.port), timeout=SECONDS) as line:
        line.sendall(f"GET / HTTP/1.0\r\nCookie: {user.cookie}\r\n\r\n".encode())
        assert line.recv(100).split()[1] == b"403"
