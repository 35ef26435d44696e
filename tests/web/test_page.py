"""The page in a browser. In quick tests a stand-in speaks as the commands do."""

import os
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from helpers import holding
from helpers.page_in_browser import (
    DESKTOP,
    PHONE,
    TABLET,
    Browser,
    chromium,
    distances_seconds,
    drop,
    hosts,
    violations,
    wait_until,
    write_clip,
)
from helpers.served_page import Served, served, started

STAND_IN_SECONDS = 1.2
RATE = 25
BOTH = ("#before", "#after")
# Two videos stand still, one so many seconds after the other.
ARE_TOGETHER = """
([before, after, offset, most]) => {
  const [first, second] = [document.querySelector(before), document.querySelector(after)];
  const isStill = [first, second].every((each) => each.paused && !each.seeking);
  return isStill && Math.abs(first.currentTime - second.currentTime - offset) < most;
}
"""
# A browser also stops at itself, where the page has no focus.
HAS_FOCUS_IN_DIALOG = """
(() => {
  const focused = document.activeElement;
  return focused === document.body || focused.closest("dialog[open]") !== null;
})()
"""


@pytest.fixture
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture
def expect() -> Any:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    return playwright.expect


@pytest.fixture
def tape(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "Grandma 1987.mp4", seconds=STAND_IN_SECONDS)


def videos_of(folder: Path) -> Path:
    """The folder of videos in the home of the page's user."""
    videos = folder / "home/Videos"
    videos.mkdir(parents=True, exist_ok=True)
    return videos


def choose_here(tab: Any, *names: str) -> None:
    """Open files of this computer, in the folder Videos."""
    tab.get_by_role("button", name="Choose on this computer").click()
    dialog = tab.get_by_role("dialog", name="Choose videos on this computer")
    dialog.get_by_role("button", name="Videos", exact=True).click()
    for name in names:
        dialog.get_by_role("button", name=re.compile(f"^{re.escape(name)}")).click()
    dialog.get_by_role("button", name=re.compile("^Open")).click()
    dialog.wait_for(state="hidden")


TRIES = 5
"""How often a busy machine may try to play two videos in step."""


def loops_together(tab: Any, count: int, most_seconds: float) -> bool:
    """Whether the two loops of a moment play together."""
    tries = (distances_seconds(tab, "#loop-before", "#loop-after", 0, count) for _ in range(TRIES))
    return any(np.median(np.abs(apart)) < most_seconds for apart in tries)


def videos_together(tab: Any, offset: float, count: int, most_seconds: float) -> bool:
    """Whether source and result play together from the beginning, and stand still at one frame."""
    for _ in range(TRIES):
        tab.keyboard.press("Home")
        tab.keyboard.press(" ")
        apart = distances_seconds(tab, *BOTH, offset, count)
        tab.keyboard.press(".")  # also where they have ended
        wait_until(tab, ARE_TOGETHER, [*BOTH, offset, most_seconds])
        if np.median(np.abs(apart)) < most_seconds:
            return True
    return False


def restorer_button(tab: Any) -> Any:
    return tab.get_by_role("button", name="Restore", exact=True)


def row(tab: Any, name: str) -> Any:
    """A restoration in the list."""
    return tab.get_by_role("listitem", name=name, exact=True)


