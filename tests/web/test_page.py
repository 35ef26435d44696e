"""The local page in a browser, served by the command itself, with every way out blocked."""

import asyncio
import importlib.util
import json
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import av
import pytest
from helpers.served_page import SECONDS, Served, served, shut_in

from vidrestore import cli
from vidrestore.cli import main
from vidrestore.common.errors import OutputError, UsageError
from vidrestore.web import content as page_words
from vidrestore.web.queue import DEFECT
from vidrestore.web.server import ServerOptions, serve, work_folder

FRAMES = 24


@pytest.fixture
def weights(shared: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "weights"
    folder.mkdir()
    for name in ("face_detection_yunet_2023mar.onnx", "face_landmark.tflite"):
        if not (shared / "models" / name).exists():
            pytest.skip(f"there is no {name} in {shared / 'models'}")
        shutil.copy(shared / "models" / name, folder)
    return folder


@pytest.fixture
def clip(shared: Path, tmp_path: Path) -> Path:
    """The beginning of a real clip, small."""
    path = tmp_path / "grandma 1987.mp4"
    with av.open(str(shared / "clips/lp_s18.mp4")) as source, av.open(str(path), "w") as target:
        stream = target.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 480, 270, "yuv420p"
        for frame, _ in zip(source.decode(video=0), range(FRAMES), strict=False):
            small = frame.reformat(480, 270, "yuv420p")
            target.mux(stream.encode(small))
        target.mux(stream.encode(None))
    return path


@pytest.fixture
def browser() -> Iterator[object]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no chromium to open the page in")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


def opened(browser, page: Served):
    """A tab that shows the page, and how one waits for what is on it."""
    from playwright.sync_api import expect

    expect.set_options(timeout=1000 * SECONDS)
    tab = browser.new_page(viewport={"width": 1280, "height": 1000})
    tab.set_default_timeout(1000 * SECONDS)
    tab.on("request", lambda request: page.requests.append(request.url))
    tab.goto(page.entry)
    expect(tab.get_by_text("Your restorations")).to_be_visible()
    return tab, expect


def choose(tab, path: Path) -> None:
    tab.locator("#upload input[type=file]").set_input_files(path)


def frame_count(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


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


@pytest.mark.long
def test_a_video_is_restored_from_the_page(tmp_path, weights, clip, browser):
    with served(tmp_path, "--weights", str(weights)) as page:
        tab, expect = opened(browser, page)
        choose(tab, clip)
        person = tab.get_by_label("Person 1, 1 s", exact=True).first
        expect(person).to_be_checked()
        picture = tab.request.get(f"{page.address}/person/1/1.png")
        assert picture.ok
        assert any(url.endswith("/person/1/1.png") for url in page.requests)

        person.uncheck()
        tab.locator("#start").click()
        expect(tab.locator("#started")).to_contain_text("choose at least one person")
        person.check()

        tab.locator("#moment input[type=number]").fill("0.5")
        tab.locator("#moment input[type=number]").press("Enter")
        tab.locator("#try").click()
        before, after = (tab.locator("#slider img").nth(i) for i in (0, 1))
        expect(after).to_be_visible()
        assert before.evaluate("e => e.naturalWidth") == 480
        handle = tab.locator("#slider [data-testid=slider]")
        handle.scroll_into_view_if_needed()
        box = handle.locator(".icon-wrap").bounding_box()
        tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        tab.mouse.down()
        tab.mouse.move(box["x"] - 150, box["y"], steps=5)
        tab.mouse.up()
        expect(after).to_have_css("clip-path", re.compile(r"inset\(0px 0px 0px [123]\d\.?\d*%\)"))

        tab.locator("#start").click()
        expect(tab.locator("#list")).to_contain_text(re.compile(rf"frame \d+ of {FRAMES}"))
        link = tab.get_by_role("link", name="Download grandma 1987-clear.mp4")
        expect(link).to_be_visible()
        expect(tab.locator("#list")).to_contain_text(f"{FRAMES} frames restored")
        with tab.expect_download() as download:
            link.click()
        result = tmp_path / "result.mp4"
        download.value.save_as(result)
        assert download.value.suggested_filename == "grandma 1987-clear.mp4"
        assert frame_count(result) == FRAMES


@pytest.mark.long
def test_what_goes_wrong_or_is_interrupted(tmp_path, weights, shared, browser):
    no_video = tmp_path / "letter.mp4"
    no_video.write_text("Dear grandma, here are the tapes.")
    with served(tmp_path, "--weights", str(weights)) as page:
        tab, expect = opened(browser, page)
        choose(tab, no_video)
        expect(tab.locator("#found .wrong")).to_have_text(re.compile(r"letter\.mp4.*\.$"))
        expect(tab.locator("#start")).to_be_hidden()
        tab.get_by_role("button", name="Clear").click()

        choose(tab, shared / "clips/lp_s18.mp4")
        expect(tab.locator("#start")).to_be_visible()
        tab.locator("#start").click()
        expect(tab.locator("#started")).to_contain_text("in the list below")
        tab.locator("#start").click()
        rows = tab.locator("#list .job")
        expect(rows).to_have_count(2)
        expect(rows.nth(1)).to_contain_text("Waiting for its turn")
        expect(rows.nth(0)).to_contain_text("Restoring faces")

        tab.reload()
        expect(rows).to_have_count(2)
        expect(rows.nth(0)).to_contain_text("Restoring faces")
        expect(tab.get_by_label("Person 1, 9 s").first).to_be_checked()

        rows.nth(1).get_by_role("button", name="Stop").click()
        expect(rows.nth(1)).to_contain_text("Stopped")
        rows.nth(0).get_by_role("button", name="Stop").click()
        expect(rows.nth(0)).to_contain_text("Stopped")
        rows.nth(1).get_by_role("button", name="Remove").click()
        expect(rows).to_have_count(1)
        rows.nth(0).get_by_role("button", name="Continue").click()
        expect(rows.nth(0)).to_contain_text(re.compile(r"frame \d+ of 282"))
        # The command that runs now is ended with the page.
    assert not subprocess.run(
        ["pgrep", "-f", str(tmp_path / "cache")], capture_output=True, check=False
    ).stdout


@pytest.mark.long
def test_leaving_a_list_without_a_choice_changes_nothing(tmp_path, weights, clip, browser):
    with served(tmp_path, "--weights", str(weights)) as page:
        tab, expect = opened(browser, page)
        choose(tab, clip)
        person = tab.get_by_label("Person 1, 1 s", exact=True).first
        expect(person).to_be_checked()
        person.uncheck()
        picture = tab.locator("#found style").text_content(timeout=1000)

        tab.get_by_text("More", exact=True).click()
        tab.locator("#moment input[type=number]").fill("0.5")
        tab.locator("#moment input[type=number]").press("Enter")
        for which in ("#detector", "#jump"):
            tab.locator(f"{which} input").click()
            tab.locator("h1").first.click()
            tab.locator(f"{which} input").click()
            tab.locator(f"{which} input").press("Escape")
            tab.locator("h1").first.click()
        tab.wait_for_timeout(1500)
        expect(person).not_to_be_checked()
        expect(tab.locator("#moment input[type=number]")).to_have_value("0.5")
        assert tab.locator("#found style").text_content() == picture  # names the search

        # A choice still does what it says.
        tab.locator("#jump input").click()
        tab.get_by_role("option", name=re.compile("^Person 1")).click()
        expect(tab.locator("#moment input[type=number]")).not_to_have_value("0.5")
        tab.locator("h1").first.click()
        tab.locator("#detector input").click()
        tab.locator("#detector input").fill("Haar")
        tab.locator("#detector input").press("Enter")
        expect(tab.locator("#found style")).not_to_have_text(picture)


@pytest.mark.long
def test_each_tab_has_a_video_of_its_own(tmp_path, weights, clip, browser):
    other_clip = tmp_path / "grandpa.mp4"
    shutil.copy(clip, other_clip)  # the same bytes
    with served(tmp_path, "--weights", str(weights)) as page:
        tab, expect = opened(browser, page)
        choose(tab, clip)
        expect(tab.locator("#found")).to_contain_text("1987.mp4: 1 person")
        with tab.expect_popup() as popup:  # begins with a copy of the storage
            tab.evaluate("() => { window.open(location.href) }")
        other = popup.value
        expect(other.get_by_text("Your restorations")).to_be_visible()
        other.wait_for_timeout(1000)
        expect(other.locator("#start")).to_be_hidden()
        choose(other, other_clip)
        expect(other.locator("#found")).to_contain_text("grandpa.mp4: 1 person")
        other.get_by_role("button", name="Clear").click()
        expect(other.locator("#start")).to_be_hidden()

        tab.reload()
        expect(tab.locator("#found")).to_contain_text("1987.mp4: 1 person")
        tab.locator("#try").click()
        expect(tab.locator("#slider img").nth(1)).to_be_visible()

        stranger, expect = opened(browser, page)  # another browser, in effect
        expect(stranger.locator("#start")).to_be_hidden()


@pytest.mark.long
def test_the_file_that_the_browser_is_given_leads_to_the_page(tmp_path, browser):
    from vidrestore.cli import _redirect

    with served(tmp_path) as page, _redirect(page.entry, tmp_path) as file:
        assert file.stat().st_mode & 0o777 == 0o600
        tab = browser.new_page()
        tab.set_default_timeout(1000 * SECONDS)
        refused = []
        tab.on("response", lambda got: refused.append(got.url) if got.status >= 400 else None)
        tab.goto(file.as_uri())
        tab.get_by_text("Your restorations").wait_for()
        assert tab.url == f"{page.address}/"
        assert tab.evaluate("document.cookie") == ""
        (cookie,) = tab.context.cookies()
        assert cookie["httpOnly"]
        assert cookie["sameSite"] == "Strict"
        assert cookie["name"].endswith(str(urlsplit(page.address).port))
        assert refused == []
    assert not file.exists()


def answering() -> Callable[..., tuple[int, str, str]]:
    """Asks as one browser does, which keeps its cookie; gets status, policy and text."""
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())

    def answer(address: str, data: bytes | None = None, **headers: str) -> tuple[int, str, str]:
        own = {name.replace("_", "-"): text for name, text in headers.items()}
        request = urllib.request.Request(address, data, own)
        try:
            with opener.open(request, timeout=SECONDS) as got:
                text = got.read().decode()
                return got.status, got.headers.get("content-security-policy", ""), text
        except urllib.error.HTTPError as error:
            with error:
                return error.code, "", error.read().decode()

    return answer


def test_the_page_is_for_this_machine_and_of_this_machine(tmp_path):
    pytest.importorskip("gradio", reason="gradio is not installed")
    answer = answering()
    with served(tmp_path, "--max-upload", "0.001") as page:
        status, policy, text = answer(page.entry)
        assert status == 200
        assert "default-src 'self'" in policy
        assert "http:" not in policy
        assert "https:" not in policy
        # What a browser would fetch by itself; addresses in tags for other sites are not fetched.
        fetched = re.findall(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=\"([^\"]+)", text)
        assert fetched
        assert all(not urlsplit(url).netloc for url in fetched)
        assert "fonts.googleapis" not in text + answer(f"{page.address}/theme.css")[2]

        assert answer(page.address, Host="evil.example")[0] == 403
        assert answer(page.address, Origin="http://evil.example")[0] == 403
        assert answer(f"{page.address}/result/1")[0] == 404

        form = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.mp4"\r\n\r\n'
        kind = {"Content_Type": "multipart/form-data; boundary=x"}
        upload = f"{page.address}/gradio_api/upload"
        assert answer(upload, form + bytes(10**6 - 1) + b"\r\n--x--\r\n", **kind)[0] == 200
        assert answer(upload, form + bytes(2 * 10**6) + b"\r\n--x--\r\n", **kind)[0] == 413


@pytest.fixture
def given(monkeypatch) -> list[str]:
    """What a browser with windows is given as its argument."""
    import webbrowser

    addresses: list[str] = []

    class Browser:
        def open(self, address: str) -> None:
            addresses.append(address)

    monkeypatch.setattr(webbrowser, "get", Browser)
    return addresses


def test_the_browser_is_given_no_secret(tmp_path, given):
    """Every user of a machine can read the arguments of its processes."""
    address = "http://127.0.0.1:1/?token=secret"
    with ExitStack() as at_end:
        cli._open(address, tmp_path, at_end)
        (file,) = tmp_path.iterdir()
        assert given == [file.as_uri()]
        assert "secret" not in given[0]
        assert file.stat().st_mode & 0o777 == 0o600
        assert f"url={address}" in file.read_text()
    assert not file.exists()


def test_the_file_for_the_browser_goes_after_a_while(tmp_path, given, monkeypatch):
    monkeypatch.setattr(cli, "_SECONDS_TO_OPEN", 0.02)
    with ExitStack() as at_end:
        cli._open("http://127.0.0.1:1/?token=secret", tmp_path, at_end)
        deadline = time.monotonic() + SECONDS
        while [*tmp_path.iterdir()] and time.monotonic() < deadline:
            time.sleep(0.01)
        assert [*tmp_path.iterdir()] == []


def test_without_gradio_it_says_what_to_install(monkeypatch, capsys):
    find = importlib.util.find_spec
    absent = lambda name, *rest: None if name == "gradio" else find(name, *rest)  # noqa: E731
    monkeypatch.setattr("importlib.util.find_spec", absent)
    with pytest.raises(SystemExit) as ended:
        main(["ui", "--no-browser"])
    assert ended.value.code == 2
    assert "pip install 'vidrestore[ui]'" in capsys.readouterr().err


LISTS = """
import asyncio, json, sys
from pathlib import Path
from types import SimpleNamespace
from vidrestore.web import access
from vidrestore.web.page import Page
from vidrestore.web.session import AnalysisOptions, Session
session = Session(Path(sys.argv[1]))
folder = session.uploads.make_folder()
(folder / "tape.mp4").write_bytes(b"x")
session.uploads.keep(folder, folder / "tape.mp4", "me")
job = session.analyze("me", str(folder / "tape.mp4"), AnalysisOptions("none", "haar"))
request = SimpleNamespace(session_hash="tab", request=SimpleNamespace(scope={access.VISITOR: "me"}))
page = Page(session)
tab = session.tabs.claim("tab", "me")
tab.analysis_id = job.job_id
async def searches(detector):
    async for shown in page._analyze_again("none", detector, request):
        return True
    return False
print(json.dumps({
    "left": asyncio.run(searches("haar")),
    "same": session.analyses.jobs == [job] and tab.analysis_id == job.job_id,
    "chosen": asyncio.run(searches("yunet")),
    "events": [event for each in page.blocks.config["dependencies"] for _, event in each["targets"]
               if each["api_name"].strip("_") == "jump_to"],
}))
"""


def test_a_list_that_is_left_without_a_choice_starts_no_search(tmp_path):
    """A list sends its event then, too, with the value that it had."""
    pytest.importorskip("gradio", reason="gradio is not installed")
    run = subprocess.run(
        [sys.executable, "-c", LISTS, tmp_path], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    # That list which leads to a moment must not be bound to the event at all.
    assert found == {"left": False, "same": True, "chosen": True, "events": ["select"]}


def test_an_error_in_a_handler_reaches_the_page_as_a_sentence(caplog):
    gradio = pytest.importorskip("gradio", reason="gradio is not installed")
    from vidrestore.web.page import _with_plain_errors

    async def once(error):
        raise error

    async def goes_on(error):
        yield 1
        raise error

    async def drained(handler, error):
        async for _ in handler(error):
            pass

    for error, sentence in [
        (UsageError("the value <b> is not allowed"), "The value &lt;b&gt; is not allowed."),
        (KeyError("faces"), None),
    ]:
        for call in (_with_plain_errors(once)(error), drained(_with_plain_errors(goes_on), error)):
            with pytest.raises(gradio.Error) as raised:
                asyncio.run(call)
            assert raised.value.message == (sentence or page_words.sentence(DEFECT))
            assert not raised.value.print_exception
    assert "KeyError" in caplog.text  # for the terminal


def test_a_port_that_is_taken_is_said(tmp_path):
    pytest.importorskip("gradio", reason="gradio is not installed")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(UsageError, match=rf"port {port}.*--port"):
            serve(ServerOptions("127.0.0.1", port, 1), lambda address, folder: None)


def test_what_an_earlier_page_left_goes_and_what_another_uses_stays():
    with work_folder() as own:
        left = own.parent / "left"
        left.mkdir()
        (left / "lock").touch()
        (left / "tape.mp4").touch()
        with work_folder() as other:
            assert own.is_dir()
            assert other.is_dir()
            assert not left.exists()
        assert not other.exists()
    assert not own.exists()


def test_a_link_among_the_work_folders_is_not_followed(tmp_path):
    """Neither is one in the place of a lock."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with work_folder() as own:
        above = own.parent
        (above / "linked").symlink_to(elsewhere)
        (above / "left").mkdir()
        (above / "left/lock").symlink_to(elsewhere / "made")
        with work_folder():
            assert [*elsewhere.iterdir()] == []
            assert not (above / "left").exists()


@pytest.mark.parametrize("error", [OSError("no drive"), OSError()])
def test_a_work_folder_that_cannot_be_made_is_a_whole_sentence(monkeypatch, error):
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(Path, "iterdir", fail)
    said = r"cannot be written to: .*(no drive|no reason)"
    with pytest.raises(OutputError, match=said), work_folder():
        pass
