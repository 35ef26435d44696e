"""An attacker's script against the page as it is served: what must not be read, or removed."""

import http.client
import json
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
from fastapi import FastAPI
from helpers.page_client import SECONDS, Client
from helpers.served_page import Served, served

from vidrestore.web.access import REPORT_POLICY
from vidrestore.web.routes import Routes

SECRET = b"root:"  # what /etc/passwd begins with
PRIVATE = b"the only copy"
NOBODY = "A" * 16
"""An id that there is not."""
NAN, INF = float("nan"), float("inf")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("attacked")


@pytest.fixture(scope="module")
def page(root: Path) -> Iterator[Served]:
    videos = root / "home/Videos"
    videos.mkdir(parents=True)
    (videos / "own.mp4").write_bytes(b"a video of the user")
    with served(root, "--offline") as page:
        yield page


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A page for the other machines of a network."""
    folder = tmp_path_factory.mktemp("public")
    with served(folder, "--offline", "--host", "0.0.0.0", warning="unencrypted") as page:
        yield page


@pytest.fixture
def stranger(page: Served) -> Client:
    """Has no token."""
    return Client(page)


@pytest.fixture
def user(page: Served) -> Client:
    """Has one, and wants more than the page gives."""
    return Client(page).log_in()


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Path]:
    """A file in a folder of somebody, both of which must survive."""
    folder = tmp_path / "victim"
    (folder / "below").mkdir(parents=True)
    path = folder / "tape.mp4"
    path.write_bytes(PRIVATE)
    yield path
    assert path.read_bytes() == PRIVATE
    assert (folder / "below").is_dir()


def routes() -> list[tuple[str, str]]:
    """Every route of the page and of the framework."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    Routes(None, Path()).add_to(app)

    def of(routes: object) -> Iterator[tuple[str, str]]:
        for route in routes:
            inner = getattr(getattr(route, "original_router", route), "routes", None)
            if getattr(route, "methods", None):
                yield from ((method, route.path) for method in route.methods)
            elif inner is not None:
                yield from of(inner)

    return sorted(set(of(app.routes)))


def filled(path: str, media_id: str = NOBODY) -> str:
    """An address of a route."""
    path = path.replace("{name:path}", "page.css").replace("{name}", "yunet")
    path = path.replace("{kind}", "source").replace("{part}", "before")
    return re.sub(r"\{[a-z_]+\}", media_id, path)


ROUTES = routes()
POSTS = [path for method, path in ROUTES if method == "POST"]
GETS = [path for method, path in ROUTES if method == "GET"]


def test_the_routes_are_those_of_the_page():
    assert len(POSTS) > 15
    assert {"/api/state", "/media/{kind}/{media_id}", "/api/folders/{folder_id}"} <= set(GETS)
    assert [path for method, path in ROUTES if method == "DELETE"] == ["/api/videos/{video_id}"]
    assert {method for method, _ in ROUTES} == {"GET", "HEAD", "POST", "DELETE"}


def test_nothing_is_there_without_the_token(stranger):
    wrong = f"vidrestore-{urlsplit(stranger.page.address).port}=x"
    others = [("GET", "/"), ("GET", "/absent"), ("GET", "/docs"), ("GET", "/openapi.json")]
    for method, path in [*ROUTES, *others]:
        for query in ("", "?token=", "?token=wrong", "?token=" + "x" * 43):
            body = b"{}" if method == "POST" else None
            for cookie in ("", wrong):
                stranger.cookie = cookie
                got = stranger.ask(
                    filled(path) + query, body, method,
                    Origin=stranger.page.address, Content_Type="application/json",
                )  # fmt: skip
                assert got.status == 403, (method, path, query)
                assert "set-cookie" not in got.headers
                assert "access-control-allow-origin" not in got.headers