def test_a_dropped_video_is_restored(tmp_path, browser, expect, tape):
    other = write_clip(tmp_path / "tape 2.mp4", seconds=STAND_IN_SECONDS)
    with served(tmp_path) as page:
        tab = browser.open(page)
        drop(tab, [tape, other])
        expect(tab.get_by_role("heading", name=tape.name, exact=True)).to_be_visible()
        expect(tab.get_by_role("list", name="Open videos").get_by_role("listitem")).to_have_count(2)
        expect(tab.locator("#bar-estimate")).to_have_text(
            "45 faces, about 1 min on this machine"
        )  # 45 faces of 1 s, 30 frames of 0.5 s

        tab.get_by_label("Name of person 1").fill("Anna <b>")
        tab.get_by_label("Name of person 1").press("Enter")
        clearest = tab.get_by_role("button", name="Go to the clearest view of Anna <b>")
        expect(clearest).to_be_visible()
        tab.get_by_label("Restore Person 2").uncheck()
        expect(tab.locator(".lane").nth(1)).to_have_class("lane is-off")
        expect(tab.locator(".lane").nth(0)).to_have_class("lane")
        expect(tab.locator("#bar-estimate")).to_contain_text("30 faces, about 45 s")
        tab.get_by_label("Restore from").fill("0:00.7")
        tab.get_by_label("Restore from").press("Enter")
        expect(tab.locator("#bar-estimate")).to_contain_text("15 faces, about 21 s")

        tab.get_by_role("button", name=re.compile("^Show this moment")).click()
        expect(tab.locator("#loop-after")).to_have_js_property("paused", False)
        assert loops_together(tab, 20, 0.5 / RATE)

        (page.steering / "hold").touch()
        restorer_button(tab).click()
        job = row(tab, "Grandma 1987-clear.mp4")
        expect(job).to_contain_text(re.compile(r"Restoring faces: \d+ %"))
        (page.steering / "hold").unlink()
        expect(job).to_contain_text("Done")
        expect(job).to_contain_text("Anna")
        expect(tab.locator("#stage")).to_have_attribute("data-mode", "wipe")
        command = next(each for each in page.commands() if each[0] == "restore")
        assert command[command.index("--people") + 1] == "1"
        assert hosts(page) == {"127.0.0.1"}


def test_times_count_from_the_first_frame_of_a_file(tmp_path, browser, expect, tape):
    """On the clock of the file, which the elements of a browser show, it may come later than 0."""
    with served(tmp_path) as page:
        (page.steering / "first").write_text("0.25")
        tab = browser.open(page)
        drop(tab, [tape])
        tab.get_by_role("button", name="Go to the clearest view of Person 1").click()
        expect(tab.locator("#time")).to_have_text("0:00.4")
        at = tab.locator("#before").evaluate("video => video.currentTime")
        assert at == pytest.approx(0.4 + 0.25, abs=0.01)


BAR_SHARE = "document.getElementById('bar').offsetHeight / innerHeight"
TOO_WIDE_PX = "document.documentElement.scrollWidth - innerWidth"


def test_a_long_name_makes_no_room_scarce(tmp_path, browser, expect, tape):
    """The bar with Restore stays in view, so what it names must not fill the window."""
    name = f"{'Geburtstag' * 15} 日本.mp4"
    shutil.copy(tape, videos_of(tmp_path) / name)
    with served(tmp_path) as page:
        tab = browser.open(page)
        choose_here(tab, name)
        expect(tab.locator("#bar-estimate")).to_contain_text("45 faces")
        restorer_button(tab).click()
        expect(tab.locator("#started")).to_contain_text("is in your list")
        where = tab.locator("#bar-where")
        expect(where).to_have_attribute("title", re.compile("^~/Videos/Geb.*-clear-2.mp4$"))
        for width, most in ((1440, 0.25), (1024, 0.25), (390, 0.3), (320, 0.4)):
            tab.set_viewport_size({"width": width, "height": 800})
            assert tab.evaluate(BAR_SHARE) < most, width
            assert tab.evaluate(TOO_WIDE_PX) <= 0, width


