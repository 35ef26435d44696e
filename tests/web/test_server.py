"""The server of the page: one for each user, and what outlives it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import psutil
import pytest
from helpers.page_client import Client
from helpers.served_page import SECONDS, Served, environment_of, served, shut_in, started

from vidrestore import cli
from vidrestore.cli import main
from vidrestore.common.errors import InputError, OutputError, UsageError
from vidrestore.web import server
from vidrestore.web.access import Access
from vidrestore.web.library import Library, Visitor
from vidrestore.web.server import ServerOptions, page_folder, serve, write_redirect

needs_signals = pytest.mark.skipif(sys.platform == "win32", reason="needs signals")


@pytest.mark.parametrize(
    "code",
    [
        "import socket; socket.create_connection(('192.0.2.1', 80))",
        "import urllib.request; urllib.request.urlopen('http://example.invalid')",
    ],
)
def test_a_way_out_is_seen(tmp_path, code):
    done = subprocess.run(
        [sys.executable, "-c", code], env=shut_in(tmp_path), capture_output=True, check=False
    )
    assert b"blocked" in done.stderr
    assert (tmp_path / "blocked.log").read_text() != ""


def test_what_the_terminal_shows(tmp_path):
    with served(tmp_path) as page:
        assert page.process.stdout.readline() == (
            "Keep the address to yourself: anyone who has it can use the page.\n"
        )
        where = urlsplit(page.entry)
        assert where.hostname == "127.0.0.1"
        assert Client(page).ask("/").status == 403  # it answers when it is shown
        page.process.send_signal(signal.SIGINT)
        said = page.process.stdout.read()
    assert f"kept in {page.folder}" in said
    assert "vidrestore ui opens it again" in said


def second(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vidrestore", "ui", "--no-browser", *options],
        env=environment_of(folder), capture_output=True, text=True, check=False, timeout=SECONDS,
    )  # fmt: skip


def test_a_second_start_shows_the_first_page(tmp_path):
    with served(tmp_path) as page:
        again = second(tmp_path, "--port", "1234")
        assert (again.returncode, again.stderr) == (0, "")
        assert again.stdout.split()[4].rstrip(";") == page.entry
        assert "runs already" in again.stdout
        assert (page.folder / "address").exists()
        assert Client(page).log_in().ask("/").status == 200


def test_a_page_that_ends_makes_room_for_the_next_one(monkeypatch):
    """Also where it was killed and its address stands there."""
    folder = server._made(page_folder())
    (folder / "address").write_text('{"address": "http://127.0.0.1:1/?token=x"}')
    holding = server._only_page(folder)
    assert holding.__enter__()
    monkeypatch.setattr(server.time, "sleep", lambda seconds: holding.__exit__(None, None, None))
    seen = []

    def ready(address: str, folder: Path) -> None:
        seen.append(json.loads((folder / "address").read_text())["address"])
        assert address == seen[0]
        raise UsageError("this is enough")

    with pytest.raises(UsageError, match="this is enough"):
        serve(ServerOptions("127.0.0.1", None, 1), ready, never)
    assert "token=x" not in seen[0]
    assert len(seen) == 1


def test_a_page_that_runs_and_does_not_answer_is_said(tmp_path, monkeypatch):
    """A stopped process, or one that is ending, holds the lock."""
    monkeypatch.setattr(server, "_ADDRESS_SECONDS", 0.2)
    folder = server._made(page_folder())
    with server._only_page(folder) as is_only:
        assert is_only
        for text in ("", "[]", '{"address": 1}', '{"address": "http://127.0.0.1:1/?token=x"}'):
            (folder / "address").write_text(text)
            with pytest.raises(UsageError, match="does not answer"):
                serve(ServerOptions("127.0.0.1", None, 1), never, never)


def never(address: str, folder: Path) -> None:
    raise AssertionError("this page must not be opened")


@contextmanager
def running(folder: Path, *options: str) -> Iterator[Served]:
    """A page whose end is the test's."""
    page = started(folder, *options)
    try:
        yield page
    finally:
        page.process.kill()
        page.process.wait()
        page.process.stdout.close()