def test_the_token_becomes_a_cookie_that_no_script_and_no_other_site_gets(stranger, page, root):
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
    assert got.headers["set-cookie"] == cookie  # for another month
    assert "set-cookie" not in stranger.ask("/api/state").headers
    assert token.encode() not in got.body + stranger.ask("/api/state").body
    # For the exchange alone, and not for another address.
    assert Client(page).ask(f"/api/state?{where.query}").status == 403
    assert Client(page).ask(f"/?{where.query}", b"", "POST").status == 403
    # The library holds only what recognizes a cookie.
    kept = (page.folder / "library.json").read_text()
    assert stranger.cookie.partition("=")[2] not in kept


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs /proc")
def test_the_token_stands_where_only_its_user_can_read(page, root):
    token = page.entry.partition("token=")[2]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            assert token.encode() not in (process / "cmdline").read_bytes()
        except OSError:
            continue
    assert token not in (root / "stderr").read_text()
    holding = [
        path for path in root.rglob("*") if path.is_file() and token.encode() in path.read_bytes()
    ]
    assert holding == [page.folder / "address"]
    assert holding[0].stat().st_mode & 0o777 == 0o600
    for path in (page.folder, page.folder / "uploads", page.folder / "work"):
        assert not path.exists() or path.stat().st_mode & 0o077 == 0


def test_the_log_holds_no_token(tmp_path):
    """Not even the most detailed one."""
    with served(tmp_path, "--verbose", warning="DEBUG") as page:
        user = Client(page).log_in()
        user.opened()
        assert user.state()["videos"]
    logged = (tmp_path / "stderr").read_text()
    assert page.entry.partition("token=")[2] not in logged
    assert user.cookie.partition("=")[2] not in logged


FOREIGN = [
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
]


@pytest.mark.parametrize("headers", FOREIGN)
def test_another_site_is_refused_on_every_route(user, headers):
    """With the cookie: a browser may send it. A rebound name has the origin that belongs to it."""
    headers = {name: text.replace("HOST", user.host) for name, text in headers.items()}
    if "Host" in headers:
        headers["Origin"] = f"http://{headers['Host']}"
    for path in ("/", "/absent", *map(filled, GETS)):
        got = user.ask(path, **headers)
        assert got.status == 403, path
        assert got.headers["cross-origin-resource-policy"] == "same-origin"
    for path in map(filled, POSTS):
        assert user.post(path, **headers).status == 403, path
    assert user.delete(f"/api/videos/{NOBODY}", **headers).status == 403


def test_an_order_needs_the_origin_of_the_page(user):
    """A form of another site sends none in old browsers."""
    for path in map(filled, POSTS):
        got = user.ask(path, b"{}", Content_Type="application/json")
        assert got.status == 403, path
    assert user.ask(f"/api/videos/{NOBODY}", method="DELETE").status == 403


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]
)
def test_an_order_needs_a_type_that_no_form_can_send(user, kind):
    for path in map(filled, POSTS):
        assert user.send(path, b"{}", Content_Type=kind).status == 415, path


def test_another_site_gets_no_cookie_with_a_token_either(page):
    """But for a browser that was sent here by the file that it was given."""
    path = f"/?{urlsplit(page.entry).query}"
    script = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors"}
    for headers in (script, {"Host": "evil.example"}, {"Origin": "http://evil.example"}):
        got = Client(page).ask(path, **headers)
        assert got.status == 403
        assert "set-cookie" not in got.headers
    got = Client(page).ask(path, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate")
    assert got.status == 200
    assert "set-cookie" in got.headers


def lines_sent(user: Client, *lines: str) -> bytes:
    """The status of a request that no client would send."""
    where = urlsplit(user.page.address)
    with socket.create_connection((where.hostname, where.port), timeout=SECONDS) as line:
        line.sendall("\r\n".join([*lines, "", ""]).encode())
        return line.recv(100).split()[1]


def test_a_header_that_is_given_twice_is_refused(user):
    usual = ["GET /api/state HTTP/1.1", f"Host: {user.host}", f"Cookie: {user.cookie}"]
    for twice in ("Host: evil.example", "Origin: http://evil.example", "Sec-Fetch-Site: none"):
        name = twice.partition(":")[0]
        own = f"{name}: http://{user.host}" if name == "Origin" else "X-A: 1"
        status = lines_sent(user, *usual, own, twice, twice, "Connection: close")
        assert status in (b"400", b"403"), twice
    assert lines_sent(user, *usual, "Connection: close") == b"200"


def test_a_websocket_is_refused(user):
    for path in ("/", "/api/state", "/ws"):
        got = user.ask(
            path,
            Upgrade="websocket",
            Connection="Upgrade",
            Sec_WebSocket_Version="13",
            Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZQ==",
            Origin="http://evil.example",
        )
        assert got.status == 403


def test_other_methods_and_old_protocols_get_nothing(user):
    for method in ("OPTIONS", "PUT", "PATCH", "TRACE", "CONNECT", "get", "PROPFIND"):
        for path in ("/", "/api/state", "/api/videos", f"/media/source/{NOBODY}"):
            try:
                got = user.ask(path, b"", method, Origin=user.page.address)
            except http.client.HTTPException:
                continue  # the server closed the connection
            assert got.status in (400, 404, 405), (method, path)
            assert "access-control-allow-origin" not in got.headers
    for method, path in (("POST", "/api/state"), ("DELETE", "/api/state"), ("DELETE", "/")):
        got = user.ask(
            path, b"{}", method, Origin=user.page.address, Content_Type="application/json"
        )
        assert got.status == 405, (method, path)
    for path in ("/docs", "/redoc", "/openapi.json", "/metrics"):
        assert user.ask(path).status == 404
    assert lines_sent(user, "GET / HTTP/1.0", f"Cookie: {user.cookie}") == b"403"


def test_every_answer_forbids_what_the_page_does_not_need(user, stranger):
    answers = [user.ask("/"), user.ask("/api/state"), user.ask("/absent"), stranger.ask("/")]
    for got in answers:
        policy = got.headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert got.headers["x-content-type-options"] == "nosniff"
        assert got.headers["referrer-policy"] == "no-referrer"
        assert got.headers["cross-origin-opener-policy"] == "same-origin"
        assert "no-" in got.headers["cache-control"]


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
        f"..%2f..%2f..%2f..%2f..{path}",
        f"%252e%252e%252f{path}",
    ]