def test_a_folder_that_is_dropped_is_refused_in_a_sentence(tmp_path, browser, expect):
    folder = tmp_path / "Tapes"
    folder.mkdir()
    with served(tmp_path) as page:
        tab = browser.open(page)
        mouse = tab.context.new_cdp_session(tab)
        data = {"items": [], "files": [str(folder)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            mouse.send("Input.dispatchDragEvent", {"type": kind, "x": 400, "y": 300, "data": data})
        row = tab.get_by_role("list", name="Files on their way").get_by_role("listitem")
        expect(row.get_by_role("alert")).to_have_text(
            "This is a folder. Open it, then drop the videos that are in it."
        )
        expect(row.get_by_role("button", name="Try again")).to_be_hidden()
        assert not any("/api/videos" in url for url in page.requests)


def test_what_a_page_says_that_lost_its_cookie_or_cannot_show_a_picture(tmp_path, browser, expect):
    (videos_of(tmp_path) / "scan.tif").write_bytes(b"what no browser shows")
    with served(tmp_path) as page:
        tab = browser.open(page)
        choose_here(tab, "scan.tif")
        tab.get_by_role("button", name="Show before and after").click()
        expect(tab.locator("#moment-text")).to_contain_text(
            "This browser cannot show this kind of picture."
        )
        expect(tab.locator("#loop-still-before")).to_be_hidden()
        tab.context.clear_cookies()
        expect(tab.get_by_text("To open the page, use the whole address")).to_be_visible()
        expect(restorer_button(tab)).to_have_accessible_description(
            "Open the page anew; see above."
        )


SLOW_FOLDERS = """() => {
    const answered = window.fetch;
    const delays = [100, 500, 100, 300];
    window.fetch = async (...request) => {
        const delay = `${request[0]}`.includes("/api/folders") ? delays.shift() ?? 0 : 0;
        await new Promise((resolve) => setTimeout(resolve, delay));
        return answered(...request);
    };
}"""


# A clip of a second would have ended before a busy machine has looked at the buttons.
SLOW_PLAY = """() => {
    const media = HTMLMediaElement.prototype;
    const { get, set } = Object.getOwnPropertyDescriptor(media, "playbackRate");
    Object.defineProperty(media, "playbackRate", {
        get() { return 16 * get.call(this); },
        set(rate) { set.call(this, rate / 16); },
    });
}"""


def test_it_works_by_keys_alone(tmp_path, browser, expect):
    write_clip(videos_of(tmp_path) / "a tape.mp4", seconds=STAND_IN_SECONDS)
    with served(tmp_path) as page:
        tab = browser.open(page)
        tab.evaluate(SLOW_FOLDERS)
        tab.evaluate(SLOW_PLAY)
        keys = tab.keyboard

        def tab_to(target: Any) -> None:
            for _ in range(80):
                if target.evaluate("element => element === document.activeElement"):
                    return
                keys.press("Tab")
            pytest.fail(f"no way to {target} by Tab")

        tab_to(tab.get_by_role("button", name="Choose on this computer"))
        keys.press("Enter")
        dialog = tab.get_by_role("dialog", name="Choose videos on this computer")
        expect(dialog).to_be_visible()
        tab.wait_for_timeout(200)  # the folders are on their way when the dialog is closed
        keys.press("Escape")
        expect(dialog).to_be_hidden()
        expect(tab.get_by_role("button", name="Choose on this computer")).to_be_focused()
        keys.press("Enter")
        rows = dialog.get_by_role("list", name="Folders and files").get_by_role("button")
        expect(rows.first).to_be_focused()
        keys.press("v")
        expect(dialog.get_by_role("button", name="Videos", exact=True)).to_be_focused()
        keys.press("Enter")
        expect(dialog.get_by_role("button", name=re.compile("^a tape"))).to_be_focused()
        for _ in range(12):  # the focus stays in the dialog
            keys.press("Tab")
            assert tab.evaluate(HAS_FOCUS_IN_DIALOG)
        file = dialog.get_by_role("button", name=re.compile("^a tape"))
        file.focus()
        keys.press(" ")
        expect(file).to_have_attribute("aria-pressed", "true")
        expect(dialog.get_by_role("button", name="Open", exact=True)).to_be_enabled()
        keys.press(" ")
        expect(file).to_have_attribute("aria-pressed", "false")
        expect(dialog.get_by_role("button", name="Open", exact=True)).to_be_disabled()
        keys.press("Enter")
        expect(dialog).to_be_hidden()
        expect(tab.locator("#bar-estimate")).to_contain_text("45 faces")

        place = tab.get_by_role("slider", name="Place in the video")
        tab_to(tab.locator("#stage"))
        keys.press(".")
        expect(place).to_have_attribute("aria-valuenow", re.compile(r"^0\.0[4-7]"))
        keys.press(".")
        keys.press(",")
        expect(place).to_have_attribute("aria-valuenow", re.compile(r"^0\.0[4-7]"))
        # A step that is still under way does not undo what was pressed after it.
        for key in (".", ",", "End"):
            keys.press(key)
        expect(place).to_have_attribute("aria-valuetext", "0:01.2")
        for key in (",", ",", "Home"):
            keys.press(key)
        expect(place).to_have_attribute("aria-valuetext", "0:00.0")
        keys.press("End")
        keys.press("Home")
        expect(place).to_have_attribute("aria-valuetext", "0:00.0")
        keys.press(" ")
        expect(tab.get_by_role("button", name="Pause", exact=True)).to_be_visible()
        keys.press(" ")
        keys.press("Home")
        start = tab.get_by_role("slider", name="Beginning of the part to be restored")
        tab_to(start)
        keys.press("ArrowRight")
        expect(tab.get_by_label("Restore from")).to_have_value("0:00.5")
        strength = tab.get_by_label("Strength")
        tab_to(strength)
        keys.press("ArrowLeft")
        expect(tab.locator("#strength-value")).to_have_text("65 %")
        tab_to(restorer_button(tab))
        keys.press("Enter")
        job = row(tab, "a tape-clear.mp4")
        expect(job).to_contain_text("Done")
        expect(tab.locator("#stage")).to_have_attribute("data-mode", "wipe")
        tab_to(job.get_by_role("button", name=re.compile("^Compare")))
        keys.press("Enter")
        expect(tab.locator("#stage")).to_be_focused()
        border = tab.get_by_role("slider", name="Border between before and after")
        tab_to(border)
        keys.press("ArrowLeft")
        expect(border).to_have_attribute("aria-valuenow", "48")
        keys.down("b")
        expect(tab.locator("#after")).to_be_hidden()
        expect(tab.get_by_role("button", name="Hold for before", pressed=True)).to_be_visible()
        keys.up("b")
        expect(tab.locator("#after")).to_be_visible()


@contextmanager
def ended_at_the_end(page: Served) -> Iterator[Served]:
    """A page that was started by itself; its program is ended also if the test fails."""
    try:
        yield page
    finally:
        page.process.kill()
        page.process.wait()
        page.process.stdout.close()


def test_what_goes_wrong_is_said_where_it_belongs(tmp_path, browser, expect, tape):
    with served(tmp_path, warning="") as page:
        tab = browser.open(page)
        failure = page.steering / "fail-analyze"
        failure.write_text("there is no video in letter.mp4")
        drop(tab, [tape])
        people = tab.get_by_role("region", name="People")
        expect(people.get_by_role("alert")).to_contain_text("There is no video in")
        expect(restorer_button(tab)).to_have_attribute("aria-disabled", "true")
        expect(restorer_button(tab)).to_have_accessible_description(
            "This video cannot be restored."
        )
        failure.unlink()
        people.get_by_role("button", name="Look again").click()
        expect(people.get_by_label("Restore Person 1")).to_be_checked()

        people.get_by_role("button", name="None").click()
        expect(restorer_button(tab)).to_have_accessible_description("Choose at least one person.")
        people.get_by_role("button", name="All").click()
        expect(restorer_button(tab)).not_to_have_attribute("aria-disabled", "true")

        field = tab.get_by_label("to", exact=True)
        field.fill("tomorrow")
        field.press("Enter")
        expect(tab.get_by_role("group", name="Timeline").get_by_role("alert")).to_have_text(
            "“tomorrow” is no time. Write minutes and seconds, such as 1:15.0."
        )
        tab.get_by_role("button", name="Whole video").click(force=True)

        tab.get_by_text("More", exact=True).click()
        tab.get_by_label("Repaint at 512").check()
        expect(restorer_button(tab)).to_have_accessible_description(re.compile("downloaded first"))
        (page.steering / "fail-weights").write_text("gpen-512 could not be fetched")
        download = tab.get_by_role("button", name="Download GPEN 512")
        expect(tab.get_by_text("non-commercial use only")).to_be_visible()
        download.click()
        expect(tab.locator(".weights").get_by_role("alert")).to_contain_text("The download failed")
        tab.get_by_label("Gentle").check()

        (videos_of(tmp_path) / "there.mp4").write_text("a file of the user")
        tab.get_by_role("button", name="Change where it is saved").click()
        dialog = tab.get_by_role("dialog", name="Where the new video goes")
        dialog.get_by_label("Name of the file").fill("a/b.mp4")
        dialog.get_by_role("button", name="Save here").click()
        expect(dialog.get_by_role("alert")).to_be_visible()
        dialog.get_by_label("Name of the file").fill("there.mp4")
        expect(dialog.locator("[aria-current=location]")).to_have_text("Videos")
        expect(dialog.get_by_text("It is saved in ~/Videos.")).to_be_visible()
        dialog.get_by_role("button", name="Save here").click()
        tab.get_by_role("button", name="Use this name").click()
        expect(tab.get_by_text("This file exists.")).to_be_visible()
        restorer_button(tab).click()
        question = tab.get_by_role("dialog", name="Replace the file?")
        expect(question.get_by_role("button", name="Cancel")).to_be_focused()
        tab.keyboard.press("Escape")
        expect(tab.locator("#restorations li")).to_have_count(0)
        assert (videos_of(tmp_path) / "there.mp4").read_text() == "a file of the user"
        (page.steering / "fail-restore").write_text("/home/x/there.mp4 cannot be written to")
        restorer_button(tab).click()
        question.get_by_role("button", name="Replace").click()
        job = row(tab, "there.mp4")
        expect(job).to_contain_text("cannot be written to")
        (page.steering / "fail-restore").unlink()
        job.get_by_role("button", name=re.compile("^Try again")).click()
        expect(job).to_contain_text("Done")
        assert (videos_of(tmp_path) / "there.mp4").read_bytes() == tape.read_bytes()


@pytest.mark.long
def test_the_page_comes_back_after_the_program_was_killed(tmp_path, browser, expect, tape):
    with ended_at_the_end(started(tmp_path)) as page:
        tab = browser.open(page)
        drop(tab, [tape])
        expect(tab.locator("#bar-estimate")).to_contain_text("45 faces")
        tab.get_by_label("Name of person 2").fill("Ben")
        tab.get_by_label("Name of person 2").press("Enter")
        (page.steering / "hold").touch()
        restorer_button(tab).click()
        job = row(tab, "Grandma 1987-clear.mp4")
        expect(job).to_contain_text("Running", timeout=LONG_MS)
        expect(job).to_contain_text(re.compile(r"Restoring faces: \d+ %"), timeout=LONG_MS)
        page.process.send_signal(signal.SIGKILL)
        trouble = tab.get_by_text("The program that serves this page has ended.")
        expect(trouble).to_be_visible()
        expect(restorer_button(tab)).to_have_attribute("aria-disabled", "true")
        drop(tab, [tape])
        sent = tab.get_by_role("list", name="Files on their way")
        expect(sent.get_by_role("alert")).to_be_visible()
    with ended_at_the_end(started(tmp_path)) as page:
        expect(trouble).to_be_hidden()
        expect(job).to_contain_text("Running")
        expect(tab.get_by_label("Name of person 2")).to_have_value("Ben")
        job.get_by_role("button", name=re.compile("^Pause")).click()
        expect(job).to_contain_text("Paused")
        (page.steering / "hold").unlink()
        job.get_by_role("button", name=re.compile("^Continue")).click()
        expect(job).to_contain_text("Done")
        assert page.end() == 0


def test_a_finger_moves_the_line_and_scrolls_the_page(tmp_path, browser, expect, tape):
    with served(tmp_path) as page:
        tab = browser.open(page, PHONE, has_touch=True, is_mobile=True)
        drop(tab, [tape])
        restorer_button(tab).tap()
        job = row(tab, "Grandma 1987-clear.mp4")
        expect(job).to_contain_text("Done")
        job.get_by_role("button", name="Compare").tap()
        line = tab.get_by_role("slider", name="Border between before and after")
        expect(line).to_have_attribute("aria-valuenow", "50")
        tab.evaluate("document.getElementById('player').scrollIntoView({behavior: 'instant'})")
        finger = tab.context.new_cdp_session(tab)

        def drag(what: Any, right: int, down: int) -> None:
            """Move a finger from the middle of an element by pixels."""
            box = what.bounding_box()
            x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
            for kind, share in (("Start", 0), *(("Move", n / 8) for n in range(1, 9)), ("End", 1)):
                at = [{"x": x + share * right, "y": y + share * down}]
                points = {"type": f"touch{kind}", "touchPoints": at if kind != "End" else []}
                finger.send("Input.dispatchTouchEvent", points)

        drag(line, -80, 0)
        expect(line).to_have_attribute("aria-valuenow", re.compile(r"^2\d(\.|$)"))
        place = tab.get_by_role("slider", name="Place in the video")
        drag(place, 100, 0)
        expect(tab.locator("#time")).not_to_have_text("0:00.0")
        for what in ("#after", "#lane-bars"):
            before = tab.evaluate("scrollY")
            drag(tab.locator(what), 0, -120)
            wait_until(tab, f"scrollY > {before} + 50")


@pytest.mark.long
def test_two_tabs_show_videos_of_their_own_and_one_list(tmp_path, browser, expect, tape):
    other = write_clip(tmp_path / "tape 2.mp4", seconds=STAND_IN_SECONDS)
    with served(tmp_path) as page:
        first = browser.open(page)
        drop(first, [tape, other])
        second = browser.tab(page, first.context, page.address)
        second.get_by_role("button", name=re.compile("^tape 2.mp4")).click()
        expect(first.get_by_role("heading", name=tape.name, exact=True)).to_be_visible()
        expect(second.get_by_role("heading", name="tape 2.mp4", exact=True)).to_be_visible()
        second.reload()
        expect(second.get_by_role("heading", name="tape 2.mp4", exact=True)).to_be_visible()

        first.get_by_role("button", name=re.compile("^tape 2.mp4")).click()
        first.get_by_label("Name of person 1").fill("Anna")
        first.get_by_label("Name of person 1").press("Enter")
        expect(second.get_by_label("Name of person 1")).to_have_value("Anna")
        first.get_by_label("Strength").fill("0.5")
        expect(second.locator("#strength-value")).to_have_text("50 %")
        second.get_by_label("Film scan or master").check()
        expect(first.get_by_label("Film scan or master")).to_be_checked()
        expect(first.locator("#bar-where")).to_have_text("~/Videos/tape 2-clear.mkv")
        restorer_button(second).click()
        expect(row(first, "tape 2-clear.mkv")).to_contain_text("Done")

        stranger = browser.open(page)  # served to this machine only, so it is the same user
        expect(row(stranger, "tape 2-clear.mkv")).to_be_visible()


# But for what turns without an end, such as the sign of work.
IS_STILL = """
document.getAnimations().every(
  (each) => each.playState !== "running" || each.effect.getComputedTiming().iterations === Infinity)
"""


class Looked:
    """What was seen in the states of the page; pictures go to $PAGE_PICTURES if that is set."""

    def __init__(self, tab: Any, name: str) -> None:
        self.tab = tab
        self.name = name
        self.faults: list[str] = []

    def __call__(self, state: str) -> None:
        wait_until(self.tab, IS_STILL)  # colors may be on their way
        self.faults += [f"{state}: {found}" for found in violations(self.tab)]
        too_wide = self.tab.evaluate("document.documentElement.scrollWidth - innerWidth")
        if too_wide > 0:
            self.faults.append(f"{state}: {too_wide} px wider than the window")
        if folder := os.environ.get("PAGE_PICTURES"):
            self.tab.screenshot(path=Path(folder, f"{state}-{self.name}.png"))


@pytest.mark.long
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, TABLET, PHONE])
def test_axe_finds_nothing_serious(tmp_path, browser, expect, tape, scheme, size):
    (videos_of(tmp_path) / "1994").mkdir()
    shutil.copy(tape, videos_of(tmp_path) / "tape 3.mp4")
    with served(tmp_path) as page:
        tab = browser.open(page, size, scheme=scheme)
        look = Looked(tab, f"{size[0]}-{scheme}")
        hold = page.steering / "hold"
        look("empty")
        tab.get_by_role("button", name="Choose on this computer").click()
        dialog = tab.get_by_role("dialog", name="Choose videos on this computer")
        dialog.get_by_role("button", name="Videos", exact=True).click()
        dialog.get_by_role("button", name=re.compile("^tape 3")).click()
        look("folders")
        hold.touch()
        dialog.get_by_role("button", name="Open", exact=True).click()
        expect(tab.locator("#people-text")).to_contain_text("Looking for faces")
        look("analyzing")
        hold.unlink()
        expect(tab.locator("#bar-estimate")).to_contain_text("about")
        look("ready")
        tab.get_by_text("More", exact=True).click()
        tab.get_by_label("Repaint at 512").check()
        expect(tab.get_by_role("button", name="Download GPEN 512")).to_be_visible()
        look("weights")
        tab.get_by_label("Gentle").check()
        tab.get_by_label("Restore Person 2").uncheck()
        tab.get_by_label("Restore from").fill("0:00.4")
        tab.get_by_label("Restore from").press("Enter")
        expect(tab.locator("#bar-estimate")).to_contain_text("18 faces")
        hold.touch()
        tab.get_by_role("button", name=re.compile("^Show this moment")).click()
        expect(tab.locator("#moment-bar")).to_be_visible()
        look("moment-running")
        hold.unlink()
        expect(tab.locator("#loop-after")).to_have_js_property("paused", False)
        look("moment")
        tab.get_by_role("button", name="Keys of the player").click()
        look("keys")
        tab.keyboard.press("Escape")
        tab.get_by_role("button", name="Change where it is saved").click()
        expect(tab.get_by_text("It is saved in")).to_be_visible()
        look("target")
        tab.keyboard.press("Escape")
        hold.touch()
        restorer_button(tab).click()
        job = row(tab, "tape 3-clear.mp4")
        job.get_by_role("button", name=re.compile("^Pause")).click()
        expect(job).to_contain_text("Paused")
        look("paused")
        job.get_by_role("button", name=re.compile("^Continue")).click()
        expect(job).to_contain_text(re.compile(r"Restoring faces: \d+ %"))
        look("running")
        hold.unlink()
        expect(job).to_contain_text("Done")
        look("done")
        tab.get_by_label("Side by side").check()
        look("side")
        job.get_by_role("button", name=re.compile("^Remove")).click()
        look("remove")
        tab.keyboard.press("Escape")
        drop(tab, [tape])
        expect(tab.locator("#videos li")).to_have_count(2)
        tab.get_by_role("button", name="Free space").click()
        look("space")
        tab.keyboard.press("Escape")
        (page.steering / "fail-analyze").write_text("there is no video in it")
        tab.get_by_label("Face swap").check()
        expect(tab.get_by_role("region", name="People").get_by_role("alert")).to_be_visible()
        look("failed")
        tab.route("**/api/state*", lambda route: route.abort())
        expect(tab.get_by_text("The program that serves this page has ended.")).to_be_visible()
        look("gone")
        assert look.faults == []


