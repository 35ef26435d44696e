"""The page in Chromium: opens it, gives it files, looks with axe, and notes what goes wrong."""

import base64
import shutil
import time
import urllib.parse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from helpers.served_page import SECONDS, Served

DESKTOP = (1440, 900)
TABLET = (1024, 768)
PHONE = (390, 844)
SERIOUS = ("serious", "critical")
IS_EXPECTED = ("Failed to load resource", "net::ERR_")
"""Beginnings of what Chromium says in its console about an answer that is an error, or none."""

# Files become one transfer of data, as if they were dragged from a file manager.
_DROP = """
([target, files]) => {
  const transfer = new DataTransfer();
  for (const [name, text] of files) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    transfer.items.add(new File([bytes], name));
  }
  for (const kind of ["dragenter", "dragover", "drop"]) {
    const event = new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true });
    document.querySelector(target).dispatchEvent(event);
  }
}
"""
# Distances in time, in seconds, while both videos play. Both times are read in one moment. On a
# busy machine the videos may end before there are as many as wanted.
_DISTANCES = """
([before, after, offset, count]) => new Promise((resolve) => {
  const [first, second] = [document.querySelector(before), document.querySelector(after)];
  const found = [];
  const look = () => {
    if (!first.paused && !second.paused) {
      found.push(first.currentTime - second.currentTime - offset);
    }
    if (found.length === count || (found.length && first.ended)) resolve(found);
    else setTimeout(look, 50);
  };
  look();
})
"""


@dataclass
class Browser:
    """Chromium, and what its tabs complained about."""

    chromium: Any
    complaints: list[str] = field(default_factory=list)

    def open(
        self, page: Served, size: tuple[int, int] = DESKTOP, *, scheme: str = "light", **more: Any
    ) -> Any:
        """Return a tab of a browser of its own that shows the page.

        Args:
            page: The page.
            size: The width and height of the window, in pixels.
            scheme: "light" or "dark", as the system would say.
            more: More settings of Playwright's `new_context`.
        """
        width, height = size
        context = self.chromium.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, **more
        )
        return self.tab(page, context, page.entry)

    def tab(self, page: Served, context: Any, address: str) -> Any:
        """Return one more tab of a browser."""
        tab = context.new_page()
        tab.set_default_timeout(1000 * SECONDS)
        tab.on("request", lambda request: page.requests.append(request.url))
        tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        tab.on("console", self._note)
        tab.goto(address)
        tab.locator("body:not([data-view=loading])").wait_for()
        return tab

    def _note(self, message: Any) -> None:
        is_bad = message.type in ("error", "warning")
        if is_bad and not any(known in message.text for known in IS_EXPECTED):
            self.complaints.append(message.text)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's Chromium; at the end it must have had nothing to complain about."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("there is no chromium to open the page in")
    playwright.expect.set_options(timeout=1000 * SECONDS)
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        browser = Browser(launched)
        yield browser
        launched.close()
    assert browser.complaints == []


def drop(tab: Any, files: Sequence[Path]) -> None:
    """Drop files on the page."""
    given = [[path.name, base64.b64encode(path.read_bytes()).decode()] for path in files]
    tab.evaluate(_DROP, ["#drop", given])


def wait_until(tab: Any, script: str, given: Any = None) -> None:
    """Wait until a script gives true. Playwright's own way to wait is one that the page forbids."""
    deadline = time.monotonic() + SECONDS
    while not tab.evaluate(script, given):
        assert time.monotonic() < deadline, script
        tab.wait_for_timeout(50)


def distances_seconds(tab: Any, before: str, after: str, offset: float, count: int) -> np.ndarray:
    """Measure how far apart two playing videos are.

    Args:
        tab: The tab.
        before: What selects the video of the source.
        after: What selects that of the result.
        offset: Where the result begins in the source, in seconds.
        count: The most measurements, which are 50 ms apart.

    Returns:
        The distances in seconds.
    """
    return np.array(tab.evaluate(_DISTANCES, [before, after, offset, count]))


def violations(tab: Any) -> list[str]:
    """Return the serious and critical violations that axe finds, with the elements."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe")
    return [
        f"{found['id']}: {node['html'][:160]} ({node['failureSummary'][:200]})"
        for found in axe.Axe().run(tab).response["violations"]
        if found["impact"] in SERIOUS
        for node in found["nodes"]
    ]


def write_clip(path: Path, *, seconds: float = 3.0, size: tuple[int, int] = (320, 240)) -> Path:
    """Write a small video that browsers play, with sound, at 25 frames a second."""
    rate, hertz = 25, 48000
    width, height = size
    with av.open(str(path), "w") as target:
        video = target.add_stream("libx264", rate=rate, options={"g": "12", "crf": "30"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        audio = target.add_stream("aac", rate=hertz, layout="mono")
        rows, columns = np.mgrid[0:height, 0:width]
        for number in range(round(seconds * rate)):
            picture = np.stack([(rows + 4 * number) % 256, columns % 256, rows * 0 + 90], axis=-1)
            frame = av.VideoFrame.from_ndarray(picture.astype(np.uint8), "rgb24")
            target.mux(video.encode(frame))
        target.mux(video.encode(None))
        times = np.arange(round(seconds * hertz)) / hertz
        tone = (0.1 * np.sin(2 * np.pi * 220 * times)).astype(np.float32)[np.newaxis]
        sound = av.AudioFrame.from_ndarray(tone, "fltp", layout="mono")
        sound.sample_rate = hertz
        target.mux(audio.encode(sound))
        target.mux(audio.encode(None))
    return path


def hosts(page: Served) -> set[str | None]:
    """Return the hosts that the browsers asked."""
    return {urllib.parse.urlsplit(url).hostname for url in page.requests}