def test_no_route_reads_a_file_of_the_disk(user, victim, page):
    link = victim.parent / "link.mp4"
    link.symlink_to("/etc/passwd")
    video = user.opened()
    before = ["/static/", "/media/", "/media/source/", f"/media/source/{video}/", "/api/folders/",
              f"/media/portrait/{video}/", f"/media/loop/{video}/", f"/media/download/{video}/",
              f"/media/{video}/", "/api/videos/", "/"]  # fmt: skip
    for target in ("/etc/passwd", str(victim), str(link), str(page.folder / "library.json")):
        for form in forms_of(target):
            for each in before:
                got = user.ask(each + form.replace(" ", "%20"))
                assert got.status in (400, 404, 405), each + form
                assert SECRET not in got.body
                assert PRIVATE not in got.body
    for name in ("../routes.py", "..%2froutes.py", "../../pyproject.toml", "__init__.py", ".", ""):
        assert user.ask(f"/static/{name}").status == 404


def test_a_path_is_no_id(user, victim):
    for name in (*forms_of(str(victim)), str(victim.parent), "", ".", "..", "~", NOBODY, "é", "\0"):
        for fields in ({"entry": name}, {"entry": name, "path": str(victim)}):
            assert user.post("/api/videos/open", fields).status in (400, 404), name
        video = user.opened()
        target = {"folder": name, "name": "x.mp4"}
        assert user.post(f"/api/videos/{video}/target", target).status in (400, 404)
        user.delete(f"/api/videos/{video}")


def folder_named(user: Client, *names: str) -> str:
    """The id of a listed folder."""
    (home,) = user.ask("/api/folders").fields
    entry = home["id"]
    for name in names:
        folders = user.ask(f"/api/folders/{entry}").fields["folders"]
        entry = next(each["id"] for each in folders if each["name"] == name)
    return str(entry)