LONG_MS = 600_000
"""For work on a machine that others use too."""


@pytest.fixture
def weights(shared: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "weights"
    folder.mkdir()
    for name in ("face_detection_yunet_2023mar.onnx", "face_landmark.tflite"):
        if not (shared / "models" / name).exists():
            pytest.skip(f"there is no {name} in {shared / 'models'}")
        shutil.copy(shared / "models" / name, folder)
    return folder


def write_part(source: Path, target: Path, frames: int) -> Path:
    """Write the beginning of a real clip, small."""
    with av.open(str(source)) as whole, av.open(str(target), "w") as part:
        stream = part.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 480, 270, "yuv420p"
        for frame, _ in zip(whole.decode(video=0), range(frames), strict=False):
            part.mux(stream.encode(frame.reformat(480, 270, "yuv420p")))
        part.mux(stream.encode(None))
    return target


def write_opener(folder: Path) -> Path:
    """Write a program in the place of the desktop's, which notes what it is asked to open."""
    opener = folder / "xdg-open"
    opened = folder / "opened"
    opener.write_text(f'#!/bin/sh\nprintf %s "$1" > {opened}.new && mv {opened}.new {opened}\n')
    opener.chmod(0o755)
    return opened


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="the stand-in for xdg-open is for Linux")
def test_the_whole_way(tmp_path, browser, expect, shared, weights, monkeypatch):
    opened = write_opener(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    clip = shared / "clips/lp_s18.mp4"
    dropped = [
        write_part(clip, tmp_path / "grandma.mp4", 40),
        write_part(clip, tmp_path / "grandpa.mp4", 20),
    ]
    write_part(clip, videos_of(tmp_path) / "Tape 12.mp4", 120)
    options = ("--weights", str(weights))
    hold = tmp_path / "hold"
    monkeypatch.setenv(holding.VARIABLE, str(hold))
    with ended_at_the_end(started(tmp_path, *options, is_real=True)) as page:
        tab = browser.open(page)
        drop(tab, dropped)
        choose_here(tab, "Tape 12.mp4")
        expect(tab.locator("#videos li")).to_have_count(3)
        expect(tab.get_by_role("heading", name="Tape 12.mp4", exact=True)).to_be_visible()
        person = tab.get_by_label("Name of person 1")
        expect(person).to_be_visible(timeout=LONG_MS)
        person.fill("Anna")
        person.press("Enter")
        expect(tab.get_by_label("Restore Anna")).to_be_checked()
        assert tab.locator(".person img").first.evaluate("image => image.naturalWidth") > 0
        expect(tab.locator("#bar-estimate")).to_have_text(
            re.compile(r"^1\d\d faces, about \d+ (s|min) on this machine$"), timeout=LONG_MS
        )

        tab.locator("#stage").focus()
        tab.keyboard.press("Shift+ArrowRight")
        tab.get_by_role("button", name="Show this moment (0:01.0)").click()
        expect(tab.locator("#loop-after")).to_have_js_property("paused", False, timeout=LONG_MS)
        assert tab.locator("#loop-before").evaluate("video => video.videoWidth") == 480
        assert loops_together(tab, 40, 0.5 / 30)

        tab.keyboard.press("i")
        tab.get_by_label("to", exact=True).fill("0:03.5")
        tab.get_by_label("to", exact=True).press("Enter")
        expect(tab.locator("#bar-estimate")).to_contain_text(re.compile(r"^7\d faces"))
        hold.touch()
        restorer_button(tab).click()
        job = row(tab, "Tape 12-clear.mp4")
        expect(job).to_contain_text(re.compile(r"Restoring faces: \d+ %"), timeout=LONG_MS)
        expect(job.get_by_role("img", name="The newest picture")).to_be_visible(timeout=LONG_MS)
        job.get_by_role("button", name=re.compile("^Pause")).click()
        expect(job).to_contain_text("Paused", timeout=LONG_MS)
        job.get_by_role("button", name=re.compile("^Continue")).click()
        expect(job).to_contain_text("Running", timeout=LONG_MS)
        expect(job).to_contain_text(re.compile(r"Restoring faces: \d+ %"), timeout=LONG_MS)
        page.process.send_signal(signal.SIGKILL)
        trouble = tab.get_by_text("The program that serves this page has ended.")
        expect(trouble).to_be_visible()
    with ended_at_the_end(started(tmp_path, *options, is_real=True)) as page:
        expect(trouble).to_be_hidden()
        expect(job).to_contain_text("Running", timeout=LONG_MS)
        expect(job).to_contain_text(re.compile(r"Restoring faces: \d+ %"), timeout=LONG_MS)
        hold.unlink()
        expect(job).to_contain_text("Done", timeout=LONG_MS)
        result = videos_of(tmp_path) / "Tape 12-clear.mp4"
        with av.open(str(result)) as container:
            assert 70 <= sum(1 for _ in container.decode(video=0)) <= 80

        job.get_by_role("button", name=re.compile("^Play")).click()
        expect(tab.locator("#stage")).to_have_attribute("data-mode", "after")
        expect(tab.locator("#after")).to_have_js_property("videoWidth", 480)
        job.get_by_role("button", name=re.compile("^Compare")).click()
        expect(tab.locator("#stage")).to_have_attribute("data-mode", "wipe")
        assert videos_together(tab, 1.0, 25, 0.5 / 30)

        with tab.expect_popup() as popup:
            job.get_by_role("link", name=re.compile("^Report")).click()
        expect(popup.value.locator("body")).to_contain_text("Tape 12")
        job.get_by_role("button", name=re.compile("^Show in folder")).click()
        expect(job.get_by_role("alert")).to_be_hidden()
        while not opened.exists():
            tab.wait_for_timeout(50)
        assert opened.read_text() == str(videos_of(tmp_path))
        tab.request.get(f"{page.address}/")
        assert page.end() == 0
    assert (tmp_path / "blocked.log").read_text() == ""


@pytest.mark.long
def test_a_visitor_of_a_page_for_others_downloads_the_result(tmp_path, browser, expect, tape):
    with served(tmp_path, "--host", "0.0.0.0", warning="encrypted") as page:
        page.entry = page.entry.replace("0.0.0.0", "127.0.0.1")
        tab = browser.open(page)
        expect(tab.get_by_role("button", name="Choose on this computer")).to_be_hidden()
        drop(tab, [tape])
        expect(tab.locator("#bar-estimate")).to_contain_text("45 faces")
        restorer_button(tab).click()
        job = row(tab, "Grandma 1987-clear.mp4")
        expect(job).to_contain_text("Done")
        expect(job.get_by_role("button", name=re.compile("^Show in folder"))).to_be_hidden()
        with tab.expect_download() as download:
            job.get_by_role("link", name=re.compile("^Download")).click()
        download.value.save_as(tmp_path / "result.mp4")
        assert download.value.suggested_filename == "Grandma 1987-clear.mp4"
        assert (tmp_path / "result.mp4").read_bytes() == tape.read_bytes()

        job.get_by_role("button", name=re.compile("^Remove")).click()
        question = tab.get_by_role("dialog", name="Remove Grandma 1987-clear.mp4?")
        expect(question).to_contain_text("is deleted from this page's folder")
        question.get_by_role("button", name="Delete").click()
        expect(job).to_be_hidden()