def test_an_open_tab_comes_back_with_the_next_page(tmp_path):
    """At the same address, with the same cookie, and with a later version of all it shows."""
    with running(tmp_path) as page:
        user = Client(page).log_in()
        video = user.opened("tape.mp4")
        user.analyzed(video)
        version = user.state()["version"]
        token = page.entry
        assert page.end() == 0
    with running(tmp_path) as page:
        assert page.address == token.partition("/?")[0]
        assert page.entry != token
        assert Client(page).ask(f"/?{urlsplit(token).query}").status == 403
        user.page = page
        shown = user.state()
        assert shown["version"] > version
        assert [each["id"] for each in shown["videos"]] == [video]
        assert user.video(video)["found"]["people"]
        assert user.ask(f"/media/source/{video}").body == b"no video"
        assert user.ask(f"/media/portrait/{video}/1").status == 200
        assert len([each for each in page.commands() if each[0] == "analyze"
                    and "--no-estimate" in each]) == 1  # fmt: skip
        assert user.ask(f"/api/state?since={user.state()['version']}").status == 204
        page.end()
    with closing(socket.create_server(("127.0.0.1", urlsplit(page.address).port))), \
            running(tmp_path) as page:  # fmt: skip
        assert urlsplit(page.entry).port != urlsplit(token).port


def test_two_browsers_of_the_user_show_the_same(tmp_path):
    """And two tabs, which have one cookie."""
    with served(tmp_path) as page:
        one, other = Client(page).log_in(), Client(page).log_in()
        assert one.cookie != other.cookie
        video = one.opened()
        other.analyzed(video)
        other.post(f"/api/videos/{video}/choices", {"strength": 0.5})
        version = one.state()["version"]
        assert one.video(video)["choices"]["strength"] == 0.5
        one.post(f"/api/videos/{video}/names", {"person": 1, "name": "Anna"})
        shown = other.ask(f"/api/state?since={version}")
        assert shown.status == 200
        assert shown.fields["videos"][0]["names"] == {"1": "Anna"}
        assert one.delete(f"/api/videos/{video}").status == 200
        assert other.delete(f"/api/videos/{video}").status == 404
        assert other.state()["videos"] == []


def steer(page: Served, name: str, text: str = "") -> Path:
    path = page.steering / name
    path.write_text(text)
    return path


def at_work(user: Client, restoration: str) -> int:
    """The number of the process that restores, once it has finished something."""
    user.until(lambda: user.restoration(restoration), lambda r: r["live"])
    kept = json.loads((user.page.folder / "library.json").read_text())
    (found,) = [each for each in kept["restorations"] if each["id"] == restoration]
    return int(found["job"]["process_id"])


def lives(number: int) -> bool:
    try:
        return psutil.Process(number).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@needs_signals
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_end_of_the_page_keeps_what_is_finished(tmp_path, number):
    with running(tmp_path) as page:
        user = Client(page).log_in()
        video = user.opened()
        user.analyzed(video)
        steer(page, "hold")
        first, paused = user.ordered(video), user.ordered(video)
        assert user.post(f"/api/restorations/{paused}/pause").status == 200
        process = at_work(user, first)
        assert page.end(number) == 0
        assert not lives(process)
        assert "vidrestore ui continues 1 restoration." in page.process.stdout.read()
        assert not (page.folder / "address").exists()
    (page.steering / "hold").unlink()
    with running(tmp_path) as page:
        user.page = page
        done = user.over(first)
        assert Path(page.home, "Videos", done["name"]).read_bytes() == b"no video"
        assert user.restoration(paused)["state"] == "paused"
        orders = [each for each in page.commands() if each[0] == "restore"]
        assert len(orders) == 2
        assert orders[0] == orders[1]  # the same command goes on where it stopped
        user.post(f"/api/restorations/{paused}/continue")
        user.over(paused)


@needs_signals
def test_a_killed_page_leaves_a_command_that_the_next_page_ends_and_continues(tmp_path):
    with running(tmp_path) as page:
        user = Client(page).log_in()
        video = user.opened()
        user.analyzed(video)
        hold = steer(page, "hold")
        restoration = user.ordered(video)
        process = at_work(user, restoration)
        page.process.kill()
        page.process.wait()
        assert lives(process)
        assert (page.folder / "address").exists()
    steer(page, "slow", "0.02")
    hold.unlink()
    with running(tmp_path) as page:
        user.page = page
        done = user.over(restoration)
        assert done["error"] is None
        assert not lives(process)
    orders = [each for each in page.commands() if each[0] == "restore"]
    assert len(orders) == 2