def test_only_videos_below_the_named_folders_are_listed(user, root, victim):
    home = root / "home"
    (home / ".hidden").mkdir(exist_ok=True)
    (home / ".hidden/secret.mp4").write_bytes(PRIVATE)
    shown = home / "Shown"
    shown.mkdir()
    (shown / "letter.txt").write_bytes(PRIVATE)
    (shown / ".secret.mp4").write_bytes(PRIVATE)
    os.mkfifo(shown / "pipe.mp4")
    (shown / "folder.mp4").mkdir()
    for name, target in {
        "out.mp4": victim, "folder out": victim.parent, "passwd.mp4": Path("/etc/passwd"),
        "hidden": home / ".hidden", "hidden.mp4": home / ".hidden/secret.mp4",
        "loop.mp4": shown / "loop.mp4", "nowhere.mp4": shown / "absent",
        "page": home / "data/vidrestore/ui", "root": Path("/"),
        "inside.mp4": home / "Videos/own.mp4", "inside": home / "Videos",
    }.items():  # fmt: skip
        (shown / name).symlink_to(target)
    listing = user.ask(f"/api/folders/{folder_named(user, 'Shown')}").fields
    assert [each["name"] for each in listing["files"]] == ["inside.mp4"]
    assert [each["name"] for each in listing["folders"]] == ["folder.mp4", "inside"]
    assert listing["path_shown"] == "~/Shown"
    text = json.dumps([listing, user.ask("/api/folders").fields])
    assert str(root) not in text
    # A folder by way of a link has the folder above that it really has.
    inside = next(each["id"] for each in listing["folders"] if each["name"] == "inside")
    above = user.ask(f"/api/folders/{inside}").fields
    assert above["path_shown"] == "~/Videos"
    assert user.ask(f"/api/folders/{above['parent']}").fields["parent"] is None


def test_an_id_leads_to_what_is_there_now(user, root, victim):
    """Not to what a link leads to that took the place of a file after it was listed."""
    folder = root / "home/Swapped"
    (folder / "below").mkdir(parents=True)
    (folder / "below/tape.mp4").write_bytes(b"small")
    entry = folder_named(user, "Swapped", "below")
    listing = user.ask(f"/api/folders/{entry}").fields
    (file,) = listing["files"]
    opened = user.post("/api/videos/open", {"entry": file["id"]})
    assert opened.status == 200
    video = opened.fields["video"]
    assert user.ask(f"/media/source/{video}").body == b"small"
    (folder / "below/tape.mp4").unlink()
    (folder / "below/tape.mp4").symlink_to(victim)
    assert user.post("/api/videos/open", {"entry": file["id"]}).status == 404
    got = user.ask(f"/media/source/{video}")
    assert got.status == 404
    assert PRIVATE not in got.body
    (folder / "below/tape.mp4").unlink()
    (folder / "below").rmdir()
    (folder / "below").symlink_to(victim.parent)
    for path in (f"/api/folders/{entry}", f"/media/source/{video}"):
        assert user.ask(path).status == 404
    for fields in ({"entry": file["id"]}, {"entry": entry}):
        assert user.post("/api/videos/open", fields).status == 404
    target = {"folder": entry, "name": "x.mp4"}
    assert user.post(f"/api/videos/{video}/target", target).status == 404


def test_ids_cannot_be_guessed_and_are_of_one_kind(user):
    (home,) = user.ask("/api/folders").fields
    listing = user.ask(f"/api/folders/{folder_named(user, 'Videos')}").fields
    ids = {home["id"], listing["id"], listing["files"][0]["id"], user.opened(), user.opened()}
    assert len(ids) == 5
    assert all(re.fullmatch(r"[\w-]{16}", each) for each in ids)
    file, video = listing["files"][0]["id"], user.opened()
    assert user.ask(f"/api/folders/{file}").status == 404
    assert user.ask(f"/media/source/{file}").status == 404
    assert user.post("/api/videos/open", {"entry": listing["id"]}).status == 404
    assert user.ask(f"/media/result/{video}").status == 404
    assert user.post(f"/api/restorations/{video}/pause").status == 404


BODIES = [
    b"", b"[]", b"{", b'"x"', b"\xff", b"null", b"1", b"NaN", b'{"a": 1}', b'{"__proto__": {}}',
    b"[" * 50_000 + b"]" * 50_000, b'{"name":' * 9000 + b"1" + b"}" * 9000,
]  # fmt: skip


@pytest.mark.parametrize("body", BODIES, ids=lambda body: str(body[:12]))
def test_a_body_that_is_no_request_of_the_page_is_refused(user, body):
    video = user.opened()
    for path in POSTS:
        if path != "/api/videos":
            got = user.send(filled(path, video), body)
            assert got.status in (400, 413), (path, got.body)
            assert got.fields["error"].endswith(".")
            assert b"Traceback" not in got.body


def test_a_body_that_is_too_long_is_refused(user):
    for path in POSTS:
        if path != "/api/videos":
            got = user.send(filled(path), b"{}" + b" " * 2**17)
            assert got.status == 413, path


WRONG = [
    ("choices", "profile", ["/victim.toml", "../x", "", None, ["film"], "--set", 1, "quick"]),
    ("choices", "restorer", ["/etc/passwd", "x:y", "", None, ["fusion"], {}, "--help",
                              "gpen-2048"]),
    ("choices", "detector", ["--json", "x", "", None, ["haar"], [], {}]),
    ("choices", "quality", ["", "--set", None, ["high"], {"a": 1}, 12]),
    ("choices", "container", ["/../../x.mp4", ".mkv/x", "", None, [".mkv"], 1, ".exe", "mp4"]),
    ("choices", "people", ["1;--set", ["1"], [-1], [0], [1.5], [True], 1, {"1": 1}, [[1]], [None],
                           [99], [10**30]]),
    ("choices", "strength", [NAN, INF, -INF, 1.5, -1, "0.5", None, [0.5], True, 10**400]),
    ("choices", "least_eye_px", [NAN, INF, -1, "1", None, 10**9, True]),
    ("choices", "start_seconds", [NAN, INF, -1, "1", [1], True, 10**12, "--help"]),
    ("choices", "end_seconds", [NAN, INF, -1, 0, "1", [1], True, 10**12]),
    ("choices", "key_frames", [1, "true", None, [True]]),
    ("choices", "unknown", [1]),
    ("names", "person", [0, -1, 1.5, "1", None, True, 10**30, 99]),
    ("names", "name", [1, None, ["x"], "x" * 61, "x" * 2000]),
    ("moment", "at_seconds", [NAN, INF, -1, "0", "--help", None, [0], True, 10**400]),
    ("target", "folder", [1, ["x"], True, "x" * 100]),
    ("target", "name", [1, None, ["x"], "x" * 2000]),
    ("restore", "overwrite", [1, "true", None, []]),
]  # fmt: skip
WHOLE = {"choices": {}, "names": {"person": 1, "name": "x"}, "moment": {"at_seconds": 0},
         "target": {"folder": None, "name": ""}, "restore": {}}  # fmt: skip


@pytest.mark.parametrize(("order", "name", "values"), WRONG)
def test_what_was_not_offered_is_refused_in_a_sentence(user, page, order, name, values):
    """Before a command begins, and without a word of Python in the terminal (see `served`)."""
    video = user.opened()
    user.analyzed(video)
    begun = [each for each in page.commands() if each[0] not in ("analyze",)]
    for value in values:
        got = user.post(f"/api/videos/{video}/{order}", WHOLE[order] | {name: value})
        assert got.status in (400, 404, 413), (value, got.body)
        said = got.fields["error"]
        assert said.endswith("."), value
        assert not re.search(r"pydantic|Error|type=|Input", said)
    assert begun == [each for each in page.commands() if each[0] not in ("analyze",)]
    assert user.post(f"/api/videos/{video}/{order}", WHOLE[order]).status == 200


@pytest.mark.parametrize(
    "name",
    ["../x.mp4", "..", "a/b.mp4", "a\\b.mp4", "/etc/x.mp4", "x\0.mp4", "x\n.mp4", "con.mp4",
     "LPT1.mkv", ".mp4", ".hidden.mp4", "x.exe", "x", "x.mp4.html", "x" * 300 + ".mp4",
     "x\u202e.mp4",
     "x\ud800.mp4"],
)  # fmt: skip
def test_a_result_has_no_name_that_leads_elsewhere(user, name):
    video = user.opened()
    got = user.post(f"/api/videos/{video}/target", {"folder": None, "name": name})
    assert got.status == 400, got.body
    assert got.fields["error"].endswith(".")
    assert re.fullmatch(r"tape-clear(-\d+)?.mp4", user.video(video)["target"]["name"])