@needs_signals
def test_what_was_put_in_place_while_no_page_listened_is_done(tmp_path):
    with running(tmp_path) as page:
        user = Client(page).log_in()
        video = user.opened()
        user.analyzed(video)
        steer(page, "hold")
        restoration = user.ordered(video)
        process = at_work(user, restoration)
        page.process.kill()
        page.process.wait()
        target = page.home / "Videos/tape-clear.mp4"
        for path in (page.home / "Videos/tape-clear.mp4.vidrestore").iterdir():
            path.unlink()
        (page.home / "Videos/tape-clear.mp4.vidrestore").rmdir()
        target.write_bytes(b"the whole result")
        os.kill(process, signal.SIGKILL)
    with running(tmp_path) as page:
        user.page = page
        shown = user.over(restoration)
        assert shown["result"]
        assert user.ask(f"/media/result/{restoration}").body == b"the whole result"
        assert len([each for each in page.commands() if each[0] == "restore"]) == 1


def test_a_library_that_is_damaged_is_set_aside_and_said(tmp_path):
    with running(tmp_path) as page:
        user = Client(page).log_in()
        video = user.opened("tape.mp4", b"precious")
        user.analyzed(video)
        page.end()
    kept = page.folder / "library.json"
    whole = kept.read_bytes()
    kept.write_bytes(whole[: len(whole) // 2])
    with running(tmp_path) as page:
        user = Client(page).log_in()
        shown = user.state()
        assert "damaged" in shown["notices"][0]
        (aside,) = page.folder.glob("library-damaged-*.json")
        assert aside.read_bytes() == whole[: len(whole) // 2]
        assert aside.name in shown["notices"][0]
        # The upload is not lost.
        (again,) = shown["videos"]
        assert (again["name"], again["bytes"]) == ("tape.mp4", 8)
        assert user.ask(f"/media/source/{again['id']}").body == b"precious"
        page.end()
    with running(tmp_path) as page:
        assert Client(page).log_in().state()["notices"] == []


def test_two_lists_of_one_page_do_not_wait_for_each_other(tmp_path):
    with served(tmp_path) as page:
        user = Client(page).log_in()
        video = user.opened()
        user.analyzed(video)
        hold = steer(page, "hold")
        restoration = user.ordered(video)
        at_work(user, restoration)
        user.post(f"/api/videos/{video}/moment", {"at_seconds": 0.5})
        user.post(f"/api/videos/{video}/proxy")
        got = user.until(
            lambda: user.video(video), lambda v: v["moment"]["state"] == v["proxy"]["state"]
            and v["moment"]["state"] == "running" and user.restoration(restoration)["state"]
        )  # fmt: skip
        assert got["moment"]["state"] == "running"
        assert user.restoration(restoration)["state"] == "running"
        hold.unlink()


# In this process.


@pytest.fixture
def given(monkeypatch) -> list[str]:
    """What a browser with windows is given as its argument."""
    addresses: list[str] = []

    class Browser:
        def open(self, address: str) -> None:
            addresses.append(address)

    monkeypatch.setattr(webbrowser, "get", Browser)
    return addresses


ADDRESS = "http://127.0.0.1:1/?token=secret"


def test_the_browser_is_given_no_secret(tmp_path, given):
    """Every user of a machine can read the arguments of its processes."""
    cli._open(ADDRESS, tmp_path)
    (file,) = tmp_path.iterdir()
    assert given == [file.as_uri()]
    assert "secret" not in given[0]
    assert file.stat().st_mode & 0o777 == 0o600
    assert f"url={ADDRESS}" in file.read_text()


@pytest.mark.parametrize("browser", [None, webbrowser.GenericBrowser("lynx")])
def test_no_browser_with_windows_is_no_failure(tmp_path, monkeypatch, browser):
    def get() -> object:
        if browser is None:
            raise webbrowser.Error("no browser")
        return browser

    monkeypatch.setattr(webbrowser, "get", get)
    cli._open(ADDRESS, tmp_path)
    assert [*tmp_path.iterdir()] == []


def test_the_file_for_the_browser_goes_after_a_while(tmp_path, monkeypatch):
    new, old = write_redirect(ADDRESS, tmp_path), write_redirect(ADDRESS, tmp_path)
    os.utime(old, (time.time() - 61, time.time() - 61))
    (tmp_path / "open-folder.html").mkdir()  # which cannot be removed so
    server._remove_redirects(tmp_path, older_than_seconds=server._SECONDS_TO_OPEN)
    assert new.exists()
    assert not old.exists()
    server._remove_redirects(tmp_path, older_than_seconds=0)
    assert not new.exists()


def test_the_page_removes_the_files_for_browsers_at_its_end(tmp_path):
    with served(tmp_path) as page:
        left = write_redirect(page.entry, page.folder)
    assert not left.exists()


def test_a_port_that_is_taken_is_said():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(UsageError, match=rf"port {port}.*--port"):
            serve(ServerOptions("127.0.0.1", port, 1), never, never)


def test_a_folder_to_list_that_is_none_is_said(tmp_path):
    (tmp_path / "file").touch()
    for name in ("absent", "file"):
        with pytest.raises(UsageError, match=rf"{name}.*--folder"):
            serve(ServerOptions("127.0.0.1", None, 1, folders=(tmp_path / name,)), never, never)


@pytest.mark.parametrize("error", [OSError("no drive"), OSError()])
def test_a_folder_that_cannot_be_made_is_a_whole_sentence(monkeypatch, error):
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(Path, "mkdir", fail)
    with pytest.raises(OutputError, match=r"cannot be written to: .*(no drive|no reason)"):
        serve(ServerOptions("127.0.0.1", None, 1), never, never)


@needs_signals
def test_a_folder_of_another_user_or_a_link_is_not_used(tmp_path):
    folder = page_folder()
    folder.parent.mkdir(parents=True)
    folder.symlink_to(tmp_path)
    with pytest.raises(OutputError, match="is a link"):
        serve(ServerOptions("127.0.0.1", None, 1), never, never)
    assert [*tmp_path.iterdir()] == []


def test_a_lock_that_is_a_link_is_not_followed(tmp_path):
    folder = server._made(page_folder())
    (folder / "lock").symlink_to(tmp_path / "made")
    with server._only_page(folder) as is_only:
        assert is_only
    assert not (tmp_path / "made").exists()


def test_a_list_of_a_later_version_is_not_touched(tmp_path):
    folder = server._made(page_folder())
    (folder / "library.json").write_text('{"version": 2, "more": 1}')
    with pytest.raises(InputError, match="later version"):
        Library(folder)
    assert (folder / "library.json").read_text() == '{"version": 2, "more": 1}'


def test_a_failure_to_open_ends_the_page(monkeypatch):
    """Else it would be served, and nobody would know where."""

    def fail(address: str, folder: Path) -> None:
        raise UsageError("the address cannot be shown")

    with pytest.raises(UsageError, match="cannot be shown"):
        serve(ServerOptions("127.0.0.1", None, 1), fail, never)
    assert not (page_folder() / "address").exists()


def test_a_page_that_can_run_no_commands_ends(monkeypatch):
    async def fail(self: object) -> None:
        raise LookupError("a defect")

    monkeypatch.setattr("vidrestore.web.service.Service.work", fail)
    with pytest.raises(LookupError, match="a defect"):
        serve(ServerOptions("127.0.0.1", None, 1), lambda address, folder: None, never)


def test_a_cookie_that_was_not_used_for_a_month_is_worth_nothing():
    library = Library(server._made(page_folder()))
    now = time.time()
    library.visitors |= {
        name: Visitor(owner="local", used_seconds=now - days * 24 * 3600)
        for name, days in {"old": 31, "new": 29}.items()
    }
    Access(None, SimpleNamespace(library=library, is_local=True), port=1)
    assert list(library.visitors) == ["new"]


def test_a_second_command_opens_the_first_page(monkeypatch, given, capsys):
    def serve_already(
        serving: ServerOptions,
        on_ready: Callable[[str, Path], None],
        on_running: Callable[[str, Path], None],
    ) -> None:
        on_running(ADDRESS, server._made(page_folder()))

    monkeypatch.setattr(server, "serve", serve_already)
    with pytest.raises(SystemExit) as ended:
        main(["ui"])
    assert ended.value.code == 0
    assert ADDRESS in capsys.readouterr().out
    (file,) = page_folder().iterdir()  # stays until the page that runs removes it
    assert given == [file.as_uri()]