@pytest.mark.parametrize(
    "name",
    ["..", ".", "../../x.mp4", "/etc/cron.d/x", "a\\..\\b.mp4", "%2e", "", "x\0y.mp4", "a\nb.mp4",
     "\u202egpj.mp4", "'\"`$(id).mp4", "CON.mp4", "x" * 900 + ".mp4", "\U0001f600.mp4"],
)  # fmt: skip
def test_the_name_of_an_upload_leads_nowhere(user, page, name):
    video = user.opened(name)
    stored = [path for path in (page.folder / "uploads").rglob("*") if path.is_file()]
    assert all(path.resolve() == path for path in stored)
    assert all(path.parent.parent == page.folder / "uploads" for path in stored)
    assert all(path.name.isprintable() and len(path.name.encode()) < 255 for path in stored)
    got = user.ask(f"/media/source/{video}")
    assert got.status == 200
    assert "\n" not in got.headers["content-disposition"]
    assert "set-cookie" not in got.headers
    user.delete(f"/api/videos/{video}")


def test_a_name_adds_no_header_and_no_markup(user, root):
    """JSON holds it as a text; the page shows it as one."""
    folder = root / "home/Names"
    folder.mkdir()
    for name in ("a\r\nSet-Cookie: x=1\r\n\r\n<script>.mp4", 'b";filename=x.html.mp4'):
        (folder / name).write_bytes(b"small")
    odd = os.fsdecode(b"c\xff.mp4")
    (folder / odd).write_bytes(b"small")
    listing = user.ask(f"/api/folders/{folder_named(user, 'Names')}").fields
    assert len(listing["files"]) == 3
    assert all("\r" not in each["name"] and "\n" not in each["name"] for each in listing["files"])
    for each in listing["files"]:
        video = user.post("/api/videos/open", {"entry": each["id"]}).fields["video"]
        user.analyzed(video)
        got = user.ask(f"/media/source/{video}")
        assert got.status == 200
        assert got.body == b"small"
        assert "set-cookie" not in got.headers
        restoration = user.ordered(video)
        user.over(restoration)
        got = user.ask(f"/media/download/{restoration}")
        assert got.headers["content-disposition"].startswith("attachment")
        assert "set-cookie" not in got.headers


def test_what_is_no_picture_and_no_video_is_an_attachment(user):
    html = b"<script>alert(1)</script>"
    for name in ("a.html", "a.svg", "a.xml", "a.js", "a.pdf", "a", "a.mp4.html"):
        got = user.ask(f"/media/source/{user.opened(name, html)}")
        assert got.status == 200
        assert got.headers["content-disposition"].startswith("attachment"), name
        assert got.headers["content-type"] == "application/octet-stream"
        assert got.headers["x-content-type-options"] == "nosniff"
        assert got.headers["cross-origin-resource-policy"] == "same-origin"
    got = user.ask(f"/media/source/{user.opened('a.mp4')}")
    assert got.headers["content-disposition"].startswith("inline")
    assert got.headers["content-type"] == "video/mp4"


def test_parts_of_a_file_are_parts_of_this_file(user):
    path = f"/media/source/{user.opened('a.mp4', bytes(range(100)))}"
    got = user.ask(path, Range="bytes=10-19")
    assert (got.status, got.body) == (206, bytes(range(10, 20)))
    assert got.headers["content-range"] == "bytes 10-19/100"
    assert user.ask(path, Range="bytes=-5").body == bytes(range(95, 100))
    for wrong in (
        "bytes=200-300",
        "bytes=x",
        "bytes=5-1",
        "bytes=-",
        "lines=1-2",
        "bytes=0-0," * 5000,
    ):
        got = user.ask(path, Range=wrong[:4000])
        assert got.status in (200, 206, 400, 416), wrong
        assert len(got.body) < 10**5
    assert user.ask(path, method="HEAD").body == b""


def test_a_report_cannot_reach_the_page(user, page):
    """Its scripts run as a page of no site, without a connection."""
    video = user.opened()
    user.analyzed(video)
    restoration = user.ordered(video)
    user.over(restoration)
    got = user.ask(f"/media/report/{restoration}")
    assert got.status == 200
    policy = got.headers["content-security-policy"]
    assert policy == REPORT_POLICY
    assert "sandbox allow-scripts;" in policy
    assert "allow-same-origin" not in policy
    assert "default-src 'none'" in policy
    assert "connect-src" not in policy
    # What it sent all the same would have no origin, and a browser would say from where it comes.
    for headers in ({"Origin": "null"}, {"Sec_Fetch_Site": "cross-site", "Origin": "null"}):
        assert user.post(f"/api/restorations/{restoration}/remove", **headers).status == 403
        assert user.ask("/api/state", **headers).status == 403


def test_a_video_in_whose_place_a_link_was_put_is_not_followed(user, page, victim):
    video = user.opened("mine.mp4")
    stored = next((page.folder / "uploads").rglob("mine.mp4"))
    stored.unlink()
    stored.symlink_to(victim)
    assert user.ask(f"/media/source/{video}").status == 404
    assert user.post(f"/api/videos/{video}/moment", {"at_seconds": 0}).status == 409
    assert user.delete(f"/api/videos/{video}").status == 200

    video = user.opened("mine.mp4")
    folder = next((page.folder / "uploads").rglob("mine.mp4")).parent
    folder.rename(folder.with_name("moved"))
    folder.symlink_to(victim.parent)
    assert user.ask(f"/media/source/{video}").status == 404
    assert user.delete(f"/api/videos/{video}").status == 200
    folder.unlink()


def test_no_order_removes_a_file_of_the_user(user, root):
    own = root / "home/Videos/own.mp4"
    listing = user.ask(f"/api/folders/{folder_named(user, 'Videos')}").fields
    entry = next(each["id"] for each in listing["files"] if each["name"] == "own.mp4")
    video = user.post("/api/videos/open", {"entry": entry}).fields["video"]
    user.analyzed(video)
    restoration = user.ordered(video)
    done = user.over(restoration)
    result = own.with_name(done["name"])
    assert result.exists()
    remove = f"/api/restorations/{restoration}/remove"
    assert user.post(remove, {"delete_result": True}).status == 409
    assert user.post(remove, {}).status == 200
    assert user.delete(f"/api/videos/{video}").status == 200
    assert own.read_bytes() == b"a video of the user"
    assert result.exists()
    result.unlink()


def test_two_uploads_of_the_same_bytes_are_two_files(user, page):
    first, second = user.opened("twice.mp4"), user.opened("twice.mp4")
    paths = [*(page.folder / "uploads").rglob("twice.mp4")]
    assert len(paths) == 2
    assert len({path.parent for path in paths}) == 2
    assert all(path.parent.stat().st_mode & 0o077 == 0 for path in paths)
    assert user.delete(f"/api/videos/{first}").status == 200
    assert user.ask(f"/media/source/{second}").body == b"no video"
    assert len([*(page.folder / "uploads").rglob("twice.mp4")]) == 1


def uploads(page: Served) -> int:
    return len([*(page.folder / "uploads").iterdir()])


def test_an_upload_that_is_not_whole_leaves_nothing(user, page):
    user.opened()
    before = uploads(page)
    where = urlsplit(page.address)
    lines = [
        "POST /api/videos?name=a.mp4 HTTP/1.1", f"Host: {user.host}", f"Cookie: {user.cookie}",
        f"Origin: {page.address}", "Content-Type: application/octet-stream",
    ]  # fmt: skip
    with socket.create_connection((where.hostname, where.port), timeout=SECONDS) as line:
        line.sendall("\r\n".join([*lines, "Content-Length: 1000", "", "some"]).encode())
        user.until(lambda: uploads(page), lambda count: count == before + 1)
    user.until(lambda: uploads(page), lambda count: count == before)
    # Without a size, or with more than one.
    chunked = lines_sent(user, *lines, "Transfer-Encoding: chunked", "", "1", "a", "0")
    assert chunked == b"411"
    for size in ("-1", "x", "1e3", "999999999999999999999", "60000000000"):
        got = user.upload("a.mp4", b"", Content_Length=size) if size[0] == "6" else None
        status = lines_sent(user, *lines, f"Content-Length: {size}") if got is None else got.status
        assert status in (b"400", b"411", b"413", 413), size
    assert user.upload("a.mp4", b"").status == 400
    assert uploads(page) == before


def test_a_cookie_of_another_program_locks_nobody_out(user):
    name = f"vidrestore-{urlsplit(user.page.address).port}"
    own = user.cookie
    for other in ('x={"a":1}', "a,b=c", "=", "x", 'x="', "\xe9=\xe9", f"{name}=x", f'{name}="'):
        for cookie in (f"{other}; {own}", f"{own}; {other}", f"{other};{own};;"):
            user.cookie = cookie
            assert user.ask("/api/state").status == 200, cookie
    value = own.partition("=")[2]
    for cookie in (
        f"{name}x={value}",
        f"{name}={value}x",
        f"x={name}={value}",
        f"{name}={value[:-1]}",
        f"{name}=",
    ):
        user.cookie = cookie
        assert user.ask("/api/state").status == 403, cookie


def test_what_is_refused_says_why_and_what_to_do(user, stranger):
    for got in (
        user.ask("/", Origin="null"),
        user.post("/api/videos/open", {"path": "/etc/passwd"}),
        user.ask("/absent"),
        stranger.ask("/"),
        stranger.ask("/api/state"),
    ):
        assert got.status in (400, 403, 404)
        assert b"page" in got.body
        assert any(word in got.body for word in (b"load", b"open")), got.body


# A page that is served to others.


@pytest.fixture
def visitors(public: Served) -> tuple[Client, Client]:
    """Two who opened the page."""
    one, other = Client(public).log_in(), Client(public).log_in()
    assert one.cookie != other.cookie
    return one, other


def test_one_visitor_sees_and_stops_and_removes_nothing_of_another(visitors, public):
    user, other = visitors
    video = other.opened("theirs.mp4")
    other.analyzed(video)
    other.post(f"/api/videos/{video}/moment", {"at_seconds": 0.5})
    restoration = other.ordered(video)
    other.over(restoration)
    other.until(lambda: other.video(video)["moment"], lambda m: m["state"] == "done")
    assert b"theirs" not in user.ask("/api/state").body
    media = [
        f"{kind}/{each}"
        for kind in (
            "source",
            "proxy",
            "thumbnail",
            "result",
            "download",
            "live",
            "report",
            "restored-source",
            "result-proxy",
        )
        for each in (video, restoration)
    ]
    media += [f"portrait/{video}/1", f"loop/{video}/before", f"loop/{video}/after"]  # fmt: skip
    seen = 0
    for path in media:
        seen += other.ask(f"/media/{path}").status == 200
        assert user.ask(f"/media/{path}").status == 404, path
    assert seen >= 8
    for order, fields in WHOLE.items():
        assert user.post(f"/api/videos/{video}/{order}", fields).status == 404
    for order in ("pause", "continue", "show", "remove", "proxy"):
        assert user.post(f"/api/restorations/{restoration}/{order}").status == 404
    for order in ("proxy", "analyze"):
        assert user.post(f"/api/videos/{video}/{order}").status == 404
    assert user.delete(f"/api/videos/{video}").status == 404
    assert other.restoration(restoration)["result"]
    # Removed by the one who owns them, with the files.
    assert other.post(
        f"/api/restorations/{restoration}/remove", {"delete_result": True}
    ).status == 200  # fmt: skip
    assert other.delete(f"/api/videos/{video}").status == 200
    assert not [*public.folder.rglob("theirs*")]


def test_a_page_for_others_shows_nothing_of_this_computer(visitors, public):
    user, _ = visitors
    video = user.opened("mine.mp4")
    user.analyzed(video)
    restoration = user.ordered(video)
    done = user.over(restoration)
    text = user.ask("/api/state").body.decode()
    assert str(public.home) not in text
    assert "~" not in text
    assert not done["can_show"]
    assert done["place_shown"] is None
    assert done["is_in_library"]
    for path in ("/api/folders", f"/api/folders/{NOBODY}"):
        assert user.ask(path).status == 404
    assert user.post("/api/videos/open", {"entry": NOBODY}).status == 404
    assert user.post(f"/api/restorations/{restoration}/show").status == 404
    target = {"folder": NOBODY, "name": "x.mp4"}
    assert user.post(f"/api/videos/{video}/target", target).status == 404
    assert [*(public.home / "Videos").iterdir()] == []
    # Results of two orders do not meet.
    again = user.ordered(video)
    user.over(again)
    assert user.ask(f"/media/download/{again}").status == 200
    assert user.ask(f"/media/download/{restoration}").status == 200


def test_a_page_for_others_takes_other_names_but_no_other_site(visitors):
    user, _ = visitors
    assert user.ask("/api/state", Host="tapes.example").status == 200
    for origin in ("http://evil.example", "null"):
        assert user.ask("/api/state", Host="tapes.example", Origin=origin).status == 403
        got = user.post("/api/settings", {"keep_days": 1}, Host="tapes.example", Origin=origin)
        assert got.status == 403
